"""What a request for a WebSocket has to have (RFC 6455, section 4.2.1).

Knows methods and headers only.
"""

import base64
import binascii
from typing import Final

from .headers import Headers, comma_list, is_token

__all__ = ("VERSION", "WRONG_VERSION", "asks_for_websocket", "upgrade_fault")

VERSION: Final = "13"
"""The version of the protocol."""
WRONG_VERSION: Final = (
    f"Only version {VERSION} of the WebSocket protocol is spoken here."
)
"""The fault that is told last, when all else is right."""


def asks_for_websocket(headers: Headers) -> bool:
    """Return whether ``Upgrade`` names WebSockets, well or not."""
    return "websocket" in _tokens(headers, "upgrade")


def upgrade_fault(method: str, headers: Headers) -> str | None:
    """Return what is wrong with a request for a WebSocket; `None` if nothing is."""
    if not asks_for_websocket(headers):
        return "The header 'Upgrade: websocket' is missing."
    if method != "GET":
        return "A WebSocket is opened with GET."
    if "upgrade" not in _tokens(headers, "connection"):
        return "The header 'Connection: Upgrade' is missing."
    if not _has_no_body(headers):
        return "A request for a WebSocket has no body."
    if not _is_key(headers.get("sec-websocket-key", "")):
        return "The header 'Sec-WebSocket-Key' is missing or wrong."
    if not all(map(is_token, comma_list(headers, "sec-websocket-protocol"))):
        return "The header 'Sec-WebSocket-Protocol' is no list of tokens."
    if headers.get("sec-websocket-version") != VERSION:
        return WRONG_VERSION
    return None


def _tokens(headers: Headers, name: str) -> list[str]:
    return [token.lower() for token in comma_list(headers, name)]


def _has_no_body(headers: Headers) -> bool:
    length = headers.get("content-length", "0")
    return "transfer-encoding" not in headers and not length.strip("0")


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False

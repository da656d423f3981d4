"""The opening handshake of a WebSocket in terms of HTTP: the request, and the answer.

Knows methods and headers only. RFC 6455 specifies the request in section 4.2.1, and the
server's answer in section 4.2.2.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Final

import attrs

from .headers import Headers, comma_list, is_token

__all__ = (
    "VERSION",
    "WRONG_VERSION",
    "UpgradeAnswer",
    "asks_for_websocket",
    "check_upgrade_answer",
    "upgrade_fault",
)

VERSION: Final = "13"
"""The version of the WebSocket protocol (RFC 6455)."""
WRONG_VERSION: Final = f"Only version {VERSION} of the WebSocket protocol is supported."
"""The fault that is reported last, if nothing else is wrong."""

_HEADERS_OF_THE_SERVER: Final = frozenset(
    {
        "connection",
        "content-length",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers of a 101 that the server sets."""


def asks_for_websocket(headers: Headers) -> bool:
    """Return whether ``Upgrade`` contains ``websocket``; the rest may be invalid."""
    return "websocket" in _tokens(headers, "upgrade")


def upgrade_fault(method: str, headers: Headers) -> str | None:
    """Return what is wrong with an upgrade request; `None` if it is valid."""
    if not asks_for_websocket(headers):
        return "The header 'Upgrade: websocket' is missing."
    if method != "GET":
        return "The method of a request for a WebSocket must be GET."
    if "upgrade" not in _tokens(headers, "connection"):
        return "The header 'Connection: Upgrade' is missing."
    if not _has_no_body(headers):
        return "A request for a WebSocket must not have a body."
    if not _is_key(headers.get("sec-websocket-key", "")):
        return "The header 'Sec-WebSocket-Key' is missing or not valid."
    if not all(map(is_token, comma_list(headers, "sec-websocket-protocol"))):
        return "The header 'Sec-WebSocket-Protocol' is not a list of tokens."
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


# -- the answer ----------------------------------------------------------------------


@attrs.frozen
class UpgradeAnswer:
    """The answer to an upgrade request, from the 101 of a handler."""

    subprotocol: str | None
    """The chosen subprotocol."""
    headers: Headers
    """The other headers."""
    warning: tuple[str, str] | None
    """The kind and the text of a warning, if the choice of subprotocol is wrong."""


def check_upgrade_answer(headers: Headers, offered: Sequence[str]) -> UpgradeAnswer:
    """Check the headers of a handler's 101.

    Args:
        headers: The headers of the 101.
        offered: The subprotocols that the client offers.

    Raises:
        ValueError: The subprotocol was not offered, or there is a header that the
            server sets.
    """
    rest = Headers(headers)
    chosen = rest.pop("sec-websocket-protocol", None)
    for name in rest:
        if name in _HEADERS_OF_THE_SERVER:
            msg = f"the server sets the header {name!r} of a 101: leave it out"
            raise ValueError(msg)
    if chosen is not None and offered and chosen not in offered:
        # Those offered are not shown: pages may send secret tokens as subprotocols.
        what = "a list" if "," in chosen else f"{chosen!r}"
        msg = (
            f"fetch chose the subprotocol {what}, which the client does not offer: "
            "choose one of those in request.headers['Sec-WebSocket-Protocol']"
        )
        raise ValueError(msg)
    if chosen is not None and not offered:
        # Left out, since browsers fail the connection else (RFC 6455, section 4.2.2).
        what = (
            "the client offers no subprotocol, so that of fetch is not sent: "
            "set Sec-WebSocket-Protocol only if the request has that header"
        )
        return UpgradeAnswer(None, rest, ("no offer", what))
    if chosen is None and offered:
        what = (
            f"the client offers subprotocols ({len(offered)}) and fetch chose none: "
            "browsers fail such a connection. Choose one of those in "
            "request.headers['Sec-WebSocket-Protocol'] with headers="
            "{'Sec-WebSocket-Protocol': ...} in the Response"
        )
        return UpgradeAnswer(None, rest, ("subprotocol", what))
    return UpgradeAnswer(chosen, rest, None)

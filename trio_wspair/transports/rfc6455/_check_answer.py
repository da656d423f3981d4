"""The check of a server's 101 against RFC 6455, section 4.1.

Knows headers; no network. Both engines use this check.
"""

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from typing import Final

import attrs

from trio_wspair._http.headers import is_token
from trio_wspair._rules.display import quoted
from trio_wspair._rules.errors import HandshakeError

__all__ = ("Answer", "accept_for", "bad_answer", "check_answer")

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""Appended to the key before hashing (RFC 6455, section 1.3)."""


@attrs.frozen(slots=True)
class Answer:
    """A response with status 101."""

    headers: list[tuple[str, str]]
    """The names, in lower case, and values of the headers."""
    received: bytes
    """The bytes that were read after the response."""
    is_folded: bool
    """Whether a header continues in the next line (RFC 9112, section 5.2)."""

    def values(self, name: str) -> list[str]:
        """Return the values of a header, one for each line that has this name."""
        return [value.strip(" \t") for key, value in self.headers if key == name]


def accept_for(key: str) -> str:
    """Return the `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key`."""
    proof = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return b64encode(proof).decode()


def check_answer(
    answer: Answer,
    *,
    host: str,
    key: str,
    subprotocols: Sequence[str],
    extensions: bool = False,
) -> str:
    """Return the subprotocol that a 101 has chosen, or ``""``.

    Args:
        answer: The 101.
        host: The host and port of the server, for the error message.
        key: The `Sec-WebSocket-Key` of the request.
        subprotocols: The offered subprotocols.
        extensions: Whether extensions were offered. The engine checks their names and
            parameters.

    Raises:
        HandshakeError: The answer violates RFC 6455, section 4.1; the message names
            what is wrong.
    """
    wrong = _what_is_wrong(answer, key, subprotocols, extensions=extensions)
    if wrong is not None:
        raise bad_answer(host, wrong, answer.headers)
    return next(iter(answer.values("sec-websocket-protocol")), "")


def _what_is_wrong(
    answer: Answer, key: str, subprotocols: Sequence[str], *, extensions: bool
) -> str | None:
    if answer.is_folded:
        return "a header continues in the next line (RFC 9112, section 5.2)"
    upgrade = answer.values("upgrade")
    if [value.lower() for value in upgrade] != ["websocket"]:
        return f"'Upgrade: websocket' is required once, {_found(upgrade)}"
    connection = ",".join(answer.values("connection"))
    if "upgrade" not in [token.strip(" \t").lower() for token in connection.split(",")]:
        found = _found(answer.values("connection"))
        return f"'Connection: Upgrade' is required, {found}"
    accept = answer.values("sec-websocket-accept")
    if accept != [accept_for(key)]:
        found = _found(accept)
        return f"'Sec-WebSocket-Accept: {accept_for(key)}' is required once, {found}"
    chosen = answer.values("sec-websocket-protocol")
    if len(chosen) > 1:
        return "'Sec-WebSocket-Protocol' is allowed once only"
    if chosen and chosen[0] not in subprotocols:
        # A list is not shown, as it may repeat all offers, and one may be a secret.
        found = f' "{chosen[0][:60]}"' if is_token(chosen[0]) else ""
        return f"the subprotocol{found} was not offered"
    agreed = [value for value in answer.values("sec-websocket-extensions") if value]
    if agreed and not extensions:
        return f"no extension was offered, {_found(agreed)}"
    # RFC 9110, section 8.6, and RFC 9112, section 6.1. Some servers send length 0.
    lengths = set(answer.values("content-length"))
    if answer.values("transfer-encoding") or lengths - {"0"}:
        return "a 101 has no body: no 'Content-Length', no 'Transfer-Encoding'"
    return None


def _found(values: list[str]) -> str:
    shown = ", ".join(map(quoted, values[:3]))
    return f"not {shown}" if values else "but it is missing"


def bad_answer(
    host: str, why: str, headers: Sequence[tuple[str, str]] = ()
) -> HandshakeError:
    """Return the error for a 101 that opens no WebSocket."""
    what = "answered 101, but not as RFC 6455, section 4.1, requires"
    return HandshakeError(
        f"the server {host} {what}: {why}", status=101, headers=tuple(headers)
    )

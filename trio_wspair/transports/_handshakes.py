"""The opening handshake of both sides, by the package `websockets`.

Knows its public API for that, and HTTP heads as bytes; no network. What is returned is
a protocol object that is open: its parser sees frames only.
"""

from collections.abc import Sequence
from typing import Final

import attrs
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.extensions.permessage_deflate import (
    enable_client_permessage_deflate,
    enable_server_permessage_deflate,
)
from websockets.http11 import Request, Response
from websockets.protocol import Protocol, State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from ._answer import Answer, bad_answer

__all__ = ("Agreed", "Asking", "answer_request")

MAX_CONTROL_BYTES: Final = 125
_NOWHERE: Final = parse_uri("ws://localhost/")
"""Only the headers of a request are made by `websockets`."""

Pairs = Sequence[tuple[str, str]]
"""Names and values of headers."""


@attrs.frozen(slots=True)
class Agreed:
    """A handshake that is done."""

    protocol: Protocol
    subprotocol: str
    """The one that was agreed on, or ``""``."""
    extensions: str
    """Those that were agreed on, as the server has written them."""
    max_message_bytes: int


def answer_request(
    key: str,
    *,
    offered: str,
    subprotocol: str | None,
    headers: Pairs,
    max_message_bytes: int,
    compression: bool,
) -> tuple[Agreed, bytes]:
    """Return what is agreed on with a client whose request is good, and the 101.

    Args:
        key: The `Sec-WebSocket-Key` of the request.
        offered: Its `Sec-WebSocket-Extensions`.
        subprotocol: The one chosen of those offered, if any.
        headers: More headers for the answer.
        max_message_bytes: What a message may have.
        compression: Whether permessage-deflate may be agreed on.
    """
    protocol = ServerProtocol(
        extensions=enable_server_permessage_deflate(None) if compression else None,
        subprotocols=[Subprotocol(subprotocol)] if subprotocol is not None else None,
        state=State.OPEN,
        max_size=_max_size(max_message_bytes),
    )
    request = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key),
    ]
    if subprotocol is not None:
        request.append(("Sec-WebSocket-Protocol", subprotocol))
    offer = ("Sec-WebSocket-Extensions", offered)
    answer = protocol.accept(Request("/", Headers([*request, offer])))
    if answer.status_code != 101:  # What is offered makes no sense.
        answer = protocol.accept(Request("/", Headers(request)))
    extensions = answer.headers.get("Sec-WebSocket-Extensions", "")
    del answer.headers["Date"]  # A 101 needs none.
    head = Headers([*answer.headers.raw_items(), *headers])
    start = f"HTTP/1.1 101 Switching Protocols\r\n{head}"
    agreed = Agreed(protocol, subprotocol or "", extensions, max_message_bytes)
    return agreed, start.encode("latin-1")


class Asking:
    """A client's handshake: a request, to which the answer is awaited.

    Args:
        host: For the `Host` header, with the port unless that is the default.
        resource: The path and query.
        subprotocols: The ones offered.
        headers: More headers for the request.
        max_message_bytes: What a message may have.
        compression: Whether permessage-deflate is offered.
    """

    request: bytes

    def __init__(
        self,
        *,
        host: str,
        resource: str,
        subprotocols: Sequence[str],
        headers: Pairs,
        max_message_bytes: int,
        compression: bool,
    ) -> None:
        self._max_message_bytes = max_message_bytes
        self._protocol = ClientProtocol(
            _NOWHERE,
            extensions=enable_client_permessage_deflate(None) if compression else None,
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            state=State.OPEN,
            max_size=_max_size(max_message_bytes),
        )
        made = self._protocol.connect().headers
        del made["Host"]
        head = Headers([("Host", host), *made.raw_items(), *headers])
        self.request = f"GET {resource} HTTP/1.1\r\n{head}".encode("latin-1")

    def take(self, answer: Answer) -> Agreed:
        """Return what the server has agreed on.

        Raises:
            HandshakeError: It must not say this.
        """
        protocol = self._protocol
        try:
            headers = Headers(answer.headers)
            protocol.process_response(Response(101, "", headers))
        except InvalidHandshake as exc:
            raise bad_answer() from exc
        extensions = ", ".join(headers.get_all("Sec-WebSocket-Extensions"))
        subprotocol = protocol.subprotocol or ""
        return Agreed(protocol, subprotocol, extensions, self._max_message_bytes)


def _max_size(max_message_bytes: int) -> int:
    """Return the limit for the parser, which counts a ping amid a message, too."""
    return max_message_bytes + MAX_CONTROL_BYTES

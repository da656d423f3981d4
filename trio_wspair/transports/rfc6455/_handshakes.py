"""The opening handshake of both sides, by the package `websockets`.

Knows the public API of that package, and HTTP heads as bytes; no network, no frames. A
101 without extensions is written without that package, which is faster.
"""

from collections.abc import Sequence
from typing import Final

import attrs
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.extensions.permessage_deflate import (
    PerMessageDeflate,
    enable_client_permessage_deflate,
    enable_server_permessage_deflate,
)
from websockets.http11 import Request, Response
from websockets.protocol import Protocol, State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from trio_wspair._rules.display import printable

from ._check_answer import Answer, accept_for, bad_answer, check_answer
from ._deflate import DeflateParameters

__all__ = ("ClientHandshake", "Negotiated", "answer_request")

_NOWHERE: Final = parse_uri("ws://localhost/")
"""A placeholder: the URL that `websockets` gets is not used in the request."""

_MAX_SHOWN: Final = 100
"""The most characters of a server's header that an error shows."""

Pairs = Sequence[tuple[str, str]]
"""Names and values of headers."""


@attrs.frozen(slots=True)
class Negotiated:
    """The negotiated parameters of a connection."""

    subprotocol: str
    """The negotiated subprotocol, or ``""``."""
    extensions: str
    """The negotiated extensions, as in the server's answer."""
    deflate: DeflateParameters | None
    """The parameters of permessage-deflate, if it was negotiated."""


def answer_request(
    key: str,
    *,
    offered: str,
    subprotocol: str | None,
    headers: Pairs,
    compression: bool,
) -> tuple[Negotiated, bytes]:
    """Return the negotiated parameters and the 101 for a valid request.

    Args:
        key: The `Sec-WebSocket-Key` of the request.
        offered: The `Sec-WebSocket-Extensions` of the request.
        subprotocol: The subprotocol to choose of those offered, if any.
        headers: More headers for the answer.
        compression: Whether permessage-deflate may be negotiated.
    """
    if not compression:
        return Negotiated(subprotocol or "", "", None), _head_of(
            _plain_answer(key, subprotocol), headers
        )
    protocol = ServerProtocol(
        extensions=enable_server_permessage_deflate(None),
        subprotocols=[Subprotocol(subprotocol)] if subprotocol is not None else None,
        state=State.OPEN,
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
    if answer.status_code != 101:  # The offered extensions are not valid.
        answer = protocol.accept(Request("/", Headers(request)))
    extensions = answer.headers.get("Sec-WebSocket-Extensions", "")
    del answer.headers["Date"]  # A 101 needs none.
    head = _head_of([*answer.headers.raw_items()], headers)
    return _negotiated(protocol, extensions), head


def _plain_answer(key: str, subprotocol: str | None) -> Pairs:
    """Return the headers of a 101 without extensions."""
    answer = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept_for(key)),
    ]
    if subprotocol is not None:
        answer.append(("Sec-WebSocket-Protocol", subprotocol))
    return answer


def _head_of(answer: Pairs, more: Pairs) -> bytes:
    lines = [f"{name}: {value}\r\n" for name, value in (*answer, *more)]
    start = "HTTP/1.1 101 Switching Protocols\r\n"
    return f"{start}{''.join(lines)}\r\n".encode("latin-1")


class ClientHandshake:
    """The handshake of a client: makes the request and checks the answer.

    Args:
        host: The value of the `Host` header, with the port unless that is the default.
        resource: The path and query of the URL.
        subprotocols: The offered subprotocols.
        headers: More headers for the request.
        compression: Whether permessage-deflate is offered.
    """

    request: bytes
    """The head of the request."""

    def __init__(
        self,
        *,
        host: str,
        resource: str,
        subprotocols: Sequence[str],
        headers: Pairs,
        compression: bool,
    ) -> None:
        self._host = host
        self._subprotocols = subprotocols
        self._compression = compression
        self._protocol = ClientProtocol(
            _NOWHERE,
            extensions=enable_client_permessage_deflate(None) if compression else None,
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            state=State.OPEN,
        )
        made = self._protocol.connect().headers
        del made["Host"]
        head = Headers([("Host", host), *made.raw_items(), *headers])
        self.request = f"GET {resource} HTTP/1.1\r\n{head}".encode("latin-1")

    def take(self, answer: Answer) -> Negotiated:
        """Return the negotiated parameters.

        Raises:
            HandshakeError: The answer is not valid for this request.
        """
        subprotocol = check_answer(
            answer,
            host=self._host,
            key=self._protocol.key,
            subprotocols=self._subprotocols,
            extensions=self._compression,
        )
        # check_answer() does not parse the extensions.
        named = [value for value in answer.values("sec-websocket-extensions") if value]
        extensions = ", ".join(named)
        if not extensions:
            return Negotiated(subprotocol, "", None)
        headers = Headers(_plain_answer(self._protocol.key, None))
        headers["Sec-WebSocket-Extensions"] = extensions
        try:
            self._protocol.process_response(Response(101, "", headers))
        except InvalidHandshake as exc:
            shown = printable(extensions[:_MAX_SHOWN])
            what = f'these extensions were not offered: "{shown}"'
            raise bad_answer(self._host, what, answer.headers) from exc
        return Negotiated(subprotocol, extensions, _parameters(self._protocol))


def _negotiated(protocol: Protocol, extensions: str) -> Negotiated:
    return Negotiated(protocol.subprotocol or "", extensions, _parameters(protocol))


def _parameters(protocol: Protocol) -> DeflateParameters | None:
    if not protocol.extensions:
        return None
    deflate = protocol.extensions[0]
    assert isinstance(deflate, PerMessageDeflate)
    return DeflateParameters(
        sends_context=not deflate.local_no_context_takeover,
        receives_context=not deflate.remote_no_context_takeover,
        sent_window_bits=deflate.local_max_window_bits,
        received_window_bits=deflate.remote_max_window_bits,
        settings=deflate.compress_settings,
    )

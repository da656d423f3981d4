"""What a server answers to an upgrade request, read before an engine sees it.

trio-websocket would wait for ever for the end of a refusal, and stumble over interim
answers. Knows HTTP through h11; whether a 101 is a good one is left to the engines.
"""

from typing import Final

import attrs
import h11
import trio

from trio_wspair._errors import HandshakeError
from trio_wspair._http import decode_headers

__all__ = ("Answer", "bad_answer", "read_answer")

_MAX_HEAD_BYTES: Final = 2**16
_MAX_BODY_BYTES: Final = 2**20
_BODY_SECONDS: Final = 1.0


@attrs.frozen(slots=True)
class Answer:
    """A 101."""

    head: bytes
    headers: list[tuple[str, str]]
    received: bytes
    """What was read after it."""


async def read_answer(stream: trio.abc.Stream) -> Answer:
    """Read a server's answer, and return it if it is a 101.

    The caller bounds the time.

    Raises:
        HandshakeError: It is something else.
    """
    # h11's limit is for what it can't parse yet; ours comes first.
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=2 * _MAX_HEAD_BYTES)
    upgrade = [("Host", "x"), ("Connection", "Upgrade"), ("Upgrade", "websocket")]
    parser.send(h11.Request(method="GET", target="/", headers=upgrade))
    parser.send(h11.EndOfMessage())
    received = bytearray()
    try:
        while True:
            event = parser.next_event()
            rest = bytes(parser.trailing_data[0])
            if len(received) - len(rest) > _MAX_HEAD_BYTES:
                raise HandshakeError("the answer of the server is too large")
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    if event.http_version != b"1.1":
                        raise bad_answer()
                    head = bytes(received[: len(received) - len(rest)])
                    return Answer(head, decode_headers(event.headers), rest)
                received = bytearray(rest)
            elif event is h11.NEED_DATA:
                data = await _receive(stream)
                received += data
                parser.receive_data(data)
            else:
                assert isinstance(event, h11.Response)
                raise await _refusal(stream, parser, event)
    except h11.RemoteProtocolError as exc:
        raise _nonsense(received) from exc


async def _receive(stream: trio.abc.Stream) -> bytes:
    try:
        return bytes(await stream.receive_some(2**16))
    except trio.BrokenResourceError:
        return b""


def _nonsense(received: bytearray) -> HandshakeError:
    if not received:
        message = "the connection was closed before the WebSocket was open"
    else:
        message = f"the server answered no HTTP but {bytes(received[:40])!r}"
    return HandshakeError(message)


async def _refusal(
    stream: trio.abc.Stream, parser: h11.Connection, response: h11.Response
) -> HandshakeError:
    """Return the error for this response, with as much of its body as comes soon."""
    body = bytearray()
    now = trio.current_time()
    left = trio.current_effective_deadline() - now
    with trio.move_on_at(now + min(_BODY_SECONDS, left / 2)):
        try:
            while len(body) < _MAX_BODY_BYTES:
                event = parser.next_event()
                if isinstance(event, h11.Data):
                    body += event.data
                elif event is h11.NEED_DATA:
                    parser.receive_data(await _receive(stream))
                else:
                    break
        except h11.RemoteProtocolError:
            pass  # Cut short: what has come is told.
    return HandshakeError(
        f"the server refused the WebSocket with status {response.status_code}",
        status=response.status_code,
        headers=tuple(decode_headers(response.headers)),
        body=bytes(body),
    )


def bad_answer() -> HandshakeError:
    """Return the error for a 101 that an engine does not take."""
    return HandshakeError(
        "the server answered 101, but not as RFC 6455, section 4.2.2, asks", status=101
    )

"""A `Connection` whose handshake and reading are those of trio-websocket.

Knows trio-websocket's public API and its peculiarities, which are explained where they
matter.

Theory of operation: trio-websocket reads from an `EngineStream`, and writes its
handshake and its pongs to it, in a task that `_open()` starts. If trio-websocket raises
an exception in this task, only the connection ends. Messages and Closes are framed in
this module and written directly to the frame writer of the `EngineStream`: so a
cancellation never tears a frame. trio-websocket answers a Close by itself; the
`EngineStream` drops this answer, because the halves decide which Close is sent.
"""

import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio
import trio_websocket
from trio.lowlevel import enable_ki_protection
from wsproto.frame_protocol import FrameProtocol

from trio_wspair._http.headers import encode_headers
from trio_wspair._rules.codes import Close
from trio_wspair._rules.errors import (
    HandshakeError,
    ProtocolError,
    connection_lost,
    message_too_big,
)
from trio_wspair._rules.messages import size_of
from trio_wspair._tasks.nurseries import bare, open_service_nursery
from trio_wspair.transports._connection import FrameSender, Item, PongWaiter
from trio_wspair.transports._read_answer import ask
from trio_wspair.transports.io._sockets import linger
from trio_wspair.transports.rfc6455._check_answer import accept_for, check_answer
from trio_wspair.transports.rfc6455._headers import BINARY, FIN, TEXT, header

from ._engine_stream import EngineStream

__all__ = (
    "TrioWebSocketConnection",
    "open_client_connection",
    "open_server_connection",
)

_logger: Final = logging.getLogger("trio_wspair")
_RECEIVE_BYTES: Final = 2**16
_KEY: Final = re.compile(rb"(?i)\r\nsec-websocket-key: *([^\s]+)")
_BATCH: Final = 16
"""The most messages that `receive()` returns. 64 are hardly faster, and come late."""


class TrioWebSocketConnection(FrameSender):
    """An open connection; see `Connection` for the methods.

    Made by `open_server_connection()` and `open_client_connection()`.
    """

    subprotocol: str
    """The negotiated subprotocol, or ``""``."""

    def __init__(
        self,
        engine_stream: EngineStream,
        stream: trio.abc.Stream,
        engine: trio_websocket.WebSocketConnection,
        nursery: trio.Nursery,
        *,
        over: trio.Event,
        max_message_bytes: int,
    ) -> None:
        super().__init__(engine_stream.frame_writer)
        self._engine_stream = engine_stream
        self._stream = stream
        self._engine = engine
        self._nursery = nursery
        self._over = over
        """Set when trio-websocket has stopped reading."""
        self._framer = FrameProtocol(engine.is_client, [])
        self._max_message_bytes = max_message_bytes
        self._close_received = False
        self._has_too_big = False
        """Whether a message was too big. No more are received after it."""
        self._received: list[Item] = []
        """Messages that a cancelled `receive()` leaves to the next one."""
        self._lingers = engine.is_client
        """Whether `aclose()` waits for the peer to end TCP.

        A client does (RFC 6455, section 7.1.1). A server does after an error: otherwise
        a reset could make the peer lose the Close, as some data was not read.
        """
        self.subprotocol = engine.subprotocol or ""

    @property
    def heard_at(self) -> float:
        """The time when the last bytes arrived; see `SupportsPing`."""
        return self._engine_stream.heard_at

    async def receive(self) -> Sequence[Item]:
        """Wait for messages or a Close; see `Connection`."""
        if self._close_received:
            self._nursery.cancel_scope.cancel(reason="trio-websocket has read a Close")
            await self._over.wait()
            await self._engine_stream.wait_gone()
            raise connection_lost("the peer has gone")
        # trio-websocket hands over one message in each pass of the scheduler. Messages
        # that arrived together are returned together, and answered with one write.
        received = self._received
        try:
            while not self._has_too_big:
                message = await self._engine.get_message()
                # trio-websocket has counted the characters of a text, not its bytes.
                if size_of(message) > self._max_message_bytes:
                    self._has_too_big = True
                    break
                received.append(message)
                if not self._engine_stream.another_follows() or len(received) >= _BATCH:
                    break
        except trio_websocket.ConnectionClosed as exc:
            if not received:  # Otherwise, the next get_message() raises it again.
                return [self._end_from(exc)]
        if not received:
            raise self._too_big()
        self._received = []
        return received

    def _end_from(self, exc: trio_websocket.ConnectionClosed) -> Close:
        """Return the peer's Close, or raise the error that has ended the connection.

        trio-websocket raises the same exception in four cases:

        - A message is too big. Then trio-websocket has closed its channel of messages,
          and `exc.reason` may be that of a Close that arrived later.
        - A Close has arrived. Only then, trio-websocket has written a Close, its
          answer, which has set `engine_sent_close`.
        - The peer broke the protocol. Then `exc.reason` looks as if the peer had sent a
          Close with that code.
        - The network connection is gone.
        """
        if isinstance(exc.__context__, trio.ClosedResourceError):
            raise self._too_big()
        if exc.reason is None:  # Its reading task has raised, or was interrupted.
            self._lingers = True
            raise ProtocolError(1011, "trio-websocket has stopped reading")
        code = exc.reason.code
        reason = exc.reason.reason or ""
        if self._engine_stream.engine_sent_close:
            self._close_received = True
            return Close(int(code), reason)
        if code == 1006 and self._engine_stream.has_too_many_fragments:
            self._lingers = True
            raise ProtocolError(1009, "a message has too many fragments")
        if code == 1006:
            raise connection_lost()
        self._lingers = True
        raise ProtocolError(int(code), reason or "the peer broke the protocol")

    def _too_big(self) -> ProtocolError:
        self._lingers = True
        return message_too_big(self._max_message_bytes)

    def _frame(self, item: Item) -> bytes:
        if isinstance(item, Close):
            return self._close_frame(item)
        if self._engine.is_client:  # wsproto masks the frame.
            return bytes(self._framer.send_data(item))
        # For frames without a mask, wsproto takes nine times as long as this.
        if isinstance(item, str):
            data = item.encode()
            return header(FIN | TEXT, len(data)) + data
        return header(FIN | BINARY, len(item)) + item

    async def ping(self) -> float:
        """Send a ping, and return the round trip; see `SupportsPing`."""
        pong = PongWaiter()
        try:
            # In another task, as trio-websocket never forgets a ping whose caller was
            # cancelled, and never wakes the caller if the connection ends.
            self._nursery.start_soon(self._ping, pong)
        except RuntimeError:  # The nursery is closed: the connection has ended.
            pong.fail()
        return await pong.wait()

    async def _ping(self, pong: PongWaiter) -> None:
        try:
            await self._engine.ping()
            pong.succeed()
        except trio_websocket.ConnectionClosed:
            pass
        finally:
            pong.fail()

    async def aclose(self, code: int, reason: str) -> None:
        """Send a Close, flush, and end TCP in good order; see `Connection`."""
        # Ignored if a Close was written before.
        self.frame_writer.write(self._close_frame(Close(code, reason)), last=True)
        self._nursery.cancel_scope.cancel(reason="the conversation is over")
        await self._over.wait()
        try:
            await self.frame_writer.flush()
        except trio.BrokenResourceError:
            return
        if self._lingers:
            await linger(self._stream)

    def abort(self) -> None:
        """Stop reading and writing; see `Connection`.

        The function that opened the connection closes the stream.
        """
        self._nursery.cancel_scope.cancel(reason="the connection is aborted")
        self.frame_writer.stop()

    def _close_frame(self, close: Close) -> bytes:
        code = None if close.code == 1005 else close.code
        return bytes(self._framer.close(code, close.reason or None))


@asynccontextmanager
async def open_server_connection(
    stream: trio.abc.Stream,
    *,
    key: str,
    extensions: str = "",  # noqa: ARG001 - trio-websocket supports none
    received: bytes = b"",
    subprotocol: str | None,
    headers: Sequence[tuple[str, str]],
    max_message_bytes: int,
    nursery: trio.Nursery | None = None,  # noqa: ARG001 - `_open()` opens one
) -> AsyncGenerator[TrioWebSocketConnection, None]:
    """Answer an upgrade request with 101, and keep the connection open for the block.

    The caller has read and checked the request.

    Args:
        stream: The network. It is closed at the end of the block.
        key: The `Sec-WebSocket-Key` of the request.
        extensions: The extensions that the client offers. They are ignored.
        received: The bytes that were read after the request.
        subprotocol: The subprotocol to choose of those offered, if any.
        headers: More headers for the answer.
        max_message_bytes: A larger message is a `ProtocolError` with code 1009.
        nursery: Ignored; other engines run their tasks in it.

    Raises:
        HandshakeError: trio-websocket rejects the request.
    """

    def make_stream(nursery: trio.Nursery) -> EngineStream:
        request = _plain_request(key, subprotocol)
        return EngineStream(stream, nursery, request=request, received=received)

    async def shake_hands(
        nursery: trio.Nursery, engine_stream: EngineStream
    ) -> trio_websocket.WebSocketConnection:
        request = await trio_websocket.wrap_server_stream(
            nursery,
            engine_stream,
            message_queue_size=0,
            max_message_size=max_message_bytes,
            receive_buffer_size=_RECEIVE_BYTES,
        )
        return await request.accept(
            subprotocol=subprotocol,
            extra_headers=encode_headers(headers),
        )

    async with _open(make_stream, stream, shake_hands, max_message_bytes) as connection:
        yield connection


@asynccontextmanager
async def open_client_connection(
    stream: trio.abc.Stream,
    *,
    host: str,
    resource: str,
    subprotocols: Sequence[str],
    headers: Sequence[tuple[str, str]],
    max_message_bytes: int,
) -> AsyncGenerator[TrioWebSocketConnection, None]:
    """Send an upgrade request on `stream`, and keep the connection open for the block.

    The caller bounds the time of the handshake by cancelling.

    Args:
        stream: The network. It is closed at the end of the block.
        host: The value of the `Host` header, with the port unless that is the default.
        resource: The path and query of the URL.
        subprotocols: The offered subprotocols.
        headers: More headers for the request.
        max_message_bytes: A larger message is a `ProtocolError` with code 1009.

    Raises:
        HandshakeError: The server has refused the request, or its answer is not valid.
    """

    async def send_request(request: bytes) -> tuple[bytes, bytes]:
        answer = await ask(stream, request, host)
        key = _key_in(request)
        chosen = check_answer(answer, host=host, key=key, subprotocols=subprotocols)
        return _plain_answer(key, chosen), answer.received

    def make_stream(nursery: trio.Nursery) -> EngineStream:
        return EngineStream(stream, nursery, send_request=send_request)

    async def shake_hands(
        nursery: trio.Nursery, engine_stream: EngineStream
    ) -> trio_websocket.WebSocketConnection:
        return await trio_websocket.wrap_client_stream(
            nursery,
            # The documentation says "an arbitrary stream".
            engine_stream,  # type: ignore[arg-type]
            host,
            resource,
            subprotocols=subprotocols,
            extra_headers=encode_headers(headers),
            message_queue_size=0,
            max_message_size=max_message_bytes,
            receive_buffer_size=_RECEIVE_BYTES,
        )

    async with _open(make_stream, stream, shake_hands, max_message_bytes) as connection:
        yield connection


_ShakeHands = Callable[
    [trio.Nursery, EngineStream], Awaitable[trio_websocket.WebSocketConnection]
]


@asynccontextmanager
async def _open(
    make_stream: Callable[[trio.Nursery], EngineStream],
    stream: trio.abc.Stream,
    shake_hands: _ShakeHands,
    max_message_bytes: int,
) -> AsyncGenerator[TrioWebSocketConnection, None]:
    """Shake hands, and keep the tasks of the connection running during the block.

    Raises:
        HandshakeError: The handshake has failed.
    """
    over = trio.Event()
    scope = trio.CancelScope()

    @enable_ki_protection
    async def run_engine(
        *,
        task_status: trio.TaskStatus[TrioWebSocketConnection | HandshakeError],
    ) -> None:
        # In another task than the block: an exception in the reading task of
        # trio-websocket ends the connection, and does not cancel the block.
        connection = None
        error = HandshakeError("trio-websocket rejects this handshake")
        try:
            with scope:
                async with trio.open_nursery() as nursery:
                    engine = await shake_hands(nursery, engine_stream)
                    # A cancelled start() waits for this task: end before the shield.
                    await trio.lowlevel.checkpoint_if_cancelled()
                    # When the block is cancelled, the peer's Close is still read.
                    scope.shield = True
                    connection = TrioWebSocketConnection(
                        engine_stream,
                        stream,
                        engine,
                        nursery,
                        over=over,
                        max_message_bytes=max_message_bytes,
                    )
                    task_status.started(connection)
        except* HandshakeError as group:
            error = _first(group)
        except* Exception as group:
            _logger.debug("trio-websocket has failed", exc_info=bare(group))
        finally:
            over.set()
        if connection is None:
            task_status.started(error)
        del error  # The traceback may refer to this frame.

    try:
        async with open_service_nursery() as nursery:
            engine_stream = make_stream(nursery)
            try:
                result = await nursery.start(run_engine)
                try:
                    if isinstance(result, HandshakeError):
                        raise result
                    yield result
                finally:
                    del result  # The traceback refers to this frame.
            finally:
                scope.cancel(reason="the block has ended")
                engine_stream.frame_writer.stop()
    finally:
        await trio.aclose_forcefully(stream)


def _plain_request(key: str, subprotocol: str | None) -> bytes:
    """Return an upgrade request that wsproto accepts, in place of the real one.

    wsproto rejects some valid requests: those with two `Connection` headers, and those
    with an `Upgrade` header that also names another protocol.
    """
    lines = [
        "GET / HTTP/1.1",
        "Host: x",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    ]
    if subprotocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _key_in(request: bytes) -> str:
    """Return the `Sec-WebSocket-Key` of a request written by trio-websocket."""
    found = _KEY.search(request)
    assert found is not None
    return found[1].decode("ascii")


def _plain_answer(key: str, subprotocol: str) -> bytes:
    """Return a 101 that wsproto accepts, in place of the real one, which was checked.

    wsproto rejects a valid 101 with more than one `Connection` header.
    """
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_for(key)}",
    ]
    if subprotocol:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _first(group: BaseExceptionGroup[HandshakeError]) -> HandshakeError:
    """Return the first exception in a group of groups."""
    exc = group.exceptions[0]
    return exc if isinstance(exc, HandshakeError) else _first(exc)

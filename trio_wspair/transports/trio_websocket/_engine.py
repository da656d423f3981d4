"""A `Connection` on trio-websocket: its handshake and its reading, our writing.

Knows trio-websocket's public API and its peculiarities, explained where they matter.
Outgoing messages and Closes are framed here, some with wsproto, and go through
`EngineStream`: no cancellation tears a frame, and only the halves send a Close.
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
from trio_wspair.transports._answer import ask
from trio_wspair.transports._connection import Item, Pong, Sending
from trio_wspair.transports.io._sockets import linger
from trio_wspair.transports.rfc6455._answers import accept_for, check_answer
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
"""So many messages are received at once; 64 are hardly faster, and come later."""


class TrioWebSocketConnection(Sending):
    """An open connection; see `Connection` for the methods.

    Made by `open_server_connection()` and `open_client_connection()`.
    """

    subprotocol: str
    """The subprotocol that was agreed on, or ``""``."""

    def __init__(
        self,
        wire: EngineStream,
        stream: trio.abc.Stream,
        engine: trio_websocket.WebSocketConnection,
        nursery: trio.Nursery,
        *,
        over: trio.Event,
        max_message_bytes: int,
    ) -> None:
        super().__init__(wire.frame_writer)
        self._wire = wire
        self._stream = stream
        self._engine = engine
        self._nursery = nursery
        self._over = over
        """trio-websocket reads no more."""
        self._framer = FrameProtocol(engine.is_client, [])
        self._max_message_bytes = max_message_bytes
        self._heard_close = False
        self._has_too_big = False
        """A message was, and no more are received."""
        self._received: list[Item] = []
        """What a `receive()` that was cancelled leaves to the next one."""
        # A client waits for the server to end TCP first (RFC 6455, 7.1.1).
        self._lingers = engine.is_client
        self.subprotocol = engine.subprotocol or ""

    @property
    def heard_at(self) -> float:
        """When the last bytes came; see `SupportsPing`."""
        return self._wire.heard_at

    async def receive(self) -> Sequence[Item]:
        """Wait for messages or a Close; see `Connection`."""
        if self._heard_close:
            self._nursery.cancel_scope.cancel(reason="trio-websocket has read all")
            await self._over.wait()
            await self._wire.wait_gone()
            raise connection_lost("the peer has gone")
        # trio-websocket hands over one message in each pass of the scheduler. What has
        # come together is taken together, and answered with one write.
        received = self._received
        try:
            while not self._has_too_big:
                message = await self._engine.get_message()
                # trio-websocket has counted the characters of a text, not its bytes.
                if size_of(message) > self._max_message_bytes:
                    self._has_too_big = True
                    break
                received.append(message)
                if not self._wire.another_follows() or len(received) >= _BATCH:
                    break
        except trio_websocket.ConnectionClosed as exc:
            if not received:  # Otherwise it is raised again.
                return [self._end_told_by(exc)]
        if not received:
            raise self._too_big()
        self._received = []
        return received

    def _end_told_by(self, exc: trio_websocket.ConnectionClosed) -> Close:
        """Find out which of its ends trio-websocket means: it raises one error for all.

        When a message is too big it closes its own receiving end; `exc.reason` may
        already be about a Close that came after. It writes a Close, which the wire has
        noticed, in answer to the peer's. It writes none when the peer breaks the
        protocol, and reports that as if the peer had said it; nor when the network has
        gone.
        """
        if isinstance(exc.__context__, trio.ClosedResourceError):
            raise self._too_big()
        if exc.reason is None:  # Its reader has crashed, or was interrupted.
            self._lingers = True
            raise ProtocolError(1011, "trio-websocket has stopped reading")
        code = exc.reason.code
        reason = exc.reason.reason or ""
        if self._wire.engine_sent_close:
            self._heard_close = True
            return Close(int(code), reason)
        if code == 1006 and self._wire.has_too_many_fragments:
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
        if self._engine.is_client:  # Its frames are masked.
            return bytes(self._framer.send_data(item))
        # wsproto takes nine times as long.
        if isinstance(item, str):
            data = item.encode()
            return header(FIN | TEXT, len(data)) + data
        return header(FIN | BINARY, len(item)) + item

    async def ping(self) -> float:
        """Send a ping and return the seconds until its pong; see `Connection`."""
        pong = Pong()
        try:
            # A task of its own: trio-websocket never forgets a cancelled ping, and
            # never wakes one whose connection has ended.
            self._nursery.start_soon(self._ping, pong)
        except RuntimeError:
            pong.fail()
        return await pong.wait()

    async def _ping(self, pong: Pong) -> None:
        try:
            await self._engine.ping()
            pong.come()
        except trio_websocket.ConnectionClosed:
            pass
        finally:
            pong.fail()

    async def aclose(self, code: int, reason: str) -> None:
        """Say Close, flush and end TCP in good order; see `Connection`."""
        # The wire takes nothing after the first Close.
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
        """Drop the connection; see `Connection`."""
        self._nursery.cancel_scope.cancel(reason="the connection is aborted")
        self.frame_writer.stop()  # The opener closes the stream.

    def _close_frame(self, close: Close) -> bytes:
        code = None if close.code == 1005 else close.code
        return bytes(self._framer.close(code, close.reason or None))


@asynccontextmanager
async def open_server_connection(
    stream: trio.abc.Stream,
    *,
    key: str,
    extensions: str = "",  # noqa: ARG001 - none is agreed on
    received: bytes = b"",
    subprotocol: str | None,
    headers: Sequence[tuple[str, str]],
    max_message_bytes: int,
    nursery: trio.Nursery | None = None,  # noqa: ARG001 - it needs its own
) -> AsyncGenerator[TrioWebSocketConnection, None]:
    """Answer an upgrade request with 101, and keep the connection for the block.

    The request was read already, and found good.

    Args:
        stream: The network. It is closed in the end.
        key: The `Sec-WebSocket-Key` of the request.
        extensions: Those that the client offers. None is agreed on.
        received: What was read after the request.
        subprotocol: The one chosen of those offered, if any.
        headers: More headers for the answer.
        max_message_bytes: Larger messages are a `ProtocolError` with code 1009.
        nursery: One around the block. It is not used.

    Raises:
        HandshakeError: trio-websocket does not take it.
    """

    def make_wire(nursery: trio.Nursery) -> EngineStream:
        head = _plain_request(key, subprotocol)
        return EngineStream(stream, nursery, head=head, held=received)

    async def shake_hands(
        nursery: trio.Nursery, wire: EngineStream
    ) -> trio_websocket.WebSocketConnection:
        request = await trio_websocket.wrap_server_stream(
            nursery,
            wire,
            message_queue_size=0,
            max_message_size=max_message_bytes,
            receive_buffer_size=_RECEIVE_BYTES,
        )
        return await request.accept(
            subprotocol=subprotocol,
            extra_headers=encode_headers(headers),
        )

    async with _open(make_wire, stream, shake_hands, max_message_bytes) as connection:
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
    """Ask for a WebSocket on `stream`, and keep the connection for the block.

    The caller bounds the time of the handshake by cancelling.

    Args:
        stream: The network. It is closed in the end.
        host: For the `Host` header, with the port unless that is the default.
        resource: The path and query.
        subprotocols: The ones offered.
        headers: More headers for the request.
        max_message_bytes: Larger messages are a `ProtocolError` with code 1009.

    Raises:
        HandshakeError: The server has refused, or answered nonsense.
    """

    async def read_first(request: bytes) -> tuple[bytes, bytes]:
        answer = await ask(stream, request, host)
        key = _key_in(request)
        chosen = check_answer(answer, host=host, key=key, subprotocols=subprotocols)
        return _plain_answer(key, chosen), answer.received

    def make_wire(nursery: trio.Nursery) -> EngineStream:
        return EngineStream(stream, nursery, read_first=read_first)

    async def shake_hands(
        nursery: trio.Nursery, wire: EngineStream
    ) -> trio_websocket.WebSocketConnection:
        return await trio_websocket.wrap_client_stream(
            nursery,
            wire,  # type: ignore[arg-type]  # "an arbitrary stream", its docs say
            host,
            resource,
            subprotocols=subprotocols,
            extra_headers=encode_headers(headers),
            message_queue_size=0,
            max_message_size=max_message_bytes,
            receive_buffer_size=_RECEIVE_BYTES,
        )

    async with _open(make_wire, stream, shake_hands, max_message_bytes) as connection:
        yield connection


_ShakeHands = Callable[
    [trio.Nursery, EngineStream], Awaitable[trio_websocket.WebSocketConnection]
]


@asynccontextmanager
async def _open(
    make_wire: Callable[[trio.Nursery], EngineStream],
    stream: trio.abc.Stream,
    shake_hands: _ShakeHands,
    max_message_bytes: int,
) -> AsyncGenerator[TrioWebSocketConnection, None]:
    """Keep the tasks of a connection running while the block runs."""
    over = trio.Event()
    scope = trio.CancelScope()

    @enable_ki_protection
    async def run_engine(
        *,
        task_status: trio.TaskStatus[TrioWebSocketConnection | HandshakeError],
    ) -> None:
        # A task of its own, so that whatever trio-websocket's reader raises ends the
        # connection and nothing else.
        connection = None
        error = HandshakeError("trio-websocket does not take this handshake")
        try:
            with scope:
                async with trio.open_nursery() as nursery:
                    engine = await shake_hands(nursery, wire)
                    # Else a start() that is cancelled now would wait for us for ever.
                    await trio.lowlevel.checkpoint_if_cancelled()
                    # When the block is cancelled, a Close must still arrive.
                    scope.shield = True
                    connection = TrioWebSocketConnection(
                        wire,
                        stream,
                        engine,
                        nursery,
                        over=over,
                        max_message_bytes=max_message_bytes,
                    )
                    task_status.started(connection)
        except* HandshakeError as group:
            error = _only(group)
        except* Exception as group:
            _logger.debug("trio-websocket's reader has ended", exc_info=bare(group))
        finally:
            over.set()
        if connection is None:
            task_status.started(error)
        del error  # Its traceback may refer to this frame.

    try:
        async with open_service_nursery() as nursery:
            wire = make_wire(nursery)
            try:
                result = await nursery.start(run_engine)
                try:
                    if isinstance(result, HandshakeError):
                        raise result
                    yield result
                finally:
                    del result  # Its traceback refers to this frame.
            finally:
                scope.cancel(reason="the block has ended")
                wire.frame_writer.stop()
    finally:
        await trio.aclose_forcefully(stream)


def _plain_request(key: str, subprotocol: str | None) -> bytes:
    """Write an upgrade request that wsproto can read.

    It stumbles over some that are good: two `Connection` headers, or an `Upgrade`
    that names another protocol too.
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
    """Return the `Sec-WebSocket-Key` of a request that trio-websocket has written."""
    found = _KEY.search(request)
    assert found is not None
    return found[1].decode("ascii")


def _plain_answer(key: str, subprotocol: str) -> bytes:
    """Write a 101 that wsproto can read, in place of one that was found good.

    It takes no `Connection` in several lines.
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


def _only(group: BaseExceptionGroup[HandshakeError]) -> HandshakeError:
    exc = group.exceptions[0]
    return exc if isinstance(exc, HandshakeError) else _only(exc)

"""A `Connection` directly on a stream: the `Codec`, and what it needs of the network.

Knows items and streams; neither frames nor handshakes.

Theory of operation: `receive()` reads bytes in the task of its caller, feeds them to
the `Codec`, and takes items from it, as many as fit into a batch; the next call takes
the rest. A ping is answered, and a pong is given to the `ping()` that waits for it,
while `receive()` is running; so pings need a task in `receive()`. Everything is sent by
the `FrameWriter`, from any task. The first Close that is written is the last frame.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from itertools import count
from typing import Final

import trio

from trio_wspair._rules.codes import Close
from trio_wspair._rules.errors import ProtocolError, connection_lost
from trio_wspair._tasks.nurseries import open_service_nursery
from trio_wspair.transports.io._frame_writer import FrameWriter
from trio_wspair.transports.io._sockets import discard, linger, network_io
from trio_wspair.transports.rfc6455 import _codec as codec
from trio_wspair.transports.rfc6455._handshakes import (
    ClientHandshake,
    Negotiated,
    answer_request,
)

from ._connection import FrameSender, Item, PongWaiter
from ._read_answer import ask

__all__ = (
    "WebSocketsConnection",
    "open_client_connection",
    "open_server_connection",
)

_BATCH_BYTES: Final = 2**14
"""`receive()` returns messages of about this many bytes, or of as many as were read."""


class WebSocketsConnection(FrameSender):
    """An open connection; see `Connection` for the methods.

    Made by `open_server_connection()` and `open_client_connection()`.

    Args:
        stream: The network.
        nursery: Runs the task of the frame writer, if one is needed.
        negotiated: The result of the handshake.
        received: The bytes that were read after the handshake.
        is_client: Whether this is the client's side.
        max_message_bytes: A larger message is a `ProtocolError` with code 1009.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        nursery: trio.Nursery,
        negotiated: Negotiated,
        *,
        received: bytes,
        is_client: bool,
        max_message_bytes: int,
    ) -> None:
        self._stream = stream
        self._network = network_io(stream)
        super().__init__(FrameWriter(self._network, nursery))
        self._codec = codec.Codec(
            is_client=is_client,
            max_message_bytes=max_message_bytes,
            deflate=negotiated.deflate,
        )
        self._received = received
        self._items: Iterator[codec.Item] | None = None
        """The items of the last read that are still to be taken."""
        self._batch_bytes = _BATCH_BYTES
        self._protocol_error: ProtocolError | None = None
        self._close_received = False
        self._lingers = is_client
        """Whether `aclose()` waits for the peer to end TCP.

        A client does (RFC 6455, section 7.1.1). A server does after an error: otherwise
        a reset could make the peer lose the Close, as some data was not read.
        """
        self._ping_numbers = count()
        self._pings: dict[bytes, PongWaiter] = {}
        self._pongs_can_arrive = True
        self.heard_at: float = trio.current_time()
        """The time when the last bytes arrived; see `SupportsPing`."""
        self.subprotocol: str = negotiated.subprotocol
        """The negotiated subprotocol, or ``""``."""
        self.extensions: str = negotiated.extensions
        """The negotiated extensions, or ``""``."""

    # -- receiving ---------------------------------------------------------------

    async def receive(self) -> Sequence[Item]:
        """Wait for messages or a Close; see `Connection`."""
        if self._close_received:
            await discard(self._stream)
            raise connection_lost("the peer has gone")
        while self._protocol_error is None:
            if self._items is not None:
                await trio.lowlevel.checkpoint()
            else:
                data = await self._next_bytes()
                if not data:
                    self._fail_pings()
                    raise connection_lost()
                self.heard_at = trio.current_time()
                self._items = self._codec.feed(data)
                self._batch_bytes = max(_BATCH_BYTES, len(data))
            items = self._take(self._items)
            if items:
                return items
        raise self._protocol_error

    async def _next_bytes(self) -> bytes | bytearray:
        """Wait for the next bytes, and return them; none at the end of the stream."""
        data, self._received = self._received, b""
        if not data:
            return await self._network.receive()
        # These bytes came with the handshake. The 101 is sent before they are answered.
        with suppress(trio.BrokenResourceError):
            await self.frame_writer.flush()
        return data

    def _take(self, waiting: Iterator[codec.Item]) -> list[Item]:
        """Return messages, and the Close, and answer pings.

        Some items may be left for the next call: compressed messages can be a thousand
        times as large as the bytes that were read, and the caller's room is limited.
        """
        items: list[Item] = []
        size = 0
        try:
            for item in waiting:
                if isinstance(item, (str, bytes)):
                    items.append(item)
                    size += len(item)
                    if size > self._batch_bytes:
                        return items
                elif isinstance(item, Close):
                    items.append(item)
                    self._close_received = True
                    self._fail_pings()
                elif isinstance(item, codec.Ping):
                    pong = self._codec.encode(codec.Pong(item.payload))
                    self.frame_writer.write_pong(pong)
                elif (waiter := self._pings.get(item.payload)) is not None:
                    waiter.succeed()
        except ProtocolError as exc:
            self._protocol_error = exc
            self._lingers = True
            self._fail_pings()
        self._items = None
        return items

    # -- sending -----------------------------------------------------------------

    def _frame(self, item: Item) -> bytes:
        return self._codec.encode(item)

    async def ping(self) -> float:
        """Send a ping, and return the round trip; see `SupportsPing`."""
        waiter = PongWaiter()
        if not self._pongs_can_arrive:
            waiter.fail()
            return await waiter.wait()
        data = next(self._ping_numbers).to_bytes(8, "big")
        self._pings[data] = waiter
        self.frame_writer.write(self._codec.encode(codec.Ping(data)))
        try:
            return await waiter.wait()
        finally:
            del self._pings[data]

    def _fail_pings(self) -> None:
        """Fail all pings, now and later: no pong will arrive."""
        self._pongs_can_arrive = False
        for waiter in self._pings.values():
            waiter.fail()

    async def aclose(self, code: int, reason: str) -> None:
        """Send a Close, flush, and end TCP in good order; see `Connection`."""
        self._fail_pings()
        # Ignored if a Close was written before.
        close = self._codec.encode(Close(code, reason))
        self.frame_writer.write(close, last=True)
        try:
            await self.frame_writer.flush()
        except trio.BrokenResourceError:
            return
        if self._lingers:
            await linger(self._stream)

    def abort(self) -> None:
        """Stop writing; see `Connection`.

        The function that opened the connection closes the stream.
        """
        self._fail_pings()
        self.frame_writer.stop()


@asynccontextmanager
async def open_server_connection(
    stream: trio.abc.Stream,
    *,
    key: str,
    extensions: str = "",
    received: bytes = b"",
    subprotocol: str | None,
    headers: Sequence[tuple[str, str]],
    max_message_bytes: int,
    compression: bool = False,
    nursery: trio.Nursery | None = None,
) -> AsyncGenerator[WebSocketsConnection, None]:
    """Answer an upgrade request with 101, and keep the connection open for the block.

    The caller has read and checked the request.

    Args:
        stream: The network. It is closed at the end of the block.
        key: The `Sec-WebSocket-Key` of the request.
        extensions: The extensions that the client offers.
        received: The bytes that were read after the request.
        subprotocol: The subprotocol to choose of those offered, if any.
        headers: More headers for the answer.
        max_message_bytes: A larger message is a `ProtocolError` with code 1009.
        compression: Whether permessage-deflate may be negotiated.
        nursery: Runs the task of the frame writer. It is open for longer than the
            block. If it is `None`, a nursery is opened.
    """
    negotiated, answer = answer_request(
        key,
        offered=extensions,
        subprotocol=subprotocol,
        headers=headers,
        compression=compression,
    )
    try:
        async with _open(
            stream,
            negotiated,
            received=received,
            is_client=False,
            max_message_bytes=max_message_bytes,
            nursery=nursery,
        ) as connection:
            connection.frame_writer.write(answer)
            yield connection
    finally:
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def open_client_connection(
    stream: trio.abc.Stream,
    *,
    host: str,
    resource: str,
    subprotocols: Sequence[str],
    headers: Sequence[tuple[str, str]],
    max_message_bytes: int,
    compression: bool = False,
) -> AsyncGenerator[WebSocketsConnection, None]:
    """Send an upgrade request on `stream`, and keep the connection open for the block.

    The caller bounds the time of the handshake by cancelling.

    Args:
        stream: The network. It is closed at the end of the block.
        host: The value of the `Host` header, with the port unless that is the default.
        resource: The path and query of the URL.
        subprotocols: The offered subprotocols.
        headers: More headers for the request.
        max_message_bytes: A larger message is a `ProtocolError` with code 1009.
        compression: Whether permessage-deflate is offered.

    Raises:
        HandshakeError: The server has refused the request, or its answer is not valid.
    """
    handshake = ClientHandshake(
        host=host,
        resource=resource,
        subprotocols=subprotocols,
        headers=headers,
        compression=compression,
    )
    try:
        answer = await ask(stream, handshake.request, host)
        async with _open(
            stream,
            handshake.take(answer),
            received=answer.received,
            is_client=True,
            max_message_bytes=max_message_bytes,
        ) as connection:
            yield connection
    finally:
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def _open(
    stream: trio.abc.Stream,
    negotiated: Negotiated,
    *,
    received: bytes,
    is_client: bool,
    max_message_bytes: int,
    nursery: trio.Nursery | None = None,
) -> AsyncGenerator[WebSocketsConnection, None]:
    """Make a connection, and abort it at the end of the block.

    Its tasks run in `nursery`, or in a nursery that this function opens.
    """
    around = nullcontext(nursery) if nursery is not None else open_service_nursery()
    async with around as tasks:
        connection = WebSocketsConnection(
            stream,
            tasks,
            negotiated,
            received=received,
            is_client=is_client,
            max_message_bytes=max_message_bytes,
        )
        try:
            yield connection
        finally:
            connection.abort()

"""A `Connection` directly on a stream, with the help of the package `websockets`.

Knows what frames mean. Handshakes, masking and compression use the public API of
`websockets`; reading, writing and parsing frames do not.

Theory of operation: `receive()` reads bytes in the task of its caller, and passes them
to a `FrameReader`, which yields frames, and to an `Assembly`, which joins fragments. A
ping is answered, and a pong is given to the `ping()` that waits for it, while
`receive()` is running; so pings need a task in `receive()`. Everything is sent by the
`FrameWriter`, from any task. The first Close that is written is the last frame.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from itertools import count
from typing import Final

import trio
from websockets.frames import Frame, Opcode

from trio_wspair._rules.codes import Close, close_from_payload, payload_of_close
from trio_wspair._rules.errors import ProtocolError, connection_lost
from trio_wspair._tasks.nurseries import open_service_nursery
from trio_wspair.transports.io._frame_writer import FrameWriter
from trio_wspair.transports.io._sockets import discard, linger, network_io
from trio_wspair.transports.rfc6455._frames import (
    BINARY,
    CLOSE,
    CONTROL,
    FIN,
    OPCODE,
    PING,
    PONG,
    RSV1,
    TEXT,
    Assembly,
    FrameReader,
    decoded,
    framed,
)
from trio_wspair.transports.rfc6455._handshakes import (
    ClientHandshake,
    Negotiated,
    answer_request,
)

from ._answer import ask
from ._connection import FrameSender, Item, Pong

__all__ = (
    "WebSocketsConnection",
    "open_client_connection",
    "open_server_connection",
)

_BATCH_BYTES: Final = 2**14
"""About how many bytes of fragmented or compressed messages `receive()` returns."""


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
        self._is_client = is_client
        self._deflate = negotiated.deflate
        self._received = received
        self._frames: Iterator[tuple[int, bytes]] | None = None
        """The frames of the last read that are still to be processed."""
        self._reader = FrameReader(
            masked=not is_client,
            compressed=negotiated.deflate is not None,
            max_message_bytes=max_message_bytes,
        )
        self._assembly = Assembly(max_message_bytes, negotiated.deflate)
        self._protocol_error: ProtocolError | None = None
        self._close_received = False
        self._lingers = self._is_client
        """Whether `aclose()` waits for the peer to end TCP.

        A client does (RFC 6455, section 7.1.1). A server does after an error: otherwise
        a reset could make the peer lose the Close, as some data was not read.
        """
        self._ping_numbers = count()
        self._pongs: dict[bytes, Pong] = {}
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
            if self._frames is not None:
                await trio.lowlevel.checkpoint()
            else:
                data = await self._next_bytes()
                if not data:
                    self._fail_pings()
                    raise connection_lost()
                self.heard_at = trio.current_time()
                self._frames = self._reader.feed(data)
            items = self._read(self._frames)
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

    def _read(self, frames: Iterator[tuple[int, bytes]]) -> list[Item]:
        """Return the messages, and the Close, that end in these frames.

        Some frames may be left for the next call: compressed messages can be a thousand
        times as large as the bytes that were read, and the caller's room is limited.
        """
        items: list[Item] = []
        assembled = 0
        try:
            for first, payload in frames:
                if first == FIN | TEXT:
                    items.append(decoded(payload))
                elif first == FIN | BINARY:
                    items.append(payload)
                elif first & CONTROL:
                    self._take_control(first & OPCODE, payload, items)
                    if self._close_received:
                        break
                elif (message := self._assembly.add(first, payload)) is not None:
                    items.append(message)
                    assembled += len(message)
                    if assembled > _BATCH_BYTES:
                        return items
        except ProtocolError as exc:
            self._protocol_error = exc
            self._lingers = True
            self._fail_pings()
        self._frames = None
        return items

    def _take_control(self, opcode: int, payload: bytes, items: list[Item]) -> None:
        """Answer a ping, end the wait for a pong, or add a Close to the items.

        Raises:
            ProtocolError: The payload of the Close is not valid.
        """
        if opcode == PING:
            self.frame_writer.write_pong(self._framed(PONG, payload))
        elif opcode == PONG:
            pong = self._pongs.get(payload)
            if pong is not None:
                pong.succeed()
        else:
            items.append(close_from_payload(payload))
            self._close_received = True
            self._fail_pings()

    # -- sending -----------------------------------------------------------------

    def _frame(self, item: Item) -> bytes:
        if isinstance(item, str):
            return self._framed(TEXT, item.encode())
        if isinstance(item, bytes):
            return self._framed(BINARY, item)
        return self._close_frame(item)

    def _framed(self, opcode: int, data: bytes) -> bytes:
        first = FIN | opcode
        if self._deflate is not None and not opcode & CONTROL:
            deflated = self._deflate.encode(Frame(Opcode(opcode), data))
            first, data = first | RSV1, bytes(deflated.data)
        return framed(first, data, masked=self._is_client)

    def _close_frame(self, close: Close) -> bytes:
        return self._framed(CLOSE, payload_of_close(close))

    async def ping(self) -> float:
        """Send a ping, and return the round trip; see `SupportsPing`."""
        pong = Pong()
        if not self._pongs_can_arrive:
            pong.fail()
            return await pong.wait()
        data = next(self._ping_numbers).to_bytes(8, "big")
        self._pongs[data] = pong
        self.frame_writer.write(self._framed(PING, data))
        try:
            return await pong.wait()
        finally:
            del self._pongs[data]

    def _fail_pings(self) -> None:
        """Fail all pings, now and later: no pong will arrive."""
        self._pongs_can_arrive = False
        for pong in self._pongs.values():
            pong.fail()

    async def aclose(self, code: int, reason: str) -> None:
        """Send a Close, flush, and end TCP in good order; see `Connection`."""
        self._fail_pings()
        # Ignored if a Close was written before.
        self.frame_writer.write(self._close_frame(Close(code, reason)), last=True)
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

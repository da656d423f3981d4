"""A `Connection` directly on a stream, with the help of the package `websockets`.

Knows what frames mean. The handshakes, the masking and permessage-deflate are those of
`websockets`, by its public API; the way of the bytes is ours.
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
from ._connection import Item, Pong, Sending

__all__ = (
    "WebSocketsConnection",
    "open_client_connection",
    "open_server_connection",
)

_TURN_BYTES: Final = 2**14
"""About what may be put together, of fragments or compressed, at a time."""


class WebSocketsConnection(Sending):
    """An open connection; see `Connection` for the methods.

    Made by `open_server_connection()` and `open_client_connection()`.

    Args:
        stream: The network.
        nursery: For a task that sends what the network doesn't take at once.
        agreed: What the handshake has led to.
        received: What was read after it.
        is_client: Which side this is.
        max_message_bytes: Larger messages are a `ProtocolError` with code 1009.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        nursery: trio.Nursery,
        agreed: Negotiated,
        *,
        received: bytes,
        is_client: bool,
        max_message_bytes: int,
    ) -> None:
        self._stream = stream
        self._network = network_io(stream)
        super().__init__(FrameWriter(self._network, nursery))
        self._is_client = is_client
        self._deflate = agreed.deflate
        self._received = received
        self._frames: Iterator[tuple[int, bytes]] | None = None
        """Those of the last read that were not looked at yet."""
        self._reader = FrameReader(
            masked=not is_client,
            compressed=agreed.deflate is not None,
            max_message_bytes=max_message_bytes,
        )
        self._assembly = Assembly(max_message_bytes, agreed.deflate)
        self._breach: ProtocolError | None = None
        self._heard_close = False
        # A client waits for the server to end TCP first (RFC 6455, 7.1.1).
        self._lingers = self._is_client
        self._ping_numbers = count()
        self._pongs: dict[bytes, Pong] = {}
        self._hears_pongs = True
        self.heard_at: float = trio.current_time()
        """When the last bytes came; see `SupportsPing`."""
        self.subprotocol: str = agreed.subprotocol
        """The subprotocol that was agreed on, or ``""``."""
        self.extensions: str = agreed.extensions
        """The extensions that were agreed on, or ``""``."""

    # -- what comes --------------------------------------------------------------

    async def receive(self) -> Sequence[Item]:
        """Wait for what has arrived; see `Connection`."""
        if self._heard_close:
            await discard(self._stream)
            raise connection_lost("the peer has gone")
        while self._breach is None:
            if self._frames is not None:
                await trio.lowlevel.checkpoint()
            else:
                data = await self._next_bytes()
                if not data:
                    self._forget_pings()
                    raise connection_lost()
                self.heard_at = trio.current_time()
                self._frames = self._reader.feed(data)
            items = self._read(self._frames)
            if items:
                return items
        raise self._breach

    async def _next_bytes(self) -> bytes | bytearray:
        """Return more of what has come; nothing at the end."""
        data, self._received = self._received, b""
        if not data:
            return await self._network.receive()
        # It came with the handshake, whose answer goes first.
        with suppress(trio.BrokenResourceError):
            await self.frame_writer.flush()
        return data

    def _read(self, frames: Iterator[tuple[int, bytes]]) -> list[Item]:
        """Return the messages, and the Close, that end in these frames.

        They may be left for the next time: compressed, they can be a thousand times as
        large as what was read, which may be more than the receiver has room for.
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
                    if self._heard_close:
                        break
                elif (message := self._assembly.add(first, payload)) is not None:
                    items.append(message)
                    assembled += len(message)
                    if assembled > _TURN_BYTES:
                        return items
        except ProtocolError as exc:
            self._breach = exc
            self._lingers = True
            self._forget_pings()
        self._frames = None
        return items

    def _take_control(self, opcode: int, payload: bytes, items: list[Item]) -> None:
        """Take a control frame.

        Raises:
            ProtocolError: The Close has a code that must not be sent.
        """
        if opcode == PING:
            self.frame_writer.write_pong(self._framed(PONG, payload))
        elif opcode == PONG:
            pong = self._pongs.get(payload)
            if pong is not None:
                pong.come()
        else:
            items.append(close_from_payload(payload))
            self._heard_close = True
            self._forget_pings()

    # -- what is sent ------------------------------------------------------------

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
        """Send a ping and return the seconds until its pong; see `Connection`."""
        pong = Pong()
        if not self._hears_pongs:
            pong.fail()
            return await pong.wait()
        data = next(self._ping_numbers).to_bytes(8, "big")
        self._pongs[data] = pong
        self.frame_writer.write(self._framed(PING, data))
        try:
            return await pong.wait()
        finally:
            del self._pongs[data]

    def _forget_pings(self) -> None:
        """Fail the pings that are waiting: no pong will arrive."""
        self._hears_pongs = False
        for pong in self._pongs.values():
            pong.fail()

    async def aclose(self, code: int, reason: str) -> None:
        """Say Close, flush and end TCP in good order; see `Connection`."""
        self._forget_pings()
        # The frame_writer takes nothing after the first Close.
        self.frame_writer.write(self._close_frame(Close(code, reason)), last=True)
        try:
            await self.frame_writer.flush()
        except trio.BrokenResourceError:
            return
        if self._lingers:
            await linger(self._stream)

    def abort(self) -> None:
        """Drop the connection; see `Connection`."""
        self._forget_pings()
        self.frame_writer.stop()  # The opener closes the stream.


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
    """Answer an upgrade request with 101, and keep the connection for the block.

    The request was read already, and found good.

    Args:
        stream: The network. It is closed in the end.
        key: The `Sec-WebSocket-Key` of the request.
        extensions: Those that the client offers.
        received: What was read after the request.
        subprotocol: The one chosen of those offered, if any.
        headers: More headers for the answer.
        max_message_bytes: Larger messages are a `ProtocolError` with code 1009.
        compression: Whether permessage-deflate may be agreed on.
        nursery: One around the block, which saves one of its own.
    """
    agreed, answer = answer_request(
        key,
        offered=extensions,
        subprotocol=subprotocol,
        headers=headers,
        compression=compression,
    )
    try:
        async with _open(
            stream,
            agreed,
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
    """Ask for a WebSocket on `stream`, and keep the connection for the block.

    The caller bounds the time of the handshake by cancelling.

    Args:
        stream: The network. It is closed in the end.
        host: For the `Host` header, with the port unless that is the default.
        resource: The path and query.
        subprotocols: The ones offered.
        headers: More headers for the request.
        max_message_bytes: Larger messages are a `ProtocolError` with code 1009.
        compression: Whether permessage-deflate is offered.

    Raises:
        HandshakeError: The server has refused, or answered nonsense.
    """
    asking = ClientHandshake(
        host=host,
        resource=resource,
        subprotocols=subprotocols,
        headers=headers,
        compression=compression,
    )
    try:
        answer = await ask(stream, asking.request, host)
        async with _open(
            stream,
            asking.take(answer),
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
    agreed: Negotiated,
    *,
    received: bytes,
    is_client: bool,
    max_message_bytes: int,
    nursery: trio.Nursery | None = None,
) -> AsyncGenerator[WebSocketsConnection, None]:
    """Keep what a connection needs while the block runs."""
    around = nullcontext(nursery) if nursery is not None else open_service_nursery()
    async with around as tasks:
        connection = WebSocketsConnection(
            stream,
            tasks,
            agreed,
            received=received,
            is_client=is_client,
            max_message_bytes=max_message_bytes,
        )
        try:
            yield connection
        finally:
            connection.abort()

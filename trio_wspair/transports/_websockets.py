"""A `Connection` on the sans-I/O protocol of the package `websockets`.

Knows its public API: the handshakes, the parser of frames and permessage-deflate are
its own. The protocol object never hears of what is sent here. It says a Close in answer
to the peer's, or to a breach, which is not sent: what is said is decided by the halves.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Final

import attrs
import trio
from websockets.frames import Frame, Opcode
from websockets.protocol import Side

from trio_wspair._codes import Close
from trio_wspair._errors import ConnectionClosedError, ProtocolError
from trio_wspair._nurseries import open_service_nursery

from ._answer import read_answer
from ._assembly import Assembly, too_big
from ._connection import Item
from ._handshakes import Agreed, Asking, answer_request
from ._linger import discard, linger
from ._outlet import Outlet
from ._ports import port_of

__all__ = (
    "WebSocketsConnection",
    "open_client_connection",
    "open_server_connection",
)

_VANISHED: Final = "WebSocket disconnected without sending Close frame."
"""The words of workerd for it."""
_CLOSE_FRAME: Final = b"\x88"
"""First byte of a Close: final fragment, opcode 8 (RFC 6455, section 5.2)."""


class WebSocketsConnection:
    """An open connection; see `Connection` for the methods.

    Made by `open_server_connection()` and `open_client_connection()`.

    Args:
        stream: The network.
        nursery: For a task that sends what the network doesn't take at once.
        agreed: What the handshake has led to.
        received: What was read after it.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        nursery: trio.Nursery,
        agreed: Agreed,
        received: bytes,
    ) -> None:
        self._stream = stream
        self._port = port_of(stream)
        self.outlet = Outlet(self._port, nursery)
        self._protocol = protocol = agreed.protocol
        self._is_client = protocol.side is Side.CLIENT
        self._received = received
        self._max_message_bytes = agreed.max_message_bytes
        self._assembly = Assembly(agreed.max_message_bytes)
        self._breach: ProtocolError | None = None
        self._heard_close = False
        # A client waits for the server to end TCP first (RFC 6455, 7.1.1).
        self._lingers = self._is_client
        self._ping_numbers = count()
        self._pongs: dict[bytes, _Pong] = {}
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
            raise ConnectionClosedError(1006, "the peer has gone", was_clean=False)
        while self._breach is None:
            await self.outlet.wait_room()  # For the pongs.
            data = self._received or await self._port.receive()
            self._received = b""
            if not data:
                self._forget_pings()
                raise ConnectionClosedError(1006, _VANISHED, was_clean=False)
            self.heard_at = trio.current_time()
            items = self._read(data)
            if items:
                return items
        raise self._breach

    def _read(self, data: bytes | bytearray) -> list[Item]:
        """Return the messages, and the Close, that end in these bytes."""
        protocol = self._protocol
        protocol.receive_data(data)
        items: list[Item] = []
        try:
            for frame in protocol.events_received():
                assert isinstance(frame, Frame)
                self._take(frame, items)
            self._look_for_end(items)
        except ProtocolError as exc:
            self._breach = exc
            self._lingers = True
        if self._breach is not None or self._heard_close:
            self._forget_pings()
        pongs = protocol.data_to_send()
        if pongs:
            self.outlet.write(b"".join(p for p in pongs if p[:1] != _CLOSE_FRAME))
        return items

    def _take(self, frame: Frame, items: list[Item]) -> None:
        """Add the message that ends with this frame, if any.

        Raises:
            ProtocolError: There is something wrong with it.
        """
        opcode = frame.opcode
        data = frame.data
        assert not isinstance(data, memoryview)
        if opcode is Opcode.CONT:
            message = self._assembly.go_on(data, final=frame.fin)
            if message is not None:
                items.append(message)
        elif opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            if not frame.fin:
                self._assembly.begin(data, text=opcode is Opcode.TEXT)
            elif len(data) > self._max_message_bytes:
                raise too_big(self._max_message_bytes)
            elif opcode is Opcode.BINARY:
                items.append(bytes(data))
            else:
                try:
                    items.append(data.decode())
                except UnicodeDecodeError as exc:
                    what = f"a text is no UTF-8: {exc.reason}"
                    raise ProtocolError(1007, what) from None
        elif opcode is Opcode.PONG:
            pong = self._pongs.get(bytes(data))
            if pong is not None:
                pong.came = True
                pong.over.set()

    def _look_for_end(self, items: list[Item]) -> None:
        """Add the peer's Close, if it has come.

        Raises:
            ProtocolError: The protocol object has found a breach.
        """
        protocol = self._protocol
        if protocol.close_rcvd is not None:
            # Also amid the fragments of a message, which is a breach to `websockets`.
            close = protocol.close_rcvd
            items.append(Close(int(close.code), close.reason))
            self._heard_close = True
        elif protocol.close_sent is not None:
            code = int(protocol.close_sent.code)
            if code == 1009:
                raise too_big(self._max_message_bytes)
            raise ProtocolError(code, protocol.close_sent.reason)

    # -- what is sent ------------------------------------------------------------

    async def send(self, items: Sequence[Item]) -> None:
        """Frame and send; see `Connection`."""
        frames: list[bytes] = []
        close = False
        for item in items:
            if isinstance(item, str):
                frames.append(self._framed(Opcode.TEXT, item.encode()))
            elif isinstance(item, bytes):
                frames.append(self._framed(Opcode.BINARY, item))
            else:
                frames.append(self._close_frame(item))
                close = True
        self.outlet.write(b"".join(frames), last=close)
        try:
            await self.outlet.flush()
        except trio.BrokenResourceError:
            raise ConnectionClosedError(1006, _VANISHED, was_clean=False) from None

    def _framed(self, opcode: Opcode, data: bytes) -> bytes:
        return Frame(opcode, data).serialize(
            mask=self._is_client, extensions=self._protocol.extensions
        )

    def _close_frame(self, close: Close) -> bytes:
        data = b""
        if close.code != 1005:
            data = close.code.to_bytes(2, "big") + close.reason.encode()
        return self._framed(Opcode.CLOSE, data)

    async def ping(self) -> float:
        """Send a ping and return the seconds until its pong; see `Connection`."""
        start = trio.current_time()
        pong = _Pong()
        if self._hears_pongs:
            data = next(self._ping_numbers).to_bytes(8, "big")
            self._pongs[data] = pong
            self.outlet.write(self._framed(Opcode.PING, data))
            try:
                await pong.over.wait()
            finally:
                del self._pongs[data]
        else:
            await trio.lowlevel.checkpoint()
        if not pong.came:
            raise ConnectionClosedError(1006, "no pong came", was_clean=False)
        return trio.current_time() - start

    def _forget_pings(self) -> None:
        """Tell those who wait for pongs that none will come."""
        self._hears_pongs = False
        for pong in self._pongs.values():
            pong.over.set()

    async def aclose(self, code: int, reason: str) -> None:
        """Say Close, flush and end TCP in good order; see `Connection`."""
        self._forget_pings()
        # The outlet takes nothing after the first Close.
        self.outlet.write(self._close_frame(Close(code, reason)), last=True)
        try:
            await self.outlet.flush()
        except trio.BrokenResourceError:
            return
        if self._lingers:
            await linger(self._stream)

    def abort(self) -> None:
        """Drop the connection; see `Connection`."""
        self._forget_pings()
        self.outlet.stop()  # The stream is closed by whoever has opened us.


@attrs.define(slots=True, eq=False)
class _Pong:
    over: trio.Event = attrs.Factory(trio.Event)
    came: bool = False


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
    """
    agreed, answer = answer_request(
        key,
        offered=extensions,
        subprotocol=subprotocol,
        headers=headers,
        max_message_bytes=max_message_bytes,
        compression=compression,
    )
    try:
        async with _open(stream, agreed, received) as connection:
            connection.outlet.write(answer)
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
    asking = Asking(
        host=host,
        resource=resource,
        subprotocols=subprotocols,
        headers=headers,
        max_message_bytes=max_message_bytes,
        compression=compression,
    )
    try:
        with suppress(trio.BrokenResourceError):  # There may be an answer still.
            await stream.send_all(asking.request)
        answer = await read_answer(stream)
        async with _open(stream, asking.take(answer), answer.received) as connection:
            yield connection
    finally:
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def _open(
    stream: trio.abc.Stream, agreed: Agreed, received: bytes
) -> AsyncGenerator[WebSocketsConnection, None]:
    """Keep what a connection needs while the block runs."""
    async with open_service_nursery() as nursery:
        connection = WebSocketsConnection(stream, nursery, agreed, received)
        try:
            yield connection
        finally:
            connection.abort()

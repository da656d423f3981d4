"""`EngineStream`: the stream that trio-websocket gets in place of the network.

Knows the stream interface of Trio, and the first byte of frames; no messages.

Theory of operation: trio-websocket reads from it and writes to it in a task of
`_engine`, while the connection writes messages to its `frame_writer` from other tasks.
Frames reach the network only through this frame writer, so that no frame is torn.

- Handshake of a server: trio-websocket reads a request that `_engine` has composed, and
  writes its 101. Frames that the client sent with its request are given to
  trio-websocket after that.
- Handshake of a client: what trio-websocket writes is collected. When it reads, the
  request is sent by `send_request`, and trio-websocket reads what that returns.
- Afterwards: a Close of trio-websocket is dropped, as the halves send Closes; a pong is
  passed on. Writing never waits, so that trio-websocket never stops reading.

The bytes that arrive are counted in two ways: small fragments, because trio-websocket
keeps each of them until the message is complete, and complete messages, because
trio-websocket hands over only one at a time.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from trio_wspair.transports.io._frame_writer import FrameWriter
from trio_wspair.transports.io._sockets import discard, network_io
from trio_wspair.transports.rfc6455._headers import FragmentCounter

__all__ = ("EngineStream",)

_CLOSE_FRAME: Final = 0x88
"""The first byte of a Close: final fragment, opcode 8 (RFC 6455, section 5.2)."""
_PONG_FRAME: Final = 0x8A
"""The first byte of a pong: final fragment, opcode 10."""
_MAX_FRAGMENTS: Final = 2**12
"""The most small fragments of one message. Reading stops when there are more."""


class EngineStream(trio.abc.Stream):
    """The stream between trio-websocket and the network.

    Args:
        stream: The network.
        nursery: Runs the task of the frame writer, if one is needed.
        request: For a server, the request that trio-websocket reads first.
        received: For a server, bytes that arrived after the request. trio-websocket
            reads them when it has written its 101, as it accepts no frames before.
        send_request: For a client, sends the request that trio-websocket has written,
            and returns the head of the response and the bytes that came after it.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        nursery: trio.Nursery,
        *,
        request: bytes = b"",
        received: bytes = b"",
        send_request: Callable[[bytes], Awaitable[tuple[bytes, bytes]]] | None = None,
    ) -> None:
        self._stream = stream
        self._network = network_io(stream)
        self.frame_writer: FrameWriter = FrameWriter(self._network, nursery)
        """Writes to the network."""
        self._request = request
        self._received = received
        self._answered = trio.Event()
        """Set when trio-websocket has answered the request, if there was one."""
        if not request:
            self._answered.set()
        self.engine_sent_close: bool = False
        """Whether trio-websocket has written a Close. It was dropped."""
        self._send_request = send_request
        self._written_request = b""
        """The request of trio-websocket, until `send_request()` is called."""
        self._fragments = FragmentCounter()
        self.heard_at: float = trio.current_time()
        """The time when the last bytes arrived, by Trio's clock."""

    # -- trio-websocket's side --------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:  # noqa: ARG002
        """Return bytes that have arrived, perhaps more than `max_bytes`."""
        if self._request:
            await trio.lowlevel.checkpoint()
            data, self._request = self._request, b""
            return data
        if not self._answered.is_set():
            await self._answered.wait()
        if self.has_too_many_fragments:
            await trio.lowlevel.checkpoint()
            return b""
        if self._received:
            await trio.lowlevel.checkpoint()
            data, self._received = self._received, b""
            self._fragments.feed(data)
            return data
        if self._send_request is not None:
            send_request, self._send_request = self._send_request, None
            head, received = await send_request(self._written_request)
            self._fragments.feed(received)
            return head + received
        data = bytes(await self._network.receive())
        self.heard_at = trio.current_time()
        self._fragments.feed(data)
        return data

    @property
    def has_too_many_fragments(self) -> bool:
        """Whether reading has stopped because of too many fragments in a message."""
        return self._fragments.count > _MAX_FRAGMENTS

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write a handshake or a pong. Drop a Close, as the halves send Closes."""
        await trio.lowlevel.checkpoint()
        if self._send_request is not None:
            self._written_request += data
            return
        if data and data[0] == _CLOSE_FRAME:
            self.engine_sent_close = True
            return
        # This never waits: trio-websocket reads on while the network takes no more.
        if data and data[0] == _PONG_FRAME:
            self.frame_writer.write_pong(bytes(data))
        else:
            self.frame_writer.write(bytes(data))
        self._answered.set()

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once, as `send_all()` never waits for the network."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Do nothing: `_engine` closes the network."""
        await trio.lowlevel.checkpoint()

    # -- the connection's side ----------------------------------------------------

    def another_follows(self) -> bool:
        """Note that trio-websocket has handed over a message.

        Return whether trio-websocket has another complete message to hand over.
        """
        self._fragments.messages -= 1
        return self._fragments.messages > 0

    async def wait_gone(self) -> None:
        """Read and discard bytes until the peer has ended the connection."""
        await discard(self._stream)

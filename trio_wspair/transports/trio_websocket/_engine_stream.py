"""The stream that trio-websocket gets in place of the network: no frame is torn.

trio-websocket reads through it, and writes its handshake and its pongs into it; the
messages are written by us, into the same frame writer. It counts the fragments that
arrive, because trio-websocket keeps each of them until the message has ended, and the
messages, because it hands over only one at a time.

"""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from trio_wspair.transports.io._frame_writer import FrameWriter
from trio_wspair.transports.io._sockets import discard, network_io
from trio_wspair.transports.rfc6455._headers import FragmentCounter

__all__ = ("EngineStream",)

_CLOSE_FRAME: Final = 0x88
"""First byte of a Close: final fragment, opcode 8 (RFC 6455, section 5.2)."""
_PONG_FRAME: Final = 0x8A
_MAX_FRAGMENTS: Final = 2**12
"""With more fragments in a message than this, reading stops."""


class EngineStream(trio.abc.Stream):
    """A stream in front of `stream`.

    Args:
        stream: The network.
        nursery: Where a task runs that writes, if there has to be one.
        head: Bytes that were read already, given out first.
        held: Bytes read after these, held back until something has been written:
            trio-websocket takes nothing before it has sent its 101.
        read_first: Instead, how to get what is given out first: bytes that are not
            looked at, and frames. The argument is what trio-websocket has written
            before, which is not sent otherwise.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        nursery: trio.Nursery,
        *,
        head: bytes = b"",
        held: bytes = b"",
        read_first: Callable[[bytes], Awaitable[tuple[bytes, bytes]]] | None = None,
    ) -> None:
        self._stream = stream
        self._network = network_io(stream)
        self.frame_writer: FrameWriter = FrameWriter(self._network, nursery)
        """What is to be sent."""
        self._head = head
        self._held = held
        self._answered = trio.Event()
        if not head:
            self._answered.set()
        self.engine_sent_close: bool = False
        """trio-websocket has written a Close, which was dropped."""
        self._read_first = read_first
        self._request = b""
        """What trio-websocket has written before `read_first` was called."""
        self._fragments = FragmentCounter()
        self.heard_at: float = trio.current_time()
        """When the last bytes arrived, by Trio's clock."""

    # -- trio-websocket's side --------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:  # noqa: ARG002
        """Read what has arrived, of any size."""
        if self._head:
            await trio.lowlevel.checkpoint()
            data, self._head = self._head, b""
            return data
        if not self._answered.is_set():
            await self._answered.wait()
        if self.has_too_many_fragments:
            await trio.lowlevel.checkpoint()
            return b""
        if self._held:
            await trio.lowlevel.checkpoint()
            data, self._held = self._held, b""
            self._fragments.feed(data)
            return data
        if self._read_first is not None:
            read_first, self._read_first = self._read_first, None
            head, received = await read_first(self._request)
            self._fragments.feed(received)
            return head + received
        data = bytes(await self._network.receive())
        self.heard_at = trio.current_time()
        self._fragments.feed(data)
        return data

    @property
    def has_too_many_fragments(self) -> bool:
        """Whether reading has stopped: trio-websocket would keep each fragment."""
        return self._fragments.count > _MAX_FRAGMENTS

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send a handshake or a pong; drop a Close, which the halves send."""
        await trio.lowlevel.checkpoint()
        if self._read_first is not None:
            self._request += data
            return
        if data and data[0] == _CLOSE_FRAME:
            self.engine_sent_close = True
            return
        # Never wait here: reading must go on when the network takes no more.
        if data and data[0] == _PONG_FRAME:
            self.frame_writer.write_pong(bytes(data))
        else:
            self.frame_writer.write(bytes(data))
        self._answered.set()

    async def wait_send_all_might_not_block(self) -> None:
        """Return, as `send_all()` need not wait."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Do nothing: the connection closes the network itself."""
        await trio.lowlevel.checkpoint()

    # -- our side -----------------------------------------------------------------

    def another_follows(self) -> bool:
        """Note that trio-websocket has handed over a message.

        Return whether it can hand over another one without waiting for the network.
        """
        self._fragments.messages -= 1
        return self._fragments.messages > 0

    async def wait_gone(self) -> None:
        """Discard what arrives until the peer has gone."""
        await discard(self._stream)

"""The stream that trio-websocket gets instead of the network: nothing can tear it.

Knows streams and the first byte of a frame, no more. trio-websocket reads through
it and writes its handshake and its pongs into it. What matters is written by us,
into the same `Outlet`.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from trio_wspair.transports.io._linger import discard
from trio_wspair.transports.io._outlet import Outlet
from trio_wspair.transports.io._ports import port_of

from ._fragments import FragmentCounter

__all__ = ("Wire",)

_CLOSE_FRAME: Final = 0x88
"""First byte of a Close: final fragment, opcode 8 (RFC 6455, section 5.2)."""
_PONG_FRAME: Final = 0x8A
_MAX_FRAGMENTS: Final = 2**12
"""More of them in a message than this are not read on."""


class Wire(trio.abc.Stream):
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
        self._port = port_of(stream)
        self.outlet: Outlet = Outlet(self._port, nursery)
        """What is to be sent."""
        self._head = head
        self._held = held
        self._answered = trio.Event()
        if not head:
            self._answered.set()
        self.engine_said_close: bool = False
        """trio-websocket has written a Close, which was swallowed."""
        self._read_first = read_first
        self._request = b""
        """What was written while `read_first` was not asked yet."""
        self._fragments = FragmentCounter()
        self.heard_at: float = trio.current_time()
        """When the last bytes came."""

    # -- trio-websocket's side --------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:  # noqa: ARG002
        """Read what has come, however much it is."""
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
        data = bytes(await self._port.receive())
        self.heard_at = trio.current_time()
        self._fragments.feed(data)
        return data

    @property
    def has_too_many_fragments(self) -> bool:
        """Whether reading has stopped, as trio-websocket keeps each of them."""
        return self._fragments.count > _MAX_FRAGMENTS

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send a handshake or a pong, and swallow a Close: we say that ourselves."""
        await trio.lowlevel.checkpoint()
        if self._read_first is not None:
            self._request += data
            return
        if data and data[0] == _CLOSE_FRAME:
            self.engine_said_close = True
            return
        # When the network takes no more, what has arrived is still to be read.
        if data and data[0] == _PONG_FRAME:
            self.outlet.write_pong(bytes(data))
        else:
            self.outlet.write(bytes(data))
        self._answered.set()

    async def wait_send_all_might_not_block(self) -> None:
        """Return, as `send_all()` need not wait."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Do nothing: when the network is closed is decided elsewhere."""
        await trio.lowlevel.checkpoint()

    # -- our side -----------------------------------------------------------------

    def another_follows(self) -> bool:
        """Count a message that trio-websocket has handed over off those of a read.

        Return whether it hands over another one without waiting for the network.
        """
        self._fragments.messages -= 1
        return self._fragments.messages > 0

    async def wait_gone(self) -> None:
        """Discard what comes until the peer has gone."""
        await discard(self._stream)

"""The stream that trio-websocket gets instead of the network: nothing can tear it.

Knows streams and the first byte of a frame, no more. trio-websocket reads through
it and writes its handshake and its pongs into it. What matters is written by us,
with `write()`, which is synchronous: only whole frames enter the buffer, and one
task, `run()`, which no cancellation of others reaches, brings them to the network.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import trio
from trio.lowlevel import enable_ki_protection

from ._answer import Answer
from ._fragments import FragmentCounter
from ._linger import discard

__all__ = ("Wire",)

_CLOSE_FRAME: Final = 0x88
"""First byte of a Close: final fragment, opcode 8 (RFC 6455, section 5.2)."""
_CHUNK: Final = 2**18
_MAX_FRAGMENTS: Final = 2**12
"""More of them in a message than this are not read on."""


class Wire(trio.abc.Stream):
    """A stream with a buffer in front of `stream`.

    Args:
        stream: The network.
        head: Bytes that were read already, given out first.
        held: Bytes read after these, held back until something has been written:
            trio-websocket takes nothing before it has sent its 101.
        read_first: Instead, how to read what is given out first.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        head: bytes = b"",
        held: bytes = b"",
        read_first: Callable[[trio.abc.Stream], Awaitable[Answer]] | None = None,
    ) -> None:
        self._stream = stream
        self._head = head
        self._held = held
        self._answered = trio.Event()
        if not head:
            self._answered.set()
        self._buffer = bytearray()
        self._filled = trio.Event()
        self._flushed = trio.Event()
        self._scope = trio.CancelScope(shield=True)
        self._muted = False
        self._broken = False
        self.engine_said_close: bool = False
        """trio-websocket has written a Close, which was swallowed."""
        self._read_first = read_first
        self._fragments = FragmentCounter()
        self.heard_at: float = trio.current_time()
        """When the last bytes came."""

    # -- trio-websocket's side --------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read, as any stream."""
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
            answer = await read_first(self._stream)
            self._fragments.feed(answer.received)
            return answer.head + answer.received
        data = bytes(await self._stream.receive_some(max_bytes))
        self.heard_at = trio.current_time()
        self._fragments.feed(data)
        return data

    @property
    def has_too_many_fragments(self) -> bool:
        """Whether reading has stopped, as trio-websocket keeps each of them."""
        return self._fragments.count > _MAX_FRAGMENTS

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Buffer a handshake or a pong, and swallow a Close: we say that ourselves."""
        await trio.lowlevel.checkpoint()
        if data and data[0] == _CLOSE_FRAME:
            self.engine_said_close = True
            return
        # When the network takes no more, what has arrived is still to be read.
        # Pongs wait for room, so that a flood of pings can't grow the buffer.
        while len(self._buffer) > _CHUNK and not self._broken:
            await self._flushed.wait()
        if not self._broken:
            self.write(bytes(data))
        self._answered.set()

    async def wait_send_all_might_not_block(self) -> None:
        """Return, as `send_all()` buffers."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Do nothing: when the network is closed is decided elsewhere."""
        await trio.lowlevel.checkpoint()

    # -- our side -----------------------------------------------------------------

    def write(self, frames: bytes, *, last: bool = False) -> None:
        """Buffer whole frames. After the `last` ones nothing more is taken."""
        if not self._muted:
            self._buffer += frames
            self._muted = last
            self._filled.set()

    async def flush(self) -> None:
        """Wait until the network has taken everything.

        Raises:
            BrokenResourceError: It won't.
        """
        while self._buffer and not self._broken:
            await self._flushed.wait()
        if self._broken:
            raise trio.BrokenResourceError

    @enable_ki_protection
    async def run(self) -> None:
        """Bring the buffer to the network until `stop()`, whoever is cancelled."""
        with self._scope:
            try:
                while True:
                    await self._filled.wait()
                    self._filled = trio.Event()
                    while self._buffer:
                        chunk = bytes(self._buffer[:_CHUNK])
                        await self._stream.send_all(chunk)
                        del self._buffer[: len(chunk)]
                        self._flushed.set()
                        self._flushed = trio.Event()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                self._broken = True
                self._flushed.set()

    def stop(self) -> None:
        """Make `run()` return."""
        self._scope.cancel(reason="the connection has ended")

    async def wait_gone(self) -> None:
        """Discard what comes until the peer has gone."""
        await discard(self._stream)

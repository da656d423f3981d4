"""`FrameWriter`: writes whole frames to the network, also when a sender is cancelled.

Knows network I/O, and frames as bytes; not what a frame means, except a pong.

Theory of operation: `write()` and `write_pong()` never block, and any task may call
them. While the buffer is empty, they write to the network directly. What the network
does not take is put into the buffer, and a task is started, which writes the buffer
whenever it is not empty, until `stop()`. This task is shielded, so that a cancellation
never tears a frame. A sender that has to wait calls `flush()`. Bytes are sent in the
order of the calls, as nothing is written directly while the buffer is not empty or the
task is writing.
"""

from typing import Final

import trio
from trio.lowlevel import enable_ki_protection

from ._sockets import NetworkIO

__all__ = ("FrameWriter",)

_FULL_BYTES: Final = 2**18
"""While the network has this many bytes to take, only the newest pong is kept."""


class FrameWriter:
    """Writes whole frames.

    Args:
        network: Sends the bytes.
        nursery: Runs the task, if one is needed.
    """

    def __init__(self, network: NetworkIO, nursery: trio.Nursery) -> None:
        self._network = network
        self._nursery = nursery
        self._buffer = bytearray()
        self._in_flight = 0
        """The number of bytes that the task is writing. They have left the buffer."""
        self._pong = b""
        """A pong to write after the buffer. A newer pong replaces it."""
        self._filled: trio.Event | None = None
        """Wakes the task; `None` if no task was started."""
        self._sent = trio.Event()
        self._scope = trio.CancelScope(shield=True)
        self._last_written = False
        self._broken = False

    def write(self, frames: bytes, *, last: bool = False) -> None:
        """Write or buffer whole frames. After a call with `last`, ignore all frames."""
        if self._last_written or self._broken:
            return
        if last:
            self._last_written = True
            self._pong = b""
        sent = 0
        if not self._waiting:
            try:
                sent = self._network.send_now(frames)
            except trio.BrokenResourceError:
                self._broken = True
                return
            if sent == len(frames):
                return
        self._buffer += memoryview(frames)[sent:]
        if self._filled is None:
            self._filled = trio.Event()
            self._nursery.start_soon(self._run)
        self._filled.set()

    def write_pong(self, frame: bytes) -> None:
        """Write a pong. While much is buffered, keep only the newest pong.

        It is enough to answer the last ping (RFC 6455, section 5.5.3). So a flood of
        pings can't fill the memory, and the reader need not wait for room in the
        buffer. If it waited, and the peer did the same, neither would read any more.
        """
        if self._waiting < _FULL_BYTES:
            self.write(frame)
        elif not self._last_written:
            self._pong = frame

    @property
    def taken(self) -> bool:
        """Whether the network has taken everything that was written."""
        return not self._waiting and not self._broken

    @property
    def _waiting(self) -> int:
        return len(self._buffer) + self._in_flight

    async def flush(self) -> None:
        """Wait until the network has taken everything that was written.

        Raises:
            BrokenResourceError: The connection is gone, or `stop()` was called.
        """
        while self._waiting and not self._broken:
            await self._sent.wait()
        if self._broken:
            raise trio.BrokenResourceError

    @enable_ki_protection
    async def _run(self) -> None:
        """Write the buffer to the network until `stop()`."""
        assert self._filled is not None
        with self._scope:
            try:
                while True:
                    await self._filled.wait()
                    self._filled = trio.Event()
                    while self._buffer or self._pong:
                        data, self._buffer = self._buffer + self._pong, bytearray()
                        self._pong = b""
                        self._in_flight = len(data)
                        await self._network.send(data)
                        self._in_flight = 0
                        self._sent.set()
                        self._sent = trio.Event()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                self._broken = True
                self._sent.set()

    def stop(self) -> None:
        """Stop writing, and end the task."""
        self._broken = True
        self._sent.set()
        self._scope.cancel(reason="the connection has ended")

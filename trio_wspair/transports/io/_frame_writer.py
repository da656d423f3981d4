"""`FrameWriter`: writes whole frames to the network, also when a sender is cancelled.

Knows network I/O, and frames as bytes. What the network takes at once is written at
once. The rest waits in a buffer, which a shielded task writes, so that cancelling a
sender never tears a frame.
"""

from typing import Final

import trio
from trio.lowlevel import enable_ki_protection

from ._sockets import NetworkIO

__all__ = ("FrameWriter",)

_ENOUGH: Final = 2**18
"""While so many bytes wait, only the newest pong is kept."""


class FrameWriter:
    """Writes whole frames.

    Args:
        network: Where the bytes go.
        nursery: Runs the task, when one is needed.
    """

    def __init__(self, network: NetworkIO, nursery: trio.Nursery) -> None:
        self._network = network
        self._nursery = nursery
        self._buffer = bytearray()
        self._in_flight = 0
        """Bytes that are being written, and no longer in the buffer."""
        self._pong = b""
        """A pong to be written after the buffer; a newer one replaces it."""
        self._filled: trio.Event | None = None
        """Wakes the task, which exists if this is not `None`."""
        self._sent = trio.Event()
        self._scope = trio.CancelScope(shield=True)
        self._muted = False
        self._broken = False

    def write(self, frames: bytes, *, last: bool = False) -> None:
        """Write or buffer whole frames. After the `last` ones, ignore the rest."""
        if self._muted or self._broken:
            return
        if last:
            self._muted = True
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

        Only the last ping has to be answered (RFC 6455, section 5.5.3). So a flood of
        pings can't fill the memory, and the reader never waits for room in the buffer:
        that could be a deadlock, if the peer does the same.
        """
        if self._waiting < _ENOUGH:
            self.write(frame)
        elif not self._muted:
            self._pong = frame

    @property
    def taken(self) -> bool:
        """Whether the network has taken everything."""
        return not self._waiting and not self._broken

    @property
    def _waiting(self) -> int:
        return len(self._buffer) + self._in_flight

    async def flush(self) -> None:
        """Wait until the network has taken everything.

        Raises:
            BrokenResourceError: The connection is gone.
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

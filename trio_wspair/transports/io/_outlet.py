"""The way of frames to the network: whole ones, whoever is cancelled.

Knows ports, and whole frames as bytes. What the network takes at once is sent at once;
the rest waits in a buffer, which a task brings to the network that no cancellation of
others reaches.
"""

from typing import Final

import trio
from trio.lowlevel import enable_ki_protection

from ._ports import Port

__all__ = ("Outlet",)

_ENOUGH: Final = 2**18
"""While so many bytes wait, pongs are not added to them."""


class Outlet:
    """What is to be sent.

    Args:
        port: The network.
        nursery: Where the task runs, if there has to be one.
    """

    def __init__(self, port: Port, nursery: trio.Nursery) -> None:
        self._port = port
        self._nursery = nursery
        self._buffer = bytearray()
        self._in_flight = 0
        """Bytes that are being sent, and in the buffer no more."""
        self._pong = b""
        """Sent after what waits now, or never if a newer one comes before that."""
        self._filled: trio.Event | None = None
        """The task waits for this; there is a task if it is not `None`."""
        self._sent = trio.Event()
        self._scope = trio.CancelScope(shield=True)
        self._muted = False
        self._broken = False

    def write(self, frames: bytes, *, last: bool = False) -> None:
        """Send whole frames, or keep them. After the `last` ones none are taken."""
        if self._muted or self._broken:
            return
        if last:
            self._muted = True
            self._pong = b""
        sent = 0
        if not self._waiting:
            try:
                sent = self._port.send_now(frames)
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
        """Send a pong. While a lot waits it does, too, until a newer one comes.

        Only the last ping has to be answered (RFC 6455, section 5.5.3). So a flood of
        them can't fill the memory, and nobody has to wait for room, who might keep the
        peer from making some.
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
            BrokenResourceError: It won't.
        """
        while self._waiting and not self._broken:
            await self._sent.wait()
        if self._broken:
            raise trio.BrokenResourceError

    @enable_ki_protection
    async def _run(self) -> None:
        """Bring the buffer to the network until `stop()`."""
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
                        await self._port.send(data)
                        self._in_flight = 0
                        self._sent.set()
                        self._sent = trio.Event()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                self._broken = True
                self._sent.set()

    def stop(self) -> None:
        """Send no more, and let the task end."""
        self._broken = True
        self._sent.set()
        self._scope.cancel(reason="the connection has ended")

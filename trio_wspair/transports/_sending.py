"""What both engines share: sending through a `FrameWriter`, and waiting for pongs.

Knows items; how an item becomes a frame is up to the engine.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import trio

from trio_wspair._rules.codes import Close
from trio_wspair._rules.errors import connection_lost
from trio_wspair.transports.io._frame_writer import FrameWriter

from ._connection import Item

__all__ = ("Pong", "Sending")


class Pong:
    """The pong that a ping waits for."""

    def __init__(self) -> None:
        self._asked = trio.current_time()
        self._over = trio.Event()
        self._came = False

    def come(self) -> None:
        """Note that the pong has arrived."""
        self._came = True
        self._over.set()

    def fail(self) -> None:
        """Note that no pong will arrive, unless it has."""
        self._over.set()

    async def wait(self) -> float:
        """Wait for the pong, and return the round trip in seconds. Always a checkpoint.

        Raises:
            ConnectionClosedError: No pong will arrive.
        """
        await self._over.wait()
        if not self._came:
            raise connection_lost("no pong came")
        return trio.current_time() - self._asked


class Sending(ABC):
    """The sending side of a `Connection`."""

    def __init__(self, frame_writer: FrameWriter) -> None:
        self.frame_writer = frame_writer

    @abstractmethod
    def _frame(self, item: Item) -> bytes:
        """Return an item as a frame."""

    async def send(self, items: Sequence[Item]) -> None:
        """Frame and send; see `Connection`."""
        self._write(items)
        try:
            await self.frame_writer.flush()
        except trio.BrokenResourceError:
            raise connection_lost() from None

    def send_now(self, messages: Sequence[str | bytes]) -> bool:
        """Frame and send without waiting; see `SupportsSendNow`."""
        self._write(messages)
        return self.frame_writer.taken

    def _write(self, items: Sequence[Item]) -> None:
        if items:
            frames = b"".join([self._frame(item) for item in items])
            self.frame_writer.write(frames, last=isinstance(items[-1], Close))

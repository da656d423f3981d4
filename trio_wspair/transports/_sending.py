"""What the engines do alike: sending, and waiting for pongs.

Knows the outlet and the items; how one becomes a frame its engine says.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import trio

from trio_wspair._rules.codes import Close
from trio_wspair.transports.io._outlet import Outlet

from ._connection import Item
from ._ends import lost

__all__ = ("Pong", "Sending")


class Pong:
    """The answer to a ping that is being sent."""

    def __init__(self) -> None:
        self._asked = trio.current_time()
        self._over = trio.Event()
        self._came = False

    def come(self) -> None:
        """Take note that it is here."""
        self._came = True
        self._over.set()

    def fail(self) -> None:
        """Take note that it will not come, unless it has."""
        self._over.set()

    async def wait(self) -> float:
        """Wait for it and return the seconds that it took. Always a checkpoint.

        Raises:
            ConnectionClosedError: It will not come.
        """
        await self._over.wait()
        if not self._came:
            raise lost("no pong came")
        return trio.current_time() - self._asked


class Sending(ABC):
    """The half of a `Connection` that sends."""

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet

    @abstractmethod
    def _frame(self, item: Item) -> bytes:
        """Return an item as a frame."""

    async def send(self, items: Sequence[Item]) -> None:
        """Frame and send; see `Connection`."""
        self._write(items)
        try:
            await self.outlet.flush()
        except trio.BrokenResourceError:
            raise lost() from None

    def send_now(self, messages: Sequence[str | bytes]) -> bool:
        """Frame and send without waiting; see `SupportsSendNow`."""
        self._write(messages)
        return self.outlet.taken

    def _write(self, items: Sequence[Item]) -> None:
        if items:
            frames = b"".join([self._frame(item) for item in items])
            self.outlet.write(frames, last=isinstance(items[-1], Close))

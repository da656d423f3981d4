"""Who is ready to be served: a queue in front of one task, which sleeps meanwhile.

Knows nothing of what it holds. Not a memory channel: something is put and taken for
every message of a fan-out.
"""

from collections import deque
from typing import Generic, TypeVar

import trio

__all__ = ("ReadyQueue",)

_T = TypeVar("_T")


class ReadyQueue(Generic[_T]):
    """The queue, for one task that takes from it."""

    __slots__ = ("_held", "_lot", "_waiting", "items")

    items: deque[_T]
    """Who is ready, in order."""

    def __init__(self) -> None:
        self.items = deque()
        self._lot = trio.lowlevel.ParkingLot()
        self._waiting = False
        self._held = False

    def put(self, item: _T) -> None:
        """Add somebody. Never blocks."""
        self.items.append(item)
        if self._waiting and not self._held:
            self._wake()

    def hold(self) -> None:
        """Let the task sleep until `let_go()`."""
        self._held = True

    def let_go(self) -> None:
        """Wake the task if anything is left for it."""
        self._held = False
        if self._waiting and self.items:
            self._wake()

    async def wait(self) -> None:
        """Wait until there is somebody. Always a checkpoint."""
        if self.items:
            await trio.lowlevel.checkpoint()
        else:
            self._waiting = True
            await self._lot.park()

    def _wake(self) -> None:
        self._waiting = False
        self._lot.unpark()

"""The cork: holds back wake-ups while a block runs, and then wakes each task once.

Knows nothing of halves and connections. A task switch takes longer than most listeners
and most writes. So code that is about to cause many wake-ups corks them, does its work,
and uncorks them.

Two things can be corked:

- `ReadyQueue`, the queue in front of a dispatcher. The reader of a connection corks it
  and delivers all messages of one read. Then the dispatcher serves the halves in the
  reader's task.
- The writes of connections, in a block of `corked()`. `broadcast()` queues its message
  for each half. When the block ends, each connection writes.

There are two corks because a `broadcast()` must not run listeners before it returns.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

import trio

__all__ = ("ReadyQueue", "at_uncork", "corked")

_T = TypeVar("_T")


class _Writes(threading.local):
    """The writes that are held back in this thread; a Trio run has one thread."""

    calls: list[Callable[[], None]] | None = None


_writes: Final = _Writes()


@contextmanager
def corked() -> Generator[None, None, None]:
    """Hold back the writes of connections until the block ends.

    The block must not await.
    """
    before = _writes.calls
    calls: list[Callable[[], None]] = []
    _writes.calls = calls
    try:
        yield
    finally:
        _writes.calls = before
        for call in calls:
            call()


def at_uncork(call: Callable[[], None]) -> bool:
    """Call `call` at the end of the block of `corked()`. Return `False` outside of one.

    `call` must not raise and must not block.
    """
    if _writes.calls is None:
        return False
    _writes.calls.append(call)
    return True


class ReadyQueue(Generic[_T]):
    """A queue in front of one task, which sleeps while the queue is empty.

    A memory channel would be slower, and `put()` runs for every message of a fan-out.
    """

    __slots__ = ("_corked", "_lot", "_waiting", "items")

    items: deque[_T]
    """The items that are ready, in order."""

    def __init__(self) -> None:
        self.items = deque()
        self._lot = trio.lowlevel.ParkingLot()
        self._waiting = False
        self._corked = False

    def put(self, item: _T) -> None:
        """Add an item, and wake the task unless the queue is corked. Never blocks."""
        self.items.append(item)
        if self._waiting and not self._corked:
            self._wake()

    def cork(self) -> None:
        """Leave the task asleep until `uncork()`."""
        self._corked = True

    def uncork(self) -> None:
        """Wake the task if the queue has items."""
        self._corked = False
        if self._waiting and self.items:
            self._wake()

    async def wait(self) -> None:
        """Wait until there is an item. Always a checkpoint."""
        if self.items:
            await trio.lowlevel.checkpoint()
        else:
            self._waiting = True
            await self._lot.park()

    def _wake(self) -> None:
        self._waiting = False
        self._lot.unpark()

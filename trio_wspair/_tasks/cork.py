"""The cork: wake-ups that are held back while a block runs, and made up for once.

Knows nothing of halves and connections. A task switch takes longer than most listeners
and most writes. So code that is about to cause many wake-ups corks them, does its work,
and uncorks: then one pass does what each wake-up would have done.

What can be corked, and what is done when it is uncorked:

- `ReadyQueue`, the queue in front of a dispatcher. The reader of a connection corks
  it, delivers all messages of one read, and has the dispatcher serve the halves in the
  reader's task.
- The writes of connections, in a block of `corked()`: `broadcast()` queues its message
  for each half, and then each connection writes.

They are separate, as a broadcast must not run listeners inside of its call.
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
    """The writes that are held back; each Trio run has its thread."""

    calls: list[Callable[[], None]] | None = None


_writes: Final = _Writes()


@contextmanager
def corked() -> Generator[None, None, None]:
    """Hold back the writes of connections until the block ends. It must not await."""
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
    """Call `call` when the cork is pulled; return whether there is a cork.

    It must not raise, and never block.
    """
    if _writes.calls is None:
        return False
    _writes.calls.append(call)
    return True


class ReadyQueue(Generic[_T]):
    """A queue in front of one task, which sleeps while it is empty.

    Not a memory channel: an item is put and taken for every message of a fan-out.
    """

    __slots__ = ("_corked", "_lot", "_waiting", "items")

    items: deque[_T]
    """What is ready, in order."""

    def __init__(self) -> None:
        self.items = deque()
        self._lot = trio.lowlevel.ParkingLot()
        self._waiting = False
        self._corked = False

    def put(self, item: _T) -> None:
        """Add an item, and wake the task unless it is corked. Never blocks."""
        self.items.append(item)
        if self._waiting and not self._corked:
            self._wake()

    def cork(self) -> None:
        """Don't wake the task until `uncork()`."""
        self._corked = True

    def uncork(self) -> None:
        """Wake the task if an item is left for it."""
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

"""`Timers`: calls after a delay, made by one task instead of many that sleep.

Knows only time. There are few different delays, and many calls with each of them. Calls
with the same delay become due in the order in which they were set, so each delay has a
queue.
"""

import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import trio
from trio.lowlevel import enable_ki_protection

from .nurseries import let_unread_bytes_count, open_service_nursery

__all__ = ("Timers",)

Call = Callable[[], None]
"""A call must not raise, and must not block."""


class Timers:
    """Makes calls after a delay, while `run()` or the block of `kept()` is running."""

    def __init__(self) -> None:
        self._queues: dict[float, OrderedDict[Call, float]] = {}
        """For each delay, the calls with the times at which they are due, in order."""
        self._sleep = trio.CancelScope()

    def set(self, delay: float, call: Call) -> None:
        """Make a call once, after `delay` seconds; never if `delay` is `math.inf`.

        The call must not be set already.
        """
        if delay == math.inf:
            return
        due = trio.current_time() + delay
        self._queues.setdefault(delay, OrderedDict())[call] = due
        if due < self._sleep.deadline:  # noqa: PLR1730 - setting it takes time
            self._sleep.deadline = due

    def cancel(self, delay: float, call: Call) -> None:
        """Undo `set()`. No effect if the call is not set, or was made already."""
        queue = self._queues.get(delay)
        if queue is not None:
            queue.pop(call, None)

    @asynccontextmanager
    async def kept(self) -> AsyncGenerator[None, None]:
        """Make the calls that are due during the block, also when it is cancelled."""
        async with open_service_nursery() as nursery:
            scope = trio.CancelScope(shield=True)
            nursery.start_soon(self._run_in, scope)
            try:
                yield
            finally:
                scope.cancel(reason="the block has ended")

    @enable_ki_protection
    async def _run_in(self, scope: trio.CancelScope) -> None:
        with scope:
            await self.run()

    @enable_ki_protection
    async def run(self) -> None:
        """Make the calls that are due, until cancelled."""
        while True:
            with trio.CancelScope(deadline=self._next_due()) as self._sleep:
                await trio.sleep_forever()
            now = trio.current_time()
            await let_unread_bytes_count()
            self._call_due(now)

    def _call_due(self, now: float) -> None:
        for queue in list(self._queues.values()):
            while queue and queue[call := next(iter(queue))] <= now:
                del queue[call]
                call()

    def _next_due(self) -> float:
        firsts = (
            next(iter(queue.values())) for queue in self._queues.values() if queue
        )
        return min(firsts, default=math.inf)

"""Calls that are due after some time: one task in place of many that would sleep.

Knows only time. There are few different delays, each of them used by many: of the calls
with one delay, the one that was set last is due last, so that each delay has a queue.
"""

import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import trio
from trio.lowlevel import enable_ki_protection

from .nurseries import let_unread_bytes_count, open_service_nursery

__all__ = ("Alarms",)

Call = Callable[[], None]
"""Must not raise, and must never block."""


class Alarms:
    """Calls that are due after a delay, while `run()` or `kept()` does."""

    def __init__(self) -> None:
        self._queues: dict[float, OrderedDict[Call, float]] = {}
        """For each delay, the calls with the time when they are due, in that order."""
        self._sleep = trio.CancelScope()

    def set(self, delay: float, call: Call) -> None:
        """Call `call` once, after `delay` seconds; never if that is `math.inf`.

        It must not be set already.
        """
        if delay == math.inf:
            return
        due = trio.current_time() + delay
        self._queues.setdefault(delay, OrderedDict())[call] = due
        if due < self._sleep.deadline:  # noqa: PLR1730 - setting it takes time
            self._sleep.deadline = due

    def cancel(self, delay: float, call: Call) -> None:
        """Undo `set()`. Does nothing if it was not set, or has been called."""
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

"""Who is called after some time: one task for many that would sleep otherwise.

Knows time alone. Delays are few, each the same for many: so what is set last for one is
due last, and a queue for each is enough.
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
"""Must not raise, and never block."""


class Alarms:
    """Calls that are due after a delay, while `run()` or `kept()` does."""

    def __init__(self) -> None:
        self._queues: dict[float, OrderedDict[Call, float]] = {}
        """For each delay: what is called, and when. The first one is due first."""
        self._sleep = trio.CancelScope()

    def set(self, delay: float, call: Call) -> None:
        """Have `call` called once, after so many seconds; never if it is `math.inf`.

        It must not be waiting already.
        """
        if delay == math.inf:
            return
        due = trio.current_time() + delay
        self._queues.setdefault(delay, OrderedDict())[call] = due
        if due < self._sleep.deadline:  # noqa: PLR1730 - setting it takes time
            self._sleep.deadline = due

    def cancel(self, delay: float, call: Call) -> None:
        """Forget what was set, if it was."""
        queue = self._queues.get(delay)
        if queue is not None:
            queue.pop(call, None)

    @asynccontextmanager
    async def kept(self) -> AsyncGenerator[None, None]:
        """Call what is due while the block runs, also when it is cancelled."""
        async with open_service_nursery() as nursery:
            scope = trio.CancelScope(shield=True)
            nursery.start_soon(self._run_in, scope)
            try:
                yield
            finally:
                scope.cancel(reason="nobody waits any more")

    @enable_ki_protection
    async def _run_in(self, scope: trio.CancelScope) -> None:
        with scope:
            await self.run()

    @enable_ki_protection
    async def run(self) -> None:
        """Call what is due, until cancelled."""
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

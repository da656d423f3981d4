"""Rates of what is done again and again inside this process, on Trio."""

import gc
import time
from collections.abc import Awaitable, Callable
from typing import Final

import trio
import trio.testing

from .work import PER_CPU_SECOND, VALUE, Measure, Sample

__all__ = ("PATIENCE", "Batch", "Prepare", "rate")

PATIENCE: Final = 30
"""Seconds. A message that never comes must not stop the benchmark for ever."""

Batch = Callable[[], Awaitable[int]]
"""Does some work, sees that it was done, and returns how much it was."""
Prepare = Callable[[trio.Nursery], Batch]
"""Sets everything up. Its tasks may run in the nursery; they are cancelled later."""


def rate(prepare: Prepare) -> Measure:
    """Return a measure of how much is done in a second."""

    def measure(seconds: float) -> Sample:
        return trio.run(_rate, prepare, seconds)

    return measure


async def _rate(prepare: Prepare, seconds: float) -> Sample:
    async with trio.open_nursery() as nursery:
        with trio.fail_after(seconds + PATIENCE):
            batch = prepare(nursery)
            await trio.testing.wait_all_tasks_blocked()
            await _repeat(batch, seconds / 4)  # Warm up.
            gc.collect()
            result = await _repeat(batch, seconds)
        nursery.cancel_scope.cancel()
    return result


async def _repeat(batch: Batch, seconds: float) -> Sample:
    done = 0
    cpu, start = time.process_time(), time.perf_counter()
    spent = 0.0
    while spent < seconds:
        done += await batch()
        spent = time.perf_counter() - start
    return {VALUE: done / spent, PER_CPU_SECOND: done / (time.process_time() - cpu)}

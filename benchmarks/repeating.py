"""Measures rates: repeats a batch of operations in this process, on Trio."""

import gc
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final

import trio
import trio.testing

from .workload import PER_CPU_SECOND, VALUE, Measure, Sample

__all__ = ("PATIENCE", "Batch", "Prepare", "rate", "rate_within")

PATIENCE: Final = 30
"""How many seconds longer a sample may take; one that lost a message never ends."""

Batch = Callable[[], Awaitable[int]]
"""Carries out some operations, checks their outcome, and returns their number."""
Prepare = Callable[[trio.Nursery], Batch]
"""Sets up a batch. The nursery is for its tasks, which are cancelled at the end."""
OpenBatch = Callable[[], AbstractAsyncContextManager[Batch]]


def rate(prepare: Prepare) -> Measure:
    """Return a measure of the operations per second."""
    return rate_within(partial(_prepared, prepare))


@asynccontextmanager
async def _prepared(prepare: Prepare) -> AsyncGenerator[Batch, None]:
    async with trio.open_nursery() as nursery:
        yield prepare(nursery)
        nursery.cancel_scope.cancel()


def rate_within(open_batch: OpenBatch) -> Measure:
    """Return a measure of the operations per second, of a batch that must be opened."""

    def measure(seconds: float) -> Sample:
        return trio.run(_rate, open_batch, seconds)

    return measure


async def _rate(open_batch: OpenBatch, seconds: float) -> Sample:
    with trio.fail_after(seconds + PATIENCE):
        async with open_batch() as batch:
            await trio.testing.wait_all_tasks_blocked()
            await _repeat(batch, seconds / 4)  # Warm up.
            gc.collect()
            return await _repeat(batch, seconds)


async def _repeat(batch: Batch, seconds: float) -> Sample:
    done = 0
    cpu, start = time.process_time(), time.perf_counter()
    spent = 0.0
    while spent < seconds:
        done += await batch()
        spent = time.perf_counter() - start
    return {VALUE: done / spent, PER_CPU_SECOND: done / (time.process_time() - cpu)}

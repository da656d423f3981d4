"""What a benchmark is: a work, the contestants that do it, and what is measured."""

import gc
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import attrs
import trio
import trio.testing

__all__ = ("OURS", "Batch", "Measure", "Prepare", "Quantity", "Sample", "Work", "rate")

OURS: Final = "trio-wspair"
"""The contestant that the others are compared with."""

_PATIENCE: Final = 30
"""Seconds. A message that never comes must not stop the benchmark for ever."""

Sample = Mapping[str, float]
"""Quantity -> value."""
Measure = Callable[[float], Sample]
"""Takes about how many seconds to measure; it runs in a process of its own."""

Batch = Callable[[], Awaitable[int]]
"""Does some work, sees that it was done, and returns how much it was."""
Prepare = Callable[[trio.Nursery], Batch]
"""Sets everything up. Its tasks may run in the nursery; they are cancelled later."""


@attrs.frozen
class Quantity:
    """One thing that a sample tells."""

    name: str
    more_is_better: bool = True


@attrs.frozen
class Work:
    """Something that can be done with trio-wspair or without."""

    name: str
    """For the command line."""
    title: str
    quantities: tuple[Quantity, ...]
    contestants: Mapping[str, Measure]
    """`OURS`, and one or more others."""


def rate(quantity: Quantity, prepare: Prepare) -> Measure:
    """Return a measure of how much is done in a second of CPU time.

    CPU time and not the time of day, as there is nothing to wait for, and neighbours
    on the same machine disturb it less.
    """

    def measure(seconds: float) -> Sample:
        return {quantity.name: trio.run(_rate, prepare, seconds)}

    return measure


async def _rate(prepare: Prepare, seconds: float) -> float:
    async with trio.open_nursery() as nursery:
        with trio.fail_after(seconds + _PATIENCE):
            batch = prepare(nursery)
            await trio.testing.wait_all_tasks_blocked()
            await _repeat(batch, seconds / 5)  # Warm up.
            gc.collect()
            result = await _repeat(batch, seconds)
        nursery.cancel_scope.cancel()
    return result


async def _repeat(batch: Batch, seconds: float) -> float:
    done = 0
    spent = 0.0
    start = time.process_time()
    while spent < seconds:
        done += await batch()
        spent = time.process_time() - start
    return done / spent

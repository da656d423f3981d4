"""The parts of a benchmark: a work, the contestants that do it, what is measured."""

from collections.abc import Callable, Mapping
from typing import Final

import attrs

__all__ = (
    "CLIENT",
    "FASTEST",
    "OURS",
    "PER_CPU_SECOND",
    "VALUE",
    "Goal",
    "Measure",
    "MissingError",
    "Quantity",
    "Sample",
    "Work",
    "is_ours",
)

OURS: Final = "trio-wspair"
"""The beginning of the names of our contestants."""

VALUE: Final = "value"
"""In each sample: the quantity of the work."""
PER_CPU_SECOND: Final = "per_cpu_second"
"""In samples of rates: the same for each second of CPU time, not of the clock.

Neighbours on the same machine disturb it less.
"""

CLIENT: Final = "client"
"""In samples over loopback: the share of a core that the load generator used."""

Sample = Mapping[str, float]
"""`VALUE`, and what else was noted."""
Measure = Callable[[float], Sample]
"""Measures for about this many seconds, in a separate process."""


class MissingError(Exception):
    """A contestant is not installed; the message says what is missing."""


@attrs.frozen
class Quantity:
    """What is measured."""

    name: str
    more_is_better: bool = True

    def ratio(self, ours: float, theirs: float) -> float:
        """Return the ratio of ours to theirs; above 1, ours is better."""
        return ours / theirs if self.more_is_better else theirs / ours


FASTEST: Final = f"the fastest {OURS}"


@attrs.frozen
class Goal:
    """The goal for a ratio."""

    theirs: str
    at_least: float
    ours: str = FASTEST
    """One of ours; `FASTEST` is the one with the best median."""


@attrs.frozen
class Work:
    """Something that trio-wspair and its alternatives can do."""

    name: str
    """The name on the command line."""
    title: str
    quantity: Quantity
    contestants: Mapping[str, Measure]
    goals: tuple[Goal, ...] = ()
    limit: float | None = None
    """The most that ours may use, if less is better."""
    yardsticks: tuple[str, ...] = ()
    """The contestants that are not alternatives, but show a limit."""


def is_ours(contestant: str) -> bool:
    """Return whether a contestant is trio-wspair."""
    return contestant == OURS or contestant.startswith(f"{OURS} ")

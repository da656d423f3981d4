"""What a benchmark is: a work, the contestants that do it, and what is measured."""

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
"""What the names of our own contestants begin with."""

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
"""Takes about so many seconds to measure; it runs in a process of its own."""


class MissingError(Exception):
    """A contestant is not installed here; the message says what is missing."""


@attrs.frozen
class Quantity:
    """What is measured."""

    name: str
    more_is_better: bool = True

    def ratio(self, ours: float, theirs: float) -> float:
        """Return how many times as good ours is."""
        return ours / theirs if self.more_is_better else theirs / ours


FASTEST: Final = f"the fastest {OURS}"


@attrs.frozen
class Goal:
    """A ratio that is wanted."""

    theirs: str
    at_least: float
    ours: str = FASTEST
    """One of ours; `FASTEST` is the one with the best median."""


@attrs.frozen
class Work:
    """Something that can be done with trio-wspair or without."""

    name: str
    """For the command line."""
    title: str
    quantity: Quantity
    contestants: Mapping[str, Measure]
    goals: tuple[Goal, ...] = ()
    limit: float | None = None
    """What ours may take at most, of something of which less is better."""
    yardsticks: tuple[str, ...] = ()
    """Those of the contestants that are no peers, but show a limit."""


def is_ours(contestant: str) -> bool:
    """Tell whether a contestant is trio-wspair."""
    return contestant == OURS or contestant.startswith(f"{OURS} ")

"""What a benchmark consists of: a workload, its implementations, a quantity, goals."""

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
    "Workload",
    "is_ours",
)

OURS: Final = "trio-wspair"
"""The name of trio-wspair; the names of its variants begin with it."""

VALUE: Final = "value"
"""In each sample: the measured value, in the unit of the workload's quantity."""
PER_CPU_SECOND: Final = "per_cpu_second"
"""In samples of rates: the rate per second of CPU time.

Other processes on the machine disturb it less than the rate per second of real time.
"""

CLIENT: Final = "client"
"""In samples over loopback: the share of a core that the load generator used."""

Sample = Mapping[str, float]
"""What was measured: `VALUE`, and some more values."""
Measure = Callable[[float], Sample]
"""Takes a sample that lasts about this many seconds."""


class MissingError(Exception):
    """An implementation is not installed; the message says what is missing."""


@attrs.frozen
class Quantity:
    """What is measured, such as messages per second."""

    name: str
    """The unit, as it stands in the tables."""
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
    """A variant of trio-wspair; `FASTEST` is the one with the best median."""


@attrs.frozen
class Workload:
    """A use of WebSockets, measured with trio-wspair and with its alternatives."""

    name: str
    """The name on the command line."""
    title: str
    quantity: Quantity
    implementations: Mapping[str, Measure]
    goals: tuple[Goal, ...] = ()
    limit: float | None = None
    """The goal for the value of trio-wspair, if less is better."""
    yardsticks: tuple[str, ...] = ()
    """The implementations that are no alternatives: they show what is possible."""


def is_ours(implementation: str) -> bool:
    """Whether an implementation is trio-wspair or one of its variants."""
    return implementation == OURS or implementation.startswith(f"{OURS} ")

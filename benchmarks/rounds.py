"""Rounds: in each, every contestant takes its turn."""

import subprocess
import sys
from collections.abc import Callable, Sequence

from .machine import facts
from .results import Results
from .sample import OTHERS, take_sample
from .work import VALUE, MissingError, Sample, Work

__all__ = ("measure",)

Take = Callable[[Work, str, float], Sample]


def measure(
    works: Sequence[Work], rounds: int, seconds: float, take: Take = take_sample
) -> Results:
    """Take all samples. A contestant that is missing or fails is left out and named."""
    samples: dict[str, dict[str, list[Sample]]] = {
        work.name: {contestant: [] for contestant in work.contestants} for work in works
    }
    left_out: dict[str, dict[str, str]] = {}
    for number in range(1, rounds + 1):
        for work in works:
            _tell(f"round {number} of {rounds}: {work.name}")
            for contestant, taken in samples[work.name].items():
                if contestant in left_out.get(work.name, ()):
                    continue
                try:
                    sample = take(work, contestant, seconds)
                except (MissingError, subprocess.SubprocessError) as error:
                    _tell(f"  {contestant}: left out, {error}")
                    left_out.setdefault(work.name, {})[contestant] = str(error)
                    taken.clear()
                else:
                    others = f"others {sample[OTHERS]:.2f}"
                    _tell(f"  {contestant}: {sample[VALUE]:,.0f}, {others}")
                    taken.append(sample)
    return Results(facts(), samples, left_out)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

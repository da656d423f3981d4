"""Takes the samples in rounds: each round measures every implementation once."""

import subprocess
import sys
from collections.abc import Callable, Sequence

from .machine import facts
from .results import Results
from .sample import OTHERS, take_sample
from .workload import VALUE, MissingError, Sample, Workload

__all__ = ("measure",)

Take = Callable[[Workload, str, float], Sample]


def measure(
    workloads: Sequence[Workload], rounds: int, seconds: float, take: Take = take_sample
) -> Results:
    """Take all samples. An implementation that is missing or that fails is left out."""
    samples: dict[str, dict[str, list[Sample]]] = {
        workload.name: {
            implementation: [] for implementation in workload.implementations
        }
        for workload in workloads
    }
    left_out: dict[str, dict[str, str]] = {}
    for number in range(1, rounds + 1):
        for workload in workloads:
            _tell(f"round {number} of {rounds}: {workload.name}")
            for implementation, taken in samples[workload.name].items():
                if implementation in left_out.get(workload.name, ()):
                    continue
                try:
                    sample = take(workload, implementation, seconds)
                except (MissingError, subprocess.SubprocessError) as error:
                    _tell(f"  {implementation}: left out, {error}")
                    left_out.setdefault(workload.name, {})[implementation] = str(error)
                    taken.clear()
                else:
                    others = f"others {sample[OTHERS]:.2f}"
                    _tell(f"  {implementation}: {sample[VALUE]:,.0f}, {others}")
                    taken.append(sample)
    return Results(facts(), samples, left_out)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

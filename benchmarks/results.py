"""The results: samples, which are stored as JSON, and the ratios between them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import attrs

from .workload import FASTEST, VALUE, Sample, Workload, is_ours

__all__ = ("Results", "Spread", "load", "save")


@attrs.frozen
class Spread:
    """The values of one quantity in several rounds."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def least(self) -> float:
        return min(self.values)

    @property
    def most(self) -> float:
        return max(self.values)


@attrs.frozen
class Results:
    """All samples, and the facts on which they depend."""

    facts: Mapping[str, str]
    samples: Mapping[str, Mapping[str, Sequence[Sample]]]
    """Workload -> implementation -> its sample in each round."""
    left_out: Mapping[str, Mapping[str, str]] = attrs.field(
        factory=dict[str, Mapping[str, str]]
    )
    """Workload -> implementation -> why it has no samples."""

    def spread(
        self, workload: Workload, implementation: str, what: str = VALUE
    ) -> Spread:
        return Spread(
            [sample[what] for sample in self.samples[workload.name][implementation]]
        )

    def ratios(
        self, workload: Workload, ours: str, theirs: str, what: str = VALUE
    ) -> Spread:
        """Return the ratios of ours to theirs, round by round."""
        pairs = zip(
            self.spread(workload, ours, what).values,
            self.spread(workload, theirs, what).values,
            strict=True,
        )
        return Spread([workload.quantity.ratio(mine, other) for mine, other in pairs])

    def implementations(self, workload: Workload) -> list[str]:
        """Return the implementations with samples, in the order of the catalogue."""
        measured = self.samples.get(workload.name, {})
        return [name for name in workload.implementations if measured.get(name)]

    def ours(self, workload: Workload) -> list[str]:
        return [name for name in self.implementations(workload) if is_ours(name)]

    def fastest(self, workload: Workload) -> str:
        """Return the variant of trio-wspair with the best median."""
        sign = 1 if workload.quantity.more_is_better else -1
        return max(
            self.ours(workload),
            key=lambda name: sign * self.spread(workload, name).median,
        )

    def goals(self, workload: Workload, ours: str, theirs: str) -> list[float]:
        """Return the goals for a ratio of trio-wspair to another implementation."""
        names = {ours, FASTEST} if ours == self.fastest(workload) else {ours}
        goals = [g for g in workload.goals if g.theirs == theirs and g.ours in names]
        return [goal.at_least for goal in goals]


def save(results: Results, path: Path) -> None:
    """Write a file with the samples of one implementation on each line."""
    workloads = ",\n".join(
        f"  {json.dumps(workload)}: {{\n{_lines(implementations)}\n  }}"
        for workload, implementations in results.samples.items()
    )
    facts = json.dumps(results.facts, ensure_ascii=False)
    left_out = json.dumps(results.left_out, ensure_ascii=False)
    path.write_text(
        f'{{\n "facts": {facts},\n "left_out": {left_out},\n'
        f' "samples": {{\n{workloads}\n }}\n}}\n'
    )


def _lines(implementations: Mapping[str, Sequence[Sample]]) -> str:
    return ",\n".join(
        f"   {json.dumps(name)}: {json.dumps([_rounded(s) for s in samples])}"
        for name, samples in implementations.items()
    )


def _rounded(sample: Sample) -> Sample:
    return {what: float(f"{value:.4g}") for what, value in sample.items()}


def load(path: Path) -> Results:
    """Read a file that `save()` has written."""
    return Results(**json.loads(path.read_text()))

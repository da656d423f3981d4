"""The results of the rounds: samples and ratios, and both as JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import attrs

from .work import FASTEST, VALUE, Sample, Work, is_ours

__all__ = ("Results", "Spread", "load", "save")


@attrs.frozen
class Spread:
    """Values of several rounds."""

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
    """Work -> contestant -> its sample in each round."""
    left_out: Mapping[str, Mapping[str, str]] = attrs.field(
        factory=dict[str, Mapping[str, str]]
    )
    """Work -> contestant -> why it did not take part."""

    def spread(self, work: Work, contestant: str, what: str = VALUE) -> Spread:
        return Spread([sample[what] for sample in self.samples[work.name][contestant]])

    def ratios(self, work: Work, ours: str, theirs: str, what: str = VALUE) -> Spread:
        """Return the ratios of ours to theirs, round by round."""
        pairs = zip(
            self.spread(work, ours, what).values,
            self.spread(work, theirs, what).values,
            strict=True,
        )
        return Spread([work.quantity.ratio(mine, other) for mine, other in pairs])

    def contestants(self, work: Work) -> list[str]:
        """Return the names of those that took part, in the order of the catalogue."""
        measured = self.samples.get(work.name, {})
        return [name for name in work.contestants if measured.get(name)]

    def ours(self, work: Work) -> list[str]:
        return [name for name in self.contestants(work) if is_ours(name)]

    def fastest(self, work: Work) -> str:
        """Return the name of ours with the best median."""
        sign = 1 if work.quantity.more_is_better else -1
        return max(
            self.ours(work), key=lambda name: sign * self.spread(work, name).median
        )

    def goals(self, work: Work, ours: str, theirs: str) -> list[float]:
        """Return the goals for the ratio of one of ours to one of theirs."""
        names = {ours, FASTEST} if ours == self.fastest(work) else {ours}
        goals = [g for g in work.goals if g.theirs == theirs and g.ours in names]
        return [goal.at_least for goal in goals]


def save(results: Results, path: Path) -> None:
    """Write a file with the samples of one contestant on each line."""
    works = ",\n".join(
        f"  {json.dumps(work)}: {{\n{_lines(contestants)}\n  }}"
        for work, contestants in results.samples.items()
    )
    facts = json.dumps(results.facts, ensure_ascii=False)
    left_out = json.dumps(results.left_out, ensure_ascii=False)
    path.write_text(
        f'{{\n "facts": {facts},\n "left_out": {left_out},\n'
        f' "samples": {{\n{works}\n }}\n}}\n'
    )


def _lines(contestants: Mapping[str, Sequence[Sample]]) -> str:
    return ",\n".join(
        f"   {json.dumps(name)}: {json.dumps([_rounded(s) for s in samples])}"
        for name, samples in contestants.items()
    )


def _rounded(sample: Sample) -> Sample:
    return {what: float(f"{value:.4g}") for what, value in sample.items()}


def load(path: Path) -> Results:
    """Read what `save()` has written."""
    return Results(**json.loads(path.read_text()))

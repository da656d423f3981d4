"""Samples, made into Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from .work import OURS, Quantity, Sample, Work

__all__ = ("Samples", "table")

Samples = Mapping[str, Sequence[Sample]]
"""Contestant -> what it did in each round."""

_HEAD = """\
| work: ours / theirs | against | | theirs | ours | ratio | rounds |
|---|---|---|---:|---:|---:|---:|"""


def table(results: Sequence[tuple[Work, Samples]]) -> str:
    """Return a table of these works. A ratio above 1 means that ours is better."""
    rows = [row for work, samples in results for row in _rows(work, samples)]
    return "\n".join([_HEAD, *rows])


def _rows(work: Work, samples: Samples) -> Iterator[str]:
    for quantity in work.quantities:
        ours = [sample[quantity.name] for sample in samples[OURS]]
        for contestant in work.contestants:
            if contestant == OURS:
                continue
            theirs = [sample[quantity.name] for sample in samples[contestant]]
            cells = [
                work.title,
                contestant,
                quantity.name,
                _number(median(theirs)),
                _number(median(ours)),
                *_ratio_cells(quantity, ours, theirs),
            ]
            yield f"| {' | '.join(cells)} |"


def _ratio_cells(
    quantity: Quantity, ours: Sequence[float], theirs: Sequence[float]
) -> tuple[str, str]:
    ratios = [
        mine / other if quantity.more_is_better else other / mine
        for mine, other in zip(ours, theirs, strict=True)
    ]
    return f"**{median(ratios):.2f}**", f"{min(ratios):.2f} to {max(ratios):.2f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"

"""The results as tables."""

from collections.abc import Iterable, Iterator, Sequence

from .results import Results, Spread
from .sample import OTHERS
from .work import CLIENT, Work

__all__ = ("facts", "markdown", "number", "remarks", "rows")

Row = Sequence[str]


def rows(results: Results, work: Work) -> Iterator[Row]:
    """Return a head and a row for each contestant. A ratio above 1: ours is better."""
    ours = results.ours(work)
    head = [work.quantity.name, "median", "lowest to highest"]
    for name in ours:
        head += [f"ratio of {name}", "goal"]
    yield head
    for contestant in results.contestants(work):
        spread = results.spread(work, contestant)
        row = [contestant, number(spread.median), _range(spread)]
        for name in ours:
            row += _comparison(results, work, name, contestant)
        yield row


def _comparison(results: Results, work: Work, ours: str, theirs: str) -> Row:
    if ours == theirs:
        value = results.spread(work, ours).median
        return "", "" if work.limit is None else _limit(value, work.limit)
    ratios = results.ratios(work, ours, theirs)
    goals = (
        f"{goal:.3g} {_verdict(met=ratios.median >= goal)}"
        for goal in results.goals(work, ours, theirs)
    )
    return f"**{number(ratios.median)}** ({_range(ratios)})", ", ".join(goals)


def _limit(value: float, most: float) -> str:
    return f"at most {number(most)} {_verdict(met=value <= most)}"


def _verdict(*, met: bool) -> str:
    return "met" if met else "missed"


def remarks(results: Results, work: Work) -> Iterator[str]:
    """Return the contestants left out, and how busy other processes were."""
    for contestant, reason in results.left_out.get(work.name, {}).items():
        yield f"Left out: {contestant} ({reason})."
    measured = results.contestants(work)
    loads = [results.spread(work, name, OTHERS) for name in measured]
    if loads:
        most = max(spread.most for spread in loads)
        yield f"Others kept up to {most:.2f} cores busy."
    busy = {
        name: results.spread(work, name, CLIENT).most
        for name in measured
        if CLIENT in results.samples[work.name][name][0] and name not in work.yardsticks
    }
    if busy:
        name = max(busy, key=busy.__getitem__)
        yield f"The load generator used up to {busy[name]:.2f} of a core, with {name}."


def facts(results: Results) -> str:
    """Return the facts on which the results depend, as a sentence."""
    told = dict(results.facts)
    date, machine = told.pop("date"), told.pop("machine")
    versions = ", ".join(f"{name} {version}" for name, version in told.items())
    return f"Measured on {date}, on {machine}, with {versions}."


def markdown(rows: Iterable[Row]) -> str:
    """Lay out a table; its first row is the head."""
    head, *others = (f"| {' | '.join(row)} |" for row in rows)
    rule = "|---|" + "---:|" * (head.count("|") - 2)
    return "\n".join([head, rule, *others])


def _range(spread: Spread) -> str:
    return f"{number(spread.least)} to {number(spread.most)}"


def number(value: float) -> str:
    """Return a number with about three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

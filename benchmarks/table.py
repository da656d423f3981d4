"""Results, made into tables."""

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
    """Tell who was left out, and how busy others kept the machine."""
    for contestant, reason in results.left_out.get(work.name, {}).items():
        yield f"Left out: {contestant} ({reason})."
    measured = results.contestants(work)
    loads = [results.spread(work, who, OTHERS) for who in measured]
    if loads:
        most = max(spread.most for spread in loads)
        yield f"Others kept up to {most:.2f} cores busy."
    busy = {
        who: results.spread(work, who, CLIENT).most
        for who in measured
        if CLIENT in results.samples[work.name][who][0] and who not in work.yardsticks
    }
    if busy:
        who = max(busy, key=busy.__getitem__)
        yield f"The load generator used up to {busy[who]:.2f} of a core, with {who}."


def facts(results: Results) -> str:
    """Return what the numbers depend on, as a sentence."""
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

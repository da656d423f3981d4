"""Shows the results as tables."""

from collections.abc import Iterable, Iterator, Sequence

from .results import Results, Spread
from .sample import OTHERS
from .workload import CLIENT, Workload

__all__ = ("facts", "markdown", "number", "remarks", "rows")

Row = Sequence[str]


def rows(results: Results, workload: Workload) -> Iterator[Row]:
    """Return a head, and a row for each implementation.

    A ratio above 1 means that trio-wspair is better.
    """
    ours = results.ours(workload)
    head = [workload.quantity.name, "median", "lowest to highest"]
    for name in ours:
        head += [f"ratio of {name}", "goal"]
    yield head
    for implementation in results.implementations(workload):
        spread = results.spread(workload, implementation)
        row = [implementation, number(spread.median), _range(spread)]
        for name in ours:
            row += _comparison(results, workload, name, implementation)
        yield row


def _comparison(results: Results, workload: Workload, ours: str, theirs: str) -> Row:
    if ours == theirs:
        value = results.spread(workload, ours).median
        return "", "" if workload.limit is None else _limit(value, workload.limit)
    ratios = results.ratios(workload, ours, theirs)
    goals = (
        f"{goal:.3g} {_verdict(met=ratios.median >= goal)}"
        for goal in results.goals(workload, ours, theirs)
    )
    return f"**{number(ratios.median)}** ({_range(ratios)})", ", ".join(goals)


def _limit(value: float, most: float) -> str:
    return f"at most {number(most)} {_verdict(met=value <= most)}"


def _verdict(*, met: bool) -> str:
    return "met" if met else "missed"


def remarks(results: Results, workload: Workload) -> Iterator[str]:
    """Return sentences: what was left out, and how busy other processes were."""
    for implementation, reason in results.left_out.get(workload.name, {}).items():
        yield f"Left out: {implementation} ({reason})."
    measured = results.implementations(workload)
    loads = [results.spread(workload, name, OTHERS) for name in measured]
    if loads:
        most = max(spread.most for spread in loads)
        yield f"Other processes kept up to {most:.2f} cores busy."
    busy = {
        name: results.spread(workload, name, CLIENT).most
        for name in measured
        if CLIENT in results.samples[workload.name][name][0]
        and name not in workload.yardsticks
    }
    if busy:
        name = max(busy, key=busy.__getitem__)
        yield f"The load generator used up to {busy[name]:.2f} of a core, with {name}."


def facts(results: Results) -> str:
    """Return the facts on which the results depend, as a sentence."""
    others = dict(results.facts)
    date, machine = others.pop("date"), others.pop("machine")
    versions = ", ".join(f"{name} {version}" for name, version in others.items())
    return f"Measured on {date}, on {machine}, with {versions}."


def markdown(rows: Iterable[Row]) -> str:
    """Format rows as a Markdown table; the first row is the head."""
    head, *others = (f"| {' | '.join(row)} |" for row in rows)
    rule = "|---|" + "---:|" * (head.count("|") - 2)
    return "\n".join([head, rule, *others])


def _range(spread: Spread) -> str:
    return f"{number(spread.least)} to {number(spread.most)}"


def number(value: float) -> str:
    """Format a number with about three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

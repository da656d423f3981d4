"""The verdicts of the suite: order, tables, records and explanations."""

import json
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent

Verdicts = dict[str, str]
"""Verdicts by the number of the case, such as ``7.1.6``."""

OK, INFORMATIONAL, UNIMPLEMENTED, NON_STRICT, FAILED = VERDICTS = (
    "ok",
    "informational",
    "unimplemented",
    "non-strict",
    "failed",
)
"""From the best to the worst."""

MODES: Final = ("server", "client")
SECTIONS: Final = {
    1: "Framing",
    2: "Pings and pongs",
    3: "Reserved bits",
    4: "Opcodes",
    5: "Fragmentation",
    6: "UTF-8",
    7: "Close",
    9: "Limits",
    10: "Misc",
    12: "Compression, payloads",
    13: "Compression, parameters",
}


def verdict_of(report: Mapping[str, Any]) -> str:
    """Return the worse of the verdicts on the messages and on the closing.

    Verdicts on the closing such as "WRONG CODE" are failures.
    """
    found = (report[key] for key in ("behavior", "behaviorClose"))
    plain = (str(one).lower() for one in found)
    return max((v if v in VERDICTS else FAILED for v in plain), key=VERDICTS.index)


def section_of(case: str) -> int:
    """Return the number of the section."""
    return int(case.partition(".")[0])


def in_order(case: str) -> list[int]:
    """Return a key for sorting cases."""
    return [int(part) for part in case.split(".")]


def table(verdicts: Verdicts) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a table with the counts: the heading, the sections, all."""
    yield "section", "cases", *VERDICTS
    groups = [
        (
            f"{number} {name}",
            [v for c, v in verdicts.items() if section_of(c) == number],
        )
        for number, name in SECTIONS.items()
    ]
    for name, group in [*groups, ("all", list(verdicts.values()))]:
        if group:
            counts = Counter(group)
            yield name, str(len(group)), *(str(counts[v]) for v in VERDICTS)


# -- explanations -----------------------------------------------------------------


@cache
def explanations() -> list[dict[str, Any]]:
    """Return the entries of `explained.toml`."""
    text = (HERE / "explained.toml").read_text("utf-8")
    entries: list[dict[str, Any]] = tomllib.loads(text)["explained"]
    return entries


def explains(entry: Mapping[str, Any], case: str, verdict: str) -> bool:
    """Whether an entry explains this verdict on this case."""
    names = (case, f"{section_of(case)}.*")
    return verdict == entry["verdict"] and any(n in entry["cases"] for n in names)


def is_explained(case: str, verdict: str) -> bool:
    """Whether a verdict is "ok" or explained."""
    return verdict == OK or any(explains(e, case, verdict) for e in explanations())


# -- records ----------------------------------------------------------------------


def recorded(engine: str) -> dict[str, Any]:
    """Return the last recorded run of an engine: its verdicts by mode, and facts."""
    run: dict[str, Any] = json.loads(_file(engine).read_text("utf-8"))
    return run


def _file(engine: str) -> Path:
    return HERE / f"results-{engine}.json"


def record(
    engine: str, facts: Mapping[str, str], verdicts: Mapping[str, Verdicts]
) -> None:
    """Record a run."""
    run = {"facts": facts}
    for mode, found in verdicts.items():
        run[mode] = {case: found[case] for case in sorted(found, key=in_order)}
    _file(engine).write_text(json.dumps(run, indent=1) + "\n", "utf-8")


def surprises(verdicts: Verdicts, expected: Verdicts) -> Iterator[str]:
    """Yield a text for each verdict that is unexplained or differs from the record."""
    for case in sorted(verdicts.keys() | expected.keys(), key=in_order):
        found = verdicts.get(case, "missing")
        if found in (FAILED, "missing"):
            yield f"{case} is {found}"
        elif not is_explained(case, found):
            yield f"{case} is {found}, and explained.toml does not say why"
        elif found != expected.get(case):
            yield f"{case} is {found}, but was recorded as {expected.get(case)}"

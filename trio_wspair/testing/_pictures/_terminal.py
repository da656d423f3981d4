"""`terminal_diagram()`: the conversation in two columns, for a terminal.

Knows the signs of which the lines are made.
"""

import textwrap
from collections.abc import Sequence
from itertools import chain, repeat, zip_longest
from typing import Final

from trio_wspair.testing._entries import Entry, FailedStep

from ._rows import Row, Way, failure_place, rows_of
from ._wording import cells, clock, cut, in_words, plain

__all__ = ("terminal_diagram",)

_WIDTH: Final = 96
"""Columns: with what pytest puts in front of a line, no more than 100."""
_MIN_WIDTH: Final = 48
"""Columns from one lifeline to the other, at least."""
_ROWS: Final = 40
_SHORTEST: Final = 2
"""Of the shafts of arrows."""
_UNKNOWN: Final = " (nothing recorded)"

# Of a row in the left column, and in the right one.
_CROSSES: Final = "├─ {words} {line}►│", "│◄{line} {words} ─┤"
_CROSSES_SLOWLY: Final = (
    "├─ {words} {line} at {time} ─►│",
    "│◄─ at {time} {line} {words} ─┤",
)
_COMES: Final = "│◄─ {words} {line}┤", "├{line} {words} ─►│"
_ACCEPT: Final = "○ {words}{space}│", "│{space}{words} ○"
_OTHERS: Final[dict[Way, tuple[str, str]]] = {
    "leaves": (
        "├─ {words} ╌╌► on its way{space}│",
        "│{space}on its way ◄╌╌ {words} ─┤",
    ),
    "arrives": (
        "│◄─ {words} ╌╌ sent at {time}{space}│",
        "│{space}sent at {time} ╌╌ {words} ─►│",
    ),
    "lost": (
        "├─ {words} ──✕ not taken{space}│",
        "│{space}not taken ✕── {words} ─┤",
    ),
    "stays": ("■ {words}{space}│", "│{space}{words} ■"),
}
_FAILS: Final = "✗ {words}{space}│", "│{space}{words} ✗"
_WAITS: Final = "… {words}{space}│", "│{space}{words} …"
_GOES_ON: Final = "│ {words}{space}│", "│{space}{words} │"
_NOT_EXPECTED: Final = "✗"
"""In front of a row."""


def terminal_diagram(
    names: tuple[str, str],
    entries: Sequence[Entry],
    failure: FailedStep | None = None,
) -> str:
    """Draw the end of a conversation in lines of at most 96 columns.

    Args:
        names: What the halves are called: the left one first.
        entries: What has happened.
        failure: What has gone wrong, if anything has.
    """
    rows = rows_of(names, entries)
    wrong, place = failure_place(rows, failure)
    first = max(0, len(rows) - _ROWS)
    shown = rows[first:]
    times = [clock(row.entry) for row in shown]
    margin = max(map(len, (*times, "0.000")))
    most = _WIDTH - margin - 2
    width = max([_MIN_WIDTH, *(_needed(row, most) for row in shown)])
    lines = [("time", " ", _heads(names, entries, width))]
    if first:
        lines.append(("", " ", f"⋮ {first:,} rows before are not shown"))
    if not rows:
        lines.append(("", " ", "nothing has happened"))
    told = [] if failure is None else _told(names, failure, width)
    for number, (before, time, row) in enumerate(
        zip(["", *times], times, shown, strict=False), first
    ):
        if number == place:
            lines += told
        mark = _NOT_EXPECTED if number == wrong else " "
        lines.append(("" if time == before else time, mark, _drawn(row, width)))
    if place == len(rows):
        lines += told
    if failure is not None:
        states = _side_by_side(names, failure.states, width)
        lines += (("", " ", line) for line in states)
    return "\n".join(
        f"{time:>{margin}}{mark} {line}".rstrip() for time, mark, line in lines
    )


def _heads(names: tuple[str, str], entries: Sequence[Entry], width: int) -> str:
    """Return the names; one of which nothing is known is marked."""
    known = {entry.half for entry in entries} or {*names}
    left, right = (
        cut(plain(name), (width - len(_UNKNOWN) - 1) // 2)
        + ("" if name in known else _UNKNOWN)
        for name in names
    )
    return left + " " * (width - cells(left + right)) + right


def _needed(row: Row, most: int) -> int:
    """Return the width that a row would like to have, at most `most`."""
    template = _template(row)
    frame = _filled(template, row)
    room = most - cells(frame) - _SHORTEST
    return cells(frame) + _SHORTEST + cells(in_words(row.entry, room))


def _drawn(row: Row, width: int) -> str:
    template = _template(row)
    room = width - cells(_filled(template, row))
    words = in_words(row.entry, room - _SHORTEST)
    return _filled(template, row, words, room - cells(words))


def _filled(template: str, row: Row, words: str = "", rest: int = 0) -> str:
    time = "" if row.other is None else clock(row.other)
    return template.format(words=words, time=time, line="─" * rest, space=" " * rest)


def _template(row: Row) -> str:
    return _templates(row)[row.column]


def _templates(row: Row) -> tuple[str, str]:
    match row.way:
        case "crosses":
            return _CROSSES_SLOWLY if row.arrival else _CROSSES
        case "arrives" if row.other is None:
            return _COMES
        case "stays" if row.entry.what == "accept":
            return _ACCEPT
        case way:
            return _OTHERS[way]


def _told(
    names: tuple[str, str], failure: FailedStep, width: int
) -> list[tuple[str, str, str]]:
    """Return the lines that tell what has gone wrong, and what waits meanwhile."""
    steps = [(failure.half, failure.what, _FAILS)]
    steps += [(half, what, _WAITS) for half, what in failure.waits]
    lines: list[tuple[str, str, str]] = []
    for half, what, signs in steps:
        column = names.index(half)
        templates = chain([signs[column]], repeat(_GOES_ON[column]))
        for template, words in zip(templates, _wrapped(what, width - 4), strict=False):
            space = " " * (width - 3 - cells(words))
            lines.append(("", " ", template.format(words=words, space=space)))
    return lines


def _side_by_side(
    names: tuple[str, str], states: Sequence[tuple[str, str]], width: int
) -> list[str]:
    """Return two columns of text, for each half of which there is some."""
    half = width // 2 - 1
    columns: list[list[str]] = []
    for name in names:
        lines = [
            words
            for who, line in states
            if who == name
            for words in _wrapped(line, half)
        ]
        columns.append([cut(f"{plain(name)}:", half), *lines] if lines else [])
    return [
        left + " " * (width - half - cells(left)) + right
        for left, right in zip_longest(*columns, fillvalue="")
    ]


def _wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines; if there are wide characters, in shorter ones."""
    lines = [plain(line) for line in text.splitlines()]
    return [
        words
        for line in lines
        for words in textwrap.wrap(
            line, width if cells(line) == len(line) else width // 2
        )
    ]

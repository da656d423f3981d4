"""Pictures as text: `terminal_diagram()` in two columns, and `draw_mermaid()`."""

import textwrap
from collections.abc import Sequence
from itertools import chain, repeat, zip_longest
from typing import Final

from trio_wspair.testing._entries import (
    Entry,
    FailedStep,
    Row,
    Way,
    cells,
    clock,
    cut,
    failure_place,
    in_words,
    plain,
    rows_of,
)

__all__ = (
    "draw_mermaid",
    "terminal_diagram",
)


_MERMAID_WIDTH: Final = 60
"""Characters of a message, at most."""
_NOTE_WIDTH: Final = 200
"""Characters of a note about a failure, at most."""
_IDS: Final = "A", "B"
_BAND: Final = "rect rgba(220, 40, 40, 0.2)"
"""Around what was not expected."""
_HARMLESS: Final = " .,-_/()!?'=*:[]{}\""
_MARKS: Final = "ﬂ°¶ß"
"""What Mermaid itself puts where a character was written as a number."""


def draw_mermaid(
    names: tuple[str, str],
    entries: Sequence[Entry],
    failure: FailedStep | None = None,
) -> str:
    """Return the source of a sequence diagram, line by line."""
    people = [
        f"participant {id_} as {_name(name)}"
        for id_, name in zip(_IDS, names, strict=True)
    ]
    rows = rows_of(names, entries)
    lines = [[_line(row)] for row in rows]
    wrong, place = failure_place(rows, failure)
    if wrong is not None:
        lines[wrong] = [_BAND, *lines[wrong], "end"]
    lines.insert(place, [] if failure is None else _mermaid_notes(names, failure))
    inner = "".join(f"    {line}\n" for line in chain(people, *lines))
    return f"sequenceDiagram\n{inner}"


def _mermaid_notes(names: tuple[str, str], failure: FailedStep) -> list[str]:
    """Return notes about what has gone wrong, what waits, and how the halves are."""
    told = [
        (failure.half, f"✗ {failure.what}"),
        *((half, f"… {what}") for half, what in failure.waits),
        *failure.states,
    ]
    words = (_escaped(cut(plain(what), _NOTE_WIDTH)) for _, what in told)
    ids = (_IDS[names.index(half)] for half, _ in told)
    return [f"Note over {id_}: {line}" for id_, line in zip(ids, words, strict=True)]


def _line(row: Row) -> str:
    here, there = _IDS[row.column], _IDS[1 - row.column]
    words = _escaped(in_words(row.entry, _MERMAID_WIDTH))
    match row.way:
        case "crosses" if row.arrival:
            return f"{here}->>{there}: {words} (taken at {row.arrival})"
        case "crosses":
            return f"{here}->>{there}: {words}"
        case "leaves":
            return f"{here}-){there}: {words} (on its way)"
        case "lost":
            return f"{here}-x{there}: {words} (not taken)"
        case "arrives" if row.other is not None:
            return f"Note over {here}: {words} (sent at {clock(row.other)})"
        case "arrives":
            return f"{there}->>{here}: {words}"
        case _:
            return f"Note over {here}: {words}"


def _name(text: str) -> str:
    # Else "wrap:" at the beginning is an instruction, and a quote is left out.
    name = _escaped(cut(plain(text).strip(), _MERMAID_WIDTH))
    return name.replace(":", "#58;").replace('"', "#34;") or "#160;"


def _escaped(text: str) -> str:
    """Return a text whose characters mean nothing to Mermaid."""
    numbered = "".join(c if _is_harmless(c) else f"#{ord(c)};" for c in text)
    # In a line with one of these it leaves out a semicolon.
    for word in ("style", "classDef"):
        numbered = numbered.replace(word, f"#{ord(word[0])};{word[1:]}")
    return numbered


def _is_harmless(character: str) -> bool:
    if character.isascii():
        return character.isalnum() or character in _HARMLESS
    return character not in _MARKS


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
    told = [] if failure is None else _failure_lines(names, failure, width)
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


def _failure_lines(
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

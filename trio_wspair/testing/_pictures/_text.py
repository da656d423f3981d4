"""Pictures as text: `terminal_diagram()` in two columns, and `draw_mermaid()`.

Knows the width of terminals, and the characters that have a meaning for Mermaid.
"""

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

__all__ = ("draw_mermaid", "terminal_diagram")


_MERMAID_WIDTH: Final = 60
"""The most characters of a message."""
_NOTE_WIDTH: Final = 200
"""The most characters of a note about a failure."""
_IDS: Final = "A", "B"
_BAND: Final = "rect rgba(220, 40, 40, 0.2)"
"""The start of a coloured band around an unexpected row."""
_HARMLESS: Final = " .,-_/()!?'=*:[]{}\""
_MARKS: Final = "ﬂ°¶ß"
"""The characters that Mermaid uses internally for numbered characters."""


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
    unexpected, place = failure_place(rows, failure)
    if unexpected is not None:
        lines[unexpected] = [_BAND, *lines[unexpected], "end"]
    lines.insert(place, [] if failure is None else _mermaid_notes(names, failure))
    inner = "".join(f"    {line}\n" for line in chain(people, *lines))
    return f"sequenceDiagram\n{inner}"


def _mermaid_notes(names: tuple[str, str], failure: FailedStep) -> list[str]:
    """Return notes about the failure, the steps that wait, and the halves' state."""
    notes = [
        (failure.half, f"✗ {failure.what}"),
        *((half, f"… {what}") for half, what in failure.waits),
        *failure.states,
    ]
    words = (_escaped(cut(plain(what), _NOTE_WIDTH)) for _, what in notes)
    ids = (_IDS[names.index(half)] for half, _ in notes)
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
    # Mermaid takes "wrap:" at the beginning for an instruction, and drops quotes.
    name = _escaped(cut(plain(text).strip(), _MERMAID_WIDTH))
    return name.replace(":", "#58;").replace('"', "#34;") or "#160;"


def _escaped(text: str) -> str:
    """Return a text in which no character has a meaning for Mermaid."""
    numbered = "".join(c if _is_harmless(c) else f"#{ord(c)};" for c in text)
    # In a line with one of these words, Mermaid drops a semicolon.
    for word in ("style", "classDef"):
        numbered = numbered.replace(word, f"#{ord(word[0])};{word[1:]}")
    return numbered


def _is_harmless(character: str) -> bool:
    if character.isascii():
        return character.isalnum() or character in _HARMLESS
    return character not in _MARKS


_WIDTH: Final = 96
"""The most columns of a line. With pytest's margin that makes 100."""
_MIN_WIDTH: Final = 48
"""The fewest columns from one lifeline to the other."""
_ROWS: Final = 40
"""The most rows that are shown."""
_SHORTEST: Final = 2
"""The shortest shaft of an arrow."""
_UNKNOWN: Final = " (nothing recorded)"

# Each: a row in the left column, and one in the right column.
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
_UNEXPECTED: Final = "✗"
"""The mark in front of an unexpected row."""


def terminal_diagram(
    names: tuple[str, str],
    entries: Sequence[Entry],
    failure: FailedStep | None = None,
) -> str:
    """Draw the end of a conversation in lines of at most 96 columns.

    Args:
        names: The names of the halves, the left one first.
        entries: The entries of the conversation.
        failure: The step that has failed, if there is one.
    """
    rows = rows_of(names, entries)
    unexpected, place = failure_place(rows, failure)
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
    remarks = [] if failure is None else _failure_lines(names, failure, width)
    for number, (before, time, row) in enumerate(
        zip(["", *times], times, shown, strict=False), first
    ):
        if number == place:
            lines += remarks
        mark = _UNEXPECTED if number == unexpected else " "
        lines.append(("" if time == before else time, mark, _drawn(row, width)))
    if place == len(rows):
        lines += remarks
    if failure is not None:
        states = _side_by_side(names, failure.states, width)
        lines += (("", " ", line) for line in states)
    return "\n".join(
        f"{time:>{margin}}{mark} {line}".rstrip() for time, mark, line in lines
    )


def _heads(names: tuple[str, str], entries: Sequence[Entry], width: int) -> str:
    """Return the names; a half without entries is marked."""
    known = {entry.half for entry in entries} or {*names}
    left, right = (
        cut(plain(name), (width - len(_UNKNOWN) - 1) // 2)
        + ("" if name in known else _UNKNOWN)
        for name in names
    )
    return left + " " * (width - cells(left + right)) + right


def _needed(row: Row, most: int) -> int:
    """Return the width that a row needs for its whole text, at most `most`."""
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
    """Return the lines about the failure and the steps that wait."""
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
    """Return the state of the halves in two columns."""
    half = width // 2 - 1
    columns: list[list[str]] = []
    for name in names:
        lines = [
            words
            for owner, line in states
            if owner == name
            for words in _wrapped(line, half)
        ]
        columns.append([cut(f"{plain(name)}:", half), *lines] if lines else [])
    return [
        left + " " * (width - half - cells(left)) + right
        for left, right in zip_longest(*columns, fillvalue="")
    ]


def _wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines. If it has wide characters, the lines are shorter."""
    lines = [plain(line) for line in text.splitlines()]
    return [
        words
        for line in lines
        for words in textwrap.wrap(
            line, width if cells(line) == len(line) else width // 2
        )
    ]

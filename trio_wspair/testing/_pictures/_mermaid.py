"""`draw_mermaid()`: the conversation as a `sequenceDiagram` of Mermaid.

Knows what Mermaid reads between the lines.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Final

from trio_wspair.testing._entries import Entry, FailedStep

from ._rows import Row, failure_place, rows_of
from ._wording import clock, cut, in_words, plain

__all__ = ("draw_mermaid",)

_WIDTH: Final = 60
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
    lines.insert(place, [] if failure is None else _told(names, failure))
    inner = "".join(f"    {line}\n" for line in chain(people, *lines))
    return f"sequenceDiagram\n{inner}"


def _told(names: tuple[str, str], failure: FailedStep) -> list[str]:
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
    words = _escaped(in_words(row.entry, _WIDTH))
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
    name = _escaped(cut(plain(text).strip(), _WIDTH))
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

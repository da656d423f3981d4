"""`draw_mermaid()`: the conversation as a `sequenceDiagram` of Mermaid.

Knows what Mermaid reads between the lines.
"""

from collections.abc import Sequence
from typing import Final

from trio_wspair.testing._entries import Entry

from ._rows import Row, rows_of
from ._wording import clock, cut, in_words, plain

__all__ = ("draw_mermaid",)

_WIDTH: Final = 60
"""Characters of a message, at most."""
_IDS: Final = "A", "B"
_HARMLESS: Final = " .,-_/()!?'=*:[]{}\""
_MARKS: Final = "ﬂ°¶ß"
"""What Mermaid itself puts where a character was written as a number."""


def draw_mermaid(names: tuple[str, str], entries: Sequence[Entry]) -> str:
    """Return the source of a sequence diagram, line by line."""
    people = (
        f"    participant {id_} as {_name(name)}"
        for id_, name in zip(_IDS, names, strict=True)
    )
    rows = (f"    {_line(row)}" for row in rows_of(names, entries))
    return "\n".join(("sequenceDiagram", *people, *rows, ""))


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

"""`in_words()`: what an entry says, on one line, as short as it has to be.

Knows how wide a character is in a terminal, and no picture.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from itertools import accumulate, takewhile
from typing import Final

from trio_wspair.testing._entries import Entry

__all__ = ("cells", "clock", "cut", "fold", "in_words", "is_json", "plain")

_JSON_LIMIT: Final = 10_000
"""Characters; what is longer is not parsed only to be folded."""
_MARKS: Final = 4
"""Characters a cell, at most: what is above and below a letter takes no cell."""
_LINE_BREAKS: Final = re.compile(r"[\t\r\n][\t\r\n ]*")
"""In JSON they are between the values only."""


def clock(entry: Entry) -> str:
    """Return the time of an entry in seconds, to the millisecond."""
    return f"{entry.time:.3f}"


def in_words(entry: Entry, width: int) -> str:
    """Return what an entry says in at most `width` cells, which is 40 or more."""
    if entry.what == "accept":
        return "accept"
    if entry.message is not None:
        return fold(entry.message, width)
    words = f"{'Close' if entry.what == 'close' else 'closed'} {entry.code}"
    if entry.code == 1005:
        words += " (no code)"
    if entry.was_clean is False:
        words += ", unclean"
    if entry.reason:
        words += f" {_quoted(entry.reason)}"
    if entry.error:
        words += f"; {plain(entry.error)}"
    return cut(words, width)


def fold(message: str | bytes, width: int) -> str:
    """Return a message in at most `width` cells; what is left out is counted.

    JSON is shown as it is, other text in quotes, and binary as hex.
    """
    size = len(message)
    if isinstance(message, bytes):
        count = f" ({size:,} {'byte' if size == 1 else 'bytes'})"
        room = width - len(count)
        whole = message[:width].hex(" ")
        if len(whole) > room:
            whole = f"{whole[: (room - 1) // 3 * 3]}…"
        return (whole + count).lstrip()
    if is_json(message):
        quote, text = "", _LINE_BREAKS.sub(" ", message.strip())
    else:
        quote, text = '"', message
    pieces = _pieces(text[: _MARKS * width], quote)
    whole = "".join((quote, *pieces, quote))
    if len(text) <= _MARKS * width and cells(whole) <= width:
        return whole
    tail = f"…{quote} ({size:,} characters)"
    return quote + _fit(pieces, width - cells(quote + tail)) + tail


def is_json(text: str) -> bool:
    """Tell whether a text is an object or an array in JSON, and not too long."""
    if len(text) > _JSON_LIMIT or not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def plain(text: str) -> str:
    """Return a text on one line: what does not print is escaped as in Python."""
    return text if text.isprintable() else "".join(_pieces(text))


def cut(text: str, width: int) -> str:
    """Return a text that prints in at most `width` cells."""
    return text if cells(text) <= width else f"{_fit(text, width - 1)}…"


def cells(text: str) -> int:
    """Return how many columns of a terminal a text takes that prints."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def _cells_of(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me"}:
        return 0
    return 1 + (unicodedata.east_asian_width(character) in {"W", "F"})


def _quoted(text: str) -> str:
    return "".join(('"', *_pieces(text, '"'), '"'))


def _pieces(text: str, quote: str = "") -> list[str]:
    """Return the characters, each as it is shown."""
    return [
        f"\\{c}"
        if quote and c in '"\\'
        else c
        if c.isprintable()
        else c.encode("unicode_escape").decode()
        for c in text
    ]


def _fit(pieces: Sequence[str], width: int) -> str:
    """Return as many pieces from the beginning as there is room for."""
    ends = accumulate(map(cells, pieces))
    return "".join(pieces[: sum(1 for _ in takewhile(width.__ge__, ends))])

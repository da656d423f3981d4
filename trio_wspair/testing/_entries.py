"""`Entry`: one thing that has happened in a conversation, and its text on one line.

Knows no half and no Trio: entries are read from files, too.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from itertools import accumulate, takewhile
from typing import Final, Literal, get_args

import attrs
from attrs.validators import in_, instance_of, optional

__all__ = (
    "Entry",
    "FailedStep",
    "What",
    "cells",
    "clock",
    "cut",
    "fold",
    "in_words",
    "is_json",
    "plain",
)


What = Literal["accept", "send", "receive", "close", "closed"]


@attrs.frozen
class Entry:
    """Something that a half has done, or that has happened to it."""

    time: float = attrs.field(validator=instance_of((int, float)))
    """Seconds since the record began, in Trio's time."""
    half: str = attrs.field(validator=instance_of(str))
    """Which half: one of the two names of the record."""
    what: What = attrs.field(validator=in_(get_args(What)))
    """``"accept"``: somebody has taken it. ``"send"``, ``"receive"``: a message.
    ``"close"``: it has sent its Close. ``"closed"``: its close event."""
    message: str | bytes | None = attrs.field(
        default=None, validator=optional(instance_of((str, bytes)))
    )
    """Of `send` and `receive`."""
    code: int | None = attrs.field(default=None, validator=optional(instance_of(int)))
    """Of `close` and `closed`; 1005 for a Close without a code."""
    reason: str = attrs.field(default="", validator=instance_of(str))
    """Of `close` and `closed`."""
    was_clean: bool | None = None
    """Of `closed`."""
    error: str = attrs.field(default="", validator=instance_of(str))
    """Of `closed`: what the `error` event before it has told, if there was one."""
    task: str = attrs.field(default="", eq=False)
    """The name of the task in which it happened."""


@attrs.frozen
class FailedStep:
    """The step at which a test has failed, for the pictures of the conversation."""

    half: str
    """Whose step it was: one of the two names of the record."""
    what: str
    """What has gone wrong, in words."""
    at: int
    """How many entries the record had then."""
    entry: int | None = None
    """The index of the entry that was not expected; `None` if something is missing, or
    if the failure has nothing to do with a single entry."""
    waits: Sequence[tuple[str, str]] = ()
    """What still waited then: the name of a half, and the step that waits."""
    states: Sequence[tuple[str, str]] = ()
    """More about the halves at that moment: the name of a half, and a line."""


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

"""`Entry`: one event in a conversation, its text on one line, and the rows of pictures.

Knows no half and no Trio: entries are read from files, too.
"""

import json
import re
import unicodedata
from collections import defaultdict, deque
from collections.abc import Hashable, Sequence
from itertools import accumulate, takewhile
from typing import Final, Literal, get_args

import attrs
from attrs.validators import in_, instance_of, optional

__all__ = (
    "Entry",
    "FailedStep",
    "Row",
    "Way",
    "What",
    "cells",
    "clock",
    "cut",
    "failure_place",
    "fold",
    "in_words",
    "is_json",
    "plain",
    "rows_of",
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


Way = Literal["stays", "crosses", "leaves", "arrives", "lost"]
"""What is drawn from column to column, seen from the column of the row: nothing, an
arrow from end to end, one that arrives in a later row, that end, or one that nobody
takes."""

_SAID: Final = ("send", "close")
_HEARD: Final = ("receive", "closed")


@attrs.frozen
class Row:
    """One line of a sequence diagram."""

    entry: Entry
    column: int
    """The column of the entry, 0 or 1."""
    way: Way
    other: Entry | None = None
    """The other end of the arrow, unless the other half was not recorded."""
    other_row: int | None = None
    """Where the other end is, if it has a row of its own."""
    entries: tuple[int, ...] = ()
    """The indices of the entries that it shows."""

    @property
    def arrival(self) -> str:
        """When it has crossed, unless that was at once as far as one can see."""
        if self.way != "crosses" or self.other is None:
            return ""
        time = clock(self.other)
        return "" if time == clock(self.entry) else time


def rows_of(names: tuple[str, str], entries: Sequence[Entry]) -> list[Row]:
    """Return the rows, in order.

    What was sent crosses if it was taken at once. If something else came in between,
    the other end has a row of its own. A half without entries was not recorded: all
    that is sent to it crosses, and all that is received comes from there.
    """
    partners = _partners(names, entries)
    bare = [all(entry.half != name for entry in entries) for name in names]
    merged = {
        there
        for here, there in partners.items()
        if there == here + 1 and not _tells_more(entries[there])
    }
    shown = [index for index in range(len(entries)) if index not in merged]
    row_number = {index: number for number, index in enumerate(shown)}

    def row(index: int) -> Row:
        entry = entries[index]
        column = names.index(entry.half)
        there = partners.get(index)
        here: tuple[int, ...] = (index,)
        other: Entry | None = None
        other_row: int | None = None
        if there is not None:
            ways: tuple[Way, Way] = ("leaves", "arrives")
            way = "crosses" if there in merged else ways[there < index]
            here = (index, there) if there in merged else here
            other, other_row = entries[there], row_number.get(there)
        elif entry.what in _SAID:
            way = "crosses" if bare[1 - column] else "lost"
        else:
            came = entry.what == "receive" or (bare[1 - column] and entry.was_clean)
            way = "arrives" if came else "stays"
        return Row(entry, column, way, other, other_row, here)

    return [row(index) for index in shown]


def failure_place(
    rows: Sequence[Row], failure: FailedStep | None
) -> tuple[int | None, int]:
    """Return where a failure belongs.

    Returns:
        The number of the row that was not expected, if there is one; and before which
        row it is told what has gone wrong.
    """
    if failure is None:
        return None, len(rows)
    for number, row in enumerate(rows):
        if failure.entry in row.entries:
            return number, number + 1
    return None, sum(row.entries[0] < failure.at for row in rows)


def _partners(names: tuple[str, str], entries: Sequence[Entry]) -> dict[int, int]:
    """Return both ends of each arrow: of the same words, the first with the first."""
    under_way: defaultdict[Hashable, deque[int]] = defaultdict(deque)
    partners: dict[int, int] = {}
    for index, entry in enumerate(entries):
        column = names.index(entry.half)
        words = (entry.message, entry.code, entry.reason)
        if entry.what in _SAID:
            under_way[_HEARD[_SAID.index(entry.what)], 1 - column, words].append(index)
        elif sent := under_way.get((entry.what, column, words)):
            partners[index] = sent.popleft()
            partners[partners[index]] = index
    return partners


def _tells_more(entry: Entry) -> bool:
    """Tell whether the end of an arrow has to say more than that it has arrived."""
    return entry.what == "closed" and (not entry.was_clean or entry.error != "")

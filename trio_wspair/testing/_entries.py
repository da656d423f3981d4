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
    """One event in the life of a half."""

    time: float = attrs.field(validator=instance_of((int, float)))
    """Seconds since the record began, in Trio's time."""
    half: str = attrs.field(validator=instance_of(str))
    """The name of the half: one of the two names of the record."""
    what: What = attrs.field(validator=in_(get_args(What)))
    """``"accept"``: it was accepted. ``"send"``, ``"receive"``: it has sent or received
    a message. ``"close"``: it has sent its Close. ``"closed"``: its close event."""
    message: str | bytes | None = attrs.field(
        default=None, validator=optional(instance_of((str, bytes)))
    )
    """The message of a `send` or a `receive`."""
    code: int | None = attrs.field(default=None, validator=optional(instance_of(int)))
    """The code of a `close` or a `closed`; 1005 for a Close without a code."""
    reason: str = attrs.field(default="", validator=instance_of(str))
    """The reason of a `close` or a `closed`."""
    was_clean: bool | None = None
    """Whether a `closed` came after a complete closing handshake."""
    error: str = attrs.field(default="", validator=instance_of(str))
    """The text of the `error` event before a `closed`, if there was one."""
    task: str = attrs.field(default="", eq=False)
    """The name of the task in which the event happened."""


@attrs.frozen
class FailedStep:
    """The step at which a test has failed, for the pictures of the conversation."""

    half: str
    """The name of the half that the step belongs to."""
    what: str
    """What went wrong, in words."""
    at: int
    """How many entries the record had when the step failed."""
    entry: int | None = None
    """The index of the unexpected entry; `None` if something is missing, or if the
    failure isn't about a single entry."""
    waits: Sequence[tuple[str, str]] = ()
    """The steps that were waiting: the name of the half, and a description."""
    states: Sequence[tuple[str, str]] = ()
    """The state of the halves at that moment: the name of the half, and a line."""


_JSON_LIMIT: Final = 10_000
"""Characters. A longer text isn't parsed, since only its beginning is shown."""
_MARKS: Final = 4
"""The most characters for each cell: combining marks take no cell."""
_LINE_BREAKS: Final = re.compile(r"[\t\r\n][\t\r\n ]*")
"""Line breaks with indentation. In JSON they occur only between values."""


def clock(entry: Entry) -> str:
    """Return the time of an entry in seconds, to the millisecond."""
    return f"{entry.time:.3f}"


def in_words(entry: Entry, width: int) -> str:
    """Describe an entry in at most `width` cells; `width` is at least 40."""
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
    """Return a message in at most `width` cells; a shortened one has its size added.

    JSON is shown unquoted, other text in quotes, and binary data as hex.
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
    """Return whether a text of moderate size is a JSON object or array."""
    if len(text) > _JSON_LIMIT or not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def plain(text: str) -> str:
    """Return a text on one line: unprintable characters are escaped as in Python."""
    return text if text.isprintable() else "".join(_pieces(text))


def cut(text: str, width: int) -> str:
    """Return a text that prints in at most `width` cells."""
    return text if cells(text) <= width else f"{_fit(text, width - 1)}…"


def cells(text: str) -> int:
    """Return how many terminal columns a printable text takes."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def _cells_of(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me"}:
        return 0
    return 1 + (unicodedata.east_asian_width(character) in {"W", "F"})


def _quoted(text: str) -> str:
    return "".join(('"', *_pieces(text, '"'), '"'))


def _pieces(text: str, quote: str = "") -> list[str]:
    """Return the characters as they are shown: escaped if need be."""
    return [
        f"\\{c}"
        if quote and c in '"\\'
        else c
        if c.isprintable()
        else c.encode("unicode_escape").decode()
        for c in text
    ]


def _fit(pieces: Sequence[str], width: int) -> str:
    """Return as many pieces from the beginning as fit into `width` cells."""
    ends = accumulate(map(cells, pieces))
    return "".join(pieces[: sum(1 for _ in takewhile(width.__ge__, ends))])


Way = Literal["stays", "crosses", "leaves", "arrives", "lost"]
"""What a row draws between the columns:

- ``"stays"``: nothing;
- ``"crosses"``: a whole arrow, from this column to the other;
- ``"leaves"``: the start of an arrow whose end is in a later row;
- ``"arrives"``: the end of an arrow, whose start is in an earlier row;
- ``"lost"``: the start of an arrow for a message that was never received.
"""

_SENT: Final = ("send", "close")
_RECEIVED: Final = ("receive", "closed")


@attrs.frozen
class Row:
    """One line of a sequence diagram."""

    entry: Entry
    column: int
    """The column of the entry, 0 or 1."""
    way: Way
    other: Entry | None = None
    """The entry at the other end of the arrow; `None` if the other half is not
    recorded."""
    other_row: int | None = None
    """The number of the row with that entry, if it is another row."""
    entries: tuple[int, ...] = ()
    """The indices of the entries that this row shows."""

    @property
    def arrival(self) -> str:
        """The time at the end of a whole arrow, if it differs from the start's."""
        if self.way != "crosses" or self.other is None:
            return ""
        time = clock(self.other)
        return "" if time == clock(self.entry) else time


def rows_of(names: tuple[str, str], entries: Sequence[Entry]) -> list[Row]:
    """Return the rows, in order.

    A message and its receipt share a row if no other entry is between them; otherwise
    each has its row. A half without entries was not recorded: every message sent to it
    crosses, and every message received by the other half comes from it.
    """
    partners = _partners(names, entries)
    unrecorded = [all(entry.half != name for entry in entries) for name in names]
    merged = {
        there
        for here, there in partners.items()
        if there == here + 1 and not _has_details(entries[there])
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
        elif entry.what in _SENT:
            way = "crosses" if unrecorded[1 - column] else "lost"
        else:
            from_other = unrecorded[1 - column] and entry.was_clean
            arrives = entry.what == "receive" or from_other
            way = "arrives" if arrives else "stays"
        return Row(entry, column, way, other, other_row, here)

    return [row(index) for index in shown]


def failure_place(
    rows: Sequence[Row], failure: FailedStep | None
) -> tuple[int | None, int]:
    """Return where a failure is drawn.

    Returns:
        The number of the unexpected row, if there is one; and the number of the row
        before which the failure is described.
    """
    if failure is None:
        return None, len(rows)
    for number, row in enumerate(rows):
        if failure.entry in row.entries:
            return number, number + 1
    return None, sum(row.entries[0] < failure.at for row in rows)


def _partners(names: tuple[str, str], entries: Sequence[Entry]) -> dict[int, int]:
    """Return the other end of each arrow, by index, in both directions.

    Equal messages are matched in order: the first sent with the first received.
    """
    under_way: defaultdict[Hashable, deque[int]] = defaultdict(deque)
    partners: dict[int, int] = {}
    for index, entry in enumerate(entries):
        column = names.index(entry.half)
        words = (entry.message, entry.code, entry.reason)
        if entry.what in _SENT:
            received = _RECEIVED[_SENT.index(entry.what)]
            under_way[received, 1 - column, words].append(index)
        elif sent := under_way.get((entry.what, column, words)):
            partners[index] = sent.popleft()
            partners[partners[index]] = index
    return partners


def _has_details(entry: Entry) -> bool:
    """Return whether the end of an arrow has details to show beside its arrival."""
    return entry.what == "closed" and (not entry.was_clean or entry.error != "")

"""`rows_of()`: entries become the rows that every picture of a conversation has.

Knows who has sent what to whom, and nothing of how it looks.
"""

from collections import defaultdict, deque
from collections.abc import Hashable, Sequence
from typing import Final, Literal

import attrs

from trio_wspair.testing._entries import Entry, FailedStep, clock

__all__ = ("Row", "Way", "failure_place", "rows_of")

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

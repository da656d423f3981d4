"""`draw_svg()`: a conversation as a sequence diagram in SVG, for light and dark.

Texts are elements that can be selected, and no two signs differ only in colour. The
style uses no CSS variables: some programs that show SVG don't support them.
"""

import json
import textwrap
from collections.abc import Sequence
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

import attrs

from trio_wspair.testing._entries import (
    Entry,
    FailedStep,
    Row,
    cells,
    clock,
    cut,
    failure_place,
    in_words,
    is_json,
    plain,
    rows_of,
)

__all__ = ("STYLE", "draw_svg")


STYLE: Final = """
.conversation text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas,
  "DejaVu Sans Mono", monospace; paint-order: stroke; stroke-width: 4;
  stroke-linejoin: round; }
.conversation .name { font-size: 15px; font-weight: 600; text-anchor: middle;
  stroke-width: 0; }
.conversation .time, .conversation .end { text-anchor: end; }
.conversation .note { font-style: italic; }
.conversation .close .words, .conversation .closed .words,
  .conversation .failure .words { font-weight: 600; }
.conversation .arrow { fill: none; stroke-width: 1.6; }
.conversation .close .arrow, .conversation .closed .arrow { stroke-width: 4; }
.conversation .late { stroke-dasharray: 7 5; }
.conversation .sign, .conversation .head { stroke-width: 1.6; }
.conversation .lost, .conversation .cross { fill: none; stroke-width: 3;
  stroke-dasharray: none; }
.conversation .hands { fill: none; stroke-width: 1.6; }
.conversation .band { stroke-width: 1.2; stroke-dasharray: 3 3; }
.conversation .paper { fill: #fbfcfe; }
.conversation .band { fill: #fdecec; stroke: #b81f1f; }
.conversation .hands { stroke: #33415c; }
.conversation .life { stroke: #9aa7b8; stroke-width: 1.6; }
.conversation .head { fill: #ffffff; stroke: #33415c; }
.conversation .sign { fill: #fbfcfe; stroke: #33415c; }
.conversation .clean { fill: #33415c; }
.conversation .by-0 .arrow { stroke: #2563c9; }
.conversation .by-0 .tip { fill: #2563c9; }
.conversation .by-1 .arrow { stroke: #b4540a; }
.conversation .by-1 .tip { fill: #b4540a; }
.conversation .unclean, .conversation .cross { stroke: #b81f1f; }
.conversation text { fill: #1b2536; stroke: #fbfcfe; }
.conversation .time, .conversation .note { fill: #566479; }
.conversation .failure .words { fill: #b81f1f; }
@media (prefers-color-scheme: dark) {
.conversation .paper { fill: #151a22; }
.conversation .band { fill: #3a1d22; stroke: #ff8a80; }
.conversation .hands { stroke: #c3cede; }
.conversation .life { stroke: #66758b; }
.conversation .head { fill: #1f2733; stroke: #c3cede; }
.conversation .sign { fill: #151a22; stroke: #c3cede; }
.conversation .clean { fill: #c3cede; }
.conversation .by-0 .arrow { stroke: #6fa5f7; }
.conversation .by-0 .tip { fill: #6fa5f7; }
.conversation .by-1 .arrow { stroke: #eda25b; }
.conversation .by-1 .tip { fill: #eda25b; }
.conversation .unclean, .conversation .cross { stroke: #ff8a80; }
.conversation text { fill: #e7ecf4; stroke: #151a22; }
.conversation .time, .conversation .note { fill: #a4b1c4; }
.conversation .failure .words { fill: #ff8a80; }
}
"""


_WIDTH: Final = 860
_COLUMNS: Final = 130.0, 790.0
"""The x of the two lifelines."""
_TOP: Final = 58
"""The y at which the first row begins."""
_CELL: Final = 7.83
"""The width of a character."""
_LINE: Final = 18
"""The height of a line."""
_WORDS: Final = 62
"""The most characters in a line."""
_HALF: Final = 36
"""The most characters in a line about the state of a half."""
_EDGES: Final = 114.0, 806.0
"""The x at which such a line begins (left) or ends (right)."""
_JSON_LINES: Final = 12
"""JSON that would take more lines is drawn on one line."""
_LAID_OUT: Final = range(41, 600)
"""The lengths of JSON that may be laid out on several lines."""


@attrs.frozen
class _Place:
    """A row with its words and its position."""

    row: Row
    lines: list[str]
    y: float
    """The y of its arrow or its sign, below the words."""

    @property
    def x(self) -> float:
        return _COLUMNS[self.row.column]

    @property
    def x_there(self) -> float:
        return _COLUMNS[1 - self.row.column]

    @property
    def wide(self) -> float:
        return max(map(cells, self.lines)) * _CELL

    @property
    def way(self) -> int:
        """The direction to the other column: 1 is right, -1 is left."""
        return 1 - 2 * self.row.column


@attrs.frozen
class _Remark:
    """A text about the failure, or about a step that waits, beside a column."""

    column: int
    css: str
    lines: list[str]
    y: float
    """The baseline of its first line."""


def draw_svg(
    names: tuple[str, str],
    entries: Sequence[Entry],
    failure: FailedStep | None = None,
) -> str:
    """Return a picture for a file or a page, light or dark.

    Args:
        names: The names of the halves, the left one first.
        entries: The entries of the conversation.
        failure: The step that has failed, if there is one.
    """
    rows = rows_of(names, entries)
    unexpected, before = failure_place(rows, failure)
    places, remarks, end = _layout(rows, _remarks(names, failure), before)
    states: Sequence[tuple[str, str]] = () if failure is None else failure.states
    height = end + 56
    below = height + _LINE * max((_count(states, name) for name in names), default=0)
    svg = Element(
        "svg",
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_WIDTH} {below:g}",
        width=str(_WIDTH),
        height=f"{below:g}",
        role="group",
    )
    svg.set("class", "conversation")
    heads = [cut(plain(name), 30) for name in names]
    SubElement(svg, "title").text = f"Conversation of {heads[0]} and {heads[1]}"
    desc = f"A sequence diagram of {len(places)} rows, from top to bottom."
    if failure is not None:
        desc += f" The test has failed: {plain(failure.what)}"
    SubElement(svg, "desc").text = desc
    SubElement(svg, "style").text = STYLE
    _draw(svg, "rect", "paper", width="100%", height="100%")
    if unexpected is not None:
        _draw_band(svg, places[unexpected])
    for x, head in zip(_COLUMNS, heads, strict=True):
        _draw(svg, "line", "life", x1=x, x2=x, y1=50, y2=height - 16)
        wide = cells(head) * _CELL + 36
        box = {"x": x - wide / 2, "y": 18, "width": wide, "height": 32, "rx": 8}
        _draw(svg, "rect", "head", **box)
        _write(svg, x, 39, head, "name")
    _draw_rows(svg, places)
    for remark in remarks:
        _draw_remark(svg, remark)
    for column, name in enumerate(names):
        lines = [line for half, line in states if half == name]
        for number, line in enumerate(lines):
            css = f"note {'end' if column else 'start'}"
            words = cut(plain(line), _HALF)
            _write(svg, _EDGES[column], height + _LINE * number, words, css)
    return f"{tostring(svg, encoding='unicode')}\n"


def _layout(
    rows: Sequence[Row], remarks: Sequence[tuple[int, str, str]], before: int
) -> tuple[list[_Place], list[_Remark], float]:
    """Return the places of all rows and remarks, and the y at which the last ends."""
    y: float = _TOP
    places: list[_Place] = []
    placed: list[_Remark] = []
    for number in range(len(rows) + 1):
        if number == before:
            y += 8 if remarks else 0
            for column, css, what in remarks:
                lines = _wrapped(what)
                placed.append(_Remark(column, css, lines, y + 19))
                y += len(lines) * _LINE + 12
        if number < len(rows):
            lines = _lines_of(rows[number])
            y += len(lines) * _LINE + 16
            places.append(_Place(rows[number], lines, y - 8))
    return places, placed, y


def _remarks(
    names: tuple[str, str], failure: FailedStep | None
) -> list[tuple[int, str, str]]:
    """Return the remarks about a failure: the column, the class, and the words."""
    if failure is None:
        return []
    waits = [(names.index(half), "waits", what) for half, what in failure.waits]
    return [(names.index(failure.half), "failure", failure.what), *waits]


def _count(states: Sequence[tuple[str, str]], name: str) -> int:
    return sum(half == name for half, _ in states)


def _lines_of(row: Row) -> list[str]:
    """Return the lines of a row. Short JSON is laid out in the row that sends it."""
    message = row.entry.message
    if row.way == "arrives" and row.other is not None:
        message = None
    if isinstance(message, str) and len(message) in _LAID_OUT and is_json(message):
        lines = json.dumps(json.loads(message), indent=2, ensure_ascii=False)
        pieces = [plain(line) for line in lines.splitlines()]
        if len(pieces) <= _JSON_LINES and max(map(cells, pieces)) <= _WORDS:
            return pieces
    return [in_words(row.entry, _WORDS)]


def _draw_rows(svg: Element, places: Sequence[_Place]) -> None:
    """Draw all arrows first, so that the words are above them."""
    groups = [SubElement(svg, "g") for _ in range(2)]
    before = ""
    for place in places:
        row = place.row
        kind = "message" if row.entry.message is not None else row.entry.what
        speaker = 1 - row.column if row.way == "arrives" else row.column
        group = SubElement(groups[0], "g", {"class": f"{kind} by-{speaker}"})
        _draw_way(group, place, places)
        group = SubElement(groups[1], "g", {"class": f"{kind} by-{speaker}"})
        SubElement(group, "title").text = _title(row)
        _write_words(group, place)
        time = clock(row.entry)
        if time != before:
            _write(group, 64, place.y + 4, time, "time")
        before = time


def _draw_way(group: Element, place: _Place, places: Sequence[_Place]) -> None:
    """Draw the arrow of a row, or its sign."""
    row, x, y = place.row, place.x, place.y
    if row.way == "stays":
        _draw_sign(group, row.entry, x, y)
    elif row.way == "crosses":
        _draw_arrow(group, (x, y), (place.x_there, y))
    elif row.way == "lost":
        end = x + place.way * _lost_after(place)
        _draw(group, "line", "arrow", x1=x, y1=y, x2=end, y2=y)
        cross = f"M{end - 6} {y - 6}l12 12m0 -12l-12 12"
        _draw(group, "path", "arrow lost", d=cross)
    elif row.other_row is None:
        _draw_arrow(group, (place.x_there, y), (x, y))
    elif row.way == "arrives":
        sent = places[row.other_row]
        _draw_arrow(group, (sent.x, sent.y), (x, y), "arrow late")
    if row.way == "arrives" and row.entry.what == "closed":
        _draw_sign(group, row.entry, x, y)


def _draw_arrow(
    group: Element,
    start: tuple[float, float],
    end: tuple[float, float],
    css: str = "arrow",
) -> None:
    (x1, y1), (x2, y2) = start, end
    tip = 12 if x2 > x1 else -12
    slope = (y2 - y1) / (x2 - x1)
    base = y2 - slope * tip
    _draw(group, "line", css, x1=x1, y1=y1, x2=x2 - tip, y2=base)
    points = f"{x2},{y2} {x2 - tip},{base - 6:g} {x2 - tip},{base + 6:g}"
    _draw(group, "polygon", "tip", points=points)


def _lost_after(place: _Place) -> float:
    """Return the length of the arrow of a message that was never received."""
    return max(300, place.wide + 30)


def _draw_sign(group: Element, entry: Entry, x: float, y: float) -> None:
    """Draw a ring for an accept, a square for a clean close, a cross for another."""
    if entry.what == "accept":
        _draw(group, "circle", "sign", cx=x, cy=y, r=6)
    elif entry.was_clean:
        _draw(group, "rect", "sign clean", x=x - 7, y=y - 7, width=14, height=14)
    else:
        sign = f"M{x - 9} {y - 9}h18v18h-18zl18 18m0 -18l-18 18"
        _draw(group, "path", "sign unclean", d=sign)


def _write_words(group: Element, place: _Place) -> None:
    """Write the words beside their column, and a note about the arrival."""
    row, way = place.row, place.way
    beside = "end" if row.column else "start"
    bottom = place.y + (4 if row.way == "stays" else -8)
    x, anchor = place.x + way * 16, beside
    if row.column == 1 and len(place.lines) > 1:
        x, anchor = place.x - 16 - place.wide, "start"
    top = bottom - (len(place.lines) - 1) * _LINE
    for number, line in enumerate(place.lines):
        text = _write(group, x, top + number * _LINE, line, f"words {anchor}")
        text.set("xml:space", "preserve")
    if row.way == "lost":
        x = place.x + way * (_lost_after(place) + 14)
        _write(group, x, place.y + 4, "not taken", f"note {beside}")
    elif row.other is not None and row.way == "arrives":
        x = place.x + way * (place.wide + 28)
        _write(group, x, bottom, f"sent at {clock(row.other)}", f"note {beside}")
    elif row.arrival:
        x, anchor = place.x_there - way * 16, "start" if row.column else "end"
        _write(group, x, bottom, f"at {row.arrival}", f"note {anchor}")


def _title(row: Row) -> str:
    """Return the facts about a row that are shown when a reader points at it."""
    entry = row.entry
    parts = [f"{clock(entry)} s: {plain(entry.half)} {entry.what}"]
    if entry.task:
        parts.append(f"in {plain(entry.task)}")
    return ", ".join(parts)


def _draw_band(svg: Element, place: _Place) -> None:
    """Mark an unexpected row, behind it and in the margin."""
    high = len(place.lines) * _LINE + 14
    box = {"x": 8, "y": place.y + 8 - high, "width": _WIDTH - 16, "height": high}
    _draw(svg, "rect", "band", **box, rx=6)
    cross = f"M78 {place.y - 5}l11 11m0 -11l-11 11"
    _draw(SubElement(svg, "g", {"class": "failure"}), "path", "cross", d=cross)


def _draw_remark(svg: Element, remark: _Remark) -> None:
    group = SubElement(svg, "g", {"class": remark.css})
    x, y, way = _COLUMNS[remark.column], remark.y, 1 - 2 * remark.column
    if remark.css == "failure":
        _draw(group, "path", "cross", d=f"M{x - 8} {y - 13}l16 16m0 -16l-16 16")
    else:
        _draw(group, "circle", "sign", cx=x, cy=y - 5, r=8)
        _draw(group, "path", "hands", d=f"M{x} {y - 10}v5h4")
    anchor = "end" if remark.column else "start"
    for number, line in enumerate(remark.lines):
        _write(group, x + way * 18, y + number * _LINE, line, f"words {anchor}")


def _wrapped(text: str) -> list[str]:
    lines = map(plain, text.splitlines())
    return [part for line in lines for part in textwrap.wrap(line, _WORDS)]


def _draw(parent: Element, tag: str, css: str, **attributes: float | str) -> Element:
    values = {
        key: value if isinstance(value, str) else f"{value:g}"
        for key, value in attributes.items()
    }
    return SubElement(parent, tag, {"class": css, **values})


def _write(parent: Element, x: float, y: float, text: str, css: str) -> Element:
    element = _draw(parent, "text", css, x=x, y=y)
    element.text = text
    return element

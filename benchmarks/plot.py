"""Draws the ratios: an SVG image with one row for each workload."""

import math
from collections.abc import Iterator, Mapping
from html import escape
from typing import Final

import attrs

from .catalogue import SECTIONS
from .results import Results, Spread
from .workload import Workload, is_ours

__all__ = ("plot",)

_MARKS: Final = (
    ("#2e86de", "M-6-6H6V6H-6Z"),  # a square
    ("#e1701a", "M0-8 8 6H-8Z"),  # a triangle
    ("#16a085", "M0-8 8 0 0 8-8 0Z"),  # a diamond
    ("#d6508f", "M-6 0A6 6 0 1 0 6 0 6 6 0 1 0-6 0Z"),  # a circle
    ("#8e6fd8", "M0 8 8-6H-8Z"),  # a triangle that points down
    ("#c29a1b", "M-2.5-8h5v5.5H8v5H2.5V8h-5V2.5H-8v-5h5.5Z"),  # a plus
    ("#7f8c8d", "M-7-4-4-7 0-3 4-7 7-4 3 0 7 4 4 7 0 3-4 7-7 4-3 0Z"),  # a cross
)
_STYLE: Final = """\
  :root { --paper: #fff; --ink: #1f2328; --faint: #d5d9de; }
  @media (prefers-color-scheme: dark) {
    :root { --paper: #14171b; --ink: #e6e8eb; --faint: #3a4047; }
  }
  svg { background: var(--paper); }
  text { fill: var(--ink); font: 14px system-ui, sans-serif; }
  .section, .title { font-weight: 600; }
  .title { font-size: 17px; }
  .faint { stroke: var(--faint); }
  .one { stroke: var(--ink); stroke-width: 2; }
  .spread { stroke-width: 2; opacity: .55; }
  .mark { stroke: var(--paper); }"""

_TITLE: Final = "trio-wspair and its alternatives: above 1, trio-wspair is better"
_WIDTH: Final = 980
_LEFT, _RIGHT = 420, 950
_ROW: Final = 30
_HEAD: Final = 128
_LEGEND_COLUMNS: Final = 4


@attrs.frozen
class _Scale:
    """A logarithmic axis."""

    least: float
    most: float

    def __call__(self, ratio: float) -> float:
        share = math.log(ratio / self.least) / math.log(self.most / self.least)
        return round(_LEFT + share * (_RIGHT - _LEFT), 1)

    def ticks(self) -> Iterator[float]:
        for power in range(-4, 5):
            for digit in (1, 2, 5):
                if self.least <= digit * 10.0**power <= self.most:
                    yield digit * 10.0**power


def plot(results: Results) -> str:
    """Draw the ratios of the fastest trio-wspair to each other implementation."""
    ratios = {
        workload.name: _ratios(results, workload)
        for workloads in SECTIONS.values()
        for workload in workloads
        if results.ours(workload)
    }
    names = list(dict.fromkeys(name for row in ratios.values() for name in row))
    marks = dict(zip(names, _MARKS, strict=False))
    ends = [
        e for row in ratios.values() for s in row.values() for e in (s.least, s.most)
    ]
    scale = _Scale(min([*ends, 0.5]) / 1.2, max([*ends, 2]) * 1.2)
    body: list[str] = []
    y = _HEAD
    for section, workloads in SECTIONS.items():
        shown = [workload for workload in workloads if workload.name in ratios]
        if shown:
            body.append(_text(20, y, section, "section"))
            y += _ROW
        for workload in shown:
            body += _row(y, workload, ratios[workload.name], marks, scale)
            y += _ROW
    height = y + 30
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}">',
            f" <style>\n{_STYLE}\n </style>",
            *_legend(marks),
            *_axis(scale, y - _ROW / 2),
            *body,
            "</svg>\n",
        ]
    )


def _ratios(results: Results, workload: Workload) -> Mapping[str, Spread]:
    ours = results.fastest(workload)
    return {
        theirs: results.ratios(workload, ours, theirs)
        for theirs in results.implementations(workload)
        if not is_ours(theirs) and theirs not in workload.yardsticks
    }


def _row(
    y: float,
    workload: Workload,
    ratios: Mapping[str, Spread],
    marks: Mapping[str, tuple[str, str]],
    scale: _Scale,
) -> Iterator[str]:
    yield _text(20, y, workload.title)
    yield _line(f"M{_LEFT} {y - 5}H{_RIGHT}", "faint")
    from_the_left = sorted(ratios.items(), key=lambda item: item[1].median)
    for number, (name, spread) in enumerate(from_the_left):
        colour, shape = marks[name]
        least, middle, most = map(scale, (spread.least, spread.median, spread.most))
        # Marks of neighbours have different heights, so that they do not overlap.
        height = y - 5 + (-4, 4)[number % 2] * (len(ratios) > 1)
        yield _line(f"M{least} {height}H{most}", "spread", f' stroke="{colour}"')
        place = f'transform="translate({middle} {height})"'
        tip = f"<title>{escape(name)}: {spread.median:.2f}</title>"
        yield f' <path class="mark" fill="{colour}" {place} d="{shape}">{tip}</path>'


def _legend(marks: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    yield _text(20, 30, _TITLE, "title")
    for number, (name, (colour, shape)) in enumerate(marks.items()):
        line, column = divmod(number, _LEGEND_COLUMNS)
        x, y = 28 + 235 * column, 60 + 24 * line
        place = f'transform="translate({x} {y - 5})"'
        yield f' <path class="mark" fill="{colour}" {place} d="{shape}"/>'
        yield _text(x + 14, y, f"{name}")


def _axis(scale: _Scale, bottom: float) -> Iterator[str]:
    for ratio in scale.ticks():
        x = scale(ratio)
        kind = "one" if ratio == 1 else "faint"
        yield _line(f"M{x} {_HEAD - 8}V{bottom}", kind)
        yield _text(x, bottom + 20, f"{ratio:g}", "", ' text-anchor="middle"')


def _line(path: str, kind: str, more: str = "") -> str:
    return f' <path class="{kind}" d="{path}"{more}/>'


def _text(x: float, y: float, text: str, kind: str = "", more: str = "") -> str:
    return f' <text class="{kind}" x="{x}" y="{y}"{more}>{escape(text)}</text>'

"""`draw_html()`: the conversation as a page that needs nothing else.

Knows what the page is told; how it looks and what it does is in `page.css` and
`page.js`. No word of the conversation becomes part of the page's own source.
"""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from importlib import resources
from string import Template
from typing import Any, Final

from trio_wspair.testing._entries import (
    Entry,
    FailedStep,
    Row,
    clock,
    failure_place,
    in_words,
    plain,
    rows_of,
)

__all__ = ("draw_html",)

_WIDTH: Final = 88
"""Characters of a row that is not open; the page shows as many as it has room for."""


def draw_html(
    names: tuple[str, str],
    entries: Sequence[Entry],
    failure: FailedStep | None = None,
) -> str:
    """Return a page with a diagram to scroll, to filter, and to open frames in."""
    rows = rows_of(names, entries)
    data = json.dumps(
        {
            "names": [plain(name) for name in names],
            "rows": [_as_json(row) for row in rows],
            "failure": None if failure is None else _told(names, rows, failure),
        }
    )
    style, script = _source("page.css"), _source("page.js")
    return Template(_source("page.html")).substitute(
        title=html.escape(plain(" and ".join(names))),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        # Inside of a script element nothing but "<" can begin something else.
        record=data.replace("<", "\\u003c"),
    )


def _told(
    names: tuple[str, str], rows: Sequence[Row], failure: FailedStep
) -> dict[str, Any]:
    """Return what the page has to know of a failure."""
    wrong, place = failure_place(rows, failure)

    def beside(lines: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        return [
            {
                "column": names.index(who),
                "words": "\n".join(map(plain, what.split("\n"))),
            }
            for who, what in lines
        ]

    return {
        "row": wrong,
        "before": place,
        "failed": beside([(failure.half, failure.what)]),
        "waits": beside(failure.waits),
        "states": beside(failure.states),
    }


def _as_json(row: Row) -> dict[str, Any]:
    """Return what the page has to know of a row; a message is told once."""
    entry = row.entry
    told: dict[str, Any] = {
        "time": clock(entry),
        "column": row.column,
        "way": row.way,
        "what": entry.what,
        "words": in_words(entry, _WIDTH),
        "task": plain(entry.task),
        "other": row.other_row,
        "taken": None if row.other is None else clock(row.other),
        "otherTask": "" if row.other is None else plain(row.other.task),
        "code": entry.code,
        "reason": entry.reason,
        "clean": entry.was_clean,
        "error": entry.error,
    }
    if row.way == "arrives" and row.other is not None:
        return told
    if isinstance(entry.message, str):
        return {**told, "text": entry.message}
    if isinstance(entry.message, bytes):
        return {**told, "hex": entry.message.hex()}
    return told


def _source(name: str) -> str:
    return (
        resources.files("trio_wspair.testing._pictures")
        .joinpath(name)
        .read_text("utf-8")
    )


def _hash(source: str) -> str:
    """Return what the page's policy names as the only script, or style, to be used."""
    digest = hashlib.sha256(source.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"

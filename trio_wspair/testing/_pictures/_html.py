"""`draw_html()`: a conversation as an HTML page in a single file.

Knows the data of the page; `page.css` and `page.js` know how the page looks and what it
does. Texts of the conversation are data in JSON, and never part of HTML or scripts.
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
"""The most characters of a closed row; a narrow page shows fewer."""


def draw_html(
    names: tuple[str, str],
    entries: Sequence[Entry],
    failure: FailedStep | None = None,
) -> str:
    """Return a page with a diagram, whose rows can be filtered and opened."""
    rows = rows_of(names, entries)
    data = json.dumps(
        {
            "names": [plain(name) for name in names],
            "rows": [_as_json(row) for row in rows],
            "failure": None if failure is None else _failure(names, rows, failure),
        }
    )
    style, script = _source("page.css"), _source("page.js")
    return Template(_source("page.html")).substitute(
        title=html.escape(plain(" and ".join(names))),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        # In a script element only "<" can begin a tag or a comment.
        record=data.replace("<", "\\u003c"),
    )


def _failure(
    names: tuple[str, str], rows: Sequence[Row], failure: FailedStep
) -> dict[str, Any]:
    """Return the page's data of a failure."""
    unexpected, place = failure_place(rows, failure)

    def beside(lines: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        return [
            {
                "column": names.index(name),
                "words": "\n".join(map(plain, what.split("\n"))),
            }
            for name, what in lines
        ]

    return {
        "row": unexpected,
        "before": place,
        "failed": beside([(failure.half, failure.what)]),
        "waits": beside(failure.waits),
        "states": beside(failure.states),
    }


def _as_json(row: Row) -> dict[str, Any]:
    """Return the page's data of a row. Each message is in one row only."""
    entry = row.entry
    data: dict[str, Any] = {
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
        return data
    if isinstance(entry.message, str):
        return {**data, "text": entry.message}
    if isinstance(entry.message, bytes):
        return {**data, "hex": entry.message.hex()}
    return data


def _source(name: str) -> str:
    return (
        resources.files("trio_wspair.testing._pictures")
        .joinpath(name)
        .read_text("utf-8")
    )


def _hash(source: str) -> str:
    """Return the hash by which the page's policy allows its one script or style."""
    digest = hashlib.sha256(source.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"

"""Pictures of conversations: SVG, Mermaid, and the HTML page."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from sample_records import ANY, NAMES, TALK, at

from trio_wspair.testing._entries import Entry, FailedStep, rows_of
from trio_wspair.testing._pictures import draw_html, draw_mermaid, draw_svg
from trio_wspair.testing._record import Record

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!-- ]]> &amp; <b onclick='x'>",
    '"; } </style> $style ${record} \\u003c/script>',
    "\0\x1b[31m\u202e\ufffe",
    "style: x #quot; ; classDef y #1; ;\nB->>A: forged %%{init: {}}%%",
)
DOCS = Path(__file__).parents[2] / "docs"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def engine() -> None:
    """Run each test once: there is no network."""


def svg(*entries: Entry, failure: FailedStep | None = None) -> ET.Element:
    return ET.fromstring(draw_svg(NAMES, entries, failure=failure))  # noqa: S314


def texts(picture: ET.Element, css: str = "") -> list[str]:
    """Return the texts of a picture, or those of one class."""
    written = picture.iter(f"{SVG}text")
    return [each.text or "" for each in written if css in each.get("class", "")]


def shapes(picture: ET.Element, css: str) -> list[ET.Element]:
    return [each for each in picture.iter() if css in each.get("class", "").split()]


def data_of(page: str) -> dict[str, list[dict[str, object]]]:
    """Return the data of a page."""
    (data,) = re.findall(r'<script type="application/json".*?>(.*?)</script>', page)
    data_of: dict[str, list[dict[str, object]]] = json.loads(data)
    return data_of


# -- SVG ----------------------------------------------------------------------------


def test_an_svg_shows_each_event_and_its_time() -> None:
    picture = svg(*TALK)
    assert texts(picture, "name") == ["client", "server"]
    assert texts(picture, "time") == ["0.000", "0.250", "0.500", "1.000", "2.000"]
    assert texts(picture, "words") == [
        "accept",
        "accept",
        '"hello"',
        '{"hello": ["client", 1]}',
        "00 01 ff (3 bytes)",
        '{"hello": ["client", 1]}',
        "00 01 ff (3 bytes)",
        '"sent, never taken"',
        'Close 1000 "bye"',
        'Close 1000 "bye"',
    ]
    assert texts(picture, "note") == [
        "sent at 0.250",
        "sent at 0.500",
        "not taken",
        "at 2.500",
    ]
    assert picture.findtext(f"{SVG}title") == "Conversation of client and server"


def test_a_message_that_is_taken_late_has_a_slanted_arrow() -> None:
    picture = svg(*TALK)
    first, second = shapes(picture, "late")
    for arrow in (first, second):
        assert float(arrow.get("y2", "")) > float(arrow.get("y1", "")) + 40
    assert float(first.get("x2", "")) < float(first.get("x1", ""))
    assert float(second.get("x2", "")) > float(second.get("x1", ""))
    assert [first in group for group in shapes(picture, "by-1")].count(True) == 1
    assert [second in group for group in shapes(picture, "by-0")].count(True) == 1


def test_different_ends_have_different_signs_and_words() -> None:
    clean = at(0, "client closed", code=1000, was_clean=True)
    unclean = at(0, "server closed", code=1006, was_clean=False, error="E: x")
    picture = svg(clean, unclean)
    assert texts(picture, "words") == ["closed 1000", "closed 1006, unclean; E: x"]
    assert len(shapes(picture, "clean")) == len(shapes(picture, "unclean")) == 1


def test_a_late_close_and_an_unclean_end_are_both_shown() -> None:
    close = at(0, "client close", code=1000)
    closed = at(0, "server closed", code=1000, was_clean=False)
    picture = svg(close, closed)
    assert len(shapes(picture, "late")) == len(shapes(picture, "unclean")) == 1


def test_short_json_is_shown_whole() -> None:
    said = '{"type": "join", "user": {"name": "Ada", "é": 1}}'
    words = ["{", '  "type": "join",', '  "user": {', '    "name": "Ada",']
    words += ['    "é": 1', "  }", "}"]
    for half in NAMES:
        assert texts(svg(at(0, f"{half} send", said)), "words") == words
    sent, other = at(0, "client send", said), at(0, "server accept")
    late = svg(sent, other, at(1, "server receive", said))
    assert texts(late, "words") == [*words, "accept", said]


@pytest.mark.parametrize("value", ["x" * 70, list(range(30)), [[[[[[[[["long"]]]]]]]]]])
def test_long_json_stays_on_one_line(value: object) -> None:
    said = json.dumps({"a long text with a name": value})
    assert len(texts(svg(at(0, "client send", said)), "words")) == 1


def test_one_side_of_a_conversation_has_a_bare_line_opposite() -> None:
    picture = svg(*(entry for entry in TALK if entry.half == "server"))
    assert texts(picture, "note") == []
    assert len(shapes(picture, "tip")) == 6


FAILURE = FailedStep(
    "client",
    "expected\n" + "much " * 30,
    at=5,
    entry=3,
    waits=[("server", "server: a listener waits")],
    states=[("client", "OPEN"), ("server", "OPEN"), ("server", "no listener")],
)


def test_a_failure_marks_its_row_and_waiting_messages() -> None:
    picture = svg(*TALK[:5], failure=FAILURE)
    (band,) = shapes(picture, "band")
    (hello,) = [e for e in picture.iter(f"{SVG}text") if e.text == '"hello"']
    top, high = (float(band.get(key, "")) for key in ("y", "height"))
    assert top < float(hello.get("y", "")) < top + high
    assert len(shapes(picture, "cross")) == 2  # At the row, and in the text.
    words = texts(picture, "words")
    assert words[words.index("expected") + 1].startswith("much much")
    assert words[-1] == "server: a listener waits"
    assert len(shapes(picture, "hands")) == 1
    assert [text for text in texts(picture, "note") if "OPEN" in text] == ["OPEN"] * 2
    assert "The test has failed: expected" in (picture.findtext(f"{SVG}desc") or "")


@pytest.mark.parametrize("half", NAMES)
def test_a_failure_without_a_row_shows_its_place(half: str) -> None:
    picture = svg(*TALK[:2], failure=FailedStep(half, "too late", at=1))
    (words,) = [e for e in picture.iter(f"{SVG}text") if e.text == "too late"]
    first, second = shapes(picture, "sign")
    below, above = (float(sign.get("cy", "")) for sign in (first, second))
    assert below < float(words.get("y", "")) < above
    assert shapes(picture, "band") == []


def test_in_mermaid_a_failure_is_a_band_and_notes() -> None:
    picture = draw_mermaid(NAMES, TALK[:5], FAILURE).splitlines()
    start = picture.index("    rect rgba(220, 40, 40, 0.2)")
    assert picture[start + 1 : start + 3] == ['    A->>B: "hello"', "    end"]
    assert picture[start + 3].startswith("    Note over A: ✗ expected")
    assert picture[start + 4 : start + 8] == [
        "    Note over B: … server: a listener waits",
        "    Note over A: OPEN",
        "    Note over B: OPEN",
        "    Note over B: no listener",
    ]


def test_a_page_has_the_failure() -> None:
    page: dict[str, Any] = {**data_of(draw_html(NAMES, TALK[:5], FAILURE))}
    failure = page["failure"]
    assert (failure["row"], failure["before"]) == (2, 3)
    assert failure["failed"][0]["column"] == 0
    assert failure["failed"][0]["words"].startswith("expected\nmuch")
    assert failure["waits"] == [{"column": 1, "words": "server: a listener waits"}]
    assert len(failure["states"]) == 3


def test_a_row_shows_its_task_in_a_tooltip() -> None:
    picture = svg(at(1, "client send", "a", task="main"))
    assert [title.text for title in picture.iter(f"{SVG}title")][1:] == [
        "1.000 s: client send, in main"
    ]


# -- Mermaid ------------------------------------------------------------------------


def test_mermaid_has_the_same_events() -> None:
    unclean = at(3, "client closed", code=1006, was_clean=False)
    assert draw_mermaid(NAMES, [*TALK, unclean]) == (
        "sequenceDiagram\n"
        "    participant A as client\n"
        "    participant B as server\n"
        "    Note over A: accept\n"
        "    Note over B: accept\n"
        '    A->>B: "hello"\n'
        '    B-)A: {"hello": ["client", 1]} (on its way)\n'
        "    A-)B: 00 01 ff (3 bytes) (on its way)\n"
        '    Note over A: {"hello": ["client", 1]} (sent at 0.250)\n'
        "    Note over B: 00 01 ff (3 bytes) (sent at 0.500)\n"
        '    B-xA: "sent, never taken" (not taken)\n'
        '    A->>B: Close 1000 "bye"\n'
        '    B->>A: Close 1000 "bye" (taken at 2.500)\n'
        "    Note over A: closed 1006, unclean\n"
    )


def test_mermaid_of_one_side_has_arrows_from_the_other() -> None:
    lines = draw_mermaid(NAMES, [at(0, "server receive", "a")]).splitlines()
    assert lines[3:] == ['    A->>B: "a"']


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("a;b#c", '"a#59;b#35;c"'),
        ("<b>&lt;\n%%", '"#60;b#62;#38;lt#59;#92;n#37;#37;"'),
        ('"', '"#92;""'),
        ("style:#1;", '"#115;tyle:#35;1#59;"'),
        ("classDef x", '"#99;lassDef x"'),
        ("日本語 ﬂ°¶ß", '"日本語 #64258;#176;#182;#223;"'),
    ],
)
def test_no_message_text_is_mermaid_syntax(message: str, words: str) -> None:
    drawn = draw_mermaid(NAMES, [at(0, "client send", message)])
    assert drawn.splitlines()[3:] == [f"    A->>B: {words}"]


def test_no_name_is_mermaid_syntax() -> None:
    drawn = draw_mermaid(("wrap: x", " "), [])
    assert "participant A as wrap#58; x\n" in drawn
    assert "participant B as #160;\n" in drawn


# -- the page -----------------------------------------------------------------------


def test_the_page_has_each_message_once_and_whole() -> None:
    page = draw_html(NAMES, [*TALK, at(3, "client send", "x" * 10_000)])
    rows = data_of(page)["rows"]
    assert [row["text"] for row in rows if "text" in row] == [
        "hello",
        '{"hello": ["client", 1]}',
        "sent, never taken",
        "x" * 10_000,
    ]
    assert [row["hex"] for row in rows if "hex" in row] == ["0001ff"]


def test_the_page_is_self_contained() -> None:
    page = draw_html(NAMES, TALK)
    assert re.findall(r"\b(?:src|href|url|import)\b\s*[=(]", page) == []
    assert "default-src 'none'" in page


# -- all of them --------------------------------------------------------------------


@pytest.mark.parametrize("said", HOSTILE)
def test_hostile_text_stays_text(said: str) -> None:
    names = (f"c{said}", f"s{said}")
    entries = [
        Entry(0, names[0], "send", said, task=said),
        Entry(0, names[1], "closed", code=1006, reason=said, error=said),
    ]
    page = draw_html(names, entries)
    assert page.count("<script") == page.count("</script") == 2
    assert page.count("<style>") == page.count("</style") == 1
    assert data_of(page)["rows"][0]["text"] == said
    assert data_of(page)["rows"][1]["error"] == said
    failure = FailedStep(names[0], said, 2, 0, [(names[1], said)], [(names[0], said)])
    page = draw_html(names, entries, failure)
    assert page.count("<script") == page.count("</script") == 2
    drawn = draw_svg(names, entries, failure)
    ET.fromstring(drawn)  # noqa: S314
    assert "<script" not in drawn
    assert len(draw_mermaid(names, entries).splitlines()) == 5


def test_each_picture_shows_the_entries_of_its_record() -> None:
    record = Record(("a", "b"))
    assert record.to_svg() == draw_svg(("a", "b"), [])
    assert record.to_mermaid() == draw_mermaid(("a", "b"), [])
    assert record.to_html() == draw_html(("a", "b"), [])


@given(ANY)
def test_any_record_can_be_drawn_row_by_row(
    entries: Sequence[Entry],
) -> None:
    rows = rows_of(NAMES, entries)
    assert len(svg(*entries).findall(f".//{SVG}g/{SVG}title")) == len(rows)
    assert len(draw_mermaid(NAMES, entries).splitlines()) == len(rows) + 3
    told_rows = data_of(draw_html(NAMES, entries))["rows"]
    sources = [row.get("text", row.get("hex")) for row in told_rows]
    for number, row in enumerate(rows):
        message = row.entry.message
        shown = message.hex() if isinstance(message, bytes) else message
        first = row.way != "arrives" or row.other_row is None
        assert sources[number if first else row.other_row or 0] == shown


def test_the_picture_in_the_documentation_is_up_to_date() -> None:
    shown = (DOCS / "conversation.svg").read_text("utf-8")
    assert shown == draw_svg(NAMES, TALK)

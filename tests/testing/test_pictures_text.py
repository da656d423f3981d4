"""Pictures of conversations as text, for a terminal."""

from collections.abc import Sequence
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given, strategies as st
from sample_records import ANY, NAMES, TALK, at

from trio_wspair.testing._entries import Entry, FailedStep, cells, in_words, rows_of
from trio_wspair.testing._pictures import terminal_diagram
from trio_wspair.testing._record import Record


@pytest.fixture
def engine() -> None:
    """Run each test once: there is no network."""


def lines(*entries: Entry, names: tuple[str, str] = NAMES, **more: Any) -> list[str]:
    """Return the lines below the names."""
    return terminal_diagram(names, entries, **more).splitlines()[1:]


def test_a_conversation_is_drawn_in_two_columns() -> None:
    assert terminal_diagram(NAMES, TALK) == dedent("""\
         time  client                                    server
        0.000  ○ accept                                       │
               │                                       accept ○
               ├─ "hello" ───────────────────────────────────►│
        0.250  │     on its way ◄╌╌ {"hello": ["client", 1]} ─┤
        0.500  ├─ 00 01 ff (3 bytes) ╌╌► on its way           │
        1.000  │◄─ {"hello": ["client", 1]} ╌╌ sent at 0.250  │
               │        sent at 0.500 ╌╌ 00 01 ff (3 bytes) ─►│
               │           not taken ✕── "sent, never taken" ─┤
        2.000  ├─ Close 1000 "bye" ──────────────────────────►│
               │◄─ at 2.500 ─────────────── Close 1000 "bye" ─┤""")


def test_a_message_that_is_taken_at_once_has_one_line() -> None:
    assert lines(*TALK[2:4]) == [
        '0.000  ├─ "hello" ───────────────────────────────────►│',
    ]


def test_a_message_that_took_time_shows_when_it_was_taken() -> None:
    sent, taken = at(1, "server send", "slow"), at(3.5, "client receive", "slow")
    assert lines(sent, taken) == [
        '1.000  │◄─ at 3.500 ───────────────────────── "slow" ─┤',
    ]


def test_a_message_that_is_taken_later_has_two_lines() -> None:
    first, second = at(0, "client send", "a"), at(0, "client send", "b")
    taken = at(1, "server receive", "a"), at(1, "server receive", "b")
    assert lines(first, second, *taken) == [
        '0.000  ├─ "a" ╌╌► on its way                          │',
        '       ├─ "b" ╌╌► on its way                          │',
        '1.000  │                       sent at 0.000 ╌╌ "a" ─►│',
        '       │                       sent at 0.000 ╌╌ "b" ─►│',
    ]


def test_equal_messages_are_taken_in_the_order_sent() -> None:
    sent = at(0, "client send", "a"), at(1, "client send", "a")
    assert lines(*sent, at(2, "server receive", "a")) == [
        '0.000  ├─ "a" ╌╌► on its way                          │',
        '1.000  ├─ "a" ──✕ not taken                           │',
        '2.000  │                       sent at 0.000 ╌╌ "a" ─►│',
    ]


def test_text_and_binary_of_the_same_bytes_are_not_the_same_message() -> None:
    sent, other = at(0, "client send", "a"), at(0, "server receive", b"a")
    assert lines(sent, other) == [
        '0.000  ├─ "a" ──✕ not taken                           │',
        "       ├─────────────────────────────── 61 (1 byte) ─►│",
    ]


def test_a_half_does_not_take_its_own_messages() -> None:
    sent, other = at(0, "client send", "a"), at(0, "client receive", "a")
    assert "not taken" in lines(sent, other, at(0, "server accept"))[0]


def test_an_unclean_end_shows_the_reason() -> None:
    ended = at(
        0,
        "server closed",
        code=1006,
        reason="a listener raised",
        was_clean=False,
        error="ValueError: no\nway",
    )
    words = r'closed 1006, unclean "a listener raised"; ValueError: no\nway'
    assert lines(at(0, "client accept"), ended)[1] == f"       │  {words} ■"


def test_a_close_without_a_code_is_shown_as_such() -> None:
    assert lines(at(0, "client close", code=1005), at(0, "server accept")) == [
        "0.000  ├─ Close 1005 (no code) ──✕ not taken          │",
        "       │                                       accept ○",
    ]


def test_an_unclean_end_has_a_line_even_if_the_close_has_just_been_sent() -> None:
    close = at(0, "client close", code=1000)
    closed = at(0, "server closed", code=1000, was_clean=False)
    assert lines(close, closed) == [
        "0.000  ├─ Close 1000 ╌╌► on its way                   │",
        "       │      sent at 0.000 ╌╌ closed 1000, unclean ─►│",
    ]


def test_a_half_without_entries_is_a_bare_line() -> None:
    one_side = [entry for entry in TALK if entry.half == "client"]
    assert terminal_diagram(NAMES, one_side) == dedent("""\
         time  client                 server (nothing recorded)
        0.000  ○ accept                                       │
               ├─ "hello" ───────────────────────────────────►│
        0.500  ├─ 00 01 ff (3 bytes) ────────────────────────►│
        1.000  │◄─ {"hello": ["client", 1]} ──────────────────┤
        2.000  ├─ Close 1000 "bye" ──────────────────────────►│
        2.500  │◄─ closed 1000 "bye" ─────────────────────────┤""")


def test_a_waiting_step_is_drawn_at_the_end() -> None:
    failure = FailedStep(
        "client",
        'expected "pong" within 1 s',
        at=3,
        waits=[("server", "server: a listener waits, in answer, app.py:3")],
        states=[("client", "OPEN"), ("server", "OPEN"), ("server", "1 message\nwaits")],
    )
    assert terminal_diagram(NAMES, TALK[2:5], failure) == dedent("""\
         time  client                                    server
        0.000  ├─ "hello" ───────────────────────────────────►│
        0.250  │      not taken ✕── {"hello": ["client", 1]} ─┤
               ✗ expected "pong" within 1 s                   │
               │         server: a listener waits, in answer, …
               │                                     app.py:3 │
               client:                  server:
               OPEN                     OPEN
                                        1 message
                                        waits""")


@pytest.mark.parametrize(("entry", "row"), [(0, 0), (1, 0), (2, 1), (4, 3)])
def test_an_unexpected_message_is_marked_and_explained_below_its_row(
    entry: int, row: int
) -> None:
    talk = TALK[2:7]
    drawn = lines(*talk, failure=FailedStep("client", "no", at=5, entry=entry))
    assert [line[5] for line in drawn] == [
        "✗" if number == row else " " for number in range(5)
    ]
    assert drawn[row + 1] == "       ✗ no                                           │"
    assert drawn[: row + 1] + drawn[row + 2 :] == [
        line[:5] + "✗" * (number == row) + line[5 + (number == row) :]
        for number, line in enumerate(lines(*talk))
    ]


def test_events_after_a_failure_are_drawn_below_it() -> None:
    drawn = lines(*TALK[:5], failure=FailedStep("server", "no", at=2))
    assert drawn[2] == "       │                                           no ✗"
    assert drawn[3] == lines(*TALK[:5])[2].replace("0.000", "     ")


def test_a_long_failure_is_wrapped_in_its_column() -> None:
    drawn = lines(
        TALK[0], failure=FailedStep("server", "expected " + "日本語 " * 12, 1)
    )
    assert drawn[1:] == [
        "       │                expected 日本語 日本語 日本語 ✗",
        "       │           日本語 日本語 日本語 日本語 日本語 │",
        "       │                  日本語 日本語 日本語 日本語 │",
    ]


def test_only_the_last_forty_lines_are_drawn() -> None:
    drawn = lines(*(at(0, "client send", str(n)) for n in range(1050)))
    assert len(drawn) == 41
    assert drawn[0] == "       ⋮ 1,010 rows before are not shown"
    assert '"1010"' in drawn[1]


def test_an_empty_record_is_shown_as_such() -> None:
    assert lines() == ["       nothing has happened"]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("", '""'),
        ('say "hi"\\', r'"say \"hi\"\\"'),
        ("a\tb\n\0\x1b[31m\u202e", r'"a\tb\n\x00\x1b[31m\u202e"'),
        ('{"a":\r\n    [1,  "b  c"]}\n', '{"a": [1,  "b  c"]}'),
        ('{"a":', r'"{\"a\":"'),
        ("[" * 9_000, f'"{"[" * 59}…" (9,000 characters)'),
        ("x" * 2345, f'"{"x" * 59}…" (2,345 characters)'),
        ("日本語" * 100, f'"{"日本語" * 10}…" (300 characters)'),
        ("e\u0301" * 100, f'"{"é" * 61}…" (200 characters)'),
        ("a\u20dd" * 50, f'"{"a⃝" * 50}"'),
        (b"", "(0 bytes)"),
        (bytes(3000), f"{'00 ' * 22}… (3,000 bytes)"),
    ],
)
def test_messages_are_shown_by_their_types(message: str | bytes, words: str) -> None:
    (line,) = lines(at(0, "client send", message))
    assert f"├─ {words} ──" in line


def test_long_names_and_long_reasons_are_cut() -> None:
    close = at(0, "client close", code=1000, reason="r" * 120)
    text = terminal_diagram(("client" * 20, "server" * 20), [])
    assert text.splitlines()[0].count("…") == 2
    assert f'Close 1000 "{"r" * 68}… ──►│' in lines(close)[0]


def test_str_of_a_record_is_the_diagram() -> None:
    record = Record(("a", "b"))
    assert str(record) == terminal_diagram(("a", "b"), [])


@given(ANY, st.text(max_size=200))
def test_every_picture_fits_and_is_complete(
    entries: Sequence[Entry], text: str
) -> None:
    rows = rows_of(NAMES, entries)
    told = [entry for row in rows for entry in (row.entry, row.other) if entry]
    assert all(any(entry is one for one in told) for entry in entries)
    failure = FailedStep("client", f"x{text}", len(entries), states=[("server", text)])
    drawn = lines(*entries, failure=failure)
    for line in drawn:
        assert cells(line) <= 96
        assert line.isprintable()
    for row, line in zip(rows[-40:], drawn[len(rows) > 40 :], strict=False):
        assert in_words(row.entry, 40).split("…")[0][:12] in line

"""Recorded pairs: expectations of a test, and their errors."""

import functools
import json
import re
from collections.abc import Callable, Generator
from typing import Any

import pytest
import trio
import trio.testing
from pairs import in_virtual_time

from trio_wspair import CloseEvent, InvalidStateError, MessageEvent, use_instrument
from trio_wspair.testing import (
    ConversationError,
    Entry,
    Record,
    RecordedWebSocket,
    open_recorded_pair,
)
from trio_wspair.testing._record import state_of, waits_of


def echoing(server: RecordedWebSocket) -> None:
    server.on("message")(lambda event: server.send(event.data))
    server.accept()


# -- the record -----------------


@in_virtual_time
async def test_the_record_has_the_events_of_both_halves_with_times_and_tasks() -> None:
    async with open_recorded_pair() as (client, server):
        echoing(server)
        client.accept(pull=True)
        await trio.sleep(1)
        client.send("hello")
        await client.expect("hello")
        client.close(3000, "enough")
        await client.expect_close(3000)
    assert client.record is server.record
    assert client.record.entries == (
        Entry(0, "server", "accept"),
        Entry(0, "client", "accept"),
        Entry(1, "client", "send", "hello"),
        Entry(1, "server", "receive", "hello"),
        Entry(1, "server", "send", "hello"),
        Entry(1, "client", "receive", "hello"),
        Entry(1, "client", "close", code=3000, reason="enough"),
        Entry(1, "server", "closed", code=3000, reason="enough", was_clean=True),
        Entry(1, "server", "close", code=3000, reason="enough"),
        Entry(1, "client", "closed", code=3000, reason="enough", was_clean=True),
    )
    sent, answered = client.record.entries[2], client.record.entries[4]
    assert sent.task.endswith("bounded_main")
    assert answered.task.endswith("Dispatcher._run")
    assert repr(client.record) == "<Record of client and server: 10 entries>"


@in_virtual_time
async def test_a_record_goes_through_json_and_back() -> None:
    async with open_recorded_pair(names=("A", "B")) as (a, b):
        a.accept()
        b.accept(pull=True)
        a.send('text, "quoted" \u2603')
        a.send(bytes(range(5)))
        await b.expect(re.compile("quoted"))
        a.close()
    text = a.record.to_json()
    read = Record.from_json(text)
    assert read.names == ("A", "B")
    assert read.entries == a.record.entries
    assert json.loads(text)["entries"][3]["binary"] == "0001020304"
    assert read.halves == {}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "isn't a record"),
        ("[]", "isn't a record"),
        ('{"version": 1}', "isn't a record"),
        ('{"version": 1, "names": ["a"], "entries": []}', "isn't a record"),
        (
            '{"version": 1, "names": ["a", "b"], "entries": [{"x": 1}]}',
            "isn't a record",
        ),
        ('{"version": 1, "names": ["a", "b"], "entries": ["x"]}', "isn't a record"),
        ('{"version": 2, "names": ["a", "b"], "entries": []}', "version 2"),
    ],
)
def test_an_invalid_record_is_refused(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Record.from_json(text)


@pytest.mark.parametrize(
    ("half", "deed", "what"),
    [
        ("a", "dance", "isn't a record"),
        ("c", "accept", "has the half 'c', but its names"),
    ],
)
def test_impossible_entries_are_refused(half: str, deed: str, what: str) -> None:
    entry = {"time": 0, "half": half, "what": deed}
    record = {"version": 1, "names": ["a", "b"], "entries": [entry]}
    with pytest.raises(ValueError, match=what):
        Record.from_json(json.dumps(record))


@in_virtual_time
async def test_only_the_first_pair_is_in_the_record() -> None:
    record = Record()
    with use_instrument(record):
        async with (
            open_recorded_pair() as (first, _),
            open_recorded_pair() as (second, _),
        ):
            second.accept()
            first.accept()
    assert {entry.half for entry in record.entries} == {"client", "server"}
    assert sum(entry.what == "accept" for entry in record.entries) == 1


# -- expectations ---------------


@in_virtual_time
async def test_expect_takes_messages_patterns_functions_and_json() -> None:
    async with open_recorded_pair() as (client, server):
        echoing(server)
        client.accept(pull=True)
        for message in ("hello", b"\x00", "number 12", "any", '{"a": [1]}', "[]", "2"):
            client.send(message)
        assert await client.expect("hello") == "hello"
        assert await client.expect(b"\x00") == b"\x00"
        assert await client.expect(re.compile(r"\d+$")) == "number 12"
        assert await client.expect(lambda message: len(message) == 3) == "any"
        assert await client.expect_json({"a": [1]}) == {"a": [1]}
        assert await client.expect_json() == []
        assert await client.expect_json(2) == 2
        await client.expect_nothing()


@in_virtual_time
async def test_expecting_takes_an_untaken_half() -> None:
    async with open_recorded_pair() as (client, server):
        server.accept()
        server.send("hello")
        await client.expect("hello")
        await client.expect_nothing()
        client.send("me too")
        client.close()
        assert (await client.expect_close()).code == 1005
        with pytest.raises(ConversationError, match=r"it was closed: .*1005"):
            await client.expect("more")


@pytest.mark.parametrize(
    ("sent", "expected", "told"),
    [
        ("pong", "ping", "client expected 'ping', got 'pong'"),
        ("1", b"1", "client expected b'1', got '1'"),
        (b"1", re.compile("1"), "client expected a text that matches '1', got b'1'"),
        (
            "1",
            str.isalpha,
            "client expected a message for which isalpha() is true, got '1'",
        ),
    ],
)
@in_virtual_time
async def test_another_message_is_shown_in_the_error(
    sent: str | bytes, expected: Any, told: str
) -> None:
    async with open_recorded_pair() as (client, server):
        server.accept()
        server.send(sent)
        with pytest.raises(ConversationError) as caught:
            await client.expect(expected)
        assert str(caught.value).startswith(told + "\n")


@pytest.mark.parametrize(
    ("sent", "expected", "told"),
    [
        ("{", ..., "client expected JSON, got '{', which isn't JSON"),
        ("1", 2, "client expected JSON 2, got 1"),
        ("{", 2, "client expected JSON 2, got '{', which isn't JSON"),
    ],
)
@in_virtual_time
async def test_other_json_is_shown_in_the_error(
    sent: str, expected: object, told: str
) -> None:
    async with open_recorded_pair() as (client, server):
        server.accept()
        server.send(sent)
        with pytest.raises(ConversationError) as caught:
            await client.expect_json(expected)
        assert str(caught.value).startswith(told + "\n")


@in_virtual_time
async def test_silence_is_an_error_after_a_bounded_time() -> None:
    async with open_recorded_pair(within=3) as (client, server):
        server.accept()
        started = trio.current_time()
        with pytest.raises(ConversationError) as caught:
            await client.expect("hello")
        assert trio.current_time() - started == 3
        assert "client expected 'hello' within 3 s, but nothing came" in str(
            caught.value
        )
        with pytest.raises(ConversationError):
            await client.expect_close(within=0.5)
        assert trio.current_time() - started == 3.5
        # The message is still there.
        server.send("hello")
        await client.expect("hello")


@pytest.mark.parametrize(
    ("expected", "told"),
    [
        ((1000,), "client expected close 1000, got 3000 'bye bye'"),
        ((3000, "bye"), "client expected close 3000 'bye', got 3000 'bye bye'"),
        ((None, "bye"), "client expected a close 'bye', got 3000 'bye bye'"),
    ],
)
@in_virtual_time
async def test_another_close_is_shown_in_the_error(
    expected: tuple[int | None, str], told: str
) -> None:
    async with open_recorded_pair() as (client, server):
        server.accept()
        server.close(3000, "bye bye")
        with pytest.raises(ConversationError) as caught:
            await client.expect_close(*expected)
        assert str(caught.value).startswith(told + "\n")
        event = await client.expect_close(3000, re.compile("^bye"))
        assert event == CloseEvent(3000, "bye bye", was_clean=True)


@in_virtual_time
async def test_a_message_before_the_close_is_an_error() -> None:
    async with open_recorded_pair() as (client, server):
        server.accept()
        server.send("wait")
        server.close(1000)
        with pytest.raises(ConversationError, match="expected close 1000, got 'wait'"):
            await client.expect_close(1000)
        await client.expect_close(1000)


@in_virtual_time
async def test_a_half_with_listeners_expects_its_close_after_their_calls() -> None:
    told: list[CloseEvent] = []
    async with open_recorded_pair() as (client, server):

        @client.on("close")
        async def slow(event: CloseEvent) -> None:
            await trio.sleep(1)
            told.append(event)

        client.accept()
        server.accept()
        server.close(1000)
        event = await client.expect_close(1000)
        assert told == [event]
        with pytest.raises(InvalidStateError, match="accept\\(pull=True\\)"):
            await server.expect("hello")
        with pytest.raises(InvalidStateError, match="accept\\(pull=True\\)"):
            await server.expect_nothing()


@in_virtual_time
async def test_in_half_open_the_close_of_the_peer_is_expected_first() -> None:
    async with open_recorded_pair() as (client, server):
        client.accept(pull=True, allow_half_open=True)
        server.accept()
        server.close(1000)
        await client.expect_close(1000)
        client.send("still here")


# -- expect_nothing() -----------


@in_virtual_time
async def test_expect_nothing_waits_until_all_tasks_are_blocked() -> None:
    async with open_recorded_pair() as (client, server):

        @server.on("message")
        async def think(event: MessageEvent) -> None:
            for _ in range(100):
                await trio.lowlevel.checkpoint()
            server.send("done")

        server.accept()
        client.accept(pull=True)
        await client.expect_nothing()
        client.send("think")
        with pytest.raises(ConversationError, match="expected nothing, got 'done'"):
            await client.expect_nothing()
        await client.expect_nothing()


@in_virtual_time
async def test_expect_nothing_accepts_sleeping_tasks_and_takes_no_time() -> None:
    async with open_recorded_pair() as (client, server):

        @server.on("message")
        async def sleep(event: MessageEvent) -> None:
            await trio.sleep(10)
            server.send("done")

        server.accept()
        client.accept(pull=True)
        client.send("sleep")
        started = trio.current_time()
        await client.expect_nothing()
        assert trio.current_time() == started
        await client.expect("done", within=11)


@in_virtual_time
async def test_expect_nothing_fails_for_an_unexpected_close() -> None:
    async with open_recorded_pair() as (client, server):
        server.accept()
        client.accept(pull=True)
        server.close(1000)
        with pytest.raises(ConversationError, match="expected nothing, but it was c"):
            await client.expect_nothing()
        await client.expect_close()
        await client.expect_nothing()


@in_virtual_time
async def test_expect_nothing_accepts_the_answer_to_its_close() -> None:
    async with open_recorded_pair() as (client, server):
        server.accept()
        client.accept(pull=True)
        client.close()
        await client.expect_nothing()


async def test_expect_nothing_fails_for_a_program_that_never_rests() -> None:
    async with open_recorded_pair(within=0.05) as (client, server):
        server.accept()

        async def spin() -> None:
            while True:
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(spin)
            with pytest.raises(ConversationError, match="was not idle"):
                await client.expect_nothing()
            nursery.cancel_scope.cancel()


# -- errors ---------------------


@in_virtual_time
async def test_a_failure_shows_the_conversation_and_the_state_of_both_halves() -> None:
    async with open_recorded_pair() as (client, server):
        echoing(server)
        client.accept(pull=True)
        client.send("one")
        with pytest.raises(ConversationError) as caught:
            await client.expect("two", within=1)
    story = str(caught.value)
    assert re.search(r'├─ "one" ─+►│', story)
    assert re.search(r'│◄─+ "one" ─┤', story)
    assert "✗ client expected 'two', got 'one'" in story
    assert "OPEN, accepted for" in story


@in_virtual_time
async def test_a_failure_shows_only_part_of_a_long_message() -> None:
    async with open_recorded_pair() as (client, server):
        server.accept()
        server.send(bytes(300_000))
        with pytest.raises(ConversationError) as caught:
            await client.expect(b"x")
        assert len(str(caught.value)) < 3000
        assert "more" in str(caught.value)


@in_virtual_time
async def test_a_failure_has_no_context_or_cause() -> None:
    async with open_recorded_pair() as (client, server):
        server.accept()
        with pytest.raises(ConversationError) as caught:
            await client.expect("hello", within=1)
        assert caught.value.__suppress_context__


@in_virtual_time
async def test_a_failure_shows_the_place_of_a_function() -> None:
    async with open_recorded_pair() as (client, server):
        server.accept()
        server.send("1")
        where = r"<lambda>\(\) is true, test_recorded\.py:\d+, got '1'"
        with pytest.raises(ConversationError, match=where):
            await client.expect(lambda message: message == "2")


@in_virtual_time
async def test_an_impossible_expectation_is_refused_at_once() -> None:
    async with open_recorded_pair() as (client, server):
        server.accept()
        server.send("{}")
        wrong: Any = {}
        with pytest.raises(TypeError, match=r"not dict: use expect_json\(\) for JSON"):
            await client.expect(wrong)
        await client.expect("{}")


async def no(_message: str | bytes) -> bool:
    return False


class No:
    async def __call__(self, _message: str | bytes) -> bool:
        return False


class Later:
    """An awaitable that isn't a coroutine."""

    def __init__(self, _message: str | bytes) -> None:
        pass

    def __await__(self) -> Generator[None]:
        yield


@pytest.mark.parametrize("function", [no, functools.partial(no)])
@in_virtual_time
async def test_an_async_function_is_refused_at_once(
    function: Callable[[str | bytes], object],
) -> None:
    async with open_recorded_pair() as (client, server):
        server.accept()
        server.send("hello")
        with pytest.raises(TypeError, match=r"is a sync function .* is async"):
            await client.expect(function)
        await client.expect("hello")


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda message: (message, no(message))[1], "<lambda>"),
        (No(), "No object"),
        (Later, "Later"),
    ],
)
@in_virtual_time
async def test_a_function_that_returns_an_awaitable_is_refused(
    function: Callable[[str | bytes], object], name: str
) -> None:
    async with open_recorded_pair() as (client, server):
        server.accept()
        server.send("hello")
        with pytest.raises(TypeError, match=rf"{name}.* is async, and nothing would"):
            await client.expect(function)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bye",), r"code is an int .*, not 'bye': pass an expected reason as"),
        ((re.compile("bye"),), "pass an expected reason as reason="),
        ((1000.0,), r"code is an int such as 1000, not 1000\.0$"),
        ((True,), "code is an int such as 1000, not True"),
        ((1000, b"bye"), "reason is a str or a pattern, not bytes"),
        ((1000, re.compile(b"bye")), "reason is a pattern for bytes, b'bye'"),
    ],
)
@in_virtual_time
async def test_an_impossible_close_is_refused(
    arguments: tuple[Any, ...], words: str
) -> None:
    async with open_recorded_pair() as (client, server):
        server.accept()
        with pytest.raises(TypeError, match=words):
            await client.expect_close(*arguments)


@in_virtual_time
async def test_a_pattern_for_bytes_is_refused() -> None:
    pattern: Any = re.compile(b"x")
    async with open_recorded_pair() as (client, _):
        with pytest.raises(TypeError, match="for bytes, b'x'; use one for text"):
            await client.expect(pattern)


@pytest.mark.parametrize("names", [("a",), ("a", "b", "c"), "ab", (1, 2), None])
async def test_names_must_be_two(names: Any) -> None:
    with pytest.raises(
        TypeError, match=r"names are two strings such as \('client', 'server'"
    ):
        async with open_recorded_pair(names=names):
            pass


@in_virtual_time
async def test_the_listeners_of_an_ended_half_are_not_shown() -> None:
    async with open_recorded_pair() as (client, server):
        server.onmessage = print
        server.accept()
        client.accept(pull=True)
        await client.aclose()
        assert state_of(server) == [
            "CLOSED, accepted, sent Close 1000, received Close 1000"
        ]


@in_virtual_time
async def test_a_failure_shows_untaken_messages_and_where_a_listener_waits() -> None:
    async with open_recorded_pair() as (client, server):

        @server.on("message")
        async def dawdle(event: MessageEvent) -> None:
            if event.data == "two":
                await trio.sleep(1000)

        client.accept(pull=True)
        for message in ("one", "two", "three"):
            client.send(message)
        assert state_of(server) == [
            "OPEN, not accepted",
            "3 messages were not taken",
            "accept() was not called",
        ]
        server.accept()
        await client.expect_nothing()
        assert state_of(server) == ["OPEN, accepted", "1 message was not taken"]
        (place,) = waits_of(server)
        where = r"a listener waits, in dawdle, test_recorded\.py:\d+"
        assert re.fullmatch(where, place)


@in_virtual_time
async def test_a_failure_shows_halves_without_listeners_and_waiting_tasks() -> None:
    async with (
        open_recorded_pair() as (client, server),
        trio.open_nursery() as nursery,
    ):
        server.accept()
        nursery.start_soon(client.receive)
        await trio.testing.wait_all_tasks_blocked()
        deaf = "it has no listener for messages"
        assert state_of(server) == ["OPEN, accepted", deaf]
        assert state_of(client) == ["OPEN, accepted for receive()"]
        assert waits_of(client) == ["receive(), or iteration, waits for a message"]
        assert waits_of(server) == []
        server.onmessage = print
        assert state_of(server) == ["OPEN, accepted"]
        nursery.cancel_scope.cancel()


@in_virtual_time
async def test_a_listener_that_waits_in_foreign_code_has_no_place() -> None:
    async with open_recorded_pair() as (client, server):
        server.onmessage = lambda _event: trio.sleep(1000)  # noqa: ASYNC105 - awaited
        server.accept()
        client.accept(pull=True)
        client.send("hello")
        await client.expect_nothing()
        assert waits_of(server) == ["a listener waits"]


@in_virtual_time
async def test_an_error_of_the_block_has_the_conversation() -> None:
    async def test() -> None:
        async with open_recorded_pair() as (client, server):
            server.accept()
            client.accept()
            client.send("hello")
            msg = "no"
            raise RuntimeError(msg)

    with pytest.raises(RuntimeError) as caught:
        await test()
    [note] = caught.value.__notes__
    assert note.startswith("The conversation was:\n")
    assert "hello" in note


@in_virtual_time
async def test_a_failed_expectation_has_the_conversation_once() -> None:
    with pytest.raises(ConversationError) as caught:
        async with open_recorded_pair() as (client, _):
            await client.expect("hello")
    assert not hasattr(caught.value, "__notes__")


async def test_two_halves_with_the_same_name_are_refused() -> None:
    with pytest.raises(ValueError, match="must differ, not 'x' twice"):
        async with open_recorded_pair(names=("x", "x")):
            pass


@pytest.mark.parametrize("within", [-1, "1", True])
@in_virtual_time
async def test_an_invalid_timeout_is_refused(within: float) -> None:
    with pytest.raises((TypeError, ValueError), match="within must be"):
        async with open_recorded_pair(within=within):
            pass
    async with open_recorded_pair() as (client, _):
        with pytest.raises((TypeError, ValueError), match="within must be"):
            await client.expect("hello", within=within)


# -- where a test has failed ----


@in_virtual_time
async def test_a_failure_carries_the_record_and_marks_the_message() -> None:
    async with open_recorded_pair() as (client, server):
        echoing(server)
        client.accept(pull=True)
        client.send("one")
        client.send("two")
        await client.expect("one")
        with pytest.raises(ConversationError) as caught:
            await client.expect("three")
        record = caught.value.record
        assert record is client.record
        assert record.failure is not None
        assert record.failure.what == "client expected 'three', got 'two'"
        assert record.failure.entry is not None
        entry = record.entries[record.failure.entry]
        assert (entry.half, entry.what, entry.message) == ("client", "receive", "two")
        assert record.failure.states == [
            ("client", "OPEN, accepted for receive()"),
            ("server", "OPEN, accepted"),
        ]
        for picture in (record.to_svg(), record.to_mermaid(), record.to_html()):
            assert "client expected" in picture
        assert str(caught.value).endswith(str(record))
        client.send("four")
        await client.expect("four")
        assert '"four"' in str(record)  # The test goes on, and the picture, too.


@in_virtual_time
async def test_an_unexpected_close_is_marked() -> None:
    async with open_recorded_pair() as (client, server):
        server.accept()
        server.close(4000, "enough")
        with pytest.raises(ConversationError) as caught:
            await client.expect_close(1000)
    failure = caught.value.record.failure
    assert failure is not None
    assert failure.entry is not None
    entry = caught.value.record.entries[failure.entry]
    assert (entry.half, entry.what, entry.code) == ("client", "closed", 4000)


@in_virtual_time
async def test_a_waiting_task_is_shown_with_its_place() -> None:
    async with open_recorded_pair() as (client, server):

        @server.on("message")
        async def think(_event: MessageEvent) -> None:
            await trio.sleep(1000)

        server.accept()
        client.accept(pull=True)
        client.send("hello")
        with pytest.raises(ConversationError) as caught:
            await client.expect("an answer")
        failure = caught.value.record.failure
        assert failure is not None
        ((half, step),) = failure.waits
        assert half == "server"
        assert step.startswith("server: a listener waits, in think, test_recorded")


@in_virtual_time
async def test_the_picture_ends_at_the_failure_of_the_block() -> None:
    records: list[Record] = []

    async def talk() -> None:
        async with open_recorded_pair() as (client, server):
            records.append(client.record)
            echoing(server)
            client.accept(pull=True)
            client.send("one")
            assert await client.receive() == "two", "not\ntwo"

    with pytest.raises(AssertionError) as caught:
        await talk()
    (record,) = records
    assert [entry.what for entry in record.entries][-1] == "closed"
    assert "Close" not in str(record)
    assert "closed" not in record.to_mermaid()
    assert "the test failed here: AssertionError: not …" in str(record)
    assert str(record) in caught.value.__notes__[0]


@in_virtual_time
async def test_a_failure_in_a_task_of_the_test_keeps_its_mark() -> None:
    records: list[Record] = []

    async def talk() -> None:
        async with (
            open_recorded_pair() as (client, server),
            trio.open_nursery() as nursery,
        ):
            records.append(client.record)
            server.accept()
            nursery.start_soon(client.expect, "hello")

    with pytest.RaisesGroup(ConversationError):
        await talk()
    assert records[0].failure is not None
    assert "within 5.0 s, but nothing came" in records[0].failure.what
    assert "Close" not in str(records[0])


@in_virtual_time
async def test_a_failure_before_anything_happens_has_no_conversation() -> None:
    async def fail() -> None:
        async with open_recorded_pair():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        await fail()
    assert not hasattr(caught.value, "__notes__")


@in_virtual_time
async def test_an_error_of_a_listener_has_the_conversation() -> None:
    async def fail() -> None:
        async with open_recorded_pair() as (client, server):

            @server.on("message")
            def refuse(_event: MessageEvent) -> None:
                raise KeyError("a bug")

            server.accept()
            client.accept(pull=True)
            client.send("hello")
            await client.expect_close(1011)

    with pytest.RaisesGroup(KeyError) as caught:
        await fail()
    assert "hello" in caught.value.__notes__[0]

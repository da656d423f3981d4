"""`replay()`: recorded conversations, replayed against changed handlers."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from pairs import in_virtual_time, run

from trio_wspair import (
    Request,
    Response,
    WebSocketPair,
    open_websocket,
    serve,
    use_instrument,
)
from trio_wspair.testing import (
    ConversationError,
    Record,
    open_recorded_pair,
    open_test_client,
    replay,
    replay_file,
)

Answers = Callable[[Any], list[Any]]


def no_answer(_data: object) -> list[Any]:
    """Ignore every message."""
    return []


class Handler:
    """Greets, answers every message with several, and closes at "bye"."""

    def __init__(
        self,
        greetings: list[str] | None = None,
        answers: Answers = lambda data: [data],
        code: int = 3000,
        reason: str = "bye",
    ) -> None:
        self.greetings = ["welcome"] if greetings is None else greetings
        self.answers = answers
        self.code = code
        self.reason = reason
        self.heard: list[str | bytes] = []

    async def __call__(self, _request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept()
        for greeting in self.greetings:
            server.send(greeting)

        @server.on("message")
        def answer(event: Any) -> None:
            self.heard.append(event.data)
            if event.data == "bye":
                server.close(self.code, self.reason)
                return
            for message in self.answers(event.data):
                server.send(message)

        return Response(None, status=101, web_socket=client)


async def recorded() -> Record:
    """Record a conversation that the handler ends."""
    async with open_test_client(Handler(), "/") as client:
        await client.expect("welcome")
        client.send("one")
        client.send(b"\x00\xff")
        await client.expect("one")
        await client.expect(b"\x00\xff")
        client.send("bye")
        await client.expect_close(3000, "bye")
    return client.record


def record_of(*entries: tuple[Any, ...]) -> Record:
    """Make a record from entries: a half, an event, and a message or a close."""
    keys = {"send": ["text"], "receive": ["text"]}
    close = ["code", "reason", "was_clean"]
    data = [
        {
            "time": 0,
            **dict(zip(["half", "what", *keys.get(e[1], close)], e, strict=False)),
        }
        for e in entries
    ]
    names = ["client", "server"]
    return Record.from_json(json.dumps({"version": 1, "names": names, "entries": data}))


def failure_of(caught: pytest.ExceptionInfo[ConversationError]) -> str:
    """Check the text of an error, and return its first line."""
    text = str(caught.value)
    [note] = caught.value.__notes__
    assert note.startswith("\nThe recorded conversation is:\n")
    assert note.count("\n") > 3
    return text.splitlines()[0]


@in_virtual_time
async def test_a_handler_with_the_same_conversation_passes() -> None:
    record = await recorded()
    handler = Handler()
    new = await replay(record, handler, "/somewhere")
    assert handler.heard == ["one", b"\x00\xff", "bye"]
    assert [(e.half, e.what, e.message, e.code) for e in new.entries] == [
        (e.half, e.what, e.message, e.code) for e in record.entries
    ]


@in_virtual_time
async def test_a_record_from_a_file_works_as_well() -> None:
    record = Record.from_json((await recorded()).to_json())
    await replay(record, Handler())
    with pytest.raises(ConversationError):
        await replay(record, Handler(["hello"]))


@pytest.mark.parametrize("over", ["memory", "loopback"])
async def test_a_record_is_replayed_over_any_transport(
    over: Any, engine: object
) -> None:
    with trio.fail_after(10):
        record = await recorded()
        await replay(record, Handler(), over=over)
        with pytest.raises(ConversationError):
            await replay(record, Handler(code=3001), over=over)


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (Handler(["hello"]), "client expected 'welcome', got 'hello'"),
        (
            Handler([]),
            "client expected 'welcome' within 1 s, but nothing came",
        ),
        (Handler(["welcome", "Ada"]), "client expected 'one', got 'Ada'"),
        (
            Handler(answers=lambda data: [data.hex()] if data != "one" else [data]),
            "client expected b'\\x00\\xff', got '00ff'",
        ),
        (Handler(code=3001), "client expected close 3000 'bye', got 3001 'bye'"),
        (Handler(reason=""), "client expected close 3000 'bye', got 3000 ''"),
        (
            Handler(answers=lambda data: [data, "more"] if data != "one" else [data]),
            "client expected close 3000 'bye', got 'more'",
        ),
    ],
)
def test_a_difference_is_an_error_with_both_conversations(
    handler: Handler, words: str
) -> None:
    @in_virtual_time
    async def differs() -> None:
        with pytest.raises(ConversationError) as caught:
            await replay(await recorded(), handler, within=1)
        assert failure_of(caught) == words

    differs()


@in_virtual_time
async def test_a_handler_that_closes_too_early_is_an_error() -> None:
    async def hang_up(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept()
        server.close(1000)
        return Response(None, status=101, web_socket=client)

    record = await recorded()
    with pytest.raises(ConversationError) as caught:
        await replay(record, hang_up)
    assert "expected 'welcome', but it was closed" in failure_of(caught)


@in_virtual_time
async def test_a_handler_that_raises_fails_the_replay() -> None:
    def fail(data: object) -> list[Any]:
        raise KeyError(data)

    record = await recorded()
    with pytest.RaisesGroup(ConversationError, KeyError):
        await replay(record, Handler(answers=fail))


@in_virtual_time
async def test_the_times_of_the_handler_do_not_matter() -> None:
    async def slow(request: Request) -> Response:
        client, server = WebSocketPair()

        async def converse() -> None:
            await trio.sleep(3)
            server.send("welcome")
            heard = [await server.receive() for _ in range(3)]
            await trio.sleep(3)
            for message in heard[:2]:
                server.send(message)
                await trio.sleep(3)
            server.close(3000, heard[2] if isinstance(heard[2], str) else "")

        server.accept(pull=True)
        request.nursery.start_soon(converse)
        return Response(None, status=101, web_socket=client)

    record = await recorded()
    with pytest.raises(ConversationError, match=r"expected 'one' within 5\.0 s"):
        await replay(
            record, slow
        )  # The handler waits for "bye", and "bye" for the answers.
    hasty = record_of(
        ("client", "receive", "welcome"),
        ("client", "send", "one"),
        ("client", "send", "two"),
        ("client", "send", "bye"),
        ("client", "receive", "one"),
        ("client", "receive", "two"),
        ("client", "closed", 3000, "bye"),
    )
    await replay(hasty, slow)
    await replay(hasty, Handler())


@in_virtual_time
async def test_the_client_closes_as_in_the_record() -> None:
    async with open_test_client(Handler(), "/") as client:
        client.send("one")
        client.close()
    handler = Handler()
    new = await replay(client.record, handler)
    assert handler.heard == ["one"]
    for record in (client.record, new):
        [close] = [e for e in record.entries if (e.half, e.what) == ("client", "close")]
        assert close.code == 1005
    # The handler had also sent the messages that the client didn't take.
    with pytest.raises(ConversationError, match="client expected 'one', but"):
        await replay(client.record, Handler(answers=no_answer))


@in_virtual_time
async def test_an_abnormal_end_must_be_abnormal_again() -> None:
    async def vanish(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept(allow_half_open=True)
        return Response(None, status=101, web_socket=client)

    async with open_test_client(vanish, "/") as client:
        client.close(3000)
        await client.expect_close(1006)
    await replay(client.record, vanish, close_grace=2)
    with pytest.raises(ConversationError, match="expected close 1006, got 3000"):
        await replay(client.record, Handler([]))


@in_virtual_time
async def test_a_record_that_ends_early_is_checked_up_to_its_end() -> None:
    async with open_test_client(Handler(), "/") as client:
        await client.expect("welcome")
        text = client.record.to_json()
    await replay(Record.from_json(text), Handler(["welcome", "Ada"]))
    with pytest.raises(ConversationError):
        await replay(Record.from_json(text), Handler(["hello"]))


@pytest.mark.parametrize("who_closes", ["client", "server"])
async def test_a_record_of_the_server_alone_is_enough(
    who_closes: str, engine: object
) -> None:
    record = Record()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            with use_instrument(record):
                server = await nursery.start(partial(serve, Handler(), 0))
            async with open_websocket(server.url) as ws:
                for message in ("one", b"\x00\xff"):
                    ws.send(message)
                for _ in range(3):
                    await ws.receive()
                if who_closes == "server":
                    ws.send("bye")
                else:
                    ws.close(3001, "enough")
                await ws.wait_closed()
            nursery.cancel_scope.cancel()
        assert {entry.half for entry in record.entries} == {"server"}
        handler = Handler()
        new = await replay(record, handler)
    assert handler.heard[:2] == ["one", b"\x00\xff"]
    end = {"client": (3001, "enough"), "server": (3000, "bye")}[who_closes]
    for half in ("client", "server"):
        [closed] = [e for e in new.entries if (e.half, e.what) == (half, "closed")]
        assert (closed.code, closed.reason) == end


@in_virtual_time
async def test_a_client_that_vanished_is_replayed_up_to_its_end() -> None:
    record = record_of(
        ("server", "send", "welcome"),
        ("server", "receive", "one"),
        ("server", "closed", 1006, "", False),
        ("server", "close", 1000),
    )
    handler = Handler()
    await replay(record, handler)
    assert handler.heard == ["one"]


@in_virtual_time
async def test_a_record_of_a_pair_can_be_replayed() -> None:
    async with open_recorded_pair() as (client, server):
        server.accept()
        server.send("welcome")
        await client.expect("welcome")
        client.send("one")
        server.send("one")
        await client.expect("one")
    await replay(client.record, Handler())


# -- in files ---------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with a conversation."""
    path = tmp_path / "conversation.json"
    path.write_text(trio.run(recorded).to_json(), encoding="utf-8")
    return path


def check(file: Path | str, handler: Any, **options: Any) -> None:
    """Check a handler against a file."""
    run(lambda: replay_file(file, handler, **options))


def test_a_file_is_checked_and_not_changed(file: Path) -> None:
    before = file.read_bytes()
    check(file, Handler())
    with pytest.raises(ConversationError):
        check(str(file), Handler(["hello"]))
    assert file.read_bytes() == before


def test_a_missing_file_is_an_error_that_says_how_to_make_it(tmp_path: Path) -> None:
    for update in (False, True):
        with pytest.raises(FileNotFoundError, match=r"Make it .* record\.to_json\(\)"):
            check(tmp_path / "none.json", Handler(), update=update)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changed",
    [
        Handler(["hello"]),
        Handler([]),
        Handler(["welcome", "Ada"]),
        Handler(answers=lambda data: [data, "ü"]),
        Handler(answers=no_answer),
        Handler(code=3001, reason=""),
    ],
)
def test_an_update_records_the_current_conversation(
    file: Path, changed: Handler
) -> None:
    check(file, changed, update=True)
    check(file, changed)
    assert changed.heard == ["one", b"\x00\xff", "bye"] * 2
    with pytest.raises(ConversationError):
        check(file, Handler())


def test_an_update_ends_when_the_handler_closes_early(file: Path) -> None:
    async def hang_up(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept()
        server.close(1000)
        return Response(None, status=101, web_socket=client)

    check(file, hang_up, update=True)
    check(file, hang_up)


def test_an_update_refuses_a_handler_that_hangs(file: Path) -> None:
    async def hang(request: Request) -> Response:
        client, server = WebSocketPair()
        server.on("message")(lambda _event: trio.sleep(1000))  # noqa: ASYNC105 - awaited
        server.accept()
        return Response(None, status=101, web_socket=client)

    before = file.read_bytes()
    with pytest.raises(ConversationError, match=r"with 1006, .*: the file was left"):
        check(file, hang, update=True)
    assert file.read_bytes() == before


def test_an_update_of_a_record_that_ends_early_has_an_end(file: Path) -> None:
    early = record_of(("client", "receive", "welcome"), ("client", "send", "one"))
    file.write_text(early.to_json(), encoding="utf-8")
    check(file, Handler(), update=True)
    entries = Record.from_json(file.read_text(encoding="utf-8")).entries
    assert ("server", "send", "one") in [(e.half, e.what, e.message) for e in entries]
    assert entries[-1].code == 1000
    check(file, Handler())
    with pytest.raises(ConversationError):
        check(file, Handler(answers=no_answer))


def test_an_update_without_differences_does_not_write_the_file(
    file: Path,
) -> None:
    text = file.read_text(encoding="utf-8").replace('"time": 0.0', '"time": 7.5')
    file.write_text(text, encoding="utf-8")
    check(file, Handler(), update=True)
    assert file.read_text(encoding="utf-8") == text

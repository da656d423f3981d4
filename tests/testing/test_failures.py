"""Errors of an application fail a test, unless the test expects them."""

import logging
import math
import re
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from network import Logged
from trio._core._run import _r as scheduler_random
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wspair import (
    HandshakeError,
    InvalidStateError,
    Request,
    RequestBodyError,
    Response,
    WebSocket,
    WebSocketPair,
)
from trio_wspair.hibernation import (
    DurableObject,
    DurableObjectNamespace,
    DurableObjectResetError,
)
from trio_wspair.testing import ConversationError, TestWebSocket, open_test_client

pytestmark = pytest.mark.usefixtures("engine")
Handler = Callable[[Request], Awaitable[Response]]


@pytest.fixture(autouse=True)
async def in_time() -> AsyncGenerator[None]:
    """Limit the time of every test, generously in virtual time."""
    virtual = isinstance(trio.lowlevel.current_clock(), MockClock)
    with trio.fail_after(10**6 if virtual else 10):
        yield


async def failing(request: Request) -> Response:
    """Fail in the way named by the path."""
    if request.path == "/fetch":
        raise KeyError("in fetch")
    client, server = WebSocketPair()

    @server.on("message")
    def fail(event: Any) -> None:
        raise KeyError(event.data)

    async def fail_later() -> None:
        await trio.sleep(1)
        raise KeyError("in a task")

    server.accept()
    if request.path == "/task":
        request.nursery.start_soon(fail_later)
    return Response(None, status=101, web_socket=client)


class Failing(DurableObject):
    """Fails in the way named by the message."""

    async def fetch(self, request: Request) -> Response:
        if request.path == "/fetch":
            raise KeyError("in fetch")
        if request.path == "/abort":
            self.ctx.abort("it is tired")
            await trio.lowlevel.checkpoint()
        client, server = WebSocketPair()
        if request.path == "/plain":
            server.on("message")(self._refuse)
            server.accept()
        else:
            self.ctx.accept_web_socket(server)
        return Response(None, status=101, web_socket=client)

    async def web_socket_message(self, _ws: WebSocket, message: str | bytes) -> None:
        if message == "wait_until":
            self.ctx.wait_until(self._fail)
        else:
            raise KeyError(message)

    async def web_socket_close(self, *_event: object) -> None:
        raise KeyError("at the close")

    def _refuse(self, event: Any) -> None:
        raise KeyError(event.data)

    async def _fail(self) -> None:
        await trio.sleep(1)
        raise KeyError("later")


# -- expected failures ---------------------


async def test_an_error_of_a_listener_can_be_expected(
    autojump_clock: MockClock,
) -> None:
    async with open_test_client(failing, "/") as client:
        client.send("a bug")
        error = await client.expect_handler_error(KeyError, "a bug")
        assert error.args == ("a bug",)
        await client.expect_close(1011)


async def test_an_error_of_fetch_can_be_expected(autojump_clock: MockClock) -> None:
    async with open_test_client(failing) as client:
        assert (await client.get("/fetch")).status == 500
        await client.expect_handler_error((ValueError, KeyError))
        with pytest.raises(HandshakeError, match="500"):
            await client.open_websocket("/fetch")
        await client.expect_handler_error()


async def test_expecting_waits_for_a_later_error_of_a_task(
    autojump_clock: MockClock,
) -> None:
    async with open_test_client(failing, "/task") as client:
        await client.expect_handler_error(KeyError, "in a task")
        assert trio.current_time() >= 1


@pytest.mark.parametrize(
    ("path", "message", "words"),
    [("/", "a bug", "a bug"), ("/", "wait_until", "later"), ("/plain", "bug", "bug")],
)
async def test_an_error_of_an_object_can_be_expected(
    path: str, message: str, words: str, autojump_clock: MockClock
) -> None:
    async with DurableObjectNamespace(Failing) as namespace:
        stub = namespace.get_by_name("one")
        async with open_test_client(stub.fetch, path) as client:
            client.send(message)
            await client.expect_handler_error(KeyError, words)
            client.close()
            if path == "/":
                await client.expect_handler_error(KeyError, "at the close")


async def test_one_expectation_takes_one_failure(autojump_clock: MockClock) -> None:
    async def fail_twice(request: Request) -> Response:
        async with trio.open_nursery() as nursery:
            for error in (KeyError("one"), ValueError("two")):
                nursery.start_soon(_raise, error)
        raise AssertionError

    async with open_test_client(fail_twice) as client:
        await client.get("/")
        assert isinstance(await client.expect_handler_error(ValueError), ValueError)
        assert isinstance(await client.expect_handler_error(KeyError), KeyError)
        with pytest.raises(AssertionError, match="it raised nothing"):
            await client.expect_handler_error(KeyError)
        await client.get("/")
        group = await client.expect_handler_error(ExceptionGroup)
        assert isinstance(group, ExceptionGroup)
        assert len(group.exceptions) == 2


async def _raise(error: Exception) -> None:
    raise error


async def test_an_expected_failure_that_does_not_come_shows_the_conversation(
    autojump_clock: MockClock,
) -> None:
    async with open_test_client(failing, "/") as client:
        with pytest.raises(ConversationError) as caught:
            await client.expect_handler_error(ValueError, "no", within=3)
    text = str(caught.value)
    what = "expected the handler to raise ValueError that matches 'no' within 3 s"
    assert text.startswith(f"client {what}, but it raised nothing\n")
    assert "time  client" in text


async def test_another_failure_is_raised_and_fails_the_test(
    autojump_clock: MockClock,
) -> None:
    async def talk() -> None:
        async with open_test_client(failing) as client:
            await client.get("/fetch")
            await client.expect_handler_error((ValueError, OSError))

    with pytest.raises(ExceptionGroup) as caught:
        await talk()
    bug, missed = caught.value.exceptions
    assert repr(bug) == "KeyError('in fetch')"
    assert type(missed) is AssertionError
    what = "to raise ValueError or OSError within 5.0 s, but it raised KeyError('in"
    assert what in str(missed)


async def test_waiting_for_a_failure_can_be_cancelled(
    autojump_clock: MockClock,
) -> None:
    async with open_test_client(failing) as client:
        with trio.move_on_after(1) as patience:
            await client.expect_handler_error(within=5)
        assert patience.cancelled_caught
        with pytest.raises(ValueError, match="within must be 0 or more"):
            await client.expect_handler_error(within=-1)


@pytest.mark.parametrize("reverse", [False, True])
async def test_the_first_of_two_waiting_expectations_gets_the_failure(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, reverse: bool
) -> None:
    """Whichever of the two tasks Trio runs first."""

    def put_in_order(batch: list[trio.lowlevel.Task]) -> None:
        batch.sort(key=lambda task: task._counter, reverse=reverse)

    monkeypatch.setattr(scheduler_random, "shuffle", put_in_order)
    got: list[object] = []
    async with open_test_client(failing, "/") as client:

        async def expect(kind: type[Exception], match: str) -> None:
            got.append(await client.expect_handler_error(kind, match))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, LookupError, "")
            await wait_all_tasks_blocked()
            nursery.start_soon(expect, KeyError, "one|two")
            await wait_all_tasks_blocked()
            client.send("one")
            await wait_all_tasks_blocked()
            assert list(map(str, got)) == ["'one'"]
            nursery.cancel_scope.cancel()


async def test_a_failure_at_the_moment_of_a_cancellation_is_not_lost(
    autojump_clock: MockClock,
) -> None:
    async with open_test_client(failing, "/") as client, trio.open_nursery() as nursery:

        async def expect(scope: trio.CancelScope) -> None:
            with scope:
                await client.expect_handler_error(KeyError)

        scope = trio.CancelScope()
        nursery.start_soon(expect, scope)
        await wait_all_tasks_blocked()
        scope.cancel()
        log_failure()
        await wait_all_tasks_blocked()
        assert scope.cancelled_caught
        await client.expect_handler_error(KeyError, "logged")


def log_failure() -> None:
    """Log a failure that concerns all clients, as an object does."""
    error = KeyError("logged")
    logging.getLogger("trio_wspair").error("a task failed", exc_info=error)


async def test_an_invalid_pattern_is_refused_at_once(
    autojump_clock: MockClock,
) -> None:
    async with open_test_client(failing, "/") as client:
        with pytest.raises(re.error):
            await client.expect_handler_error(KeyError, "(", within=math.inf)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ValueError",), r"such as ValueError, .* not 'ValueError'; pass the text"),
        ((ValueError("x"),), "is a type such as ValueError"),
        ((BaseException,), "not <class 'BaseException'>"),
        (((ValueError, "x"),), "not 'x'"),
        (((),), "is an empty tuple"),
        ((ValueError, b"x"), "match is a str or a pattern, not bytes"),
        ((ValueError, re.compile(b"x")), "match is a pattern for bytes, b'x'"),
    ],
)
async def test_an_impossible_failure_is_refused(
    arguments: tuple[Any, ...], words: str, autojump_clock: MockClock
) -> None:
    async with open_test_client(failing, "/") as client:
        with pytest.raises(TypeError, match=words):
            await client.expect_handler_error(*arguments)


async def test_a_failure_is_not_hidden_by_a_later_error_of_the_body(
    autojump_clock: MockClock,
) -> None:
    async def fetch(request: Request) -> Response:
        try:
            raise KeyError("a mistake")
        finally:
            await request.text()

    async with open_test_client(fetch) as client:
        response = await client.post("/", body=bytes(2**20 + 1))
        assert response.status == 413
        error = await client.expect_handler_error(RequestBodyError)
        assert isinstance(error.__context__, KeyError)


# -- unexpected failures ---------------------


@pytest.mark.parametrize(
    ("path", "message", "words"),
    [("/", "a bug", "a bug"), ("/", "wait_until", "later"), ("/plain", "bug", "bug")],
)
async def test_an_error_of_an_object_fails_the_test(
    path: str, message: str, words: str, autojump_clock: MockClock
) -> None:
    async def talk() -> None:
        async with open_test_client(stub.fetch, path) as client:
            client.send(message)
            await trio.sleep(2)
            client.close()
            if path == "/":
                await client.expect_handler_error(KeyError, "at the close")

    async with DurableObjectNamespace(Failing) as namespace:
        stub = namespace.get_by_name("one")
        with pytest.raises(KeyError, match=words):
            await talk()


async def test_an_abort_of_the_object_fails_the_test_as_well(
    autojump_clock: MockClock,
) -> None:
    async with DurableObjectNamespace(Failing) as namespace:
        stub = namespace.get_by_name("one")
        with pytest.raises(DurableObjectResetError, match="tired"):
            async with open_test_client(stub.fetch) as client:
                assert (await client.get("/abort")).status == 500


async def test_consequences_of_a_failure_of_an_object_are_not_failures(
    autojump_clock: MockClock,
) -> None:
    class Busy(Failing):
        async def fetch(self, _request: Request) -> Response:
            client, server = WebSocketPair()
            server.on("message")(self._refuse)
            server.accept()
            client.accept()
            client.send("later")
            await trio.sleep_forever()
            raise AssertionError

    async with DurableObjectNamespace(Busy) as namespace:
        stub = namespace.get_by_name("one")
        async with open_test_client(stub.fetch) as client:
            assert (await client.get("/")).status == 500
            await client.expect_handler_error(KeyError, "later")
        with pytest.raises(KeyError, match="later"):
            async with open_test_client(stub.fetch) as client:
                assert (await client.get("/")).status == 500


async def test_a_failure_comes_before_an_error_of_the_test(
    autojump_clock: MockClock,
) -> None:
    async def talk() -> None:
        async with open_test_client(failing, "/") as client:
            client.send("a bug")
            await client.expect("an answer")

    with pytest.raises(ExceptionGroup) as caught:
        await talk()
    bug, missed = caught.value.exceptions
    assert repr(bug) == "KeyError('a bug')"
    assert isinstance(missed, ConversationError)


async def test_with_two_clients_each_failure_is_raised_once(
    autojump_clock: MockClock,
) -> None:
    async def fail_for_bob(ada: TestWebSocket) -> None:
        async with open_test_client(fetch, "/") as bob:
            bob.send("wait_until")
            await ada.expect_handler_error(KeyError, "later")

    async with DurableObjectNamespace(Failing) as namespace:
        fetch = namespace.get_by_name("one").fetch
        async with open_test_client(fetch, "/") as ada:
            with pytest.raises(KeyError, match="at the close"):
                await fail_for_bob(ada)
            ada.close()
            await ada.expect_handler_error(KeyError, "at the close")


async def test_the_picture_ends_at_the_error_of_the_application(
    autojump_clock: MockClock,
) -> None:
    sockets: list[TestWebSocket] = []

    async def talk() -> None:
        async with open_test_client(failing, "/", names=("Ada", "app")) as ada:
            bob = await ada.open_websocket("/", names=("Bob", "app"))
            sockets.extend((ada, bob))
            bob.send("a bug")
            await bob.expect_close(1011)

    with pytest.raises(KeyError, match="a bug") as caught:
        await talk()
    ada, bob = (socket.record for socket in sockets)
    assert ada.failure is None
    assert bob.failure is not None
    assert bob.failure.what == "the application raised KeyError: 'a bug'"
    assert str(bob).splitlines()[-1] not in str(ada)
    assert [e.code for e in bob.entries if e.half == "Bob" and e.code] == [1011, 1011]
    assert "closed 1011" not in str(bob)
    assert [str(ada) in n or str(bob) in n for n in caught.value.__notes__] == [
        True
    ] * 2


@pytest.mark.parametrize("path", ["/fetch", "/"])
async def test_a_traceback_has_only_the_application_and_the_test(
    path: str, autojump_clock: MockClock
) -> None:
    async def talk() -> None:
        async with open_test_client(failing, path) as client:
            client.send("a bug")
            await client.expect_close(1011)

    with pytest.raises(KeyError) as caught:
        await talk()
    exc: BaseException | None = caught.value
    places: list[str] = []
    while exc is not None:
        frames = traceback.extract_tb(exc.__traceback__)
        places += [frame.filename for frame in frames]
        exc = exc.__context__
    own = traceback.extract_tb(caught.value.__traceback__)
    assert own[-1].filename == __file__
    for part in ("request_task.py", "dispatcher.py", "transports", "dialing.py"):
        assert not [place for place in places if part in place]


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_a_task_that_has_raised_is_not_reported_as_waiting(
    how: str, autojump_clock: MockClock
) -> None:
    class Raising(DurableObject):
        async def fetch(self, _request: Request) -> Response:
            client, server = WebSocketPair()
            self.ctx.accept_web_socket(server)
            return Response(None, status=101, web_socket=client)

        def web_socket_message(
            self, _ws: WebSocket, message: str | bytes
        ) -> Awaitable[None] | None:
            if message == "sync":
                raise KeyError(message)
            return self._fail(message)

        async def _fail(self, message: str | bytes) -> None:
            await trio.sleep(60 if message == "wait" else 1)
            raise KeyError(message)

    async def talk(message: str) -> None:
        async with DurableObjectNamespace(Raising) as namespace:
            stub = namespace.get(namespace.id_from_name("one"))
            async with open_test_client(stub.fetch, "/") as client:
                client.send(message)
                await trio.sleep(2)
                if message == "wait":
                    await client.expect("hello")

    with pytest.raises(KeyError, match=how) as caught:
        await talk(how)
    [note] = caught.value.__notes__
    assert "the application raised KeyError" in note
    assert "waits" not in note
    with pytest.raises(ConversationError, match="server: its Durable Object waits …"):
        await talk("wait")


async def test_a_wrong_response_to_a_websocket_is_explained(
    autojump_clock: MockClock,
) -> None:
    async def fetch(_request: Request) -> Any:
        return "hello"

    with pytest.raises(TypeError, match="must return a Response, not str"):
        async with open_test_client(fetch, "/"):
            pytest.fail("it was opened")


# -- settings of the log ---------------------


@pytest.fixture
def logger() -> Generator[logging.Logger]:
    """Restore the logger."""
    logger = logging.getLogger("trio_wspair")
    before = logger.level, logger.disabled
    yield logger
    logger.setLevel(before[0])
    logger.disabled = before[1]
    assert not logger.filters


async def test_a_failure_is_also_logged(logged: Logged) -> None:
    async with open_test_client(failing) as client:
        await client.get("/fetch")
        await client.expect_handler_error(KeyError)
    assert "KeyError: 'in fetch'" in logged.take()


@pytest.mark.parametrize("way", ["level", "disabled"])
async def test_a_log_with_a_high_level_stays_silent_and_hides_no_failure(
    way: str, logger: logging.Logger, logged: Logged, autojump_clock: MockClock
) -> None:
    if way == "level":
        logger.setLevel(logging.CRITICAL)
    else:
        logger.disabled = True
    with pytest.raises(KeyError, match="in fetch"):
        async with open_test_client(failing) as client, open_test_client(failing):
            await client.get("/fetch")
    assert logger.disabled == (way == "disabled")
    assert logged.records == []


async def test_a_disabled_log_is_refused() -> None:
    logging.disable(logging.ERROR)
    try:
        with pytest.raises(InvalidStateError, match=r"logging\.disable\(\)"):
            async with open_test_client(failing):
                pytest.fail("it was opened")
    finally:
        logging.disable(logging.NOTSET)


async def test_records_of_other_loggers_are_not_failures(
    logger: logging.Logger,
) -> None:
    async with open_test_client(failing):
        logger.error("something is wrong, but was not raised")
        logger.warning("it was raised, but handled", exc_info=KeyError("handled"))

        def in_another_run() -> None:
            async def log() -> None:
                await trio.lowlevel.checkpoint()
                logger.error("another run", exc_info=KeyError("elsewhere"))

            trio.run(log)

        await trio.to_thread.run_sync(in_another_run)


async def test_an_application_that_disables_the_log_hides_no_failure(
    logger: logging.Logger, logged: Logged, autojump_clock: MockClock
) -> None:
    @asynccontextmanager
    async def application() -> AsyncGenerator[Handler]:
        await trio.lowlevel.checkpoint()
        logger.disabled = True  # logging.config.dictConfig() does so.
        logger.setLevel(logging.CRITICAL)
        yield failing

    with pytest.raises(KeyError, match="in fetch"):
        async with open_test_client(application) as client:
            await client.get("/fetch")
    assert logger.disabled
    assert logger.level == logging.CRITICAL
    assert logged.records == []


# -- applications that are opened ---------------------


async def test_an_application_is_open_during_the_block(
    autojump_clock: MockClock,
) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def application() -> AsyncGenerator[Handler]:
        events.append("opened")
        async with DurableObjectNamespace(Failing) as namespace:
            yield namespace.get_by_name("one").fetch
        events.append("closed")

    async with open_test_client(application, "/") as client:
        assert events == ["opened"]
        client.send("wait_until")
        await client.expect_handler_error(KeyError, "later")
        client.close()
        await client.expect_handler_error(KeyError, "at the close")
    assert events == ["opened", "closed"]


async def test_an_error_of_an_application_on_leaving_is_raised_with_the_others(
    autojump_clock: MockClock,
) -> None:
    @asynccontextmanager
    async def application() -> AsyncGenerator[Handler]:
        await trio.lowlevel.checkpoint()
        yield failing
        raise OSError("the database")

    async def talk() -> None:
        async with open_test_client(application) as client:
            await client.get("/fetch")

    with pytest.raises(ExceptionGroup) as caught:
        await talk()
    assert list(map(repr, caught.value.exceptions)) == [
        "KeyError('in fetch')",
        "OSError('the database')",
    ]

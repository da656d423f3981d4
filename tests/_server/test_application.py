"""Applications: their forms, and when they are opened and left; in virtual time."""
# ruff: noqa: ARG002, ARG005 - handlers have the arguments that they get

import logging
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial, wraps
from typing import Any, Self
from unittest.mock import AsyncMock

import pytest
import trio
from asgi_server import HTTP, WEBSOCKET, ASGIServer, Event
from pairs import bounded
from trio.testing import MockClock

from trio_wspair import (
    Application,
    FetchHandler,
    InvalidStateError,
    Request,
    Response,
    WebSocketPair,
    connect,
    serve,
)
from trio_wspair.asgi import ASGIApp
from trio_wspair.hibernation import DurableObject, DurableObjectNamespace
from trio_wspair.testing import open_test_client
from trio_wspair.testing._streams import MemoryPort

LIFESPAN: Event = {"type": "lifespan", "asgi": {"version": "3.0"}}
START: Event = {"type": "lifespan.startup"}
SHUTDOWN: Event = {"type": "lifespan.shutdown"}


async def fetch(request: Request) -> Response:
    """Echo on a WebSocket."""
    client, server = WebSocketPair()
    server.add_event_listener("message", lambda event: server.send(event.data))
    server.accept()
    return Response(None, status=101, web_socket=client)


class Site:
    """An object with a handler."""

    async def fetch(self, request: Request) -> Response:
        return await fetch(request)

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[FetchHandler]:
        yield self.fetch


class OpenedSite(Site):
    """A context manager that is its own handler when opened."""

    is_open = False

    async def __aenter__(self) -> Self:
        self.is_open = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.is_open = False

    async def fetch(self, request: Request) -> Response:
        assert self.is_open
        return await super().fetch(request)


class CallableSite:
    """A callable object with state."""

    async def __call__(self, request: Request) -> Response:
        return await fetch(request)


class Room(DurableObject):
    """A Durable Object, whose stub is a handler."""

    async def fetch(self, request: Request) -> Response:
        client, server = WebSocketPair()
        self.ctx.accept_web_socket(server)
        return Response(None, status=101, web_socket=client)

    def web_socket_message(self, ws: Any, message: str | bytes) -> None:
        ws.send(message)


@asynccontextmanager
async def with_room() -> AsyncGenerator[Any]:
    async with DurableObjectNamespace(Room) as rooms:
        yield rooms.get_by_name("lobby")


@asynccontextmanager
async def with_settings(first: int, *, second: int = 0) -> AsyncGenerator[FetchHandler]:
    yield fetch


def logged(handler: FetchHandler) -> FetchHandler:
    """Wrap a handler in a function that isn't async."""

    @wraps(handler)
    def logging_handler(request: Request) -> Awaitable[Response]:
        return handler(request)

    return logging_handler


module = types.ModuleType("module")
module.fetch = fetch  # type: ignore[attr-defined]

APPLICATIONS: dict[str, Callable[[], Application]] = {
    "an async function": lambda: fetch,
    "a method": lambda: Site().fetch,
    "a decorated function": lambda: logged(fetch),
    "a partial function": lambda: partial(fetch),
    "a callable object": CallableSite,
    "a mock": lambda: AsyncMock(side_effect=fetch, spec=fetch),
    "an object": Site,
    "a module": lambda: module,  # type: ignore[return-value,unused-ignore]
    "an object that is opened": OpenedSite,
    "a function that opens": lambda: with_room,
    "a method that opens": lambda: Site().opened,
    "a partial function that opens": lambda: partial(with_settings, 1),
    "a context manager": lambda: with_settings(1, second=2),
}


@pytest.mark.parametrize("kind", APPLICATIONS)
@bounded
async def test_an_application_is_served(autojump_clock: MockClock, kind: str) -> None:
    async with open_test_client(APPLICATIONS[kind](), "/") as client:
        client.send("hello")
        await client.expect("hello")


# -- objects that are no applications -------------------------------------------------


def sync_fetch(request: Request) -> Response:
    raise AssertionError


async def generator() -> AsyncGenerator[FetchHandler]:
    yield fetch


class SyncSite:
    def fetch(self, request: Request) -> Response:
        raise AssertionError


class SyncCallable:
    def __call__(self, request: Request) -> Response:
        raise AssertionError


@contextmanager
def sync_opener() -> Generator[FetchHandler]:
    raise AssertionError
    yield


def refusal_of(app: object) -> str:
    """Check that every function refuses this application; return the error."""
    with pytest.raises(TypeError) as caught:
        ASGIApp(app)  # type: ignore[arg-type] # on purpose
    return str(caught.value)


@asynccontextmanager  # type: ignore[arg-type]  # what one may try
async def opener_that_returns() -> Any:
    return sync_fetch


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (sync_fetch, "sync_fetch() is not async: write 'async def sync_fetch(...)'"),
        (partial(sync_fetch), "sync_fetch() is not async"),
        (lambda request: None, "<lambda>() is not async"),
        (sync_opener, "sync_opener() needs 'async def' and @asynccontextmanager"),
        (opener_that_returns, "it needs a 'yield' in place of 'return'"),
        (SyncSite(), "fetch() is not async: write 'async def fetch(...)'"),
        (SyncCallable(), "SyncCallable() is not async"),
        (Site, "this is the class Site: pass an instance of it"),
        (OpenedSite, "this is the class OpenedSite: pass an instance of it"),
        (Room, "this is the class Room: pass an instance of it"),
        (generator, "generator is an async generator: decorate it with @async"),
        (generator(), "this is an async generator: decorate its function (@async"),
        (
            with_settings,
            "pass functools.partial(with_settings, ...), or with_settings(",
        ),
        (None, "this is None"),
        ("fetch", "this is 'fetch', of type str"),
        (types.SimpleNamespace(fetch=5), "of type SimpleNamespace"),
    ],
)
def test_an_object_that_is_no_application_is_refused_with_a_hint(
    app: object, words: str
) -> None:
    text = refusal_of(app)
    assert words in text
    assert "\n" not in text


def test_a_callable_that_is_not_written_in_python_is_accepted() -> None:
    unknown: Any = getattr
    ASGIApp(unknown)


async def test_a_coroutine_is_refused_without_a_second_warning() -> None:
    coroutine: Any = fetch("a request")  # type: ignore[arg-type]
    assert "pass fetch instead of fetch(...)" in refusal_of(coroutine)


@pytest.mark.parametrize(
    ("yielded", "words"),
    [
        (None, "this is None"),
        (Site, "this is the class Site"),
        (sync_fetch, "sync_fetch() is not async"),
        (with_room, "with_room opens an application: enter it with 'async with'"),
        (5, "this is 5, of type int"),
    ],
)
@bounded
async def test_a_context_manager_without_a_handler_is_refused_before_listening(
    autojump_clock: MockClock, yielded: Any, words: str
) -> None:
    left = False

    @asynccontextmanager
    async def app() -> AsyncGenerator[Any]:
        nonlocal left
        try:
            yield yielded
        finally:
            left = True

    with pytest.raises(TypeError) as caught:
        await serve(app, listeners=[Untouched()])
    assert "an application must yield an async function of a request" in str(
        caught.value
    )
    assert words in str(caught.value)
    assert left


class Untouched(trio.abc.Listener[trio.abc.Stream]):
    """A listener that must not be used."""

    async def accept(self) -> trio.abc.Stream:
        raise AssertionError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_a_namespace_has_no_fetch_and_is_refused_as_an_application() -> None:
    namespace: Any = DurableObjectNamespace(Room)
    with pytest.raises(TypeError, match="this is <DurableObjectNamespace of Room>"):
        await serve(namespace, 0)


# -- serve() --------------------------------------------------------------------------


class Steps:
    """An application that logs its steps in order."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.failing = trio.Event()

    async def work(self) -> None:
        try:
            await self.failing.wait()
            raise RuntimeError("the feed has ended")
        finally:
            self.steps.append("task ended")

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[FetchHandler]:
        self.steps.append("opened")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.work)
                yield self.fetch
                self.steps.append("left")
        finally:
            self.steps.append("closed")

    async def fetch(self, request: Request) -> Response:
        client, server = WebSocketPair()

        @server.on("close")
        async def closed(_event: object) -> None:
            await trio.sleep(0.5)
            self.steps.append("connection closed")

        server.accept()
        return Response(None, status=101, web_socket=client)


async def open_connection(nursery: trio.Nursery, port: MemoryPort) -> None:
    ws = await connect("ws://x/", nursery=nursery, dial=port.dial)
    ws.accept()


@bounded
async def test_an_application_is_open_until_the_last_connection_has_ended(
    autojump_clock: MockClock,
) -> None:
    app, port = Steps(), MemoryPort()
    async with trio.open_nursery() as nursery, trio.open_nursery() as serving:
        await serving.start(partial(serve, app.open, listeners=[port]))
        assert app.steps == ["opened"]
        await open_connection(nursery, port)
        serving.cancel_scope.cancel()
    assert app.steps == ["opened", "connection closed", "task ended", "closed"]


@bounded
async def test_opening_an_application_can_be_cancelled(
    autojump_clock: MockClock,
) -> None:
    @asynccontextmanager
    async def app() -> AsyncGenerator[FetchHandler]:
        await trio.sleep_forever()
        yield fetch

    with trio.move_on_after(1) as scope:
        await serve(app, listeners=[Untouched()])
    assert scope.cancelled_caught


@bounded
async def test_an_error_on_entering_is_raised_by_serve(
    autojump_clock: MockClock,
) -> None:
    @asynccontextmanager
    async def app() -> AsyncGenerator[FetchHandler]:
        raise OSError("no database")
        yield fetch

    with pytest.raises(OSError, match="no database"):
        await serve(app, listeners=[Untouched()])


@bounded
async def test_an_error_in_an_application_task_ends_the_server_after_its_connections(
    autojump_clock: MockClock,
) -> None:
    app, port = Steps(), MemoryPort()
    with pytest.RaisesGroup(
        pytest.RaisesExc(RuntimeError, match="the feed has"), flatten_subgroups=True
    ):
        async with trio.open_nursery() as clients:
            await clients.start(partial(serve, app.open, listeners=[port]))
            await open_connection(clients, port)
            await trio.sleep(1)
            app.failing.set()
    assert app.steps == ["opened", "task ended", "connection closed", "closed"]


@bounded
async def test_objects_get_each_close_event_when_the_server_stops(
    autojump_clock: MockClock,
) -> None:
    heard: list[tuple[int, bool]] = []

    class Listening(Room):
        def web_socket_close(
            self, ws: Any, code: int, reason: str, was_clean: bool
        ) -> None:
            heard.append((code, was_clean))

    @asynccontextmanager
    async def app() -> AsyncGenerator[Any]:
        async with DurableObjectNamespace(Listening) as rooms:
            yield rooms.get_by_name("lobby")

    port = MemoryPort()
    async with trio.open_nursery() as nursery, trio.open_nursery() as serving:
        await serving.start(partial(serve, app, listeners=[port]))
        await open_connection(nursery, port)
        await trio.sleep(1)
        serving.cancel_scope.cancel()
    assert heard == [(1001, True)]


# -- ASGI -----------------------------------------------------------------------------


async def in_lifespan(
    asgi_app: ASGIApp, while_open: Callable[[], Awaitable[None]]
) -> list[str]:
    """Play the lifespan of a server; return the events of the application."""
    sent: list[str] = []
    events = [START, SHUTDOWN]

    async def receive() -> Event:
        if events[0] is SHUTDOWN:
            await while_open()
        return events.pop(0)

    async def send(event: Any) -> None:
        sent.append(event["type"] + (f": {event['message']}" if len(event) > 1 else ""))

    await asgi_app(LIFESPAN, receive, send)
    return sent


@bounded
async def test_asgi_opens_the_application_at_startup_and_leaves_it_at_shutdown(
    autojump_clock: MockClock,
) -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def app() -> AsyncGenerator[FetchHandler]:
        async with trio.open_nursery():
            steps.append("opened")
            yield answer
            steps.append("left")

    async def answer(request: Request) -> Response:
        steps.append("asked")
        return Response("hello")

    asgi_app = ASGIApp(app)

    async def ask() -> None:
        server = await ASGIServer(HTTP, {"type": "http.request"}).run(asgi_app)
        assert server.sent[0]["status"] == 200

    sent = await in_lifespan(asgi_app, ask)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert steps == ["opened", "asked", "left"]
    with pytest.raises(InvalidStateError, match="this server has shut down"):
        await ask()


@bounded
async def test_a_server_that_shuts_down_leaves_the_application_open_for_another(
    autojump_clock: MockClock,
) -> None:
    asgi_app = ASGIApp(with_room)
    statuses: list[int] = []

    async def ask() -> None:
        server = await ASGIServer(HTTP, {"type": "http.request"}).run(asgi_app)
        statuses.append(server.status)

    async with trio.open_nursery() as nursery:
        other_ends = trio.Event()

        async def run_another() -> None:
            await in_lifespan(asgi_app, other_ends.wait)

        async def meet_another() -> None:
            nursery.start_soon(run_another)
            await trio.testing.wait_all_tasks_blocked()

        await in_lifespan(asgi_app, meet_another)
        await ask()
        other_ends.set()
    assert len(statuses) == 1
    with pytest.raises(InvalidStateError, match="this server has shut down"):
        await ask()


@pytest.mark.parametrize("scope", [HTTP, WEBSOCKET], ids=["http", "websocket"])
@bounded
async def test_without_a_lifespan_the_error_says_what_to_do(
    autojump_clock: MockClock, scope: Event
) -> None:
    with pytest.raises(InvalidStateError, match="Enable its lifespan support; if"):
        await ASGIServer(scope).run(ASGIApp(with_room))


@bounded
async def test_a_failure_at_startup_is_sent_to_the_server_and_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    @asynccontextmanager
    async def app() -> AsyncGenerator[FetchHandler]:
        raise OSError("no database")
        yield fetch

    asgi_app = ASGIApp(app)
    server = await ASGIServer(LIFESPAN, START).run(asgi_app)
    assert server.sent == [
        {"type": "lifespan.startup.failed", "message": "OSError: no database"}
    ]
    (record,) = caplog.records
    assert record.getMessage() == "the application failed at startup"
    assert record.exc_info is not None
    assert record.exc_info[0] is OSError


@bounded
async def test_a_failure_at_shutdown_is_sent_to_the_server(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    @asynccontextmanager
    async def app() -> AsyncGenerator[FetchHandler]:
        yield fetch
        raise ValueError("not saved")

    with caplog.at_level(logging.CRITICAL):
        sent = await in_lifespan(ASGIApp(app), trio.lowlevel.checkpoint)
    failed = "lifespan.shutdown.failed: ValueError: not saved"
    assert sent == ["lifespan.startup.complete", failed]


@bounded
async def test_a_task_that_fails_while_asgi_serves_is_raised_to_the_server(
    autojump_clock: MockClock,
) -> None:
    app = Steps()

    async def fail() -> None:
        app.failing.set()
        await trio.sleep_forever()

    with pytest.RaisesGroup(RuntimeError):
        await in_lifespan(ASGIApp(app.open), fail)

"""The pytest plugin: fixtures, on top of pytest-trio, and what they add to reports.

pytest loads it wherever trio-wspair is installed.
"""

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar, Unpack, cast

import attrs
import pytest
import trio

from trio_wspair._http.messages import FetchHandler
from trio_wspair._pair.pair import WebSocketPair, open_websocket_pair
from trio_wspair._server.application import Application, handler_of, open_application
from trio_wspair._tasks.nurseries import raise_together

from ._client import (
    OpenClient,
    TestClient,
    TestWebSocket,
    open_test_client,
)
from ._record import ConversationError, Record
from ._recorded import RecordedWebSocket, open_recorded_pair, tells, untell
from ._replay import GoldenRecord, replay_file
from ._requests import FirstWebSocketOptions, ReplayOptions, Transport, check_options

__all__ = (
    "golden_record",
    "recorded_pair",
    "websocket_client",
    "websocket_pair",
    "websocket_transport",
)


_T = TypeVar("_T")


@attrs.frozen(eq=False)
class _Kept:
    """What is known of a test for its report."""

    records: list[Sequence[Record]] = attrs.Factory(list[Sequence[Record]])
    """Its conversations, by client."""
    by_handlers: list[BaseException] = attrs.Factory(list[BaseException])
    """What came out of its clients."""


_kept: Final = pytest.StashKey[_Kept]()


def _kept_of(item: pytest.Item) -> _Kept:
    return item.stash.setdefault(_kept, _Kept())


@asynccontextmanager
async def open_pair(
    item: pytest.Item,
) -> AsyncGenerator[tuple[RecordedWebSocket, RecordedWebSocket], None]:
    """Open a pair with a record for a test."""
    async with open_recorded_pair() as pair:
        record = pair[0].record
        _kept_of(item).records.append([record])
        yield pair
        record._note_end_of_test()


@asynccontextmanager
async def open_clients(
    item: pytest.Item, over: Transport
) -> AsyncGenerator[OpenClient, None]:
    """Give a function that opens clients for a test, and close them after it."""
    kept = _kept_of(item)
    async with trio.open_nursery() as applications:
        async with trio.open_nursery() as clients:
            opener = _Opener(applications, clients, over, kept)
            yield cast("OpenClient", opener)
            for record in chain(*kept.records):
                record._note_end_of_test()
            opener.clients_done.set()
        opener.applications_done.set()
    raise_together(list(kept.by_handlers), "handlers have raised")


class _Opener:
    """The fixture `websocket_client`."""

    def __init__(
        self,
        applications: trio.Nursery,
        clients: trio.Nursery,
        over: Transport,
        kept: _Kept,
    ) -> None:
        self._applications = applications
        self._clients = clients
        self._over: Transport = over
        self._kept = kept
        self._opened: list[tuple[Application, FetchHandler]] = []
        self._one_opening = trio.Lock()
        self.clients_done = trio.Event()
        self.applications_done = trio.Event()

    async def __call__(
        self,
        app: Application,
        path: str | None = None,
        **options: Unpack[FirstWebSocketOptions],
    ) -> TestClient | TestWebSocket:
        check_options("websocket_client", options, FirstWebSocketOptions)
        opening: AbstractAsyncContextManager[TestClient | TestWebSocket]
        # Without a path it tells which of the options are for a WebSocket only.
        opening = open_test_client(
            await self._handler(app), cast("str", path), over=self._over, **options
        )
        client: TestClient | TestWebSocket = await self._clients.start(
            self._hold, opening, self.clients_done
        )
        self._kept.records.append(client.records)
        return client

    async def _handler(self, app: Application) -> FetchHandler:
        """Return the handler of an application, which is opened once."""
        handler = handler_of(app)
        if handler is not None:
            return handler
        async with self._one_opening:
            for known, opened in self._opened:
                if known is app:
                    return opened
            fetch: FetchHandler = await self._applications.start(
                self._hold, open_application(app), self.applications_done
            )
            self._opened.append((app, fetch))
        return fetch

    async def _hold(
        self,
        opening: AbstractAsyncContextManager[_T],
        done: trio.Event,
        *,
        task_status: trio.TaskStatus[_T],
    ) -> None:
        """Keep this open until the end of the test, and what it raises then."""
        started = False
        try:
            async with opening as opened:
                started = True
                task_status.started(opened)
                await done.wait()
        except Exception as exc:
            if not started:
                raise
            self._kept.by_handlers.append(exc)


@attrs.frozen
class Golden:
    """The fixture `golden_record`.

    Args:
        folder: Where the files are.
        over: As for `open_test_client()`.
        update: Write them anew.
    """

    _folder: Path
    _over: Transport
    _update: bool = attrs.field(alias="update", kw_only=True)

    async def __call__(
        self,
        app: Application,
        name: str,
        path: str = "/",
        **options: Unpack[ReplayOptions],
    ) -> None:
        """See `GoldenRecord`."""
        check_options("golden_record", options, ReplayOptions)
        file = self._folder / name
        try:
            await replay_file(
                file, app, path, over=self._over, update=self._update, **options
            )
        except ConversationError as exc:
            what = "If what the handler says now is right: pytest --update-records"
            exc.add_note(f"\n{what}")
            raise


def handlers_first(
    item: pytest.Item, group: BaseExceptionGroup[BaseException]
) -> BaseException:
    """Return a group with what handlers have raised before the rest.

    If the rest tells a conversation, it is not told twice.
    """
    ours = _kept_of(item).by_handlers
    theirs = [exc for exc in group.exceptions if not _has(exc, ours)]
    first = [exc for exc in group.exceptions if _has(exc, ours)]
    if not first or not theirs:
        return group
    if any(map(tells, theirs)):
        for exc in ours:
            untell(exc)
    return group.derive([*first, *theirs]).with_traceback(group.__traceback__)


def _has(exc: BaseException, ours: list[BaseException]) -> bool:
    if any(exc is each for each in ours):
        return True
    if not isinstance(exc, BaseExceptionGroup):
        return False
    group = cast("BaseExceptionGroup[BaseException]", exc)
    return any(_has(each, ours) for each in group.exceptions)


def add_conversations(
    item: pytest.Item, failure: BaseException, report: pytest.TestReport
) -> None:
    """Show the conversations of a test that has failed without telling them."""
    if tells(failure):
        return
    for record in chain(*_kept_of(item).records):
        record._end_at_failure_of_test(failure)
        report.sections.append(("WebSocket conversation", str(record)))


_F = TypeVar("_F", bound=Callable[..., Any])


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--update-records`."""
    parser.getgroup("trio-wspair").addoption(
        "--update-records",
        action="store_true",
        help="take what WebSocket handlers say now as right: golden_record writes its "
        "files anew",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Tell what a handler has raised before what the test has raised over it."""
    try:
        return (yield)
    except BaseExceptionGroup as group:
        if _uses_fixtures(item):
            raise handlers_first(item, group) from None
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the conversations of a test that has failed without telling them."""
    report = yield
    if report.failed and call.excinfo is not None and _uses_fixtures(item):
        add_conversations(item, call.excinfo.value, report)
    return report


def _uses_fixtures(item: pytest.Item) -> bool:
    names: list[str] = getattr(item, "fixturenames", [])
    return not {"recorded_pair", "websocket_client"}.isdisjoint(names)


def _trio_fixture(function: _F) -> _F:
    """Make a fixture of an async function. Without pytest-trio, it says so."""
    try:
        pytest_trio = import_module("pytest_trio")  # An extra, and untyped.
    except ImportError:

        def missing() -> None:
            what = f"the fixture {function.__name__} needs pytest-trio"
            pytest.fail(f"{what}: pip install 'trio-wspair[pytest]'", pytrace=False)

        return cast("_F", pytest.fixture(name=function.__name__)(missing))
    return cast("_F", pytest_trio.trio_fixture(function))


@pytest.fixture
def websocket_transport() -> Transport:
    """What lies between client and server: "memory", or by a parameter "loopback".

    ``@pytest.mark.parametrize("websocket_transport", ["memory", "loopback"])`` runs a
    test over both.
    """
    return "memory"


@_trio_fixture
async def websocket_pair() -> AsyncGenerator[WebSocketPair, None]:
    """A pair that nobody has accepted, from `open_websocket_pair()`."""
    async with open_websocket_pair() as pair:
        yield pair  # noqa: ASYNC119 - pytest-trio closes it


@_trio_fixture
async def recorded_pair(
    request: pytest.FixtureRequest,
) -> AsyncGenerator[tuple[RecordedWebSocket, RecordedWebSocket], None]:
    """A pair with a record, from `open_recorded_pair()`."""
    async with open_pair(request.node) as pair:
        yield pair  # noqa: ASYNC119 - as above


@_trio_fixture
async def websocket_client(
    request: pytest.FixtureRequest, websocket_transport: Transport
) -> AsyncGenerator[OpenClient, None]:
    """Open clients of an application.

    ``client = await websocket_client(fetch, "/chat")``, as often as needed. The
    arguments are those of `open_test_client()`, but for `over`, which the fixture
    `websocket_transport` decides. Clients of one application share it: one that has to
    be opened is opened once. They are closed after the test, which fails if the
    application has raised. Its type is `trio_wspair.testing.OpenClient`.
    """
    async with open_clients(request.node, websocket_transport) as opener:
        yield opener  # noqa: ASYNC119 - as above


@pytest.fixture
def golden_record(
    request: pytest.FixtureRequest, websocket_transport: Transport
) -> GoldenRecord:
    """Check an application against a recorded conversation.

    ``await golden_record(fetch, "chat.json")``. The file lies beside the test, and is
    what `Record.to_json()` has returned. With the option ``--update-records`` it is
    written anew if the application says something else. The other arguments are those
    of `replay_file()`. Its type is `trio_wspair.testing.GoldenRecord`.
    """
    update = bool(request.config.getoption("update_records"))
    return Golden(request.path.parent, websocket_transport, update=update)

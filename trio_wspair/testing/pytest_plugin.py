"""The pytest plugin: fixtures, on top of pytest-trio, and what they add to reports.

pytest loads it wherever trio-wspair is installed. The clients of the fixture
`websocket_client` are open in tasks of two nurseries: at the end of a test first all
clients are closed, then the applications that were opened for them.
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
from ._recorded import (
    RecordedWebSocket,
    open_recorded_pair,
    remove_notes,
    shows_conversation,
)
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
    """What is kept of a test for its report."""

    records: list[Sequence[Record]] = attrs.Factory(list[Sequence[Record]])
    """The records of each client."""
    by_handlers: list[BaseException] = attrs.Factory(list[BaseException])
    """The exceptions that closing the clients has raised."""


_kept: Final = pytest.StashKey[_Kept]()


def _kept_of(item: pytest.Item) -> _Kept:
    return item.stash.setdefault(_kept, _Kept())


@asynccontextmanager
async def _open_pair(
    item: pytest.Item,
) -> AsyncGenerator[tuple[RecordedWebSocket, RecordedWebSocket], None]:
    """Open a pair with a record for a test."""
    async with open_recorded_pair() as pair:
        record = pair[0].record
        _kept_of(item).records.append([record])
        yield pair
        record._note_end_of_test()


@asynccontextmanager
async def _open_clients(
    item: pytest.Item, over: Transport
) -> AsyncGenerator[OpenClient, None]:
    """Yield a function that opens clients for a test, and close them afterwards."""
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
        # If there is no path, it raises for options that need one.
        opening = open_test_client(
            await self._handler(app), cast("str", path), over=self._over, **options
        )
        client: TestClient | TestWebSocket = await self._clients.start(
            self._hold, opening, self.clients_done
        )
        self._kept.records.append(client.records)
        return client

    async def _handler(self, app: Application) -> FetchHandler:
        """Return the handler of an application; open the application only once."""
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
        """Keep a client or an application open until the test has ended.

        What closing it raises is kept for the end of the test.
        """
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
class _Golden:
    """The fixture `golden_record`.

    Args:
        folder: The folder of the files.
        over: As for `open_test_client()`.
        update: Whether to write the files again.
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
            what = "If the handler is right now, run pytest --update-records"
            exc.add_note(f"\n{what}")
            raise


def _handlers_first(
    item: pytest.Item, group: BaseExceptionGroup[BaseException]
) -> BaseException:
    """Return the group with the exceptions of handlers first.

    If another exception shows a conversation, theirs don't show it again.
    """
    ours = _kept_of(item).by_handlers
    theirs = [exc for exc in group.exceptions if not _has(exc, ours)]
    first = [exc for exc in group.exceptions if _has(exc, ours)]
    if not first or not theirs:
        return group
    if any(map(shows_conversation, theirs)):
        for exc in ours:
            remove_notes(exc)
    return group.derive([*first, *theirs]).with_traceback(group.__traceback__)


def _has(exc: BaseException, ours: list[BaseException]) -> bool:
    if any(exc is each for each in ours):
        return True
    if not isinstance(exc, BaseExceptionGroup):
        return False
    group = cast("BaseExceptionGroup[BaseException]", exc)
    return any(_has(each, ours) for each in group.exceptions)


def _report_conversations(
    item: pytest.Item, failure: BaseException, report: pytest.TestReport
) -> None:
    """Add the conversations to a report, unless the failure shows them."""
    if shows_conversation(failure):
        return
    for record in chain(*_kept_of(item).records):
        record._end_at_failure_of_test(failure)
        report.sections.append(("WebSocket conversation", str(record)))


_F = TypeVar("_F", bound=Callable[..., Any])


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option `--update-records`."""
    parser.getgroup("trio-wspair").addoption(
        "--update-records",
        action="store_true",
        help="let golden_record write its files again, with what the WebSocket "
        "handlers send now",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Report exceptions of handlers first: those of the test may follow from them."""
    try:
        return (yield)
    except BaseExceptionGroup as group:
        if _uses_fixtures(item):
            raise _handlers_first(item, group) from None
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the conversations of a failed test."""
    report = yield
    if report.failed and call.excinfo is not None and _uses_fixtures(item):
        _report_conversations(item, call.excinfo.value, report)
    return report


def _uses_fixtures(item: pytest.Item) -> bool:
    names: list[str] = getattr(item, "fixturenames", [])
    return not {"recorded_pair", "websocket_client"}.isdisjoint(names)


def _trio_fixture(function: _F) -> _F:
    """Make a fixture of an async function. Without pytest-trio, it fails the test."""
    try:
        pytest_trio = import_module("pytest_trio")  # An extra, and untyped.
    except ImportError:

        def missing() -> None:
            what = f"the fixture {function.__name__} needs pytest-trio"
            how = "pip install 'trio-wspair[pytest]'"
            pytest.fail(f"{what}: {how}", pytrace=False)

        return cast("_F", pytest.fixture(name=function.__name__)(missing))
    return cast("_F", pytest_trio.trio_fixture(function))


@pytest.fixture
def websocket_transport() -> Transport:
    """The transport of `websocket_client` and `golden_record`, by default "memory".

    ``@pytest.mark.parametrize("websocket_transport", ["memory", "loopback"])`` runs a
    test over both.
    """
    return "memory"


@_trio_fixture
async def websocket_pair() -> AsyncGenerator[WebSocketPair, None]:
    """A pair from `open_websocket_pair()`, of which no half is accepted."""
    async with open_websocket_pair() as pair:
        yield pair  # noqa: ASYNC119 - pytest-trio closes it


@_trio_fixture
async def recorded_pair(
    request: pytest.FixtureRequest,
) -> AsyncGenerator[tuple[RecordedWebSocket, RecordedWebSocket], None]:
    """A pair with a record from `open_recorded_pair()`."""
    async with _open_pair(request.node) as pair:
        yield pair  # noqa: ASYNC119 - as above


@_trio_fixture
async def websocket_client(
    request: pytest.FixtureRequest, websocket_transport: Transport
) -> AsyncGenerator[OpenClient, None]:
    """Open clients of an application.

    ``client = await websocket_client(fetch, "/chat")`` opens one; it can be called
    several times. The arguments are those of `open_test_client()` except `over`, for
    which there is the fixture `websocket_transport`. An application that has to be
    opened is opened once for all its clients. The clients are closed after the test,
    which fails if the application has raised. The fixture's type is
    `trio_wspair.testing.OpenClient`.
    """
    async with _open_clients(request.node, websocket_transport) as opener:
        yield opener  # noqa: ASYNC119 - as above


@pytest.fixture
def golden_record(
    request: pytest.FixtureRequest, websocket_transport: Transport
) -> GoldenRecord:
    """Check an application against a recorded conversation.

    ``await golden_record(fetch, "chat.json")``. The file is in the folder of the test,
    and contains the text of `Record.to_json()`. With the option ``--update-records``,
    it is written again if the application sends something else. The other arguments
    are those of `replay_file()`. The fixture's type is
    `trio_wspair.testing.GoldenRecord`.
    """
    update = bool(request.config.getoption("update_records"))
    return _Golden(request.path.parent, websocket_transport, update=update)

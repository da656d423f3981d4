"""The pytest plugin: fixtures on top of pytest-trio, and conversations in reports.

It is loaded by itself where this package is installed. Knows pytest; all that happens
is known next door.
"""

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from itertools import chain
from typing import Any, Final, Protocol, TypeVar, Unpack, cast, overload

import pytest
import trio

from trio_wspair._application import Application
from trio_wspair._pair import WebSocketPair, open_websocket_pair

from ._client import (
    ClientOptions,
    FirstWebSocketOptions,
    ReplayOptions,
    TestClient,
    TestWebSocket,
    Transport,
    open_test_client,
)
from ._record import ConversationError, Record
from ._recorded import RecordedWebSocket, open_recorded_pair, tells
from ._replay import replay_file

__all__ = (
    "GoldenRecord",
    "OpenClient",
    "golden_record",
    "recorded_pair",
    "websocket_client",
    "websocket_pair",
    "websocket_transport",
)

_F = TypeVar("_F", bound=Callable[..., Any])
_records: Final = pytest.StashKey[list[Sequence[Record]]]()
"""The conversations of a test."""


class OpenClient(Protocol):
    """What the fixture `websocket_client` is."""

    @overload
    async def __call__(
        self,
        app: Application,
        path: None = None,
        **options: Unpack[ClientOptions],
    ) -> TestClient: ...
    @overload
    async def __call__(
        self,
        app: Application,
        path: str,
        **options: Unpack[FirstWebSocketOptions],
    ) -> TestWebSocket: ...
    async def __call__(
        self,
        app: Application,
        path: str | None = None,
        **options: Unpack[FirstWebSocketOptions],
    ) -> TestClient | TestWebSocket:
        """Serve a handler, and open a client of it; see `open_test_client()`."""
        ...


class GoldenRecord(Protocol):
    """What the fixture `golden_record` is."""

    async def __call__(
        self,
        app: Application,
        name: str,
        path: str = "/",
        **options: Unpack[ReplayOptions],
    ) -> None:
        """Check a handler against a conversation in a file; see `replay_file()`."""
        ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--update-records`."""
    parser.getgroup("trio-wspair").addoption(
        "--update-records",
        action="store_true",
        help="take what WebSocket handlers say now as right: golden_record writes its "
        "files anew",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the conversations of a test that has failed without telling them."""
    report = yield
    failure = call.excinfo
    if report.failed and failure is not None and not tells(failure.value):
        for record in chain(*item.stash.get(_records, list[Sequence[Record]]())):
            report.sections.append(("WebSocket conversation", str(record)))
    return report


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
    async with open_recorded_pair() as pair:
        _records_of(request).append([pair[0].record])
        yield pair  # noqa: ASYNC119 - pytest-trio closes it


@_trio_fixture
async def websocket_client(
    request: pytest.FixtureRequest, websocket_transport: Transport
) -> AsyncGenerator[OpenClient, None]:
    """Open clients of a handler.

    ``client = await websocket_client(fetch, "/chat")``, as often as needed. The
    arguments are those of `open_test_client()`, but for `over`, which the fixture
    `websocket_transport` decides. The clients are closed after the test, which fails
    if a handler has raised.
    """
    records = _records_of(request)
    done = trio.Event()

    async def hold(
        opening: AbstractAsyncContextManager[TestClient | TestWebSocket],
        *,
        task_status: trio.TaskStatus[TestClient | TestWebSocket],
    ) -> None:
        async with opening as client:
            task_status.started(client)
            await done.wait()

    async def open_client(
        app: Application,
        path: str | None = None,
        **options: Unpack[FirstWebSocketOptions],
    ) -> TestClient | TestWebSocket:
        opening: AbstractAsyncContextManager[TestClient | TestWebSocket]
        # Without a path it tells which of the options are for a WebSocket only.
        opening = open_test_client(
            app, cast("str", path), over=websocket_transport, **options
        )
        client: TestClient | TestWebSocket = await nursery.start(hold, opening)
        records.append(client.records)
        return client

    async with trio.open_nursery() as nursery:
        yield cast("OpenClient", open_client)  # noqa: ASYNC119 - as above
        done.set()


@pytest.fixture
def golden_record(
    request: pytest.FixtureRequest, websocket_transport: Transport
) -> GoldenRecord:
    """Check a handler against a recorded conversation.

    ``await golden_record(fetch, "chat.json")``. The file lies beside the test, and is
    what `Record.to_json()` has returned. With the option ``--update-records`` it is
    written anew if the handler says something else. The other arguments are those of
    `replay_file()`.
    """

    async def check(
        app: Application,
        name: str,
        path: str = "/",
        **options: Unpack[ReplayOptions],
    ) -> None:
        try:
            await replay_file(
                request.path.parent / name,
                app,
                path,
                over=websocket_transport,
                update=bool(request.config.getoption("update_records")),
                **options,
            )
        except ConversationError as exc:
            what = "If what the handler says now is right: pytest --update-records"
            exc.add_note(f"\n{what}")
            raise

    return check


def _records_of(request: pytest.FixtureRequest) -> list[Sequence[Record]]:
    node = cast("pytest.Item", request.node)
    return node.stash.setdefault(_records, [])

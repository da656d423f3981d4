"""The pytest plugin: declares the fixtures, on top of pytest-trio, and the reports.

pytest loads it wherever trio-wspair is installed. What the fixtures do is in
`_fixtures`.
"""

from collections.abc import AsyncGenerator, Callable, Generator
from importlib import import_module
from typing import Any, TypeVar, cast

import pytest

from trio_wspair._pair.pair import WebSocketPair, open_websocket_pair

from ._client import OpenClient
from ._fixtures import (
    Golden,
    add_conversations,
    handlers_first,
    open_clients,
    open_pair,
)
from ._options import Transport
from ._recorded import RecordedWebSocket
from ._replay import GoldenRecord

__all__ = (
    "golden_record",
    "recorded_pair",
    "websocket_client",
    "websocket_pair",
    "websocket_transport",
)

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

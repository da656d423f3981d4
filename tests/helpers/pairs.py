"""Pairs in tests: collected events, expected close events, and virtual time."""

import functools
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, ParamSpec, TypeVar

import attrs
import pytest
import trio
from trio.testing import MockClock

from trio_wspair import (
    CloseEvent,
    ErrorEvent,
    MessageEvent,
    WebSocket,
    WebSocketPair,
)

P = ParamSpec("P")
T = TypeVar("T")
Received = str | bytes | ErrorEvent | CloseEvent
AsyncTest = Callable[P, Coroutine[Any, Any, None]]


def bounded(test: AsyncTest[P]) -> AsyncTest[P]:
    """Make a test fail instead of waiting for ever."""

    @functools.wraps(test)
    async def bounded_test(*args: P.args, **kwargs: P.kwargs) -> None:
        with trio.fail_after(1000):
            await test(*args, **kwargs)

    return bounded_test


def run(main: Callable[[], Awaitable[T]]) -> T:
    """Run an async function in virtual time, with a time limit."""

    async def bounded_main() -> T:
        with trio.fail_after(1000):
            return await main()

    return trio.run(bounded_main, clock=MockClock(autojump_threshold=0))


def in_virtual_time(test: AsyncTest[P]) -> Callable[P, None]:
    """Make a test of an async function: in virtual time, with a time limit."""

    @functools.wraps(test)
    def sync_test(*args: P.args, **kwargs: P.kwargs) -> None:
        run(functools.partial(test, *args, **kwargs))

    return sync_test


def collect_events(socket: WebSocket) -> list[Received]:
    """Add listeners to a half; return the list that they append its events to."""
    heard: list[Received] = []

    @socket.on("message")
    def on_message(event: MessageEvent) -> None:
        heard.append(event.data)

    socket.add_event_listener("error", heard.append)
    socket.add_event_listener("close", heard.append)
    return heard


def accept_and_collect(
    socket: WebSocket, *, allow_half_open: bool = False
) -> list[Any]:
    """Accept a half; return the list that its listeners append events to."""
    heard: list[Any] = collect_events(socket)
    socket.accept(allow_half_open=allow_half_open)
    return heard


def clean(code: int, reason: str = "") -> CloseEvent:
    """Return the event of a completed closing handshake."""
    return CloseEvent(code, reason, was_clean=True)


def abnormal(reason: str) -> CloseEvent:
    """Return the close event of a half that has failed."""
    return CloseEvent(1006, reason, was_clean=False)


NURSERY_CANCELLED = abnormal("the nursery of this half was cancelled")
TIMED_OUT = "the peer did not answer the Close in 1.0 s"


class ListenerError(Exception):
    """The error that listeners raise on purpose."""


class BodyError(Exception):
    """The error that the body of a block raises on purpose."""


def fail_in_listener(_event: object) -> NoReturn:
    """Fail, as a listener."""
    raise ListenerError


@contextmanager
def failures_expected() -> Iterator[None]:
    """Catch the errors that listeners and bodies raise on purpose."""
    try:
        yield
    except* (ListenerError, BodyError):
        pass


@contextmanager
def takes(seconds: float) -> Iterator[None]:
    """Check how long a block takes, in virtual time."""
    start = trio.current_time()
    yield
    assert trio.current_time() - start == pytest.approx(seconds)


def accepted(nursery: trio.Nursery, close_grace: float = 1.0) -> WebSocketPair:
    """Return a pair whose halves are accepted."""
    pair = WebSocketPair(nursery, close_grace=close_grace)
    for half in pair:
        half.accept()
    return pair


def apart(outer: trio.Nursery, inner: trio.Nursery) -> tuple[WebSocket, WebSocket]:
    """Return a pair: the first half lives in `outer`, the second in `inner`."""
    first, second = WebSocketPair(outer)
    second._home = attrs.evolve(second._home, nursery=inner)  # type: ignore[misc] # a frozen NurseryHome behind the protocol
    return first, second


def flat(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group, at any depth."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from flat(inner)
    else:
        yield error

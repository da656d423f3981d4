"""What the tests of pairs share: hearing, accepting, and bounds in virtual time."""

import functools
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

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


Heard = str | bytes | ErrorEvent | CloseEvent


AsyncTest = Callable[P, Coroutine[Any, Any, None]]


def bounded(test: AsyncTest[P]) -> AsyncTest[P]:
    """Let a test that waits for ever fail instead."""

    @functools.wraps(test)
    async def bounded_test(*args: P.args, **kwargs: P.kwargs) -> None:
        with trio.fail_after(1000):
            await test(*args, **kwargs)

    return bounded_test


def run(main: Callable[[], Awaitable[T]]) -> T:
    """Run a program in virtual time, bounded."""

    async def bounded_main() -> T:
        with trio.fail_after(1000):
            return await main()

    return trio.run(bounded_main, clock=MockClock(autojump_threshold=0))


def in_virtual_time(test: AsyncTest[P]) -> Callable[P, None]:
    """Make a test of an async function: in virtual time, and bounded."""

    @functools.wraps(test)
    def sync_test(*args: P.args, **kwargs: P.kwargs) -> None:
        run(functools.partial(test, *args, **kwargs))

    return sync_test


def hear(socket: WebSocket) -> list[Heard]:
    """Return the list that the events of this half are put into."""
    heard: list[Heard] = []

    @socket.on("message")
    def on_message(event: MessageEvent) -> None:
        heard.append(event.data)

    socket.add_event_listener("error", heard.append)
    socket.add_event_listener("close", heard.append)
    return heard


def clean(code: int, reason: str = "") -> CloseEvent:
    """Return the event of a handshake that was completed."""
    return CloseEvent(code, reason, was_clean=True)


def abnormal(reason: str) -> CloseEvent:
    """Return the close event of a half that has failed."""
    return CloseEvent(1006, reason, was_clean=False)


FELL = abnormal("the nursery of this half was cancelled")


TIMED_OUT = "the peer did not answer the Close in 1.0 s"


class ListenerError(Exception):
    """What listeners raise here."""


@contextmanager
def takes(seconds: float) -> Iterator[None]:
    """Check how long the block takes, in virtual time."""
    start = trio.current_time()
    yield
    assert trio.current_time() - start == pytest.approx(seconds)


def accepted(nursery: trio.Nursery, close_grace: float = 1.0) -> WebSocketPair:
    """Return a pair that is accepted on both sides."""
    pair = WebSocketPair(nursery, close_grace=close_grace)
    for half in pair:
        half.accept()
    return pair


def flat(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group, however nested."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from flat(inner)
    else:
        yield error

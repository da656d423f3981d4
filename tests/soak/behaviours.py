"""The handlers of the soak test's server: every way to use and misuse a half.

The path of a request selects the handler. The query has two numbers: the handler acts
after ``n`` messages, and closes with the code ``code``.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

import attrs
import trio

from trio_wspair import (
    BufferFullError,
    CloseEvent,
    ConnectionClosedError,
    MessageEvent,
    Request,
    WebSocket,
)

GRACE: Final = 0.3
MOMENT: Final = 0.03
"""The seconds that a slow handler waits."""
PATIENCE: Final = 1.0
"""The seconds after which a handler stops waiting."""


class Planned(Exception):  # noqa: N818 - a planned exception is no error of the test
    """An exception that is raised on purpose."""


def is_planned(exc: BaseException) -> bool:
    """Whether a handler may fail with this exception.

    It may if the exception is planned, or if a client vanishes or reads nothing while
    the handler sends to it.
    """
    if isinstance(exc, BaseExceptionGroup):
        return all(map(is_planned, exc.exceptions))
    return isinstance(exc, (Planned, ConnectionClosedError, BufferFullError))


@attrs.frozen
class Call:
    """A request that is being answered."""

    request: Request
    half: WebSocket
    """The handler's half."""
    n: int
    code: int
    accept: Callable[..., None]
    """Accepts the half, and counts it."""

    def start(self, task: Callable[[], Awaitable[object]]) -> None:
        """Run a task until the connection ends."""
        self.request.nursery.start_soon(task)


Behaviour = Callable[[Call], None]


def echo(call: Call) -> None:
    """Echo every message."""
    half = call.half

    @half.on("message")
    def answer(event: MessageEvent) -> None:
        half.send(event.data)

    call.accept()


def drain(call: Call) -> None:
    """Echo every message, and wait until the client has read it."""
    half = call.half

    @half.on("message")
    async def answer(event: MessageEvent) -> None:
        half.send(event.data)
        await half.drain()

    call.accept()


def pull(call: Call, pause: float = 0) -> None:
    """Echo every message, by iteration."""
    half = call.half

    async def answer() -> None:
        try:
            await trio.sleep(pause)
            async for message in half:
                half.send(message)
                await half.drain()
                await trio.sleep(pause)
        except ConnectionClosedError:
            pass  # The client may vanish at any moment.
        finally:
            # Close the half: more messages may arrive, and this task won't pull them.
            await half.aclose()

    call.accept(pull=True)
    call.start(answer)


def later(call: Call) -> None:
    """Echo every message, but accept the half only after a moment."""

    async def take() -> None:
        await trio.sleep(MOMENT)
        echo(call)

    call.start(take)


def slow(call: Call) -> None:
    """Wait a moment for each message, without an answer."""

    @call.half.on("message")
    async def dawdle(event: MessageEvent) -> None:
        await trio.sleep(MOMENT)

    call.accept()


def relay(call: Call, upstream: WebSocket) -> None:
    """Pass messages on to another server, and its answers back."""

    def forward(source: WebSocket, target: WebSocket) -> None:
        @source.on("message")
        async def pass_on(event: MessageEvent) -> None:
            target.send(event.data)
            await target.drain()

        @source.on("close")
        def pass_close_on(event: CloseEvent) -> None:
            if event.code in (1005, 1006):
                target.close()
            else:
                target.close(event.code, event.reason)

    forward(call.half, upstream)
    forward(upstream, call.half)
    call.accept(allow_half_open=True)
    upstream.accept(allow_half_open=True)


def never(call: Call) -> None:
    """Leave the half unaccepted, and close it later."""

    async def give_up() -> None:
        await trio.sleep(PATIENCE)
        call.request.nursery.cancel_scope.cancel(reason="not needed")

    call.start(give_up)


def close(call: Call) -> None:
    """Close after some messages, or at once."""
    half, left = call.half, iter(range(call.n))

    @half.on("message")
    def count(event: MessageEvent) -> None:
        if next(left, None) is None:
            half.close(call.code, "that was enough")

    call.accept()
    half.send("welcome")
    if not call.n:
        half.close(call.code, "no time")


def aclose(call: Call) -> None:
    """Close in a task, after a moment, and wait for the end."""

    async def end() -> None:
        await trio.sleep(MOMENT * call.n)
        await call.half.aclose(call.code)

    call.accept()
    call.start(end)


def fail(call: Call) -> None:
    """Fail in a listener, after some messages."""
    left = iter(range(call.n))

    @call.half.on("message")
    def count(event: MessageEvent) -> None:
        if next(left, None) is None:
            raise Planned

    call.accept()


def fail_late(call: Call) -> None:
    """Fail in an async listener, after it has sent a message."""

    @call.half.on("message")
    async def answer(event: MessageEvent) -> None:
        call.half.send("before")
        await trio.sleep(MOMENT)
        raise Planned

    call.accept()


def fail_at_end(call: Call) -> None:
    """Fail in the close listener."""

    @call.half.on("close")
    async def fail_now(event: CloseEvent) -> None:
        await trio.lowlevel.checkpoint()
        raise Planned

    echo(call)


def fail_beside(call: Call) -> None:
    """Fail in a task that runs beside the listeners."""

    async def fail_soon() -> None:
        await trio.sleep(MOMENT * call.n)
        raise Planned

    echo(call)
    call.start(fail_soon)


def half_open(call: Call) -> None:
    """Send more messages after the client has closed."""
    half = call.half

    @half.on("close")
    async def send_the_rest(event: CloseEvent) -> None:
        await trio.sleep(MOMENT)
        try:
            half.send("the rest")
            half.close(call.code)
        except ConnectionClosedError:
            pass  # The client has vanished without a Close.

    call.accept(allow_half_open=True)


def flood(call: Call) -> None:
    """Send many large messages, as fast as the client reads."""

    async def send() -> None:
        try:
            for _ in range(20):
                call.half.send(bytes(2**16))
                await call.half.drain(2**17)
        except ConnectionClosedError:
            pass

    call.accept()
    call.start(send)


def overflow(call: Call) -> None:
    """Send more than fits into the buffer, without waiting."""
    call.accept()
    try:
        while True:
            call.half.send(bytes(2**16))
    except BufferFullError:
        call.half.close(call.code, "too slow")


def ping(call: Call) -> None:
    """Ping the client before each answer; a missing pong is no fault."""

    @call.half.on("message")
    async def measure_and_answer(event: MessageEvent) -> None:
        with suppress(ConnectionClosedError), trio.move_on_after(MOMENT):
            await call.half.ping()
        call.half.send(event.data)

    call.accept()


BEHAVIOURS: Final[dict[str, Behaviour]] = {
    "echo": echo,
    "drain": drain,
    "pull": pull,
    "pull-slowly": partial(pull, pause=MOMENT),
    "later": later,
    "slow": slow,
    "never": never,
    "close": close,
    "aclose": aclose,
    "fail": fail,
    "fail-late": fail_late,
    "fail-at-end": fail_at_end,
    "fail-beside": fail_beside,
    "half-open": half_open,
    "flood": flood,
    "overflow": overflow,
    "ping": ping,
}
ECHOES: Final = ["echo", "drain", "pull", "pull-slowly", "later", "ping"]

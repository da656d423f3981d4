"""What an object does with its events: calling it, and the log of what it raises."""

import contextlib
import logging
import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final, Protocol, cast

from trio.lowlevel import disable_ki_protection

from trio_wspair._http.messages import Request, Response
from trio_wspair._pair.delivery import Event
from trio_wspair._pair.websocket import ErrorEvent, MessageEvent, WebSocket
from trio_wspair._rules.errors import DurableObjectResetError
from trio_wspair._rules.state import End
from trio_wspair._tasks.nurseries import bare, failure_in, hides_failure

__all__ = ("Handlers", "call_fetch", "call_handler", "log_failure", "target_of")

_logger: Final = logging.getLogger("trio_wspair")


class Handlers(Protocol):
    """What an object does with its events."""

    async def fetch(self, request: Request) -> Response:
        """Answer a request."""
        ...

    def web_socket_message(
        self, ws: WebSocket, message: str | bytes
    ) -> Awaitable[None] | None:
        """Take a message."""
        ...

    def web_socket_close(
        self,
        ws: WebSocket,
        code: int,
        reason: str,
        was_clean: bool,  # noqa: FBT001 - as in Workers
    ) -> Awaitable[None] | None:
        """Take the end of a socket."""
        ...

    def web_socket_error(
        self, ws: WebSocket, error: Exception
    ) -> Awaitable[None] | None:
        """Take the end of a socket whose peer broke the protocol."""
        ...


def target_of(event: Event) -> WebSocket:
    """Return the half that an event is about."""
    assert event.target is not None
    return event.target


@disable_ki_protection
async def call_fetch(handlers: Handlers, request: Request) -> object:
    """Let an object answer a request.

    Raises:
        TypeError: Its `fetch()` is not async.
    """
    awaitable: object = handlers.fetch(request)
    if not isinstance(awaitable, Awaitable):
        msg = "fetch must be an async method: async def fetch(self, request): ..."
        raise TypeError(msg)
    return await awaitable


@disable_ki_protection
async def call_handler(
    handlers: Handlers, event: Event, on_wait: Callable[[], object]
) -> None:
    """Let an object take an event; call `on_wait` when its handler waits first."""
    socket = target_of(event)
    match event:
        case MessageEvent():
            awaitable = handlers.web_socket_message(socket, event.data)
        case ErrorEvent():
            awaitable = handlers.web_socket_error(socket, event.error)
        case _:
            awaitable = handlers.web_socket_close(
                socket, event.code, event.reason, event.was_clean
            )
    if isinstance(awaitable, Awaitable):
        await _telling_wait(awaitable, on_wait)


@types.coroutine
def _telling_wait(
    awaitable: Awaitable[object], on_wait: Callable[[], object]
) -> Generator[Any, Any, None]:
    """Await something; call `on_wait` in the moment in which it waits first."""
    # As `yield from` does it (PEP 380): Trio sends a value, or throws.
    steps = awaitable.__await__()
    with contextlib.suppress(StopIteration):
        waits_for = next(steps)
        on_wait()
        while True:
            try:
                value = yield waits_for
            except BaseException as exc:  # noqa: BLE001, ASYNC103 - thrown into it
                waits_for = steps.throw(exc)
            else:
                waits_for = steps.send(value)


def log_failure(
    exc: BaseException, label: str, what: str, end: End | None = None
) -> None:
    """Log what an object has raised, and raise the rest: `Cancelled` and the like.

    Both come in one group if tasks of it were cancelled and one failed over that. What
    says only that the peer of the socket has ended like this is no failure. A reset was
    logged where it was made.
    """
    if isinstance(exc, DurableObjectResetError) and not hides_failure(exc):
        return
    errors: Exception | None = None
    others: BaseException | None = None
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        errors, others = group.split(Exception)
    elif isinstance(exc, Exception):
        errors = exc
    else:
        others = exc
    if errors is not None:
        facts = {"object": label}
        left = failure_in(errors, end)
        if left is None:
            message = "%s of %s has ended with its client: %s"
            _logger.debug(message, what, label, bare(errors), extra=facts)
        else:
            message = "%s of %s failed"
            _logger.error(message, what, label, exc_info=left, extra=facts)
    if others is not None:
        raise others

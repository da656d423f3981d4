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
        """Handle a message."""
        ...

    def web_socket_close(
        self,
        ws: WebSocket,
        code: int,
        reason: str,
        was_clean: bool,  # noqa: FBT001 - as in Workers
    ) -> Awaitable[None] | None:
        """Handle the end of a socket."""
        ...

    def web_socket_error(
        self, ws: WebSocket, error: Exception
    ) -> Awaitable[None] | None:
        """Handle the end of a socket whose peer broke the protocol."""
        ...


def target_of(event: Event) -> WebSocket:
    """Return the half that has received an event."""
    assert event.target is not None
    return event.target


@disable_ki_protection
async def call_fetch(handlers: Handlers, request: Request) -> object:
    """Let an object answer a request.

    Raises:
        TypeError: The object's `fetch()` is not async.
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
    """Call the handler of an event; call `on_wait` when the handler first waits."""
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
        await _await_and_report(awaitable, on_wait)


@types.coroutine
def _await_and_report(
    awaitable: Awaitable[object], on_wait: Callable[[], object]
) -> Generator[Any, Any, None]:
    """Await something; call `on_wait` at its first checkpoint that waits."""
    # Like `yield from` (PEP 380): Trio sends a value, or throws an exception.
    steps = awaitable.__await__()
    with contextlib.suppress(StopIteration):
        trap = next(steps)
        on_wait()
        while True:
            try:
                value = yield trap
            except BaseException as exc:  # noqa: BLE001, ASYNC103 - thrown into it
                trap = steps.throw(exc)
            else:
                trap = steps.send(value)


def log_failure(
    exc: BaseException, label: str, what: str, end: End | None = None
) -> None:
    """Log the errors that an object has raised; raise the rest, such as `Cancelled`.

    One group has both if the tasks of a handler were cancelled and one of them then
    failed. An error that only reports the end of the socket is logged for debugging
    only. A reset is not logged here: the caller of `reset()` logs the reason.

    Args:
        exc: What was raised.
        label: The object's name in the log.
        what: What has raised it, such as ``web_socket_message()``.
        end: How the socket of the handler has ended, if it has.
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
            message = "%s of %s ended because its client has closed: %s"
            _logger.debug(message, what, label, bare(errors), extra=facts)
        else:
            message = "%s of %s failed"
            _logger.error(message, what, label, exc_info=left, extra=facts)
    if others is not None:
        raise others

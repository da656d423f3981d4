"""What an object does with its events, and calling that."""

import contextlib
import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Protocol

from trio.lowlevel import disable_ki_protection

from trio_wspair._http.messages import Request, Response
from trio_wspair._pair.delivery import Event
from trio_wspair._pair.websocket import ErrorEvent, MessageEvent, WebSocket

__all__ = ("Handlers", "call_fetch", "call_handler", "target_of")


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

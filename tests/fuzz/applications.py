"""Applications that use a half in different ways, and the events that they get."""

from collections.abc import Callable
from contextlib import suppress
from typing import Literal, get_args

import attrs
import trio

from trio_wspair import (
    CloseEvent,
    ConnectionClosedError,
    ErrorEvent,
    MessageEvent,
    ReadyState,
    WebSocket,
)

ApplicationName = Literal["listener", "async listener", "half-open", "closer", "puller"]
APPLICATIONS: tuple[ApplicationName, ...] = get_args(ApplicationName)

LAST_MESSAGE = "the rest"
"""The message that the half-open application sends after the peer's Close."""
OWN_CODE = 4321
"""The close code of the applications that close themselves."""


@attrs.frozen
class Observed:
    """The events that an application got from its half."""

    heard: list[str | bytes | ErrorEvent | CloseEvent] = attrs.Factory(list)
    raised: list[int] = attrs.Factory(list)
    """The close codes of the errors that iteration raised."""


def take(name: ApplicationName, socket: WebSocket, nursery: trio.Nursery) -> Observed:
    """Accept a half; return a record of its events."""
    observed = Observed()
    if name == "puller":
        socket.accept(pull=True)
        nursery.start_soon(pull, socket, observed)
        return observed
    socket.add_event_listener(
        "message", lambda event: observed.heard.append(event.data)
    )
    socket.add_event_listener("error", observed.heard.append)
    socket.add_event_listener("close", observed.heard.append)
    LISTENERS[name](socket)
    socket.accept(allow_half_open=name == "half-open")
    return observed


async def pull(socket: WebSocket, observed: Observed) -> None:
    """Echo each message, and record the end."""
    try:
        async for message in socket:
            observed.heard.append(message)
            # After an error, the remaining messages can still be pulled.
            with suppress(ConnectionClosedError):
                socket.send(message)
    except ConnectionClosedError as exc:
        observed.raised.append(exc.code)
    observed.heard.append(await socket.wait_closed())


def echo(socket: WebSocket) -> None:
    """Echo each message."""

    @socket.on("message")
    def answer(event: MessageEvent) -> None:
        socket.send(event.data)


def echo_slowly(socket: WebSocket) -> None:
    """Echo each message, in a separate task."""

    @socket.on("message")
    async def answer(event: MessageEvent) -> None:
        await trio.lowlevel.checkpoint()
        with suppress(ConnectionClosedError):  # The half may have failed by now.
            socket.send(event.data)


def echo_and_more(socket: WebSocket) -> None:
    """Echo each message; answer the Close with a last message and a Close."""
    echo(socket)

    @socket.on("close")
    def finish(event: CloseEvent) -> None:
        if socket.ready_state is ReadyState.CLOSING:
            socket.send(LAST_MESSAGE)
            socket.close(OWN_CODE)


def close_at_once(socket: WebSocket) -> None:
    """Answer the first message with a Close."""

    @socket.on("message")
    def finish(event: MessageEvent) -> None:
        socket.close(OWN_CODE)


LISTENERS: dict[ApplicationName, Callable[[WebSocket], None]] = {
    "listener": echo,
    "async listener": echo_slowly,
    "half-open": echo_and_more,
    "closer": close_at_once,
}

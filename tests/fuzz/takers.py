"""Applications, as many kinds as there are: who takes a half, and what it hears."""

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

TakerName = Literal["listener", "async listener", "half-open", "closer", "puller"]
TAKERS: tuple[TakerName, ...] = get_args(TakerName)

LAST_WORDS = "the rest"
"""What the half-open one says after the Close of its peer."""
OWN_CODE = 4321
"""The Close of those who say one themselves."""


@attrs.frozen
class Taking:
    """What an application has heard of its half."""

    heard: list[str | bytes | ErrorEvent | CloseEvent] = attrs.Factory(list)
    raised: list[int] = attrs.Factory(list)
    """The codes that iteration has raised."""


def take(name: TakerName, socket: WebSocket, nursery: trio.Nursery) -> Taking:
    """Take a half; return what will be heard of it."""
    taking = Taking()
    if name == "puller":
        socket.accept(pull=True)
        nursery.start_soon(pull, socket, taking)
        return taking
    socket.add_event_listener("message", lambda event: taking.heard.append(event.data))
    socket.add_event_listener("error", taking.heard.append)
    socket.add_event_listener("close", taking.heard.append)
    LISTENERS[name](socket)
    socket.accept(allow_half_open=name == "half-open")
    return taking


async def pull(socket: WebSocket, taking: Taking) -> None:
    """Answer each message with itself, and note how it ends."""
    try:
        async for message in socket:
            taking.heard.append(message)
            with suppress(ConnectionClosedError):  # The rest can still be pulled.
                socket.send(message)
    except ConnectionClosedError as exc:
        taking.raised.append(exc.code)
    taking.heard.append(await socket.wait_closed())


def echo(socket: WebSocket) -> None:
    """Answer each message with itself."""

    @socket.on("message")
    def answer(event: MessageEvent) -> None:
        socket.send(event.data)


def echo_slowly(socket: WebSocket) -> None:
    """Answer each message with itself, in a task of its own."""

    @socket.on("message")
    async def answer(event: MessageEvent) -> None:
        await trio.lowlevel.checkpoint()
        with suppress(ConnectionClosedError):  # It may have failed meanwhile.
            socket.send(event.data)


def echo_and_more(socket: WebSocket) -> None:
    """Answer each message with itself, and the Close with last words and a Close."""
    echo(socket)

    @socket.on("close")
    def finish(event: CloseEvent) -> None:
        if socket.ready_state is ReadyState.CLOSING:
            socket.send(LAST_WORDS)
            socket.close(OWN_CODE)


def close_at_once(socket: WebSocket) -> None:
    """Answer the first message with a Close."""

    @socket.on("message")
    def finish(event: MessageEvent) -> None:
        socket.close(OWN_CODE)


LISTENERS: dict[TakerName, Callable[[WebSocket], None]] = {
    "listener": echo,
    "async listener": echo_slowly,
    "half-open": echo_and_more,
    "closer": close_at_once,
}

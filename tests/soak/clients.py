"""The clients of the soak test that use the library; they end in every possible way.

Each is a function of the connection to open and a random generator. It returns how the
connection ended, as a text for the report.
"""

import ssl
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import Any, Final

import attrs
import trio

from soak.behaviours import GRACE, Planned
from trio_wspair import (
    CloseEvent,
    MessageEvent,
    WebSocket,
    connect,
    open_websocket,
)

LIMITS: Final[dict[str, Any]] = {
    "close_grace": GRACE,
    "connect_timeout": 5.0,
    "ping_interval": 0.3,
    "ping_timeout": 0.5,
    "max_message_bytes": 2**18,
    "receive_buffer_bytes": 2**16,
}
CODES: Final = [1000, 1000, 1001, 1011, 3000, 4999]
SOON: Final = 0.03
"""The mean of the random waits of a client, in seconds."""


class WrongEchoError(Exception):
    """An echo differs from the message sent."""


@attrs.frozen
class Target:
    """A connection to open."""

    host: str
    port: int
    context: ssl.SSLContext | None
    """The TLS context, if any."""
    resource: str
    """The path and query."""
    echoes: bool
    """Whether the server echoes every message."""

    @property
    def url(self) -> str:
        """The URL of the connection."""
        scheme = "ws" if self.context is None else "wss"
        return f"{scheme}://{self.host}:{self.port}{self.resource}"

    @property
    def options(self) -> dict[str, Any]:
        """Options of `connect()` for all clients."""
        return {"ssl_context": self.context, **LIMITS}

    def open(self) -> AbstractAsyncContextManager[WebSocket]:
        """Connect for the block."""
        return open_websocket(self.url, **self.options)


Client = Callable[[Target, Random], Awaitable[str]]


def some_message(rng: Random) -> str | bytes:
    """Return a random message; most are short."""
    size = rng.choice([0, 5, 100, 5_000, 70_000])
    return "é" * size if rng.random() < 0.5 else rng.randbytes(size)


async def talk(target: Target, ws: WebSocket, rng: Random) -> None:
    """Send some messages, and wait a short time for an answer to each."""
    for _ in range(rng.randrange(1, 6)):
        message = some_message(rng)
        ws.send(message)
        answer = None
        with trio.move_on_after(1 if target.echoes else SOON):
            answer = await ws.receive()
        if target.echoes and answer is None:
            return
        if target.echoes and answer != message:
            raise WrongEchoError


def close_text(event: CloseEvent) -> str:
    """Return a close event as text."""
    return f"closed with {event.code}"


async def leave(target: Target, rng: Random) -> str:
    """Exchange messages, and leave the block."""
    async with target.open() as ws:
        await talk(target, ws, rng)
    return close_text(await ws.wait_closed())


async def raise_in_block(target: Target, rng: Random) -> str:
    """Exchange messages, and leave the block with an exception."""
    async with target.open() as ws:
        await talk(target, ws, rng)
        raise Planned


async def be_cancelled(target: Target, rng: Random) -> str:
    """Be cancelled at a random moment, perhaps while connecting."""
    with trio.move_on_after(rng.expovariate(1 / SOON)) as scope:
        async with target.open() as ws:
            while True:
                await talk(target, ws, rng)
    return "cancelled" if scope.cancelled_caught else "not cancelled in time"


async def close(target: Target, rng: Random) -> str:
    """Listen, send messages at once, and close with a random code."""
    async with trio.open_nursery() as nursery:
        ws = await connect(target.url, nursery=nursery, **target.options)
        heard: list[str | bytes] = []

        @ws.on("message")
        def keep(event: MessageEvent) -> None:
            heard.append(event.data)

        ws.accept(allow_half_open=rng.random() < 0.2)
        sent = [some_message(rng) for _ in range(rng.randrange(5))]
        for message in sent:
            ws.send(message)
        await trio.sleep(rng.expovariate(1 / SOON))
        ws.close(rng.choice(CODES), "enough")
        closed = await ws.wait_closed()
    if target.echoes and heard != sent[: len(heard)]:
        raise WrongEchoError
    return close_text(closed)


async def aclose(target: Target, rng: Random) -> str:
    """Close and wait for the end, sometimes with too short a timeout."""
    async with target.open() as ws:
        await talk(target, ws, rng)
        with trio.move_on_after(rng.choice([1, 0.01, 0])):
            await ws.aclose(rng.choice(CODES))
        return close_text(await ws.wait_closed())


async def lose_the_nursery(target: Target, rng: Random) -> str:
    """Cancel the nursery of the half, which may not have been accepted."""
    async with trio.open_nursery() as nursery:
        ws = await connect(target.url, nursery=nursery, **target.options)
        if rng.random() < 0.7:
            ws.accept()
            ws.send(some_message(rng))
        await trio.sleep(rng.expovariate(1 / SOON))
        nursery.cancel_scope.cancel(reason="that is planned")
    return "the nursery was cancelled"


async def fail(target: Target, rng: Random) -> str:
    """Raise an exception in a sync or async listener."""

    def refuse(event: MessageEvent | CloseEvent) -> None:
        raise Planned

    async def refuse_late(event: MessageEvent | CloseEvent) -> None:
        await trio.sleep(rng.expovariate(1 / SOON))
        raise Planned

    try:
        async with trio.open_nursery() as nursery:
            ws = await connect(target.url, nursery=nursery, **target.options)
            listener = rng.choice([refuse, refuse_late])
            if rng.random() < 0.5:
                ws.add_event_listener("message", listener)
            else:
                ws.add_event_listener("close", listener)
            ws.accept()
            ws.send("go on")
            await trio.sleep(rng.expovariate(1 / SOON))
            ws.close()
    except* Planned:
        pass
    return "a listener raised"


async def send_too_much(target: Target, rng: Random) -> str:
    """Send a message that is too large for the server."""
    async with target.open() as ws:
        ws.send(bytes(LIMITS["max_message_bytes"] + 1))
        with trio.move_on_after(1):
            while True:
                await ws.receive()
    return close_text(await ws.wait_closed())


async def take_too_little(target: Target, rng: Random) -> str:
    """Refuse the server's messages, because they are too large."""
    options = target.options | {"max_message_bytes": 1}
    async with open_websocket(target.url, **options) as ws:
        await talk(target, ws, rng)
    return close_text(await ws.wait_closed())


async def ping(target: Target, rng: Random) -> str:
    """Send pings while messages are exchanged; some pings are cancelled."""
    async with target.open() as ws, trio.open_nursery() as nursery:
        for _ in range(rng.randrange(1, 4)):
            nursery.start_soon(ws.ping)
        with trio.move_on_after(rng.expovariate(1 / SOON)):
            await talk(target, ws, rng)
            await ws.ping()
        nursery.cancel_scope.cancel(reason="that was enough")
    return close_text(await ws.wait_closed())


async def be_slow(target: Target, rng: Random) -> str:
    """Receive messages late, and only some of them."""
    async with target.open() as ws:
        for _ in range(rng.randrange(10)):
            ws.send(some_message(rng))
        await trio.sleep(rng.expovariate(1 / SOON) * 3)
        with trio.move_on_after(SOON):
            for _ in range(rng.randrange(10)):
                await ws.receive()
    return close_text(await ws.wait_closed())


CLIENTS: Final[list[Client]] = [
    leave,
    raise_in_block,
    be_cancelled,
    close,
    aclose,
    lose_the_nursery,
    fail,
    send_too_much,
    take_too_little,
    ping,
    be_slow,
]

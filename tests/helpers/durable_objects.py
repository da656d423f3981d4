"""What the tests of Durable Objects share: an object that notes all, and visitors."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from trio_wspair import Headers, Request, Response, WebSocket, WebSocketPair
from trio_wspair.hibernation import (
    DurableObject,
    DurableObjectNamespace,
    DurableObjectState,
)

Handler = Callable[..., Awaitable[None]]


@attrs.define(eq=False)
class World:
    """What the rooms of a namespace get as `env`: it lasts, and sees everything."""

    built: int = 0
    log: list[object] = attrs.field(factory=list[object])
    on_build: Callable[["Room"], None] | None = None
    on_fetch: Callable[["Room", Request], Awaitable[Response | None]] | None = None
    on_message: Callable[["Room", WebSocket, str | bytes], Awaitable[None]] | None = (
        None
    )
    on_close: Callable[["Room", WebSocket], Awaitable[None]] | None = None


class Room(DurableObject):
    """Notes its events; what else it does is up to the test."""

    env: World

    def __init__(self, ctx: DurableObjectState, env: World) -> None:
        super().__init__(ctx, env)
        env.built += 1
        self.number = env.built
        if env.on_build is not None:
            env.on_build(self)

    async def fetch(self, request: Request) -> Response:
        """Join, unless the test does something else."""
        if self.env.on_fetch is not None:
            response = await self.env.on_fetch(self, request)
            if response is not None:
                return response
        return self.join(request.path.strip("/").split(","))

    def join(self, tags: list[str]) -> Response:
        """Accept a socket."""
        client, server = WebSocketPair()
        self.ctx.accept_web_socket(server, tags)
        return Response(None, status=101, web_socket=client)

    async def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
        """Note a message, with the number of the instance."""
        self.env.log.append((self.number, message))
        if self.env.on_message is not None:
            await self.env.on_message(self, ws, message)

    async def web_socket_close(
        self,
        ws: WebSocket,
        code: int,
        reason: str,
        was_clean: bool,
    ) -> None:
        """Note an end."""
        self.env.log.append((self.number, "close", code, reason, was_clean))
        if self.env.on_close is not None:
            await self.env.on_close(self, ws)

    def web_socket_error(self, ws: WebSocket, error: Exception) -> None:  # noqa: ARG002
        """Note a breach."""
        self.env.log.append((self.number, "error", type(error).__name__))


def asking(nursery: trio.Nursery, path: str = "/") -> Request:
    """Return a request."""
    return Request(
        method="GET", url=f"http://room{path}", headers=Headers(), nursery=nursery
    )


@attrs.frozen
class House:
    """A namespace with one room in it."""

    rooms: DurableObjectNamespace
    nursery: trio.Nursery
    world: World

    async def visit(self, path: str = "/visitor", name: str = "room") -> WebSocket:
        """Return the client half of a new socket of the room, for `receive()`."""
        response = await self.ask(path, name)
        assert response.web_socket is not None
        response.web_socket.accept(pull=True)
        return response.web_socket

    async def ask(self, path: str = "/ask", name: str = "room") -> Response:
        """Have the room answer a request."""
        stub = self.rooms.get_by_name(name)
        return await stub.fetch(asking(self.nursery, path))

    def evict(self, name: str = "room") -> None:
        """Let the room leave memory."""
        self.rooms.evict(self.rooms.id_from_name(name))


@asynccontextmanager
async def open_house(
    world: World | None = None, hibernate_after: float = 10.0
) -> AsyncGenerator[House, None]:
    """Open a namespace of rooms."""
    world = world or World()
    async with (
        trio.open_nursery() as nursery,
        DurableObjectNamespace(Room, world, hibernate_after) as rooms,
    ):
        yield House(rooms, nursery, world)


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged as a warning or worse, and forget it."""
    records = [r for r in caplog.records if r.levelno >= logging.WARNING]
    caplog.clear()
    return [record_text(record) for record in records]


def record_text(record: logging.LogRecord) -> str:
    """Return the message, and the exception that came with it."""
    error: Any = record.exc_info[1] if record.exc_info else None
    return record.getMessage() + (f" <- {error!r}" if error is not None else "")

"""A class of Durable Objects that logs its events, and a namespace for tests."""

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
    """The `env` of a namespace: it outlives the instances, and keeps their log."""

    built: int = 0
    log: list[object] = attrs.field(factory=list[object])
    on_build: Callable[["Room"], None] | None = None
    on_fetch: Callable[["Room", Request], Awaitable[Response | None]] | None = None
    on_message: Callable[["Room", WebSocket, str | bytes], Awaitable[None]] | None = (
        None
    )
    on_close: Callable[["Room", WebSocket], Awaitable[None]] | None = None


class Room(DurableObject):
    """Logs its events; a test adds behaviour through `World`."""

    env: World

    def __init__(self, ctx: DurableObjectState, env: World) -> None:
        super().__init__(ctx, env)
        env.built += 1
        self.number = env.built
        if env.on_build is not None:
            env.on_build(self)

    async def fetch(self, request: Request) -> Response:
        """Accept a WebSocket, unless `on_fetch` of the test returns a response."""
        if self.env.on_fetch is not None:
            response = await self.env.on_fetch(self, request)
            if response is not None:
                return response
        return self.join(request.path.strip("/").split(","))

    def join(self, tags: list[str]) -> Response:
        """Accept a WebSocket with these tags."""
        client, server = WebSocketPair()
        self.ctx.accept_web_socket(server, tags)
        return Response(None, status=101, web_socket=client)

    async def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
        """Log a message, with the number of the instance."""
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
        """Log a close event."""
        self.env.log.append((self.number, "close", code, reason, was_clean))
        if self.env.on_close is not None:
            await self.env.on_close(self, ws)

    def web_socket_error(self, ws: WebSocket, error: Exception) -> None:  # noqa: ARG002
        """Log an error event."""
        self.env.log.append((self.number, "error", type(error).__name__))


def new_request(nursery: trio.Nursery, path: str = "/") -> Request:
    """Return a new request."""
    return Request(
        method="GET", url=f"http://room{path}", headers=Headers(), nursery=nursery
    )


@attrs.frozen
class RoomNamespace:
    """A namespace of rooms, and shortcuts for the room named ``room``."""

    rooms: DurableObjectNamespace
    nursery: trio.Nursery
    world: World

    async def visit(self, path: str = "/visitor", name: str = "room") -> WebSocket:
        """Open a WebSocket to a room; return the client half, in pull mode."""
        response = await self.ask(path, name)
        assert response.web_socket is not None
        response.web_socket.accept(pull=True)
        return response.web_socket

    async def ask(self, path: str = "/ask", name: str = "room") -> Response:
        """Send a request to a room, and return the response."""
        stub = self.rooms.get_by_name(name)
        return await stub.fetch(new_request(self.nursery, path))

    def evict(self, name: str = "room") -> None:
        """Evict a room from memory."""
        self.rooms.evict(self.rooms.id_from_name(name))


@asynccontextmanager
async def open_namespace(
    world: World | None = None, hibernate_after: float = 10.0
) -> AsyncGenerator[RoomNamespace, None]:
    """Open a namespace of rooms."""
    world = world or World()
    async with (
        trio.open_nursery() as nursery,
        DurableObjectNamespace(Room, world, hibernate_after) as rooms,
    ):
        yield RoomNamespace(rooms, nursery, world)


def logged_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings and errors logged so far, and clear the log."""
    records = [r for r in caplog.records if r.levelno >= logging.WARNING]
    caplog.clear()
    return [record_text(record) for record in records]


def record_text(record: logging.LogRecord) -> str:
    """Return the message of a record, with its exception."""
    error: Any = record.exc_info[1] if record.exc_info else None
    return record.getMessage() + (f" <- {error!r}" if error is not None else "")

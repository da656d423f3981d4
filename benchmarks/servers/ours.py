"""trio-wspair: ``python -m benchmarks.servers.ours ENGINE echo|broadcast PORT``."""

import inspect
import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from benchmarks.broadcasting import broadcast
from trio_wspair import (
    CloseEvent,
    MessageEvent,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    serve,
)

DEFAULT_ENGINE = "trio-websocket"
"""The engine of the first versions, where `serve()` has no argument `engine`."""
MAX_BACKLOG = 2**14
"""How many bytes may wait for a client; a broadcast disconnects one with more."""


async def echo(_request: Request) -> Response:
    client, server = WebSocketPair()
    send = server.send

    @server.on("message")
    def answer(event: MessageEvent) -> None:
        send(event.data)

    server.accept()
    return Response(None, status=101, web_socket=client)


class Room:
    """Passes each message on to all connected clients."""

    def __init__(self) -> None:
        self.members: set[WebSocket] = set()

    async def fetch(self, _request: Request) -> Response:
        client, server = WebSocketPair(max_buffered_bytes=MAX_BACKLOG)

        @server.on("message")
        def pass_on(event: MessageEvent) -> None:
            broadcast(self.members, event.data)

        @server.on("close")
        def leave(_event: CloseEvent) -> None:
            self.members.discard(server)

        server.accept()
        self.members.add(server)
        return Response(None, status=101, web_socket=client)


def server(engine: str) -> Callable[..., Any]:
    """Return `serve()` with an engine."""
    options: dict[str, Any] = {"max_connections": 100_000, "ping_interval": math.inf}
    if "engine" in inspect.signature(serve).parameters:
        options["engine"] = engine
    elif engine != DEFAULT_ENGINE:
        sys.exit(f"this version has no engine {engine!r}")
    return partial(serve, **options)


if __name__ == "__main__":
    _, engine, app, port = sys.argv
    fetch = {"echo": echo, "broadcast": Room().fetch}[app]
    trio.run(server(engine), fetch, int(port))

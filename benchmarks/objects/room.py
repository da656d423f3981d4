"""The Durable Object that is measured, and the functions with which it is measured."""

import math
from collections.abc import Callable

from trio_wspair import Request, Response, WebSocket, WebSocketPair, broadcast
from trio_wspair.hibernation import (
    DurableObject,
    DurableObjectNamespace,
    DurableObjectState,
)

__all__ = ("Handle", "Room", "broadcast_to_room", "echo", "rooms", "send_to_room")

Handle = Callable[[DurableObjectState, WebSocket, str | bytes], None]
"""Handles a message that an object has received."""


class Room(DurableObject):
    """Accepts every client, and calls its `env` for each message."""

    async def fetch(self, request: Request) -> Response:  # noqa: ARG002
        """Accept a client."""
        client, server = WebSocketPair()
        self.ctx.accept_web_socket(server)
        return Response(None, status=101, web_socket=client)

    def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
        """Call `env`."""
        handle: Handle = self.env
        handle(self.ctx, ws, message)


def rooms(handle: Handle, *, asleep: bool) -> DurableObjectNamespace:
    """Return a namespace; rooms that are asleep are in memory only during an event."""
    return DurableObjectNamespace(Room, handle, 0.0 if asleep else math.inf)


def echo(_ctx: DurableObjectState, ws: WebSocket, message: str | bytes) -> None:
    ws.send(message)


def broadcast_to_room(
    ctx: DurableObjectState, _ws: WebSocket, message: str | bytes
) -> None:
    broadcast(ctx.get_web_sockets(), message)


def send_to_room(ctx: DurableObjectState, _ws: WebSocket, message: str | bytes) -> None:
    for ws in ctx.get_web_sockets():
        ws.send(message)

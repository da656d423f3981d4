"""The object that is measured: others decide what it does with messages."""

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
"""Takes a message."""


class Room(DurableObject):
    """Takes every socket. What is done with messages is its `env`."""

    async def fetch(self, request: Request) -> Response:  # noqa: ARG002
        """Connect one more client."""
        client, server = WebSocketPair()
        self.ctx.accept_web_socket(server)
        return Response(None, status=101, web_socket=client)

    def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
        """Do what is wanted."""
        handle: Handle = self.env
        handle(self.ctx, ws, message)


def rooms(handle: Handle, *, asleep: bool) -> DurableObjectNamespace:
    """Return a namespace; those asleep are in memory only while something happens."""
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

"""Broadcasts a message to the members of a room, as a chat server does."""

from collections.abc import Callable, Iterable

import trio_wspair
from trio_wspair import BufferFullError, WebSocket, WebSocketError

__all__ = ("broadcast",)

Send = Callable[[Iterable[WebSocket], str | bytes], dict[WebSocket, WebSocketError]]


def _send_to_each(
    members: Iterable[WebSocket], message: str | bytes
) -> dict[WebSocket, WebSocketError]:
    skipped: dict[WebSocket, WebSocketError] = {}
    for member in members:
        try:
            member.send(message)
        except WebSocketError as error:
            skipped[member] = error
    return skipped


_send: Send = getattr(trio_wspair, "broadcast", _send_to_each)
"""`trio_wspair.broadcast()`; a loop in the first versions, which did not have it.

`benchmarks.compare` measures these versions, too.
"""


def broadcast(members: set[WebSocket], message: str | bytes) -> None:
    """Send to all members; remove members that have left or that read too slowly."""
    for member, error in _send(members, message).items():
        members.discard(member)
        if isinstance(error, BufferFullError):
            member.close(1008, "too slow")

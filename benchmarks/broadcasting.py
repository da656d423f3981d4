"""Sends a message to all members, as an application does that passes messages on."""

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
"""The first versions, with which a commit may be compared, have no `broadcast()`."""


def broadcast(members: set[WebSocket], message: str | bytes) -> None:
    """Send to all members. Remove those that have left, or read too slowly."""
    for member, error in _send(members, message).items():
        members.discard(member)
        if isinstance(error, BufferFullError):
            member.close(1008, "too slow")

"""`Watcher`: a page that looks on, and what it is told.

It says how much it knows, and is told what is new, once: then it has to ask again. So
nothing waits for a page that is slow, and nothing is queued for it.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import Any, Final

import attrs
import trio

from trio_wspair._pair.websocket import MessageEvent, WebSocket
from trio_wspair._rules.errors import ConnectionClosedError
from trio_wspair._rules.state import ReadyState

from ._connections import Connections
from ._frames import Frame

__all__ = ("Watcher",)

_PACE: Final = 0.1
"""Seconds between two updates at least."""
_CONNECTIONS: Final = 200
_FRAMES: Final = 200
_BYTES: Final = 2**18
"""About what an update has of each, and of payloads."""


@attrs.frozen
class _Question:
    """What a page knows already."""

    revision: int
    connection: int | None
    """The one whose frames it shows."""
    after: int
    """The number of the last frame that it has."""


class Watcher:
    """A page.

    Args:
        socket: The half that talks to it.
        connections: What it wants to know of.
    """

    def __init__(self, socket: WebSocket, connections: Connections) -> None:
        self._socket = socket
        self._connections = connections
        self._question: _Question | None = None
        socket.add_event_listener("message", self._hear)
        socket.accept()

    def _hear(self, event: MessageEvent) -> None:
        self._question = _question_in(event.data)
        if self._question is None:
            self._socket.close(1008, "this is no question")
        self._connections.wake()

    async def run(self) -> None:
        """Tell the page what is new, until it has left."""
        with suppress(ConnectionClosedError):
            while self._socket.ready_state is ReadyState.OPEN:
                update = self._update()
                if update is None:
                    await self._connections.wait_change()
                else:
                    self._question = None
                    self._socket.send(json.dumps(update))
                    await self._socket.drain()
                    await trio.sleep(_PACE)

    def _update(self) -> dict[str, Any] | None:
        """Return the answer to what the page asks, once there is something new."""
        asked, all_ = self._question, self._connections
        if asked is None:
            return None
        changed = [w for w in all_.by_id.values() if w.revision > asked.revision]
        changed.sort(key=lambda watched: watched.revision)
        told = changed[:_CONNECTIONS]
        complete = len(told) == len(changed)
        update: dict[str, Any] = {
            "revision": all_.revision if complete else told[-1].revision,
            "connections": [watched.as_json() for watched in told],
        }
        if all_.forgotten > asked.revision:
            update["ids"] = list(all_.by_id)
        watched = all_.by_id.get(asked.connection or 0)
        if watched is not None:
            frames = _some(f for f in watched.history if f.number > asked.after)
            update["of"] = asked.connection
            update["frames"] = [frame.as_json() for frame in frames]
        return update if told or update.get("frames") or "ids" in update else None


def _question_in(text: str | bytes) -> _Question | None:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    match fields:
        case {
            "revision": int(revision),
            "connection": int() | None as connection,
            "after": int(after),
        }:
            return _Question(revision, connection, after)
        case _:
            return None


def _some(frames: Iterable[Frame]) -> list[Frame]:
    """Return the first of these, as many as an update has room for."""
    chosen: list[Frame] = []
    room = _BYTES
    for frame in islice(frames, _FRAMES):
        chosen.append(frame)
        room -= len(frame.data)
        if room < 0:
            break
    return chosen

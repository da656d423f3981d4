"""`Connections`: the instrument that watches, and all that it knows.

Is called in the midst of things: it notes what has happened, and wakes who waits for
news. Who that is, it does not know.
"""

from collections import deque
from typing import Final

import trio

from trio_wspair._pair.instruments import ConnectionInfo, Instrument
from trio_wspair._pair.verbs import half_of
from trio_wspair._pair.websocket import CloseEvent, WebSocket
from trio_wspair._rules.codes import Close

from ._frames import Frames
from ._watched import Watched

__all__ = ("Connections",)

_FRAMES_OF_ONE: Final = 500
_BYTES_OF_ALL: Final = 2**25
_MOST_OVER: Final = 100
"""So many connections are remembered after their end."""
_SECONDS: Final = 0.5
"""Between two looks at what nobody tells of."""


class Connections(Instrument):
    """All connections that are open, and those that were closed last."""

    def __init__(self) -> None:
        self.by_id: dict[int, Watched] = {}
        """In the order in which they were opened."""
        self.revision = 1
        """Counts the changes."""
        self.forgotten = 1
        """The revision in which one was forgotten last."""
        self._by_socket: dict[WebSocket, Watched] = {}
        """Those that are not over."""
        self._over: deque[Watched] = deque()
        self._frames = Frames(_FRAMES_OF_ONE, _BYTES_OF_ALL)
        self._changed: trio.Event | None = None
        self._stopped = False

    # -- as an instrument -----------------------------------------------------------

    def connected(self, ws: WebSocket, connection: ConnectionInfo) -> None:
        """See `Instrument`."""
        if not self._stopped:
            watched = Watched(connection, self._frames)
            self.by_id[connection.id] = self._by_socket[ws] = watched
            watched.look(ws)
            self._note(watched)

    def sent(self, ws: WebSocket, message: str | bytes) -> None:
        """See `Instrument`."""
        watched = self._by_socket.get(ws)
        if watched is not None:
            watched.message_came(message)
            self._note(watched)

    def received(self, ws: WebSocket, message: str | bytes) -> None:
        """See `Instrument`."""
        watched = self._by_socket.get(ws)
        if watched is not None:
            watched.message_went(message)
            if half_of(ws).inbox.weight == 0:
                watched.close_went()
            self._note(watched)

    def close_sent(self, ws: WebSocket, code: int, reason: str) -> None:
        """See `Instrument`."""
        watched = self._by_socket.get(ws)
        if watched is not None:
            watched.close_came(Close(code, reason))
            watched.look(ws)
            self._note(watched)

    def closed(
        self,
        ws: WebSocket,
        event: CloseEvent,
        error: Exception | None,  # noqa: ARG002 - looked for with the rest
    ) -> None:
        """See `Instrument`."""
        watched = self._by_socket.get(ws)
        if watched is not None:
            if event.was_clean:
                watched.close_goes(Close(event.code, event.reason))
                if half_of(ws).inbox.weight == 0:
                    watched.close_went()
            watched.look(ws)
            self._note(watched)

    # -- what nobody tells of ---------------------------------------------------------

    async def keep_looking(self) -> None:
        """Look at every connection now and then, until cancelled."""
        while True:
            await trio.sleep(_SECONDS)
            for ws, watched in list(self._by_socket.items()):
                if watched.look(ws):
                    self._note(watched)
                if half_of(ws).state.released:
                    self._let_go(ws, watched)

    def stop(self) -> None:
        """Hear no more of what goes on, and let go of it."""
        self._stopped = True
        self._by_socket.clear()

    def _let_go(self, ws: WebSocket, watched: Watched) -> None:
        """Follow a connection no longer, and forget another one if need be."""
        del self._by_socket[ws]
        watched.close_went()
        self._note(watched)
        self._over.append(watched)
        if len(self._over) > _MOST_OVER:
            oldest = self._over.popleft()
            self._frames.forget(oldest.history)
            del self.by_id[oldest.info.id]
            self.forgotten = self.revision

    # -- news -----------------------------------------------------------------------

    def _note(self, watched: Watched) -> None:
        self.revision += 1
        watched.revision = self.revision
        self.wake()

    def wake(self) -> None:
        """Wake everybody in `wait_change()`."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def wait_change(self) -> None:
        """Wait until something has changed, from now on."""
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

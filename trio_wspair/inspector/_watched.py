"""`Watched`: what is known of one connection.

Knows how the end of a connection is told, not who wants to know of it.
"""

import time
import traceback
from collections import deque
from typing import Any, Final

import attrs

from trio_wspair._pair.instruments import ConnectionInfo
from trio_wspair._pair.verbs import half_of
from trio_wspair._pair.websocket import WebSocket
from trio_wspair._rules.codes import Close, usv_string
from trio_wspair._rules.messages import size_of
from trio_wspair._rules.state import End, Failure, ReadyState

from ._frames import Frame, Frames, History, Kind, Way

__all__ = ("Watched",)

_LONGEST: Final = 1000
"""Characters of a URL, or of the text of an error."""


@attrs.define(slots=True)
class _Traffic:
    messages: int = 0
    bytes: int = 0
    buffered: int = 0


@attrs.define(slots=True, eq=False)
class Watched:
    """A connection that is open, or was.

    The methods that keep a frame are those of an instrument, which calls them.
    """

    info: ConnectionInfo
    frames: Frames
    """Where its frames are kept, among others."""
    history: History = attrs.Factory(deque[Frame])
    revision: int = 0
    """When something has changed last, by a count of all changes."""
    _since: float = attrs.Factory(time.time)
    _until: float | None = None
    _state: ReadyState = ReadyState.OPEN
    _protocol: str = ""
    _latency: float | None = None
    _incoming: _Traffic = attrs.Factory(_Traffic)
    _outgoing: _Traffic = attrs.Factory(_Traffic)
    _count: int = 0
    """How many frames there were."""
    _last: Close | None = None
    """Goes out after the messages that are on their way."""
    _end: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what a page is told, without the frames."""
        return {
            "id": self.info.id,
            "side": self.info.side,
            "peer": self.info.peer[:_LONGEST],
            "url": self.info.url[:_LONGEST],
            "protocol": self._protocol,
            "state": self._state.name.lower(),
            "since": self._since,
            "until": self._until,
            "in": attrs.asdict(self._incoming),
            "out": attrs.asdict(self._outgoing),
            "latency": self._latency,
            "close": self._end,
        }

    # -- frames ---------------------------------------------------------------------

    def message_came(self, message: str | bytes) -> None:
        """Keep a message that has come from the network."""
        self._keep_message("in", self._incoming, message)

    def message_went(self, message: str | bytes) -> None:
        """Keep a message that the network has taken."""
        self._keep_message("out", self._outgoing, message)

    def close_came(self, close: Close) -> None:
        """Keep a Close that has come from the network."""
        self._keep_close("in", close)

    def close_goes(self, close: Close) -> None:
        """Expect `close_went()` for this one: messages before it are on their way."""
        self._last = close

    def close_went(self) -> None:
        """Keep the Close that is out now, if there was one."""
        if self._last is not None:
            close, self._last = self._last, None
            self._keep_close("out", close)

    def _keep_message(self, way: Way, traffic: _Traffic, message: str | bytes) -> None:
        size = size_of(message)
        traffic.messages += 1
        traffic.bytes += size
        kind: Kind = "text" if isinstance(message, str) else "binary"
        self._keep(way, kind, message, size)

    def _keep_close(self, way: Way, close: Close) -> None:
        size = len(close.reason.encode())
        self._keep(way, "close", close.reason, size, close.code)

    def _keep(
        self,
        way: Way,
        kind: Kind,
        data: str | bytes,
        size: int,
        code: int | None = None,
    ) -> None:
        self._count += 1
        frame = Frame(self._count, time.time(), way, kind, data, size, code)
        self.frames.add(frame, self.history)

    # -- what nobody tells of ---------------------------------------------------------

    def look(self, socket: WebSocket) -> bool:
        """See how its half is, and return whether something has changed."""
        half = half_of(socket)
        before = self._seen()
        self._protocol = socket.protocol[:_LONGEST]
        self._latency = socket.latency
        self._incoming.buffered = socket.buffered_amount
        self._outgoing.buffered = half.inbox.buffered
        if self._state is not socket.ready_state:
            self._state = socket.ready_state
            if self._state is ReadyState.CLOSED:
                self._until = time.time()
                self._keep_end(half.outbox.end, half.peer.failure)
        return self._seen() != before

    def _seen(self) -> tuple[Any, ...]:
        buffered = self._incoming.buffered, self._outgoing.buffered
        return self._state, self._protocol, self._latency, buffered

    def _keep_end(self, end: End | None, failure: Failure | None) -> None:
        """Keep how the network has ended it, and what has failed on this side."""
        close = end if isinstance(end, Close) else Close(1006)
        if isinstance(end, Failure):
            self.close_went()  # If it did: nothing more will.
            failure = end
        error = "" if failure is None else _text_of(failure)
        self._end = {
            "code": close.code,
            "reason": close.reason,
            "clean": end is close,
            "error": error,
        }
        if error:
            code = 1006 if end is failure else None
            self._keep("", "error", error, len(error.encode()), code)


def _text_of(failure: Failure) -> str:
    text = failure.reason
    if failure.error is not None:
        # Not str(), which belongs to the user and may fail.
        text = "".join(traceback.format_exception_only(failure.error)).strip()
    return usv_string(text)[:_LONGEST]

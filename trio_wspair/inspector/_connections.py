"""The instrument of the inspector: connections and their last frames.

Its methods are called while WebSockets do their work, so they only store frames and
wake the tasks of the pages. Memory is bounded: per connection, per payload, and in
total. Knows nothing of pages and requests.

A watched half is one that was given to a connection. So the directions are reversed:
what this half "sends" to the other half was received from the network.
"""

import time
import traceback
from base64 import b64encode
from collections import OrderedDict, deque
from sys import getsizeof
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary, ref

import attrs
import trio

from trio_wspair._pair.instruments import ConnectionInfo, Instrument
from trio_wspair._pair.websocket import CloseEvent, WebSocket
from trio_wspair._rules.codes import Close, usv_string
from trio_wspair._rules.messages import size_of
from trio_wspair._rules.state import ReadyState

__all__ = ("Connections", "Frame", "Frames", "History", "Kind", "Watched", "Way")

Kind = Literal["text", "binary", "close", "error"]
"""The kind of a frame. ``"error"`` is a failure in place of a frame, and comes last."""
Way = Literal["in", "out", ""]
"""From the network, or to it; empty for an error."""

_FOLDED: Final = 2**14
"""The characters or bytes of a payload that are kept."""
_OVERHEAD: Final = 256
"""About the bytes of memory that a frame takes besides its payload."""


@attrs.define(slots=True, eq=False)
class Frame:
    """A frame that was received or sent."""

    number: int
    """Its number in its connection, starting at 1."""
    time: float
    """The time as given by `time.time()`."""
    way: Way
    kind: Kind
    data: str | bytes
    """The payload or its beginning; the reason of a Close; the text of an error."""
    size: int
    """The size of the whole payload in bytes."""
    code: int | None = None
    """The code of a Close; 1006 for an error without a closing handshake."""
    folded: bool = attrs.field(init=False)
    """Whether only the beginning of the payload is kept."""

    def __attrs_post_init__(self) -> None:
        self.folded = len(self.data) > _FOLDED
        if self.folded:
            self.data = self.data[:_FOLDED]

    @property
    def weight(self) -> int:
        """About the bytes of memory that it takes."""
        return getsizeof(self.data) + _OVERHEAD

    def as_json(self) -> dict[str, Any]:
        """Return the frame as it is sent to pages, with binary data in Base64."""
        fields = attrs.asdict(self)
        if isinstance(self.data, bytes):
            fields["data"] = b64encode(self.data).decode()
        return fields


History = deque[Frame]
"""The last frames of one connection."""


class Frames:
    """The frames of all connections, within bounds: the oldest ones are dropped.

    Args:
        most: The frames that are kept of each connection.
        most_bytes: About the bytes of memory that all frames may take.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self.weight = 0
        """About the bytes of memory that they take."""
        # In the order of arrival: the first of all is the first of its history.
        self._histories: OrderedDict[Frame, History] = OrderedDict()

    def add(self, frame: Frame, history: History) -> None:
        """Append a frame to its history, and drop old ones if there are too many."""
        history.append(frame)
        self._histories[frame] = history
        self.weight += frame.weight
        if len(history) > self._most:
            self._drop_first(history)
        while self.weight > self._most_bytes:
            self._drop_first(next(iter(self._histories.values())))

    def forget(self, history: History) -> None:
        """Drop a whole history."""
        while history:
            self._drop_first(history)

    def _drop_first(self, history: History) -> None:
        frame = history.popleft()
        del self._histories[frame]
        self.weight -= frame.weight


_LONGEST: Final = 1000
"""The most characters of a URL, or of the text of an error."""


@attrs.define(slots=True)
class _Traffic:
    messages: int = 0
    bytes: int = 0


@attrs.frozen
class _Sample:
    """The attributes of a connection that change without an event."""

    state: ReadyState = ReadyState.OPEN
    protocol: str = ""
    latency: float | None = None
    buffered_in: int = 0
    """The bytes that were received from the network, and that no reader has taken."""
    buffered_out: int = 0
    """The bytes that wait for the network."""


@attrs.define(slots=True, eq=False)
class Watched:
    """A connection, open or closed, and its last frames."""

    info: ConnectionInfo
    frames: Frames
    """The store of all frames."""
    history: History = attrs.Factory(deque[Frame])
    revision: int = 0
    """The number of its last change, among all changes."""
    _since: float = attrs.Factory(time.time)
    _until: float | None = None
    _sampled: _Sample = _Sample()
    _incoming: _Traffic = attrs.Factory(_Traffic)
    _outgoing: _Traffic = attrs.Factory(_Traffic)
    _count: int = 0
    """The number of frames so far."""
    _queued_close: Close | None = None
    """A Close to the network behind messages that are still queued."""
    _close_received: Close | None = None
    _failure: str | None = None
    """The first failure of the network or the application."""
    _network_failed: bool = False
    _end: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the connection as it is sent to pages, without the frames."""
        now = self._sampled
        return {
            "id": self.info.id,
            "side": self.info.side,
            "peer": self.info.peer[:_LONGEST],
            "url": self.info.url[:_LONGEST],
            "protocol": now.protocol,
            "state": now.state.name.lower(),
            "since": self._since,
            "until": self._until,
            "in": {**attrs.asdict(self._incoming), "buffered": now.buffered_in},
            "out": {**attrs.asdict(self._outgoing), "buffered": now.buffered_out},
            "latency": now.latency,
            "close": self._end,
        }

    # -- frames ---------------------------------------------------------------------

    def receive_message(self, message: str | bytes) -> None:
        """Keep a message from the network."""
        self._keep_message("in", self._incoming, message)

    def send_message(self, message: str | bytes) -> None:
        """Keep a message that the network has taken."""
        self._keep_message("out", self._outgoing, message)

    def receive_close(self, close: Close) -> None:
        """Keep a Close from the network."""
        self._close_received = close
        self._keep_close("in", close)

    def queue_close(self, close: Close) -> None:
        """Note a Close to the network, which is sent after the queued messages."""
        self._queued_close = close

    def send_close(self) -> None:
        """Keep the queued Close, if there is one: it is sent now."""
        if self._queued_close is not None:
            close, self._queued_close = self._queued_close, None
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

    # -- its state ------------------------------------------------------------------

    def fail(self, reason: str, error: Exception | None, *, by_network: bool) -> None:
        """Note a failure of the network, or of the application on this side."""
        if by_network and self._close_received is not None:
            return  # The connection has ended with a Close.
        if self._failure is None or by_network:
            self._failure = _text_of(reason, error)
            self._network_failed = by_network

    def sample(self, socket: WebSocket, queued: int) -> bool:
        """Read the attributes without events. Return whether any has changed.

        Args:
            socket: The half that the connection has taken.
            queued: The bytes that wait for the network.
        """
        before = self._sampled
        self._sampled = _Sample(
            state=socket.ready_state,
            protocol=socket.protocol[:_LONGEST],
            latency=socket.latency,
            buffered_in=socket.buffered_amount,
            buffered_out=queued,
        )
        has_closed = self._sampled.state is ReadyState.CLOSED
        if has_closed and before.state is not ReadyState.CLOSED:
            self._until = time.time()
            self._keep_end()
        return self._sampled != before

    def _keep_end(self) -> None:
        """Keep the Close from the network, and the failure if there was one."""
        close = self._close_received or Close(1006)
        if self._network_failed:
            self.send_close()  # Before the error, which is the last entry.
        error = self._failure or ""
        self._end = {
            "code": close.code,
            "reason": close.reason,
            "clean": self._close_received is not None,
            "error": error,
        }
        if error:
            code = 1006 if self._network_failed else None
            self._keep("", "error", error, len(error.encode()), code)


def _text_of(reason: str, error: Exception | None) -> str:
    if error is not None:
        # str() would call code of the application, which may raise.
        reason = "".join(traceback.format_exception_only(error)).strip()
    return usv_string(reason)[:_LONGEST]


_FRAMES_OF_ONE: Final = 500
_BYTES_OF_ALL: Final = 2**25
_MOST_OVER: Final = 100
"""The connections that are kept after their end."""
_SECONDS: Final = 0.5
"""The seconds between two samples."""


class Connections(Instrument):
    """All open connections, and the last ones that have closed."""

    def __init__(self) -> None:
        self.by_id: dict[int, Watched] = {}
        """In the order in which they were opened."""
        self.revision = 1
        """The number of changes."""
        self.forgotten = 1
        """The revision at which a connection was last forgotten."""
        self._others: WeakKeyDictionary[WebSocket, ref[WebSocket]] = WeakKeyDictionary()
        """The other half of the pair of each half."""
        self._queued: WeakKeyDictionary[WebSocket, int] = WeakKeyDictionary()
        """The number of messages that wait for a half."""
        self._by_socket: dict[WebSocket, Watched] = {}
        """The open connections, by the half that they have taken."""
        self._over: deque[Watched] = deque()
        self._frames = Frames(_FRAMES_OF_ONE, _BYTES_OF_ALL)
        self._changed: trio.Event | None = None
        self._stopped = False

    # -- as an instrument -----------------------------------------------------------

    def pair_made(self, first: WebSocket, second: WebSocket) -> None:
        """See `Instrument`."""
        self._others |= {first: ref(second), second: ref(first)}
        self._queued |= {first: 0, second: 0}

    def connected(self, ws: WebSocket, connection: ConnectionInfo) -> None:
        """See `Instrument`."""
        if not self._stopped:
            watched = Watched(connection, self._frames)
            self.by_id[connection.id] = self._by_socket[ws] = watched
            self._sample(ws, watched)
            self._note(watched)

    def sent(self, ws: WebSocket, message: str | bytes) -> None:
        """See `Instrument`."""
        other = self._other(ws)
        if other is not None:
            self._queued[other] += 1
        watched = self._by_socket.get(ws)
        if watched is not None:
            watched.receive_message(message)
            self._note(watched)

    def received(self, ws: WebSocket, message: str | bytes) -> None:
        """See `Instrument`."""
        self._queued[ws] -= 1
        watched = self._by_socket.get(ws)
        if watched is not None:
            watched.send_message(message)
            if self._queued[ws] == 0:
                watched.send_close()
            self._note(watched)

    def close_sent(self, ws: WebSocket, code: int, reason: str) -> None:
        """See `Instrument`."""
        watched = self._by_socket.get(ws)
        if watched is not None:
            watched.receive_close(Close(code, reason))
            self._sample(ws, watched)
            self._note(watched)

    def failed(self, ws: WebSocket, reason: str, error: Exception | None) -> None:
        """See `Instrument`."""
        watched = self._by_socket.get(ws)
        if watched is not None:
            watched.fail(reason, error, by_network=True)
            return
        other = self._other(ws)
        watched = self._by_socket.get(other) if other is not None else None
        if watched is not None:
            watched.fail(reason, error, by_network=False)

    def closed(
        self,
        ws: WebSocket,
        event: CloseEvent,
        error: Exception | None,  # noqa: ARG002 - failed() has it as well
    ) -> None:
        """See `Instrument`."""
        watched = self._by_socket.get(ws)
        if watched is not None:
            if event.was_clean:
                watched.queue_close(Close(event.code, event.reason))
                if self._queued[ws] == 0:
                    watched.send_close()
            self._sample(ws, watched)
            self._note(watched)

    def released(self, ws: WebSocket) -> None:
        """See `Instrument`."""
        watched = self._by_socket.get(ws)
        if watched is not None:
            self._sample(ws, watched)
            self._end(ws, watched)

    # -- changes without events -------------------------------------------------------

    async def keep_sampling(self) -> None:
        """Sample every connection twice a second, until cancelled."""
        while True:
            await trio.sleep(_SECONDS)
            for ws, watched in list(self._by_socket.items()):
                if self._sample(ws, watched):
                    self._note(watched)

    def _sample(self, ws: WebSocket, watched: Watched) -> bool:
        other = self._other(ws)
        return watched.sample(ws, 0 if other is None else other.buffered_amount)

    def _other(self, ws: WebSocket) -> WebSocket | None:
        other = self._others.get(ws)
        return None if other is None else other()

    def stop(self) -> None:
        """Ignore all further events, and drop the references to WebSockets."""
        self._stopped = True
        self._by_socket.clear()

    def _end(self, ws: WebSocket, watched: Watched) -> None:
        """Keep a connection that has ended; forget the oldest if there are many."""
        del self._by_socket[ws]
        watched.send_close()
        self._note(watched)
        self._over.append(watched)
        if len(self._over) > _MOST_OVER:
            oldest = self._over.popleft()
            self._frames.forget(oldest.history)
            del self.by_id[oldest.info.id]
            self.forgotten = self.revision

    # -- changes ----------------------------------------------------------------------

    def _note(self, watched: Watched) -> None:
        self.revision += 1
        watched.revision = self.revision
        self.wake()

    def wake(self) -> None:
        """Wake the tasks in `wait_change()`."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def wait_change(self) -> None:
        """Wait for the next change."""
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

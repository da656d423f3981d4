"""`Instrument`: who is told what WebSockets do, for traces, logs and tests.

Knows where in a half something happens. A pair that is made while no instrument is in
use consists of other classes, so that it costs nothing.
"""

import logging
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import Final, Literal

import attrs

from trio_wspair._rules.codes import Close
from trio_wspair._rules.display import redacted
from trio_wspair._rules.messages import Message
from trio_wspair._rules.state import End, Failure, HalfState, Holder, Operation

from .half import join
from .inbox import Inbox
from .verbs import Home, half_of
from .websocket import CloseEvent, WebSocket, close_event

__all__ = (
    "ConnectionInfo",
    "Instrument",
    "TakenBy",
    "join_watched",
    "tell_connected",
    "use_instrument",
)

TakenBy = Literal["application", "connection", "object"]
"""Who has taken a half: listeners or whoever pulls, a network connection, or a Durable
Object."""
_TAKEN_BY: Final[dict[Holder, TakenBy]] = {
    Holder.APPLICATION: "application",
    Holder.PULLER: "application",
    Holder.TRANSPORT: "connection",
    Holder.HIBERNATION: "object",
}
_logger: Final = logging.getLogger("trio_wspair")


@attrs.frozen
class ConnectionInfo:
    """A network connection, as an instrument and the log know it."""

    side: Literal["server", "client"]
    """Which side of it this process is."""
    peer: str
    """The host and port of the other side, as far as that is known."""
    url: str = attrs.field(repr=redacted)
    """The URL that was asked for, without userinfo; its query may have secrets."""
    id: int = attrs.field(init=False, factory=count(1).__next__)
    """Its number in this process."""

    @property
    def extra(self) -> dict[str, object]:
        """These facts as the `extra` of a log record.

        The number is `connection`; `url` is without userinfo and values of the query.
        """
        return {
            "connection": self.id,
            "side": self.side,
            "peer": self.peer,
            "url": redacted(self.url),
        }


class Instrument:
    """Is told what WebSockets do. Subclass it, and override what you want to know.

    In the manner of `trio.abc.Instrument`, and put to work by `use_instrument()`. The
    methods are called in the midst of things: they must not block, and may look at
    the WebSocket but not use its verbs. One that raises is logged, and its instrument
    is not called any more.

    What is received by a half that a connection has taken goes to the network, and
    what it sends comes from there.
    """

    def pair_made(self, first: WebSocket, second: WebSocket) -> None:
        """Two halves were made: by whoever wanted a pair, or by `connect()`."""

    def connected(self, ws: WebSocket, connection: ConnectionInfo) -> None:
        """A half that a connection has taken is joined with the network."""

    def taken(self, ws: WebSocket, by: TakenBy) -> None:
        """Somebody has taken a half."""

    def sent(self, ws: WebSocket, message: str | bytes) -> None:
        """A half has sent a message."""

    def received(self, ws: WebSocket, message: str | bytes) -> None:
        """A half is about to be told a message, or was."""

    def close_sent(self, ws: WebSocket, code: int, reason: str) -> None:
        """A half has sent its Close, or answered one. Code 1005 means none."""

    def closed(self, ws: WebSocket, event: CloseEvent, error: Exception | None) -> None:
        """A half has ended; listeners are about to be told. Comes once for each half.

        In half-open, it may still send.

        Args:
            ws: The half.
            event: Its close event.
            error: What its `error` event carries, if there is one.
        """


class _Guard:
    """An instrument that must not disturb."""

    def __init__(self, instrument: Instrument) -> None:
        self._instrument: Instrument | None = instrument

    def call(self, tell: Callable[[Instrument], None]) -> None:
        if self._instrument is None:
            return
        try:
            tell(self._instrument)
        except Exception:
            what = "the instrument %r has failed, and is not called any more"
            _logger.exception(what, self._instrument)
            self._instrument = None


_in_use: Final[ContextVar[tuple[_Guard, ...]]] = ContextVar("instruments", default=())


@contextmanager
def use_instrument(instrument: Instrument) -> Generator[None, None, None]:
    """Tell `instrument` about every pair that is made in the block.

    ``with use_instrument(tracer): await serve(...)``. It goes where context variables
    go: to tasks that are started in the block, too. A pair is watched to its end, even
    outside of the block. Blocks can be nested; then each is told.

    Raises:
        TypeError: It is not an `Instrument`.
    """
    if not isinstance(instrument, Instrument):
        msg = f"an instrument is an Instrument, not {type(instrument).__name__}"
        raise TypeError(msg)
    token = _in_use.set((*_in_use.get(), _Guard(instrument)))
    try:
        yield
    finally:
        _in_use.reset(token)


def join_watched(max_buffered_bytes: int, home: Home) -> tuple[WebSocket, WebSocket]:
    """Return the halves of a new pair, watched if an instrument is in use."""
    guards = _in_use.get()
    if not guards:
        states = HalfState(), HalfState()
        inboxes = Inbox(max_buffered_bytes), Inbox(max_buffered_bytes)
        first, second = join(states, inboxes)
        return WebSocket(first, home), WebSocket(second, home)
    probes = _Probe(guards), _Probe(guards)
    first, second = join(
        (_WatchedState(probe=probes[0]), _WatchedState(probe=probes[1])),
        (
            _WatchedInbox(max_buffered_bytes, owner=probes[0], sender=probes[1]),
            _WatchedInbox(max_buffered_bytes, owner=probes[1], sender=probes[0]),
        ),
    )
    sockets = WebSocket(first, home), WebSocket(second, home)
    for probe, socket in zip(probes, sockets, strict=True):
        probe.watch(socket)
    for guard in guards:
        guard.call(lambda instrument: instrument.pair_made(*sockets))
    return sockets


def tell_connected(socket: WebSocket, connection: ConnectionInfo) -> None:
    """Tell the instruments that watch a half of its connection."""
    state = half_of(socket).state
    if isinstance(state, _WatchedState):
        state.probe.tell(lambda i, ws: i.connected(ws, connection))


class _Probe:
    """Tells the instruments about one half."""

    def __init__(self, guards: tuple[_Guard, ...]) -> None:
        self._guards = guards
        self._socket: Callable[[], WebSocket | None] = lambda: None

    def watch(self, socket: WebSocket) -> None:
        # Weak: a half that nobody has taken is freed when its user drops it.
        self._socket = weakref.ref(socket)

    def tell(self, tell: Callable[[Instrument, WebSocket], None]) -> None:
        socket = self._socket()
        if socket is not None:
            for guard in self._guards:
                guard.call(lambda instrument: tell(instrument, socket))


@attrs.define(slots=True, eq=False)
class _WatchedState(HalfState):
    probe: _Probe = attrs.field(kw_only=True)

    def take(self, operation: Operation, *, half_open: bool = False) -> None:
        super().take(operation, half_open=half_open)
        self.probe.tell(lambda i, ws: i.taken(ws, _TAKEN_BY[self.holder]))

    def receive_close(self, close: Close) -> Close | None:
        before = self.end
        answer = super().receive_close(close)
        self._tell_end(before)
        return answer

    def fail(self, failure: Failure) -> bool:
        before = self.end
        alive = super().fail(failure)
        self._tell_end(before)
        return alive

    def _tell_end(self, before: End | None) -> None:
        end = self.end
        if before is None and end is not None:
            error = end.error if isinstance(end, Failure) else None
            self.probe.tell(lambda i, ws: i.closed(ws, close_event(ws), error))


class _WatchedInbox(Inbox):
    __slots__ = ("_owner", "_sender")

    def __init__(self, limit: int, *, owner: _Probe, sender: _Probe) -> None:
        super().__init__(limit)
        self._owner = owner
        self._sender = sender

    def put(self, message: Message, size: int, *, limited: bool = True) -> bool:
        lost = self.end is not None
        before = self.weight
        taken = super().put(message, size, limited=limited)
        if taken and not lost and self.weight > before:  # Else see `_bypass()`.
            self._sender.tell(lambda i, ws: i.sent(ws, message))
        return taken

    def _bypass(self, message: Message, act: Callable[[], None]) -> None:
        # Both before what the holder says to it.
        self._sender.tell(lambda i, ws: i.sent(ws, message))
        self._owner.tell(lambda i, ws: i.received(ws, message))
        super()._bypass(message, act)

    def put_end(self, end: End) -> None:
        new = self.end is None
        super().put_end(end)
        if new and isinstance(end, Close):
            self._sender.tell(lambda i, ws: i.close_sent(ws, end.code, end.reason))

    def take(self) -> Message:
        message = super().take()
        self._owner.tell(lambda i, ws: i.received(ws, message))
        return message

    def release(self, message: Message) -> None:
        super().release(message)
        self._owner.tell(lambda i, ws: i.received(ws, message))

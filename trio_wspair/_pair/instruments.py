"""`Instrument`: calls for each event in the life of a half, for traces and tests.

Knows the method of the state or of the inbox that causes each event. A pair that is
made while an instrument is in use consists of watched subclasses of both, which report
these events; other pairs consist of the plain classes, and cost nothing. Each event is
reported once:

| event | reported by |
|---|---|
| made, connected | `join_watched()`, `report_connected()` |
| taken, closed, discarded, released | the state of the half |
| sent, close_sent | the inbox that the half puts a message or a Close into |
| received | the half's own inbox, when the message is taken out |
| failed | the half's state, or the inbox into which a connection puts its failure |
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
    "report_connected",
    "use_instrument",
)

TakenBy = Literal["application", "connection", "object"]
"""The holder of a half: the application (with listeners or `receive()`), a network
connection, or a Durable Object."""
_TAKEN_BY: Final[dict[Holder, TakenBy]] = {
    Holder.APPLICATION: "application",
    Holder.PULLER: "application",
    Holder.TRANSPORT: "connection",
    Holder.HIBERNATION: "object",
}
_logger: Final = logging.getLogger("trio_wspair")


@attrs.frozen
class ConnectionInfo:
    """A network connection, as instruments and the log describe it."""

    side: Literal["server", "client"]
    """The side of the connection that this process is."""
    peer: str
    """The host and port of the other side, or less if less is known."""
    url: str = attrs.field(repr=redacted)
    """The requested URL without userinfo; its query may contain secrets."""
    id: int = attrs.field(init=False, factory=count(1).__next__)
    """Its number in this process."""

    @property
    def extra(self) -> dict[str, object]:
        """These facts as the `extra` of a log record.

        The number is `connection`; `url` lacks userinfo and the values of the query.
        """
        return {
            "connection": self.id,
            "side": self.side,
            "peer": self.peer,
            "url": redacted(self.url),
        }


class Instrument:
    """Receives every event in the life of WebSockets. Override the methods you need.

    Like `trio.abc.Instrument`; `use_instrument()` installs it. The methods are called
    while the WebSocket does its work: they must not block, and may read attributes of
    the WebSocket but not call its methods. When a method raises, the exception is
    logged, and this instrument is not called any more.

    A half that a connection has taken *receives* what goes to the network, and *sends*
    what comes from there.
    """

    def pair_made(self, first: WebSocket, second: WebSocket) -> None:
        """Two halves were made, by the application or by `connect()`."""

    def connected(self, ws: WebSocket, connection: ConnectionInfo) -> None:
        """A half that a connection has taken was joined with the network."""

    def taken(self, ws: WebSocket, by: TakenBy) -> None:
        """A half was taken: accepted, or given to a connection or an object."""

    def sent(self, ws: WebSocket, message: str | bytes) -> None:
        """A half has sent a message."""

    def received(self, ws: WebSocket, message: str | bytes) -> None:
        """A half has received a message. It may not have been dispatched yet."""

    def close_sent(self, ws: WebSocket, code: int, reason: str) -> None:
        """A half has sent a Close or answered one. Code 1005 stands for no code."""

    def failed(self, ws: WebSocket, reason: str, error: Exception | None) -> None:
        """A half has failed: it ends without a closing handshake. At most once.

        Args:
            ws: The half.
            reason: The reason, in a few words.
            error: The exception of its `error` event, if there is one.
        """

    def closed(self, ws: WebSocket, event: CloseEvent, error: Exception | None) -> None:
        """A half has ended; its close event comes next. Once for each half.

        A half-open half may still send.

        Args:
            ws: The half.
            event: Its close event.
            error: The exception of its `error` event, if there is one.
        """

    def discarded(self, ws: WebSocket, reason: str) -> None:
        """A half has ended before it was taken, and can't be taken any more."""

    def released(self, ws: WebSocket) -> None:
        """The last event of a half: its close was dispatched, or it was discarded."""


class _Guard:
    """An instrument whose exceptions are logged instead of raised."""

    def __init__(self, instrument: Instrument) -> None:
        self._instrument: Instrument | None = instrument

    def call(self, report: Callable[[Instrument], None]) -> None:
        if self._instrument is None:
            return
        try:
            report(self._instrument)
        except Exception:
            what = "the instrument %r has raised, and is not called any more"
            _logger.exception(what, self._instrument)
            self._instrument = None


_in_use: Final[ContextVar[tuple[_Guard, ...]]] = ContextVar("instruments", default=())


@contextmanager
def use_instrument(instrument: Instrument) -> Generator[None, None, None]:
    """Report every event of the pairs that are made in the block to `instrument`.

    ``with use_instrument(tracer): await serve(...)``. Tasks that are started in the
    block inherit it, like a context variable. A pair is watched to its end, even after
    the block. Blocks can be nested: each of their instruments is called.

    Raises:
        TypeError: `instrument` is not an `Instrument`.
    """
    if not isinstance(instrument, Instrument):
        msg = f"instrument must be an Instrument, not {type(instrument).__name__}"
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


def report_connected(socket: WebSocket, connection: ConnectionInfo) -> None:
    """Report to the instruments of a half that it was joined with a connection."""
    state = half_of(socket).state
    if isinstance(state, _WatchedState):
        state.probe.report(lambda i, ws: i.connected(ws, connection))


class _Probe:
    """Calls the instruments of one half."""

    def __init__(self, guards: tuple[_Guard, ...]) -> None:
        self._guards = guards
        self._socket: Callable[[], WebSocket | None] = lambda: None
        self._failed = False

    def watch(self, socket: WebSocket) -> None:
        # Weak: an untaken half is freed when the application drops it.
        self._socket = weakref.ref(socket)

    def report(self, report: Callable[[Instrument, WebSocket], None]) -> None:
        socket = self._socket()
        if socket is not None:
            for guard in self._guards:
                guard.call(lambda instrument: report(instrument, socket))

    def report_failure(self, failure: Failure) -> None:
        """Report the first failure."""
        if not self._failed:
            self._failed = True
            self.report(lambda i, ws: i.failed(ws, failure.reason, failure.error))


@attrs.define(slots=True, eq=False)
class _WatchedState(HalfState):
    probe: _Probe = attrs.field(kw_only=True)

    def take(self, operation: Operation, *, half_open: bool = False) -> None:
        super().take(operation, half_open=half_open)
        self.probe.report(lambda i, ws: i.taken(ws, _TAKEN_BY[self.holder]))

    def receive_close(self, close: Close) -> Close | None:
        before = self.end
        answer = super().receive_close(close)
        self._report_end(before)
        return answer

    def fail(self, failure: Failure) -> bool:
        before = self.end
        alive = super().fail(failure)
        if alive:
            self.probe.report_failure(failure)
        self._report_end(before)
        return alive

    def _report_end(self, before: End | None) -> None:
        end = self.end
        if before is None and end is not None:
            error = end.error if isinstance(end, Failure) else None
            self.probe.report(lambda i, ws: i.closed(ws, close_event(ws), error))

    def release(self, *, discarded: str | None = None) -> None:
        if self.released:
            return
        super().release()
        if discarded is not None:
            self.probe.report(lambda i, ws: i.discarded(ws, discarded))
        self.probe.report(lambda i, ws: i.released(ws))


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
        # If the weight is the same, `_bypass()` has reported the message.
        if taken and not lost and self.weight > before:
            self._sender.report(lambda i, ws: i.sent(ws, message))
        return taken

    def _bypass(self, message: Message, act: Callable[[], None]) -> None:
        # Both are reported before `act`, which may send an answer.
        self._sender.report(lambda i, ws: i.sent(ws, message))
        self._owner.report(lambda i, ws: i.received(ws, message))
        super()._bypass(message, act)

    def put_end(self, end: End) -> None:
        new = self.end is None
        super().put_end(end)
        if not new:
            return
        if isinstance(end, Close):
            self._sender.report(lambda i, ws: i.close_sent(ws, end.code, end.reason))
        else:  # The sender is a connection.
            self._sender.report_failure(end)

    def take(self) -> Message:
        message = super().take()
        self._owner.report(lambda i, ws: i.received(ws, message))
        return message

    def release(self, message: Message) -> None:
        super().release(message)
        self._owner.report(lambda i, ws: i.received(ws, message))

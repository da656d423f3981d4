"""What a coupling knows of its conversation, and how long it waits for the peer.

Knows time, and what a connection reports about its peer; does not know the messages.

Theory of operation: `Conversation` holds facts: the traffic in both directions, the
peer's Close, and the first failure. `PeerTimeouts` sends pings until a Close comes from
either side, and limits the time of the closing handshake. Between pings it has no
task: `Timers` calls `_start_ping()` and `_give_up_closing()` when they are due. A ping
and the wait for its pong run in two tasks of the nursery of the pumps. When a timeout
expires, the conversation fails, and this nursery is cancelled. Before a missing pong
does that, the bytes that are already in the socket are read, since the event loop may
have been blocked.
"""

import contextlib
import math

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from trio_wspair._pair.half import Half, unanswered
from trio_wspair._pair.verbs import half_of
from trio_wspair._pair.websocket import CloseEvent, WebSocket
from trio_wspair._rules.codes import Close
from trio_wspair._rules.errors import ConnectionClosedError, ProtocolError
from trio_wspair._rules.limits import Limits
from trio_wspair._rules.state import Failure
from trio_wspair._tasks.nurseries import let_unread_bytes_count
from trio_wspair._tasks.timers import Timers

from ._connection import Connection, SupportsPing, supports_ping

__all__ = (
    "Conversation",
    "PeerTimeouts",
)


@attrs.define(slots=True)
class Traffic:
    """The number of messages and bytes in one direction."""

    messages: int = 0
    bytes: int = 0

    def __str__(self) -> str:
        return f"{self.messages} messages ({self.bytes} bytes)"


@attrs.define(slots=True, eq=False)
class Conversation:
    """The facts about a conversation, which the pumps and `PeerTimeouts` share."""

    socket: WebSocket
    """The half that was given to the connection."""
    half: Half = attrs.field(init=False)
    """The internal object of this half."""
    received: Traffic = attrs.field(init=False, factory=Traffic)
    """The messages that the connection has received."""
    sent: Traffic = attrs.field(init=False, factory=Traffic)
    """The messages that the network has taken."""
    close_received: Close | None = attrs.field(init=False, default=None)
    """The peer's Close, once it has arrived."""
    failure: Failure | None = attrs.field(init=False, default=None)
    """The first failure."""

    def __attrs_post_init__(self) -> None:
        self.half = half_of(self.socket)

    def fail(self, failure: Failure) -> None:
        """Note a failure, and fail the other half unless it has received a Close."""
        self.failure = self.failure or failure
        self.half.outbox.put_end(failure)

    @property
    def protocol_error(self) -> ProtocolError | None:
        """The failure, if it is a violation of the protocol by the peer."""
        error = self.failure.error if self.failure is not None else None
        return error if isinstance(error, ProtocolError) else None

    @property
    def clean(self) -> bool:
        """Whether both sides have sent a Close."""
        return (
            self.close_received is not None
            and self.half.state.close_received is not None
        )

    def close_event(self) -> CloseEvent:
        """Return the close event for the end of the connection."""
        close = self.close_received
        if close is not None and self.clean:
            return CloseEvent(
                close.code, close.reason, was_clean=True, target=self.socket
            )
        reason = self.failure.reason if self.failure is not None else ""
        return CloseEvent(1006, reason, was_clean=False, target=self.socket)


@attrs.define(slots=True, eq=False)
class PeerTimeouts:
    """Limits the time without a sign of life, and the time of the closing handshake."""

    _conversation: Conversation
    _connection: Connection
    _limits: Limits
    _nursery: trio.Nursery = attrs.field(init=False)
    _timers: Timers = attrs.field(init=False)
    _pings: SupportsPing | None = attrs.field(init=False, default=None)
    _sends_pings: bool = attrs.field(init=False, default=False)
    """Whether pings are sent: the connection can, and neither side has sent a Close."""
    _waiting_for_pong: trio.CancelScope | None = attrs.field(init=False, default=None)
    """The cancel scope of the wait for a pong."""
    _reading_since: float = attrs.field(init=False, default=-math.inf)
    """The time when the last pause in reading ended; `math.inf` during a pause."""
    _closing: bool = attrs.field(init=False, default=False)
    """Whether the other half has sent a Close, which may still be in the queue."""
    deadline: float = attrs.field(init=False, default=math.inf)
    """The deadline of the closing handshake, once it has begun."""

    def start(self, nursery: trio.Nursery, timers: Timers) -> None:
        """Start. When a timeout expires, `nursery` is cancelled."""
        self._nursery = nursery
        self._timers = timers
        if supports_ping(self._connection):
            self._pings = self._connection
            self._conversation.half.link.ping = self._ping
            self._sends_pings = True
            timers.set(self._limits.ping_interval, self._start_ping)

    def stop(self) -> None:
        """Stop pings and timeouts."""
        self.stop_pings()
        self._timers.cancel(self._limits.close_grace, self._give_up_closing)

    def _give_up(self, failure: Failure, why: str) -> None:
        self._conversation.fail(failure)
        self._nursery.cancel_scope.cancel(reason=why)

    # -- the closing handshake ----------------------------------------------------

    def bound_closing(self) -> None:
        """Set the deadline of the closing handshake, when it begins. Idempotent."""
        if self._closing:
            return
        self._closing = True
        self.stop_pings()
        grace = self._limits.close_grace
        self.deadline = trio.current_time() + grace
        self._timers.set(grace, self._give_up_closing)

    def _give_up_closing(self) -> None:
        why = "the closing handshake took too long"
        self._give_up(unanswered(self._limits.close_grace), why)

    # -- signs of life ------------------------------------------------------------

    def pause(self) -> None:
        """Do not count the time until `resume()`: reading is paused."""
        self._reading_since = math.inf

    def resume(self) -> None:
        """Count the time again: reading goes on."""
        self._reading_since = trio.current_time()

    def stop_pings(self) -> None:
        """Send no more pings: a Close was sent or received."""
        self._sends_pings = False
        self._timers.cancel(self._limits.ping_interval, self._start_ping)
        if self._waiting_for_pong is not None:
            self._waiting_for_pong.cancel(reason="a Close was sent or received")

    def _start_ping(self) -> None:
        self._nursery.start_soon(self._ping_and_wait)

    @enable_ki_protection
    async def _ping_and_wait(self) -> None:
        """Ping, and wait for the pong, or for a Close from either side."""
        assert self._pings is not None
        if not self._sends_pings:
            return  # A Close came after this task was started.
        timeout = self._limits.ping_timeout
        pinged_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            self._waiting_for_pong = nursery.cancel_scope
            nursery.start_soon(self._ping_for, nursery)
            silent_since = pinged_at
            while True:
                await trio.sleep_until(silent_since + timeout)
                now = trio.current_time()
                await let_unread_bytes_count()
                # Any byte is a sign of life, and none is read during a pause.
                read = max(self._pings.heard_at, min(self._reading_since, now))
                silent_since = max(pinged_at, read)
                if not self._sends_pings:
                    break  # A Close came in time: the closing handshake has begun.
                if now >= silent_since + timeout:
                    error = TimeoutError(
                        f"the peer sent nothing for {timeout} s after a ping"
                    )
                    failure = Failure(str(error), error)
                    self._give_up(failure, "the peer does not answer")
        self._waiting_for_pong = None
        if self._sends_pings:
            self._timers.set(self._limits.ping_interval, self._start_ping)

    async def _ping_for(self, nursery: trio.Nursery) -> None:
        with contextlib.suppress(ConnectionClosedError):
            await self._ping()
            nursery.cancel_scope.cancel(reason="the peer has answered")

    async def _ping(self) -> float:
        """Return the round trip in seconds, and store it as the latency."""
        assert self._pings is not None
        latency = await self._pings.ping()
        self._conversation.half.link.latency = latency
        return latency

"""How long the peer is waited for: pings, and the bound on the closing handshake.

Knows time, and what a connection tells of its peer; no messages. Patience lost, the
conversation fails, and the nursery of the pumps is cancelled.
"""

import contextlib
import math

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from trio_wspair._pair.half import unanswered
from trio_wspair._rules.errors import ConnectionClosedError
from trio_wspair._rules.limits import Limits
from trio_wspair._rules.state import Failure
from trio_wspair._tasks.nurseries import let_unread_bytes_count
from trio_wspair._tasks.timers import Alarms

from ._connection import Connection, SupportsPing, supports_ping
from ._conversation import Conversation

__all__ = ("Patience",)


@attrs.define(slots=True, eq=False)
class Patience:
    """Waits for signs of life until a Close is said, and then for the answer."""

    _conversation: Conversation
    _connection: Connection
    _limits: Limits
    _nursery: trio.Nursery = attrs.field(init=False)
    _alarms: Alarms = attrs.field(init=False)
    _pings: SupportsPing | None = attrs.field(init=False, default=None)
    _watchful: bool = attrs.field(init=False, default=False)
    """There are pings, as nobody has said Close."""
    _asking: trio.CancelScope | None = attrs.field(init=False, default=None)
    """Around waiting for an answer to a ping."""
    _reads_since: float = attrs.field(init=False, default=-math.inf)
    """When the last pause in reading has ended; `math.inf` during one."""
    _closing: bool = attrs.field(init=False, default=False)
    """The other half has said Close, which may still be in the queue."""
    deadline: float = attrs.field(init=False, default=math.inf)
    """When the closing handshake has to be over, once it has begun."""

    def start(self, nursery: trio.Nursery, alarms: Alarms) -> None:
        """Begin, with the nursery to be cancelled in the end."""
        self._nursery = nursery
        self._alarms = alarms
        if supports_ping(self._connection):
            self._pings = self._connection
            self._conversation.half.link.ping = self._ping
            self._watchful = True
            alarms.set(self._limits.ping_interval, self._ask_for_life)

    def stop(self) -> None:
        """Wait for nothing more."""
        self.forget_pings()
        self._alarms.cancel(self._limits.close_grace, self._give_up_closing)

    def _give_up(self, failure: Failure, why: str) -> None:
        self._conversation.fail(failure)
        self._nursery.cancel_scope.cancel(reason=why)

    # -- the closing handshake ----------------------------------------------------

    def bound_closing(self) -> None:
        """Bound the closing handshake, which begins. Again, it changes nothing."""
        if self._closing:
            return
        self._closing = True
        self.forget_pings()
        grace = self._limits.close_grace
        self.deadline = trio.current_time() + grace
        self._alarms.set(grace, self._give_up_closing)

    def _give_up_closing(self) -> None:
        why = "the closing handshake took too long"
        self._give_up(unanswered(self._limits.close_grace), why)

    # -- signs of life ------------------------------------------------------------

    def pause(self) -> None:
        """Don't count the time until `resume()`: nothing is read meanwhile."""
        self._reads_since = math.inf

    def resume(self) -> None:
        """Count from now on."""
        self._reads_since = trio.current_time()

    def forget_pings(self) -> None:
        """Ask for life no more: a Close was said."""
        self._watchful = False
        self._alarms.cancel(self._limits.ping_interval, self._ask_for_life)
        if self._asking is not None:
            self._asking.cancel(reason="a Close was said")

    def _ask_for_life(self) -> None:
        self._nursery.start_soon(self._expect_life)

    @enable_ki_protection
    async def _expect_life(self) -> None:
        """Ping, and wait until the pong comes or a Close is said by anybody."""
        assert self._pings is not None
        if not self._watchful:
            return  # Since a moment ago: who was first is luck.
        timeout = self._limits.ping_timeout
        asked = trio.current_time()
        async with trio.open_nursery() as nursery:
            self._asking = nursery.cancel_scope
            nursery.start_soon(self._ping_for, nursery)
            since = asked
            while True:
                await trio.sleep_until(since + timeout)
                now = trio.current_time()
                await let_unread_bytes_count()
                # Any byte is a sign of life, and during a pause none is read.
                since = max(asked, self._pings.heard_at, min(self._reads_since, now))
                if not self._watchful:
                    break  # A Close was said in time: whether it is answered counts.
                if now >= since + timeout:
                    error = TimeoutError(
                        f"nothing was heard for {timeout} s after a ping"
                    )
                    failure = Failure(str(error), error)
                    self._give_up(failure, "the peer does not answer")
        self._asking = None
        if self._watchful:
            self._alarms.set(self._limits.ping_interval, self._ask_for_life)

    async def _ping_for(self, nursery: trio.Nursery) -> None:
        with contextlib.suppress(ConnectionClosedError):
            await self._ping()
            nursery.cancel_scope.cancel(reason="the peer has answered")

    async def _ping(self) -> float:
        """Measure the round trip, and keep it."""
        assert self._pings is not None
        latency = await self._pings.ping()
        self._conversation.half.link.latency = latency
        return latency

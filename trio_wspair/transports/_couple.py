"""`couple()`: a half on one side, a connection on the other, and the pumps between.

Knows the `Connection` protocol and halves, no network and no trio-websocket. What
the wire says is passed to the other half of the pair and back, Closes included;
only when one side fails is something said here.
"""

import contextlib
import contextvars
import math
from collections.abc import Generator, Sequence

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from trio_wspair._alarms import Alarms
from trio_wspair._batches import send_later
from trio_wspair._checks import check_limit, check_seconds
from trio_wspair._codes import Close
from trio_wspair._errors import ConnectionClosedError, ProtocolError
from trio_wspair._half import unanswered
from trio_wspair._inbox import Message, size_of
from trio_wspair._nurseries import let_others_clean_up
from trio_wspair._socket import CloseEvent, WebSocket, half_of
from trio_wspair._state import Act, End, Failure

from ._connection import (
    Connection,
    Item,
    SupportsPing,
    SupportsSendNow,
    answers_close,
    has_extensions,
    supports_ping,
    supports_send_now,
)

__all__ = ("Coupling", "Limits", "couple")

_BATCH_BYTES = 2**18
"""About what is taken from the inbox for one write."""


@attrs.frozen
class Limits:
    """How long a connection waits for its peer, and how much it holds.

    Raises:
        TypeError: An argument is of another type.
        ValueError: An argument is out of range.
    """

    close_grace: float = 5.0
    receive_buffer_bytes: int = 2**20
    ping_interval: float = 20.0
    ping_timeout: float = 20.0

    def __attrs_post_init__(self) -> None:
        check_seconds("close_grace", self.close_grace)
        check_limit("receive_buffer_bytes", self.receive_buffer_bytes)
        check_seconds("ping_interval", self.ping_interval)
        check_seconds("ping_timeout", self.ping_timeout)


async def couple(
    half: WebSocket,
    connection: Connection,
    *,
    close_grace: float = 5.0,
    receive_buffer_bytes: int = 2**20,
    ping_interval: float = 20.0,
    ping_timeout: float = 20.0,
) -> CloseEvent:
    """Join a half with a connection, until both have closed or one has failed.

    What arrives is sent to the other half of the pair, and what that half sends goes
    out. The connection is always ended in the end. Cancelled, it says Close 1001
    after what was sent before, and waits `close_grace` seconds for the answer.

    Always a checkpoint.

    Args:
        half: A half that nobody has accepted.
        connection: An open connection.
        close_grace: Seconds for the closing handshake, from our Close on.
        receive_buffer_bytes: Reading stops while the other half has so much that it
            has not taken.

        ping_interval: Seconds between two pings (RFC 6455, section 5.5.2), where the
            connection has them; `math.inf` for none.
        ping_timeout: Seconds in which something has to be heard after a ping, or the
            connection has failed. A pause in reading doesn't count.

    Returns:
        How the connection ended.

    Raises:
        InvalidStateError: The half was taken before.
        TypeError: An argument is of another type.
        ValueError: An argument is out of range.
    """
    limits = Limits(close_grace, receive_buffer_bytes, ping_interval, ping_timeout)
    return await Coupling(half, limits).run(connection)


@attrs.define(slots=True)
class Traffic:
    """What has passed in one direction."""

    messages: int = 0
    bytes: int = 0

    def __str__(self) -> str:
        return f"{self.messages} messages ({self.bytes} bytes)"


class Coupling:
    """A half that was given to a connection, which may still be on its way.

    Raises:
        InvalidStateError: The half was taken before.
    """

    def __init__(self, socket: WebSocket, limits: Limits) -> None:
        self.socket = socket
        self.half = half = half_of(socket)
        self._limits = limits
        self._running = False
        """It is being read, and tasks can be started."""
        self.received = Traffic()
        self.sent = Traffic()
        self._closing = False
        """The other half has said Close, which may still be in the queue."""
        self._asking: trio.CancelScope | None = None
        """Around waiting for an answer to a ping."""
        self._deadline = math.inf
        """When the closing handshake has to be over, once it has begun."""
        self._heard: Close | None = None
        self._failure: Failure | None = None
        self._write_failed = False
        self._written = trio.Event()
        """Nothing more is written: the end was, or writing has failed."""
        self._pings: SupportsPing | None = None
        self._sends_now: SupportsSendNow | None = None
        self._idle: trio.lowlevel.ParkingLot | None = None
        """Where the writer waits for something to send, if there is a writer."""
        self._held = False
        """The reader sends what is said to what it passes on."""
        self._under_way: list[Message] = []
        """Sent by the reader, and not taken by the network yet."""
        self._reads_since = -math.inf
        """When the last pause in reading has ended; `math.inf` during one."""
        half.state.take(Act.COUPLE)
        half.inbox.wake = self._wake

    # None of these tasks runs the user's code: Ctrl-C is for those that do.

    @enable_ki_protection
    async def run(
        self, connection: Connection, alarms: Alarms | None = None
    ) -> CloseEvent:
        """Pump until both sides have closed or one has failed; see `couple()`.

        Without `alarms` it keeps its own.
        """
        self._connection = connection
        if supports_ping(connection):
            self._pings = connection
            self.half.link.ping = self._ping
        if has_extensions(connection):
            self.half.link.extensions = connection.extensions
        if supports_send_now(connection):
            self._sends_now = connection
        finished = False
        try:
            async with trio.open_nursery() as nursery:
                if alarms is None:
                    alarms = Alarms()
                    nursery.start_soon(alarms.run)
                with self._tasks_in(nursery, alarms):
                    await self._read()
                nursery.cancel_scope.cancel(reason="the connection has ended")
            finished = True
        finally:  # Bounded by the grace, twice.
            await let_others_clean_up()  # noqa: ASYNC102 - shielded, two steps
            try:
                if not finished:
                    await self._say_goodbye()  # noqa: ASYNC102 - shielded
            finally:
                await self._end()  # noqa: ASYNC102 - shielded
        heard = self._heard
        if heard is not None and self.half.state.close_received is not None:
            return CloseEvent(
                heard.code, heard.reason, was_clean=True, target=self.socket
            )
        reason = self._failure.reason if self._failure is not None else ""
        return CloseEvent(1006, reason, was_clean=False, target=self.socket)

    @contextlib.contextmanager
    def _tasks_in(
        self, nursery: trio.Nursery, alarms: Alarms
    ) -> Generator[None, None, None]:
        """Start tasks in the nursery when they are needed, for the block."""
        self._nursery = nursery
        self._alarms = alarms
        self._running = True
        if self._pings is not None:
            alarms.set(self._limits.ping_interval, self._ask_for_life)
        if self.half.inbox.weight or self.half.inbox.end is not None:
            self._wake()
        try:
            yield
        finally:
            self._running = False
            self._forget_pings()
            alarms.cancel(self._limits.close_grace, self._give_up)

    def _stop_running(self, reason: str) -> None:
        self._nursery.cancel_scope.cancel(reason=reason)

    def _wake(self) -> None:
        if not self._running:
            return
        if self.half.inbox.end is not None and not self._closing:
            self._bound_closing()
        if self._held:
            return
        if self._sends_now is None or not send_later(self._send_now):
            self._wake_writer()

    def _wake_writer(self) -> None:
        """Have the writer look, which is started when it is needed first."""
        if self._idle is not None:
            self._idle.unpark()
            return
        self._idle = trio.lowlevel.ParkingLot()
        # An empty context: it does not matter who needs it first.
        contextvars.Context().run(self._nursery.start_soon, self._write)

    def stop(self, code: int, reason: str) -> None:
        """Say Close, after what is queued, as if the other half had."""
        self.half.inbox.put_end(Close(code, reason))

    # -- pumps ------------------------------------------------------------------

    @enable_ki_protection
    async def _read(self) -> None:
        """Pass on what arrives, until nothing more can."""
        outbox = self.half.outbox
        try:
            while True:
                self._pass_on(await self._connection.receive())
                if self._may_write_here():
                    await self._write()
                else:
                    self._send_now()
                if self._heard is not None and self.half.state.finished:
                    return
                if outbox.weight > self._limits.receive_buffer_bytes:
                    await self._wait_for_room()
        except ConnectionClosedError as exc:
            self._fail(Failure(exc.reason))
            if self._heard is not None:
                # It may still listen: the other half has some time to answer.
                with trio.move_on_after(self._limits.close_grace):
                    await self._written.wait()
        except ProtocolError as exc:
            # Its traceback would hold us in a cycle, until the collector comes.
            self._fail(Failure(str(exc), exc.with_traceback(None)))
            with trio.move_on_after(self._limits.close_grace):
                await self._wait_for_answers()

    def _pass_on(self, items: Sequence[Item]) -> None:
        """Let the other half take these, and send what it says to that.

        All of it in this task if it can be done without waiting: a task switch takes
        longer than most listeners.
        """
        taker = self.half.outbox.taker
        self._held = True
        if taker is not None:
            taker.hold()
        for item in items:
            if isinstance(item, Close):
                self._hear(item)
            else:
                size = size_of(item)
                self.received.messages += 1
                self.received.bytes += size
                self.half.deliver(item, size)
        if taker is not None:
            taker.serve()
        self._held = False

    def _may_write_here(self) -> bool:
        """Tell whether the reader can do what is left to be written.

        Nothing more is to be read, and there is no writer.
        """
        over = self._heard is not None and self.half.inbox.end is not None
        return over and self._running and self._idle is None

    def _send_now(self) -> None:
        """Send what is there to be sent; the writer does what has to be waited for."""
        if not self._running or (self._idle is not None and not self._idle):
            return  # The writer will see it.
        inbox = self.half.inbox
        if self._sends_now is not None and inbox.weight and inbox.end is None:
            messages, _ = self._take_batch()
            if self._sends_now.send_now(messages):
                self._release(messages)
            else:
                self._under_way = messages
        if inbox.weight or inbox.end is not None:
            self._wake_writer()
        else:
            inbox.marked = False

    def _hear(self, close: Close) -> None:
        """Pass the peer's Close on."""
        self._heard = close
        self._forget_pings()
        if answers_close(self._connection):
            self.half.peer.half_open = False
        if self.half.inbox.late:
            # The other half did not know of our Close, in stop().
            self._fail(Failure("what was sent last came too late"))
        self.half.say_close(close)

    async def _wait_for_answers(self) -> None:
        """Wait until the other half has heard all, and what it said to that is sent.

        What came before a breach of the protocol was good, and may be answered.
        """
        inbox = self.half.inbox
        while not self._write_failed and (inbox.weight or not self.half.peer.finished):
            await inbox.wait_release()

    async def _wait_for_room(self) -> None:
        outbox = self.half.outbox
        limit = self._limits.receive_buffer_bytes
        self._reads_since = math.inf
        while outbox.weight > limit and not self._write_failed:
            await outbox.wait_release()
        self._reads_since = trio.current_time()

    @enable_ki_protection
    async def _write(self) -> None:
        """Send what the other half says, until its end."""
        if self._idle is None:  # It is the reader that writes.
            self._idle = trio.lowlevel.ParkingLot()
        while True:
            await self._wait_for_items(self._idle)
            under_way, self._under_way = self._under_way, []
            messages, end = ([], None) if under_way else self._take_batch()
            failed = isinstance(end, Failure)
            try:
                # After a breach of the protocol it is our Close that tells of it.
                close = end if isinstance(end, Close) and not self._breach else None
                await self._send(messages, close)
            except ConnectionClosedError:
                # The reader finds out why, after all that has arrived. It waits for
                # nobody: who takes that may be waiting for us, in drain().
                self._write_failed = True
                self._written.set()
                self.half.outbox.wake_senders()
                self.half.inbox.wake_senders()
                return
            self._release(under_way or messages)
            if failed:  # The other half is coupled too, and has lost its peer.
                self._stop_running("the other connection has failed")
            if end is not None:
                self._written.set()
                if self.half.state.finished:
                    self._stop_running("both sides have said Close")
                return

    async def _wait_for_items(self, idle: trio.lowlevel.ParkingLot) -> None:
        inbox = self.half.inbox
        while not inbox.weight and inbox.end is None:
            inbox.marked = False
            await idle.park()

    def _release(self, messages: list[Message]) -> None:
        """Count messages as sent."""
        inbox = self.half.inbox
        self.sent.messages += len(messages)
        self.sent.bytes += inbox.buffered
        for message in messages:
            inbox.release(message)
        self.sent.bytes -= inbox.buffered

    @property
    def _breach(self) -> bool:
        """Whether the peer has broken the protocol."""
        failure = self._failure
        return failure is not None and isinstance(failure.error, ProtocolError)

    async def _send(self, messages: list[Message], close: Close | None) -> None:
        if close is None:
            await self._connection.send(messages)
        else:
            # First, as the answer may come before send() returns.
            self.half.state.receive_close(close)
            await self._connection.send([*messages, close])

    def _take_batch(self) -> tuple[list[Message], End | None]:
        """Take all there is to send, up to some size."""
        take = self.half.inbox.items.receive_nowait
        messages: list[Message] = []
        size = 0
        while size <= _BATCH_BYTES:
            try:
                item = take()
            except trio.WouldBlock:
                break
            if isinstance(item, (Close, Failure)):
                return messages, item
            messages.append(item)
            size += len(item)
        return messages, None

    # -- time -------------------------------------------------------------------

    def _bound_closing(self) -> None:
        """Bound the closing handshake, which begins."""
        grace = self._limits.close_grace
        self._closing = True
        self._forget_pings()
        self._deadline = trio.current_time() + grace
        self._alarms.set(grace, self._give_up)

    def _give_up(self) -> None:
        self._fail(unanswered(self._limits.close_grace))
        self._stop_running("the closing handshake took too long")

    def _ask_for_life(self) -> None:
        self._nursery.start_soon(self._expect_life)

    @enable_ki_protection
    async def _expect_life(self) -> None:
        """Ping, and wait until the pong comes or a Close is said by anybody."""
        assert self._pings is not None
        timeout = self._limits.ping_timeout
        asked = trio.current_time()
        async with trio.open_nursery() as nursery:
            self._asking = nursery.cancel_scope
            nursery.start_soon(self._ping_for, nursery)
            while True:
                # Any byte is a sign of life, and during a pause none is read.
                now = trio.current_time()
                since = max(asked, self._pings.heard_at, min(self._reads_since, now))
                if now >= since + timeout:
                    error = TimeoutError(
                        f"nothing was heard for {timeout} s after a ping"
                    )
                    self._fail(Failure(str(error), error))
                    self._stop_running("the peer does not answer")
                await trio.sleep_until(since + timeout)
        self._asking = None
        if self._running and not self._closing and self._heard is None:
            self._alarms.set(self._limits.ping_interval, self._ask_for_life)

    def _forget_pings(self) -> None:
        """Ask for life no more: a Close was said."""
        self._alarms.cancel(self._limits.ping_interval, self._ask_for_life)
        if self._asking is not None:
            self._asking.cancel(reason="a Close was said")

    async def _ping_for(self, nursery: trio.Nursery) -> None:
        with contextlib.suppress(ConnectionClosedError):
            await self._ping()
            nursery.cancel_scope.cancel(reason="the peer has answered")

    async def _ping(self) -> float:
        """Measure the round trip, and keep it."""
        assert self._pings is not None
        latency = await self._pings.ping()
        self.half.link.latency = latency
        return latency

    # -- ends ---------------------------------------------------------------------

    def _fail(self, failure: Failure) -> None:
        """Tell the other half, unless it has heard the peer's Close."""
        self._failure = self._failure or failure
        self.half.outbox.put_end(failure)

    async def _say_goodbye(self) -> None:
        """Send what is queued and a Close, if there was none, and hear the answer."""
        end = min(self._deadline, trio.current_time() + self._limits.close_grace)
        with trio.CancelScope(deadline=end, shield=True):
            if self._failure is None and self.half.state.close_received is None:
                said = self.half.inbox.end
                close = said if isinstance(said, Close) else Close(1001)
                try:
                    await self._send(self._left_in_inbox(), close)
                except ConnectionClosedError:
                    return
            if self._failure is None and self._heard is None:
                await self._read()

    def _left_in_inbox(self) -> list[Message]:
        messages: list[Message] = []
        while True:
            try:
                item = self.half.inbox.items.receive_nowait()
            except (trio.WouldBlock, trio.ClosedResourceError):
                return messages
            if not isinstance(item, (Close, Failure)):
                messages.append(item)

    async def _end(self) -> None:
        """End the connection, so that what was sent last arrives if it can."""
        half = self.half
        error = self._failure.error if self._failure is not None else None
        try:
            with trio.move_on_after(self._limits.close_grace, shield=True):
                if isinstance(error, ProtocolError):
                    await self._connection.aclose(error.code, error.args[1])
                elif half.state.finished:
                    await self._connection.aclose(1000, "")
        finally:
            self._connection.abort()
            half.outbox.put_end(Failure("the connection was aborted"))
            half.fail(Failure("the connection has ended"))
            if self._heard is not None and half.state.close_received is not None:
                half.inbox.release_all()  # Our Close was answered: all has arrived.
            half.inbox.close()
            half.finish()
            half.outbox.alert()  # A half-open one needn't say Close any more.

"""The two pumps between a half and its connection: `Writer` and `Reader`.

Knows the `Connection` protocol and the inboxes of halves; no network and no engine.

Theory of operation: `half` in this module is the half that was given to the connection;
it "receives" what goes to the network. The *other half* is the one that the application
uses. The reader runs in the task that called `couple()`. For
each `receive()`, it corks the dispatcher and the writer, queues all items for the other
half, and uncorks. The listeners of the other half then run in the reader's task, unless
they have to wait. Afterwards, the reader sends in one write what they have sent.

A `send()` of the other half from elsewhere wakes the writer by `Inbox.wake`. If the
connection can send at once, and `broadcast()` has corked the writes, the writer sends
when these are uncorked. Otherwise it uses its task, which is started when it is first
needed: by a send, by a Close, or when the network takes no more. From then on the task
exists until the end and sleeps while the inbox is empty.

What must hold: only one of `send_now()` and the task sends at a time. While the task is
busy, `send_now()` leaves messages to it. Messages that `send_now()` has passed on, but
the network has not taken, are in `_under_way`; the task releases them. After the task
was cancelled, `send_rest()` sends and releases what is left.
"""

import contextvars
from collections.abc import Sequence

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from trio_wspair._pair.inbox import Inbox
from trio_wspair._rules.codes import Close, check_received_close
from trio_wspair._rules.errors import ConnectionClosedError, ProtocolError
from trio_wspair._rules.limits import Limits
from trio_wspair._rules.messages import Message, size_of
from trio_wspair._rules.state import End, Failure
from trio_wspair._tasks.cork import at_uncork

from ._connection import (
    Connection,
    Item,
    SupportsSendNow,
    answers_close,
    supports_send_now,
)
from ._conversation import Conversation, PeerTimeouts

__all__ = (
    "Reader",
    "Writer",
)


_BATCH_BYTES = 2**18
"""The approximate number of bytes taken from the inbox for one write."""


@attrs.define(slots=True, eq=False)
class Writer:
    """Sends to the network what the other half sends, up to and including the end."""

    _conversation: Conversation
    _connection: Connection
    _timeouts: PeerTimeouts
    _inbox: Inbox = attrs.field(init=False)
    _sends_now: SupportsSendNow | None = attrs.field(init=False)
    _nursery: trio.Nursery = attrs.field(init=False)
    _running: bool = attrs.field(init=False, default=False)
    """Whether the writer has started and not stopped, so that the nursery is open."""
    _idle: trio.lowlevel.ParkingLot | None = attrs.field(init=False, default=None)
    """Where the writer's task waits while the inbox is empty; `None` without a task."""
    _under_way: list[Message] = attrs.field(init=False, factory=list[Message])
    """Messages passed to the connection that the network has not taken yet."""
    corked: bool = attrs.field(init=False, default=False)
    """Whether the reader is about to call `send_now()` or `write()`: wake no task."""
    failed: bool = attrs.field(init=False, default=False)
    """Whether writing has failed because the connection is gone."""
    written: trio.Event = attrs.field(init=False, factory=trio.Event)
    """Set when the end was written or writing has failed: nothing more is written."""

    def __attrs_post_init__(self) -> None:
        self._inbox = self._conversation.half.inbox
        connection = self._connection
        self._sends_now = connection if supports_send_now(connection) else None

    def start(self, nursery: trio.Nursery) -> None:
        """Start sending. `nursery` is open for as long as the pumps run."""
        self._nursery = nursery
        self._running = True
        inbox = self._inbox
        inbox.wake = self._wake
        if inbox.weight or inbox.end is not None:
            self._wake()

    def stop(self) -> None:
        """Stop sending. Afterwards, only `send_rest()` sends."""
        self._running = False
        self._inbox.wake = None

    def _wake(self) -> None:
        if self._inbox.end is not None:
            self._timeouts.bound_closing()
        if self.corked:
            return
        if self._sends_now is None or not at_uncork(self.send_now):
            self._wake_task()

    def _wake_task(self) -> None:
        """Wake the writer's task, or start it if there is none."""
        if self._idle is not None:
            self._idle.unpark()
            return
        self._idle = trio.lowlevel.ParkingLot()
        # An empty context, so that the task has no context variables of a sender.
        contextvars.Context().run(self._nursery.start_soon, self.write)

    # -- in the task of the caller --------------------------------------------------

    def send_now(self) -> None:
        """Send what is queued, and leave to the task what would have to wait."""
        if not self._running or (self._idle is not None and not self._idle):
            return  # The task is busy, and looks at the inbox before it sleeps.
        inbox = self._inbox
        if self._sends_now is not None and inbox.weight and inbox.end is None:
            messages, _ = self._take_batch()
            self._under_way = messages
            if self._sends_now.send_now(messages):
                self._release_under_way()
        if inbox.weight or inbox.end is not None:
            self._wake_task()
        else:
            inbox.notified = False

    def ends_without_task(self) -> bool:
        """Whether the end is queued, and no task exists to write it."""
        return self._inbox.end is not None and self._running and self._idle is None

    async def send_rest(self, close: Close) -> None:
        """Send what is still in the inbox, and this Close. Called after `stop()`.

        Raises:
            ConnectionClosedError: The connection is gone.
        """
        messages = self._left_in_inbox()
        if self._sends_now is None:
            # Whether the connection has sent these before a cancellation is unknown.
            self._under_way = []
        self._under_way += messages
        await self._send(messages, close)
        self._release_under_way()

    def _left_in_inbox(self) -> list[Message]:
        messages: list[Message] = []
        while True:
            try:
                item = self._inbox.items.receive_nowait()
            except (trio.WouldBlock, trio.ClosedResourceError):
                return messages
            if not isinstance(item, (Close, Failure)):
                messages.append(item)

    # -- the task -------------------------------------------------------------------

    @enable_ki_protection
    async def write(self) -> None:
        """Send what the other half sends, up to and including the end."""
        if self._idle is None:  # The reader has called this: see `ends_without_task()`.
            self._idle = trio.lowlevel.ParkingLot()
        while True:
            await self._wait_for_items(self._idle)
            messages: list[Message] = []
            end: End | None = None
            if not self._under_way:
                messages, end = self._take_batch()
                self._under_way = messages
            close = None
            # After a violation of the protocol, `Coupling` sends a Close with its code.
            if isinstance(end, Close) and self._conversation.protocol_error is None:
                close = end
            try:
                await self._send(messages, close)
            except ConnectionClosedError:
                # The reader reports the error after it has read everything that has
                # arrived. Senders are woken now, as the reader may wait for a listener
                # that is in drain().
                self.failed = True
                self.written.set()
                self._conversation.half.outbox.wake_senders()
                self._inbox.wake_senders()
                return
            self._release_under_way()
            if isinstance(end, Failure):
                # The other half was given to a connection as well, which has failed.
                self._end_all("the other connection has failed")
            if end is not None:
                self.written.set()
                if self._conversation.half.state.closed:
                    self._end_all("both sides have sent a Close")
                return

    async def _wait_for_items(self, idle: trio.lowlevel.ParkingLot) -> None:
        inbox = self._inbox
        while not inbox.weight and inbox.end is None:
            inbox.notified = False
            await idle.park()

    async def _send(self, messages: list[Message], close: Close | None) -> None:
        if close is None:
            await self._connection.send(messages)
        else:
            # Noted first, as the answer may arrive before send() returns.
            self._conversation.half.state.receive_close(close)
            await self._connection.send([*messages, close])

    def _take_batch(self) -> tuple[list[Message], End | None]:
        """Take messages of about `_BATCH_BYTES`, and the end if it follows them."""
        take = self._inbox.items.receive_nowait
        messages: list[Message] = []
        size = 0
        while size <= _BATCH_BYTES:
            try:
                item = take()
            except trio.WouldBlock:
                break
            except trio.ClosedResourceError:  # The owner of the pair has ended.
                failure = self._conversation.half.state.failure
                return messages, failure if self._inbox.lost else self._inbox.end
            if isinstance(item, (Close, Failure)):
                return messages, item
            messages.append(item)
            size += len(item)
        return messages, None

    def _release_under_way(self) -> None:
        """Count the messages that are under way as sent, and make room for as many."""
        messages, self._under_way = self._under_way, []
        inbox = self._inbox
        sent = self._conversation.sent
        sent.messages += len(messages)
        sent.bytes += inbox.buffered
        for message in messages:
            inbox.release(message)
        sent.bytes -= inbox.buffered

    def _end_all(self, why: str) -> None:
        self._nursery.cancel_scope.cancel(reason=why)


@attrs.define(slots=True, eq=False)
class Reader:
    """Delivers to the other half what arrives on the connection."""

    _conversation: Conversation
    _connection: Connection
    _limits: Limits
    _timeouts: PeerTimeouts
    _writer: Writer

    @enable_ki_protection
    async def read(self) -> None:
        """Deliver what arrives, until both sides have closed or one has failed."""
        conversation = self._conversation
        half = conversation.half
        writer = self._writer
        grace = self._limits.close_grace
        try:
            while True:
                self._deliver(await self._connection.receive())
                if (
                    conversation.close_received is not None
                    and writer.ends_without_task()
                ):
                    await writer.write()
                else:
                    writer.send_now()
                if conversation.close_received is not None and half.state.closed:
                    return
                if half.outbox.weight > self._limits.receive_buffer_bytes:
                    await self._wait_for_room()
        except ConnectionClosedError as exc:
            conversation.fail(Failure(exc.reason))
            if conversation.close_received is not None:
                # The peer may still be reading: give the other half time to answer.
                with trio.move_on_after(grace):
                    await writer.written.wait()
        except ProtocolError as exc:
            # The traceback refers to this frame: that would be a reference cycle.
            conversation.fail(Failure(str(exc), exc.with_traceback(None)))
            with trio.move_on_after(grace):
                await self._wait_for_answers()

    def _deliver(self, items: Sequence[Item]) -> None:
        """Deliver items to the other half, and run its listeners.

        The listeners run in this task unless they wait, as a task switch takes longer
        than most listeners. What they send is written afterwards, in one write.

        Raises:
            ProtocolError: The last item is a Close that is not valid.
        """
        invalid: ProtocolError | None = None
        half = self._conversation.half
        received = self._conversation.received
        dispatcher = half.outbox.dispatcher
        self._writer.corked = True
        if dispatcher is not None:
            dispatcher.cork()
        for item in items:
            if isinstance(item, Close):
                try:
                    check_received_close(item)
                except ProtocolError as exc:
                    invalid = exc
                else:
                    self._receive_close(item)
            else:
                size = size_of(item)
                received.messages += 1
                received.bytes += size
                half.deliver(item, size)
        if dispatcher is not None:
            dispatcher.uncork()
        self._writer.corked = False
        if invalid is not None:
            raise invalid

    def _receive_close(self, close: Close) -> None:
        """Deliver the peer's Close."""
        half = self._conversation.half
        self._conversation.close_received = close
        self._timeouts.stop_pings()
        if answers_close(self._connection):
            half.peer.end_half_open()
        if half.inbox.late:
            # The other half has sent messages after `Coupling.stop()` queued a Close.
            self._conversation.fail(
                Failure("the last messages were sent after the Close, and are lost")
            )
        half.send_close(close)

    async def _wait_for_answers(self) -> None:
        """Wait until the other half has taken everything and its answers are sent.

        What arrived before the violation of the protocol is valid and may be answered.
        """
        half = self._conversation.half
        inbox = half.inbox
        while not self._writer.failed and (inbox.weight or not half.peer.closed):
            await inbox.wait_progress()

    async def _wait_for_room(self) -> None:
        """Pause reading until the other half has taken enough."""
        outbox = self._conversation.half.outbox
        limit = self._limits.receive_buffer_bytes
        self._timeouts.pause()
        while outbox.weight > limit and not self._writer.failed:
            await outbox.wait_progress()
        self._timeouts.resume()

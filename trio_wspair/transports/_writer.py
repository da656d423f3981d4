"""The pump from a half to its connection.

Knows the inbox of the half and how to send; what arrives is the reader's. It sends at
once where nothing has to be waited for, and else in a task of its own.
"""

import contextvars

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from trio_wspair._pair.inbox import Inbox
from trio_wspair._rules.codes import Close
from trio_wspair._rules.errors import ConnectionClosedError
from trio_wspair._rules.messages import Message
from trio_wspair._rules.state import End, Failure
from trio_wspair._tasks.cork import at_uncork

from ._connection import Connection, SupportsSendNow, supports_send_now
from ._conversation import Conversation
from ._patience import Patience

__all__ = ("Writer",)

_BATCH_BYTES = 2**18
"""About what is taken from the inbox for one write."""


@attrs.define(slots=True, eq=False)
class Writer:
    """Sends what the other half says, until its end."""

    _conversation: Conversation
    _connection: Connection
    _patience: Patience
    _inbox: Inbox = attrs.field(init=False)
    _sends_now: SupportsSendNow | None = attrs.field(init=False)
    _nursery: trio.Nursery = attrs.field(init=False)
    _running: bool = attrs.field(init=False, default=False)
    """The task can be started in the nursery."""
    _idle: trio.lowlevel.ParkingLot | None = attrs.field(init=False, default=None)
    """Where the task waits for something to send, if there is a task."""
    _under_way: list[Message] = attrs.field(init=False, factory=list[Message])
    """Sent by the reader, and not taken by the network yet."""
    corked: bool = attrs.field(init=False, default=False)
    """The reader will call `send_now()` or `write()` soon: don't be woken meanwhile."""
    failed: bool = attrs.field(init=False, default=False)
    """The connection takes nothing more."""
    written: trio.Event = attrs.field(init=False, factory=trio.Event)
    """Nothing more is written: the end was, or writing has failed."""

    def __attrs_post_init__(self) -> None:
        self._inbox = self._conversation.half.inbox
        connection = self._connection
        self._sends_now = connection if supports_send_now(connection) else None

    def start(self, nursery: trio.Nursery) -> None:
        """Be woken when there is something to send; the nursery ends with the pumps."""
        self._nursery = nursery
        self._running = True
        inbox = self._inbox
        inbox.wake = self._wake
        if inbox.weight or inbox.end is not None:
            self._wake()

    def stop(self) -> None:
        """Be woken no more, and send nothing by itself."""
        self._running = False
        self._inbox.wake = None

    def _wake(self) -> None:
        if self._inbox.end is not None:
            self._patience.bound_closing()
        if self.corked:
            return
        if self._sends_now is None or not at_uncork(self.send_now):
            self._wake_task()

    def _wake_task(self) -> None:
        """Have the task look, which is started when it is needed first."""
        if self._idle is not None:
            self._idle.unpark()
            return
        self._idle = trio.lowlevel.ParkingLot()
        # An empty context: it does not matter who needs it first.
        contextvars.Context().run(self._nursery.start_soon, self.write)

    # -- in the task of another -----------------------------------------------------

    def send_now(self) -> None:
        """Send what is there to be sent; the task does what has to be waited for."""
        if not self._running or (self._idle is not None and not self._idle):
            return  # The task will see it.
        inbox = self._inbox
        if self._sends_now is not None and inbox.weight and inbox.end is None:
            messages, _ = self._take_batch()
            if self._sends_now.send_now(messages):
                self._release(messages)
            else:
                self._under_way = messages
        if inbox.weight or inbox.end is not None:
            self._wake_task()
        else:
            inbox.notified = False

    def ends_without_task(self) -> bool:
        """Tell whether the end is there, and may be written by who calls `write()`."""
        return self._inbox.end is not None and self._running and self._idle is None

    async def send_rest(self, close: Close) -> None:
        """Send what is still in the inbox, and a Close, after `stop()`.

        Raises:
            ConnectionClosedError: The connection is gone.
        """
        await self._send(self._left_in_inbox(), close)

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
        """Send what the other half says, until its end."""
        if self._idle is None:  # It is the reader that writes.
            self._idle = trio.lowlevel.ParkingLot()
        while True:
            await self._wait_for_items(self._idle)
            under_way, self._under_way = self._under_way, []
            messages, end = ([], None) if under_way else self._take_batch()
            close = None
            # After a breach of the protocol it is our Close that tells of it.
            if isinstance(end, Close) and self._conversation.breach is None:
                close = end
            try:
                await self._send(messages, close)
            except ConnectionClosedError:
                # The reader finds out why, after all that has arrived. It waits for
                # nobody: who takes that may be waiting for us, in drain().
                self.failed = True
                self.written.set()
                self._conversation.half.outbox.wake_senders()
                self._inbox.wake_senders()
                return
            self._release(under_way or messages)
            if isinstance(end, Failure):
                # The other half is coupled too, and has lost its peer.
                self._end_all("the other connection has failed")
            if end is not None:
                self.written.set()
                if self._conversation.half.state.closed:
                    self._end_all("both sides have said Close")
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
            # First, as the answer may come before send() returns.
            self._conversation.half.state.receive_close(close)
            await self._connection.send([*messages, close])

    def _take_batch(self) -> tuple[list[Message], End | None]:
        """Take all there is to send, up to some size."""
        take = self._inbox.items.receive_nowait
        messages: list[Message] = []
        size = 0
        while size <= _BATCH_BYTES:
            try:
                item = take()
            except trio.WouldBlock:
                break
            except trio.ClosedResourceError:  # Whoever has the pair gave it up.
                failure = self._conversation.half.state.failure
                return messages, failure if self._inbox.lost else self._inbox.end
            if isinstance(item, (Close, Failure)):
                return messages, item
            messages.append(item)
            size += len(item)
        return messages, None

    def _release(self, messages: list[Message]) -> None:
        """Count messages as sent."""
        inbox = self._inbox
        sent = self._conversation.sent
        sent.messages += len(messages)
        sent.bytes += inbox.buffered
        for message in messages:
            inbox.release(message)
        sent.bytes -= inbox.buffered

    def _end_all(self, why: str) -> None:
        self._nursery.cancel_scope.cancel(reason=why)

"""`Inbox`: the messages that wait for a half, a memory channel that counts their bytes.

Knows messages and ends, not what sends them and what takes them.

Theory of operation. `put()` and `put_end()` run in the task of the sender, which is the
other half, or the reader of a connection; they never block. There is one consumer, of
either kind:

- It awaits the `items`: a puller.
- It sets `wake`, is called when something arrives, and takes it in its own task: the
  dispatcher, and the writer of a connection.

`notified` saves calls of `wake`: it is set with the call, and the consumer clears it
when it has found the queue empty. A dispatcher can also be corked (see `Corkable`).

A message is counted, in `buffered` and `weight`, while it waits. `take()` returns a
message, and counts it no more. A consumer that takes messages from `items` calls
`release()` for each of them. The end is the last item. `close()` drops everything and
counts nothing any more, so that `release()` may come after it.

A Durable Object sets `intercept`, which sees each message before it is queued, and may
keep it out.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import trio

from trio_wspair._rules.codes import Close
from trio_wspair._rules.errors import BufferFullError
from trio_wspair._rules.messages import MIN_WEIGHT, Message, size_of, weight_of
from trio_wspair._rules.state import End, Failure

__all__ = ("Corkable", "Inbox", "Intercept", "Item")

Item = Message | Close | Failure
Intercept = Callable[[Message], Callable[[], None] | None]
"""Returns the call that replaces queueing a message, or `None` to queue it.

Both are called in the task of the sender: they never block, never raise, and run no
code of a user.
"""


class Corkable(Protocol):
    """Takes from several inboxes, and can be corked while a caller fills one.

    That saves a task switch: what has arrived is taken in the task of the caller.
    """

    def cork(self) -> None:
        """Do nothing until `uncork()`, whatever arrives. Never blocks."""
        ...

    def uncork(self) -> None:
        """Take what has arrived. Never blocks, and raises nothing."""
        ...


class Inbox:
    """The queue in front of one half."""

    __slots__ = (
        "_end_delivered",
        "_progress",
        "_send_channel",
        "buffered",
        "dispatcher",
        "end",
        "end_arrived_first",
        "end_is_awaited",
        "intercept",
        "items",
        "late",
        "limit",
        "lost",
        "notified",
        "wake",
        "weight",
    )

    _send_channel: trio.MemorySendChannel[Item]
    items: trio.MemoryReceiveChannel[Item]
    """The queue. A consumer that takes a message from it calls `release()` when it is
    done with that."""
    buffered: int
    """Bytes of the messages that are counted, for `buffered_amount`."""
    weight: int
    """The sum of their weights, for the limit. 0 means that no message is counted."""
    end: End | None
    """The end that was put, if any."""
    end_arrived_first: bool
    """Whether the queue was empty when the end was put."""
    end_is_awaited: int
    """How many tasks of a puller wait for the end: they answer no more messages."""
    late: bool
    """A message came after an end that another sender had put: it is lost."""
    lost: bool
    """Messages were in the queue when it was closed."""
    wake: Callable[[], object] | None
    """Notifies the consumer that something has arrived. Never blocks."""
    dispatcher: Corkable | None
    """Serves it, if listeners are called for what arrives."""
    intercept: Intercept | None
    """Sees messages before they are queued, whatever is queued already."""
    limit: int
    """The largest `weight` that `put()` makes."""
    notified: bool
    """`wake` was called, or need not be: the consumer will look by itself."""

    def __init__(self, limit: int) -> None:
        # Without [Item], which would be looked up for each pair.
        self._send_channel, self.items = trio.open_memory_channel(math.inf)
        self.limit = limit
        self.buffered = self.weight = 0
        self.end = None
        self.end_arrived_first = False
        self.end_is_awaited = 0
        self.wake = None
        self.dispatcher = None
        self.intercept = None
        self.notified = False
        self.late = self.lost = False
        self._progress: trio.Event | None = None
        self._end_delivered: trio.Event | None = None

    # -- the sender's side: synchronous -------------------------------------

    def put(self, message: Message, size: int, *, limited: bool = True) -> bool:
        """Queue a message of `size` bytes. Return `False` if the inbox is closed.

        Raises:
            BufferFullError: There is no room for it, and it is `limited`.
        """
        if self.intercept is not None and self._intercepted(message):
            return True  # It takes no room.
        weight = self.weight + (size if size > MIN_WEIGHT else MIN_WEIGHT)  # noqa: FURB136 - hot
        if weight > self.limit and limited:
            msg = (
                f"{self.buffered} bytes wait for the other side already, and this "
                f"message of {size} would pass the limit of {self.limit} "
                "(max_buffered_bytes; a message counts at least 64): await drain() "
                "before sending more"
            )
            raise BufferFullError(msg)
        if self.end is not None:
            self.late = True
            return True
        try:
            self._send_channel.send_nowait(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        self.weight = weight
        self.buffered += size
        if not self.notified and self.wake is not None:
            self.notified = True
            self.wake()
        return True

    def has_room(self, size: int) -> bool:
        """Return whether `put()` would take a message of `size` bytes."""
        return self.weight + weight_of(size) <= self.limit

    def _intercepted(self, message: Message) -> bool:
        """Return whether the holder has kept this message out of the queue."""
        assert self.intercept is not None
        # A message after the end does not arrive: see `late`.
        act = self.intercept(message) if self.end is None else None
        if act is None:
            return False
        self._bypass(message, act)
        return True

    def intercept_queued(self) -> None:
        """Intercept the messages that are in the queue.

        Only for a holder that intercepts, and is not awaiting the `items`.
        """
        intercept = self.intercept
        assert intercept is not None
        queued: list[Item] = []
        with suppress(trio.WouldBlock):
            while True:
                queued.append(self.items.receive_nowait())
        for item in queued:
            act = intercept(item) if isinstance(item, (str, bytes)) else None
            if act is None:
                self._send_channel.send_nowait(item)
            else:
                self.release(item)  # type: ignore[arg-type] # it is a message
                act()

    def _bypass(self, message: Message, act: Callable[[], None]) -> None:  # noqa: ARG002
        """Make the call that replaces queueing this message."""
        act()

    def put_end(self, end: End) -> None:
        """Queue the end. Only the first counts."""
        if self.end is not None:
            return
        self.end = end
        self.end_arrived_first = self.weight == 0
        try:
            self._send_channel.send_nowait(end)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        self.wake_consumer()

    def wake_consumer(self) -> None:
        """Make the consumer look at the half, whether anything has arrived or not."""
        if self.wake is not None:
            self.wake()

    async def wait_progress(self) -> None:
        """Wait until a message was taken, or the half has ended."""
        if self._progress is None:
            self._progress = trio.Event()
        await self._progress.wait()

    def wake_senders(self) -> None:
        """Wake the tasks in `wait_progress()`."""
        if self._progress is not None:
            self._progress.set()
            self._progress = None

    # -- the consumer's side --------------------------------------------------

    def take(self) -> Message:
        """Take a message and stop counting it. `weight` says that there is one.

        Not while a task awaits the `items`: the channel may have handed it to that one.
        """
        message: Message = self.items.receive_nowait()  # type: ignore[assignment]
        # release(), written out: this runs for every message of a listener.
        if message.__class__ is bytes or message.isascii():
            size = len(message)
        else:
            size = size_of(message)
        self.buffered -= size
        self.weight -= size if size > MIN_WEIGHT else MIN_WEIGHT  # noqa: FURB136 - hot
        if self._progress is not None:
            self.wake_senders()
        return message

    def release(self, message: Message) -> None:
        """Stop counting a message that was taken."""
        if self.weight == 0:
            return  # It was closed meanwhile.
        # size_of(), written out: this runs for every message.
        if message.__class__ is bytes or message.isascii():
            size = len(message)
        else:
            size = size_of(message)
        self.buffered -= size
        self.weight -= size if size > MIN_WEIGHT else MIN_WEIGHT  # noqa: FURB136 - hot
        if self._progress is not None:
            self.wake_senders()

    def release_all(self) -> None:
        """Stop counting all messages: the consumer has taken them."""
        self.buffered = self.weight = 0

    def close(self) -> None:
        """Drop what is queued, and queue nothing more."""
        self.items.close()  # First: a task that awaits an item then raises this error.
        self._send_channel.close()
        self.wake = self.dispatcher = self.intercept = None
        self.lost = self.lost or self.weight > 0
        self.buffered = self.weight = 0
        self.wake_senders()

    def mark_end_delivered(self) -> None:
        """Wake the tasks in `wait_end_delivered()`."""
        self.wake = self.dispatcher = self.intercept = None
        self.wake_senders()
        if self._end_delivered is not None:
            self._end_delivered.set()

    async def wait_end_delivered(self) -> None:
        """Wait for `mark_end_delivered()`, which is still to come."""
        if self._end_delivered is None:
            self._end_delivered = trio.Event()
        await self._end_delivered.wait()

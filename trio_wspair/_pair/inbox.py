"""What has been sent to a half and is not taken yet: a memory channel that counts.

Knows messages and ends, not who sends them and not who takes them. A taker either
awaits the `items`, or sets `wake` and is called when something arrives; the first
is how connections and pullers take, the second is the dispatcher's way. A holder that
sets `intercept` sees each message before it is queued, and may keep it out.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

import trio

from trio_wspair._rules.codes import Close
from trio_wspair._rules.errors import BufferFullError
from trio_wspair._rules.messages import Message, size_of
from trio_wspair._rules.state import End, Failure

__all__ = ("Corkable", "Inbox", "Intercept", "Item")

Item = Message | Close | Failure
Intercept = Callable[[Message], Callable[[], None] | None]
"""Returns what is to be done with a message that has arrived, in place of queueing it,
or `None` to queue it.

Both happen at once, in the task of the sender: they never block, raise nothing, and run
no code of a user.
"""

_MIN_WEIGHT: Final = 64
"""What a message counts at least towards the limit: the queue is not free."""


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
        "_drained",
        "_end_delivered",
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
        "marked",
        "wake",
        "weight",
    )

    _send_channel: trio.MemorySendChannel[Item]
    items: trio.MemoryReceiveChannel[Item]
    """The queue. Who takes a message from it calls `release()` once it is done with."""
    buffered: int
    """Bytes of the messages that are not released, as `buffered_amount` tells them."""
    weight: int
    """The same for the limit: a message counts at least 64. 0 means that none is."""
    end: End | None
    """The end that has been put, if any: the last item."""
    end_arrived_first: bool
    """Whether the queue was empty when the end was put."""
    end_is_awaited: int
    """How many tasks of a puller wait for the end: they answer no more messages."""
    late: bool
    """A message came after the end, which its sender had not put: it is lost."""
    lost: bool
    """Something was in the queue when it was closed."""
    wake: Callable[[], object] | None
    """Tells the taker that something has arrived. Never blocks."""
    dispatcher: Corkable | None
    """Serves it, if listeners are called for what arrives."""
    intercept: Intercept | None
    """Sees messages before they are queued, whatever is queued already."""
    limit: int
    """What the weight may reach."""
    marked: bool
    """The taker has been told, or doesn't want to be, and will look by itself."""

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
        self.marked = False
        self.late = self.lost = False
        self._drained: trio.Event | None = None
        self._end_delivered: trio.Event | None = None

    # -- the sender's side: synchronous -------------------------------------

    def put(self, message: Message, size: int, *, limited: bool = True) -> bool:
        """Queue a message of `size` bytes. Return whether somebody may take it.

        Raises:
            BufferFullError: There is no room for it, and it is `limited`.
        """
        if self.intercept is not None and self._intercepted(message):
            return True  # It needs no room.
        weight = self.weight + (size if size > _MIN_WEIGHT else _MIN_WEIGHT)  # noqa: FURB136 - hot
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
        if not self.marked and self.wake is not None:
            self.marked = True
            self.wake()
        return True

    def has_room(self, size: int) -> bool:
        """Return whether `put()` would take a message of `size` bytes."""
        return self.weight + max(size, _MIN_WEIGHT) <= self.limit

    def _intercepted(self, message: Message) -> bool:
        """Let the holder keep a message out of the queue; return whether it does."""
        assert self.intercept is not None
        # What comes after the end has not arrived: see `late`.
        act = self.intercept(message) if self.end is None else None
        if act is None:
            return False
        self._bypass(message, act)
        return True

    def sift(self) -> None:
        """Let the holder see what is queued once more, and take out what it keeps.

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
        """Do what the holder does with a message that it keeps out of the queue."""
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
        """Make the taker look at the half, whether anything has arrived or not."""
        if self.wake is not None:
            self.wake()

    async def wait_release(self) -> None:
        """Wait until something was taken, or the half has ended."""
        if self._drained is None:
            self._drained = trio.Event()
        await self._drained.wait()

    def wake_senders(self) -> None:
        """Wake everybody in `wait_release()`."""
        if self._drained is not None:
            self._drained.set()
            self._drained = None

    # -- the taker's side ----------------------------------------------------

    def take(self) -> Message:
        """Take a message, which is there as `weight` tells, and stop counting it.

        Only if nobody awaits the `items`, who may have been given it already.
        """
        message: Message = self.items.receive_nowait()  # type: ignore[assignment]
        # release(), written out: this runs for every message of a listener.
        if message.__class__ is bytes or message.isascii():
            size = len(message)
        else:
            size = size_of(message)
        self.buffered -= size
        self.weight -= size if size > _MIN_WEIGHT else _MIN_WEIGHT  # noqa: FURB136 - hot
        if self._drained is not None:
            self.wake_senders()
        return message

    def release(self, message: Message) -> None:
        """Stop counting a message that was taken."""
        if self.weight == 0:
            return  # Closed meanwhile: nothing is counted any more.
        # size_of(), written out: this runs for every message.
        if message.__class__ is bytes or message.isascii():
            size = len(message)
        else:
            size = size_of(message)
        self.buffered -= size
        self.weight -= size if size > _MIN_WEIGHT else _MIN_WEIGHT  # noqa: FURB136 - hot
        if self._drained is not None:
            self.wake_senders()

    def release_all(self) -> None:
        """Stop counting whatever was taken."""
        self.buffered = self.weight = 0

    def close(self) -> None:
        """Drop what is queued and take nothing more."""
        self.items.close()  # First: who waits for an item is told so by this one.
        self._send_channel.close()
        self.wake = self.dispatcher = self.intercept = None
        self.lost = self.lost or self.weight > 0
        self.buffered = self.weight = 0
        self.wake_senders()

    def mark_end_delivered(self) -> None:
        """Wake everybody in `wait_end_delivered()`."""
        self.wake = self.dispatcher = self.intercept = None
        self.wake_senders()
        if self._end_delivered is not None:
            self._end_delivered.set()

    async def wait_end_delivered(self) -> None:
        """Wait for `mark_end_delivered()`, which is still to come."""
        if self._end_delivered is None:
            self._end_delivered = trio.Event()
        await self._end_delivered.wait()

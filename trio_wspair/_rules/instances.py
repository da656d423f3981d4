"""The life of an object's instance, and its progress with the messages of a socket.

Knows no Trio and no sockets. The tasks of the instance ask these tables what to do.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

import attrs

__all__ = ("InstanceEvent", "InstanceLife", "InstanceState", "MessageProgress")


class InstanceState(Enum):
    """What may happen in an instance."""

    STARTING = auto()
    """The constructor is running, or a function that it runs first. Events wait."""
    AWAKE = auto()
    """Events begin, unless one of them blocks the others."""
    LEAVING = auto()
    """The instance goes to sleep: no event runs, and its tasks are being cancelled."""
    FAILED = auto()
    """The constructor has raised an exception, which the waiting events raise."""
    ABORTED = auto()
    """The instance was reset: its events and its tasks are being cancelled."""
    GONE = auto()
    """All events and tasks of the instance have ended."""


class InstanceEvent(Enum):
    """What changes the state."""

    BUILT = auto()
    """The constructor and the functions that it had to run first have returned."""
    BUILD_FAILURE = auto()
    """The constructor, or a function that it had to run first, has raised."""
    SLEEP = auto()
    """The instance was idle for long enough, or was evicted."""
    RESET = auto()
    """The object has called `abort()`, a task of it has failed, or its namespace has
    ended."""
    END = auto()
    """The last event and the last task of the instance have ended."""


_S, _E = InstanceState, InstanceEvent
_NEXT: Final[Mapping[tuple[InstanceState, InstanceEvent], InstanceState]] = {
    (_S.STARTING, _E.BUILT): _S.AWAKE,
    (_S.STARTING, _E.BUILD_FAILURE): _S.FAILED,
    (_S.STARTING, _E.RESET): _S.ABORTED,
    (_S.AWAKE, _E.SLEEP): _S.LEAVING,
    (_S.AWAKE, _E.RESET): _S.ABORTED,
    (_S.LEAVING, _E.END): _S.GONE,
    (_S.FAILED, _E.END): _S.GONE,
    (_S.ABORTED, _E.END): _S.GONE,
}
"""(state, event) -> next state. Without a row, the event has no effect."""
_IN_MEMORY: Final = frozenset({_S.STARTING, _S.AWAKE})
_LETS_BEGIN: Final = frozenset({_S.AWAKE, _S.FAILED})


@attrs.define(eq=False)
class InstanceLife:
    """The state of one instance, and what depends on it."""

    state: InstanceState = InstanceState.STARTING
    blocks: int = 0
    """The number of running functions that block events."""
    evicted: bool = False
    """Whether the instance goes to sleep as soon as no event runs, without waiting."""

    def advance(self, event: InstanceEvent) -> bool:
        """Enter the next state. Return whether the event has an effect."""
        before = self.state
        self.state = _NEXT.get((before, event), before)
        return self.state is not before

    @property
    def in_memory(self) -> bool:
        """Whether events may enter, and the object may use its `ctx`."""
        return self.state in _IN_MEMORY

    @property
    def lets_begin(self) -> bool:
        """Whether waiting events may go on: to begin, or to raise the failure."""
        return self.state in _LETS_BEGIN and not self.blocks

    def may_sleep(self, *, events: int, tasks: int, idle_long_enough: bool) -> bool:
        """Whether the instance goes to sleep now.

        Args:
            events: The number of events that run or wait to begin.
            tasks: The number of other tasks of the instance, such as those of sockets
                that it accepted with `accept()`. They keep the instance awake, unless
                it is evicted.
            idle_long_enough: Whether the time of `hibernate_after` has passed.
        """
        if self.state is not InstanceState.AWAKE or events:
            return False
        return self.evicted or (idle_long_enough and not tasks)


class MessageProgress(Enum):
    """The progress of an object with the messages of one socket.

    Automatic answers depend on the progress. Workers start the handler of each message
    when they read the message, and then read the next one. So an automatic answer
    follows what the handlers of earlier messages send before they first wait, and
    precedes what they send later.
    """

    IDLE = auto()
    """No handler is running: an answer waits for the messages in the queue."""
    BEGINNING = auto()
    """A handler has not waited yet: an answer waits for it, and for the queue."""
    WAITING = auto()
    """A handler waits, or has waited since the queue was last empty: an answer is sent
    at once. In Workers, the handlers of queued messages would have begun as well."""

    def answers_at_once(self, queued: int) -> bool:
        """Whether a message that arrives now is answered ahead of the queue.

        Args:
            queued: The size of the messages in the queue.
        """
        if self is MessageProgress.IDLE:
            return not queued
        return self is MessageProgress.WAITING

    def after_message(self, queued: int) -> "MessageProgress":
        """Return the progress when the handler of a message has ended."""
        if self is MessageProgress.WAITING and queued:
            return self
        return MessageProgress.IDLE

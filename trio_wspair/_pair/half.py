"""`Half`: one half from the inside, for the code that delivers to it and ends it.

Knows how state, listeners and inbox fit together, and checks nothing; the checks are
in the public methods, in `verbs` and `websocket`. It refers to the inbox and the state
of the other half, but not to the other `Half`, nor to a `WebSocket`: so there is no
reference cycle, and a half is freed when its user drops it.
"""

from collections.abc import Awaitable, Callable

import attrs
import trio

from trio_wspair._rules.codes import Close
from trio_wspair._rules.errors import ConnectionClosedError
from trio_wspair._rules.listeners import Listeners
from trio_wspair._rules.messages import Message
from trio_wspair._rules.state import Cause, End, Failure, HalfState

from .inbox import Inbox

__all__ = ("Half", "Link", "join", "unanswered")


@attrs.define(slots=True, eq=False)
class Link:
    """What both halves of a pair have in common: the facts about their connection."""

    url: str | None = None
    protocol: str = ""
    extensions: str = ""
    ping: Callable[[], Awaitable[float]] | None = None
    """Measures the round trip in seconds, while there is a network."""
    latency: float | None = None
    """The round trip in seconds, as measured last."""


@attrs.define(slots=True, eq=False)
class Half:
    """One half."""

    state: HalfState
    inbox: Inbox
    """What the other half has sent."""
    peer: HalfState
    outbox: Inbox
    """The inbox of the other half."""
    link: Link
    listeners: Listeners = attrs.Factory(Listeners)
    attachment: bytes | None = None
    listener_task: trio.lowlevel.Task | None = None
    """The task that is running an async listener, if any."""

    def in_listener(self) -> bool:
        """Return whether this task runs an async listener of this half, or is a child.

        A child is a task in a nursery of the listener's task, however deep.
        """
        if self.listener_task is None:
            return False
        task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        while task is not None and task is not self.listener_task:
            parent = task.parent_nursery
            task = parent.parent_task if parent is not None else None
        return task is not None

    def deliver(self, message: Message, size: int) -> None:
        """Queue a message from a connection, whose reader bounds the queue."""
        self.outbox.put(message, size, limited=False)

    def send_close(self, close: Close) -> None:
        """Send `close`, unless a Close was sent before."""
        if self.state.send_close(close):
            self.outbox.put_end(close)

    def receive_end(self, end: End) -> None:
        """Let an end take effect that was in the inbox, and answer a Close."""
        if isinstance(end, Failure):
            self.state.fail(end)
            self.outbox.wake_senders()
            return
        answer = self.state.receive_close(end)
        if answer is not None:
            self.outbox.put_end(answer)

    def answer(self) -> None:
        """Answer the peer's Close, unless a Close was sent before."""
        answer = self.state.answer()
        if answer is not None:
            self.outbox.put_end(answer)

    def fail(self, failure: Failure) -> None:
        """End this half abnormally, and drop what is queued for it.

        The other half does not learn of it.
        """
        if self.state.fail(failure):
            self.inbox.wake_consumer()  # The close event has to be delivered.
            self.inbox.close()
            self.outbox.wake_senders()

    def fail_by(self, cause: Cause, error: Exception | None = None) -> None:
        """Fail, and send the Close that belongs to this cause."""
        self.fail(Failure(cause.reason, error))
        if cause.close is not None:
            self.send_close(cause.close)

    def gone_error(self) -> ConnectionClosedError:
        """Return the error for a message that the other half can't take any more.

        If that one has sent a Close, it is in the inbox.
        """
        end = self.inbox.end
        if isinstance(end, Close):
            return ConnectionClosedError(end.code, end.reason, was_clean=False)
        reason = Cause.PEER_ENDED.reason
        return ConnectionClosedError(1006, reason, was_clean=False)

    def discard(self, why: str) -> None:
        """End a half that is not taken, and will not be."""
        self.receive_end(self.inbox.end or Failure(why))
        self.send_close(Close(1001))  # Unless a Close was answered just now.
        self.inbox.close()
        self.release(discarded=why)

    def release(self, *, discarded: str | None = None) -> None:
        """Drop all references: the end of this half has been delivered.

        Args:
            discarded: The reason, if the half has ended before it was taken.
        """
        self.state.release(discarded=discarded)
        self.listeners.clear()
        self.link.ping = None
        self.inbox.mark_end_delivered()

    async def wait_released(self) -> None:
        """Wait until the end of this half has been delivered. Always a checkpoint."""
        await _wait_released(self.state, self.inbox)

    async def wait_peer_released(self) -> None:
        """Wait until the end of the other half was delivered. Always a checkpoint."""
        await _wait_released(self.peer, self.outbox)


def unanswered(grace: float) -> Failure:
    """Return the failure of a half whose Close was not answered in `grace` seconds."""
    error = TimeoutError(f"the peer did not answer the Close in {grace} s")
    return Failure(str(error), error)


async def _wait_released(state: HalfState, inbox: Inbox) -> None:
    if state.released:
        await trio.lowlevel.checkpoint()
    else:
        await inbox.wait_end_delivered()


def join(
    states: tuple[HalfState, HalfState], inboxes: tuple[Inbox, Inbox]
) -> tuple[Half, Half]:
    """Return two halves, each the other's peer."""
    link = Link()
    return (
        Half(states[0], inboxes[0], states[1], inboxes[1], link),
        Half(states[1], inboxes[1], states[0], inboxes[0], link),
    )

"""One half from the inside: what whoever has taken it may do, without checks.

Knows how the rooms below fit together (state, listeners, inbox), not who takes
the half. The public door, with the checks, is `WebSocket` in `_socket`. Nothing
here points back to a `WebSocket` or across to the other `Half`, only to its inbox
and state: so there is no cycle, and a half is freed when its user drops it.
"""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Final

import attrs
import trio

from ._codes import Close
from ._inbox import Inbox, Message
from ._listeners import Listeners
from ._state import End, Failure, HalfState

__all__ = ("Half", "Link", "delivering", "join")


@attrs.define(slots=True, eq=False)
class Link:
    """What the two halves of a pair share: the facts about their connection."""

    url: str | None = None
    protocol: str = ""
    extensions: str = ""
    ping: Callable[[], Awaitable[float]] | None = None
    """Measures the round trip in seconds, while there is a network."""


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

    def deliver(self, message: Message, size: int) -> None:
        """Send what a connection has received; its reader bounds the queue."""
        self.outbox.put(message, size, limited=False)

    def say_close(self, close: Close) -> None:
        """Send `close`, unless a Close was sent before."""
        if self.state.say_close(close):
            self.outbox.put_end(close)

    def receive_end(self, end: End) -> None:
        """Let the end that has arrived take effect, and answer a Close."""
        if isinstance(end, Failure):
            self.state.fail(end)
            self.outbox.wake_senders()
            return
        answer = self.state.receive_close(end)
        if answer is not None:
            self.outbox.put_end(answer)

    def fail(self, failure: Failure) -> None:
        """End the life of this half abnormally, dropping what is queued for it.

        The other half is not told.
        """
        if self.state.fail(failure):
            self.inbox.alert()  # The taker has a close event to deliver.
            self.inbox.close()
            self.outbox.wake_senders()

    def finish(self) -> None:
        """Cut all ties: the life of this half is over, its end has been told."""
        self.state.release()
        self.listeners.clear()
        self.link.ping = None
        self.inbox.finish()

    async def wait_finished(self) -> None:
        """Wait for the end of this half's life. Always a checkpoint."""
        await _wait_finished(self.state, self.inbox)

    async def wait_peer_finished(self) -> None:
        """Wait for the end of the other half's life. Always a checkpoint."""
        await _wait_finished(self.peer, self.outbox)


async def _wait_finished(state: HalfState, inbox: Inbox) -> None:
    if state.released:
        await trio.lowlevel.checkpoint()
    else:
        await inbox.wait_finished()


delivering: Final[ContextVar[Half | None]] = ContextVar("delivering", default=None)
"""The half whose async listener is running in this context."""


def join(max_buffered_bytes: int) -> tuple[Half, Half]:
    """Return two halves, each the other's peer."""
    link = Link()
    states = HalfState(), HalfState()
    inboxes = Inbox(max_buffered_bytes), Inbox(max_buffered_bytes)
    return (
        Half(states[0], inboxes[0], states[1], inboxes[1], link),
        Half(states[1], inboxes[1], states[0], inboxes[0], link),
    )

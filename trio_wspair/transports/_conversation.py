"""A half and its connection in conversation: what has passed, and how it ends.

Knows no connection and no tasks. Whoever finds something out writes it down here.
"""

import attrs

from trio_wspair._pair.half import Half
from trio_wspair._pair.verbs import half_of
from trio_wspair._pair.websocket import CloseEvent, WebSocket
from trio_wspair._rules.codes import Close
from trio_wspair._rules.errors import ProtocolError
from trio_wspair._rules.state import Failure

__all__ = ("Conversation",)


@attrs.define(slots=True)
class Traffic:
    """What has passed in one direction."""

    messages: int = 0
    bytes: int = 0

    def __str__(self) -> str:
        return f"{self.messages} messages ({self.bytes} bytes)"


@attrs.define(slots=True, eq=False)
class Conversation:
    """What is known of a conversation by those who have a part in it."""

    socket: WebSocket
    """The half that was given to the connection."""
    half: Half = attrs.field(init=False)
    """Its inside."""
    received: Traffic = attrs.field(init=False, factory=Traffic)
    """By the connection."""
    sent: Traffic = attrs.field(init=False, factory=Traffic)
    """Taken by the network."""
    heard: Close | None = attrs.field(init=False, default=None)
    """The peer's Close."""
    failure: Failure | None = attrs.field(init=False, default=None)
    """What went wrong first."""

    def __attrs_post_init__(self) -> None:
        self.half = half_of(self.socket)

    def fail(self, failure: Failure) -> None:
        """Tell the other half, unless it has heard the peer's Close."""
        self.failure = self.failure or failure
        self.half.outbox.put_end(failure)

    @property
    def breach(self) -> ProtocolError | None:
        """How the peer has broken the protocol, if it has."""
        error = self.failure.error if self.failure is not None else None
        return error if isinstance(error, ProtocolError) else None

    @property
    def clean(self) -> bool:
        """Whether both sides have said Close."""
        return self.heard is not None and self.half.state.close_received is not None

    def close_event(self) -> CloseEvent:
        """Return how the connection has ended."""
        heard = self.heard
        if heard is not None and self.clean:
            return CloseEvent(
                heard.code, heard.reason, was_clean=True, target=self.socket
            )
        reason = self.failure.reason if self.failure is not None else ""
        return CloseEvent(1006, reason, was_clean=False, target=self.socket)

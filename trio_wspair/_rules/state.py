"""Who holds a half and how far its closing has come. Every rule of both is here.

Knows no Trio, no listeners and no messages. Two facts with an owner each: the
*holder* moves along a table, where a missing row is an error; the *latches*
`close_sent`, `close_received`, `failure` and `released` are set once. Everything
else is derived from them.
"""

from collections.abc import Mapping
from enum import Enum, IntEnum
from typing import Final

import attrs

from .codes import Close
from .errors import ConnectionClosedError, InvalidStateError

__all__ = ("Act", "End", "Failure", "HalfState", "Holder", "ReadyState")


class ReadyState(IntEnum):
    """How far the closing of a WebSocket has come (WHATWG `readyState`)."""

    CONNECTING = 0
    """Never seen here: `connect()` returns when the connection is open."""
    OPEN = 1
    """Nobody has said Close. Also the state before `accept()`."""
    CLOSING = 2
    """One side has said Close."""
    CLOSED = 3
    """Both sides have said Close, or the half has failed."""


class Holder(Enum):
    """Who has taken a half."""

    def __init__(self, label: str, speaks: bool, answers: bool) -> None:  # noqa: FBT001
        self.label = label
        self.speaks = speaks
        """Whether the verbs `send()` and `close()` are the holder's way to talk."""
        self.answers = answers
        """Whether a Close is answered for the holder."""

    NOBODY = ("not accepted", False, True)
    APPLICATION = ("accepted", True, True)
    PULLER = ("accepted for receive()", True, True)
    TRANSPORT = ("given to a connection", False, False)
    HIBERNATION = ("accepted by a Durable Object", True, False)


class Act(Enum):
    """A way to take a half; the value is how messages call it."""

    ACCEPT = "accept()"
    PULL = "receive()"
    COUPLE = "handing it to a connection"
    HIBERNATE = "accept_web_socket()"


_HOLDER_TABLE: Final[Mapping[tuple[Holder, Act], Holder]] = {
    (Holder.NOBODY, Act.ACCEPT): Holder.APPLICATION,
    (Holder.NOBODY, Act.PULL): Holder.PULLER,
    (Holder.NOBODY, Act.COUPLE): Holder.TRANSPORT,
    (Holder.NOBODY, Act.HIBERNATE): Holder.HIBERNATION,
    # A second accept() is allowed and keeps the options of the first.
    (Holder.APPLICATION, Act.ACCEPT): Holder.APPLICATION,
    (Holder.PULLER, Act.ACCEPT): Holder.PULLER,
    (Holder.PULLER, Act.PULL): Holder.PULLER,
}
"""(holder, act) -> next holder. A missing row is an error."""

_READY_TABLE: Final[Mapping[tuple[bool, bool], ReadyState]] = {
    (False, False): ReadyState.OPEN,
    (True, False): ReadyState.CLOSING,
    (False, True): ReadyState.CLOSING,
    (True, True): ReadyState.CLOSED,
}
"""(Close sent, end received) -> state of a half that has not failed."""


@attrs.frozen(slots=True, eq=False)
class Failure:
    """An abnormal end: no Close came, and none will."""

    reason: str = ""
    """For the close event, whose code is 1006."""
    error: Exception | None = None
    """What the `error` event carries; without it there is none."""


End = Close | Failure
"""How a conversation ends, seen from one half."""


@attrs.define(slots=True, eq=False)
class HalfState:
    """The state of one half."""

    holder: Holder = Holder.NOBODY
    half_open: bool = False
    """Whether the peer's Close waits for the holder's own."""
    close_sent: Close | None = None
    close_received: Close | None = None
    failure: Failure | None = None
    answered: bool = False
    """The Close that was sent answers the peer's: the holder did not ask for it."""
    end_shown: bool = False
    """An object's handler for the end is due: before that, the object sees no end."""
    released: bool = False
    """The end has been told: the holder has let go. A latch like the others."""

    # -- views ------------------------------------------------------------

    @property
    def ready_state(self) -> ReadyState:
        """The state as WHATWG names it."""
        if self.holder is Holder.HIBERNATION and not self.released:
            # The handlers of an object find every end unanswered, as in workerd.
            return _READY_TABLE[self.close_sent is not None, self.end_shown]
        if self.failure is not None:
            return ReadyState.CLOSED
        return _READY_TABLE[self.close_sent is not None, self.end is not None]

    @property
    def end(self) -> End | None:
        """What the close event tells, once that is decided: it never changes."""
        return self.failure if self.close_received is None else self.close_received

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be said."""
        return self.failure is not None or (
            self.close_sent is not None and self.close_received is not None
        )

    @property
    def outcome(self) -> tuple[int, str, bool]:
        """Code, reason and cleanness, as the close event tells them."""
        if self.close_received is not None:
            return self.close_received.code, self.close_received.reason, True
        return 1006, "" if self.failure is None else self.failure.reason, False

    def closed_error(self) -> ConnectionClosedError:
        """Return the error for a verb that comes after the `end`."""
        return ConnectionClosedError(*self.outcome)

    def describe(self) -> str:
        """Return state, holder and close codes, for reprs and error messages."""
        parts = [self.ready_state.name, self.holder.label]
        if self.close_sent is not None:
            parts.append(f"sent Close {self.close_sent.code}")
        if self.close_received is not None:
            parts.append(f"received Close {self.close_received.code}")
        if self.failure is not None:
            error, reason = self.failure.error, self.failure.reason
            parts.append(f"failed with {error!r}" if error else f"failed: {reason}")
        return ", ".join(parts)

    # -- acts: each takes effect or raises with nothing changed ------------

    def check_take(self, act: Act) -> Holder:
        """Return who holds the half after `act`.

        Raises:
            InvalidStateError: Somebody else has it, or it has closed.
        """
        holder = _HOLDER_TABLE.get((self.holder, act))
        gone = self.released or (self.finished and self.holder is Holder.NOBODY)
        if holder is None or gone:
            msg = f"too late for {act.value}: this half is {self.describe()}"
            if act is Act.COUPLE:
                msg += ". Give away the half that nobody has accepted, keep the other"
            raise InvalidStateError(msg)
        return holder

    def take(self, act: Act, *, half_open: bool = False) -> None:
        """Give the half a holder.

        Raises:
            InvalidStateError: As for `check_take()`.
        """
        holder = self.check_take(act)
        if self.holder is Holder.NOBODY:
            self.holder = holder
            self.half_open = half_open

    def check_speaks(self, verb: str) -> None:
        """Check that the holder may use `verb`.

        Raises:
            InvalidStateError: Nobody has taken the half, or a connection has.
        """
        if self.holder is Holder.NOBODY:
            msg = f"call accept() before {verb}: this half is not accepted yet"
            raise InvalidStateError(msg)
        if not self.holder.speaks:
            # Differs: workerd ignores the call.
            msg = (
                f"{verb} on a half that was given to a connection: "
                "use the other half of the pair"
            )
            raise InvalidStateError(msg)

    def check_send(self) -> None:
        """Check that a message may be sent.

        Raises:
            InvalidStateError: Not accepted, or after one's own `close()`.
            ConnectionClosedError: The peer has closed, or the half has failed.
        """
        self.check_speaks("send()")
        if self.failure is not None or self.answered:
            # Differs: workerd ignores send() after an abnormal end.
            raise self.closed_error()
        if self.close_sent is not None:
            msg = f"send() after close(): this half is {self.describe()}"
            raise InvalidStateError(msg)

    def start_close(self, close: Close) -> bool:
        """Latch the holder's own Close. Return whether it is to be sent.

        Raises:
            InvalidStateError: Nobody has taken the half, or a connection has.
        """
        if self.failure is None and self.close_sent is None:
            self.check_speaks("close()")
        return self.say_close(close)

    def say_close(self, close: Close) -> bool:
        """Latch `close` as sent, whoever says it. Return whether it is the first."""
        if self.close_sent is not None:
            return False
        self.close_sent = close
        return True

    def receive_close(self, close: Close) -> Close | None:
        """Latch the peer's Close. Return the one to answer with, if any."""
        if self.end is not None:
            return None
        self.close_received = close
        return self.answer() if self.holder.answers and not self.half_open else None

    def answer(self) -> Close | None:
        """Latch the answer to the peer's Close, and return it if it is to be sent."""
        close = self.close_received
        if close is None or not self.say_close(close):
            return None
        self.answered = True
        return close

    def fail(self, failure: Failure) -> bool:
        """Latch an abnormal end. Return whether the half was still alive."""
        if self.finished:
            return False
        self.failure = failure
        return True

    def show_end(self) -> None:
        """Latch that the object which holds it sees the end from now on."""
        self.end_shown = True

    def release(self) -> None:
        """Latch that the end has been told."""
        self.released = True

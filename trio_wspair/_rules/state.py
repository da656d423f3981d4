"""The state of a half: its holder and its closing, with all rules about both.

Knows no Trio, no listeners and no messages. The *holder* changes by a table, in which a
missing row is an error. The *latches* `close_sent`, `close_received`, `failure` and
`released` are set once. Everything else is derived from holder and latches.
"""

from collections.abc import Mapping
from enum import Enum, IntEnum
from threading import get_ident
from typing import Final

import attrs

from .codes import Close
from .errors import ConnectionClosedError, InvalidStateError

__all__ = (
    "Cause",
    "End",
    "Failure",
    "HalfState",
    "Holder",
    "Operation",
    "ReadyState",
    "check_thread",
    "foreign_thread_error",
)


class ReadyState(IntEnum):
    """The state of a WebSocket, as WHATWG's `readyState`."""

    CONNECTING = 0
    """Never used: `connect()` returns when the connection is open."""
    OPEN = 1
    """Neither side has sent a Close. Also the state before `accept()`."""
    CLOSING = 2
    """One side has sent a Close."""
    CLOSED = 3
    """Both sides have sent a Close, or the half has failed."""


class Holder(Enum):
    """The user of a half: application, puller, connection or Durable Object."""

    def __init__(self, label: str, has_verbs: bool, answers: bool) -> None:  # noqa: FBT001
        self.label = label
        self.has_verbs = has_verbs
        """Whether the holder uses the verbs `send()` and `close()`."""
        self.answers = answers
        """Whether the peer's Close is answered automatically."""

    NONE = ("not accepted", False, True)
    APPLICATION = ("accepted", True, True)
    PULLER = ("accepted for receive()", True, True)
    TRANSPORT = ("given to a connection", False, False)
    HIBERNATION = ("accepted by a Durable Object", True, False)


class Operation(Enum):
    """A way to take a half. The value is the name of the operation in messages."""

    ACCEPT = "accept()"
    PULL = "receive()"
    COUPLE = "handing it to a connection"
    HIBERNATE = "accept_web_socket()"


_HOLDER_TABLE: Final[Mapping[tuple[Holder, Operation], Holder]] = {
    (Holder.NONE, Operation.ACCEPT): Holder.APPLICATION,
    (Holder.NONE, Operation.PULL): Holder.PULLER,
    (Holder.NONE, Operation.COUPLE): Holder.TRANSPORT,
    (Holder.NONE, Operation.HIBERNATE): Holder.HIBERNATION,
    # A second accept() is allowed and keeps the options of the first.
    (Holder.APPLICATION, Operation.ACCEPT): Holder.APPLICATION,
    (Holder.PULLER, Operation.ACCEPT): Holder.PULLER,
    (Holder.PULLER, Operation.PULL): Holder.PULLER,
}
"""(holder, operation) -> next holder. A missing row is an error."""

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
    """The reason of the close event, whose code is 1006."""
    error: Exception | None = None
    """The error of the `error` event; with `None`, there is no such event."""


class Cause(Enum):
    """A cause in this process for which a half fails."""

    def __init__(self, reason: str, code: int | None) -> None:
        self.reason = reason
        """The reason of the close event."""
        self.close: Close | None = None if code is None else Close(code)
        """The Close to send; `None` if one was sent before, or can't be received."""

    LISTENER_RAISED = ("a listener raised", 1011)
    OWNER_ENDED = ("the nursery of this half was cancelled", 1001)
    CLOSING_CANCELLED = ("closing was cancelled", None)
    PEER_ENDED = ("the other half has ended", None)
    PEER_NEVER_TAKEN = ("the other half was never taken", 1011)
    OBJECT_RESET = ("the object was reset", 1011)


End = Close | Failure
"""The end of the conversation for one half."""

_NONE, _PULLER = Holder.NONE, Holder.PULLER
"""Global names, as looking up a member of an `Enum` takes as long as a call."""


@attrs.define(slots=True, eq=False)
class HalfState:
    """The state of one half."""

    holder: Holder = _NONE
    half_open: bool = False
    """Whether the peer's Close is left unanswered until the holder closes."""
    close_sent: Close | None = None
    close_received: Close | None = None
    failure: Failure | None = None
    answered: bool = False
    """Whether the Close that was sent is an automatic answer to the peer's Close."""
    end_shown: bool = False
    """Whether the object's handler for the end is due. Until then, `ready_state` does
    not show the end to the object."""
    released: bool = False
    """Whether the end has been delivered, so that the holder has finished."""

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
        """The end that the close event shows, once there is one. It never changes."""
        return self.failure if self.close_received is None else self.close_received

    @property
    def closed(self) -> bool:
        """Whether both Closes have passed, or the half has failed."""
        return self.failure is not None or (
            self.close_sent is not None and self.close_received is not None
        )

    @property
    def outcome(self) -> tuple[int, str, bool]:
        """Code, reason and `was_clean` of the close event."""
        if self.close_received is not None:
            return self.close_received.code, self.close_received.reason, True
        return 1006, "" if self.failure is None else self.failure.reason, False

    def closed_error(self) -> ConnectionClosedError:
        """Return the error for a call of a verb after the `end`."""
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

    # -- changes: a method that raises has changed nothing ------------------

    def check_take(self, operation: Operation) -> Holder:
        """Return the holder that the half will have after `operation`.

        Raises:
            InvalidStateError: The half has another holder, or has closed.
        """
        holder = _HOLDER_TABLE.get((self.holder, operation))
        gone = self.released or (self.closed and self.holder is _NONE)
        if holder is None or gone:
            msg = f"too late for {operation.value}: this half is {self.describe()}"
            if operation is Operation.COUPLE:
                msg += ". Give away the half that is not accepted, and keep the other"
            raise InvalidStateError(msg)
        return holder

    def take(self, operation: Operation, *, half_open: bool = False) -> None:
        """Give the half a holder.

        Raises:
            InvalidStateError: As for `check_take()`.
        """
        holder = self.check_take(operation)
        if self.holder is _NONE:
            self.holder = holder
            self.half_open = half_open

    def check_verb(self, verb: str) -> None:
        """Check that the holder may use `verb`.

        Raises:
            InvalidStateError: The half is not accepted, or a connection has it.
        """
        if self.holder is _NONE:
            msg = f"call accept() before {verb}: this half is not accepted yet"
            raise InvalidStateError(msg)
        if not self.holder.has_verbs:
            # Differs: workerd ignores the call.
            msg = (
                f"{verb} on a half that was given to a connection: "
                "use the other half of the pair"
            )
            raise InvalidStateError(msg)

    def check_send(self) -> None:
        """Check that a message may be sent.

        Raises:
            InvalidStateError: Before `accept()`, or after `close()` on this half.
            ConnectionClosedError: The peer has closed, or the half has failed.
        """
        self.check_verb("send()")
        if self.failure is not None or self.answered:
            # Differs: workerd ignores send() after an abnormal end.
            raise self.closed_error()
        if self.close_sent is not None:
            msg = f"send() after close(): this half is {self.describe()}"
            raise InvalidStateError(msg)

    def start_close(self, close: Close) -> bool:
        """Latch the Close of the holder's `close()`. Return whether to send it.

        Raises:
            InvalidStateError: The half is not accepted, or a connection has it.
        """
        if self.failure is None and self.close_sent is None:
            self.check_verb("close()")
        return self.send_close(close)

    def send_close(self, close: Close) -> bool:
        """Latch a sent Close. Return whether it is the first one."""
        if self.close_sent is not None:
            return False
        self.close_sent = close
        return True

    def receive_close(self, close: Close) -> Close | None:
        """Latch the peer's Close. Return the answer to send, if any."""
        if self.end is not None:
            return None
        self.close_received = close
        return self.answer() if self.holder.answers and not self.half_open else None

    def answer(self) -> Close | None:
        """Latch the answer to the peer's Close, and return it if it is to be sent."""
        close = self.close_received
        if close is None or not self.send_close(close):
            return None
        self.answered = True
        return close

    def fail(self, failure: Failure) -> bool:
        """Latch an abnormal end. Return `False` if the half has closed before."""
        if self.closed:
            return False
        self.failure = failure
        return True

    def end_half_open(self) -> None:
        """Switch `half_open` off, so that the peer's Close is answered automatically.

        Called for a connection that has answered the peer's Close already: no message
        can follow that answer.
        """
        self.half_open = False

    def end_is_due(self, *, queued: bool, arrived_first: bool, awaited: bool) -> bool:
        """Whether an end that is in the queue takes effect now.

        With listeners, the end takes effect when the queue is empty, as the listeners
        have then seen all messages. A puller may still answer the messages that it has
        received. So for a puller the end takes effect when the puller receives it, like
        a message, or at once if

        - no message was in the queue when the end arrived, or
        - the puller has closed, and so can't answer any more, or
        - the queue is empty, and a task of the puller waits for the end.

        Args:
            queued: Whether messages are in the queue before the end.
            arrived_first: Whether the queue was empty when the end arrived.
            awaited: Whether a task is in `wait_closed()`.
        """
        if self.holder is not _PULLER:
            return not queued
        return arrived_first or self.close_sent is not None or (awaited and not queued)

    def show_end(self) -> None:
        """Latch that the object that holds this half sees the end from now on."""
        self.end_shown = True

    def release(self, *, discarded: str | None = None) -> None:  # noqa: ARG002
        """Latch that the end has been delivered.

        Args:
            discarded: The reason, if the half has ended before it was taken.
        """
        self.released = True


def check_thread(thread: int, verb: str) -> None:
    """Check that `verb` is called in `thread`, which is the thread of its Trio run.

    Verbs that run for every message, such as `send()`, have a copy of this check.

    Raises:
        InvalidStateError: `verb` is called in another thread.
    """
    if get_ident() != thread:
        raise foreign_thread_error(verb)


def foreign_thread_error(verb: str) -> InvalidStateError:
    """Return the error for a call in another thread than that of the Trio run."""
    return InvalidStateError(
        f"{verb} was called in another thread than that of its Trio run, and has "
        "changed nothing. In a thread of trio.to_thread.run_sync(), call it by "
        "trio.from_thread.run_sync(), or by trio.from_thread.run() if it is async; in "
        "any other thread, also pass a trio_token to these functions"
    )

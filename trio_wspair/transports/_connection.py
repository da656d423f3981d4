"""What a connection is, for those who couple a half with one."""

from collections.abc import Sequence
from typing import Literal, Protocol, TypeGuard, runtime_checkable

from trio_wspair._rules.codes import Close

__all__ = (
    "AnswersClose",
    "Connection",
    "Item",
    "SupportsPing",
    "SupportsSendNow",
    "answers_close",
    "extensions_of",
    "supports_ping",
    "supports_send_now",
)

Item = str | bytes | Close
"""What travels: a message, or a Close frame as the last thing of its direction."""


class Connection(Protocol):
    """An open WebSocket connection, as `couple()` uses it.

    One task receives and one sends, at the same time. None of the methods answers a
    Close by itself: what is said is decided by the halves.
    """

    async def receive(self) -> Sequence[Item]:
        """Wait for what has arrived: one item at least, a Close only at the end.

        After a Close it waits until the connection is gone.

        Raises:
            ConnectionClosedError: The connection is gone.
            ProtocolError: The peer broke the protocol. Nothing more is received;
                `error.code` is the close code for it, which is still to be sent.
        """
        ...

    async def send(self, items: Sequence[Item]) -> None:
        """Send these, and return when the network has taken them.

        Cancelled, some of them may be on their way, but no frame is torn.

        Raises:
            ConnectionClosedError: The connection is gone.
        """
        ...

    async def aclose(self, code: int, reason: str) -> None:
        """End the connection so that what was sent arrives. The caller bounds it.

        If no Close was sent yet, this one is.
        """
        ...

    def abort(self) -> None:
        """End the connection at once. Never blocks."""
        ...


class AnswersClose(Protocol):
    """A connection below which the peer's Close has been answered when it arrives.

    Nothing can be sent after it, so the half can't be half-open.
    """

    answers_close: Literal[True]


class SupportsSendNow(Protocol):
    """A connection that can send without waiting, if the network takes it."""

    def send_now(self, messages: Sequence[str | bytes]) -> bool:
        """Send these, and return whether the network has taken them already.

        If not, an empty `send()` waits for that. Never blocks.
        """
        ...


@runtime_checkable
class SupportsPing(Protocol):
    """A connection that can also tell whether the peer is there, and how far away."""

    @property
    def heard_at(self) -> float:
        """When the peer was last heard of, by any byte, in Trio's time."""
        ...

    async def ping(self) -> float:
        """Return the round trip in seconds.

        Raises:
            ConnectionClosedError: The connection ends before the pong comes.
        """
        ...


# What a connection can do, asked once for each: isinstance() takes ten times as long.


def answers_close(connection: object) -> TypeGuard[AnswersClose]:
    """Return whether this is an `AnswersClose`."""
    return hasattr(connection, "answers_close")


def extensions_of(connection: object) -> str:
    """Return the extensions that were agreed on, if it knows any, or ``""``.

    As the server has written them (RFC 6455, section 9.1).
    """
    extensions: str = getattr(connection, "extensions", "")
    return extensions


def supports_ping(connection: object) -> TypeGuard[SupportsPing]:
    """Return whether this is a `SupportsPing`."""
    return hasattr(connection, "ping") and hasattr(connection, "heard_at")


def supports_send_now(connection: object) -> TypeGuard[SupportsSendNow]:
    """Return whether this is a `SupportsSendNow`."""
    return hasattr(connection, "send_now")

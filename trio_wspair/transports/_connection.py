"""`Connection`: what `couple()` joins with a half, and what both engines share of it.

Knows items; how an item becomes a frame is up to the engine.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, Protocol, TypeGuard, runtime_checkable

import trio

from trio_wspair._rules.codes import Close
from trio_wspair._rules.errors import connection_lost

from .io._frame_writer import FrameWriter

__all__ = (
    "AnswersClose",
    "Connection",
    "Item",
    "Pong",
    "Sending",
    "SupportsPing",
    "SupportsSendNow",
    "answers_close",
    "extensions_of",
    "supports_ping",
    "supports_send_now",
)

Item = str | bytes | Close
"""A message, or a Close as the last item of its direction."""


class Connection(Protocol):
    """An open WebSocket connection, as `couple()` uses it.

    `couple()` calls `receive()` in one task and `send()` in the same or in another one;
    each is called by one task at a time, and both may be waiting at the same time. Any
    of them may be cancelled. Afterwards `couple()` calls `aclose()`, unless the
    connection has failed, and always `abort()`. No method may answer a Close: the
    halves decide what is sent.
    """

    async def receive(self) -> Sequence[Item]:
        """Wait for items, at least one; a Close is the last item.

        After a Close, wait until the connection is gone.

        Raises:
            ConnectionClosedError: The connection is gone.
            ProtocolError: The peer broke the protocol, and nothing more is received.
                `couple()` passes `error.code` to `aclose()`.
        """
        ...

    async def send(self, items: Sequence[Item]) -> None:
        """Send items, and return when the network has taken them.

        When cancelled, some of them may have been sent, but no frame is torn.

        Raises:
            ConnectionClosedError: The connection is gone.
        """
        ...

    async def aclose(self, code: int, reason: str) -> None:
        """End the connection so that what was sent arrives. The caller bounds the time.

        Send this Close if none was sent.
        """
        ...

    def abort(self) -> None:
        """End the connection at once. Never blocks."""
        ...


class AnswersClose(Protocol):
    """A connection whose lower layer answers the peer's Close before it arrives here.

    Nothing can be sent afterwards, so the half can't be half-open.
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
    """A connection that can also send pings."""

    @property
    def heard_at(self) -> float:
        """When the last byte of the peer arrived, by Trio's clock."""
        ...

    async def ping(self) -> float:
        """Send a ping, and return the round trip in seconds.

        Raises:
            ConnectionClosedError: The connection ends before the pong comes.
        """
        ...


# Each is called once per connection: isinstance() takes ten times as long.


def answers_close(connection: object) -> TypeGuard[AnswersClose]:
    """Return whether this is an `AnswersClose`."""
    return hasattr(connection, "answers_close")


def extensions_of(connection: object) -> str:
    """Return the negotiated extensions as in the server's answer, or ``""``.

    See RFC 6455, section 9.1.
    """
    extensions: str = getattr(connection, "extensions", "")
    return extensions


def supports_ping(connection: object) -> TypeGuard[SupportsPing]:
    """Return whether this is a `SupportsPing`."""
    return hasattr(connection, "ping") and hasattr(connection, "heard_at")


def supports_send_now(connection: object) -> TypeGuard[SupportsSendNow]:
    """Return whether this is a `SupportsSendNow`."""
    return hasattr(connection, "send_now")


# -- what both engines share: sending, and waiting for pongs --------------------------


class Pong:
    """The pong that a ping waits for."""

    def __init__(self) -> None:
        self._asked = trio.current_time()
        self._over = trio.Event()
        self._came = False

    def come(self) -> None:
        """Note that the pong has arrived."""
        self._came = True
        self._over.set()

    def fail(self) -> None:
        """Note that no pong will arrive, unless it has."""
        self._over.set()

    async def wait(self) -> float:
        """Wait for the pong, and return the round trip in seconds. Always a checkpoint.

        Raises:
            ConnectionClosedError: No pong will arrive.
        """
        await self._over.wait()
        if not self._came:
            raise connection_lost("no pong came")
        return trio.current_time() - self._asked


class Sending(ABC):
    """The sending side of a `Connection`."""

    def __init__(self, frame_writer: FrameWriter) -> None:
        self.frame_writer = frame_writer

    @abstractmethod
    def _frame(self, item: Item) -> bytes:
        """Return an item as a frame."""

    async def send(self, items: Sequence[Item]) -> None:
        """Frame and send; see `Connection`."""
        self._write(items)
        try:
            await self.frame_writer.flush()
        except trio.BrokenResourceError:
            raise connection_lost() from None

    def send_now(self, messages: Sequence[str | bytes]) -> bool:
        """Frame and send without waiting; see `SupportsSendNow`."""
        self._write(messages)
        return self.frame_writer.taken

    def _write(self, items: Sequence[Item]) -> None:
        if items:
            frames = b"".join([self._frame(item) for item in items])
            self.frame_writer.write(frames, last=isinstance(items[-1], Close))

"""`Connection`, which `couple()` joins with a half, and the code both engines share.

Knows items, and writes frames through a `FrameWriter`. Each engine makes the frames.

Theory of operation: `Connection` is what every connection has. The other protocols are
optional: `couple()` asks once for each connection whether it has them. `FrameSender` is
the base class of the connections of both engines. Its `send()` and `send_now()` write
frames at once or leave them in the buffer of the `FrameWriter`; `send()` then waits
until that buffer is empty. So a sender that is cancelled never tears a frame.
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
    "FrameSender",
    "Item",
    "PongWaiter",
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

    `couple()` calls `receive()` in one task, and `send()` in the same task or in
    another one. Each of these methods is called by one task at a time, but both may be
    waiting at the same time, and each call may be cancelled. At the end, `couple()`
    calls `aclose()` unless the connection has failed, and then always `abort()`. No
    method may answer a Close, unless the connection is an `AnswersClose`: the halves
    decide what is sent.
    """

    async def receive(self) -> Sequence[Item]:
        """Wait for at least one item, and return what has arrived.

        A Close is the last item. A call after that waits until the connection is gone.

        Raises:
            ConnectionClosedError: The connection is gone.
            ProtocolError: The peer broke the protocol, and nothing more can be
                received. `couple()` passes `error.code` to `aclose()`.
        """
        ...

    async def send(self, items: Sequence[Item]) -> None:
        """Send items, and return when the network has taken them.

        After a cancellation, some items may have been sent, but each frame that was
        begun is completed.

        Raises:
            ConnectionClosedError: The connection is gone.
        """
        ...

    async def aclose(self, code: int, reason: str) -> None:
        """End the connection in such a way that everything that was sent arrives.

        Send this Close unless a Close was sent before. The caller bounds the time.
        """
        ...

    def abort(self) -> None:
        """End the connection at once. Never blocks."""
        ...


class AnswersClose(Protocol):
    """A connection whose lower layer answers the peer's Close before reporting it.

    No message can follow that answer, so the option `allow_half_open` has no effect.
    """

    answers_close: Literal[True]


class SupportsSendNow(Protocol):
    """A connection that can send without waiting, as long as the network has room."""

    def send_now(self, messages: Sequence[str | bytes]) -> bool:
        """Send messages, and return whether the network has taken all of them.

        If it has not, the rest is buffered, and `send([])` waits until the network has
        taken the rest. Never blocks.
        """
        ...


@runtime_checkable
class SupportsPing(Protocol):
    """A connection that can also send pings."""

    @property
    def heard_at(self) -> float:
        """The time when the last byte arrived from the peer, by Trio's clock."""
        ...

    async def ping(self) -> float:
        """Send a ping, and return the round trip in seconds.

        Raises:
            ConnectionClosedError: The connection ends before the pong comes.
        """
        ...


# These use hasattr(), as isinstance() with a Protocol takes ten times as long.


def answers_close(connection: object) -> TypeGuard[AnswersClose]:
    """Whether this connection is an `AnswersClose`."""
    return hasattr(connection, "answers_close")


def extensions_of(connection: object) -> str:
    """Return the negotiated extensions (RFC 6455, section 9.1), or ``""``.

    They are written as in the server's answer.
    """
    extensions: str = getattr(connection, "extensions", "")
    return extensions


def supports_ping(connection: object) -> TypeGuard[SupportsPing]:
    """Whether this connection is a `SupportsPing`."""
    return hasattr(connection, "ping") and hasattr(connection, "heard_at")


def supports_send_now(connection: object) -> TypeGuard[SupportsSendNow]:
    """Whether this connection is a `SupportsSendNow`."""
    return hasattr(connection, "send_now")


# -- what both engines share ----------------------------------------------------------


class PongWaiter:
    """The pong that a ping waits for."""

    def __init__(self) -> None:
        self._pinged_at = trio.current_time()
        self._decided = trio.Event()
        self._arrived = False

    def succeed(self) -> None:
        """Note that the pong has arrived."""
        self._arrived = True
        self._decided.set()

    def fail(self) -> None:
        """Note that no pong will arrive. Does nothing after `succeed()`."""
        self._decided.set()

    async def wait(self) -> float:
        """Wait for the pong, and return the round trip in seconds. Always a checkpoint.

        Raises:
            ConnectionClosedError: No pong will arrive.
        """
        await self._decided.wait()
        if not self._arrived:
            raise connection_lost("no pong came")
        return trio.current_time() - self._pinged_at


class FrameSender(ABC):
    """The sending side of the `Connection` of an engine."""

    def __init__(self, frame_writer: FrameWriter) -> None:
        self.frame_writer = frame_writer

    @abstractmethod
    def _frame(self, item: Item) -> bytes:
        """Return the frame that carries an item."""

    async def send(self, items: Sequence[Item]) -> None:
        """Write the frames of these items, and flush; see `Connection`."""
        self._write(items)
        try:
            await self.frame_writer.flush()
        except trio.BrokenResourceError:
            raise connection_lost() from None

    def send_now(self, messages: Sequence[str | bytes]) -> bool:
        """Write the frames of these messages; see `SupportsSendNow`."""
        self._write(messages)
        return self.frame_writer.taken

    def _write(self, items: Sequence[Item]) -> None:
        if items:
            frames = b"".join([self._frame(item) for item in items])
            self.frame_writer.write(frames, last=isinstance(items[-1], Close))

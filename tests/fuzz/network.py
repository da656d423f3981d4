"""A network in memory for `serve()` and `connect()`, with scripted input.

The input of a connection is known beforehand. This allows virtual time, and exact
control over how the bytes are split.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Literal, get_args
from unittest import mock

import trio
import trio.testing

Ending = Literal["eof", "silence", "reset"]
"""The event after the last byte."""
ENDINGS: tuple[Ending, ...] = get_args(Ending)


class ScriptedStream(trio.abc.HalfCloseableStream):
    """One end of a connection whose other end is a script.

    Args:
        chunks: The pieces that are received, one by one.
        ending: The event after the last piece.
        patient: Each piece is received only after all effects of the previous one.
        fill_in: A function of the pieces and of the bytes sent so far; returns the
            final pieces.
    """

    def __init__(
        self,
        chunks: Sequence[bytes],
        ending: Ending = "eof",
        *,
        patient: bool = False,
        fill_in: Callable[[Sequence[bytes], bytes], Sequence[bytes]] | None = None,
    ) -> None:
        self._chunks = deque(filter(None, chunks))
        self._ending: Ending = ending
        self._patient = patient
        self._fill_in = fill_in
        self._over = trio.Event()
        self._reset = False
        self.sent = bytearray()
        """All bytes that were sent into the stream."""
        self.ended_sending = False
        self.closed = trio.Event()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive the next piece."""
        await trio.lowlevel.checkpoint()
        if self._fill_in is not None:
            await trio.testing.wait_all_tasks_blocked()
            self._chunks = deque(self._fill_in(self._chunks, bytes(self.sent)))
            self._fill_in = None
        if self._patient:
            await trio.testing.wait_all_tasks_blocked()
        if not self._chunks and self._ending == "silence":
            await self._over.wait()
        if self.closed.is_set():
            raise trio.ClosedResourceError
        if self._chunks:
            chunk = self._chunks.popleft()
            if max_bytes is not None and len(chunk) > max_bytes:
                self._chunks.appendleft(chunk[max_bytes:])
            return chunk[:max_bytes]
        if self._ending == "reset":
            self._reset = True
            raise trio.BrokenResourceError
        return b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Record the sent bytes."""
        await trio.lowlevel.checkpoint()
        if self.closed.is_set():
            raise trio.ClosedResourceError
        if self._reset:
            raise trio.BrokenResourceError
        assert not self.ended_sending, "sent after the end"
        self.sent += data

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once, as sending never blocks."""
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        """End the sending direction."""
        await trio.lowlevel.checkpoint()
        self.ended_sending = True

    async def aclose(self) -> None:
        """Close this end."""
        self.closed.set()
        self._over.set()
        await trio.lowlevel.checkpoint()

    def hang_up(self) -> None:
        """Let a silent peer end its direction of the connection."""
        self._over.set()


class ScriptedListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener in memory."""

    def __init__(self) -> None:
        self.dialled, self._streams = trio.open_memory_channel[trio.abc.Stream](1000)

    @property
    def socket(self) -> "ScriptedListener":
        """An object with `getsockname()`: the listener itself."""
        return self

    def getsockname(self) -> tuple[str, int]:
        """Return an address."""
        return "127.0.0.1", 80

    async def accept(self) -> trio.abc.Stream:
        """Wait for a connection."""
        return await self._streams.receive()

    async def aclose(self) -> None:
        """Close the listener."""
        await self._streams.aclose()


@contextmanager
def listening_in_memory() -> Generator[Callable[[trio.abc.Stream], None]]:
    """Let `serve()` listen in memory; yield a function that connects a stream."""
    listener = ScriptedListener()

    async def open_tcp_listeners(*_: object, **__: object) -> list[ScriptedListener]:
        await trio.lowlevel.checkpoint()
        return [listener]

    with mock.patch.object(trio, "open_tcp_listeners", open_tcp_listeners):
        yield listener.dialled.send_nowait


@contextmanager
def dialling_in_memory(stream: trio.abc.Stream) -> Generator[None]:
    """Let `connect()` get this stream during the block."""

    async def open_tcp(*_: object, **__: object) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return stream

    with mock.patch("trio_wspair._client.dialing.open_tcp", open_tcp):
        yield

"""Streams for tests: a network in memory, and `FaultyStream`, which fails on demand."""

import math
import socket
import struct
from collections.abc import Generator
from contextlib import contextmanager
from random import Random
from typing import Final, Literal

import trio
from trio.testing import MemorySendStream, memory_stream_one_way_pair

from trio_wspair._rules.limits import check_limit, check_seconds

__all__ = ("Cut", "FaultyStream", "MemoryPort", "bounded_stream_pair", "reset")


_BUFFER_BYTES: Final = 2**16
"""The bytes that may be unread; then sending waits."""


class MemoryPort(trio.abc.Listener[trio.abc.Stream]):
    """A port in memory: a listener, and the function that connects to it."""

    def __init__(self) -> None:
        self._put, self._arriving = trio.open_memory_channel[trio.abc.Stream](math.inf)

    async def dial(self, host: str, port: int) -> trio.abc.Stream:  # noqa: ARG002
        """Open a stream to the listener: a `Dialer`."""
        near, far = bounded_stream_pair()
        await self._put.send(far)
        return near

    async def accept(self) -> trio.abc.Stream:
        """Wait for the next stream; see `trio.abc.Listener`."""
        return await self._arriving.receive()

    async def aclose(self) -> None:
        """Stop listening; see `trio.abc.Listener`."""
        await self._arriving.aclose()


def bounded_stream_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    """Return two ends, as `trio.testing.memory_stream_pair()` does, but bounded.

    A sender waits when much is unread, so that a server that sends without end doesn't
    fill the memory.
    """
    there, back = _Pipe(), _Pipe()
    return trio.StapledStream(there.entry, back), trio.StapledStream(back.entry, there)


class _Pipe(trio.abc.ReceiveStream):
    """One direction: the receiving end of a stream."""

    entry: MemorySendStream
    """The sending end."""

    def __init__(self) -> None:
        self.entry, self._exit = memory_stream_one_way_pair()
        self.entry.send_all_hook = self._pass_on
        self.entry.wait_send_all_might_not_block_hook = self._wait_for_room
        self.entry.close_hook = self._end
        self._unread = 0
        """The bytes that were sent and not received."""
        self._room = trio.lowlevel.ParkingLot()
        self._closed: type[trio.BrokenResourceError | trio.ClosedResourceError] | None
        self._closed = None
        """The error for a sender, once either end is closed."""

    async def _pass_on(self) -> None:
        try:
            data = self.entry.get_data_nowait()
        except trio.WouldBlock:
            return  # Nothing was sent.
        if self._closed is not None:
            raise self._closed
        self._exit.put_data(data)
        self._unread += len(data)
        await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        while self._unread > _BUFFER_BYTES:
            if self._closed is not None:
                raise self._closed
            await self._room.park()

    def _end(self) -> None:
        """Close the sending end."""
        self._exit.put_eof()
        self._closed = self._closed or trio.ClosedResourceError
        self._room.unpark_all()

    async def receive_some(self, max_bytes: int | None = None) -> bytearray:
        """Wait for bytes; see `trio.abc.ReceiveStream`."""
        data = await self._exit.receive_some(max_bytes)
        self._unread -= len(data)
        self._room.unpark_all()
        return data

    async def aclose(self) -> None:
        """Close the receiving end; see `trio.abc.ReceiveStream`."""
        self._exit.close()
        self._closed = self._closed or trio.BrokenResourceError
        self._room.unpark_all()
        await trio.lowlevel.checkpoint()


Cut = Literal["end", "reset", "silence"]
"""How a connection is cut: as if the peer had closed it; as if it were reset; or so
that nothing passes any more, and neither end sees an error."""

_RECEIVE_BYTES: Final = 2**16
_CUT_OFF: Final = "this stream was cut off"
_LINGER_ZERO: Final = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which closing a socket sends a reset (RST)."""


async def reset(stream: trio.abc.Stream) -> None:
    """Close a stream at once. If it is a socket, its peer sees a reset."""
    if isinstance(stream, trio.SocketStream):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    await trio.aclose_forcefully(stream)


class FaultyStream(trio.abc.HalfCloseableStream):
    """A stream around another one, with faults that you choose.

    The same arguments make the same faults for the same bytes.

    Args:
        stream: The stream below. It is closed with this one.
        seed: Chooses the sizes, the delays and the corrupted bytes.
        receive_at_most: Bytes are received in pieces of random sizes up to this size;
            1 for single bytes.
        send_at_most: The same for sending.
        delay: The most seconds that each piece is delayed, at random. Bytes that arrive
            meanwhile are received together.
        cut_after_received: Cut the stream after this many received bytes.
        cut_after_sent: The same for sending.
        cut: ``"end"`` as if the peer had closed, ``"reset"`` as if the connection were
            broken (the peer sees a reset, too, if it is a socket), or ``"silence"`` as
            if a cable were pulled: nothing is received, and sent bytes vanish.
        corrupt: The probability with which each received byte is changed.
        keep_open: `aclose()` leaves the stream below open, so that the peer keeps
            waiting; with ``cut="silence"``, the peer doesn't notice the closing either.

    Raises:
        TypeError: An argument is of another type.
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        seed: int = 0,
        receive_at_most: int | None = None,
        send_at_most: int | None = None,
        delay: float = 0.0,
        cut_after_received: int | None = None,
        cut_after_sent: int | None = None,
        cut: Cut = "reset",
        corrupt: float = 0.0,
        keep_open: bool = False,
    ) -> None:
        check_seconds("delay", delay)
        if cut not in ("end", "reset", "silence"):
            msg = f"cut is 'end', 'reset' or 'silence', not {cut!r}"
            raise ValueError(msg)
        if not 0 <= corrupt <= 1:
            msg = f"corrupt is a probability from 0 to 1, not {corrupt!r}"
            raise ValueError(msg)
        self._stream = stream
        self._receiving = _Direction(
            "receive", seed, receive_at_most, cut_after_received, delay
        )
        self._sending = _Direction("send", seed, send_at_most, cut_after_sent, delay)
        self._corrupt = corrupt
        self._noise = Random(f"corrupt {seed}")  # noqa: S311 - no secret
        self._kind: Cut = cut
        self._keep_open = keep_open
        self._cut = False
        self._closed = False
        self._scopes: set[trio.CancelScope] = set()
        """The scopes of calls that wait: cancelled when this is cut or closed."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive bytes, with the faults; see `trio.abc.ReceiveStream`."""
        direction = self._receiving
        if max_bytes is not None:
            check_limit("max_bytes", max_bytes)
        data: bytes | None = None
        with direction.alone(), self._interruptible() as scope:
            await trio.lowlevel.checkpoint()
            while not self._over():
                if not direction.left:
                    await self._cut_off(scope)
                elif data is not None:
                    break
                else:
                    size = await direction.next_size(max_bytes or _RECEIVE_BYTES)
                    data = bytes(await self._stream.receive_some(size))
                    direction.left -= len(data)
        if data is not None:
            return self._corrupted(data)
        if self._kind == "silence" and not self._closed:
            with self._interruptible():
                await trio.sleep_forever()
        self._check_open()
        if self._kind == "reset":
            raise trio.BrokenResourceError(_CUT_OFF)
        return b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, with the faults; see `trio.abc.SendStream`."""
        direction = self._sending
        rest = memoryview(data)
        with direction.alone(), self._interruptible() as scope:
            await trio.lowlevel.checkpoint()
            while not self._over():
                if not direction.left:
                    await self._cut_off(scope)
                elif not rest:
                    return
                else:
                    size = await direction.next_size(len(rest))
                    await self._stream.send_all(rest[:size])
                    direction.left -= size
                    rest = rest[size:]
        if rest or self._closed:
            self._check_sending()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the stream below may take bytes, or until this is cut."""
        with self._sending.alone(), self._interruptible():
            await trio.lowlevel.checkpoint()
            if not self._over():
                await self._stream.wait_send_all_might_not_block()
        self._check_sending()

    async def send_eof(self) -> None:
        """Send the end to the stream below; see `trio.abc.HalfCloseableStream`."""
        self._check_sending()
        if not isinstance(self._stream, trio.abc.HalfCloseableStream):
            kind = type(self._stream).__name__
            msg = f"send_eof() needs a HalfCloseableStream below, not {kind}"
            raise TypeError(msg)
        if self._cut:
            await trio.lowlevel.checkpoint()
        else:
            with self._sending.alone():
                await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close this stream, and the one below unless `keep_open` was set."""
        self._closed = True
        self._interrupt()
        if self._keep_open:
            await trio.lowlevel.checkpoint()
        else:
            await self._stream.aclose()

    # -- the cut -----------------------------------------------------------------

    def _over(self) -> bool:
        return self._cut or self._closed

    def _check_open(self) -> None:
        if self._closed:
            msg = "this stream was closed"
            raise trio.ClosedResourceError(msg)

    def _check_sending(self) -> None:
        self._check_open()
        if self._cut and self._kind != "silence":
            raise trio.BrokenResourceError(_CUT_OFF)

    async def _cut_off(self, scope: trio.CancelScope) -> None:
        """Cut the stream, and wake all waiting calls except the one in `scope`."""
        self._cut = True
        self._scopes.discard(scope)
        self._interrupt()
        with trio.CancelScope(shield=True):  # So that received bytes are not lost.
            if self._kind == "reset":
                await reset(self._stream)
            elif self._kind == "end":
                await trio.aclose_forcefully(self._stream)

    def _interrupt(self) -> None:
        for scope in self._scopes:
            scope.cancel(reason="the stream was cut off or closed")

    @contextmanager
    def _interruptible(self) -> Generator[trio.CancelScope]:
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield scope
            except trio.ClosedResourceError:
                if not self._over():
                    raise
            finally:
                self._scopes.discard(scope)

    def _corrupted(self, data: bytes) -> bytes:
        noise = self._noise
        if not self._corrupt:
            return data
        return bytes(
            byte ^ noise.randrange(1, 256) if noise.random() < self._corrupt else byte
            for byte in data
        )


class _Direction:
    """The faults of one direction."""

    def __init__(
        self,
        name: str,
        seed: int,
        at_most: int | None,
        cut_after: int | None,
        delay: float,
    ) -> None:
        if at_most is not None:
            check_limit(f"{name}_at_most", at_most)
        if cut_after is not None:
            check_limit(
                "cut_after_sent" if name == "send" else "cut_after_received",
                cut_after,
                least=0,
            )
        self.left: float = math.inf if cut_after is None else cut_after
        """The bytes that still pass before the cut."""
        self._at_most = at_most
        self._delay = delay
        self._random = Random(f"{name} {seed}")  # noqa: S311 - no secret
        self._busy = False

    @contextmanager
    def alone(self) -> Generator[None]:
        """Raise if another task uses the same direction."""
        if self._busy:
            msg = "another task is using this stream"
            raise trio.BusyResourceError(msg)
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    async def next_size(self, wanted: int) -> int:
        """Wait for the delay of the next piece, and return its size."""
        if self._delay:
            await trio.sleep(self._random.uniform(0, self._delay))
        size = wanted
        if self._at_most is not None:
            size = min(wanted, self._random.randint(1, self._at_most))
        return int(min(size, self.left))

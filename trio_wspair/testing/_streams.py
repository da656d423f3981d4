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

__all__ = (
    "Cut",
    "FaultyStream",
    "MemoryPort",
    "bounded_stream_pair",
    "reset",
)


_HELD_BYTES: Final = 2**16
"""How much is on its way before sending waits."""


class MemoryPort(trio.abc.Listener[trio.abc.Stream]):
    """A port to listen on, and the way to it."""

    def __init__(self) -> None:
        self._put, self._arriving = trio.open_memory_channel[trio.abc.Stream](math.inf)

    async def dial(self, host: str, port: int) -> trio.abc.Stream:  # noqa: ARG002
        """Open a stream to whoever listens: a `Dialer`."""
        near, far = bounded_stream_pair()
        await self._put.send(far)
        return near

    async def accept(self) -> trio.abc.Stream:
        """Wait for the next stream; see `trio.abc.Listener`."""
        return await self._arriving.receive()

    async def aclose(self) -> None:
        """Listen no more; see `trio.abc.Listener`."""
        await self._arriving.aclose()


def bounded_stream_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    """Return two ends, as `trio.testing.memory_stream_pair()` does, but bounded.

    Who sends waits for who reads, or a server that sends for ever would fill the
    memory.
    """
    there, back = _Pipe(), _Pipe()
    return trio.StapledStream(there.entry, back), trio.StapledStream(back.entry, there)


class _Pipe(trio.abc.ReceiveStream):
    """One direction: the end where it is read, and at `entry` the other."""

    entry: MemorySendStream

    def __init__(self) -> None:
        self.entry, self._exit = memory_stream_one_way_pair()
        self.entry.send_all_hook = self._pass_on
        self.entry.wait_send_all_might_not_block_hook = self._wait_for_room
        self.entry.close_hook = self._end
        self._held = 0
        self._room = trio.lowlevel.ParkingLot()
        self._over: type[trio.BrokenResourceError | trio.ClosedResourceError] | None
        self._over = None
        """What a sender gets that waits for ever."""

    async def _pass_on(self) -> None:
        try:
            data = self.entry.get_data_nowait()
        except trio.WouldBlock:
            return  # Nothing was sent.
        if self._over is not None:
            raise self._over
        self._exit.put_data(data)
        self._held += len(data)
        await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        while self._held > _HELD_BYTES:
            if self._over is not None:
                raise self._over
            await self._room.park()

    def _end(self) -> None:
        """Nothing more is sent."""
        self._exit.put_eof()
        self._over = self._over or trio.ClosedResourceError
        self._room.unpark_all()

    async def receive_some(self, max_bytes: int | None = None) -> bytearray:
        """Wait for bytes; see `trio.abc.ReceiveStream`."""
        data = await self._exit.receive_some(max_bytes)
        self._held -= len(data)
        self._room.unpark_all()
        return data

    async def aclose(self) -> None:
        """Nothing more is read; see `trio.abc.ReceiveStream`."""
        self._exit.close()
        self._over = self._over or trio.BrokenResourceError
        self._room.unpark_all()
        await trio.lowlevel.checkpoint()


Cut = Literal["end", "reset", "silence"]
"""How a connection is cut off: the peer has closed it in good order; it is broken; or
nothing passes any more, and nobody is told."""

_RECEIVE_BYTES: Final = 2**16
_CUT_OFF: Final = "this stream was cut off"
_LINGER_ZERO: Final = struct.pack("ii", 1, 0)
"""Makes closing a socket a reset."""


async def reset(stream: trio.abc.Stream) -> None:
    """Close a stream at once; if it is a socket, its peer sees a reset."""
    if isinstance(stream, trio.SocketStream):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    await trio.aclose_forcefully(stream)


class FaultyStream(trio.abc.HalfCloseableStream):
    """A stream around another one, on which goes wrong what you choose.

    The same arguments make the same faults for the same bytes.

    Args:
        stream: The stream to spoil. It belongs to this one.
        seed: Chooses the sizes, the delays and the corrupted bytes.
        receive_at_most: Bytes are received in pieces of random sizes up to this one;
            1 for one at a time.
        send_at_most: The same for sending.
        delay: Seconds up to which each piece is held up, at random. What comes
            meanwhile is merged.
        cut_after_received: After so many received bytes it is cut off.
        cut_after_sent: The same for sending.
        cut: ``"end"`` as if the peer had closed, ``"reset"`` as if the connection were
            broken (the peer sees a reset, too, if it is a socket), or ``"silence"`` as
            if a cable were pulled: nothing comes, and what is sent vanishes.
        corrupt: The probability of each received byte to be another one.
        keep_open: `aclose()` leaves the stream below open, so that the peer waits; with
            ``cut="silence"``, it does not hear of the closing either.

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
        self._receiving = _Way(
            "receive", seed, receive_at_most, cut_after_received, delay
        )
        self._sending = _Way("send", seed, send_at_most, cut_after_sent, delay)
        self._corrupt = corrupt
        self._noise = Random(f"corrupt {seed}")  # noqa: S311 - no secret
        self._kind: Cut = cut
        self._keep_open = keep_open
        self._cut = False
        self._closed = False
        self._scopes: set[trio.CancelScope] = set()
        """What waits, and has to be woken when this is cut off or closed."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive, as far as the faults let it; see `trio.abc.ReceiveStream`."""
        way = self._receiving
        if max_bytes is not None:
            check_limit("max_bytes", max_bytes)
        data: bytes | None = None
        with way.alone(), self._interruptible() as scope:
            await trio.lowlevel.checkpoint()
            while not self._over():
                if not way.left:
                    await self._cut_off(scope)
                elif data is not None:
                    break
                else:
                    size = await way.next_size(max_bytes or _RECEIVE_BYTES)
                    data = bytes(await self._stream.receive_some(size))
                    way.left -= len(data)
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
        """Send, as far as the faults let it; see `trio.abc.SendStream`."""
        way = self._sending
        rest = memoryview(data)
        with way.alone(), self._interruptible() as scope:
            await trio.lowlevel.checkpoint()
            while not self._over():
                if not way.left:
                    await self._cut_off(scope)
                elif not rest:
                    return
                else:
                    size = await way.next_size(len(rest))
                    await self._stream.send_all(rest[:size])
                    way.left -= size
                    rest = rest[size:]
        if rest or self._closed:
            self._check_sending()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for the stream below, or for the cut."""
        with self._sending.alone(), self._interruptible():
            await trio.lowlevel.checkpoint()
            if not self._over():
                await self._stream.wait_send_all_might_not_block()
        self._check_sending()

    async def send_eof(self) -> None:
        """Send the end to the stream below; see `trio.abc.HalfCloseableStream`."""
        self._check_sending()
        if not isinstance(self._stream, trio.abc.HalfCloseableStream):
            msg = f"{type(self._stream).__name__} can't send an end and go on receiving"
            raise TypeError(msg)
        if self._cut:
            await trio.lowlevel.checkpoint()
        else:
            with self._sending.alone():
                await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close this stream, and the one below unless that is kept open."""
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
        """Cut the stream off, and wake everybody but the one in this scope."""
        self._cut = True
        self._scopes.discard(scope)
        self._interrupt()
        with trio.CancelScope(shield=True):  # What was received is not lost.
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


class _Way:
    """What goes wrong in one direction."""

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
        """How many bytes pass before the cut."""
        self._at_most = at_most
        self._delay = delay
        self._random = Random(f"{name} {seed}")  # noqa: S311 - no secret
        self._busy = False

    @contextmanager
    def alone(self) -> Generator[None]:
        """Refuse a second task that wants the same direction."""
        if self._busy:
            msg = "another task is using this stream"
            raise trio.BusyResourceError(msg)
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    async def next_size(self, wanted: int) -> int:
        """Hold the next piece up, and return its size."""
        if self._delay:
            await trio.sleep(self._random.uniform(0, self._delay))
        size = wanted
        if self._at_most is not None:
            size = min(wanted, self._random.randint(1, self._at_most))
        return int(min(size, self.left))

"""A network in memory: streams that hold as much as sockets do, and a port.

Knows bytes, and nothing of what they mean. Everything happens in Trio's time.
"""

import math
from typing import Final

import trio
from trio.testing import MemorySendStream, memory_stream_one_way_pair

__all__ = ("MemoryPort", "bounded_stream_pair")

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

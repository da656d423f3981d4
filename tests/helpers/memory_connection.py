"""A user-written `Connection` on two memory channels, as in the documentation."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import trio

from trio_wspair import ConnectionClosedError, WebSocket, WebSocketPair
from trio_wspair.testing._suite_ends import OnPurposeError
from trio_wspair.transports import Close, couple

Item = str | bytes | Close
GONE = trio.ClosedResourceError, trio.BrokenResourceError, trio.EndOfChannel


class MemoryConnection:
    """One end of a connection in memory."""

    def __init__(
        self,
        outgoing: trio.MemorySendChannel[Item],
        incoming: trio.MemoryReceiveChannel[Item],
    ) -> None:
        self.outgoing = outgoing
        self.incoming = incoming

    async def receive(self) -> Sequence[Item]:
        """Wait for the next item."""
        try:
            return [await self.incoming.receive()]
        except GONE:
            raise ConnectionClosedError(1006, "gone", was_clean=False) from None

    async def send(self, items: Sequence[Item]) -> None:
        """Send items."""
        try:
            for item in items:
                await self.outgoing.send(item)
        except GONE:
            raise ConnectionClosedError(1006, "gone", was_clean=False) from None

    async def aclose(self, code: int, reason: str) -> None:  # noqa: ARG002
        """Close the connection, after the Close was sent."""
        await trio.lowlevel.checkpoint()
        self.abort()

    def abort(self) -> None:
        """Close both channels at once."""
        self.outgoing.close()
        self.incoming.close()


@asynccontextmanager
async def open_coupled_pair(
    kind: type[MemoryConnection] = MemoryConnection, *, buffer_size: float = 0
) -> AsyncGenerator[tuple[WebSocket, WebSocket]]:
    """Open two pairs and couple them by a connection; give the outer halves."""
    to_right, at_right = trio.open_memory_channel[Item](buffer_size)
    to_left, at_left = trio.open_memory_channel[Item](buffer_size)
    async with trio.open_nursery() as nursery:
        first, left = WebSocketPair(nursery)
        second, right = WebSocketPair(nursery)
        nursery.start_soon(couple, left, kind(to_right, at_left))
        nursery.start_soon(couple, right, kind(to_left, at_right))
        yield first, second
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_contained_pair(
    kind: type[MemoryConnection] = MemoryConnection,
) -> AsyncGenerator[tuple[WebSocket, WebSocket]]:
    """Do the same with a nursery for each half that contains its failures."""

    async def live(
        connection: MemoryConnection, *, task_status: trio.TaskStatus[WebSocket]
    ) -> None:
        try:
            async with trio.open_nursery() as nursery:
                half, coupled = WebSocketPair(nursery)
                nursery.start_soon(couple, coupled, connection)
                task_status.started(half)
        except* OnPurposeError:
            pass

    to_right, at_right = trio.open_memory_channel[Item](0)
    to_left, at_left = trio.open_memory_channel[Item](0)
    async with trio.open_nursery() as nursery:
        first = await nursery.start(live, kind(to_right, at_left))
        yield first, await nursery.start(live, kind(to_left, at_right))
        nursery.cancel_scope.cancel()

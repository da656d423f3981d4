"""`websockets` on Trio without a network: connections on streams in memory.

They skip the handshake, so they need less memory than the connections of a server.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import trio
import trio.testing

from benchmarks.in_memory.lifetime import growth, ignore
from benchmarks.in_memory.messages import TEXT, Message, Tally
from benchmarks.in_memory.one_to_many import PAIRS
from benchmarks.repeating import Batch, rate
from benchmarks.workload import Measure, MissingError, Sample

if TYPE_CHECKING:
    from websockets.trio.connection import Connection

__all__ = ("broadcast", "deliver", "idle")


def _if_installed(measure: Measure) -> Measure:
    def checked(seconds: float) -> Sample:
        try:
            import_module("websockets.trio.connection")
        except ImportError as error:
            raise MissingError(str(error)) from error
        return measure(seconds)

    return checked


def open_connection(
    nursery: trio.Nursery, take: Callable[[Message], None]
) -> "Sequence[Connection]":
    """Return both ends of a connection; a task at each gives messages to `take`."""
    from websockets.protocol import Protocol, Side, State  # noqa: PLC0415
    from websockets.trio.connection import Connection  # noqa: PLC0415

    async def receive(connection: Connection) -> None:
        async for message in connection:
            take(message)

    ends = [
        Connection(
            nursery, stream, Protocol(side, state=State.OPEN), ping_interval=None
        )
        for stream, side in zip(
            trio.testing.memory_stream_pair(), (Side.CLIENT, Side.SERVER), strict=True
        )
    ]
    for end in ends:
        nursery.start_soon(receive, end)
    return ends


def idle() -> Measure:
    """Return a measure of the memory for both ends of a connection."""

    async def grow() -> Sample:
        async with trio.open_nursery() as nursery:

            async def open_one() -> object:
                await trio.lowlevel.checkpoint()
                return open_connection(nursery, ignore)

            sample = await growth(open_one)
            nursery.cancel_scope.cancel()
        return sample

    return _if_installed(lambda _seconds: trio.run(grow))


def deliver(connections: int) -> Measure:
    """Return a measure of messages: one on each connection, again when all arrived."""

    def prepare(nursery: trio.Nursery) -> Batch:
        tally = Tally()
        clients = [open_connection(nursery, tally.take)[0] for _ in range(connections)]

        async def batch() -> int:
            tally.expect(len(clients))
            for client in clients:
                await client.send(TEXT)
            await tally.all_came.wait()
            return len(clients)

        return batch

    return _if_installed(rate(prepare))


def broadcast() -> Measure:
    """Return a measure of messages that are broadcast to all connections."""

    def prepare(nursery: trio.Nursery) -> Batch:
        from websockets.trio.connection import broadcast  # noqa: PLC0415

        tally = Tally()
        servers = [open_connection(nursery, tally.take)[1] for _ in range(PAIRS)]

        async def batch() -> int:
            tally.expect(len(servers))
            await broadcast(servers, TEXT)
            await tally.all_came.wait()
            return len(servers)

        return batch

    return _if_installed(rate(prepare))

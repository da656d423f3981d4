"""Objects without a network: their memory, and how fast they are told something."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count

import attrs
import trio

from benchmarks.in_memory.lifetime import growth, ignore
from benchmarks.in_memory.messages import TEXT, Tally
from benchmarks.in_memory.one_to_many import PAIRS, send_to_all
from benchmarks.repeating import Batch, rate_within
from benchmarks.work import Measure, Sample
from trio_wspair import Headers, Request, WebSocket
from trio_wspair.hibernation import DurableObjectNamespace, DurableObjectState

from .room import Handle, rooms

__all__ = ("broadcast", "idle", "told")


@attrs.frozen
class Objects:
    """Objects, each with a name."""

    namespace: DurableObjectNamespace
    nursery: trio.Nursery

    async def enter(self, name: str) -> WebSocket:
        """Return the client's half of a new socket of an object."""
        headers = Headers({"Upgrade": "websocket"})
        request = Request(
            method="GET", url="http://localhost/", headers=headers, nursery=self.nursery
        )
        response = await self.namespace.get_by_name(name).fetch(request)
        assert response.web_socket is not None
        response.web_socket.accept()
        return response.web_socket


@asynccontextmanager
async def open_objects(
    handle: Handle, *, asleep: bool
) -> AsyncGenerator[Objects, None]:
    async with trio.open_nursery() as nursery:
        async with rooms(handle, asleep=asleep) as namespace:
            yield Objects(namespace, nursery)
        nursery.cancel_scope.cancel()


def idle(*, each: bool, asleep: bool) -> Measure:
    """Return a measure of the memory for each socket, of one object or of one each."""

    async def grow() -> Sample:
        numbers = count()
        async with open_objects(ignore, asleep=asleep) as objects:
            return await growth(
                lambda: objects.enter(str(next(numbers)) if each else "lobby")
            )

    return lambda _seconds: trio.run(grow)


def told(objects_: int, *, asleep: bool) -> Measure:
    """Return a measure of messages, one to each object, again when all have theirs."""

    @asynccontextmanager
    async def open_batch() -> AsyncGenerator[Batch, None]:
        tally = Tally()

        def handle(
            _ctx: DurableObjectState, _ws: WebSocket, message: str | bytes
        ) -> None:
            tally.take(message)

        async with open_objects(handle, asleep=asleep) as objects:
            clients = [await objects.enter(str(number)) for number in range(objects_)]
            yield send_to_all([client.send for client in clients], tally)

    return rate_within(open_batch)


def broadcast(handle: Handle) -> Measure:
    """Return a measure of what all sockets of an object get when one says something."""

    @asynccontextmanager
    async def open_batch() -> AsyncGenerator[Batch, None]:
        tally = Tally()
        count_one = tally.listener()
        async with open_objects(handle, asleep=False) as objects:
            clients = [await objects.enter("lobby") for _ in range(PAIRS)]
            for client in clients:
                client.add_event_listener("message", count_one)

            async def batch() -> int:
                tally.expect(len(clients))
                clients[0].send(TEXT)
                await tally.all_came.wait()
                return len(clients)

            yield batch

    return rate_within(open_batch)

"""Durable Objects without a network: their memory, and how fast they get messages."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count

import attrs
import trio

from benchmarks.in_memory.lifetime import growth, ignore
from benchmarks.in_memory.messages import TEXT, Tally
from benchmarks.in_memory.one_to_many import PAIRS, send_to_all
from benchmarks.repeating import Batch, rate_within
from benchmarks.workload import Measure, Sample
from trio_wspair import Headers, Request, WebSocket
from trio_wspair.hibernation import DurableObjectNamespace, DurableObjectState

from .room import Handle, rooms

__all__ = ("broadcast", "deliver", "idle")


@attrs.frozen
class Objects:
    """A namespace of objects, and the nursery for their clients."""

    namespace: DurableObjectNamespace
    nursery: trio.Nursery

    async def connect(self, name: str) -> WebSocket:
        """Connect to the object with this name, and return the client's half."""
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


def idle(*, separate: bool, asleep: bool) -> Measure:
    """Return a measure of the memory per socket, in separate objects or in one."""

    async def grow() -> Sample:
        numbers = count()
        async with open_objects(ignore, asleep=asleep) as objects:
            return await growth(
                lambda: objects.connect(str(next(numbers)) if separate else "lobby")
            )

    return lambda _seconds: trio.run(grow)


def deliver(number_of_objects: int, *, asleep: bool) -> Measure:
    """Return a measure of messages to objects: one to each, again when all arrived."""

    @asynccontextmanager
    async def open_batch() -> AsyncGenerator[Batch, None]:
        tally = Tally()

        def handle(
            _ctx: DurableObjectState, _ws: WebSocket, message: str | bytes
        ) -> None:
            tally.take(message)

        async with open_objects(handle, asleep=asleep) as objects:
            clients = [await objects.connect(str(n)) for n in range(number_of_objects)]
            yield send_to_all([client.send for client in clients], tally)

    return rate_within(open_batch)


def broadcast(handle: Handle) -> Measure:
    """Return a measure of messages that one socket sends to all of an object."""

    @asynccontextmanager
    async def open_batch() -> AsyncGenerator[Batch, None]:
        tally = Tally()
        count_one = tally.listener()
        async with open_objects(handle, asleep=False) as objects:
            clients = [await objects.connect("lobby") for _ in range(PAIRS)]
            for client in clients:
                client.add_event_listener("message", count_one)

            async def batch() -> int:
                tally.expect(len(clients))
                clients[0].send(TEXT)
                await tally.all_came.wait()
                return len(clients)

            yield batch

    return rate_within(open_batch)

"""Objects and `websockets` without a network: pairs here, memory streams there."""

import gc
import itertools
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from statistics import quantiles
from typing import Final

import attrs
import trio
import trio.testing
import websockets.trio.connection
from websockets.protocol import Protocol, Side, State

from trio_wspair import Headers, MessageEvent, Request, WebSocket
from trio_wspair.hibernation import DurableObjectNamespace, DurableObjectState

from .hibernation_loopback import TEXT, WARM, Handle, Room, resident_bytes

__all__ = (
    "MEMBERS",
    "all_at_once",
    "broadcast_of_object",
    "broadcast_of_websockets",
    "idle_objects",
    "idle_websockets",
    "one_by_one",
    "to_objects",
    "to_websockets",
)

MEMBERS: Final = 1000
_PATIENCE: Final = 300

Sample = dict[str, float]


# -- who sends and who receives ------------------------------------------------


@attrs.frozen
class Objects:
    """Open objects."""

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

    def evict(self, name: str) -> None:
        self.namespace.evict(self.namespace.id_from_name(name))


def _with_nursery(measure: Callable[[trio.Nursery], Awaitable[Sample]]) -> Sample:
    async def run() -> Sample:
        with trio.fail_after(_PATIENCE):
            async with trio.open_nursery() as nursery:
                sample = await measure(nursery)
                nursery.cancel_scope.cancel()
        return sample

    return trio.run(run)


def _with_objects(
    measure: Callable[[Objects], Awaitable[Sample]],
    handle: Handle,
    hibernate_after: float = math.inf,
) -> Sample:
    async def run(nursery: trio.Nursery) -> Sample:
        async with DurableObjectNamespace(Room, handle, hibernate_after) as namespace:
            return await measure(Objects(namespace, nursery))

    return _with_nursery(run)


Connection = websockets.trio.connection.Connection
Take = Callable[[str | bytes], None]


def _websocket(nursery: trio.Nursery, take: Take) -> tuple[Connection, Connection]:
    """Open a connection of `websockets`; a task at each end gives messages to `take`.

    There is no handshake, so it is lighter than with a server.
    """

    async def receive(connection: Connection) -> None:
        async for message in connection:
            take(message)

    streams = trio.testing.memory_stream_pair()
    client, server = (
        Connection(
            nursery, stream, Protocol(side, state=State.OPEN), ping_interval=None
        )
        for stream, side in zip(streams, (Side.CLIENT, Side.SERVER), strict=True)
    )
    nursery.start_soon(receive, client)
    nursery.start_soon(receive, server)
    return client, server


# -- idle ------------------------------------------------------------------------


def _nothing(*_: object) -> None:
    pass


async def _growth(
    sockets: int, open_socket: Callable[[int], Awaitable[object]]
) -> Sample:
    """Return the memory that this process holds for each socket."""
    kept = [await open_socket(number) for number in range(WARM)]
    before = await _settled_bytes()
    kept += [await open_socket(number) for number in range(WARM, WARM + sockets)]
    return {"bytes/socket": (await _settled_bytes() - before) / sockets}


async def _settled_bytes() -> int:
    await trio.testing.wait_all_tasks_blocked()
    gc.collect()
    return resident_bytes()


def idle_objects(sockets: int, _seconds: float, *, each: bool, asleep: bool) -> Sample:
    """Measure the sockets of one object, or of one object each."""

    async def measure(objects: Objects) -> Sample:
        async def enter(number: int) -> WebSocket:
            return await objects.enter(str(number) if each else "lobby")

        return await _growth(sockets, enter)

    return _with_objects(measure, _nothing, 0.0 if asleep else math.inf)


def idle_websockets(sockets: int, _seconds: float) -> Sample:
    async def measure(nursery: trio.Nursery) -> Sample:
        async def enter(_number: int) -> object:
            await trio.lowlevel.checkpoint()
            return _websocket(nursery, _nothing)

        return await _growth(sockets, enter)

    return _with_nursery(measure)


# -- from send() to the handler --------------------------------------------------


@attrs.frozen
class Target:
    """Somebody who handles messages."""

    send: Callable[[str], Awaitable[None]]
    evict: Callable[[], None] = _nothing
    """Called before each message."""


class Stopwatch:
    """Notes how long messages take until they are handled; each tells when it began."""

    def __init__(self) -> None:
        self._microseconds: list[float] = []
        self._expected = 0
        self._all_came = trio.Event()

    def take(self, message: str | bytes) -> None:
        self._microseconds.append((time.perf_counter_ns() - int(message)) / 1000)
        self._expected -= 1
        if not self._expected:
            self._all_came.set()

    def handle(self, _ctx: DurableObjectState, message: str | bytes) -> None:
        self.take(message)

    async def one_by_one(self, targets: Sequence[Target], seconds: float) -> Sample:
        """Send one message after the other, to each in turn."""
        await self._send_to(targets)  # Warm up.
        self._microseconds.clear()
        spent = 0.0
        for target in itertools.cycle(targets):
            spent += await self._send_to([target])
            if spent > seconds:
                break
        percentiles = quantiles(self._microseconds, n=100)
        return {"µs, median": percentiles[49], "µs, p99": percentiles[98]}

    async def all_at_once(self, targets: Sequence[Target], seconds: float) -> Sample:
        """Send a message to each, again when all have been handled."""
        await self._send_to(targets)  # Warm up.
        done = 0
        spent = 0.0
        while spent < seconds:
            spent += await self._send_to(targets)
            done += len(targets)
        return {"messages/CPU s": done / spent}

    async def _send_to(self, targets: Sequence[Target]) -> float:
        """Return the CPU time until all messages have been handled."""
        self._expected = len(targets)
        self._all_came = trio.Event()
        for target in targets:
            target.evict()
        await trio.testing.wait_all_tasks_blocked()
        start = time.process_time()
        for target in targets:
            await target.send(str(time.perf_counter_ns()))
        await self._all_came.wait()
        return time.process_time() - start


Run = Callable[[Stopwatch, Sequence[Target], float], Awaitable[Sample]]
one_by_one: Final[Run] = Stopwatch.one_by_one
all_at_once: Final[Run] = Stopwatch.all_at_once


def to_objects(run: Run, objects_: int, seconds: float, *, asleep: bool) -> Sample:
    """Send messages to objects, to each through a socket of its own."""
    stopwatch = Stopwatch()

    async def measure(objects: Objects) -> Sample:
        async def open_target(name: str) -> Target:
            client = await objects.enter(name)

            async def send(message: str) -> None:
                client.send(message)

            return Target(send, partial(objects.evict, name) if asleep else _nothing)

        targets = [await open_target(str(number)) for number in range(objects_)]
        return await run(stopwatch, targets, seconds)

    return _with_objects(measure, stopwatch.handle)


def to_websockets(run: Run, connections: int, seconds: float) -> Sample:
    stopwatch = Stopwatch()

    async def measure(nursery: trio.Nursery) -> Sample:
        clients = [_websocket(nursery, stopwatch.take)[0] for _ in range(connections)]
        targets = [Target(client.send) for client in clients]
        return await run(stopwatch, targets, seconds)

    return _with_nursery(measure)


# -- one message to many ---------------------------------------------------------


class Tally:
    """Counts what arrives, and tells when all has."""

    def __init__(self) -> None:
        self._came = 0
        self._all_came = trio.Event()

    def take(self, message: str | bytes) -> None:
        self._came += message == TEXT
        if self._came == MEMBERS:
            self._all_came.set()

    def take_event(self, event: MessageEvent) -> None:
        self.take(event.data)

    async def rate(
        self, send_to_all: Callable[[], Awaitable[None]], seconds: float
    ) -> Sample:
        """Return how many messages arrive in a second of CPU time."""
        await self._repeat(send_to_all, seconds / 4)  # Warm up.
        return {"messages/CPU s": await self._repeat(send_to_all, seconds)}

    async def _repeat(
        self, send_to_all: Callable[[], Awaitable[None]], seconds: float
    ) -> float:
        done = 0
        spent = 0.0
        start = time.process_time()
        while spent < seconds:
            self._came = 0
            self._all_came = trio.Event()
            await send_to_all()
            await self._all_came.wait()
            done += MEMBERS
            spent = time.process_time() - start
        return done / spent


def broadcast_of_object(handle: Handle, seconds: float) -> Sample:
    """Let one member of an object say something, which all get."""
    tally = Tally()

    async def measure(objects: Objects) -> Sample:
        clients = [await objects.enter("lobby") for _ in range(MEMBERS)]
        for client in clients:
            client.add_event_listener("message", tally.take_event)

        async def send_to_all() -> None:
            clients[0].send(TEXT)

        return await tally.rate(send_to_all, seconds)

    return _with_objects(measure, handle)


def broadcast_of_websockets(seconds: float) -> Sample:
    tally = Tally()

    async def measure(nursery: trio.Nursery) -> Sample:
        servers = [_websocket(nursery, tally.take)[1] for _ in range(MEMBERS)]

        async def send_to_all() -> None:
            await websockets.trio.connection.broadcast(servers, TEXT)

        return await tally.rate(send_to_all, seconds)

    return _with_nursery(measure)

"""Where scenarios are played: one object behind a server, and its clients."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import attrs
import trio
from faulty import memory_network
from trio.testing import MockClock, wait_all_tasks_blocked

from conformance.stage import Scenario, Trace, let_time_pass, network_settled
from trio_wspair import Headers, Request, Response, Server, serve
from trio_wspair.hibernation import DurableObjectNamespace, DurableObjectStub
from trio_wspair.testing import ScriptedPeer, hibernate_after_every_event

from .client import CLOSE_TIMEOUT, Client
from .room import Room, World

Settle = Callable[[], Awaitable[None]]
Sleeping = Callable[[DurableObjectNamespace], AbstractContextManager[object]]


async def in_memory(scenario: Scenario) -> Trace:
    """Play a scenario on a network in memory."""
    with memory_network():
        return await _play(scenario, World(scenario))


async def on_the_wire(scenario: Scenario) -> Trace:
    """Play a scenario over sockets."""
    return await _play(scenario, World(scenario), settle=network_settled)


async def awake(scenario: Scenario) -> Trace:
    """Play a scenario in memory, in a world that lasts."""
    with memory_network():
        return await _play(scenario, World(scenario, lasting=True))


async def always_asleep(scenario: Scenario, *, lasting: bool = True) -> Trace:
    """Play it so, with an object that leaves memory after every event."""
    with memory_network():
        world = World(scenario, lasting=lasting)
        return await _play(scenario, world, sleeping=hibernate_after_every_event)


async def _play(
    scenario: Scenario,
    world: World,
    *,
    settle: Settle = wait_all_tasks_blocked,
    sleeping: Sleeping = nullcontext,
) -> Trace:
    async with (
        trio.open_nursery() as nursery,
        DurableObjectNamespace(Room, env=world) as rooms,
    ):
        room = rooms.get_by_name("room")

        async def fetch(request: Request) -> Response:
            return await room.fetch(request)

        server = await nursery.start(partial(serve, fetch, 0))
        stage = _Stage(room, server, nursery, settle)
        with sleeping(rooms):
            for number, step in enumerate(scenario["steps"]):
                await stage.take(number, step)
            await stage.end()
            trace = {
                "object": world.log.copy(),
                "clients": {name: c.events.copy() for name, c in stage.clients.items()},
                "results": world.results.copy(),
            }
        let_time_pass()
        nursery.cancel_scope.cancel()
    return {**trace, "clients": {}} if scenario.get("clientsNotRecorded") else trace


@attrs.frozen
class _Stage:
    """Takes the steps of a scenario.

    The clock stands still, but in steps that are about time.
    """

    _room: DurableObjectStub
    _server: Server
    _nursery: trio.Nursery
    _settle: Settle
    clients: dict[str, Client] = attrs.field(factory=dict, init=False)

    async def take(self, number: int, step: dict[str, Any]) -> None:
        """Take a step; wait until nothing happens any more, unless it says not to."""
        match step:
            case {"connect": name}:
                await self._connect(name, f"/{number}")
            case {"object": _}:
                await self._ask(f"/{number}")
            case {"client": name}:
                await self.clients[name].take(step)
            case {"sleep": milliseconds}:
                await self._let_pass(milliseconds / 1000)
            case _:
                raise AssertionError(f"no such step: {step}")
        if step.get("calm", True):
            await self._settle()

    async def end(self) -> None:
        """Wait for the last of all, also for clients that wait for a Close."""
        await self._settle()
        if any(client.closing for client in self.clients.values()):
            await self._let_pass(CLOSE_TIMEOUT)

    async def _connect(self, name: str, target: str) -> None:
        stream = await trio.open_tcp_stream(*self._server.addresses[0])
        client = self.clients[name] = Client(ScriptedPeer(stream, masks=True))
        self._nursery.start_soon(client.run, target)
        await self._settle()
        assert client.events, "there is no answer"

    async def _ask(self, target: str) -> None:
        answers: list[Response] = []

        async def ask() -> None:
            url = f"http://room{target}"
            request = Request(
                method="GET", url=url, headers=Headers(), nursery=self._nursery
            )
            answers.append(await self._room.fetch(request))

        self._nursery.start_soon(ask)
        await self._settle()
        assert answers, "there is no answer"

    async def _let_pass(self, seconds: float) -> None:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        end = trio.current_time() + seconds
        await self._settle()
        while (left := end - trio.current_time()) > 0:
            statistics = trio.lowlevel.current_statistics()
            clock.jump(min(left, max(statistics.seconds_to_next_deadline, 0.001)))
            await self._settle()

"""Plays scenarios on an object behind a server, with clients."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from operator import itemgetter
from typing import Any

import trio
from patched_network import memory_network
from trio.testing import MockClock, wait_all_tasks_blocked

from conformance.stage import Scenario, Trace, let_time_pass, network_settled
from trio_wspair import Headers, Request, Response, Server, serve
from trio_wspair._pair.verbs import half_of
from trio_wspair.hibernation import DurableObjectNamespace
from trio_wspair.testing import ScriptedPeer, hibernate_after_every_event

from .client import CLOSE_TIMEOUT, Client
from .room import Room, World

Settle = Callable[[], Awaitable[None]]
Sleeping = Callable[[DurableObjectNamespace], AbstractContextManager[object]]


async def in_memory(scenario: Scenario, world: World | None = None) -> Trace:
    """Play a scenario on a network in memory."""
    with memory_network():
        return await _play(scenario, world or World(scenario))


async def on_the_wire(scenario: Scenario, world: World | None = None) -> Trace:
    """Play a scenario over sockets."""
    return await _play(scenario, world or World(scenario), settle=network_settled)


async def awake(scenario: Scenario) -> Trace:
    """Play a scenario in memory, in a world that keeps the names."""
    with memory_network():
        return await _play(scenario, World(scenario, lasting=True))


async def always_asleep(scenario: Scenario, *, lasting: bool = True) -> Trace:
    """Play a scenario like `awake()`, but evict the object after every event."""
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
        room = rooms.get_by_name("room")  # `_OurStage` uses this name, too.

        async def fetch(request: Request) -> Response:
            return await room.fetch(request)

        server = await nursery.start(partial(serve, fetch, 0))
        stage = _OurStage(rooms, world, server, nursery, settle)
        with sleeping(rooms):
            for number, step in enumerate(scenario["steps"]):
                await stage.take(number, step)
            await stage.end()
            trace = {
                "object": world.log.copy(),
                "clients": {name: c.events.copy() for name, c in stage.clients.items()},
                "results": sorted(world.results, key=itemgetter("step")),
            }
        let_time_pass()
        nursery.cancel_scope.cancel()
    return {**trace, "clients": {}} if scenario.get("clientsNotRecorded") else trace


class Stage(ABC):
    """Takes the steps of a scenario."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.clients: dict[str, Client] = {}
        self.nursery = nursery

    async def take(self, number: int, step: dict[str, Any]) -> None:
        """Take a step; then settle, unless the step has `"calm": false`."""
        match step:
            case {"connect": name}:
                client = Client(ScriptedPeer(await self.open_stream(), masks=True))
                self.clients[name] = client
                self.nursery.start_soon(client.run, self.target(number, step))
                await self.settle()
            case {"object": _}:
                self.nursery.start_soon(self.ask, number, step)
                await self.settle()
            case {"client": name} if name in self.clients:
                await self.clients[name].take(step)
            case {"client": _}:
                pass  # In a minimized program, a client may not have connected.
            case {"sleep": milliseconds}:
                await self.let_pass(milliseconds / 1000)
            case {"open": gate}:
                if not await self.open_gate(gate):
                    return
            case _:
                raise AssertionError(f"no such step: {step}")
        if step.get("calm", True):
            await self.settle()

    @abstractmethod
    async def settle(self) -> None:
        """Wait until all tasks are blocked."""

    @abstractmethod
    async def open_stream(self) -> trio.abc.Stream:
        """Open a connection to the server of the object."""

    @abstractmethod
    def target(self, number: int, step: dict[str, Any], /) -> str:
        """Return the target of a client's request in this step."""

    @abstractmethod
    async def ask(self, number: int, step: dict[str, Any]) -> None:
        """Have the object perform the operations of the step."""

    @abstractmethod
    async def open_gate(self, gate: str) -> bool:
        """Open a gate; return whether an operation waits for it."""

    @abstractmethod
    async def let_pass(self, seconds: float) -> None:
        """Let this time pass."""


class _OurStage(Stage):
    """Takes steps on our object. The clock stands still, except in `let_pass()`."""

    def __init__(
        self,
        rooms: DurableObjectNamespace,
        world: World,
        server: Server,
        nursery: trio.Nursery,
        settle: Settle,
    ) -> None:
        super().__init__(nursery)
        self._rooms = rooms
        self._world = world
        self._server = server
        self._settle = settle

    async def settle(self) -> None:
        await self._settle()
        # Note whether a message or a Close waits for an earlier handler of its socket.
        for actor in self._rooms._actors.values():
            for half in map(half_of, actor.sockets.listed(None)):
                taken = half.inbox.end is None or half.state.end is not None
                self._world.queued |= half.inbox.weight > 0 or not taken

    async def end(self) -> None:
        """Wait until everything has ended, including clients that wait for a Close."""
        await self.settle()
        if any(client.closing for client in self.clients.values()):
            await self.let_pass(CLOSE_TIMEOUT)

    async def open_stream(self) -> trio.abc.Stream:
        return await trio.open_tcp_stream(*self._server.addresses[0])

    def target(self, number: int, _step: dict[str, Any]) -> str:
        return f"/{number}"

    async def ask(self, number: int, step: dict[str, Any]) -> None:
        url = f"http://room{self.target(number, step)}"
        request = Request(
            method="GET", url=url, headers=Headers(), nursery=self.nursery
        )
        try:
            await self._rooms.get_by_name("room").fetch(request)
        except Exception:
            failed = {"step": number, "results": {"status": 500}}
            self._world.results.append(failed)

    async def open_gate(self, gate: str) -> bool:
        self._world.gate(gate).set()
        return True

    async def let_pass(self, seconds: float) -> None:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        end = trio.current_time() + seconds
        await self.settle()
        while (left := end - trio.current_time()) > 0:
            statistics = trio.lowlevel.current_statistics()
            clock.jump(min(left, max(statistics.seconds_to_next_deadline, 0.001)))
            await self.settle()

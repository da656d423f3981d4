"""Order of events that come at the same moment, and objects that are forgotten."""

import gc
import weakref
from itertools import pairwise
from typing import Any

import attrs
import pytest
import trio
from durable_objects import Room, RoomNamespace, World, new_request, open_namespace
from pairs import in_virtual_time
from trio.testing import wait_all_tasks_blocked

from trio_wspair import ReadyState, Request, Response, WebSocket
from trio_wspair.hibernation import (
    DurableObjectNamespace,
    DurableObjectResetError,
    _namespace,
)
from trio_wspair.hibernation._actor import Actor
from trio_wspair.hibernation._turnstile import Turnstile


async def settled() -> None:
    await wait_all_tasks_blocked()


@attrs.define(eq=False)
class Blocked(World):
    """A world in which an object can be blocked, and reports what it sees."""

    gate: trio.Event = attrs.field(factory=trio.Event)
    in_block: Any = None
    """Called with the object before the block ends."""

    def __attrs_post_init__(self) -> None:
        self.on_fetch = self._ask

    async def _ask(self, room: Room, request: Request) -> Response | None:
        if request.path == "/block":
            await room.ctx.block_concurrency_while(self._block, room)
        elif request.path.startswith("/say"):
            self.log.append(request.path)
        else:
            return None
        return Response()

    async def _block(self, room: Room) -> None:
        await self.gate.wait()
        if self.in_block is not None:
            self.in_block(room)


def later(namespace: RoomNamespace, path: str) -> None:
    namespace.nursery.start_soon(namespace.ask, path)


# -- order -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
@in_virtual_time
async def test_g11_events_that_wait_for_a_blocked_object_begin_in_order(
    seed: int,
) -> None:
    trio._core._run._r.seed(seed)
    world = Blocked()
    async with open_namespace(world) as namespace:
        clients = [await namespace.visit() for _ in range(5)]
        later(namespace, "/block")
        await settled()
        for number in (3, 0, 4):
            clients[number].send(str(number))
            await settled()
            later(namespace, f"/say/{number}")
            await settled()
        clients[1].close(3000)
        await settled()
        later(namespace, "/say/last")
        await settled()
        assert world.log == []
        world.gate.set()
        await settled()
        messages = [(1, "3"), "/say/3", (1, "0"), "/say/0", (1, "4"), "/say/4"]
        assert world.log == [*messages, (1, "close", 3000, "", True), "/say/last"]


@pytest.mark.parametrize("seed", range(10))
@in_virtual_time
async def test_g11_an_event_that_begins_may_block_the_object_again(seed: int) -> None:
    trio._core._run._r.seed(seed)

    async def on_message(room: Room, _ws: WebSocket, message: str | bytes) -> None:
        if message == "block":
            await room.ctx.block_concurrency_while(trio.sleep, 5)
            room.env.log.append("unblocked")

    world = Blocked(on_message=on_message)
    async with open_namespace(world) as namespace:
        clients = [await namespace.visit() for _ in range(4)]
        later(namespace, "/block")
        await settled()
        for client, message in zip(clients, ("a", "block", "b", "c"), strict=True):
            client.send(message)
            await settled()
        world.gate.set()
        await settled()
        assert world.log == [(1, "a"), (1, "block")]
        clients[0].send("d")
        await trio.sleep(10)
        # The rest of its handler isn't an event, so its order is not specified.
        world.log.remove("unblocked")
        assert world.log == [(1, "a"), (1, "block"), (1, "b"), (1, "c"), (1, "d")]


@pytest.mark.parametrize("seed", range(10))
@in_virtual_time
async def test_g11_events_that_wait_for_the_next_instance_begin_in_order(
    seed: int,
) -> None:
    trio._core._run._r.seed(seed)

    async def clean_up() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)

    async def on_fetch(room: Room, request: Request) -> Response | None:
        if request.path == "/start":
            room.ctx.wait_until(clean_up)
        elif request.path == "/abort":
            room.ctx.abort()
        elif request.path.startswith("/say"):
            room.env.log.append((room.number, request.path))
        return Response()

    world = World(on_fetch=on_fetch)
    async with open_namespace(world) as namespace:
        await namespace.ask("/start")
        await settled()
        with pytest.raises(DurableObjectResetError):
            await namespace.ask("/abort")
        for number in range(5):
            later(namespace, f"/say/{number}")
            await settled()
        await trio.sleep(10)
        assert world.log == [(2, f"/say/{number}") for number in range(5)]


@in_virtual_time
async def test_a_cancelled_waiter_does_not_block_others() -> None:
    world = Blocked()
    async with open_namespace(world) as namespace:
        later(namespace, "/block")
        await settled()
        scope = trio.CancelScope()

        async def give_up() -> None:
            with scope:
                await namespace.ask("/say/never")

        later(namespace, "/say/1")
        await settled()
        namespace.nursery.start_soon(give_up)
        await settled()
        later(namespace, "/say/2")
        await settled()
        world.gate.set()
        scope.cancel()
        await settled()
        assert world.log == ["/say/1", "/say/2"]


@in_virtual_time
async def test_the_turn_of_a_cancelled_task_goes_to_the_next() -> None:
    opened = trio.Event()
    turnstile = Turnstile()
    passed: list[str] = []
    scope = trio.CancelScope()

    async def pass_through(name: str, scope: trio.CancelScope) -> None:
        with scope:
            await turnstile.pass_through(opened.is_set)
            passed.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pass_through, "first", scope)
        await settled()
        nursery.start_soon(pass_through, "second", trio.CancelScope())
        await settled()
        scope.cancel()
        opened.set()
        turnstile.admit(opened.is_set)
    assert passed == ["second"]
    assert turnstile.is_clear(opened.is_set)


# -- a socket that ends while its object is blocked ------------------------------------


@in_virtual_time
async def test_a_socket_whose_close_has_come_is_listed_until_its_handler_is_due() -> (
    None
):
    seen: list[list[ReadyState]] = []

    def look(room: Room) -> None:
        seen.append([ws.ready_state for ws in room.ctx.get_web_sockets()])

    async def on_close(room: Room, _ws: WebSocket) -> None:
        look(room)
        await trio.sleep(5)

    world = Blocked(in_block=look, on_close=on_close)
    async with open_namespace(world) as namespace:
        client, _ = await namespace.visit(), await namespace.visit()
        later(namespace, "/block")
        await settled()
        client.close(3000)
        await settled()
        world.gate.set()
        await settled()

        async def ask(room: Room, _request: Request) -> Response:
            look(room)
            return Response()

        world.on_fetch = ask
        await namespace.ask()
        opened, closing = ReadyState.OPEN, ReadyState.CLOSING
        assert seen == [[opened, opened], [opened, closing], [opened]]


@in_virtual_time
async def test_g3_a_blocked_object_may_still_use_a_socket_whose_close_has_come() -> (
    None
):
    def use(room: Room) -> None:
        (ws,) = room.ctx.get_web_sockets()
        ws.send("still here")
        ws.close(3001, "enough")
        room.env.log.append(ws.ready_state)

    async def on_close(room: Room, ws: WebSocket) -> None:
        room.env.log.append(ws.ready_state)

    world = Blocked(in_block=use, on_close=on_close)
    async with open_namespace(world) as namespace:
        client = await namespace.visit()
        later(namespace, "/block")
        await settled()
        client.close(3000)
        await settled()
        world.gate.set()
        assert await client.receive() == "still here"
        assert (await client.wait_closed()).code == 3001
        await settled()
        close = (1, "close", 3000, "", True)
        assert world.log == [ReadyState.CLOSING, close, ReadyState.CLOSED]


@in_virtual_time
async def test_an_object_that_is_reset_while_blocked_gets_no_close_event() -> None:
    def reset(room: Room) -> None:
        (ws,) = room.ctx.get_web_sockets()
        room.ctx.abort("enough")
        room.env.log.append(ws.ready_state)

    world = Blocked(in_block=reset)
    async with open_namespace(world) as namespace:
        client = await namespace.visit()
        namespace.nursery.start_soon(refused, namespace, "/block")
        await settled()
        client.send("never")
        client.close(3000)
        await settled()
        world.gate.set()
        assert (await client.wait_closed()).code == 1011
        await settled()
        assert world.log == [ReadyState.CLOSED]
        assert (await namespace.ask("/say")).status == 200


async def refused(namespace: RoomNamespace, path: str) -> None:
    with pytest.raises(DurableObjectResetError):
        await namespace.ask(path)


# -- two things at the same moment -----------------------------------------------------


@in_virtual_time
async def test_an_abort_while_concurrency_is_blocked_ends_the_handler_at_once() -> None:
    async def on_message(room: Room, _ws: WebSocket, _message: str | bytes) -> None:
        async def abort() -> None:
            room.ctx.abort("enough")

        await room.ctx.block_concurrency_while(abort)
        room.env.log.append("went on")

    world = World(on_message=on_message)
    async with open_namespace(world) as namespace:
        client, other = await namespace.visit(), await namespace.visit()
        client.send("abort")
        other.send("never")
        assert (await client.wait_closed()).code == 1011
        assert (await other.wait_closed()).code == 1011
        await settled()
        assert "went on" not in world.log


@in_virtual_time
async def test_an_object_evicted_while_blocked_leaves_after_the_waiting_events() -> (
    None
):
    world = Blocked()
    async with open_namespace(world) as namespace:
        client = await namespace.visit()
        later(namespace, "/block")
        await settled()
        namespace.evict()
        client.send("first")
        await settled()
        later(namespace, "/say")
        await settled()
        world.gate.set()
        await settled()
        client.send("second")
        await settled()
        assert world.log == [(1, "first"), "/say", (2, "second")]


@in_virtual_time
async def test_a_request_may_be_cancelled_during_construction() -> None:
    gate = trio.Event()

    def build(room: Room) -> None:
        _ = room.ctx.block_concurrency_while(gate.wait)

    world = World(on_build=build)
    async with open_namespace(world) as namespace:
        for _ in range(3):
            with trio.move_on_after(1):
                await namespace.ask()
        gate.set()
        await settled()
        assert (await namespace.ask()).web_socket is not None
        assert world.built == 1


# -- nothing is left behind ------------------------------------------------------------


async def forgotten(rooms: DurableObjectNamespace) -> None:
    """Wait until all objects without state are forgotten."""
    await trio.sleep(_namespace._REMEMBERED + 20)
    await settled()
    assert not rooms._actors
    assert not rooms._empty_since


def actors() -> int:
    gc.collect()
    return sum(isinstance(thing, Actor) for thing in gc.get_objects())


@in_virtual_time
async def test_g10_many_names_that_were_used_once_leave_nothing_behind() -> None:
    before = actors()
    async with open_namespace(Blocked()) as namespace:
        for number in range(2_000):
            await namespace.ask("/say", f"room {number}")
        assert len(namespace.rooms._actors) == 2_000
        namespace.world.log.clear()
        # No more requests come.
        await forgotten(namespace.rooms)
        assert actors() == before


@in_virtual_time
async def test_objects_are_forgotten_a_few_at_a_time() -> None:
    async with open_namespace(Blocked()) as namespace:
        for number in range(1_000):
            await namespace.ask("/say", f"room {number}")
        await trio.sleep(30)
        since = next(iter(namespace.rooms._empty_since.values()))
        await trio.sleep_until(since + _namespace._REMEMBERED)
        sizes = [1_000]
        for _ in range(100):
            await trio.lowlevel.checkpoint()
            sizes.append(len(namespace.rooms._actors))
        assert sizes[-1] == 0
        steps = {before - after for before, after in pairwise(sizes)}
        # The task that forgets may run twice between two steps of this one.
        assert max(steps) <= 2 * _namespace._AT_ONCE


@in_virtual_time
async def test_g13_a_namespace_has_one_task_that_forgets_objects() -> None:
    async with open_namespace(Blocked()) as namespace:
        await settled()
        before = trio.lowlevel.current_statistics().tasks_living
        for number in range(100):
            await namespace.ask("/say", f"room {number}")
        await trio.sleep(30)
        assert trio.lowlevel.current_statistics().tasks_living == before


@in_virtual_time
async def test_an_object_that_is_used_again_is_not_forgotten() -> None:
    async with open_namespace(Blocked()) as namespace:
        for _ in range(10):
            await namespace.ask("/say", "often")
            await namespace.ask("/say", f"once {len(namespace.rooms._actors)}")
            await trio.sleep(60)
        assert len(namespace.rooms._actors) <= 3
        client = await namespace.visit(name="often")
        await trio.sleep(200)
        assert len(namespace.rooms._actors) == 1
        await client.aclose()
        await forgotten(namespace.rooms)


@in_virtual_time
async def test_g10_names_whose_constructor_raises_leave_nothing_behind() -> None:
    def fail(_room: Room) -> None:
        msg = "not today"
        raise OSError(msg)

    async with open_namespace(World(on_build=fail)) as namespace:
        for number in range(100):
            with pytest.raises(OSError, match="not today"):
                await namespace.ask(name=f"room {number}")
        await forgotten(namespace.rooms)


@in_virtual_time
async def test_g10_cancelled_requests_leave_nothing_behind() -> None:
    def build(room: Room) -> None:
        _ = room.ctx.block_concurrency_while(trio.sleep, 5)

    async with open_namespace(World(on_build=build)) as namespace:
        for number in range(100):
            with trio.move_on_after(1):
                await namespace.ask(name=f"room {number}")
            with trio.CancelScope() as scope:
                scope.cancel()
                await namespace.ask(name=f"other room {number}")
        await forgotten(namespace.rooms)


@in_virtual_time
async def test_g10_stubs_and_ids_make_no_objects() -> None:
    async with open_namespace() as namespace:
        for number in range(100):
            stub = namespace.rooms.get_by_name(f"room {number}")
            namespace.rooms.evict(stub.id)
            namespace.rooms.get(namespace.rooms.new_unique_id())
        assert not namespace.rooms._actors


@in_virtual_time
async def test_g10_a_namespace_that_has_ended_keeps_no_objects() -> None:
    async with trio.open_nursery() as nursery:
        rooms = DurableObjectNamespace(Room, Blocked())
        async with rooms:
            await rooms.get_by_name("room").fetch(new_request(nursery, "/say"))
            actor = weakref.ref(next(iter(rooms._actors.values())))
        gc.collect()
        assert actor() is None

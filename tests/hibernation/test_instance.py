"""The life of an instance: its construction, hibernation, eviction, aborts, and end."""

import gc
import math
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, cast

import pytest
import trio
from durable_objects import Room, RoomNamespace, World, logged_warnings, open_namespace
from pairs import in_virtual_time
from trio import Nursery
from trio.testing import wait_all_tasks_blocked

from trio_wspair import (
    CloseEvent,
    ConnectionClosedError,
    InvalidStateError,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
)
from trio_wspair.hibernation import (
    DurableObjectNamespace,
    DurableObjectResetError,
    WebSocketRequestResponsePair,
)
from trio_wspair.hibernation._instance import Instance
from trio_wspair.testing import hibernate_after_every_event


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def settle(seconds: float = 0) -> None:
    await trio.sleep(seconds)
    await wait_all_tasks_blocked()


# -- leaving memory ------------------------------------------------------------------


@in_virtual_time
async def test_an_idle_object_is_freed_and_no_task_of_it_remains() -> None:
    alive: list[weakref.ref[Room]] = []
    world = World(on_build=lambda room: alive.append(weakref.ref(room)))
    async with open_namespace(world) as namespace:
        before = tasks()
        client = await namespace.visit()
        client.send("one")
        gc.collect()
        gc.disable()
        try:
            await settle(9)
            assert alive[0]() is not None
            await settle(2)
            assert (
                alive[0]() is None
            )  # The instance is freed without the cyclic collector.
        finally:
            gc.enable()
        # One dispatcher serves the client half and the others.
        assert tasks() == before + 1
        client.send("two")
        await settle()
        assert world.log == [(1, "one"), (2, "two")]
        assert len(alive) == 2


@in_virtual_time
async def test_ten_seconds_count_from_the_end_of_the_last_event() -> None:
    async with open_namespace() as namespace:
        client = await namespace.visit()
        for _ in range(5):
            await settle(9)
            client.send("busy")
        await settle(9)
        assert namespace.world.built == 1
        await settle(2)
        client.send("again")
        await settle()
        assert namespace.world.built == 2


@in_virtual_time
async def test_state_of_the_sockets_stays() -> None:
    pair = WebSocketRequestResponsePair("ping", "pong")

    def prepare(room: Room) -> None:
        if room.number == 1:
            room.ctx.set_web_socket_auto_response(pair)
            room.ctx.set_hibernatable_web_socket_event_timeout(5000)

    async def look(room: Room, request: Request) -> Response | None:
        if request.path != "/look":
            return None
        ctx = room.ctx
        sockets = ctx.get_web_sockets()
        return Response.json(
            {
                "instance": room.number,
                "tags": [ctx.get_tags(ws) for ws in sockets],
                "a": len(ctx.get_web_sockets("a")),
                "attached": [ws.deserialize_attachment() for ws in sockets],
                "answer": ctx.get_web_socket_auto_response() == pair,
                "answered": [
                    ctx.get_web_socket_auto_response_timestamp(ws) is not None
                    for ws in sockets
                ],
                "timeout": ctx.get_hibernatable_web_socket_event_timeout(),
            }
        )

    async def attach(_room: Room, ws: WebSocket, message: str | bytes) -> None:
        ws.serialize_attachment({"name": message})

    world = World(on_build=prepare, on_fetch=look, on_message=attach)
    async with open_namespace(world) as namespace:
        first = await namespace.visit("/a,b")
        await namespace.visit("/c")
        first.send("Ada")
        first.send("ping")
        assert await first.receive() == "pong"
        for instance in (1, 2):
            answer = await namespace.ask("/look")
            assert (
                answer.body
                == Response.json(
                    {
                        "instance": instance,
                        "tags": [["c"], ["a", "b"]],
                        "a": 1,
                        "attached": [None, {"name": "Ada"}],
                        "answer": True,
                        "answered": [False, True],
                        "timeout": 5000,
                    }
                ).body
            )
            await settle(11)


@in_virtual_time
async def test_an_automatic_answer_neither_wakes_an_object_nor_keeps_it_awake() -> None:
    def prepare(room: Room) -> None:
        pair = WebSocketRequestResponsePair("ping", "pong")
        room.ctx.set_web_socket_auto_response(pair)

    async with open_namespace(World(on_build=prepare)) as namespace:
        client = await namespace.visit()
        for _ in range(10):
            await trio.sleep(3)
            client.send("ping")
            assert await client.receive() == "pong"
        assert namespace.world.built == 1
        client.send(b"ping")  # Bytes don't match the text.
        await settle()
        assert namespace.world.log == [(2, b"ping")]


@in_virtual_time
async def test_a_running_handler_keeps_its_object_in_memory() -> None:
    async def linger(_room: Room, _ws: WebSocket, message: str | bytes) -> None:
        if message == "linger":
            await trio.sleep(100)

    async with open_namespace(World(on_message=linger)) as namespace:
        client = await namespace.visit()
        client.send("linger")
        await settle(109)
        client.send("same")
        await settle(11)
        client.send("other")
        await settle()
        assert namespace.world.log == [(1, "linger"), (1, "same"), (2, "other")]


@in_virtual_time
async def test_wait_until_keeps_an_object_in_memory_until_its_end() -> None:
    async def ask(room: Room, _request: Request) -> Response:
        room.ctx.wait_until(trio.sleep, 100)
        return Response(str(room.number))

    async with open_namespace(World(on_fetch=ask)) as namespace:
        before = tasks()
        await namespace.ask()
        await settle(109)
        assert namespace.world.built == 1
        await settle(2)
        assert tasks() == before
        assert (await namespace.ask()).body == b"2"


@in_virtual_time
async def test_a_plainly_accepted_socket_keeps_an_object_in_memory() -> None:
    heard: list[object] = []

    async def join_plainly(room: Room, request: Request) -> Response | None:
        if request.path != "/plain":
            return None
        client, server = WebSocketPair()
        server.add_event_listener("message", lambda e: heard.append(e.data))
        server.accept()
        assert room.ctx.get_web_sockets() == []
        return Response(None, status=101, web_socket=client)

    async with open_namespace(World(on_fetch=join_plainly)) as namespace:
        before = tasks()
        client = await namespace.visit("/plain")
        await settle(100)
        client.send("still there")
        await settle()
        assert heard == ["still there"]
        assert namespace.world.built == 1
        await client.aclose()
        await settle(25)
        assert tasks() == before
        await namespace.visit()
        assert namespace.world.built == 2


@pytest.mark.parametrize("hibernate_after", [0, math.inf])
@in_virtual_time
async def test_hibernate_after_may_be_zero_or_infinite(
    hibernate_after: float,
) -> None:
    async with open_namespace(hibernate_after=hibernate_after) as namespace:
        client = await namespace.visit()
        for message in "abc":
            client.send(message)
            await settle(100)
        built = [1, 1, 1] if hibernate_after else [2, 3, 4]
        assert namespace.world.log == list(zip(built, "abc", strict=True))


# -- evict() -------------------------------------------------------------------------


@in_virtual_time
async def test_evict_drops_an_idle_object_at_once() -> None:
    alive: list[weakref.ref[Room]] = []
    world = World(on_build=lambda room: alive.append(weakref.ref(room)))
    async with open_namespace(world) as namespace:
        client = await namespace.visit()
        namespace.evict()
        assert alive[0]() is None
        namespace.evict()  # Evicting an object that has gone does nothing,
        namespace.evict("unknown")  # nor does evicting one that never existed.
        client.send("hello")
        await settle()
        assert world.log == [(2, "hello")]


@in_virtual_time
async def test_evict_waits_for_the_events_that_are_running() -> None:
    async def take_time(_room: Room, _ws: WebSocket, _message: str | bytes) -> None:
        await trio.sleep(5)

    async with open_namespace(World(on_message=take_time)) as namespace:
        client, other = await namespace.visit(), await namespace.visit()
        client.send("slow")
        client.send("next")
        await settle(3)
        namespace.evict()
        other.send("meanwhile")
        await settle(20)
        assert namespace.world.log == [(1, "slow"), (1, "meanwhile"), (1, "next")]
        other.send("later")
        await settle()
        assert namespace.world.log[-1] == (2, "later")


@in_virtual_time
async def test_after_evict_the_next_message_gets_a_new_instance() -> None:
    async def evict_me(room: Room, _ws: WebSocket, message: str | bytes) -> None:
        if message == "first":
            namespace.evict()
            await trio.sleep(1)

    async with open_namespace(World(on_message=evict_me)) as namespace:
        client = await namespace.visit()
        client.send("first")
        client.send("second")
        await settle(2)
        assert namespace.world.log == [(1, "first"), (2, "second")]


@in_virtual_time
async def test_evict_ends_plainly_accepted_sockets() -> None:
    async def join_plainly(_room: Room, _request: Request) -> Response | None:
        client, server = WebSocketPair()
        server.accept()
        return Response(None, status=101, web_socket=client)

    async with open_namespace(World(on_fetch=join_plainly)) as namespace:
        client = await namespace.visit()
        namespace.evict()
        assert (await client.wait_closed()).code == 1001


def test_only_the_objects_of_a_namespace_can_hibernate_after_every_event() -> None:
    wrong = cast("DurableObjectNamespace", "rooms")
    with (
        pytest.raises(
            TypeError, match="namespace is a DurableObjectNamespace, not str"
        ),
        hibernate_after_every_event(wrong),
    ):
        pass


@in_virtual_time
async def test_with_the_option_objects_leave_after_every_event() -> None:
    async with open_namespace() as namespace:
        client = await namespace.visit()
        await namespace.visit(name="asleep")
        namespace.evict("asleep")
        await settle()
        with hibernate_after_every_event(namespace.rooms):
            client.send("a")
            client.send("b")
            await settle()
        client.send("c")
        client.send("d")
        await settle()
        assert namespace.world.log == [(3, "a"), (4, "b"), (5, "c"), (5, "d")]


@in_virtual_time
async def test_an_object_that_is_kept_awake_does_not_leave_at_once() -> None:
    async def on_fetch(room: Room, request: Request) -> Response | None:
        if request.path == "/work":
            room.ctx.wait_until(trio.sleep, 5)
            return Response()
        if request.path == "/plain":
            client, server = WebSocketPair()
            server.accept()
            return Response(None, status=101, web_socket=client)
        return None

    async with open_namespace(World(on_fetch=on_fetch)) as namespace:
        with hibernate_after_every_event(namespace.rooms):
            await namespace.ask("/work")
            await settle(4)
            plain = await namespace.visit("/plain")
            await settle(10)
            client = await namespace.visit()
            client.send("still the first")
            await settle()
            await plain.aclose()
            await settle()
            client.send("and the last")
            client.send("another")
            await settle()
        log = [(1, "still the first"), (1, "and the last"), (2, "another")]
        assert namespace.world.log == log


# -- construction --------------------------------------------------------------------


@in_virtual_time
async def test_events_that_come_together_have_one_instance() -> None:
    async def load() -> None:
        await trio.sleep(5)

    def prepare(room: Room) -> None:
        _ = room.ctx.block_concurrency_while(load)

    async with open_namespace(World(on_build=prepare)) as namespace:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(namespace.visit)
        assert namespace.world.built == 1
        assert trio.current_time() == 5


@in_virtual_time
async def test_a_block_in_the_constructor_runs_before_the_first_event() -> None:
    steps: list[str] = []

    async def load(what: str) -> None:
        await trio.sleep(1)
        steps.append(what)

    def prepare(room: Room) -> None:
        for what in ("users", "history"):
            _ = room.ctx.block_concurrency_while(load, what)

    async def ask(_room: Room, _request: Request) -> Response:
        steps.append("fetch")
        return Response()

    async with open_namespace(World(on_build=prepare, on_fetch=ask)) as namespace:
        await namespace.ask()
    assert steps == ["users", "history", "fetch"]


async def fail() -> NoReturn:
    await trio.sleep(1)
    msg = "the disk is full"
    raise OSError(msg)


def fail_at_once(room: Room) -> None:
    if room.number > 1:
        # The coroutine is never awaited, without a warning.
        _ = room.ctx.block_concurrency_while(trio.sleep, 1)
        msg = "the disk is full"
        raise OSError(msg)


def fail_in_time(room: Room) -> None:
    if room.number > 1:
        _ = room.ctx.block_concurrency_while(fail)


@pytest.mark.parametrize("fail", [fail_at_once, fail_in_time])
@in_virtual_time
async def test_an_object_whose_constructor_raises_loses_its_sockets(
    fail: Callable[[Room], None], caplog: pytest.LogCaptureFixture
) -> None:
    async with open_namespace(World(on_build=fail)) as namespace:
        client, other = await namespace.visit(), await namespace.visit()
        namespace.evict()
        client.send("wake up")
        for ws in (client, other):
            assert (await ws.wait_closed()).code == 1011
        assert namespace.world.log == []
        (complaint,) = logged_warnings(caplog)
        assert complaint == (
            "web_socket_message() of Room 'room' failed <- OSError('the disk is full')"
        )
        with pytest.raises(OSError, match="the disk is full"):
            await namespace.ask()
        namespace.world.on_build = None
        await namespace.visit()
        assert namespace.world.built == 4


# -- block_concurrency_while() -------------------------------------------------------


@in_virtual_time
async def test_no_event_begins_while_concurrency_is_blocked() -> None:
    async def block(room: Room, _ws: WebSocket, message: str | bytes) -> None:
        if message == "block":
            result = await room.ctx.block_concurrency_while(work, 7)
            namespace.world.log.append(result)

    async def work(number: int) -> int:
        await trio.sleep(5)
        namespace.world.log.append("worked")
        return number

    async with open_namespace(World(on_message=block)) as namespace:
        client, other = await namespace.visit(), await namespace.visit()
        client.send("block")
        await settle(1)
        other.send("waits")
        namespace.nursery.start_soon(namespace.visit)
        await settle(1)
        assert namespace.world.log == [(1, "block")]
        await settle(4)
        assert namespace.world.log[:2] == [(1, "block"), "worked"]
        assert {7, (1, "waits")} == set(namespace.world.log[2:])


@in_virtual_time
async def test_an_error_while_concurrency_is_blocked_resets_the_object(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def block(room: Room, _ws: WebSocket, _message: str | bytes) -> None:
        await room.ctx.block_concurrency_while(fail)

    async with open_namespace(World(on_message=block)) as namespace:
        client = await namespace.visit()
        client.send("block")
        await settle(0.5)
        with pytest.raises(DurableObjectResetError, match="the disk is full"):
            await namespace.ask()
        assert (await client.wait_closed()).code == 1011
        assert "the disk is full" in logged_warnings(caplog)[0]
        await namespace.visit()
        assert namespace.world.built == 2


@in_virtual_time
async def test_a_cancelled_block_ends() -> None:
    async def block(room: Room, _ws: WebSocket, message: str | bytes) -> None:
        if message == "block":
            with trio.move_on_after(3):
                await room.ctx.block_concurrency_while(trio.sleep_forever)

    async with open_namespace(World(on_message=block)) as namespace:
        client, other = await namespace.visit(), await namespace.visit()
        client.send("block")
        await settle(1)
        other.send("next")
        await settle(3)
        assert namespace.world.log == [(1, "block"), (1, "next")]


# -- abort() -------------------------------------------------------------------------


@in_virtual_time
async def test_abort_cancels_all_tasks_and_drops_all_state(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended: list[str] = []

    async def run(what: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(what)

    async def on_message(room: Room, ws: WebSocket, message: str | bytes) -> None:
        if message == "abort":
            room.ctx.abort("enough")
            with pytest.raises(ConnectionClosedError):
                ws.send("too late")
            for verb in (
                room.ctx.abort,
                lambda: room.ctx.wait_until(trio.sleep, 1),
                lambda: room.ctx.block_concurrency_while(trio.sleep, 1),
                lambda: room.join([]),
            ):
                with pytest.raises(InvalidStateError, match="has left memory"):
                    verb()
        await run("handler")

    async def on_fetch(room: Room, request: Request) -> Response | None:
        if request.path == "/wait":
            room.ctx.set_hibernatable_web_socket_event_timeout(10_000)
            room.ctx.wait_until(run, "wait_until")
            await run("fetch")
        if request.path == "/look":
            limit = room.ctx.get_hibernatable_web_socket_event_timeout()
            return Response.json([room.number, room.ctx.get_web_sockets(), limit])
        return None

    world = World(on_message=on_message, on_fetch=on_fetch)
    async with open_namespace(world) as namespace:
        client, other = await namespace.visit(), await namespace.visit()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask() -> None:
                with pytest.raises(DurableObjectResetError, match="enough"):
                    await namespace.ask("/wait")

            await settle()
            other.send("run")
            await settle()
            client.send("abort")
        for ws in (client, other):
            assert (await ws.wait_closed()).code == 1011
        assert sorted(ended) == ["fetch", "handler", "handler", "wait_until"]
        assert logged_warnings(caplog) == ["Room 'room' calls abort(): enough"]
        assert world.log == [(1, "run"), (1, "abort")]  # No handler gets the end.
        assert (await namespace.ask("/look")).body == b"[2, [], null]"


@in_virtual_time
async def test_an_abort_in_fetch_is_an_error_for_the_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def abort(room: Room, _request: Request) -> Response:
        room.ctx.abort()
        return Response("never seen")

    async with open_namespace(World(on_fetch=abort)) as namespace:
        with pytest.raises(DurableObjectResetError, match=r"has called abort\(\)"):
            await namespace.ask()
    assert logged_warnings(caplog) == ["Room 'room' calls abort(): "]


@in_virtual_time
async def test_the_next_instance_waits_until_the_last_one_has_cleaned_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def on_message(room: Room, _ws: WebSocket, _message: str | bytes) -> None:
        room.ctx.abort("clean up")
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
                namespace.world.log.append("cleaned up")

    async with open_namespace(World(on_message=on_message)) as namespace:
        client = await namespace.visit()
        client.send("go")
        await settle(1)
        await namespace.visit()
        assert namespace.world.log == [(1, "go"), "cleaned up"]
        assert namespace.world.built == 2
    assert len(logged_warnings(caplog)) == 1


@in_virtual_time
async def test_a_listener_that_raises_resets_the_object_that_it_belongs_to(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def join_plainly(_room: Room, request: Request) -> Response | None:
        if request.path != "/plain":
            return None
        client, server = WebSocketPair()
        server.add_event_listener("message", lambda _event: 1 / 0)
        server.accept()
        return Response(None, status=101, web_socket=client)

    async with open_namespace(World(on_fetch=join_plainly)) as namespace:
        client, plain = await namespace.visit(), await namespace.visit("/plain")
        plain.send("boom")
        assert (await plain.wait_closed()).code == 1011
        assert (await client.wait_closed()).code == 1011
        await settle()
        (complaint,) = logged_warnings(caplog)
        reset = "a task of Room 'room' failed: it is reset"
        assert complaint.startswith(f"{reset} <- ZeroDivisionError")
        await namespace.visit()
        assert namespace.world.built == 2


@in_virtual_time
async def test_an_abort_in_the_constructor_is_an_error_for_the_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def abort(room: Room) -> None:
        room.ctx.abort("not today\x1b[31m")

    async with open_namespace(World(on_build=abort)) as namespace:
        with pytest.raises(DurableObjectResetError, match=r"not today\\x1b\[31m"):
            await namespace.ask()
        namespace.world.on_build = None
        await namespace.visit()
    assert logged_warnings(caplog) == ["Room 'room' calls abort(): not today\\x1b[31m"]


@in_virtual_time
async def test_an_exception_after_an_abort_in_the_constructor_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def abort_and_fail(room: Room) -> None:
        room.ctx.abort("not today")
        msg = "the disk is full"
        raise OSError(msg)

    async with open_namespace(World(on_build=abort_and_fail)) as namespace:
        with pytest.raises(DurableObjectResetError, match="not today"):
            await namespace.ask()
    assert logged_warnings(caplog) == [
        "Room 'room' calls abort(): not today",
        "the constructor of Room 'room' failed <- OSError('the disk is full')",
    ]


@in_virtual_time
async def test_an_abort_in_a_close_handler_also_ends_that_socket(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def abort(room: Room, _ws: WebSocket) -> None:
        room.ctx.abort()
        await trio.sleep_forever()

    async with open_namespace(World(on_close=abort)) as namespace:
        client = await namespace.visit()
        client.close(3000)
        assert (await client.wait_closed()).code == 1011
        await settle()
        assert namespace.world.log == [(1, "close", 3000, "", True)]
    assert len(logged_warnings(caplog)) == 1


@in_virtual_time
async def test_a_task_of_wait_until_may_fail_or_abort(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def abort(room: Room) -> None:
        room.ctx.abort("from the background")
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def on_fetch(room: Room, request: Request) -> Response | None:
        if request.path == "/fail":
            room.ctx.wait_until(fail)
        elif request.path == "/abort":
            room.ctx.wait_until(abort, room)
        else:
            return None
        return Response()

    async with open_namespace(World(on_fetch=on_fetch)) as namespace:
        client = await namespace.visit()
        await namespace.ask("/fail")
        await settle(2)
        what = "a wait_until() of Room 'room' failed <- OSError('the disk is full')"
        assert logged_warnings(caplog) == [what]
        await namespace.ask("/abort")
        assert (await client.wait_closed()).code == 1011
        assert namespace.world.built == 1
    assert logged_warnings(caplog) == ["Room 'room' calls abort(): from the background"]


@pytest.mark.parametrize("steps", range(8))
@in_virtual_time
async def test_a_task_may_be_started_while_the_object_is_being_reset(
    steps: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def on_fetch(room: Room, request: Request) -> Response:
        if request.path == "/look":
            return Response(str(room.number))
        client, server = WebSocketPair()
        server.add_event_listener("message", lambda _event: 1 / 0)
        server.accept()
        client.accept()
        client.send("boom")
        with trio.CancelScope(shield=True):
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
        with suppress(InvalidStateError):
            room.ctx.wait_until(trio.lowlevel.checkpoint)
        return Response()

    async with open_namespace(World(on_fetch=on_fetch)) as namespace:
        with suppress(DurableObjectResetError):
            await namespace.ask()
        await settle()
        assert (await namespace.ask("/look")).body == b"2"
    assert len(logged_warnings(caplog)) == 1


@in_virtual_time
async def test_a_caller_gets_an_error_when_its_blocked_object_is_reset() -> None:
    answers: list[str] = []

    async def on_fetch(room: Room, request: Request) -> Response:
        if request.path == "/block":
            await room.ctx.block_concurrency_while(trio.sleep, 1)
            return Response()
        room.ctx.abort(request.path)
        return Response()

    async def ask(path: str) -> None:
        try:
            await namespace.ask(path)
        except DurableObjectResetError:
            answers.append("reset")
        else:
            answers.append("fine")

    async with open_namespace(World(on_fetch=on_fetch)) as namespace:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "/block")
            await settle()
            for number in range(5):
                nursery.start_soon(ask, f"/{number}")
        assert answers.count("reset") >= 5


@in_virtual_time
async def test_an_event_that_waited_while_its_socket_was_dropped_is_dropped_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def on_message(room: Room, _ws: WebSocket, _message: str | bytes) -> None:
        room.ctx.abort()

    async with open_namespace(World(on_message=on_message)) as namespace:
        sockets = [await namespace.visit() for _ in range(3)]
        sockets[0].send("a")
        sockets[1].send("b")
        sockets[2].close(3000)
        await settle()
        assert namespace.world.built == 1
        assert "(2, " not in str(namespace.world.log)
    assert len(logged_warnings(caplog)) == 1


@pytest.mark.parametrize("away", [0, 1])
@in_virtual_time
async def test_an_error_of_a_cancelled_task_is_logged(
    away: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def clean_up_badly() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("lost")

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clean_up_badly)
            await trio.sleep_forever()

    async def on_message(room: Room, _ws: WebSocket, _message: str | bytes) -> None:
        if away:
            room.ctx.wait_until(work)
        else:
            await work()

    world = World(on_message=on_message)
    with trio.CancelScope() as scope:
        async with (
            trio.open_nursery() as nursery,
            DurableObjectNamespace(Room, world) as rooms,
        ):
            client = await RoomNamespace(rooms, nursery, world).visit()
            client.send("work")
            await settle()
            scope.cancel()
            await trio.sleep_forever()
    (complaint,) = logged_warnings(caplog)
    assert "KeyError('lost')" in complaint


# -- forgetting objects --------------------------------------------------------------


@in_virtual_time
async def test_settings_without_sockets_last_a_while_and_are_then_forgotten() -> None:
    async def keep(room: Room, request: Request) -> Response:
        limit = room.ctx.get_hibernatable_web_socket_event_timeout()
        if request.path == "/set":
            room.ctx.set_hibernatable_web_socket_event_timeout(5000)
        return Response(str(limit))

    async with open_namespace(World(on_fetch=keep)) as namespace:
        for number in range(100):
            await namespace.ask("/set", f"room {number}")
        await settle(75)
        assert (await namespace.ask("/get", "room 0")).body == b"5000"
        await settle(60)
        await namespace.ask("/get", "new")
        # Some may be kept, but not the hundred.
        assert len(namespace.rooms._actors) == 2
        await settle(200)
        await namespace.ask("/get", "other")
        assert (await namespace.ask("/get", "room 0")).body == b"None"


@in_virtual_time
async def test_an_object_is_forgotten_after_a_caller_has_stopped_waiting_for_it() -> (
    None
):
    async def stay(room: Room, _request: Request) -> Response:
        _, server = WebSocketPair()

        @server.on("close")
        async def take_time(_event: CloseEvent) -> None:
            await trio.sleep(0.5)

        server.accept()
        return Response(str(room.number), web_socket=None)

    async with open_namespace(World(on_fetch=stay)) as namespace:
        for number in range(20):
            await namespace.ask("/stay", f"room {number}")
            namespace.evict(f"room {number}")
            with trio.move_on_after(0.5):
                await namespace.ask("/again", f"room {number}")
        await settle(200)
        await namespace.ask("/stay", "another")
        assert len(namespace.rooms._actors) == 1


# -- the end of the namespace --------------------------------------------------------


@in_virtual_time
async def test_leaving_a_namespace_closes_its_sockets() -> None:
    world = World()
    async with trio.open_nursery() as nursery:
        async with DurableObjectNamespace(Room, world) as rooms:
            namespace = RoomNamespace(rooms, nursery, world)
            client = await namespace.visit()
            untaken = await namespace.ask("/untaken")
            namespace.evict()
        assert trio.current_time() == 0
        assert (await client.wait_closed()).code == 1001
        assert untaken.web_socket is not None
    assert sorted(map(str, world.log)) == [
        "(2, 'close', 1001, '', True)",
        "(2, 'close', 1006, 'the other half was never taken', False)",
    ]


@in_virtual_time
async def test_g2_a_cancelled_namespace_gives_every_socket_its_close_event() -> None:
    async def part(_room: Room, _ws: WebSocket) -> None:
        await trio.sleep(0.5)
        world.log.append("parted")

    world = World(on_close=part)
    with trio.CancelScope() as scope:
        async with open_namespace(world) as namespace:
            client = await namespace.visit()
            namespace.evict()
            scope.cancel()
            await trio.sleep_forever()
    why = "the nursery of this half was cancelled"
    assert world.log == [(2, "close", 1006, why, False), "parted"]
    assert (await client.wait_closed()).code == 1006
    assert trio.current_time() == 0.5


@in_virtual_time
async def test_a_close_handler_gets_a_second_when_the_namespace_is_cancelled() -> None:
    async def stay(_room: Room, _ws: WebSocket) -> None:
        await trio.sleep_forever()

    world = World(on_close=stay)
    with trio.CancelScope() as scope:
        async with open_namespace(world) as namespace:
            await namespace.visit()
            scope.cancel()
            await trio.sleep_forever()
    assert trio.current_time() == 1


@in_virtual_time
async def test_running_tasks_are_cancelled_when_the_namespace_ends() -> None:
    ended: list[str] = []

    async def run(what: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(what)

    async def on_fetch(room: Room, _request: Request) -> Response:
        room.ctx.wait_until(run, "wait_until")
        await run("fetch")
        return Response()

    async with open_namespace(World(on_fetch=on_fetch)) as namespace:

        @namespace.nursery.start_soon
        async def ask() -> None:
            with pytest.raises(DurableObjectResetError, match="namespace has end"):
                await namespace.ask()

        await settle()
    assert sorted(ended) == ["fetch", "wait_until"]


@in_virtual_time
async def test_a_caller_that_waits_gets_an_error_when_the_namespace_ends() -> None:
    async def linger(_room: Room, _request: Request) -> Response:
        _, server = WebSocketPair()

        @server.on("close")
        async def take_time(_event: CloseEvent) -> None:
            await trio.sleep(1)

        server.accept()
        return Response()

    world = World(on_fetch=linger)
    async with trio.open_nursery() as nursery:
        async with DurableObjectNamespace(Room, world, math.inf) as rooms:
            namespace = RoomNamespace(rooms, nursery, world)
            await namespace.ask()
            namespace.evict()

            @nursery.start_soon
            async def ask() -> None:
                with pytest.raises(DurableObjectResetError, match="has ended"):
                    await namespace.ask()

            await settle()
        assert trio.current_time() <= 2
    assert world.built == 1


@in_virtual_time
async def test_a_namespace_that_was_cancelled_keeps_nothing_of_its_objects() -> None:
    actors: list[weakref.ref[object]] = []

    def on_build(room: Room) -> None:
        actors.append(weakref.ref(room.ctx._actor))

    rooms = DurableObjectNamespace(Room, world := World(on_build=on_build))
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with rooms:
                await RoomNamespace(rooms, nursery, world).ask()
                scope.cancel()
                await trio.lowlevel.checkpoint()
    gc.collect()
    assert [actor() for actor in actors] == [None]


@in_virtual_time
async def test_g10_an_instance_that_leaves_memory_leaves_no_garbage() -> None:
    async def abort(room: Room, request: Request) -> Response:
        if request.path == "/abort":
            room.ctx.abort()
        return Response()

    async with open_namespace(World(on_fetch=abort), hibernate_after=1) as namespace:
        gc.collect()
        gc.disable()
        try:
            for path in ("/", "/abort"):
                before = living(Instance, Nursery)
                with suppress(DurableObjectResetError):
                    await namespace.ask(path)
                await settle(2)
                assert living(Instance, Nursery) == before
        finally:
            gc.enable()


def living(*kinds: type) -> int:
    return sum(type(thing) in kinds for thing in gc.get_objects())


@in_virtual_time
async def test_a_failure_is_not_hidden_by_the_reset_of_another_object(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def on_fetch(room: Room, request: Request) -> Response | None:
        if request.path == "/abort":
            room.ctx.abort("of the other")
            return Response()
        return None

    async def on_message(room: Room, _ws: WebSocket, message: object) -> None:
        if message == "task":
            room.ctx.wait_until(fail_and_notify)
        else:
            await fail_and_notify()

    async def fail_and_notify() -> None:
        try:
            raise KeyError("a mistake")
        finally:
            await namespace.ask("/abort", name="other")

    async with open_namespace(
        World(on_fetch=on_fetch, on_message=on_message)
    ) as namespace:
        client = await namespace.visit()
        for message, what in ("message", "web_socket_message()"), ("task", "a wait_"):
            client.send(message)
            await settle()
            _, complaint = logged_warnings(caplog)
            assert complaint.startswith(what)
            assert "was reset: of the other" in complaint


@in_virtual_time
async def test_a_failure_is_not_hidden_by_a_reset_while_it_is_handled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def on_message(room: Room, _ws: WebSocket, message: object) -> None:
        if message == "abort":
            room.ctx.abort()
        try:
            raise KeyError("a mistake")
        finally:
            await trio.sleep_forever()

    async with open_namespace(World(on_message=on_message)) as namespace:
        first, second = await namespace.visit(), await namespace.visit()
        first.send("fail")
        await settle()
        second.send("abort")
        await settle()
        failures = [r.exc_info[1] for r in caplog.records if r.exc_info]
        assert len(failures) == 2
        for failure in failures:
            assert isinstance(failure, DurableObjectResetError)
            assert isinstance(failure.__cause__, KeyError)


@in_virtual_time
async def test_an_exception_of_the_block_is_raised_bare() -> None:
    with pytest.raises(OSError, match="the disk is full"):
        async with DurableObjectNamespace(Room, World()):
            await fail()


@in_virtual_time
async def test_a_namespace_responds_only_while_it_is_open() -> None:
    async with trio.open_nursery() as nursery:
        rooms = DurableObjectNamespace(Room, World())
        namespace = RoomNamespace(rooms, nursery, World())
        with pytest.raises(InvalidStateError, match="is not open: use it"):
            await namespace.ask()
        async with rooms:
            await namespace.visit()
        with pytest.raises(InvalidStateError, match="has ended"):
            await namespace.ask()
        with pytest.raises(InvalidStateError, match="opened only once"):
            await rooms.__aenter__()

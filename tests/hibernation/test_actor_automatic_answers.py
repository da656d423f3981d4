"""Automatic answers of an object don't wait for handlers, on every transport."""

import types
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any, cast

import attrs
import pytest
import trio
from durable_objects import Room, RoomNamespace, World, open_namespace
from engines import ENGINES, using
from pairs import in_virtual_time
from patched_network import memory_network
from trio.testing import wait_all_tasks_blocked

from trio_wspair import (
    ConnectionClosedError,
    Instrument,
    MessageEvent,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    broadcast,
    connect,
    serve,
    use_instrument,
)
from trio_wspair.hibernation import (
    DurableObjectResetError,
    WebSocketRequestResponsePair,
)
from trio_wspair.hibernation._handlers import call_handler

WAYS = ("memory", *ENGINES)


@attrs.define(eq=False)
class Gated(World):
    """A world in which handlers of messages that begin with `w` wait."""

    gate: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.on_build = answer_ping
        self.on_message = self._take
        self.on_fetch = self._ask

    def heard(self) -> list[Any]:
        """Return the messages for which handlers were called, and `close`."""
        return [entry[1] for entry in self.log if isinstance(entry, tuple)]

    async def _take(self, _room: Room, ws: WebSocket, message: str | bytes) -> None:
        ws.send(f"{message!s} begins")
        if str(message).startswith("w"):
            await self.gate.wait()
            ws.send(f"{message!s} ends")

    async def _ask(self, room: Room, request: Request) -> Response | None:
        if request.path == "/block":
            await room.ctx.block_concurrency_while(self.gate.wait)
        elif request.path == "/unset":
            room.ctx.set_web_socket_auto_response()
        elif request.path == "/set":
            answer_ping(room)
        elif request.path == "/abort":
            room.ctx.abort("enough")
        else:
            return None
        return Response()


def answer_ping(room: Room) -> None:
    """Set an automatic answer."""
    pair = WebSocketRequestResponsePair("ping", "pong")
    room.ctx.set_web_socket_auto_response(pair)


async def settled() -> None:
    """Wait until all tasks are blocked, also on a network in memory."""
    await trio.sleep(0.1)
    await wait_all_tasks_blocked()


@attrs.frozen
class Visitor:
    """A client of the room, and the messages that it got."""

    ws: WebSocket
    got: list[Any] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.ws.add_event_listener("message", lambda event: self.got.append(event.data))
        self.ws.accept()

    async def send(self, *messages: str | bytes) -> None:
        """Send messages at once."""
        for message in messages:
            self.ws.send(message)
        await settled()

    def took(self) -> list[Any]:
        """Return the messages since the last call."""
        taken = self.got.copy()
        self.got.clear()
        return taken


@attrs.frozen
class Stage:
    """A room, and its URL on a network."""

    namespace: RoomNamespace
    url: str | None

    async def visit(self) -> Visitor:
        """Connect another client."""
        if self.url is not None:
            return Visitor(await connect(self.url, nursery=self.namespace.nursery))
        socket = (await self.namespace.ask("/visitor")).web_socket
        assert socket is not None
        return Visitor(socket)

    async def do(self, path: str) -> None:
        """Start a request to the room, without waiting."""
        self.namespace.nursery.start_soon(self.namespace.ask, path)
        await settled()


@asynccontextmanager
async def open_stage(way: str, world: World) -> AsyncGenerator[Stage]:
    """Open a room for clients in memory, or on an engine."""
    with trio.fail_after(1000):
        async with open_namespace(world) as namespace:
            if way == "memory":
                yield Stage(namespace, None)
            else:
                with memory_network(), using(way):  # type: ignore[arg-type] # an engine
                    stub = namespace.rooms.get_by_name("room")
                    server = await namespace.nursery.start(
                        partial(serve, stub.fetch, 0)
                    )
                    yield Stage(namespace, server.url)
            namespace.nursery.cancel_scope.cancel()


every_way = pytest.mark.parametrize("way", WAYS)


@every_way
@in_virtual_time
async def test_an_answer_does_not_wait_for_a_handler_that_waits(way: str) -> None:
    world = Gated()
    async with open_stage(way, world) as stage:
        visitor = await stage.visit()
        await visitor.send("w")
        await visitor.send("ping")
        assert visitor.took() == ["w begins", "pong"]
        world.gate.set()
        await settled()
        assert visitor.took() == ["w ends"]
        assert world.log == [(1, "w")]


@every_way
@in_virtual_time
async def test_an_answer_behind_a_message_comes_when_its_handler_waits(
    way: str,
) -> None:
    world = Gated()
    async with open_stage(way, world) as stage:
        visitor = await stage.visit()
        await visitor.send("w", "ping", "x", "ping", "y", b"ping")
        assert visitor.took() == ["w begins", "pong", "pong"]
        await visitor.send("ping", "z", "ping")
        assert visitor.took() == ["pong", "pong"]
        world.gate.set()
        await settled()
        rest = ["x begins", "y begins", "b'ping' begins", "z begins"]
        assert visitor.took() == ["w ends", *rest]
        assert world.heard() == ["w", "x", "y", b"ping", "z"]


@every_way
@in_virtual_time
async def test_an_answer_comes_after_messages_that_earlier_handlers_send_at_once(
    way: str,
) -> None:
    async with open_stage(way, Gated()) as stage:
        visitor = await stage.visit()
        await visitor.send("a", "ping", "b", "ping", "ping")
        assert visitor.took() == ["a begins", "pong", "b begins", "pong", "pong"]


@every_way
@in_virtual_time
async def test_an_answer_does_not_wait_for_an_object_that_is_blocked(way: str) -> None:
    world = Gated()
    async with open_stage(way, world) as stage:
        visitor, other = await stage.visit(), await stage.visit()
        await stage.do("/block")
        await other.send("x")
        await visitor.send("ping", "ping")
        assert visitor.took() == ["pong", "pong"]
        assert world.log == []
        # Workers read a message only when the one before has reached its handler.
        await visitor.send("y", "ping")
        assert visitor.took() == []
        world.gate.set()
        await settled()
        assert visitor.took() == ["y begins", "pong"]
        assert world.log == [(1, "x"), (1, "y")]


@every_way
@in_virtual_time
async def test_an_answer_does_not_wait_for_a_constructor(way: str) -> None:
    gate = trio.Event()

    def build(room: Room) -> None:
        answer_ping(room)
        if room.number > 1:
            _ = room.ctx.block_concurrency_while(gate.wait)

    async with open_stage(way, World(on_build=build)) as stage:
        visitor, other = await stage.visit(), await stage.visit()
        await trio.sleep(15)
        await other.send("wake up")
        assert stage.namespace.world.built == 2
        await visitor.send("ping")
        assert visitor.took() == ["pong"]
        assert stage.namespace.world.log == []
        gate.set()
        await settled()
        assert stage.namespace.world.log == [(2, "wake up")]


@every_way
@in_virtual_time
async def test_a_new_setting_applies_to_later_messages(way: str) -> None:
    world = Gated()
    async with open_stage(way, world) as stage:
        visitor = await stage.visit()
        await stage.do("/unset")
        await visitor.send("w", "ping")
        await stage.do("/set")
        await visitor.send("ping")
        await stage.do("/unset")
        await visitor.send("ping")
        assert visitor.took() == ["w begins", "pong"]
        world.gate.set()
        await settled()
        assert world.heard() == ["w", "ping", "ping"]


@every_way
@in_virtual_time
async def test_a_handler_that_sets_an_answer_sets_it_for_the_next_message(
    way: str,
) -> None:
    async def on_message(room: Room, ws: WebSocket, message: str | bytes) -> None:
        if message == "set":
            answer_ping(room)
        ws.send(f"{message!s}!")

    async with open_stage(way, World(on_message=on_message)) as stage:
        visitor = await stage.visit()
        await visitor.send("ping", "set", "ping")
        assert visitor.took() == ["ping!", "set!", "pong"]


@every_way
@in_virtual_time
async def test_after_an_abort_no_answer_is_sent(way: str) -> None:
    world = Gated()
    async with open_stage(way, world) as stage:
        visitor = await stage.visit()
        await visitor.send("w")
        with pytest.raises(DurableObjectResetError):
            await stage.namespace.ask("/abort")
        with suppress(ConnectionClosedError):
            await visitor.send("ping", "x", "ping")
        assert (await visitor.ws.wait_closed()).code == 1011
        assert visitor.took() == ["w begins"]
        world.on_build = None
        other = await stage.visit()
        await other.send("ping")
        assert other.took() == ["ping begins"]


# -- counts and instruments, in memory -------------------------------------------------


def small_room(limit: int, world: Gated) -> Gated:
    """Let the room make pairs with a small buffer."""
    before = world.on_fetch

    async def on_fetch(room: Room, request: Request) -> Response | None:
        if request.path == "/visitor":
            client, server = WebSocketPair(max_buffered_bytes=limit)
            room.ctx.accept_web_socket(server)
            return Response(None, status=101, web_socket=client)
        assert before is not None
        return await before(room, request)

    world.on_fetch = on_fetch
    return world


@in_virtual_time
async def test_answered_messages_take_no_room() -> None:
    world = small_room(200, Gated())
    async with open_stage("memory", world) as stage:
        visitor = await stage.visit()
        await visitor.send("w")
        await visitor.send("x", "y", "z")
        for _ in range(10):
            await visitor.send("ping")
        assert visitor.took() == ["w begins", *["pong"] * 10]
        assert visitor.ws.buffered_amount == len("xyz")
        await stage.do("/unset")
        with pytest.raises(Exception, match="max_buffered_bytes"):
            visitor.ws.send("ping")


@in_virtual_time
async def test_a_message_taken_out_of_the_queue_makes_room() -> None:
    world = Gated()
    async with open_stage("memory", world) as stage:
        visitor = await stage.visit()
        await visitor.send("w", *["ping"] * 3)
        with trio.fail_after(1):
            await visitor.ws.drain()
        await visitor.send("x")
        assert visitor.ws.buffered_amount == 1
        visitor.ws.close(3000)
        world.gate.set()
        assert (await visitor.ws.wait_closed()).code == 3000
        assert world.heard() == ["w", "x", "close"]


@in_virtual_time
async def test_a_message_whose_answer_finds_no_room_keeps_its_place() -> None:
    world = small_room(200, Gated())
    async with open_stage("memory", world) as stage:
        socket = (await stage.namespace.ask("/visitor")).web_socket
        assert socket is not None
        socket.accept(pull=True)
        for message in ("w", "ping", "ping", "x"):
            socket.send(message)
            await settled()
        # "w begins" and two answers fill the buffer.
        socket.send("ping")
        await settled()
        for expected in ("w begins", "pong", "pong"):
            assert await socket.receive() == expected
        world.gate.set()
        for expected in ("w ends", "x begins", "ping begins"):
            assert await socket.receive() == expected
        assert world.heard() == ["w", "x", "ping"]


@in_virtual_time
async def test_a_broadcast_gets_its_answers() -> None:
    async with open_stage("memory", Gated()) as stage:
        visitors = [await stage.visit() for _ in range(3)]
        await visitors[0].send("w")
        assert broadcast([visitor.ws for visitor in visitors], "ping") == {}
        await settled()
        got = [visitor.took() for visitor in visitors]
        assert got == [["w begins", "pong"], ["pong"], ["pong"]]


@in_virtual_time
async def test_an_immediate_answer_has_a_time_stamp() -> None:
    stamps: list[datetime | None] = []

    async def on_message(room: Room, ws: WebSocket, message: str | bytes) -> None:
        stamps.append(room.ctx.get_web_socket_auto_response_timestamp(ws))
        if message == "w":
            await trio.sleep(5)
            stamps.append(room.ctx.get_web_socket_auto_response_timestamp(ws))

    world = World(on_build=answer_ping, on_message=on_message)
    async with open_stage("memory", world) as stage:
        visitor = await stage.visit()
        await visitor.send("w", "ping")
        await trio.sleep(10)
        before, after = stamps
        assert before is None
        assert after is not None


@in_virtual_time
async def test_a_client_that_closed_while_a_handler_waits_gets_no_answer() -> None:
    async def on_message(room: Room, ws: WebSocket, _message: str | bytes) -> None:
        ws.close(3000)
        await trio.sleep(5)
        assert room.ctx.get_web_socket_auto_response_timestamp(ws) is not None

    world = World(on_build=answer_ping, on_message=on_message)
    async with open_stage("memory", world) as stage:
        visitor = await stage.visit()
        visitor.ws.send("w")
        visitor.ws.send("ping")
        await trio.sleep(10)
        assert visitor.took() == []
        assert world.log == [(1, "w"), (1, "close", 3000, "", True)]


class MessageLog(Instrument):
    """Logs messages."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str | bytes]] = []

    def sent(self, ws: WebSocket, message: str | bytes) -> None:  # noqa: ARG002
        self.told.append(("sent", message))

    def received(self, ws: WebSocket, message: str | bytes) -> None:  # noqa: ARG002
        self.told.append(("received", message))


@pytest.mark.parametrize("before", [["w"], ["w", "x"], []])
@in_virtual_time
async def test_an_instrument_sees_a_message_and_its_answer_in_their_order(
    before: list[str],
) -> None:
    diary = MessageLog()
    with use_instrument(diary):
        async with open_stage("memory", Gated()) as stage:
            visitor = await stage.visit()
            await visitor.send(*before)
            diary.told.clear()
            await visitor.send("ping")
            assert diary.told == [
                ("sent", "ping"),
                ("received", "ping"),
                ("sent", "pong"),
                ("received", "pong"),
            ]


@in_virtual_time
async def test_an_instrument_sees_messages_that_are_taken_out_of_the_queue() -> None:
    diary = MessageLog()
    with use_instrument(diary):
        async with open_stage("memory", Gated()) as stage:
            visitor = await stage.visit()
            await visitor.send("w", "ping", "x")
            assert diary.told == [
                ("sent", "w"),
                ("sent", "ping"),
                ("sent", "x"),
                ("received", "w"),
                ("sent", "w begins"),
                ("received", "ping"),
                ("sent", "pong"),
                ("received", "w begins"),
                ("received", "pong"),
            ]


# -- the moment in which a handler waits -----------------------------------------------


@types.coroutine
def step(value: str) -> Generator[str, object, object]:
    """Wait once."""
    return (yield value)


class Obeying:
    """Handlers, one of which waits, and accepts values and exceptions."""

    def __init__(self) -> None:
        self.log: list[object] = []

    async def web_socket_message(self, _ws: WebSocket, _message: str | bytes) -> None:
        self.log.append("begins")
        self.log.append(await step("one"))
        try:
            await step("two")
        except KeyError as error:
            self.log.append(error)
        await step("three")


def test_sent_values_and_thrown_errors_reach_a_handler_that_waits() -> None:
    handlers: Any = Obeying()
    log = handlers.log
    event: Any = MessageEvent("hello", target=cast("WebSocket", object()))
    handling = call_handler(handlers, event, lambda: log.append("waits"))
    assert handling.send(None) == "one"
    assert log == ["begins", "waits"]
    assert handling.send("sent") == "two"
    error = KeyError()
    assert handling.throw(error) == "three"
    with pytest.raises(StopIteration):
        handling.send(None)
    assert log == ["begins", "waits", "sent", error]

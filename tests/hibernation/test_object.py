"""Objects and their sockets: ids, requests, events, and the errors of wrong calls."""

import gc
import weakref
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import trio
from durable_objects import (
    Room,
    RoomNamespace,
    World,
    logged_warnings,
    new_request,
    open_namespace,
)
from pairs import in_virtual_time
from patched_network import memory_network
from trio.testing import wait_all_tasks_blocked

from trio_wspair import (
    BufferFullError,
    ConnectionClosedError,
    InvalidStateError,
    ReadyState,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    connect,
    serve,
)
from trio_wspair._rules.objects import MAX_SOCKETS
from trio_wspair.hibernation import (
    DurableObject,
    DurableObjectId,
    DurableObjectNamespace,
    WebSocketRequestResponsePair,
    _actor,
)

Namespace: Any = DurableObjectNamespace
"""The same class without types, for wrong calls."""

# -- ids -----------------------------------------------------------------------------


def test_a_name_always_has_the_same_id() -> None:
    rooms, others = DurableObjectNamespace(Room), DurableObjectNamespace(Room)
    lobby = rooms.id_from_name("lobby")
    assert lobby == rooms.id_from_name("lobby") == others.id_from_name("lobby")
    assert lobby != rooms.id_from_name("Lobby")
    assert lobby.name == "lobby"
    assert len(str(lobby)) == 64
    again = rooms.id_from_string(str(lobby))
    assert (again, again.name) == (lobby, None)
    assert hash(again) == hash(lobby)
    assert rooms.get(lobby).id == rooms.get_by_name("lobby").id == lobby
    assert rooms.get_by_name("lobby").name == "lobby"
    assert rooms.get(again).name is None
    assert repr(rooms.get_by_name("lobby")) == "<DurableObjectStub 'lobby'>"
    assert repr(rooms.get_by_name("a\x1b\n")) == r"<DurableObjectStub 'a\x1b\n'>"
    assert repr(rooms.get_by_name("")) == "<DurableObjectStub ''>"
    assert str(lobby) in repr(rooms.get(again))
    assert "Room" in repr(rooms)


def test_ids_of_different_classes_differ() -> None:
    class Hall(Room):
        pass

    name = "lobby"
    hall = DurableObjectNamespace(Hall).id_from_name(name)
    assert hall != DurableObjectNamespace(Room).id_from_name(name)


def test_a_new_id_is_unique() -> None:
    rooms = DurableObjectNamespace(Room)
    ids = {rooms.new_unique_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(rooms.id_from_string(str(one)) == one for one in ids)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: r.id_from_name(b"x"), TypeError, "name of an object must be a str"),
        (
            lambda r: r.get_by_name(7),
            TypeError,
            "name of an object must be a str, not int",
        ),
        (lambda r: r.id_from_string(7), TypeError, "must be a str, not int"),
        (lambda r: r.id_from_string("lobby"), ValueError, "64 hexadecimal digits"),
        (lambda r: r.id_from_string("A" * 64), ValueError, "in lower case"),
        (lambda _r: DurableObjectId("x"), ValueError, "64 hexadecimal digits in lower"),
        (
            lambda r: r.get("lobby"),
            TypeError,
            r"not str; with a name, call get_by_name\(\)",
        ),
        (lambda r: r.evict("lobby"), TypeError, r"id_from_name\(\)"),
        (
            lambda _r: Namespace(7),
            TypeError,
            "DurableObject, not 7",
        ),
        (
            lambda _r: Namespace(dict),
            TypeError,
            "DurableObject, not <cl",
        ),
        (
            lambda _r: DurableObjectNamespace(Room, None, -1),
            ValueError,
            "hibernate_after must be 0 or more",
        ),
        (
            lambda _r: Namespace(Room, None, "10"),
            TypeError,
            "hibernate_after must be a number",
        ),
    ],
)
def test_arguments_that_are_not_ids_or_classes_are_refused(
    call: Callable[[Any], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(DurableObjectNamespace(Room))


# -- requests ------------------------------------------------------------------------


@in_virtual_time
async def test_each_object_has_its_own_sockets_and_the_env_of_all() -> None:
    async def look(room: Room, request: Request) -> Response | None:
        if request.path != "/look":
            return None
        assert room.env is namespace.world
        name = room.ctx.id.name
        assert repr(name or str(room.ctx.id)) in repr(room.ctx)
        return Response(f"{name} {len(room.ctx.get_web_sockets())}")

    async with open_namespace(World(on_fetch=look)) as namespace:
        await namespace.visit(name="a")
        await namespace.visit(name="a")
        await namespace.visit(name="b")
        assert (await namespace.ask("/look", "a")).body == b"a 2"
        assert (await namespace.ask("/look", "b")).body == b"b 1"
        unique = namespace.rooms.get(namespace.rooms.new_unique_id())
        response = await unique.fetch(new_request(namespace.nursery, "/look"))
        assert response.body == b"None 0"


@in_virtual_time
async def test_an_error_of_fetch_reaches_the_caller_and_changes_nothing_else() -> None:
    kept: list[Response] = []

    async def on_fetch(room: Room, request: Request) -> Response | None:
        if request.path == "/fail":
            kept.append(room.join([]))
            await trio.sleep(1)
            msg = "no such thing"
            raise LookupError(msg)
        return None

    async with open_namespace(World(on_fetch=on_fetch)) as namespace:
        client = await namespace.visit()
        with pytest.raises(LookupError, match="no such thing"):
            await namespace.ask("/fail")
        (untaken,) = [response.web_socket for response in kept]
        assert untaken is not None
        untaken.accept(pull=True)
        assert (await untaken.wait_closed()).code == 1011
        await wait_all_tasks_blocked()
        # The accepted sockets could never be given to a client.
        why = "the other half was never taken"
        assert namespace.world.log == [(1, "close", 1006, why, False)]
        client.send("still here")
        await wait_all_tasks_blocked()
        assert namespace.world.log[1:] == [(1, "still here")]


@in_virtual_time
async def test_a_socket_whose_other_half_was_taken_outlives_a_failing_fetch() -> None:
    async def on_fetch(room: Room, _request: Request) -> Response:
        client, server = WebSocketPair(namespace.nursery)
        room.ctx.accept_web_socket(server)
        client.accept()
        client.send("still here")
        raise LookupError

    async with open_namespace(World(on_fetch=on_fetch)) as namespace:
        with pytest.raises(LookupError):
            await namespace.ask()
        await wait_all_tasks_blocked()
        assert namespace.world.log == [(1, "still here")]
        namespace.nursery.cancel_scope.cancel()


@in_virtual_time
async def test_a_fetch_that_is_cancelled_leaves_no_socket_behind() -> None:
    async def on_fetch(room: Room, _request: Request) -> Response:
        room.join([])
        await trio.sleep_forever()
        return Response()

    async with open_namespace(World(on_fetch=on_fetch)) as namespace:
        with trio.move_on_after(1):
            await namespace.ask()
        await wait_all_tasks_blocked()
        why = "the other half was never taken"
        assert namespace.world.log == [(1, "close", 1006, why, False)]


@pytest.mark.parametrize("answer", [None, "hello", b"", 404])
@in_virtual_time
async def test_a_return_value_that_is_not_a_response_is_refused(answer: Any) -> None:
    class Wrong(DurableObject):
        async def fetch(self, request: Request) -> Any:
            assert request.method == "GET"
            return answer

    async with DurableObjectNamespace(Wrong) as wrong, trio.open_nursery() as nursery:
        stub = wrong.get_by_name("x")
        what = f"must return a Response, not {type(answer).__name__}"
        with pytest.raises(TypeError, match=what):
            await stub.fetch(new_request(nursery))
        with pytest.raises(TypeError, match="takes a Request, not str"):
            await stub.fetch("http://x/")  # type: ignore[arg-type] # on purpose


@in_virtual_time
async def test_a_fetch_that_is_not_async_is_refused() -> None:
    class Plain(DurableObject):
        # A wrong class on purpose.
        def fetch(self, request: Request) -> Response:  # type: ignore[override]
            return Response(request.method)

    async with DurableObjectNamespace(Plain) as plain, trio.open_nursery() as nursery:
        with pytest.raises(TypeError, match="async def fetch"):
            await plain.get_by_name("x").fetch(new_request(nursery))


@in_virtual_time
async def test_the_error_for_a_class_without_handlers_names_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Joined(DurableObject):
        async def fetch(self, request: Request) -> Response:
            if request.path == "/join":
                client, server = WebSocketPair()
                self.ctx.accept_web_socket(server)
                return Response(None, status=101, web_socket=client)
            return await super().fetch(request)

    async with DurableObjectNamespace(Joined) as joined, trio.open_nursery() as nursery:
        stub = joined.get_by_name("x")
        with pytest.raises(NotImplementedError, match=r"Joined has no fetch\(\) m"):
            await stub.fetch(new_request(nursery))
        client = (await stub.fetch(new_request(nursery, "/join"))).web_socket
        assert client is not None
        client.accept(pull=True)
        client.send("hello")
        await wait_all_tasks_blocked()
        (complaint,) = logged_warnings(caplog)
        assert "needed to handle 'hello'" in complaint
        await client.aclose(3000, "bye")  # This handler is optional.
        assert (await client.wait_closed()).was_clean
        assert logged_warnings(caplog) == []


@in_virtual_time
async def test_an_object_may_send_requests_to_another_one() -> None:
    async def on_fetch(room: Room, request: Request) -> Response | None:
        if request.path != "/forward":
            return Response(f"this is {room.ctx.id.name}")
        stub = namespace.rooms.get_by_name("b")
        response = await stub.fetch(new_request(namespace.nursery))
        assert isinstance(response.body, bytes)
        return Response(response.body + b" for " + str(room.ctx.id.name).encode())

    async with open_namespace(World(on_fetch=on_fetch)) as namespace:
        answer = await namespace.ask("/forward", "a")
        assert answer.body == b"this is b for a"


# -- on a server ---------------------------------------------------------------------


@in_virtual_time
async def test_a_server_gives_the_other_half_to_its_client() -> None:
    async def greet(_room: Room, ws: WebSocket, message: str | bytes) -> None:
        ws.send(f"hello {message!r}")

    async with open_namespace(World(on_message=greet)) as namespace:
        with memory_network():
            stub = namespace.rooms.get_by_name("room")
            server = await namespace.nursery.start(partial(serve, stub.fetch, 0))
            client = await connect(server.url, nursery=namespace.nursery)
            client.accept(pull=True)
            client.send("Ada")
            assert await client.receive() == "hello 'Ada'"
            await trio.sleep(
                500
            )  # Pings and pongs pass meanwhile, without waking the object.
            assert namespace.world.built == 1
            client.send("Bob")
            assert await client.receive() == "hello 'Bob'"
            assert namespace.world.log == [(1, "Ada"), (2, "Bob")]
            await client.aclose(3000, "bye")
        assert namespace.world.log[2:] == [(2, "close", 3000, "bye", True)]
        namespace.nursery.cancel_scope.cancel()


@in_virtual_time
async def test_a_plain_request_leaves_no_web_socket_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_namespace() as namespace:
        with memory_network():
            stub = namespace.rooms.get_by_name("room")
            server = await namespace.nursery.start(partial(serve, stub.fetch, 0))
            stream = await trio.open_tcp_stream(*server.addresses[0])
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 426 " in bytes(await stream.receive_some())
            await wait_all_tasks_blocked()
            assert namespace.world.log == [(1, "close", 1001, "", True)]
            assert "check request.wants_websocket" in logged_warnings(caplog)[0]
            namespace.nursery.cancel_scope.cancel()


@in_virtual_time
async def test_g10_an_unused_half_of_a_request_ends_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def refuse(request: Request) -> Response:
        await namespace.rooms.get_by_name("room").fetch(request)
        if request.path == "/fail":
            raise LookupError
        return Response("You may not.", status=403)

    async def pass_on(room: Room, request: Request) -> Response | None:
        if room.ctx.id.name == "outer":
            await namespace.rooms.get_by_name("room").fetch(request)
            raise LookupError
        return None

    async with open_namespace(World(on_fetch=pass_on)) as namespace:
        with memory_network():
            server = await namespace.nursery.start(partial(serve, refuse, 0))
            for path in ("/refuse", "/fail"):
                stream = await trio.open_tcp_stream(*server.addresses[0])
                await stream.send_all(
                    f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
                )
                await stream.receive_some()
            await wait_all_tasks_blocked()
            assert namespace.world.log == [(1, "close", 1001, "", True)] * 2
            with pytest.raises(LookupError):
                await namespace.ask("/", "outer")
            await wait_all_tasks_blocked()
            assert namespace.world.log[2:] == [(1, "close", 1001, "", True)]
            namespace.nursery.cancel_scope.cancel()
    assert len(logged_warnings(caplog)) == 1


@in_virtual_time
async def test_g10_a_task_that_outlives_its_request_keeps_no_sockets() -> None:
    kept: list[weakref.ref[WebSocket]] = []

    async def accept(room: Room) -> None:
        for _ in range(5):
            client, server = WebSocketPair(namespace.nursery)
            room.ctx.accept_web_socket(server)
            kept.append(weakref.ref(server))
            await client.aclose()
            await trio.sleep(1)
        await trio.sleep(50)

    async def on_fetch(room: Room, _request: Request) -> Response:
        room.ctx.wait_until(accept, room)
        return Response()

    async with open_namespace(World(on_fetch=on_fetch)) as namespace:
        await namespace.ask()
        await trio.sleep(20)
        gc.collect()
        assert [ref() for ref in kept[:-1]] == [
            None
        ] * 4  # The last one is held by its frame.


# -- events --------------------------------------------------------------------------


@in_virtual_time
async def test_g8_handlers_of_one_socket_never_overlap_and_those_of_several_may() -> (
    None
):
    running: list[object] = []
    most = {"one": 0, "all": 0}

    async def take_time(_room: Room, ws: WebSocket, _message: str | bytes) -> None:
        running.append(ws)
        most["one"] = max(most["one"], running.count(ws))
        most["all"] = max(most["all"], len(running))
        await trio.sleep(1)
        running.remove(ws)

    async with open_namespace(World(on_message=take_time)) as namespace:
        clients = [await namespace.visit() for _ in range(5)]
        for number in range(4):
            for client in clients:
                client.send(str(number))
        await trio.sleep(10)
        assert most == {"one": 1, "all": 5}
        assert len(namespace.world.log) == 20


@in_virtual_time
async def test_handlers_may_be_plain_methods() -> None:
    class Echo(Room):
        def web_socket_message(  # type: ignore[override] # that of a Room is async
            self, ws: WebSocket, message: str | bytes
        ) -> None:
            ws.send(message)

    async with (
        trio.open_nursery() as nursery,
        DurableObjectNamespace(Echo, World()) as rooms,
    ):
        client = await RoomNamespace(rooms, nursery, World()).visit()
        client.send("a")
        client.send(b"b")
        assert [await client.receive(), await client.receive()] == ["a", b"b"]


@in_virtual_time
async def test_an_error_of_a_handler_is_logged_and_its_socket_stays_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def on_message(_room: Room, _ws: WebSocket, message: str | bytes) -> None:
        if message == "group":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(on_message, _room, _ws, "boom")
        if message == "boom":
            raise ZeroDivisionError

    async def on_close(_room: Room, _ws: WebSocket) -> None:
        raise KeyError("name")

    async with open_namespace(
        World(on_message=on_message, on_close=on_close)
    ) as namespace:
        client = await namespace.visit()
        for message in ("boom", "group", "fine"):
            client.send(message)
        await wait_all_tasks_blocked()
        assert len(namespace.world.log) == 3
        first, second = logged_warnings(caplog)
        what = "web_socket_message() of Room 'room' failed"
        assert first == f"{what} <- ZeroDivisionError()"
        assert second == first
        await client.aclose(3000)
        assert (await client.wait_closed()).was_clean
        assert logged_warnings(caplog) == [
            "web_socket_close() of Room 'room' failed <- KeyError('name')"
        ]


@in_virtual_time
async def test_a_handler_that_takes_too_long_is_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def prepare(room: Room) -> None:
        room.ctx.set_hibernatable_web_socket_event_timeout(None)
        assert room.ctx.get_hibernatable_web_socket_event_timeout() is None
        room.ctx.set_hibernatable_web_socket_event_timeout(1500)

    async def take_time(_room: Room, _ws: WebSocket, message: str | bytes) -> None:
        await trio.sleep(float(message))
        namespace.world.log.append("done")

    async with open_namespace(
        World(on_build=prepare, on_message=take_time)
    ) as namespace:
        client = await namespace.visit()
        for seconds in ("1", "2", "1.4"):
            client.send(seconds)
        await trio.sleep(10)
        log = [(1, "1"), "done", (1, "2"), (1, "1.4"), "done"]
        assert namespace.world.log == log
        what = "web_socket_message() of Room 'room' was cancelled: it took over 1.5 s"
        assert logged_warnings(caplog) == [what]


@in_virtual_time
async def test_a_handler_may_accept_more_sockets() -> None:
    async def on_message(room: Room, ws: WebSocket, message: str | bytes) -> None:
        if message != "another":
            ws.send(f"{message!r} for {room.ctx.get_tags(ws)}")
            return
        client, server = WebSocketPair(namespace.nursery)
        room.ctx.accept_web_socket(server, ["another"])
        client.accept(pull=True)
        client.send("hello")
        ws.send(await client.receive())

    async with open_namespace(World(on_message=on_message)) as namespace:
        client = await namespace.visit()
        client.send("another")
        assert await client.receive() == "'hello' for ['another']"
        namespace.nursery.cancel_scope.cancel()


# -- the end of a socket -------------------------------------------------------------


@in_virtual_time
async def test_the_close_is_answered_after_its_handler_has_ended() -> None:
    async def on_close(room: Room, ws: WebSocket) -> None:
        assert ws.ready_state is ReadyState.CLOSING
        assert ws in room.ctx.get_web_sockets()
        ws.send("last words")
        await trio.sleep(5)

    async with open_namespace(World(on_close=on_close)) as namespace:
        client = await namespace.visit()
        client.close(3001, "bye")
        assert await client.receive() == "last words"
        await trio.sleep(4)
        assert client.ready_state is ReadyState.CLOSING
        with pytest.raises(ConnectionClosedError) as caught:
            await client.receive()
        assert (caught.value.code, caught.value.was_clean) == (3001, True)
        assert trio.current_time() == 5
        assert namespace.world.log == [(1, "close", 3001, "bye", True)]


@in_virtual_time
async def test_a_close_handler_may_call_close() -> None:
    async def on_close(_room: Room, ws: WebSocket) -> None:
        ws.close(4000, "mine")
        assert ws.ready_state is ReadyState.CLOSED

    async with open_namespace(World(on_close=on_close)) as namespace:
        client = await namespace.visit()
        client.close(3001, "bye")
        end = await client.wait_closed()
        assert (end.code, end.reason, end.was_clean) == (4000, "mine", True)


@in_virtual_time
async def test_after_its_end_a_socket_still_has_its_tags_but_is_not_listed() -> None:
    kept: list[WebSocket] = []

    async def on_close(_room: Room, ws: WebSocket) -> None:
        kept.append(ws)

    async def look(room: Room, request: Request) -> Response | None:
        if request.path != "/look":
            return None
        (ws,) = kept
        assert room.ctx.get_tags(ws) == ["a", "b"]
        assert room.ctx.get_web_sockets() == room.ctx.get_web_sockets("a") == []
        with pytest.raises(ConnectionClosedError):
            ws.send("too late")
        ws.close(3000)  # This has no effect.
        return Response(ws.ready_state.name)

    async with open_namespace(World(on_close=on_close, on_fetch=look)) as namespace:
        await (await namespace.visit("/a,b,a")).aclose()
        assert (await namespace.ask("/look")).body == b"CLOSED"


@in_virtual_time
async def test_a_closing_socket_is_seen_by_its_own_handler_only() -> None:
    async def on_close(room: Room, ws: WebSocket) -> None:
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def look() -> None:
                namespace.world.log.append(ws in room.ctx.get_web_sockets("x"))

    async def look(room: Room, request: Request) -> Response | None:
        if request.path != "/look":
            return None
        return Response(str(len(room.ctx.get_web_sockets("x"))))

    async with open_namespace(World(on_close=on_close, on_fetch=look)) as namespace:
        client, _other = await namespace.visit("/x"), await namespace.visit("/x")
        client.close(3000)
        await wait_all_tasks_blocked()
        assert (await namespace.ask("/look")).body == b"1"
        await client.wait_closed()
        assert namespace.world.log[1:] == [True]


# -- automatic answers ---------------------------------------------------------------


def answer_ping(room: Room) -> None:
    """Set an automatic answer."""
    pair = WebSocketRequestResponsePair("ping", "pong")
    room.ctx.set_web_socket_auto_response(pair)


@in_virtual_time
async def test_an_automatic_answer_has_a_time_stamp() -> None:
    stamps: list[datetime | None] = []

    async def on_message(room: Room, ws: WebSocket, _message: str | bytes) -> None:
        stamps.append(room.ctx.get_web_socket_auto_response_timestamp(ws))

    async with open_namespace(
        World(on_build=answer_ping, on_message=on_message)
    ) as namespace:
        client = await namespace.visit()
        for message in ("first", "ping", "second"):
            client.send(message)
        assert await client.receive() == "pong"
        await wait_all_tasks_blocked()
        before, after = stamps
        assert before is None
        assert after is not None
        assert abs(after - datetime.now(UTC)) < timedelta(hours=1)


@in_virtual_time
async def test_an_automatic_answer_without_room_is_left_to_the_object() -> None:
    async def on_fetch(room: Room, _request: Request) -> Response:
        client, server = WebSocketPair(max_buffered_bytes=200)
        room.ctx.accept_web_socket(server)
        return Response(None, status=101, web_socket=client)

    world = World(on_build=answer_ping, on_fetch=on_fetch)
    async with open_namespace(world) as namespace:
        client = await namespace.visit()
        for _ in range(5):
            client.send("ping")
            await wait_all_tasks_blocked()
        assert namespace.world.log == [(1, "ping")] * 2


@in_virtual_time
async def test_a_closing_client_gets_no_automatic_answer() -> None:
    async def close(room: Room, request: Request) -> Response | None:
        if request.path == "/close":
            room.ctx.get_web_sockets()[0].close(3000)
            return Response()
        return None

    async with open_namespace(World(on_build=answer_ping, on_fetch=close)) as namespace:
        client = await namespace.visit()
        await namespace.ask("/close")
        client.send("ping")
        client.close(3000)
        await client.wait_closed()
        await wait_all_tasks_blocked()
        assert namespace.world.log == [(1, "close", 3000, "", True)]


# -- wrong calls ---------------------------------------------------------------------


Call = Callable[[Any, WebSocket, WebSocket], object]


def taken_before(ctx: Any, ws: WebSocket, _peer: WebSocket) -> None:
    ws.accept()
    ctx.accept_web_socket(ws)


def peer_taken_before(ctx: Any, ws: WebSocket, peer: WebSocket) -> None:
    peer.accept()
    ctx.accept_web_socket(ws)


def accepted_twice(ctx: Any, ws: WebSocket, _peer: WebSocket) -> None:
    ctx.accept_web_socket(ws)
    ctx.accept_web_socket(ws)


def both_accepted(ctx: Any, ws: WebSocket, peer: WebSocket) -> None:
    ctx.accept_web_socket(ws)
    ctx.accept_web_socket(peer)


def then_accepted(ctx: Any, ws: WebSocket, _peer: WebSocket) -> None:
    ctx.accept_web_socket(ws)
    ws.accept()


def tags_of_an_accepted(ctx: Any, ws: WebSocket, _peer: WebSocket) -> None:
    ws.accept()
    ctx.get_tags(ws)


async def load() -> None:
    """Load the attachment of a socket."""
    pytest.fail("it was awaited")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (taken_before, InvalidStateError, r"too late for accept_web_socket\(\)"),
        (peer_taken_before, InvalidStateError, "other half is accepted. Accept this"),
        (accepted_twice, InvalidStateError, "accepted by a Durable Object"),
        (both_accepted, InvalidStateError, "other half is accepted by a Durable Obj"),
        (then_accepted, InvalidStateError, r"too late for accept\(\)"),
        (tags_of_an_accepted, InvalidStateError, "has tags, not <WebSocket OPEN, acc"),
        (
            lambda ctx, ws, _: ctx.get_tags(ws),
            InvalidStateError,
            r"accept it with accept_web_socket\(\) first",
        ),
        (
            lambda ctx, _ws, _: ctx.accept_web_socket(None),
            TypeError,
            "ws must be a WebSocket, one half of a pair, not NoneType",
        ),
        (
            lambda ctx, ws, peer: ctx.accept_web_socket((ws, peer)),
            TypeError,
            "not tuple",
        ),
        (lambda ctx, ws, _: ctx.accept_web_socket(ws, "abc"), TypeError, "list of str"),
        (lambda ctx, ws, _: ctx.accept_web_socket(ws, 5), TypeError, "not 5"),
        (lambda ctx, ws, _: ctx.accept_web_socket(ws, [5]), TypeError, "a tag is a s"),
        (
            lambda ctx, ws, _: ctx.accept_web_socket(ws, map(str, range(11))),
            ValueError,
            "at most 10 tags",
        ),
        (
            lambda ctx, ws, _: ctx.accept_web_socket(ws, ["é" * 129]),
            ValueError,
            "a tag has at most 256 bytes of UTF-8, this one has 258",
        ),
        (
            lambda ctx, _ws, _: ctx.get_web_sockets(5),
            TypeError,
            "a tag must be a str, not",
        ),
        (
            lambda ctx, _ws, _: ctx.set_web_socket_auto_response("ping"),
            TypeError,
            "WebSocketRequestResponsePair, not str",
        ),
        (
            lambda ctx, _ws, _: ctx.get_web_socket_auto_response_timestamp("x"),
            TypeError,
            "must be a WebSocket",
        ),
        (
            lambda ctx, _ws, _: ctx.set_hibernatable_web_socket_event_timeout(-1),
            ValueError,
            "ms must be at least 0",
        ),
        (
            lambda ctx, _ws, _: ctx.set_hibernatable_web_socket_event_timeout(
                604_800_001
            ),
            ValueError,
            "ms must be at most 604800000",
        ),
        (
            lambda ctx, _ws, _: ctx.set_hibernatable_web_socket_event_timeout(1.5),
            TypeError,
            "ms must be an int, not 1.5",
        ),
        (lambda ctx, _ws, _: ctx.wait_until(7), TypeError, "async function and its"),
        (
            lambda ctx, _ws, _: ctx.block_concurrency_while(7),
            TypeError,
            "as to nursery.start_soon",
        ),
        (
            lambda ctx, _ws, _: ctx.block_concurrency_while(load()),
            TypeError,
            "pass the async function, load, and its arg",
        ),
        (
            lambda ctx, _ws, _: ctx.abort(7),
            TypeError,
            "the reason must be a str, not int",
        ),
    ],
)
@in_virtual_time
async def test_wrong_calls_raise_helpful_errors_and_change_nothing(
    call: Call, error: type[Exception], message: str
) -> None:
    async def on_fetch(room: Room, _request: Request) -> Response:
        ws, peer = WebSocketPair()
        with pytest.raises(error, match=message):
            call(room.ctx, ws, peer)
        expected = (
            [ws] if call in (accepted_twice, both_accepted, then_accepted) else []
        )
        assert room.ctx.get_web_sockets() == expected
        assert room.ctx.get_hibernatable_web_socket_event_timeout() is None
        assert room.ctx.get_web_socket_auto_response() is None
        return Response("as before")

    async with open_namespace(World(on_fetch=on_fetch)) as namespace:
        assert (await namespace.ask()).body == b"as before"


@pytest.mark.parametrize(
    ("pair", "error", "message"),
    [
        (("q" * 2049, "r"), ValueError, "at most 2048 bytes of UTF-8, this one has"),
        (("q", "€" * 683), ValueError, "has 2049"),
        ((1, "r"), TypeError, "a request or a response is a str, not int"),
        (("q", None), TypeError, "a request or a response is a str, not NoneType"),
    ],
)
def test_the_arguments_of_an_automatic_answer_are_checked(
    pair: tuple[Any, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        WebSocketRequestResponsePair(*pair)


def test_an_automatic_answer_may_be_as_large_as_the_limit() -> None:
    pair = WebSocketRequestResponsePair("é" * 1024, "r" * 2048)
    assert (pair.request, pair.response) == ("é" * 1024, "r" * 2048)
    assert pair == WebSocketRequestResponsePair("é" * 1024, "r" * 2048)


@in_virtual_time
async def test_the_tags_of_a_socket_of_another_object_cannot_be_read() -> None:
    kept: list[WebSocket] = []

    async def on_fetch(room: Room, _request: Request) -> Response:
        if kept:
            with pytest.raises(InvalidStateError, match="Room 'b' has not accepted"):
                room.ctx.get_tags(kept[0])
            with pytest.raises(InvalidStateError, match="too late"):
                room.ctx.accept_web_socket(kept[0])
        response = room.join(["x"])
        kept.extend(room.ctx.get_web_sockets())
        return response

    async with open_namespace(World(on_fetch=on_fetch)) as namespace:
        await namespace.visit(name="a")
        await namespace.visit(name="b")
    kept.clear()


@in_virtual_time
async def test_namespaces_do_not_share_sockets() -> None:
    built: list[Room] = []
    world = World(on_build=built.append)
    async with open_namespace(world) as one, open_namespace(world) as other:
        await one.visit("/secret")
        await other.visit("/public")
        (socket,) = built[0].ctx.get_web_sockets()
        assert built[0].ctx.get_tags(socket) == ["secret"]
        with pytest.raises(InvalidStateError, match="has not accepted"):
            built[1].ctx.get_tags(socket)


@in_virtual_time
async def test_an_instance_that_has_left_memory_cannot_change_anything() -> None:
    built: list[Room] = []
    async with open_namespace(World(on_build=built.append)) as namespace:
        await namespace.visit()
        namespace.evict()
        ctx = built[0].ctx
        for verb in (
            ctx.set_web_socket_auto_response,
            ctx.set_hibernatable_web_socket_event_timeout,
        ):
            with pytest.raises(InvalidStateError, match="has left memory"):
                verb()


@pytest.mark.parametrize("when", ["before", "after"])
@in_virtual_time
async def test_listeners_of_an_objects_socket_are_never_called_and_the_log_says_so(
    when: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[object] = []

    async def on_fetch(room: Room, _request: Request) -> Response:
        client, server = WebSocketPair()
        if when == "after":
            room.ctx.accept_web_socket(server)
            server.onmessage = heard.append
        server.add_event_listener("message", heard.append)
        server.add_event_listener("close", heard.append)
        if when == "before":
            room.ctx.accept_web_socket(server)
        return Response(None, status=101, web_socket=client)

    async with open_namespace(World(on_fetch=on_fetch)) as namespace:
        client = await namespace.visit()
        client.send("hello")
        await client.aclose(3000)
        assert heard == []
        assert namespace.world.log == [(1, "hello"), (1, "close", 3000, "", True)]
        said = logged_warnings(caplog)
        assert said
        assert all("never called: write web_socket_message()" in one for one in said)


@in_virtual_time
async def test_the_number_of_sockets_of_an_object_is_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert MAX_SOCKETS == 32_768  # So many sockets take some time.
    monkeypatch.setattr(_actor, "MAX_SOCKETS", 20)

    async def fill(room: Room, _request: Request) -> Response:
        for _ in range(20):
            room.join([])
        with pytest.raises(InvalidStateError, match="20 WebSockets, and may"):
            room.join([])
        return Response(str(len(room.ctx.get_web_sockets())))

    async with open_namespace(World(on_fetch=fill)) as namespace:
        assert (await namespace.ask()).body == b"20"


# -- buffers, and halves used in memory ----------------------------------------------


@in_virtual_time
async def test_a_full_buffer_is_an_error_for_the_object_that_sends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def on_fetch(room: Room, _request: Request) -> Response:
        client, server = WebSocketPair(max_buffered_bytes=100)
        room.ctx.accept_web_socket(server)
        server.send("x" * 100)
        with pytest.raises(BufferFullError):
            server.send("y")
        return Response(None, status=101, web_socket=client)

    async with open_namespace(World(on_fetch=on_fetch)) as namespace:
        client = await namespace.visit()
        assert await client.receive() == "x" * 100
    assert logged_warnings(caplog) == []


@in_virtual_time
async def test_a_half_that_is_used_in_memory_belongs_to_the_caller() -> None:
    """Its listeners run in the caller's nursery, and don't keep the object awake."""
    heard: list[str | bytes] = []

    async def greet(_room: Room, ws: WebSocket, message: str | bytes) -> None:
        ws.send(message)

    async with open_namespace(World(on_message=greet)) as namespace:
        response = await namespace.ask("/x")
        client = response.web_socket
        assert client is not None
        client.add_event_listener("message", lambda event: heard.append(event.data))
        client.accept()
        client.send("one")
        await trio.sleep(11)
        client.send("two")
        await wait_all_tasks_blocked()
        assert heard == ["one", "two"]
        assert namespace.world.log == [(1, "one"), (2, "two")]

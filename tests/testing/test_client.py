"""`open_test_client()`: handlers on their real server, in memory and over loopback."""

import math
import re
import socket as sockets
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
from network import Logged
from trio.testing import MockClock, check_half_closeable_stream, check_two_way_stream

from trio_wspair import (
    HandshakeError,
    InvalidStateError,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    broadcast,
    serve,
)
from trio_wspair.hibernation import DurableObject, DurableObjectNamespace
from trio_wspair.testing import (
    ConversationError,
    Record,
    RecordedWebSocket,
    open_test_client,
    replay,
    replay_file,
)
from trio_wspair.testing._requests import Transport
from trio_wspair.testing._streams import bounded_stream_pair

pytestmark = pytest.mark.usefixtures("engine")
over_both = pytest.mark.parametrize("over", ["memory", "loopback"])


@pytest.fixture(autouse=True)
async def in_time() -> AsyncGenerator[None]:
    """Limit the time of every test, generously in virtual time."""
    virtual = isinstance(trio.lowlevel.current_clock(), MockClock)
    with trio.fail_after(10**6 if virtual else 10):
        yield


def handler(
    use: Callable[[WebSocket], object] | None = None,
    **accept_options: bool,
) -> Callable[[Request], Awaitable[Response]]:
    """Return a handler that accepts every WebSocket, and passes it to a function."""

    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        if use is not None:
            use(server)
        server.accept(**accept_options)
        return Response(None, status=101, web_socket=client)

    return fetch


def echo(server: WebSocket) -> None:
    """Echo every message."""
    server.on("message")(lambda event: server.send(event.data))


def failing(server: WebSocket) -> None:
    """Raise at the first message."""

    def fail(event: object) -> None:
        raise KeyError("a bug")

    server.on("message")(fail)


def messages_of(record: Record, half: str) -> list[Any]:
    """Return the messages of a half, sent and received, and its close."""
    return [
        (entry.what, entry.code if entry.message is None else entry.message)
        for entry in record.entries
        if entry.half == half
    ]


# -- a conversation ---------------------


@over_both
async def test_a_client_talks_to_the_handler_and_the_record_shows_both(
    over: Transport,
) -> None:
    async with open_test_client(handler(echo), "/", over=over) as client:
        client.send("hello")
        await client.expect("hello")
        client.send(b"\0" * 100_000)
        await client.expect(b"\0" * 100_000)
        await client.expect_nothing()
    big = b"\0" * 100_000
    assert messages_of(client.record, "client") == [
        ("accept", None),
        ("send", "hello"),
        ("receive", "hello"),
        ("send", big),
        ("receive", big),
        ("close", 1000),
        ("closed", 1000),
    ]
    assert messages_of(client.record, "server") == [
        ("accept", None),
        ("receive", "hello"),
        ("send", "hello"),
        ("receive", big),
        ("send", big),
        ("closed", 1000),
        ("close", 1000),
    ]


@over_both
async def test_the_handler_gets_the_request_with_its_options(over: Transport) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept()
        server.send(f"{request.path} {request.url} {request.headers['x-name']}")
        headers = {"Sec-WebSocket-Protocol": "chat.v1"}
        return Response(None, status=101, headers=headers, web_socket=client)

    protocols = ["chat.v2", "chat.v1"]
    async with open_test_client(
        fetch, "/chat?a=b", over=over, protocols=protocols, headers={"X-Name": "Ada"}
    ) as client:
        told = await client.expect(re.compile(""))
        path, url, name = told.split()
        assert (path, name) == ("/chat", "Ada")
        assert url.endswith("/chat?a=b")
        assert client.protocol == "chat.v1"
        assert client.url is not None
        assert client.url.endswith("/chat?a=b")


async def test_in_memory_an_hour_passes_at_once(autojump_clock: MockClock) -> None:
    async def late(event: Any) -> None:
        await trio.sleep(3600)
        event.target.send("at last")

    fetch = handler(lambda server: server.on("message")(late))
    async with open_test_client(fetch, "/") as client:
        client.send("now?")
        await client.expect("at last", within=3601)
    assert trio.current_time() >= 3600


async def test_in_memory_there_are_no_sockets(autojump_clock: MockClock) -> None:
    def no_socket(*_args: object, **_options: object) -> None:
        raise AssertionError("a socket")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio.socket, "socket", no_socket)
        patch.setattr(sockets, "socket", no_socket)
        async with open_test_client(handler(echo), "/") as client:
            client.send("hello")
            await client.expect("hello")


async def test_an_endless_sender_waits_for_the_reader(
    autojump_clock: MockClock,
) -> None:
    sent = 0

    async def talk(server: WebSocket) -> None:
        nonlocal sent
        while sent < 1000:
            server.send(b"x" * 10_000)
            await server.drain()
            sent += 1

    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept()
        request.nursery.start_soon(talk, server)
        return Response(None, status=101, web_socket=client)

    async with open_test_client(fetch, "/", receive_buffer_bytes=2**16) as client:
        await trio.sleep(10)
        assert 1 < sent < 100
        before = sent
        for _ in range(10):
            await client.receive()
        await trio.sleep(1)
        assert sent > before


@over_both
async def test_a_message_beyond_the_limit_is_answered_with_1009(
    over: Transport,
) -> None:
    fetch = handler(echo)
    async with open_test_client(fetch, "/", over=over, max_message_bytes=100) as client:
        client.send("x" * 101)
        await client.expect_close(1009)


async def test_the_keepalive_ends_a_silent_connection(
    autojump_clock: MockClock,
) -> None:
    options: Any = {"ping_interval": 1.0, "ping_timeout": 2.0}
    async with open_test_client(handler(echo), "/", **options) as client:
        await trio.sleep(1000)
        client.send("still there?")
        await client.expect("still there?")
        assert client.latency is not None


async def test_in_half_open_the_handler_may_send_after_the_close() -> None:
    def use(server: WebSocket) -> None:
        @server.on("close")
        def last_words(event: object) -> None:
            server.send("last words")
            server.close(3000, "now")

    async with open_test_client(handler(use, allow_half_open=True), "/") as client:
        client.close(3000)
        await client.expect("last words")
        await client.expect_close(3000, "now")


async def test_several_clients_share_the_handler_and_have_a_record_each() -> None:
    room: list[WebSocket] = []

    def join(server: WebSocket) -> None:
        room.append(server)
        server.on("message")(lambda event: broadcast(room, event.data))

    fetch = handler(join)
    async with (
        open_test_client(fetch, "/", names=("Ada", "her half")) as ada,
        open_test_client(fetch, "/", names=("Bob", "his half")) as bob,
    ):
        ada.send("hello")
        await bob.expect("hello")
        await ada.expect("hello")
    assert ("send", "hello") in messages_of(ada.record, "Ada")
    assert ("send", "hello") not in messages_of(bob.record, "Bob")
    assert ("send", "hello") in messages_of(bob.record, "his half")


@over_both
async def test_a_durable_object_can_be_the_handler(over: Transport) -> None:
    class Shouter(DurableObject):
        async def fetch(self, _request: Request) -> Response:
            client, server = WebSocketPair()
            self.ctx.accept_web_socket(server)
            return Response(None, status=101, web_socket=client)

        def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
            assert isinstance(message, str)
            ws.send(message.upper())

    async with DurableObjectNamespace(Shouter) as shouters:
        fetch = shouters.get_by_name("one").fetch
        async with open_test_client(fetch, "/", over=over) as client:
            client.send("hello")
            await client.expect("HELLO")
        assert ("send", "HELLO") in messages_of(client.record, "server")


# -- failures ---------------------


@over_both
async def test_a_refusal_is_a_handshake_error(over: Transport) -> None:
    async def refuse(request: Request) -> Response:
        return Response("Who are you?", status=401)

    with pytest.raises(HandshakeError) as caught:
        async with open_test_client(refuse, "/", over=over):
            pytest.fail("it was not refused")
    assert (caught.value.status, caught.value.body) == (401, b"Who are you?")
    assert not hasattr(caught.value, "__notes__")


async def test_a_handler_that_does_not_respond_times_out(
    autojump_clock: MockClock,
) -> None:
    async def sleep(request: Request) -> Response:
        await trio.sleep_forever()
        raise AssertionError

    with pytest.raises(HandshakeError, match="within 3 s"):
        async with open_test_client(sleep, "/", within=3):
            pytest.fail("it was not answered")
    assert trio.current_time() < 10


@over_both
async def test_the_error_shows_where_a_handler_waits_instead_of_returning(
    over: Transport,
) -> None:
    async def converse(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept(pull=True)
        await server.receive()
        return Response(None, status=101, web_socket=client)

    where = (
        r"within 0\.1 s: .*: fetch has not returned yet, and waits, in converse, "
        r"test_client\.py:\d+\. The client is connected only when fetch has returned"
    )
    with pytest.raises(HandshakeError, match=where):
        async with open_test_client(converse, "/", within=0.1, over=over):
            pytest.fail("it was not answered")
    async with open_test_client(converse, over=over) as client:
        with pytest.raises(HandshakeError, match=where):
            await client.open_websocket("/", within=0.1)


async def test_the_error_for_a_silent_server_names_no_handler(
    autojump_clock: MockClock,
) -> None:
    async def never(request: Request) -> Response:
        await trio.sleep_forever()
        raise AssertionError

    async with open_test_client(never) as client:
        with pytest.raises(HandshakeError, match=r"within 0 s: [^:]*$"):
            await client.open_websocket("/", within=0)


async def test_real_sockets_are_refused_in_virtual_time(
    autojump_clock: MockClock,
) -> None:
    with pytest.raises(ValueError, match=r"over='loopback' .* needs real time"):
        async with open_test_client(handler(echo), "/", over="loopback"):
            pytest.fail("it was taken")
    autojump_clock.autojump_threshold = math.inf
    autojump_clock.rate = 1
    async with open_test_client(handler(echo), over="loopback"):
        pass


async def test_the_end_of_the_connection_is_not_a_failure_of_the_handler(
    logged: Logged,
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()

        async def talk() -> None:
            while True:
                await server.receive()

        request.nursery.start_soon(talk)
        return Response(None, status=101, web_socket=client)

    async with open_test_client(fetch, "/"):
        pass
    assert logged.records == []


@over_both
async def test_an_error_of_a_handler_is_raised_by_the_block(
    over: Transport, logged: Logged
) -> None:
    async def broken(request: Request) -> Response:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        async with open_test_client(broken, "/", over=over):
            pytest.fail("it was not answered")
    assert "handling GET / failed" in logged.take()


async def test_an_error_of_a_listener_is_raised_with_the_conversation(
    logged: Logged,
) -> None:
    async def talk() -> None:
        async with open_test_client(handler(failing), "/") as client:
            client.send("hello")
            await client.expect_close(1011)

    with pytest.raises(KeyError, match="a bug") as caught:
        await talk()
    assert "hello" in caught.value.__notes__[0]
    assert "handling GET / failed" in logged.take()


async def test_errors_of_the_block_and_the_handler_are_raised_together(
    logged: Logged,
) -> None:
    with pytest.RaisesGroup(ConversationError, KeyError) as caught:
        async with open_test_client(handler(failing), "/") as client:
            client.send("hello")
            await client.expect("hello")
    assert not hasattr(caught.value, "__notes__")  # The first one has it.
    logged.take()


async def test_an_error_of_a_handler_task_at_the_end_is_raised(
    logged: Logged,
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept()

        async def clean_up() -> None:
            await server.wait_closed()
            raise KeyError("too late")

        request.nursery.start_soon(clean_up)
        return Response(None, status=101, web_socket=client)

    with pytest.raises(KeyError, match="too late"):
        async with open_test_client(fetch, "/"):
            pass
    logged.take()


async def test_several_failures_of_the_handler_stay_together(
    logged: Logged,
) -> None:
    def use(server: WebSocket) -> None:
        failing(server)
        failing(server)

    with pytest.RaisesGroup(KeyError, KeyError):
        async with open_test_client(handler(use), "/") as client:
            client.send("hello")
            await client.expect_close(1011)
    logged.take()


async def test_an_error_of_the_block_closes_the_handler_with_1011_and_gets_a_note() -> (
    None
):
    records: list[Record] = []

    async def talk() -> None:
        async with open_test_client(handler(echo), "/") as client:
            records.append(client.record)
            client.send("hello")
            await client.expect("hello")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        await talk()
    assert "hello" in caught.value.__notes__[0]
    assert ("closed", 1011) in messages_of(records[0], "server")


async def test_a_handler_that_never_closes_does_not_hang_the_test(
    autojump_clock: MockClock,
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()

        @server.on("close")
        async def stay(event: object) -> None:
            await trio.sleep_forever()

        server.accept(allow_half_open=True)
        request.nursery.start_soon(trio.sleep_forever)
        return Response(None, status=101, web_socket=client)

    async with open_test_client(fetch, "/", close_grace=2):
        began = trio.current_time()
    assert trio.current_time() - began < 10


async def test_a_cancelled_client_leaves_nothing_behind(
    autojump_clock: MockClock,
) -> None:
    with trio.move_on_after(5) as patience:
        async with open_test_client(handler(echo), "/") as client:
            await client.receive()
    assert patience.cancelled_caught
    assert messages_of(client.record, "client")[1:] == [
        ("closed", 1006),
        ("close", 1001),
    ]
    assert ("closed", 1001) in messages_of(client.record, "server")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"path": "chat"}, "must begin with a slash"),
        ({"path": "ws://localhost/chat"}, "must begin with a slash"),
        ({"over": "tcp"}, "'memory' or 'loopback', not 'tcp'"),
        ({"within": -1}, "within must be 0 or more"),
        ({"protocols": "a b"}, "subprotocol"),
        ({"ping_timeout": -1}, "ping_timeout must be 0 or more"),
    ],
)
async def test_a_wrong_argument_is_refused(
    arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        async with open_test_client(handler(echo), **{"path": "/", **arguments}):
            pytest.fail("it was taken")


async def test_the_error_for_a_misspelled_option_has_the_function_and_the_right_name(
    autojump_clock: MockClock,
) -> None:
    def call(function: Any, *arguments: Any, **options: Any) -> Any:
        return function(*arguments, **options)

    app = handler(echo)
    with pytest.raises(TypeError, match=r"^open_test_client\(\) .* 'protocols'\?$"):
        call(open_test_client, app, "/", subprotocols=["chat"])
    with pytest.raises(TypeError, match=r"^open_test_client\(\) .* 'colour'$"):
        call(open_test_client, app, colour="red")
    async with open_test_client(app) as client:
        with pytest.raises(TypeError, match=r"^get\(\) .* 'timeout'.* 'within'\?$"):
            await call(client.get, "/", timeout=3)
        with pytest.raises(TypeError, match=r"^post\(\) .* 'data'.* 'body'\?$"):
            await call(client.post, "/", data=b"")
        with pytest.raises(TypeError, match=r"^open_websocket\(\) .* 'within'\?$"):
            await call(client.open_websocket, "/", timeout=3)
    for function in (replay, replay_file):
        with pytest.raises(
            TypeError, match=rf"^{function.__name__}\(\) .*'headers'\?$"
        ):
            await call(function, "no record", app, header={})


async def test_the_client_is_a_recorded_websocket() -> None:
    async with open_test_client(handler(echo), "/") as client:
        assert isinstance(client, RecordedWebSocket)
        with pytest.raises(ConversationError, match=r"within 0\.01 s"):
            await client.expect("anything", within=0.01)


# -- the network in memory ---------------------


async def test_streams_in_memory_pass_the_checks_of_trio(
    autojump_clock: MockClock,
) -> None:
    async def make() -> Any:
        return bounded_stream_pair()

    async def make_clogged() -> Any:
        pair = bounded_stream_pair()
        for stream in pair:
            with trio.move_on_after(1):
                await stream.send_all(bytes(2**17))
        return pair

    await check_two_way_stream(make, make_clogged)
    await check_half_closeable_stream(make, None)


async def test_a_listener_without_a_socket_has_no_address() -> None:
    class Silence(trio.abc.Listener[trio.abc.Stream]):
        async def accept(self) -> trio.abc.Stream:
            await trio.sleep_forever()
            raise AssertionError

        async def aclose(self) -> None:
            pass

    async with trio.open_nursery() as nursery:
        run = partial(serve, handler(), listeners=[Silence()])
        server = await nursery.start(run)
        assert server.addresses == ()
        with pytest.raises(InvalidStateError, match=r"no port: .* not sockets"):
            _ = server.port
        nursery.cancel_scope.cancel()

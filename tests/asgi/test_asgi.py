"""`ASGIApp` with WebSockets and lifespans, on a scripted server, in virtual time."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from asgi_server import CONNECT, HTTP, WEBSOCKET, ASGIServer, Event, disconnect
from network import Logged
from pairs import Received, bounded, collect_events
from trio.testing import MockClock

from trio_wspair import (
    CloseEvent,
    ConnectionClosedError,
    ErrorEvent,
    HandshakeError,
    InvalidStateError,
    MessageEvent,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
)
from trio_wspair.asgi import ASGIApp
from trio_wspair.testing import open_asgi_websocket
from trio_wspair.transports import Close
from trio_wspair.transports._asgi import ASGIConnection

Fetch = Callable[[Request], Awaitable[Response]]


class Opened:
    """A handler that returns a WebSocket, and gives the other half to the test."""

    def __init__(self, *, allow_half_open: bool = False, **headers: str) -> None:
        self.allow_half_open = allow_half_open
        self.headers = {name.replace("_", "-"): headers[name] for name in headers}
        self.requests: list[Request] = []
        self.halves: list[WebSocket] = []
        self.heard: list[Received] = []

    async def fetch(self, request: Request) -> Response:
        self.requests.append(request)
        client, server = WebSocketPair()
        self.halves.append(server)
        self.take(server)
        return Response(None, status=101, web_socket=client, headers=self.headers)

    def take(self, server: WebSocket) -> None:
        self.heard = collect_events(server)
        server.accept(allow_half_open=self.allow_half_open)

    @property
    def half(self) -> WebSocket:
        return self.halves[-1]


async def echo(request: Request) -> Response:
    """Echo every message."""
    client, server = WebSocketPair()

    @server.on("message")
    def echo(event: MessageEvent) -> None:
        server.send(event.data)

    server.accept()
    return Response(None, status=101, web_socket=client)


def answering(response: Response) -> Fetch:
    """Return a handler with this response."""

    async def fetch(request: Request) -> Response:
        return response

    return fetch


@asynccontextmanager
async def running(
    fetch: Fetch, **options: Any
) -> AsyncGenerator[tuple[ASGIServer, trio.CancelScope], None]:
    """Serve one WebSocket; the scope is around the application, as in a server."""
    server = ASGIServer(WEBSOCKET, CONNECT)
    scope = trio.CancelScope()

    async def run() -> None:
        with scope:
            await server.run(ASGIApp(fetch, **options))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        yield server, scope


# -- opening --------------------------------------------------------------------------


@bounded
async def test_the_handler_gets_a_request_that_wants_a_websocket(
    autojump_clock: MockClock,
) -> None:
    opened = Opened()
    headers = {"Origin": "https://example.org", "Host": "example.org:8000"}
    app = ASGIApp(opened.fetch)
    async with open_asgi_websocket(app, "/a%20b?room=1", headers=headers):
        (request,) = opened.requests
    assert request.method == "GET"
    assert request.url == "http://example.org:8000/a%20b?room=1"
    assert request.path == "/a b"
    assert request.headers["upgrade"] == "websocket"
    assert request.headers["origin"] == "https://example.org"
    assert request.client == "127.0.0.1"
    assert await request.bytes() == b""


@bounded
async def test_a_websocket_over_http_2_is_the_same_to_the_handler(
    autojump_clock: MockClock,
) -> None:
    opened = Opened()
    headers = [(b"host", b"test")]  # HTTP/2 has no Upgrade (RFC 8441, section 5).
    server = ASGIServer(
        WEBSOCKET, CONNECT, disconnect(1000), headers=headers, scheme="wss"
    )
    await server.run(ASGIApp(opened.fetch))
    (request,) = opened.requests
    assert request.method == "GET"
    assert request.headers["upgrade"] == "websocket"
    assert request.wants_websocket
    assert request.url == "https://test/"


@bounded
async def test_a_warning_is_logged_once_if_no_offered_subprotocol_is_chosen(
    autojump_clock: MockClock, logged: Logged
) -> None:
    app = ASGIApp(Opened().fetch)
    for _ in range(3):
        server = ASGIServer(
            WEBSOCKET, CONNECT, disconnect(1000), subprotocols=["a", "b"]
        )
        await server.run(app)
    record = logged.take()
    assert "GET /: the client offers subprotocols (2)" in record
    assert "browsers fail such a connection" in record


@bounded
async def test_the_subprotocol_that_the_handler_chooses_is_accepted(
    autojump_clock: MockClock,
) -> None:
    opened = Opened(Sec_WebSocket_Protocol="b")
    app = ASGIApp(opened.fetch)
    async with open_asgi_websocket(app, protocols=["a", "b"]) as ws:
        assert ws.protocol == "b"
        assert opened.half.protocol == "b"


@bounded
async def test_a_subprotocol_that_was_not_offered_is_a_500(
    autojump_clock: MockClock, logged: Logged
) -> None:
    opened = Opened(Sec_WebSocket_Protocol="c")
    with pytest.raises(HandshakeError) as caught:
        async with open_asgi_websocket(ASGIApp(opened.fetch), protocols="a"):
            pass
    assert caught.value.status == 500
    assert "'c', which the client does not offer" in logged.take()


@bounded
async def test_headers_of_a_101_are_accepted_with_it(autojump_clock: MockClock) -> None:
    opened = Opened(Set_Cookie="a=1", Sec_WebSocket_Protocol="b")
    server = ASGIServer(WEBSOCKET, CONNECT, disconnect(1000), subprotocols=["a", "b"])
    await server.run(ASGIApp(opened.fetch))
    assert server.sent == [
        {
            "type": "websocket.accept",
            "subprotocol": "b",
            "headers": [(b"set-cookie", b"a=1")],
        }
    ]


@bounded
async def test_a_client_that_has_already_gone_is_not_handled(
    autojump_clock: MockClock,
) -> None:
    opened = Opened()
    server = await ASGIServer(WEBSOCKET, disconnect(1006)).run(ASGIApp(opened.fetch))
    assert opened.requests == []
    assert server.sent == []


@bounded
async def test_a_client_that_leaves_before_it_is_accepted_gives_1006(
    autojump_clock: MockClock,
) -> None:
    opened = Opened()
    server = ASGIServer(WEBSOCKET, CONNECT, disconnect(1006))
    server.error = OSError("gone")
    await server.run(ASGIApp(opened.fetch))
    assert isinstance(opened.heard[-1], CloseEvent)
    assert opened.heard[-1].code == 1006


# -- refusing -------------------------------------------------------------------------


async def pieces() -> AsyncGenerator[str | bytes, None]:
    yield "in "
    yield b"pieces"


@bounded
@pytest.mark.parametrize(
    ("body", "expected"), [("go away", b"go away"), (None, b""), (pieces, b"in pieces")]
)
async def test_a_refusal_has_status_headers_and_body(
    autojump_clock: MockClock, body: Any, expected: bytes
) -> None:
    sent = body() if callable(body) else body
    response = Response(sent, status=401, headers={"WWW-Authenticate": "Basic"})
    with pytest.raises(HandshakeError) as caught:
        async with open_asgi_websocket(ASGIApp(answering(response))):
            pass
    assert caught.value.status == 401
    assert ("www-authenticate", "Basic") in caught.value.headers
    assert caught.value.body == expected


@bounded
@pytest.mark.parametrize("extensions", [{}, None])
async def test_without_the_response_extension_a_refusal_is_403(
    autojump_clock: MockClock, extensions: Event | None
) -> None:
    server = ASGIServer(WEBSOCKET, CONNECT, extensions=extensions)
    await server.run(ASGIApp(answering(Response("go away", status=401))))
    assert server.sent == [{"type": "websocket.close"}]


@bounded
async def test_a_scope_without_extensions_has_none(
    autojump_clock: MockClock,
) -> None:
    server = ASGIServer(WEBSOCKET, CONNECT)
    del server.scope["extensions"], server.scope["subprotocols"]
    await server.run(ASGIApp(answering(Response("go away", status=401))))
    assert server.sent == [{"type": "websocket.close"}]


@bounded
async def test_g7_a_handler_that_raises_is_a_500_and_logged(
    autojump_clock: MockClock, logged: Logged
) -> None:
    async def fetch(request: Request) -> Response:
        msg = "secret"
        raise ZeroDivisionError(msg)

    with pytest.raises(HandshakeError) as caught:
        async with open_asgi_websocket(ASGIApp(fetch)):
            pass
    assert caught.value.status == 500
    assert b"secret" not in caught.value.body
    assert "ZeroDivisionError: secret" in logged.take()


@bounded
async def test_a_streamed_refusal_ends_when_the_client_leaves(
    autojump_clock: MockClock,
) -> None:
    async def forever() -> AsyncGenerator[str, None]:
        yield "first"
        await trio.sleep_forever()

    refusal = answering(Response(forever(), status=403))
    async with running(refusal) as (server, _):
        assert server.types == ["start", "body"]
        server.put(disconnect(1006))


# -- messages -------------------------------------------------------------------------


@bounded
async def test_messages_pass_both_ways(autojump_clock: MockClock) -> None:
    async with open_asgi_websocket(ASGIApp(echo)) as ws:
        messages: list[str | bytes] = [
            "text",
            b"binary",
            "",
            b"",
            "größer",
            b"\xff\x00",
        ]
        for message in messages:
            ws.send(message)
        assert [await ws.receive() for _ in messages] == messages


@bounded
async def test_g1_messages_and_close_keep_their_order(
    autojump_clock: MockClock,
) -> None:
    opened = Opened()
    async with open_asgi_websocket(ASGIApp(opened.fetch)) as ws:
        for number in range(1000):
            opened.half.send(str(number))
            ws.send(str(number))
        opened.half.close(1000)
        assert [message async for message in ws] == [str(n) for n in range(1000)]
    *messages, end = opened.heard
    assert messages == [str(number) for number in range(1000)]
    assert isinstance(end, CloseEvent)


@bounded
@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"text": "a", "bytes": None}, "a"),
        ({"text": None, "bytes": b"a"}, b"a"),
        ({"text": ""}, ""),
        ({"bytes": bytearray(b"a")}, b"a"),
    ],
)
async def test_messages_may_have_text_and_bytes_keys_in_any_form(
    autojump_clock: MockClock, event: Event, message: str | bytes
) -> None:
    opened = Opened()
    sent = {"type": "websocket.receive", **event}
    await ASGIServer(WEBSOCKET, CONNECT, sent, disconnect(1000)).run(
        ASGIApp(opened.fetch)
    )
    assert opened.heard[0] == message
    assert type(opened.heard[0]) is type(message)


@bounded
@pytest.mark.parametrize("event", [{}, {"text": b"a"}, {"bytes": "a"}, {"bytes": None}])
async def test_an_invalid_message_event_is_an_error_of_the_server(
    autojump_clock: MockClock, event: Event
) -> None:
    opened = Opened()
    sent = {"type": "websocket.receive", **event}
    server = ASGIServer(WEBSOCKET, CONNECT, sent)
    with pytest.RaisesGroup(
        pytest.RaisesExc(TypeError, match="a message has text"), flatten_subgroups=True
    ):
        await server.run(ASGIApp(opened.fetch))
    assert isinstance(opened.heard[-1], CloseEvent)
    assert opened.heard[-1].code == 1006


@bounded
async def test_a_message_event_is_sent_with_one_key_only(
    autojump_clock: MockClock,
) -> None:
    opened = Opened()
    async with running(opened.fetch) as (server, _):
        opened.half.send("a")
        opened.half.send(b"b")
        await trio.sleep(1)
        server.put(disconnect(1000))
    assert server.sent[1:] == [
        {"type": "websocket.send", "text": "a"},
        {"type": "websocket.send", "bytes": b"b"},
    ]


@bounded
async def test_g9_a_slow_handler_stops_the_reading(autojump_clock: MockClock) -> None:
    pulled: list[WebSocket] = []

    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept(pull=True)
        pulled.append(server)
        return Response(None, status=101, web_socket=client)

    sent = {"type": "websocket.receive", "bytes": bytes(1000)}
    async with running(fetch, receive_buffer_bytes=5000) as (server, _):
        server.put(*[sent] * 100, disconnect(1000))
        await trio.sleep(1)
        assert 5 <= server.received <= 10
        assert [message async for message in pulled[0]] == [bytes(1000)] * 100


@bounded
async def test_tasks_of_the_handler_live_as_long_as_the_websocket(
    autojump_clock: MockClock,
) -> None:
    ended: list[float] = []

    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept(pull=True)

        async def tick() -> None:
            try:
                while True:
                    await trio.sleep(1)
                    server.send("tick")
            finally:
                ended.append(trio.current_time())

        request.nursery.start_soon(tick)
        return Response(None, status=101, web_socket=client)

    async with open_asgi_websocket(ASGIApp(fetch)) as ws:
        assert [await ws.receive(), await ws.receive()] == ["tick", "tick"]
        assert not ended
        await trio.sleep(0.5)
    assert ended == [2.5]


@bounded
async def test_ping_is_not_available(autojump_clock: MockClock) -> None:
    opened = Opened()
    async with open_asgi_websocket(ASGIApp(opened.fetch)):
        with pytest.raises(InvalidStateError, match="this half has none"):
            await opened.half.ping()


# -- closing --------------------------------------------------------------------------


@bounded
async def test_the_handler_closes_with_code_and_reason(
    autojump_clock: MockClock,
) -> None:
    opened = Opened()
    async with open_asgi_websocket(ASGIApp(opened.fetch)) as ws:
        opened.half.send("last")
        opened.half.close(4001, "größer")
        assert await ws.receive() == "last"
        event = await ws.wait_closed()
        assert (event.code, event.reason, event.was_clean) == (4001, "größer", True)
        closed = await opened.half.wait_closed()
        assert (closed.code, closed.was_clean) == (4001, True)


@bounded
async def test_the_client_closes_with_code_and_reason(
    autojump_clock: MockClock,
) -> None:
    opened = Opened()
    async with open_asgi_websocket(ASGIApp(opened.fetch)) as ws:
        ws.send("last")
        ws.close(3000, "bye")
        event = await opened.half.wait_closed()
        assert opened.heard[0] == "last"
        assert (event.code, event.reason, event.was_clean) == (3000, "bye", True)


@bounded
@pytest.mark.parametrize(
    "event",
    [
        disconnect(1005),
        {"type": "websocket.disconnect"},
        {"type": "websocket.disconnect", "code": None, "reason": None},
    ],
)
async def test_a_close_without_a_code_is_1005(
    autojump_clock: MockClock, event: Event
) -> None:
    opened = Opened()
    await ASGIServer(WEBSOCKET, CONNECT, event).run(ASGIApp(opened.fetch))
    (closed,) = opened.heard
    assert isinstance(closed, CloseEvent)
    assert (closed.code, closed.reason, closed.was_clean) == (1005, "", True)


@bounded
async def test_a_close_of_the_handler_without_a_code_is_sent_as_1000(
    autojump_clock: MockClock,
) -> None:
    opened = Opened()
    async with open_asgi_websocket(ASGIApp(opened.fetch)) as ws:
        opened.half.close()
        assert (await ws.wait_closed()).code == 1000


@bounded
@pytest.mark.parametrize("hangs_up", [False, True])
async def test_g2_a_client_that_vanishes_gives_one_close_event_with_1006(
    autojump_clock: MockClock, *, hangs_up: bool
) -> None:
    opened = Opened()
    async with running(opened.fetch) as (server, _):
        if hangs_up:
            server.hang_up()
        else:
            server.put(disconnect(1006, reason="keepalive ping timeout"))
    (closed,) = opened.heard
    assert isinstance(closed, CloseEvent)
    assert (closed.code, closed.was_clean) == (1006, False)


@bounded
async def test_a_server_may_raise_when_the_client_has_gone(
    autojump_clock: MockClock,
) -> None:
    opened = Opened()
    async with running(opened.fetch) as (server, _):
        server.error = OSError("gone")
        opened.half.send("into the void")
        await trio.sleep(1)
        server.put(disconnect(1006))
    (closed,) = opened.heard
    assert isinstance(closed, CloseEvent)
    assert closed.code == 1006


@bounded
async def test_the_close_of_the_client_is_answered_by_the_server(
    autojump_clock: MockClock,
) -> None:
    opened = Opened()
    async with running(opened.fetch) as (server, _):
        opened.half.send("sent")
        await trio.sleep(1)
        server.put(disconnect(3000))
    assert server.types == ["accept", "send"]
    assert trio.current_time() == 1.0, "nothing is waited for"


@bounded
async def test_half_open_ends_with_the_close_of_the_client(
    autojump_clock: MockClock,
) -> None:
    # The server answers at once, so that later messages of the half can't arrive.
    opened = Opened(allow_half_open=True)
    async with running(opened.fetch) as (server, _):
        server.put(disconnect(3000, reason="bye"))
        await trio.sleep(1)
        assert isinstance(opened.heard[-1], CloseEvent)
        with pytest.raises(ConnectionClosedError) as caught:
            opened.half.send("more")
        assert caught.value.code == 3000
        opened.half.close(1000)


@bounded
async def test_an_unanswered_close_is_1006_after_close_grace(
    autojump_clock: MockClock,
) -> None:
    opened = Opened()
    async with running(opened.fetch, close_grace=3.0) as (server, _):
        opened.half.close(1000)
    assert server.sent[-1] == {"type": "websocket.close", "code": 1000, "reason": ""}
    error, closed = opened.heard
    assert isinstance(error, ErrorEvent)
    assert isinstance(closed, CloseEvent)
    assert closed.code == 1006
    assert 3.0 <= trio.current_time() < 5.0


@bounded
@pytest.mark.parametrize("last", [[], [disconnect(1000)], [disconnect(1006)]])
async def test_events_that_are_queued_in_the_server_are_read_before_the_end(
    autojump_clock: MockClock, last: list[Event]
) -> None:
    # Otherwise Hypercorn's reader waits for ever for room in its queue.
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept(pull=True)
        server.close(1008)
        return Response(None, status=101, web_socket=client)

    sent = {"type": "websocket.receive", "bytes": bytes(1000)}
    async with running(fetch, receive_buffer_bytes=5000) as (server, _):
        server.put(*[sent] * 100, *last)
        await trio.sleep(1)
        assert server.received < 20
    assert server.received == 101 + len(last)


@bounded
async def test_g7_a_listener_that_raises_ends_its_connection_with_1011(
    autojump_clock: MockClock, logged: Logged
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()

        @server.on("message")
        def fail(event: MessageEvent) -> None:
            raise ZeroDivisionError

        server.accept()
        return Response(None, status=101, web_socket=client)

    async with open_asgi_websocket(ASGIApp(fetch)) as ws:
        ws.send("x")
        assert (await ws.wait_closed()).code == 1011
    assert "ZeroDivisionError" in logged.take()


@bounded
async def test_a_half_that_is_not_accepted_is_warned_about(
    autojump_clock: MockClock, logged: Logged
) -> None:
    async def fetch(request: Request) -> Response:
        client, _server = WebSocketPair()
        return Response(None, status=101, web_socket=client)

    async with open_asgi_websocket(ASGIApp(fetch)) as ws:
        ws.close(1000)
    assert "call server.accept()" in logged.take()


@bounded
async def test_a_connection_sends_one_close(autojump_clock: MockClock) -> None:
    server = ASGIServer(WEBSOCKET)
    connection = ASGIConnection(server.receive, server.send)
    await connection.send(["a", Close(4000, "bye"), "too late"])
    await connection.aclose(1000, "")
    assert server.types == ["send", "close"]
    server.put(disconnect(4000))
    assert await connection.receive() == [Close(4000)]
    with pytest.raises(ConnectionClosedError):
        await connection.receive()
    connection.abort()


@bounded
async def test_a_connection_sends_no_message_after_the_close_of_the_client(
    autojump_clock: MockClock,
) -> None:
    server = ASGIServer(WEBSOCKET, disconnect(4000))
    connection = ASGIConnection(server.receive, server.send)
    assert await connection.receive() == [Close(4000)]
    with pytest.raises(ConnectionClosedError):
        await connection.send(["too late", Close(4000)])
    await connection.send([Close(4000)])
    assert server.sent == []


# -- the server stops -----------------------------------------------------------------


@bounded
async def test_g2_when_the_server_stops_the_client_gets_1001(
    autojump_clock: MockClock,
) -> None:
    opened = Opened()
    async with running(opened.fetch) as (server, scope):
        opened.half.send("before")
        scope.cancel()
    assert server.types == ["accept", "send", "close"]
    assert server.sent[-1]["code"] == 1001
    assert server.sent[-1]["reason"] == "the server stops"
    (closed,) = opened.heard
    assert isinstance(closed, CloseEvent)
    assert (closed.code, closed.was_clean) == (1006, False)
    assert closed.reason == "the server has stopped"
    assert scope.cancelled_caught
    assert trio.current_time() == 0.0, "a stopped server reads no answer"


@bounded
async def test_a_stop_ends_the_wait_for_a_response(autojump_clock: MockClock) -> None:
    opened = Opened()
    async with running(opened.fetch) as (server, scope):
        opened.half.close(4000)
        await trio.sleep(1)
        scope.cancel()
    assert server.types == ["accept", "close"]
    assert trio.current_time() == 1.0
    assert isinstance(opened.heard[-1], CloseEvent)


@bounded
async def test_a_stop_is_noticed_when_reading_goes_on(
    autojump_clock: MockClock,
) -> None:
    pulled: list[WebSocket] = []

    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept(pull=True)
        pulled.append(server)
        return Response(None, status=101, web_socket=client)

    async with running(fetch, receive_buffer_bytes=1) as (server, scope):
        server.put({"type": "websocket.receive", "text": "more than there is room for"})
        await trio.sleep(1)
        scope.cancel()
        await trio.sleep(1)
        await pulled[0].receive()
        with pytest.raises(ConnectionClosedError):
            await pulled[0].receive()
    assert server.types == ["accept", "close"]
    assert trio.current_time() == 2.0


@bounded
async def test_a_stop_of_a_server_that_reads_nothing_takes_close_grace_once(
    autojump_clock: MockClock,
) -> None:
    opened = Opened()
    async with running(opened.fetch, close_grace=2.0) as (server, scope):
        server.send_allowed = trio.Event()  # Hypercorn does so with HTTP/2.
        scope.cancel()
    assert server.types == ["accept", "close"]
    assert trio.current_time() == 2.0
    assert isinstance(opened.heard[-1], CloseEvent)


@bounded
async def test_a_stop_while_the_websocket_is_opened_closes_it(
    autojump_clock: MockClock,
) -> None:
    opened = Opened()
    server = ASGIServer(WEBSOCKET, CONNECT)
    server.send_allowed = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, ASGIApp(opened.fetch))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        server.send_allowed.set()
    assert server.types == ["accept", "close"]


@pytest.mark.parametrize("stopped", [True, False])
@bounded
async def test_a_client_that_never_reads_the_101_does_not_block_a_stop(
    autojump_clock: MockClock, stopped: bool
) -> None:
    """Over HTTP/2, a client may stop reading its connection."""
    opened = Opened()
    server = ASGIServer(WEBSOCKET, CONNECT)
    server.send_allowed = trio.Event()
    app = ASGIApp(opened.fetch, close_grace=2.0, body_timeout=7.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, app)
        await trio.testing.wait_all_tasks_blocked()
        if stopped:
            nursery.cancel_scope.cancel()
    assert server.types == ["accept"]
    assert trio.current_time() == (2.0 if stopped else 7.0)
    end = opened.heard[-1]
    assert isinstance(end, CloseEvent)
    assert end.code == 1006


@bounded
async def test_the_handler_has_close_grace_to_finish_when_the_server_stops(
    autojump_clock: MockClock,
) -> None:
    ended: list[float] = []

    class Slow(Opened):
        def take(self, server: WebSocket) -> None:
            @server.on("close")
            async def closed(event: CloseEvent) -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    ended.append(trio.current_time())

            server.accept()

    opened = Slow()
    async with running(opened.fetch, close_grace=2.0) as (_, scope):
        scope.cancel()
    # Two seconds until it is cancelled, and one more as `close_grace` of the pair.
    assert ended == [3.0]


@bounded
async def test_a_handler_is_cancelled_with_the_server(
    autojump_clock: MockClock,
) -> None:
    async def fetch(request: Request) -> Response:
        await trio.sleep_forever()
        raise AssertionError

    async with running(fetch) as (server, scope):
        scope.cancel()
    assert server.sent == []
    assert scope.cancelled_caught


# -- the life of the server -----------------------------------------------------------

LIFESPAN: Event = {"type": "lifespan", "asgi": {"version": "3.0"}}
START: Event = {"type": "lifespan.startup"}
SHUTDOWN: Event = {"type": "lifespan.shutdown"}


@bounded
async def test_the_server_starts_and_stops(autojump_clock: MockClock) -> None:
    server = await ASGIServer(LIFESPAN, START, SHUTDOWN).run(ASGIApp(echo))
    assert server.sent == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    ]


@bounded
async def test_scopes_of_other_kinds_are_an_error(autojump_clock: MockClock) -> None:
    with pytest.raises(ValueError, match="not 'smtp'"):
        await ASGIServer({"type": "smtp"}).run(ASGIApp(echo))


def in_asyncio(scope: Event, *events: Event) -> list[Event]:
    """Call the application as a server on asyncio does."""
    waiting, sent = list(events), list[Event]()

    async def receive() -> Event:
        return waiting.pop(0)

    async def send(event: Any) -> None:
        sent.append(event)

    asyncio.run(ASGIApp(echo)(scope, receive, send))
    return sent


def test_a_server_on_asyncio_does_not_start() -> None:
    (answer,) = in_asyncio(LIFESPAN, START)
    assert answer["type"] == "lifespan.startup.failed"
    assert "hypercorn --worker-class trio" in answer["message"]
    assert "trio_wspair.serve" in answer["message"]


@pytest.mark.parametrize("scope", [HTTP, WEBSOCKET])
def test_on_asyncio_without_a_lifespan_each_request_is_an_error(scope: Event) -> None:
    with pytest.raises(InvalidStateError, match="needs a server that runs Trio"):
        in_asyncio(scope)

"""`ASGIApp` in real servers and frameworks, over real sockets."""

import asyncio
import importlib
import importlib.util
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import attrs
import hypercorn.asyncio
import hypercorn.config
import pytest
import quart
import quart_trio
import trio
from http2_client import open_http2
from network import Logged, Network
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket, WebSocketDisconnect

from trio_wspair import (
    CloseEvent,
    ConnectionClosedError,
    FetchHandler,
    HandshakeError,
    MessageEvent,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    open_websocket,
)
from trio_wspair.asgi import ASGIApp
from trio_wspair.testing import ScriptedPeer, open_asgi_websocket


@pytest.fixture(scope="module")
def engine() -> None:
    """Run each test on one engine, as the engine doesn't matter here."""


App = Callable[[Any, Any, Any], Awaitable[None]]
SERVERS = ["hypercorn"]
if importlib.util.find_spec("anycorn"):
    SERVERS.append("anycorn")


@attrs.define
class Running:
    """A running server with an application."""

    name: str
    port: int
    stop: trio.Event
    heard: list[Any] = attrs.Factory(list)
    """The messages and close events of the handler's halves."""
    requests: list[Request] = attrs.Factory(list)

    def url(self, path: str = "/") -> str:
        return f"ws://127.0.0.1:{self.port}{path}"

    async def fetch(self, request: Request) -> Response:
        """Respond as the path of the request says."""
        self.requests.append(request)
        if not request.wants_websocket:
            if request.path == "/forever":
                return Response(self.forever())
            return Response(f"{request.method} {request.path} {await request.text()}")
        if request.path == "/no":
            return Response("go away", status=401, headers={"WWW-Authenticate": "x"})
        client, server = WebSocketPair()
        if request.path == "/deaf":
            server.accept(pull=True)
            server.close(1008, "not interested")
        else:
            self.listen(server)
        protocols = request.headers.get("sec-websocket-protocol", "").split(", ")
        chosen = {"Sec-WebSocket-Protocol": protocols[-1]} if protocols[-1] else {}
        return Response(None, status=101, web_socket=client, headers=chosen)

    def listen(self, server: WebSocket) -> None:
        @server.on("message")
        def on_message(event: MessageEvent) -> None:
            self.heard.append(event.data)
            if event.data == "close":
                server.close(4001, "größer")
            else:
                server.send(event.data)

        server.add_event_listener("close", self.heard.append)
        server.accept()

    async def forever(self) -> AsyncGenerator[str, None]:
        try:
            while True:
                yield "more"
                await trio.sleep(0.01)
        finally:
            self.heard.append("ended")


async def until(happened: Callable[[], object]) -> None:
    while not happened():  # noqa: ASYNC110 - there is no event for it
        await trio.sleep(0.01)


@asynccontextmanager
async def serving(
    app: App | None = None,
    name: str = "hypercorn",
    *,
    root_path: str = "",
    **options: Any,
) -> AsyncGenerator[Running, None]:
    """Run a server with an application, by default with the handler above."""
    config = importlib.import_module(f"{name}.config").Config()
    config.bind = ["127.0.0.1:0"]
    config.graceful_timeout = 0.1
    config.errorlog = None
    config.root_path = root_path
    module = "hypercorn.trio" if name == "hypercorn" else name
    serve = importlib.import_module(module).serve
    running = Running(name, 0, trio.Event())
    served = ASGIApp(running.fetch, **options) if app is None else app
    async with trio.open_nursery() as nursery:
        (bound,) = await nursery.start(
            partial(serve, served, config, shutdown_trigger=running.stop.wait)
        )
        running.port = int(bound.rpartition(":")[2])
        yield running
        running.stop.set()


@pytest.fixture(params=SERVERS)
async def server(
    request: pytest.FixtureRequest, net: Network
) -> AsyncGenerator[Running, None]:
    """A server with the handler above."""
    async with serving(name=request.param, close_grace=2.0) as running:
        yield running


@asynccontextmanager
async def peer_of(
    server: Running, net: Network
) -> AsyncGenerator["ScriptedPeer", None]:
    """Open a bare TCP connection to the server."""
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    try:
        yield net.raw(stream, masks=True)
    finally:
        await trio.aclose_forcefully(stream)


# -- HTTP/1.1 -----------------------------------------------------------------


async def test_without_a_host_the_url_has_the_address_of_the_server(
    server: Running, net: Network
) -> None:
    async with peer_of(server, net) as peer:
        await peer.send(net.head(start="GET /a%20b?c=%2F HTTP/1.0"))
        assert (await peer.read_head()).startswith("HTTP/1.1 200 ")
    assert server.requests[0].url == f"http://127.0.0.1:{server.port}/a%20b?c=%2F"
    assert server.requests[0].path == "/a b"


@pytest.mark.parametrize("host", ["a/b", "user@a", "a?b", "[1]", "a:b"])
@pytest.mark.parametrize("upgrade", [False, True])
async def test_an_invalid_host_gets_400(
    server: Running, net: Network, host: str, *, upgrade: bool
) -> None:
    async with peer_of(server, net) as peer:
        headers = net.UPGRADE[1:] if upgrade else ()
        await peer.send(net.head(f"Host: {host}", *headers))
        assert (await peer.read_head()).startswith("HTTP/1.1 400 ")
    assert server.requests == []


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("target", ["/api/x%20y", "/x%20y"])
async def test_the_root_path_is_in_the_url_once(
    net: Network, name: str, target: str
) -> None:
    async with serving(name=name, root_path="/api") as server:
        async with open_websocket(server.url(target)) as ws:
            ws.send("hi")
            assert await ws.receive() == "hi"
        (request,) = server.requests
    assert request.url == f"http://127.0.0.1:{server.port}/api/x%20y"
    assert request.path == "/api/x y"


async def test_requests_get_responses_one_after_the_other(
    server: Running, net: Network
) -> None:
    first = net.head("Host: a", "Content-Length: 4", start="PUT /a%20b?c HTTP/1.1")
    last = net.head("Host: a", "Connection: close", start="GET /last HTTP/1.1")
    async with peer_of(server, net) as peer:
        await peer.send(first, b"body")
        head = await peer.read_head()
        assert head.startswith("HTTP/1.1 200")
        assert "content-length: 13\r\n" in head
        await peer.send(last)
        rest = await peer.read_all()
    assert rest.startswith(b"PUT /a b bodyHTTP/1.1 200")
    assert rest.endswith(b"\r\n\r\nGET /last ")
    assert server.requests[0].url == "http://a/a%20b?c"


async def test_an_unread_body_does_not_block_the_connection(
    server: Running, net: Network
) -> None:
    size = 3_000_000  # More than fits into sockets and the queue of the server.
    start = "POST / HTTP/1.1"
    async with peer_of(server, net) as peer, trio.open_nursery() as nursery:
        data = net.head("Host: a", f"Content-Length: {size}", start=start)
        nursery.start_soon(send_as_far_as_it_goes, peer, data + bytes(size))
        assert (await peer.read_head()).startswith("HTTP/1.1 413")
        await peer.read_all()
        nursery.cancel_scope.cancel()


async def send_as_far_as_it_goes(peer: "ScriptedPeer", data: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        await peer.send(data)


async def test_streaming_ends_when_the_client_leaves(
    server: Running, net: Network
) -> None:
    async with peer_of(server, net) as peer:
        await peer.send(net.head("Host: a", start="GET /forever HTTP/1.1"))
        assert "hunked" in await peer.read_head()
    await until(lambda: server.heard)
    assert server.heard == ["ended"]


# -- WebSockets over HTTP/1.1 -------------------------------------------------


async def test_messages_pass_both_ways(server: Running) -> None:
    messages: list[str | bytes] = ["größer", b"\x00\xff", "", b"", "x" * 100_000]
    async with open_websocket(server.url("/a?b"), protocols=["p", "q"]) as ws:
        assert ws.protocol == "q"
        for message in messages:
            ws.send(message)
        assert [await ws.receive() for _ in messages] == messages
    (request,) = server.requests
    assert request.url == f"http://127.0.0.1:{server.port}/a?b"
    assert request.client == "127.0.0.1"


async def test_a_refusal_has_its_status(server: Running) -> None:
    with pytest.raises(HandshakeError) as caught:
        async with open_websocket(server.url("/no")):
            pass
    assert caught.value.status == 401
    assert ("www-authenticate", "x") in caught.value.headers
    assert caught.value.body == b"go away"


async def test_the_handler_closes_with_code_and_reason(server: Running) -> None:
    async with open_websocket(server.url()) as ws:
        ws.send("close")
        event = await ws.wait_closed()
    assert (event.code, event.reason, event.was_clean) == (4001, "größer", True)
    await until(lambda: len(server.heard) == 2)
    assert server.heard[1].was_clean


async def test_the_code_of_the_client_arrives_if_the_server_passes_it_on(
    server: Running,
) -> None:
    async with open_websocket(server.url()) as ws:
        ws.close(3000, "bye")
        event = await ws.wait_closed()
    assert (event.code, event.was_clean) == (3000, True)
    await until(lambda: server.heard)
    (closed,) = server.heard
    # Hypercorn 0.18 has the same code for every end by the client.
    assert closed.code == {"hypercorn": 1006, "anycorn": 3000}[server.name]


async def test_g2_a_client_that_vanishes_gives_one_close_event_with_1006(
    server: Running, net: Network
) -> None:
    async with peer_of(server, net) as peer:
        assert (await peer.handshake()).startswith("HTTP/1.1 101")
        await peer.send(peer.text_frame("hello"))
        assert await peer.receive() == "hello"
        assert isinstance(peer.stream, trio.SocketStream)
        linger = struct.pack("ii", 1, 0)  # The connection ends with a reset.
        peer.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    await until(lambda: len(server.heard) == 2)
    message, closed = server.heard
    assert message == "hello"
    assert isinstance(closed, CloseEvent)
    assert (closed.code, closed.was_clean) == (1006, False)


async def test_when_the_server_stops_the_client_gets_1001(server: Running) -> None:
    async with open_websocket(server.url()) as ws:
        ws.send("hello")
        assert await ws.receive() == "hello"
        server.stop.set()
        event = await ws.wait_closed()
    assert (event.code, event.reason) == (1001, "the server stops")
    await until(lambda: len(server.heard) == 2)
    assert server.heard[1].code == 1006


async def test_a_client_whose_messages_are_unread_does_not_block_the_server(
    server: Running, net: Network
) -> None:
    message = bytes(50_000)
    async with peer_of(server, net) as peer, trio.open_nursery() as nursery:
        await peer.handshake(target="/deaf")
        data = peer.frame(net.BINARY, message) * 200
        nursery.start_soon(send_as_far_as_it_goes, peer, data)
        assert await peer.receive() == (1008, "not interested")
        assert await peer.receive() is None, "the server ends TCP"
        nursery.cancel_scope.cancel()


# -- HTTP/2 -------------------------------------------------------------------


async def test_http_2_requests_get_responses(server: Running) -> None:
    async with open_http2(server.port) as client:
        cookies = [("cookie", "a=1"), ("cookie", "b=2")]
        answer = await client.ask("POST", "/a%20b?c", *cookies, body=b"body")
        assert answer.status == 200
        assert answer.headers["content-length"] == "14"
        assert await answer.read_all() == b"POST /a b body"
    (request,) = server.requests
    assert request.url == "http://example.org/a%20b?c"
    assert request.headers["cookie"] == "a=1; b=2"


async def test_http_2_carries_websockets_beside_each_other(
    server: Running, net: Network
) -> None:
    async with open_http2(server.port) as client:
        peers = []
        for number in range(3):
            protocol = ("sec-websocket-protocol", "p")
            answer = await client.ask_for_websocket(f"/{number}", protocol)
            assert answer.status == 200
            assert answer.headers["sec-websocket-protocol"] == "p"
            peers.append(net.raw(answer, masks=True))
        for peer in peers:
            await peer.send(peer.text_frame("größer"), peer.frame(net.BINARY, b"\xff"))
        for peer in peers:
            assert [await peer.receive(), await peer.receive()] == ["größer", b"\xff"]
    assert [request.method for request in server.requests] == ["GET"] * 3
    assert {request.headers["upgrade"] for request in server.requests} == {"websocket"}
    assert all(request.wants_websocket for request in server.requests)


async def test_http_2_refusals_have_their_status(server: Running) -> None:
    async with open_http2(server.port) as client:
        answer = await client.ask_for_websocket("/no")
        assert answer.status == 401
        assert await answer.read_all() == b"go away"
        again = await client.ask("GET", "/")
        assert again.status == 200


async def test_http_2_handlers_close_with_code_and_reason(
    server: Running, net: Network
) -> None:
    async with open_http2(server.port) as client:
        peer = net.raw(await client.ask_for_websocket("/"), masks=True)
        await peer.send(peer.text_frame("close"))
        assert await peer.receive() == (4001, "größer")
        await peer.send(peer.close_frame(4001))
        assert await peer.receive() is None
        await until(lambda: len(server.heard) == 2)
        assert server.heard[1].was_clean
        again = await client.ask("GET", "/")
        assert again.status == 200


async def test_http_2_clients_that_reset_their_stream_give_1006(
    server: Running,
) -> None:
    async with open_http2(server.port) as client:
        answer = await client.ask_for_websocket("/")
        await answer.aclose()
        await until(lambda: server.heard)
        (closed,) = server.heard
        assert closed.code == 1006
        again = await client.ask("GET", "/")
        assert again.status == 200


# -- frameworks ---------------------------------------------------------------


async def echo_in_starlette(ws: StarletteWebSocket) -> None:
    await ws.accept(subprotocol=(ws.scope["subprotocols"] or [None])[0])
    try:
        while True:
            text = await ws.receive_text()
            if text == "close":
                await ws.close(4001, "größer")
                return
            await ws.send_text(f"Starlette: {text}")
    except WebSocketDisconnect as exc:
        ends.append((exc.code, exc.reason))


ends: list[tuple[int, str]] = []


async def refuse_in_starlette(ws: StarletteWebSocket) -> None:
    await ws.send_denial_response(PlainTextResponse("go away", status_code=401))


async def page_in_starlette(request: StarletteRequest) -> PlainTextResponse:
    return PlainTextResponse("a page of Starlette")


def in_starlette(app: App) -> App:
    return Starlette(
        routes=[
            Route("/page", page_in_starlette),
            WebSocketRoute("/ws", echo_in_starlette),
            WebSocketRoute("/refused", refuse_in_starlette),
            WebSocketRoute("/exactly", app),
            Mount("/live", app),
        ]
    )


def in_quart(app: App) -> App:
    quart_app = quart_trio.QuartTrio(__name__)
    asgi_app: Any = quart_app.asgi_app

    @quart_app.get("/page")
    async def page() -> str:
        return "a page of Quart"

    @quart_app.websocket("/ws")
    async def echo() -> None:
        while True:
            text = await quart.websocket.receive()
            if text == "close":
                await quart.websocket.close(4001, "größer")
                return
            await quart.websocket.send(f"Quart: {text!s}")

    @quart_app.websocket("/refused")
    async def refuse() -> tuple[str, int]:
        return "go away", 401

    async def dispatch(scope: Any, receive: Any, send: Any) -> None:
        mine = scope.get("path", "").startswith("/live/")
        await (app if mine else asgi_app)(scope, receive, send)

    quart_app.asgi_app = dispatch  # type: ignore[method-assign] # as its docs do
    return quart_app


@pytest.mark.parametrize("mount", [in_starlette, in_quart])
async def test_an_application_can_be_mounted_in_a_framework(
    net: Network, mount: Callable[[App], App]
) -> None:
    handler = Running("", 0, trio.Event())
    async with serving(mount(ASGIApp(handler.fetch))) as server:
        async with open_websocket(server.url("/live/chat?room=1")) as ws:
            ws.send("hello")
            assert await ws.receive() == "hello"
        async with open_websocket(server.url("/ws")) as ws:
            ws.send("hello")
            assert str(await ws.receive()).endswith(": hello")
            ws.send("close")
            assert (await ws.wait_closed()).code == 4001
        for path, expected in [("/live/a", b"GET /live/a "), ("/page", b"a page of")]:
            # Kept, as with 'Connection: close' Quart-Trio cancels Hypercorn's end.
            async with peer_of(server, net) as peer:
                await peer.send(net.head("Host: a", start=f"GET {path} HTTP/1.1"))
                answer = b""
                while expected not in answer:
                    answer += await peer.stream.receive_some()
    url = f"http://127.0.0.1:{server.port}/live/chat?room=1"
    assert handler.requests[0].url == url
    assert handler.requests[0].path == "/live/chat"


async def test_starlette_serves_an_application_at_one_path(net: Network) -> None:
    handler = Running("", 0, trio.Event())
    app = in_starlette(ASGIApp(handler.fetch))
    async with serving(app) as server, open_websocket(server.url("/exactly")) as ws:
        ws.send("hello")
        assert await ws.receive() == "hello"


@pytest.mark.parametrize("mount", [in_starlette, in_quart])
async def test_applications_of_frameworks_are_driven_from_a_pair(
    net: Network, mount: Callable[[App], App]
) -> None:
    handler = Running("", 0, trio.Event())
    app = mount(ASGIApp(handler.fetch))
    async with open_asgi_websocket(app, "/ws", protocols=["a"]) as ws:
        ws.send("hello")
        assert str(await ws.receive()).endswith(": hello")
        ws.send("close")
        with pytest.raises(ConnectionClosedError) as closed:
            await ws.receive()
        assert (closed.value.code, closed.value.reason) == (4001, "größer")
    with pytest.raises(HandshakeError) as refused:
        async with open_asgi_websocket(app, "/refused"):
            pass
    assert (refused.value.status, refused.value.body) == (401, b"go away")
    with pytest.raises(HandshakeError) as not_found:
        async with open_asgi_websocket(app, "/nowhere"):
            pass
    assert not_found.value.status in (403, 404)
    async with open_asgi_websocket(app, "/live/") as ws:
        ws.send("ours")
        assert await ws.receive() == "ours"


async def test_starlette_gets_the_code_of_the_client() -> None:
    ends.clear()
    app = in_starlette(ASGIApp(Running("", 0, trio.Event()).fetch))
    async with open_asgi_websocket(app, "/ws") as ws:
        ws.close(3000, "bye")
    assert ends == [(3000, "bye")]


# -- asyncio ------------------------------------------------------------------


def test_hypercorn_on_asyncio_shows_the_trio_worker() -> None:
    config = hypercorn.config.Config()
    config.bind = ["127.0.0.1:0"]
    app: Any = ASGIApp(Running("", 0, trio.Event()).fetch)
    with pytest.raises(Exception, match="hypercorn --worker-class trio"):
        asyncio.run(hypercorn.asyncio.serve(app, config))


# -- applications that are opened -----------------------------------------------------


@pytest.mark.parametrize("name", SERVERS)
async def test_an_application_with_a_nursery_is_open_as_long_as_the_server_runs(
    net: Network, name: str
) -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def app() -> AsyncGenerator[FetchHandler, None]:
        async with trio.open_nursery() as nursery:
            steps.append("opened")
            nursery.start_soon(trio.sleep_forever)
            yield fetch
            steps.append("left")
            nursery.cancel_scope.cancel()

    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.add_event_listener("message", lambda event: server.send(event.data))
        server.accept()
        return Response(None, status=101, web_socket=client)

    async with serving(ASGIApp(app), name) as running:
        async with open_websocket(running.url()) as ws:
            ws.send("hello")
            assert await ws.receive() == "hello"
        assert steps == ["opened"]
    assert steps == ["opened", "left"]


@pytest.mark.parametrize("name", SERVERS)
async def test_a_server_does_not_start_when_its_application_fails_to_open(
    net: Network, logged: Logged, name: str
) -> None:
    @asynccontextmanager
    async def app() -> AsyncGenerator[FetchHandler, None]:
        raise OSError("no database")
        yield

    with pytest.RaisesGroup(
        pytest.RaisesExc(Exception, match="OSError: no database"),
        flatten_subgroups=True,
    ):
        async with serving(ASGIApp(app), name):
            pass
    assert "the application failed at startup" in logged.take()

"""Conversations with the `websockets` library: its clients and servers, our halves."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import pytest
import trio
import websockets.asyncio.client
import websockets.http11
import websockets.sync.client
import websockets.sync.server
import websockets.trio.client
import websockets.trio.server
from network import Logged, Network, Tls
from websockets.exceptions import (
    ConnectionClosed,
    ConnectionClosedError as TheirConnectionClosedError,
    InvalidStatus,
)

from trio_wspair import (
    CloseEvent,
    ConnectionClosedError,
    ErrorEvent,
    HandshakeError,
    MessageEvent,
    ReadyState,
    Request,
    Response,
    WebSocketPair,
    connect,
    open_websocket,
)

MESSAGES: list[str | bytes] = [
    "text",
    b"binary",
    "",
    b"",
    "é𝄞" * 1000,
    bytes(range(256)) * 4000,
    "x" * 65_536,
]

dial = partial(websockets.trio.client.connect, proxy=None)


def code_and_reason(exc: ConnectionClosed) -> tuple[int, str] | None:
    """Return the code and reason that a `websockets` peer received."""
    return None if exc.rcvd is None else (exc.rcvd.code, exc.rcvd.reason)


# -- their clients, our server ------------------------------------------------


async def test_their_trio_client_gets_its_messages_back(net: Network) -> None:
    async with net.serve(net.echo) as server, dial(server.url) as ws:
        for message in MESSAGES:
            await ws.send(message)
        for message in MESSAGES:
            assert await ws.recv() == message


async def test_their_sync_client_gets_its_messages_back(net: Network) -> None:
    def talk(url: str) -> list[str | bytes]:
        with websockets.sync.client.connect(url, proxy=None) as ws:
            for message in MESSAGES:
                ws.send(message)
            return [ws.recv() for _ in MESSAGES]

    async with net.serve(net.echo) as server:
        assert await trio.to_thread.run_sync(talk, server.url) == MESSAGES


async def test_their_asyncio_client_gets_its_messages_back(net: Network) -> None:
    async def talk(url: str) -> list[str | bytes]:
        async with websockets.asyncio.client.connect(url, proxy=None) as ws:
            for message in MESSAGES:
                await ws.send(message)
            return [await ws.recv() for _ in MESSAGES]

    async with net.serve(net.echo) as server:
        received = await trio.to_thread.run_sync(lambda: asyncio.run(talk(server.url)))
    assert received == MESSAGES


async def test_their_client_sends_in_fragments(net: Network) -> None:
    async with net.serve(net.echo) as server, dial(server.url) as ws:
        await ws.send(["é", "", "x" * 70_000, "é"])
        await ws.send([b"\xff", b"", b"\xfe" * 200_000])
        assert await ws.recv() == "é" + "x" * 70_000 + "é"
        assert await ws.recv() == b"\xff" + b"\xfe" * 200_000


async def test_their_client_offers_subprotocols_and_headers(net: Network) -> None:
    requests: list[Request] = []

    async def fetch(request: Request) -> Response:
        requests.append(request)
        client, server = WebSocketPair()
        server.accept()
        server.send("hello")
        headers = {"Sec-WebSocket-Protocol": "wamp", "X-Answer": "yes"}
        return Response(None, status=101, web_socket=client, headers=headers)

    async with (
        net.serve(fetch) as server,
        dial(
            server.url + "room?a=b",
            subprotocols=["soap", "wamp"],  # type: ignore[list-item]  # a NewType of str
            additional_headers={"X-Question": "really?"},
            origin="https://example.org",  # type: ignore[arg-type]  # a NewType of str
        ) as ws,
    ):
        assert await ws.recv() == "hello"
        assert ws.subprotocol == "wamp"
        assert ws.response is not None
        assert ws.response.headers["X-Answer"] == "yes"
    assert requests[0].headers["x-question"] == "really?"
    assert requests[0].headers["origin"] == "https://example.org"
    assert requests[0].url.endswith("/room?a=b")


async def test_their_client_gets_a_refusal(net: Network) -> None:
    async def fetch(request: Request) -> Response:
        return Response("members only", status=403, headers={"X-Reason": "dues"})

    async with net.serve(fetch) as server:
        with pytest.raises(InvalidStatus) as caught:
            async with dial(server.url):
                pass
    response = caught.value.response
    assert response.status_code == 403
    assert response.headers["X-Reason"] == "dues"
    assert response.body == b"members only"


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "going"), (3000, "é"), (4999, "x" * 123)]
)
async def test_their_client_closes_the_connection(
    net: Network, code: int, reason: str
) -> None:
    async with net.serve_halves() as (server, halves):
        async with dial(server.url) as ws:
            half = await halves.receive()
            heard = net.accept(half)
            await ws.send("last")
            await ws.aclose(code, reason)
            assert (ws.close_code, ws.close_reason) == (code, reason)
        await half.wait_closed()
        assert heard == ["last", CloseEvent(code, reason, was_clean=True)]


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ((), 1005, ""),
        ((1000,), 1000, ""),
        ((1011, "oh"), 1011, "oh"),
        ((3000, "é"), 3000, "é"),
        ((4999, "x" * 123), 4999, "x" * 123),
    ],
)
async def test_our_server_closes_the_connection_of_their_client(
    net: Network, arguments: tuple[Any, ...], code: int, reason: str
) -> None:
    async with net.serve_halves() as (server, halves), dial(server.url) as ws:
        half = await halves.receive()
        heard = net.accept(half)
        half.send("last")
        half.close(*arguments)
        assert await ws.recv() == "last"
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        assert (ws.close_code, ws.close_reason) == (code, reason)
        await half.wait_closed()
        assert heard == [CloseEvent(code, reason, was_clean=True)]


async def test_pings_work_with_their_client(net: Network) -> None:
    async with net.serve_halves() as (server, halves), dial(server.url) as ws:
        half = await halves.receive()
        half.accept()
        pong = await ws.ping(b"payload")
        await pong.wait()
        assert await half.ping() >= 0
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(half.ping)


async def test_their_client_sends_too_much(net: Network) -> None:
    async with net.serve_halves(max_message_bytes=1000) as (server, halves):
        async with dial(server.url) as ws:
            half = await halves.receive()
            heard = net.accept(half)
            await ws.send(b"x" * 1001)
            with pytest.raises(TheirConnectionClosedError) as caught:
                await ws.recv()
            told = code_and_reason(caught.value)
            assert told is not None
            assert told[0] == 1009
        assert isinstance(heard[0], ErrorEvent)


async def test_our_server_sends_too_much_for_their_client(net: Network) -> None:
    async with net.serve_halves() as (server, halves):
        async with dial(server.url, max_size=1000) as ws:
            half = await halves.receive()
            heard = net.accept(half)
            half.send(b"x" * 1001)
            with pytest.raises(TheirConnectionClosedError):
                await ws.recv()
        closed = await half.wait_closed()
        assert (closed.code, closed.was_clean) == (1009, True)
        assert heard == [closed]


async def test_our_server_stops_while_their_client_listens(net: Network) -> None:
    closes: list[Any] = []
    heard: list[Any] = []

    async def listen(url: str) -> None:
        async with dial(url) as ws:
            with pytest.raises(ConnectionClosed):
                await ws.recv()
            closes.append((ws.close_code, ws.close_reason))

    async with trio.open_nursery() as nursery, net.serve_halves() as (server, halves):
        nursery.start_soon(listen, server.url)
        heard = net.accept(await halves.receive())
    assert closes == [(1001, "the server stops")]
    assert heard == [CloseEvent(1001, "the server stops", was_clean=True)]


async def test_their_client_over_tls(net: Network, tls: Tls) -> None:
    async with (
        net.serve(net.echo, ssl_context=tls.server) as server,
        dial(server.url, ssl=tls.client) as ws,
    ):
        for message in MESSAGES:
            await ws.send(message)
            assert await ws.recv() == message


# -- their servers, our client ------------------------------------------------


class TheirServer:
    """A `websockets` server for one handler; see `their_server`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    async def start(self, handler: Callable[..., Any], **options: Any) -> str:
        server = await self._nursery.start(
            partial(
                websockets.trio.server.serve, handler, 0, host="127.0.0.1", **options
            )
        )
        port = server.listeners[0].socket.getsockname()[1]
        scheme = "ws" if options.get("ssl") is None else "wss"
        return f"{scheme}://127.0.0.1:{port}/"


async def echo(ws: websockets.trio.server.ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def test_our_client_gets_its_messages_back(net: Network) -> None:
    async with trio.open_nursery() as nursery:
        url = await TheirServer(nursery).start(echo)
        async with open_websocket(url) as ws:
            for message in MESSAGES:
                ws.send(message)
            assert [await ws.receive() for _ in MESSAGES] == MESSAGES
        nursery.cancel_scope.cancel()


@contextlib.contextmanager
def sync_server(
    handler: Callable[[websockets.sync.server.ServerConnection], None],
) -> Generator[str]:
    """Run their server with threads."""
    server = websockets.sync.server.serve(handler, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/"
    finally:
        server.shutdown()
        thread.join()


async def test_our_client_talks_to_their_sync_server(net: Network) -> None:
    def echo_in_a_thread(ws: websockets.sync.server.ServerConnection) -> None:
        for message in ws:
            ws.send(message)

    with sync_server(echo_in_a_thread) as url:
        async with open_websocket(url) as ws:
            for message in MESSAGES:
                ws.send(message)
            assert [await ws.receive() for _ in MESSAGES] == MESSAGES
        assert ws.ready_state is ReadyState.CLOSED


async def test_their_server_sends_in_fragments(net: Network) -> None:
    async def handler(ws: websockets.trio.server.ServerConnection) -> None:
        await ws.send(["é", "", "x" * 70_000])
        await ws.send([b"\xff", b"\xfe" * 200_000])
        await ws.wait_closed()

    async with trio.open_nursery() as nursery:
        url = await TheirServer(nursery).start(handler)
        async with open_websocket(url) as ws:
            assert await ws.receive() == "é" + "x" * 70_000
            assert await ws.receive() == b"\xff" + b"\xfe" * 200_000
        nursery.cancel_scope.cancel()


async def test_their_server_chooses_a_subprotocol_and_sees_headers(
    net: Network,
) -> None:
    seen: list[str | None] = []

    async def handler(ws: websockets.trio.server.ServerConnection) -> None:
        assert ws.request is not None
        seen.append(ws.request.path)
        seen.append(ws.request.headers["X-Question"])
        await ws.wait_closed()

    async with trio.open_nursery() as nursery:
        url = await TheirServer(nursery).start(handler, subprotocols=["wamp"])
        async with open_websocket(
            url + "room?a=b",
            protocols=["soap", "wamp"],
            headers={"X-Question": "really?"},
        ) as ws:
            assert ws.protocol == "wamp"
        nursery.cancel_scope.cancel()
    assert seen == ["/room?a=b", "really?"]


async def test_our_client_gets_a_refusal_of_their_server(net: Network) -> None:
    def refuse(
        ws: websockets.trio.server.ServerConnection, request: object
    ) -> websockets.http11.Response:
        return ws.respond(403, "members only\n")

    async with trio.open_nursery() as nursery:
        url = await TheirServer(nursery).start(echo, process_request=refuse)
        with pytest.raises(HandshakeError) as caught:
            await connect(url, nursery=nursery)
        assert caught.value.status == 403
        assert caught.value.body == b"members only\n"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "going"), (3000, "é"), (4999, "x" * 123)]
)
async def test_their_server_closes(net: Network, code: int, reason: str) -> None:
    async def handler(ws: websockets.trio.server.ServerConnection) -> None:
        await ws.send("last")
        await ws.aclose(code, reason)

    async with trio.open_nursery() as nursery:
        url = await TheirServer(nursery).start(handler)
        client = await connect(url, nursery=nursery)
        heard = net.accept(client)
        await client.wait_closed()
        assert heard == ["last", CloseEvent(code, reason, was_clean=True)]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [((), 1005, ""), ((1000,), 1000, ""), ((3000, "é"), 3000, "é")],
)
async def test_our_client_closes_the_connection_to_their_server(
    net: Network, arguments: tuple[Any, ...], code: int, reason: str
) -> None:
    seen: list[Any] = []
    ended = trio.Event()

    async def handler(ws: websockets.trio.server.ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                seen.append(await ws.recv())
        seen.append((ws.close_code, ws.close_reason))
        ended.set()

    async with trio.open_nursery() as nursery:
        url = await TheirServer(nursery).start(handler)
        client = await connect(url, nursery=nursery)
        heard = net.accept(client)
        client.send("last")
        client.close(*arguments)
        await client.wait_closed()
        await ended.wait()
        assert seen == ["last", (code, reason)]
        assert heard == [CloseEvent(code, reason, was_clean=True)]
        nursery.cancel_scope.cancel()


async def test_pings_work_with_their_server(net: Network) -> None:
    pinged = trio.Event()

    async def handler(ws: websockets.trio.server.ServerConnection) -> None:
        pong = await ws.ping(b"payload")
        await pong.wait()
        pinged.set()
        await ws.wait_closed()

    async with trio.open_nursery() as nursery:
        url = await TheirServer(nursery).start(handler)
        async with open_websocket(url) as ws:
            await pinged.wait()
            assert await ws.ping() >= 0
        nursery.cancel_scope.cancel()


async def test_their_server_fails(net: Network, logged: Logged) -> None:
    async def handler(ws: websockets.trio.server.ServerConnection) -> None:
        msg = "theirs"
        raise KeyError(msg)

    async with trio.open_nursery() as nursery:
        url = await TheirServer(nursery).start(handler)
        client = await connect(url, nursery=nursery)
        heard = net.accept(client)
        closed = await client.wait_closed()
        assert (closed.code, closed.was_clean) == (1011, True)
        assert heard == [closed]
        await net.until(lambda: logged.records)  # The error of their server.
        assert "theirs" in logged.take()
        nursery.cancel_scope.cancel()


async def test_a_failing_listener_of_our_client_closes_with_1011(net: Network) -> None:
    closes: list[Any] = []
    ended = trio.Event()

    async def handler(ws: websockets.trio.server.ServerConnection) -> None:
        await ws.send("a")
        await ws.wait_closed()
        closes.append(ws.close_code)
        ended.set()

    async with trio.open_nursery() as nursery:
        url = await TheirServer(nursery).start(handler)
        with pytest.RaisesGroup(KeyError):
            async with trio.open_nursery() as inner:
                client = await connect(url, nursery=inner)

                @client.on("message")
                def listen(event: MessageEvent) -> None:
                    raise KeyError(event.data)

                client.accept()
        await ended.wait()
        assert closes == [1011]
        nursery.cancel_scope.cancel()


async def test_our_client_sends_too_much_for_their_server(net: Network) -> None:
    async with trio.open_nursery() as nursery:
        url = await TheirServer(nursery).start(echo, max_size=1000)
        async with open_websocket(url) as ws:
            ws.send(b"x" * 1001)
            with pytest.raises(ConnectionClosedError) as caught:
                await ws.receive()
        assert (caught.value.code, caught.value.was_clean) == (1009, True)
        nursery.cancel_scope.cancel()


async def test_their_server_over_tls(net: Network, tls: Tls) -> None:
    async with trio.open_nursery() as nursery:
        url = await TheirServer(nursery).start(echo, ssl=tls.server)
        async with open_websocket(url, ssl_context=tls.client) as ws:
            for message in MESSAGES:
                ws.send(message)
            assert [await ws.receive() for _ in MESSAGES] == MESSAGES
        nursery.cancel_scope.cancel()

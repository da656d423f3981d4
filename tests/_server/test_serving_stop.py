"""`Server.stop()`: requests under way are answered, everything else ends."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from memory_server import parse_answers, request_bytes
from network import Network

from trio_wspair import (
    CloseEvent,
    InvalidStateError,
    MessageEvent,
    Request,
    Response,
    Server,
    WebSocketPair,
    open_websocket,
    serve,
)


class Site:
    """A handler whose answers wait until the test says so."""

    def __init__(self) -> None:
        self.called = trio.Event()
        self.may_answer = trio.Event()
        self.events: list[str] = []
        self.server: Server | None = None

    async def fetch(self, request: Request) -> Response:
        if request.wants_websocket:
            return self.conversation()
        if request.path == "/stream":
            return Response(self.pieces())
        self.called.set()
        if request.path == "/stop":
            assert self.server is not None
            self.server.stop()
        if request.path == "/slow":
            try:
                await self.may_answer.wait()
            except trio.Cancelled:
                self.events.append("cancelled")
                raise
        return Response("done")

    async def pieces(self) -> AsyncGenerator[str]:
        yield "first "
        self.called.set()
        await self.may_answer.wait()
        yield "last"

    def conversation(self) -> Response:
        client, server = WebSocketPair()

        @server.on("message")
        async def answer(event: MessageEvent) -> None:
            self.called.set()
            await self.may_answer.wait()
            self.events.append(f"answered {event.data!r}")

        @server.on("close")
        def note(event: CloseEvent) -> None:
            self.events.append(f"closed with {event.code}")

        server.accept()
        return Response(None, status=101, web_socket=client)


@asynccontextmanager
async def serving(
    site: Site, grace: float = 3.0
) -> AsyncGenerator[tuple[Server, trio.Event]]:
    """Serve a site; the event is set when `serve()` has returned."""
    returned = trio.Event()

    async def run(*, task_status: trio.TaskStatus[Server]) -> None:
        await serve(site.fetch, 0, close_grace=grace, task_status=task_status)
        returned.set()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(run)
            yield server, returned
            await returned.wait()


async def read_rest(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(data) async for data in stream])


@pytest.mark.parametrize("path", ["/slow", "/stream"])
async def test_a_request_under_way_is_answered(net: Network, path: str) -> None:
    site = Site()
    async with serving(site) as (server, returned), net.dial(server) as peer:
        await peer.send(request_bytes("GET", path))
        await site.called.wait()
        server.stop()
        server.stop()
        await trio.sleep(0.05)
        assert not returned.is_set()
        site.may_answer.set()
        (got,) = parse_answers(await read_rest(peer.stream))
        assert got.status == 200
        assert got.body == (b"done" if path == "/slow" else b"first last")
        assert path == "/stream" or not got.keeps_alive
    assert site.events == []


async def test_a_handler_may_stop_its_server(net: Network) -> None:
    site = Site()
    async with serving(site, grace=60.0) as (server, _), net.dial(server) as peer:
        site.server = server
        await peer.send(request_bytes("GET", "/stop"))
        (got,) = parse_answers(await read_rest(peer.stream))
        assert (got.body, got.keeps_alive) == (b"done", False)


async def test_connections_without_a_request_end_at_once(net: Network) -> None:
    site = Site()
    async with (
        serving(site, grace=60.0) as (server, _),
        net.dial(server) as silent,
        net.dial(server) as begun,
        net.dial(server) as idle,
    ):
        await begun.send(b"GET / HTTP/1.1\r\n")
        await idle.send(request_bytes("GET", "/"))
        assert await idle.stream.receive_some()
        await trio.sleep(0.05)
        server.stop()
        for peer in (silent, begun, idle):
            await read_rest(peer.stream)


async def test_no_connection_is_accepted_any_more(net: Network) -> None:
    site = Site()
    async with serving(site) as (server, _), net.dial(server) as peer:
        await peer.send(request_bytes("GET", "/slow"))
        await site.called.wait()
        server.stop()
        await trio.sleep(0.05)
        with pytest.raises(OSError, match=str(server.port)):
            await trio.open_tcp_stream("127.0.0.1", server.port)
        site.may_answer.set()


async def test_a_request_that_takes_longer_than_the_grace_is_cancelled(
    net: Network,
) -> None:
    site = Site()
    async with serving(site, grace=0.2) as (server, _), net.dial(server) as peer:
        await peer.send(request_bytes("GET", "/slow"))
        await site.called.wait()
        server.stop()
        assert await read_rest(peer.stream) == b""
    assert site.events == ["cancelled"]


async def test_listeners_of_a_websocket_go_on(net: Network) -> None:
    site = Site()
    async with serving(site) as (server, _), open_websocket(server.url) as ws:
        ws.send("hi")
        await site.called.wait()
        server.stop()
        site.may_answer.set()
        assert (await ws.wait_closed()).code == 1001
    assert site.events == ["answered 'hi'", "closed with 1001"]


async def test_another_thread_cannot_stop_a_server(net: Network) -> None:
    site = Site()
    async with serving(site) as (server, returned):
        with pytest.raises(InvalidStateError, match=r"trio\.from_thread\.run_sync"):
            await trio.to_thread.run_sync(server.stop)
        await trio.sleep(0.05)
        assert not returned.is_set()
        await trio.to_thread.run_sync(trio.from_thread.run_sync, server.stop)


async def test_a_server_that_stops_can_still_be_cancelled(net: Network) -> None:
    site = Site()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            run = partial(serve, site.fetch, 0, close_grace=60.0)
            server: Server = await nursery.start(run)
            async with net.dial(server) as peer:
                await peer.send(request_bytes("GET", "/slow"))
                await site.called.wait()
                server.stop()
                await trio.sleep(0.05)
                nursery.cancel_scope.cancel()
    assert site.events == ["cancelled"]

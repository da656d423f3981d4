"""The inspector beside a server on the network: its contents, and its access rules."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
from network import Logged, Network

from trio_wspair import (
    MessageEvent,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    connect,
    open_websocket,
)
from trio_wspair.hibernation import DurableObject, DurableObjectNamespace
from trio_wspair.inspector import Inspector, open_inspector
from trio_wspair.testing import open_scripted_client


@pytest.fixture
def engine() -> None:
    """Run each test on one engine, as the engine doesn't matter here."""


class BadlyNamedError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Handler:
    """An echo with some special messages; keeps its halves."""

    def __init__(self, *, pull: bool = False) -> None:
        self.halves: list[WebSocket] = []
        self.pull = pull

    async def fetch(self, request: Request) -> Response:
        client, server = WebSocketPair()
        self.halves.append(server)

        def hear(event: MessageEvent) -> None:
            if event.data == "bye":
                server.send("last words")
                server.close(4001, "you said bye")
            elif event.data == "crash":
                raise ValueError("<b>crashed</b>")
            elif event.data == "crash badly":
                raise BadlyNamedError
            else:
                server.send(event.data)

        if not self.pull:
            server.add_event_listener("message", hear)
        server.accept(pull=self.pull)
        headers = {}
        if "sec-websocket-protocol" in request.headers:
            headers["Sec-WebSocket-Protocol"] = "chat"
        return Response(None, status=101, web_socket=client, headers=headers)


class Page:
    """The state of the page's script."""

    def __init__(self, ws: WebSocket) -> None:
        self.ws = ws
        self.rows: dict[int, dict[str, Any]] = {}
        self.frames: list[dict[str, Any]] = []

    async def until(self, happened: Callable[[], object]) -> None:
        """Request updates of the newest connection until a condition is true."""
        revision = 0
        while not happened():
            of = max(self.rows, default=None)
            after = self.frames[-1]["number"] if self.frames else 0
            question = {"revision": revision, "connection": of, "after": after}
            self.ws.send(json.dumps(question))
            update = json.loads(await self.ws.receive())
            revision = update["revision"]
            self.rows |= {row["id"]: row for row in update["connections"]}
            if update.get("of") == max(self.rows, default=None):
                self.frames += update.get("frames", [])

    @property
    def row(self) -> dict[str, Any]:
        return self.rows[max(self.rows)]

    async def until_closed(self) -> dict[str, Any]:
        """Return how the newest connection has closed."""
        await self.until(lambda: self.frames and self.row["close"])
        close: dict[str, Any] = self.row["close"]
        assert self.row["state"] == "closed"
        assert self.row["until"] >= self.row["since"]
        return close

    @property
    def entries(self) -> list[tuple[str, str, Any]]:
        return [
            (f["way"], f["kind"], f["code"] if f["kind"] == "close" else f["data"])
            for f in self.frames
        ]


@asynccontextmanager
async def inspected(
    net: Network, fetch: Callable[[Request], Any], **options: Any
) -> AsyncGenerator[tuple[str, Page]]:
    """Serve a handler with an inspector; give the URL, and a connected page.

    The halves of the block itself are not inspected.
    """

    async def run(*, task_status: trio.TaskStatus[tuple[Inspector, str]]) -> None:
        async with open_inspector() as inspector, net.serve(fetch, **options) as server:
            task_status.started((inspector, server.url))
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        inspector, url = await nursery.start(run)
        async with open_websocket(page_url(inspector)) as ws:
            yield url, Page(ws)
        nursery.cancel_scope.cancel()


def page_url(inspector: Inspector) -> str:
    return inspector.url.replace("http", "ws", 1) + "ws"


# -- contents -----------------------------------------------------------------------


async def test_a_connection_and_its_frames_are_shown(net: Network) -> None:
    async with inspected(net, Handler().fetch) as (url, page):
        async with open_websocket(f"{url}room?name=Ada", protocols=["chat"]) as ws:
            ws.send("hi")
            ws.send(b"\x00\x01")
            assert [await ws.receive(), await ws.receive()] == ["hi", b"\x00\x01"]
            await page.until(lambda: len(page.frames) == 4)
            row = page.row
            assert row["url"] == f"{url.replace('ws', 'http', 1)}room?name=Ada"
            assert (row["side"], row["peer"]) == ("server", "127.0.0.1")
            assert (row["state"], row["protocol"]) == ("open", "chat")
            assert row["in"] == {"messages": 2, "bytes": 4, "buffered": 0}
            assert row["out"] == {"messages": 2, "bytes": 4, "buffered": 0}
            assert (row["close"], row["until"]) == (None, None)
            assert sorted(page.entries) == [
                ("in", "binary", "AAE="),
                ("in", "text", "hi"),
                ("out", "binary", "AAE="),
                ("out", "text", "hi"),
            ]
        await page.until_closed()
        assert (
            len(page.rows) == 1
        )  # The connection of the page itself isn't among them.


async def test_a_close_comes_after_the_messages_before_it(net: Network) -> None:
    async with inspected(net, Handler().fetch) as (url, page):
        async with open_websocket(url) as ws:
            ws.send("bye")
            assert await ws.receive() == "last words"
            assert (await ws.wait_closed()).code == 4001
        close = await page.until_closed()
        assert close == {
            "code": 4001,
            "reason": "you said bye",
            "clean": True,
            "error": "",
        }
        assert page.entries == [
            ("in", "text", "bye"),
            ("out", "text", "last words"),
            ("out", "close", 4001),
            ("in", "close", 4001),
        ]


async def test_a_close_of_the_client_comes_first(net: Network) -> None:
    async with inspected(net, Handler().fetch) as (url, page):
        async with open_websocket(url) as ws:
            await ws.aclose(1000, "done")
        close = await page.until_closed()
        assert (close["code"], close["reason"], close["clean"]) == (1000, "done", True)
        assert page.entries == [("in", "close", 1000), ("out", "close", 1000)]


async def test_a_client_that_vanishes_is_shown_as_1006(net: Network) -> None:
    async with inspected(net, Handler().fetch) as (url, page):
        stream = await trio.open_tcp_stream("127.0.0.1", urlsplit(url).port or 0)
        peer = net.raw(stream, masks=True)
        await peer.handshake()
        await stream.aclose()
        close = await page.until_closed()
        assert (close["code"], close["clean"]) == (1006, False)
        assert "without sending Close" in close["error"]
        assert page.entries == [("", "error", close["error"])]
        assert page.frames[0]["code"] == 1006


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("crash", "ValueError: <b>crashed</b>"),
        ("crash badly", "BadlyNamedError: <exception str() failed>"),
    ],
)
async def test_an_error_of_a_listener_is_shown(
    net: Network, logged: Logged, said: str, error: str
) -> None:
    async with inspected(net, Handler().fetch) as (url, page):
        async with open_websocket(url) as ws:
            ws.send(said)
            await ws.wait_closed()
        close = await page.until_closed()
        assert (close["code"], close["clean"]) == (1011, True)
        assert close["error"].endswith(error)
        assert page.entries[-1] == ("", "error", close["error"])
        assert "failed" in logged.take()


async def test_a_close_without_an_answer_is_shown(net: Network) -> None:
    handler = Handler()
    async with inspected(net, handler.fetch, close_grace=0.2) as (url, page):
        stream = await trio.open_tcp_stream("127.0.0.1", urlsplit(url).port or 0)
        async with stream:
            await net.raw(stream, masks=True).handshake()
            handler.halves[0].close(3000, "go")
            await page.until(lambda: page.rows and page.row["state"] == "closing")
            close = await page.until_closed()
        assert (close["code"], close["clean"]) == (1006, False)
        assert close["error"].startswith("TimeoutError: the peer did not answer")
        assert page.entries[0] == ("out", "close", 3000)


async def test_a_reset_after_the_close_of_a_client_is_not_an_error(
    net: Network,
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept(allow_half_open=True)
        request.nursery.start_soon(trio.sleep_forever)
        return Response(None, status=101, web_socket=client)

    async with inspected(net, fetch) as (url, page):
        async with open_scripted_client(url) as client:
            await client.send(client.close_frame(4000, "bye"))
            await page.until(lambda: page.frames)
            await client.reset()
        close = await page.until_closed()
    assert close == {"code": 4000, "reason": "bye", "clean": True, "error": ""}
    assert page.entries == [("in", "close", 4000)]


async def test_messages_for_a_dropped_half_are_shown(
    net: Network, logged: Logged
) -> None:
    async def fetch(_request: Request) -> Response:
        client, _ = WebSocketPair()
        return Response(None, status=101, web_socket=client)

    async with inspected(net, fetch) as (url, page):
        async with open_scripted_client(url) as client:
            await client.send(client.text_frame("hello"))
            await page.until(lambda: page.frames)
        assert page.entries[0] == ("in", "text", "hello")
    assert "never accepted" in logged.take()


async def test_buffered_bytes_and_latency_are_shown(net: Network) -> None:
    handler = Handler(pull=True)
    async with (
        inspected(net, handler.fetch, ping_interval=0.05) as (url, page),
        open_websocket(url) as ws,
    ):
        ws.send("x" * 1000)
        await page.until(lambda: page.rows and page.row["in"]["buffered"] == 1000)
        await page.until(lambda: page.row["latency"] is not None)
        assert 0 <= page.row["latency"] < 10
        await handler.halves[0].receive()
        await page.until(lambda: page.row["in"]["buffered"] == 0)


async def test_connections_of_clients_are_shown(net: Network) -> None:
    async with (
        net.serve(net.echo) as server,
        open_inspector() as inspector,
        open_websocket(server.url) as ws,
    ):
        ws.send("hello")
        assert await ws.receive() == "hello"
        # This page is one of them, as it connects in the block.
        async with open_websocket(page_url(inspector)) as page_ws:
            page = Page(page_ws)
            await page.until(lambda: page.rows)
            row = page.rows[min(page.rows)]
            assert row["side"] == "client"
            assert row["url"] == server.url
            assert row["peer"] == f"127.0.0.1:{server.port}"
            assert row["out"]["messages"] == 1


class Echo(DurableObject):
    async def fetch(self, _request: Request) -> Response:
        client, server = WebSocketPair()
        self.ctx.accept_web_socket(server)
        return Response(None, status=101, web_socket=client)

    def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
        ws.send(message)


async def test_sockets_of_durable_objects_are_shown(net: Network) -> None:
    async with DurableObjectNamespace(Echo) as echoes:
        stub = echoes.get_by_name("one")
        async with inspected(net, stub.fetch) as (url, page):
            async with open_websocket(url) as ws:
                ws.send("hi")
                assert await ws.receive() == "hi"
                await page.until(lambda: len(page.frames) == 2)
            close = await page.until_closed()
            assert (close["code"], close["error"]) == (1000, "")


async def test_a_page_that_reads_nothing_does_not_slow_the_server(
    net: Network,
) -> None:
    async with (
        inspected(net, Handler().fetch) as (url, page),
        open_websocket(url) as ws,
    ):
        await page.until(lambda: page.rows)
        question = {"revision": 0, "connection": max(page.rows), "after": 0}
        where = urlsplit(page.ws.url or "")
        async with await trio.open_tcp_stream("127.0.0.1", where.port or 0) as stream:
            stalled = net.raw(stream, masks=True)
            await stream.send_all(
                "\r\n".join(
                    ["GET /ws HTTP/1.1", f"Host: {where.netloc}", *UPGRADE, "", ""]
                ).encode()
            )
            for _ in range(300):
                await stalled.send(stalled.text_frame(json.dumps(question)))
                ws.send("x" * 10_000)
                assert await ws.receive() == "x" * 10_000
        ws.send("still here")
        assert await ws.receive() == "still here"
        await page.until(lambda: ("out", "text", "still here") in page.entries)


# -- access ----------------------------------------------------------------------------


@asynccontextmanager
async def inspecting() -> AsyncGenerator[int]:
    """Give the port of an inspector."""
    async with open_inspector() as inspector:
        yield urlsplit(inspector.url).port or 0


async def ask(port: int, *lines: str) -> tuple[int, str]:
    """Send raw bytes; return the status and the whole response."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        text = "\r\n".join([*lines, "Connection: close", "", ""])
        await stream.send_all(text.encode())
        answer = b"".join([bytes(data) async for data in stream]).decode()
        return int(answer.split(" ", 2)[1]), answer


UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


async def status_of_upgrade(port: int, *lines: str) -> int:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        text = "\r\n".join(["GET /ws HTTP/1.1", *lines, *UPGRADE, "", ""])
        await stream.send_all(text.encode())
        answer = bytes(await stream.receive_some())
        return int(answer.split(b" ", 2)[1])


async def test_the_page_is_served_with_a_strict_policy(net: Network) -> None:
    async with inspecting() as port:
        status, answer = await ask(port, "GET / HTTP/1.1", f"Host: localhost:{port}")
        assert status == 200
        head, _, page = answer.partition("\r\n\r\n")
        assert page.startswith("<!doctype html>")
        assert "default-src 'none'; script-src 'sha256-" in head
        assert "unsafe" not in head
        assert "access-control" not in head.lower()
        assert page.count("<script") == page.count("<style") == 1
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "//cdn", "eval("):
            assert word not in page


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]", "LOCALHOST"])
async def test_names_of_this_machine_are_accepted(net: Network, name: str) -> None:
    async with inspecting() as port:
        host = f"Host: {name}:{port}"
        assert (await ask(port, "GET / HTTP/1.1", host))[0] == 200
        assert await status_of_upgrade(port, host) == 101
        assert (
            await status_of_upgrade(port, host, f"Origin: http://{name}:{port}") == 101
        )


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:{port}",
        "127.0.0.1.evil.example:{port}",
        "localhost",
        "localhost:1",
        "0.0.0.0:{port}",
    ],
)
async def test_a_page_on_a_rebound_name_gets_nothing(net: Network, host: str) -> None:
    async with inspecting() as port:
        line = f"Host: {host.format(port=port)}"
        status, answer = await ask(port, "GET / HTTP/1.1", line)
        assert status == 403
        assert answer.endswith(f"\nThe inspector's page is http://127.0.0.1:{port}/\n")
        assert await status_of_upgrade(port, line) == 403


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://localhost:1", "https://localhost:{port}"],
)
async def test_pages_of_other_origins_get_no_websocket(
    net: Network, origin: str
) -> None:
    async with inspecting() as port:
        lines = f"Host: localhost:{port}", f"Origin: {origin.format(port=port)}"
        assert await status_of_upgrade(port, *lines) == 403


async def test_other_paths_are_not_found(net: Network) -> None:
    async with inspecting() as port:
        host = f"Host: localhost:{port}"
        assert (await ask(port, "GET /other HTTP/1.1", host))[0] == 404
        assert (await ask(port, "GET /ws HTTP/1.1", host))[0] == 426


async def test_only_this_machine_can_connect(net: Network) -> None:
    async with inspecting() as port:
        with pytest.raises(OSError, match=r"127\.0\.0\.2"):
            await trio.open_tcp_stream("127.0.0.2", port)


async def test_a_port_in_use_is_an_error(net: Network) -> None:
    async with inspecting() as port:
        with pytest.raises(OSError, match="in use"):
            async with open_inspector(port):
                raise AssertionError


async def test_leaving_the_block_closes_the_pages_with_1001(net: Network) -> None:
    async with trio.open_nursery() as nursery:
        async with open_inspector() as inspector:
            ws = await connect(page_url(inspector), nursery=nursery)
            ws.accept(pull=True)
        assert (await ws.wait_closed()).code == 1001

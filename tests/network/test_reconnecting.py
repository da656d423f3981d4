"""`reconnecting()`, and proxies on the way."""

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_wspair import (
    ConnectionClosedError,
    HandshakeError,
    ReadyState,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    open_websocket,
    reconnecting,
    serve,
)
from trio_wspair._reconnecting import _Backoff

if TYPE_CHECKING:
    from conftest import Network


@pytest.fixture(scope="module")
def engine() -> None:
    """Run them on one engine: they are not about the wire."""


quick = partial(reconnecting, min_delay=0.001, max_delay=0.01)


class Refusing:
    """A handler that answers with these statuses, and then opens WebSockets."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.opened: list[WebSocket] = []

    async def fetch(self, _request: Request) -> Response:
        if self.statuses:
            return Response("not now", status=self.statuses.pop(0))
        client, server = WebSocketPair()
        server.accept()
        server.send(f"number {len(self.opened)}")
        self.opened.append(server)
        return Response(None, status=101, web_socket=client)


async def test_one_connection_comes_after_the_other(net: "Network") -> None:
    handler = Refusing()
    async with net.serve(handler.fetch) as server:
        async with quick(server.url) as connections:
            heard: list[str | bytes] = []
            async for ws in connections:
                async for message in ws:
                    heard.append(message)
                    handler.opened[-1].close(1000)
                if len(heard) == 3:
                    break
        assert heard == ["number 0", "number 1", "number 2"]


async def test_going_on_closes_the_one_before(net: "Network") -> None:
    handler = Refusing()
    async with net.serve(handler.fetch) as server:
        async with quick(server.url) as connections:
            first = await anext(connections)
            second = await anext(connections)
            assert first.ready_state is ReadyState.CLOSED
            assert second.ready_state is ReadyState.OPEN
        assert second.ready_state.name == "CLOSED"
        for half in handler.opened:
            assert (await half.wait_closed()).code == 1000


async def test_an_exception_of_the_block_is_told_with_1011(net: "Network") -> None:
    handler = Refusing()
    async with net.serve(handler.fetch) as server:

        async def fail() -> None:
            async with quick(server.url) as connections:
                await anext(connections)
                raise LookupError

        with pytest.raises(LookupError):
            await fail()
        assert (await handler.opened[0].wait_closed()).code == 1011


async def test_what_passes_is_tried_again(net: "Network") -> None:
    handler = Refusing(503, 500, 429)
    async with (
        net.serve(handler.fetch) as server,
        quick(server.url) as connections,
    ):
        assert await (await anext(connections)).receive() == "number 0"
        assert handler.statuses == []


@pytest.mark.parametrize("status", [200, 401, 403, 404, 501])
async def test_what_does_not_pass_is_raised(net: "Network", status: int) -> None:
    handler = Refusing(status)
    async with (
        net.serve(handler.fetch) as server,
        quick(server.url) as connections,
    ):
        with pytest.raises(HandshakeError) as caught:
            await anext(connections)
        assert caught.value.status == status


async def test_a_server_that_is_not_there_is_waited_for(net: "Network") -> None:
    handler = Refusing()
    async with net.serve(handler.fetch) as server:
        port, url = server.port, server.url
    heard: list[str | bytes] = []

    async def hear_one() -> None:
        async with quick(url) as connections:
            async for ws in connections:
                heard.append(await ws.receive())
                break

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hear_one)
        await trio.sleep(0.05)
        assert heard == []
        async with trio.open_nursery() as server_nursery:
            await server_nursery.start(serve, handler.fetch, port)
            await net.until(lambda: heard)
            server_nursery.cancel_scope.cancel()
    assert heard == ["number 0"]


async def test_waiting_can_be_cancelled(net: "Network") -> None:
    async with net.serve(Refusing().fetch) as server:
        url = server.url
    with trio.move_on_after(0.05) as scope:
        async with quick(url) as connections:
            await anext(connections)
    assert scope.cancelled_caught


async def test_an_end_that_is_not_clean_is_the_callers(net: "Network") -> None:
    handler = Refusing()
    async with (
        net.serve(handler.fetch) as server,
        quick(server.url) as connections,
    ):
        ws = await anext(connections)
        assert await ws.receive() == "number 0"
        handler.opened[0].close(1011)
        with pytest.raises(ConnectionClosedError):
            await ws.receive()
        assert await (await anext(connections)).receive() == "number 1"


@pytest.mark.parametrize("option", ["min_delay", "max_delay"])
async def test_delays_are_checked(option: str) -> None:
    wrong: dict[str, Any] = {option: -1.0}
    with pytest.raises(ValueError, match=f"{option} must be 0 or more"):
        async with reconnecting("ws://localhost/", **wrong):
            pass


def test_delays_grow_with_jitter_up_to_a_limit() -> None:
    for _ in range(50):
        backoff = _Backoff(0.5, 10.0)
        delays = [backoff.next_delay() for _ in range(8)]
        limits = [0, 0.5, 1, 2, 4, 8, 10, 10]
        for delay, limit in zip(delays, limits, strict=True):
            assert limit / 2 <= delay <= limit
    assert len({_Backoff(0.5, 10.0).next_delay() for _ in range(5)}) == 1
    different = set()
    for _ in range(20):
        backoff = _Backoff(0.5, 10.0)
        backoff.next_delay()
        different.add(backoff.next_delay())
    assert len(different) > 1


def test_a_connection_that_has_lasted_lets_it_begin_again() -> None:
    backoff = _Backoff(0.5, 10.0)
    for _ in range(5):
        backoff.next_delay()
    backoff.lasted(1.0)
    assert backoff.next_delay() >= 4
    backoff.lasted(11.0)
    assert backoff.next_delay() <= 0.5


def test_a_maximum_below_the_minimum_counts() -> None:
    backoff = _Backoff(5.0, 1.0)
    assert max(backoff.next_delay() for _ in range(5)) <= 1.0


# -- proxies --------------------------------------------------------------------


class Gate:
    """A proxy that understands CONNECT and nothing else (RFC 9110, section 9.3.6)."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses
        self.asked: list[str] = []

    async def run(self, stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some()
        self.asked.append(head.decode().splitlines()[0])
        if self.refuses:
            await stream.send_all(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            await stream.aclose()
            return
        host, _, port = head.decode().split()[1].rpartition(":")
        far = await trio.open_tcp_stream(host, int(port))
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        async with far, stream, trio.open_nursery() as nursery:
            nursery.start_soon(self.pump, stream, far)
            await self.pump(far, stream)
            nursery.cancel_scope.cancel()

    async def pump(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        try:
            async for data in source:
                await sink.send_all(data)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[str]:
        async with trio.open_nursery() as nursery:
            run: Callable[[trio.SocketStream], Awaitable[None]] = self.run
            listeners = await nursery.start(
                partial(trio.serve_tcp, run, 0, host="127.0.0.1")
            )
            port = listeners[0].socket.getsockname()[1]
            yield f"http://127.0.0.1:{port}"
            nursery.cancel_scope.cancel()


async def test_a_proxy_carries_the_connection(net: "Network") -> None:
    gate = Gate()
    async with net.serve(net.echo) as server, gate.open() as proxy:
        async with open_websocket(server.url, proxy=proxy) as ws:
            ws.send("through")
            assert await ws.receive() == "through"
        assert gate.asked == [f"CONNECT 127.0.0.1:{server.port} HTTP/1.1"]


async def test_a_proxy_that_refuses_is_told(net: "Network") -> None:
    async with net.serve(net.echo) as server, Gate(refuses=True).open() as proxy:
        with pytest.raises(
            HandshakeError, match=r"does not connect to .*: it answered with status 403"
        ):
            async with open_websocket(server.url, proxy=proxy):
                pass


@pytest.mark.parametrize("wrong", ["nonsense", "ftp://localhost:1"])
async def test_what_is_no_proxy_is_an_error(wrong: str) -> None:
    with pytest.raises(ValueError, match="is not the URL of a proxy"):
        async with open_websocket("ws://localhost/", proxy=wrong):
            pass
    with pytest.raises(TypeError, match="proxy must be a URL such as"):
        # On purpose.
        async with open_websocket("ws://localhost/", proxy=5):  # type: ignore[arg-type]
            pass


async def test_the_extra_for_proxies_is_named_when_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)
    with pytest.raises(ImportError, match=r"pip install 'trio-wspair\[proxy\]'"):
        async with open_websocket("ws://localhost/", proxy="socks5://localhost:1"):
            pass

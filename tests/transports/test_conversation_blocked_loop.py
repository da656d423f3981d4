"""A deadline that passes while the loop is blocked: unread bytes still count.

The clock jumps past a deadline in one step of a task, as when a listener has held the
loop for long, or the machine was suspended, and the bytes of the peer are in the
socket. Then Trio runs timers and readers in one batch, in either order; each test runs
with both orders.
"""

import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any

import pytest
import trio
from network import Network, OneEnd, Tls
from pairs import collect_events
from trio._core._run import _r as scheduler_random
from trio.testing import MockClock

from trio_wspair import (
    CloseEvent,
    ReadyState,
    Request,
    Response,
    Server,
    WebSocket,
    connect,
    open_websocket,
)
from trio_wspair.testing import ScriptedPeer

PONG = 10
CLEAN = CloseEvent(1000, "", was_clean=True)


@pytest.fixture(params=["oldest first", "youngest first"], autouse=True)
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fix the order in which Trio runs the tasks of a batch."""
    reverse = request.param == "youngest first"

    def put_in_order(batch: list[trio.lowlevel.Task]) -> None:
        batch.sort(key=lambda task: task._counter, reverse=reverse)

    monkeypatch.setattr(scheduler_random, "shuffle", put_in_order)


@pytest.fixture
def clock(mock_clock: MockClock) -> MockClock:
    """A clock that runs in real time, which bounds waits, and can jump."""
    mock_clock.rate = 1.0
    return mock_clock


def send_while_blocked(
    clock: MockClock, peer: ScriptedPeer, data: bytes, seconds: float
) -> None:
    """Send bytes from a peer, and block the loop for some time."""
    assert isinstance(peer.stream, trio.SocketStream)
    assert os.write(peer.stream.socket.fileno(), data) == len(data)
    clock.jump(seconds)


async def a_few_steps() -> None:
    for _ in range(30):
        await trio.lowlevel.checkpoint()


# -- keepalive --------------------------------------------------------------------


@pytest.mark.parametrize("sign", ["pong", "message", "half a message"])
async def test_an_unread_message_at_the_deadline_of_a_pong_counts(
    clock: MockClock, one_end: OneEnd, sign: str
) -> None:
    async with one_end(ping_interval=1.0, ping_timeout=1.0) as (half, peer):
        heard = collect_events(half)
        half.accept()
        await a_few_steps()
        clock.jump(1.0)
        said = await peer.receive()
        assert isinstance(said, tuple)
        assert isinstance(said[1], bytes)
        data = {
            "pong": peer.frame(PONG, said[1]),
            "message": peer.text_frame("still here"),
            "half a message": peer.text_frame("still here")[:5],
        }[sign]
        send_while_blocked(clock, peer, data, 1.5)
        await a_few_steps()
        assert half.ready_state is ReadyState.OPEN
        assert heard == (["still here"] if sign == "message" else [])
        await peer.reset()
        await half.wait_closed()


# -- closing ----------------------------------------------------------------------


async def closed_by_verb(half: WebSocket) -> None:
    half.close(1000)
    await half.wait_closed()


async def closed_by_aclose(half: WebSocket) -> None:
    await half.aclose()


@pytest.mark.parametrize("close", [closed_by_verb, closed_by_aclose])
async def test_an_unread_close_at_the_end_of_the_grace_counts(
    clock: MockClock,
    one_end: OneEnd,
    close: Callable[[WebSocket], Awaitable[None]],
) -> None:
    async with one_end(close_grace=1.0) as (half, peer), trio.open_nursery() as nursery:
        heard = collect_events(half)
        half.accept()
        nursery.start_soon(close, half)
        assert await peer.receive() == (1000, "")
        await a_few_steps()
        send_while_blocked(clock, peer, peer.close_frame(1000), 1.5)
        await half.wait_closed()
        assert heard == [CLEAN]


async def test_an_unread_message_before_an_unread_close_counts(
    clock: MockClock, one_end: OneEnd
) -> None:
    async with one_end(close_grace=1.0) as (half, peer):
        heard = collect_events(half)
        half.accept()
        half.close(1000)
        assert await peer.receive() == (1000, "")
        await a_few_steps()
        data = peer.text_frame("last words") + peer.close_frame(1000)
        send_while_blocked(clock, peer, data, 1.5)
        await half.wait_closed()
        assert heard == ["last words", CLEAN]


async def test_leaving_a_block_reads_an_unread_close(
    clock: MockClock, net: Network
) -> None:
    async def answer_late(peer: ScriptedPeer) -> None:
        await peer.handshake()
        assert await peer.receive() == (1000, "")
        await a_few_steps()
        send_while_blocked(clock, peer, peer.close_frame(1000), 1.5)
        await peer.receive_all()

    async with net.script(answer_late) as url:
        async with open_websocket(url, close_grace=1.0) as client:
            heard: list[CloseEvent] = []
            client.on("close")(heard.append)
        assert heard == [CLEAN]


async def test_a_server_that_stops_reads_an_unread_close(
    clock: MockClock, net: Network, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_wspair.access")
    stop = trio.Event()

    async def run_server(*, task_status: trio.TaskStatus[Server]) -> None:
        async with net.serve(net.echo, close_grace=1.0) as server:
            task_status.started(server)
            await stop.wait()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(run_server)
        async with net.peer(server) as peer:
            stop.set()
            assert await peer.receive() == (1001, "the server stops")
            await a_few_steps()
            send_while_blocked(clock, peer, peer.close_frame(1001), 1.5)
            assert await peer.receive() is None
    [record] = caplog.records
    assert vars(record)["code"] == 1001


# -- HTTP ---------------------------------------------------------------------------


REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def page(request: Request) -> Response:
    return Response(await request.text() or "page")


async def test_an_unread_request_at_the_end_of_the_idle_time_is_served(
    clock: MockClock, net: Network
) -> None:
    async with net.serve(page, idle_timeout=1.0) as server, net.dial(server) as peer:
        await peer.send(REQUEST)
        await peer.read_head()
        await a_few_steps()
        send_while_blocked(clock, peer, REQUEST, 1.5)
        assert (await peer.read_head()).startswith("page")


async def test_over_tls_an_unread_request_at_the_end_of_the_idle_time_is_served(
    clock: MockClock, net: Network, tls: Tls
) -> None:
    def open_client(port: int) -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", port), timeout=10)
        return tls.client.wrap_socket(raw, server_hostname="localhost")

    def read(client: ssl.SSLSocket) -> bytes:
        data = b""
        while not data.endswith(b"page") and (piece := client.recv(1000)):
            data += piece
        return data

    in_thread = trio.to_thread.run_sync
    options: dict[str, Any] = {"idle_timeout": 1.0, "ssl_context": tls.server}
    async with net.serve(page, **options) as server:
        with closing(await in_thread(open_client, server.port)) as client:
            client.sendall(REQUEST)
            assert (await in_thread(read, client)).endswith(b"page")
            await a_few_steps()
            client.sendall(REQUEST)
            clock.jump(1.5)
            assert (await in_thread(read, client)).endswith(b"page")


async def test_an_unread_head_at_its_deadline_is_served(
    clock: MockClock, net: Network
) -> None:
    async with (
        net.serve(page, handshake_timeout=1.0) as server,
        net.dial(server) as peer,
    ):
        await peer.send(REQUEST[:10])
        await a_few_steps()
        send_while_blocked(clock, peer, REQUEST[10:], 1.5)
        assert (await peer.read_head()).startswith("HTTP/1.1 200 ")


async def test_an_unread_body_at_its_deadline_is_read(
    clock: MockClock, net: Network
) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
    async with net.serve(page, body_timeout=1.0) as server, net.dial(server) as peer:
        await peer.send(head + b"bo")
        await a_few_steps()
        send_while_blocked(clock, peer, b"dy", 1.5)
        assert (await peer.read_head()).startswith("HTTP/1.1 200 ")


async def test_an_unread_upgrade_at_its_deadline_becomes_a_websocket(
    clock: MockClock, net: Network
) -> None:
    async with (
        net.serve(net.echo, handshake_timeout=1.0) as server,
        net.dial(server) as peer,
    ):
        upgrade = net.head("Host: a", *net.UPGRADE[1:], start="GET / HTTP/1.1")
        await peer.send(upgrade[:10])
        await a_few_steps()
        send_while_blocked(clock, peer, upgrade[10:], 1.5)
        assert (await peer.read_head()).startswith("HTTP/1.1 101 ")
        await peer.send(peer.text_frame("hello"))
        assert await peer.receive() == "hello"


@pytest.mark.xfail(
    strict=True,
    reason="the time to connect is one cancel scope around several steps; a "
    "deadline that counts unread bytes needs the poller",
)
async def test_an_unread_response_at_the_end_of_connecting_is_read(
    clock: MockClock, net: Network
) -> None:
    async def answer(peer: ScriptedPeer) -> None:
        request = await peer.read_head()
        key = request.partition("Sec-WebSocket-Key: ")[2].partition("\r\n")[0]
        await a_few_steps()
        head = net.head(
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {net.accept_key(key)}",
            start="HTTP/1.1 101 Switching Protocols",
        )
        send_while_blocked(clock, peer, head, 1.5)
        await a_few_steps()
        await peer.send(peer.text_frame("welcome"))
        await peer.receive_all()

    async with net.script(answer) as url, trio.open_nursery() as nursery:
        options: dict[str, Any] = {"connect_timeout": 1.0, "close_grace": 0.1}
        client = await connect(url, nursery=nursery, **options)
        assert await client.receive() == "welcome"
        nursery.cancel_scope.cancel()

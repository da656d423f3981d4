"""Peers that have ended their direction, and then read no more, or go on reading."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from network import OneEnd
from pairs import bounded, clean, collect_events
from patched_network import memory_network
from trio.testing import MockClock, memory_stream_pair

from trio_wspair import (
    ConnectionClosedError,
    MessageEvent,
    Request,
    Response,
    Server,
    WebSocket,
    WebSocketPair,
    serve,
)
from trio_wspair.testing import FaultyStream, ScriptedPeer
from trio_wspair.testing._scripted_peer import PING, UPGRADE, head

pytestmark = pytest.mark.usefixtures("engine")

REQUEST = head(*UPGRADE, start="GET / HTTP/1.1")


Meet = Callable[[], Awaitable[tuple[ScriptedPeer, WebSocket]]]


@asynccontextmanager
async def serving_one(**faults: Any) -> AsyncGenerator[Meet]:
    """Run a server for one client at a time, and give a function that makes one.

    It returns the client, and the half of the server that it has a WebSocket to.
    """
    send, receive = trio.open_memory_channel[WebSocket](1)

    async def fetch(_request: Request) -> Response:
        client, server = WebSocketPair()
        send.send_nowait(server)
        return Response(None, status=101, web_socket=client)

    async def meet() -> tuple[ScriptedPeer, WebSocket]:
        stream = await trio.open_tcp_stream(*server.addresses[0])
        peer = ScriptedPeer(stream, masks=True)
        answer = await peer.handshake()
        assert answer.startswith("HTTP/1.1 101 "), answer
        return peer, await receive.receive()

    with memory_network(server=partial(FaultyStream, **faults)):
        async with trio.open_nursery() as nursery:
            run = partial(serve, fetch, 0, max_connections=1)
            server: Server = await nursery.start(run)
            yield meet
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("pings", [0, 1, 3])
@bounded
async def test_g3_messages_that_have_arrived_count_although_nothing_can_be_sent(
    pings: int, autojump_clock: MockClock
) -> None:
    frames = ScriptedPeer(memory_stream_pair()[0], masks=True)
    ping = frames.frame(PING, b"?") * pings
    said = (
        ping
        + frames.text_frame("one")
        + ping
        + frames.text_frame("two")
        + frames.close_frame(3000)
    )
    for seed in range(10):
        trio._core._run._r.seed(seed)
        # Neither the pongs nor the Close can be sent.
        async with serving_one(cut_after_received=len(REQUEST + said)) as meet:
            peer, server = await meet()
            heard = collect_events(server)
            server.accept()
            await peer.send(said)
            await server.wait_closed()
            assert heard == ["one", "two", clean(3000)]


@bounded
async def test_g3_a_peer_that_sends_no_more_can_still_read(
    autojump_clock: MockClock,
) -> None:
    async with serving_one() as meet:
        peer, server = await meet()
        server.accept(allow_half_open=True)
        await peer.send(peer.close_frame(3000))
        assert isinstance(peer.stream, trio.abc.HalfCloseableStream)
        await peer.stream.send_eof()
        await trio.sleep(1)
        server.send("late")
        server.close(3001)
        assert await server.wait_closed() == clean(3000)
        assert await peer.receive_all() == ["late", (3001, "")]


@pytest.mark.parametrize("half_open", [False, True], ids=["answers", "half-open"])
@bounded
async def test_g10_a_peer_that_is_gone_after_its_close_is_not_waited_for(
    *, half_open: bool, autojump_clock: MockClock
) -> None:
    async with serving_one() as meet:
        peer, server = await meet()
        server.accept(allow_half_open=half_open)
        await peer.send(peer.close_frame(3000))
        await peer.stream.aclose()
        await trio.sleep(1)
        server.close(3001)
        assert await server.wait_closed() == clean(3000)
        await trio.sleep(1)  # less than `close_grace`
        await meet()


async def ping_on(half: WebSocket) -> None:
    while True:
        await half.ping()


async def test_a_ping_before_the_close_event_fails_as_one_after_it(
    one_end: OneEnd,
) -> None:
    async with one_end() as (half, peer):
        failed: list[BaseException] = []

        @half.on("message")
        async def slow(_event: MessageEvent) -> None:
            await peer.stream.aclose()
            with pytest.raises(ConnectionClosedError) as caught:
                await ping_on(half)
            await trio.testing.wait_all_tasks_blocked(0.05)
            with pytest.raises(ConnectionClosedError):
                await half.ping()
            failed.append(caught.value)

        half.accept()
        await peer.send(peer.text_frame("x"))
        await half.wait_closed()
        assert len(failed) == 1

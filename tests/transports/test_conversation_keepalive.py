"""Keepalive: pings while a connection is idle, and silent peers."""

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from network import Network, OneEnd
from pairs import Received, collect_events
from trio._core._run import _r as scheduler_random
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wspair import (
    CloseEvent,
    ErrorEvent,
    WebSocket,
    WebSocketPair,
    connect,
    serve,
)
from trio_wspair.transports import Close, couple

Item = str | bytes | Close
NOTHING_SENT = "the peer sent nothing for 5.0 s after a ping"
GONE = CloseEvent(1006, NOTHING_SENT, was_clean=False)


class Peer:
    """A connection to a peer that answers pings after some time, or never."""

    def __init__(self, answers_after: float) -> None:
        self._arrived, self._waiting = trio.open_memory_channel[Item](math.inf)
        self.answers_after = answers_after
        self.heard_at = trio.current_time()
        self.pinged_at: list[float] = []
        self.sent: list[Item] = []
        self.aborted = trio.Event()

    def receives(self, item: Item) -> None:
        self._arrived.send_nowait(item)

    async def receive(self) -> Sequence[Item]:
        item = await self._waiting.receive()
        self.heard_at = trio.current_time()
        return [item]

    async def ping(self) -> float:
        self.pinged_at.append(trio.current_time())
        await trio.sleep(self.answers_after)
        self.heard_at = trio.current_time()
        return self.answers_after

    async def send(self, items: Sequence[Item]) -> None:
        self.sent += items
        await trio.lowlevel.checkpoint()

    async def aclose(self, code: int, reason: str) -> None:
        self.sent.append(Close(code, reason))
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        self.aborted.set()


@asynccontextmanager
async def joined(
    answers_after: float, **options: Any
) -> AsyncGenerator[tuple[WebSocket, Peer]]:
    """Couple a half with a peer, and give the other half; pings every 10 s."""
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            half, far = WebSocketPair(nursery)
            peer = Peer(answers_after)

            async def run() -> None:
                defaults = {"ping_interval": 10.0, "ping_timeout": 5.0}
                await couple(half, peer, **{**defaults, **options})

            nursery.start_soon(run)
            await wait_all_tasks_blocked()
            yield far, peer
            nursery.cancel_scope.cancel()


async def test_an_idle_peer_is_pinged_and_kept(autojump_clock: MockClock) -> None:
    async with joined(0.5) as (far, peer):
        heard = collect_events(far)
        far.accept()
        assert far.latency is None
        await trio.sleep(35)
        assert peer.pinged_at == [10, 20.5, 31]
        assert far.latency == 0.5
        assert heard == []


async def test_a_peer_that_stops_answering_is_dropped(
    autojump_clock: MockClock,
) -> None:
    async with joined(math.inf) as (far, peer):
        heard = collect_events(far)
        far.accept()
        await peer.aborted.wait()
        assert trio.current_time() == 15
        await far.wait_closed()
        error, close = heard
        assert isinstance(error, ErrorEvent)
        assert isinstance(error.error, TimeoutError)
        assert str(error.error) == NOTHING_SENT
        assert close == GONE
        assert peer.sent == []


@pytest.mark.parametrize("reverse", [False, True])
async def test_g11_a_close_at_the_moment_of_the_timeout_is_answered_with_its_own_grace(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, reverse: bool
) -> None:
    """Whichever task Trio runs first, the closing handshake begins."""

    def put_in_order(batch: list[trio.lowlevel.Task]) -> None:
        batch.sort(key=lambda task: task._counter, reverse=reverse)

    monkeypatch.setattr(scheduler_random, "shuffle", put_in_order)
    async with joined(math.inf, close_grace=3.0) as (far, peer):
        heard = collect_events(far)
        far.accept()
        await trio.sleep_until(15)
        far.close(1000)
        await peer.aborted.wait()
        assert trio.current_time() == 18
        assert peer.sent == [Close(1000)]
        await far.wait_closed()
        error = heard[0]
        assert isinstance(error, ErrorEvent)
        assert str(error.error) == "the peer did not answer the Close in 3.0 s"


async def test_any_message_counts_as_a_pong(autojump_clock: MockClock) -> None:
    async with joined(math.inf) as (far, peer):
        heard = collect_events(far)
        far.accept()
        for _ in range(10):
            await trio.sleep(4)
            peer.receives("still here")
        await trio.sleep(4)
        assert heard == ["still here"] * 10
        assert len(peer.pinged_at) == 1
        await peer.aborted.wait()
        assert trio.current_time() == 45


async def test_no_pong_is_expected_while_reading_is_paused(
    autojump_clock: MockClock,
) -> None:
    async with joined(math.inf, receive_buffer_bytes=100) as (far, peer):
        far.accept(pull=True)
        for _ in range(3):
            peer.receives("x" * 90)
        await trio.sleep(100)
        assert not peer.aborted.is_set()
        for _ in range(3):
            await far.receive()
        resumed = trio.current_time()
        await peer.aborted.wait()
        assert trio.current_time() == resumed + 5


async def test_no_ping_is_sent_during_the_closing_handshake(
    autojump_clock: MockClock,
) -> None:
    async with joined(math.inf, close_grace=60.0) as (far, peer):
        heard = collect_events(far)
        far.accept()
        await trio.sleep(12)
        far.close(1000, "bye")
        await trio.sleep(50)
        assert peer.sent == [Close(1000, "bye")]
        assert len(peer.pinged_at) == 1
        peer.receives(Close(1000, "bye"))
        await far.wait_closed()
        assert heard == [CloseEvent(1000, "bye", was_clean=True)]


async def test_a_peer_that_has_sent_its_close_needs_no_pong(
    autojump_clock: MockClock,
) -> None:
    async with joined(math.inf) as (far, peer):
        heard = collect_events(far)
        far.accept(allow_half_open=True)
        await trio.sleep(12)
        peer.receives(Close(1000, "bye"))
        await trio.sleep(100)
        assert not peer.aborted.is_set()
        far.send("last words")
        far.close(1000)
        await far.wait_closed()
        assert peer.sent == ["last words", Close(1000, "")]
        assert heard == [CloseEvent(1000, "bye", was_clean=True)]


async def test_an_infinite_interval_turns_keepalive_off(
    autojump_clock: MockClock,
) -> None:
    async with joined(0.5, ping_interval=math.inf) as (far, peer):
        far.accept()
        await trio.sleep(900)
        assert peer.pinged_at == []


async def test_durations_are_checked() -> None:
    async def fetch(_request: object) -> Any: ...

    for option in "ping_interval", "ping_timeout":
        wrong: dict[str, Any] = {option: -1}
        with pytest.raises(ValueError, match=f"{option} must be 0 or more"):
            await serve(fetch, 0, **wrong)
        async with trio.open_nursery() as nursery:
            with pytest.raises(ValueError, match=f"{option} must be 0 or more"):
                await connect("ws://localhost/", nursery=nursery, **wrong)


# -- on the network ---------------------------------------------------------------


async def test_on_the_network_pongs_keep_a_connection(one_end: OneEnd) -> None:
    async with one_end(ping_interval=0.01, ping_timeout=9.0) as (half, peer):
        half.accept()
        for _ in range(3):
            said = await peer.receive()
            assert isinstance(said, tuple)
            assert said[0] == "ping"
            await peer.send(peer.frame(10, said[1]))
        assert half.latency is not None
        assert half.latency >= 0


async def test_on_the_network_a_silent_peer_is_dropped(one_end: OneEnd) -> None:
    async with one_end(ping_interval=0.01, ping_timeout=0.05) as (half, peer):
        heard: list[Received] = collect_events(half)
        half.accept()
        everything = await peer.receive_all()
        assert [said[0] for said in everything if isinstance(said, tuple)] == ["ping"]
        close = await half.wait_closed()
        assert (close.code, close.was_clean) == (1006, False)
        assert [type(event) for event in heard] == [ErrorEvent, CloseEvent]


async def test_two_ends_keep_each_other_alive(net: Network) -> None:
    options = {"ping_interval": 0.005, "ping_timeout": 5.0}
    async with net.joined(client_options=options, **options) as (client, server):
        client.accept()
        server.accept()
        await net.until(lambda: client.latency is not None)
        await net.until(lambda: server.latency is not None)
        await client.aclose()
        assert (await server.wait_closed()).code == 1000


async def test_no_ping_is_sent_while_a_close_waits_behind_a_long_queue(
    one_end: OneEnd,
) -> None:
    async with one_end() as (half, peer):
        half.accept()
        for _ in range(4):
            half.send(b"x" * 2**18)
        half.close(1000)
        heard = [await peer.receive() for _ in range(5)]
        assert heard == [b"x" * 2**18] * 4 + [(1000, "")]
        await peer.send(peer.close_frame(1000))
        await half.wait_closed()

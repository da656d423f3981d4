"""The inspector: what it keeps, and its updates for pages; in virtual time."""

import json
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trio_wspair import (
    ConnectionInfo,
    WebSocket,
    WebSocketPair,
    open_websocket_pair,
    use_instrument,
)
from trio_wspair.inspector import _connections, open_inspector
from trio_wspair.inspector._connections import Connections, Frame, Frames, History
from trio_wspair.inspector._inspector import Watcher
from trio_wspair.transports import Close, couple
from trio_wspair.transports._connection import Item


@asynccontextmanager
async def connected(
    connections: Connections, url: str = "http://a/", peer: str = "10.0.0.1"
) -> AsyncGenerator[tuple[WebSocket, WebSocket]]:
    """Give a pair whose first half is reported as that of a connection."""
    async with AsyncExitStack() as stack:
        with use_instrument(connections):
            pair = await stack.enter_async_context(open_websocket_pair())
        network, ours = pair
        network.accept(pull=True)
        ours.accept(pull=True)
        connections.connected(network, ConnectionInfo("server", peer, url))
        yield network, ours


class Page:
    """The client of a `Watcher`, in place of the page's script."""

    def __init__(self, ws: WebSocket) -> None:
        self.ws = ws
        self.revision = 0
        self.rows: dict[int, dict[str, Any]] = {}
        self.frames: list[dict[str, Any]] = []
        self.of: int | None = None

    @property
    def last(self) -> int:
        return self.frames[-1]["number"] if self.frames else 0

    def ask(self) -> None:
        question = {
            "revision": self.revision,
            "connection": self.of,
            "after": self.last,
        }
        self.ws.send(json.dumps(question))

    async def update(self) -> None:
        update = json.loads(await self.ws.receive())
        self.revision = update["revision"]
        self.rows |= {row["id"]: row for row in update["connections"]}
        if "ids" in update:
            self.rows = {id_: self.rows[id_] for id_ in update["ids"]}
        if update.get("of") == self.of:
            self.frames += update.get("frames", [])

    async def learn(self) -> None:
        self.ask()
        with trio.fail_after(10):
            await self.update()


@asynccontextmanager
async def watching(connections: Connections) -> AsyncGenerator[Page]:
    """Connect a page for a block."""
    async with (
        open_websocket_pair() as (client, server),
        trio.open_nursery() as nursery,
    ):
        client.accept(pull=True)
        nursery.start_soon(Watcher(server, connections).run)
        yield Page(client)
        nursery.cancel_scope.cancel()


# -- bounds ------------------------------------------------------------------------


def frame(number: int, data: str | bytes = "") -> Frame:
    return Frame(number, 0.0, "in", "text", data, len(data))


def numbers(history: History) -> list[int]:
    return [frame.number for frame in history]


def test_the_last_frames_of_a_connection_are_kept() -> None:
    frames, history = Frames(3, 2**20), History()
    for number in range(1, 6):
        frames.add(frame(number), history)
    assert numbers(history) == [3, 4, 5]


def test_when_all_frames_are_too_many_the_oldest_are_dropped() -> None:
    frames = Frames(100, 100_000)
    silent, busy = History(), History()
    frames.add(frame(1), silent)
    for number in range(1, 31):
        frames.add(frame(number, "x" * 10_000), busy)
    assert numbers(silent) == []
    assert numbers(busy) == list(range(22, 31))
    assert frames.weight <= 100_000


def test_dropped_frames_no_longer_count() -> None:
    frames, history = Frames(100, 2**20), History(deque())
    for number in range(1, 4):
        frames.add(frame(number, "text"), history)
    frames.forget(history)
    assert frames.weight == 0
    assert not history


@pytest.mark.parametrize("message", ["x" * 100_000, b"x" * 100_000, "🙂" * 50_000])
def test_a_long_payload_is_cut_and_has_its_size(message: str | bytes) -> None:
    kept = Frame(1, 0.0, "in", "text", message, 200_000)
    assert kept.data == message[: 2**14]
    assert kept.size == 200_000
    assert kept.folded
    assert not frame(2, "x" * 2**14).folded


async def test_a_limited_number_of_closed_connections_is_kept(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_connections, "_MOST_OVER", 2)
    connections = Connections()
    async with trio.open_nursery() as nursery, watching(connections) as page:
        nursery.start_soon(connections.keep_sampling)
        async with connected(connections, "http://open/"):
            for number in range(5):
                async with connected(connections, f"http://{number}/") as (network, _):
                    network.send("something")
                await page.learn()
                page.of = max(page.rows)
            urls = [row["url"] for row in page.rows.values()]
            assert urls == ["http://open/", "http://3/", "http://4/"]
            kept = [w.history for w in connections.by_id.values()]
            weight = sum(frame.weight for history in kept for frame in history)
            assert connections._frames.weight == weight > 0
        nursery.cancel_scope.cancel()


async def test_long_texts_are_cut_before_they_are_sent(
    autojump_clock: MockClock,
) -> None:
    connections = Connections()
    async with connected(connections, "http://a/" + "x" * 10_000, "y" * 10_000):
        (watched,) = connections.by_id.values()
        told = watched.as_json()
        assert len(told["url"]) == len(told["peer"]) == 1000


async def test_after_its_end_the_inspector_keeps_nothing(
    autojump_clock: MockClock,
) -> None:
    connections = Connections()
    async with connected(connections) as (network, _):
        network.send("before")
        connections.stop()
        network.send("after")
        (watched,) = connections.by_id.values()
        assert [frame.data for frame in watched.history] == ["before"]
    async with connected(connections):
        assert len(connections.by_id) == 1


class Jammed:
    """A connection on which messages are stuck, but a Close passes."""

    def __init__(self, *, answers: bool) -> None:
        self.answers = answers
        self.closing = trio.Event()

    async def receive(self) -> Sequence[Item]:
        await self.closing.wait()
        if not self.answers:
            await trio.sleep_forever()
        self.answers = False
        return [Close(1001)]

    async def send(self, items: Sequence[Item]) -> None:
        if not isinstance(items[-1], Close):
            await trio.sleep_forever()
        self.closing.set()

    async def aclose(self, _code: int, _reason: str) -> None:
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        pass


@pytest.mark.parametrize("answers", [True, False])
async def test_a_close_is_shown_although_messages_before_it_are_stuck(
    autojump_clock: MockClock, answers: bool
) -> None:
    connections = Connections()
    async with AsyncExitStack() as stack:
        with use_instrument(connections):
            pair = await stack.enter_async_context(open_websocket_pair())
        network, ours = pair
        ours.accept()
        ours.send("stuck")
        connections.connected(network, ConnectionInfo("server", "", "http://a/"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connections.keep_sampling)
            with trio.move_on_after(1):
                await couple(network, Jammed(answers=answers))
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        (watched,) = connections.by_id.values()
        told = [(f.way, f.kind, f.code) for f in watched.history]
        answer = ("in", "close", 1001) if answers else ("", "error", 1006)
        assert sorted(told) == sorted([("out", "close", 1001), answer])
        assert answers or told[-1] == answer


# -- a page ----------------------------------------------------------------------------


async def test_a_page_gets_what_is_new_and_nothing_twice(
    autojump_clock: MockClock,
) -> None:
    connections = Connections()
    async with (
        connected(connections, "http://a/path") as (network, ours),
        watching(connections) as page,
    ):
        await page.learn()
        (page.of,) = page.rows
        assert page.rows[page.of]["url"] == "http://a/path"
        network.send("héllo")
        ours.send(b"\x00\xff")
        ours.send("not yet taken")
        await network.receive()
        await page.learn()
        network.send("again")
        await page.learn()
        told = [(f["number"], f["way"], f["kind"], f["data"]) for f in page.frames]
        assert told == [
            (1, "in", "text", "héllo"),
            (2, "out", "binary", "AP8="),
            (3, "in", "text", "again"),
        ]
        row = page.rows[page.of]
        assert row["in"] == {"messages": 2, "bytes": 11, "buffered": 0}
        assert row["out"] == {"messages": 1, "bytes": 2, "buffered": 0}


async def test_without_changes_there_is_no_answer(autojump_clock: MockClock) -> None:
    connections = Connections()
    async with connected(connections) as (network, _), watching(connections) as page:
        await page.learn()
        page.ask()
        with trio.move_on_after(1000) as patience:
            await page.update()
        assert patience.cancelled_caught
        network.send("news")
        with trio.fail_after(1):
            await page.update()


async def test_a_page_gets_at_most_ten_updates_a_second(
    autojump_clock: MockClock,
) -> None:
    connections = Connections()
    async with connected(connections) as (network, _), watching(connections) as page:
        began = trio.current_time()
        for _ in range(11):
            network.send("news")
            await page.learn()
        assert trio.current_time() - began == pytest.approx(1)


async def test_the_last_request_of_a_page_is_answered(
    autojump_clock: MockClock,
) -> None:
    connections = Connections()
    async with (
        connected(connections) as (one, _),
        connected(connections) as (two, _),
        watching(connections) as page,
    ):
        one.send("of one")
        two.send("of two")
        await page.learn()
        first, second = page.rows
        page.revision = connections.revision
        page.of = first
        await page.learn()
        page.ask()
        page.of, page.frames = second, []
        page.ask()
        await page.update()
        assert [frame["data"] for frame in page.frames] == ["of two"]


async def test_a_page_that_reads_nothing_has_one_pending_update(
    autojump_clock: MockClock,
) -> None:
    connections = Connections()
    async with (
        connected(connections) as (network, ours),
        open_websocket_pair() as (client, server),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(Watcher(server, connections).run)
        page = Page(client)
        client.accept(pull=True)
        (page.of,) = connections.by_id
        owed = set()
        for _ in range(50):
            page.ask()
            for _ in range(100):
                network.send("x" * 1000)
                await ours.receive()
            await trio.sleep(1)
            owed.add(server.buffered_amount)
        assert len(owed) == 1
        assert 0 < max(owed) < 2**20
        nursery.cancel_scope.cancel()


async def test_a_slow_page_misses_frames_and_can_tell(
    autojump_clock: MockClock,
) -> None:
    connections = Connections()
    async with (
        connected(connections) as (network, ours),
        watching(connections) as page,
    ):
        network.send("first")
        await page.learn()
        (page.of,) = page.rows
        page.revision = 0
        await page.learn()
        for number in range(2000):
            network.send(str(number))
            await ours.receive()
        for _ in range(3):
            await page.learn()
        assert [frame["number"] for frame in page.frames] == [1, *range(1502, 2002)]


async def test_the_size_of_an_update_is_bounded(autojump_clock: MockClock) -> None:
    connections = Connections()
    async with (
        connected(connections) as (network, ours),
        watching(connections) as page,
    ):
        for _ in range(300):
            network.send("\0" * 2**14)  # Six times as long as JSON.
            await ours.receive()
        (page.of,) = connections.by_id
        page.ask()
        text = await page.ws.receive()
        assert 10 <= len(json.loads(text)["frames"]) < 30
        assert len(text) < 2**21


async def test_many_connections_are_sent_in_several_updates(
    autojump_clock: MockClock,
) -> None:
    connections = Connections()
    async with watching(connections) as page, trio.open_nursery() as nursery:
        with use_instrument(connections):
            for number in range(450):
                network, _ = WebSocketPair(nursery)
                info = ConnectionInfo("server", "", f"http://{number}/")
                connections.connected(network, info)
        page.ask()
        first = json.loads(await page.ws.receive())
        assert len(first["connections"]) == 200
        assert "ids" in first
        page.revision = first["revision"]
        page.rows = {row["id"]: row for row in first["connections"]}
        page.ask()
        second = json.loads(await page.ws.receive())
        page.revision = second["revision"]
        page.ask()
        third = json.loads(await page.ws.receive())
        told = first["connections"] + second["connections"] + third["connections"]
        assert [row["id"] for row in told] == list(connections.by_id)


@pytest.mark.parametrize(
    "nonsense",
    [
        "",
        "{",
        "[]",
        "5",
        b"\xff",
        "[" * 500_000,
        '{"revision": 0}',
        '{"revision": "0", "connection": null, "after": 0}',
        '{"revision": 0, "connection": [], "after": 0}',
        '{"revision": 0, "connection": null, "after": null}',
    ],
)
async def test_an_invalid_request_closes_the_page_with_1008(
    autojump_clock: MockClock, nonsense: str | bytes
) -> None:
    connections = Connections()
    async with connected(connections), watching(connections) as page:
        page.ws.send(nonsense)
        page.ask()  # The page has already gone.
        with trio.fail_after(10):
            event = await page.ws.wait_closed()
        assert (event.code, event.reason) == (1008, "invalid question")


async def test_the_watcher_of_a_page_ends_with_it(autojump_clock: MockClock) -> None:
    connections = Connections()
    async with connected(connections) as (network, _):
        async with (
            open_websocket_pair() as (client, server),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(Watcher(server, connections).run)
            page = Page(client)
            client.accept(pull=True)
            await page.learn()
            page.ask()
            await trio.testing.wait_all_tasks_blocked()
            network.send("news")
            client.close()  # Both happen before the watcher runs again.
        assert not nursery.child_tasks


@pytest.mark.parametrize(
    ("port", "error"), [("8000", TypeError), (-1, ValueError), (2**16, ValueError)]
)
async def test_a_wrong_port_is_refused(
    autojump_clock: MockClock, port: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        async with open_inspector(port):
            raise AssertionError

"""The chat room: the messages that its members get, with and without eviction.

All tests but the last run in virtual time; tests/browser tests the page.
"""

import json
import re
import signal
import subprocess
import sys
import weakref
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any

import pytest
import trio
from example_modules import EXAMPLES, load_example
from patched_network import memory_network
from processes import read_to_end, running
from trio.testing import MockClock

from trio_wspair import (
    ConnectionClosedError,
    Request,
    WebSocket,
    open_websocket,
    serve,
)
from trio_wspair.hibernation import DurableObjectNamespace
from trio_wspair.testing import hibernate_after_every_event

pytestmark = pytest.mark.usefixtures("logged")

News = dict[str, Any]

chat_room: Any = load_example("chat_room")


class Visitor:
    """A client of the chat room."""

    def __init__(self, ws: WebSocket) -> None:
        self.ws = ws

    def send(self, **message: object) -> None:
        self.ws.send(json.dumps(message))

    async def receive(self) -> News:
        news: News = json.loads(await self.ws.receive())
        return news

    async def expects(self, **expected: object) -> None:
        """Check the given fields of the next message."""
        news = await self.receive()
        assert {key: news.get(key) for key in expected} == expected, news

    async def receives_until_the_end(self) -> None:
        while True:
            await self.receive()

    async def join(self, name: str) -> list[str]:
        """Join, and return the replayed texts."""
        self.send(type="join", name=name)
        welcome = await self.receive()
        assert (welcome["type"], welcome["name"]) == ("welcome", name)
        await self.expects(type="joined", name=name)
        return [said["text"] for said in welcome["messages"]]

    async def expects_only(self, speaker: "Visitor", text: str) -> None:
        """Check that nothing comes before a new message of `speaker`."""
        speaker.send(type="say", text=text)
        await self.expects(type="said", text=text)
        if speaker is not self:
            await speaker.expects(type="said", text=text)


class Chat:
    """The example, served in memory."""

    def __init__(self, rooms: DurableObjectNamespace, url: str) -> None:
        self.rooms = rooms
        self.url = url

    @asynccontextmanager
    async def visit(self, room: str = "lobby") -> AsyncGenerator[Visitor]:
        async with open_websocket(f"{self.url}rooms/{room}/ws") as ws:
            yield Visitor(ws)

    @asynccontextmanager
    async def two(self) -> AsyncGenerator[tuple[Visitor, Visitor]]:
        """Join the lobby as Ada and Bob, and read the notices."""
        async with self.visit() as ada, self.visit() as bob:
            await ada.join("Ada")
            await bob.join("Bob")
            await ada.expects(type="joined", name="Bob")
            yield ada, bob

    def evict(self, room: str = "lobby") -> None:
        self.rooms.evict(self.rooms.id_from_name(room))


@asynccontextmanager
async def open_chat(
    cls: Any = None, hibernate_after: float = 10.0
) -> AsyncGenerator[Chat]:
    with trio.fail_after(600):
        async with (
            DurableObjectNamespace(
                cls or chat_room.Room, chat_room.Histories(), hibernate_after
            ) as rooms,
            trio.open_nursery() as nursery,
        ):
            handler = partial(chat_room.fetch, rooms)
            server = await nursery.start(serve, handler, 0)
            yield Chat(rooms, server.url)
            nursery.cancel_scope.cancel()


@pytest.fixture(params=["awake", "forgetful"])
async def chat(
    request: pytest.FixtureRequest,
) -> AsyncGenerator[Chat]:
    """A chat: once as it is, and once with rooms evicted after every event."""
    with memory_network():
        async with open_chat() as chat:
            forgetful = request.param == "forgetful"
            with (
                hibernate_after_every_event(chat.rooms) if forgetful else nullcontext()
            ):
                yield chat


# -- joining --------------------------------------------------------------------


async def test_every_member_gets_the_names_of_members_and_of_new_ones(
    chat: Chat, autojump_clock: MockClock
) -> None:
    async with chat.visit() as ada, chat.visit() as bob:
        await ada.join("Ada")
        bob.send(type="join", name="  bob \t the \n builder ")
        await bob.expects(type="welcome", name="bob the builder", messages=[])
        for visitor in (bob, ada):
            people = ["Ada", "bob the builder"]
            await visitor.expects(type="joined", name="bob the builder", people=people)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "A name is required"),
        (" \n\u2003", "A name is required"),
        ("x" * 25, "at most 24 characters"),
        ("x" * 60_000, "at most 24 characters"),
        ("a\u202eb", "can't be shown"),
        ("\x00", "can't be shown"),
        ("\ud800", "can't be shown"),
        ("Ada", "The name Ada is taken"),
        (" aDA ", "The name aDA is taken"),
    ],
)
async def test_an_unsuitable_name_is_refused(
    chat: Chat, autojump_clock: MockClock, name: str, reason: str
) -> None:
    async with chat.visit() as ada, chat.visit() as other:
        await ada.join("Ada")
        other.send(type="join", name=name)
        news = await other.receive()
        assert news["type"] == "error"
        assert reason in news["text"]
        await ada.expects_only(ada, "the room is empty")
        assert await other.join("x" * 24) == ["the room is empty"]


async def test_a_second_join_is_refused(chat: Chat, autojump_clock: MockClock) -> None:
    async with chat.visit() as ada:
        await ada.join("Ada")
        ada.send(type="join", name="Grace")
        await ada.expects(type="error", text="You have joined already, as Ada.")
        ada.send(type="say", text="still me")
        await ada.expects(type="said", name="Ada")


async def test_a_client_that_has_not_joined_gets_no_messages_and_is_not_listed(
    chat: Chat, autojump_clock: MockClock
) -> None:
    async with chat.visit() as ada, chat.visit() as lurker:
        await ada.join("Ada")
        await ada.expects_only(ada, "are we alone?")
        lurker.send(type="say", text="yes")
        await lurker.expects(type="error", text="Join before you send a message.")
        lurker.send(type="join", name="Lurker")
        await lurker.expects(type="welcome")
        await ada.expects(type="joined", people=["Ada", "Lurker"])


# -- talking --------------------------------------------------------------------


async def test_every_member_gets_the_messages_in_order(
    chat: Chat, autojump_clock: MockClock
) -> None:
    async with chat.two() as (ada, bob):
        for text in ("one", "two", "<b>three</b>\n\u4f60\u597d"):
            ada.send(type="say", text=f"  {text}\n")
        times = []
        for text in ("one", "two", "<b>three</b>\n\u4f60\u597d"):
            await bob.expects(type="said", name="Ada", text=text)
            news = await ada.receive()
            assert (news["name"], news["text"]) == ("Ada", text)
            times.append(news["time"])
        assert times == sorted(times)


async def test_rooms_are_independent(chat: Chat, autojump_clock: MockClock) -> None:
    async with chat.visit("north") as ada, chat.visit("south") as namesake:
        await ada.join("Ada")
        assert await namesake.join("Ada") == []
        await ada.expects_only(ada, "in the north")
        await namesake.expects_only(namesake, "in the south")
        async with chat.visit("north") as bob:
            assert await bob.join("Bob") == ["in the north"]


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "[" * 60_000,
        b"\xff\xfe\xff",
        "null",
        "[]",
        '"join"',
        "{}",
        '{"type": "say"}',
        '{"type": "say", "text": 1}',
        '{"type": "say", "text": ""}',
        '{"type": "say", "text": " \\n "}',
        '{"type": "say", "text": "%s"}' % ("x" * 1001),
        '{"type": "join"}',
        '{"type": "join", "name": ["Eve"]}',
        '{"type": "leave"}',
        '{"type": ["say"], "text": "x"}',
        "9" * 5000,
        "Ping",
    ],
    ids=lambda message: repr(message[:30]),
)
async def test_an_invalid_message_is_answered_to_its_sender_alone(
    chat: Chat, autojump_clock: MockClock, message: str | bytes
) -> None:
    async with chat.visit() as ada, chat.visit() as stranger:
        await ada.join("Ada")
        for sender in (ada, stranger):
            sender.ws.send(message)
            news = await sender.receive()
            assert news["type"] == "error"
            assert news["text"].endswith(".")
        await ada.expects_only(ada, "nothing has happened")
        assert await stranger.join("Bob") == ["nothing has happened"]


# -- leaving --------------------------------------------------------------------


async def test_every_member_is_notified_of_a_leaver_and_the_name_is_free(
    chat: Chat, autojump_clock: MockClock
) -> None:
    async with chat.visit() as ada:
        await ada.join("Ada")
        for _ in range(2):
            async with chat.visit() as bob:
                await bob.join("Bob")
                await ada.expects(type="joined", people=["Ada", "Bob"])
            await ada.expects(type="left", name="Bob", people=["Ada"])


async def test_a_client_that_leaves_without_joining_is_not_announced(
    chat: Chat, autojump_clock: MockClock
) -> None:
    async with chat.visit() as ada:
        await ada.join("Ada")
        async with chat.visit() as stranger:
            stranger.send(type="join", name="")
            await stranger.expects(type="error")
        await ada.expects_only(ada, "was there a knock?")


@pytest.mark.parametrize("forgetful", [False, True])
@pytest.mark.parametrize("last_bytes", [b"", b"\xff\xff\xff\xff"])
async def test_a_client_that_vanishes_or_breaks_the_protocol_has_left(
    autojump_clock: MockClock, last_bytes: bytes, forgetful: bool
) -> None:
    streams: list[trio.abc.Stream] = []

    def keep(stream: trio.abc.Stream) -> trio.abc.Stream:
        streams.append(stream)
        return stream

    with memory_network(client=keep):
        async with open_chat() as chat, chat.visit() as ada:
            await ada.join("Ada")
            async with chat.visit() as bob:
                await bob.join("Bob")
                if forgetful:
                    chat.evict()
                if last_bytes:
                    await streams[-1].send_all(last_bytes)
                else:
                    await trio.aclose_forcefully(streams[-1])
                with pytest.raises(ConnectionClosedError):
                    await bob.receive()
            await ada.expects(type="joined", name="Bob")
            await ada.expects(type="left", name="Bob", people=["Ada"])
            await ada.expects_only(ada, "that was once")


# -- earlier messages -----------------------------------------------------------


async def test_the_last_messages_are_replayed_after_all_members_left(
    chat: Chat,
    autojump_clock: MockClock,
) -> None:
    async with chat.visit() as ada:
        await ada.join("Ada")
        for number in range(60):
            ada.send(type="say", text=f"number {number}")
            await ada.expects(type="said", name="Ada")
            await trio.sleep(chat_room.PACE)
    await trio.sleep(100)  # The room has left memory.
    async with chat.visit() as bob:
        assert await bob.join("Bob") == [f"number {n}" for n in range(10, 60)]


def test_the_messages_of_the_busiest_rooms_are_kept() -> None:
    said = {"name": "Ada", "text": "hello", "time": 0.0}
    histories = chat_room.Histories()
    for number in range(chat_room.MAX_ROOMS):
        histories.add(str(number), said)
    histories.add("0", said)
    histories.add("one more", said)
    assert histories.of("0") == [said, said]
    assert histories.of("one more") == histories.of("2") == [said]
    assert histories.of("1") == histories.of("never heard of") == []


# -- the rate limit -------------------------------------------------------------


async def test_a_member_that_sends_too_fast_gets_a_notice_alone(
    chat: Chat, autojump_clock: MockClock
) -> None:
    async with chat.two() as (ada, bob):
        for number in range(7):
            ada.send(type="say", text=f"number {number}")
        for number in range(5):
            await ada.expects(type="said", text=f"number {number}")
            await bob.expects(type="said", text=f"number {number}")
        for _ in range(2):
            text = "That was too fast. Wait 1 s, and send it again."
            await ada.expects(type="error", text=text)
        await bob.expects_only(bob, "what I say is not counted as hers")
        await ada.expects(type="said", name="Bob")

        await trio.sleep(chat_room.PACE)
        await bob.expects_only(ada, "one more")
        ada.send(type="say", text="and another one")
        await ada.expects(type="error")
        await trio.sleep(10 * chat_room.PACE)
        for number in range(5):
            await bob.expects_only(ada, f"again {number}")
        ada.send(type="say", text="no more than five, however long it was quiet")
        await ada.expects(type="error")
        await bob.expects_only(bob, "she got no further")


# -- out of memory --------------------------------------------------------------


class Watched(chat_room.Room):  # type: ignore[misc] # of a module without types
    """A room that counts how often it was built."""

    built = 0
    last: "weakref.ref[Watched]"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        Watched.built += 1
        Watched.last = weakref.ref(self)


@pytest.fixture
async def sleepy() -> AsyncGenerator[Chat]:
    """A chat with one counted room, which leaves memory after ten seconds."""
    Watched.built = 0
    with memory_network():
        async with open_chat(Watched) as chat:
            yield chat


async def test_a_silent_room_leaves_memory_and_wakes_with_its_state(
    sleepy: Chat,
    autojump_clock: MockClock,
) -> None:
    async with sleepy.two() as (ada, bob):
        assert Watched.built == 1
        for built in range(2, 5):
            await trio.sleep(11)
            assert Watched.last() is None
            await bob.expects_only(ada, "good morning")
            assert Watched.built == built
        await trio.sleep(11)
        await bob.ws.aclose()
        await ada.expects(type="left", name="Bob", people=["Ada"])
        assert Watched.built == 5


async def test_the_heartbeat_is_answered_and_does_not_wake_the_room(
    sleepy: Chat,
    autojump_clock: MockClock,
) -> None:
    async with sleepy.visit() as ada:
        await ada.join("Ada")
        for _ in range(10):
            await trio.sleep(11)
            ada.ws.send("ping")
            assert await ada.ws.receive() == "pong"
        assert Watched.last() is None
        assert Watched.built == 1


async def test_the_rate_limit_survives_eviction(
    sleepy: Chat, autojump_clock: MockClock
) -> None:
    async with sleepy.visit() as ada:
        await ada.join("Ada")
        for number in range(5):
            sleepy.evict()
            await ada.expects_only(ada, f"number {number}")
        sleepy.evict()
        ada.send(type="say", text="one too many")
        await ada.expects(type="error")
        assert Watched.built > 5


# -- slow members ---------------------------------------------------------------


async def test_a_member_that_is_too_far_behind_is_closed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_room, "MAX_BACKLOG", 10_000)
    monkeypatch.setattr(chat_room, "PACE", 0.0)
    async with (
        DurableObjectNamespace(chat_room.Room, chat_room.Histories()) as rooms,
        trio.open_nursery() as nursery,
    ):
        ada, sleeper = [Visitor(await open_in_memory(rooms, nursery)) for _ in range(2)]
        await sleeper.join("Sleeper")
        await ada.join("Ada")
        with trio.fail_after(60):
            for _ in range(20):
                ada.send(type="say", text="x" * 1000)
                await ada.expects(type="said")
            with pytest.raises(ConnectionClosedError) as caught:
                await sleeper.receives_until_the_end()
            assert (caught.value.code, caught.value.reason) == (1008, "too slow")
            await ada.expects(type="left", name="Sleeper", people=["Ada"])
        nursery.cancel_scope.cancel()


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


async def open_in_memory(
    rooms: DurableObjectNamespace, nursery: trio.Nursery
) -> WebSocket:
    response = await ask(rooms, nursery, "/rooms/lobby/ws", **UPGRADE)
    assert response.web_socket is not None
    ws: WebSocket = response.web_socket
    ws.accept(pull=True)
    return ws


# -- HTTP -----------------------------------------------------------------------


async def ask(
    rooms: DurableObjectNamespace, nursery: trio.Nursery, path: str, **headers: str
) -> Any:
    url = f"http://127.0.0.1:8004{path}"
    request = Request(method="GET", url=url, headers=headers, nursery=nursery)
    return await chat_room.fetch(rooms, request)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 302),
        ("/rooms/lobby", {}, 200),
        ("/rooms/caf%C3%A9-2", {}, 200),
        ("/rooms/ws", {}, 200),
        ("/rooms/" + "x" * 40, {}, 200),
        ("/rooms/" + "x" * 41, {}, 404),
        ("/rooms/", {}, 404),
        ("/rooms//ws", {}, 404),
        ("/rooms/lobby/", {}, 404),
        ("/rooms/two%20words", {}, 404),
        ("/rooms/lobby/ws/ws", UPGRADE, 404),
        ("/rooms/lobby/ws", {}, 426),
        ("/rooms/lobby/ws", {"Upgrade": "h2c"}, 426),
        (
            "/rooms/lobby/ws",
            UPGRADE | {"Origin": "http://elsewhere.example"},
            403,
        ),
        (
            "/rooms/lobby/ws",
            UPGRADE | {"Origin": "http://127.0.0.1:8004"},
            101,
        ),
    ],
)
async def test_each_request_gets_its_response(
    autojump_clock: MockClock,
    path: str,
    headers: dict[str, str],
    status: int,
) -> None:
    async with (
        DurableObjectNamespace(chat_room.Room, chat_room.Histories()) as rooms,
        trio.open_nursery() as nursery,
    ):
        response = await ask(rooms, nursery, path, **headers)
        assert response.status == status
        if status == 302:
            assert response.headers["Location"] == "/rooms/lobby"
        if status == 200:
            assert response.headers["Content-Type"] == "text/html;charset=UTF-8"


def test_the_page_is_self_contained_and_has_the_limits() -> None:
    page = chat_room.PAGE
    # It refers to itself only; the one URL is the namespace of SVG.
    assert re.findall(r"(?:src|href)=.{6}", page) == ['href="data:']
    assert set(re.findall(r"https?://[^'\"]+", page)) == {"http://www.w3.org/2000/svg"}
    assert "innerHTML" not in page
    lengths = re.findall(r'id="(\w+)"[^>]* maxlength="(\d+)"', page)
    assert dict(lengths) == {
        "name": str(chat_room.MAX_NAME),
        "text": str(chat_room.MAX_TEXT),
    }


async def test_the_example_runs_as_a_program() -> None:
    command = [
        sys.executable,
        "-W",
        "error",
        str(EXAMPLES / "chat_room.py"),
        "--port",
        "0",
    ]
    with trio.fail_after(30):
        async with running(
            *command, "--hibernate-after", "0.01", stderr=subprocess.STDOUT
        ) as process:
            assert process.stdout is not None
            said = b""
            while not said.endswith(b"\n"):
                said += await process.stdout.receive_some()
            url = said.decode().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
            address = url.replace("http", "ws") + "rooms/lobby/ws"
            async with open_websocket(address) as ws:
                visitor = Visitor(ws)
                await visitor.join("Ada")
                await trio.sleep(0.1)  # By now the room has probably left memory.
                await visitor.expects_only(visitor, "hello")
                process.send_signal(signal.SIGINT)
                with pytest.raises(ConnectionClosedError) as caught:
                    await ws.receive()
                assert caught.value.code == 1001
            assert await read_to_end(process.stdout) == "stopped\n"
            assert await process.wait() == 0

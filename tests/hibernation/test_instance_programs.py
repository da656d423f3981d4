"""Random conversations go the same way, wherever the object leaves memory."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, Final

import attrs
import trio
from durable_objects import new_request
from hypothesis import given, settings, strategies as st
from pairs import run
from trio.testing import wait_all_tasks_blocked

from trio_wspair import (
    ConnectionClosedError,
    ReadyState,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    broadcast,
)
from trio_wspair.hibernation import (
    DurableObject,
    DurableObjectNamespace,
    WebSocketRequestResponsePair,
)
from trio_wspair.testing import hibernate_after_every_event

TAGS: Final = ("red", "green", "blue")


class Counter(DurableObject):
    """Keeps its state in attachments and tags."""

    async def fetch(self, request: Request) -> Response:
        tag = request.path.strip("/")
        if tag == "answer":
            pair = WebSocketRequestResponsePair("ping", "pong")
            has = self.ctx.get_web_socket_auto_response() is None
            self.ctx.set_web_socket_auto_response(pair if has else None)
            return Response("answers" if has else "is silent")
        client, server = WebSocketPair()
        self.ctx.accept_web_socket(server, [tag])
        server.serialize_attachment({"tag": tag, "count": 0})
        broadcast(self.ctx.get_web_sockets(), f"a {tag} one has come")
        return Response(None, status=101, web_socket=client)

    async def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
        state: Any = ws.deserialize_attachment()
        state["count"] += 1
        ws.serialize_attachment(state)
        if message == "slow":
            await trio.sleep(1)
        if message == "boom":
            raise ZeroDivisionError
        if message == "quit":
            ws.close(3000, f"after {state['count']}")
            return
        if message in TAGS:
            sockets = self.ctx.get_web_sockets(str(message))
            broadcast(sockets, f"from {state}, {len(sockets)}")
        ws.send(f"{message!r} {state} {self.ctx.get_tags(ws)}")

    def web_socket_close(
        self,
        ws: WebSocket,
        code: int,
        reason: str,
        was_clean: bool,
    ) -> None:
        state = ws.deserialize_attachment()
        text = f"{state} has left: {code} {reason} {was_clean}"
        broadcast(self.ctx.get_web_sockets(), text)


@attrs.frozen
class Join:
    """A client connects."""

    tag: str


@attrs.frozen
class Say:
    """A client sends a message."""

    visitor: int
    what: str | bytes


@attrs.frozen
class Leave:
    """A client closes."""

    visitor: int
    code: int


@attrs.frozen
class Answer:
    """The automatic answer is switched on or off."""


@attrs.frozen
class Wait:
    """Time passes."""

    seconds: float


Step = Join | Say | Leave | Answer | Wait
words = st.sampled_from(["hello", "slow", "boom", "quit", "ping", b"ping", *TAGS])
visitor = st.integers(0, 3)
steps = st.one_of(
    st.builds(Join, st.sampled_from(TAGS)),
    st.builds(Say, visitor, words),
    st.builds(Say, visitor, words),
    st.builds(Leave, visitor, st.sampled_from([1000, 3001])),
    st.just(Answer()),
    st.builds(Wait, st.sampled_from([0.5, 3.0, 11.0])),
)


@attrs.define
class Visitor:
    """A client, and the events that it got."""

    ws: WebSocket
    heard: list[object] = attrs.field(factory=list[object])

    async def listen(self) -> None:
        """Receive all events."""
        try:
            while True:
                self.heard.append(await self.ws.receive())
        except ConnectionClosedError as end:
            self.heard.append(str(end))


async def play(
    program: list[tuple[Step, bool]],
    *,
    hibernate_after: float = 1e9,
    evicting: bool = False,
    eager: bool = False,
) -> list[list[object]]:
    """Return the events of each visitor."""
    visitors: list[Visitor] = []
    rooms = DurableObjectNamespace(Counter, hibernate_after=hibernate_after)
    sleeping: Callable[[], Any] = (
        partial(hibernate_after_every_event, rooms) if eager else nullcontext
    )
    async with trio.open_nursery() as nursery, rooms:
        room = rooms.get_by_name("room")
        with sleeping():
            for step, evict in [(Join("red"), False), (Join("blue"), True), *program]:
                await trio.sleep(0.01)  # All deadlines differ.
                match step:
                    case Join(tag):
                        response = await room.fetch(new_request(nursery, f"/{tag}"))
                        assert response.web_socket is not None
                        visitors.append(Visitor(response.web_socket))
                        visitors[-1].ws.accept(pull=True)
                        nursery.start_soon(visitors[-1].listen)
                    case Say(visitor, what):
                        ws = visitors[visitor % len(visitors)].ws
                        if ws.ready_state is ReadyState.OPEN:
                            ws.send(what)
                    case Leave(visitor, code):
                        visitors[visitor % len(visitors)].ws.close(code)
                    case Answer():
                        await room.fetch(new_request(nursery, "/answer"))
                    case Wait(seconds):
                        await trio.sleep(seconds)
                await wait_all_tasks_blocked()
                if evict and evicting:
                    rooms.evict(room.id)
                    await wait_all_tasks_blocked()
            await trio.sleep(20)
    return [visitor.heard for visitor in visitors]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(steps, st.booleans()), max_size=12))
def test_a_conversation_goes_the_same_way_wherever_an_object_leaves_memory(
    program: list[tuple[Step, bool]],
) -> None:
    awake = run(partial(play, program))
    assert run(partial(play, program, evicting=True)) == awake
    assert run(partial(play, program, hibernate_after=0)) == awake
    assert run(partial(play, program, hibernate_after=2)) == awake
    assert run(partial(play, program, eager=True)) == awake

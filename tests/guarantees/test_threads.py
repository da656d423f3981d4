"""Calls from foreign threads: each raises before it changes anything (G4).

A verb is called in a thread of `trio.to_thread`, in another Trio run and from asyncio.
The public names of the classes are compared with the tables, so that none is missing.
"""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial

import pytest
import trio
from durable_objects import Room, World, open_namespace
from memory_connection import MemoryConnection
from network import Logged, Network
from trio.testing import wait_all_tasks_blocked

from trio_wspair import (
    CloseEvent,
    ConnectionClosedError,
    InvalidStateError,
    MessageEvent,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    broadcast,
    connect,
    open_websocket_pair,
)
from trio_wspair.hibernation import (
    DurableObjectState,
    WebSocketRequestResponsePair,
)
from trio_wspair.transports import Close, couple


def listen(event: object) -> None:
    """Fail: a listener of an event that must not come."""
    raise AssertionError(event)


Verb = Callable[[WebSocket], object]
VERBS: dict[str, Verb] = {
    "accept": lambda ws: ws.accept(),
    "add_event_listener": lambda ws: ws.add_event_listener("message", listen),
    "remove_event_listener": lambda ws: ws.remove_event_listener("close", listen),
    "on": lambda ws: ws.on("message"),
    "onmessage": lambda ws: setattr(ws, "onmessage", listen),
    "onclose": lambda ws: setattr(ws, "onclose", listen),
    "onerror": lambda ws: setattr(ws, "onerror", listen),
    "send": lambda ws: ws.send("never sent"),
    "close": lambda ws: ws.close(4000),
    "serialize_attachment": lambda ws: ws.serialize_attachment("never kept"),
    "receive": lambda ws: ws.receive(),
    "__anext__": lambda ws: ws.__anext__(),
    "drain": lambda ws: ws.drain(),
    "wait_closed": lambda ws: ws.wait_closed(),
    "aclose": lambda ws: ws.aclose(),
    "ping": lambda ws: ws.ping(),
}
READS = {
    "buffered_amount",
    "deserialize_attachment",
    "extensions",
    "latency",
    "protocol",
    "ready_state",
    "url",
}


def public_names(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def test_every_public_name_of_a_websocket_is_a_verb_of_this_table_or_only_reads() -> (
    None
):
    assert public_names(WebSocket) | {"__anext__"} == set(VERBS) | READS
    settable = {
        name
        for name, value in inspect.getmembers(WebSocket)
        if isinstance(value, property) and value.fset is not None
    }
    assert settable <= set(VERBS)


# -- threads ------------------------------------------------------------------------


def attempt(call: Callable[[], object]) -> None:
    """Call a verb, an async one up to its first wait; it has to raise."""

    def step() -> None:
        result = call()
        if inspect.iscoroutine(result):
            with closing(result):
                result.send(None)

    with pytest.raises(
        InvalidStateError, match=r"trio\.from_thread\.run_sync"
    ) as caught:
        step()
    assert isinstance(caught.value, RuntimeError)


async def await_it(call: Callable[[], object]) -> None:
    """Call a verb, and await it if it is async; it has to raise."""

    async def step() -> None:
        result = call()
        if isinstance(result, Awaitable):
            await result

    with pytest.raises(InvalidStateError, match=r"trio\.from_thread\.run_sync"):
        await step()


def in_another_trio_run(call: Callable[[], object]) -> None:
    trio.run(await_it, call)


def in_asyncio(call: Callable[[], object]) -> None:
    async def main() -> None:
        await await_it(call)
        await asyncio.to_thread(attempt, call)

    asyncio.run(main())


def in_a_thread_of_python(call: Callable[[], object]) -> None:
    refused: list[Callable[[], object]] = []

    def run() -> None:
        attempt(call)
        refused.append(call)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert refused == [call]


ELSEWHERE = [attempt, in_another_trio_run, in_asyncio, in_a_thread_of_python]


async def elsewhere(call: Callable[[], object], how: Callable[..., object]) -> None:
    """Call something in a foreign thread, where it has to raise."""
    with trio.fail_after(20):
        await trio.to_thread.run_sync(how, call)


# -- in memory ------------------------------------------------------------------------


def accept(first: WebSocket, second: WebSocket) -> None:
    first.accept()
    second.accept()


def accept_one(first: WebSocket, second: WebSocket) -> None:
    second.accept()
    second.send("waits for accept()")


def pull(first: WebSocket, second: WebSocket) -> None:
    first.accept(pull=True)
    second.accept(pull=True)
    second.send("waits for receive()")


def close_one(first: WebSocket, second: WebSocket) -> None:
    first.accept(allow_half_open=True)
    second.accept(allow_half_open=True)
    second.close(1000)


def leave(_first: WebSocket, _second: WebSocket) -> None:
    """Leave the halves as they are made."""


STAGES = [accept, accept_one, pull, close_one, leave]


def seen(*halves: WebSocket) -> list[object]:
    """Return all state that a verb could change."""
    return [
        (
            repr(ws),
            ws.ready_state,
            ws.buffered_amount,
            ws.deserialize_attachment(),
            ws.onmessage,
            ws.onclose,
            ws.onerror,
            ws._half.listeners._entries,
            ws._half.inbox.weight,
            ws._half.inbox.end,
            ws._half.inbox.end_is_awaited,
            ws._half.inbox.items.statistics(),
            ws._streak,
        )
        for ws in halves
    ]


async def converse(first: WebSocket, second: WebSocket) -> None:
    """Check that two halves work, in any stage."""
    heard: list[object] = []

    async def use(ws: WebSocket, name: str) -> None:
        if ws._half.state.holder.label != "accepted for receive()":
            ws.onmessage = lambda event: heard.append(event.data)
            ws.accept()
        if ws._half.state.close_sent is None:
            ws.send(name)
        await wait_all_tasks_blocked()
        ws.close(1000)
        if ws._half.state.holder.label == "accepted for receive()":
            heard.extend([message async for message in ws])
        assert (await ws.wait_closed()).was_clean

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use, first, "from the first")
        nursery.start_soon(use, second, "from the second")
    heard = [message for message in heard if "waits for" not in str(message)]
    closed_before = second._half.state.close_sent is not None and len(heard) == 1
    expected = ["from the first", "from the second"]
    assert sorted(map(str, heard)) == expected[: 1 if closed_before else 2]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("verb", VERBS)
async def test_g4_a_verb_in_a_foreign_thread_raises_and_changes_nothing(
    verb: str, stage: Callable[[WebSocket, WebSocket], None]
) -> None:
    with trio.fail_after(10):
        async with open_websocket_pair() as (first, second):
            first.serialize_attachment("kept")
            stage(first, second)
            await wait_all_tasks_blocked()
            before = seen(first, second)
            await elsewhere(lambda: VERBS[verb](first), attempt)
            assert seen(first, second) == before
            await converse(first, second)


@pytest.mark.parametrize("how", ELSEWHERE)
async def test_g4_every_foreign_thread_is_refused(how: Callable[..., object]) -> None:
    with trio.fail_after(30):
        async with open_websocket_pair() as (first, second):
            pull(first, second)
            before = seen(first, second)
            for verb in VERBS.values():
                await elsewhere(partial(verb, first), how)
            assert seen(first, second) == before
            await converse(first, second)


async def test_g4_a_decorator_that_was_carried_into_another_thread_adds_nothing() -> (
    None
):
    async with open_websocket_pair() as (first, _):
        add = first.on("message")
        await elsewhere(lambda: add(listen), attempt)
        assert "message" not in first._half.listeners


async def test_attributes_can_be_read_in_every_thread() -> None:
    async with open_websocket_pair() as (first, second):
        accept(first, second)
        first.serialize_attachment([1])
        first.send("hello")
        await wait_all_tasks_blocked()

        def read() -> list[object]:
            assert repr(first)
            return [
                first.ready_state,
                first.buffered_amount,
                first.deserialize_attachment(),
                first.url,
                first.onmessage,
            ]

        assert await trio.to_thread.run_sync(read) == read()


async def test_the_remedy_in_the_error_message_works() -> None:
    async with open_websocket_pair() as (first, second):
        accept_one(first, second)

        def work(token: trio.lowlevel.TrioToken) -> object:
            trio.from_thread.run_sync(first.accept)
            trio.from_thread.run_sync(first.send, "from a thread")
            results: list[object] = []
            thread = threading.Thread(
                target=lambda: results.append(
                    trio.from_thread.run(first.drain, trio_token=token)
                )
            )
            thread.start()
            thread.join()
            return results

        heard: list[str | bytes] = []
        second.onmessage = lambda event: heard.append(event.data)
        token = trio.lowlevel.current_trio_token()
        with trio.fail_after(10):
            assert await trio.to_thread.run_sync(work, token) == [None]
        assert heard == ["from a thread"]


async def test_g4_a_broadcast_in_a_foreign_thread_reaches_no_socket() -> None:
    async with open_websocket_pair() as mine:
        accept(*mine)
        before = seen(*mine)
        call = partial(broadcast, [mine[0]], "never sent")
        await elsewhere(call, attempt)
        assert seen(*mine) == before

        async def mixed() -> None:
            async with open_websocket_pair() as theirs:
                accept(*theirs)
                both = [theirs[0], mine[0]]
                await await_it(partial(broadcast, both, "never sent"))
                assert theirs[0].buffered_amount == 0

        await trio.to_thread.run_sync(trio.run, mixed)
        assert seen(*mine) == before


# -- making halves, and giving them away --------------------------------------------


@pytest.mark.parametrize("how", ELSEWHERE)
async def test_no_half_is_made_for_a_nursery_of_another_thread(
    how: Callable[..., object],
) -> None:
    async with trio.open_nursery() as nursery:
        await elsewhere(lambda: WebSocketPair(nursery), how)
        await elsewhere(lambda: connect("ws://127.0.0.1:1/", nursery=nursery), how)
        assert not nursery.child_tasks


async def test_g4_a_half_of_another_run_is_not_coupled() -> None:
    async with open_websocket_pair() as (first, second):
        before = seen(first, second)
        connection = MemoryConnection(*trio.open_memory_channel[str | bytes | Close](0))
        await elsewhere(lambda: couple(first, connection), attempt)
        await elsewhere(lambda: couple(first, connection), in_another_trio_run)
        assert seen(first, second) == before
        await converse(first, second)


# -- on the network -------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
async def test_g4_a_verb_in_a_foreign_thread_changes_nothing_on_the_network(
    verb: str, net: Network
) -> None:
    async with net.joined() as (client, server):
        server.onmessage = lambda event: server.send(event.data)
        server.accept()
        client.accept(pull=True)
        for half in client, server:
            before = repr(half), half.buffered_amount
            await elsewhere(partial(VERBS[verb], half), attempt)
            assert (repr(half), half.buffered_amount) == before
        client.send("still here")
        assert await client.receive() == "still here"
        client.close(1000)
        event = await client.wait_closed()
        assert event == CloseEvent(1000, "", was_clean=True)


async def test_a_handler_cannot_make_halves_in_a_thread(net: Network) -> None:
    raised: list[str] = []

    def make() -> None:
        try:
            WebSocketPair()
        except InvalidStateError as exc:
            raised.append(str(exc))

    async def fetch(_request: Request) -> Response:
        await trio.to_thread.run_sync(make)
        return Response("done")

    async with net.serve(fetch) as server, net.dial(server) as peer:
        await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await peer.read_all()).endswith(b"done")
    assert "trio.from_thread.run_sync" in raised[0]


async def test_a_half_of_another_run_is_not_given_to_a_client(
    net: Network, logged: Logged
) -> None:
    async with open_websocket_pair() as (first, second):
        before = seen(first, second)

        async def fetch(_request: Request) -> Response:
            return Response(None, status=101, web_socket=first)

        async def other() -> None:
            async with net.serve(fetch) as server, net.dial(server) as peer:
                answer = await peer.handshake()
                assert answer.startswith("HTTP/1.1 500 ")

        await trio.to_thread.run_sync(trio.run, other)
        assert seen(first, second) == before
        assert "trio.from_thread.run_sync" in logged.take()
        await converse(first, second)


# -- Durable Objects ------------------------------------------------------------------


async def nothing() -> None:
    """Do nothing."""


ACTS: dict[str, Callable[[DurableObjectState, WebSocket], object]] = {
    "accept_web_socket": lambda ctx, ws: ctx.accept_web_socket(ws),
    "set_web_socket_auto_response": lambda ctx, _: ctx.set_web_socket_auto_response(
        WebSocketRequestResponsePair("ping", "pong")
    ),
    "set_hibernatable_web_socket_event_timeout": lambda ctx, _: (
        ctx.set_hibernatable_web_socket_event_timeout(5)
    ),
    "block_concurrency_while": lambda ctx, _: ctx.block_concurrency_while(nothing),
    "wait_until": lambda ctx, _: ctx.wait_until(nothing),
    "abort": lambda ctx, _: ctx.abort("never"),
}
LOOKS = {
    "id",
    "get_hibernatable_web_socket_event_timeout",
    "get_tags",
    "get_web_socket_auto_response",
    "get_web_socket_auto_response_timestamp",
    "get_web_sockets",
}


def test_every_public_name_of_ctx_is_a_verb_of_this_table_or_only_reads() -> None:
    assert public_names(DurableObjectState) == set(ACTS) | LOOKS


async def test_g4_an_object_can_be_used_in_its_own_thread_only() -> None:
    contexts: list[DurableObjectState] = []
    world = World(on_build=lambda room: contexts.append(room.ctx))

    async def echo(_room: Room, ws: WebSocket, message: str | bytes) -> None:
        ws.send(message)

    world.on_message = echo
    with trio.fail_after(30):
        async with open_namespace(world) as namespace:
            ws = await namespace.visit()
            [ctx] = contexts
            async with open_websocket_pair() as (mine, _):
                for act in ACTS.values():
                    await elsewhere(partial(act, ctx, mine), attempt)
                assert "not accepted" in repr(mine)
            await elsewhere(namespace.evict, attempt)
            await elsewhere(namespace.ask, in_asyncio)
            await elsewhere(namespace.ask, in_another_trio_run)
            for verb in VERBS.values():
                await elsewhere(partial(verb, ctx.get_web_sockets()[0]), attempt)
            assert ctx.get_web_socket_auto_response() is None
            assert ctx.get_hibernatable_web_socket_event_timeout() is None
            ws.send("awake")
            assert await ws.receive() == "awake"
            await ws.aclose()
    assert world.built == 1


async def test_g4_an_object_does_not_take_a_half_of_another_run() -> None:
    async with open_websocket_pair() as (mine, _):

        async def other() -> None:
            contexts: list[DurableObjectState] = []
            world = World(on_build=lambda room: contexts.append(room.ctx))
            async with open_namespace(world) as namespace:
                ws = await namespace.visit()
                await await_it(lambda: contexts[0].accept_web_socket(mine))
                await ws.aclose()

        await trio.to_thread.run_sync(trio.run, other)
        assert "not accepted" in repr(mine)


# -- one thread, outside of the run ---------------------------------------------------


def test_a_half_whose_run_has_ended_raises_an_error_that_says_so() -> None:
    async def main() -> tuple[trio.Nursery, WebSocketPair]:
        async with trio.open_nursery() as nursery:
            return nursery, WebSocketPair(nursery)

    nursery, pair = trio.run(main)
    with pytest.raises(InvalidStateError, match="run of this half has ended"):
        pair[0].accept()
    with pytest.raises(InvalidStateError, match=r"call accept\(\) before send\(\)"):
        pair[0].send("too late")
    with pytest.raises(InvalidStateError, match=r"call accept\(\) before close\(\)"):
        pair[0].close()
    with pytest.raises(InvalidStateError, match="That run has ended"):
        WebSocketPair(nursery)
    assert repr(pair[0]) == repr(pair[1]) == "<WebSocket OPEN, not accepted>"

    async def later() -> None:
        with pytest.raises(InvalidStateError, match="nursery of this half has ended"):
            pair[0].accept()
        with pytest.raises(InvalidStateError, match="nursery of this half has ended"):
            await pair[1].receive()
        with pytest.raises(InvalidStateError, match="That run has ended"):
            WebSocketPair(nursery)
        await pair[1].aclose()

    trio.run(later)


def test_a_half_that_has_closed_stays_closed_after_its_run() -> None:
    async def main() -> tuple[WebSocket, WebSocket]:
        async with open_websocket_pair() as (first, second):
            accept(first, second)
            first.close(1000)
            await second.wait_closed()
            return first, second

    first, second = trio.run(main)
    with pytest.raises(InvalidStateError, match=r"send\(\) after close\(\)"):
        first.send("too late")
    with pytest.raises(ConnectionClosedError, match="has closed"):
        second.send("too late")
    first.close()
    first.add_event_listener("message", listen)
    first.serialize_attachment(1)
    assert first.deserialize_attachment() == 1


def test_halves_of_a_guest_run_can_be_used_from_its_host_loop() -> None:
    heard: list[str | bytes] = []

    async def main(ready: "asyncio.Future[WebSocket]", done: asyncio.Event) -> None:
        with trio.fail_after(10):
            async with open_websocket_pair() as (first, second):
                arrived = trio.Event()

                def note(event: MessageEvent) -> None:
                    heard.append(event.data)
                    arrived.set()

                second.onmessage = note
                accept(first, second)
                ready.set_result(first)
                await arrived.wait()
        done.set()

    async def host() -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[WebSocket] = loop.create_future()
        done = asyncio.Event()
        trio.lowlevel.start_guest_run(
            main,
            ready,
            done,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=lambda outcome: outcome.unwrap(),
            host_uses_signal_set_wakeup_fd=True,
        )
        (await ready).send("from the host")
        await done.wait()
        await asyncio.sleep(0.05)

    asyncio.run(host())
    assert heard == ["from the host"]

"""The guarantees G1 to G11, over real connections."""

import contextlib
import gc
import socket
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
from network import Logged, Network, OneEnd

from trio_wspair import (
    BufferFullError,
    CloseEvent,
    ConnectionClosedError,
    ErrorEvent,
    MessageEvent,
    ProtocolError,
    ReadyState,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    connect,
    open_websocket,
)
from trio_wspair.testing import ScriptedPeer

Ends = Callable[..., AbstractAsyncContextManager[tuple[WebSocket, WebSocket]]]

DONE = CloseEvent(4000, "done", was_clean=True)
LOST = CloseEvent(1006, "", was_clean=False)


def closes(heard: list[Any]) -> list[CloseEvent]:
    return [event for event in heard if isinstance(event, CloseEvent)]


@pytest.fixture(params=["client to server", "server to client"])
def ends(request: pytest.FixtureRequest, net: Network) -> Ends:
    """Give a function that opens a connection and returns its ends, in either order."""

    @asynccontextmanager
    async def open_ends(**options: Any) -> AsyncGenerator[tuple[WebSocket, WebSocket]]:
        async with net.joined(**options) as (client, server):
            if request.param == "client to server":
                yield client, server
            else:
                yield server, client

    return open_ends


# -- G1: order ----------------------------------------------------------------


async def test_g1_messages_arrive_in_the_order_sent_and_close_comes_last(
    net: Network, ends: Ends
) -> None:
    sent: list[str | bytes] = []
    for number in range(500):
        sent += [f"text {number}", b"\xff%d" % number]
    async with ends() as (near, far):
        near.accept()
        heard = net.accept(far)
        for message in sent:
            near.send(message)
        near.close(4000, "done")
        assert await far.wait_closed() == DONE
        assert await near.wait_closed() == DONE
        assert heard == [*sent, DONE]


async def test_g1_messages_of_every_size_keep_their_order(
    net: Network, ends: Ends
) -> None:
    sizes = [0, 1, 125, 126, 127, 65_535, 65_536, 300_000, 2, 1_000_000, 0]
    sent: list[str | bytes] = [b"\x80" * size for size in sizes]
    sent += ["é" * (size // 2) for size in sizes]
    async with ends() as (near, far):
        near.accept()
        heard = net.accept(far)
        for message in sent:
            near.send(message)
        near.close(4000, "done")
        await near.wait_closed()
        assert heard == [*sent, DONE]


async def test_g1_both_directions_at_once(net: Network, ends: Ends) -> None:
    numbers = [str(number) for number in range(300)]
    async with ends() as (near, far):
        near_heard, far_heard = net.accept(near), net.accept(far)
        for number in numbers:
            near.send(number)
            far.send(number)
            if number.endswith("7"):
                await trio.lowlevel.checkpoint()
        near.close(4000, "done")
        await near.wait_closed()
        await far.wait_closed()
        assert near_heard == [*numbers, DONE]
        assert far_heard == [*numbers, DONE]


# -- G2: one close, last ------------------------------------------------------


async def reset(peer: "ScriptedPeer") -> None:
    """End TCP with a reset."""
    assert isinstance(peer.stream, trio.SocketStream)
    linger = b"\x01\0\0\0\0\0\0\0"
    peer.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    await trio.aclose_forcefully(peer.stream)


async def vanish(peer: "ScriptedPeer") -> None:
    await peer.stream.aclose()


async def break_the_protocol(peer: "ScriptedPeer") -> None:
    await peer.send(b"\xff" * 20)


async def close(peer: "ScriptedPeer") -> None:
    await peer.send(peer.close_frame(4000, "done"))


async def close_twice(peer: "ScriptedPeer") -> None:
    await peer.send(peer.close_frame(4000, "done"), peer.close_frame(4001, "again"))


async def close_and_vanish(peer: "ScriptedPeer") -> None:
    await peer.send(peer.close_frame(4000, "done"))
    await peer.stream.aclose()


@pytest.mark.parametrize(
    ("end", "code", "errors"),
    [
        (vanish, 1006, 0),
        (reset, 1006, 0),
        (break_the_protocol, 1006, 1),
        (close, 4000, 0),
        (close_twice, 4000, 0),
        (close_and_vanish, 4000, 0),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
async def test_g2_one_close_event_and_nothing_after_it(
    net: Network,
    one_end: OneEnd,
    end: Callable[["ScriptedPeer"], Any],
    code: int,
    errors: int,
) -> None:
    async with one_end() as (half, peer):
        heard = net.accept(half)
        await peer.send(peer.text_frame("first"))
        await net.until(lambda: heard)
        await end(peer)
        closed = await half.wait_closed()
        await trio.sleep(0.05)
        assert (closed.code, closed.was_clean) == (code, code != 1006)
        assert heard[0] == "first"
        assert heard[-1] == closed
        assert len(heard) == 2 + errors
        assert all(isinstance(event, ErrorEvent) for event in heard[1:-1])
        assert half.ready_state is ReadyState.CLOSED


async def test_g2_one_close_event_when_both_close_at_once(
    net: Network, ends: Ends
) -> None:
    async with ends() as (near, far):
        near_heard, far_heard = net.accept(near), net.accept(far)
        near.send("from near")
        near.close(4000, "near")
        far.send("from far")
        far.close(4001, "far")
        await near.wait_closed()
        await far.wait_closed()
        assert near_heard == ["from far", CloseEvent(4001, "far", was_clean=True)]
        assert far_heard == ["from near", CloseEvent(4000, "near", was_clean=True)]


async def test_g2_one_close_event_when_the_nursery_is_cancelled(net: Network) -> None:
    heard: list[Any] = []
    far_heard: list[Any] = []
    async with net.serve_halves() as (server, halves):
        async with trio.open_nursery() as nursery:
            client = await connect(server.url, nursery=nursery)
            heard = net.accept(client)
            far = await halves.receive()
            far_heard = net.accept(far)
            far.send("hi")
            await net.until(lambda: heard)
            nursery.cancel_scope.cancel()
        assert heard[:-1] == ["hi"]
        assert [event.code for event in closes(heard)] == [1006]
        await net.until(lambda: far_heard)
        assert far_heard == [CloseEvent(1001, "", was_clean=True)]


# -- G3: nothing lost ---------------------------------------------------------


async def test_g3_messages_sent_before_a_close_wait_for_accept(
    net: Network, ends: Ends
) -> None:
    sent = [str(number) for number in range(100)]
    async with ends() as (near, far):
        near.accept()
        for message in sent:
            near.send(message)
        near.close(4000, "done")
        await trio.sleep(
            0.1
        )  # All messages are at the far end, which has no holder yet.
        assert near.ready_state is ReadyState.CLOSING
        heard = net.accept(far)
        assert await near.wait_closed() == DONE
        assert heard == [*sent, DONE]


async def test_g3_messages_sent_before_the_peer_vanished_still_arrive(
    net: Network, one_end: OneEnd
) -> None:
    sent = [str(number) for number in range(100)]
    async with one_end() as (half, peer):
        half.accept(pull=True)
        await peer.send(*[peer.text_frame(message) for message in sent])
        await peer.stream.aclose()
        await trio.sleep(0.05)
        assert [await half.receive() for _ in sent] == sent
        with pytest.raises(ConnectionClosedError) as caught:
            await half.receive()
        assert (caught.value.code, caught.value.was_clean) == (1006, False)


async def test_g3_messages_can_be_pulled_after_the_connection_has_ended(
    net: Network, one_end: OneEnd
) -> None:
    async with one_end() as (half, peer):
        half.accept(pull=True)
        await peer.send(
            peer.text_frame("a"), peer.text_frame("b"), peer.close_frame(1000)
        )
        await trio.sleep(0.05)
        assert [message async for message in half] == ["a", "b"]
        with pytest.raises(ConnectionClosedError) as caught:
            await half.receive()
        assert (caught.value.code, caught.value.was_clean) == (1000, True)


# -- G4: sync verbs are atomic ------------------------------------------------


async def test_g4_verbs_take_effect_in_a_cancelled_scope(
    net: Network, ends: Ends
) -> None:
    heard: list[Any] = []
    async with ends() as (near, far):
        with trio.CancelScope() as scope:
            scope.cancel()
            with trio.testing.assert_no_checkpoints():
                near.accept()
                near.send("hello")
                near.close(4000, "done")
                heard = net.accept(far)
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert await near.wait_closed() == DONE
        assert heard == ["hello", DONE]


async def test_g4_a_send_that_raises_sends_nothing(net: Network, ends: Ends) -> None:
    options = {"max_buffered_bytes": 1000}
    async with ends(pair_options=options, client_options=options) as (near, far):
        near.accept()
        heard = net.accept(far)
        near.send("a")
        with pytest.raises(BufferFullError):
            near.send("x" * 1000)
        with pytest.raises(TypeError):
            near.send(None)  # type: ignore[arg-type] # what a beginner may try
        near.send("b")
        near.close(4000, "done")
        await near.wait_closed()
        assert heard == ["a", "b", DONE]


async def test_g4_cancelling_everything_tears_no_frame(net: Network) -> None:
    message = bytes(range(256)) * 4096
    begin, end = trio.Event(), trio.Event()
    received: list[Any] = []

    async def script(peer: "ScriptedPeer") -> None:
        await peer.handshake()
        await begin.wait()  # Until then, the peer reads nothing.
        while (
            said := await peer.receive()
        ) is not None:  # `receive()` raises at a torn frame.
            received.append(said)
            if said == (1001, ""):
                await peer.send(peer.close_frame(1001))
        end.set()

    async with net.script(script) as url:
        async with trio.open_nursery() as nursery:
            client = await connect(url, nursery=nursery)
            client.accept()
            for _ in range(20):
                client.send(message)
            await trio.sleep(0.05)  # Now a frame is partly written.
            nursery.cancel_scope.cancel()
            begin.set()
        await end.wait()
    assert received == [*[message] * 20, (1001, "")]


async def test_g4_a_cancelled_client_still_reads_the_answer_to_its_close(
    net: Network,
) -> None:
    steps: list[Any] = []
    end = trio.Event()

    async def script(peer: "ScriptedPeer") -> None:
        await peer.handshake()
        await peer.send(peer.text_frame("unread"))
        steps.append(await peer.receive())
        await trio.sleep(0.1)
        await peer.send(peer.text_frame("late"), peer.close_frame(1001))
        steps.append("answered")
        steps.append(await peer.receive())
        end.set()

    async with net.script(script) as url:
        async with trio.open_nursery() as nursery:
            client = await connect(url, nursery=nursery)
            client.accept(pull=True)
            nursery.cancel_scope.cancel()
        steps.append("left")
        await end.wait()
    assert steps.index((1001, "")) < steps.index("answered") < steps.index("left")


# -- G5: async verbs are checkpoints ------------------------------------------


async def test_g5_every_async_verb_is_a_checkpoint(net: Network, ends: Ends) -> None:
    async with ends() as (near, far):
        near.accept(pull=True)
        far.accept()
        far.send("a")
        await trio.sleep(0.05)
        with trio.testing.assert_checkpoints():
            assert await near.receive() == "a"
        with trio.testing.assert_checkpoints():
            await far.drain()
        with trio.testing.assert_checkpoints():
            assert await near.ping() >= 0
        with trio.testing.assert_checkpoints():
            await near.aclose()
        with trio.testing.assert_checkpoints():
            await near.aclose()
        with trio.testing.assert_checkpoints():
            await far.wait_closed()
        with trio.testing.assert_checkpoints():
            await far.wait_closed()
        with trio.testing.assert_checkpoints(), pytest.raises(ConnectionClosedError):
            await near.ping()


async def test_g5_a_cancelled_verb_changes_nothing(net: Network, ends: Ends) -> None:
    async with ends(close_grace=0.1) as (near, far):
        near.accept()
        near.send("a")
        far.accept(pull=True)
        await trio.sleep(0.05)
        verbs: list[Callable[[], Any]] = [far.receive, far.drain, far.ping]
        verbs.append(far.wait_closed)
        for verb in verbs:
            with trio.CancelScope() as scope:
                scope.cancel()
                await verb()
            assert scope.cancelled_caught
        assert await far.receive() == "a"
        assert await far.ping() >= 0
        assert far.ready_state is ReadyState.OPEN


# -- G6: closing closes -------------------------------------------------------


async def test_g6_aclose_twice_is_aclose_once(net: Network, ends: Ends) -> None:
    async with ends() as (near, far):
        near.accept()
        heard = net.accept(far)
        await near.aclose(4000, "done")
        assert near.ready_state is ReadyState.CLOSED
        await near.aclose(4001, "again")
        await far.aclose()
        assert heard == [DONE]


async def test_g6_a_cancelled_aclose_has_closed(net: Network, one_end: OneEnd) -> None:
    async with one_end() as (half, peer):
        heard = net.accept(half)
        with trio.move_on_after(0.05):
            await half.aclose(4000, "done")
        assert half.ready_state is ReadyState.CLOSED
        assert await peer.receive() == (4000, "done")
        await half.wait_closed()
        assert [event.code for event in closes(heard)] == [1006]


async def test_g6_aclose_ends_although_the_peer_never_answers(
    net: Network, one_end: OneEnd
) -> None:
    async with one_end(close_grace=0.1, pair_options={"close_grace": 0.1}) as (
        half,
        peer,
    ):
        heard = net.accept(half)
        await half.aclose(4000, "done")
        error, closed = heard
        assert isinstance(error, ErrorEvent)
        assert isinstance(error.error, TimeoutError)
        assert "did not answer the Close" in error.message
        assert isinstance(closed, CloseEvent)
        assert (closed.code, closed.was_clean) == (1006, False)
        assert await peer.receive_all() == [(4000, "done")]


@pytest.mark.parametrize(
    ("leave", "code"), [("normally", 1000), ("raising", 1011), ("cancelled", 1001)]
)
async def test_g6_leaving_open_websocket_closes(
    net: Network, leave: str, code: int
) -> None:
    async with net.serve_halves() as (server, halves):
        sockets: list[WebSocket] = []
        heard: list[Any] = []

        async def use(scope: trio.CancelScope) -> None:
            async with open_websocket(server.url) as ws:
                sockets.append(ws)
                sockets.append(await halves.receive())
                heard.append(net.accept(sockets[1]))
                ws.send("bye")
                if leave == "raising":
                    raise KeyError(leave)
                if leave == "cancelled":
                    scope.cancel()
                    await trio.sleep_forever()

        with trio.CancelScope() as scope:
            if leave == "raising":
                with pytest.raises(
                    KeyError
                ):  # A bare exception, although there are nurseries.
                    await use(scope)
            else:
                await use(scope)
        assert sockets[0].ready_state is ReadyState.CLOSED
        await sockets[1].wait_closed()
        assert heard == [["bye", CloseEvent(code, "", was_clean=True)]]


# -- G7: failures are loud and contained --------------------------------------


async def test_g7_a_listener_of_a_client_raises(net: Network) -> None:
    heard: list[Any] = []
    async with net.serve_halves() as (server, halves):

        def fail(event: MessageEvent) -> None:
            raise KeyError(event.data)

        async def use() -> None:
            async with trio.open_nursery() as nursery:
                client = await connect(server.url, nursery=nursery)
                client.add_event_listener("message", fail)
                heard.append(net.accept(client))
                await trio.sleep_forever()

        async def talk() -> None:
            far = await halves.receive()
            heard.append(net.accept(far))
            far.send("a")
            far.send("b")
            await far.wait_closed()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            with pytest.RaisesGroup(KeyError):
                await use()
        heard, far_heard = sorted(heard, key=len, reverse=True)
        assert heard[0] == "a", "the other listeners of the event still ran"
        error, closed = heard[1:]
        assert isinstance(error, ErrorEvent)
        assert repr(error.error) == "KeyError('a')"
        assert isinstance(closed, CloseEvent)
        assert (closed.code, closed.was_clean) == (1006, False)
        assert far_heard == [CloseEvent(1011, "", was_clean=True)]


@pytest.mark.parametrize("is_async", [False, True])
async def test_g7_a_listener_of_a_server_raises(
    net: Network, logged: Logged, *, is_async: bool
) -> None:
    heard: list[Any] = []

    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()

        async def fail_later(event: MessageEvent) -> None:
            await trio.lowlevel.checkpoint()
            raise KeyError(event.data)

        def fail(event: MessageEvent) -> None:
            raise KeyError(event.data)

        server.add_event_listener("message", fail_later if is_async else fail)
        heard.append(net.accept(server))
        return Response(None, status=101, web_socket=client)

    async with net.serve(fetch) as server, net.peer(server) as other:
        async with net.peer(server, target="/wrong") as peer:
            await peer.send(peer.text_frame("a"), peer.text_frame("b"))
            assert await peer.receive() == (1011, "")
            await peer.send(peer.close_frame(1011))
            assert await peer.receive() is None
        record = logged.take()
        assert "GET /wrong" in record
        assert "KeyError: 'a'" in record
        await other.send(
            other.close_frame(1000)
        )  # Only the connection of the failed listener has ended.
        assert await other.receive_all() == [(1000, "")]
    (others_events, events) = heard
    assert others_events == [CloseEvent(1000, "", was_clean=True)]
    assert events[0] == "a"
    assert isinstance(events[1], ErrorEvent)
    assert events[2].code == 1006
    assert len(events) == 3


async def test_g7_an_exception_in_a_close_listener_only_propagates(
    net: Network, logged: Logged
) -> None:
    async with net.serve_halves() as (server, halves), net.peer(server) as peer:
        half = await halves.receive()

        @half.on("close")
        def fail(event: CloseEvent) -> None:
            raise KeyError(event.code)

        heard = net.accept(half)
        await peer.send(peer.close_frame(4000, "done"))
        assert await peer.receive_all() == [(4000, "done")]
        await half.wait_closed()
        await trio.testing.wait_all_tasks_blocked()
        assert heard == [DONE]
        assert "KeyError: 4000" in logged.take()


# -- G8: one at a time --------------------------------------------------------


async def test_g8_async_listeners_of_a_half_do_not_overlap(
    net: Network, ends: Ends
) -> None:
    steps: list[str] = []
    async with ends() as (near, far):
        near.accept()

        @far.on("message")
        async def listen(event: MessageEvent) -> None:
            steps.append(f"begin {event.data!s}")
            await trio.sleep(0.001)
            steps.append(f"end {event.data!s}")

        far.accept()
        for number in range(20):
            near.send(str(number))
        await near.aclose()
    expected = [[f"begin {number}", f"end {number}"] for number in range(20)]
    assert steps == [step for pair in expected for step in pair]


async def test_g8_a_slow_connection_does_not_delay_another(net: Network) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()

        @server.on("message")
        async def listen(event: MessageEvent) -> None:
            if event.data == "wait":
                await trio.sleep_forever()
            server.send(event.data)

        server.accept()
        return Response(None, status=101, web_socket=client)

    async with (
        net.serve(fetch, close_grace=0.1) as server,
        net.peer(server) as slow,
        net.peer(server) as quick,
    ):
        await slow.send(slow.text_frame("wait"))
        for number in range(10):
            await quick.send(quick.text_frame(str(number)))
            assert await quick.receive() == str(number)


async def test_g3_two_sides_that_both_send_more_than_the_buffers_hold_get_everything(
    net: Network,
) -> None:
    message = bytes(500_000)
    async with net.serve(net.echo) as server, open_websocket(server.url) as ws:
        for _ in range(40):
            ws.send(message)
        for _ in range(40):
            assert await ws.receive() == message


# -- G9: bounded memory -------------------------------------------------------


async def flood(
    peer: "ScriptedPeer", frame: bytes, count: int, sent: list[int]
) -> None:
    for _ in range(count):
        await peer.send(frame)
        sent[0] += 1


async def until_nothing_moves(sent: list[int]) -> int:
    """Wait until a sender is blocked; return the number of messages sent."""
    quiet = 0
    while quiet < 3:
        before = sent[0]
        await trio.sleep(0.05)
        quiet = quiet + 1 if sent[0] == before else 0
    return sent[0]


CONSUMERS = ["async listener", "puller", "none"]


@pytest.mark.parametrize("taker", CONSUMERS)
async def test_g9_a_slow_consumer_stops_the_reading_of_the_socket(
    net: Network, taker: str
) -> None:
    size, count, limit = 2**16, 512, 2**18
    transport_half: list[WebSocket] = []
    send, halves = trio.open_memory_channel[WebSocket](1)

    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        transport_half.append(client)
        send.send_nowait(server)
        return Response(None, status=101, web_socket=client)

    async with (
        net.serve(fetch, receive_buffer_bytes=limit) as server,
        net.peer(server) as peer,
        trio.open_nursery() as nursery,
    ):
        half = await halves.receive()
        go_on = trio.Event()
        sizes: list[int] = []
        if taker == "async listener":

            @half.on("message")
            async def listen(event: MessageEvent) -> None:
                await go_on.wait()
                sizes.append(len(event.data))

            half.accept()
        elif taker == "puller":
            half.accept(pull=True)
        sent = [0]
        frame = peer.frame(net.BINARY, bytes(size))
        nursery.start_soon(flood, peer, frame, count, sent)
        blocked_at = await until_nothing_moves(sent)
        # Messages that are sent but not queued are in the buffers of the system.
        assert blocked_at < count
        queued = transport_half[0].buffered_amount
        assert limit <= queued <= limit + 2 * size
        go_on.set()
        if taker == "async listener":
            await net.until(lambda: len(sizes) == count)
        else:
            sizes = [len(await half.receive()) for _ in range(count)]
        assert sizes == [size] * count
        await peer.send(peer.close_frame(1000))
        if taker != "async listener":
            with pytest.raises(ConnectionClosedError):
                await half.receive()
        assert await peer.receive_all() == [(1000, "")]


async def test_g9_a_client_also_stops_reading(net: Network) -> None:
    size, count, limit = 2**16, 512, 2**18
    async with (
        net.client_end(receive_buffer_bytes=limit) as (half, peer),
        trio.open_nursery() as nursery,
    ):
        half.accept(pull=True)
        sent = [0]
        frame = peer.frame(net.BINARY, bytes(size))
        nursery.start_soon(flood, peer, frame, count, sent)
        assert await until_nothing_moves(sent) < count
        for _ in range(count):
            assert len(await half.receive()) == size


async def test_g9_a_queue_of_tiny_messages_is_bounded(net: Network) -> None:
    limit, count = 2**16, 600_000
    transport_half: list[WebSocket] = []

    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        transport_half.append(client)
        server.accept(pull=True)
        return Response(None, status=101, web_socket=client)

    async with (
        net.serve(fetch, receive_buffer_bytes=limit, close_grace=0.1) as server,
        net.peer(server) as peer,
        trio.open_nursery() as nursery,
    ):
        sent = [0]
        frames = peer.text_frame("") * 10_000 + peer.text_frame("x") * 10_000
        nursery.start_soon(flood, peer, frames, count // 20_000 * 10, sent)
        await until_nothing_moves(sent)
        # A message counts at least 64 bytes.
        assert transport_half[0].buffered_amount <= limit // 64 + 1
        nursery.cancel_scope.cancel()


async def test_g9_a_peer_that_never_reads_gives_buffer_full_error(
    net: Network, one_end: OneEnd
) -> None:
    limit, message = 2**20, bytes(2**16)
    async with one_end(pair_options={"max_buffered_bytes": limit}) as (half, peer):
        half.accept()
        count = 0

        async def fill() -> None:
            nonlocal count
            while True:
                half.send(message)
                count += 1
                assert half.buffered_amount <= limit
                if half.buffered_amount > limit - len(message):
                    await trio.sleep(0.05)  # The buffers of the system fill first.

        with pytest.raises(BufferFullError, match=r"await drain\(\)"):
            await fill()
        assert limit - len(message) < half.buffered_amount <= limit
        with trio.move_on_after(0.02) as scope:
            await half.drain()
        assert scope.cancelled_caught
        for _ in range(count):  # No queued message was dropped.
            assert await peer.receive() == message
        await half.drain()
        assert half.buffered_amount == 0
        half.send("there is room again")
        assert await peer.receive() == "there is room again"


# -- G10: no leaks ------------------------------------------------------------


async def test_g10_no_task_and_no_socket_outlives_its_connection(
    net: Network,
) -> None:
    async with net.serve(net.echo) as server, trio.open_nursery() as nursery:

        def living() -> int:
            return trio.lowlevel.current_statistics().tasks_living

        sockets, tasks = net.open_sockets(), living()
        ends: list[Callable[[ScriptedPeer], Any]]
        ends = [vanish, reset, break_the_protocol, close, close_and_vanish]
        for end in ends:
            async with net.peer(server) as peer:
                await peer.send(peer.text_frame("hi"))
                await peer.receive()
                await end(peer)
        for _ in range(3):
            client = await connect(server.url, nursery=nursery)
            client.accept(pull=True)
            client.send("hi")
            await client.receive()
            await client.aclose()
        await net.until_open_sockets(sockets)
        await net.until(lambda: living() == tasks)


async def test_g10_closed_halves_are_freed_without_the_collector(
    net: Network,
) -> None:
    freed: list[weakref.ref[WebSocket]] = []

    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        freed.append(weakref.ref(client))
        freed.append(weakref.ref(server))
        server.accept()
        return Response(None, status=101, web_socket=client)

    async def talk(url: str, nursery: trio.Nursery) -> None:
        client = await connect(url, nursery=nursery)
        freed.append(weakref.ref(client))
        client.accept(pull=True)
        client.send("hi")
        await client.aclose()

    def living() -> int:
        return trio.lowlevel.current_statistics().tasks_living

    gc.collect()
    gc.disable()
    try:
        async with net.serve(fetch) as server, trio.open_nursery() as nursery:
            tasks = living()
            await talk(server.url, nursery)
            await net.until(lambda: living() == tasks)
            await trio.testing.wait_all_tasks_blocked()
            assert [ref() for ref in freed] == [None, None, None]
    finally:
        gc.enable()


# -- G11: no luck -------------------------------------------------------------


async def test_g11_a_close_is_answered_although_tcp_has_half_closed(
    net: Network,
) -> None:
    answers: set[tuple[Any, ...]] = set()
    async with net.serve(net.echo) as server:
        for _ in range(30):
            async with net.peer(server) as peer:
                await peer.send(peer.text_frame("a"), peer.close_frame(4000, "done"))
                assert isinstance(peer.stream, trio.SocketStream)
                await peer.stream.send_eof()
                answers.add(tuple(await peer.receive_all()))
    assert answers == {("a", (4000, "done"))}


async def test_g11_events_do_not_depend_on_scheduling(net: Network) -> None:
    transcripts: set[tuple[Any, ...]] = set()
    async with net.serve_halves() as (server, halves):
        for _ in range(30):
            async with net.peer(server) as peer:
                half = await halves.receive()
                heard = net.accept(half)
                await peer.send(peer.text_frame("a"), peer.close_frame(4000, "done"))
                with contextlib.suppress(trio.BrokenResourceError):
                    await peer.stream.aclose()
                await half.wait_closed()
                transcripts.add(tuple(str(event) for event in heard))
    assert transcripts == {("a", str(DONE))}


async def test_g11_a_protocol_error_drops_no_message_that_came_before(
    net: Network,
) -> None:
    transcripts: set[tuple[Any, ...]] = set()
    async with net.serve_halves() as (server, halves):
        for _ in range(30):
            async with net.peer(server) as peer:
                half = await halves.receive()
                heard = net.accept(half)
                await peer.send(peer.text_frame("a"), peer.text_frame("b"), b"\xff" * 9)
                await half.wait_closed()
                assert isinstance(heard[-2], ErrorEvent)
                assert isinstance(heard[-2].error, ProtocolError)
                transcripts.add(tuple(str(event) for event in heard))
                assert len(await peer.receive_all()) == 1
    (transcript,) = transcripts
    assert transcript[:2] == ("a", "b")
    assert len(transcript) == 4

"""Pulling messages: `receive()` and `async for`, instead of listeners."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from pairs import bounded, takes
from trio._core._run import _r as scheduler_random
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wspair import (
    BufferFullError,
    CloseEvent,
    ConnectionClosedError,
    ErrorEvent,
    InvalidStateError,
    MessageEvent,
    ReadyState,
    WebSocket,
    WebSocketPair,
    open_websocket_pair,
)


async def pull_all(half: WebSocket) -> list[str | bytes | tuple[int, bool]]:
    """Receive until the end; return the messages, the code and `was_clean`."""
    received: list[str | bytes | tuple[int, bool]] = []
    while True:
        try:
            received.append(await half.receive())
        except ConnectionClosedError as error:
            return [*received, (error.code, error.was_clean)]


# -- taking a half for pulling -----------------------------------


@bounded
async def test_receive_takes_a_half_that_is_not_accepted(
    autojump_clock: MockClock,
) -> None:
    async with open_websocket_pair() as (client, server):
        client.accept()
        client.send("text")
        client.send(b"binary")
        assert await server.receive() == "text"
        assert "accepted for receive()" in repr(server)
        assert await server.receive() == b"binary"
        server.send("answer")
        server.accept(pull=True)  # This has no effect.
        server.accept()


@bounded
async def test_a_later_receive_does_not_get_the_message_of_an_earlier_one(
    autojump_clock: MockClock,
) -> None:
    got: list[tuple[str, str | bytes]] = []

    async def pull(name: str, half: WebSocket) -> None:
        got.append((name, await half.receive()))

    async with open_websocket_pair() as (client, server):
        client.accept()
        server.accept(pull=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pull, "first", server)
            await wait_all_tasks_blocked()
            client.send("one")
            with trio.move_on_after(1) as patience:
                await pull("second", server)
            assert patience.cancelled_caught
            assert got == [("first", "one")]
            client.send("two")
            await pull("third", server)
    assert got == [("first", "one"), ("third", "two")]


@bounded
async def test_iteration_takes_a_half_that_is_not_accepted(
    autojump_clock: MockClock,
) -> None:
    async with open_websocket_pair() as (client, server):
        client.accept()
        for n in range(3):
            client.send(n)
        client.close()
        assert [message async for message in server] == ["0", "1", "2"]


@bounded
async def test_message_listeners_of_a_half_in_pull_mode_are_never_called(
    autojump_clock: MockClock,
) -> None:
    events: list[object] = []
    async with open_websocket_pair() as (client, server):
        server.onmessage = events.append
        server.add_event_listener("message", events.append)
        server.onerror = server.onclose = events.append
        client.accept()
        server.accept(pull=True)
        client.send("pulled")
        assert await server.receive() == "pulled"
        client.close(3000)
        await server.wait_closed()
    assert events == [CloseEvent(3000, "", was_clean=True)]


@bounded
async def test_a_half_with_message_events_cannot_be_pulled(
    autojump_clock: MockClock,
) -> None:
    async with open_websocket_pair() as (client, server):
        client.accept()
        server.accept()
        server.accept(pull=True)  # The first call counts.
        for pull in server.receive, server.__anext__:
            with pytest.raises(
                InvalidStateError,
                match=r"its messages go elsewhere.*call accept\(pull=True\)",
            ):
                await pull()


@bounded
async def test_a_waiting_receiver_gets_a_message_that_comes_later(
    autojump_clock: MockClock,
) -> None:
    async def send_later(half: WebSocket) -> None:
        await trio.sleep(5)
        half.send("later")

    async with (
        open_websocket_pair() as (client, server),
        trio.open_nursery() as nursery,
    ):
        client.accept()
        nursery.start_soon(send_later, client)
        with takes(5):
            assert await server.receive() == "later"


@bounded
async def test_both_halves_can_be_pulled(autojump_clock: MockClock) -> None:
    async def echo(half: WebSocket) -> None:
        async for message in half:
            half.send(message)

    async with (
        open_websocket_pair() as (client, server),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(echo, server)
        client.accept(pull=True)
        for n in range(300):
            client.send(n)
            assert await client.receive() == str(n)
        client.close()


@bounded
async def test_an_echo_loop_answers_messages_that_were_sent_before_the_close(
    autojump_clock: MockClock,
) -> None:
    async def echo(half: WebSocket) -> None:
        async for message in half:
            half.send(message)

    async def main() -> list[str | bytes | tuple[int, bool]]:
        async with trio.open_nursery() as nursery:
            client, server = WebSocketPair(nursery)
            nursery.start_soon(echo, server)
            client.accept(pull=True)
            await wait_all_tasks_blocked()
            client.send("first")
            client.send("second")
            client.close(1000)
            return await pull_all(client)
        raise AssertionError

    for seed in range(10):
        scheduler_random.seed(seed)
        assert await main() == ["first", "second", (1000, True)]


# -- the end -----------------------------------------------------


@pytest.mark.parametrize("code", [None, 1000, 1001])
@bounded
async def test_iteration_ends_after_a_normal_close(
    autojump_clock: MockClock, code: int | None
) -> None:
    async with open_websocket_pair() as (client, server):
        client.accept()
        client.send("x")
        client.close(code)
        assert [message async for message in server] == ["x"]
        # Iterating again ends at once.
        assert [message async for message in server] == []


@pytest.mark.parametrize("code", [1002, 1011, 3000, 4999])
@bounded
async def test_iteration_raises_after_another_close(
    autojump_clock: MockClock, code: int
) -> None:
    received: list[str | bytes] = []

    async def iterate(half: WebSocket) -> None:
        async for message in half:
            received.append(message)  # noqa: PERF401 - kept when it raises

    async with open_websocket_pair() as (client, server):
        client.accept()
        client.send("x")
        client.close(code, "why")
        for _ in range(2):
            with pytest.raises(ConnectionClosedError) as caught:
                await iterate(server)
            error = caught.value
            assert (error.code, error.reason, error.was_clean) == (code, "why", True)
    assert received == ["x"]


@pytest.mark.parametrize("code", [None, 1000, 1001, 1011, 3000])
@bounded
async def test_receive_always_raises_at_the_end(
    autojump_clock: MockClock, code: int | None
) -> None:
    async with open_websocket_pair() as (client, server):
        client.accept()
        client.close(code)
        for _ in range(2):
            with pytest.raises(ConnectionClosedError) as caught:
                await server.receive()
            assert caught.value.code == (code or 1005)
            assert caught.value.was_clean


@bounded
async def test_iteration_raises_after_an_end_by_cancellation(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        client.accept()
        server.accept(pull=True)
        client.send("dropped")
        nursery.cancel_scope.cancel()
    with pytest.raises(ConnectionClosedError) as caught:
        await anext(server)
    assert (caught.value.code, caught.value.was_clean) == (1006, False)
    assert str(caught.value) == (
        "the connection has closed abnormally with code 1006: "
        "the nursery of this half was cancelled"
    )


@pytest.mark.parametrize("pull", ["receive", "iterate"])
@pytest.mark.parametrize("end", ["close", "aclose", "cancelled", "failed", "timeout"])
@bounded
async def test_waiting_receivers_raise_at_the_end(
    autojump_clock: MockClock, end: str, pull: str
) -> None:
    ends: list[tuple[int, bool] | str] = []

    async def receive(half: WebSocket) -> None:
        try:
            if pull == "receive":
                await half.receive()
            else:
                async for _message in half:
                    pass
                ends.append("end of iteration")
        except ConnectionClosedError as error:
            ends.append((error.code, error.was_clean))

    def fail(_event: object) -> None:
        raise ValueError

    async with trio.open_nursery() as outer:
        with suppress_group(ValueError):
            async with trio.open_nursery() as inner:
                client, server = WebSocketPair(inner)
                server.accept(pull=True)
                for _ in range(3):
                    outer.start_soon(receive, server)
                await wait_all_tasks_blocked()
                if end != "timeout":
                    client.accept()
                if end == "close":
                    client.close(1000)
                elif end == "aclose":
                    await server.aclose()
                elif end == "timeout":
                    await server.aclose()
                    client.accept()  # The end has already come.
                elif end == "cancelled":
                    inner.cancel_scope.cancel()
                elif end == "failed":
                    caller, callee = WebSocketPair(inner)
                    caller.accept()
                    callee.accept()
                    callee.onmessage = fail
                    caller.send("x")
    if end in ("close", "aclose"):
        over = "end of iteration" if pull == "iterate" else (1000, True)
        assert ends == [over] * 3
    else:
        assert ends == [(1006, False)] * 3


@contextmanager
def suppress_group(kind: type[Exception]) -> Iterator[None]:
    """Catch exceptions of a type, also in groups."""
    try:
        yield
    except* kind:
        pass


# -- several receivers, and cancelled ones -----------------------


@bounded
async def test_each_message_goes_to_one_of_several_receivers_in_their_order(
    autojump_clock: MockClock,
) -> None:
    got: list[tuple[int, str | bytes]] = []

    async def receive(half: WebSocket, name: int) -> None:
        got.append((name, await half.receive()))

    async with open_websocket_pair() as (client, server):
        client.accept()
        async with trio.open_nursery() as receivers:
            for name in range(3):
                receivers.start_soon(receive, server, name)
                await wait_all_tasks_blocked()
            for n in range(3):
                client.send(n)
    assert sorted(got) == [(0, "0"), (1, "1"), (2, "2")]


@bounded
async def test_many_iterators_share_the_messages_and_all_end(
    autojump_clock: MockClock,
) -> None:
    got: list[int] = []

    async def iterate(half: WebSocket) -> None:
        async for message in half:
            got.append(int(message))
            await trio.lowlevel.checkpoint()

    async with open_websocket_pair() as (client, server):
        client.accept()
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(iterate, server)
            await wait_all_tasks_blocked()
            for n in range(200):
                client.send(n)
            client.close()
    assert sorted(got) == list(range(200))


@bounded
async def test_cancelled_receivers_lose_no_message(autojump_clock: MockClock) -> None:
    got: list[int] = []

    async def receive(half: WebSocket, patience: float) -> None:
        with trio.move_on_after(patience):
            got.append(int(await half.receive()))

    async with open_websocket_pair() as (client, server):
        client.accept()
        async with trio.open_nursery() as nursery:
            for n in range(100):
                # Many of them are cancelled at the moment when a message comes.
                nursery.start_soon(receive, server, n % 5)
            for n in range(60):
                if n % 7 == 0:
                    await trio.sleep(1)
                client.send(n)
        client.close()
        got.extend([int(message) async for message in server])
    assert sorted(got) == list(range(60))


@bounded
async def test_receive_in_a_cancelled_scope_leaves_the_half_untaken(
    autojump_clock: MockClock,
) -> None:
    async with open_websocket_pair() as (client, server):
        client.accept()
        client.send("x")
        with trio.CancelScope() as scope:
            scope.cancel()
            await server.receive()
        assert scope.cancelled_caught
        heard: list[str | bytes] = []
        server.onmessage = lambda event: heard.append(event.data)
        server.accept()
    assert heard == ["x"]


# -- unread messages ---------------------------------------------


@bounded
async def test_unread_messages_outlive_a_clean_close(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        client.accept()
        server.accept(pull=True)
        for n in range(100):
            client.send(n)
        with takes(0):
            await server.aclose(3000)
        assert await client.wait_closed() == CloseEvent(3000, "", was_clean=True)
    # The nursery has ended, and the messages are still there.
    assert await pull_all(server) == [*map(str, range(100)), (3000, True)]


@bounded
async def test_the_close_of_the_peer_takes_effect_after_the_unread_messages(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        client.accept()
        server.accept(pull=True)
        client.send("unread")
        client.close(1000)
        await wait_all_tasks_blocked()
        states = [server.ready_state]
        assert await pull_all(server) == ["unread", (1000, True)]
        states.append(server.ready_state)
        assert states == [ReadyState.OPEN, ReadyState.CLOSED]


@bounded
async def test_a_half_that_never_pulls_gets_the_close_of_the_peer(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        client.accept()
        server.accept(pull=True)
        await client.aclose()
        assert server.ready_state is ReadyState.CLOSED
        with pytest.raises(ConnectionClosedError):
            server.send("too late")


@bounded
async def test_wait_closed_returns_once_the_last_message_was_received(
    autojump_clock: MockClock,
) -> None:
    # Whatever the order of Trio's tasks.
    async def ask(half: WebSocket) -> str | bytes:
        answer = await half.receive()
        with trio.fail_after(5):
            await half.wait_closed()
        return answer

    async def answer(half: WebSocket) -> None:
        half.send("the answer")
        half.close(1000)

    for seed in range(10):
        scheduler_random.seed(seed)
        async with trio.open_nursery() as nursery:
            client, server = WebSocketPair(nursery)
            server.accept()
            nursery.start_soon(answer, server)
            assert await ask(client) == "the answer"


@bounded
async def test_wait_closed_may_begin_before_the_messages_arrive(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        client.accept()
        server.accept(pull=True)
        nursery.start_soon(server.wait_closed)
        await wait_all_tasks_blocked()
        client.send("last")
        client.close(1000)
        await wait_all_tasks_blocked()
        assert server.ready_state is ReadyState.OPEN
        with trio.fail_after(1):
            assert await server.receive() == "last"
            await server.wait_closed()


@bounded
async def test_an_abnormal_end_drops_unread_messages(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        server.accept(pull=True)
        with trio.CancelScope() as scope:
            scope.cancel()
            await server.aclose()
        client.accept()
        with pytest.raises(ConnectionClosedError):
            client.send("unread")
        await client.wait_closed()
        assert await pull_all(server) == [(1006, False)]


@bounded
async def test_a_pulled_message_makes_room_for_another(
    autojump_clock: MockClock,
) -> None:
    async def pull_slowly(half: WebSocket) -> None:
        async for _message in half:
            await trio.sleep(1)

    async with (
        open_websocket_pair(max_buffered_bytes=200) as (client, server),
        trio.open_nursery() as nursery,
    ):
        client.accept()
        server.accept(pull=True)
        client.send("x" * 100)
        client.send("y" * 100)
        with pytest.raises(BufferFullError):
            client.send("z")
        nursery.start_soon(pull_slowly, server)
        with takes(1):
            await client.drain()
        assert client.buffered_amount == 0
        client.send("z")
        client.close()


@bounded
async def test_drain_waits_until_enough_messages_were_pulled(
    autojump_clock: MockClock,
) -> None:
    drained: list[int] = []

    async def drain(half: WebSocket, max_bytes: int) -> None:
        await half.drain(max_bytes)
        drained.append(half.buffered_amount)

    async with (
        open_websocket_pair() as (client, server),
        trio.open_nursery() as nursery,
    ):
        client.accept()
        server.accept(pull=True)
        for _ in range(5):
            client.send("x" * 10)
        for max_bytes in 0, 10, 25, 40:
            nursery.start_soon(drain, client, max_bytes)
        await wait_all_tasks_blocked()
        assert drained == []
        for _ in range(5):
            await server.receive()
            await wait_all_tasks_blocked()
    assert drained == [40, 20, 10, 0]


# -- with close listeners and failures ---------------------------


@bounded
async def test_close_listeners_of_a_puller_run_and_wait_closed_waits_for_them(
    autojump_clock: MockClock,
) -> None:
    steps: list[str] = []

    async def slow(_event: CloseEvent) -> None:
        await trio.sleep(3)
        steps.append("closed")

    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        client.accept()
        server.onclose = slow
        server.accept(pull=True)
        client.close()
        with pytest.raises(ConnectionClosedError):
            await server.receive()
        with takes(3):
            await server.wait_closed()
    assert steps == ["closed"]


@bounded
async def test_an_aclose_that_times_out_is_an_error_event_for_a_puller_too(
    autojump_clock: MockClock,
) -> None:
    events: list[ErrorEvent | CloseEvent] = []
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        server.add_event_listener("error", events.append)
        server.add_event_listener("close", events.append)
        with takes(1):
            await server.aclose()
        client.accept()
    assert [event.type for event in events] == ["error", "close"]


@bounded
async def test_a_listener_may_pull_from_another_half(
    autojump_clock: MockClock,
) -> None:
    got: list[str | bytes] = []
    async with (
        open_websocket_pair() as (client, server),
        open_websocket_pair() as (source, sink),
    ):
        source.accept()

        @server.on("message")
        async def fetch(_event: MessageEvent) -> None:
            got.append(await sink.receive())

        client.accept()
        server.accept()
        client.send("1")
        client.send("2")
        await wait_all_tasks_blocked()
        source.send("a")
        source.send("b")
        await wait_all_tasks_blocked()
    assert got == ["a", "b"]


@bounded
async def test_pulling_after_everything_ended_still_raises_with_the_end(
    autojump_clock: MockClock,
) -> None:
    async with open_websocket_pair() as (client, server):
        client.accept()
        server.accept(pull=True)
    for _ in range(2):
        assert await pull_all(server) == [(1000, True)]
        with pytest.raises(StopAsyncIteration):
            await anext(server)
    with pytest.raises(InvalidStateError):
        await client.receive()


def _nothing(_event: object) -> None:
    """Ignore an event."""


@pytest.mark.parametrize("when", ["before", "after", "slot", "decorator", "receive"])
async def test_a_message_listener_of_a_pulled_half_is_warned_about_once(
    when: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_websocket_pair() as (client, server):
        if when in ("before", "receive"):
            server.add_event_listener("message", _nothing)
            assert not caplog.records
        client.accept()
        client.send("a")
        if when == "receive":
            assert await server.receive() == "a"
        server.accept(pull=True)
        if when == "slot":
            server.onmessage = _nothing
        elif when == "decorator":
            server.on("message")(_nothing)
        else:
            server.add_event_listener("message", _nothing)
        server.on("message")(print)
        server.onmessage = print
    [record] = caplog.records
    assert record.name == "trio_wspair"
    assert "this half is in pull mode" in record.getMessage()


async def test_a_pulled_half_may_have_listeners_for_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_websocket_pair() as (client, server):
        server.on("close")(_nothing)
        server.accept(pull=True)
        server.onerror = _nothing
        server.onmessage = None
        client.accept()
    assert not caplog.records

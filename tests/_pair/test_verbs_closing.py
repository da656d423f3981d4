"""How halves end: the closing handshake, half-open, `aclose()`, leaving a block."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import trio
from pairs import (
    NURSERY_CANCELLED,
    TIMED_OUT,
    BodyError,
    ListenerError,
    abnormal,
    accepted,
    apart,
    bounded,
    clean,
    collect_events,
    failures_expected,
    takes,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wspair import (
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

OPEN, CLOSING, CLOSED = ReadyState.OPEN, ReadyState.CLOSING, ReadyState.CLOSED


@contextmanager
def raises_bare(error: BaseException) -> Iterator[None]:
    """Check that the block raises this very exception, without a group."""
    with pytest.raises(type(error)) as caught:
        yield
    assert caught.value is error


# -- the closing handshake ---------------------------------------


@pytest.mark.parametrize(
    ("arguments", "event"),
    [
        ((), clean(1005)),
        ((1000,), clean(1000)),
        ((3000, "why"), clean(3000, "why")),
        ((4999, "ü" * 61), clean(4999, "ü" * 61)),
        ((1001, ""), clean(1001)),
    ],
)
@bounded
async def test_both_halves_see_the_code_and_reason_of_the_first_close(
    autojump_clock: MockClock,
    arguments: tuple[int, str] | tuple[int] | tuple[()],
    event: CloseEvent,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)
        heard = collect_events(client), collect_events(server)
        client.close(*arguments)
        await client.wait_closed()
        await server.wait_closed()
    assert heard == ([event], [event])


@bounded
async def test_ready_state_is_closed_in_the_close_event_of_either_half(
    autojump_clock: MockClock,
) -> None:
    states: dict[str, ReadyState] = {}
    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)

        @client.on("close")
        def at_client(_event: CloseEvent) -> None:
            states["client"] = client.ready_state

        @server.on("close")
        def at_server(_event: CloseEvent) -> None:
            states["server"] = server.ready_state

        assert client.ready_state is OPEN
        client.close()
        assert client.ready_state is CLOSING
        assert server.ready_state is OPEN
    assert states == {"client": CLOSED, "server": CLOSED}


@bounded
async def test_each_half_sees_the_others_code_when_both_close_at_once(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)
        heard = collect_events(client), collect_events(server)
        client.close(3000, "client")
        server.close(4000, "server")
    assert heard == ([clean(4000, "server")], [clean(3000, "client")])


@bounded
async def test_a_second_close_is_ignored_but_its_arguments_are_checked(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)
        heard = collect_events(server)
        client.close(3000)
        for _ in range(2):
            client.close(4000, "ignored")
            with pytest.raises(ValueError, match="1006 can't be sent"):
                client.close(1006)
            await client.wait_closed()
        server.close(4001)
    assert heard == [clean(3000)]


@bounded
async def test_close_in_the_close_listener_is_ignored_after_the_answer(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)
        heard = collect_events(client)
        server.onclose = lambda _event: server.close(4000)
        client.close(3000)
    assert heard == [clean(3000)]


@bounded
async def test_a_half_receives_until_the_peer_has_sent_close_too(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)
        heard = collect_events(client)

        @server.on("message")
        def answer(event: MessageEvent) -> None:
            server.send(event.data)

        client.send("last question")
        client.close(1000)
        with pytest.raises(InvalidStateError, match=r"send\(\) after close\(\)"):
            client.send("too late")
    assert heard == ["last question", clean(1000)]


@bounded
async def test_close_in_a_message_listener_lets_the_rest_arrive(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)
        heard = collect_events(server), collect_events(client)

        @server.on("message")
        def hang_up(event: MessageEvent) -> None:
            if event.data == "1":
                server.close(3000)

        for n in range(3):
            client.send(n)
    assert heard == (["0", "1", "2", clean(3000)], [clean(3000)])


@bounded
async def test_an_untaken_half_delays_the_handshake(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        heard = collect_events(client)
        client.accept()
        client.close(1000)
        await trio.sleep(100)
        assert heard == []
        assert client.ready_state is CLOSING
        assert server.ready_state is OPEN
        server.accept()
    assert heard == [clean(1000)]


@bounded
async def test_send_after_the_close_of_the_peer_has_arrived_raises_its_code(
    autojump_clock: MockClock,
) -> None:
    caught: list[Exception] = []
    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)

        @server.on("close")
        def send_anyway(_event: CloseEvent) -> None:
            try:
                server.send("too late")
            except ConnectionClosedError as error:
                caught.append(error)

        client.close(3000, "bye")
        await client.wait_closed()
    assert [str(error) for error in caught] == [
        "the connection has closed cleanly with code 3000: bye"
    ]


@bounded
async def test_a_nursery_ends_when_its_halves_have_closed(
    autojump_clock: MockClock,
) -> None:
    with takes(5):
        async with trio.open_nursery() as nursery:
            client, _server = accepted(nursery)
            await trio.sleep(5)
            client.close()


@bounded
async def test_a_nursery_serves_new_pairs_after_all_have_closed(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            client, server = accepted(nursery)
            heard = collect_events(server)
            client.send("x")
            client.close(1000)
            await client.wait_closed()
            await server.wait_closed()
            await wait_all_tasks_blocked()
            assert not nursery.child_tasks
            assert heard == ["x", clean(1000)]


# -- half-open ---------------------------------------------------


@bounded
async def test_a_half_open_half_can_send_after_the_close_of_the_peer(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        heard = collect_events(client), collect_events(server)
        client.accept()
        server.accept(allow_half_open=True)
        client.close(3000, "done")
        await trio.sleep(10)
        assert heard == ([], [clean(3000, "done")])
        assert client.ready_state is server.ready_state is CLOSING
        server.send("still here")
        server.close(4000)
        assert server.ready_state is CLOSED
        with pytest.raises(InvalidStateError):
            server.send("no more")
    assert heard == (["still here", clean(4000)], [clean(3000, "done")])


@pytest.mark.parametrize("kind", ["sync", "async"])
@bounded
async def test_a_half_open_half_may_answer_in_its_close_listener(
    autojump_clock: MockClock, kind: str
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        heard = collect_events(client)
        client.accept()
        server.accept(allow_half_open=True)

        def answer(event: CloseEvent) -> None:
            server.send("last words")
            server.close(event.code)

        async def answer_slowly(event: CloseEvent) -> None:
            await trio.sleep(1)
            answer(event)
            await trio.sleep(1)

        server.onclose = answer if kind == "sync" else answer_slowly
        client.close(3000)
        await server.wait_closed()
    assert heard == ["last words", clean(3000)]


@bounded
async def test_a_half_open_half_may_close_first(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        heard = collect_events(client), collect_events(server)
        client.accept(allow_half_open=True)
        server.accept(allow_half_open=True)
        server.close(3000)
        await trio.sleep(1)
        client.send("more")
        await trio.sleep(1)
        client.close(4000)
    assert heard == ([clean(3000)], ["more", clean(4000)])


@bounded
async def test_a_second_accept_keeps_the_options_of_the_first(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        heard = collect_events(client)
        client.accept()
        server.accept(allow_half_open=True)
        server.accept()
        client.close()
        await trio.sleep(1)
        assert heard == []
        server.close(4000)
    assert heard == [clean(4000)]


@bounded
async def test_wait_closed_of_a_half_open_half_waits_for_its_own_close(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        client.accept()
        server.accept(allow_half_open=True)
        client.close(3000)
        with trio.move_on_after(10) as scope:
            await server.wait_closed()
        assert scope.cancelled_caught
        server.close()
        assert await server.wait_closed() == clean(3000)


@bounded
async def test_a_half_open_puller_ends_with_its_own_close(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        heard = collect_events(client)
        client.accept()
        server.accept(pull=True, allow_half_open=True)
        client.send("x")
        client.close(1000)
        assert [message async for message in server] == ["x"]
        await trio.sleep(10)
        server.send("still here")
        server.close(4000)
        with trio.fail_after(10):
            assert await server.wait_closed() == clean(1000)
    assert heard == ["still here", clean(4000)]


@pytest.mark.parametrize("heard_close", [False, True])
@bounded
async def test_a_half_open_half_ends_with_its_nursery(
    autojump_clock: MockClock, *, heard_close: bool
) -> None:
    async with trio.open_nursery() as outer, trio.open_nursery() as inner:
        client, server = apart(outer, inner)
        heard = collect_events(client), collect_events(server)
        server.accept(allow_half_open=True)
        client.accept()
        if heard_close:
            client.close(3000)
        await wait_all_tasks_blocked()
        inner.cancel_scope.cancel()
    assert server.ready_state is CLOSED
    expected = clean(3000) if heard_close else NURSERY_CANCELLED
    assert heard == ([clean(1001)], [expected])
    assert await server.wait_closed() == expected
    with pytest.raises(ConnectionClosedError):
        server.send("too late")


@bounded
async def test_a_half_open_half_needs_no_close_when_its_peer_has_ended(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        heard = collect_events(server)
        client.accept()
        client.send("last words")
        await client.aclose(3000)  # No listener answers.
        assert await client.wait_closed() == abnormal(TIMED_OUT)
        server.accept(allow_half_open=True)
        await server.wait_closed()
    assert heard == ["last words", clean(3000)]
    assert server.ready_state is CLOSED
    with pytest.raises(ConnectionClosedError):
        server.send("unread")


@bounded
async def test_aclose_of_a_half_open_half_completes_the_handshake(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        heard = collect_events(client)
        client.accept()
        server.accept(allow_half_open=True)
        client.close(3000)
        await trio.sleep(10)
        with takes(0):
            await server.aclose(4000)
        assert server.ready_state is CLOSED
    assert heard == [clean(4000)]


# -- aclose() ----------------------------------------------------


@bounded
async def test_aclose_returns_after_the_handshake_and_the_close_listeners(
    autojump_clock: MockClock,
) -> None:
    steps: list[str] = []

    async def slow(_event: CloseEvent) -> None:
        await trio.sleep(0.5)
        steps.append("listener")

    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)
        client.onclose = slow
        heard = collect_events(server)
        with takes(0.5):
            await client.aclose(3000, "bye")
        steps.append("aclose")
    assert steps == ["listener", "aclose"]
    assert heard == [clean(3000, "bye")]


@bounded
async def test_aclose_waits_close_grace_for_the_peer_and_then_ends_with_1006(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery, close_grace=7)
        heard = collect_events(client)
        client.accept()
        with takes(7):
            await client.aclose()
        message = "the peer did not answer the Close in 7 s"
        error, close = heard
        assert isinstance(error, ErrorEvent)
        assert isinstance(error.error, TimeoutError)
        assert str(error.error) == message
        assert error.message == f"TimeoutError: {message}"
        assert close == abnormal(message)
        assert await client.wait_closed() == close
        # The peer has no close event yet.
        server.accept()
        assert await server.wait_closed() == clean(1000)


@bounded
async def test_aclose_that_is_cancelled_ends_with_1006_without_an_error(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        heard = collect_events(client)
        client.accept()
        with takes(0.25), trio.move_on_after(0.25) as scope:
            await client.aclose()
        assert scope.cancelled_caught
        assert client.ready_state is CLOSED
        await client.wait_closed()
        assert heard == [abnormal("closing was cancelled")]
        server.accept()


@bounded
async def test_aclose_waits_for_slow_listeners_no_longer_than_its_grace(
    autojump_clock: MockClock,
) -> None:
    async def slow(_event: CloseEvent) -> None:
        await trio.sleep(10)

    async with trio.open_nursery() as nursery:
        client, _server = accepted(nursery)
        client.onclose = slow
        with takes(
            2
        ):  # One grace for the handshake, which is complete, and one for listeners.
            await client.aclose()
        assert client.ready_state is CLOSED
        with takes(8):
            assert await client.wait_closed() == clean(1000)


@bounded
async def test_aclose_on_an_untaken_half_closes_it(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        server.accept()
        server.send("never read")
        with takes(0):
            await client.aclose(3000)
        assert await server.wait_closed() == clean(3000)
        assert await client.wait_closed() == clean(3000)


@bounded
async def test_aclose_can_be_called_again_and_by_many_tasks_at_once(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)
        heard = collect_events(client), collect_events(server)
        with takes(0):
            async with trio.open_nursery() as closers:
                for half in (client, server) * 3:
                    closers.start_soon(half.aclose)
            await client.aclose(4000)
    assert heard == ([clean(1000)], [clean(1000)])


@bounded
async def test_aclose_in_a_listener_of_the_same_half_does_not_wait(
    autojump_clock: MockClock,
) -> None:
    steps: list[str] = []
    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)

        @server.on("message")
        async def hang_up(event: MessageEvent) -> None:
            with takes(0):
                await server.aclose(3000)
            steps.append(f"hung up after {event.data!r}")

        @server.on("close")
        async def closed(event: CloseEvent) -> None:
            with takes(0):
                await server.aclose(4000)
            steps.append(f"closed with {event.code}")

        client.send("hello")
        assert await client.wait_closed() == clean(3000)
    assert steps == ["hung up after 'hello'", "closed with 3000"]


@bounded
async def test_aclose_in_a_child_task_of_a_listener_does_not_wait(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)

        @server.on("message")
        async def hang_up(_event: MessageEvent) -> None:
            async with trio.open_nursery() as children:
                children.start_soon(server.aclose)

        with takes(0):
            client.send("x")
            await server.wait_closed()


@bounded
async def test_aclose_in_a_close_listener_of_a_cancelled_nursery_does_not_wait(
    autojump_clock: MockClock,
) -> None:
    steps: list[str] = []
    with takes(1):
        async with trio.open_nursery() as nursery:
            _client, server = accepted(nursery)

            @server.on("close")
            async def closed(event: CloseEvent) -> None:
                steps.append(f"closed with {event.code}")
                await server.aclose()
                steps.append("after aclose()")
                with pytest.raises(InvalidStateError, match="listener of the same"):
                    await server.wait_closed()
                steps.append("after wait_closed()")

            await trio.sleep(1)
            nursery.cancel_scope.cancel()
    assert steps == ["closed with 1006", "after aclose()", "after wait_closed()"]


@bounded
async def test_aclose_of_the_other_half_in_a_listener_waits_for_it(
    autojump_clock: MockClock,
) -> None:
    steps: list[str] = []
    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery, close_grace=5)

        @server.on("message")
        async def hang_up(_event: MessageEvent) -> None:
            # The answer of the server waits for this very listener.
            with takes(5):
                await client.aclose()
            steps.append("done")

        client.send("x")
        assert await client.wait_closed() == abnormal(
            "the peer did not answer the Close in 5 s"
        )
    assert steps == ["done"]


@bounded
async def test_listeners_that_close_the_half_of_each_other_do_not_hang(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)
        heard = collect_events(client), collect_events(server)

        @client.on("message")
        async def close_server(_event: MessageEvent) -> None:
            await server.aclose()

        @server.on("message")
        async def close_client(_event: MessageEvent) -> None:
            await client.aclose()

        client.send("x")
        server.send("x")
    assert [events[-1] for events in heard] == [abnormal(TIMED_OUT)] * 2


@bounded
async def test_aclose_leaves_unread_messages_to_be_read(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        client.accept()
        server.accept(pull=True)
        client.send("unread")
        with takes(0):
            await server.aclose(3000)
        assert server.ready_state is CLOSED
        assert await server.receive() == "unread"
        with pytest.raises(ConnectionClosedError):
            await server.receive()


@bounded
async def test_aclose_with_wrong_arguments_raises_and_changes_nothing(
    autojump_clock: MockClock,
) -> None:
    async with open_websocket_pair() as (client, _server):
        with pytest.raises(ValueError, match="1005 can't be sent"):
            await client.aclose(1005)
        with pytest.raises(ValueError, match="at most 123 bytes"):
            await client.aclose(1000, "x" * 124)
        with pytest.raises(TypeError, match="a close code is an int"):
            await client.aclose("1000")  # type: ignore[arg-type] # on purpose
        assert repr(client) == "<WebSocket OPEN, not accepted>"


# -- wait_closed() -----------------------------------------------


@bounded
async def test_wait_closed_returns_the_event_after_the_close_listeners(
    autojump_clock: MockClock,
) -> None:
    steps: list[object] = []

    async def slow(event: CloseEvent) -> None:
        await trio.sleep(3)
        steps.append(event)

    async def wait(half: WebSocket) -> None:
        steps.append(await half.wait_closed())

    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)
        server.onclose = slow
        for _ in range(2):
            nursery.start_soon(wait, server)
        client.close(1000)
        await client.wait_closed()
        assert steps == []
        await server.wait_closed()
        await trio.sleep(1)
        steps.append(event := await server.wait_closed())
        assert event.target is server
    assert steps == [clean(1000)] * 4


@bounded
async def test_wait_closed_in_a_listener_of_the_same_half_is_an_error(
    autojump_clock: MockClock,
) -> None:
    with pytest.RaisesGroup(InvalidStateError):
        async with trio.open_nursery() as nursery:
            client, server = accepted(nursery)

            @server.on("message")
            async def wait(_event: MessageEvent) -> None:
                await server.wait_closed()

            client.send("x")


@bounded
async def test_wait_closed_of_the_other_half_in_a_listener_works(
    autojump_clock: MockClock,
) -> None:
    seen: list[CloseEvent] = []
    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)

        @server.on("close")
        async def wait(_event: CloseEvent) -> None:
            seen.append(await client.wait_closed())

        client.close(3000)
    assert seen == [clean(3000)]


@bounded
async def test_a_task_that_a_listener_leaves_behind_may_wait_for_the_end(
    autojump_clock: MockClock,
) -> None:
    seen: list[CloseEvent] = []

    async def watch(half: WebSocket) -> None:
        seen.append(await half.wait_closed())

    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)

        @server.on("message")
        async def start_watching(_event: MessageEvent) -> None:
            # Not a child task of this listener, which returns without it.
            nursery.start_soon(watch, server)

        client.send("x")
        await trio.sleep(1)
        client.close(3000)
    assert seen == [clean(3000)]


@bounded
async def test_wait_closed_elsewhere_returns_when_the_nursery_of_the_half_is_cancelled(
    autojump_clock: MockClock,
) -> None:
    seen: list[CloseEvent] = []

    async def watch(half: WebSocket) -> None:
        seen.append(await half.wait_closed())

    async with trio.open_nursery() as outer, trio.open_nursery() as inner:
        for half in accepted(inner):
            outer.start_soon(watch, half)
        await wait_all_tasks_blocked()
        inner.cancel_scope.cancel()
    assert seen == [NURSERY_CANCELLED, NURSERY_CANCELLED]


# -- leaving open_websocket_pair() -------------------------------


@bounded
async def test_leaving_the_block_closes_both_with_1000(
    autojump_clock: MockClock,
) -> None:
    with takes(0):
        async with open_websocket_pair() as (client, server):
            heard = collect_events(client), collect_events(server)
            client.accept()
            server.accept()
            client.send("x")
            server.send("y")
    assert heard == (["y", clean(1000)], ["x", clean(1000)])


@bounded
async def test_leaving_the_block_keeps_the_code_of_an_earlier_close(
    autojump_clock: MockClock,
) -> None:
    async with open_websocket_pair() as (client, server):
        heard = collect_events(client), collect_events(server)
        client.accept()
        server.accept(allow_half_open=True)
        client.close(3000, "mine")
    assert heard == ([clean(1000)], [clean(3000, "mine")])


@bounded
async def test_leaving_the_block_waits_for_async_listeners_within_the_grace(
    autojump_clock: MockClock,
) -> None:
    steps: list[str] = []

    async def slow(event: MessageEvent | CloseEvent) -> None:
        await trio.sleep(3)
        steps.append(event.type)

    with takes(6):
        async with open_websocket_pair(close_grace=10) as (client, server):
            client.accept()
            server.accept()
            server.onmessage = server.onclose = slow
            client.send("x")
    assert steps == ["message", "close"]


@bounded
async def test_leaving_the_block_ends_after_the_grace_with_1006(
    autojump_clock: MockClock,
) -> None:
    steps: list[str] = []

    async def slow(_event: MessageEvent) -> None:
        try:
            await trio.sleep_forever()
        finally:
            steps.append("cancelled")

    with takes(2):
        async with open_websocket_pair(close_grace=2) as (client, server):
            heard = collect_events(client), collect_events(server)
            client.accept()
            server.accept()
            server.onmessage = slow
            client.send("first")
            client.send("second")
            await wait_all_tasks_blocked()
    assert steps == ["cancelled"]
    assert heard[0] == [clean(1000)]
    assert isinstance(heard[1][0], ErrorEvent)
    assert heard[1][1:] == [abnormal("the peer did not answer the Close in 2 s")]


@bounded
async def test_leaving_the_block_by_an_exception_closes_with_1011_and_raises_it(
    autojump_clock: MockClock,
) -> None:
    error = BodyError("as it is")
    with takes(0), raises_bare(error):
        async with open_websocket_pair() as (client, server):
            heard = collect_events(client), collect_events(server)
            client.accept()
            server.accept()
            client.send("still delivered")
            raise error
    assert heard == ([clean(1011)], ["still delivered", clean(1011)])


@bounded
async def test_an_exception_of_the_body_waits_for_the_handshake(
    autojump_clock: MockClock,
) -> None:
    steps: list[str] = []

    async def slow(_event: CloseEvent) -> None:
        await trio.sleep(0.5)
        steps.append("closed")

    error = BodyError()
    with takes(0.5), raises_bare(error):
        async with open_websocket_pair() as (client, server):
            client.accept()
            server.accept()
            server.onclose = slow
            raise error
    assert steps == ["closed"]


@bounded
async def test_an_exception_of_the_body_waits_no_longer_than_the_grace(
    autojump_clock: MockClock,
) -> None:
    async def slow(_event: MessageEvent) -> None:
        await trio.sleep_forever()

    error = BodyError()
    with takes(3), raises_bare(error):
        async with open_websocket_pair(close_grace=3) as (client, server):
            heard = collect_events(client), collect_events(server)
            client.accept()
            server.accept()
            server.onmessage = slow
            client.send("x")
            raise error
    late = abnormal("the peer did not answer the Close in 3 s")
    assert [events[-1] for events in heard] == [clean(1011), late]


@pytest.mark.parametrize(
    "error", [StopIteration(1), StopAsyncIteration(), RuntimeError(), SystemExit(3)]
)
@bounded
async def test_the_exception_of_the_body_is_raised_bare_whatever_its_type(
    autojump_clock: MockClock, error: BaseException
) -> None:
    with raises_bare(error):
        async with open_websocket_pair() as (client, _server):
            client.accept()
            raise error


@bounded
async def test_exceptions_of_the_body_and_of_a_listener_are_raised_as_a_group(
    autojump_clock: MockClock,
) -> None:
    def fail(_event: CloseEvent) -> None:
        raise ListenerError

    with pytest.RaisesGroup(BodyError, ListenerError):
        async with open_websocket_pair() as (client, server):
            client.accept()
            server.accept()
            server.onclose = fail
            raise BodyError


@bounded
async def test_a_group_that_the_body_raises_stays_as_it_is(
    autojump_clock: MockClock,
) -> None:
    group = ExceptionGroup("mine", [BodyError()])
    with raises_bare(group):
        async with open_websocket_pair():
            raise group


@bounded
async def test_a_cancelled_block_skips_the_grace_but_still_closes(
    autojump_clock: MockClock,
) -> None:
    with takes(5):
        with trio.move_on_after(5) as scope:
            async with open_websocket_pair(close_grace=60) as (client, server):
                heard = collect_events(client), collect_events(server)
                client.accept()
                server.accept()
                await trio.sleep_forever()
    assert scope.cancelled_caught
    assert heard == ([NURSERY_CANCELLED], [NURSERY_CANCELLED])


@bounded
async def test_a_block_that_is_cancelled_while_it_closes_ends_at_once(
    autojump_clock: MockClock,
) -> None:
    async def slow(_event: MessageEvent) -> None:
        await trio.sleep_forever()

    with takes(5):
        with trio.move_on_after(5) as scope:
            async with open_websocket_pair(close_grace=60) as (client, server):
                heard = collect_events(client), collect_events(server)
                client.accept()
                server.accept()
                server.onmessage = slow
                client.send("x")
    assert scope.cancelled_caught
    assert [events[-1] for events in heard] == [clean(1000), NURSERY_CANCELLED]


@pytest.mark.parametrize("body_raises", [False, True])
@pytest.mark.parametrize("taken", [0, 1])
@bounded
async def test_untaken_halves_are_not_waited_for(
    autojump_clock: MockClock, *, taken: int, body_raises: bool
) -> None:
    with takes(0):
        with failures_expected():
            async with open_websocket_pair(close_grace=60) as (client, server):
                heard = collect_events(client)
                if taken:
                    client.accept()
                    client.send("unread")
                if body_raises:
                    raise BodyError
        for half in client, server:
            assert half.ready_state is CLOSED
            await half.aclose()
    assert heard == ([clean(1011 if body_raises else 1000)] if taken else [])


@pytest.mark.parametrize("way", ["normally", "cancelled"])
@bounded
async def test_waiting_for_a_half_of_a_block_that_was_left_returns(
    autojump_clock: MockClock, way: str
) -> None:
    finished: list[str] = []

    async def drain(half: WebSocket) -> None:
        with suppress(ConnectionClosedError):
            await half.drain()
        finished.append("drain")

    async def wait(half: WebSocket) -> None:
        await half.wait_closed()
        finished.append("wait_closed")

    async with trio.open_nursery() as outer:
        with trio.CancelScope() as scope:
            async with open_websocket_pair() as (client, server):
                client.accept()
                client.send("unread")
                outer.start_soon(drain, client)
                outer.start_soon(wait, client)
                outer.start_soon(wait, server)
                await wait_all_tasks_blocked()
                if way == "cancelled":
                    scope.cancel()
                    await trio.sleep_forever()
        await trio.sleep(10)
        outer.cancel_scope.cancel()
    assert sorted(finished) == ["drain", "wait_closed", "wait_closed"]


@bounded
async def test_a_half_of_a_block_that_was_left_cannot_be_accepted(
    autojump_clock: MockClock,
) -> None:
    async with open_websocket_pair() as (client, server):
        client.accept()
    for half in client, server:
        with pytest.raises(InvalidStateError, match="too late"):
            half.accept()


@bounded
async def test_leaving_a_block_with_a_puller_ends_its_iteration(
    autojump_clock: MockClock,
) -> None:
    received: list[str | bytes] = []

    async def read(half: WebSocket) -> None:
        received.extend([message async for message in half])
        received.append("end")

    async with (
        trio.open_nursery() as outer,
        open_websocket_pair() as (client, server),
    ):
        client.accept()
        outer.start_soon(read, server)
        await wait_all_tasks_blocked()
        client.send("x")
    assert received == ["x", "end"]


@bounded
async def test_with_zero_grace_nothing_is_delivered_late_and_both_halves_close(
    autojump_clock: MockClock,
) -> None:
    with takes(0):
        async with open_websocket_pair(close_grace=0) as (client, server):
            heard = collect_events(client), collect_events(server)
            client.accept()
            server.accept()
    for events in heard:
        assert [type(event) for event in events] == [ErrorEvent, CloseEvent]
    assert client.ready_state is server.ready_state is CLOSED


# -- drain() at the end of a half --------------------------------


@bounded
async def test_drain_raises_when_the_half_fails(autojump_clock: MockClock) -> None:
    errors: list[Exception] = []

    async def drain(half: WebSocket) -> None:
        try:
            await half.drain()
        except ConnectionClosedError as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        client.accept()
        client.send("unread")
        nursery.start_soon(drain, client)
        await client.aclose()
        await drain(client)
        await wait_all_tasks_blocked()
        assert len(errors) == 2
        server.accept()
    assert [str(error) for error in errors] == [
        f"the connection has closed abnormally with code 1006: {TIMED_OUT}"
    ] * 2


@pytest.mark.parametrize("end", ["fails", "closes", "times out", "falls"])
@bounded
async def test_drain_ends_when_the_peer_ends(
    autojump_clock: MockClock, end: str
) -> None:
    drained: list[float] = []

    async def drain(half: WebSocket) -> None:
        start = trio.current_time()
        with suppress(ConnectionClosedError):
            await half.drain()
        drained.append(trio.current_time() - start)

    with failures_expected():
        async with trio.open_nursery() as outer:
            with failures_expected():
                async with trio.open_nursery() as inner:
                    client, server = apart(outer, inner)

                    @server.on("message")
                    async def slow(_event: MessageEvent) -> None:
                        await trio.sleep(5)
                        if end == "fails":
                            raise ListenerError
                        if end == "closes":
                            server.close()

                    client.accept()
                    server.accept()
                    client.send("x")
                    client.send("y")
                    outer.start_soon(drain, client)
                    if end == "times out":
                        await server.aclose()
                    if end == "falls":
                        await trio.sleep(1)
                        inner.cancel_scope.cancel()
            client.close()
    # At once if the peer has failed, else when it has taken the second message.
    assert drained == [{"fails": 5, "closes": 5, "times out": 1, "falls": 1}[end]]


@bounded
async def test_drain_returns_at_the_end_of_the_conversation_with_messages_unread(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        client.accept()
        server.accept(pull=True)
        client.send("never pulled")
        server.close(1000)
        await client.wait_closed()
        await server.wait_closed()
        with trio.move_on_after(10) as scope:
            with suppress(ConnectionClosedError):
                await client.drain()
        assert not scope.cancelled_caught


@bounded
async def test_drain_raises_when_sent_messages_were_dropped(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as outer, trio.open_nursery() as inner:
        client, server = apart(outer, inner)
        client.accept()
        server.accept(pull=True)
        client.send("dropped")

        async def drain() -> None:
            with pytest.raises(ConnectionClosedError):
                await client.drain()

        outer.start_soon(drain)
        await wait_all_tasks_blocked()
        inner.cancel_scope.cancel()


@bounded
async def test_a_cancelled_wait_closed_changes_nothing(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        heard = collect_events(client)
        client.accept()
        server.accept(pull=True)
        with trio.move_on_after(1):
            await server.wait_closed()
        client.send("question")
        client.close(1000)
        assert await server.receive() == "question"
        await wait_all_tasks_blocked()
        server.send("answer")
        await server.aclose()
    assert heard == ["answer", clean(1000)]


@bounded
async def test_aclose_with_zero_grace_waits_for_nothing() -> None:
    async with open_websocket_pair(close_grace=0) as (client, _):
        heard = collect_events(client)
        client.accept()
        await client.aclose()
        assert client.ready_state is CLOSED
    assert [type(event) for event in heard] == [ErrorEvent, CloseEvent]

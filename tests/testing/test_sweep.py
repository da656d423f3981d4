"""The cancellation sweep: the tool, and every ``async`` verb of a pair cancelled by it.

Over the network: `guarantees/test_sweep_network.py`.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, NoReturn

import attrs
import pytest
import trio
from cancellation_sweep import (
    LISTENING,
    QUICK,
    REST,
    EventLog,
    Listening,
    open_channels,
    sweep,
)
from pairs import (
    NURSERY_CANCELLED,
    BodyError,
    ListenerError,
    abnormal,
    bounded,
    clean,
    flat,
    run,
)
from trio.testing import MockClock

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
from trio_wspair.testing import Attempt, cancel_at_every_step

CANCELLED: Final = abnormal("closing was cancelled")
UNANSWERED: Final = abnormal("the peer did not answer the Close in 1.0 s")

with_listeners = pytest.mark.parametrize("listening", LISTENING)


# -- the tool ------------------------------------------------------------------------


@attrs.frozen
class Tried:
    """The result of an attempt."""

    done: int
    """The progress of its block."""
    seconds: float
    """Its duration in seconds."""
    cancelled: bool
    got_through: bool


def tried(block: Callable[[list[None]], Awaitable[None]]) -> list[Tried]:
    """Sweep a block, which logs its progress in a list; return the attempts."""

    async def main() -> list[Tried]:
        result: list[Tried] = []
        for attempt in cancel_at_every_step():
            assert attempt.number == len(result)
            assert not attempt.entered
            progress: list[None] = []
            start = trio.current_time()
            with attempt:
                await block(progress)
            seconds = trio.current_time() - start
            assert attempt.entered
            for _ in range(5):  # Code after it is never cancelled.
                await trio.lowlevel.checkpoint()
            result.append(
                Tried(len(progress), seconds, attempt.cancelled, attempt.got_through)
            )
        return result

    return run(main)


def test_a_block_is_cancelled_at_each_step_until_it_completes() -> None:
    async def three_steps(progress: list[None]) -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            progress.append(None)

    *cut_short, last = tried(three_steps)
    reached = [attempt.done for attempt in cut_short]
    assert reached == sorted(reached)
    assert set(reached) == {0, 1, 2}
    assert all(attempt.cancelled for attempt in cut_short)
    assert not any(attempt.got_through for attempt in cut_short)
    assert last == Tried(3, 0, cancelled=False, got_through=True)


def test_a_block_that_waits_alone_is_cancelled_while_it_waits() -> None:
    async def wait(progress: list[None]) -> None:
        await trio.lowlevel.checkpoint()
        progress.append(None)
        with suppress(TimeoutError):
            await trio.sleep(1)

    attempts = tried(wait)
    assert Tried(1, 0, cancelled=True, got_through=False) in attempts
    assert attempts[-1] == Tried(1, 1, cancelled=False, got_through=True)


def test_steps_of_other_tasks_count() -> None:
    async def wait_for_another(progress: list[None]) -> None:
        async def other() -> None:
            for _ in range(4):
                await trio.lowlevel.cancel_shielded_checkpoint()
                progress.append(None)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)

    attempts = tried(wait_for_another)
    assert len(attempts) > 4


def test_a_block_without_a_step_completes_although_it_is_cancelled() -> None:
    async def nothing(progress: list[None]) -> None:
        progress.append(None)

    assert tried(nothing) == [
        Tried(1, 0, cancelled=False, got_through=False),
        Tried(1, 0, cancelled=False, got_through=True),
    ]


def test_a_shielded_block_is_never_cut_short() -> None:
    async def shielded(progress: list[None]) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        progress.append(None)

    attempts = tried(shielded)
    assert {attempt.done for attempt in attempts} == {1}
    assert not any(attempt.cancelled for attempt in attempts)
    assert [attempt.got_through for attempt in attempts].index(True) > 1


@bounded
async def test_an_error_of_the_block_is_raised(autojump_clock: MockClock) -> None:
    attempts: list[Attempt] = []

    async def try_all() -> None:
        for attempt in cancel_at_every_step():
            attempts.append(attempt)
            with attempt:
                await trio.lowlevel.checkpoint()
                raise ListenerError

    with pytest.raises(ListenerError):
        await try_all()
    assert len(attempts) > 2
    assert [attempt for attempt in attempts if not attempt.cancelled] == attempts[-1:]
    for _ in range(5):  # The countdown has ended, and counts no more steps.
        await trio.lowlevel.checkpoint()
    assert attempts[-1].got_through


def test_an_attempt_that_is_not_entered_is_an_error() -> None:
    sweep_without_block = cancel_at_every_step()
    assert not next(sweep_without_block).entered
    with pytest.raises(RuntimeError, match="with attempt:"):
        next(sweep_without_block)


def test_an_attempt_has_its_number() -> None:
    async def main() -> str:
        return repr(next(iter(cancel_at_every_step())))

    assert run(main) == "<Attempt number 0>"


# -- receive() and iteration ---------------------------------------------------------


async def send_with_pauses(half: WebSocket, *messages: str) -> None:
    """Send messages, with pauses."""
    for message in messages:
        half.send(message)
        await trio.sleep(0.05)


@with_listeners
@pytest.mark.parametrize("taken", [True, False])
def test_g5_a_cancelled_receive_loses_no_message(
    *, listening: Listening, taken: bool
) -> None:
    async def operation(attempt: Attempt) -> None:
        got: list[str | bytes] = []
        async with open_websocket_pair() as (client, server):
            events = EventLog(server, listening)
            server.accept()
            server.send("waiting")
            if taken:
                client.accept(pull=True)
                client.send("x")
                client.send("y")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_with_pauses, server, "a", "b")
                with attempt:
                    got.append(await client.receive())
                    got.append(await client.receive())
                assert client.ready_state is ReadyState.OPEN
                while len(got) < 3:
                    got.append(await client.receive())
            await trio.sleep(REST)
        assert got == ["waiting", "a", "b"]
        assert events.messages == (["x", "y"] if taken else [])
        assert events.close_event() == clean(1000)

    sweep(operation)


@with_listeners
def test_g5_a_cancelled_iteration_loses_no_message(listening: Listening) -> None:
    async def operation(attempt: Attempt) -> None:
        got: list[str | bytes] = []
        async with open_websocket_pair() as (client, server):
            events = EventLog(server, listening)
            server.accept()
            client.accept(pull=True)

            async def talk() -> None:
                server.send("a")
                await send_with_pauses(server, "b", "c")
                server.close(1000)

            async def pull() -> None:
                async for message in client:
                    got.append(message)
                    if client.ready_state is ReadyState.OPEN:
                        client.send(message)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk)
                with attempt:
                    await pull()
                await pull()
            await trio.sleep(REST)
            assert client.ready_state is ReadyState.CLOSED
        assert got == ["a", "b", "c"]
        assert events.messages == ["a", "b", "c"]
        assert events.close_event() == clean(1000)

    sweep(operation)


# -- drain(), wait_closed(), ping() ---------------------------------------------------


@with_listeners
def test_g5_a_cancelled_drain_changes_nothing(listening: Listening) -> None:
    async def operation(attempt: Attempt) -> None:
        async with open_websocket_pair() as (client, server):
            theirs, ours = EventLog(server, listening), EventLog(client, listening)
            client.accept()
            client.send("a")
            client.send("b")
            server.accept()
            server.send("to be heard meanwhile")
            with attempt:
                await client.drain()
                assert client.buffered_amount == 0
            assert client.ready_state is ReadyState.OPEN
            client.send("c")
            await client.drain()
            assert client.buffered_amount == 0
            await trio.sleep(REST)
        assert theirs.messages == ["a", "b", "c"]
        assert ours.messages == ["to be heard meanwhile"]
        assert theirs.close_event() == ours.close_event() == clean(1000)

    sweep(operation)


@with_listeners
@pytest.mark.parametrize("pull", [True, False])
def test_g5_a_cancelled_wait_closed_changes_nothing(
    *, listening: Listening, pull: bool
) -> None:
    async def operation(attempt: Attempt) -> None:
        async with open_websocket_pair() as (client, server):
            theirs, ours = EventLog(server, listening), EventLog(client, listening)
            server.accept()
            client.accept(pull=pull)

            async def talk() -> None:
                await send_with_pauses(server, "a", "b")
                await trio.sleep(REST)
                server.close(4000, "done")

            async def receive() -> None:
                while pull and len(ours.messages) < 2:
                    ours.messages.append(await client.receive())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk)
                nursery.start_soon(receive)
                with attempt:
                    assert await client.wait_closed() == clean(4000, "done")
                    assert not ours.busy, "it returns after the close listeners"
                if client.ready_state is ReadyState.OPEN:
                    client.send("still there")
                    await trio.sleep(REST)
                    assert theirs.messages == ["still there"]
            assert await client.wait_closed() == clean(4000, "done")
            assert await server.wait_closed() == clean(4000, "done")
        assert ours.messages == ["a", "b"]
        assert theirs.close_event() == ours.close_event() == clean(4000, "done")

    sweep(operation)


@with_listeners
def test_g5_a_cancelled_ping_changes_nothing(listening: Listening) -> None:
    async def operation(attempt: Attempt) -> None:
        async with open_websocket_pair() as (client, server):
            events = EventLog(server, listening)
            server.accept()
            client.accept()
            client.send("a")
            with suppress(InvalidStateError), attempt:
                await client.ping()
            client.send("b")
            await trio.sleep(REST)
        assert events.messages == ["a", "b"]
        assert events.close_event() == clean(1000)

    sweep(operation)


# -- aclose() ------------------------------------------------------------------------


@with_listeners
def test_g6_a_cancelled_aclose_has_closed(listening: Listening) -> None:
    async def operation(attempt: Attempt) -> None:
        async with open_websocket_pair() as (client, server):
            ours, theirs = EventLog(client, listening), EventLog(server, listening)
            client.accept()
            server.accept()
            client.send("a")
            server.send("b")
            with attempt:
                await client.aclose(3000, "enough")
            assert client.ready_state is ReadyState.CLOSED
            await client.aclose(3001, "again")
            await trio.sleep(REST)
            assert server.ready_state is ReadyState.CLOSED
        assert open_channels() == []
        assert theirs.messages == ["a"]
        assert theirs.close_event() == clean(3000, "enough"), "it was sent at once"
        end = ours.close_event()
        if attempt.cancelled:
            assert end in (clean(3000, "enough"), CANCELLED, UNANSWERED)
        else:
            in_time = listening in QUICK
            assert end == (clean(3000, "enough") if in_time else UNANSWERED)

    sweep(operation)


@with_listeners
@pytest.mark.parametrize("taken", [True, False])
def test_g6_a_cancelled_aclose_without_an_answer_has_closed(
    *, listening: Listening, taken: bool
) -> None:
    async def operation(attempt: Attempt) -> None:
        async with open_websocket_pair() as (client, _server):
            events = EventLog(client, listening)
            if taken:
                client.accept()
            with attempt:
                await client.aclose()
            assert client.ready_state is ReadyState.CLOSED
            await trio.sleep(REST)
            end = events.close_event()
            if attempt.cancelled:
                assert end in (CANCELLED, UNANSWERED)
            else:
                assert end == UNANSWERED
            assert len(events.ends) == (1 if end == CANCELLED else 2)

    sweep(operation)


@with_listeners
def test_g6_a_cancelled_aclose_against_a_close_that_crosses_has_closed(
    listening: Listening,
) -> None:
    async def operation(attempt: Attempt) -> None:
        async with open_websocket_pair() as (client, server):
            ours, theirs = EventLog(client, listening), EventLog(server, listening)
            client.accept()
            server.accept(allow_half_open=True)

            async def cross() -> None:
                await trio.lowlevel.checkpoint()
                server.send("the rest")
                await trio.lowlevel.checkpoint()
                server.close(4000, "crossing")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cross)
                with attempt:
                    await client.aclose(3000)
                assert client.ready_state is ReadyState.CLOSED
            await trio.sleep(REST)
        assert theirs.close_event() == clean(3000)
        end = ours.close_event()
        assert end in (clean(4000, "crossing"), CANCELLED, UNANSWERED)
        if end.was_clean:
            assert ours.messages == ["the rest"]

    sweep(operation)


@with_listeners
def test_g6_aclose_cancelled_in_a_listener_of_its_half_has_closed(
    listening: Listening,
) -> None:
    async def operation(attempt: Attempt) -> None:
        async with open_websocket_pair() as (client, server):
            ours, theirs = EventLog(client, listening), EventLog(server, listening)

            @client.on("message")
            async def close(_event: MessageEvent) -> None:
                with attempt:
                    await client.aclose(3000)
                assert client.ready_state is not ReadyState.OPEN

            client.accept()
            server.accept()
            server.send("close, please")
            assert await client.wait_closed() == clean(3000)
            assert await server.wait_closed() == clean(3000)
        assert ours.messages == ["close, please"]
        assert theirs.close_event() == ours.close_event() == clean(3000)

    sweep(operation)


# -- context managers and nurseries ---------------------------------------------------


def fail() -> NoReturn:
    raise BodyError


@pytest.mark.parametrize("listening", [*LISTENING, "endless"])
@pytest.mark.parametrize("raises", [True, False])
def test_g6_leaving_a_pair_cancelled_at_any_step_has_closed_both(
    *, listening: Listening, raises: bool
) -> None:
    async def operation(attempt: Attempt) -> None:
        events: list[EventLog] = []
        leaving = raised = False
        try:
            with attempt:
                async with open_websocket_pair() as (client, server):
                    events += EventLog(client, listening), EventLog(server, listening)
                    client.accept()
                    server.accept()
                    client.send("a")
                    server.send("b")
                    await trio.lowlevel.checkpoint()
                    client.send("c")
                    await trio.sleep(0.05)
                    leaving = True
                    if raises:
                        fail()
        except BodyError:
            raised = True
        assert raised is (leaving and raises), "the exception of the block is raised"
        assert open_channels() == []
        code = 1011 if raises else 1000
        for each, sent in zip(events, (["b"], ["a", "c"]), strict=True):
            end = each.close_event()
            assert each.messages == sent[: len(each.messages)]
            if not leaving:
                assert end == NURSERY_CANCELLED
            elif attempt.got_through and listening in QUICK:
                assert end == clean(code)
                assert each.messages == sent
            else:
                assert end in (clean(code), NURSERY_CANCELLED, UNANSWERED)

    sweep(operation)


@with_listeners
def test_g6_leaving_a_pair_cancelled_at_any_step_has_closed_an_untaken_half(
    listening: Listening,
) -> None:
    async def operation(attempt: Attempt) -> None:
        halves: list[WebSocket] = []
        events: list[EventLog] = []
        with attempt:
            async with open_websocket_pair() as pair:
                halves += pair
                events.append(EventLog(pair[0], listening))
                pair[0].accept()
                pair[0].send("unread")
                await trio.sleep(0.05)
        assert open_channels() == []
        for half in halves:
            assert half.ready_state is ReadyState.CLOSED
            with pytest.raises(InvalidStateError):
                half.accept()
        for each in events:
            assert each.close_event() in (clean(1000), NURSERY_CANCELLED)

    sweep(operation)


@with_listeners
def test_g7_an_error_of_a_listener_is_raised_whatever_is_cancelled(
    listening: Listening,
) -> None:
    async def operation(attempt: Attempt) -> None:
        events: list[EventLog] = []
        errors: list[type[BaseException]] = []
        raised: list[type[BaseException]] = []

        def fail(_event: MessageEvent) -> None:
            raised.append(ListenerError)
            raise ListenerError

        async def fail_slowly(event: MessageEvent) -> None:
            with trio.CancelScope(shield=listening == "stubborn"):
                await trio.sleep(0.1)
            fail(event)

        try:
            with attempt:
                async with open_websocket_pair() as (client, server):
                    events += EventLog(client, listening), EventLog(server, listening)
                    server.add_event_listener(
                        "message", fail if listening == "sync" else fail_slowly
                    )
                    client.accept()
                    server.accept()
                    client.send("a")
                    await trio.sleep(REST)
        except ExceptionGroup as group:
            errors = [type(exc) for exc in flat(group)]
        assert errors == raised
        assert open_channels() == []
        ours, theirs = (each.close_event() for each in events)
        assert theirs.code == 1006
        assert ours in (clean(1011), NURSERY_CANCELLED)
        if not attempt.cancelled:
            assert isinstance(events[1].ends[0], ErrorEvent)
            assert ours == clean(1011)

    sweep(operation)


@with_listeners
def test_g2_a_nursery_cancelled_at_any_step_gives_every_half_its_close_event(
    listening: Listening,
) -> None:
    async def operation(attempt: Attempt) -> None:
        events: list[EventLog] = []
        ends: list[CloseEvent] = []

        async def pull(half: WebSocket) -> None:
            try:
                with suppress(ConnectionClosedError):
                    while True:
                        half.send(await half.receive())
                        await half.drain()
            finally:
                half.close(3000)

        async def use(half: WebSocket) -> None:
            await send_with_pauses(half, "a", "b")
            await half.aclose(3001)
            ends.append(await half.wait_closed())

        with attempt:
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    client, server = WebSocketPair(nursery)
                    events.append(EventLog(client, listening))
                    client.accept()
                    server.accept(pull=True)
                    events.append(EventLog(server, listening))
                    nursery.start_soon(pull, server)
                    nursery.start_soon(use, client)
        for each in events:
            end = each.close_event()
            assert end.code in (3000, 3001, 1006)
        if not attempt.cancelled:
            assert len(ends) == 2
            if listening in QUICK:  # Otherwise the closing takes too long.
                assert [each.messages for each in events[::2]] == [["a", "b"]] * 2

    sweep(operation)

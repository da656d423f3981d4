"""The dispatcher: order and context of listeners, failures, and interrupts."""

import functools
import signal
from collections.abc import Callable, Generator
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import attrs
import pytest
import trio
from pairs import (
    NURSERY_CANCELLED,
    ListenerError,
    Received,
    accepted,
    bounded,
    clean,
    collect_events,
    fail_in_listener,
    flat,
    run,
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

# -- attributes of events ----------------------------------------


@bounded
async def test_events_have_their_type_and_their_half(
    autojump_clock: MockClock,
) -> None:
    events: list[MessageEvent | ErrorEvent | CloseEvent] = []
    with pytest.RaisesGroup(ListenerError) as caught:
        async with trio.open_nursery() as nursery:
            client, server = accepted(nursery)
            server.add_event_listener("message", events.append)
            server.add_event_listener("error", events.append)
            server.add_event_listener("close", events.append)
            client.send("text")
            client.send(b"binary")
            await wait_all_tasks_blocked()
            server.add_event_listener("message", fail_in_listener)
            client.send("fail")
    error = caught.value.exceptions[0]
    assert [event.target for event in events] == [server] * 5
    assert [event.type for event in events] == ["message"] * 3 + ["error", "close"]
    assert events[:2] == [MessageEvent("text"), MessageEvent(b"binary")]
    assert events[3] == ErrorEvent("ListenerError: ", error)
    assert events[4] == CloseEvent(1006, "a listener raised", was_clean=False)


# -- which listeners are called, and in what order ---------------


@bounded
async def test_the_slot_comes_first_and_then_listeners_as_they_were_added(
    autojump_clock: MockClock,
) -> None:
    order: list[str] = []
    async with open_websocket_pair() as (client, server):
        for half in client, server:
            half.accept()

        @server.on("message")
        def first(_event: MessageEvent) -> None:
            order.append("first")

        @server.on("message")
        async def second(_event: MessageEvent) -> None:
            await trio.sleep(1)
            order.append("second")

        @server.on("message")
        def third(_event: MessageEvent) -> None:
            order.append("third")

        server.onmessage = lambda _event: order.append("slot")
        client.send("x")
        await client.drain()
        await trio.sleep(2)
        server.remove_event_listener("message", second)
        server.onmessage = None
        server.add_event_listener("message", first)  # It is already added.
        client.send("y")
    assert order == ["slot", "first", "second", "third", "first", "third"]


@pytest.mark.parametrize("kind", ["sync", "async"])
@bounded
async def test_a_once_listener_gets_one_event(
    autojump_clock: MockClock, kind: str
) -> None:
    heard: list[str | bytes] = []

    def listen(event: MessageEvent) -> None:
        heard.append(event.data)

    async def listen_slowly(event: MessageEvent) -> None:
        await trio.sleep(1)
        heard.append(event.data)

    async with open_websocket_pair(close_grace=10) as (client, server):
        listener = listen if kind == "sync" else listen_slowly
        server.add_event_listener("message", listener, once=True)
        server.accept()
        client.accept()
        for n in range(3):
            client.send(n)
        await trio.sleep(5)
        server.add_event_listener("message", listener, once=True)
        client.send("again")
    assert heard == ["0", "again"]


@bounded
async def test_the_slots_and_once_work_for_every_event_type(
    autojump_clock: MockClock,
) -> None:
    events: list[str] = []
    with pytest.RaisesGroup(ListenerError):
        async with trio.open_nursery() as nursery:
            client, server = accepted(nursery)
            server.onerror = lambda event: events.append("slot " + event.type)
            server.onclose = lambda event: events.append("slot " + event.type)
            server.add_event_listener(
                "error", lambda event: events.append("once " + event.type), once=True
            )
            server.add_event_listener(
                "close", lambda event: events.append("once " + event.type), once=True
            )
            server.onmessage = fail_in_listener
            client.send("x")
    assert events == ["slot error", "once error", "slot close", "once close"]


def slots(half: WebSocket) -> list[object]:
    """Return what the slots of a half hold."""
    return [half.onmessage, half.onclose, half.onerror]


@bounded
async def test_slots_return_the_listener_that_was_set(
    autojump_clock: MockClock,
) -> None:
    def listen(_event: object) -> None:
        raise AssertionError

    async with open_websocket_pair() as (client, _server):
        client.onmessage = listen
        client.onclose = listen
        client.onerror = listen
        assert slots(client) == [listen, listen, listen]
        client.onmessage = client.onclose = client.onerror = None
        assert slots(client) == [None, None, None]


@bounded
async def test_on_gives_back_the_function_that_it_decorates(
    autojump_clock: MockClock,
) -> None:
    async with open_websocket_pair() as (client, _server):

        async def listen(_event: object) -> None:
            raise AssertionError

        assert client.on("message")(listen) is listen
        assert client.on("error")(listen) is listen
        client.remove_event_listener("message", listen)
        client.remove_event_listener("error", listen)


@attrs.define
class Counter:
    """Callable as a listener, with methods that are listeners, too."""

    calls: list[str] = attrs.field(factory=list[str])

    def method(self, _event: MessageEvent) -> None:
        self.calls.append("method")

    async def async_method(self, _event: MessageEvent) -> None:
        await trio.lowlevel.checkpoint()
        self.calls.append("async method")

    def __call__(self, _event: MessageEvent) -> None:
        self.calls.append("itself")

    def with_option(self, _event: MessageEvent, *, option: str) -> None:
        self.calls.append(option)


@bounded
async def test_any_callable_is_a_listener(autojump_clock: MockClock) -> None:
    counter = Counter()
    async with open_websocket_pair() as (client, server):
        client.accept()
        server.accept()
        for _ in range(2):  # Bound methods are equal, so the second time has no effect.
            server.add_event_listener("message", counter.method)
            server.add_event_listener("message", counter.async_method)
            server.add_event_listener("message", counter)
        with_option = functools.partial(counter.with_option, option="partial")
        server.add_event_listener("message", with_option)
        client.send("x")
        await client.drain()
        await wait_all_tasks_blocked()
        server.remove_event_listener("message", counter.method)
        client.send("x")
    first = ["method", "async method", "itself", "partial"]
    assert counter.calls == [*first, *first[1:]]


class Later:
    """An awaitable that isn't a coroutine."""

    def __init__(self, steps: list[str]) -> None:
        self.steps = steps

    def __await__(self) -> Generator[Any, Any, None]:
        return self._wait().__await__()

    async def _wait(self) -> None:
        await trio.sleep(1)
        self.steps.append("awaited")


@bounded
async def test_an_awaitable_result_is_awaited_and_any_other_is_ignored(
    autojump_clock: MockClock,
) -> None:
    steps: list[str] = []
    async with open_websocket_pair(close_grace=5) as (client, server):
        client.accept()
        server.accept()
        server.add_event_listener("message", lambda _event: "ignored")
        server.add_event_listener("message", lambda _event: Later(steps))
        server.add_event_listener("message", lambda _event: steps.append("next"))
        client.send("x")
        client.send("y")
    assert steps == ["awaited", "next"] * 2


@bounded
async def test_changes_during_an_event_take_effect_as_in_the_dom(
    autojump_clock: MockClock,
) -> None:
    calls: list[str] = []

    def added(_event: MessageEvent) -> None:
        calls.append("added")

    def removed(_event: MessageEvent) -> None:
        calls.append("removed")

    async with open_websocket_pair() as (client, server):

        @server.on("message")
        async def change(_event: MessageEvent) -> None:
            calls.append("change")
            server.add_event_listener("message", added)
            await trio.lowlevel.checkpoint()
            server.remove_event_listener("message", removed)

        server.add_event_listener("message", removed)
        client.accept()
        server.accept()
        client.send("x")
        client.send("y")
    assert calls == ["change", "change", "added"]


@bounded
async def test_listeners_added_right_after_accept_get_the_messages_queued_before(
    autojump_clock: MockClock,
) -> None:
    async with open_websocket_pair() as (client, server):
        client.accept()
        client.send("early")
        server.accept()
        heard = collect_events(server)
    assert heard == ["early", clean(1000)]


@pytest.mark.parametrize("kind", ["sync", "async"])
@bounded
async def test_each_message_arrives_without_waiting_for_the_next(
    autojump_clock: MockClock, kind: str
) -> None:
    heard: list[str | bytes] = []

    def listen(event: MessageEvent) -> None:
        heard.append(event.data)

    async def listen_slowly(event: MessageEvent) -> None:
        await trio.sleep(0.5)
        heard.append(event.data)

    async with open_websocket_pair() as (client, server):
        server.onmessage = listen if kind == "sync" else listen_slowly
        client.accept()
        server.accept()
        for n in range(3):
            client.send(n)
            await trio.sleep(1)
            assert heard == [str(k) for k in range(n + 1)]


@bounded
async def test_messages_without_a_listener_are_dropped(
    autojump_clock: MockClock,
) -> None:
    async with open_websocket_pair() as (client, server):
        client.accept()
        server.accept()
        client.send("missed")
        await client.drain()
        heard = collect_events(server)
        client.send("heard")
    assert heard == ["heard", clean(1000)]


@bounded
async def test_a_closed_half_forgets_its_listeners(autojump_clock: MockClock) -> None:
    async with open_websocket_pair() as (client, server):
        client.accept()
        server.accept()
        server.onclose = fail_in_listener
        server.onclose = lambda _event: None
        server.onmessage = fail_in_listener
        await server.aclose()
        assert slots(server) == [None, None, None]
        # Adding a listener is legal; it is never called.
        server.add_event_listener("close", fail_in_listener)
        server.onmessage = fail_in_listener
        await trio.sleep(1)


# -- the context that listeners run in ---------------------------


speaker: ContextVar[str] = ContextVar("speaker", default="unset")


@pytest.mark.parametrize("kind", ["sync", "async", "async after sync"])
@bounded
async def test_listeners_see_the_context_variables_of_the_accept_call(
    autojump_clock: MockClock, kind: str
) -> None:
    heard: list[tuple[str, str]] = []

    def listen(event: MessageEvent | CloseEvent) -> None:
        heard.append((event.type, speaker.get()))

    async def listen_slowly(event: MessageEvent | CloseEvent) -> None:
        await trio.lowlevel.checkpoint()
        listen(event)

    async def accept(half: WebSocket, name: str) -> None:
        speaker.set(name)
        half.accept()
        speaker.set("changed later")

    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        client.accept()
        if kind == "async after sync":
            server.onmessage = lambda _event: None
        listener = listen if kind == "sync" else listen_slowly
        server.add_event_listener("message", listener)
        server.add_event_listener("close", listener)
        nursery.start_soon(accept, server, "Ada")
        await wait_all_tasks_blocked()
        speaker.set("the sender")
        client.send("x")
        await trio.sleep(1)
        client.close()
    assert heard == [("message", "Ada"), ("close", "Ada")]


@pytest.mark.parametrize("pull", [False, True])
@bounded
async def test_close_listeners_see_that_context_also_in_a_cancelled_nursery(
    autojump_clock: MockClock, *, pull: bool
) -> None:
    heard: list[str] = []

    def listen(_event: CloseEvent) -> None:
        heard.append(speaker.get())

    async def listen_slowly(_event: CloseEvent) -> None:
        await trio.lowlevel.checkpoint()
        heard.append(speaker.get())

    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        for name, half in (("client", client), ("server", server)):
            speaker.set(name)
            half.accept(pull=pull)
        speaker.set("other")
        client.onclose = listen
        server.onclose = listen_slowly
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert heard == ["client", "server"]


# -- listeners that send -----------------------------------------


@bounded
async def test_a_long_ping_pong_does_not_nest_calls_or_starve_tasks(
    autojump_clock: MockClock,
) -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as outer:
        outer.start_soon(count_turns)
        async with trio.open_nursery() as nursery:
            client, server = accepted(nursery)
            for half in client, server:

                @half.on("message")
                def count_down(event: MessageEvent, half: WebSocket = half) -> None:
                    if event.data == "0":
                        half.close()
                    else:
                        half.send(int(event.data) - 1)

            client.send(10_000)
        outer.cancel_scope.cancel()
    assert turns >= 10_000 / 64


@bounded
async def test_async_listeners_that_never_wait_do_not_starve_other_tasks(
    autojump_clock: MockClock,
) -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async def listen(_event: MessageEvent) -> None:
        pass

    async with trio.open_nursery() as outer:
        async with trio.open_nursery() as nursery:
            client, server = accepted(nursery)
            server.onmessage = listen
            for n in range(1000):
                client.send(n)
            client.close()
            outer.start_soon(count_turns)
        outer.cancel_scope.cancel()
    assert turns >= 1000 / 64


@bounded
async def test_a_burst_to_one_half_does_not_starve_other_halves(
    autojump_clock: MockClock,
) -> None:
    order: list[str] = []
    async with open_websocket_pair() as (loud, far), open_websocket_pair() as pair:
        quiet, near = pair
        for half in loud, far, quiet, near:
            half.accept()
        far.onmessage = lambda _event: order.append("burst")
        near.onmessage = lambda _event: order.append("other")
        for n in range(1000):
            loud.send(n)
        quiet.send("x")
    assert order.count("burst") == 1000
    assert order.index("other") < 500


@bounded
async def test_send_in_a_close_listener_raises_connection_closed_error(
    autojump_clock: MockClock,
) -> None:
    errors: list[str] = []
    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)

        @server.on("close")
        def send(_event: CloseEvent) -> None:
            with pytest.raises(ConnectionClosedError) as caught:
                server.send("x")
            errors.append(str(caught.value))

        @client.on("close")
        def send_after_close(_event: CloseEvent) -> None:
            with pytest.raises(InvalidStateError) as caught:
                client.send("x")
            errors.append(str(caught.value))

        client.close(3000)
    assert sorted(errors) == [
        (
            "send() after close(): this half is CLOSED, accepted, sent Close 3000, "
            "received Close 3000"
        ),
        "the connection has closed cleanly with code 3000",
    ]


@pytest.mark.parametrize("event_type", ["message", "close"])
@pytest.mark.parametrize("same_nursery", [False, True])
@pytest.mark.parametrize("kind", ["sync", "async"])
@bounded
async def test_a_listener_may_accept_another_half(
    autojump_clock: MockClock, *, kind: str, same_nursery: bool, event_type: str
) -> None:
    async with trio.open_nursery() as outer, trio.open_nursery() as inner:
        client, server = accepted(inner)
        caller, callee = WebSocketPair(inner if same_nursery else outer)
        heard = collect_events(callee)
        caller.accept()
        caller.send("waiting")

        def accept(_event: object) -> None:
            callee.accept()

        async def accept_slowly(_event: object) -> None:
            await trio.lowlevel.checkpoint()
            callee.accept()

        listener = accept if kind == "sync" else accept_slowly
        server.add_event_listener("message", listener)
        server.add_event_listener("close", listener)
        if event_type == "message":
            client.send("x")
        client.close()
        await trio.sleep(1)
        caller.close()
    assert heard == ["waiting", clean(1005)]


@bounded
async def test_accept_in_a_listener_of_a_nursery_that_is_ending_raises(
    autojump_clock: MockClock,
) -> None:
    errors: list[str] = []
    async with trio.open_nursery() as nursery:
        _client, server = accepted(nursery)
        _caller, callee = WebSocketPair(nursery)

        @server.on("close")
        def accept(_event: CloseEvent) -> None:
            with pytest.raises(InvalidStateError) as caught:
                callee.accept()
            errors.append(str(caught.value))

        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert errors == ["the nursery of this half is going down: accept() comes too late"]
    assert "not accepted" in repr(callee)


@bounded
async def test_a_listener_may_start_tasks_in_the_nursery(
    autojump_clock: MockClock,
) -> None:
    steps: list[str] = []

    async def work(half: WebSocket) -> None:
        await trio.sleep(1)
        half.send("done")
        half.close()

    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)
        server.onmessage = lambda _event: nursery.start_soon(work, server)
        client.onmessage = lambda event: steps.append(str(event.data))
        client.send("work")
    assert steps == ["done"]


# -- cancelling from a listener, and while one runs --------------


@pytest.mark.parametrize("kind", ["sync", "async"])
@bounded
async def test_cancelling_the_nursery_in_a_listener_ends_every_half(
    autojump_clock: MockClock, kind: str
) -> None:
    calls: list[str] = []
    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)

        def cancel(_event: MessageEvent) -> None:
            calls.append("cancel")
            nursery.cancel_scope.cancel()

        async def cancel_slowly(event: MessageEvent) -> None:
            await trio.lowlevel.checkpoint()
            cancel(event)

        listener = cancel if kind == "sync" else cancel_slowly
        server.add_event_listener("message", listener)
        # The event also reaches the sync listeners.
        server.add_event_listener("message", lambda _event: calls.append("other"))
        heard = collect_events(client), collect_events(server)
        client.send("x")
    assert calls == ["cancel", "other"]
    assert heard == ([NURSERY_CANCELLED], ["x", NURSERY_CANCELLED])


@bounded
async def test_a_cancelled_listener_does_not_count_as_a_failure(
    autojump_clock: MockClock,
) -> None:
    calls: list[str] = []
    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)

        @server.on("message")
        async def wait(_event: MessageEvent) -> None:
            try:
                await trio.sleep_forever()
            finally:
                calls.append(f"cancelled while {server.ready_state.name}")

        heard = collect_events(client), collect_events(server)
        client.send("x")
        client.send("never heard")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert calls == ["cancelled while OPEN"]
    assert heard == ([NURSERY_CANCELLED], [NURSERY_CANCELLED])


@bounded
async def test_the_failure_of_a_cancelled_listener_is_raised(
    autojump_clock: MockClock,
) -> None:
    with pytest.RaisesGroup(ListenerError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            client, server = accepted(nursery)

            @server.on("message")
            async def fail_at_the_end(_event: MessageEvent) -> None:
                async with trio.open_nursery() as children:
                    children.start_soon(trio.sleep_forever)
                    try:
                        await trio.sleep_forever()
                    finally:
                        fail_in_listener(None)

            heard = collect_events(client), collect_events(server)
            client.send("x")
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
    assert [events[-1] for events in heard] == [NURSERY_CANCELLED, NURSERY_CANCELLED]
    assert server.ready_state is ReadyState.CLOSED
    await server.wait_closed()


@bounded
async def test_a_message_listener_that_shields_itself_may_finish(
    autojump_clock: MockClock,
) -> None:
    calls: list[str] = []
    with takes(10):
        async with trio.open_nursery() as nursery:
            client, server = accepted(nursery)

            @server.on("message")
            async def insist(_event: MessageEvent) -> None:
                with trio.CancelScope(shield=True):
                    await trio.sleep(10)
                calls.append(f"finished while {server.ready_state.name}")

            heard = collect_events(server)
            client.send("x")
            client.send("y")
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
    assert calls == ["finished while CLOSED"]
    assert heard == ["x", NURSERY_CANCELLED]


# -- async close listeners ---------------------------------------


@bounded
async def test_async_close_listeners_run_one_after_the_other(
    autojump_clock: MockClock,
) -> None:
    calls: list[str] = []

    async def slow(_event: CloseEvent) -> None:
        await trio.sleep(10)
        calls.append("slow")

    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)
        server.onclose = slow
        server.add_event_listener("close", lambda _event: calls.append("sync"))
        server.add_event_listener("close", Counter(calls).async_method)  # type: ignore[call-overload] # it takes any event
        with takes(10):
            client.close()
            await server.wait_closed()
    assert calls == ["slow", "sync", "async method"]


@bounded
async def test_async_close_listeners_get_close_grace_when_the_nursery_is_cancelled(
    autojump_clock: MockClock,
) -> None:
    calls: list[str] = []

    async def quick(_event: CloseEvent) -> None:
        await trio.sleep(2)
        calls.append("quick")

    async def slow(_event: CloseEvent) -> None:
        try:
            await trio.sleep_forever()
        finally:
            calls.append("cancelled")

    async def later(_event: CloseEvent) -> None:
        calls.append("later")
        await trio.lowlevel.checkpoint()
        calls.append("too late")

    with takes(3):
        async with trio.open_nursery() as nursery:
            _client, server = accepted(nursery, close_grace=3)
            for listener in quick, slow, later:
                server.add_event_listener("close", listener)
            server.add_event_listener("close", lambda _event: calls.append("sync"))
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert calls == ["quick", "cancelled", "later", "sync"]


@bounded
async def test_async_close_listeners_of_many_halves_share_one_grace_period(
    autojump_clock: MockClock,
) -> None:
    ends: list[float] = []

    async def slow(_event: CloseEvent) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ends.append(trio.current_time() - start)

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            for half in accepted(nursery, close_grace=3):
                half.onclose = slow
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert ends == [3] * 10


@bounded
async def test_the_error_and_the_close_event_have_a_grace_period_each(
    autojump_clock: MockClock,
) -> None:
    calls: list[str] = []

    async def refuse(event: ErrorEvent | CloseEvent) -> None:
        start = trio.current_time()
        try:
            await trio.sleep_forever()
        finally:
            calls.append(f"{event.type} {trio.current_time() - start}")

    with takes(4), pytest.RaisesGroup(ListenerError):
        async with trio.open_nursery() as nursery:
            client, server = accepted(nursery, close_grace=2)
            server.add_event_listener("error", refuse)
            server.add_event_listener("close", refuse)
            server.onmessage = fail_in_listener
            client.send("x")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert calls == ["error 2.0", "close 2.0"]


@bounded
async def test_the_grace_of_a_running_close_listener_begins_at_the_cancellation(
    autojump_clock: MockClock,
) -> None:
    calls: list[float] = []

    async def refuse(_event: CloseEvent) -> None:
        try:
            await trio.sleep_forever()
        finally:
            calls.append(trio.current_time() - start)

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery, close_grace=3)
        server.onclose = refuse
        client.close(1000)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert calls == [13]
    assert await server.wait_closed() == clean(1000)


@bounded
async def test_a_close_listener_that_shields_itself_may_finish(
    autojump_clock: MockClock,
) -> None:
    calls: list[str] = []

    async def insist(_event: CloseEvent) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(10)
        calls.append("finished")

    with takes(10):
        async with trio.open_nursery() as nursery:
            _client, server = accepted(nursery)
            server.onclose = insist
            server.add_event_listener("close", lambda _event: calls.append("next"))
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert calls == ["finished", "next"]


@bounded
async def test_a_close_listener_that_fails_after_its_grace_does_not_stop_the_end(
    autojump_clock: MockClock,
) -> None:
    calls: list[str] = []

    async def fail_at_the_end(_event: CloseEvent) -> None:
        async with trio.open_nursery() as children:
            # The failure comes in a group with a `Cancelled`.
            children.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                fail_in_listener(None)

    with takes(1), pytest.RaisesGroup(ListenerError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            _client, server = accepted(nursery)
            server.onclose = fail_at_the_end
            server.add_event_listener("close", lambda _event: calls.append("next"))
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert calls == ["next"]
    with trio.fail_after(1):
        assert await server.wait_closed() == NURSERY_CANCELLED


@bounded
async def test_the_close_of_one_half_does_not_wait_for_the_listener_of_another(
    autojump_clock: MockClock,
) -> None:
    async def slow(_event: CloseEvent) -> None:
        await trio.sleep(10)

    async with trio.open_nursery() as nursery:
        client, server = accepted(nursery)
        server.onclose = slow
        client.close()
        with takes(0):
            await client.wait_closed()
        with takes(10):
            await server.wait_closed()


# -- failures ----------------------------------------------------


@bounded
async def test_failures_of_several_halves_all_propagate(
    autojump_clock: MockClock,
) -> None:
    signal_to_fail = trio.Event()

    async def fail_slowly(_event: MessageEvent) -> None:
        await signal_to_fail.wait()
        raise ListenerError

    with pytest.RaisesGroup(ListenerError, ListenerError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                client, server = accepted(nursery)
                server.onmessage = fail_slowly
                client.send("x")
            await wait_all_tasks_blocked()
            signal_to_fail.set()


@bounded
async def test_failures_of_close_listeners_in_a_cancelled_nursery_propagate_together(
    autojump_clock: MockClock,
) -> None:
    async def fail_slowly(_event: CloseEvent) -> None:
        await trio.sleep(0.5)
        raise ValueError

    kinds = ListenerError, ListenerError, ValueError
    with pytest.RaisesGroup(*kinds, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            client, server = accepted(nursery)
            client.onclose = fail_in_listener
            server.add_event_listener("close", fail_in_listener)
            server.add_event_listener("close", fail_slowly)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", ["sync", "async"])
@bounded
async def test_a_failure_after_aclose_has_timed_out_still_propagates(
    autojump_clock: MockClock, kind: str
) -> None:
    with pytest.RaisesGroup(ListenerError):
        async with trio.open_nursery() as nursery:
            client, server = accepted(nursery)

            @server.on("message")
            async def dawdle(_event: MessageEvent) -> None:
                await trio.sleep(5)
                if kind == "async":
                    raise ListenerError

            if kind == "sync":
                server.add_event_listener("message", fail_in_listener)
            heard = collect_events(server)
            client.send("x")
            client.send("dropped")
            await wait_all_tasks_blocked()
            await server.aclose()
            await trio.sleep_forever()
    # The close event was decided before, and came last.
    error, close = heard[-2:]
    assert isinstance(error, ErrorEvent)
    assert isinstance(error.error, TimeoutError)
    assert isinstance(close, CloseEvent)
    assert "dropped" not in heard


@bounded
async def test_a_failure_does_not_affect_other_nurseries(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as outer:
        client, server = accepted(outer)
        heard = collect_events(server)
        with pytest.RaisesGroup(ListenerError):
            async with trio.open_nursery() as inner:
                caller, callee = accepted(inner)
                callee.onmessage = fail_in_listener
                caller.send("x")
        client.send("still here")
        client.close(1000)
    assert heard == ["still here", clean(1000)]


@bounded
async def test_pulled_halves_end_with_a_failing_nursery(
    autojump_clock: MockClock,
) -> None:
    ends: list[ConnectionClosedError] = []

    async def read(half: WebSocket) -> None:
        with suppress(trio.Cancelled):
            try:
                await half.receive()
            except ConnectionClosedError as error:
                ends.append(error)

    async with trio.open_nursery() as outer:
        with pytest.RaisesGroup(ListenerError):
            async with trio.open_nursery() as inner:
                client, server = accepted(inner)
                _caller, callee = WebSocketPair(inner)
                closed: list[CloseEvent] = []
                callee.onclose = closed.append
                callee.accept(pull=True)
                outer.start_soon(read, callee)
                await wait_all_tasks_blocked()
                server.onmessage = fail_in_listener
                client.send("x")
    assert closed == [NURSERY_CANCELLED]
    assert [(end.code, end.was_clean) for end in ends] == [(1006, False)]


# -- KeyboardInterrupt -------------------------------------------


def interrupt(_event: object) -> None:
    """Raise a real SIGINT, as Ctrl-C does."""
    signal.raise_signal(signal.SIGINT)


async def interrupt_after_a_while(_event: object) -> None:
    """Raise a real SIGINT in an async listener."""
    await trio.sleep(0.1)
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("where", ["message", "error", "close", "close while falling"])
@pytest.mark.parametrize("listener", [interrupt, interrupt_after_a_while])
def test_every_half_gets_its_close_event_when_a_listener_is_interrupted(
    listener: Callable[[object], object], where: str
) -> None:
    heard: list[list[Received]] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            pairs = [accepted(nursery) for _ in range(3)]
            heard.extend(collect_events(half) for pair in pairs for half in pair)
            client, server = pairs[1]
            if where == "message":
                server.onmessage = listener
                client.send("x")
            elif where == "error":
                server.onerror = listener
                server.onmessage = fail_in_listener
                client.send("x")
            elif where == "close":
                server.onclose = listener
                client.close()
            else:
                server.onclose = listener
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        run(main)
    kinds = {type(error) for error in flat(caught.value)}
    assert kinds == ({KeyboardInterrupt, ListenerError} & kinds)
    assert KeyboardInterrupt in kinds
    for events in heard:
        closes = [event for event in events if isinstance(event, CloseEvent)]
        assert len(closes) == 1
        assert closes == events[len(events) - len(closes) :]


def test_wait_closed_returns_although_a_close_listener_was_interrupted() -> None:
    async def leave(_event: CloseEvent) -> None:
        await trio.lowlevel.checkpoint()
        raise SystemExit

    async def main() -> None:
        with pytest.RaisesGroup(SystemExit):
            async with trio.open_nursery() as nursery:
                client, server = accepted(nursery)
                server.onclose = leave
                client.close(1000)
        with trio.fail_after(10):
            assert await server.wait_closed() == clean(1000)

    run(main)


def test_an_interrupt_while_the_dispatcher_idles_closes_every_half() -> None:
    heard: list[list[Received]] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            heard.extend(collect_events(half) for half in accepted(nursery))
            await wait_all_tasks_blocked()
            signal.raise_signal(signal.SIGINT)

    with pytest.RaisesGroup(KeyboardInterrupt):
        run(main)
    assert heard == [[NURSERY_CANCELLED], [NURSERY_CANCELLED]]

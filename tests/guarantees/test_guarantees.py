"""The guarantees G1 to G11, for pairs in memory, by their numbers."""

import functools
import gc
import signal
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta, tzinfo
from typing import Any

import attrs
import pytest
import trio
from pairs import (
    NURSERY_CANCELLED,
    TIMED_OUT,
    ListenerError,
    Received,
    T,
    abnormal,
    apart,
    bounded,
    collect_events,
    fail_in_listener,
    failures_expected,
    flat,
    run,
)
from trio._core._run import _r as scheduler_random
from trio.testing import (
    MockClock,
    assert_checkpoints,
    assert_no_checkpoints,
    wait_all_tasks_blocked,
)

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
from trio_wspair._pair.dispatcher import Dispatcher
from trio_wspair._pair.inbox import Inbox
from trio_wspair._pair.owner import Owner, _owners
from trio_wspair._rules.listeners import Listeners


def accepted_apart(
    outer: trio.Nursery, inner: trio.Nursery
) -> tuple[WebSocket, WebSocket]:
    """Return a pair that is accepted: a half in `outer`, and one in `inner`."""
    first, second = apart(outer, inner)
    first.accept()
    second.accept()
    return first, second


async def fail_in_async_listener(_event: object) -> None:
    """Fail, as an async listener."""
    await trio.sleep(0.1)
    raise ListenerError


CLEAN_1000 = CloseEvent(1000, "", was_clean=True)


RAISED = abnormal("a listener raised")
GOING_AWAY = CloseEvent(1001, "", was_clean=True)
INTERNAL_ERROR = CloseEvent(1011, "", was_clean=True)


# -- G1: order ---------------------------------------------------


@bounded
async def test_g1_messages_arrive_in_the_order_sent(autojump_clock: MockClock) -> None:
    async with open_websocket_pair() as (client, server):
        heard = collect_events(server)
        client.accept()
        server.accept()
        sent = [str(n) if n % 3 else bytes([n % 256]) for n in range(500)]
        for message in sent:
            client.send(message)
        client.close(1000)
        await server.wait_closed()
    assert heard == [*sent, CLEAN_1000]


@bounded
async def test_g1_async_and_sync_listeners_each_get_the_messages_in_the_order_sent(
    autojump_clock: MockClock,
) -> None:
    heard: list[tuple[str, str | bytes]] = []
    async with open_websocket_pair() as (client, server):

        @server.on("message")
        async def slow(event: MessageEvent) -> None:
            # Odd numbers wait, even ones don't.
            await trio.sleep(int(event.data) % 2)
            heard.append(("slow", event.data))

        @server.on("message")
        def quick(event: MessageEvent) -> None:
            heard.append(("quick", event.data))

        client.accept()
        server.accept()
        for n in range(100):
            client.send(n)
            if n % 7 == 0:
                await trio.sleep(1.5)
        client.close()
        await server.wait_closed()
    expected = [(name, str(n)) for n in range(100) for name in ("slow", "quick")]
    assert heard == expected


@pytest.mark.parametrize("accepted", ["before", "after"])
@pytest.mark.parametrize("kind", ["sync", "async"])
@bounded
async def test_g1_close_comes_after_every_message_sent_before_it(
    autojump_clock: MockClock, kind: str, accepted: str
) -> None:
    heard: list[object] = []
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)

        async def slowly(event: MessageEvent) -> None:
            await trio.sleep(1)
            heard.append(event.data)

        def at_once(event: MessageEvent) -> None:
            heard.append(event.data)

        server.onmessage = slowly if kind == "async" else at_once
        server.onclose = heard.append
        client.accept()
        if accepted == "before":
            server.accept()
        for n in range(70):
            client.send(n)
        client.close(1000)
        if accepted == "after":
            await trio.sleep(5)
            server.accept()
    assert heard == [*map(str, range(70)), CLEAN_1000]


# -- G2: one close, last -----------------------------------------


@attrs.define
class Scene:
    """A pair whose halves live in two nurseries, the inner one in the outer one."""

    inner: trio.Nursery
    client: WebSocket
    """A half in the outer nursery."""
    server: WebSocket
    """A half in the inner nursery."""


async def both_close(scene: Scene) -> None:
    scene.client.close(1000)
    scene.server.close(1000)


async def client_closes(scene: Scene) -> None:
    scene.client.close(1000)


async def server_closes(scene: Scene) -> None:
    scene.server.close(1000)


async def server_acloses(scene: Scene) -> None:
    await scene.server.aclose()


async def server_aclose_is_cancelled(scene: Scene) -> None:
    async def dawdle(_event: MessageEvent) -> None:
        await trio.sleep(10)

    scene.client.onmessage = dawdle
    scene.server.send("look at this first")
    with trio.move_on_after(0.5):
        await scene.server.aclose()


async def server_aclose_times_out(scene: Scene) -> None:
    async def dawdle(_event: MessageEvent) -> None:
        await trio.sleep(10)

    scene.client.onmessage = dawdle
    scene.server.send("look at this first")
    await scene.server.aclose()


async def message_listener_raises(scene: Scene) -> None:
    scene.server.onmessage = fail_in_listener
    scene.client.send("x")


async def async_message_listener_raises(scene: Scene) -> None:
    scene.server.onmessage = fail_in_async_listener
    scene.client.send("x")


async def close_listener_raises(scene: Scene) -> None:
    scene.server.onclose = fail_in_listener
    scene.client.close(1000)


async def async_close_listener_raises(scene: Scene) -> None:
    scene.server.onclose = fail_in_async_listener
    scene.client.close(1000)


async def error_listener_raises(scene: Scene) -> None:
    scene.server.onerror = fail_in_listener
    scene.server.onmessage = fail_in_listener
    scene.client.send("x")


async def async_error_listener_raises(scene: Scene) -> None:
    scene.server.onerror = fail_in_async_listener
    scene.server.onmessage = fail_in_listener
    scene.client.send("x")


async def nursery_is_cancelled(scene: Scene) -> None:
    scene.inner.cancel_scope.cancel()


async def nursery_is_cancelled_during_a_listener(scene: Scene) -> None:
    async def dawdle(_event: MessageEvent) -> None:
        await trio.sleep(10)

    scene.server.onmessage = dawdle
    scene.client.send("x")
    await trio.sleep(1)
    scene.inner.cancel_scope.cancel()


async def nursery_is_cancelled_in_a_listener(scene: Scene) -> None:
    def cancel(_event: MessageEvent) -> None:
        scene.inner.cancel_scope.cancel()

    scene.server.onmessage = cancel
    scene.client.send("x")
    scene.client.send("y")


async def nursery_is_cancelled_in_a_close_listener(scene: Scene) -> None:
    def cancel(_event: CloseEvent) -> None:
        scene.inner.cancel_scope.cancel()

    scene.server.onclose = cancel
    scene.client.close(1000)


async def nursery_is_cancelled_with_a_close_queued(scene: Scene) -> None:
    scene.client.send("x")
    scene.client.close(1000)
    scene.inner.cancel_scope.cancel()


async def body_raises(scene: Scene) -> None:
    raise ListenerError


async def body_raises_after_a_close(scene: Scene) -> None:
    scene.server.close(1000)
    raise ListenerError


Ending = Callable[[Scene], Awaitable[None]]
ENDINGS: list[tuple[Ending, CloseEvent, CloseEvent, bool]] = [
    # How it ends, the close events of the client and the server, and whether the
    # server gets an error event before.
    (both_close, CLEAN_1000, CLEAN_1000, False),
    (client_closes, CLEAN_1000, CLEAN_1000, False),
    (server_closes, CLEAN_1000, CLEAN_1000, False),
    (server_acloses, CLEAN_1000, CLEAN_1000, False),
    (server_aclose_is_cancelled, CLEAN_1000, abnormal("closing was cancelled"), False),
    (server_aclose_times_out, CLEAN_1000, abnormal(TIMED_OUT), True),
    (message_listener_raises, INTERNAL_ERROR, RAISED, True),
    (async_message_listener_raises, INTERNAL_ERROR, RAISED, True),
    (close_listener_raises, CLEAN_1000, CLEAN_1000, False),
    (async_close_listener_raises, CLEAN_1000, CLEAN_1000, False),
    (error_listener_raises, INTERNAL_ERROR, RAISED, True),
    (async_error_listener_raises, INTERNAL_ERROR, RAISED, True),
    (nursery_is_cancelled, GOING_AWAY, NURSERY_CANCELLED, False),
    (nursery_is_cancelled_during_a_listener, GOING_AWAY, NURSERY_CANCELLED, False),
    (nursery_is_cancelled_in_a_listener, GOING_AWAY, NURSERY_CANCELLED, False),
    (nursery_is_cancelled_in_a_close_listener, CLEAN_1000, CLEAN_1000, False),
    (nursery_is_cancelled_with_a_close_queued, GOING_AWAY, NURSERY_CANCELLED, False),
    (body_raises, GOING_AWAY, NURSERY_CANCELLED, False),
    (body_raises_after_a_close, CLEAN_1000, NURSERY_CANCELLED, False),
]


@pytest.mark.parametrize(
    ("ending", "at_client", "at_server", "with_error"),
    [pytest.param(*row, id=row[0].__name__) for row in ENDINGS],
)
@bounded
async def test_g2_every_half_gets_one_close_event_and_nothing_after_it(
    autojump_clock: MockClock,
    *,
    ending: Ending,
    at_client: CloseEvent,
    at_server: CloseEvent,
    with_error: bool,
) -> None:
    async with trio.open_nursery() as outer:
        with failures_expected():
            async with trio.open_nursery() as inner:
                client, server = accepted_apart(outer, inner)
                heard = collect_events(client), collect_events(server)
                await wait_all_tasks_blocked()
                await ending(Scene(inner, client, server))
        await trio.sleep(100)
        for half in client, server:
            with pytest.raises((InvalidStateError, ConnectionClosedError)):
                half.send("too late")
            half.close()
        await trio.sleep(100)
    for events, close in zip(heard, (at_client, at_server), strict=True):
        with_error_types = [
            event for event in events if not isinstance(event, (str, bytes))
        ]
        assert events[-len(with_error_types) :] == with_error_types
        errors = with_error_types[:-1]
        assert with_error_types[-1] == close
        assert len(errors) == (with_error and events is heard[1])
        assert all(isinstance(error, ErrorEvent) for error in errors)


def test_g2_every_half_gets_its_close_event_when_a_listener_exits() -> None:
    # As `sys.exit()` or Ctrl-C in a listener.
    closed: list[int] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for n in range(3):
                for half in WebSocketPair(nursery):
                    half.onclose = lambda _event, n=n: closed.append(n)
                    half.accept()
            client, server = WebSocketPair(nursery)
            client.accept()
            server.accept()
            server.onmessage = lambda _event: exec("raise SystemExit")  # noqa: S102
            client.send("x")

    with pytest.RaisesGroup(SystemExit):
        run(main)
    assert closed == [0, 0, 1, 1, 2, 2]


def test_g2_every_half_gets_its_close_event_when_every_close_listener_exits() -> None:
    closed: list[int] = []

    def leave(n: int) -> None:
        closed.append(n)
        raise SystemExit

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for n in range(3):
                for half in WebSocketPair(nursery):
                    half.onclose = lambda _event, n=n: leave(n)
                    half.accept()
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    with pytest.raises(BaseExceptionGroup) as caught:
        run(main)
    assert {type(error) for error in flat(caught.value)} == {SystemExit}
    assert closed == [0, 0, 1, 1, 2, 2]


def test_g2_an_exit_in_one_close_listener_spares_async_listeners_of_others() -> None:
    closed: list[str] = []

    async def close(event: CloseEvent) -> None:
        await trio.lowlevel.checkpoint()
        closed.append("async")

    def leave(event: CloseEvent) -> None:
        closed.append("exit")
        raise SystemExit

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            client, server = WebSocketPair(nursery)
            client.onclose = close
            server.onclose = leave
            client.accept()
            server.accept()
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.RaisesGroup(SystemExit):
            run(main)
    assert sorted(closed) == ["async", "exit"]


# -- G3: nothing lost --------------------------------------------


@pytest.mark.parametrize("pull", [False, True])
@bounded
async def test_g3_messages_sent_before_a_clean_close_arrive_after_a_late_accept(
    autojump_clock: MockClock, *, pull: bool
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        client.accept()
        for n in range(200):
            client.send(n)
        client.close(1000)
        await trio.sleep(100)
        if pull:
            received: list[Received] = [message async for message in server]
            received.append(await server.wait_closed())
        else:
            received = collect_events(server)
            server.accept()
            await server.wait_closed()
    assert received == [*map(str, range(200)), CLEAN_1000]


@bounded
async def test_g3_nothing_is_lost_when_both_close_with_messages_under_way(
    autojump_clock: MockClock,
) -> None:
    async with open_websocket_pair() as pair:
        heard = [collect_events(half) for half in pair]
        for half in pair:
            half.accept()
            for n in range(100):
                half.send(n)
            half.close(1000)
    assert heard == [[*map(str, range(100)), CLEAN_1000]] * 2


@bounded
async def test_g3_leaving_the_block_delivers_the_queued_messages(
    autojump_clock: MockClock,
) -> None:
    heard: list[Received] = []

    async def slowly(event: MessageEvent) -> None:
        await trio.sleep(0.01)
        heard.append(event.data)

    async with open_websocket_pair() as (client, server):
        server.onmessage = slowly
        client.accept()
        server.accept()
        for n in range(50):
            client.send(n)
    assert heard == [*map(str, range(50))]


@bounded
async def test_g3_messages_to_a_half_that_has_sent_its_close_still_arrive(
    autojump_clock: MockClock,
) -> None:
    async with open_websocket_pair() as (client, server):
        heard = collect_events(server)
        client.accept()
        server.accept()
        server.close(1000)
        client.send("the Close has not reached me yet")
        await server.wait_closed()
    assert heard == ["the Close has not reached me yet", CLEAN_1000]


# -- G4: sync verbs are atomic -----------------------------------


def ignore(_event: object) -> None:
    """Do nothing, as a listener."""


def set_slots(half: WebSocket) -> None:
    half.onmessage = half.onclose = half.onerror = ignore
    half.onmessage = half.onclose = half.onerror = None


def look(half: WebSocket) -> None:
    views = half.ready_state, half.url, half.protocol, half.extensions
    assert views == (ReadyState.OPEN, None, "", "")
    assert half.buffered_amount == 0
    assert (half.onmessage, half.onclose, half.onerror) == (None, None, None)
    assert half.deserialize_attachment() is None


SYNC_VERBS: dict[str, Callable[[WebSocket], object]] = {
    "accept again": lambda half: half.accept(),
    "send text": lambda half: half.send("text"),
    "send bytes": lambda half: half.send(bytearray(b"bytes")),
    "send a number": lambda half: half.send(1.5),
    "close": lambda half: half.close(3000, "reason"),
    "add_event_listener": lambda half: half.add_event_listener("message", ignore),
    "remove_event_listener": lambda half: half.remove_event_listener("close", ignore),
    "on": lambda half: half.on("error")(ignore),
    "slots": set_slots,
    "serialize_attachment": lambda half: half.serialize_attachment([1, 2]),
    "look": look,
}


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("name", SYNC_VERBS)
@bounded
async def test_g4_sync_verbs_never_yield_and_work_in_a_cancelled_scope(
    autojump_clock: MockClock, *, name: str, cancelled: bool
) -> None:
    async with open_websocket_pair() as (client, server):
        client.accept()
        server.accept()
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            if cancelled:
                scope.cancel()
            with assert_no_checkpoints():
                SYNC_VERBS[name](client)
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught == cancelled


@pytest.mark.parametrize("pull", [False, True])
@bounded
async def test_g4_accept_never_yields_and_works_in_a_cancelled_scope(
    autojump_clock: MockClock, *, pull: bool
) -> None:
    async with open_websocket_pair() as (client, server):
        heard = collect_events(server)
        with trio.CancelScope() as scope:
            scope.cancel()
            with assert_no_checkpoints():
                client.accept()
                server.accept(pull=pull)
                client.send("hello")
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        if pull:
            assert await server.receive() == "hello"
        else:
            await wait_all_tasks_blocked()
            assert heard == ["hello"]


REFUSED: dict[str, Callable[[WebSocket], object]] = {
    "accept": lambda half: half.accept(pull=1),  # type: ignore[arg-type] # on purpose
    "send": lambda half: half.send(None),  # type: ignore[arg-type] # on purpose
    "send too much": lambda half: half.send("x" * 2000),
    "close code": lambda half: half.close(1006),
    "close reason": lambda half: half.close(1000, "x" * 124),
    "close reason alone": lambda half: half.close(None, "x"),
    "event type": lambda half: half.add_event_listener("open", ignore),  # type: ignore[call-overload] # on purpose
    "listener": lambda half: half.add_event_listener("close", 3),  # type: ignore[call-overload] # on purpose
    "removal": lambda half: half.remove_event_listener("open", ignore),  # type: ignore[call-overload] # on purpose
    "slot": lambda half: setattr(half, "onmessage", 3),
    "attachment": lambda half: half.serialize_attachment("x" * 20_000),
}


@pytest.mark.parametrize("name", REFUSED)
@bounded
async def test_g4_a_sync_verb_that_raises_has_changed_nothing(
    autojump_clock: MockClock, name: str
) -> None:
    async with open_websocket_pair(max_buffered_bytes=1000) as (client, server):
        heard = collect_events(client), collect_events(server)
        client.accept()
        server.accept()
        client.serialize_attachment("as before")
        client.send("first")

        def facts() -> object:
            return repr(client), repr(server), client.buffered_amount, client.onmessage

        before = facts()
        with pytest.raises((TypeError, ValueError, BufferFullError)):
            REFUSED[name](client)
        assert facts() == before
        assert client.deserialize_attachment() == "as before"
        client.send("second")
        server.send("third")
        client.close(1000)
        await client.wait_closed()
        await server.wait_closed()
    assert heard == (["third", CLEAN_1000], ["first", "second", CLEAN_1000])


@bounded
async def test_g4_a_half_is_free_for_others_after_an_accept_that_raised(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        with pytest.raises(TypeError):
            client.accept(allow_half_open="yes")  # type: ignore[arg-type] # on purpose
        await wait_all_tasks_blocked()
        assert not nursery.child_tasks
        client.accept(pull=True)
        server.accept()
        server.send("x")
        assert await client.receive() == "x"
        client.close()


@bounded
async def test_g4_sent_bytes_are_a_snapshot(autojump_clock: MockClock) -> None:
    async with open_websocket_pair() as (client, server):
        client.accept()
        buffer = bytearray(b"before")
        client.send(buffer)
        client.send(memoryview(buffer)[:3])
        buffer[:] = b"after!"
        assert [await server.receive(), await server.receive()] == [b"before", b"bef"]


def protection() -> bool:
    """Tell whether KeyboardInterrupt is deferred now."""
    return trio.lowlevel.currently_ki_protected()


Watch = Callable[[str], list[bool]]


@pytest.fixture
def watch_inbox(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Record whether calls of a method of the inbox are protected."""

    def watch(name: str) -> list[bool]:
        seen: list[bool] = []
        method = getattr(Inbox, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            seen.append(protection())
            return method(*args, **kwargs)

        monkeypatch.setattr(Inbox, name, watched)
        return seen

    return watch


@attrs.define(eq=False)
class EqualListener:
    """A listener that records whether it is compared under protection."""

    seen: list[bool]

    def __call__(self, _event: object) -> None:
        raise AssertionError

    def __eq__(self, other: object) -> bool:
        self.seen.append(protection())
        return self is other

    __hash__ = None  # type: ignore[assignment] # listeners needn't be hashable


@attrs.define(eq=False)
class Zone(tzinfo):
    """A time zone that records whether it is called under protection."""

    seen: list[bool]

    def utcoffset(self, _when: datetime | None) -> timedelta:
        self.seen.append(protection())
        return timedelta(0)

    dst = utcoffset

    def tzname(self, _when: datetime | None) -> str:
        return "UTC"


class SpawnWatch(trio.abc.Instrument):
    """Records whether tasks are started under protection."""

    def __init__(self, seen: list[bool]) -> None:
        self.seen = seen

    def task_spawned(self, _task: trio.lowlevel.Task) -> None:
        self.seen.append(protection())


@bounded
async def test_g4_send_is_protected_from_keyboard_interrupt(
    watch_inbox: Watch,
) -> None:
    seen = watch_inbox("put")
    async with open_websocket_pair() as (client, _server):
        client.accept()
        client.send("ascii")
        client.send("\u00fc")
        client.send(b"binary")
        client.send(3)
    assert seen == [True] * 4


@bounded
async def test_g4_close_is_protected_from_keyboard_interrupt(
    watch_inbox: Watch,
) -> None:
    seen = watch_inbox("put_end")
    async with open_websocket_pair() as (client, _server):
        client.accept()
        client.close(1000)
        assert seen == [True]


@bounded
async def test_g4_accept_is_protected_from_keyboard_interrupt() -> None:
    seen: list[bool] = []
    async with open_websocket_pair() as (client, _server):
        watch = SpawnWatch(seen)
        trio.lowlevel.add_instrument(watch)
        client.accept()
        trio.lowlevel.remove_instrument(watch)
    assert seen == [True]


@bounded
async def test_g4_registering_listeners_is_protected_from_keyboard_interrupt() -> None:
    seen: list[bool] = []
    listener = EqualListener(seen)
    async with open_websocket_pair() as (client, _server):
        client.add_event_listener("message", listener)
        client.add_event_listener("message", listener)
        assert seen.pop()
        client.remove_event_listener("message", listener)
        assert seen.pop()


@bounded
async def test_g4_the_on_decorator_is_protected_from_keyboard_interrupt() -> None:
    seen: list[bool] = []
    listener = EqualListener(seen)
    async with open_websocket_pair() as (client, _server):
        client.add_event_listener("message", listener)
        client.on("message")(listener)
        assert seen.pop()


@pytest.mark.parametrize("slot", ["onmessage", "onclose", "onerror"])
@bounded
async def test_g4_filling_a_slot_is_protected_from_keyboard_interrupt(
    slot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def set_slot(self: Listeners, event_type: str, listener: object) -> None:
        seen.append(protection())

    async with open_websocket_pair() as (client, _server):
        monkeypatch.setattr(Listeners, "set_slot", set_slot)
        setattr(client, slot, ignore)
    assert seen == [True]


@bounded
async def test_g4_attaching_is_protected_from_keyboard_interrupt() -> None:
    seen: list[bool] = []
    async with open_websocket_pair() as (client, _server):
        client.serialize_attachment(datetime(2020, 1, 1, tzinfo=Zone(seen)))
    assert seen
    assert all(seen)


@bounded
async def test_g4_taking_a_message_is_protected_from_keyboard_interrupt(
    watch_inbox: Watch,
) -> None:
    seen = watch_inbox("release")
    async with open_websocket_pair() as (client, server):
        client.accept()
        client.send("x")
        await server.receive()
    assert seen == [True]


def test_g4_a_real_interrupt_waits_until_send_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[Received] = []
    put = Inbox.put

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return put(*args, **kwargs)

    async def main() -> None:
        nonlocal heard
        async with open_websocket_pair() as (client, server):
            heard = collect_events(server)
            client.accept()
            server.accept()
            monkeypatch.setattr(Inbox, "put", interrupted)
            client.send("hello")
            assert client.buffered_amount == 5
            with trio.fail_after(5):
                await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        run(main)
    assert heard == ["hello", INTERNAL_ERROR]


# -- G5: async verbs are checkpoints -----------------------------


@asynccontextmanager
async def accepted_pair() -> AsyncIterator[tuple[WebSocket, WebSocket]]:
    """A pair with an accepted client and a server in pull mode."""
    async with open_websocket_pair() as (client, server):
        client.accept()
        server.accept(pull=True)
        await wait_all_tasks_blocked()
        yield client, server


@bounded
async def test_g5_receive_is_a_checkpoint_when_a_message_is_queued() -> None:
    async with accepted_pair() as (client, server):
        client.send("x")
        with assert_checkpoints():
            await server.receive()


@bounded
async def test_g5_receive_is_a_checkpoint_on_a_half_without_a_holder() -> None:
    async with open_websocket_pair() as (client, server):
        client.accept()
        client.send("x")
        with assert_checkpoints():
            await server.receive()


@bounded
async def test_g5_receive_is_a_checkpoint_at_the_end() -> None:
    async with accepted_pair() as (client, server):
        client.close()
        for _ in range(3):
            with assert_checkpoints(), pytest.raises(ConnectionClosedError):
                await server.receive()


class StepCounter(trio.abc.Instrument):
    """Counts how often the current task was resumed."""

    def __init__(self) -> None:
        self.task = trio.lowlevel.current_task()
        self.steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += task is self.task


@bounded
async def test_g5_iteration_is_a_checkpoint_when_it_waits_and_every_64_messages(
    autojump_clock: MockClock,
) -> None:
    async def send_later(client: WebSocket) -> None:
        await trio.sleep(1)
        client.send("x")

    async with accepted_pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(send_later, client)
        with assert_checkpoints():
            await anext(server)
        for n in range(1000):
            client.send(n)
        counter = StepCounter()
        trio.lowlevel.add_instrument(counter)
        streaks = [0]
        for _ in range(1000):
            before = counter.steps
            await anext(server)
            if counter.steps > before:
                streaks.append(0)
            else:
                streaks[-1] += 1
        trio.lowlevel.remove_instrument(counter)
        # Other tasks get their turn, but not after every message.
        assert max(streaks) == 64
        assert len(streaks) == 16


@bounded
async def test_g5_drain_is_a_checkpoint() -> None:
    async with accepted_pair() as (client, server):
        with assert_checkpoints():
            await client.drain()
        client.send("x")
        with assert_checkpoints():
            await client.drain(1)
        await server.receive()


@bounded
async def test_g5_wait_closed_is_a_checkpoint() -> None:
    async with accepted_pair() as (client, server):
        server.close()
        client.close()
        for _ in range(2):
            with assert_checkpoints():
                await server.wait_closed()


@bounded
async def test_g5_aclose_is_a_checkpoint_each_time_and_in_a_listener() -> None:
    seen: list[str] = []
    async with open_websocket_pair() as (client, server):

        @server.on("message")
        async def hang_up(_event: MessageEvent) -> None:
            with assert_checkpoints():
                await server.aclose()
            seen.append("in a listener")

        client.accept()
        server.accept()
        client.send("x")
        await client.wait_closed()
        for half in client, server:
            for _ in range(2):
                with assert_checkpoints():
                    await half.aclose()
    assert seen == ["in a listener"]


@bounded
async def test_g5_ping_is_a_checkpoint_without_a_network() -> None:
    async with accepted_pair() as (client, server):
        with assert_checkpoints(), pytest.raises(InvalidStateError):
            await client.ping()
        await server.aclose()
        with assert_checkpoints(), pytest.raises(ConnectionClosedError):
            await server.ping()


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope when its task is about to take its n-th step from now on."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.task = trio.lowlevel.current_task()
        self.scope = scope
        self.step = step
        self.seen = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.seen += 1
            if self.seen == self.step:
                self.scope.cancel()


@contextmanager
def cancelled_at(step: int) -> Iterator[trio.CancelScope]:
    """Cancel the block at its n-th step; 0 means before it begins."""
    with trio.CancelScope() as scope:
        if step == 0:
            scope.cancel()
        instrument = CancelAtStep(scope, step)
        trio.lowlevel.add_instrument(instrument)
        try:
            yield scope
        finally:
            trio.lowlevel.remove_instrument(instrument)


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("delay", [None, 0, 1])
@pytest.mark.parametrize("accepted", [False, True])
@bounded
async def test_g5_a_cancelled_receive_takes_no_message(
    autojump_clock: MockClock, *, step: int, delay: float | None, accepted: bool
) -> None:
    async with (
        open_websocket_pair() as (client, server),
        trio.open_nursery() as nursery,
    ):
        client.accept()
        if accepted:
            server.accept(pull=True)

        async def send() -> None:
            if delay is not None:
                await trio.sleep(delay)
            client.send("precious")

        if delay is None:
            client.send("precious")
        else:
            nursery.start_soon(send)
        received = []
        with cancelled_at(step) as scope:
            received.append(await server.receive())
        if scope.cancelled_caught:
            assert received == []
            if step == 0 and not accepted:
                assert "not accepted" in repr(server)
            received.append(await server.receive())
        assert received == ["precious"]


@pytest.mark.parametrize("step", range(3))
@bounded
async def test_g5_a_cancelled_drain_or_wait_closed_changes_nothing(
    autojump_clock: MockClock, step: int
) -> None:
    async with accepted_pair() as (client, server):
        client.send("x")
        with cancelled_at(step) as scope, trio.move_on_after(5):
            await client.drain()
        with cancelled_at(step) as scope, trio.move_on_after(5):
            await client.wait_closed()
        assert scope.cancelled_caught or step == 2
        assert client.ready_state is server.ready_state is ReadyState.OPEN
        assert client.buffered_amount == 1
        assert await server.receive() == "x"
        await client.drain()


# -- G6: closing closes ------------------------------------------


@pytest.mark.parametrize("taken", ["both", "one", "none"])
@bounded
async def test_g6_a_cancelled_aclose_still_closes(
    autojump_clock: MockClock, taken: str
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        if taken != "none":
            client.accept()
        if taken == "both":
            server.accept()
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.aclose(3000, "bye")
        assert scope.cancelled_caught
        assert client.ready_state is ReadyState.CLOSED
        await client.wait_closed()
        if taken != "both":
            server.accept()
        assert await server.wait_closed() == CloseEvent(3000, "bye", was_clean=True)


@bounded
async def test_g6_aclose_is_idempotent(autojump_clock: MockClock) -> None:
    async with open_websocket_pair() as (client, server):
        heard = collect_events(client), collect_events(server)
        client.accept()
        server.accept()
        for _ in range(3):
            await client.aclose(1000)
            await server.aclose(3000)
    assert heard == ([CLEAN_1000], [CLEAN_1000])


@pytest.mark.parametrize("taken", ["both", "one", "none"])
@pytest.mark.parametrize("way", ["normally", "by an exception", "cancelled"])
@bounded
async def test_g6_leaving_the_block_closes_both_halves(
    autojump_clock: MockClock, way: str, taken: str
) -> None:
    with trio.CancelScope() as scope, failures_expected():
        async with open_websocket_pair() as (client, server):
            if taken != "none":
                client.accept()
            if taken == "both":
                server.accept()
            if way == "by an exception":
                fail_in_listener(None)
            if way == "cancelled":
                scope.cancel()
                await trio.sleep_forever()
    assert scope.cancelled_caught == (way == "cancelled")
    assert [half.ready_state for half in (client, server)] == [ReadyState.CLOSED] * 2
    with trio.fail_after(0.5):  # They are closed, so there is nothing to wait for.
        for half in client, server:
            await half.aclose()
            await half.wait_closed()


@bounded
async def test_g6_aclose_closes_a_half_whose_nursery_has_ended(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, _server = WebSocketPair(nursery)
    await client.aclose()
    assert client.ready_state is ReadyState.CLOSED


# -- G7: failures are loud and contained -------------------------


@pytest.mark.parametrize("listener", [fail_in_listener, fail_in_async_listener])
@bounded
async def test_g7_a_failing_listener_fails_its_half_and_the_nursery(
    autojump_clock: MockClock, listener: Callable[[object], object]
) -> None:
    others: list[str | bytes] = []
    async with trio.open_nursery() as outer:
        with pytest.RaisesGroup(ListenerError) as caught:
            async with trio.open_nursery() as inner:
                client, server = accepted_apart(outer, inner)
                heard = collect_events(client), collect_events(server)
                server.onmessage = listener
                server.add_event_listener("message", lambda e: others.append(e.data))
                client.send("first")
                client.send("dropped")
        await client.wait_closed()
    # The other listeners of this event ran; the queued messages are dropped.
    assert others == ["first"]
    (error,) = caught.value.exceptions
    assert isinstance(error, ListenerError)
    assert heard[1] == ["first", ErrorEvent("ListenerError: ", error), RAISED]
    event = heard[1][1]
    assert isinstance(event, ErrorEvent)
    assert event.error is error
    assert event.target is server
    assert heard[0] == [INTERNAL_ERROR]


@pytest.mark.parametrize("kinds", ["ss", "aa", "sa", "as"])
@bounded
async def test_g7_several_failures_of_one_event_come_as_one_group(
    autojump_clock: MockClock, kinds: str
) -> None:
    heard: list[ErrorEvent] = []

    def sync_one(_event: object) -> None:
        raise ValueError("sync")

    async def async_one(_event: object) -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("async")

    listeners = {"s": sync_one, "a": async_one}
    types = {"s": ValueError, "a": KeyError}
    with pytest.RaisesGroup(pytest.RaisesGroup(*(types[kind] for kind in kinds))):
        async with trio.open_nursery() as nursery:
            client, server = WebSocketPair(nursery)
            client.accept()
            server.accept()
            for kind in kinds:
                server.add_event_listener("message", functools.partial(listeners[kind]))
            server.add_event_listener("error", heard.append)
            client.send("x")
    (event,) = heard
    assert type(event.error) is types[kinds[0]]


@bounded
async def test_g7_a_group_raised_by_a_listener_stays_as_it_is(
    autojump_clock: MockClock,
) -> None:
    group = ExceptionGroup("mine", [ListenerError(), ValueError()])
    heard: list[ErrorEvent] = []

    def fail(_event: object) -> None:
        raise group

    with pytest.RaisesGroup(pytest.RaisesGroup(ListenerError, ValueError)):
        async with open_websocket_pair() as (client, server):
            client.accept()
            server.accept()
            server.onmessage = fail
            server.onerror = heard.append
            client.send("x")
            await trio.sleep_forever()
    assert [event.error for event in heard] == [group]


@bounded
async def test_g7_a_half_that_fails_after_its_close_was_sent_sends_no_1011(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as outer:
        with pytest.RaisesGroup(ListenerError):
            async with trio.open_nursery() as inner:
                client, server = accepted_apart(outer, inner)
                heard = collect_events(client)

                @server.on("message")
                def hang_up_and_fail(_event: MessageEvent) -> None:
                    server.close(3000, "bye")
                    raise ListenerError

                client.send("x")
        await client.wait_closed()
    assert heard == [CloseEvent(3000, "bye", was_clean=True)]


@pytest.mark.parametrize("listener", [fail_in_listener, fail_in_async_listener])
@bounded
async def test_g7_a_failing_close_listener_only_propagates(
    autojump_clock: MockClock, listener: Callable[[object], object]
) -> None:
    async with trio.open_nursery() as outer:
        with pytest.RaisesGroup(ListenerError):
            async with trio.open_nursery() as inner:
                client, server = accepted_apart(outer, inner)
                server.onclose = listener
                heard = collect_events(client), collect_events(server)
                client.close(1000)
        assert await server.wait_closed() == CLEAN_1000
    assert heard == ([CLEAN_1000], [CLEAN_1000])


@pytest.mark.parametrize("listener", [fail_in_listener, fail_in_async_listener])
@bounded
async def test_g7_a_failing_error_listener_propagates_beside_its_cause(
    autojump_clock: MockClock, listener: Callable[[object], object]
) -> None:
    def fail(_event: object) -> None:
        raise ValueError

    with pytest.RaisesGroup(
        ValueError, ListenerError, flatten_subgroups=True
    ) as caught:
        async with trio.open_nursery() as nursery:
            client, server = WebSocketPair(nursery)
            client.accept()
            server.accept()
            server.onerror = listener
            server.onmessage = fail
            heard = collect_events(server)
            client.send("x")
    assert [type(error) for error in flat(caught.value)] == [ValueError, ListenerError]
    assert [type(event) for event in heard[-2:]] == [ErrorEvent, CloseEvent]


@bounded
async def test_g7_other_halves_of_the_nursery_get_1006_or_the_queued_close(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as outer:
        with pytest.RaisesGroup(ListenerError):
            async with trio.open_nursery() as inner:
                client, server = accepted_apart(outer, inner)
                open_one, closing_one = (
                    accepted_apart(outer, inner)[1],
                    accepted_apart(outer, inner),
                )
                heard = collect_events(open_one), collect_events(closing_one[1])
                await wait_all_tasks_blocked()

                @server.on("message")
                def fail(_event: MessageEvent) -> None:
                    closing_one[0].close(4000)
                    raise ListenerError

                client.send("x")
        assert await closing_one[0].wait_closed() == CloseEvent(
            4000, "", was_clean=True
        )
    assert heard == ([NURSERY_CANCELLED], [CloseEvent(4000, "", was_clean=True)])


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_g7_interrupts_pass_through_without_an_error_event(
    error: type[BaseException], kind: str
) -> None:
    heard: list[Received] = []

    def interrupt(_event: object) -> None:
        raise error

    async def async_interrupt(_event: object) -> None:
        await trio.lowlevel.checkpoint()
        raise error

    async def main() -> None:
        nonlocal heard
        async with trio.open_nursery() as nursery:
            client, server = WebSocketPair(nursery)
            heard = collect_events(server)
            client.accept()
            server.accept()
            server.onmessage = interrupt if kind == "sync" else async_interrupt
            client.send("x")

    with pytest.RaisesGroup(error):
        run(main)
    assert heard[-1:] == [NURSERY_CANCELLED]
    assert not any(isinstance(event, ErrorEvent) for event in heard)


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(
    "where", ["in one event", "in one close", "at the end of the half", "while falling"]
)
def test_g7_an_interrupt_and_a_failure_both_propagate(where: str, kind: str) -> None:
    async def async_interrupt(_event: object) -> None:
        await trio.lowlevel.checkpoint()
        raise KeyboardInterrupt

    def sync_interrupt(_event: object) -> None:
        raise KeyboardInterrupt

    fail = fail_in_listener if kind == "sync" else fail_in_async_listener
    interrupt = sync_interrupt if kind == "sync" else async_interrupt

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            client, server = WebSocketPair(nursery)
            client.accept()
            server.accept()
            if where == "in one event":
                server.add_event_listener("message", fail)
                server.add_event_listener("message", interrupt)
                client.send("x")
            elif where == "in one close":
                server.add_event_listener("close", fail)
                server.add_event_listener("close", interrupt)
                client.close()
            elif where == "at the end of the half":
                server.add_event_listener("message", fail)
                server.add_event_listener("close", interrupt)
                client.send("x")
            else:
                client.add_event_listener("close", fail)
                server.add_event_listener("close", interrupt)
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()

    with pytest.raises(BaseExceptionGroup) as caught:
        run(main)
    kinds = {type(error) for error in flat(caught.value)}
    assert kinds == {KeyboardInterrupt, ListenerError}


@pytest.mark.parametrize("kind", ["sync", "async"])
@bounded
async def test_g7_a_listener_that_cancels_and_then_fails_has_failed(
    autojump_clock: MockClock, kind: str
) -> None:
    with pytest.RaisesGroup(ListenerError):
        async with trio.open_nursery() as nursery:
            client, server = WebSocketPair(nursery)
            heard = collect_events(server)
            client.accept()
            server.accept()

            def cancel_and_fail(_event: MessageEvent) -> None:
                nursery.cancel_scope.cancel()
                raise ListenerError

            async def async_cancel_and_fail(event: MessageEvent) -> None:
                cancel_and_fail(event)

            server.onmessage = (
                cancel_and_fail if kind == "sync" else async_cancel_and_fail
            )
            client.send("x")
    assert [type(event) for event in heard] == [str, ErrorEvent, CloseEvent]


@bounded
async def test_g7_a_failing_listener_ends_the_block_that_opened_the_pair(
    autojump_clock: MockClock,
) -> None:
    with pytest.RaisesGroup(ListenerError):
        async with open_websocket_pair() as (client, server):
            heard = collect_events(client), collect_events(server)
            client.accept()
            server.accept()
            server.onmessage = fail_in_listener
            client.send("x")
            await trio.sleep_forever()
    assert heard[0] == [INTERNAL_ERROR]
    assert heard[1][-1] == RAISED


# -- G8: one at a time -------------------------------------------


@bounded
async def test_g8_listeners_of_one_half_never_overlap(
    autojump_clock: MockClock,
) -> None:
    running: list[str] = []
    calls = 0

    def enter(name: str) -> None:
        nonlocal calls
        calls += 1
        assert not running, (running, name)
        running.append(name)

    async def slow(event: MessageEvent | CloseEvent) -> None:
        enter(event.type)
        await trio.sleep(1)
        running.clear()

    async def quick(event: MessageEvent | CloseEvent) -> None:
        enter(event.type)
        await trio.lowlevel.checkpoint()
        running.clear()

    def sync(event: MessageEvent | CloseEvent) -> None:
        enter(event.type)
        running.clear()

    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        for listener in slow, sync, quick:
            server.add_event_listener("message", listener)
            server.add_event_listener("close", listener)
        client.accept()
        server.accept()
        for n in range(10):
            client.send(n)
            await trio.sleep(0.7)
        client.close()
    assert calls == 3 * 11


@bounded
async def test_g8_the_two_halves_run_concurrently(autojump_clock: MockClock) -> None:
    async def slow(_event: MessageEvent) -> None:
        await trio.sleep(10)

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for half in (pair := WebSocketPair(nursery)):
            half.onmessage = slow
            half.accept()
        for half in pair:
            half.send("x")
        await wait_all_tasks_blocked()
        for half in pair:
            half.close()
    assert trio.current_time() - start == 10


@bounded
async def test_g8_a_slow_half_does_not_delay_another_half(
    autojump_clock: MockClock,
) -> None:
    async def slow(_event: MessageEvent) -> None:
        await trio.sleep(10)

    async with trio.open_nursery() as nursery:
        stuck, brisk = WebSocketPair(nursery), WebSocketPair(nursery)
        heard = collect_events(brisk[1])
        stuck[1].onmessage = slow
        for half in (*stuck, *brisk):
            half.accept()
        stuck[0].send("x")
        await trio.sleep(1)
        brisk[0].send("y")
        await trio.sleep(1)
        assert heard == ["y"]
        stuck[0].close()
        brisk[0].close()


# -- G9: bounded memory (the buffer of a pair) -------------------


@bounded
async def test_g9_a_sender_without_a_consumer_gets_buffer_full_error() -> None:
    async with open_websocket_pair(max_buffered_bytes=1000) as (client, server):
        client.accept()
        client.send("x" * 600)
        client.send(b"y" * 400)
        for message in "z", b"", 0:
            with pytest.raises(BufferFullError, match=r"await drain\(\)"):
                client.send(message)
        assert client.buffered_amount == 1000
        # Each direction has a separate limit.
        server.accept(pull=True)
        server.send("x" * 1000)
        # The refused message isn't queued, and no queued message is dropped.
        assert await server.receive() == "x" * 600
        client.send("z")
        assert await server.receive() == b"y" * 400
        assert await server.receive() == "z"


@bounded
async def test_g9_a_queued_message_counts_at_least_64_bytes_for_the_limit() -> None:
    async with open_websocket_pair(max_buffered_bytes=6400) as (client, server):
        client.accept()
        for _ in range(100):
            client.send("")
        assert client.buffered_amount == 0
        with pytest.raises(BufferFullError):
            client.send("")
        assert await server.receive() == ""
        client.send("x" * 64)
        with pytest.raises(BufferFullError):
            client.send("")


@bounded
async def test_g9_buffered_amount_counts_bytes_of_utf8() -> None:
    async with open_websocket_pair() as (client, server):
        client.accept()
        client.send("häß")
        assert client.buffered_amount == 5
        client.send(b"abc")
        assert client.buffered_amount == 8
        await server.receive()
        assert client.buffered_amount == 3
        assert server.buffered_amount == 0


@bounded
async def test_g9_a_close_passes_a_full_buffer(autojump_clock: MockClock) -> None:
    async with open_websocket_pair(max_buffered_bytes=64) as (client, server):
        heard = collect_events(server)
        client.accept()
        client.send("x")
        with pytest.raises(BufferFullError):
            client.send("x")
        client.close(1000)
        server.accept()
        await server.wait_closed()
    assert heard == ["x", CLEAN_1000]


@bounded
async def test_g9_a_slow_consumer_and_drain_bound_the_queue(
    autojump_clock: MockClock,
) -> None:
    heard: list[str | bytes] = []

    async def slow(event: MessageEvent) -> None:
        await trio.sleep(1)
        heard.append(event.data)

    async with open_websocket_pair(max_buffered_bytes=1000, close_grace=60) as (
        client,
        server,
    ):
        server.onmessage = slow
        client.accept()
        server.accept()
        for n in range(30):
            client.send(f"{n:0300}")
            await client.drain(600)
            assert client.buffered_amount <= 600
        await client.drain()
        assert client.buffered_amount == 0
    assert [int(message) for message in heard] == list(range(30))


# -- G10: no leaks -----------------------------------------------


@contextmanager
def reference_counting_only() -> Iterator[None]:
    """Disable the cyclic collector."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def closed_by_handshake() -> list[weakref.ref[Any]]:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        client.accept()
        server.accept()
        client.onmessage = client.onclose = server.onmessage = ignore
        client.send("x")
        await wait_all_tasks_blocked()
        client.close()
        await server.wait_closed()
    return [weakref.ref(client), weakref.ref(server)]


async def closed_with_async_listeners() -> list[weakref.ref[Any]]:
    async def listen(_event: object) -> None:
        await trio.lowlevel.checkpoint()

    async with open_websocket_pair() as (client, server):
        for half in client, server:
            half.accept()
            half.onmessage = half.onclose = listen
            half.send("x")
    return [weakref.ref(client), weakref.ref(server)]


async def closed_by_the_block() -> list[weakref.ref[Any]]:
    async with open_websocket_pair() as (client, server):
        client.accept()
        server.accept(pull=True)
        client.send("never read")
    return [weakref.ref(client), weakref.ref(server)]


async def never_taken() -> list[weakref.ref[Any]]:
    async with open_websocket_pair() as (client, server):
        pass
    return [weakref.ref(client), weakref.ref(server)]


async def cancelled_with_its_nursery() -> list[weakref.ref[Any]]:
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        client.accept()
        server.accept()
        client.onclose = ignore
        client.send("x")
        nursery.cancel_scope.cancel()
    return [weakref.ref(client), weakref.ref(server)]


async def closed_while_the_nursery_goes_on() -> list[weakref.ref[Any]]:
    async def converse() -> list[weakref.ref[Any]]:
        client, server = WebSocketPair(nursery)
        client.accept()
        server.accept()
        client.close()
        await server.wait_closed()
        await client.wait_closed()
        return [weakref.ref(client), weakref.ref(server)]

    async with trio.open_nursery() as nursery:
        others = WebSocketPair(nursery)
        others[0].accept()
        others[1].accept()
        references = await converse()
        await wait_all_tasks_blocked()
        assert [reference() for reference in references] == [None] * 2
        others[0].close()
    return references


@pytest.mark.parametrize(
    "life",
    [
        closed_by_handshake,
        closed_with_async_listeners,
        closed_by_the_block,
        never_taken,
        cancelled_with_its_nursery,
        closed_while_the_nursery_goes_on,
    ],
)
@bounded
async def test_g10_closed_halves_are_freed_without_the_cyclic_collector(
    autojump_clock: MockClock,
    life: Callable[[], Awaitable[list[weakref.ref[Any]]]],
) -> None:
    with reference_counting_only():
        references = await life()
        await trio.lowlevel.checkpoint()
        assert [reference() for reference in references] == [None] * len(references)


@bounded
async def test_g10_no_task_outlives_the_pair(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(3):
            pairs = [WebSocketPair(nursery) for _ in range(3)]
            for client, server in pairs:
                client.accept()
                server.accept()
                client.send("x")
                client.close()
            for pair in pairs:
                for half in pair:
                    await half.wait_closed()
            await wait_all_tasks_blocked()
            assert trio.lowlevel.current_statistics().tasks_living == before
            assert _owners.get() == {}


@pytest.mark.parametrize(
    "ending", [pytest.param(row[0], id=row[0].__name__) for row in ENDINGS]
)
def test_g10_nothing_is_left_whatever_the_ending(
    ending: Ending,
) -> None:
    kinds = Dispatcher, Owner, Inbox, trio.MemorySendChannel, trio.MemoryReceiveChannel

    def count() -> int:
        gc.collect()
        return sum(isinstance(thing, kinds) for thing in gc.get_objects())

    async def main() -> None:
        async with trio.open_nursery() as outer:
            with failures_expected():
                async with trio.open_nursery() as inner:
                    client, server = accepted_apart(outer, inner)
                    await wait_all_tasks_blocked()
                    await ending(Scene(inner, client, server))
        assert _owners.get() == {}

    before = count()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        run(main)
        assert count() == before


class Thing:
    """The value of a context variable."""


thing: ContextVar[Thing] = ContextVar("thing")


@pytest.mark.parametrize("place", ["first", "later"])
@bounded
async def test_g10_a_closed_half_keeps_no_context_variables(
    autojump_clock: MockClock, place: str
) -> None:
    async with trio.open_nursery() as nursery:
        other = WebSocketPair(nursery)
        client, server = WebSocketPair(nursery)
        if place == "later":
            other[0].accept()
        token = thing.set(Thing())
        server.accept()
        reference = weakref.ref(thing.get())
        thing.reset(token)
        del token
        client.accept()
        # Another pair keeps the dispatcher of the nursery running.
        other[0].accept()
        with reference_counting_only():
            client.close()
            await client.wait_closed()
            await server.wait_closed()
            await wait_all_tasks_blocked()
            assert reference() is None
        other[0].close()
        other[1].accept()


# -- G11: no luck ------------------------------------------------


def under_many_schedules(program: Callable[[], Awaitable[T]]) -> list[T]:
    """Run a program under many orders of Trio's tasks; return the distinct results."""
    outcomes: list[T] = []
    for seed in range(16):
        scheduler_random.seed(seed)
        outcome = run(program)
        if outcome not in outcomes:
            outcomes.append(outcome)
    return outcomes


Transcript = dict[str, list[Received]]


def transcribe(transcript: Transcript, **halves: WebSocket) -> None:
    """Collect the events of these halves in a transcript."""
    for name, half in halves.items():
        transcript[name] = collect_events(half)


def accept(*halves: WebSocket) -> None:
    """Accept halves."""
    for half in halves:
        half.accept()


def with_error_types(transcript: Transcript) -> dict[str, list[object]]:
    """Return a transcript with the types of errors, which can be compared."""
    return {
        name: [type(e.error) if isinstance(e, ErrorEvent) else e for e in events]
        for name, events in transcript.items()
    }


async def a_conversation() -> object:
    order: list[tuple[str, str | bytes]] = []
    transcript: Transcript = {}
    async with trio.open_nursery() as nursery:
        pairs = [WebSocketPair(nursery) for _ in range(3)]
        for n, (client, server) in enumerate(pairs):
            transcribe(transcript, **{f"client{n}": client, f"server{n}": server})

            @server.on("message")
            def echo(
                event: MessageEvent, server: WebSocket = server, n: int = n
            ) -> None:
                order.append((f"server{n}", event.data))
                server.send(event.data)

            @client.on("message")
            def count_down(
                event: MessageEvent, client: WebSocket = client, n: int = n
            ) -> None:
                order.append((f"client{n}", event.data))
                if int(event.data):
                    client.send(int(event.data) - 1)
                else:
                    client.close(1000)

            accept(client, server)
            client.send(100 + n)
    return order, transcript


async def cancelled_with_messages_queued() -> object:
    transcript: Transcript = {}
    async with trio.open_nursery() as nursery:
        pairs = [WebSocketPair(nursery) for _ in range(3)]
        for n, (client, server) in enumerate(pairs):
            transcribe(transcript, **{f"client{n}": client, f"server{n}": server})
            accept(client, server)
        await wait_all_tasks_blocked()
        pairs[1][0].send("x")
        pairs[1][0].close(1000)
        nursery.cancel_scope.cancel()
    return transcript


async def a_listener_raises_among_others() -> object:
    transcript: Transcript = {}
    try:
        async with trio.open_nursery() as nursery:
            pairs = [WebSocketPair(nursery) for _ in range(3)]
            for n, (client, server) in enumerate(pairs):
                transcribe(transcript, **{f"client{n}": client, f"server{n}": server})
                accept(client, server)
            pairs[1][1].onmessage = fail_in_listener
            await wait_all_tasks_blocked()
            for client, _server in pairs:
                client.send("x")
                client.close(1000)
    except* ListenerError:
        pass
    return with_error_types(transcript)


async def two_async_listeners_raise_at_once() -> object:
    transcript: Transcript = {}
    caught: list[BaseException] = []
    signal_to_fail = trio.Event()

    async def wait_and_fail(_event: MessageEvent) -> None:
        await signal_to_fail.wait()
        raise ListenerError

    try:
        async with trio.open_nursery() as nursery:
            for n in range(2):
                client, server = WebSocketPair(nursery)
                transcribe(transcript, **{f"client{n}": client, f"server{n}": server})
                accept(client, server)
                server.onmessage = wait_and_fail
                client.send("x")
            await wait_all_tasks_blocked()
            signal_to_fail.set()
    except* ListenerError as group:
        caught.extend(flat(group))
    return with_error_types(transcript), len(caught)


async def a_sibling_cleans_up(delay: float) -> object:
    transcript: Transcript = {}
    async with trio.open_nursery() as outer, trio.open_nursery() as inner:
        client, server = accepted_apart(outer, inner)
        transcribe(transcript, client=client)

        async def close_finally() -> None:
            try:
                await trio.sleep_forever()
            finally:
                server.close(4000)

        async def dawdle(_event: MessageEvent) -> None:
            await trio.sleep(delay)

        inner.start_soon(close_finally)
        server.onmessage = dawdle
        client.send("x")
        await trio.sleep(1)
        inner.cancel_scope.cancel()
    return transcript


async def aclose_in_a_cancelled_scope() -> object:
    transcript: Transcript = {}
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        transcribe(transcript, client=client, server=server)
        accept(client, server)
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await server.aclose()
    return transcript


async def a_puller_answers_the_last_message(pause: float) -> object:
    steps: list[object] = []

    async def answer(half: WebSocket) -> None:
        steps.append(await half.receive())
        await trio.sleep(pause)
        steps.append(half.ready_state)
        try:
            half.send("answer")
        except ConnectionClosedError as error:
            steps.append(error.code)
        half.close(4000)
        steps.append((await half.wait_closed()).code)

    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        heard = collect_events(client)
        client.accept()
        nursery.start_soon(answer, server)
        await wait_all_tasks_blocked()
        client.send("question")
        client.close(1000)
    return steps, heard


async def a_listener_closes_others() -> object:
    transcript: Transcript = {}
    async with trio.open_nursery() as nursery:
        pairs = [WebSocketPair(nursery) for _ in range(3)]
        for n, (client, server) in enumerate(pairs):
            transcribe(transcript, **{f"client{n}": client, f"server{n}": server})

            @server.on("message")
            def close_all(_event: MessageEvent, n: int = n) -> None:
                for _client, server in pairs:
                    server.close(4000 + n)

            accept(client, server)
        for client, _server in pairs:
            client.send("x")
            client.send("y")
    return transcript


def with_pause(program: Callable[[float], Awaitable[object]], pause: float) -> Any:
    """Return a parameter for a test: this program with this pause in it."""
    return pytest.param(
        functools.partial(program, pause), id=f"{program.__name__}-{pause}"
    )


@pytest.mark.parametrize(
    "program",
    [
        a_conversation,
        cancelled_with_messages_queued,
        a_listener_raises_among_others,
        two_async_listeners_raise_at_once,
        with_pause(a_sibling_cleans_up, 0.5),
        with_pause(a_sibling_cleans_up, 1),
        with_pause(a_sibling_cleans_up, 5),
        aclose_in_a_cancelled_scope,
        with_pause(a_puller_answers_the_last_message, 0),
        with_pause(a_puller_answers_the_last_message, 1),
        a_listener_closes_others,
    ],
)
def test_g11_the_outcome_does_not_depend_on_the_order_of_tasks(
    program: Callable[[], Awaitable[object]],
) -> None:
    assert len(under_many_schedules(program)) == 1


def test_g11_it_does_not_matter_which_half_was_accepted_first() -> None:
    async def program(*, swap: bool) -> Transcript:
        transcript: Transcript = {}
        async with trio.open_nursery() as nursery:
            client, server = WebSocketPair(nursery)
            transcribe(transcript, client=client, server=server)
            accept(*((server, client) if swap else (client, server)))
            client.send("x")
            server.send("y")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        return transcript

    results = [
        outcome
        for swap in (False, True)
        for outcome in under_many_schedules(functools.partial(program, swap=swap))
    ]
    assert (
        results
        == [{"client": ["y", NURSERY_CANCELLED], "server": ["x", NURSERY_CANCELLED]}]
        * 2
    )

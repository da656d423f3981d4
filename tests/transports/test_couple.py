"""`couple()` with connections made of lists, in virtual time."""

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from pairs import accept_and_collect
from trio.testing import MockClock

from trio_wspair import (
    CloseEvent,
    ConnectionClosedError,
    ErrorEvent,
    Instrument,
    InvalidStateError,
    ProtocolError,
    ReadyState,
    WebSocket,
    WebSocketPair,
    use_instrument,
)
from trio_wspair.transports import Close, Connection, couple

Item = str | bytes | Close


class Plain:
    """A connection whose peer is the test, by `put()` and `sent`."""

    def __init__(self) -> None:
        self._arrived, self._waiting = trio.open_memory_channel[Item | Exception](
            math.inf
        )
        self.sent: list[Item] = []
        self.writes: list[list[Item]] = []
        self.received = 0
        self.room = trio.Event()
        """The network takes nothing until it is set."""
        self.room.set()
        self.gone = False
        self.ended: list[str] = []

    def put(self, *items: Item | Exception) -> None:
        """Let items arrive."""
        for item in items:
            self._arrived.send_nowait(item)

    def vanish(self) -> None:
        """Let the connection break."""
        self.gone = True
        self.put(ConnectionClosedError(1006, "gone", was_clean=False))

    async def receive(self) -> Sequence[Item]:
        item = await self._waiting.receive()
        if isinstance(item, Exception):
            raise item
        self.received += 1
        return [item]

    async def send(self, items: Sequence[Item]) -> None:
        if self.gone:
            raise ConnectionClosedError(1006, "gone", was_clean=False)
        self.writes.append(list(items))
        self._write(*items)
        await self.room.wait()
        await trio.lowlevel.checkpoint()

    def _write(self, *items: Item) -> None:
        for item in items:
            if not any(isinstance(earlier, Close) for earlier in self.sent):
                self.sent.append(item)

    async def aclose(self, code: int, reason: str) -> None:
        self._write(Close(code, reason))
        self.ended.append("aclose begins")
        await self.room.wait()
        await trio.lowlevel.checkpoint()
        self.ended.append("aclose ends")

    def abort(self) -> None:
        self.ended.append("abort")


class Pingable(Plain):
    heard_at = 0.0

    async def ping(self) -> float:
        await trio.sleep(0.25)
        return 0.25


class Buffering(Plain):
    """A connection that can send without waiting; the network takes it later."""

    def send_now(self, messages: Sequence[str | bytes]) -> bool:
        self._write(*messages)
        return self.room.is_set()


class Coupled:
    """A pair of which one half is coupled with a connection."""

    def __init__(self, connection: Plain, far: WebSocket) -> None:
        self.connection = connection
        self.far = far
        self.scope = trio.CancelScope()
        self.over = trio.Event()
        self.event: CloseEvent | None = None

    async def run(self, half: WebSocket, **options: Any) -> None:
        try:
            with self.scope:
                self.event = await couple(half, self.connection, **options)
        finally:
            self.over.set()


@asynccontextmanager
async def coupled(
    connection: Plain | None = None, **options: Any
) -> AsyncGenerator[Coupled]:
    """Couple one half of a pair, for ten seconds of virtual time at most."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            half, far = WebSocketPair(nursery)
            it = Coupled(connection or Plain(), far)
            nursery.start_soon(partial(it.run, half, **options))
            yield it
            nursery.cancel_scope.cancel()


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


# -- messages -----------------------------------------------------------------


async def test_messages_pass_both_ways_in_order(autojump_clock: MockClock) -> None:
    async with coupled() as it:
        heard = accept_and_collect(it.far)
        for number in range(100):
            it.far.send(f"out {number}")
            it.connection.put(f"in {number}", b"\xff")
        await settle()
        assert it.connection.sent == [f"out {number}" for number in range(100)]
        expected: list[Any] = []
        for number in range(100):
            expected += [f"in {number}", b"\xff"]
        assert heard == expected


async def test_queued_messages_are_written_at_once(autojump_clock: MockClock) -> None:
    async with coupled() as it:
        it.far.accept()
        for number in range(100):
            it.far.send(str(number))
        it.far.close(1000)
        await settle()
        assert len(it.connection.writes) == 1


async def test_a_write_is_bounded_in_size(
    autojump_clock: MockClock,
) -> None:
    async with coupled() as it:
        it.far.accept()
        for _ in range(100):
            it.far.send(bytes(2**16))
        await settle()
        assert len(it.connection.writes) > 10
        assert it.connection.sent == [bytes(2**16)] * 100


async def test_messages_queued_before_coupling_are_sent(
    autojump_clock: MockClock,
) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            half, far = WebSocketPair(nursery)
            far.accept()
            far.send("early")
            far.close(4000, "done")
            connection = Plain()
            connection.put("late", Close(4001, "me too"))
            event = await couple(half, connection)
            assert connection.sent == ["early", Close(4000, "done")]
            assert event == CloseEvent(4001, "me too", was_clean=True)
            assert await far.wait_closed() == CloseEvent(4001, "me too", was_clean=True)


async def test_buffered_amount_falls_when_the_network_has_taken_it(
    autojump_clock: MockClock,
) -> None:
    connection = Plain()
    connection.room = trio.Event()
    async with coupled(connection) as it:
        it.far.accept()
        it.far.send("12345")
        await settle()
        assert it.connection.sent == ["12345"]
        assert it.far.buffered_amount == 5
        connection.room.set()
        await it.far.drain()
        assert it.far.buffered_amount == 0


async def test_reading_stops_while_the_buffer_of_the_other_half_is_full(
    autojump_clock: MockClock,
) -> None:
    async with coupled(receive_buffer_bytes=1000) as it:
        it.far.accept(pull=True)
        it.connection.put(*[bytes(300)] * 20)
        await settle()
        assert it.connection.received == 4
        assert await it.far.receive() == bytes(300)
        await settle()
        assert it.connection.received == 5
        for _ in range(19):
            assert await it.far.receive() == bytes(300)
        await settle()
        assert it.connection.received == 20


# -- closes -------------------------------------------------------------------


@pytest.mark.parametrize(
    "close", [Close(), Close(1000), Close(4000, "dóne"), Close(1001), Close(1011, "x")]
)
async def test_a_close_from_the_connection_is_passed_on_and_answered(
    autojump_clock: MockClock, close: Close
) -> None:
    async with coupled() as it:
        heard = accept_and_collect(it.far)
        it.connection.put("last", close)
        await it.over.wait()
        expected = CloseEvent(close.code, close.reason, was_clean=True)
        assert it.event == expected
        assert it.connection.sent == [close]
        assert it.connection.ended == ["aclose begins", "aclose ends", "abort"]
        assert await it.far.wait_closed() == expected
        assert heard == ["last", expected]


@pytest.mark.parametrize("arguments", [(), (1000,), (4000, "dóne")])
async def test_a_close_from_the_other_half_is_passed_on(
    autojump_clock: MockClock, arguments: tuple[Any, ...]
) -> None:
    async with coupled() as it:
        heard = accept_and_collect(it.far)
        it.far.send("last")
        it.far.close(*arguments)
        await settle()
        close = Close(*arguments)
        assert it.connection.sent == ["last", close]
        assert it.connection.ended == []
        it.connection.put("crossing", Close(4001, "me too"))
        await it.over.wait()
        expected = CloseEvent(4001, "me too", was_clean=True)
        assert it.event == expected
        assert heard == ["crossing", expected]


async def test_half_open_holds_through_a_connection(autojump_clock: MockClock) -> None:
    async with coupled() as it:
        heard = accept_and_collect(it.far, allow_half_open=True)
        it.connection.put(Close(4000, "done"))
        await trio.sleep(30)  # The application may take any time to close.
        assert heard == [CloseEvent(4000, "done", was_clean=True)]
        it.far.send("one more")
        it.far.close(4001, "now I")
        await it.over.wait()
        assert it.connection.sent == ["one more", Close(4001, "now I")]
        assert it.event == CloseEvent(4000, "done", was_clean=True)


async def test_both_close_at_once(autojump_clock: MockClock) -> None:
    async with coupled() as it:
        heard = accept_and_collect(it.far)
        it.connection.put(Close(4000, "from the network"))
        it.far.close(4001, "from here")
        await it.over.wait()
        assert it.connection.sent == [Close(4001, "from here")]
        assert it.event == CloseEvent(4000, "from the network", was_clean=True)
        assert heard == [it.event]


# -- ends of another kind -----------------------------------------------------


async def test_a_connection_that_breaks_gives_1006_without_an_error_event(
    autojump_clock: MockClock,
) -> None:
    async with coupled() as it:
        heard = accept_and_collect(it.far)
        it.connection.put("last")
        it.connection.vanish()
        await it.over.wait()
        assert it.event == CloseEvent(1006, "gone", was_clean=False)
        assert it.connection.ended == ["abort"]
        await it.far.wait_closed()
        assert heard == ["last", CloseEvent(1006, "gone", was_clean=False)]


async def test_a_connection_that_breaks_while_it_writes_is_found_by_the_reader(
    autojump_clock: MockClock,
) -> None:
    async with coupled() as it:
        heard = accept_and_collect(it.far)
        it.connection.gone = True
        it.far.send("never arrives")
        await settle()
        assert not it.over.is_set()
        it.connection.put("arrived before")
        it.connection.vanish()
        await it.over.wait()
        await it.far.wait_closed()
        assert heard == ["arrived before", CloseEvent(1006, "gone", was_clean=False)]


async def test_a_connection_that_breaks_after_its_close_has_closed_cleanly(
    autojump_clock: MockClock,
) -> None:
    async with coupled() as it:
        heard = accept_and_collect(it.far)
        it.connection.put(Close(4000, "done"))
        it.connection.vanish()
        await it.over.wait()
        assert (await it.far.wait_closed()).was_clean
        assert heard == [CloseEvent(4000, "done", was_clean=True)]


async def test_a_connection_that_has_closed_is_not_kept_for_long(
    autojump_clock: MockClock,
) -> None:
    async with coupled(close_grace=3) as it:
        it.connection.put(Close(4000, "done"))
        it.connection.vanish()
        await it.over.wait()  # The other half isn't accepted.
        assert it.connection.ended[-1] == "abort"
        assert it.event is not None
        assert it.event.code == 1006
        heard = accept_and_collect(it.far)
        await it.far.wait_closed()
        assert heard == [CloseEvent(4000, "done", was_clean=True)]


async def test_a_protocol_error_reaches_both_ends(autojump_clock: MockClock) -> None:
    async with coupled() as it:
        heard = accept_and_collect(it.far)
        error = ProtocolError(1007, "no UTF-8")
        it.connection.put("before", error)
        await it.over.wait()
        await it.far.wait_closed()
        assert it.connection.sent == [Close(1007, "no UTF-8")]
        assert it.connection.ended == ["aclose begins", "aclose ends", "abort"]
        assert it.event is not None
        assert it.event.code == 1006
        first, told, closed = heard
        assert first == "before"
        assert isinstance(told, ErrorEvent)
        assert told.error is error
        assert isinstance(closed, CloseEvent)
        assert closed.code == 1006


@pytest.mark.parametrize(
    "close",
    [
        Close(999),
        Close(1004),
        Close(1006),
        Close(1015),
        Close(70_000),
        Close(1000, "x" * 124),
    ],
    ids=str,
)
async def test_an_invalid_close_is_a_protocol_error(
    close: Close, autojump_clock: MockClock
) -> None:
    async with coupled() as it:
        collected = accept_and_collect(it.far)
        it.connection.put("before", close)
        await it.over.wait()
        await it.far.wait_closed()
        assert [
            sent.code for sent in it.connection.sent if isinstance(sent, Close)
        ] == [1002]
        before, error, closed = collected
        assert before == "before"
        assert isinstance(error, ErrorEvent)
        assert isinstance(error.error, ProtocolError)
        assert isinstance(closed, CloseEvent)
        assert (closed.code, closed.was_clean) == (1006, False)


async def test_messages_sent_after_a_cancellation_are_reported_and_counted(
    autojump_clock: MockClock,
) -> None:
    class Received(Instrument):
        def __init__(self) -> None:
            self.messages: list[str | bytes] = []

        def received(self, *event: Any) -> None:
            self.messages.append(event[1])

    instrument = Received()
    with use_instrument(instrument):
        async with coupled(Buffering(), close_grace=3) as it:
            accept_and_collect(it.far)
            await settle()
            it.connection.room = trio.Event()
            it.far.send("waits for the network")
            await settle()
            it.scope.cancel()
            it.far.send("last")
            it.connection.room.set()
            await settle()
            messages = ["waits for the network", "last"]
            assert it.connection.sent == [*messages, Close(1001)]
            assert it.far.buffered_amount == 0
            it.connection.put(Close(1001))
            await it.over.wait()
    assert instrument.messages == messages


async def test_the_answer_to_our_close_has_a_deadline(
    autojump_clock: MockClock,
) -> None:
    async with coupled(close_grace=3) as it:
        heard = accept_and_collect(it.far)
        it.far.send("last")
        await trio.sleep(10)
        start = trio.current_time()
        it.far.close(4000, "done")
        await it.over.wait()
        assert trio.current_time() - start == pytest.approx(3)
        await it.far.wait_closed()
        error, closed = heard
        assert isinstance(error, ErrorEvent)
        assert isinstance(error.error, TimeoutError)
        assert closed == it.event == CloseEvent(1006, closed.reason, was_clean=False)
        assert it.connection.ended == ["abort"]


async def test_a_network_that_takes_nothing_ends_at_the_deadline(
    autojump_clock: MockClock,
) -> None:
    connection = Plain()
    connection.room = trio.Event()
    async with coupled(connection, close_grace=3) as it:
        heard = accept_and_collect(it.far)
        it.far.close(4000, "done")
        await it.over.wait()
        assert trio.current_time() < 10
        await it.far.wait_closed()
        assert isinstance(heard[0], ErrorEvent)
        assert heard[-1].code == 1006
        assert connection.ended[-1] == "abort"


async def test_a_close_that_takes_too_long_is_aborted(
    autojump_clock: MockClock,
) -> None:
    connection = Plain()
    async with coupled(connection, close_grace=3) as it:
        heard = accept_and_collect(it.far)
        connection.put(ProtocolError(1002, "nonsense"))
        connection.room = trio.Event()
        await it.over.wait()
        assert connection.ended == ["aclose begins", "abort"]
        await it.far.wait_closed()
        assert len(heard) == 2


async def test_an_exception_of_the_connection_closes_it(
    autojump_clock: MockClock,
) -> None:
    connection = Plain()
    ends: list[Any] = []
    with (
        pytest.RaisesGroup(KeyError, flatten_subgroups=True, allow_unwrapped=True),
        trio.fail_after(60),
    ):
        async with trio.open_nursery() as nursery:
            half, far = WebSocketPair(nursery)
            ends = accept_and_collect(far)
            connection.put("before", KeyError("a bug"), KeyError("a bug"))
            await couple(half, connection)
    assert connection.ended[-1] == "abort"
    assert ends[-1].code == 1006


# -- cancelling ---------------------------------------------------------------


async def test_cancelled_couple_sends_the_queued_messages_then_1001_and_waits(
    autojump_clock: MockClock,
) -> None:
    async with coupled(close_grace=3) as it:
        heard = accept_and_collect(it.far)
        await settle()
        it.far.send("queued")
        it.scope.cancel()
        await settle()
        assert it.connection.sent == ["queued", Close(1001)]
        assert not it.over.is_set()
        it.connection.put("late", Close(1001, "bye"))
        await it.over.wait()
        assert it.event is None, "the cancellation goes on"
        assert it.scope.cancelled_caught
        await it.far.wait_closed()
        assert heard == ["late", CloseEvent(1001, "bye", was_clean=True)]
        assert it.connection.ended == ["aclose begins", "aclose ends", "abort"]


async def test_cancelled_couple_waits_no_longer_than_its_grace(
    autojump_clock: MockClock,
) -> None:
    async with coupled(close_grace=3) as it:
        heard = accept_and_collect(it.far)
        await settle()
        start = trio.current_time()
        it.scope.cancel()
        await it.over.wait()
        assert trio.current_time() - start == pytest.approx(3)
        assert it.connection.sent == [Close(1001)]
        await it.far.wait_closed()
        assert [event.code for event in heard] == [1006]


async def test_cancelled_couple_ends_while_the_network_takes_nothing(
    autojump_clock: MockClock,
) -> None:
    connection = Plain()
    connection.room = trio.Event()
    async with coupled(connection, close_grace=3) as it:
        it.far.accept()
        it.far.send("blocked")
        await settle()
        it.far.send("queued")
        start = trio.current_time()
        it.scope.cancel()
        await it.over.wait()
        assert trio.current_time() - start <= 6
        assert connection.sent == ["blocked", "queued", Close(1001)]
        assert connection.ended == ["abort"]
        assert (await it.far.wait_closed()).code == 1006


async def test_cancelled_couple_ends_on_a_connection_that_has_just_broken(
    autojump_clock: MockClock,
) -> None:
    async with coupled() as it:
        heard = accept_and_collect(it.far)
        await settle()
        it.connection.gone = True
        it.scope.cancel()
        await it.over.wait()
        assert it.connection.ended == ["abort"]
        await it.far.wait_closed()
        assert [event.code for event in heard] == [1006]


async def test_cancelled_couple_sends_the_close_of_the_other_half(
    autojump_clock: MockClock,
) -> None:
    async with coupled(close_grace=3) as it:
        heard = accept_and_collect(it.far)
        await settle()
        it.far.close(4000, "done")
        it.scope.cancel()
        await settle()
        assert it.connection.sent == [Close(4000, "done")]
        it.connection.put(Close(4000, "done"))
        await it.over.wait()
        await it.far.wait_closed()
        assert heard == [CloseEvent(4000, "done", was_clean=True)]


async def test_cancelled_couple_still_waits_for_the_answer_to_its_close(
    autojump_clock: MockClock,
) -> None:
    async with coupled(close_grace=3) as it:
        heard = accept_and_collect(it.far)
        it.far.close(4000, "done")
        await settle()
        it.scope.cancel()
        await settle()
        assert not it.over.is_set()
        it.connection.put("late", Close(4001, "me too"))
        await it.over.wait()
        await it.far.wait_closed()
        assert heard == ["late", CloseEvent(4001, "me too", was_clean=True)]
        assert it.connection.sent == [Close(4000, "done")]


async def test_cancelled_couple_in_half_open_sends_1001_and_ends(
    autojump_clock: MockClock,
) -> None:
    async with coupled(close_grace=3) as it:
        heard = accept_and_collect(it.far, allow_half_open=True)
        it.connection.put(Close(4000, "done"))
        await settle()
        start = trio.current_time()
        it.scope.cancel()
        await it.over.wait()
        assert trio.current_time() == start, (
            "both have sent a Close, so nothing is waited for"
        )
        assert it.connection.sent == [Close(1001)]
        assert heard == [CloseEvent(4000, "done", was_clean=True)]
        with pytest.raises((ConnectionClosedError, InvalidStateError)):
            it.far.send("too late")


async def test_couple_sends_1001_when_the_nursery_of_the_other_half_is_cancelled(
    autojump_clock: MockClock,
) -> None:
    connection = Plain()
    with trio.fail_after(60):
        async with trio.open_nursery() as outer:
            async with trio.open_nursery() as inner:
                half, far = WebSocketPair(inner)
                heard = accept_and_collect(far)
                it = Coupled(connection, far)
                outer.start_soon(it.run, half)
                await settle()
                far.send("queued")
                inner.cancel_scope.cancel()
            assert [event.code for event in heard] == [1006]
            await settle()
            assert connection.sent == ["queued", Close(1001)]
            connection.put(Close(1001))
            await it.over.wait()
            assert it.event == CloseEvent(1001, "", was_clean=True)


# -- two connections, joined by a pair ----------------------------------------


@asynccontextmanager
async def bridge(**options: Any) -> AsyncGenerator[tuple[Coupled, Coupled]]:
    """Couple both halves of a pair."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            first, second = WebSocketPair(nursery)
            left, right = Coupled(Plain(), second), Coupled(Plain(), first)
            nursery.start_soon(partial(left.run, first, **options))
            nursery.start_soon(partial(right.run, second, **options))
            yield left, right
            nursery.cancel_scope.cancel()


async def test_a_bridge_passes_messages_and_closes_on(
    autojump_clock: MockClock,
) -> None:
    async with bridge() as (left, right):
        left.connection.put("to the right", b"\xff")
        right.connection.put("to the left")
        await settle()
        assert right.connection.sent == ["to the right", b"\xff"]
        assert left.connection.sent == ["to the left"]
        left.connection.put(Close(4000, "done"))
        await settle()
        assert right.connection.sent[-1] == Close(4000, "done")
        assert left.connection.sent == ["to the left"], "the answer is the right's"
        right.connection.put("late", Close(4001, "me too"))
        await left.over.wait()
        await right.over.wait()
        assert left.connection.sent == ["to the left", "late", Close(4001, "me too")]
        assert left.event == CloseEvent(4000, "done", was_clean=True)
        assert right.event == CloseEvent(4001, "me too", was_clean=True)


async def test_g11_a_bridge_ends_when_one_end_breaks_and_loses_nothing(
    autojump_clock: MockClock,
) -> None:
    for _ in range(20):  # The outcome must not depend on scheduling.
        async with bridge() as (left, right):
            start = trio.current_time()
            left.connection.put("first", "last")
            left.connection.vanish()
            await left.over.wait()
            await right.over.wait()
            assert trio.current_time() == start, "there is nothing to wait for"
            assert right.connection.sent[:2] == ["first", "last"]
            assert left.event == CloseEvent(1006, "gone", was_clean=False)
            assert right.event is not None
            assert right.event.code == 1006
            assert right.connection.ended[-1] == "abort"


async def test_a_bridge_ends_when_one_end_breaks_the_protocol(
    autojump_clock: MockClock,
) -> None:
    async with bridge() as (left, right):
        left.connection.put(ProtocolError(1002, "nonsense"))
        await left.over.wait()
        await right.over.wait()
        assert left.connection.sent == [Close(1002, "nonsense")]
        assert right.connection.ended[-1] == "abort"


async def test_backpressure_goes_through_a_bridge(autojump_clock: MockClock) -> None:
    async with bridge(receive_buffer_bytes=1000) as (left, right):
        right.connection.room = trio.Event()
        left.connection.put(*[bytes(300)] * 20)
        await settle()
        assert left.connection.received < 10
        right.connection.room.set()
        await settle()
        assert right.connection.sent == [bytes(300)] * 20


# -- the rest -----------------------------------------------------------------


async def test_ping_is_the_ping_of_the_connection(autojump_clock: MockClock) -> None:
    async with coupled(Pingable()) as it:
        it.far.accept()
        await settle()
        assert await it.far.ping() == 0.25
        it.far.close()
        it.connection.put(Close())
        await it.far.wait_closed()
        await it.over.wait()
        with pytest.raises(ConnectionClosedError):
            await it.far.ping()


async def test_a_connection_may_have_no_ping(autojump_clock: MockClock) -> None:
    async with coupled(Plain()) as it:
        it.far.accept()
        await settle()
        with pytest.raises(InvalidStateError, match=r"ping\(\) needs a network"):
            await it.far.ping()


async def test_a_coupled_half_cannot_be_used_by_the_application(
    autojump_clock: MockClock,
) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            half, far = WebSocketPair(nursery)
            it = Coupled(Plain(), far)
            nursery.start_soon(it.run, half)
            await settle()
            assert half.ready_state is ReadyState.OPEN
            with pytest.raises(InvalidStateError, match="given to a connection"):
                half.accept()
            with pytest.raises(InvalidStateError, match="use the other half"):
                half.send("a")
            with pytest.raises(InvalidStateError, match="use the other half"):
                half.close()
            with pytest.raises(InvalidStateError, match="given to a connection"):
                await half.receive()
            with pytest.raises(InvalidStateError, match="given to a connection"):
                await couple(half, Plain())
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (ValueError, {"close_grace": -1}),
        (TypeError, {"close_grace": "1"}),
        (ValueError, {"receive_buffer_bytes": 0}),
        (TypeError, {"receive_buffer_bytes": 1.5}),
    ],
)
async def test_a_wrong_argument_takes_neither_half_nor_connection(
    error: type[Exception], options: dict[str, Any]
) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            half, _ = WebSocketPair(nursery)
            with pytest.raises(error, match=next(iter(options))):
                await couple(half, Plain(), **options)
            half.accept()
            nursery.cancel_scope.cancel()


async def test_couple_is_always_a_checkpoint(autojump_clock: MockClock) -> None:
    class Instant(Plain):
        """A connection that never waits without need."""

        async def receive(self) -> Sequence[Item]:
            if self.received:
                await trio.sleep_forever()
            self.received = 1
            return [Close()]

        async def send(self, items: Sequence[Item]) -> None:
            pass

        async def aclose(self, code: int, reason: str) -> None:
            pass

    async with trio.open_nursery() as nursery:
        half, far = WebSocketPair(nursery)
        far.accept()
        far.close()
        with trio.fail_after(60), trio.testing.assert_checkpoints():
            event = await couple(half, Instant())
        assert event == CloseEvent(1005, "", was_clean=True)
        nursery.cancel_scope.cancel()


def test_the_fakes_of_these_tests_satisfy_the_protocol() -> None:
    connection: Connection = Plain.__new__(Plain)
    assert connection is not None

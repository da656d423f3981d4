"""`check_websocket_pair()`: good transports pass, and each fault is found by name."""

# ruff: noqa: ARG002 - what does nothing needs no arguments

import math
from collections.abc import (
    AsyncGenerator,
    Callable,
    Iterable,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

import pytest
import trio
from memory_connection import (
    Item,
    MemoryConnection,
    open_contained_pair,
    open_coupled_pair,
)
from pairs import in_virtual_time
from trio.testing import MockClock

from trio_wspair import (
    BufferFullError,
    CloseEvent,
    ErrorEvent,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    open_websocket_pair,
)
from trio_wspair._pair.verbs import half_of
from trio_wspair.asgi import ASGIApp
from trio_wspair.testing import check_websocket_pair
from trio_wspair.testing._asgi import SimulatedServer, _scope_for
from trio_wspair.testing._suite_ends import OnPurposeError
from trio_wspair.transports import Close, couple

MakePair = Callable[[], AbstractAsyncContextManager[Iterable[WebSocket]]]


# -- good transports ------------------------------------------------------------------


async def test_a_pair_keeps_all_promises(autojump_clock: MockClock) -> None:
    await check_websocket_pair(open_websocket_pair)


@pytest.mark.parametrize("make_pair", [open_coupled_pair, open_contained_pair])
async def test_a_user_written_connection_keeps_all_promises(
    autojump_clock: MockClock, make_pair: MakePair
) -> None:
    await check_websocket_pair(make_pair)


async def test_an_asgi_application_keeps_all_promises(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    @asynccontextmanager
    async def open_played_pair() -> AsyncGenerator[tuple[WebSocket, WebSocket]]:
        taken: list[WebSocket] = []

        async def fetch(request: Request) -> Response:
            client, server = WebSocketPair()
            taken.append(server)
            return Response(None, status=101, web_socket=client)

        server = SimulatedServer(ASGIApp(fetch), _scope_for("/", (), ()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run_app)
            await server.answered.wait()
            client, coupled = WebSocketPair(nursery)
            nursery.start_soon(couple, coupled, server)
            yield client, taken[0]
            nursery.cancel_scope.cancel()

    await check_websocket_pair(open_played_pair, half_open=False, empty_close=False)
    assert "raises this on purpose" in caplog.text


# -- faults of connections ------------------------------------------------------------


class DropsLast(MemoryConnection):
    """The message before a Close is lost."""

    async def send(self, items: Sequence[Item]) -> None:
        if isinstance(items[-1], Close):
            items = [*items[:-2], items[-1]]
        await super().send(items)


class Reorders(MemoryConnection):
    """The last message comes first, except for the Close."""

    async def send(self, items: Sequence[Item]) -> None:
        messages = [item for item in items if not isinstance(item, Close)]
        await super().send([*reversed(messages), *items[len(messages) :]])


class Repeats(MemoryConnection):
    """Received messages come twice."""

    async def receive(self) -> Sequence[Item]:
        (item,) = await super().receive()
        return [item] if isinstance(item, Close) else [item, item]


class MakesBytes(MemoryConnection):
    """All messages are binary."""

    async def receive(self) -> Sequence[Item]:
        return [
            item.encode() if isinstance(item, str) else item
            for item in await super().receive()
        ]


class LosesCode(MemoryConnection):
    """Each Close has the code 1000."""

    async def receive(self) -> Sequence[Item]:
        return [
            Close(1000, item.reason) if isinstance(item, Close) else item
            for item in await super().receive()
        ]


class LosesReason(MemoryConnection):
    """No Close has a reason."""

    async def receive(self) -> Sequence[Item]:
        return [
            Close(item.code, "") if isinstance(item, Close) else item
            for item in await super().receive()
        ]


class LosesClose(MemoryConnection):
    """A Close does not arrive."""

    async def send(self, items: Sequence[Item]) -> None:
        await super().send([item for item in items if not isinstance(item, Close)])


class Hides1011(MemoryConnection):
    """The other end doesn't get the failure of one end."""

    async def receive(self) -> Sequence[Item]:
        return [
            Close(1000, "") if item == Close(1011, "") else item
            for item in await super().receive()
        ]


class BlocksInSend(MemoryConnection):
    """Sending never returns."""

    async def send(self, items: Sequence[Item]) -> None:
        await trio.sleep_forever()


class SwallowsCancellation(MemoryConnection):
    """The block can't be cancelled."""

    async def receive(self) -> Sequence[Item]:
        try:
            return await super().receive()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await trio.sleep(15)
            raise


class Pings(MemoryConnection):
    """The time of a ping is chosen."""

    seconds = 0.001

    @property
    def heard_at(self) -> float:
        return trio.current_time()

    async def ping(self) -> float:
        await trio.sleep(0.001)
        return self.seconds


class PingsBackwards(Pings):
    """A pong comes before its ping."""

    seconds = -1.0


class PingsAtOnce(Pings):
    """A ping does not wait."""

    async def ping(self) -> float:
        return 0.0


class PingsOn(Pings):
    """A ping can't be cancelled."""

    async def ping(self) -> float:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.001)
        return 0.001


def coupled(kind: type[MemoryConnection], **options: Any) -> MakePair:
    return partial(open_coupled_pair, kind, **options)


def contained(kind: type[MemoryConnection]) -> MakePair:
    return partial(open_contained_pair, kind)


# -- faults of halves -----------------------------------------------------------------


def _copy(listener: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return another object for a listener."""

    def call(event: Any) -> None:
        listener(event)

    return call


class Doubling(WebSocket):
    """The close event comes twice."""

    def add_event_listener(self, type: Any, listener: Any, **options: Any) -> None:
        super().add_event_listener(type, listener, **options)
        if type == "close":
            super().add_event_listener(type, _copy(listener))


class Talkative(WebSocket):
    """An error event comes after the close event."""

    def add_event_listener(self, type: Any, listener: Any, **options: Any) -> None:
        super().add_event_listener(type, listener, **options)
        if type == "error":
            self._hear_error = listener
        elif type == "close":
            super().add_event_listener("close", self._say_more)

    def _say_more(self, _event: CloseEvent) -> None:
        self._hear_error(ErrorEvent("too late", KeyError()))


class Hurried(WebSocket):
    """Async listeners overlap."""

    def add_event_listener(self, type: Any, listener: Any, **options: Any) -> None:
        def start(event: Any) -> None:
            trio.lowlevel.spawn_system_task(listener, event)

        is_async = iscoroutinefunction(listener)
        super().add_event_listener(type, start if is_async else listener, **options)


class Uncancellable(WebSocket):
    """A cancelled `receive()` returns."""

    async def receive(self) -> str | bytes:
        try:
            return await super().receive()
        except trio.Cancelled:
            return ""


class Unyielding(WebSocket):
    """A `receive()` with a message is not a checkpoint."""

    async def receive(self) -> str | bytes:
        half = half_of(self)
        item = half.inbox.items.receive_nowait()
        return self._taken(half, item)


class Waiting(WebSocket):
    """`aclose()` waits for ever."""

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        await trio.sleep_forever()


class Lazy(WebSocket):
    """`aclose()` does nothing."""

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        await trio.lowlevel.checkpoint()


class Impatient(WebSocket):
    """`aclose()` does not wait for the answer."""

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        await trio.lowlevel.checkpoint()
        self.close(code, reason)


class Mute(WebSocket):
    """`close()` does nothing."""

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        pass


class Tolerant(WebSocket):
    """`send()` never raises."""

    def send(self, message: Any) -> None:
        if half_of(self).state.holder.has_verbs:
            super().send(message)


class Sharing(WebSocket):
    """`send()` copies too late."""

    _waiting: bytearray | None = None

    def send(self, message: Any) -> None:
        if isinstance(message, bytearray):
            self._waiting = message
            return
        if self._waiting is not None:
            super().send(self._waiting)
        super().send(message)


class Unclean(WebSocket):
    """No close event is clean."""

    def add_event_listener(self, type: Any, listener: Any, **options: Any) -> None:
        def tell(event: CloseEvent) -> None:
            listener(CloseEvent(event.code, event.reason, was_clean=False))

        tells = tell if type == "close" else listener
        super().add_event_listener(type, tells, **options)


class Vain(WebSocket):
    """Every message is refused."""

    def send(self, message: Any) -> None:
        raise half_of(self).gone_error()


class Boundless(WebSocket):
    """The buffer is unbounded."""

    def send(self, message: Any) -> None:
        with suppress(BufferFullError):
            super().send(message)


class Forgetful(WebSocket):
    """A refused message counts as sent."""

    _refused = 0

    def send(self, message: Any) -> None:
        try:
            super().send(message)
        except BufferFullError:
            self._refused += len(message)
            raise

    @property
    def buffered_amount(self) -> int:
        return super().buffered_amount + self._refused


class Echoing(WebSocket):
    """A ping is never answered."""

    async def ping(self) -> float:
        await trio.lowlevel.checkpoint()
        return 0.0


class Undead(WebSocket):
    """A ping is answered after the end."""

    latency = 0.001

    async def ping(self) -> float:
        await trio.sleep(0.001)
        return 0.001


class Counting(WebSocket):
    """`buffered_amount` counts messages."""

    @property
    def buffered_amount(self) -> int:
        return 1


class Hoarding(WebSocket):
    """`buffered_amount` never decreases."""

    @property
    def buffered_amount(self) -> int:
        return 20


class Quiet(WebSocket):
    """Error events are never dispatched."""

    def add_event_listener(self, type: Any, listener: Any, **options: Any) -> None:
        if type != "error":
            super().add_event_listener(type, listener, **options)


def made_of(kind: type[WebSocket]) -> MakePair:
    """Open pairs of such halves."""

    @asynccontextmanager
    async def open_pair() -> AsyncGenerator[list[WebSocket]]:
        async with open_websocket_pair() as pair:
            yield [kind(half_of(half), half._home) for half in pair]

    return open_pair


# -- faults of context managers -------------------------------------------------------


@asynccontextmanager
async def open_for_ever() -> AsyncGenerator[WebSocketPair]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        yield WebSocketPair(nursery)


@asynccontextmanager
async def open_too_long() -> AsyncGenerator[WebSocketPair]:
    async with open_websocket_pair() as pair:
        yield pair
    with trio.CancelScope(shield=True):
        await trio.sleep(15)


@asynccontextmanager
async def never_open() -> AsyncGenerator[WebSocketPair]:
    await trio.sleep_forever()
    yield WebSocketPair()


def leaving_open(nursery: trio.Nursery, after: type[BaseException] | None) -> MakePair:
    """Open pairs that stay open after one kind of end of their block."""

    @asynccontextmanager
    async def open_pair() -> AsyncGenerator[WebSocketPair]:
        pair = WebSocketPair(nursery)
        raised: type[BaseException] | None = None
        try:
            yield pair
        except BaseException as exc:
            raised = type(exc)
            raise
        finally:
            if raised is not after:
                for half in pair:
                    half.close(1000)

    return open_pair


def leaving_a_task(nursery: trio.Nursery) -> MakePair:
    @asynccontextmanager
    async def open_pair() -> AsyncGenerator[WebSocketPair]:
        async with open_websocket_pair() as pair:
            nursery.start_soon(trio.sleep_forever)
            yield pair

    return open_pair


FAULTS: dict[str, tuple[MakePair, str]] = {
    "drops the last": (coupled(DropsLast), r"G3 .*has not received '199'; "),
    "reorders": (coupled(Reorders), r"G1 .* before 'plain', which was sent earlier"),
    "repeats": (coupled(Repeats), r"G1 .* once too often"),
    "makes bytes": (coupled(MakesBytes), r"G3 .* received b'plain', which was not"),
    "loses the code": (coupled(LosesCode), r"G2 .* with 3000, but has .*=1000"),
    "loses the reason": (coupled(LosesReason), r"G2 .* the reason 'over'"),
    "loses the Close": (coupled(LosesClose), r"G2 .* with 1000, but has .*=1006"),
    "hides a 1011": (contained(Hides1011), r"G7 .* should close with 1011"),
    "blocks in send": (
        coupled(BlocksInSend),
        r"G3 .* second half has not received .*'199'; ",
    ),
    "swallows cancellation": (
        coupled(SwallowsCancellation),
        r"G6 .* leaving the context manager has not ended",
    ),
    "takes all": (coupled(MemoryConnection, buffer_size=math.inf), r"G9 .* were taken"),
    "two close events": (made_of(Doubling), r"G2 .* CloseEvent\(.*, CloseEvent\("),
    "an error after the close": (made_of(Talkative), r"G2 .* after its close"),
    "overlapping listeners": (made_of(Hurried), r"G8 .* ran at once"),
    "a cancelled receive": (made_of(Uncancellable), r"G5 .* was not cancelled"),
    "a receive that does not wait": (made_of(Unyielding), r"G5 .*did not yield"),
    "an aclose that waits": (made_of(Waiting), r"G[56] .*aclose\(\) .*not returned"),
    "an aclose that does nothing": (made_of(Lazy), r"G[56] "),
    "an aclose that does not wait": (made_of(Impatient), r"G6 .* is CLOSING after acl"),
    "a close that does nothing": (made_of(Mute), r"G6 .* has no close 1000 after 10"),
    "a send that takes all": (made_of(Tolerant), r"G4 .*not raised InvalidStateError"),
    "a send that takes nothing": (made_of(Vain), r"G4 .*send\('plain'\) of the first"),
    "messages counted": (made_of(Counting), r"G9 .* is 1, not 20 bytes"),
    "bytes that stay": (made_of(Hoarding), r"G9 .* is 20, not 0"),
    "no error event": (made_of(Quiet), r"G7 .* second half have \[\], not"),
    "a send that does not copy": (made_of(Sharing), r"G3 .*b'later', which was not"),
    "an end that is not clean": (made_of(Unclean), r"G2 .* with 1000, .*=False"),
    "a pong before its ping": (coupled(PingsBackwards), r"G5 .* has returned -1\.0"),
    "a ping that does not wait": (coupled(PingsAtOnce), r"G5 .*did not yield"),
    "a cancelled ping": (coupled(PingsOn), r"G5 .*ping\(\) .*not cancelled"),
    "a ping without a network": (made_of(Echoing), r"G5 .* 0\.0, latency is None"),
    "a ping after the end": (made_of(Undead), r"G5 .* not raised after the end"),
    "a buffer without a bound": (made_of(Boundless), r"G9 .* without BufferFullError"),
    "a refused message that counts": (
        made_of(Forgetful),
        r"G9 .*a refused message",
    ),
    "a block that ends late": (open_too_long, r"G6 .* leaving"),
    "a block without end": (open_for_ever, r"G6 .* leaving"),
    "a block without beginning": (never_open, r"G6 .* entering"),
}


async def test_a_connection_with_pings_keeps_all_promises(
    autojump_clock: MockClock,
) -> None:
    await check_websocket_pair(coupled(Pings))


@pytest.mark.parametrize("fault", FAULTS)
@in_virtual_time
async def test_a_fault_is_found_with_the_name_of_its_promise(fault: str) -> None:
    make_pair, broken = FAULTS[fault]
    with pytest.raises(AssertionError, match=f"^{broken}") as caught:
        await check_websocket_pair(make_pair)
    assert "in the check '" in caught.value.__notes__[0]


@pytest.mark.parametrize("after", [None, OnPurposeError, trio.Cancelled])
async def test_g6_a_half_that_stays_open_is_named(
    autojump_clock: MockClock, after: type[BaseException] | None
) -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(AssertionError, match=r"^G6 .* the first half is OPEN"):
            await check_websocket_pair(leaving_open(nursery, after))
        nursery.cancel_scope.cancel()


async def test_g10_a_task_that_is_left_is_named(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(AssertionError, match=r"^G10 .* are left .*sleep_forever"):
            await check_websocket_pair(leaving_a_task(nursery))
        nursery.cancel_scope.cancel()


async def test_an_error_of_a_transport_is_raised_with_the_name_of_the_check(
    autojump_clock: MockClock,
) -> None:
    class Crashes(MemoryConnection):
        async def send(self, items: Sequence[Item]) -> None:
            raise KeyError(items[0])

    with pytest.RaisesGroup(KeyError, flatten_subgroups=True) as caught:
        await check_websocket_pair(coupled(Crashes))
    assert caught.value.__notes__ == [
        "in the check 'messages_keep_their_order', near is the first"
    ]


async def test_the_timeout_is_a_number() -> None:
    with pytest.raises(TypeError, match="timeout must be a number"):
        await check_websocket_pair(open_websocket_pair, timeout="1")  # type: ignore[arg-type]

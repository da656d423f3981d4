"""Random programs of many halves: Hypothesis makes them, `Run` runs and checks them.

A program accepts, sends, closes, waits, fails and cancels, in tasks and in listeners,
on several pairs in two nurseries, and may be cancelled at any step.
"""

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Literal, TypeVar

import attrs
import trio
from hypothesis import strategies as st
from pairs import ListenerError
from trio._core._run import _r as scheduler_random
from trio.testing import MockClock

from trio_wspair import (
    CloseEvent,
    ConnectionClosedError,
    ErrorEvent,
    MessageEvent,
    ReadyState,
    WebSocket,
    WebSocketError,
    WebSocketPair,
)
from trio_wspair._pair.owner import _owners

T = TypeVar("T")
Pause = Literal["none", "checkpoint", "sleep", "shielded sleep"]
Action = Literal["send", "close", "aclose", "drain", "checkpoint", "sleep"]
Where = Literal["outside", "outer", "inner"]
"""The whole program, the outer nursery, or the inner one."""


@attrs.frozen
class Listening:
    """What the listeners of one half do; numbers are of messages, from 1 on."""

    kinds: tuple[Literal["sync", "async"], ...]
    """The kinds of the message listeners; the first one does all that follows."""
    pause: Pause
    """How async listeners wait."""
    answers: int
    """How many messages get an answer."""
    closes_at: int | None
    acloses_at: int | None
    raises_at: int | None
    cancels_at: int | None
    cancels: Where
    accepts_at: int | None
    accepts: int
    """The number of the half that is accepted then."""
    close_kind: Literal["sync", "async"]
    close_pause: Pause | Literal["forever"]
    close_answers: bool
    """Whether the close listener calls `close()`, which matters in half-open."""
    close_raises: bool


@attrs.frozen
class Driving:
    """The actions of the task that drives one half."""

    where: Where
    delay: float
    accept: Literal["never", "listen", "half-open", "pull", "half-open pull"]
    actions: tuple[Action, ...]


@attrs.frozen
class Half:
    """One half of a pair."""

    driving: Driving
    listening: Listening


@attrs.frozen
class Program:
    """Pairs, and the step at which a scope is cancelled."""

    pairs: tuple[tuple[Where, Half, Half], ...]
    """The nursery of each, and its halves."""
    cut_at: int | None
    """The number of the step, counted over all tasks, at which `cut` is cancelled."""
    cut: Where


def rarely(values: st.SearchStrategy[T]) -> st.SearchStrategy[T | None]:
    """Return `None` more often than not."""
    return st.one_of(st.none(), st.none(), st.none(), values)


NURSERIES: st.SearchStrategy[Where] = st.sampled_from(["outer", "inner"])
SCOPES: st.SearchStrategy[Where] = st.sampled_from(["outside", "outer", "inner"])
NUMBERS = st.integers(1, 6)
PAUSES: list[Pause] = ["none", "checkpoint", "sleep", "shielded sleep"]
CLOSE_PAUSES: list[Pause | Literal["forever"]] = [*PAUSES, "forever"]
KINDS: list[Literal["sync", "async"]] = ["sync", "async"]
SENDS: list[Action] = ["send"] * 5
ACTIONS: list[Action] = [*SENDS, "close", "aclose", "drain", "checkpoint", "sleep"]
LISTENING = st.builds(
    Listening,
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=3).map(tuple),
    pause=st.sampled_from(PAUSES),
    answers=st.integers(0, 5),
    closes_at=rarely(NUMBERS),
    acloses_at=rarely(NUMBERS),
    raises_at=rarely(rarely(NUMBERS)),
    cancels_at=rarely(rarely(NUMBERS)),
    cancels=SCOPES,
    accepts_at=rarely(NUMBERS),
    accepts=st.integers(0, 5),
    close_kind=st.sampled_from(KINDS),
    close_pause=st.sampled_from(CLOSE_PAUSES),
    close_answers=st.booleans(),
    close_raises=rarely(rarely(st.just(value=True))).map(bool),
)
DRIVING = st.builds(
    Driving,
    where=NURSERIES,
    delay=st.sampled_from([0, 0, 0.005, 0.01, 0.02]),
    accept=st.sampled_from(
        [*(["listen"] * 5), "never", "half-open", "pull", "half-open pull"]
    ),
    actions=st.lists(st.sampled_from(ACTIONS), max_size=12).map(tuple),
)
HALVES = st.builds(Half, driving=DRIVING, listening=LISTENING)
PROGRAMS = st.builds(
    Program,
    pairs=st.lists(st.tuples(NURSERIES, HALVES, HALVES), min_size=1, max_size=3).map(
        tuple
    ),
    cut_at=st.one_of(st.none(), st.integers(1, 120)),
    cut=SCOPES,
)


# -- running a program -----------------------------------------------------------------


CLOSE_CODES = (3000, 3001, 3002, 3003, 4000)
"""The codes that a program closes with."""


@attrs.define
class Record:
    """The history of one half."""

    accepted: bool = False
    pulled: bool = False
    sent: int = 0
    """How many messages `send()` has accepted."""
    events: list[str | ErrorEvent | CloseEvent] = attrs.field(
        factory=list[str | ErrorEvent | CloseEvent]
    )
    """The events of the listeners; without messages, if the half is pulled."""
    messages: list[str] = attrs.field(factory=list[str])
    """The messages that were dispatched or pulled."""
    running: str = ""
    """The name of the listener that is running."""


class CutAtStep(trio.abc.Instrument):
    """Cancels a scope just before the n-th step, counted over all tasks."""

    def __init__(self, step: int | None) -> None:
        self.step = step
        self.seen = 0
        self.scope: trio.CancelScope | None = None

    def start(self, scope: trio.CancelScope) -> None:
        """Count from now on."""
        self.scope = scope
        self.seen = 0

    def before_task_step(self, _task: trio.lowlevel.Task) -> None:
        self.seen += 1
        if self.seen == self.step and self.scope is not None:
            self.scope.cancel()


async def pause(kind: Pause | Literal["forever"]) -> None:
    """Wait in one of the ways."""
    if kind == "checkpoint":
        await trio.lowlevel.checkpoint()
    elif kind == "sleep":
        await trio.sleep(0.01)
    elif kind == "shielded sleep":
        with trio.CancelScope(shield=True):
            await trio.sleep(0.01)
    elif kind == "forever":
        await trio.sleep_forever()


class Run:
    """One run of a program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.plans = [half for _, *pair in program.pairs for half in pair]
        self.records = [Record() for _ in self.plans]
        self.halves: list[WebSocket] = []
        self.scopes: dict[Where, trio.CancelScope] = {}
        self.instrument = CutAtStep(program.cut_at)
        self.failed = False
        """Whether a listener has raised."""
        self.cancelled = False
        """Whether anything was cancelled."""
        self.over = False
        """Whether the program has ended."""
        self.stuck = False
        """Whether the program goes on although every half has closed."""

    def run(self, seed: int) -> None:
        """Run and check, with this seed for the order of Trio's tasks."""
        scheduler_random.seed(seed)
        clock = MockClock(autojump_threshold=0)
        trio.run(self.main, clock=clock, instruments=[self.instrument])

    async def watch(self) -> None:
        """Check, after a long time, whether the program has a reason to go on."""
        await trio.sleep(99)
        pairs = range(0, len(self.halves), 2)
        self.stuck = not self.over and all(map(self.pair_is_over, pairs))

    def pair_is_over(self, first: int) -> bool:
        """Tell whether the pair with this half has nothing left to do."""
        return all(
            half.ready_state is ReadyState.CLOSED and not record.running
            for half, record in (
                (self.halves[n], self.records[n]) for n in (first, first + 1)
            )
            if record.accepted
        )

    async def main(self) -> None:
        """Build everything, run it to its end, and check."""
        trio.lowlevel.spawn_system_task(self.watch)
        async with self.surroundings():
            with trio.move_on_after(100) as outside, self.only_listener_errors():
                async with trio.open_nursery() as outer, trio.open_nursery() as inner:
                    self.scopes = {
                        "outside": outside,
                        "outer": outer.cancel_scope,
                        "inner": inner.cancel_scope,
                    }
                    await self.start({"outer": outer, "inner": inner})
            self.instrument.scope = None
            self.over = True
        self.cancelled |= any(scope.cancel_called for scope in self.scopes.values())
        assert not self.stuck
        assert _owners.get({}) == {}
        for n in range(len(self.halves)):
            await self.check(n)

    @asynccontextmanager
    async def surroundings(self) -> AsyncGenerator[None]:
        """Prepare what the program needs, and check afterwards that nothing is left."""
        yield

    async def open_pair(
        self, _number: int, nursery: trio.Nursery
    ) -> Iterable[WebSocket]:
        """Return two halves: what one sends, the other receives."""
        return WebSocketPair(nursery)

    async def start(self, nurseries: dict[Where, trio.Nursery]) -> None:
        """Make the pairs, and start the tasks that drive their halves."""
        for number, (where, *_pair) in enumerate(self.program.pairs):
            self.halves.extend(await self.open_pair(number, nurseries[where]))
        for n, plan in enumerate(self.plans):
            self.listen(n)
            where = plan.driving.where
            nurseries[where].start_soon(self.drive, n, nurseries[where])
        self.instrument.start(self.scopes[self.program.cut])

    @contextmanager
    def only_listener_errors(self) -> Iterator[None]:
        """Catch the errors that listeners raise on purpose."""
        try:
            yield
        except* ListenerError:
            self.failed = True

    # -- what tasks and listeners do ------------------------------------------

    def accept(self, n: int, how: str) -> None:
        """Accept a half, if that is legal."""
        with suppress(WebSocketError):
            pull = "pull" in how
            self.halves[n].accept(allow_half_open="half-open" in how, pull=pull)
            if not self.records[n].accepted:
                self.records[n].accepted = True
                self.records[n].pulled = pull

    def send(self, n: int) -> None:
        """Send a message whose text is its number."""
        with suppress(WebSocketError):
            self.halves[n].send(str(self.records[n].sent))
            self.records[n].sent += 1

    async def drive(self, n: int, nursery: trio.Nursery) -> None:
        """Do the planned actions."""
        driving = self.plans[n].driving
        half = self.halves[n]
        await trio.sleep(driving.delay)
        if driving.accept != "never":
            self.accept(n, driving.accept)
            if self.records[n].pulled:
                nursery.start_soon(self.pull, n)
        for action in driving.actions:
            if action == "send":
                self.send(n)
            elif action in ("checkpoint", "sleep"):
                await pause(action)
            elif self.records[n].accepted:
                with suppress(WebSocketError):
                    if action == "close":
                        half.close(3000)
                    elif action == "aclose":
                        await half.aclose(3001)
                    elif action == "drain":
                        with trio.move_on_after(1):
                            await half.drain()

    async def pull(self, n: int) -> None:
        """Pull messages until the end."""
        with suppress(ConnectionClosedError):
            async for message in self.halves[n]:
                self.records[n].messages.append(str(message))
                await pause(self.plans[n].listening.pause)

    @contextmanager
    def running(self, n: int, name: str) -> Iterator[None]:
        """Check that listeners of one half never overlap."""
        record = self.records[n]
        assert not record.running, (name, record)
        record.running = name
        try:
            yield
        finally:
            record.running = ""

    def listen(self, n: int) -> None:
        """Add the listeners."""
        half, record, plan = self.halves[n], self.records[n], self.plans[n].listening

        def react(event: ErrorEvent | CloseEvent) -> None:
            if event.type == "close" and plan.close_answers:
                half.close(3002)
            if event.type == "close" and plan.close_raises:
                raise ListenerError

        def on_end(event: ErrorEvent | CloseEvent) -> None:
            with self.running(n, event.type):
                record.events.append(event)
                react(event)

        async def on_end_slowly(event: ErrorEvent | CloseEvent) -> None:
            with self.running(n, event.type):
                record.events.append(event)
                await pause(plan.close_pause)
                react(event)

        def first(event: MessageEvent) -> None:
            with self.running(n, "message"):
                self.on_message(n, event)

        async def first_slowly(event: MessageEvent) -> None:
            with self.running(n, "message"):
                self.on_message(n, event)
                await pause(plan.pause)
                if len(record.messages) == plan.acloses_at:
                    await half.aclose(3003)

        def other(_event: MessageEvent) -> None:
            with self.running(n, "other"):
                pass

        async def other_slowly(_event: MessageEvent) -> None:
            with self.running(n, "other"):
                await pause(plan.pause)

        kind, *others = plan.kinds
        half.onmessage = first if kind == "sync" else first_slowly
        for kind in others:
            half.add_event_listener(
                "message", other if kind == "sync" else other_slowly
            )
        end = on_end if plan.close_kind == "sync" else on_end_slowly
        half.add_event_listener("error", end)
        half.add_event_listener("close", end)

    def on_message(self, n: int, event: MessageEvent) -> None:
        """Do what is planned for this message."""
        half, record, plan = self.halves[n], self.records[n], self.plans[n].listening
        record.events.append(str(event.data))
        record.messages.append(str(event.data))
        number = len(record.messages)
        if number == plan.cancels_at:
            self.scopes[plan.cancels].cancel()
        if number == plan.accepts_at:
            self.accept(plan.accepts % len(self.halves), "listen")
        if number == plan.closes_at:
            half.close(4000)
        if number <= plan.answers:
            self.send(n)
        if number == plan.raises_at:
            raise ListenerError

    # -- what must hold -----------------------------------------------------------

    async def check(self, n: int) -> None:
        """Check the history of one half."""
        half, record, peer = self.halves[n], self.records[n], self.records[n ^ 1]
        assert not record.running
        if not record.accepted:
            assert record.events == []
            return
        # G2: one close event, nothing after it, at most an error right before it.
        ends = [event for event in record.events if not isinstance(event, str)]
        assert record.events[len(record.events) - len(ends) :] == ends
        close = ends[-1]
        assert isinstance(close, CloseEvent)
        assert [type(event) for event in ends[:-1]] in ([], [ErrorEvent])
        if ends[:-1] or not close.was_clean:
            assert (close.code, close.was_clean) == (1006, False)
        # `wait_closed()` returns the same event.
        assert half.ready_state is ReadyState.CLOSED
        with trio.fail_after(1):
            assert await half.wait_closed() == close
        # G1: in order, and without gaps.
        numbers = [int(message) for message in record.messages]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) <= peer.sent
        # G3: nothing is lost before a clean close, without a cancellation or failure.
        if close.was_clean and not self.cancelled and not self.failed:
            assert close.code in CLOSE_CODES
            assert len(numbers) == peer.sent
            assert self.halves[n ^ 1].buffered_amount == 0

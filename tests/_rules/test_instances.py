"""The life of an instance in every order of events; the progress of messages."""

import pytest
from hypothesis import given, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trio_wspair._rules.instances import (
    InstanceEvent as Event,
    InstanceLife,
    InstanceState as State,
    MessageProgress as Progress,
)

NEXT = {
    (State.STARTING, Event.BUILT): State.AWAKE,
    (State.STARTING, Event.BUILD_FAILURE): State.FAILED,
    (State.STARTING, Event.RESET): State.ABORTED,
    (State.AWAKE, Event.SLEEP): State.LEAVING,
    (State.AWAKE, Event.RESET): State.ABORTED,
    (State.LEAVING, Event.END): State.GONE,
    (State.FAILED, Event.END): State.GONE,
    (State.ABORTED, Event.END): State.GONE,
}
"""The states that follow, written a second time."""

ORDER = [
    {State.STARTING},
    {State.AWAKE},
    {State.LEAVING, State.FAILED, State.ABORTED},
    {State.GONE},
]


def place(state: State) -> int:
    return next(i for i, states in enumerate(ORDER) if state in states)


class Lives(RuleBasedStateMachine):
    """An instance with events that enter, begin, block and end, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.life = InstanceLife()
        self.waiting = 0
        self.running = 0

    @rule(event=st.sampled_from([e for e in Event if e is not Event.SLEEP]))
    def something_happens(self, event: Event) -> None:
        before = self.life.state
        if event is Event.END and (self.waiting or self.running):
            return
        changed = self.life.advance(event)
        assert changed == (self.life.state is not before)
        assert place(before) + changed <= place(self.life.state)
        if self.life.state is State.ABORTED:
            self.waiting = self.running = self.life.blocks = 0

    @precondition(lambda self: self.life.in_memory)
    @rule()
    def an_event_enters(self) -> None:
        self.waiting += 1

    @precondition(lambda self: self.waiting and self.life.lets_begin)
    @rule()
    def an_event_begins(self) -> None:
        self.waiting -= 1
        self.running += self.life.state is State.AWAKE  # Else it raises at once.

    @precondition(lambda self: self.running)
    @rule()
    def an_event_blocks_the_others(self) -> None:
        self.life.blocks += 1
        assert not self.life.lets_begin

    @precondition(lambda self: self.life.blocks)
    @rule()
    def a_block_ends(self) -> None:
        self.life.blocks -= 1

    @precondition(lambda self: self.running > self.life.blocks)
    @rule()
    def an_event_ends(self) -> None:
        self.running -= 1

    @rule()
    def it_is_evicted(self) -> None:
        self.life.evicted = True

    @rule(tasks=st.integers(0, 2), long=st.booleans())
    def it_may_go_to_sleep(self, tasks: int, long: bool) -> None:
        events = self.waiting + self.running
        if self.life.may_sleep(events=events, tasks=tasks, idle_long_enough=long):
            assert not events
            assert self.life.evicted or (long and not tasks)
            assert self.life.advance(Event.SLEEP)
            assert self.life.state is State.LEAVING

    @invariant()
    def nothing_runs_in_an_instance_that_has_left(self) -> None:
        if self.life.state in {State.LEAVING, State.ABORTED, State.GONE}:
            assert not self.life.lets_begin
            assert not self.waiting
            assert not self.running

    @invariant()
    def waiting_events_can_begin_or_are_cancelled(self) -> None:
        if self.waiting and not self.life.blocks:
            assert self.life.lets_begin or self.life.state is State.STARTING


TestLives = Lives.TestCase


@pytest.mark.parametrize("end", [State.LEAVING, State.FAILED, State.ABORTED])
@pytest.mark.parametrize("event", [e for e in Event if e is not Event.END])
def test_an_instance_that_leaves_memory_does_not_come_back(
    end: State, event: Event
) -> None:
    life = InstanceLife(end)
    assert not life.advance(event)
    assert life.state is end


def test_an_object_that_calls_abort_in_its_constructor_is_not_kept() -> None:
    life = InstanceLife()
    assert life.advance(Event.RESET)
    assert not life.advance(Event.BUILT)
    assert life.state is State.ABORTED


def test_an_awake_instance_goes_to_sleep_only_when_it_may() -> None:
    life = InstanceLife(State.AWAKE)
    assert life.may_sleep(events=0, tasks=0, idle_long_enough=True)
    assert not life.may_sleep(events=1, tasks=0, idle_long_enough=True)
    assert not life.may_sleep(events=0, tasks=1, idle_long_enough=True)
    assert not life.may_sleep(events=0, tasks=0, idle_long_enough=False)
    life.evicted = True
    assert life.may_sleep(events=0, tasks=1, idle_long_enough=False)
    assert not life.may_sleep(events=1, tasks=1, idle_long_enough=False)


@pytest.mark.parametrize(
    ("progress", "queued", "at_once"),
    [
        (Progress.IDLE, 0, True),
        (Progress.IDLE, 1, False),
        (Progress.BEGINNING, 0, False),
        (Progress.BEGINNING, 1, False),
        (Progress.WAITING, 0, True),
        (Progress.WAITING, 1, True),
    ],
)
def test_an_automatic_answer_overtakes_only_handlers_that_wait(
    progress: Progress,
    queued: int,
    at_once: bool,
) -> None:
    assert progress.answers_at_once(queued) is at_once


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2))))
def test_answers_overtake_from_the_first_wait_until_the_queue_is_empty(
    messages: list[tuple[bool, int]],
) -> None:
    progress = Progress.IDLE
    overtaking = False
    for waits, queued in messages:
        if progress is Progress.IDLE:
            progress = Progress.BEGINNING
        if waits:
            progress = Progress.WAITING
            overtaking = True
        progress = progress.after_message(queued)
        overtaking = overtaking and queued > 0
        assert progress is (Progress.WAITING if overtaking else Progress.IDLE)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_each_event_has_the_effect_of_its_row(state: State, event: Event) -> None:
    life = InstanceLife(state)
    expected = NEXT.get((state, event), state)
    assert life.advance(event) is (expected is not state)
    assert life.state is expected


@pytest.mark.parametrize("state", State)
def test_events_enter_until_the_instance_leaves(state: State) -> None:
    life = InstanceLife(state)
    assert life.in_memory is (state in {State.STARTING, State.AWAKE})
    assert life.lets_begin is (state in {State.AWAKE, State.FAILED})
    life.blocks = 1
    assert not life.lets_begin

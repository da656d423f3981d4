"""The state of a half: its laws, checked by state machines."""

import threading
from collections.abc import Callable
from typing import TypeVar

import attrs
import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from trio_wspair import ConnectionClosedError, InvalidStateError, ReadyState
from trio_wspair._rules.codes import Close, checked_close
from trio_wspair._rules.state import (
    Cause,
    End,
    Failure,
    HalfState,
    Holder,
    Operation,
    check_thread,
)

T = TypeVar("T")

# The transitions of a half, written a second time.
MOVES = {
    (Holder.NONE, Operation.ACCEPT): Holder.APPLICATION,
    (Holder.NONE, Operation.PULL): Holder.PULLER,
    (Holder.NONE, Operation.COUPLE): Holder.TRANSPORT,
    (Holder.NONE, Operation.HIBERNATE): Holder.HIBERNATION,
    (Holder.APPLICATION, Operation.ACCEPT): Holder.APPLICATION,
    (Holder.PULLER, Operation.ACCEPT): Holder.PULLER,
    (Holder.PULLER, Operation.PULL): Holder.PULLER,
}
SPEAKERS = {Holder.APPLICATION, Holder.PULLER, Holder.HIBERNATION}
ANSWERED = {Holder.NONE, Holder.APPLICATION, Holder.PULLER}
"""The holders for which a Close is answered."""
TAKES = {
    Holder.APPLICATION: Operation.ACCEPT,
    Holder.PULLER: Operation.PULL,
    Holder.TRANSPORT: Operation.COUPLE,
    Holder.HIBERNATION: Operation.HIBERNATE,
}

every_holder = pytest.mark.parametrize("holder", list(Holder), ids=lambda h: h.name)
every_operation = pytest.mark.parametrize(
    "operation", list(Operation), ids=lambda a: a.name
)

closes = st.builds(
    Close, st.sampled_from([1000, 1001, 1005, 3000, 4999]), st.sampled_from(["", "r"])
)
failures = st.builds(
    Failure, st.sampled_from(["", "gone"]), st.sampled_from([None, OSError("boom")])
)


def facts(state: HalfState) -> tuple[object, ...]:
    """Return all values of a state."""
    return attrs.astuple(state, recurse=False)


def held_by(holder: Holder, *, half_open: bool = False) -> HalfState:
    state = HalfState()
    if holder is not Holder.NONE:
        state.take(TAKES[holder], half_open=half_open)
    return state


class HalfStateMachine(RuleBasedStateMachine):
    """Calls anything at any moment, with a model of the results."""

    state: HalfState
    holder: Holder
    half_open: bool
    sent: Close | None
    received: Close | None
    failure: Failure | None
    released: bool
    shown: bool
    answered: bool
    """Whether the sent Close is an answer."""
    end: End | None
    before: ReadyState

    @initialize(holder=st.sampled_from(Holder), half_open=st.booleans())
    def begin(self, holder: Holder, half_open: bool) -> None:
        self.state = held_by(holder, half_open=half_open)
        self.holder = holder
        self.half_open = half_open and holder is not Holder.NONE
        self.released = self.answered = self.shown = False
        self.sent = self.received = self.failure = self.end = None
        self.before = ReadyState.OPEN

    # -- the model ----------------------------------------------------------------

    @property
    def closed(self) -> bool:
        both = self.sent is not None and self.received is not None
        return both or self.failure is not None

    @property
    def speaks(self) -> bool:
        return self.holder in SPEAKERS

    def refused(self, act: Callable[[], object]) -> InvalidStateError:
        """Check that `act` raises and changes nothing."""
        before = facts(self.state)
        with pytest.raises(InvalidStateError) as caught:
            act()
        assert facts(self.state) == before
        return caught.value

    def looked(self, view: Callable[[], T]) -> T:
        """Check that `view` changes nothing."""
        before = facts(self.state)
        result = view()
        assert facts(self.state) == before
        return result

    # -- calls ----------------------------------------------------------------------

    @rule(operation=st.sampled_from(Operation), half_open=st.booleans())
    def take(self, operation: Operation, half_open: bool) -> None:
        if self.holder is not Holder.NONE:
            half_open = self.half_open  # Other effects have separate tests.
        to = MOVES.get((self.holder, operation))
        gone = self.released or (self.closed and self.holder is Holder.NONE)
        if to is None or gone:
            error = self.refused(
                lambda: self.state.take(operation, half_open=half_open)
            )
            assert operation.value in str(error)
            assert self.state.describe() in str(error)
            self.refused(lambda: self.state.check_take(operation))
        else:
            assert self.looked(lambda: self.state.check_take(operation)) is to
            self.state.take(operation, half_open=half_open)
            self.holder, self.half_open = to, half_open

    @rule(close=closes)
    def start_close(self, close: Close) -> None:
        alive = self.failure is None and self.sent is None
        if alive and not self.speaks:
            self.refused(lambda: self.state.start_close(close))
        else:
            first = self.sent is None
            assert self.state.start_close(close) is first
            self.sent = close if self.sent is None else self.sent

    @rule(close=closes)
    def send_close(self, close: Close) -> None:
        first = self.sent is None
        assert self.state.send_close(close) is first
        self.sent = close if self.sent is None else self.sent

    @rule(close=closes)
    def receive_close(self, close: Close) -> None:
        if self.end is not None:
            assert self.looked(lambda: self.state.receive_close(close)) is None
            return
        due = not self.half_open and self.holder in ANSWERED and self.sent is None
        answer = self.state.receive_close(close)
        assert answer == (close if due else None)
        self.received = self.end = close
        if due:
            self.sent, self.answered = close, True

    @precondition(lambda self: self.sent is not None)
    @rule()
    def receive_own_close_back(self) -> None:
        # In memory the peer answers with the very object that was sent.
        assert self.sent is not None
        self.receive_close(self.sent)

    @rule(failure=failures)
    def fail(self, failure: Failure) -> None:
        alive = not self.closed
        if not alive:
            assert self.looked(lambda: self.state.fail(failure)) is False
            return
        assert self.state.fail(failure) is True
        self.failure = failure
        self.end = failure if self.end is None else self.end

    @precondition(lambda self: self.end is not None)
    @rule()
    def show_end(self) -> None:
        self.state.show_end()
        self.shown = True

    @rule()
    def end_half_open(self) -> None:
        self.state.end_half_open()
        self.half_open = False

    @rule()
    def release(self) -> None:
        self.state.release()
        self.released = True

    # -- laws -----------------------------------------------------------------------

    @invariant()
    def the_facts_are_those_of_the_model(self) -> None:
        # In the model each latch is assigned once, which this also checks.
        state = self.state
        assert state.holder is self.holder
        assert state.half_open is self.half_open
        assert state.close_sent is self.sent
        assert state.close_received is self.received
        assert state.failure is self.failure
        assert state.released is self.released

    @invariant()
    def the_end_never_changes_once_it_is_decided(self) -> None:
        assert self.state.end is self.end

    @invariant()
    def ready_state_counts_the_closes_and_never_goes_back(self) -> None:
        # An object gets an end when its handler is due, and a failure when dispatched.
        untold = self.holder is Holder.HIBERNATION and not self.released
        seen = self.end if self.shown or not untold else None
        expected = ReadyState(1 + len([c for c in (self.sent, seen) if c is not None]))
        if self.failure is not None and not untold:
            expected = ReadyState.CLOSED
        assert self.state.ready_state is expected
        assert self.state.ready_state >= self.before
        assert self.state.closed is self.closed
        self.before = expected

    @invariant()
    def only_the_holder_may_speak(self) -> None:
        if self.speaks:
            self.looked(lambda: self.state.check_verb("drain()"))
        else:
            error = self.refused(lambda: self.state.check_verb("drain()"))
            assert "drain()" in str(error)

    @invariant()
    def a_message_may_be_sent_until_a_close_or_a_failure(self) -> None:
        if not self.speaks:
            self.refused(self.state.check_send)
        elif self.failure is not None or self.answered:
            before = facts(self.state)
            with pytest.raises(ConnectionClosedError):
                self.state.check_send()
            assert facts(self.state) == before
        elif self.sent is not None:
            error = self.refused(self.state.check_send)
            assert "after close()" in str(error)
        else:
            self.looked(self.state.check_send)

    @invariant()
    def the_error_of_a_closed_half_has_its_end(self) -> None:
        error = self.looked(self.state.closed_error)
        told = (error.code, error.reason, error.was_clean)
        if isinstance(self.end, Close):
            assert told == (self.end.code, self.end.reason, True)
        else:
            reason = self.end.reason if self.end is not None else ""
            assert told == (1006, reason, False)

    @invariant()
    def the_description_has_the_facts(self) -> None:
        text = self.looked(self.state.describe)
        assert text.startswith(f"{self.state.ready_state.name}, {self.holder.label}")
        assert ("sent Close" in text) is (self.sent is not None)
        assert ("received Close" in text) is (self.received is not None)
        assert ("failed" in text) is (self.failure is not None)


def test_the_laws_of_a_state_hold_in_any_order_of_calls() -> None:
    run_state_machine_as_test(
        HalfStateMachine,
        settings=settings(max_examples=200, stateful_step_count=20, deadline=None),
    )


# -- when the end that is in the queue takes effect ---------------------


class EndInTheQueue(RuleBasedStateMachine):
    """A queue with messages and an end, and its reader, in any order of events."""

    state: HalfState
    queue: int
    """Messages in the queue."""
    unanswered: int
    """Messages given to a puller before it closed or began to wait."""
    ended: bool
    """Whether the end is in the queue."""
    arrived_first: bool
    waiting: int

    @initialize(holder=st.sampled_from([*Holder]))
    def begin(self, holder: Holder) -> None:
        self.state = held_by(holder)
        self.queue = self.unanswered = self.waiting = 0
        self.ended = self.arrived_first = False

    def is_due(self) -> bool:
        return self.state.end_is_due(
            queued=self.queue > 0,
            arrived_first=self.arrived_first,
            awaited=self.waiting > 0,
        )

    @precondition(lambda self: not self.ended)
    @rule()
    def a_message_arrives(self) -> None:
        self.queue += 1

    @precondition(lambda self: not self.ended)
    @rule()
    def the_end_arrives(self) -> None:
        self.ended = True
        self.arrived_first = self.queue == 0

    @precondition(lambda self: self.queue > 0)
    @rule()
    def a_message_is_taken(self) -> None:
        self.queue -= 1
        self.unanswered += 1

    @precondition(lambda self: self.state.holder in SPEAKERS)
    @rule()
    def the_half_closes(self) -> None:
        self.state.start_close(Close(1000))

    @rule()
    def a_task_begins_to_wait_for_the_end(self) -> None:
        self.waiting += 1

    @precondition(lambda self: self.waiting > 0)
    @rule()
    def a_task_stops_waiting(self) -> None:
        self.waiting -= 1

    @precondition(lambda self: self.ended)
    @invariant()
    def listeners_see_the_end_after_every_message_before_it(self) -> None:
        if self.state.holder is not Holder.PULLER:
            assert self.is_due() is (self.queue == 0)

    @precondition(lambda self: self.ended)
    @invariant()
    def a_puller_that_may_still_answer_is_not_cut_short(self) -> None:
        if self.state.holder is Holder.PULLER:
            has_something_to_answer = self.queue > 0 or self.unanswered > 0
            can_answer = self.state.close_sent is None
            may_wait = self.waiting > 0 and self.queue == 0
            if has_something_to_answer and can_answer and not may_wait:
                assert self.is_due() is self.arrived_first

    @precondition(lambda self: self.ended)
    @invariant()
    def a_puller_that_waits_with_an_empty_queue_is_not_left_waiting(self) -> None:
        if self.state.holder is Holder.PULLER and self.waiting and not self.queue:
            assert self.is_due()

    @precondition(lambda self: self.ended)
    @invariant()
    def a_puller_that_has_closed_has_nothing_to_answer(self) -> None:
        if self.state.holder is Holder.PULLER and self.state.close_sent is not None:
            assert self.is_due()


def test_an_end_takes_effect_when_nothing_before_it_can_be_answered() -> None:
    run_state_machine_as_test(
        EndInTheQueue,
        settings=settings(max_examples=200, stateful_step_count=15, deadline=None),
    )


# -- the holder ---------------------


@every_holder
@every_operation
def test_the_holder_changes_only_as_in_the_table(
    holder: Holder, operation: Operation
) -> None:
    state = held_by(holder)
    assert state.holder is holder
    if (holder, operation) in MOVES:
        state.take(operation)
        assert state.holder is MOVES[holder, operation]
    else:
        before = facts(state)
        message = f"too late for {operation.value}: this half is OPEN, {holder.label}"
        with pytest.raises(InvalidStateError) as caught:
            state.take(operation)
        assert str(caught.value).startswith(message)
        assert ("keep the other" in str(caught.value)) is (
            operation is Operation.COUPLE
        )
        assert facts(state) == before


@pytest.mark.parametrize("first", [False, True])
def test_taking_a_half_again_keeps_the_options_of_the_first(
    first: bool,
) -> None:
    state = HalfState()
    state.take(Operation.ACCEPT, half_open=first)
    state.take(Operation.ACCEPT, half_open=not first)
    assert state.half_open is first


@every_operation
def test_a_half_that_ended_before_it_was_taken_cannot_be_taken(
    operation: Operation,
) -> None:
    state = HalfState()
    state.fail(Failure())
    with pytest.raises(InvalidStateError, match="too late for"):
        state.take(operation)
    assert state.holder is Holder.NONE


def test_a_second_accept_is_fine_until_the_end_was_delivered() -> None:
    state = held_by(Holder.APPLICATION)
    state.receive_close(Close(1000))
    state.take(Operation.ACCEPT)
    state.release()
    with pytest.raises(InvalidStateError, match="too late for accept"):
        state.take(Operation.ACCEPT)


# -- sending ---------------------


@every_holder
def test_only_an_application_or_an_object_may_send(holder: Holder) -> None:
    state = held_by(holder)
    if holder in SPEAKERS:
        state.check_verb("send()")
        state.check_send()
        assert state.start_close(Close(1000)) is True
        assert state.close_sent == Close(1000)
    else:
        for act in (
            lambda: state.check_verb("send()"),
            state.check_send,
            lambda: state.start_close(Close(1000)),
        ):
            before = facts(state)
            with pytest.raises(InvalidStateError):
                act()
            assert facts(state) == before


def test_before_accept_the_error_says_what_to_call() -> None:
    with pytest.raises(InvalidStateError) as caught:
        HalfState().check_verb("send()")
    assert str(caught.value) == (
        "call accept() before send(): this half is not accepted yet"
    )


def test_the_error_for_a_half_of_a_connection_names_the_other_half() -> None:
    with pytest.raises(InvalidStateError) as caught:
        held_by(Holder.TRANSPORT).check_verb("send()")
    assert str(caught.value) == (
        "send() on a half that was given to a connection: "
        "use the other half of the pair"
    )


def test_sending_after_close_is_misuse() -> None:
    state = held_by(Holder.APPLICATION)
    state.start_close(Close(3000))
    with pytest.raises(InvalidStateError) as caught:
        state.check_send()
    assert str(caught.value) == (
        "send() after close(): this half is CLOSING, accepted, sent Close 3000"
    )


@pytest.mark.parametrize("same", [True, False], ids=["same object", "equal"])
def test_sending_after_close_is_misuse_also_when_it_was_answered(
    same: bool,
) -> None:
    state = held_by(Holder.APPLICATION)
    close = Close(3000)
    state.start_close(close)
    state.receive_close(close if same else Close(3000))
    with pytest.raises(InvalidStateError, match=r"after close\(\)"):
        state.check_send()


def test_sending_after_the_close_of_the_peer_is_not_misuse() -> None:
    state = held_by(Holder.APPLICATION)
    state.receive_close(Close(3000, "enough"))
    with pytest.raises(ConnectionClosedError) as caught:
        state.check_send()
    assert caught.value.args == (3000, "enough", True)


def test_sending_after_a_failure_is_not_misuse() -> None:
    state = held_by(Holder.APPLICATION)
    state.fail(Failure("gone"))
    with pytest.raises(ConnectionClosedError) as caught:
        state.check_send()
    assert caught.value.args == (1006, "gone", False)


def test_in_half_open_sending_is_legal_until_close() -> None:
    state = held_by(Holder.APPLICATION, half_open=True)
    assert state.receive_close(Close(3000)) is None
    assert state.ready_state.name == "CLOSING"
    state.check_send()
    assert state.start_close(Close(1000)) is True
    assert state.ready_state.name == "CLOSED"
    with pytest.raises(InvalidStateError, match=r"after close\(\)"):
        state.check_send()


# -- answering ---------------------


@every_holder
@pytest.mark.parametrize("half_open", [False, True])
@pytest.mark.parametrize("said", [False, True])
def test_a_close_is_answered_unless_half_open_or_the_holder_does_it(
    holder: Holder,
    half_open: bool,
    said: bool,
) -> None:
    state = held_by(holder, half_open=half_open)
    own = Close(4000, "own")
    if said:
        state.send_close(own)
    may_wait = half_open and holder is not Holder.NONE
    due = not may_wait and holder in ANSWERED and not said
    answer = state.receive_close(Close(3000, "r"))
    assert answer == (Close(3000, "r") if due else None)
    assert state.close_sent == (own if said else answer)
    assert state.close_received == Close(3000, "r")


def test_a_second_close_of_the_peer_changes_nothing() -> None:
    state = held_by(Holder.TRANSPORT)
    state.receive_close(Close(3000))
    assert state.receive_close(Close(4000)) is None
    assert state.end == Close(3000)


def test_a_close_after_the_failure_comes_too_late() -> None:
    state = held_by(Holder.APPLICATION)
    failure = Failure()
    state.fail(failure)
    assert state.receive_close(Close(1000)) is None
    assert state.end is failure


def test_a_failure_after_the_peers_close_keeps_that_end() -> None:
    state = held_by(Holder.APPLICATION, half_open=True)
    state.receive_close(Close(3000))
    assert state.fail(Failure("gone")) is True
    assert state.end == Close(3000)
    assert state.ready_state is ReadyState.CLOSED


def test_a_second_close_is_ignored() -> None:
    state = held_by(Holder.APPLICATION)
    assert state.start_close(Close(3000)) is True
    assert state.start_close(Close(4000)) is False
    assert state.close_sent == Close(3000)


def test_a_close_after_an_automatic_answer_is_ignored() -> None:
    state = held_by(Holder.APPLICATION)
    state.receive_close(Close(3000))
    assert state.start_close(Close(4000)) is False
    assert state.close_sent == Close(3000)


def test_a_half_that_has_closed_or_failed_cannot_fail_any_more() -> None:
    closed, failed = held_by(Holder.PULLER), held_by(Holder.PULLER)
    closed.receive_close(Close(1000))
    first = Failure("first")
    failed.fail(first)
    assert closed.fail(Failure("late")) is False
    assert closed.failure is None
    assert failed.fail(Failure("late")) is False
    assert failed.failure is first


# -- descriptions ---------------------


def test_a_description_shows_state_holder_and_codes() -> None:
    state = HalfState()
    assert state.describe() == "OPEN, not accepted"
    state.take(Operation.ACCEPT, half_open=True)
    state.receive_close(Close(3000))
    assert state.describe() == "CLOSING, accepted, received Close 3000"
    state.start_close(Close(4000))
    assert state.describe() == "CLOSED, accepted, sent Close 4000, received Close 3000"


def test_a_description_shows_why_a_half_has_failed() -> None:
    state = held_by(Holder.PULLER)
    state.fail(Failure("gone", OSError("boom")))
    expected = "CLOSED, accepted for receive(), failed with OSError('boom')"
    assert state.describe() == expected


def test_ready_states_have_the_numbers_of_whatwg() -> None:
    assert {state.name: state.value for state in ReadyState} == {
        "CONNECTING": 0,
        "OPEN": 1,
        "CLOSING": 2,
        "CLOSED": 3,
    }


# -- causes ---------------------


@pytest.mark.parametrize("cause", list(Cause), ids=lambda cause: cause.name)
def test_a_cause_has_a_reason_and_a_close_that_may_be_sent(cause: Cause) -> None:
    assert cause.reason
    if cause.close is not None:
        assert checked_close(cause.close.code, cause.close.reason) == cause.close


# -- causes --------------------------------------------------------------------------

CODES = {
    Cause.LISTENER_RAISED: 1011,
    Cause.OWNER_ENDED: 1001,
    Cause.CLOSING_CANCELLED: None,
    Cause.PEER_ENDED: None,
    Cause.PEER_NEVER_TAKEN: 1011,
    Cause.OBJECT_RESET: 1011,
}
"""The code of each cause, written a second time."""


@pytest.mark.parametrize("cause", list(Cause), ids=lambda cause: cause.name)
def test_each_cause_of_a_failure_has_a_reason_and_a_code(cause: Cause) -> None:
    assert cause.reason
    code = CODES[cause]
    assert cause.close == (None if code is None else Close(code))


# -- threads -------------------------------------------------------------------------


def test_a_call_in_another_thread_is_refused() -> None:
    check_thread(threading.get_ident(), "send()")
    with pytest.raises(
        InvalidStateError, match=r"send\(\) was called in another thread"
    ):
        check_thread(threading.get_ident() + 1, "send()")

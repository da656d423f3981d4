"""The life of a request: every order of events, and a stop in every state."""

import pytest
from hypothesis import given, strategies as st

from trio_wspair._rules.requests import (
    RequestEvent as Event,
    RequestLife,
    RequestState as State,
    StopEffect,
)

NEXT = {
    State.CALLING: {
        Event.RESPONSE: State.ANSWERING,
        Event.WEBSOCKET: State.CONVERSING,
        Event.FAILURE: State.ANSWERING,
    },
    State.ANSWERING: {Event.FAILURE: State.ANSWERING, Event.END: State.DONE},
    State.CONVERSING: {
        Event.CONNECTION_END: State.WAITING,
        Event.FAILURE: State.CLOSING,
    },
    State.WAITING: {Event.FAILURE: State.CLOSING, Event.END: State.DONE},
    State.CLOSING: {Event.END: State.DONE},
    State.DONE: {},
}
"""The states that follow, written a second time."""

STEPS = st.lists(st.sampled_from(Event), max_size=8)


def advanced(*events: Event) -> RequestLife:
    life = RequestLife()
    for event in events:
        life.advance(event)
    return life


@given(STEPS)
def test_the_end_is_final_and_reached_from_every_state(events: list[Event]) -> None:
    life = RequestLife()
    for event in events:
        before = life.state
        try:
            life.advance(event)
        except KeyError:
            assert life.state is before
        assert before is not State.DONE or life.state is State.DONE
    if life.state is State.CALLING:
        life.advance(Event.RESPONSE)
    if life.state is State.CONVERSING:
        life.advance(Event.CONNECTION_END)
    if life.state is not State.DONE:
        life.advance(Event.END)
    assert life.state is State.DONE


@given(STEPS)
def test_a_conversation_never_becomes_a_plain_response(events: list[Event]) -> None:
    life = advanced(Event.WEBSOCKET)
    for event in events:
        try:
            life.advance(event)
        except KeyError:
            continue
        assert life.state not in (State.CALLING, State.ANSWERING)


@pytest.mark.parametrize(
    ("events", "effect"),
    [
        ((), StopEffect.KEEP_CODE),
        ((Event.RESPONSE,), StopEffect.NONE),
        ((Event.FAILURE,), StopEffect.NONE),
        ((Event.WEBSOCKET,), StopEffect.SEND_CLOSE),
        ((Event.WEBSOCKET, Event.FAILURE), StopEffect.NONE),
        ((Event.WEBSOCKET, Event.CONNECTION_END), StopEffect.BOUND_WAIT),
        ((Event.WEBSOCKET, Event.CONNECTION_END, Event.END), StopEffect.NONE),
    ],
)
def test_a_stop_of_the_server_has_an_effect_in_every_state(
    events: tuple[Event, ...], effect: StopEffect
) -> None:
    life = advanced(*events)
    assert life.stop(1012) is effect
    assert life.stop_code == 1012


@pytest.mark.parametrize("state", State)
def test_every_state_has_a_rule_for_a_stop(state: State) -> None:
    assert isinstance(RequestLife(state).stop(1001), StopEffect)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_each_event_has_a_rule_in_each_state_or_is_a_fault(
    state: State, event: Event
) -> None:
    life = RequestLife(state)
    if event in NEXT[state]:
        life.advance(event)
        assert life.state is NEXT[state][event]
    else:
        with pytest.raises(KeyError):
            life.advance(event)
        assert life.state is state

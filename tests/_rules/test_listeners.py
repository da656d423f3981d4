"""The listeners of a half: which are called for an event, and in which order."""

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import cast

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

from trio_wspair._rules.listeners import EVENT_TYPES, Listener, Listeners


class Bystander:
    """An object with bound methods as listeners: each access makes a new one."""

    def first(self, event: object) -> None: ...

    def second(self, event: object) -> None: ...


class Alike:
    """A callable that equals others of its number and can't be hashed."""

    __hash__ = None  # type: ignore[assignment]  # Not hashable, on purpose.

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, event: object) -> None: ...

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alike) and other.number == self.number


def plain(event: object) -> None: ...


async def async_plain(event: object) -> None: ...


BYSTANDER = Bystander()
NAMES = ("plain", "async_plain", "first", "second", "alike 1", "alike 2")


def listener_called(name: str) -> Listener:
    """Return the listener of a name, as a new object if possible."""
    if name.startswith("alike"):
        return Alike(int(name[-1]))
    if name in {"first", "second"}:
        return getattr(BYSTANDER, name)  # type: ignore[no-any-return]  # A method.
    return {"plain": plain, "async_plain": async_plain}[name]


def wrong(listener: object) -> Listener:
    """Return an invalid listener, typed as a listener."""
    return cast("Listener", listener)


def name_of(listener: Listener) -> str:
    return next(name for name in NAMES if listener_called(name) == listener)


def called(registry: Listeners, event_type: str = "message") -> list[str]:
    """Return the listeners that are called for one event."""
    return [name_of(listener) for listener in registry.to_call(event_type)]


def make(*names: str, event_type: str = "message", once: bool = False) -> Listeners:
    registry = Listeners()
    for name in names:
        registry.add(event_type, listener_called(name), once=once)
    return registry


names = st.sampled_from(NAMES)
event_types = st.sampled_from(["message", "message", "message", "close"])


class ListenersMachine(RuleBasedStateMachine):
    """Adds, removes and dispatches in any order, and compares with a model."""

    registry: Listeners
    added: dict[str, dict[str, bool]]
    """Event type -> listener -> once, in the order of calls."""
    slots: dict[str, str]
    dispatch: Iterator[Listener] | None
    dispatched: str
    """The type of the event that is being dispatched."""
    turns: list[str]
    """Its listeners that are still to be called."""

    @initialize(
        added=st.lists(st.tuples(names, st.booleans()), max_size=3),
        slot=names | st.none(),
    )
    def begin(self, added: list[tuple[str, bool]], slot: str | None) -> None:
        self.registry = Listeners()
        self.added = {event_type: {} for event_type in EVENT_TYPES}
        self.slots = {}
        self.dispatch = None
        self.turns = []
        for name, once in added:
            self.add("message", name, once)
        self.set_slot("message", slot)

    @rule(event_type=event_types, name=names, once=st.booleans())
    def add(self, event_type: str, name: str, once: bool) -> None:
        self.registry.add(event_type, listener_called(name), once=once)
        self.added[event_type].setdefault(name, once)

    @rule(event_type=event_types, name=names)
    def remove(self, event_type: str, name: str) -> None:
        self.registry.remove(event_type, listener_called(name))
        self.added[event_type].pop(name, None)

    @rule(event_type=event_types, name=names | st.none())
    def set_slot(self, event_type: str, name: str | None) -> None:
        if name is None:
            self.registry.set_slot(event_type, None)
            self.slots.pop(event_type, None)
        else:
            self.registry.set_slot(event_type, listener_called(name))
            self.slots[event_type] = name

    # -- one event at a time, and anything may happen between two calls ----------------

    @precondition(lambda self: self.dispatch is None)
    @rule(event_type=event_types)
    def begin_dispatch(self, event_type: str) -> None:
        self.dispatch = self.registry.to_call(event_type)
        self.dispatched = event_type
        self.turns = list(self.added[event_type])
        slot = self.slots.get(event_type)
        self.expect_call(self.next_turn() if slot is None else slot)

    @precondition(lambda self: self.dispatch is not None)
    @rule()
    def call_next(self) -> None:
        self.expect_call(self.next_turn())

    @precondition(lambda self: self.dispatch is not None)
    @rule()
    def call_all_that_are_left(self) -> None:
        while self.dispatch is not None:
            self.call_next()

    def next_turn(self) -> str | None:
        added = self.added[self.dispatched]
        while self.turns:
            name = self.turns.pop(0)
            if name in added:
                if added[name]:
                    del added[name]  # `once` is removed before its call.
                return name
        return None

    def expect_call(self, name: str | None) -> None:
        assert self.dispatch is not None
        listener = next(self.dispatch, None)
        if name is None:
            assert listener is None
            self.dispatch = None
        else:
            assert listener == listener_called(name)

    # -- laws -----------------------------------------------------------------------

    @invariant()
    def slots_hold_what_was_put_there(self) -> None:
        for event_type in EVENT_TYPES:
            held = self.registry.slot(event_type)
            name = self.slots.get(event_type)
            assert held == (None if name is None else listener_called(name))

    @invariant()
    def the_only_message_listener_is_the_only_one(self) -> None:
        only = self.registry.only_message_listener
        every_name = [
            *([self.slots["message"]] if "message" in self.slots else []),
            *self.added["message"],
        ]
        simple = len(every_name) == 1 and True not in self.added["message"].values()
        assert (only is not None) is simple
        if only is not None:  # In this case the call changes nothing.
            assert list(self.registry.to_call("message")) == [only]
            assert name_of(only) == every_name[0]


def test_the_laws_of_a_registry_hold_in_any_order_of_calls() -> None:
    run_state_machine_as_test(
        ListenersMachine,
        settings=settings(max_examples=200, stateful_step_count=15, deadline=None),
    )


# -- the rules one by one, after WHATWG DOM, section 2.7 ---------------------


def test_listeners_are_called_in_the_order_they_were_added() -> None:
    assert called(make("second", "plain", "first")) == ["second", "plain", "first"]


def test_the_slot_is_called_first_whenever_it_was_filled() -> None:
    registry = make("plain", "first")
    registry.set_slot("message", listener_called("second"))
    assert called(registry) == ["second", "plain", "first"]


def test_the_same_listener_may_be_in_the_slot_and_in_the_list() -> None:
    registry = make("plain")
    registry.set_slot("message", plain)
    assert called(registry) == ["plain", "plain"]


def test_a_slot_holds_one_listener_and_none_empties_it() -> None:
    registry = Listeners()
    registry.set_slot("close", listener_called("first"))
    registry.set_slot("close", listener_called("second"))
    assert called(registry, "close") == ["second"]
    registry.set_slot("close", None)
    registry.set_slot("close", None)
    assert registry.slot("close") is None
    assert called(registry, "close") == []


@pytest.mark.parametrize("name", NAMES)
def test_adding_a_listener_twice_has_no_effect(name: str) -> None:
    assert called(make(name, "plain", name)) == list(dict.fromkeys([name, "plain"]))


@pytest.mark.parametrize("name", NAMES)
def test_a_listener_is_removed_by_any_equal_one(name: str) -> None:
    registry = make("plain", "second", name)
    registry.remove("message", listener_called(name))
    assert called(registry) == [n for n in ("plain", "second") if n != name]


def test_the_first_registration_decides_about_once() -> None:
    registry = make("plain")
    registry.add("message", plain, once=True)
    registry.add("message", listener_called("first"), once=True)
    registry.add("message", listener_called("first"), once=False)
    assert called(registry) == ["plain", "first"]
    assert called(registry) == ["plain"]


def test_a_listener_that_was_removed_and_added_again_goes_last() -> None:
    registry = make("plain", "first")
    registry.remove("message", plain)
    registry.add("message", plain, once=False)
    assert called(registry) == ["first", "plain"]


def test_removing_a_listener_that_was_never_added_does_nothing() -> None:
    registry = make("plain", event_type="close")
    registry.remove("message", plain)
    registry.remove("close", listener_called("first"))
    assert called(registry, "close") == ["plain"]


def test_event_types_are_independent() -> None:
    registry = make("plain", event_type="message")
    registry.add("close", listener_called("first"), once=False)
    registry.set_slot("error", listener_called("second"))
    assert [called(registry, t) for t in EVENT_TYPES] == [
        ["plain"],
        ["first"],
        ["second"],
    ]


def test_a_once_listener_is_gone_before_its_call() -> None:
    registry = make("plain", once=True)
    for listener in registry.to_call("message"):
        assert listener is plain
        assert called(registry) == []
        registry.add("message", plain, once=True)  # The listener adds itself again:
    assert called(registry) == ["plain"]  # for the next event, and only that.
    assert called(registry) == []


def test_a_listener_removed_by_an_earlier_one_is_not_called() -> None:
    registry = make("plain", "first", "second")
    calls = registry.to_call("message")
    assert next(calls) is plain
    registry.remove("message", listener_called("first"))
    assert [name_of(listener) for listener in calls] == ["second"]


def test_a_listener_added_during_an_event_waits_for_the_next() -> None:
    registry = make("plain")
    calls = registry.to_call("message")
    assert next(calls) is plain
    registry.add("message", listener_called("first"), once=False)
    assert list(calls) == []
    assert called(registry) == ["plain", "first"]


def test_a_listener_added_by_the_one_in_the_slot_waits_for_the_next_event() -> None:
    registry = Listeners()
    registry.set_slot("message", plain)
    calls = registry.to_call("message")
    assert next(calls) is plain
    registry.add("message", listener_called("first"), once=False)
    assert list(calls) == []
    assert called(registry) == ["plain", "first"]


def test_a_listener_removed_by_the_one_in_the_slot_is_not_called() -> None:
    registry = make("first", "second")
    registry.set_slot("message", plain)
    calls = registry.to_call("message")
    assert next(calls) is plain
    registry.remove("message", listener_called("first"))
    assert [name_of(listener) for listener in calls] == ["second"]


def test_a_slot_filled_during_an_event_waits_for_the_next() -> None:
    registry = make("plain", "second")
    calls = registry.to_call("message")
    assert next(calls) is plain
    registry.set_slot("message", listener_called("first"))
    assert [name_of(listener) for listener in calls] == ["second"]
    assert called(registry) == ["first", "plain", "second"]


def test_a_listener_removed_and_added_again_during_an_event_is_called() -> None:
    # The recorded trace: workerd calls it in its old place, and last from then on.
    registry = make("plain", "first", "second")
    calls = registry.to_call("message")
    assert next(calls) is plain
    registry.remove("message", listener_called("first"))
    registry.add("message", listener_called("first"), once=False)
    assert [name_of(listener) for listener in calls] == ["first", "second"]
    assert called(registry) == ["plain", "second", "first"]


@pytest.mark.parametrize("once", [False, True])
def test_the_latest_registration_decides_about_once_even_during_an_event(
    once: bool,
) -> None:
    registry = make("plain")
    registry.add("message", listener_called("first"), once=not once)
    calls = registry.to_call("message")
    assert next(calls) is plain
    registry.remove("message", listener_called("first"))
    registry.add("message", listener_called("first"), once=once)
    assert [name_of(listener) for listener in calls] == ["first"]
    assert called(registry) == (["plain"] if once else ["plain", "first"])


def test_a_listener_that_removes_itself_does_not_skip_the_next() -> None:
    registry = make("plain", "first", "second")
    seen: list[str] = []
    for listener in registry.to_call("message"):
        registry.remove("message", listener)
        seen.append(name_of(listener))
    assert seen == ["plain", "first", "second"]
    assert called(registry) == []


def test_no_listener_is_called_after_clear_not_even_in_the_same_event() -> None:
    registry = make("plain", "first")
    registry.set_slot("message", plain)
    calls = registry.to_call("message")
    assert next(calls) is plain
    registry.clear()
    assert list(calls) == []
    assert registry.only_message_listener is None
    assert registry.slot("message") is None


def test_the_object_called_is_the_one_that_was_added() -> None:
    added, equal = Alike(1), Alike(1)
    registry = Listeners()
    registry.add("message", added, once=False)
    registry.add("message", equal, once=False)
    for listener, expected in zip_longest(registry.to_call("message"), [added]):
        assert listener is expected


# -- errors ---------------------


@pytest.mark.parametrize("event_type", ["open", "Message", "", None, 5, ["message"]])
def test_an_unknown_event_type_is_refused_with_the_three_valid_ones(
    event_type: str,
) -> None:
    registry = make("plain")
    acts: list[Callable[[], None]] = [
        lambda: registry.add(event_type, plain, once=False),
        lambda: registry.remove(event_type, plain),
    ]
    for act in acts:
        with pytest.raises(ValueError, match="no event is called") as caught:
            act()
        assert repr(event_type) in str(caught.value)
        for known in EVENT_TYPES:
            assert repr(known) in str(caught.value)
    assert called(registry) == ["plain"]


@pytest.mark.parametrize("listener", [5, "plain", b"", [plain], object()], ids=type)
def test_a_listener_that_cannot_be_called_is_refused(listener: object) -> None:
    registry = make("plain")
    registry.set_slot("message", plain)
    acts: list[Callable[[], None]] = [
        lambda: registry.add("message", wrong(listener), once=False),
        lambda: registry.remove("message", wrong(listener)),
        lambda: registry.set_slot("message", wrong(listener)),
    ]
    for act in acts:
        with pytest.raises(TypeError, match="a listener is a callable") as caught:
            act()
        assert type(listener).__name__ in str(caught.value)
    assert called(registry) == ["plain", "plain"]

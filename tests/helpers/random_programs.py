"""Random programs of many halves: made by Hypothesis, run by `random_program_runs`.

A program accepts, sends, closes, waits, fails and cancels, in drivers and in
listeners, on several pairs in two nurseries, and may be cut off at a step.
"""

from typing import Literal, TypeVar

import attrs
from hypothesis import strategies as st

T = TypeVar("T")
Pause = Literal["none", "checkpoint", "sleep", "shielded sleep"]
Action = Literal["send", "close", "aclose", "drain", "checkpoint", "sleep"]
Where = Literal["outside", "outer", "inner"]
"""Everything, the outer nursery or the inner one."""


@attrs.frozen
class Listening:
    """What the listeners of one half do; numbers are of messages, from 1 on."""

    kinds: tuple[Literal["sync", "async"], ...]
    """One message listener each; the first of them does the rest."""
    pause: Pause
    """What async listeners do first."""
    answers: int
    """How many messages are answered."""
    closes_at: int | None
    acloses_at: int | None
    raises_at: int | None
    cancels_at: int | None
    cancels: Where
    accepts_at: int | None
    accepts: int
    """The half that is accepted then."""
    close_kind: Literal["sync", "async"]
    close_pause: Pause | Literal["forever"]
    close_answers: bool
    """Whether the close listener closes, which matters in half-open."""
    close_raises: bool


@attrs.frozen
class Driving:
    """What the task that drives one half does."""

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
    """Pairs, and when they are cut off."""

    pairs: tuple[tuple[Where, Half, Half], ...]
    """The nursery of each, and its halves."""
    cut_at: int | None
    """The step of any task at which something is cancelled."""
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

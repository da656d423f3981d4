"""Plays every scenario that was recorded from Durable Objects on our object.

The trace equals the recorded one, or `hibernation/differences.toml` says which parts
differ and why. The order of Trio's tasks must not matter (G11).
"""

import json
import logging
from functools import partial
from typing import Any

import pytest

from conformance.hibernation import corpus, stage
from conformance.hibernation.comparing import differing_parts, plain
from conformance.stage import Play, run

ALL = {scenario["name"]: scenario for scenario in corpus.scenarios()}


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Don't show the log records of handlers that fail on purpose."""
    caplog.set_level(logging.CRITICAL)


def constructs(scenario: dict[str, Any]) -> bool:
    """Whether the trace shows when an object is constructed."""
    return "construct" in scenario.get("handlers", {})


def check(name: str, play: Play, seeds: int) -> None:
    scenario = ALL[name]
    known = corpus.differing_parts(name)
    for seed in range(seeds):
        trace = run(play, scenario, seed=seed)
        parts = differing_parts(scenario["expect"], trace)
        for part in parts - known:
            recorded = json.dumps(scenario["expect"][part])
            pytest.fail(
                f"{scenario['note']}\nseed {seed}, {part}\n"
                f"ours {trace[part]}\nnot  {recorded}"
            )
        if known - parts:
            pytest.fail(f"{known - parts} match: remove them from differences.toml")


@pytest.mark.parametrize("name", ALL)
def test_g11_an_object_does_what_workers_do(name: str) -> None:
    check(name, stage.in_memory, 4)


@pytest.mark.parametrize("name", ALL)
def test_g11_an_object_does_what_workers_do_over_sockets(name: str) -> None:
    check(name, stage.on_the_wire, 1)


@pytest.mark.parametrize("name", [name for name in ALL if not constructs(ALL[name])])
def test_an_object_that_leaves_memory_has_the_same_trace_as_one_that_stays(
    name: str,
) -> None:
    for seed in range(5):
        awake = run(stage.awake, ALL[name], seed=seed)
        asleep = run(stage.always_asleep, ALL[name], seed=seed)
        assert plain(asleep) == plain(awake)


def test_an_object_that_leaves_memory_after_every_event_loses_its_attributes() -> None:
    forgetful = partial(stage.always_asleep, lasting=False)
    trace = run(forgetful, ALL["messages/order"])
    names = [(entry["event"], entry["ws"]) for entry in trace["object"]]
    assert names == [("connect", "c1"), *([("message", "?")] * 3)]


def test_every_listed_difference_names_a_scenario() -> None:
    assert corpus.differing().keys() <= ALL.keys()

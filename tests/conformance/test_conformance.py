"""Plays every scenario that was recorded from Workers on our halves.

The trace equals the recorded one, or `differences.toml` says why it differs. The order
of Trio's tasks must not matter (G11).
"""

import json
import logging

import pytest

from conformance import stage
from conformance.comparing import same_trace
from conformance.corpus import (
    Scenario,
    differing_in_memory,
    differing_on_the_wire,
    makes_sense_on_the_wire,
    scenarios,
)

ALL = {scenario["name"]: scenario for scenario in scenarios()}
ON_THE_WIRE = [name for name, one in ALL.items() if makes_sense_on_the_wire(one)]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Don't show the log records of handlers that fail on purpose."""
    caplog.set_level(logging.CRITICAL)


def check(scenario: Scenario, play: stage.Play, seeds: int, *, matches: bool) -> None:
    for seed in range(seeds):
        trace = stage.run(play, scenario, seed=seed)
        if same_trace(scenario["expect"], trace) is not matches:
            if not matches:
                pytest.fail("the scenario matches: remove it from differences.toml")
            recorded = json.dumps(scenario["expect"])
            pytest.fail(
                f"{scenario['note']}\nseed {seed}\nours {trace}\nnot  {recorded}"
            )


@pytest.mark.parametrize("name", ALL)
def test_g11_a_pair_does_what_workers_do(name: str) -> None:
    matches = name not in differing_in_memory()
    check(ALL[name], stage.in_memory, 4, matches=matches)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("name", ON_THE_WIRE)
def test_g11_a_connection_does_what_workers_do(name: str) -> None:
    matches = name not in differing_on_the_wire()
    check(ALL[name], stage.on_the_wire, 3, matches=matches)


def test_every_listed_difference_names_a_scenario() -> None:
    assert differing_in_memory().keys() <= ALL.keys()
    assert differing_on_the_wire().keys() <= ALL.keys()

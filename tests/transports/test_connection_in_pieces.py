"""Connections whose bytes are split, delayed and merged, without other faults.

The recorded scenarios have the same traces over such a network.
"""

import logging
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any
from unittest import mock

import pytest
import trio
from conformance import stage
from conformance.comparing import same_trace
from conformance.corpus import (
    Scenario,
    differing_on_the_wire,
    makes_sense_on_the_wire,
    scenarios,
)
from patched_network import loopback_network, memory_network
from trio.testing import MockClock, lockstep_stream_pair

from trio_wspair.testing import FaultyStream

pytestmark = pytest.mark.usefixtures("engine")

SCENARIOS = [one for one in scenarios() if makes_sense_on_the_wire(one)]
LARGE = [one for one in SCENARIOS if "mebibyte" in one["name"]]
SMALL = [one for one in SCENARIOS if one not in LARGE]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Don't show the log records of handlers that fail on purpose."""
    caplog.set_level(logging.CRITICAL)


def check(
    sample: list[Scenario], network: Any, clock: Callable[[], MockClock], **faults: Any
) -> None:
    """Play scenarios as the conformance tests do, with faults at both ends."""
    seeds = count()

    def spoil(stream: trio.abc.Stream) -> trio.abc.Stream:
        return FaultyStream(stream, seed=next(seeds), **faults)

    with network(client=spoil, server=spoil):
        for scenario in sample:
            trio._core._run._r.seed(next(seeds))
            trace = trio.run(stage.on_the_wire, scenario, clock=clock())
            matches = scenario["name"] not in differing_on_the_wire()
            assert same_trace(scenario["expect"], trace) is matches, scenario["name"]


NETWORKS = pytest.mark.parametrize("network", [memory_network, loopback_network])


@NETWORKS
@pytest.mark.parametrize(("at_most", "part"), [(1, 0), (3, 1), (50, 2)])
def test_g1_g2_g3_scenarios_in_pieces_do_what_workers_do(
    network: Any, at_most: int, part: int
) -> None:
    # These faults don't delay bytes: unread ones wait below.
    if network is loopback_network:
        part += 3
    pieces = {"receive_at_most": at_most, "send_at_most": at_most}
    check(SMALL[part::10], network, MockClock, **pieces)


@NETWORKS
def test_g1_g2_g3_large_messages_in_pieces_do_what_workers_do(
    network: Any,
) -> None:
    check(LARGE, network, MockClock, receive_at_most=20_000, send_at_most=10_000)


def test_g1_g2_g3_scenarios_on_a_network_without_buffers_do_what_workers_do() -> None:
    # Nothing is sent before the other end receives it.
    network = partial(memory_network, join=lockstep_stream_pair)
    check(SMALL[6::10] + LARGE, network, MockClock)


async def delays_are_over() -> None:
    """Wait for longer than all delays, and for less than any timeout."""
    await trio.sleep(0.1)


def test_g1_g2_g3_scenarios_with_delayed_and_merged_bytes_do_what_workers_do() -> None:
    with mock.patch.object(stage, "network_settled", delays_are_over):
        check(
            SMALL[7::5],
            memory_network,
            partial(MockClock, autojump_threshold=0),
            delay=0.001,
            receive_at_most=700,
            send_at_most=700,
        )

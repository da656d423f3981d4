"""Recorded verdicts are explained, and a run with other verdicts is reported."""

from typing import Any

import pytest
from engines import ENGINES

from autobahn.results import (
    FAILED,
    MODES,
    NON_STRICT,
    OK,
    explains,
    explanations,
    recorded,
    surprises,
    verdict_of,
)

RUNS: dict[str, Any] = {engine: recorded(engine) for engine in ENGINES}
RUN = RUNS["trio-websocket"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("engine", ENGINES)
def test_every_recorded_verdict_is_good_or_explained(engine: str, mode: str) -> None:
    run = RUNS[engine][mode]
    assert len(run) == 517
    assert list(surprises(run, run)) == []


def test_every_explanation_is_needed() -> None:
    cases = [c for run in RUNS.values() for mode in MODES for c in run[mode].items()]
    for entry in explanations():
        for name in entry["cases"]:
            alone = {**entry, "cases": [name]}
            assert any(explains(alone, *one) for one in cases), name


def test_a_failure_cannot_be_explained() -> None:
    assert FAILED not in {entry["verdict"] for entry in explanations()}


@pytest.mark.parametrize(
    ("case", "found", "surprise"),
    [
        ("3.2", NON_STRICT, "3.2 is non-strict, and explained.toml does not say why"),
        ("3.2", FAILED, "3.2 is failed"),
        ("7.1.6", FAILED, "7.1.6 is failed"),
        ("7.1.6", OK, "7.1.6 is ok, but was recorded as informational"),
    ],
)
def test_another_verdict_than_the_recorded_one_is_reported(
    case: str, found: str, surprise: str
) -> None:
    assert list(surprises({**RUN["server"], case: found}, RUN["server"])) == [surprise]


def test_a_case_without_a_verdict_is_reported() -> None:
    run = {case: verdict for case, verdict in RUN["client"].items() if case != "9.1.1"}
    assert list(surprises(run, RUN["client"])) == ["9.1.1 is missing"]


@pytest.mark.parametrize(
    ("messages", "closing", "verdict"),
    [
        ("OK", "OK", "ok"),
        ("NON-STRICT", "OK", "non-strict"),
        ("UNIMPLEMENTED", "OK", "unimplemented"),
        ("OK", "INFORMATIONAL", "informational"),
        ("OK", "WRONG CODE", "failed"),
        ("UNIMPLEMENTED", "UNCLEAN", "failed"),
        ("FAILED", "OK", "failed"),
    ],
)
def test_the_worse_of_two_verdicts_counts(
    messages: str, closing: str, verdict: str
) -> None:
    report = {"behavior": messages, "behaviorClose": closing}
    assert verdict_of(report) == verdict

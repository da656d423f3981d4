"""Results of benchmarks: ratios, goals and plots, computed from samples."""

from collections.abc import Sequence
from pathlib import Path
from subprocess import CalledProcessError
from xml.etree import ElementTree as ET

import pytest

from benchmarks import results
from benchmarks.catalogue import SECTIONS, WORKLOADS
from benchmarks.compare import Comparison
from benchmarks.plot import plot
from benchmarks.results import Results, Spread
from benchmarks.rounds import measure
from benchmarks.table import markdown, remarks, rows
from benchmarks.workload import MissingError, Sample, Workload

ECHO = WORKLOADS["echo-1"]
ON_TRIO_WEBSOCKET, ON_WEBSOCKETS = (
    "trio-wspair on trio-websocket",
    "trio-wspair on websockets",
)
FACTS = {"date": "2026-11-22", "machine": "2 cores", "trio": "0.35.0"}


def taken(*values: float) -> Sequence[Sample]:
    return [{"value": value, "others": 0.25} for value in values]


@pytest.fixture
def echoed() -> Results:
    samples = {
        "trio-websocket": taken(10, 10, 20),
        "workerd": taken(40, 40, 40),
        ON_TRIO_WEBSOCKET: taken(10, 20, 10),
        ON_WEBSOCKETS: taken(30, 50, 40),
    }
    return Results(FACTS, {ECHO.name: samples}, {ECHO.name: {"picows": "no picows"}})


def test_a_ratio_is_of_samples_of_the_same_round(echoed: Results) -> None:
    ratios = echoed.ratios(ECHO, ON_WEBSOCKETS, "trio-websocket")
    assert ratios.values == [3, 5, 2]
    assert (ratios.least, ratios.median, ratios.most) == (2, 3, 5)


def test_a_ratio_above_one_is_better_if_less_is() -> None:
    workload = WORKLOADS["idle"]
    taken_up = {"memory channels": taken(900), "trio-wspair": taken(300)}
    idle = Results(FACTS, {workload.name: taken_up})
    assert idle.ratios(workload, "trio-wspair", "memory channels").median == 3


def test_goals_stand_beside_the_ratios(echoed: Results) -> None:
    table = markdown(rows(echoed, ECHO))
    assert "ratio of trio-wspair on websockets" in table
    first = next(line for line in table.splitlines() if "| trio-websocket |" in line)
    assert "**1** (0.5 to 2) | 1 met |" in first
    assert "**3** (2 to 5) | 2.5 met |" in first
    second = next(line for line in table.splitlines() if "| workerd |" in line)
    assert "**1** (0.75 to 1.25) | 1 met |" in second


def test_a_limit_stands_beside_ours() -> None:
    workload = WORKLOADS["idle"]
    idle = Results(FACTS, {workload.name: {"trio-wspair": taken(6000)}})
    assert "at most 5,120 missed" in markdown(rows(idle, workload))


def test_remarks_name_skipped_implementations_and_other_load(
    echoed: Results,
) -> None:
    left_out, others = remarks(echoed, ECHO)
    assert left_out == "Left out: picows (no picows)."
    assert others == "Other processes kept up to 0.25 cores busy."


def test_results_read_from_a_file_equal_the_ones_written(
    echoed: Results, tmp_path: Path
) -> None:
    file = tmp_path / "results.json"
    results.save(echoed, file)
    assert results.load(file) == echoed


def test_the_plot_has_a_mark_for_each_other_implementation(echoed: Results) -> None:
    picture = ET.fromstring(plot(echoed))  # noqa: S314 - it is ours
    tips = [tip.text for tip in picture.iter("{http://www.w3.org/2000/svg}title")]
    assert sorted(map(str, tips)) == ["trio-websocket: 3.00", "workerd: 1.00"]


def test_the_plot_leaves_out_yardsticks() -> None:
    (workload,) = (w for w in SECTIONS["In memory"] if w.name == "large")
    samples = {name: taken(1) for name in workload.implementations}
    picture = plot(Results(FACTS, {workload.name: samples}))
    assert "memory channels: 1.00" in picture
    assert not any(yardstick in picture for yardstick in workload.yardsticks)


def test_implementations_take_turns_and_a_failing_one_is_left_out() -> None:
    seen: list[str] = []

    def take(_work: Workload, implementation: str, _seconds: float) -> Sample:
        seen.append(implementation)
        if implementation == "picows on asyncio":
            raise MissingError("no picows")
        if implementation == "workerd" and len(seen) > 10:
            raise CalledProcessError(1, "workerd")
        return taken(1)[0]

    measured = measure([ECHO], 2, 1, take)
    all_implementations = list(ECHO.implementations)
    assert seen[: len(all_implementations)] == all_implementations
    assert seen[len(all_implementations) :] == [
        c for c in all_implementations if c != "picows on asyncio"
    ]
    assert measured.left_out[ECHO.name].keys() == {"picows on asyncio", "workerd"}
    assert measured.implementations(ECHO) == [
        c for c in all_implementations if c not in {"picows on asyncio", "workerd"}
    ]


@pytest.mark.parametrize(
    ("ratios", "slower"),
    [
        ([0.9, 0.9, 0.9, 0.9], True),
        ([0.9, 0.9, 0.9, 1.1], False),
        ([0.9, 0.9, 0.9, 0.9, 1.1], True),
        ([0.99, 0.99, 0.99, 0.99], False),
    ],
)
def test_a_commit_is_slower_if_it_is_slower_in_three_of_four_rounds(
    ratios: list[float], *, slower: bool
) -> None:
    assert Comparison("burst", "ours", Spread(ratios)).is_slower(0.95) is slower

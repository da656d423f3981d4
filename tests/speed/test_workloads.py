"""Runs every workload in memory once, so that the benchmarks keep working."""

import pytest

from benchmarks.catalogue import SECTIONS
from benchmarks.in_memory import lifetime
from benchmarks.workload import VALUE, Workload, is_ours

IN_MEMORY = [
    *SECTIONS["In memory"],
    *SECTIONS["The cost of a pair"],
    *SECTIONS["Objects in memory"],
]
IN_PYTHON = [
    pytest.param(workload, implementation, id=f"{workload.name}: {implementation}")
    for workload in IN_MEMORY
    for implementation in workload.implementations
    if implementation != "workerd"
]


@pytest.mark.slow
@pytest.mark.parametrize(("workload", "implementation"), IN_PYTHON)
def test_a_workload_in_memory_runs(
    workload: Workload, implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifetime, "IDLE_PAIRS", 2000)
    value = workload.implementations[implementation](0.001)[VALUE]
    # An idle pair may fit into the memory that other tests have freed.
    assert value > 0 or workload.name.startswith("idle")


@pytest.mark.parametrize(
    "workload", [workload for workloads in SECTIONS.values() for workload in workloads]
)
def test_goals_and_yardsticks_name_existing_implementations(workload: Workload) -> None:
    assert any(map(is_ours, workload.implementations))
    assert {goal.theirs for goal in workload.goals} <= workload.implementations.keys()
    assert set(workload.yardsticks) < workload.implementations.keys()

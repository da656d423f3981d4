"""Every work in memory runs once, so that the benchmarks keep working."""

import pytest

from benchmarks.catalogue import SECTIONS
from benchmarks.in_memory import lifetime
from benchmarks.work import VALUE, Work, is_ours

IN_MEMORY = [
    *SECTIONS["In memory"],
    *SECTIONS["The cost of a pair"],
    *SECTIONS["Objects in memory"],
]
IN_PYTHON = [
    pytest.param(work, contestant, id=f"{work.name}: {contestant}")
    for work in IN_MEMORY
    for contestant in work.contestants
    if contestant != "workerd"
]


@pytest.mark.slow
@pytest.mark.parametrize(("work", "contestant"), IN_PYTHON)
def test_a_work_in_memory_runs(
    work: Work, contestant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifetime, "IDLE_PAIRS", 2000)
    value = work.contestants[contestant](0.001)[VALUE]
    # An idle pair may fit into the memory that other tests have freed.
    assert value > 0 or work.name.startswith("idle")


@pytest.mark.parametrize(
    "work", [work for works in SECTIONS.values() for work in works]
)
def test_goals_and_yardsticks_name_existing_contestants(work: Work) -> None:
    assert any(map(is_ours, work.contestants))
    assert {goal.theirs for goal in work.goals} <= work.contestants.keys()
    assert set(work.yardsticks) < work.contestants.keys()

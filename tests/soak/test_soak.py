"""A short soak test, and tests of its report. `nox -s soak` runs a long one."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
from engines import ENGINES

from soak.numbers import Numbers, what_is_left

TESTS = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_g10_hundreds_of_connections_leave_nothing_behind(engine: str) -> None:
    options = ["--seconds", "2", "--seed", "1", "--engine", engine]
    done = subprocess.run(
        [sys.executable, "-m", "soak", *options],
        env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS / 'helpers'}"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


NUMBERS = Numbers({"socket": 4}, {"main": 1}, 0, 100_000, 50 * 2**20)


def test_a_report_without_differences_has_no_faults() -> None:
    assert what_is_left(NUMBERS, NUMBERS, NUMBERS) == []


@pytest.mark.parametrize(
    ("last", "complaint"),
    [
        ({"descriptors": {"socket": 5}}, "descriptors: {'socket': 1} too many"),
        ({"tasks": {}}, "tasks: {} too many, {'main': 1} too few"),
        ({"halves": 2}, "halves: 2 are left"),
        ({"blocks": 105_000}, "memory: 5000 blocks more"),
        ({"memory": 70 * 2**20}, "memory: 20971520 bytes more"),
    ],
)
def test_a_report_names_what_is_left(last: dict[str, Any], complaint: str) -> None:
    after = attrs.evolve(NUMBERS, **last)
    (said,) = what_is_left(NUMBERS, NUMBERS, after)
    assert said.startswith(complaint)

"""Random programs of many halves keep the guarantees, under any order of the tasks."""

from hypothesis import given, settings
from random_programs import PROGRAMS, Program, Run


@settings(max_examples=250, deadline=None, derandomize=True)
@given(PROGRAMS)
def test_random_programs_keep_the_guarantees(program: Program) -> None:
    for seed in range(4):
        Run(program).run(seed)

"""Runs the soak test: ``python -m soak [--seconds N] [--seed N] [--engine NAME]``."""

import argparse
import faulthandler
import random
import sys
import warnings
from typing import Final

import trio
from engines import ENGINES, using

from soak.driver import soak
from soak.report import Report

DEFAULT_SECONDS: Final = 120.0
OVERTIME: Final = 90.0
"""Seconds after the planned end at which a run that hangs is stopped."""
MAX_SHOWN: Final = 20


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0])
    arguments = parser.parse_args()
    given = f"--seconds {arguments.seconds:g} --seed {arguments.seed}"
    print(f"{given} --engine {arguments.engine}", flush=True)
    report = Report()
    warnings.simplefilter("error")
    faulthandler.dump_traceback_later(arguments.seconds + OVERTIME, exit=True)
    sys.unraisablehook = report.note
    with using(arguments.engine):
        trio.run(soak, arguments.seconds, arguments.seed, report)
    print(report.text())
    if report.wrong:
        shown = "\n".join(report.wrong[:MAX_SHOWN])
        sys.exit(f"\nThe soak test has found {len(report.wrong)} faults:\n{shown}")


if __name__ == "__main__":
    main()

"""``python -m benchmarks [WORKLOAD ...] [--rounds N] [--quick] [--json FILE]``."""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Final

from . import results
from .catalogue import SECTIONS, WORKLOADS
from .machine import wait_for_calm
from .network.load import compiled
from .plot import plot
from .results import Results
from .rounds import measure
from .sample import take_sample
from .table import facts, markdown, remarks, rows
from .workload import Sample, Workload

_SECONDS: Final = 1.0
_ROUNDS: Final = 5
_QUICK_SECONDS: Final = 0.2
_QUICK_ROUNDS: Final = 2
_DOCS: Final = Path(__file__).parents[1] / "docs"


def main() -> None:
    options = _options()
    if options.show is not None:
        measured = results.load(options.show)
    else:
        chosen = [WORKLOADS[name] for name in WORKLOADS if name in options.workloads]
        take = take_sample if options.calm is None else partial(_take, options.calm)
        with compiled():
            measured = measure(chosen, options.rounds, options.seconds, take)
    _print(measured)
    if options.json is not None:
        results.save(measured, options.json)
    if options.plot is not None:
        options.plot.write_text(plot(measured))
    sys.exit(_failed(measured))


def _take(
    calm: float, workload: Workload, implementation: str, seconds: float
) -> Sample:
    wait_for_calm(calm)
    return take_sample(workload, implementation, seconds)


def _print(measured: Results) -> None:
    print(facts(measured))
    for section, workloads in SECTIONS.items():
        shown = [workload for workload in workloads if measured.ours(workload)]
        if shown:
            print(f"\n## {section}")
        for workload in shown:
            print(f"\n### {workload.name}: {workload.title}\n")
            print(markdown(rows(measured, workload)), "\n")
            print(*remarks(measured, workload), sep="\n")


def _failed(measured: Results) -> str | None:
    """Return an error message if a workload has no result of trio-wspair.

    The other implementations may fail.
    """
    done = [name for name in measured.samples if measured.ours(WORKLOADS[name])]
    failed = sorted(measured.samples.keys() - set(done))
    if not failed:
        return None
    return f"trio-wspair has no result for {', '.join(failed)}: the reasons are above"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    add = parser.add_argument
    names = ", ".join(WORKLOADS)
    add("workloads", nargs="*", metavar="WORKLOAD", help=names, default=[])
    add(
        "--rounds",
        type=int,
        metavar="N",
        help=f"default: {_ROUNDS}, with --quick {_QUICK_ROUNDS}",
    )
    add(
        "--seconds",
        type=float,
        metavar="N",
        help="the approximate duration of a sample; "
        f"default: {_SECONDS}, with --quick {_QUICK_SECONDS}",
    )
    add(
        "--calm",
        type=float,
        metavar="CORES",
        help="before each sample, wait until other processes use fewer cores than "
        "this, such as 0.3",
    )
    add(
        "--quick",
        action="store_true",
        help="check that the benchmarks run; the results are not reliable",
    )
    add("--json", type=Path, metavar="FILE", help="write every sample to this file")
    add("--plot", type=Path, metavar="FILE.svg", help="draw the ratios")
    add(
        "--show",
        type=Path,
        metavar="FILE",
        help="show the results in a file written with --json, without measuring",
    )
    add(
        "--record",
        action="store_true",
        help="write docs/speed.json and docs/speed.svg",
    )
    options = parser.parse_args()
    if unknown := set(options.workloads) - WORKLOADS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {names}")
    options.workloads = options.workloads or list(WORKLOADS)
    options.rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    options.seconds = options.seconds or (_QUICK_SECONDS if options.quick else _SECONDS)
    if options.record:
        options.json = _DOCS / "speed.json"
        options.plot = _DOCS / "speed.svg"
    return options


if __name__ == "__main__":
    main()

"""``python -m benchmarks [WORK ...] [--rounds N] [--quick] [--json FILE]``."""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Final

from . import results
from .catalogue import SECTIONS, WORKS
from .machine import wait_for_calm
from .network.load import compiled
from .plot import plot
from .results import Results
from .rounds import measure
from .sample import take_sample
from .table import facts, markdown, remarks, rows
from .work import Sample, Work

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
        chosen = [work for name, work in WORKS.items() if name in options.works]
        take = take_sample if options.calm is None else partial(_take, options.calm)
        with compiled():
            measured = measure(chosen, options.rounds, options.seconds, take)
    _print(measured)
    if options.json is not None:
        results.save(measured, options.json)
    if options.plot is not None:
        options.plot.write_text(plot(measured))
    sys.exit(_failed(measured))


def _take(calm: float, work: Work, contestant: str, seconds: float) -> Sample:
    wait_for_calm(calm)
    return take_sample(work, contestant, seconds)


def _print(measured: Results) -> None:
    print(facts(measured))
    for section, works in SECTIONS.items():
        shown = [work for work in works if measured.ours(work)]
        if shown:
            print(f"\n## {section}")
        for work in shown:
            print(f"\n### {work.name}: {work.title}\n")
            print(markdown(rows(measured, work)), "\n")
            print(*remarks(measured, work), sep="\n")


def _failed(measured: Results) -> str | None:
    """Return the works without a result of ours: an error, while others may fail."""
    done = [name for name in measured.samples if measured.ours(WORKS[name])]
    failed = sorted(measured.samples.keys() - set(done))
    return f"no result of ours: {', '.join(failed)}" if failed else None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    add = parser.add_argument
    add("works", nargs="*", metavar="WORK", help=", ".join(WORKS), default=[])
    add("--rounds", type=int, metavar="N", help=f"{_ROUNDS}, quick: {_QUICK_ROUNDS}")
    add("--seconds", type=float, metavar="N", help="about how long a sample takes")
    add(
        "--calm",
        type=float,
        metavar="CORES",
        help="wait until other processes use fewer, such as 0.3",
    )
    add(
        "--quick",
        action="store_true",
        help="only try whether it works; the results are not reliable",
    )
    add("--json", type=Path, metavar="FILE", help="write every sample")
    add("--plot", type=Path, metavar="FILE.svg", help="draw the ratios")
    add("--show", type=Path, metavar="FILE", help="measure nothing, show a JSON file")
    add("--record", action="store_true", help="write docs/speed.json and speed.svg")
    options = parser.parse_args()
    if unknown := set(options.works) - WORKS.keys():
        parser.error(f"unknown work: {', '.join(sorted(unknown))}")
    options.works = options.works or list(WORKS)
    options.rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    options.seconds = options.seconds or (_QUICK_SECONDS if options.quick else _SECONDS)
    if options.record:
        options.json = _DOCS / "speed.json"
        options.plot = _DOCS / "speed.svg"
    return options


if __name__ == "__main__":
    main()

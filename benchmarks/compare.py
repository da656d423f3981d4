"""Compares two commits: ``python -m benchmarks.compare COMMIT [COMMIT]``.

Both run the current benchmarks on this machine, in turns. Each round gives the ratio of
their rates per second of CPU time. The second commit is slower at a workload if the
ratio is below the threshold in three of four rounds.
"""

import argparse
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Final

import attrs

from .catalogue import WORKLOADS
from .network.load import compiled
from .results import Spread
from .sample import take_sample
from .table import markdown, number
from .workload import PER_CPU_SECOND, MissingError, Workload, is_ours

__all__ = ("Comparison",)

_HERE: Final = Path(__file__).parent
_PACKAGE: Final = "trio_wspair"
_RATES: Final = [
    *("burst", "ping-pong", "fan-out", "broadcast-in-memory", "iteration", "receive"),
    *("large", "churn-1", "churn-100", "echo-1", "echo-32", "echo-100", "echo-large"),
]


@attrs.frozen
class Comparison:
    """The speed of the second commit at a workload, as a ratio to the first."""

    workload: str
    ours: str
    ratios: Spread

    def is_slower(self, threshold: float) -> bool:
        """Return whether the upper quartile is below the threshold."""
        return quantiles(self.ratios.values, n=4, method="inclusive")[2] < threshold


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder, compiled():
        roots = [
            _check_out(commit, Path(folder) / side)
            for commit, side in ((options.before, "before"), (options.after, "after"))
        ]
        workloads = [WORKLOADS[name] for name in options.workloads or _RATES]
        taken = _compare(workloads, roots, options.rounds, options.seconds)
    slower = [c for c in taken if c.is_slower(options.threshold)]
    print(
        f"The speed of {options.after} as a ratio to {options.before}, by CPU time:\n"
    )
    head = ["workload", "implementation", "median", "lowest to highest", ""]
    print(markdown([head, *(_row(c, slower) for c in taken)]))
    sys.exit(1 if slower or not taken else 0)


def _check_out(commit: str, root: Path) -> Path:
    """Make a folder with the library of a commit and the current benchmarks."""
    archive = subprocess.run(
        ["git", "-C", str(_HERE.parent), "archive", commit, _PACKAGE],
        stdout=subprocess.PIPE,
        check=False,
    )
    if archive.returncode:
        sys.exit(2)  # git has printed the reason.
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(root, filter="data")
    shutil.copytree(_HERE, root / _HERE.name)
    return root


def _compare(
    workloads: Sequence[Workload], roots: Sequence[Path], rounds: int, seconds: float
) -> list[Comparison]:
    todo = [
        (workload, ours)
        for workload in workloads
        for ours in filter(is_ours, workload.implementations)
    ]
    ratios: dict[tuple[str, str], list[float]] = {}
    left_out: set[tuple[str, str]] = set()
    for turn in range(rounds):
        print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
        for workload, ours in todo:
            key = workload.name, ours
            if key in left_out:
                continue
            measure = partial(_rate, workload, ours, seconds)
            try:  # The order changes in each round, so that it gives no advantage.
                rates = {root: measure(root) for root in roots[:: (-1) ** turn]}
            except (MissingError, subprocess.SubprocessError) as error:
                print(f"left out: {workload.name}, {ours} ({error})", file=sys.stderr)
                left_out.add(key)
                continue
            before, after = (rates[root] for root in roots)
            ratios.setdefault(key, []).append(after / before)
    return [Comparison(*key, Spread(taken)) for key, taken in ratios.items()]


def _rate(workload: Workload, ours: str, seconds: float, root: Path) -> float:
    return take_sample(workload, ours, seconds, root)[PER_CPU_SECOND]


def _row(comparison: Comparison, slower: Sequence[Comparison]) -> Sequence[str]:
    ratios = comparison.ratios
    return (
        comparison.workload,
        comparison.ours,
        f"**{number(ratios.median)}**",
        f"{number(ratios.least)} to {number(ratios.most)}",
        "slower" if comparison in slower else "",
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s bench-compare --")
    add = parser.add_argument
    add("before", metavar="BEFORE", help="a commit")
    add("after", metavar="AFTER", nargs="?", default="HEAD", help="default: HEAD")
    add(
        "--workloads",
        nargs="+",
        metavar="WORKLOAD",
        choices=_RATES,
        help=f"default: all of {', '.join(_RATES)}",
    )
    add("--rounds", type=int, metavar="N", default=7, help="default: 7")
    add(
        "--seconds",
        type=float,
        metavar="N",
        default=0.5,
        help="the approximate duration of a sample; default: 0.5",
    )
    add(
        "--threshold",
        type=float,
        metavar="RATIO",
        default=0.95,
        help="a commit with a lower ratio is slower; default: 0.95",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()

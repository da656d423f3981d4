"""Two commits, side by side: ``python -m benchmarks.compare COMMIT [COMMIT]``.

Both run the current benchmarks on this machine, in turns. What counts is the ratio of
the work done in a second of CPU time, round by round. A
commit is slower if in three of four rounds its ratio is below the threshold.
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

from .catalogue import WORKS
from .network.load import compiled
from .results import Spread
from .sample import take_sample
from .table import markdown, number
from .work import PER_CPU_SECOND, MissingError, Work, is_ours

__all__ = ("Comparison",)

_HERE: Final = Path(__file__).parent
_PACKAGE: Final = "trio_wspair"
_RATES: Final = [
    *("burst", "ping-pong", "fan-out", "broadcast-in-memory", "iteration", "receive"),
    *("large", "churn-1", "churn-100", "echo-1", "echo-32", "echo-100", "echo-large"),
]


@attrs.frozen
class Comparison:
    """How many times as fast the second commit is at a work, round by round."""

    work: str
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
        works = [WORKS[name] for name in options.works or _RATES]
        taken = _compare(works, roots, options.rounds, options.seconds)
    slower = [c for c in taken if c.is_slower(options.threshold)]
    print(f"{options.after} as fast as {options.before}, by CPU time:\n")
    head = ["work", "of", "median", "lowest to highest", ""]
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
    works: Sequence[Work], roots: Sequence[Path], rounds: int, seconds: float
) -> list[Comparison]:
    todo = [
        (work, ours) for work in works for ours in filter(is_ours, work.contestants)
    ]
    ratios: dict[tuple[str, str], list[float]] = {}
    left_out: set[tuple[str, str]] = set()
    for turn in range(rounds):
        print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
        for work, ours in todo:
            key = work.name, ours
            if key in left_out:
                continue
            measure = partial(_rate, work, ours, seconds)
            try:  # The order changes in each round, so that it gives no advantage.
                rates = {root: measure(root) for root in roots[:: (-1) ** turn]}
            except (MissingError, subprocess.SubprocessError) as error:
                print(f"left out: {work.name}, {ours} ({error})", file=sys.stderr)
                left_out.add(key)
                continue
            before, after = (rates[root] for root in roots)
            ratios.setdefault(key, []).append(after / before)
    return [Comparison(*key, Spread(taken)) for key, taken in ratios.items()]


def _rate(work: Work, ours: str, seconds: float, root: Path) -> float:
    return take_sample(work, ours, seconds, root)[PER_CPU_SECOND]


def _row(comparison: Comparison, slower: Sequence[Comparison]) -> Sequence[str]:
    ratios = comparison.ratios
    return (
        comparison.work,
        comparison.ours,
        f"**{number(ratios.median)}**",
        f"{number(ratios.least)} to {number(ratios.most)}",
        "slower" if comparison in slower else "",
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s bench-compare --")
    add = parser.add_argument
    add("before", metavar="COMMIT")
    add("after", metavar="COMMIT", nargs="?", default="HEAD", help="otherwise HEAD")
    add("--works", nargs="+", metavar="WORK", choices=_RATES, help=", ".join(_RATES))
    add("--rounds", type=int, default=7)
    add("--seconds", type=float, default=0.5, help="how long a sample takes, about")
    add("--threshold", type=float, default=0.95, help="a ratio that is still good")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""``python -m benchmarks [--rounds N] [--only NAME] [--json FILE] [--quick]``."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from .sample import SECTIONS, take_sample
from .table import Samples, table
from .work import Sample, Work

_SECONDS: Final = 0.5
_QUICK_SECONDS: Final = 0.1
_WORKS: Final = [work for works in SECTIONS.values() for work in works]


def main() -> None:
    arguments = _arguments()
    chosen = [w for w in _WORKS if not arguments.only or w.name in arguments.only]
    facts = _facts()
    samples = _measure(chosen, arguments.rounds, arguments.seconds)
    print(", ".join(f"{name} {fact}" for name, fact in facts.items()) + ".\n")
    print(f"Medians of {arguments.rounds} rounds. A ratio above 1: ours is better.")
    for section, works in SECTIONS.items():
        results = [(work, samples[work.name]) for work in works if work in chosen]
        if results:
            print(f"\n### {section}\n\n{table(results)}")
    if arguments.json is not None:
        content = {"facts": facts, "samples": samples}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


def _measure(works: list[Work], rounds: int, seconds: float) -> Mapping[str, Samples]:
    """Take all samples, contestants and works in turn."""
    samples: dict[str, dict[str, list[Sample]]] = {
        work.name: {name: [] for name in work.contestants} for work in works
    }
    for number in range(rounds):
        for work in works:
            print(f"round {number + 1}: {work.name}", file=sys.stderr)
            for contestant, taken in samples[work.name].items():
                taken.append(take_sample(work, contestant, seconds))
    return samples


def _facts() -> dict[str, str]:
    """Return what the numbers depend on."""
    packages = ["trio-wspair", "trio", "trio-websocket", "wsproto"]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        platform.python_implementation(): platform.python_version(),
        **{package: version(package) for package in packages},
        "on": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--rounds", type=int, help="5, or 2 with --quick")
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        choices=[work.name for work in _WORKS],
        help=f"one of {', '.join(work.name for work in _WORKS)}; may be repeated",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample")
    parser.add_argument("--quick", action="store_true", help="a glance, no results")
    arguments = parser.parse_args()
    arguments.seconds = _QUICK_SECONDS if arguments.quick else _SECONDS
    if arguments.rounds is None:
        arguments.rounds = 2 if arguments.quick else 5
    return arguments


if __name__ == "__main__":
    main()

"""One sample in a process of its own: ``python -m benchmarks.sample WORK WHO SECONDS``.

It prints what was measured as JSON.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from . import in_memory, loopback, memory
from .work import Sample, Work

__all__ = ("SECTIONS", "take_sample")

SECTIONS: Final[dict[str, tuple[Work, ...]]] = {
    "In memory": in_memory.WORKS,
    "The cost of a pair": memory.WORKS,
    "Over loopback": loopback.WORKS,
}
_ROOT: Final = Path(__file__).parents[1]


def take_sample(work: Work, contestant: str, seconds: float) -> Sample:
    """Measure in a fresh process."""
    arguments = [work.name, contestant, str(seconds)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sample", *arguments],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    sample: Sample = json.loads(done.stdout)
    return sample


def _main(name: str, contestant: str, seconds: str) -> None:
    works = {work.name: work for works in SECTIONS.values() for work in works}
    print(json.dumps(works[name].contestants[contestant](float(seconds))))


if __name__ == "__main__":
    _main(*sys.argv[1:])

"""One sample in this process: ``python -m benchmarks.sample WORK CONTESTANT SECONDS``.

It prints what was measured as JSON, or what is missing.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from .catalogue import WORKS
from .machine import Watch, allow_many_files
from .work import MissingError, Sample, Work

__all__ = ("OTHERS", "take_sample")

OTHERS: Final = "others"
"""In each sample: the number of cores that other processes kept busy meanwhile."""

_MISSING: Final = "missing"
_ROOT: Final = Path(__file__).parents[1]
_PATIENCE: Final = 300


def take_sample(
    work: Work, contestant: str, seconds: float, root: Path = _ROOT
) -> Sample:
    """Measure in a fresh process that finds trio-wspair and this package in `root`.

    Raises:
        MissingError: The contestant is not installed.
        subprocess.SubprocessError: It has failed.
    """
    arguments = [work.name, contestant, str(seconds)]
    watch = Watch()
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.sample", *arguments],
        cwd=root,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            printed, _ = process.communicate(timeout=_PATIENCE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its servers, too
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, "benchmarks.sample")
    result = json.loads(printed)
    if _MISSING in result:
        raise MissingError(result[_MISSING])
    return {**result, OTHERS: watch.others()}


def _main(name: str, contestant: str, seconds: str) -> None:
    allow_many_files()
    try:
        print(json.dumps(WORKS[name].contestants[contestant](float(seconds))))
    except MissingError as error:
        print(json.dumps({_MISSING: str(error)}))


if __name__ == "__main__":
    _main(*sys.argv[1:])

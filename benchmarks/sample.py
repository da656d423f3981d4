"""Takes one sample in this process, and prints it as JSON, or what is missing.

``python -m benchmarks.sample WORKLOAD IMPLEMENTATION SECONDS``
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from .catalogue import WORKLOADS
from .machine import Watch, allow_many_files
from .workload import MissingError, Sample, Workload

__all__ = ("OTHERS", "take_sample")

OTHERS: Final = "others"
"""In each sample: the number of cores that other processes kept busy during it."""

_MISSING: Final = "missing"
_ROOT: Final = Path(__file__).parents[1]
_PATIENCE: Final = 300


def take_sample(
    workload: Workload, implementation: str, seconds: float, root: Path = _ROOT
) -> Sample:
    """Take a sample in a new process, which imports trio-wspair from `root`.

    The folder `root` contains a copy of this package, too.

    Raises:
        MissingError: The implementation is not installed.
        subprocess.SubprocessError: The process has failed, or takes too long.
    """
    arguments = [workload.name, implementation, str(seconds)]
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


def _main(name: str, implementation: str, seconds: str) -> None:
    allow_many_files()
    try:
        print(
            json.dumps(WORKLOADS[name].implementations[implementation](float(seconds)))
        )
    except MissingError as error:
        print(json.dumps({_MISSING: str(error)}))


if __name__ == "__main__":
    _main(*sys.argv[1:])

"""Facts about the machine and its processes, from `/proc`: this needs Linux."""

import os
import platform
import resource
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import attrs

from . import installed

__all__ = (
    "Watch",
    "allow_many_files",
    "cpu_seconds",
    "facts",
    "resident_bytes",
    "wait_for_calm",
)

_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
_PATIENCE: Final = 60
_GLANCE: Final = 0.25
_PACKAGES: Final = ("trio", "trio-websocket", "wsproto", "websockets", "picows")


def _busy_seconds() -> float:
    with Path("/proc/stat").open() as lines:
        user, nice, system, _idle, _iowait, irq, softirq, steal = (
            int(ticks) for ticks in lines.readline().split()[1:9]
        )
    return (user + nice + system + irq + softirq + steal) * _TICK


def _own_seconds() -> float:
    processes = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    usages = map(resource.getrusage, processes)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@attrs.frozen
class Watch:
    """Measures how busy other processes keep the machine from now on."""

    _busy: float = attrs.field(factory=_busy_seconds, init=False)
    _own: float = attrs.field(factory=_own_seconds, init=False)
    _began: float = attrs.field(factory=time.perf_counter, init=False)

    def others(self) -> float:
        """Return how many cores were kept busy, by all processes but this one.

        The children of this process are left out as well, if they have ended and were
        waited for.
        """
        busy = _busy_seconds() - self._busy - (_own_seconds() - self._own)
        return max(0.0, busy / (time.perf_counter() - self._began))


def wait_for_calm(cores: float) -> None:
    """Wait until other processes keep fewer cores busy, for a minute at most."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        watch = Watch()
        time.sleep(_GLANCE)
        if watch.others() < cores:
            return


def cpu_seconds(process: int) -> float:
    """Return the CPU time of a process, of all its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK


def resident_bytes(process: int) -> int:
    """Return how much memory a process holds."""
    pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def allow_many_files() -> None:
    """Let this process and its children open as many files as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def facts() -> dict[str, str]:
    """Return what the results depend on: the date, the machine and the versions."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        platform.python_implementation(): platform.python_version(),
        **{package: found for package in _PACKAGES if (found := _version(package))},
        **installed.versions(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

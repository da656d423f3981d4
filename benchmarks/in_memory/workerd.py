"""Pairs in workerd, with both halves in one isolate.

Clocks do not advance inside a worker. So the duration of a request is measured here,
and the duration of a short request is subtracted from it.
"""

import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection
from typing import Final
from urllib.parse import urlencode

from benchmarks import processes
from benchmarks.machine import cpu_seconds, resident_bytes
from benchmarks.workload import PER_CPU_SECOND, VALUE, Measure, Sample

from .lifetime import IDLE_PAIRS, WARM_PAIRS

__all__ = ("idle_in_workerd", "in_workerd")

_PATIENCE: Final = 120
_SETTLING: Final = 0.3

Ask = Callable[[int], None]


def _asking(server: processes.Server, workload: str, query: Mapping[str, int]) -> Ask:
    connection = HTTPConnection(processes.HOST, server.port, timeout=_PATIENCE)

    def ask(n: int) -> None:
        connection.request("GET", f"/{workload}?{urlencode({**query, 'n': n})}")
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise RuntimeError(f"workerd answered {response.status}: {text!r}")

    return ask


def in_workerd(workload: str, step: int, **query: int) -> Measure:
    """Return a measure of a workload in workerd, in multiples of `step` operations."""

    def measure(seconds: float) -> Sample:
        with processes.run_server(processes.workerd) as server:
            ask = _asking(server, workload, query)
            ask(step)  # Warm up.
            n = _enough(ask, step, seconds)
            short, short_cpu = min(_timed(server, ask, step) for _ in range(3))
            spent, cpu = _timed(server, ask, n)
        done = n - step
        return {
            VALUE: done / (spent - short),
            PER_CPU_SECOND: done / max(cpu - short_cpu, 0.01),
        }

    return measure


def _enough(ask: Ask, step: int, seconds: float) -> int:
    """Return how many operations take about this many seconds."""
    steps = 1
    while True:
        start = time.perf_counter()
        ask(steps * step)
        spent = time.perf_counter() - start
        if spent > seconds / 4:
            return max(2, round(steps * seconds / spent)) * step
        steps *= 2


def _timed(server: processes.Server, ask: Ask, n: int) -> tuple[float, float]:
    cpu, start = cpu_seconds(server.process), time.perf_counter()
    ask(n)
    return time.perf_counter() - start, cpu_seconds(server.process) - cpu


def idle_in_workerd(_seconds: float) -> Sample:
    with processes.run_server(processes.workerd) as server:
        ask = _asking(server, "idle", {})
        ask(WARM_PAIRS)
        before = resident_bytes(server.process)
        ask(IDLE_PAIRS)
        time.sleep(_SETTLING)
        return {VALUE: (resident_bytes(server.process) - before) / IDLE_PAIRS}

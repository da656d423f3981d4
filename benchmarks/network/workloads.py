"""The workloads over loopback, their implementations and goals."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from benchmarks.machine import resident_bytes
from benchmarks.processes import Command, Server, run_server
from benchmarks.workload import VALUE, Goal, Quantity, Sample, Workload

from .implementations import (
    BROADCAST,
    CEILING,
    ECHO,
    ON_TRIO_WEBSOCKET,
    TRIO_WEBSOCKET,
    WEBSOCKETS_ASYNCIO,
    WEBSOCKETS_TRIO,
    WORKERD,
)
from .load import P99, Load, open_others, run_idle_load, run_load

__all__ = ("IDLE", "WORKLOADS", "memory", "server_workload", "under_load")

MESSAGES: Final = Quantity("messages/s")
CONNECTIONS: Final = Quantity("connections/s")
BYTES: Final = Quantity("bytes/connection", more_is_better=False)
MICROSECONDS: Final = Quantity("µs, 99th percentile", more_is_better=False)

IDLE: Final = 2000
_SETTLING: Final = 0.3

On = Callable[[Server, float], Sample]
"""Measures a running server for about this many seconds."""


def _measure(command: Command, on: On, seconds: float) -> Sample:
    with run_server(command) as server:
        return on(server, seconds)


def server_workload(
    name: str,
    title: str,
    quantity: Quantity,
    commands: Mapping[str, Command],
    on: On,
    *,
    goals: tuple[Goal, ...] = (),
    limit: float | None = None,
) -> Workload:
    """Return a workload whose samples each start a server."""
    implementations = {
        implementation: partial(_measure, command, on)
        for implementation, command in commands.items()
    }
    yardsticks = tuple(name for name in commands if name == CEILING)
    return Workload(name, title, quantity, implementations, goals, limit, yardsticks)


def under_load(load: Load) -> On:
    """Return a measure of the rate of a server."""
    return lambda server, seconds: run_load(server, load, seconds)


def memory(server: Server, _seconds: float) -> Sample:
    """Return the memory per idle connection; each was used once."""
    with run_idle_load(server, Load("idle", IDLE, extra=50)) as process:
        time.sleep(_SETTLING)
        before = resident_bytes(server.process)
        open_others(process)
        time.sleep(_SETTLING)
        return {VALUE: (resident_bytes(server.process) - before) / IDLE}


def _latency(server: Server, seconds: float) -> Sample:
    """Return the latency at half the rate that this server can answer."""
    most = run_load(server, Load("echo", 100, extra=1), seconds / 2)
    sample = run_load(server, Load("latency", 100, extra=most[VALUE] / 2), seconds)
    return {**sample, VALUE: sample[P99]}


REAL_SERVERS: Final = {name: ECHO[name] for name in ECHO if name != CEILING}

WORKLOADS: Final = (
    server_workload(
        "echo-1",
        "echo, 10 connections, 1 message in flight",
        MESSAGES,
        ECHO,
        under_load(Load("echo", 10, extra=1)),
        goals=(
            Goal(TRIO_WEBSOCKET, 1, ON_TRIO_WEBSOCKET),
            Goal(TRIO_WEBSOCKET, 2.5),
            Goal(WORKERD, 1),
        ),
    ),
    server_workload(
        "echo-32",
        "echo, 10 connections, 32 messages in flight on each",
        MESSAGES,
        ECHO,
        under_load(Load("echo", 10, extra=32)),
        goals=(
            Goal(TRIO_WEBSOCKET, 2, ON_TRIO_WEBSOCKET),
            Goal(TRIO_WEBSOCKET, 6),
            Goal(WORKERD, 3),
        ),
    ),
    server_workload(
        "echo-100",
        "echo, 100 connections, 1 message in flight",
        MESSAGES,
        ECHO,
        under_load(Load("echo", 100, extra=1)),
        goals=(Goal(TRIO_WEBSOCKET, 3.5), Goal(WORKERD, 1)),
    ),
    server_workload(
        "echo-large",
        "echo of 64 KiB, 10 connections, 1 message in flight",
        MESSAGES,
        ECHO,
        under_load(Load("echo", 10, bytes=2**16, extra=1)),
        goals=(Goal(WORKERD, 1),),
    ),
    server_workload(
        "latency",
        "latency at half load, 100 connections",
        MICROSECONDS,
        REAL_SERVERS,
        _latency,
        goals=(Goal(WORKERD, 1 / 1.5),),
    ),
    server_workload(
        "connections",
        "opened, used once and closed, 10 at a time",
        CONNECTIONS,
        ECHO,
        under_load(Load("churn", 10)),
        goals=(Goal(WEBSOCKETS_TRIO, 1),),
    ),
    server_workload(
        "idle-connections",
        f"idle connections, {IDLE:,} of them",
        BYTES,
        REAL_SERVERS,
        memory,
        limit=12_000,
    ),
    server_workload(
        "broadcast",
        "broadcast of 1 KiB to 1,000, one of which never reads",
        MESSAGES,
        BROADCAST,
        under_load(Load("broadcast", 999, bytes=1024, extra=1)),
        goals=(Goal(WEBSOCKETS_ASYNCIO, 1),),
    ),
)

"""Compiles and runs the load generator, a program in C."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import attrs

from benchmarks.machine import cpu_seconds
from benchmarks.processes import Server
from benchmarks.workload import CLIENT, PER_CPU_SECOND, VALUE, MissingError, Sample

__all__ = (
    "P99",
    "Load",
    "compiled",
    "load_program",
    "open_others",
    "run_idle_load",
    "run_load",
)

P50: Final = "p50"
P99: Final = "p99"
"""In samples: latencies in microseconds."""

_PROGRAM: Final = "BENCH_LOAD"
_SOURCES: Final = Path(__file__).parent / "generator"


@contextmanager
def compiled() -> Generator[None]:
    """Compile the load generator for the block, if a compiler is installed."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "load"
        sources = sorted(map(str, _SOURCES.glob("*.c")))
        command = [compiler, "-O2", "-o", str(program), *sources, "-lm"]
        subprocess.run(command, check=True)
        os.environ[_PROGRAM] = str(program)
        yield


def load_program() -> str:
    program = os.environ.get(_PROGRAM)
    if program is None:
        raise MissingError("the load generator needs a C compiler")
    return program


@attrs.frozen
class Load:
    """The arguments of the load generator: see `main.c`."""

    workload: str
    connections: int
    bytes: int = 64
    extra: float = 0
    """The last argument: a window, a rate, or a number of slow or warm connections."""

    def command(self, server: Server, seconds: float) -> list[str]:
        kind = "text" if self.bytes < 2**16 else "binary"
        what = [self.workload, server.port, seconds, kind, self.bytes, self.connections]
        return [load_program(), *map(str, what), str(self.extra)]


def run_load(server: Server, load: Load, seconds: float) -> Sample:
    """Return the rate, and the CPU time of the load generator and of the server."""
    with _started(load.command(server, seconds)) as process:
        _expect(process, "measuring")
        before = cpu_seconds(server.process)
        result = json.loads(_line(process))
        cpu = cpu_seconds(server.process) - before
    done: int = result["done"]
    return {
        VALUE: done / result["seconds"],
        PER_CPU_SECOND: done / max(cpu, 0.01),
        CLIENT: result[CLIENT],
        P50: result[P50],
        P99: result[P99],
    }


@contextmanager
def run_idle_load(server: Server, load: Load) -> Generator["subprocess.Popen[str]"]:
    """Open the warm connections for the block; `open_others()` opens the others."""
    with _started(load.command(server, 1)) as process:
        _expect(process, "open")
        yield process


def open_others(process: "subprocess.Popen[str]") -> None:
    print(file=_pipe(process.stdin), flush=True)
    _expect(process, "open")


@contextmanager
def _started(command: list[str]) -> Generator["subprocess.Popen[str]"]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _expect(process: "subprocess.Popen[str]", word: str) -> None:
    said = _line(process)
    if said != f"{word}\n":
        raise RuntimeError(f"the load generator said {said!r} instead of {word!r}")


def _line(process: "subprocess.Popen[str]") -> str:
    line = _pipe(process.stdout).readline()
    if not line:
        raise RuntimeError("the load generator has failed")
    return line


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream

"""Runs a server in another process, during a block."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from . import installed
from .workload import MissingError

__all__ = ("SERVERS", "Command", "Server", "python", "run_server", "workerd")

HOST: Final = "127.0.0.1"
_PATIENCE: Final = 20
SERVERS: Final = Path(__file__).parent / "servers"

Command = Callable[[int], Sequence[str]]
"""Returns the command of a server, given its port."""


def python(module: str, *arguments: str) -> Command:
    """Return the command of one of the servers in Python."""
    program = [sys.executable, "-m", f"benchmarks.servers.{module}"]
    return lambda port: [*program, *arguments, str(port)]


def workerd(port: int) -> Sequence[str]:
    """Return the command of workerd, which serves all workloads on one port."""
    address = f"--socket-addr=http={HOST}:{port}"
    config = str(SERVERS / "workerd.capnp")
    return [installed.workerd(), "serve", config, address]


@attrs.frozen
class Server:
    """The port of a server, and the id of its process."""

    port: int
    process: int


@contextmanager
def run_server(command: Command) -> Generator[Server]:
    """Run a server during the block.

    Raises:
        MissingError: The server ended before it listened, probably because a package is
            not installed. The message is the last error in its output.
    """
    port = _free_port()
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(command(port), stdout=output, stderr=output) as process,
    ):
        try:
            if not _wait_until_it_listens(port, process):
                output.seek(0)
                lines = output.read().decode().strip().splitlines()
                lines = lines or ["the server ended without any output"]
                raise MissingError(next(filter(_is_error, reversed(lines)), lines[-1]))
            yield Server(port, process.pid)
        finally:
            process.kill()


def _is_error(line: str) -> bool:
    return "Error" in line


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_until_it_listens(port: int, process: "subprocess.Popen[bytes]") -> bool:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection((HOST, port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return True
    return False

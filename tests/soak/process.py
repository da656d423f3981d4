"""Starts and stops the server process, and asks it for its numbers."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio
import trustme
from engines import name_in_use

from soak.numbers import Numbers


@attrs.frozen
class Said:
    """The numbers that the server has reported."""

    numbers: Numbers
    endings: Counter[str]
    """How often its handlers have seen each kind of end of a connection."""
    accepted: int
    """How many halves its handlers have accepted."""
    logged: Counter[str]
    """How often it has logged each message."""
    unplanned: list[str]
    """The faults that it has found."""


@attrs.frozen
class ServerProcess:
    """The running process."""

    urls: dict[str, str]
    """The URLs of its ports, ``plain`` and ``secure``."""
    _process: trio.Process

    async def ask(self) -> Said:
        """Ask the server for its numbers."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(b"?")
        said = await _read_line(self._process)
        return Said(
            Numbers(**said["numbers"]),
            Counter(said["endings"]),
            said["accepted"],
            Counter(said["logged"]),
            said["unplanned"],
        )

    async def stop(self) -> None:
        """Stop the server, and wait until it has stopped."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()
        await self._process.wait()


async def _read_line(process: trio.Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        data = await process.stdout.receive_some()
        if not data:
            raise RuntimeError("the server process has ended")
        line += data
    answer: dict[str, Any] = json.loads(line)
    return answer


@asynccontextmanager
async def running_server(authority: trustme.CA) -> AsyncGenerator[ServerProcess]:
    """Run the server for the block, on the engine that is in use.

    The block has to stop it.

    Raises:
        CalledProcessError: The server has failed.
    """
    certificate = authority.issue_cert("127.0.0.1")
    with certificate.private_key_and_cert_chain_pem.tempfile() as path:
        command = [
            sys.executable,
            "-W",
            "error",
            "-m",
            "soak.server",
            path,
            name_in_use(),
        ]
        pipe = subprocess.PIPE
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(
                partial(trio.run_process, command, stdin=pipe, stdout=pipe)
            )
            yield ServerProcess(await _read_line(process), process)

"""Starts the programs that run the cases: kosoku, or the original, wstest.

Both write a report as HTML and as JSON.
"""

import json
import os
import shutil
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import STDOUT
from typing import Any, Final

import attrs
import trio

from .peers import AGENT
from .results import Verdicts, verdict_of

_END_SECONDS: Final = 30.0


class EngineError(Exception):
    """The program failed; the message names the file with its output."""


@attrs.frozen
class Kosoku:
    """A runner of the suite's own case files, for Python 3."""

    program: str = "kosoku"
    ends: bool = True
    """Whether the program ends after the last case of a client."""

    def fuzzing_client(self, url: str, out: Path, left_out: list[str]) -> list[str]:
        """Return the command that plays the cases with the server at `url`."""
        address = url.removeprefix("ws://").rstrip("/")
        excluded = [f"--exclude={pattern}" for pattern in left_out]
        return [self.program, *excluded, f"--outdir={out}", address]

    def fuzzing_server(self, url: str, out: Path, left_out: list[str]) -> list[str]:
        """Return the command that waits at `url` for a client."""
        return [*self.fuzzing_client(url, out, left_out), "--mode=fuzzingserver"]


@attrs.frozen
class Wstest:
    """The original runner, for Python 2.7."""

    program: str
    ends: bool = False

    def fuzzing_client(self, url: str, out: Path, left_out: list[str]) -> list[str]:
        """Return the command that plays the cases with the server at `url`."""
        server = {"agent": AGENT, "url": url}
        spec = self._spec({"servers": [server]}, out, left_out)
        return [self.program, "--mode=fuzzingclient", f"--spec={spec}"]

    def fuzzing_server(self, url: str, out: Path, left_out: list[str]) -> list[str]:
        """Return the command that waits at `url` for a client."""
        spec = self._spec({"url": url}, out, left_out)
        options = ["--mode=fuzzingserver", f"--spec={spec}", "--webport=0"]
        return [self.program, *options]

    @staticmethod
    def _spec(about: dict[str, Any], out: Path, left_out: list[str]) -> Path:
        spec = {
            **about,
            "outdir": str(out),
            "cases": ["*"],
            "exclude-cases": left_out,
            "exclude-agent-cases": {},
        }
        path = out / "spec.json"
        path.write_text(json.dumps(spec))
        return path


Engine = Kosoku | Wstest


async def fuzz_server(engine: Engine, url: str, out: Path, left_out: list[str]) -> None:
    """Run the cases against the server at `url`."""
    _make_empty(out)
    async with _running(engine.fuzzing_client(url, out, left_out), out) as process:
        await process.wait()


@asynccontextmanager
async def fuzzing_server(
    engine: Engine, out: Path, left_out: list[str]
) -> AsyncGenerator[str]:
    """Yield the URL to which a client has to connect during the block."""
    _make_empty(out)
    url = f"ws://127.0.0.1:{_free_port()}"
    async with _running(engine.fuzzing_server(url, out, left_out), out) as process:
        yield url
        if engine.ends:
            with trio.move_on_after(_END_SECONDS):
                await process.wait()


def read_verdicts(out: Path) -> Verdicts:
    """Return the verdicts in the report of the suite.

    Raises:
        EngineError: The program has written no report.
    """
    index = out / "index.json"
    if not index.exists():
        msg = f"the program has written no report; {out / 'log.txt'} may say why"
        raise EngineError(msg)
    (cases,) = json.loads(index.read_text("utf-8")).values()
    return {case: verdict_of(report) for case, report in cases.items()}


def _make_empty(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@asynccontextmanager
async def _running(command: list[str], out: Path) -> AsyncGenerator[trio.Process]:
    # Without PYTHONPATH, so that the program does not import modules of the tests.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    with (out / "log.txt").open("wb") as log:
        process = await trio.lowlevel.open_process(
            command, env=environment, stdout=log, stderr=STDOUT
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                # The program ends at once when it is terminated.
                with trio.CancelScope(shield=True):
                    await process.wait()

"""The command `trio-wspair`: started as a program, or called in this process."""

import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
from processes import read_to_end, running

from trio_wspair._command.main import main

COMMAND = (sys.executable, "-m", "trio_wspair")
HANDLER = """
from trio_wspair import Response, WebSocketPair

async def fetch(request):
    if not request.wants_websocket:
        return Response("version 1")
    client, server = WebSocketPair()
    server.add_event_listener("message", lambda event: server.send(event.data))
    server.accept()
    return Response(None, status=101, web_socket=client)

async def another(request):
    return Response("another")

number = 5
"""


def called(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Call the command in this process; return its exit status and its errors."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code, capsys.readouterr().err


def refused(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Call the command with wrong arguments; return its one line of error."""
    status, errors = called(*arguments, capsys=capsys)
    assert status == 2
    return line_in(errors)


def line_in(errors: str) -> str:
    """Return the only line of an error, without its prefix."""
    prefix, colon, text = errors.partition(": ")
    assert (prefix, colon, errors.count("\n")) == ("trio-wspair", ": ", 1), errors
    return text.rstrip("\n")


async def ran(
    *arguments: str,
    stdin: Any = b"",
    stdout: int | None = None,
    env: dict[str, str] | None = None,
) -> "subprocess.CompletedProcess[bytes]":
    """Run the command as a program to its end."""
    output: dict[str, Any] = (
        {"capture_stdout": True} if stdout is None else {"stdout": stdout}
    )
    with trio.fail_after(30):
        return await trio.run_process(
            [*COMMAND, *arguments],
            stdin=stdin,
            **output,
            capture_stderr=True,
            check=False,
            env=env,
        )


async def in_shell(
    script: str, *arguments: str
) -> "subprocess.CompletedProcess[bytes]":
    """Run a shell script in which ``"$@"`` is the command with these arguments."""
    with trio.fail_after(30):
        return await trio.run_process(
            ["bash", "-c", script, "bash", *COMMAND, *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )


@contextmanager
def pipe_without_reader() -> Generator[int]:
    """Give the writing end of a pipe whose reading end is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)


@asynccontextmanager
async def serving(*arguments: str) -> AsyncGenerator[tuple[trio.Process, str]]:
    """Run `trio-wspair serve` for a block; give the process and its WebSocket URL."""
    async with running(*COMMAND, "serve", "--port", "0", *arguments) as process:
        yield process, await read_url(process)
        process.terminate()
        with trio.fail_after(30):
            await process.wait()


async def read_url(process: trio.Process) -> str:
    """Wait until the server prints its URL; return it with the scheme of WebSockets."""
    assert process.stdout is not None
    text = ""
    with trio.fail_after(30):
        while (found := re.search(r"http(s?://\S+)", text)) is None:
            data = await process.stdout.receive_some()
            assert data, (text, await read_to_end(process.stderr))
            text += data.decode()
    return "ws" + found[1]

"""Programs that tests start: with the signals and input of a terminal.

A program inherits which signals are ignored. A shell that is not interactive ignores
SIGINT and SIGQUIT in what it starts by ``&`` (POSIX, XCU 2.11), and `nohup` ignores
SIGHUP; Python then has no `KeyboardInterrupt`. So the whole session is inside
`default_signals()` (see `conftest.py`), and every program that a test starts begins
with the default handlers.

For a program that a test talks to, signals, or waits for::

    async with running(sys.executable, "-m", "trio_wspair", "serve", name) as process:
        ...
        process.send_signal(signal.SIGINT)
        output, errors = await read_to_end(process.stdout), ...
        assert await process.wait() == 130

For one that runs to its end, use `trio.run_process()` or `subprocess.run()`. Pass a
`stdin`, as that of the tests may be closed; `running()` passes `subprocess.DEVNULL`.
"""

import signal
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import trio

_ENDS_A_PROGRAM = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def default_signals() -> Generator[None]:
    """Handle the signals that end a program as Python does in a terminal."""
    unblocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS_A_PROGRAM)
    ignored = [s for s in _ENDS_A_PROGRAM if signal.getsignal(s) == signal.SIG_IGN]
    for number in ignored:
        interrupt = number == signal.SIGINT
        handler = signal.default_int_handler if interrupt else signal.SIG_DFL
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)


@asynccontextmanager
async def running(*command: str, **options: Any) -> AsyncGenerator[trio.Process]:
    """Run a program for a block, and kill it at the end if it is still running.

    The options are those of `trio.run_process()`; by default the output goes to pipes,
    the input is empty, and any exit status is accepted.
    """
    options = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "check": False,
        **options,
    }
    async with trio.open_nursery() as nursery:
        start = partial(trio.run_process, command, **options)
        process: trio.Process = await nursery.start(start)
        try:
            yield process
        finally:
            process.kill()  # Nothing happens if it has ended.
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    await trio.aclose_forcefully(stream)


async def read_to_end(stream: trio.abc.ReceiveStream | None) -> str:
    """Read the output of a program to its end."""
    assert stream is not None
    return b"".join([bytes(data) async for data in stream]).decode()

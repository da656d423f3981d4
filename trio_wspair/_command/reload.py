"""`trio-wspair serve --reload`: the server in another process, and anew at a change.

Knows processes and files; not what is served. The server's process holds one end of a
pipe, its *lifeline*, and stops gracefully when the other end is closed: so it does not
outlive this process either, however that ends. Data in the pipe mean that the server is
started again, which its clients are told (1012 instead of 1001). Signals of a terminal
reach both.
"""

import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import trio

from trio_wspair._tasks.nurseries import open_service_nursery

from .process import (
    INTERRUPTED,
    CommandError,
    Stop,
    UsageError,
    open_stop,
    state,
)

__all__ = ("run_reloading",)

_STATUSES: Final = {
    signal.SIGINT: INTERRUPTED,
    signal.SIGTERM: 0,
    **({signal.SIGHUP: 0} if hasattr(signal, "SIGHUP") else {}),
}
_STOP_SECONDS: Final = 15.0
"""A process that has not ended by then is killed."""
_CODE: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from trio_wspair._command.main import main; main(sys.argv[2:])"
)


async def run_reloading(arguments: Sequence[str], folder: Path) -> int:
    """Run ``trio-wspair`` with these arguments, and again whenever a file changes.

    Args:
        arguments: They get the option ``--lifeline``, too.
        folder: Where changes of ``.py`` files are looked for.

    Returns:
        The exit status.

    Raises:
        UsageError: watchfiles is not installed.
        CommandError: The folder can't be watched.
    """
    try:
        import watchfiles  # noqa: PLC0415 - an extra
    except ImportError as exc:
        msg = "--reload needs watchfiles: pip install 'trio-wspair[reload]'"
        raise UsageError(msg) from exc
    awatch = partial(watchfiles.awatch, ignore_permission_denied=True)
    watching_ends = trio.Event()
    changes = awatch(
        folder, watch_filter=watchfiles.PythonFilter(), stop_event=watching_ends
    )
    with open_stop(_STATUSES) as stop, trio.CancelScope() as scope:
        async with open_service_nursery() as nursery, aclosing(changes):
            nursery.start_soon(_cancel_on, stop, scope, watching_ends)
            while True:
                async with open_service_nursery() as one:
                    restarts = trio.Event()
                    one.start_soon(_run, arguments, folder, restarts)
                    files = await _next_change(changes, folder)
                    restarts.set()
                    state(f"trio-wspair: {files} changed: starting again", "dim")
    assert stop.status is not None
    return stop.status


async def _cancel_on(
    stop: Stop, scope: trio.CancelScope, watching_ends: trio.Event
) -> None:
    try:
        await stop.wait()
        scope.cancel(reason="a signal came")
    finally:
        watching_ends.set()  # The thread that watches can't be cancelled.


async def _next_change(
    changes: AsyncGenerator[set[tuple[Any, str]], None], folder: Path
) -> str:
    """Wait for the next change, and return the names of the files.

    Raises:
        CommandError: The folder can't be watched.
    """
    try:
        changed = await anext(changes, None)
    except OSError as exc:
        msg = f"can't watch {folder}: {exc}"
        raise CommandError(msg) from exc
    if changed is None:  # The watching has ended: the cancellation is on its way.
        await trio.sleep_forever()
    return ", ".join(sorted({Path(file).name for _, file in changed}))


async def _run(arguments: Sequence[str], folder: Path, restarts: trio.Event) -> None:
    """Run the server once; when this is cancelled, it is stopped gracefully.

    Args:
        arguments: Those of the command.
        folder: Whose files are watched.
        restarts: Set when another one will take its place.
    """
    theirs, ours = os.pipe()
    lifeline = open(ours, "wb")  # noqa: ASYNC230, SIM115 - it does not block
    command = [sys.executable, "-c", _CODE, json.dumps(sys.path), *arguments]
    try:
        await trio.run_process(
            [*command, f"--lifeline={theirs}"],
            stdin=None,
            pass_fds=[theirs],
            check=False,
            deliver_cancel=partial(_let_go, lifeline, restarts),
        )
    finally:
        os.close(theirs)
        lifeline.close()
    what = f"the server has ended; it starts again when a .py file in {folder} changes"
    state(f"trio-wspair: {what}", "dim")


async def _let_go(
    lifeline: BinaryIO, restarts: trio.Event, process: trio.Process
) -> None:
    """Have a process stop, and kill it if it doesn't in time."""
    if restarts.is_set():
        lifeline.write(b"restarts")
    lifeline.close()
    await trio.sleep(_STOP_SECONDS)
    process.kill()

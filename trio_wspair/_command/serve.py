"""`trio-wspair serve`: an application on a port or a Unix socket, until a signal.

Theory of operation of ``--reload``: the server runs in a child process, which this
process starts again after a change. The child holds the reading end of a pipe, its
*lifeline*, and stops gracefully when the pipe is closed, so it never outlives its
parent, however that ends. A byte in the pipe says that a new server will follow: then
the clients get Close 1012 instead of 1001. A terminal sends its signals to both
processes.

Knows what is printed about a server and how it is stopped, not how it serves.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

import attrs
import trio

from trio_wspair._http.forwarded import ProxyHeaders
from trio_wspair._http.messages import FetchHandler
from trio_wspair._rules.codes import CloseCode
from trio_wspair._server.application import Application, run_application
from trio_wspair._server.serving import Server, serve
from trio_wspair._tasks.nurseries import open_service_nursery
from trio_wspair.inspector import open_inspector
from trio_wspair.transports._engines import EngineName

from .process import (
    INTERRUPTED,
    READER_GONE,
    CommandError,
    Stop,
    UsageError,
    escaped,
    escaped_lines,
    exceptions_in,
    open_stop,
    print_output,
    print_status,
)
from .program import program_error
from .tls import server_context

__all__ = ("LogHandler", "ServeCommand", "serve_and_reload")

_STOP_CODES: Final = {True: CloseCode.SERVICE_RESTART, False: CloseCode.GOING_AWAY}
"""The close code for open WebSockets, by whether the server restarts."""
_LOG_LINE: Final = "%(asctime)s %(levelname)-7s %(message)s"
_STATUSES: Final = {
    signal.SIGINT: INTERRUPTED,
    signal.SIGTERM: 0,
    **({signal.SIGHUP: 0} if hasattr(signal, "SIGHUP") else {}),
}
_STOP_SECONDS: Final = 15.0
"""A child process is killed when it has had this time to stop."""
_CODE: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from trio_wspair._command.main import main; main(sys.argv[2:])"
)


@attrs.frozen
class ServeCommand:
    """The options of `trio-wspair serve`, checked."""

    application: str
    """The name of the application in messages."""
    host: str = "127.0.0.1"
    """An address or a name; the empty string for all addresses."""
    port: int = 8000
    unix: str | None = None
    """The path of a Unix socket to listen on, instead of a port."""
    certfile: str | None = None
    keyfile: str | None = None
    client_ca: str | None = None
    proxy_headers: ProxyHeaders = False
    proxies: int = 1
    max_connections_per_client: int | None = None
    log_query: bool = False
    inspect_port: int | None = None
    lifeline: int | None = None
    """The file descriptor of the lifeline, if this is the child of ``--reload``."""
    engine: EngineName = "trio-websocket"
    compression: bool = False

    async def run(self, app: Application, log: "LogHandler") -> int:
        """Serve until a signal comes; return the exit status.

        Args:
            app: The application.
            log: The handler of the log; the server stops when its reader has gone.

        Raises:
            UsageError: An option can't be used.
            CommandError: The server can't listen.
            ProgramError: The application, or one of its tasks, has failed.
        """
        with open_stop(_STATUSES) as stop, trio.CancelScope() as scope:
            log.stop = stop
            restarts = trio.Event()
            listen = self._listen(restarts)
            servers: list[Server] = []
            async with open_service_nursery() as nursery:
                nursery.start_soon(_end_on, stop, servers, scope)
                if self.lifeline is not None:
                    nursery.start_soon(_watch_lifeline, self.lifeline, restarts, stop)
                async with self._inspecting():
                    await _run(app, partial(self._serve, listen, servers))
        assert stop.status is not None
        return stop.status

    def _listen(self, restarts: trio.Event) -> "_Listen":
        place = (
            {"unix": self.unix}
            if self.unix is not None
            else {"host": self.host or None}
        )
        return partial(
            serve,
            port=self.port if self.unix is None else None,
            ssl_context=server_context(self.certfile, self.keyfile, self.client_ca),
            proxy_headers=self.proxy_headers,
            proxies=self.proxies,
            log_query=self.log_query,
            max_connections_per_client=self.max_connections_per_client,
            stop_code=lambda: _STOP_CODES[restarts.is_set()],
            engine=self.engine,
            compression=self.compression,
            **place,
        )

    async def _serve(
        self, listen: "_Listen", servers: list[Server], fetch: FetchHandler
    ) -> None:
        async with trio.open_nursery() as nursery:
            try:
                server: Server = await nursery.start(partial(listen, fetch))
            except OSError as exc:
                msg = f"can't listen on {self._place()}: {exc.strerror or exc}"
                raise CommandError(msg) from exc
            except ValueError as exc:
                raise UsageError(f"can't listen: {exc}") from exc
            places = [url.replace("ws", "http", 1) for url in server.urls]
            where = " and ".join(places) or self._place()
            what = f"Serving {self.application} on {where} - Ctrl-C stops it"
            print_output(f"{escaped(what)}\n")
            servers.append(server)

    def _place(self) -> str:
        if self.unix is not None:
            return f"the Unix socket {self.unix}"
        return f"{self.host or 'all addresses'} port {self.port}"

    @asynccontextmanager
    async def _inspecting(self) -> AsyncGenerator[None, None]:
        """Run the inspector for the block, if ``--inspect`` was given."""
        async with AsyncExitStack() as stack:
            if self.inspect_port is not None:
                try:
                    opened = open_inspector(self.inspect_port)
                    inspector = await stack.enter_async_context(opened)
                except OSError as exc:
                    what = f"can't open the inspector on port {self.inspect_port}"
                    raise CommandError(f"{what}: {exc.strerror or exc}") from exc
                print_output(f"Inspect the connections on {inspector.url}\n")
            yield


_Listen = Callable[..., Awaitable[None]]


async def _run(
    app: Application, run: Callable[[FetchHandler], Awaitable[None]]
) -> None:
    """Run in an application, whose failures become a `ProgramError`."""
    try:
        await run_application(app, run)
    except Exception as exc:
        if any(isinstance(leaf, CommandError) for leaf in exceptions_in(exc)):
            raise
        raise program_error(exc) from exc


async def _end_on(
    stop: Stop, servers: Sequence[Server], scope: trio.CancelScope
) -> None:
    """Stop the server on a request; before it listens, cancel its start."""
    await stop.wait()
    if servers:
        servers[0].stop()
    else:
        scope.cancel(reason="the server stops")


async def _watch_lifeline(lifeline: int, restarts: trio.Event, stop: Stop) -> None:
    async with trio.lowlevel.FdStream(lifeline) as stream:
        if await stream.receive_some():
            restarts.set()
    stop.request(0)


# -- the log --------------------------------------------------------------------------


class _LogFormatter(logging.Formatter):
    """Escapes text from clients, which could control the terminal or fake a record.

    Exceptions and the log of the application contain such text. All lines of a record
    but the first are indented.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as text; `logging` calls this."""
        return escaped_lines(super().format(record)).replace("\n", "\n  ")


class LogHandler(logging.StreamHandler[TextIO]):
    """Writes the log to the standard error, and stops the server if its reader goes."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(_LogFormatter(_LOG_LINE, datefmt="%H:%M:%S"))
        self.stop: Stop | None = None
        """Set while the server runs."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Handle an error in writing a record; `logging` calls this."""
        error = sys.exc_info()[1]
        if isinstance(error, BrokenPipeError) and self.stop is not None:
            self.stop.request(READER_GONE)
        if not isinstance(error, OSError):
            super().handleError(record)


# -- reloading ----------------------------------------------------------------------


async def serve_and_reload(arguments: Sequence[str], folder: Path) -> int:
    """Run ``trio-wspair`` in a child process, and again whenever a file changes.

    Args:
        arguments: The arguments of the child, to which ``--lifeline`` is added.
        folder: The folder whose ``.py`` files are watched.

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
            nursery.start_soon(_end_reloading, stop, scope, watching_ends)
            while True:
                async with open_service_nursery() as one:
                    restarts = trio.Event()
                    one.start_soon(_run_process, arguments, folder, restarts)
                    files = await _next_change(changes, folder)
                    restarts.set()
                    print_status(f"trio-wspair: {files} changed: starting again", "dim")
    assert stop.status is not None
    return stop.status


async def _end_reloading(
    stop: Stop, scope: trio.CancelScope, watching_ends: trio.Event
) -> None:
    try:
        await stop.wait()
        scope.cancel(reason="a signal came")
    finally:
        watching_ends.set()  # The thread of watchfiles can't be cancelled.


async def _next_change(
    changes: AsyncGenerator[set[tuple[Any, str]], None], folder: Path
) -> str:
    """Wait for the next change, and return the names of the changed files.

    Raises:
        CommandError: The folder can't be watched.
    """
    try:
        changed = await anext(changes, None)
    except OSError as exc:
        msg = f"can't watch {folder}: {exc}"
        raise CommandError(msg) from exc
    if changed is None:  # watchfiles has stopped, and the cancellation follows.
        await trio.sleep_forever()
    return ", ".join(sorted({Path(file).name for _, file in changed}))


async def _run_process(
    arguments: Sequence[str], folder: Path, restarts: trio.Event
) -> None:
    """Run the child once; cancelling this stops it gracefully.

    Args:
        arguments: The arguments of the command.
        folder: The folder that is watched, for a message.
        restarts: Set before the cancellation if another child follows.
    """
    reading_end, writing_end = os.pipe()
    lifeline = open(writing_end, "wb")  # noqa: ASYNC230, SIM115 - it does not block
    command = [sys.executable, "-c", _CODE, json.dumps(sys.path), *arguments]
    try:
        await trio.run_process(
            [*command, f"--lifeline={reading_end}"],
            stdin=None,
            pass_fds=[reading_end],
            check=False,
            deliver_cancel=partial(_stop_process, lifeline, restarts),
        )
    finally:
        os.close(reading_end)
        lifeline.close()
    what = f"the server has ended; it starts again when a .py file in {folder} changes"
    print_status(f"trio-wspair: {what}", "dim")


async def _stop_process(
    lifeline: BinaryIO, restarts: trio.Event, process: trio.Process
) -> None:
    """Close the lifeline of a process, and kill the process if it does not stop."""
    if restarts.is_set():
        lifeline.write(b"restarts")
    lifeline.close()
    await trio.sleep(_STOP_SECONDS)
    process.kill()

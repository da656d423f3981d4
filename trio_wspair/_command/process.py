"""The process of the command: its standard streams, signals and exit statuses.

Knows file descriptors and terminals, not servers or connections. No function fails
because a stream is closed, its reader has gone, or its encoding lacks a character,
unless its docstring says so.
"""

import io
import os
import re
import select
import signal
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from typing import Final, TextIO, cast

import trio

from trio_wspair._rules.display import printable

__all__ = (
    "INTERRUPTED",
    "READER_GONE",
    "CommandError",
    "ReaderGoneError",
    "Stop",
    "UsageError",
    "coloured",
    "escaped",
    "escaped_lines",
    "exceptions_in",
    "flush_streams",
    "open_stop",
    "prepare_streams",
    "print_error",
    "print_output",
    "print_status",
    "print_to_stderr",
    "print_warning",
    "write_output",
)

INTERRUPTED: Final = 130
"""The exit status after Ctrl-C: 128 plus the number of the signal, as in shells."""
READER_GONE: Final = 141
"""The exit status if the reader of the output has gone: as for a SIGPIPE."""

_COLOURS: Final = {"green": 32, "red": 31, "dim": 2}
_STDIN, _STDOUT, _STDERR = 0, 1, 2


class CommandError(Exception):
    """The command fails. The text says why, on one line."""

    status: int = 1


class ReaderGoneError(CommandError):
    """The reader of the output has gone: the command ends without a message."""

    status = READER_GONE


class UsageError(CommandError):
    """The arguments are wrong. The text says what is right."""

    status = 2


def exceptions_in(exc: BaseException) -> list[BaseException]:
    """Return the exceptions in a group, or a list of the one exception."""
    if not isinstance(exc, BaseExceptionGroup):
        return [exc]
    group = cast("BaseExceptionGroup[BaseException]", exc)
    return [leaf for inner in group.exceptions for leaf in exceptions_in(inner)]


def prepare_streams() -> None:
    """Prepare the standard streams so that printing is safe.

    A closed stream is replaced by the null device, opened for reading: otherwise the
    next file or socket would get its number, and receive what is printed. So reading
    finds the end of the input, and writing fails, as it does for a closed stream.
    Characters that the encoding lacks are escaped.
    """
    while (number := os.open(os.devnull, os.O_RDONLY)) <= _STDERR:
        os.set_inheritable(number, True)  # noqa: FBT003 - its only argument
    os.close(number)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush_streams(status: int) -> int:
    """Flush the output, and return the exit status.

    That is `status`, or one for a failure if the output can't be written.
    """
    try:
        with suppress(AttributeError):  # sys.stdout is None if it was closed.
            sys.stdout.flush()
    except BrokenPipeError:
        status = READER_GONE
        _redirect_to_null(_STDOUT)
    except OSError as exc:
        print_error(f"can't write to the standard output: {exc.strerror}")
        status = status or 1
        _redirect_to_null(_STDOUT)
    try:
        with suppress(AttributeError):
            sys.stderr.flush()
    except OSError:
        _redirect_to_null(_STDERR)
    return status


def _redirect_to_null(number: int) -> None:
    """Redirect a stream that can't be written to the null device.

    Python would try again to write its buffer when the process ends, and report the
    failure.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)


def print_output(text: str) -> None:
    """Print text to the standard output, if that is not closed.

    Raises:
        ReaderGoneError: The reader has gone.
        CommandError: The text can't be written.
    """
    try:
        print(text, end="", flush=True)
    except BrokenPipeError as exc:
        _redirect_to_null(_STDOUT)
        raise ReaderGoneError from exc
    except OSError as exc:
        _redirect_to_null(_STDOUT)
        msg = f"can't write to the standard output: {exc.strerror}"
        raise CommandError(msg) from exc


def print_error(text: str) -> None:
    """Print an error as one line to the standard error."""
    print_status(f"trio-wspair: {text}", "red")


def print_warning(text: str) -> None:
    """Print a warning as one line to the standard error."""
    print_status(f"trio-wspair: warning: {text}", "red")


def print_status(text: str, colour: str) -> None:
    """Print one line to the standard error."""
    print_to_stderr(coloured(escaped(text), colour, sys.stderr))


def print_to_stderr(text: str) -> None:
    """Print text to the standard error unchanged, if that is possible."""
    if sys.stderr is not None:  # With None, print() would use the standard output.
        with suppress(OSError):
            print(text, file=sys.stderr, flush=True)


def escaped(text: str) -> str:
    """Return text from outside, escaped for one line of a terminal."""
    # Without quotes and backslashes, so that JSON stays readable.
    return re.sub(r'[^"\\]+', lambda part: printable(part[0]), text)


def escaped_lines(text: str) -> str:
    """Return text of several lines, such as a traceback, escaped for a terminal.

    Line feeds and tabs stay.
    """
    return re.sub(r"[^\n\t]+", lambda part: escaped(part[0]), text)


def coloured(text: str, colour: str, file: TextIO | None) -> str:
    """Return the text in a colour, if the file is a terminal that supports colours."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if file is None or plain or not file.isatty():
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


async def write_output(text: str) -> None:
    """Write to the standard output, in a thread: a slow reader does not block Trio.

    Always a checkpoint.

    Raises:
        BrokenPipeError: The reader has gone.
        OSError: The text can't be written.
    """
    # Not through sys.stdout: an abandoned thread would hold its lock at the exit.
    encoding: str = getattr(sys.stdout, "encoding", None) or "utf-8"
    data = memoryview(text.encode(encoding, "backslashreplace"))
    await trio.to_thread.run_sync(_write, data, abandon_on_cancel=True)


def _write(data: memoryview) -> None:
    while data:
        try:
            data = data[os.write(_STDOUT, data) :]
        except BlockingIOError:
            select.select([], [_STDOUT], [])


class Stop:
    """A request that the program ends. Only the first one counts."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()
        self.status: int | None = None
        """The exit status to end with; `None` before a request."""

    def request(self, status: int) -> None:
        """Request the end. May be called in a signal handler or another thread."""
        if self.status is None:
            self.status = status
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._event.set, idempotent=True)

    async def wait(self) -> None:
        """Wait for a request."""
        await self._event.wait()


@contextmanager
def open_stop(
    statuses: Mapping[signal.Signals, int],
) -> Generator[Stop, None, None]:
    """Handle signals: the first one requests the end, with its exit status.

    After it, each of them kills the program at once. A signal that is ignored at the
    beginning stays ignored: shells start background programs like that, and so does
    `nohup`.
    """
    stop = Stop()
    before = {number: signal.getsignal(number) for number in statuses}
    handled = [n for n, handler in before.items() if handler is not signal.SIG_IGN]

    def handle(number: int, _frame: object) -> None:
        for other in handled:
            signal.signal(other, signal.SIG_DFL)
        stop.request(statuses[signal.Signals(number)])

    for number in handled:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number in handled:
            signal.signal(number, before[number])

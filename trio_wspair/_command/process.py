"""The process of the command: its standard streams, signals and exit statuses.

Knows file descriptors and terminals; not what is served or said. Nothing in here fails
because a stream is closed, its reader has gone, or its encoding lacks a character,
unless the function says so.
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
    "complain",
    "flushed",
    "leaves_of",
    "open_stop",
    "painted",
    "print_errors",
    "print_output",
    "secure_streams",
    "shown",
    "shown_lines",
    "state",
    "write_output",
)

INTERRUPTED: Final = 130
"""The exit status after Ctrl-C: 128 and the number of the signal, as shells have it."""
READER_GONE: Final = 141
"""The exit status when nothing reads the output any more, as for a SIGPIPE."""

_COLOURS: Final = {"green": 32, "red": 31, "dim": 2}
_STDIN, _STDOUT, _STDERR = 0, 1, 2


class CommandError(Exception):
    """The command can't go on. The text says why, on one line."""

    status: int = 1


class ReaderGoneError(CommandError):
    """Nothing reads the output any more: the command ends, and says nothing."""

    status = READER_GONE


class UsageError(CommandError):
    """The command was called wrongly. The text says how to do it."""

    status = 2


def leaves_of(exc: BaseException) -> list[BaseException]:
    """Return an exception, or all that are in a group."""
    if not isinstance(exc, BaseExceptionGroup):
        return [exc]
    group = cast("BaseExceptionGroup[BaseException]", exc)
    return [leaf for inner in group.exceptions for leaf in leaves_of(inner)]


def secure_streams() -> None:
    """Keep what is printed from failing, and from going where it doesn't belong.

    A stream that is closed gets the null device: otherwise the next file or socket that
    is opened would have its number. The input is at its end then, and writing fails as
    it does to a closed stream.
    """
    while (number := os.open(os.devnull, os.O_RDONLY)) <= _STDERR:
        os.set_inheritable(number, True)  # noqa: FBT003 - its only argument
    os.close(number)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flushed(status: int) -> int:
    """Write out what was printed, and return the exit status.

    That is another one if it can't be written.
    """
    try:
        with suppress(AttributeError):  # There is no stdout if it was closed.
            sys.stdout.flush()
    except BrokenPipeError:
        status = READER_GONE
        _give_up(_STDOUT)
    except OSError as exc:
        complain(f"can't write to the standard output: {exc.strerror}")
        status = status or 1
        _give_up(_STDOUT)
    try:
        with suppress(AttributeError):
            sys.stderr.flush()
    except OSError:
        _give_up(_STDERR)
    return status


def _give_up(number: int) -> None:
    """Let a stream that can't be written go to the null device.

    It may still hold text. Python tries once more to write that when the process ends,
    and would fail and tell of it.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)


def print_output(text: str) -> None:
    """Print text to the standard output, if that is not closed.

    Raises:
        ReaderGoneError: Nothing reads it any more.
        CommandError: It can't be written.
    """
    try:
        print(text, end="", flush=True)
    except BrokenPipeError as exc:
        _give_up(_STDOUT)
        raise ReaderGoneError from exc
    except OSError as exc:
        _give_up(_STDOUT)
        msg = f"can't write to the standard output: {exc.strerror}"
        raise CommandError(msg) from exc


def complain(text: str) -> None:
    """Print an error as one line to the standard error."""
    state(f"trio-wspair: {text}", "red")


def state(text: str, colour: str) -> None:
    """Print one line to the standard error."""
    print_errors(painted(shown(text), colour, sys.stderr))


def print_errors(text: str) -> None:
    """Print text to the standard error as it is, if that can be done."""
    if sys.stderr is not None:  # For print(), None is the standard output.
        with suppress(OSError):
            print(text, file=sys.stderr, flush=True)


def shown(text: str) -> str:
    """Return text from elsewhere as it can be shown on one line of a terminal."""
    # Quotes and backslashes are left alone, for the sake of those who read JSON.
    return re.sub(r'[^"\\]+', lambda part: printable(part[0]), text)


def shown_lines(text: str) -> str:
    """Return text of several lines, such as a traceback, as a terminal can show it.

    Line feeds and tabs stay.
    """
    return re.sub(r"[^\n\t]+", lambda part: shown(part[0]), text)


def painted(text: str, colour: str, file: TextIO | None) -> str:
    """Return the text in a colour, if it is for a terminal that has some."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if file is None or plain or not file.isatty():
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


async def write_output(text: str) -> None:
    """Write to the standard output, in a thread: a slow reader does not stop Trio.

    Always a checkpoint.

    Raises:
        BrokenPipeError: The reader has gone.
        OSError: It can't be written.
    """
    # Not through sys.stdout: a thread that waits in there holds a lock at the exit.
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
    """The wish that the program ends, for the first reason that there is."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()
        self.status: int | None = None
        """With which exit status; `None` as long as nothing has asked for an end."""

    def ask(self, status: int) -> None:
        """Ask for the end. May be called from a signal handler or another thread."""
        if self.status is None:
            self.status = status
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._event.set, idempotent=True)

    async def wait(self) -> None:
        """Wait until something asks for the end."""
        await self._event.wait()


@contextmanager
def open_stop(
    statuses: Mapping[signal.Signals, int],
) -> Generator[Stop, None, None]:
    """Give a `Stop` for which these signals ask, each with its exit status.

    After the first, each of them kills the program at once, whatever it is doing. A
    signal that is ignored at the beginning stays ignored: a shell does that to programs
    in the background, and `nohup` to all.
    """
    stop = Stop()
    before = {number: signal.getsignal(number) for number in statuses}
    handled = [n for n, handler in before.items() if handler is not signal.SIG_IGN]

    def ask(number: int, _frame: object) -> None:
        for other in handled:
            signal.signal(other, signal.SIG_DFL)
        stop.ask(statuses[signal.Signals(number)])

    for number in handled:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number in handled:
            signal.signal(number, before[number])

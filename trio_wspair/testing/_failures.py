"""`Failures`: what handlers have raised while a test client was open.

A server goes on when a handler fails: it logs the exception to the logger
``trio_wspair``, and so does a Durable Object. This module reads that log with a filter,
as any program may do. In the tasks of a server, a context variable names the client
that the server belongs to. Durable Objects run in an empty context, so what they log
belongs to all clients of this `trio.run()`; the first client that asks takes it.
"""

import logging
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, cast

import attrs
import trio
from trio.lowlevel import RunVar, in_trio_run

from trio_wspair._rules.errors import InvalidStateError
from trio_wspair.hibernation import DurableObjectResetError

from ._record import Record, is_inside

__all__ = ("Expected", "Failures", "check_kinds", "collect_failures")

Expected = type[Exception] | tuple[type[Exception], ...]
_logger: Final = logging.getLogger("trio_wspair")
_served: Final[ContextVar["Failures | None"]] = ContextVar("served", default=None)
"""The client whose server this task belongs to."""
_filter_of_run: Final[RunVar["_LogFilter | None"]] = RunVar("log filter", None)


class Failures:
    """The exceptions that were raised for one test client, and not yet expected.

    Args:
        log_filter: Reads the log.
        records: The records of the client's WebSockets. They note each failure.
    """

    def __init__(self, log_filter: "_LogFilter", records: Sequence[Record]) -> None:
        self._log_filter = log_filter
        self._records = records
        self.own: list[Exception] = []
        self._any_expected = False

    def attribute(self) -> None:
        """Count what tasks of this context log as raised for this client."""
        _served.set(self)

    def ensure_logged(self) -> None:
        """Set the log up again, as the program may have raised its level.

        Raises:
            InvalidStateError: The log is switched off.
        """
        self._log_filter.enable_log()

    def pending(self) -> list[Exception]:
        """Return the exceptions that were not taken."""
        return [*self.own, *self._log_filter.shared]

    async def expect(
        self, expected: Expected, match: str | re.Pattern[str] | None, within: float
    ) -> Exception | None:
        """Wait for an expected failure, and remove it. Always a checkpoint.

        The expected part of a group is taken, and the rest stays. When several tasks
        wait, a failure goes to the task that has waited longest.

        Args:
            expected: The type of the exception, or several.
            match: A pattern that is found in its text.
            within: Seconds to wait.

        Returns:
            The failure, or `None` if there was none in time.
        """
        request = _Expectation(self, expected, match)
        waiting = self._log_filter.waiting
        await trio.lowlevel.checkpoint()
        waiting.append(request)
        self._log_filter.hand_out()
        try:
            with trio.move_on_after(within):
                await request.met.wait()
        except BaseException:
            request.give_back()
            self._log_filter.hand_out()
            raise
        finally:
            if request in waiting:
                waiting.remove(request)
        self._any_expected = self._any_expected or request.failure is not None
        return request.failure

    def take_rest(self) -> list[Exception]:
        """Remove and return all failures that were not expected.

        Errors about the reset of an object are left out if the failure that caused the
        reset is known, too.
        """
        failures = self.pending()
        self.own.clear()
        self._log_filter.shared.clear()
        causes = [f for f in failures if not isinstance(f, DurableObjectResetError)]
        rest = causes if causes or self._any_expected else failures
        for failure in rest:
            _begin_in_application(failure)
        return rest

    def note(self, failure: Exception, connection: int | None) -> None:
        """Note in the records that this was raised now."""
        for record in self._records:
            record._note_raised(failure, connection)


@attrs.define(eq=False)
class _Expectation:
    """A failure that a task waits for."""

    failures: Failures
    """The failures of the task's client."""
    expected: Expected
    match: str | re.Pattern[str] | None
    failure: Exception | None = None
    """The failure that was found."""
    _source: list[Exception] = attrs.field(factory=list[Exception])
    """The list that it was taken from."""
    met: trio.Event = attrs.field(factory=trio.Event)

    def take(self, shared: list[Exception]) -> bool:
        """Take an expected failure; return whether there was one."""
        for source in (self.failures.own, shared):
            for index, failure in enumerate(source):
                taken, rest = _split(failure, self.expected, self.match)
                if taken is not None:
                    source[index : index + 1] = [] if rest is None else [rest]
                    self.failure, self._source = taken, source
                    self.met.set()
                    return True
        return False

    def give_back(self) -> None:
        """Put the failure back, as the task was cancelled when it was found."""
        if self.failure is not None:
            self._source.insert(0, self.failure)


@contextmanager
def collect_failures(records: Sequence[Record]) -> Generator[Failures, None, None]:
    """Collect what handlers raise in the block.

    Args:
        records: The list of the client's records, which may grow.

    Raises:
        InvalidStateError: The log is switched off.
    """
    log_filter = _filter_of_run.get()
    if log_filter is None:
        log_filter = _LogFilter()
        _filter_of_run.set(log_filter)
    failures = Failures(log_filter, records)
    with log_filter.collecting(failures):
        yield failures


class _LogFilter(logging.Filter):
    """Reads failures in the log, and passes on what the log would have shown.

    The logger may be disabled (`logging.config.dictConfig()` does that by default), or
    have a level above ERROR. Meanwhile it is enabled at ERROR, and this filter holds
    back what would not have been shown.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shared: list[Exception] = []
        """Failures of objects, which belong to all clients."""
        self.waiting: list[_Expectation] = []
        """What tasks wait for, the first task first."""
        self._clients: list[Failures] = []
        # The settings of the logger before:
        self._disabled = False
        self._level: int | None = None
        self._shown_from = logging.NOTSET

    @contextmanager
    def collecting(self, failures: Failures) -> Generator[None, None, None]:
        """Collect failures for one more client in the block."""
        self.enable_log()
        _logger.addFilter(self)  # It is added once, even if it is there.
        self._clients.append(failures)
        try:
            yield
        finally:
            self._clients.remove(failures)
            if not self._clients:
                self._restore()

    def enable_log(self) -> None:
        """Enable the logger at ERROR, so that it calls this filter.

        Raises:
            InvalidStateError: `logging.disable()` has switched off errors.
        """
        if _logger.manager.disable >= logging.ERROR:
            msg = (
                "a test client reads from the log what handlers raise, but "
                "logging.disable() has switched off errors: use logging.WARNING or less"
            )
            raise InvalidStateError(msg)
        if _logger.disabled:
            self._disabled, _logger.disabled = True, False
        if _logger.getEffectiveLevel() > logging.ERROR:
            self._level = _logger.level
            self._shown_from = _logger.getEffectiveLevel()
            _logger.setLevel(logging.ERROR)

    def _restore(self) -> None:
        _logger.removeFilter(self)
        if self._disabled:
            _logger.disabled = True
        if self._level is not None:
            _logger.setLevel(self._level)
        self._disabled, self._level, self._shown_from = False, None, logging.NOTSET
        self.shared.clear()

    def hand_out(self) -> None:
        """Give failures to the tasks that wait for them."""
        self.waiting[:] = [w for w in self.waiting if not w.take(self.shared)]

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the exception of an error that was logged in this run of Trio."""
        failure = record.exc_info[1] if record.exc_info else None
        here = in_trio_run() and _filter_of_run.get() is self
        if here and record.levelno >= logging.ERROR and isinstance(failure, Exception):
            failure = _unwrapped(failure)
            served = _served.get()
            (self.shared if served is None else served.own).append(failure)
            for client in self._clients if served is None else [served]:
                client.note(failure, getattr(record, "connection", None))
            self.hand_out()
        return not self._disabled and record.levelno >= self._shown_from


def check_kinds(expected: Expected) -> None:
    """Check the expected type of a failure, or several types.

    Raises:
        TypeError: It is neither a type of exceptions nor a tuple of them.
    """
    kinds = expected if isinstance(expected, tuple) else (expected,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            what = "expected is a type such as ValueError, or a tuple of types"
            msg = f"{what}, not {kind!r}; pass the text of an exception as match=..."
            raise TypeError(msg)
    if not kinds:
        msg = "expected is an empty tuple: name one type or more, such as ValueError"
        raise TypeError(msg)


def _begin_in_application(failure: Exception) -> None:
    """Let the traceback begin in the application, without the calls that led there."""
    begin = failure.__traceback__
    while begin is not None and is_inside(begin.tb_frame):
        begin = begin.tb_next
    if begin is not None:
        failure.__traceback__ = begin


def _split(
    failure: Exception, expected: Expected, match: str | re.Pattern[str] | None
) -> tuple[Exception | None, Exception | None]:
    """Return the expected part of a failure, and the rest of it."""

    def is_expected(exc: Exception) -> bool:
        fits = match is None or re.search(match, str(exc)) is not None
        return fits and isinstance(exc, expected)

    if not isinstance(failure, ExceptionGroup):
        return (failure, None) if is_expected(failure) else (None, failure)
    group = cast("ExceptionGroup[Exception]", failure)
    parts = group.split(is_expected)
    taken, rest = (None if part is None else _unwrapped(part) for part in parts)
    return taken, rest


def _unwrapped(exc: Exception) -> Exception:
    """Return the exception in a group, or nested groups, with a single exception."""
    if not isinstance(exc, ExceptionGroup):
        return exc
    group = cast("ExceptionGroup[Exception]", exc)
    return _unwrapped(group.exceptions[0]) if len(group.exceptions) == 1 else group

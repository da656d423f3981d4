"""`Failures`: what handlers have raised while a test client was open.

A server lives on when a handler fails: it logs the exception to the logger
``trio_wspair``, and so does a Durable Object. This module listens to that log, as any
program may do. A task of a server knows by a context variable which client it serves.
What a Durable Object logs has no such variable, as objects run in an empty context: it
belongs to all clients of this `trio.run()`, and the first that asks takes it.
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

__all__ = ("Expected", "Failures", "check_kinds", "hearing_failures")

Expected = type[Exception] | tuple[type[Exception], ...]
_logger: Final = logging.getLogger("trio_wspair")
_served: Final[ContextVar["Failures | None"]] = ContextVar("served", default=None)
"""Whose server the task belongs to."""
_ear_of_run: Final[RunVar["_Ear | None"]] = RunVar("ear", None)


class Failures:
    """What the handlers of one test client have raised, and no test has expected.

    Args:
        ear: Hears the log.
        records: Of the client's WebSockets, which are told of each failure.
    """

    def __init__(self, ear: "_Ear", records: Sequence[Record]) -> None:
        self._ear = ear
        self._records = records
        self.own: list[Exception] = []
        self._any = False

    def attribute(self) -> None:
        """Let what tasks of this context log count as raised for this client."""
        _served.set(self)

    def go_on_hearing(self) -> None:
        """Hear the log again, after somebody may have turned it down.

        Raises:
            InvalidStateError: The log is switched off.
        """
        self._ear.lift()

    def pending(self) -> list[Exception]:
        """Return those that were raised and not taken."""
        return [*self.own, *self._ear.shared]

    async def expect(
        self, expected: Expected, match: str | re.Pattern[str] | None, within: float
    ) -> Exception | None:
        """Wait for a failure that is as expected, and forget it. Always a checkpoint.

        Of a group, the part that is as expected is taken, and the rest stays. When
        several tasks wait, a failure is for the one that has asked first.

        Args:
            expected: Its type, or several.
            match: What is found in its text.
            within: Seconds to wait; `None` comes back then.
        """
        wish = _Wish(self, expected, match)
        waiting = self._ear.waiting
        await trio.lowlevel.checkpoint()
        waiting.append(wish)
        self._ear.give()
        try:
            with trio.move_on_after(within):
                await wish.given.wait()
        except BaseException:
            wish.give_back()
            self._ear.give()
            raise
        finally:
            if wish in waiting:
                waiting.remove(wish)
        self._any = self._any or wish.failure is not None
        return wish.failure

    def take_rest(self) -> list[Exception]:
        """Return all that nobody has expected, and forget it.

        It is no failure that an object was reset, when the reason for the reset is a
        failure itself.
        """
        failures = self.pending()
        self.own.clear()
        self._ear.shared.clear()
        causes = [f for f in failures if not isinstance(f, DurableObjectResetError)]
        rest = causes if causes or self._any else failures
        for failure in rest:
            _begin_in_application(failure)
        return rest

    def keep(self, failure: Exception, connection: int | None) -> None:
        """Let the records know where in the conversation this was raised."""
        for record in self._records:
            record._hear_failure(failure, connection)


@attrs.define(eq=False)
class _Wish:
    """What a task waits for."""

    failures: Failures
    """Those of its client."""
    expected: Expected
    match: str | re.Pattern[str] | None
    failure: Exception | None = None
    """What was given to it."""
    _source: list[Exception] = attrs.field(factory=list[Exception])
    """Where that was."""
    given: trio.Event = attrs.field(factory=trio.Event)

    def take(self, shared: list[Exception]) -> bool:
        """Take a failure that was raised; return whether there is one."""
        for source in (self.failures.own, shared):
            for index, failure in enumerate(source):
                taken, rest = _split(failure, self.expected, self.match)
                if taken is not None:
                    source[index : index + 1] = [] if rest is None else [rest]
                    self.failure, self._source = taken, source
                    self.given.set()
                    return True
        return False

    def give_back(self) -> None:
        """Let others have it, as the task was cancelled in the same moment."""
        if self.failure is not None:
            self._source.insert(0, self.failure)


@contextmanager
def hearing_failures(records: Sequence[Record]) -> Generator[Failures, None, None]:
    """Listen to the log for the block.

    Args:
        records: Those of the client, also of WebSockets to come.

    Raises:
        InvalidStateError: The log is switched off.
    """
    ear = _ear_of_run.get()
    if ear is None:
        ear = _Ear()
        _ear_of_run.set(ear)
    failures = Failures(ear, records)
    with ear.telling(failures):
        yield failures


class _Ear(logging.Filter):
    """Hears failures in the log, and lets through what the log would have shown.

    A filter, since that is asked also where the logger is turned down or disabled
    (as `logging.config.dictConfig()` does by default): both are lifted for so long.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shared: list[Exception] = []
        """What was logged for no client in particular."""
        self.waiting: list[_Wish] = []
        """What tasks wait for, in the order in which they have begun."""
        self._told: list[Failures] = []
        # What was lifted:
        self._disabled = False
        self._level: int | None = None
        self._shown_from = logging.NOTSET

    @contextmanager
    def telling(self, failures: Failures) -> Generator[None, None, None]:
        """Tell this one, too, for the block."""
        self.lift()
        _logger.addFilter(self)  # Once, however often.
        self._told.append(failures)
        try:
            yield
        finally:
            self._told.remove(failures)
            if not self._told:
                self._restore()

    def lift(self) -> None:
        """Let the logger call this filter, whatever else it shows.

        Raises:
            InvalidStateError: The log is switched off.
        """
        if _logger.manager.disable >= logging.ERROR:
            msg = (
                "a test client hears from the log what handlers raise, and "
                "logging.disable() has switched that off: switch off less"
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

    def give(self) -> None:
        """Give the tasks that wait what was raised."""
        self.waiting[:] = [w for w in self.waiting if not w.take(self.shared)]

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep what a record of this run tells as a failure."""
        failure = record.exc_info[1] if record.exc_info else None
        here = in_trio_run() and _ear_of_run.get() is self
        if here and record.levelno >= logging.ERROR and isinstance(failure, Exception):
            failure = _unwrapped(failure)
            served = _served.get()
            (self.shared if served is None else served.own).append(failure)
            for each in self._told if served is None else [served]:
                each.keep(failure, getattr(record, "connection", None))
            self.give()
        return not self._disabled and record.levelno >= self._shown_from


def check_kinds(expected: Expected) -> None:
    """Check what is said about the type of a failure.

    Raises:
        TypeError: It is neither a type of exceptions nor a tuple of such.
    """
    kinds = expected if isinstance(expected, tuple) else (expected,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            msg = f"expected is a type such as ValueError, or a tuple, not {kind!r}"
            raise TypeError(f"{msg}: for the text of an exception there is match")
    if not kinds:
        msg = "expected is a tuple of types, and this one has none"
        raise TypeError(msg)


def _begin_in_application(failure: Exception) -> None:
    """Leave out of a traceback how the application was called."""
    begin = failure.__traceback__
    while begin is not None and is_inside(begin.tb_frame):
        begin = begin.tb_next
    if begin is not None:
        failure.__traceback__ = begin


def _split(
    failure: Exception, expected: Expected, match: str | re.Pattern[str] | None
) -> tuple[Exception | None, Exception | None]:
    """Return the part of a failure that is as expected, and the rest of it."""

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
    """Return the only exception in a group, or groups, of a nursery."""
    if not isinstance(exc, ExceptionGroup):
        return exc
    group = cast("ExceptionGroup[Exception]", exc)
    return _unwrapped(group.exceptions[0]) if len(group.exceptions) == 1 else group

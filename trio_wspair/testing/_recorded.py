"""`open_recorded_pair()`: a pair with a record, and with checks that never hang.

Knows what a test may expect. The record knows what was sent and received.
"""

import inspect
import json
import re
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import PurePath
from types import FunctionType, NoneType
from typing import Any, Final, cast, overload

import trio
from trio.testing import wait_all_tasks_blocked

from trio_wspair._pair.instruments import use_instrument
from trio_wspair._pair.pair import DEFAULT_MAX_BUFFERED_BYTES, open_websocket_pair
from trio_wspair._pair.verbs import half_of, home_of
from trio_wspair._pair.websocket import CloseEvent, WebSocket, close_event
from trio_wspair._rules.errors import ConnectionClosedError
from trio_wspair._rules.limits import check_seconds
from trio_wspair._rules.state import Holder

from ._entries import What
from ._record import ConversationError, Record, cut

__all__ = (
    "DEFAULT_WITHIN",
    "RecordedWebSocket",
    "add_notes",
    "adding_notes",
    "check_pattern",
    "open_recorded_pair",
    "remove_notes",
    "shows_conversation",
)

DEFAULT_WITHIN: Final = 5.0
_NOTE: Final = "The conversation was:\n\n"
_Expected = str | bytes | re.Pattern[str] | Callable[[str | bytes], object]


class RecordedWebSocket(WebSocket):
    """A half with a record of the conversation, and methods that check it.

    These methods pull messages: on a half that was not taken they imply
    ``accept(pull=True)``, as `receive()` does. Each of them is a checkpoint, waits a
    bounded time, and fails with a `ConversationError`.
    """

    __slots__ = ("_closed_as_expected", "_original", "_within", "record")

    record: Record
    """What both halves have sent and received so far."""

    def __init__(self, socket: WebSocket, record: Record, within: float) -> None:
        super().__init__(half_of(socket), home_of(socket))
        self._original = socket  # Instruments report its events, as long as it exists.
        self._within = within
        self._closed_as_expected = False
        self.record = record

    @overload
    async def expect(
        self, expected: str | re.Pattern[str], *, within: float | None = None
    ) -> str: ...
    @overload
    async def expect(
        self, expected: bytes, *, within: float | None = None
    ) -> bytes: ...
    @overload
    async def expect(
        self,
        expected: Callable[[str | bytes], object],
        *,
        within: float | None = None,
    ) -> str | bytes: ...
    async def expect(
        self,
        expected: _Expected,
        *,
        within: float | None = None,
    ) -> str | bytes:
        """Receive the next message, and check it.

        Args:
            expected: The message itself; or a pattern that is found in a text message,
                as by `re.search()`; or a sync function that returns whether a message
                is right.
            within: Seconds to wait for the message.

        Returns:
            The message.

        Raises:
            ConversationError: Another message came, or the half was closed, or nothing
                came in time.
            InvalidStateError: The messages go to listeners.
            TypeError: `expected` is of another type, or is an async function.
        """
        __tracebackhide__ = True
        _check_expected(expected)
        message = await self._next(_in_words(expected), within)
        if not _is_right(message, expected):
            what = f"expected {_in_words(expected)}, got {message!r}"
            raise self._failure(what, "receive")
        return message

    async def expect_json(
        self, expected: object = ..., *, within: float | None = None
    ) -> Any:  # noqa: ANN401 - what JSON can hold
        """Receive the next message, and check it as JSON.

        Args:
            expected: The value that the JSON must have; ``...`` for any.
            within: Seconds to wait for the message.

        Returns:
            The value.

        Raises:
            ConversationError: The message isn't JSON, or has another value; or as for
                `expect()`.
            InvalidStateError: The messages go to listeners.
        """
        __tracebackhide__ = True
        what = "JSON" if expected is ... else f"JSON {expected!r}"
        message = await self._next(what, within)
        try:
            value = json.loads(message)
        except ValueError:
            what = f"expected {what}, got {message!r}, which isn't JSON"
            raise self._failure(what, "receive") from None
        if expected is not ... and value != expected:
            raise self._failure(f"expected {what}, got {value!r}", "receive")
        return value

    async def expect_close(
        self,
        code: int | None = None,
        reason: str | re.Pattern[str] | None = None,
        *,
        within: float | None = None,
    ) -> CloseEvent:
        """Wait until this half is closed, and check that no message comes before.

        On a half with listeners, it waits until the close event was dispatched.

        Args:
            code: The code that the close event must have, such as 1000, or 1006 if the
                peer has vanished; `None` for any.
            reason: The reason that it must have, or a pattern that is found in it;
                `None` for any.
            within: Seconds to wait for the close event.

        Returns:
            The close event.

        Raises:
            ConversationError: The close event is another one, or a message came, or
                nothing came in time.
            TypeError: An argument is of another type.
        """
        __tracebackhide__ = True
        _check_end(code, reason)
        what = "a close" if code is None else f"close {code}"
        what += "" if reason is None else f" {_in_words(reason)}"
        with self._bounded(what, within):
            event = await self._end(what)
        right = code in (None, event.code) and (
            reason is None or _is_right(event.reason, reason)
        )
        if not right:
            what = f"expected {what}, got {event.code} {event.reason!r}"
            raise self._failure(what, "closed")
        self._closed_as_expected = True
        return event

    async def _end(self, what: str) -> CloseEvent:
        __tracebackhide__ = True
        if half_of(self).state.holder not in (Holder.NONE, Holder.PULLER):
            return await self.wait_closed()
        try:
            message = await self.receive()
        except ConnectionClosedError:
            return close_event(self)
        raise self._failure(f"expected {what}, got {message!r}", "receive")

    async def expect_nothing(self, *, within: float | None = None) -> None:
        """Check that no message and no Close has come, and that none is on its way.

        It waits until the program is idle: until each task waits for a time or for the
        network. On a network connection it also sends pings: what the peer had sent
        arrives before its pong. A close that was expected before, or that answers this
        half's own `close()`, is ignored.

        Args:
            within: Seconds to wait until the program is idle.

        Raises:
            ConversationError: Something came, or the program was not idle in time.
            InvalidStateError: The messages go to listeners.
        """
        __tracebackhide__ = True
        half = half_of(self)
        if half.state.holder is not Holder.PULLER:
            await self._start_pulling()
        with self._bounded("nothing", within, "the program was not idle"):
            await self._wait_idle()
        end = half.state.end or half.inbox.end
        if half.inbox.weight:
            what = f"expected nothing, got {await self.receive()!r}"
            raise self._failure(what, "receive")
        closed_first = half.state.close_sent is not None and not half.state.answered
        if end is not None and not closed_first and not self._closed_as_expected:
            raise self._failure("expected nothing, but it was closed", "closed")

    async def _wait_idle(self) -> None:
        await wait_all_tasks_blocked()
        count = None
        while half_of(self).link.ping is not None and count != len(self.record.entries):
            count = len(self.record.entries)
            with suppress(ConnectionClosedError):
                await self.ping()
            await wait_all_tasks_blocked()

    async def _next(self, what: str, within: float | None) -> str | bytes:
        __tracebackhide__ = True
        with self._bounded(what, within):
            try:
                return await self.receive()
            except ConnectionClosedError as exc:
                what = f"expected {what}, but it was closed: {exc}"
                raise self._failure(what, "closed") from None

    @contextmanager
    def _bounded(
        self, what: str, within: float | None, instead: str = "nothing came"
    ) -> Generator[None, None, None]:
        """Fail when the block takes longer than the time that a check may take."""
        __tracebackhide__ = True
        seconds = self._within if within is None else within
        check_seconds("within", seconds)
        with trio.move_on_after(seconds) as scope:
            yield
        if scope.cancelled_caught:
            what = f"expected {what} within {seconds} s, but {instead}"
            raise self._failure(what) from None

    def _failure(self, what: str, unexpected: What | None = None) -> ConversationError:
        """Mark the failed step in the record, and return the error.

        Args:
            what: What went wrong.
            unexpected: The kind of the unexpected entry, which is the last of its kind.
        """
        record = self.record
        halves = record.halves
        [name] = [name for name in halves if half_of(halves[name]) is half_of(self)]
        what = cut(f"{name} {what}")
        kinds = [(e.half, e.what) for e in record.entries]
        at = [index for index, kind in enumerate(kinds) if kind == (name, unexpected)]
        record._fail(name, what, at[-1] if at else None)
        return ConversationError(f"{what}\n\n{record}", record)


def _in_words(expected: _Expected) -> str:
    if isinstance(expected, re.Pattern):
        return f"a text that matches {expected.pattern!r}"
    if isinstance(expected, FunctionType):
        code = expected.__code__
        where = f"{PurePath(code.co_filename).name}:{code.co_firstlineno}"
        return f"a message for which {expected.__name__}() is true, {where}"
    if callable(expected):
        name = getattr(expected, "__name__", expected)
        return f"a message for which {name}() is true"
    return repr(expected)


def _is_right(
    message: str | bytes,
    expected: _Expected,
) -> bool:
    if isinstance(expected, (str, bytes)):
        return message == expected
    if isinstance(expected, re.Pattern):
        return isinstance(message, str) and expected.search(message) is not None
    right = expected(message)
    if inspect.isawaitable(right):  # An awaitable is always true.
        if inspect.iscoroutine(right):
            right.close()
        raise _not_sync(expected)
    return bool(right)


def _check_expected(expected: _Expected) -> None:
    if not (isinstance(expected, (str, bytes, re.Pattern)) or callable(expected)):
        kind = type(expected).__name__
        msg = f"expected is a str, bytes, a pattern or a function, not {kind}"
        raise TypeError(f"{msg}: use expect_json() for JSON")
    check_pattern("expected", expected)
    if inspect.iscoroutinefunction(expected):
        raise _not_sync(expected)


def _check_end(code: int | None, reason: str | re.Pattern[str] | None) -> None:
    if code is not None and (not isinstance(code, int) or isinstance(code, bool)):
        msg = f"code is an int such as 1000, not {code!r}"
        if isinstance(code, (str, re.Pattern)):
            msg += ": pass an expected reason as reason=..."
        raise TypeError(msg)
    if not isinstance(reason, (str, re.Pattern, NoneType)):
        msg = f"reason is a str or a pattern, not {type(reason).__name__}"
        raise TypeError(msg)
    check_pattern("reason", reason)


def check_pattern(name: str, value: object) -> None:
    """Check that a value isn't a pattern for bytes.

    Raises:
        TypeError: It is a pattern for bytes.
    """
    if isinstance(value, re.Pattern):
        pattern = cast("re.Pattern[str] | re.Pattern[bytes]", value).pattern
        if isinstance(pattern, bytes):
            msg = f"{name} is a pattern for bytes, {pattern!r}; use one for text"
            raise TypeError(msg)


def _not_sync(function: Callable[..., object]) -> TypeError:
    name = getattr(function, "__name__", repr(function))
    return TypeError(
        f"expected is a sync function that returns whether a message is right; "
        f"{name}() is async, and nothing would await what it returns"
    )


@asynccontextmanager
async def open_recorded_pair(
    *,
    names: tuple[str, str] = ("client", "server"),
    within: float = DEFAULT_WITHIN,
    max_buffered_bytes: int = DEFAULT_MAX_BUFFERED_BYTES,
    close_grace: float = 1.0,
) -> AsyncGenerator[tuple[RecordedWebSocket, RecordedWebSocket], None]:
    """Open a pair whose halves have a record, and methods that check what they receive.

    ``async with open_recorded_pair() as (client, server):``. Otherwise it is like
    `open_websocket_pair()`. An exception that leaves the block has the conversation as
    a note.

    Args:
        names: The names of the two halves in the record.
        within: Seconds that the `expect...()` methods wait by default.
        max_buffered_bytes: How much may be sent and not yet received, in each
            direction.
        close_grace: Seconds that closing may take.

    Raises:
        TypeError: An argument is of another type.
        ValueError: An argument is out of range.
    """
    check_seconds("within", within)
    record = Record(names)
    try:
        async with AsyncExitStack() as stack:
            with use_instrument(record):
                opening = open_websocket_pair(
                    max_buffered_bytes=max_buffered_bytes, close_grace=close_grace
                )
                client, server = await stack.enter_async_context(opening)
            with adding_notes([record]):
                yield (
                    RecordedWebSocket(client, record, within),
                    RecordedWebSocket(server, record, within),
                )
    except Exception as exc:
        if not record._failed:  # A listener has raised, not the block.
            add_notes(exc, [record])
        raise


@contextmanager
def adding_notes(records: Sequence[Record]) -> Generator[None, None, None]:
    """If the block raises, end the pictures there, and add them to the exception."""
    try:
        yield
    except Exception as exc:
        for record in records:
            record._end_at_failure_of_test(_of_record(exc, record) or exc)
        if not shows_conversation(exc):
            add_notes(exc, records)
        raise


def _of_record(exc: BaseException, record: Record) -> ConversationError | None:
    """Return the error about this record: `exc`, or one in the group `exc`."""
    if isinstance(exc, ConversationError):
        return exc if exc.record is record else None
    if not isinstance(exc, BaseExceptionGroup):
        return None
    group = cast("BaseExceptionGroup[BaseException]", exc)
    found = (_of_record(each, record) for each in group.exceptions)
    return next(filter(None, found), None)


def add_notes(exc: Exception, records: Sequence[Record]) -> None:
    """Add conversations to an exception, as notes."""
    for record in records:
        if record.entries:
            exc.add_note(f"{_NOTE}{record}")


def remove_notes(exc: BaseException) -> None:
    """Remove conversations from an exception, as another exception has them."""
    notes: list[str] = getattr(exc, "__notes__", [])
    notes[:] = [note for note in notes if not note.startswith(_NOTE)]


def shows_conversation(exc: BaseException) -> bool:
    """Return whether an exception, or one in its group, has a conversation."""
    notes: Sequence[str] = getattr(exc, "__notes__", ())
    if isinstance(exc, ConversationError) or any(n.startswith(_NOTE) for n in notes):
        return True
    if not isinstance(exc, BaseExceptionGroup):
        return False
    group = cast("BaseExceptionGroup[BaseException]", exc)
    return any(map(shows_conversation, group.exceptions))

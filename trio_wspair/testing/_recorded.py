"""`open_recorded_pair()`: a pair that tells a test what has happened, and never hangs.

Knows what a test may expect; what was said meanwhile is in the record.
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
    "check_pattern",
    "open_recorded_pair",
    "tell",
    "telling",
    "tells",
    "untell",
)

DEFAULT_WITHIN: Final = 5.0
_NOTE: Final = "The conversation was:\n\n"
_Expected = str | bytes | re.Pattern[str] | Callable[[str | bytes], object]


class RecordedWebSocket(WebSocket):
    """A half with a record of the conversation, and helpers to check it.

    The helpers pull messages: on a half that nobody has taken they imply
    ``accept(pull=True)``, as `receive()` does. Each of them is a checkpoint, waits a
    bounded time, and fails with a `ConversationError`.
    """

    __slots__ = ("_closed_as_expected", "_original", "_within", "record")

    record: Record
    """What both halves have said and heard so far."""

    def __init__(self, socket: WebSocket, record: Record, within: float) -> None:
        super().__init__(half_of(socket), home_of(socket))
        self._original = socket  # Which the record goes on to be told about.
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
            expected: The message itself; or a pattern that is found in a text, as by
                `re.search()`; or a sync function that returns whether a message is
                right.
            within: Seconds in which it has to come.

        Returns:
            The message.

        Raises:
            ConversationError: Another message has come, or the end, or nothing.
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
            expected: The value that has to be in it; ``...`` for any.
            within: Seconds in which it has to come.

        Returns:
            The value that is in it.

        Raises:
            ConversationError: It is none, or of another value; or as for `expect()`.
            InvalidStateError: The messages go to listeners.
        """
        __tracebackhide__ = True
        what = "JSON" if expected is ... else f"JSON {expected!r}"
        message = await self._next(what, within)
        try:
            value = json.loads(message)
        except ValueError:
            what = f"expected {what}, got {message!r}, which is no JSON"
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
        """Wait for the end of this half, before which no more messages may come.

        On a half with listeners, it waits until they have been told.

        Args:
            code: What the close event has to say: 1000, or 1006 if the other side has
                vanished; `None` for any.
            reason: The reason, or a pattern that is found in it; `None` for any.
            within: Seconds in which it has to come.

        Returns:
            The close event.

        Raises:
            ConversationError: It has ended otherwise, or not, or a message has come.
            TypeError: An argument is of another type.
        """
        __tracebackhide__ = True
        _check_end(code, reason)
        what = "a close" if code is None else f"close {code}"
        what += "" if reason is None else f" {_in_words(reason)}"
        with self._patience(what, within):
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
        """Check that no message and no end has come, and that none is on its way.

        It waits until the program has come to rest: until all tasks wait for time to
        pass, or for the network. On a network connection it also asks the other side,
        with pings, whether all has arrived. An end that was expected, or that answers
        one's own `close()`, counts for nothing.

        Args:
            within: Seconds in which the program has to come to rest.

        Raises:
            ConversationError: Something has come, or the program goes on and on.
            InvalidStateError: The messages go to listeners.
        """
        __tracebackhide__ = True
        half = half_of(self)
        if half.state.holder is not Holder.PULLER:
            await self._start_pulling()
        with self._patience("nothing", within, "the program does not come to rest"):
            await self._come_to_rest()
        end = half.state.end or half.inbox.end
        if half.inbox.weight:
            what = f"expected nothing, got {await self.receive()!r}"
            raise self._failure(what, "receive")
        asked = half.state.close_sent is not None and not half.state.answered
        if end is not None and not asked and not self._closed_as_expected:
            raise self._failure("expected nothing, but it was closed", "closed")

    async def _come_to_rest(self) -> None:
        await wait_all_tasks_blocked()
        count = None
        while half_of(self).link.ping is not None and count != len(self.record.entries):
            count = len(self.record.entries)
            with suppress(ConnectionClosedError):
                await self.ping()
            await wait_all_tasks_blocked()

    async def _next(self, what: str, within: float | None) -> str | bytes:
        __tracebackhide__ = True
        with self._patience(what, within):
            try:
                return await self.receive()
            except ConnectionClosedError as exc:
                what = f"expected {what}, but it was closed: {exc}"
                raise self._failure(what, "closed") from None

    @contextmanager
    def _patience(
        self, what: str, within: float | None, instead: str = "nothing came"
    ) -> Generator[None, None, None]:
        __tracebackhide__ = True
        seconds = self._within if within is None else within
        check_seconds("within", seconds)
        with trio.move_on_after(seconds) as patience:
            yield
        if patience.cancelled_caught:
            what = f"expected {what} within {seconds} s, but {instead}"
            raise self._failure(what) from None

    def _failure(self, what: str, wrong: What | None = None) -> ConversationError:
        """Mark the step that has failed, and return the error.

        Args:
            what: What has gone wrong.
            wrong: What was not expected: the last entry of this kind.
        """
        record = self.record
        halves = record.halves
        [name] = [name for name in halves if half_of(halves[name]) is half_of(self)]
        what = cut(f"{name} {what}")
        kinds = [(e.half, e.what) for e in record.entries]
        at = [index for index, kind in enumerate(kinds) if kind == (name, wrong)]
        record._fail(name, what, at[-1] if at else None)
        return ConversationError(f"{what}\n\n{record}", record)


def _in_words(expected: _Expected) -> str:
    if isinstance(expected, re.Pattern):
        return f"something like {expected.pattern!r}"
    if isinstance(expected, FunctionType):
        code = expected.__code__
        where = f"{PurePath(code.co_filename).name}:{code.co_firstlineno}"
        return f"what {expected.__name__} takes, {where}"
    if callable(expected):
        return f"what {getattr(expected, '__name__', expected)} takes"
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
    if inspect.isawaitable(right):  # It would always count as true.
        if inspect.iscoroutine(right):
            right.close()
        raise _not_sync(expected)
    return bool(right)


def _check_expected(expected: _Expected) -> None:
    if not (isinstance(expected, (str, bytes, re.Pattern)) or callable(expected)):
        kind = type(expected).__name__
        msg = f"expected is text, bytes, a pattern or a function, not {kind}"
        raise TypeError(f"{msg}: for JSON there is expect_json()")
    check_pattern("expected", expected)
    if inspect.iscoroutinefunction(expected):
        raise _not_sync(expected)


def _check_end(code: int | None, reason: str | re.Pattern[str] | None) -> None:
    if code is not None and (not isinstance(code, int) or isinstance(code, bool)):
        msg = f"code is an int such as 1000, not {code!r}"
        if isinstance(code, (str, re.Pattern)):
            msg += ": to expect a reason, pass it as reason=..."
        raise TypeError(msg)
    if not isinstance(reason, (str, re.Pattern, NoneType)):
        msg = f"reason is a str or a pattern, not {type(reason).__name__}"
        raise TypeError(msg)
    check_pattern("reason", reason)


def check_pattern(name: str, value: object) -> None:
    """Check that what may be a pattern is none for bytes.

    Raises:
        TypeError: It is one.
    """
    if isinstance(value, re.Pattern):
        pattern = cast("re.Pattern[str] | re.Pattern[bytes]", value).pattern
        if isinstance(pattern, bytes):
            msg = f"{name} is a pattern for bytes, {pattern!r}: patterns are for text"
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
    """Open a pair whose halves have a record, and know what to expect.

    ``async with open_recorded_pair() as (client, server):``, and otherwise like
    `open_websocket_pair()`. What the block raises gets the conversation as a note.

    Args:
        names: What the record calls the two halves.
        within: Seconds that an `expect...()` waits if nothing else is said.
        max_buffered_bytes: How much may be sent and not taken, each way.
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
            with telling([record]):
                yield (
                    RecordedWebSocket(client, record, within),
                    RecordedWebSocket(server, record, within),
                )
    except Exception as exc:
        if record._drawn_to is None:  # A listener has raised, and not the block.
            tell(exc, [record])
        raise


@contextmanager
def telling(records: Sequence[Record]) -> Generator[None, None, None]:
    """Let the pictures end where the block fails, and add them to what it raises."""
    try:
        yield
    except Exception as exc:
        for record in records:
            record._stop_drawing(_of_record(exc, record) or exc)
        if not tells(exc):
            tell(exc, records)
        raise


def _of_record(exc: BaseException, record: Record) -> ConversationError | None:
    """Return the error about this record in a group, or in what is none."""
    if isinstance(exc, ConversationError):
        return exc if exc.record is record else None
    if not isinstance(exc, BaseExceptionGroup):
        return None
    group = cast("BaseExceptionGroup[BaseException]", exc)
    found = (_of_record(each, record) for each in group.exceptions)
    return next(filter(None, found), None)


def tell(exc: Exception, records: Sequence[Record]) -> None:
    """Add the conversations to an exception."""
    for record in records:
        if record.entries:
            exc.add_note(f"{_NOTE}{record}")


def untell(exc: BaseException) -> None:
    """Take the conversations away from an exception, as another one tells them."""
    notes: list[str] = getattr(exc, "__notes__", [])
    notes[:] = [note for note in notes if not note.startswith(_NOTE)]


def tells(exc: BaseException) -> bool:
    """Return whether an exception, or one in its group, tells a conversation."""
    notes: Sequence[str] = getattr(exc, "__notes__", ())
    if isinstance(exc, ConversationError) or any(n.startswith(_NOTE) for n in notes):
        return True
    if not isinstance(exc, BaseExceptionGroup):
        return False
    group = cast("BaseExceptionGroup[BaseException]", exc)
    return any(map(tells, group.exceptions))

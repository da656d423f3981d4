"""`reconnecting()`: one connection after the other to the same server.

Theory of operation: `_Connections.__anext__()`, in the caller's task, closes the
current half and makes attempts until one opens the next. Before each attempt it sleeps
for `_Backoff.delay`. That is computed when the previous attempt *begins*, so that each
attempt is followed by a wait, whatever its outcome. Knows `connect()` and when to call
it, no network.
"""

import inspect
import logging
import random
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, Unpack

import attrs
import trio

from trio_wspair._http.headers import Headers, HeadersInit
from trio_wspair._pair.pair import closing_on_exit
from trio_wspair._pair.websocket import WebSocket
from trio_wspair._rules.display import redacted
from trio_wspair._rules.errors import HandshakeError, InvalidStateError
from trio_wspair._rules.limits import check_seconds
from trio_wspair._tasks.nurseries import open_service_nursery
from trio_wspair.transports.io._tls import is_without_tls

from .connecting import ConnectionOptions, connect
from .endpoint import parse_endpoint

__all__ = ("reconnecting",)

_URL = str | Callable[[], str | Awaitable[str]]
_HeadersOf = HeadersInit | Callable[[], HeadersInit | Awaitable[HeadersInit]]
_MIN_DELAY: Final = 0.1
"""Seconds between two attempts at least."""
_FAILURES_BEFORE_WARNING: Final = 3
"""From this failure in a row on, the log level is WARNING."""
_ASYNC_DECISION: Final = "should_retry must be a sync function, not an async one"
_logger: Final = logging.getLogger("trio_wspair")


@asynccontextmanager
async def reconnecting(
    url: str | Callable[[], str | Awaitable[str]],
    *,
    headers: HeadersInit | Callable[[], HeadersInit | Awaitable[HeadersInit]] = (),
    min_delay: float = 0.5,
    max_delay: float = 60.0,
    should_retry: Callable[[OSError | HandshakeError], bool] | None = None,
    **options: Unpack[ConnectionOptions],
) -> AsyncGenerator[AsyncIterator[WebSocket], None]:
    """Open a WebSocket, and another one whenever the last one has ended.

    The iterator yields one open half after the other, accepted in pull mode. Its next
    step closes the previous half, if that is still open::

        async with reconnecting("wss://example.com/feed") as connections:
            async for ws in connections:
                try:
                    ws.send("subscribe")
                    async for message in ws:
                        print(message)
                except ConnectionClosedError:
                    pass  # and on to the next one

    There is a wait between two attempts. It grows with each failure and is random, so
    that a server which comes back is not flooded by its clients. A failed attempt is
    logged at INFO; at WARNING from the third in a row on, or if the URL may be wrong
    (the name of the server was not found, or the server speaks no TLS). Nothing is
    carried over to the next connection: `send()` raises as usual after the end of one.

    Args:
        url: As for `connect()`; or a function, sync or async, that is called for each
            attempt, for example to choose among several servers, or for a fresh token.
        headers: As for `connect()`; or such a function. An exception of these functions
            comes out of the iterator at once.
        min_delay: The longest first wait, in seconds; at least 0.1.
        max_delay: The longest wait, in seconds; at least 0.1. Also bounds the wait that
            a server asks for with ``Retry-After``.
        should_retry: A sync function that gets the exception of an attempt and returns
            whether to try again; otherwise the exception comes out of the iterator. By
            default, every attempt is repeated unless `HandshakeError.retryable` is
            `False`.
        options: The other options of `connect()`.

    Raises:
        HandshakeError: From the iterator: another attempt would not help.
        OSError: The same. By default only for a certificate that is refused in a
            ``dial`` function.
        InvalidStateError: From the iterator, after its block.
        ValueError: An argument is not valid.
        TypeError: An argument is of another type.
    """
    check_seconds("min_delay", min_delay)
    check_seconds("max_delay", max_delay)
    _check_decision(should_retry)
    _check_url(url)
    if not callable(headers):
        headers = Headers(headers)  # An iterator could be read only once.
    async with open_service_nursery() as nursery:
        opener = _Opener(nursery, url, headers, options)
        backoff = _Backoff(min_delay, max_delay)
        connections = _Connections(opener, should_retry or _is_retryable, backoff)
        grace = options.get("close_grace", 5.0)
        async with closing_on_exit(connections.current, grace=grace):
            try:
                yield connections
            finally:
                connections.end()


def _check_decision(should_retry: object) -> None:
    if should_retry is None:
        return
    if not callable(should_retry):
        msg = f"should_retry must be a function of an exception, not {should_retry!r}"
        raise TypeError(msg)
    call = getattr(should_retry, "__call__", None)  # noqa: B004 - an object may have it
    if any(map(inspect.iscoroutinefunction, (should_retry, call))):
        raise TypeError(_ASYNC_DECISION)


def _check_url(url: object) -> None:
    if isinstance(url, str):
        parse_endpoint(url)
    elif not callable(url):
        msg = f"url must be a str or a function, not {type(url).__name__}"
        if inspect.iscoroutine(url):
            url.close()  # Otherwise Python warns that it was never awaited.
            name = url.__name__
            msg += f", which can be awaited only once: pass {name} instead of {name}()"
        raise TypeError(msg)


@attrs.frozen
class _Opener:
    """Makes one attempt to open a connection, in a nursery."""

    nursery: trio.Nursery
    url: _URL
    headers: _HeadersOf
    options: ConnectionOptions

    async def arguments(self) -> tuple[str, HeadersInit]:
        """Return the URL and the headers of the next attempt."""
        url = self.url() if callable(self.url) else self.url
        url = await url if isinstance(url, Awaitable) else url
        headers = self.headers() if callable(self.headers) else self.headers
        headers = await headers if isinstance(headers, Awaitable) else headers
        return url, headers

    async def open(self, url: str, headers: HeadersInit) -> WebSocket:
        """Return an open half; raises what `connect()` raises."""
        return await connect(url, nursery=self.nursery, headers=headers, **self.options)


class _Connections(AsyncIterator[WebSocket]):
    """The iterator that `reconnecting()` gives to its block."""

    def __init__(
        self,
        opener: _Opener,
        should_retry: Callable[[OSError | HandshakeError], bool],
        backoff: "_Backoff",
    ) -> None:
        self._opener = opener
        self._should_retry = should_retry
        self._backoff = backoff
        self.current: list[WebSocket] = []
        """The half that was yielded last; empty between two connections."""
        self._opened_at = 0.0
        self._failures = 0
        """The attempts in a row that have failed."""
        self._has_ended = False

    def end(self) -> None:
        """Yield no more halves, as the block has ended."""
        self._has_ended = True

    async def __anext__(self) -> WebSocket:
        self._check_block()
        backoff = self._backoff
        if self.current:
            backoff.note_duration(trio.current_time() - self._opened_at)
            await self.current.pop().aclose()
        while True:
            await trio.sleep(backoff.delay)
            backoff.begin_attempt()
            url, headers = await self._opener.arguments()
            self._check_block()  # It may have ended meanwhile, in another task.
            try:
                websocket = await self._opener.open(url, headers)
            except (OSError, HandshakeError) as exc:
                if not self._decide(exc):
                    raise
                if isinstance(exc, HandshakeError):
                    backoff.extend(_retry_after(exc))
                self._failures += 1
                self._log_failure(url, exc)
            else:
                self._failures = 0
                self.current.append(websocket)
                self._opened_at = trio.current_time()
                websocket.accept(pull=True)
                return websocket

    def _check_block(self) -> None:
        if self._has_ended:
            msg = "the block of reconnecting() has ended: iterate inside of it"
            raise InvalidStateError(msg)

    def _decide(self, error: OSError | HandshakeError) -> bool:
        decision: object = self._should_retry(error)
        if inspect.isawaitable(decision):  # bool() of it would always be true.
            if inspect.iscoroutine(decision):
                decision.close()  # Otherwise Python warns that it was never awaited.
            raise TypeError(_ASYNC_DECISION) from error
        return bool(decision)

    def _log_failure(self, url: str, error: OSError | HandshakeError) -> None:
        # Such a URL is probably wrong; but the name may be found a minute later.
        may_be_wrong = isinstance(error, socket.gaierror) or is_without_tls(error)
        is_late = self._failures >= _FAILURES_BEFORE_WARNING
        level = logging.WARNING if may_be_wrong or is_late else logging.INFO
        what = "no connection to %s, next attempt in %.1f s: %s"
        _logger.log(level, what, redacted(url), self._backoff.delay, error)


def _is_retryable(error: OSError | HandshakeError) -> bool:
    if isinstance(error, HandshakeError):
        return error.retryable
    return not isinstance(error, ssl.SSLCertVerificationError)


def _retry_after(error: HandshakeError) -> float:
    """Return the seconds of ``Retry-After`` (RFC 9110, section 10.2.3), or 0.

    A date in it is compared with ``Date`` of the same answer, if there is one: the
    clock of this machine may differ from that of the server.
    """
    fields = {name.lower(): value.strip(" \t") for name, value in error.headers}
    value = fields.get("retry-after", "")
    if value.isascii() and value.isdigit():
        return float(value)
    when = _date(value)
    if when is None:
        return 0.0
    now = _date(fields.get("date", "")) or datetime.now(UTC)
    return max(0.0, (when - now).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


class _Backoff:
    """The waits between attempts: none at first, then exponential, with jitter."""

    delay: float
    """Seconds until the next attempt."""

    def __init__(self, shortest: float, longest: float) -> None:
        self._longest = max(_MIN_DELAY, longest)
        self._shortest = min(max(_MIN_DELAY, shortest), self._longest)
        self._limit = self._shortest
        self.delay = 0.0

    def begin_attempt(self) -> None:
        """Compute the wait after the attempt that begins now."""
        part = random.uniform(0.5, 1)  # noqa: S311 - no secret
        self.delay = max(_MIN_DELAY, self._limit * part)
        self._limit = min(self._longest, 2 * self._limit)

    def extend(self, seconds: float) -> None:
        """Lengthen the next wait, up to the longest one."""
        self.delay = min(self._longest, self.delay + seconds)

    def note_duration(self, seconds: float) -> None:
        """Begin with short waits again if a connection was open for long enough."""
        if seconds > self.delay:
            self._limit = self._shortest
            self.begin_attempt()

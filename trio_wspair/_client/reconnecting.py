"""`reconnecting()`: one connection after the other to the same server.

Theory of operation: the iterator of `reconnecting()` opens a connection whenever it is
asked for the next one. Before that it waits for as long as `_Backoff` says, which is
decided when an attempt begins, so that each attempt costs a wait, whatever becomes of
the one before. Knows `connect()` and when to call it again, no network.
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

import trio

from trio_wspair._http.headers import Headers, HeadersInit
from trio_wspair._pair.pair import closing_on_exit
from trio_wspair._pair.websocket import WebSocket
from trio_wspair._rules.checks import check_seconds
from trio_wspair._rules.display import redacted
from trio_wspair._rules.errors import HandshakeError, InvalidStateError
from trio_wspair._tasks.nurseries import open_service_nursery
from trio_wspair.transports.io._tls import is_without_tls

from .connecting import ConnectionOptions, connect
from .endpoint import parse_endpoint

__all__ = ("reconnecting",)

_Request = tuple[str, HeadersInit]
"""The arguments of an attempt that may be others each time."""
_LEAST_DELAY: Final = 0.1
"""Seconds between two attempts, if less is asked for."""
_PATIENCE: Final = 3
"""So many failures in a row are worth a warning."""
_ASYNC_DECISION: Final = "should_retry must be a sync function, this one is async"
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
    """Open a WebSocket, and another one whenever that has ended.

    The iterator gives one open half after the other, accepted in pull mode. Going on to
    the next closes the one before, if it is still open::

        async with reconnecting("wss://example.com/feed") as connections:
            async for ws in connections:
                try:
                    ws.send("subscribe")
                    async for message in ws:
                        print(message)
                except ConnectionClosedError:
                    pass  # and on to the next one

    Between two attempts it waits, longer after each in vain, and each client for
    another time, so that a server that comes back is not run over. An attempt that
    failed is logged with INFO; with WARNING from the third in a row on, or if the URL
    may be wrong: the name of the server was not found, or the server speaks no TLS.
    Nothing is kept from one connection for the next: what could not be sent raises, as
    ever.

    Args:
        url: As for `connect()`; or a function, sync or async, that is called for each
            attempt, for a token that expires, or a list of servers.
        headers: As for `connect()`; or such a function. What it raises, or the one for
            the URL, comes out of the iterator at once.
        min_delay: Seconds up to which it waits at first; at least 0.1.
        max_delay: Seconds up to which it waits at last; at least 0.1. A server that
            asks for more with ``Retry-After`` gets this.
        should_retry: A sync function that is given the exception of an attempt, and
            decides whether there is another one; otherwise the exception comes out of
            the iterator. By default, all are worth it but those whose
            `HandshakeError.retryable` is `False`.
        options: Those of `connect()`.

    Raises:
        HandshakeError: From the iterator: trying again would not help.
        OSError: The same. By default that is only a certificate that is refused in
            a ``dial`` function.
        InvalidStateError: From the iterator: its block has been left.
        ValueError: An argument can't be used.
        TypeError: An argument is of another type.
    """
    check_seconds("min_delay", min_delay)
    check_seconds("max_delay", max_delay)
    _check_decision(should_retry)
    _check_url(url)
    if not callable(headers):
        headers = Headers(headers)  # An iterator could be read only once.

    async def next_request() -> _Request:
        address = url() if callable(url) else url
        address = await address if isinstance(address, Awaitable) else address
        fields = headers() if callable(headers) else headers
        fields = await fields if isinstance(fields, Awaitable) else fields
        return address, fields

    current: list[WebSocket] = []
    async with open_service_nursery() as nursery:

        async def open_one(request: _Request) -> WebSocket:
            url, headers = request
            return await connect(url, nursery=nursery, headers=headers, **options)

        grace = options.get("close_grace", 5.0)
        backoff = _Backoff(min_delay, max_delay)
        decide = should_retry or _is_retryable
        async with closing_on_exit(current, grace=grace):
            connections = _Connections(next_request, open_one, decide, current, backoff)
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
        msg = f"url must be a str, or a function, not {type(url).__name__}"
        if inspect.iscoroutine(url):
            url.close()  # So that Python doesn't warn of it, too.
            name = url.__name__
            msg += f", which can be awaited only once: pass {name} instead of {name}()"
        raise TypeError(msg)


class _Connections(AsyncIterator[WebSocket]):
    """Gives one open half after the other; the last one is in `current`."""

    def __init__(
        self,
        next_request: Callable[[], Awaitable[_Request]],
        open_one: Callable[[_Request], Awaitable[WebSocket]],
        should_retry: Callable[[OSError | HandshakeError], bool],
        current: list[WebSocket],
        backoff: "_Backoff",
    ) -> None:
        self._next_request = next_request
        self._open_one = open_one
        self._should_retry = should_retry
        self._current = current
        self._backoff = backoff
        self._opened_at = 0.0
        self._failures = 0
        """The attempts in a row that have failed."""
        self._has_ended = False

    def end(self) -> None:
        """Give no more connections."""
        self._has_ended = True

    async def __anext__(self) -> WebSocket:
        self._check_block()
        backoff = self._backoff
        if self._current:
            backoff.lasted(trio.current_time() - self._opened_at)
            await self._current.pop().aclose()
        while True:
            await trio.sleep(backoff.delay)
            backoff.grow()
            request = await self._next_request()
            self._check_block()  # Another task may have left it meanwhile.
            try:
                websocket = await self._open_one(request)
            except (OSError, HandshakeError) as exc:
                if not self._decide(exc):
                    raise
                if isinstance(exc, HandshakeError):
                    backoff.add(_retry_after(exc))
                self._failures += 1
                self._log_failure(request[0], exc)
            else:
                self._failures = 0
                self._current.append(websocket)
                self._opened_at = trio.current_time()
                websocket.accept(pull=True)
                return websocket

    def _check_block(self) -> None:
        if self._has_ended:
            msg = "the block of reconnecting() has been left: iterate inside of it"
            raise InvalidStateError(msg)

    def _decide(self, error: OSError | HandshakeError) -> bool:
        decision: object = self._should_retry(error)
        if inspect.isawaitable(decision):  # Always true.
            if inspect.iscoroutine(decision):
                decision.close()  # So that Python doesn't warn of it, too.
            raise TypeError(_ASYNC_DECISION) from error
        return bool(decision)

    def _log_failure(self, url: str, error: OSError | HandshakeError) -> None:
        # The URL may be wrong, or be right a minute later.
        may_be_wrong = isinstance(error, socket.gaierror) or is_without_tls(error)
        is_late = self._failures >= _PATIENCE
        level = logging.WARNING if may_be_wrong or is_late else logging.INFO
        what = "no connection to %s, next attempt in %.1f s: %s"
        _logger.log(level, what, redacted(url), self._backoff.delay, error)


def _is_retryable(error: OSError | HandshakeError) -> bool:
    if isinstance(error, HandshakeError):
        return error.retryable
    return not isinstance(error, ssl.SSLCertVerificationError)


def _retry_after(error: HandshakeError) -> float:
    """Return the seconds that a server asks to wait (RFC 9110, section 10.2.3), or 0.

    A date is compared with that of the answer, so that this machine's clock doesn't
    matter, if the server says what time it is.
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
    """How long to wait: not at all at first, then exponentially, with jitter."""

    delay: float
    """Seconds until the next attempt."""

    def __init__(self, least: float, most: float) -> None:
        self._most = max(_LEAST_DELAY, most)
        self._least = min(max(_LEAST_DELAY, least), self._most)
        self._limit = self._least
        self.delay = 0.0

    def grow(self) -> None:
        """Note that an attempt begins, which decides how long to wait after it."""
        part = random.uniform(0.5, 1)  # noqa: S311 - no secret
        self.delay = max(_LEAST_DELAY, self._limit * part)
        self._limit = min(self._most, 2 * self._limit)

    def add(self, seconds: float) -> None:
        """Wait so much longer, within the limit."""
        self.delay = min(self._most, self.delay + seconds)

    def lasted(self, seconds: float) -> None:
        """Note that a connection was open so long: a good one lets it begin again."""
        if seconds > self.delay:
            self._limit = self._least
            self.grow()

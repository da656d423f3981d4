"""`reconnecting()`: one connection after the other to the same server.

Knows `connect()` and when to call it again, no network.
"""

import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Unpack

import trio

from ._checks import check_seconds
from ._client import ConnectOptions, connect
from ._errors import HandshakeError
from ._nurseries import open_service_nursery
from ._pair import closing_on_exit
from ._socket import WebSocket

__all__ = ("reconnecting",)

_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses after which it is worth while to try again."""
_logger: Final = logging.getLogger("trio_wspair")


@asynccontextmanager
async def reconnecting(
    url: str,
    *,
    min_delay: float = 0.5,
    max_delay: float = 60.0,
    **options: Unpack[ConnectOptions],
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
    another time, so that a server that comes back is not run over. Nothing is kept from
    one connection for the next: what could not be sent raises, as ever.

    Args:
        url: ``ws://`` or ``wss://``.
        min_delay: Seconds up to which it waits at first.
        max_delay: Seconds up to which it waits at last.
        options: Those of `connect()`.

    Raises:
        HandshakeError: From the iterator: the server refuses with a status that will
            not pass, such as 401 or 404.
        ValueError: An argument can't be used.
        TypeError: An argument is of another type.
    """
    check_seconds("min_delay", min_delay)
    check_seconds("max_delay", max_delay)
    current: list[WebSocket] = []
    async with open_service_nursery() as nursery:

        async def open_one() -> WebSocket:
            return await connect(url, nursery=nursery, **options)

        grace = options.get("close_grace", 5.0)
        async with closing_on_exit(current, grace=grace):
            yield _Connections(url, open_one, current, _Backoff(min_delay, max_delay))


class _Connections(AsyncIterator[WebSocket]):
    """Gives one open half after the other; the last one is in `current`."""

    def __init__(
        self,
        url: str,
        open_one: Callable[[], Awaitable[WebSocket]],
        current: list[WebSocket],
        backoff: "_Backoff",
    ) -> None:
        self._url = url
        self._open_one = open_one
        self._current = current
        self._backoff = backoff
        self._opened_at = 0.0

    async def __anext__(self) -> WebSocket:
        if self._current:
            self._backoff.lasted(trio.current_time() - self._opened_at)
            await self._current.pop().aclose()
        while True:
            await trio.sleep(self._backoff.next_delay())
            try:
                socket = await self._open_one()
            except (OSError, HandshakeError) as exc:
                if isinstance(exc, HandshakeError) and not _may_pass(exc):
                    raise
                _logger.info("no connection to %s: %s", self._url, exc)
            else:
                self._current.append(socket)
                self._opened_at = trio.current_time()
                socket.accept(pull=True)
                return socket


def _may_pass(error: HandshakeError) -> bool:
    return error.status is None or error.status in _PASSING


class _Backoff:
    """How long to wait: not at all at first, then exponentially, with jitter."""

    def __init__(self, least: float, most: float) -> None:
        self._least = min(least, most)
        self._most = most
        self._limit = 0.0

    def next_delay(self) -> float:
        """Return the seconds to wait before the next attempt."""
        delay = random.uniform(self._limit / 2, self._limit)  # noqa: S311 - no secret
        self._limit = min(self._most, max(self._least, 2 * self._limit))
        return delay

    def lasted(self, seconds: float) -> None:
        """Note that a connection was open so long: a good one lets it begin again."""
        if seconds > self._limit:
            self._limit = self._least

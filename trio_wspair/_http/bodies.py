"""The body of a request, read as it arrives, and of a response, sent in pieces.

Knows no connection: a `BodySource` gives a request body its bytes.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Generator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from typing import Final, Protocol, cast

import trio

from trio_wspair._rules.codes import usv_string
from trio_wspair._rules.errors import RequestBodyError
from trio_wspair._rules.limits import Limits

__all__ = ("BodySource", "Pace", "RequestBody", "open_pieces")

_PIECE_BYTES: Final = 2**16


class BodySource(Protocol):
    """The source of a request body: a parser, or the messages of an ASGI server."""

    def take(self) -> tuple[bytes, bool]:
        """Return what has newly arrived, and whether the body is complete.

        Raises:
            RequestBodyError: The body is not valid.
        """
        ...

    async def receive(self) -> None:
        """Wait until more has arrived.

        Raises:
            RequestBodyError: The client has gone.
        """
        ...


class Pace:
    """Bounds the time that one body waits for the peer, to receive or to send.

    Time in which the application produces or handles the body does not count.

    Args:
        limits: The time for each piece, and the lowest rate.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waited = 0.0
        self.size = 0
        """The bytes that were received or sent; the user of the pace counts them."""

    @contextmanager
    def waiting(self) -> Generator[trio.CancelScope, None, None]:
        """Wait for the peer in the block, which is cancelled if it takes too long."""
        began = trio.current_time()
        seconds = self._limits.body_seconds(self.size, self._waited)
        try:
            with trio.move_on_after(seconds) as scope:
                yield scope
        finally:
            self._waited += trio.current_time() - began

    def describe(self) -> str:
        """Return what was too slow, for an error."""
        return f"{self.size} bytes in {self._waited:.0f} s"


class RequestBody:
    """The body of one request: what has arrived of it, and the rest on demand.

    A cancelled reader loses nothing. The body keeps its bytes when the request has
    ended.

    Args:
        source: Gives the bytes.
        length: The ``Content-Length``; 0 without one.
        limits: The size, the time for each piece, and the lowest rate.
    """

    def __init__(self, source: BodySource, length: int, limits: Limits) -> None:
        self._source: BodySource | None = source
        self._length = length
        self._max_bytes = limits.max_body_bytes
        self._pace = Pace(limits)
        self._received = bytearray()
        self._outcome: bytes | RequestBodyError | None = None
        self._reading = trio.Lock()

    async def read(self) -> bytes:
        """Return the whole body; see `Body`."""
        async with self._reading:  # Always a checkpoint.
            while True:
                outcome = self.take()
                # The Content-Length is checked before the client sends the body.
                if max(len(self._received), self._length) > self._max_bytes:
                    msg = f"the body of a request has more than {self._max_bytes} bytes"
                    raise RequestBodyError(413, msg)
                if isinstance(outcome, RequestBodyError):
                    raise outcome
                if outcome is not None:
                    return outcome
                await self._receive()

    async def _receive(self) -> None:
        assert self._source is not None
        try:
            with self._pace.waiting() as scope:
                await self._source.receive()
        except RequestBodyError as exc:
            self._outcome = exc
        else:
            if scope.cancelled_caught:
                what = "the body of the request has arrived too slowly"
                slow = RequestBodyError(408, f"{what}: {self._pace.describe()}")
                self._outcome = slow

    def take(self) -> bytes | RequestBodyError | None:
        """Take what has arrived. At the end, return the whole body, or the error.

        The body may be larger than the limit by what was received at once.
        """
        if self._outcome is None and self._source is not None:
            try:
                data, is_complete = self._source.take()
            except RequestBodyError as exc:
                self._outcome = exc
            else:
                self._received += data
                self._pace.size = len(self._received)
                if is_complete:
                    self._outcome = bytes(self._received)
        return self._outcome

    def leave_empty(self) -> None:
        """Drop the source, as the rest of the connection is not a body."""
        self._outcome = b""
        self._source = None


@asynccontextmanager
async def open_pieces(
    body: bytes | AsyncIterable[str | bytes], *, wanted: bool
) -> AsyncGenerator[AsyncIterable[bytes], None]:
    """Yield a body in small pieces; the time limit for sending applies to each.

    If the body is a generator, it is closed on leaving in every case. The iterator
    raises `TypeError` if a piece of the body is neither str nor bytes.

    Args:
        body: The body of a response.
        wanted: Whether pieces are sent; not for HEAD.
    """
    pieces = _pieces_of(body if wanted else b"")
    async with AsyncExitStack() as stack:
        if isinstance(body, AsyncGenerator):
            generator = cast("AsyncGenerator[str | bytes, None]", body)
            await stack.enter_async_context(aclosing(generator))
        yield await stack.enter_async_context(aclosing(pieces))


async def _pieces_of(
    body: bytes | AsyncIterable[str | bytes],
) -> AsyncGenerator[bytes, None]:
    if isinstance(body, bytes):
        for piece in _cut(body):
            yield piece
        return
    async for given in body:
        if not isinstance(given, (str, bytes)):
            msg = f"a piece of a body must be str or bytes, not {type(given).__name__}"
            raise TypeError(msg)
        data = usv_string(given).encode() if isinstance(given, str) else given
        for piece in _cut(data) or [b""]:  # Sending it is a checkpoint.
            yield piece


def _cut(data: bytes) -> list[bytes]:
    starts = range(0, len(data), _PIECE_BYTES)
    return [data[start : start + _PIECE_BYTES] for start in starts]

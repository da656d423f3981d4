"""Bodies: of a request as it comes, of a response in pieces that can be sent.

Knows nobody who receives or sends them.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Final, cast

import trio

from trio_wspair._rules.codes import usv_string
from trio_wspair._rules.errors import RequestBodyError

__all__ = ("RequestBody", "open_pieces")

_PIECE_BYTES: Final = 2**16


class RequestBody(ABC):
    """The body of one request: what has come of it, and the rest on demand.

    A reader that is cancelled loses nothing.

    Args:
        length: What the head says of it, 0 if that is nothing.
        max_bytes: A larger one is refused.
    """

    def __init__(self, length: int, *, max_bytes: int) -> None:
        self._length = length
        self._max_bytes = max_bytes
        self._received = bytearray()
        self._outcome: bytes | RequestBodyError | None = None
        self._reading = trio.Lock()

    async def read(self) -> bytes:
        """Read to the end, once; see `Body`."""
        async with self._reading:  # Always a checkpoint.
            while True:
                outcome = self.take()
                # Before it is asked for, too.
                if max(len(self._received), self._length) > self._max_bytes:
                    msg = f"the body of a request has more than {self._max_bytes} bytes"
                    raise RequestBodyError(413, msg)
                if isinstance(outcome, RequestBodyError):
                    raise outcome
                if outcome is not None:
                    return outcome
                try:
                    await self._read_on()
                except RequestBodyError as exc:
                    self._outcome = exc

    def take(self) -> bytes | RequestBodyError | None:
        """Return the whole, or what is wrong with it, at the end."""
        return self._outcome

    @abstractmethod
    async def _read_on(self) -> None:
        """Wait for more.

        Raises:
            RequestBodyError: Nothing comes.
        """


@asynccontextmanager
async def open_pieces(
    body: bytes | AsyncIterable[str | bytes], *, wanted: bool
) -> AsyncGenerator[AsyncIterable[bytes], None]:
    """Give a body in small pieces: the client has its time for each.

    It gives none if they are not `wanted`, as by HEAD. A generator is closed in the
    end, whatever happens. The iterator raises `TypeError` if the body has
    something in it that can't be sent.
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
    async for said in body:
        if not isinstance(said, (str, bytes)):
            msg = f"a piece of a body is str or bytes, not {type(said).__name__}"
            raise TypeError(msg)
        data = usv_string(said).encode() if isinstance(said, str) else said
        for piece in _cut(data) or [b""]:  # To send it is a checkpoint.
            yield piece


def _cut(data: bytes) -> list[bytes]:
    starts = range(0, len(data), _PIECE_BYTES)
    return [data[start : start + _PIECE_BYTES] for start in starts]

"""The body of a response, in pieces that can be sent. Knows nobody who sends them."""

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Final, cast

from ._codes import usv_string

__all__ = ("open_pieces",)

_PIECE_BYTES: Final = 2**16


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

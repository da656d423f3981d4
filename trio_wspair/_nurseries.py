"""A nursery for tasks that serve one block of code and end with it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

__all__ = ("open_service_nursery",)


@asynccontextmanager
async def open_service_nursery() -> AsyncGenerator[trio.Nursery, None]:
    """Open a nursery that is cancelled when its block ends.

    What the block raises comes out as it is, when nothing else was raised: nobody
    outside has to know that there is a nursery.
    """
    error: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as exc:
                error = exc
                raise
            finally:
                nursery.cancel_scope.cancel(reason="the block has ended")
    except BaseExceptionGroup as group:
        if group.exceptions != (error,):
            raise
    if error is not None:
        raise error

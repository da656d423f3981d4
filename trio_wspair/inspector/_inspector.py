"""`open_inspector()`: the page that shows the connections, for a block.

Its own server runs outside of what is watched.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import attrs

from trio_wspair._pair.instruments import use_instrument
from trio_wspair._server.serving import Server, serve
from trio_wspair._tasks.nurseries import open_service_nursery

from ._connections import Connections
from ._site import Site

__all__ = ("Inspector", "open_inspector")

_PAGES: Final = 20
"""Connections of browsers to it."""


@attrs.frozen(eq=False)
class Inspector:
    """A page that shows the connections of this process."""

    url: str
    """Where it is, such as ``http://127.0.0.1:8001/``."""


@asynccontextmanager
async def open_inspector(port: int = 0) -> AsyncGenerator[Inspector, None]:
    """Show all connections that are made in the block, on a page of this machine.

    ``async with open_inspector() as inspector: await serve(...)``. The page is at
    `inspector.url`, on ``127.0.0.1`` only. It shows whatever the clients of this
    process say, to everybody who can use this machine: it is for development.

    Connections of `serve()` and those of `connect()` are watched; like an instrument,
    it goes where context variables go. Memory is bounded: of each connection the last
    500 frames are kept, of a payload the first 16 KiB, 32 MiB in all, and the last 100
    connections that have closed. A page that is slow misses frames, and delays nobody.

    Args:
        port: 0 picks a free one.

    Raises:
        OSError: The port can't be had.
        TypeError: The port is no int.
        ValueError: It is out of range.
    """
    connections = Connections()
    site = Site(connections)
    async with open_service_nursery() as nursery:
        run = partial(
            serve,
            site.fetch,
            port,
            host="127.0.0.1",
            max_connections=_PAGES,
            max_message_bytes=1024,
            max_body_bytes=0,
            close_grace=0.5,
        )
        server: Server = await nursery.start(run)
        site.port = server.port
        nursery.start_soon(connections.keep_looking)
        with use_instrument(connections):
            try:
                yield Inspector(f"http://127.0.0.1:{server.port}/")
            finally:
                connections.stop()

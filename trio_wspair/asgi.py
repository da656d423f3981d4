"""`ASGIApp`: a `fetch` handler as an ASGI application, for servers that run Trio.

Knows the life of a server; requests are for the rooms below.
"""

import math
from typing import Final

import trio
from trio.lowlevel import enable_ki_protection

from ._checks import check_limit, check_seconds
from ._errors import InvalidStateError
from ._exchange_asgi import ASGIExchange, ASGIService, Scope
from ._http import FetchHandler
from .transports._asgi import Receive, Send
from .transports._limits import Limits

__all__ = ("ASGIApp",)

_NO_TRIO: Final = (
    "ASGIApp needs a server that runs Trio, and this one runs asyncio. With Hypercorn "
    "it is 'hypercorn --worker-class trio module:app'; without any ASGI server, "
    "trio_wspair.serve(fetch, port)"
)


class ASGIApp:
    """A `fetch` handler as an ASGI application.

    It is called by an ASGI server that runs Trio, such as Hypercorn with its Trio
    worker, or by an application in which it is mounted. A server that runs asyncio is
    told so when it starts.

    What `serve()` says about the handler holds here too. What concerns the network is
    up to the server: TLS, pings, the size of messages, the time for a head.

    Args:
        fetch: The handler.
        body_timeout: Seconds for the next piece of a body to come, or to be taken.
        close_grace: Seconds for a closing handshake.
        max_body_bytes: A larger body of a request gets 413.
        receive_buffer_bytes: Reading from a client stops while the handler's half
            has so much that it has not taken.

    Raises:
        TypeError: An argument is of another type.
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        fetch: FetchHandler,
        *,
        body_timeout: float = 30.0,
        close_grace: float = 5.0,
        max_body_bytes: int = 2**20,
        receive_buffer_bytes: int = 2**20,
    ) -> None:
        if not callable(fetch):
            msg = f"fetch is an async function of a request, not {type(fetch).__name__}"
            raise TypeError(msg)
        check_seconds("body_timeout", body_timeout)
        check_limit("max_body_bytes", max_body_bytes, least=0)
        # ASGI has no pings.
        limits = Limits(close_grace, receive_buffer_bytes, math.inf, math.inf)
        self._service = ASGIService(fetch, limits, max_body_bytes, body_timeout)

    @enable_ki_protection
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or follow the life of the server; for ASGI servers.

        Raises:
            InvalidStateError: The server does not run Trio.
            ValueError: The type of the scope is not known here.
        """
        kind: str = scope["type"]
        if kind == "lifespan":
            await _live(receive, send)
            return
        if not trio.lowlevel.in_trio_task():
            raise InvalidStateError(_NO_TRIO)
        if kind not in ("http", "websocket"):
            msg = f"ASGIApp knows http, websocket and lifespan, not {kind!r}"
            raise ValueError(msg)
        if kind == "websocket" and (await receive())["type"] != "websocket.connect":
            return  # The client has gone already.
        await ASGIExchange(self._service, scope, receive, send).run()


async def _live(receive: Receive, send: Send) -> None:
    """Follow the life of the server; one that runs asyncio does not start."""
    while True:
        event = await receive()
        if event["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
        if not trio.lowlevel.in_trio_task():
            await send({"type": "lifespan.startup.failed", "message": _NO_TRIO})
            return
        await send({"type": "lifespan.startup.complete"})

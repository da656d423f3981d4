"""`ASGIApp`: a `fetch` handler as an ASGI application, for servers that run Trio.

Knows the life of a server; requests are for the rooms below.
"""

import logging
import math
from functools import partial
from typing import Final

import trio
from trio.lowlevel import enable_ki_protection

from trio_wspair._rules.errors import InvalidStateError
from trio_wspair._rules.limits import Limits
from trio_wspair._server.application import Application, handler_of, open_application
from trio_wspair._server.asgi_exchange import ASGIExchange
from trio_wspair._server.asgi_scope import Scope
from trio_wspair._server.request_task import Service
from trio_wspair._tasks.nurseries import bare
from trio_wspair.transports._asgi import Receive, Send

__all__ = ("ASGIApp",)

_NO_TRIO: Final = (
    "ASGIApp needs a server that runs Trio, and this one runs asyncio. With Hypercorn "
    "it is 'hypercorn --worker-class trio module:app'; without any ASGI server, "
    "trio_wspair.serve(fetch, port)"
)


_NOT_OPEN: Final = (
    "the application is an async context manager, which is opened when the server says "
    "that it starts (ASGI's lifespan), and this server {}. Switch its lifespan support "
    "on; if ASGIApp is mounted in another application, open it in that one's lifespan, "
    "and give the handler to ASGIApp"
)
_logger: Final = logging.getLogger("trio_wspair")


class ASGIApp:
    """A `fetch` handler, or any application, as an ASGI application.

    It is called by an ASGI server that runs Trio, such as Hypercorn with its Trio
    worker, or by an application in which it is mounted. A server that runs asyncio is
    told so when it starts.

    What `serve()` says about the handler holds here too. What concerns the network is
    up to the server: TLS, pings, the size of messages, the time for a head.

    Args:
        app: As for `serve()`: the handler, an object that has one, or an async context
            manager that yields one of these. That is opened when the server starts
            (``lifespan.startup``), and left when it has shut down.
        body_timeout: Seconds for the next piece of a body to come, or to be taken.
        close_grace: Seconds for a closing handshake.
        max_body_bytes: A larger body of a request gets 413.
        receive_buffer_bytes: Reading from a client stops while the handler's half
            has so much that it has not taken.
        log_query: Show the query of a URL in the log; it often has secrets in it.

    Raises:
        TypeError: An argument is of another type.
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        app: Application,
        *,
        body_timeout: float = 30.0,
        close_grace: float = 5.0,
        max_body_bytes: int = 2**20,
        receive_buffer_bytes: int = 2**20,
        log_query: bool = False,
    ) -> None:
        fetch = handler_of(app)
        limits = Limits(
            body_timeout=body_timeout,
            close_grace=close_grace,
            max_body_bytes=max_body_bytes,
            receive_buffer_bytes=receive_buffer_bytes,
            ping_interval=math.inf,  # ASGI has no pings.
        )
        self._make_service = partial(Service, limits=limits, log_query=log_query)
        self._app = app
        self._services: list[Service] = []
        """Of the applications that are open; of several servers, if several have it."""
        if fetch is not None:
            self._services.append(self._make_service(fetch=fetch))
        self._missing = "has not said so"

    @enable_ki_protection
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or follow the life of the server; for ASGI servers.

        Raises:
            InvalidStateError: The server does not run Trio, or the application is not
                open.
            ValueError: The type of the scope is not known here.
        """
        kind: str = scope["type"]
        if kind == "lifespan":
            await self._live(receive, send)
            return
        if not trio.lowlevel.in_trio_task():
            raise InvalidStateError(_NO_TRIO)
        if kind not in ("http", "websocket"):
            msg = f"ASGIApp knows http, websocket and lifespan, not {kind!r}"
            raise ValueError(msg)
        if not self._services:
            raise InvalidStateError(_NOT_OPEN.format(self._missing))
        service = self._services[-1]
        if kind == "websocket" and (await receive())["type"] != "websocket.connect":
            return  # The client has gone already.
        await ASGIExchange(service, scope, receive, send).run()

    async def _live(self, receive: Receive, send: Send) -> None:
        """Follow the life of the server; one that runs asyncio does not start."""
        await receive()  # lifespan.startup
        if not trio.lowlevel.in_trio_task():
            await send({"type": "lifespan.startup.failed", "message": _NO_TRIO})
            return
        phase = "startup"
        try:
            # This task enters and leaves it, as nurseries in it demand.
            async with open_application(self._app) as fetch:
                service = self._make_service(fetch=fetch)
                self._services.append(service)
                phase = ""
                try:
                    await send({"type": "lifespan.startup.complete"})
                    await receive()
                    phase = "shutdown"
                finally:
                    self._services.remove(service)
                    self._missing = "has shut down"
        except Exception as exc:
            if not phase:  # A task of the application has failed, unasked.
                raise
            failure = bare(exc)
            _logger.exception("the application fails at %s", phase, exc_info=failure)
            message = f"{type(failure).__name__}: {failure}"
            await send({"type": f"lifespan.{phase}.failed", "message": message})
        else:
            await send({"type": "lifespan.shutdown.complete"})

"""`ASGIApp`: a `fetch` handler as an ASGI application, for servers that run Trio.

Knows the lifespan of a server; `ASGIExchange` handles requests.
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
    "ASGIApp needs a server that runs Trio, and this one runs asyncio. Run "
    "'hypercorn --worker-class trio module:app', or, without an ASGI server, "
    "trio_wspair.serve(fetch, port)"
)


_NOT_OPEN: Final = (
    "the application is an async context manager, which is opened when the server "
    "reports its startup (ASGI's lifespan), and this server {}. Enable its lifespan "
    "support; if ASGIApp is mounted in another application, open the context manager "
    "in the lifespan of that, and pass the handler to ASGIApp"
)
_logger: Final = logging.getLogger("trio_wspair")


class ASGIApp:
    """A `fetch` handler, or any application, as an ASGI application.

    It runs in an ASGI server that runs Trio, such as Hypercorn with its Trio worker, or
    mounted in another application. The startup of a server that runs asyncio fails
    with an error that says so.

    The handler is called as by `serve()`. The server decides what concerns the network:
    TLS, pings, the size of messages, the time limit of a head.

    Args:
        app: As for `serve()`: the handler, an object that has one, or an async context
            manager that yields one of these, which is opened when the server starts
            (``lifespan.startup``), and left when the server shuts down.
        body_timeout: The seconds in which the next piece of a body has to arrive, or
            to be sent.
        close_grace: The seconds for a closing handshake.
        max_body_bytes: A request with a larger body gets status 413.
        min_body_rate: A body that is received or sent with fewer bytes in a second, in
            the time that it waits for the client, is too slow; 0 for no lowest rate.
        receive_buffer_bytes: Reading from a client pauses while the handler's half has
            more bytes than this waiting to be taken.
        log_query: Show the query of a URL in the log; it often contains secrets.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        app: Application,
        *,
        body_timeout: float = 30.0,
        close_grace: float = 5.0,
        max_body_bytes: int = 2**20,
        min_body_rate: int = 500,
        receive_buffer_bytes: int = 2**20,
        log_query: bool = False,
    ) -> None:
        fetch = handler_of(app)
        limits = Limits(
            body_timeout=body_timeout,
            close_grace=close_grace,
            max_body_bytes=max_body_bytes,
            min_body_rate=min_body_rate,
            receive_buffer_bytes=receive_buffer_bytes,
            ping_interval=math.inf,  # ASGI has no pings.
        )
        self._make_service = partial(Service, limits=limits, log_query=log_query)
        self._app = app
        self._services: list[Service] = []
        """One for each open application; each server that runs this app has its own."""
        if fetch is not None:
            self._services.append(self._make_service(fetch=fetch))
        self._missing = "has not reported it"

    @enable_ki_protection
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or the lifespan of the server; ASGI servers call this.

        Raises:
            InvalidStateError: The server does not run Trio, or the application is not
                open.
            ValueError: The type of the scope is unknown.
        """
        kind: str = scope["type"]
        if kind == "lifespan":
            await self._run_lifespan(receive, send)
            return
        if not trio.lowlevel.in_trio_task():
            raise InvalidStateError(_NO_TRIO)
        if kind not in ("http", "websocket"):
            msg = f"ASGIApp supports http, websocket and lifespan, not {kind!r}"
            raise ValueError(msg)
        if not self._services:
            raise InvalidStateError(_NOT_OPEN.format(self._missing))
        service = self._services[-1]
        if kind == "websocket" and (await receive())["type"] != "websocket.connect":
            return  # The client has gone already.
        await ASGIExchange(service, scope, receive, send).run()

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        """Handle the lifespan of the server; one that runs asyncio does not start."""
        await receive()  # lifespan.startup
        if not trio.lowlevel.in_trio_task():
            await send({"type": "lifespan.startup.failed", "message": _NO_TRIO})
            return
        phase = "startup"
        try:
            # This task enters and leaves it: nurseries in it require that.
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
            if not phase:  # A task of the application has failed meanwhile.
                raise
            failure = bare(exc)
            _logger.exception("the application failed at %s", phase, exc_info=failure)
            message = f"{type(failure).__name__}: {failure}"
            await send({"type": f"lifespan.{phase}.failed", "message": message})
        else:
            await send({"type": "lifespan.shutdown.complete"})

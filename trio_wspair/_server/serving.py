"""`serve()`: a place on the network where a `fetch` handler answers.

Knows how connections come and go, and what each may cost; what happens on one, and how
a place to listen is opened, is known below.
"""

import inspect
import logging
import math
import os
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, cast

import trio
from trio.lowlevel import enable_ki_protection

from trio_wspair._http.forwarded import ProxyHeaders, checked_proxy_headers
from trio_wspair._http.http1 import ClientGoneError, HTTPConnection, Refusal
from trio_wspair._http.messages import FetchHandler, Request, Response
from trio_wspair._rules.codes import CloseCode, checked_close
from trio_wspair._rules.display import printable
from trio_wspair._rules.limits import Limits, check_limit
from trio_wspair._tasks.nurseries import bare, check_in_trio
from trio_wspair.transports._engines import EngineName, engine_named
from trio_wspair.transports.io._sockets import linger

from .admission import RETRY_AFTER_SECONDS, Admission
from .application import Application, handler_of, run_application
from .http1_exchange import HTTP1Exchange, HTTP1Service, client_address
from .listening import (
    Listener,
    Place,
    Server,
    closing_listeners,
    endpoint_of,
)

__all__ = ("Server", "serve")

_REFUSAL_SECONDS: Final = 1.0
_WARNING_SECONDS: Final = 60.0
_logger: Final = logging.getLogger("trio_wspair")


async def serve(
    app: Application,
    port: int | None = None,
    *,
    host: str | None = "127.0.0.1",
    unix: str | os.PathLike[str] | None = None,
    listeners: Sequence[Listener] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    proxy_headers: ProxyHeaders = False,
    proxies: int = 1,
    log_query: bool = False,
    stop_code: int | Callable[[], int] = CloseCode.GOING_AWAY,
    max_connections: int = 1000,
    max_connections_per_client: int | None = None,
    handshake_timeout: float = 10.0,
    idle_timeout: float = 60.0,
    body_timeout: float = 30.0,
    close_grace: float = 5.0,
    max_head_bytes: int = 2**15,
    max_body_bytes: int = 2**20,
    max_message_bytes: int = 2**25,
    receive_buffer_bytes: int = 2**20,
    ping_interval: float = 20.0,
    ping_timeout: float = 20.0,
    engine: EngineName = "trio-websocket",
    compression: bool = False,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests with `fetch`, until cancelled.

    ``async def fetch(request)`` returns a `Response`; with a WebSocket in it the
    client gets that half of a pair, and the handler keeps the other. What `fetch`, a
    listener or a task in `request.nursery` raises is logged to the logger
    ``trio_wspair``, and ends that connection only. The logger ``trio_wspair.access``
    gets a line for each request, and for each WebSocket when it has ended.

    Cancelled, it stops listening, sends a Close with `stop_code` to everybody, and
    waits `close_grace` seconds for their answers. Always a checkpoint.

    Args:
        app: The handler, an object that has one, or an async context manager (or a
            function with ``@asynccontextmanager``) that yields one of these. That is
            opened before the server listens, and left when all connections have ended.
        port: 0 picks a free one, which ``nursery.start()`` tells.
        host: Where to listen: a name or an address; `None` for everywhere.
        unix: Listen on a Unix socket with this path instead of a port. A stale file of
            a server that has died is replaced; the umask decides on the permissions.
        listeners: Listen on these instead of a port: any `trio.abc.Listener`, with TLS
            (`trio.SSLListener`) or without. They are closed in the end.
        ssl_context: For ``https`` and ``wss``.
        proxy_headers: Believe what a proxy says of the client and the URL. `True`:
            ``X-Forwarded-For``, ``-Proto``, ``-Host`` and ``-Port``; ``"forwarded"``:
            ``Forwarded`` (RFC 7239). Only behind a proxy that sets them: any client
            can send them.
        proxies: How many proxies there are, one behind the other, that each add to
            these headers. What comes before is not believed.
        log_query: Show the query of a URL in the log; it often has secrets in it.
        stop_code: What the clients are told when it is cancelled, such as 1012 before
            a restart; or a sync function that is called then, and returns it.
        max_connections: One more gets 503.
        max_connections_per_client: One more of the same client gets 429. A client is an
            IPv4 address, or the first 64 bits of one of IPv6; with `proxy_headers`,
            that of `Request.client`, and what counts are requests. Unix sockets and
            unknown addresses don't count.
        handshake_timeout: Seconds for TLS and for the head of a request.
        idle_timeout: Seconds for which a connection is kept for another request; 0
            for one request only.
        body_timeout: Seconds for the next piece of a body to come, or to be taken.
        close_grace: Seconds for a closing handshake.
        max_head_bytes: A larger head of a request gets 431; at least 1024.
        max_body_bytes: A larger body of a request gets 413.
        max_message_bytes: The peer of a larger message gets Close 1009.
        receive_buffer_bytes: Reading from a client stops while the handler's half
            has so much that it has not taken.
        ping_interval: Seconds between two pings of a client; `math.inf` for none.
        ping_timeout: Seconds in which something has to be heard after a ping, or the
            connection has failed: the handler's half gets `error` and `close` 1006.
        engine: The library that speaks the protocol of WebSockets:
            ``"trio-websocket"``, or ``"websockets"``, which needs the extra
            ``trio-wspair[websockets]``.
        compression: Agree on permessage-deflate with clients that offer it. Only with
            ``engine="websockets"``.
        task_status: For ``nursery.start()``.

    Raises:
        OSError: The port or the Unix socket can't be had: `errno.EADDRINUSE` if
            another server has it, `errno.EEXIST` if the file at `unix` is no socket.
        TypeError: An argument is of another type, or not exactly one of `port`, `unix`
            and `listeners` is given.
        ValueError: An argument is out of range, `unix` can't be the path of a socket,
            there are no listeners, the engine can't compress, or there are `proxies`
            without `proxy_headers`.
        RuntimeError: This is no task of Trio, but of asyncio for example.
        ImportError: The extra for the engine is not installed.
        Exception: What the application raises, or one of its tasks.
    """
    check_in_trio()
    handler_of(app)
    place = Place.checked(port, host, unix, listeners, ssl_context)
    limits = Limits(
        max_connections=max_connections,
        max_connections_per_client=max_connections_per_client,
        max_head_bytes=max_head_bytes,
        max_body_bytes=max_body_bytes,
        max_message_bytes=max_message_bytes,
        receive_buffer_bytes=receive_buffer_bytes,
        handshake_timeout=handshake_timeout,
        idle_timeout=idle_timeout,
        body_timeout=body_timeout,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        close_grace=close_grace,
    )
    _check_proxies(proxies, proxy_headers)
    make_service = partial(
        HTTP1Service,
        engine=engine_named(engine, compression=compression),
        limits=limits,
        proxy_headers=checked_proxy_headers(proxy_headers),
        proxies=proxies,
        log_query=log_query,
        stop_code=_checked_stop_code(stop_code),
    )

    async def run(fetch: FetchHandler) -> None:
        opened = await place.open()
        async with closing_listeners(opened):
            acceptor = _Acceptor(make_service(fetch=fetch))
            await _listen(acceptor, opened, ssl_context, task_status)

    # Those of the caller are closed, too, when the application could not be opened.
    async with closing_listeners(place.listeners or ()):
        await run_application(app, run)


def _check_proxies(proxies: int, proxy_headers: ProxyHeaders) -> None:
    """Check a number of proxies.

    Raises:
        TypeError: It is not an int.
        ValueError: It is below 1, or there is nothing to trust from them.
    """
    check_limit("proxies", proxies)
    if proxies > 1 and not proxy_headers:
        msg = (
            f"proxies={proxies} is about the headers of proxies, which are not "
            "believed: pass proxy_headers=True or proxy_headers='forwarded', too"
        )
        raise ValueError(msg)


def _checked_stop_code(stop_code: int | Callable[[], int]) -> Callable[[], int]:
    """Return a function that gives a close code that is valid.

    Raises:
        TypeError: It is neither a close code nor a function.
        ValueError: It is no close code.
    """
    if not callable(stop_code):
        code = checked_close(stop_code, "").code
        return lambda: code
    if inspect.iscoroutinefunction(stop_code):
        raise TypeError(
            "stop_code must be an int, or a sync function, not an async one"
        )
    return lambda: checked_close(stop_code(), "").code


async def _listen(
    acceptor: "_Acceptor",
    listeners: Sequence[Listener],
    ssl_context: ssl.SSLContext | None,
    task_status: trio.TaskStatus[Server],
) -> None:
    """Accept connections until cancelled, and see them end."""
    service = acceptor.service
    sources: list[Listener] = [*listeners]
    if ssl_context is not None:
        sources = [
            trio.SSLListener(listener, ssl_context, https_compatible=True)
            for listener in listeners
        ]
    server = Server(tuple(map(endpoint_of, sources)))
    async with service.alarms.kept(), trio.open_nursery() as nursery:
        task_status.started(server)
        try:
            await trio.serve_listeners(
                partial(_serve_in, nursery, acceptor),
                sources,
                handler_nursery=nursery,
            )
        finally:
            if connections := acceptor.admission.connections:
                what = "stopping: %d connections have up to %s s to close"
                _logger.info(what, connections, service.limits.close_grace)
            service.tasks.stop(service.stop_code())


class _Acceptor:
    """Serves the connections of a server, as many as it may have."""

    def __init__(self, service: HTTP1Service) -> None:
        self.service = service
        self.admission = Admission(service.limits)
        self._warned: dict[int, float] = {}
        """When the log was last told of an answer that turns clients away."""

    @enable_ki_protection
    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection. Raises nothing but what stops the server."""
        admission = self.admission
        # Behind a proxy, the head of each request tells which client it is.
        client = "" if self.service.proxy_headers else client_address(stream)
        try:
            if admission.full:
                await self._turn_away(stream, 503, "")
                return
            with admission.client(client) as free:
                if free:
                    with admission.connection():
                        await self._serve_admitted(stream)
                    return
            await self._turn_away(stream, 429, client)
        except Exception as exc:
            _logger.exception("a connection has failed", exc_info=bare(exc))
        # serve_listeners() closes the stream.

    async def _serve_admitted(self, stream: trio.abc.Stream) -> None:
        http = HTTPConnection(stream, self.service.limits)
        another = True
        try:
            while another:
                exchange = await self._next_exchange(http)
                if exchange is None or not await self._serve_request(exchange):
                    return
                another = False
                with trio.move_on_after(self.service.limits.idle_timeout):
                    another = await http.wait_for_request()
        finally:
            http.finish()

    async def _serve_request(self, exchange: HTTP1Exchange) -> bool:
        """Answer one request; return whether another may follow."""
        if not self.service.proxy_headers:
            return await exchange.run(self.service.fetch)
        with self.admission.client(exchange.forwarded_client) as free:
            if free:
                return await exchange.run(self.service.fetch)
        refusal = self._refusal(429, exchange.client)
        return await exchange.run(partial(_answer_with, refusal))

    async def _turn_away(
        self, stream: trio.abc.Stream, status: int, client: str
    ) -> None:
        """Tell a client that there is no place for it, if few are being told.

        That is bounded: in time, and in how many it happens to at once. The others are
        dropped, which costs nothing.
        """
        refusal = self._refusal(status, client)
        with self.admission.refusal() as told:
            if told:
                http = HTTPConnection(stream, self.service.limits)
                with trio.move_on_after(_REFUSAL_SECONDS):
                    await self._refuse(http, refusal)

    def _refusal(self, status: int, client: str) -> Response:
        """Return the answer to a client that has no place, and tell the log."""
        limits = self.service.limits
        name, most, whose = "max_connections", str(limits.max_connections), ""
        if status == 429:
            name, whose = "max_connections_per_client", f" of {printable(client)}"
            most = str(limits.max_connections_per_client)
        now = trio.current_time()
        if now - self._warned.get(status, -math.inf) >= _WARNING_SECONDS:
            self._warned[status] = now
            what = "answering %d: there are %s connections%s, which is %s"
            values = status, most, whose, name
            _logger.warning(what, *values, extra={"peer": client, "status": status})
        body = "Too many connections. Try again later.\n"
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        return Response(body, status=status, headers=headers)

    async def _next_exchange(self, http: HTTPConnection) -> HTTP1Exchange | None:
        """Read the head of a request, or tell what is wrong with it."""
        refusal = None
        with trio.move_on_after(self.service.limits.handshake_timeout) as patience:
            try:
                # Of TLS, the first reading includes the handshake.
                head = await http.read_head()
                if head is not None:
                    return HTTP1Exchange(self.service, http, head)
            except Refusal as exc:
                refusal = exc.response
                _tell_no_request(http, f"answering {refusal.status}: {exc.why}")
        if patience.cancelled_caught:
            seconds = self.service.limits.handshake_timeout
            _tell_no_request(http, f"it took longer than {seconds} s")
            if _can_answer(http.stream):
                refusal = Response("The request took too long.\n", status=408)
        elif http.failure:
            _tell_no_request(http, f"the connection has failed: {http.failure}")
        if refusal is not None:
            await self._refuse(http, refusal)
        return None

    async def _refuse(self, http: HTTPConnection, response: Response) -> None:
        """Send the last response of a connection, as far as the peer takes it."""
        with trio.move_on_after(self.service.limits.close_grace):
            try:
                await http.send_response(response)
            except ClientGoneError:
                return
            await linger(http.stream)


def _tell_no_request(http: HTTPConnection, why: str) -> None:
    """Tell the log of a request that could not be read; at DEBUG, as anyone can."""
    peer = client_address(http.stream)
    what = "no request could be read from %s: %s"
    _logger.debug(what, peer or "-", printable(why), extra={"peer": peer})


@enable_ki_protection
async def _serve_in(
    nursery: trio.Nursery, acceptor: _Acceptor, stream: trio.abc.Stream
) -> None:
    """Serve one connection, and have raised in the nursery what stops the server."""
    try:
        await acceptor.serve_stream(stream)
    except trio.Cancelled:
        raise
    except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised by the task
        # Not here: serve_listeners() closes the stream, and a `Cancelled` that comes
        # of that would stand in its place.
        nursery.start_soon(_raise, exc)


async def _raise(exc: BaseException) -> None:
    raise exc


async def _answer_with(response: Response, _request: Request) -> Response:
    """Handle a request that the handler does not see."""
    await trio.lowlevel.checkpoint()
    return response


def _can_answer(stream: trio.abc.Stream) -> bool:
    """Return whether the client can read an answer: not before TLS has begun."""
    if isinstance(stream, trio.SSLStream):
        try:
            cast("trio.SSLStream[trio.abc.Stream]", stream).version()
        except trio.NeedHandshakeError:
            return False
    return True

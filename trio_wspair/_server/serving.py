"""`serve()`: accepts connections, and has a `fetch` handler answer their requests.

Knows how connections begin and end, and their limits; not how a place to listen is
opened, nor how one request is handled.

Theory of operation. Each connection has a task in a nursery of `_listen()`, which reads
one request after another and runs a `RequestTask` for each. When the server is
cancelled, accepting ends, every request is told to stop, and the nursery waits for the
connections; each of them is bounded in time. An exception of a handler is logged by its
request. Any other exception of a connection stops the server.
"""

import inspect
import logging
import math
import os
import ssl
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
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
from .listening import Listener, Place, Server, closing_listeners, endpoint_of

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
    min_body_rate: int = 500,
    max_message_bytes: int = 2**25,
    receive_buffer_bytes: int = 2**20,
    ping_interval: float = 20.0,
    ping_timeout: float = 20.0,
    engine: EngineName = "trio-websocket",
    compression: bool = False,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests with a `fetch` handler, until cancelled or stopped.

    ``async def fetch(request)`` returns a `Response`. If that has a WebSocket, one half
    of a pair, the client is connected to it, and the handler keeps the other half. What
    `fetch`, a listener or a task in `request.nursery` raises is logged to the logger
    ``trio_wspair``, and ends only that connection. The logger ``trio_wspair.access``
    gets a record for each response, and for each WebSocket when it has ended.

    When cancelled, the server stops listening, sends a Close with `stop_code` to each
    client, and waits `close_grace` seconds for the answers; handlers that have not
    returned are cancelled. `Server.stop()` lets them answer. Always a checkpoint.

    Args:
        app: The handler, an object that has one, or an async context manager (or a
            function with ``@asynccontextmanager``) that yields one of these. It is
            opened before the server listens, and left when all connections have ended.
        port: The port; 0 for a free one, which ``nursery.start()`` returns.
        host: The name or address to listen on; `None` for all addresses.
        unix: Listen on a Unix socket with this path instead of a port. A stale file is
            replaced. The umask decides on the permissions.
        listeners: Listen on these instead of a port: `trio.abc.Listener` objects, with
            TLS (`trio.SSLListener`) or without. They are closed in the end.
        ssl_context: For ``https`` and ``wss``.
        proxy_headers: Trust a proxy's headers about the client and the URL. `True`:
            ``X-Forwarded-For``, ``-Proto``, ``-Host`` and ``-Port``; ``"forwarded"``:
            ``Forwarded`` (RFC 7239). Use it only behind a proxy that sets them, since
            any client can send them.
        proxies: The number of proxies, one behind another, that each add a value to
            these headers. Earlier values are not trusted.
        log_query: Show the query of a URL in the log; it often contains secrets.
        stop_code: The close code for clients when the server is cancelled, such as 1012
            before a restart; or a sync function that is called then and returns it.
        max_connections: Further connections get status 503.
        max_connections_per_client: Further connections of the same client get status
            429. A client is an IPv4 address, or the first 64 bits of an IPv6 address;
            with `proxy_headers`, it is that of `Request.client`, and the limit is for
            requests. Unix sockets and unknown addresses have no such limit.
        handshake_timeout: The seconds for TLS and for the head of a request.
        idle_timeout: The seconds for which a connection waits for another request; 0
            for one request only.
        body_timeout: The seconds in which the next piece of a body has to arrive, or to
            be sent.
        close_grace: The seconds for a closing handshake.
        max_head_bytes: A request with a larger head gets status 431; at least 1024.
        max_body_bytes: A request with a larger body gets status 413.
        min_body_rate: A body that is received or sent with fewer bytes in a second, in
            the time that it waits for the client, is too slow; 0 for no lowest rate.
        max_message_bytes: A peer that sends a larger message gets close code 1009.
        receive_buffer_bytes: Reading from a client pauses while the handler's half has
            more bytes than this waiting to be taken.
        ping_interval: The seconds between two pings to a client; `math.inf` for none.
        ping_timeout: The seconds in which any bytes have to arrive after a ping.
            Otherwise the connection has failed: the handler's half gets `error` and
            `close` with code 1006.
        engine: The library for the WebSocket protocol: ``"trio-websocket"``, or
            ``"websockets"``, which needs the extra ``trio-wspair[websockets]``.
        compression: Negotiate permessage-deflate with clients that offer it. Only with
            ``engine="websockets"``.
        task_status: For ``nursery.start()``, which returns a `Server`.

    Raises:
        OSError: The port or the Unix socket can't be opened: `errno.EADDRINUSE` if
            another server uses it, `errno.EEXIST` if the file at `unix` is no socket.
        TypeError: An argument has the wrong type, or not exactly one of `port`, `unix`
            and `listeners` is given.
        ValueError: An argument is out of range, `unix` can't be the path of a socket,
            `listeners` is empty, the engine does not support compression, or `proxies`
            is given without `proxy_headers`.
        RuntimeError: The caller is not a task of Trio, but for example of asyncio.
        ImportError: The extra for the engine is not installed.
        Exception: What the application, or one of its tasks, has raised.
    """
    check_in_trio()
    handler_of(app)
    place = Place.checked(port, host, unix, listeners, ssl_context)
    limits = Limits(
        max_connections=max_connections,
        max_connections_per_client=max_connections_per_client,
        max_head_bytes=max_head_bytes,
        max_body_bytes=max_body_bytes,
        min_body_rate=min_body_rate,
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

    # The listeners of the caller are closed even if the application does not open.
    async with closing_listeners(place.listeners or ()):
        await run_application(app, run)


def _check_proxies(proxies: int, proxy_headers: ProxyHeaders) -> None:
    """Check a number of proxies.

    Raises:
        TypeError: It is not an int.
        ValueError: It is below 1, or the headers of proxies are not trusted.
    """
    check_limit("proxies", proxies)
    if proxies > 1 and not proxy_headers:
        msg = (
            f"proxies={proxies} has no effect, because the headers of proxies are not "
            "trusted: pass proxy_headers=True or proxy_headers='forwarded' as well"
        )
        raise ValueError(msg)


def _checked_stop_code(stop_code: int | Callable[[], int]) -> Callable[[], int]:
    """Return a function that returns a valid close code.

    Raises:
        TypeError: `stop_code` is neither an int nor a sync function.
        ValueError: `stop_code` is not a close code that may be sent.
    """
    if not callable(stop_code):
        code = checked_close(stop_code, "").code
        return lambda: code
    if inspect.iscoroutinefunction(stop_code):
        msg = "stop_code must be an int, or a sync function, not an async one"
        raise TypeError(msg)
    return lambda: checked_close(stop_code(), "").code


async def _listen(
    acceptor: "_Acceptor",
    listeners: Sequence[Listener],
    ssl_context: ssl.SSLContext | None,
    task_status: trio.TaskStatus[Server],
) -> None:
    """Accept connections until cancelled or stopped, and wait for their ends."""
    service = acceptor.service
    sources: list[Listener] = [*listeners]
    if ssl_context is not None:
        sources = [
            trio.SSLListener(listener, ssl_context, https_compatible=True)
            for listener in listeners
        ]
    accepting = trio.CancelScope()

    def stop() -> None:
        accepting.cancel(reason="stop() was called")
        acceptor.stop()

    server = Server(tuple(map(endpoint_of, sources)), stop)
    async with service.timers.kept(), trio.open_nursery() as nursery:
        task_status.started(server)
        try:
            with accepting:
                await trio.serve_listeners(
                    partial(_serve_in, nursery, acceptor),
                    sources,
                    handler_nursery=nursery,
                )
        finally:
            acceptor.stop()
        # `Server.stop()` was called: requests under way have the grace period.
        grace = service.limits.close_grace
        nursery.cancel_scope.deadline = trio.current_time() + grace


class _Acceptor:
    """Serves the connections of a server, within its limits."""

    def __init__(self, service: HTTP1Service) -> None:
        self.service = service
        self.admission = Admission(service.limits)
        self._waiting: set[trio.CancelScope] = set()
        """The scopes of connections that wait for a request."""
        self._warned: dict[int, float] = {}
        """When each status of a refusal was last logged."""

    @enable_ki_protection
    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection. Raises only what stops the server."""
        admission = self.admission
        # Behind a proxy, the head of each request has the client's address.
        client = "" if self.service.proxy_headers else client_address(stream)
        try:
            if admission.full:
                await self._refuse_connection(stream, 503, "")
                return
            with admission.client(client) as free:
                if free:
                    with admission.connection():
                        await self._serve_admitted(stream)
                    return
            await self._refuse_connection(stream, 429, client)
        except Exception as exc:
            _logger.exception("a connection has failed", exc_info=bare(exc))
        # serve_listeners() closes the stream.

    async def _serve_admitted(self, stream: trio.abc.Stream) -> None:
        http = HTTPConnection(stream, self.service.limits)
        another = True
        try:
            while another:
                exchange = None
                with self._waiting_for_request():
                    exchange = await self._next_exchange(http)
                if exchange is None or not await self._serve_request(exchange):
                    return
                another = False
                with self._waiting_for_request() as scope:
                    idle = self.service.limits.idle_timeout
                    scope.deadline = trio.current_time() + idle
                    another = await http.wait_for_request()
        finally:
            http.finish()

    @contextmanager
    def _waiting_for_request(self) -> Generator[trio.CancelScope, None, None]:
        """Wait for a request in the block, which `stop()` ends."""
        with trio.CancelScope() as scope:
            if self.service.tasks.stopping:
                scope.cancel(reason="the server stops")
            self._waiting.add(scope)
            try:
                yield scope
            finally:
                self._waiting.remove(scope)

    def stop(self) -> None:
        """Stop the requests, and end the connections that have none. Idempotent."""
        tasks = self.service.tasks
        if tasks.stopping:
            return
        if connections := self.admission.connections:
            what = "stopping: %d connections have up to %s s to close"
            _logger.info(what, connections, self.service.limits.close_grace)
        tasks.stop(self.service.stop_code())
        for scope in self._waiting:
            scope.cancel(reason="the server stops")

    async def _serve_request(self, exchange: HTTP1Exchange) -> bool:
        """Answer one request; return whether another may follow."""
        if not self.service.proxy_headers:
            return await exchange.run(self.service.fetch)
        with self.admission.client(exchange.forwarded_client) as free:
            if free:
                return await exchange.run(self.service.fetch)
        refusal = self._refusal(429, exchange.client)
        return await exchange.run(partial(_answer_with, refusal))

    async def _refuse_connection(
        self, stream: trio.abc.Stream, status: int, client: str
    ) -> None:
        """Refuse a connection over the limit.

        The refusal is sent in bounded time, and only to a bounded number of connections
        at the same time. Other connections are dropped without an answer.
        """
        refusal = self._refusal(status, client)
        with self.admission.refusal() as may_answer:
            if may_answer:
                http = HTTPConnection(stream, self.service.limits)
                with trio.move_on_after(_REFUSAL_SECONDS):
                    await self._refuse(http, refusal)

    def _refusal(self, status: int, client: str) -> Response:
        """Return the response to a client over the limit, and log a warning."""
        limits = self.service.limits
        name, most, whose = "max_connections", str(limits.max_connections), ""
        if status == 429:
            name, whose = "max_connections_per_client", f" of {printable(client)}"
            most = str(limits.max_connections_per_client)
        now = trio.current_time()
        if now - self._warned.get(status, -math.inf) >= _WARNING_SECONDS:
            self._warned[status] = now
            what = "answering %d: there are %s connections%s, the limit %s"
            values = status, most, whose, name
            _logger.warning(what, *values, extra={"peer": client, "status": status})
        body = "Too many connections. Try again later.\n"
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        return Response(body, status=status, headers=headers)

    async def _next_exchange(self, http: HTTPConnection) -> HTTP1Exchange | None:
        """Read the head of a request; refuse it if it is not valid."""
        refusal = None
        with trio.move_on_after(self.service.limits.handshake_timeout) as scope:
            try:
                # The first read of TLS includes its handshake.
                head = await http.read_head()
                if head is not None:
                    return HTTP1Exchange(self.service, http, head)
            except Refusal as exc:
                refusal = exc.response
                _log_unreadable(http, f"answering {refusal.status}: {exc.why}")
        if scope.cancelled_caught:
            seconds = self.service.limits.handshake_timeout
            _log_unreadable(http, f"it took longer than {seconds} s")
            if _can_answer(http.stream):
                refusal = Response("The request took too long.\n", status=408)
        elif http.failure:
            _log_unreadable(http, f"the connection has failed: {http.failure}")
        if refusal is not None:
            await self._refuse(http, refusal)
        return None

    async def _refuse(self, http: HTTPConnection, response: Response) -> None:
        """Send the last response of a connection, as far as the peer reads it."""
        with trio.move_on_after(self.service.limits.close_grace):
            try:
                await http.send_response(response)
            except ClientGoneError:
                return
            await linger(http.stream)


def _log_unreadable(http: HTTPConnection, why: str) -> None:
    """Log a request that could not be read; at DEBUG, as any client can cause it."""
    peer = client_address(http.stream)
    what = "could not read a request from %s: %s"
    _logger.debug(what, peer or "-", printable(why), extra={"peer": peer})


@enable_ki_protection
async def _serve_in(
    nursery: trio.Nursery, acceptor: _Acceptor, stream: trio.abc.Stream
) -> None:
    """Serve one connection; what stops the server is raised in the nursery."""
    try:
        await acceptor.serve_stream(stream)
    except trio.Cancelled:
        raise
    except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised by the task
        # Not here: serve_listeners() then closes the stream, and a `Cancelled` from
        # that would replace the exception.
        nursery.start_soon(_raise, exc)


async def _raise(exc: BaseException) -> None:
    raise exc


async def _answer_with(response: Response, _request: Request) -> Response:
    """Answer a request in place of the handler."""
    await trio.lowlevel.checkpoint()
    return response


def _can_answer(stream: trio.abc.Stream) -> bool:
    """Return whether the client can read a response: not before the TLS handshake."""
    if isinstance(stream, trio.SSLStream):
        try:
            cast("trio.SSLStream[trio.abc.Stream]", stream).version()
        except trio.NeedHandshakeError:
            return False
    return True

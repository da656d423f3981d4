"""`serve()`: a port on which a `fetch` handler answers.

Knows how a connection goes from its first byte to its end; what HTTP and WebSockets
are is known below. Each connection has a nursery of its own for what the handler
starts, so that a failure ends one connection and is logged.
"""

import contextlib
import logging
import ssl
from collections.abc import Awaitable, Sequence
from typing import Final

import attrs
import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from ._checks import check_limit, check_seconds
from ._http import FetchHandler, Headers, Request, Response
from ._http1 import Head, Refusal, comma_list, read_head, send_response
from ._pair import current_nursery
from ._socket import WebSocket
from ._state import Holder
from ._tls import check_ssl_context
from .transports._couple import Coupling, Limits
from .transports._linger import below_tls, linger
from .transports._trio_websocket import open_server_connection

__all__ = ("Server", "serve")

_HEADERS_OF_THE_HANDSHAKE: Final = frozenset(
    {
        "connection",
        "content-length",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "transfer-encoding",
        "upgrade",
    }
)
_REFUSAL_SECONDS: Final = 1.0
_logger: Final = logging.getLogger("trio_wspair")


@attrs.frozen(eq=False)
class Server:
    """Where a server listens; ``await nursery.start(serve, ...)`` returns it."""

    addresses: tuple[tuple[str, int], ...]
    """Host and port of each listening socket."""
    secure: bool
    """Whether TLS is spoken."""

    @property
    def port(self) -> int:
        """The port of the first address."""
        return self.addresses[0][1]

    @property
    def url(self) -> str:
        """The WebSocket URL of the first address, such as ``ws://127.0.0.1:8000/``."""
        host, port = self.addresses[0]
        scheme = "wss" if self.secure else "ws"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"


async def serve(
    fetch: FetchHandler,
    port: int,
    *,
    host: str | None = "127.0.0.1",
    ssl_context: ssl.SSLContext | None = None,
    max_connections: int = 1000,
    handshake_timeout: float = 10.0,
    close_grace: float = 5.0,
    max_message_bytes: int = 2**25,
    receive_buffer_bytes: int = 2**20,
    ping_interval: float = 20.0,
    ping_timeout: float = 20.0,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests with `fetch`, until cancelled.

    ``async def fetch(request)`` returns a `Response`; with a WebSocket in it the
    client gets that half of a pair, and the handler keeps the other. What `fetch`, a
    listener or a task in `request.nursery` raises is logged to the logger
    ``trio_wspair``, and ends that connection only.

    Cancelled, it stops listening, sends Close 1001 to everybody, and waits
    `close_grace` seconds for their answers. Always a checkpoint.

    Args:
        fetch: The handler.
        port: 0 picks a free one, which ``nursery.start()`` tells.
        host: Where to listen: a name or an address; `None` for everywhere.
        ssl_context: For ``https`` and ``wss``.
        max_connections: One more gets 503 (with TLS: is dropped).
        handshake_timeout: Seconds for TLS and for the head of the request.
        close_grace: Seconds for a closing handshake.
        max_message_bytes: The peer of a larger message gets Close 1009.
        receive_buffer_bytes: Reading from a client stops while the handler's half
            has so much that it has not taken.
        ping_interval: Seconds between two pings of a client; `math.inf` for none.
        ping_timeout: Seconds in which something has to be heard after a ping, or the
            connection has failed: the handler's half gets `error` and `close` 1006.
        task_status: For ``nursery.start()``.

    Raises:
        OSError: The port can't be had.
        TypeError: An argument is of another type.
        ValueError: An argument is out of range.
    """
    if not callable(fetch):
        msg = f"fetch is an async function of a request, not {type(fetch).__name__}"
        raise TypeError(msg)
    check_limit("port", port, least=0, most=65535)
    check_ssl_context(ssl_context, server=True)
    check_limit("max_connections", max_connections)
    check_seconds("handshake_timeout", handshake_timeout)
    check_limit("max_message_bytes", max_message_bytes)
    service = _Service(
        fetch,
        max_connections,
        handshake_timeout,
        max_message_bytes,
        Limits(close_grace, receive_buffer_bytes, ping_interval, ping_timeout),
        "http" if ssl_context is None else "https",
    )
    sockets = await trio.open_tcp_listeners(port, host=host)
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]] = sockets
    if ssl_context is not None:
        listeners = [
            trio.SSLListener(listener, ssl_context, https_compatible=True)
            for listener in sockets
        ]
    names = [listener.socket.getsockname() for listener in sockets]
    addresses = tuple((str(name[0]), int(name[1])) for name in names)
    async with trio.open_nursery() as nursery:
        task_status.started(Server(addresses, ssl_context is not None))
        try:
            await trio.serve_listeners(
                service.serve_stream, list(listeners), handler_nursery=nursery
            )
        finally:
            if service.streams:
                what = "stopping: %d connections have up to %s s to close"
                _logger.info(what, len(service.streams), close_grace)
            service.stopping.set()


@attrs.frozen(eq=False)
class _Service:
    """What all connections of a server share."""

    fetch: FetchHandler
    max_connections: int
    handshake_timeout: float
    max_message_bytes: int
    limits: Limits
    scheme: str
    streams: set[trio.abc.Stream] = attrs.field(factory=set[trio.abc.Stream])
    """The connections that are being served."""
    stopping: trio.Event = attrs.Factory(trio.Event)

    @enable_ki_protection
    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection. Raises nothing but what stops the server."""
        try:
            if len(self.streams) < self.max_connections:
                self.streams.add(stream)
                await self._serve_admitted(stream)
            elif not _is_secure(stream):
                body = "Too many connections. Try again later.\n"
                with trio.move_on_after(_REFUSAL_SECONDS):  # It is not counted.
                    await self.send(stream, Response(body, status=503))
        except Exception:
            _logger.exception("a connection has failed")
        finally:
            self.streams.discard(stream)
            await trio.aclose_forcefully(stream)

    async def _serve_admitted(self, stream: trio.abc.Stream) -> None:
        head = refusal = None
        to_head = False
        with trio.move_on_after(self.handshake_timeout) as patience:
            try:
                # Of TLS, the first reading includes the handshake.
                head = await read_head(stream)
            except Refusal as exc:
                refusal = exc.response
                to_head = exc.to_head
        if patience.cancelled_caught and not _is_secure(stream):
            refusal = Response("The request took too long.\n", status=408)
        if head is not None:
            await _Exchange(self, stream, head).run()
        elif refusal is not None:
            await self.send(stream, refusal, to_head=to_head)

    async def send(
        self, stream: trio.abc.Stream, response: Response, *, to_head: bool = False
    ) -> None:
        """Send the last response of a connection, as far as the peer takes it."""
        with trio.move_on_after(self.limits.close_grace):
            try:
                await send_response(stream, response, to_head=to_head)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            await linger(stream)


class _Exchange:
    """One request and what becomes of it."""

    def __init__(self, service: _Service, stream: trio.abc.Stream, head: Head) -> None:
        self._service = service
        self._stream = stream
        self._head = head
        self._coupling: Coupling | None = None
        self._over = trio.Event()
        """The connection of the coupling has ended."""

    async def run(self) -> None:
        """Call the handler, and answer with what it returns."""
        head = self._head
        response = Response("Internal Server Error\n", status=500)
        with trio.CancelScope() as scope:
            # Two nurseries: when the handler's fails, the Close still gets out.
            async with trio.open_nursery() as transport_nursery:
                answer = None
                code = 1001
                try:
                    async with trio.open_nursery() as nursery:
                        answer = await self._call_handler(nursery)
                        if self._coupling is not None:
                            scope.shield = True  # The server's stop is told by Close.
                            await self._converse(
                                transport_nursery, self._coupling, answer.headers
                            )
                        nursery.cancel_scope.cancel(reason="the connection has closed")
                    if answer is None:
                        what = "fetch was cancelled, by cancelling request.nursery"
                        _logger.error("%s %s: %s", head.method, head.target, what)
                    else:
                        response = answer
                except Exception:
                    code = 1011
                    _logger.exception("handling %s %s failed", head.method, head.target)
                if self._coupling is not None:
                    # Unless the half of the handler has said it already.
                    self._coupling.stop(code, "")
                    await self._over.wait()
                transport_nursery.cancel_scope.cancel(reason="the connection has ended")
        if self._coupling is None:
            to_head = head.method == "HEAD"
            await self._service.send(self._stream, response, to_head=to_head)

    @disable_ki_protection
    async def _call_handler(self, nursery: trio.Nursery) -> Response:
        head = self._head
        url = head.target
        if url.startswith("/"):
            host = head.headers.get("host", "")
            url = f"{self._service.scheme}://{host}{url}"
        request = Request(
            method=head.method,
            url=url,
            headers=head.headers,
            nursery=nursery,
            client=_client_address(self._stream),
        )
        current_nursery.set(nursery)
        awaitable: object = self._service.fetch(request)
        if not isinstance(awaitable, Awaitable):
            msg = "fetch must be an async function: async def fetch(request): ..."
            raise TypeError(msg)
        response: object = await awaitable
        if not isinstance(response, Response):
            msg = (
                f"fetch must return a Response, not {type(response).__name__}: "
                "return Response(None, status=101, web_socket=client)"
            )
            raise TypeError(msg)
        if response.web_socket is not None:
            self._take(response.web_socket, response)
        return response

    def _take(self, socket: WebSocket, response: Response) -> None:
        """Take the half that the handler gives to this client.

        Raises:
            ValueError: The client has not asked for it like this.
            InvalidStateError: The half was taken before.
        """
        if not self._head.wants_websocket:
            msg = (
                "fetch returned a WebSocket to a request without 'Upgrade: websocket': "
                "look at request.headers.get('upgrade') before, and answer 426"
            )
            raise ValueError(msg)
        offered = comma_list(self._head.headers, "sec-websocket-protocol")
        chosen = response.headers.get("sec-websocket-protocol")
        if chosen is not None and chosen not in offered:
            msg = f"subprotocol {chosen!r} was not offered by the client: {offered!r}"
            raise ValueError(msg)
        for name in response.headers:
            if name in _HEADERS_OF_THE_HANDSHAKE:
                msg = f"a 101 can't have the header {name!r}: the server makes it"
                raise ValueError(msg)
        self._coupling = Coupling(socket, self._service.limits)

    async def _converse(
        self, nursery: trio.Nursery, coupling: Coupling, headers: Headers
    ) -> None:
        """Wait until the client's half and the handler's half have both ended."""
        half = coupling.half
        patience = trio.CancelScope()
        nursery.start_soon(self._couple, coupling, headers)
        nursery.start_soon(self._watch_for_stop, coupling, patience)
        with patience:
            await self._over.wait()
            if half.peer.holder is not Holder.NOBODY:
                await half.wait_peer_finished()
            else:
                head = self._head
                what = "the handler's half was never accepted: call server.accept()"
                _logger.warning("%s %s: %s", head.method, head.target, what)

    @enable_ki_protection
    async def _couple(self, coupling: Coupling, answer_headers: Headers) -> None:
        headers = Headers(answer_headers)
        subprotocol = headers.pop("sec-websocket-protocol", None)
        try:
            async with open_server_connection(
                self._stream,
                key=self._head.headers["sec-websocket-key"],
                received=self._head.rest,
                subprotocol=subprotocol,
                headers=headers.pairs(),
                max_message_bytes=self._service.max_message_bytes,
            ) as connection:
                coupling.half.link.protocol = connection.subprotocol
                await coupling.run(connection)
        finally:
            self._over.set()

    @enable_ki_protection
    async def _watch_for_stop(
        self, coupling: Coupling, patience: trio.CancelScope
    ) -> None:
        """When the server stops, say Close 1001, and see that this ends too."""
        await self._service.stopping.wait()
        coupling.stop(1001, "the server stops")
        await self._over.wait()
        patience.deadline = trio.current_time() + self._service.limits.close_grace


def _is_secure(stream: trio.abc.Stream) -> bool:
    return below_tls(stream) is not stream


def _client_address(stream: trio.abc.Stream) -> str:
    bottom = below_tls(stream)
    if isinstance(bottom, trio.SocketStream):
        with contextlib.suppress(OSError):  # The client may have gone already.
            return str(bottom.socket.getpeername()[0])
    return ""

"""One request and what becomes of it: an answer, or a conversation.

Knows the handler, HTTP below it and couplings; not how connections come and go. What
the handler starts has a nursery of its own, so that a failure ends one connection and
is logged.
"""

import contextlib
import logging
from collections.abc import Awaitable
from typing import Final

import attrs
import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from ._http import FetchHandler, Headers, Request, RequestBodyError, Response
from ._http1 import Head, HTTPConnection, comma_list
from ._pair import current_nursery
from ._socket import CloseEvent, WebSocket
from ._state import Holder
from .transports._couple import Coupling, Limits
from .transports._linger import below_tls, linger
from .transports._trio_websocket import open_server_connection

__all__ = ("Exchange", "Service")

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
_logger: Final = logging.getLogger("trio_wspair")
_access: Final = logging.getLogger("trio_wspair.access")


@attrs.frozen(eq=False)
class Service:
    """What all connections of a server share."""

    fetch: FetchHandler
    scheme: str
    limits: Limits
    max_message_bytes: int
    max_body_bytes: int
    body_timeout: float
    proxy_headers: bool
    stop_code: int
    stopping: trio.Event = attrs.Factory(trio.Event)


class Exchange:
    """One request on a connection, and its answer."""

    def __init__(self, service: Service, http: HTTPConnection, head: Head) -> None:
        self._service = service
        self._http = http
        self._head = head
        self._client = _client_address(http.stream)
        if service.proxy_headers:
            hops = comma_list(head.headers, "x-forwarded-for")
            self._client = hops[-1] if hops else self._client
        self._coupling: Coupling | None = None
        self._end: CloseEvent | None = None
        self._over = trio.Event()
        """The connection of the coupling has ended."""

    async def run(self) -> bool:
        """Call the handler, and answer with what it returns.

        Returns:
            Whether another request may follow.
        """
        head = self._head
        response = Response("Internal Server Error\n", status=500)
        started = trio.current_time()
        go_on = False
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
                        elif not isinstance(answer.body, bytes):
                            # Tasks of the handler may feed it.
                            go_on = await self._send(answer)
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
        if self._coupling is None and not self._http.answered:
            go_on = await self._send(response)
        self._log(response, trio.current_time() - started)
        return go_on

    def _log(self, response: Response, seconds: float) -> None:
        """Write a line into the access log."""
        head, coupling = self._head, self._coupling
        request = f'{self._client or "-"} "{head.method} {head.target}"'
        if coupling is None:
            size = (
                len(response.body) if isinstance(response.body, bytes) else "streamed"
            )
            line = "%s %d, %s bytes, %.1f ms"
            _access.info(line, request, response.status, size, seconds * 1000)
        else:
            end = self._end.code if self._end is not None else 1006
            line = "%s 101, closed with %d after %.1f s, %s received, %s sent"
            _access.info(line, request, end, seconds, coupling.received, coupling.sent)

    async def _send(self, response: Response) -> bool:
        """Send a response as far as the client takes it; see `run()`."""
        try:
            if await self._http.send_response(response):
                return True
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        with trio.move_on_after(self._service.limits.close_grace):
            await linger(self._http.stream)
        return False

    @disable_ki_protection
    async def _call_handler(self, nursery: trio.Nursery) -> Response:
        request = Request(
            method=self._head.method,
            url=self._url(),
            headers=self._head.headers,
            nursery=nursery,
            client=self._client,
            body=self._http,
        )
        current_nursery.set(nursery)
        awaitable: object = self._service.fetch(request)
        if not isinstance(awaitable, Awaitable):
            msg = "fetch must be an async function: async def fetch(request): ..."
            raise TypeError(msg)
        try:
            response: object = await awaitable
        except RequestBodyError as exc:
            response = Response(f"{exc}\n", status=exc.status)
        if not isinstance(response, Response):
            msg = (
                f"fetch must return a Response, not {type(response).__name__}: "
                "return Response(None, status=101, web_socket=client)"
            )
            raise TypeError(msg)
        if response.web_socket is not None:
            self._take(response.web_socket, response)
        return response

    def _url(self) -> str:
        """Return the URL that the client has asked for."""
        target, headers = self._head.target, self._head.headers
        if not target.startswith("/"):
            return target
        scheme, host = self._service.scheme, headers.get("host", "")
        if self._service.proxy_headers:
            host = headers.get("x-forwarded-host", host)
            said = headers.get("x-forwarded-proto", scheme).lower()
            scheme = {"ws": "http", "wss": "https"}.get(said, said)
        return f"{scheme}://{host}{target}"

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
                self._http.stream,
                key=self._head.headers["sec-websocket-key"],
                received=self._http.unread,
                subprotocol=subprotocol,
                headers=headers.pairs(),
                max_message_bytes=self._service.max_message_bytes,
            ) as connection:
                coupling.half.link.protocol = connection.subprotocol
                self._end = await coupling.run(connection)
        finally:
            self._over.set()

    @enable_ki_protection
    async def _watch_for_stop(
        self, coupling: Coupling, patience: trio.CancelScope
    ) -> None:
        """When the server stops, say Close 1001, and see that this ends too."""
        await self._service.stopping.wait()
        coupling.stop(self._service.stop_code, "the server stops")
        await self._over.wait()
        patience.deadline = trio.current_time() + self._service.limits.close_grace


def _client_address(stream: trio.abc.Stream) -> str:
    bottom = below_tls(stream)
    if isinstance(bottom, trio.SocketStream):
        with contextlib.suppress(OSError):  # The client may have gone already.
            return str(bottom.socket.getpeername()[0])
    return ""

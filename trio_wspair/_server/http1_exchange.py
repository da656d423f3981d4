"""`HTTP1Exchange`: one request over HTTP/1.1, and its response.

Knows HTTP, proxies in front of the server, and the engine of WebSockets; not how
requests are handled, nor how connections are accepted.
"""

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

import attrs
import trio

from trio_wspair._http.forwarded import ProxyHeaders, forwarded_by
from trio_wspair._http.headers import Headers, comma_list
from trio_wspair._http.hosts import Authority, parse_authority
from trio_wspair._http.http1 import ClientGoneError, Head, HTTPConnection, bad_request
from trio_wspair._http.messages import FetchHandler, Request, Response
from trio_wspair._http.urls import RequestURL
from trio_wspair._tasks.timers import Timers
from trio_wspair.transports._connection import Connection
from trio_wspair.transports._engines import Engine
from trio_wspair.transports.io._sockets import below_tls, linger

from .request_task import RequestTask, RequestTasks, Service

__all__ = ("HTTP1Exchange", "HTTP1Service", "client_address")


@attrs.frozen(eq=False, kw_only=True)
class HTTP1Service(Service):
    """The handler, limits and settings of a server, for all its connections."""

    engine: Engine
    proxy_headers: ProxyHeaders
    proxies: int
    stop_code: Callable[[], int]
    """Called when the server stops; returns the close code for its WebSockets."""
    timers: Timers = attrs.Factory(Timers)
    tasks: RequestTasks = attrs.Factory(RequestTasks)


class HTTP1Exchange:
    """One request on a connection, and its response; see `Exchange` for the methods.

    Raises:
        Refusal: The request has no valid URL.
    """

    def __init__(self, service: HTTP1Service, http: HTTPConnection, head: Head) -> None:
        self._service = service
        self._http = http
        self._head = head
        self._keeps_alive = False
        """Whether another request may follow on the connection."""
        self.client: str = client_address(http.stream)
        self.forwarded_client: str = ""
        """The client's address in the header of a trusted proxy; empty without one."""
        try:
            self._url = self._effective_url()
        except ValueError as exc:
            raise bad_request(exc) from None

    def _effective_url(self) -> RequestURL:
        """Return the URL that the client has requested, and set its address.

        Raises:
            ValueError: A header of a proxy is not valid, or the target has another
                scheme than the server.
        """
        service, head = self._service, self._head
        forwarded = forwarded_by(head.headers, service.proxy_headers, service.proxies)
        self.forwarded_client = forwarded.client or ""
        self.client = forwarded.client or self.client
        secure = below_tls(self._http.stream) is not self._http.stream
        scheme = forwarded.scheme or ("https" if secure else "http")
        if head.target.scheme not in (None, scheme):  # RFC 9110, section 7.4.
            msg = f"this server is for {scheme}, not for {head.target.scheme}"
            raise ValueError(msg)
        authority = head.authority or _local_authority(self._http.stream)
        return RequestURL(
            scheme, forwarded.authority_for(scheme, authority), head.target
        )

    async def run(self, fetch: FetchHandler) -> bool:
        """Call a handler, and answer with what it returns.

        Returns:
            Whether another request may follow.
        """
        task = RequestTask(self, self._service, fetch)
        with self._service.tasks.including(task):
            await task.run()
        return self._keeps_alive

    def __str__(self) -> str:
        target = self._head.target
        shown = str(target) if self._service.log_query else target.path or "*"
        return f"{self._head.method} {shown}"

    def request(self, nursery: trio.Nursery) -> Request:
        """Return the request; see `Exchange`."""
        head = self._head
        return Request(
            method=head.method,
            url=self._url,
            headers=head.headers,
            nursery=nursery,
            client=self.client,
            body=head.body,
            wants_websocket=head.wants_websocket,
        )

    @property
    def answered(self) -> bool:
        """Whether a response has begun."""
        return self._http.answered

    async def send_response(self, response: Response) -> None:
        """Send a response as far as the client reads it; see `Exchange`."""
        try:
            self._keeps_alive = await self._http.send_response(
                response, last=self._service.tasks.stopping
            )
        except ClientGoneError:
            return
        if not self._keeps_alive:
            with trio.move_on_after(self._service.limits.close_grace):
                await linger(self._http.stream)

    @property
    def offered_subprotocols(self) -> Sequence[str] | None:
        """The subprotocols that the client offers; see `Exchange`."""
        if not self._head.wants_websocket:
            return None
        return comma_list(self._head.headers, "sec-websocket-protocol")

    def open_websocket(
        self, subprotocol: str | None, headers: Headers, nursery: trio.Nursery
    ) -> AbstractAsyncContextManager[Connection]:
        """Answer with 101, and open the WebSocket; see `Exchange`."""
        requested = self._head.headers
        return self._service.engine.open_server(
            self._http.stream,
            key=requested["sec-websocket-key"],
            extensions=requested.get("sec-websocket-extensions", ""),
            received=self._http.hand_over(),
            subprotocol=subprotocol,
            headers=headers.pairs(),
            max_message_bytes=self._service.limits.max_message_bytes,
            nursery=nursery,
        )


def _local_authority(stream: trio.abc.Stream) -> Authority:
    """Return the authority of the server, for a request without ``Host``.

    HTTP/1.0 does not require that header (RFC 9112, section 3.3).
    """
    bottom = below_tls(stream)
    if isinstance(bottom, trio.SocketStream):
        with contextlib.suppress(OSError, ValueError):
            name: tuple[str, int] | str = bottom.socket.getsockname()
            if isinstance(name, tuple):
                return parse_authority(str(Authority(name[0].lower(), name[1])))
    return Authority("localhost")


def client_address(stream: trio.abc.Stream) -> str:
    """Return the address of the peer of a TCP connection; empty if unknown."""
    bottom = below_tls(stream)
    if isinstance(bottom, trio.SocketStream):
        with contextlib.suppress(OSError):  # The client may have gone already.
            name: tuple[str, int] | str = bottom.socket.getpeername()
            if isinstance(name, tuple):  # A Unix socket has no address.
                return str(name[0])
    return ""

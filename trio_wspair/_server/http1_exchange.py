"""`HTTP1Exchange`: one request over HTTP/1.1, and the way of its answer.

Knows HTTP, proxies in front of it, and the engine of a WebSocket after an upgrade; not
how requests are handled, nor how connections are accepted.
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
from trio_wspair._tasks.timers import Alarms
from trio_wspair.transports._connection import Connection
from trio_wspair.transports._engines import Engine
from trio_wspair.transports.io._sockets import below_tls, linger

from .request_task import RequestTask, RequestTasks, Service

__all__ = ("HTTP1Exchange", "HTTP1Service", "client_address")


@attrs.frozen(eq=False, kw_only=True)
class HTTP1Service(Service):
    """What all connections of a server share."""

    engine: Engine
    proxy_headers: ProxyHeaders
    proxies: int
    stop_code: Callable[[], int]
    """Called when the server stops, for the code that WebSockets are closed with."""
    alarms: Alarms = attrs.Factory(Alarms)
    tasks: RequestTasks = attrs.Factory(RequestTasks)


class HTTP1Exchange:
    """One request on a connection, and its answer; see `Exchange` for the methods.

    Raises:
        Refusal: The request has no valid URL.
    """

    def __init__(self, service: HTTP1Service, http: HTTPConnection, head: Head) -> None:
        self._service = service
        self._http = http
        self._head = head
        self._go_on = False
        """Another request may follow."""
        self.client: str = client_address(http.stream)
        self.forwarded_client: str = ""
        """The client's address by a trusted proxy; empty if there is none."""
        try:
            self._url = self._believed_url()
        except ValueError as exc:
            raise bad_request(exc) from None

    def _believed_url(self) -> RequestURL:
        """Return the URL that the client has asked for; note its address, too.

        Raises:
            ValueError: What proxies say of it is not valid, or the target has another
                scheme.
        """
        service, head = self._service, self._head
        said = forwarded_by(head.headers, service.proxy_headers, service.proxies)
        self.forwarded_client = said.client or ""
        self.client = said.client or self.client
        secure = below_tls(self._http.stream) is not self._http.stream
        scheme = said.scheme or ("https" if secure else "http")
        if head.target.scheme not in (None, scheme):  # RFC 9110, section 7.4.
            msg = f"this is a server for {scheme}, not {head.target.scheme}"
            raise ValueError(msg)
        authority = head.authority or _local_authority(self._http.stream)
        return RequestURL(scheme, said.authority_for(scheme, authority), head.target)

    async def run(self, fetch: FetchHandler) -> bool:
        """Call a handler, and answer with what it returns.

        Returns:
            Whether another request may follow.
        """
        task = RequestTask(self, self._service, fetch)
        with self._service.tasks.including(task):
            await task.run()
        return self._go_on

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
        """Whether an answer was begun."""
        return self._http.answered

    async def send_response(self, response: Response) -> None:
        """Send a response as far as the client takes it; see `Exchange`."""
        try:
            self._go_on = await self._http.send_response(response)
        except ClientGoneError:
            return
        if not self._go_on:
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
        """Answer with 101, and speak the protocol of WebSockets; see `Exchange`."""
        asked = self._head.headers
        return self._service.engine.open_server(
            self._http.stream,
            key=asked["sec-websocket-key"],
            extensions=asked.get("sec-websocket-extensions", ""),
            received=self._http.hand_over(),
            subprotocol=subprotocol,
            headers=headers.pairs(),
            max_message_bytes=self._service.limits.max_message_bytes,
            nursery=nursery,
        )


def _local_authority(stream: trio.abc.Stream) -> Authority:
    """Return where the server is, for a request that does not say so.

    HTTP/1.0 has no ``Host`` (RFC 9112, section 3.3).
    """
    bottom = below_tls(stream)
    if isinstance(bottom, trio.SocketStream):
        with contextlib.suppress(OSError, ValueError):
            name: tuple[str, int] | str = bottom.socket.getsockname()
            if isinstance(name, tuple):
                return parse_authority(str(Authority(name[0].lower(), name[1])))
    return Authority("localhost")


def client_address(stream: trio.abc.Stream) -> str:
    """Return the address of the peer of a TCP connection; empty if there is none."""
    bottom = below_tls(stream)
    if isinstance(bottom, trio.SocketStream):
        with contextlib.suppress(OSError):  # The client may have gone already.
            name: tuple[str, int] | str = bottom.socket.getpeername()
            if isinstance(name, tuple):  # That of a Unix socket is none.
                return str(name[0])
    return ""

"""One request over HTTP/1.1, and the way back to its client.

Knows HTTP and what stands before and behind it: proxies, and the WebSocket of an
upgrade; not what becomes of the request, nor how connections come and go.
"""

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

import attrs
import trio

from trio_wspair._http.forwarded import ProxyHeaders, forwarded_by
from trio_wspair._http.headers import Headers, comma_list
from trio_wspair._http.http1 import ClientGoneError, Head, HTTPConnection, bad_request
from trio_wspair._http.messages import FetchHandler, Request, Response
from trio_wspair._http.urls import Authority, RequestURL, parse_authority
from trio_wspair._rules.limits import Limits
from trio_wspair._tasks.timers import Alarms
from trio_wspair.transports._connection import Connection
from trio_wspair.transports._engines import Engine
from trio_wspair.transports.io._sockets import below_tls, linger

from .request_task import Handling, Handlings

__all__ = ("Exchange", "Service", "client_address")


@attrs.frozen(eq=False)
class Service:
    """What all connections of a server share."""

    fetch: FetchHandler
    engine: Engine
    limits: Limits
    proxy_headers: ProxyHeaders
    proxies: int
    log_query: bool
    stop_code: Callable[[], int]
    """Called when the server stops, for what WebSockets are told."""
    alarms: Alarms = attrs.Factory(Alarms)
    handlings: Handlings = attrs.Factory(Handlings)
    warned: set[str] = attrs.Factory(set[str])
    """The warnings that were given, each of which is given once."""


class Exchange:
    """One request on a connection, and its answer; see `Caller` for the methods.

    Raises:
        Refusal: The request has no valid URL.
    """

    def __init__(self, service: Service, http: HTTPConnection, head: Head) -> None:
        self._service = service
        self._http = http
        self._head = head
        self._go_on = False
        """Another request may follow."""
        self.address: str = client_address(http.stream)
        self.forwarded_client: str = ""
        """The address that a proxy tells; empty if none is believed, or tells one."""
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
        self.address = said.client or self.address
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
        service = self._service
        handling = Handling(
            self,
            fetch=fetch,
            limits=service.limits,
            alarms=service.alarms,
            log_query=service.log_query,
            warned=service.warned,
        )
        with service.handlings.having(handling):
            await handling.run()
        return self._go_on

    def __str__(self) -> str:
        target = self._head.target
        shown = str(target) if self._service.log_query else target.path or "*"
        return f"{self._head.method} {shown}"

    def request(self, nursery: trio.Nursery) -> Request:
        """Return the request; see `Caller`."""
        head = self._head
        return Request(
            method=head.method,
            url=self._url,
            headers=head.headers,
            nursery=nursery,
            client=self.address,
            body=head.body,
            wants_websocket=head.wants_websocket,
        )

    @property
    def answered(self) -> bool:
        """Whether an answer was begun."""
        return self._http.answered

    async def answer(self, response: Response) -> None:
        """Send a response as far as the client takes it; see `Caller`."""
        try:
            self._go_on = await self._http.send_response(response)
        except ClientGoneError:
            return
        if not self._go_on:
            with trio.move_on_after(self._service.limits.close_grace):
                await linger(self._http.stream)

    @property
    def protocols(self) -> Sequence[str] | None:
        """The subprotocols that the client offers; see `Caller`."""
        if not self._head.wants_websocket:
            return None
        return comma_list(self._head.headers, "sec-websocket-protocol")

    def open(
        self, subprotocol: str | None, headers: Headers, nursery: trio.Nursery
    ) -> AbstractAsyncContextManager[Connection]:
        """Answer with 101, and speak the protocol of WebSockets; see `Caller`."""
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

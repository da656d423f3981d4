"""One request over HTTP/1.1, and the way back to its client.

Knows HTTP and what stands before and behind it: proxies, and the WebSocket of an
upgrade; not what becomes of the request, nor how connections come and go.
"""

import contextlib
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import attrs
import trio

from ._alarms import Alarms
from ._handling import Handling, Handlings
from ._http import FetchHandler, Headers, Request, Response, url_of
from ._http1 import ClientGoneError, Head, HTTPConnection, comma_list
from ._limits import Limits
from .transports._connection import Connection
from .transports._engines import Engine
from .transports._linger import below_tls, linger

__all__ = ("Exchange", "Service", "client_address")


@attrs.frozen(eq=False)
class Service:
    """What all connections of a server share."""

    fetch: FetchHandler
    engine: Engine
    limits: Limits
    proxy_headers: bool
    stop_code: int
    alarms: Alarms = attrs.Factory(Alarms)
    handlings: Handlings = attrs.Factory(Handlings)


class Exchange:
    """One request on a connection, and its answer; see `Caller` for the methods."""

    def __init__(self, service: Service, http: HTTPConnection, head: Head) -> None:
        self._service = service
        self._http = http
        self._head = head
        self._go_on = False
        """Another request may follow."""
        self.address: str = client_address(http.stream)
        if service.proxy_headers:
            self.address = _said_last(head.headers, "x-forwarded-for", self.address)

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
            stop_code=service.stop_code,
            alarms=service.alarms,
        )
        with service.handlings.having(handling):
            await handling.run()
        return self._go_on

    def __str__(self) -> str:
        return f"{self._head.method} {self._head.target}"

    def request(self, nursery: trio.Nursery) -> Request:
        """Return the request; see `Caller`."""
        head = self._head
        return Request(
            method=head.method,
            url=self._url(),
            headers=head.headers,
            nursery=nursery,
            client=self.address,
            body=head.body,
        )

    def _url(self) -> str:
        """Return the URL that the client has asked for."""
        headers = self._head.headers
        host = headers.get("host", "")
        # Each listener may speak TLS or not.
        stream = self._http.stream
        scheme = "http" if below_tls(stream) is stream else "https"
        if self._service.proxy_headers:
            host = _said_last(headers, "x-forwarded-host", host)
            scheme = _said_last(headers, "x-forwarded-proto", scheme).lower()
        return url_of(scheme, host, self._head.target)

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


def _said_last(headers: Headers, name: str, otherwise: str) -> str:
    """Return what the nearest of several proxies says; it speaks last."""
    said = comma_list(headers, name)
    return said[-1] if said else otherwise


def client_address(stream: trio.abc.Stream) -> str:
    """Return the address of the peer of a TCP connection; empty if there is none."""
    bottom = below_tls(stream)
    if isinstance(bottom, trio.SocketStream):
        with contextlib.suppress(OSError):  # The client may have gone already.
            name: tuple[str, int] | str = bottom.socket.getpeername()
            if isinstance(name, tuple):  # That of a Unix socket is none.
                return str(name[0])
    return ""

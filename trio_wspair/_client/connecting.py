"""`connect()` and `open_websocket()`: the client half of a real connection."""

import logging
import math
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypedDict, Unpack

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from trio_wspair._http.headers import Headers, HeadersInit, is_token
from trio_wspair._http.urls import Authority
from trio_wspair._pair.instruments import ConnectionInfo, tell_connected
from trio_wspair._pair.pair import (
    DEFAULT_MAX_BUFFERED_BYTES,
    WebSocketPair,
    closing_on_exit,
    nursery_for,
)
from trio_wspair._pair.websocket import WebSocket, half_of
from trio_wspair._rules.display import redacted
from trio_wspair._rules.errors import HandshakeError
from trio_wspair._rules.limits import Limits
from trio_wspair._tasks.nurseries import open_service_nursery
from trio_wspair.transports._connection import Connection
from trio_wspair.transports._couple import Coupling
from trio_wspair.transports._engines import Engine, EngineName, engine_named
from trio_wspair.transports.io._tls import check_ssl_context, start_tls

from .dialing import Dialer, Progress, dialer
from .endpoint import Endpoint, parse_endpoint

__all__ = ("ConnectOptions", "ConnectionOptions", "connect", "open_websocket")

_logger: Final = logging.getLogger("trio_wspair")
_HEADERS_OF_THE_HANDSHAKE: Final = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "transfer-encoding",
        "upgrade",
    }
)


async def connect(
    url: str,
    *,
    nursery: trio.Nursery | None = None,
    protocols: str | Sequence[str] = (),
    headers: HeadersInit = (),
    ssl_context: ssl.SSLContext | None = None,
    proxy: str | None = None,
    dial: Dialer | None = None,
    connect_timeout: float = 10.0,
    close_grace: float = 5.0,
    max_message_bytes: int = 2**25,
    max_buffered_bytes: int = DEFAULT_MAX_BUFFERED_BYTES,
    receive_buffer_bytes: int = 2**20,
    ping_interval: float = 20.0,
    ping_timeout: float = 20.0,
    engine: EngineName = "trio-websocket",
    compression: bool = False,
) -> WebSocket:
    """Open a WebSocket and return its half, not accepted yet: nothing gets lost.

    Always a checkpoint. Cancelled, there is no connection.

    Args:
        url: ``ws://`` or ``wss://``; ``http://`` and ``https://`` mean the same. It is
            read as browsers read it: the host by UTS 46, path and query
            percent-encoded where they have to be, no fragment. A user name and a
            password in it are sent as Basic authorization (RFC 7617). An IPv6 address
            may have a zone, as in ``ws://[fe80::1%25eth0]/``.
        nursery: Where the tasks of the connection run; by default that of the request
            or Durable Object that is being handled. Else use `open_websocket()`.
        protocols: The subprotocols to offer; ``ws.protocol`` tells which was chosen.
        headers: More headers for the request.
        ssl_context: For ``wss://``; by default one that trusts the system's CAs.
        proxy: The URL of a proxy to go through, with user name and password if it asks
            for them: ``http://``, ``https://``, ``socks5h://`` or ``socks4a://``, which
            look up the name of the server themselves; or ``socks5://`` or
            ``socks4://``, for which it is looked up here. Those of SOCKS need the extra
            ``trio-wspair[proxy]``.
        dial: An async function of a host and a port that opens the stream, instead of
            TCP; such as one that calls `trio.open_unix_socket()`. The host is in ASCII;
            an IPv6 address has no brackets.
        connect_timeout: Seconds until the WebSocket has to be open: for DNS, the proxy,
            TCP, TLS and the handshake together.
        close_grace: Seconds for the closing handshake.
        max_message_bytes: The server gets Close 1009 for a larger message.
        max_buffered_bytes: How much may be sent and not taken.
        receive_buffer_bytes: Reading stops while so much was not taken.
        ping_interval: Seconds between two pings; `math.inf` for none.
        ping_timeout: Seconds in which something has to be heard after a ping, or the
            connection has failed: `error` and `close` 1006.
        engine: The library that speaks the protocol of WebSockets:
            ``"trio-websocket"``, or ``"websockets"``, which needs the extra
            ``trio-wspair[websockets]``.
        compression: Offer permessage-deflate. Only with ``engine="websockets"``.

    Raises:
        HandshakeError: The server, or the proxy, did not open a WebSocket, or not in
            time. `HandshakeError.retryable` says whether trying again may help.
        OSError: The server, or the proxy, can't be reached; the text names each address
            that was tried. If the name is not found it is a `socket.gaierror`.
        ImportError: The extra for proxies, or for the engine, is not installed.
        InvalidStateError: There is no nursery.
        ValueError: The URL, or another argument, can't be used.
        TypeError: An argument is of another type.
    """
    nursery = nursery_for(nursery, "connect()", "open_websocket(url)")
    limits = Limits(
        connect_timeout=connect_timeout,
        close_grace=close_grace,
        max_message_bytes=max_message_bytes,
        max_buffered_bytes=max_buffered_bytes,
        receive_buffer_bytes=receive_buffer_bytes,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
    )
    chosen_engine = engine_named(engine, compression=compression)
    endpoint = _checked_endpoint(url, ssl_context)
    offered = _checked_protocols(protocols)
    more_headers = _checked_headers(headers, endpoint)
    progress = Progress()
    pair = WebSocketPair(
        nursery, max_buffered_bytes=max_buffered_bytes, close_grace=close_grace
    )
    dialing = _Dial(
        chosen_engine,
        endpoint,
        ssl_context,
        dialer(proxy, dial, progress=progress),
        progress,
        offered,
        more_headers,
        limits,
        Coupling(pair[1], limits),
    )
    link = half_of(pair[0]).link
    link.url = endpoint.url
    link.protocol = await nursery.start(dialing.run)
    return pair[0]


class ConnectionOptions(TypedDict, total=False):
    """The options of `connect()` that stay the same for each connection."""

    protocols: str | Sequence[str]
    ssl_context: ssl.SSLContext | None
    proxy: str | None
    dial: Dialer | None
    connect_timeout: float
    close_grace: float
    max_message_bytes: int
    max_buffered_bytes: int
    receive_buffer_bytes: int
    ping_interval: float
    ping_timeout: float
    engine: EngineName
    compression: bool


class ConnectOptions(ConnectionOptions, total=False):
    """The options of `connect()`, for functions that pass them on."""

    headers: HeadersInit


@asynccontextmanager
async def open_websocket(
    url: str, **options: Unpack[ConnectOptions]
) -> AsyncGenerator[WebSocket, None]:
    """Open a WebSocket for a block of code that awaits `receive()` or iterates.

    ``async with open_websocket(url) as ws:``. On leaving it is closed with 1000, or
    1011 when the block has raised. The arguments and exceptions are `connect()`'s, but
    for `nursery`.
    """
    async with open_service_nursery() as nursery:
        socket = await connect(url, nursery=nursery, **options)
        socket.accept(pull=True)
        async with closing_on_exit([socket], grace=options.get("close_grace", 5.0)):
            yield socket


def _checked_endpoint(url: str, ssl_context: ssl.SSLContext | None) -> Endpoint:
    """Take a URL apart, and check that the TLS context is one for it.

    Raises:
        ValueError: It is not the URL of a WebSocket, or the context isn't for it.
        TypeError: One of them is of another type.
    """
    if not isinstance(url, str):
        msg = f"url must be a str, not {type(url).__name__}"
        raise TypeError(msg)
    endpoint = parse_endpoint(url)
    check_ssl_context(ssl_context, server=False)
    if ssl_context is not None and not endpoint.secure:
        shown = redacted(endpoint.url)[:200]
        msg = f'ssl_context is for wss:// and https:// URLs, this one is "{shown}"'
        raise ValueError(msg)
    return endpoint


def _checked_headers(headers: HeadersInit, endpoint: Endpoint) -> list[tuple[str, str]]:
    """Return the headers to add to the request.

    Raises:
        ValueError: One is not for the caller to say.
        TypeError: One is of another type.
    """
    more = Headers(headers)
    for name in more:
        if name in _HEADERS_OF_THE_HANDSHAKE:
            msg = f"connect() makes the header {name!r} itself"
            raise ValueError(msg)
    if endpoint.authorization is None:
        return more.pairs()
    if "authorization" in more:
        msg = "the URL has a user name, and the headers have 'Authorization': pass one"
        raise ValueError(msg)
    return [*more.pairs(), ("authorization", endpoint.authorization)]


def _checked_protocols(protocols: str | Sequence[str]) -> list[str]:
    """Return the subprotocols to offer.

    Raises:
        TypeError: One is no str.
        ValueError: One is no token, or is there twice.
    """
    offered = [protocols] if isinstance(protocols, str) else list(protocols)
    for protocol in offered:
        if not isinstance(protocol, str):
            msg = f"a subprotocol is a str, not {type(protocol).__name__}"
            raise TypeError(msg)
        # They are not shown: for lack of headers, there may be a token among them.
        wrong = next((c for c in protocol if not is_token(c)), None)
        if not protocol or wrong is not None:
            what = "empty" if wrong is None else f"a name with {wrong!r} in it"
            msg = f"a subprotocol can't be {what} (RFC 6455, section 4.1)"
            raise ValueError(msg)
    if len(set(offered)) < len(offered):
        msg = "a subprotocol is offered twice"
        raise ValueError(msg)
    return offered


@attrs.frozen(eq=False)
class _Dial:
    """A connection that is being opened, and then runs."""

    engine: Engine
    endpoint: Endpoint
    ssl_context: ssl.SSLContext | None
    dial: Dialer
    progress: Progress
    protocols: list[str]
    headers: list[tuple[str, str]] = attrs.field(repr=False)
    limits: Limits
    coupling: Coupling

    @enable_ki_protection
    async def run(self, *, task_status: trio.TaskStatus[str]) -> None:
        """Connect, tell the subprotocol, and stay until the end."""
        endpoint = self.endpoint
        error: Exception | None = None
        with trio.move_on_after(self.limits.connect_timeout) as patience:
            try:
                stream = await self._open_stream()
                self.progress.waiting_for = "the server has not answered the request"
                async with self.engine.open_client(
                    stream,
                    host=endpoint.host_header,
                    resource=endpoint.resource,
                    subprotocols=self.protocols,
                    headers=self.headers,
                    max_message_bytes=self.limits.max_message_bytes,
                ) as connection:
                    # The time may have run out in this very step.
                    await trio.lowlevel.checkpoint_if_cancelled()
                    patience.deadline = math.inf
                    task_status.started(connection.subprotocol)
                    peer = str(Authority(endpoint.host, endpoint.port))
                    info = ConnectionInfo("client", peer, endpoint.url)
                    tell_connected(self.coupling.conversation.socket, info)
                    await self._converse(connection, info)
            except (HandshakeError, OSError) as exc:
                error = exc
        if patience.cancelled_caught:
            seconds = self.limits.connect_timeout
            error = HandshakeError(
                f"no WebSocket at {endpoint.host_header} within {seconds} s: "
                f"{self.progress.waiting_for}"
            )
        if error is not None:
            try:
                raise error
            finally:
                del error  # Its traceback refers to this frame.

    async def _converse(self, connection: Connection, info: ConnectionInfo) -> None:
        """Run the coupling, and log when it begins and ends."""
        shown = redacted(info.url)
        _logger.debug("connection %d to %s is open", info.id, shown, extra=info.extra)
        began = trio.current_time()
        end = await self.coupling.run(connection)
        seconds = trio.current_time() - began
        what = "connection %d to %s has closed with %d after %.1f s"
        facts = {**info.extra, "code": end.code, "duration": seconds}
        _logger.debug(what, info.id, shown, end.code, seconds, extra=facts)

    async def _open_stream(self) -> trio.abc.Stream:
        endpoint = self.endpoint
        stream: object = await self.dial(endpoint.host, endpoint.port)
        if not isinstance(stream, trio.abc.Stream):
            msg = f"dial() must return a trio.abc.Stream, not {stream!r}"
            raise TypeError(msg)
        if not endpoint.secure:
            return stream
        self.progress.waiting_for = "the server has not finished the TLS handshake"
        return await start_tls(
            stream,
            self.ssl_context or ssl.create_default_context(),
            server_name=endpoint.server_name,
            peer=endpoint.host_header,
        )

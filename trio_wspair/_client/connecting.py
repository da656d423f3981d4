"""`connect()` and `open_websocket()`: the client half of a real connection.

Theory of operation: `connect()` checks every argument first, then makes a pair, keeps
one half, and starts one task in the nursery, `_Attempt.run()`. That task opens the
stream, does the TLS and the opening handshake, reports the subprotocol to `connect()`,
which then returns, and pumps between the connection and the other half until both have
ended. Knows neither sockets nor frames.
"""

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
from trio_wspair._http.hosts import Authority
from trio_wspair._pair.instruments import ConnectionInfo, report_connected
from trio_wspair._pair.pair import (
    DEFAULT_MAX_BUFFERED_BYTES,
    WebSocketPair,
    closing_on_exit,
    nursery_for,
)
from trio_wspair._pair.verbs import half_of
from trio_wspair._pair.websocket import WebSocket
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
"""The headers that the handshake sets; the caller can't."""


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
    """Open a WebSocket and return its half, before `accept()`: no message is lost.

    Always a checkpoint. If it is cancelled, no connection stays open.

    Args:
        url: ``ws://`` or ``wss://``; ``http://`` and ``https://`` mean the same. It is
            parsed as browsers do: the host by UTS 46, path and query percent-encoded
            where necessary, no fragment. A user name and a password in it are sent as
            Basic authorization (RFC 7617). An IPv6 address may have a zone, as in
            ``ws://[fe80::1%25eth0]/``.
        nursery: The nursery for the tasks of the connection; by default that of the
            current request or Durable Object. Elsewhere, use `open_websocket()`.
        protocols: The subprotocols to offer; ``ws.protocol`` is the one chosen.
        headers: More headers for the request.
        ssl_context: For ``wss://``; by default one that trusts the system's CAs.
        proxy: The URL of a proxy, with a user name and a password if it asks for them:
            ``http://``, ``https://``, ``socks5h://`` or ``socks4a://``, which look up
            the name of the server themselves; or ``socks5://`` or ``socks4://``, for
            which it is looked up here. SOCKS needs the extra ``trio-wspair[proxy]``.
        dial: An async function of a host and a port that opens the stream, in place of
            TCP; it may call `trio.open_unix_socket()`, for example. The host is ASCII;
            an IPv6 address has no brackets.
        connect_timeout: Seconds for DNS, the proxy, TCP, TLS and the opening handshake
            together.
        close_grace: Seconds for the closing handshake.
        max_message_bytes: The server gets Close 1009 for a larger message.
        max_buffered_bytes: How much may be sent and not yet taken by the connection.
        receive_buffer_bytes: Reading stops while so much has not been taken.
        ping_interval: Seconds between two pings; `math.inf` for none.
        ping_timeout: Seconds after a ping within which something has to arrive;
            otherwise the connection fails, with `error` and `close` 1006.
        engine: The implementation of the protocol: ``"trio-websocket"``, or
            ``"websockets"``, which needs the extra ``trio-wspair[websockets]``.
        compression: Offer permessage-deflate. Only with ``engine="websockets"``.

    Raises:
        HandshakeError: The server, or the proxy, did not open a WebSocket, or not in
            time. `HandshakeError.retryable` says whether another attempt may help.
        OSError: The server, or the proxy, can't be reached; the text names each address
            that was tried. If the name is not found it is a `socket.gaierror`.
        ImportError: The extra for SOCKS, or for the engine, is not installed.
        InvalidStateError: There is no nursery.
        ValueError: The URL or another argument is not valid.
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
    request = _Request.checked(url, ssl_context, protocols, headers)
    attempt = _Attempt(chosen_engine, request, limits)
    return await attempt.open(nursery, dialer(proxy, dial, progress=attempt.progress))


class ConnectionOptions(TypedDict, total=False):
    """The options of `connect()` that `reconnecting()` uses for every connection."""

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
    """All options of `connect()` except `nursery`."""

    headers: HeadersInit


@asynccontextmanager
async def open_websocket(
    url: str, **options: Unpack[ConnectOptions]
) -> AsyncGenerator[WebSocket, None]:
    """Open a WebSocket, in pull mode, for a block that awaits `receive()` or iterates.

    ``async with open_websocket(url) as ws:``. At the end of the block it is closed with
    1000, or with 1011 if the block has raised. The arguments and exceptions are those
    of `connect()`, without `nursery`.
    """
    async with open_service_nursery() as nursery:
        socket = await connect(url, nursery=nursery, **options)
        socket.accept(pull=True)
        async with closing_on_exit([socket], grace=options.get("close_grace", 5.0)):
            yield socket


@attrs.frozen
class _Request:
    """What the opening handshake asks for, and of which server."""

    endpoint: Endpoint
    ssl_context: ssl.SSLContext | None
    protocols: list[str]
    headers: list[tuple[str, str]] = attrs.field(repr=False)

    @classmethod
    def checked(
        cls,
        url: str,
        ssl_context: ssl.SSLContext | None,
        protocols: str | Sequence[str],
        headers: HeadersInit,
    ) -> "_Request":
        """Return the request that these arguments of `connect()` describe.

        Raises:
            ValueError: One of them is not valid.
            TypeError: One of them is of another type.
        """
        endpoint = _checked_endpoint(url, ssl_context)
        offered = _checked_protocols(protocols)
        return cls(endpoint, ssl_context, offered, _checked_headers(headers, endpoint))


def _checked_endpoint(url: str, ssl_context: ssl.SSLContext | None) -> Endpoint:
    """Parse a URL, and check that the TLS context can be used with it.

    Raises:
        ValueError: It is not the URL of a WebSocket, or it is a URL without TLS.
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
        ValueError: The handshake sets one of them itself.
        TypeError: One is of another type.
    """
    more = Headers(headers)
    for name in more:
        if name in _HEADERS_OF_THE_HANDSHAKE:
            msg = f"the handshake sets the header {name!r} itself: leave it out"
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
        TypeError: One is not a str.
        ValueError: One is not a token, or is listed twice.
    """
    offered = [protocols] if isinstance(protocols, str) else list(protocols)
    for protocol in offered:
        if not isinstance(protocol, str):
            msg = f"a subprotocol must be a str, not {type(protocol).__name__}"
            raise TypeError(msg)
        # Errors don't show them: browsers can't set headers, so some APIs expect an
        # access token among the subprotocols.
        wrong = next((c for c in protocol if not is_token(c)), None)
        if not protocol or wrong is not None:
            what = "be empty" if wrong is None else f"have {wrong!r} in it"
            msg = f"a subprotocol can't {what} (RFC 6455, section 4.1)"
            raise ValueError(msg)
    if len(set(offered)) < len(offered):
        msg = "a subprotocol is offered twice: list each of them once"
        raise ValueError(msg)
    return offered


@attrs.frozen(eq=False)
class _Attempt:
    """One attempt to open a connection, which then runs until its end."""

    engine: Engine
    request: _Request
    limits: Limits
    progress: Progress = attrs.field(factory=Progress)

    async def open(self, nursery: trio.Nursery, dial: Dialer) -> WebSocket:
        """Connect in a task of the nursery, and return the half of the caller."""
        pair = WebSocketPair(
            nursery,
            max_buffered_bytes=self.limits.max_buffered_bytes,
            close_grace=self.limits.close_grace,
        )
        link = half_of(pair[0]).link
        link.url = self.request.endpoint.url
        coupling = Coupling(pair[1], self.limits)
        link.protocol = await nursery.start(self.run, dial, coupling)
        return pair[0]

    @enable_ki_protection
    async def run(
        self, dial: Dialer, coupling: Coupling, *, task_status: trio.TaskStatus[str]
    ) -> None:
        """Connect, report the subprotocol, and pump until the connection has ended."""
        endpoint = self.request.endpoint
        error: Exception | None = None
        with trio.move_on_after(self.limits.connect_timeout) as timeout:
            try:
                stream = await self._open_stream(dial)
                self.progress.waiting_for = "the server has not answered the request"
                async with self.engine.open_client(
                    stream,
                    host=endpoint.host_header,
                    resource=endpoint.resource,
                    subprotocols=self.request.protocols,
                    headers=self.request.headers,
                    max_message_bytes=self.limits.max_message_bytes,
                ) as connection:
                    # The deadline may have passed in the step that opened it.
                    await trio.lowlevel.checkpoint_if_cancelled()
                    timeout.deadline = math.inf
                    task_status.started(connection.subprotocol)
                    peer = str(Authority(endpoint.host, endpoint.port))
                    info = ConnectionInfo("client", peer, endpoint.url)
                    report_connected(coupling.conversation.socket, info)
                    await _run_logged(coupling, connection, info)
            except (HandshakeError, OSError) as exc:
                error = exc
        if timeout.cancelled_caught:
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

    async def _open_stream(self, dial: Dialer) -> trio.abc.Stream:
        endpoint = self.request.endpoint
        stream: object = await dial(endpoint.host, endpoint.port)
        if not isinstance(stream, trio.abc.Stream):
            msg = f"dial() must return a trio.abc.Stream, not {stream!r}"
            raise TypeError(msg)
        if not endpoint.secure:
            return stream
        self.progress.waiting_for = "the server has not finished the TLS handshake"
        return await start_tls(
            stream,
            self.request.ssl_context or ssl.create_default_context(),
            server_name=endpoint.server_name,
            peer=endpoint.host_header,
        )


async def _run_logged(
    coupling: Coupling, connection: Connection, info: ConnectionInfo
) -> None:
    """Run the coupling, and log its begin and end at DEBUG."""
    shown = redacted(info.url)
    _logger.debug("connection %d to %s is open", info.id, shown, extra=info.extra)
    began = trio.current_time()
    end = await coupling.run(connection)
    seconds = trio.current_time() - began
    what = "connection %d to %s has closed with %d after %.1f s"
    facts = {**info.extra, "code": end.code, "duration": seconds}
    _logger.debug(what, info.id, shown, end.code, seconds, extra=facts)

"""`connect()` and `open_websocket()`: the client half of a real connection."""

import logging
import math
import re
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypedDict, Unpack
from urllib.parse import SplitResult, quote, urlsplit

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from ._dialing import Dialer, dialer
from ._errors import HandshakeError
from ._http import Headers, HeadersInit, is_token
from ._instruments import ConnectionInfo, tell_connected
from ._limits import Limits
from ._nurseries import open_service_nursery
from ._pair import (
    DEFAULT_MAX_BUFFERED_BYTES,
    WebSocketPair,
    closing_on_exit,
    nursery_for,
)
from ._socket import WebSocket, half_of
from ._tls import check_ssl_context
from .transports._connection import Connection
from .transports._couple import Coupling
from .transports._engines import Engine, EngineName, engine_named

__all__ = ("ConnectOptions", "connect", "open_websocket")

_logger: Final = logging.getLogger("trio_wspair")
_PORTS: Final = {"ws": 80, "wss": 443}
_UNQUOTED: Final = "%/:?@!$&'()*+,;=~[]"
"""What a path or query may have beside letters, digits and ``-._``; `%` as it is."""
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
        url: ``ws://`` or ``wss://``.
        nursery: Where the tasks of the connection run; by default that of the request
            or Durable Object that is being handled. Else use `open_websocket()`.
        protocols: The subprotocols to offer; ``ws.protocol`` tells which was chosen.
        headers: More headers for the request.
        ssl_context: For ``wss://``; by default one that trusts the system's CAs.
        proxy: The URL of a proxy to go through, ``http://``, ``socks4://``, or
            ``socks5://``, with user and password if it asks for them. Needs the extra
            ``trio-wspair[proxy]``.
        dial: An async function of a host and a port that opens the stream, instead of
            TCP; such as one that calls `trio.open_unix_socket()`.
        connect_timeout: Seconds until the WebSocket has to be open.
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
        HandshakeError: The server did not open a WebSocket, or not in time.
        OSError: The server, or the proxy, can't be reached.
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
    address = _parse(url, ssl_context)
    offered = _checked_protocols(protocols)
    more_headers = Headers(headers)
    for name in more_headers:
        if name in _HEADERS_OF_THE_HANDSHAKE:
            msg = f"connect() makes the header {name!r} itself"
            raise ValueError(msg)
    pair = WebSocketPair(
        nursery, max_buffered_bytes=max_buffered_bytes, close_grace=close_grace
    )
    dialing = _Dial(
        chosen_engine,
        address,
        dialer(proxy, dial),
        offered,
        more_headers.pairs(),
        limits,
        Coupling(pair[1], limits),
        url,
    )
    link = half_of(pair[0]).link
    link.url = url
    link.protocol = await nursery.start(dialing.run)
    return pair[0]


class ConnectOptions(TypedDict, total=False):
    """The options of `connect()`, for those who pass them on."""

    protocols: str | Sequence[str]
    headers: HeadersInit
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


@attrs.frozen(slots=True)
class _Address:
    """What a URL says."""

    host: str
    port: int
    host_header: str
    resource: str
    ssl_context: ssl.SSLContext | None


def _parse(url: str, ssl_context: ssl.SSLContext | None) -> _Address:
    """Take a URL apart.

    Raises:
        ValueError: It is no URL of a WebSocket.
        TypeError: It is no str.
    """
    if not isinstance(url, str):
        msg = f"url must be a str, not {type(url).__name__}"
        raise TypeError(msg)
    parts: SplitResult = urlsplit(url)
    wrong = _what_is_wrong(parts)
    if wrong is not None:
        msg = f"{url!r} is not the URL of a WebSocket: {wrong}"
        raise ValueError(msg)
    check_ssl_context(ssl_context, server=False)
    if ssl_context is not None and parts.scheme == "ws":
        msg = f"ssl_context is for wss:// URLs, this one is {url!r}"
        raise ValueError(msg)
    default_port = _PORTS[parts.scheme]
    port = parts.port or default_port
    if parts.scheme == "wss" and ssl_context is None:
        ssl_context = ssl.create_default_context()
    hostname = parts.hostname or ""
    try:
        hostname = hostname.encode("idna").decode("ascii")
    except UnicodeError as exc:
        msg = f"{hostname!r} is no host: {exc}"
        raise ValueError(msg) from None
    host = f"[{hostname}]" if ":" in hostname else hostname
    query = f"?{quote(parts.query, safe=_UNQUOTED)}" if parts.query else ""
    return _Address(
        hostname,
        port,
        host if port == default_port else f"{host}:{port}",
        (quote(parts.path, safe=_UNQUOTED) or "/") + query,
        ssl_context,
    )


def _what_is_wrong(parts: SplitResult) -> str | None:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in _PORTS:
        return "it begins with ws:// or wss://"
    if not parts.hostname or re.search(r"[\s\\]", parts.netloc):
        return "it has a host, without spaces"
    if parts.username is not None:
        return "it has no user or password; pass headers instead"
    if port == 0:
        return "its port is a number from 1 to 65535"
    return "it has no '#fragment'" if parts.fragment else None


def _checked_protocols(protocols: str | Sequence[str]) -> list[str]:
    """Return the subprotocols to offer.

    Raises:
        TypeError: One is no str.
        ValueError: One is no token, or is there twice.
    """
    offered = [protocols] if isinstance(protocols, str) else list(protocols)
    for protocol in offered:
        if not isinstance(protocol, str):
            msg = f"a subprotocol is a str, not {protocol!r}"
            raise TypeError(msg)
        if not is_token(protocol):
            msg = f"{protocol!r} can't be a subprotocol (RFC 6455, section 4.1)"
            raise ValueError(msg)
    if len(set(offered)) < len(offered):
        msg = f"a subprotocol is offered twice: {offered!r}"
        raise ValueError(msg)
    return offered


@attrs.frozen(eq=False)
class _Dial:
    """A connection that is being opened, and then runs."""

    engine: Engine
    address: _Address
    dial: Dialer
    protocols: list[str]
    headers: list[tuple[str, str]]
    limits: Limits
    coupling: Coupling
    url: str

    @enable_ki_protection
    async def run(self, *, task_status: trio.TaskStatus[str]) -> None:
        """Connect, tell the subprotocol, and stay until the end."""
        error: Exception | None = None
        with trio.move_on_after(self.limits.connect_timeout) as patience:
            try:
                stream = await self._open_stream()
                async with self.engine.open_client(
                    stream,
                    host=self.address.host_header,
                    resource=self.address.resource,
                    subprotocols=self.protocols,
                    headers=self.headers,
                    max_message_bytes=self.limits.max_message_bytes,
                ) as connection:
                    # The time may have run out in this very step.
                    await trio.lowlevel.checkpoint_if_cancelled()
                    patience.deadline = math.inf
                    task_status.started(connection.subprotocol)
                    peer = f"{self.address.host}:{self.address.port}"
                    info = ConnectionInfo("client", peer, self.url)
                    tell_connected(self.coupling.conversation.socket, info)
                    await self._converse(connection, info)
            except (HandshakeError, OSError) as exc:
                error = exc
        if patience.cancelled_caught:
            host = self.address.host_header
            seconds = self.limits.connect_timeout
            error = HandshakeError(f"no WebSocket at {host} within {seconds} s")
        if error is not None:
            raise error

    async def _converse(self, connection: Connection, info: ConnectionInfo) -> None:
        """Run the coupling, and log when it begins and ends."""
        _logger.debug(
            "connection %d to %s is open", info.id, info.url, extra=info.extra
        )
        began = trio.current_time()
        end = await self.coupling.run(connection)
        seconds = trio.current_time() - began
        what = "connection %d to %s has closed with %d after %.1f s"
        facts = {**info.extra, "code": end.code, "duration": seconds}
        _logger.debug(what, info.id, info.url, end.code, seconds, extra=facts)

    async def _open_stream(self) -> trio.abc.Stream:
        address = self.address
        stream = await self.dial(address.host, address.port)
        if address.ssl_context is None:
            return stream
        secure = trio.SSLStream(
            stream,
            address.ssl_context,
            server_hostname=address.host,
            https_compatible=True,
        )
        try:
            await secure.do_handshake()
        except trio.BrokenResourceError as exc:
            await trio.aclose_forcefully(stream)
            msg = f"no TLS with {address.host_header}: {exc.__cause__ or exc}"
            raise HandshakeError(msg) from exc
        except trio.Cancelled:
            with trio.CancelScope(shield=True):  # Never waits.
                await trio.aclose_forcefully(stream)
            raise
        return secure

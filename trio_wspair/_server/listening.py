"""`Place` and `Server`: where a server listens, before and after it is opened.

Knows addresses, listeners and whether they use TLS; not what is served on them.
"""

import errno
import ipaddress
import os
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from threading import get_ident
from typing import Any, Final, cast

import attrs
import trio

from trio_wspair._http.hosts import Authority
from trio_wspair._rules.errors import InvalidStateError
from trio_wspair._rules.limits import check_limit
from trio_wspair._rules.state import check_thread
from trio_wspair.transports.io._tls import check_ssl_context

from .unix_listener import checked_path, open_unix_listener

__all__ = (
    "Endpoint",
    "Listener",
    "Place",
    "Server",
    "closing_listeners",
    "endpoint_of",
)

Listener = trio.abc.Listener[trio.abc.Stream]

_ATTEMPTS: Final = 10
_UNIX: Final = getattr(socket, "AF_UNIX", None)


@attrs.frozen
class Endpoint:
    """One address at which a server listens."""

    address: tuple[str, int] | str | None
    """Host and port, or the path of a Unix socket; `None` for other listeners."""
    secure: bool
    """Whether it uses TLS."""

    def __str__(self) -> str:
        return self.url() if self.has_port else str(self.address or "another listener")

    @property
    def has_port(self) -> bool:
        """Whether it has a port, and so a URL."""
        return isinstance(self.address, tuple)

    def host_and_port(self) -> tuple[str, int]:
        """Return the host and the port.

        Raises:
            InvalidStateError: It has no port.
        """
        if isinstance(self.address, tuple):
            return self.address
        where = "listeners that are not sockets"
        if self.address is not None:
            where = f"the Unix socket {self.address!r}"
        msg = f"this server has no port: it listens on {where}"
        raise InvalidStateError(msg)

    def url(self) -> str:
        """Return a WebSocket URL that reaches it from the same machine.

        Raises:
            InvalidStateError: It has no port.
        """
        host, port = self.host_and_port()
        authority = Authority(_reachable(host), port)
        return f"{'wss' if self.secure else 'ws'}://{authority}/"


@attrs.frozen(eq=False, repr=False)
class Server:
    """A server, and where it listens; ``await nursery.start(serve, ...)`` returns it.

    Of several listeners, `port`, `url` and `secure` describe the first one that has a
    port.
    """

    _endpoints: tuple[Endpoint, ...]
    _stop: Callable[[], None]
    _thread: int = attrs.field(factory=get_ident, init=False)

    def stop(self) -> None:
        """Stop the server gracefully, after which `serve()` returns. Idempotent.

        The server accepts no more connections, and sends a Close with `stop_code` to
        each WebSocket, whose listeners go on. Requests under way are answered, with
        ``Connection: close``. Connections without a request end at once. What has not
        ended after `close_grace` seconds is cancelled.

        Raises:
            InvalidStateError: It is called in another thread.
        """
        check_thread(self._thread, "stop()")
        self._stop()

    def __repr__(self) -> str:
        return f"<Server on {', '.join(map(str, self._endpoints))}>"

    @property
    def addresses(self) -> tuple[tuple[str, int] | str, ...]:
        """Host and port of each listening socket, or the path of a Unix socket.

        The hosts ``0.0.0.0`` and ``::`` stand for all addresses of the machine.
        Listeners that are not sockets have no address.
        """
        addresses = (endpoint.address for endpoint in self._endpoints)
        return tuple(address for address in addresses if address is not None)

    @property
    def port(self) -> int:
        """The port on which it listens.

        Raises:
            InvalidStateError: The server has no port: its listeners are Unix sockets,
                or not sockets.
        """
        return self._first.host_and_port()[1]

    @property
    def url(self) -> str:
        """The WebSocket URL, such as ``ws://127.0.0.1:8000/``.

        A server that listens on all addresses is reached by it from the same machine.

        Raises:
            InvalidStateError: The server has no port.
        """
        return self._first.url()

    @property
    def urls(self) -> tuple[str, ...]:
        """The WebSocket URL of each listener that has a port."""
        return tuple(
            endpoint.url() for endpoint in self._endpoints if endpoint.has_port
        )

    @property
    def secure(self) -> bool:
        """Whether it uses TLS."""
        return self._first.secure

    @property
    def _first(self) -> Endpoint:
        with_port = (endpoint for endpoint in self._endpoints if endpoint.has_port)
        return next(with_port, self._endpoints[0])


def _reachable(host: str) -> str:
    """Return an address to connect to; the loopback address for all addresses."""
    address = ipaddress.ip_address(host)
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def endpoint_of(listener: Listener) -> Endpoint:
    """Return the endpoint of a listener, which may be below TLS."""
    secure = False
    while isinstance(listener, trio.SSLListener):
        secure = True
        listener = cast(
            "trio.SSLListener[trio.abc.Stream]", listener
        ).transport_listener
    sock: object = getattr(listener, "socket", None)
    address = None
    if isinstance(sock, trio.socket.SocketType):
        address = _address_of(sock)
    return Endpoint(address, secure)


def _address_of(sock: trio.socket.SocketType) -> tuple[str, int] | str | None:
    if sock.family == _UNIX:
        path: str | bytes = sock.getsockname()
        return os.fsdecode(path)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        return _host_and_port(sock)
    return None


def _host_and_port(sock: trio.socket.SocketType) -> tuple[str, int]:
    """Return the address of a TCP socket, with its zone if it has one (RFC 4007)."""
    host, port, *more = cast("tuple[Any, ...]", sock.getsockname())
    scope_id = more[1] if more else 0
    if scope_id:
        host = f"{host}%{socket.if_indextoname(scope_id)}"
    return host, port


@attrs.frozen
class Place:
    """Where a server listens: on a port, a Unix socket, or listeners of the caller."""

    port: int | None
    host: str | None
    path: str | None
    """The path of the Unix socket."""
    listeners: Sequence[Listener] | None

    @classmethod
    def checked(
        cls,
        port: int | None,
        host: str | None,
        unix: str | os.PathLike[str] | None,
        listeners: Sequence[Listener] | None,
        ssl_context: ssl.SSLContext | None,
    ) -> "Place":
        """Return the place for these arguments of `serve()`.

        Raises:
            TypeError: An argument has the wrong type, or not exactly one of `port`,
                `unix` and `listeners` is given.
            ValueError: An argument is out of range or can't be used.
        """
        if host is not None and not isinstance(host, str):
            msg = f"host must be a name or an address, or None, not {host!r}"
            raise TypeError(msg)
        if sum(given is not None for given in (port, unix, listeners)) != 1:
            msg = (
                "serve() listens on a port, on a Unix socket or on listeners: pass "
                "exactly one of port, unix and listeners"
            )
            raise TypeError(msg)
        if port is not None:
            check_limit("port", port, least=0, most=65535)
        path = None if unix is None else checked_path(unix)
        if listeners is not None:
            listeners = _checked_listeners(listeners, adds_tls=ssl_context is not None)
        check_ssl_context(ssl_context, server=True)
        return cls(port, host, path, listeners)

    async def open(self) -> Sequence[Listener]:
        """Open and return the listeners, which the caller closes."""
        if self.path is not None:
            return [await open_unix_listener(self.path)]
        if self.listeners is None:
            return await _open_tcp(self.port or 0, self.host)
        return self.listeners


def _checked_listeners(listeners: object, *, adds_tls: bool) -> list[Listener]:
    """Return the listeners that a program has passed, checked.

    Args:
        listeners: The argument of `serve()`.
        adds_tls: Whether the server adds TLS.

    Raises:
        TypeError: It is not a sequence, or contains an object that is not a listener.
        ValueError: It is empty, or a listener is closed, or uses TLS already.
    """
    if not isinstance(listeners, Iterable):
        msg = (
            "listeners must be a sequence of trio.abc.Listener objects, not "
            f"{type(listeners).__name__}"
        )
        raise TypeError(msg)
    checked: list[Listener] = []
    for listener in cast("Iterable[object]", listeners):
        if not isinstance(listener, trio.abc.Listener):
            msg = (
                "listeners must contain trio.abc.Listener objects, not "
                f"{type(listener).__name__}; for a Trio socket, pass "
                "trio.SocketListener(sock)"
            )
            raise TypeError(msg)
        checked.append(cast("Listener", listener))
    if not checked:
        msg = "listeners is empty: pass at least one"
        raise ValueError(msg)
    for listener in checked:
        try:
            secure = endpoint_of(listener).secure
        except OSError as exc:
            msg = f"a listener in listeners is closed, or can't be used: {exc}"
            raise ValueError(msg) from exc
        if secure and adds_tls:
            msg = "the listeners use TLS already: leave out ssl_context"
            raise ValueError(msg)
    return checked


@asynccontextmanager
async def closing_listeners(
    listeners: Sequence[Listener],
) -> AsyncGenerator[None, None]:
    """Close listeners after the block, also if it raises."""
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):  # Closing a listener does not wait.
            for listener in listeners:
                await trio.aclose_forcefully(listener)


async def _open_tcp(port: int, host: str | None) -> list[trio.SocketListener]:
    """Listen on a port; with 0, on one free port for all addresses of the host.

    Raises:
        OSError: The port can't be opened; `OSError.filename` is the address.
        ValueError: `host` is not the name or the address of a host.
    """
    attempts = 1 if port else _ATTEMPTS
    while True:
        attempts -= 1
        try:
            return await _try_tcp(port, host)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or not attempts:
                exc.filename = str(Authority(host or "*", port))
                raise


async def _try_tcp(port: int, host: str | None) -> list[trio.SocketListener]:
    """Listen on a port; with 0, on one that the system chooses."""
    try:
        opened = await trio.open_tcp_listeners(port, host=host)
    except UnicodeError as exc:
        msg = f"host={host!r} is not the name or the address of a host: {exc}"
        raise ValueError(msg) from None
    if port != 0:
        return opened
    # Each address has another port now: use the port of the first for all.
    hosts = [_host_and_port(listener.socket)[0] for listener in opened]
    number = opened[0].socket.getsockname()[1]
    listeners, given_up = opened[:1], opened[1:]
    for listener in given_up:
        listener.socket.close()
    try:
        for other_host in [*dict.fromkeys(hosts)][1:]:  # A host may be there twice.
            listeners += await trio.open_tcp_listeners(number, host=other_host)
    except BaseException:
        for listener in listeners:
            listener.socket.close()
        raise
    return listeners

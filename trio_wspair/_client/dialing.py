"""Opening the stream to a host: by TCP, or through a proxy.

Theory of operation: `dialer()` returns the function that opens the stream. `open_tcp()`
is "happy eyeballs" (RFC 8305), as `trio.open_tcp_stream()` is, but it accepts every
name that DNS accepts (underscores included), its errors name each address that was
tried, and it keeps what it waits for in a `Progress`, for the error after a timeout.
Through an HTTP proxy the stream is opened with CONNECT, by h11, inside TLS if the proxy
has an ``https:`` URL. SOCKS is spoken by python-socks, an extra, which connects to the
proxy itself. A proxy that can't be reached raises `OSError`, as a server does; a proxy
that refuses raises `HandshakeError`. Neither shows the password. Knows no WebSockets.
"""

import math
import os
import socket
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

import attrs
import h11
import trio
from trio.lowlevel import enable_ki_protection

from trio_wspair._rules.display import printable
from trio_wspair._rules.errors import HandshakeError
from trio_wspair.transports.io._tls import start_tls

from .endpoint import Proxy, parse_proxy

__all__ = ("Dialer", "Progress", "dialer", "open_tcp")

Dialer = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Opens a stream to a host and port."""

_MAX_HEAD_BYTES: Final = 2**16
_TOO_LARGE: Final = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
_LASTING_REPLIES: Final = frozenset({2, 7, 8, 0x5C, 0x5D})
"""SOCKS replies that another attempt won't change: not allowed, an unknown command or
address type (RFC 1928, section 6), and two about identd in SOCKS 4."""
_NO_SOCKS: Final = ("Unexpected SOCKS version number", "Unexpected reply version")
"""How errors of python-socks begin if the reply is not SOCKS."""
_DELAY: Final = 0.25
"""Seconds until the next address is tried as well (RFC 8305, section 8)."""
_NOT_FOUND: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None)})


@attrs.define
class Progress:
    """What an attempt to connect is waiting for, for the error after a timeout.

    The text ends the sentence "no WebSocket at example.com within 10 s: ...".
    """

    waiting_for: str = ""


def dialer(proxy: str | None, dial: Dialer | None, *, progress: Progress) -> Dialer:
    """Return the function that opens a stream to a host and port.

    Args:
        proxy: The URL of a proxy, or `None`.
        dial: A function to return in place of TCP, or `None`.
        progress: Updated with what the function is waiting for.

    Raises:
        TypeError: `proxy` is not a str, or `dial` not a function, or both are given.
        ValueError: `proxy` is not the URL of a proxy.
        ImportError: It is a SOCKS proxy, and python-socks is not installed.
    """
    if dial is not None and proxy is not None:
        msg = "dial and proxy exclude each other: pass one of them"
        raise TypeError(msg)
    if dial is not None:
        if not callable(dial):
            msg = f"dial must be an async function of a host and a port, not {dial!r}"
            raise TypeError(msg)
        progress.waiting_for = "dial() has not returned"
        return dial
    if proxy is not None:
        return _dialer_through(parse_proxy(proxy), progress)

    async def dial_directly(host: str, port: int) -> trio.abc.Stream:
        return await open_tcp(host, port, progress=progress)

    return dial_directly


def _dialer_through(proxy: Proxy, progress: Progress) -> Dialer:
    if proxy.scheme.startswith("socks"):
        return _socks_dialer(proxy, progress)

    async def dial_through(host: str, port: int) -> trio.abc.Stream:
        stream: trio.abc.Stream = await open_tcp(
            proxy.host, proxy.port, progress=progress, what="the proxy "
        )
        progress.waiting_for = f"the proxy {proxy} has not answered"
        if proxy.scheme == "https":
            stream = await start_tls(
                stream,
                ssl.create_default_context(),
                server_name=proxy.host.partition("%")[0].removesuffix("."),
                peer=f"the proxy {proxy}",
                plain="http:",
            )
        address = host.partition("%")[0]
        target = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        try:
            await _ask_http_proxy(stream, proxy, target)
        except BaseException:
            with trio.CancelScope(shield=True):  # Never waits.
                await trio.aclose_forcefully(stream)
            raise
        return stream

    return dial_through


# -- TCP ---------------------------------------------------------------------------


@attrs.frozen
class _Address:
    """An address that DNS has returned for a name."""

    family: int
    address: tuple[str | int | bytes, ...]
    """The address and port, in the form that the operating system takes."""

    def __str__(self) -> str:
        return str(self.address[0])


async def _look_up(
    host: str, port: int, *, family: int = socket.AF_UNSPEC
) -> list[_Address]:
    """Return the addresses of a host, in the order in which to try them.

    Args:
        host: A name in ASCII, or an address.
        port: The port of the addresses.
        family: The address family, if only one is wanted.

    Raises:
        socket.gaierror: There are none.
    """
    try:
        # As bytes: Trio encodes a str as IDNA 2008, which refuses underscores.
        found = await trio.socket.getaddrinfo(
            host.encode("ascii"), port, family=family, type=socket.SOCK_STREAM
        )
    except socket.gaierror as exc:
        reason = exc.strerror or str(exc)
        missing = "was not found" if exc.errno in _NOT_FOUND else "can't be looked up"
        msg = f'the name "{host}" {missing}: {reason}'
        raise socket.gaierror(exc.errno, msg) from exc
    addresses = [_Address(family, address) for family, _, _, _, address in found]
    addresses = list(dict.fromkeys(addresses))
    # The second one is of another family, if possible (RFC 8305, section 4).
    other = next((a for a in addresses if a.family != addresses[0].family), None)
    if other is not None:
        addresses.remove(other)
        addresses.insert(1, other)
    return addresses


async def open_tcp(
    host: str, port: int, *, progress: Progress, what: str = ""
) -> trio.SocketStream:
    """Connect to a host.

    Args:
        host: A name in ASCII, or an address.
        port: The port.
        progress: Updated with what this is waiting for.
        what: A prefix of the host in errors, such as ``"the proxy "``.

    Raises:
        OSError: It can't be reached. The text has the host, the port, and the outcome
            for each address.
    """
    progress.waiting_for = f'the name "{host}" has not been looked up'
    addresses = await _look_up(host, port)
    attempts = _Attempts(addresses, progress)
    winner = await attempts.run()
    if winner is not None:
        return trio.SocketStream(winner)
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    outcomes = attempts.outcomes
    if len(outcomes) == 1 and host in outcomes:
        reasons = outcomes[host]
    else:
        reasons = "; ".join(f"{address}: {why}" for address, why in outcomes.items())
    msg = f"can't reach {what}{where}: {reasons}"
    errors = attempts.errors
    cause = errors[0] if len(errors) == 1 else ExceptionGroup(msg, errors)
    numbers = {error.errno for error in errors}
    if len(numbers) == 1:
        raise _unreachable(errors[0], msg) from cause
    raise OSError(msg) from cause


def _unreachable(error: OSError, message: str) -> OSError:
    """Return an error of the same class and number with another text."""
    if error.errno is None:
        return OSError(message)
    if isinstance(error, socket.gaierror):
        return socket.gaierror(error.errno, message)
    return OSError(error.errno, message)  # OSError picks the subclass by the number.


def _reason_of(error: OSError) -> str:
    """Return the meaning of an error number, as the end of a sentence."""
    if error.errno is None or isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    text = os.strerror(error.errno)
    return text[:1].lower() + text[1:]


class _Attempts:
    """Concurrent attempts to connect to several addresses; the first success wins."""

    def __init__(self, addresses: list[_Address], progress: Progress) -> None:
        self._addresses = addresses
        self._progress = progress
        self._winner: trio.socket.SocketType | None = None
        self.outcomes: dict[str, str] = {}
        """The outcome so far for each address that was tried."""
        self.errors: list[OSError] = []

    async def run(self) -> trio.socket.SocketType | None:
        """Return a connected socket, or `None` if every attempt has failed."""
        try:
            async with trio.open_nursery() as nursery:
                for address in self._addresses:
                    failed = trio.Event()
                    nursery.start_soon(self._attempt, address, failed, nursery)
                    with trio.move_on_after(_DELAY):
                        await failed.wait()
        except BaseException:
            if self._winner is not None:
                self._winner.close()
            raise
        return self._winner

    @enable_ki_protection  # Otherwise Ctrl-C could leak a connected socket.
    async def _attempt(
        self, address: _Address, failed: trio.Event, nursery: trio.Nursery
    ) -> None:
        self._note(address, "no answer")
        try:
            sock = trio.socket.socket(address.family, socket.SOCK_STREAM)
            try:
                await sock.connect(address.address)
            except BaseException:
                sock.close()
                raise
        except OSError as exc:
            # Its traceback would form a reference cycle with this frame.
            self.errors.append(exc.with_traceback(None))
            self._note(address, _reason_of(exc))
            failed.set()
            return
        if self._winner is not None:  # Another one, in this same step of the scheduler.
            sock.close()
            return
        self._winner = sock
        nursery.cancel_scope.cancel(reason="another address has answered")

    def _note(self, address: _Address, outcome: str) -> None:
        self.outcomes[str(address)] = outcome
        each = (f"{address}: {why}" for address, why in self.outcomes.items())
        self._progress.waiting_for = "; ".join(each)


# -- HTTP (RFC 9110, section 9.3.6) ------------------------------------------------


async def _ask_http_proxy(stream: trio.abc.Stream, proxy: Proxy, target: str) -> None:
    """Send CONNECT for `target` to a proxy; then the stream leads there.

    Raises:
        HandshakeError: The proxy refuses, or does not speak HTTP/1.1.
    """
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
    headers = [("Host", target)]
    if proxy.user or proxy.password:
        userinfo = b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        headers.append(("Proxy-Authorization", f"Basic {userinfo}"))
    request = h11.Request(method="CONNECT", target=target, headers=headers)
    failed = f"the proxy {proxy} does not connect to {target}"
    data = b""
    try:
        await stream.send_all(parser.send(request) or b"")
        parser.send(h11.EndOfMessage())
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                data = bytes(await stream.receive_some(2**16))
                parser.receive_data(data)
            elif isinstance(event, h11.Response):
                break
    except (trio.BrokenResourceError, h11.RemoteProtocolError) as exc:
        what = "its answer is not HTTP/1.1" if data else "it closed the connection"
        if getattr(exc, "error_status_hint", None) == _TOO_LARGE:
            what = "the head of its answer has more than 64 KiB"
        raise HandshakeError(f"{failed}: {what}") from exc
    status = event.status_code
    if 200 <= status < 300:
        if parser.trailing_data[0]:
            raise HandshakeError(f"{failed}: it has sent more than its answer")
        return
    if status in (401, 407):  # Some proxies answer 401, which is for servers.
        what = f"{_about_password(proxy)} (status {status})"
    else:
        reason = printable(event.reason.decode("latin-1")[:60])
        what = f"it answered with status {status} ({reason})"
    answered = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in event.headers]
    raise HandshakeError(f"{failed}: {what}", status=status, headers=tuple(answered))


# -- SOCKS -------------------------------------------------------------------------


def _socks_dialer(proxy: Proxy, progress: Progress) -> Dialer:
    try:
        from python_socks import ProxyError, ProxyType  # noqa: PLC0415 - an extra
        from python_socks.async_.trio import Proxy as SocksProxy  # noqa: PLC0415
    except ImportError as exc:
        msg = "a SOCKS proxy needs python-socks: pip install 'trio-wspair[proxy]'"
        raise ImportError(msg) from exc
    is_socks4 = proxy.scheme.startswith("socks4")
    # As curl does it: only socks4a and socks5h leave names to the proxy.
    resolves_here = proxy.scheme in ("socks4", "socks5")
    client = SocksProxy(
        ProxyType.SOCKS4 if is_socks4 else ProxyType.SOCKS5,
        proxy.host,
        proxy.port,
        proxy.user,
        proxy.password,
        rdns=True,
    )

    async def dial_through(host: str, port: int) -> trio.SocketStream:
        target = host.partition("%")[0]
        if resolves_here:
            progress.waiting_for = f'the name "{host}" has not been looked up'
            family = socket.AF_INET if is_socks4 else socket.AF_UNSPEC
            target = str((await _look_up(host, port, family=family))[0]).partition("%")[
                0
            ]
        progress.waiting_for = f"the proxy {proxy} has not connected to {target}:{port}"
        try:
            return trio.SocketStream(await client.connect(target, port, math.inf))
        except (ProxyError, ValueError) as exc:
            code = getattr(exc, "error_code", None)
            is_password = "authentication" in str(exc).lower()
            failed = f"the proxy {proxy} does not connect to {host}:{port}"
            msg = f"{failed}: {_refused_by_socks(proxy, str(exc))}"
            lasts = is_password or code in _LASTING_REPLIES
            raise HandshakeError(msg, retryable=not lasts) from exc
        except OSError as exc:
            error = exc.__cause__ if isinstance(exc.__cause__, OSError) else exc
            msg = f"can't reach the proxy {proxy}: {_reason_of(error)}"
            raise _unreachable(error, msg) from exc

    return dial_through


def _refused_by_socks(proxy: Proxy, reason: str) -> str:
    """Return the reason of a refusal, from the error text of python-socks."""
    if reason.startswith(_NO_SOCKS):
        return "it does not speak SOCKS"
    if "authentication" not in reason.lower():
        return printable(reason[:100])
    return _about_password(proxy)


def _about_password(proxy: Proxy) -> str:
    if proxy.user or proxy.password:
        return "it refused the user name and the password"
    return "it requires a user name and a password"

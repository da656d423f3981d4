"""How to reach a host: straight, or through a proxy.

Theory of operation: `dialer()` returns the function that opens the stream. Through an
HTTP proxy that is a CONNECT, by h11, inside TLS if the proxy has an ``https:`` URL. The
protocols of SOCKS are those of python-socks, an extra, which connects to the proxy by
itself. A proxy that can't be reached is an `OSError`, as the server itself is; one that
says no is a `HandshakeError`. Neither shows the password.
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
"""Replies of SOCKS that will not change: not allowed, a command or a kind of address
that isn't known (RFC 1928, section 6), and two about identd in SOCKS 4."""
_NO_SOCKS: Final = ("Unexpected SOCKS version number", "Unexpected reply version")
"""How python-socks begins to tell of a reply in no version of SOCKS."""
_DELAY: Final = 0.25
"""Seconds until the next address is tried beside (RFC 8305, section 8)."""
_NOT_FOUND: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None)})


@attrs.define
class Progress:
    """What an attempt to connect is waiting for, in words, for when it takes too long.

    The words end the sentence "no WebSocket at example.com within 10 s: ...".
    """

    waiting_for: str = ""


def dialer(proxy: str | None, dial: Dialer | None, *, progress: Progress) -> Dialer:
    """Return how to reach a host.

    Args:
        proxy: The URL of a proxy, or `None`.
        dial: How else, if not by TCP.
        progress: Where to keep what is being waited for.

    Raises:
        TypeError: `proxy` is no str, or `dial` no function, or both are given.
        ValueError: It is not the URL of a proxy.
        ImportError: python-socks is not installed, and this is a SOCKS proxy.
    """
    if dial is not None and (proxy is not None or not callable(dial)):
        msg = "dial is an async function of a host and a port, instead of a proxy"
        raise TypeError(msg)
    if dial is not None:
        progress.waiting_for = "dial() has not returned"
        return dial
    if proxy is not None:
        return _dialer_through(parse_proxy(proxy), progress)

    async def dial_straight(host: str, port: int) -> trio.abc.Stream:
        return await open_tcp(host, port, progress=progress)

    return dial_straight


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
    """One that a name stands for."""

    family: int
    address: tuple[str | int | bytes, ...]
    """As the operating system takes it."""

    def __str__(self) -> str:
        return str(self.address[0])


async def _look_up(
    host: str, port: int, *, family: int = socket.AF_UNSPEC
) -> list[_Address]:
    """Return the addresses of a host, in the order in which to try them.

    Args:
        host: A name in ASCII, or an address.
        port: For the addresses.
        family: To have addresses of one kind only.

    Raises:
        socket.gaierror: There are none.
    """
    try:
        # As bytes: of a str, Trio makes IDNA 2008, which has no underscores.
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
    # The second is of the other kind, if there is one (RFC 8305, section 4).
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
        progress: Where to keep what is being waited for.
        what: What stands before the host in an error, such as ``"the proxy "``.

    Raises:
        OSError: It can't be reached. The text has the host, the port, and what became
            of each address.
    """
    progress.waiting_for = f'the name "{host}" was not looked up yet'
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
    """Return an error of the same kind with another text."""
    if error.errno is None:
        return OSError(message)
    if isinstance(error, socket.gaierror):
        return socket.gaierror(error.errno, message)
    return OSError(error.errno, message)  # Which makes the subclass of this number.


def _reason_of(error: OSError) -> str:
    """Return what an error of the operating system means, to go on a sentence with."""
    if error.errno is None or isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    text = os.strerror(error.errno)
    return text[:1].lower() + text[1:]


class _Attempts:
    """Connecting to several addresses, until one of them answers."""

    def __init__(self, addresses: list[_Address], progress: Progress) -> None:
        self._addresses = addresses
        self._progress = progress
        self._winner: trio.socket.SocketType | None = None
        self.outcomes: dict[str, str] = {}
        """What became of each address that was tried."""
        self.errors: list[OSError] = []

    async def run(self) -> trio.socket.SocketType | None:
        """Return a socket that is connected, or `None`."""
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

    @enable_ki_protection  # Else Ctrl-C could lose a socket that was just connected.
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
            # A traceback would refer to this, and keep all until it is collected.
            self.errors.append(exc.with_traceback(None))
            self._note(address, _reason_of(exc))
            failed.set()
            return
        if self._winner is not None:  # In the same step of the scheduler.
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
    """Have a proxy connect to `target`, after which the stream goes there.

    Raises:
        HandshakeError: It doesn't.
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
    if status in (401, 407):  # Some say 401, which is for servers.
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
        from python_socks.async_.trio import Proxy  # noqa: PLC0415
    except ImportError as exc:
        msg = "a SOCKS proxy needs python-socks: pip install 'trio-wspair[proxy]'"
        raise ImportError(msg) from exc
    is_socks4 = proxy.scheme.startswith("socks4")
    # As curl does it: only socks4a and socks5h leave names to the proxy.
    resolves_here = proxy.scheme in ("socks4", "socks5")
    gate = Proxy(
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
            progress.waiting_for = f'the name "{host}" was not looked up yet'
            family = socket.AF_INET if is_socks4 else socket.AF_UNSPEC
            target = str((await _look_up(host, port, family=family))[0]).partition("%")[
                0
            ]
        progress.waiting_for = f"the proxy {proxy} has not connected to {target}:{port}"
        try:
            return trio.SocketStream(await gate.connect(target, port, math.inf))
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
    """Return what python-socks has to say about a reply, in other words for some."""
    if reason.startswith(_NO_SOCKS):
        return "it does not speak SOCKS"
    if "authentication" not in reason.lower():
        return printable(reason[:100])
    return _about_password(proxy)


def _about_password(proxy: Proxy) -> str:
    if proxy.user or proxy.password:
        return "it refused the user name and the password"
    return "it requires a user name and a password"

"""How to reach a host: straight, or through a proxy.

Theory of operation: `dialer()` returns the function that opens the stream. Through an
HTTP proxy that is a CONNECT, by h11, inside TLS if the proxy has an ``https:`` URL. The
protocols of SOCKS are those of python-socks, an extra, which connects to the proxy by
itself. A proxy that can't be reached is an `OSError`, as the server itself is; one that
says no is a `HandshakeError`. Neither shows the password.
"""

import ipaddress
import math
import os
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote
from urllib.request import getproxies_environment

import attrs
import h11
import trio

from trio_wspair._http.urls import ascii_host
from trio_wspair._rules.display import printable, redacted
from trio_wspair._rules.errors import HandshakeError
from trio_wspair.transports.io._tls import start_tls

from .endpoint import parse_endpoint, split_authority, strip
from .tcp import Progress, look_up, open_tcp, reason_of, unreachable

__all__ = ("Dialer", "dialer", "proxy_from_environment", "proxy_variable")

Dialer = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Opens a stream to a host and port."""

_DEFAULT_PORTS: Final = {
    "http": 80,
    "https": 443,
    "socks4": 1080,
    "socks4a": 1080,
    "socks5": 1080,
    "socks5h": 1080,
}
"""The kinds of proxies."""
_PROXY_URL: Final = re.compile(r"(?P<scheme>[^:/?#]*)://(?P<authority>[^/?#]*)/?")
_MAX_HEAD_BYTES: Final = 2**16
_TOO_LARGE: Final = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
_LASTING_REPLIES: Final = frozenset({2, 7, 8, 0x5C, 0x5D})
"""Replies of SOCKS that will not change: not allowed, a command or a kind of address
that isn't known (RFC 1928, section 6), and two about identd in SOCKS 4."""
_NO_SOCKS: Final = ("Unexpected SOCKS version number", "Unexpected reply version")
"""How python-socks begins to tell of a reply in no version of SOCKS."""
_PROXY_VARIABLES: Final = {
    False: ("ws", "http", "all"),
    True: ("wss", "https", "all"),
}
"""What stands before ``_PROXY``, by whether the URL asks for TLS."""
_NO_PROXY_ENTRY: Final = re.compile(
    r"""(?P<address> [^\[\]:]*:[^\[\]]*:[^\[\]]* )
        | (?: \[ (?P<bracketed> [^\[\]]+ ) \] | (?P<name> [^\[\]:]+ ) )
          (?: : (?P<port> [0-9]+ ) )?""",
    re.VERBOSE,
)


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
        return _dialer_through(_parse_proxy(proxy), progress)

    async def dial_straight(host: str, port: int) -> trio.abc.Stream:
        return await open_tcp(host, port, progress=progress)

    return dial_straight


@attrs.frozen
class _Proxy:
    scheme: str
    host: str
    port: int
    user: str = attrs.field(repr=False)
    password: str = attrs.field(repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _parse_proxy(url: str) -> _Proxy:
    """Return what the URL of a proxy says.

    Raises:
        TypeError: It is no str.
        ValueError: It is not such a URL.
    """
    if not isinstance(url, str):
        what = type(url).__name__
        msg = f"proxy must be a URL such as 'socks5h://host:1080', not {what}"
        raise TypeError(msg)
    try:
        return _parsed_proxy(strip(url))
    except ValueError as exc:
        msg = f'"{redacted(url)[:200]}" is not the URL of a proxy: {exc}'
        raise ValueError(msg) from None


def _parsed_proxy(url: str) -> _Proxy:
    found = _PROXY_URL.fullmatch(url)
    scheme = None if found is None else found["scheme"].lower()
    if found is None or scheme not in _DEFAULT_PORTS:
        schemes = ", ".join(f"{name}://" for name in _DEFAULT_PORTS)
        msg = f"it is like 'http://host:3128', and begins with one of {schemes}"
        raise ValueError(msg)
    parts = split_authority(found["authority"])
    user, password = unquote(parts.user or ""), unquote(parts.password or "")
    if not (user + password).isprintable():
        raise ValueError("its user name and password can't have control characters")
    if scheme.startswith("http"):
        if ":" in user:
            raise ValueError("its user name can't have a colon in it (RFC 7617)")
    elif not (user + password).isascii() or max(len(user), len(password)) > 255:
        msg = "for SOCKS, its user name and password have up to 255 ASCII characters"
        raise ValueError(msg)
    elif scheme.startswith("socks4") and password:
        raise ValueError("SOCKS 4 knows no passwords")
    elif scheme.startswith("socks5") and bool(user) != bool(password):
        raise ValueError("SOCKS 5 takes a user name and a password, or none of both")
    port = _DEFAULT_PORTS[scheme] if parts.port is None else parts.port
    return _Proxy(scheme, parts.host, port, user, password)


def _dialer_through(proxy: _Proxy, progress: Progress) -> Dialer:
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


# -- HTTP (RFC 9110, section 9.3.6) ------------------------------------------------


async def _ask_http_proxy(stream: trio.abc.Stream, proxy: _Proxy, target: str) -> None:
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


def _socks_dialer(proxy: _Proxy, progress: Progress) -> Dialer:
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
            target = str((await look_up(host, port, family=family))[0]).partition("%")[
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
            msg = f"can't reach the proxy {proxy}: {reason_of(error)}"
            raise unreachable(error, msg) from exc

    return dial_through


def _refused_by_socks(proxy: _Proxy, reason: str) -> str:
    """Return what python-socks has to say about a reply, in other words for some."""
    if reason.startswith(_NO_SOCKS):
        return "it does not speak SOCKS"
    if "authentication" not in reason.lower():
        return printable(reason[:100])
    return _about_password(proxy)


def _about_password(proxy: _Proxy) -> str:
    if proxy.user or proxy.password:
        return "it refused the user name and the password"
    return "it requires a user name and a password"


# -- the environment ---------------------------------------------------------------


def proxy_from_environment(url: str) -> str | None:
    """Return the URL of the proxy that the environment names for a URL, or `None`.

    ``WSS_PROXY``, ``HTTPS_PROXY`` and ``ALL_PROXY`` are looked at for ``wss:`` and
    ``https:``; ``WS_PROXY``, ``HTTP_PROXY`` and ``ALL_PROXY`` for ``ws:`` and
    ``http:``. The first that is set counts. Lower case comes before upper case, and
    ``HTTP_PROXY`` is left alone in a CGI program, where a client can set it. A value
    without a scheme is the host of an HTTP proxy.

    ``NO_PROXY`` lists, with commas, the hosts that are reached without one: ``*`` for
    all, a domain with all its subdomains, an address, or a network such as
    ``10.0.0.0/8``; a host and a port mean that port only.

    Args:
        url: An absolute URL. `None` comes back for one that `connect()` refuses.
    """
    found = _found_in_environment(url)
    if found is None:
        return None
    _, proxy = found
    return proxy if "://" in proxy else f"http://{proxy}"


def proxy_variable(url: str) -> str | None:
    """Return the variable that `proxy_from_environment()` has from, or `None`."""
    found = _found_in_environment(url)
    if found is None:
        return None
    name = f"{found[0]}_proxy"
    return name if os.environ.get(name) else name.upper()


def _found_in_environment(url: str) -> tuple[str, str] | None:
    """Return what stands before ``_PROXY``, and the value."""
    try:
        endpoint = parse_endpoint(url)  # As connect() does: no other host is meant.
    except ValueError:
        return None
    proxies: dict[str, str] = getproxies_environment()
    if any(
        _is_covered(endpoint.host, endpoint.port, entry.strip().lower())
        for entry in proxies.get("no", "").split(",")
    ):
        return None
    names = _PROXY_VARIABLES[endpoint.secure]
    return next(((name, proxies[name]) for name in names if proxies.get(name)), None)


def _is_covered(host: str, port: int, entry: str) -> bool:
    """Return whether an entry of ``NO_PROXY`` means this host and port."""
    if entry == "*":
        return True
    found = _NO_PROXY_ENTRY.fullmatch(entry)
    if found is None or found["port"] not in (None, str(port)):
        return False
    host = host.rstrip(".").partition("%")[0]
    name: str = found["address"] or found["bracketed"] or found["name"]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = name.removeprefix("*").strip(".")
        if not name.isascii():
            with suppress(ValueError):
                name = ascii_host(name)
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return address in ipaddress.ip_network(name, strict=False)
    except ValueError:
        return False

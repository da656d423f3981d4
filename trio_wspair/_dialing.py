"""How to reach a host: straight, or through a proxy.

Knows TCP, and python-socks when there is a proxy; no TLS and no WebSockets.
"""

import ipaddress
import re
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

import trio

from ._errors import HandshakeError

__all__ = ("Dialer", "dialer", "proxy_from_environment")

_PROXY_VARIABLES: Final = {
    "ws": (80, ("ws", "http", "all")),
    "http": (80, ("ws", "http", "all")),
    "wss": (443, ("wss", "https", "all")),
    "https": (443, ("wss", "https", "all")),
}
"""By the scheme of the URL: its default port, and what stands before ``_PROXY``."""
_NO_PROXY_ENTRY: Final = re.compile(
    r"""(?P<address> [^\[\]:]*:[^\[\]]*:[^\[\]]* )
        | (?: \[ (?P<bracketed> [^\[\]]+ ) \] | (?P<name> [^\[\]:]+ ) )
          (?: : (?P<port> [0-9]+ ) )?""",
    re.VERBOSE,
)

Dialer = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Opens a stream to a host and port."""


def dialer(proxy: str | None, dial: Dialer | None) -> Dialer:
    """Return how to reach a host.

    Args:
        proxy: The URL of a proxy, or `None`.
        dial: How else, if not by TCP.

    Raises:
        TypeError: `proxy` is no str, or `dial` no function, or both are given.
        ValueError: It is not the URL of a proxy.
        ImportError: python-socks is not installed.
    """
    if dial is not None and (proxy is not None or not callable(dial)):
        msg = "dial is an async function of a host and a port, instead of a proxy"
        raise TypeError(msg)
    if proxy is None:
        return dial or trio.open_tcp_stream
    if not isinstance(proxy, str):
        msg = f"proxy must be a URL such as 'socks5://host:1080', not {proxy!r}"
        raise TypeError(msg)
    try:
        from python_socks import ProxyError  # noqa: PLC0415 - an extra
        from python_socks.async_.trio import Proxy  # noqa: PLC0415
    except ImportError as exc:
        msg = "a proxy needs python-socks: pip install 'trio-wspair[proxy]'"
        raise ImportError(msg) from exc
    try:
        gate = Proxy.from_url(proxy)
    except ValueError as exc:
        msg = f"{proxy!r} is not the URL of a proxy: {exc}"
        raise ValueError(msg) from None

    async def dial_through(host: str, port: int) -> trio.SocketStream:
        try:
            return trio.SocketStream(await gate.connect(host, port))
        except ProxyError as exc:
            msg = f"the proxy does not connect to {host}:{port}: {exc}"
            raise HandshakeError(msg) from exc

    return dial_through


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
    try:
        parts = urlsplit(url)
        default_port, names = _PROXY_VARIABLES[parts.scheme]
        host, port = parts.hostname or "", parts.port or default_port
    except (KeyError, ValueError):
        return None
    proxies: dict[str, str] = getproxies_environment()
    if any(
        _is_covered(host, port, entry.strip().lower())
        for entry in proxies.get("no", "").split(",")
    ):
        return None
    proxy = next((proxies[name] for name in names if proxies.get(name)), None)
    return f"http://{proxy}" if proxy is not None and "://" not in proxy else proxy


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
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return address in ipaddress.ip_network(name, strict=False)
    except ValueError:
        return False

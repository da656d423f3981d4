"""How to reach a host: straight, or through a proxy.

Knows TCP, and python-socks when there is a proxy; no TLS and no WebSockets.
"""

from collections.abc import Awaitable, Callable

import trio

from ._errors import HandshakeError

__all__ = ("Dialer", "dialer")

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

"""Whose page is asking: the check against cross-site WebSocket hijacking.

Knows requests and origins (RFC 6454), nothing else.
"""

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from ._http import Request

__all__ = ("same_origin",)

_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}


def same_origin(request: Request, *, allow: Iterable[str] = ()) -> bool:
    """Return whether no page of another site has made this request.

    Browsers let any page open a WebSocket to any server, and send the user's cookies
    along. They say which page it is in the header ``Origin``, and a server has to look
    (RFC 6455, section 10.2)::

        if not same_origin(request):
            return Response("not from that page", status=403)

    A request without an ``Origin`` comes from no page, but from a program, which could
    say what it likes. Behind a proxy that changes the ``Host``, call `serve()` with
    `proxy_headers`, or list your own origin.

    Args:
        request: The request.
        allow: More origins, such as ``"https://app.example.com"``.

    Raises:
        ValueError: One of `allow` is no origin.
    """
    more = {_origin(origin) for origin in allow}
    if None in more:
        msg = (
            f"an origin is a scheme, a host and maybe a port, but not all of {allow!r}"
        )
        raise ValueError(msg)
    said = request.headers.get("origin")
    if said is None:
        return True
    origin = _origin(said)
    return origin is not None and (origin == _origin(request.url) or origin in more)


def _origin(url: str) -> tuple[bool, str, int] | None:
    """Return what has to be equal: whether there is TLS, the host and the port."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname:
        return None
    secure = parts.scheme in ("https", "wss")
    return secure, parts.hostname, port or _PORTS[parts.scheme]

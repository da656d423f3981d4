"""`same_origin()`: the check against cross-site WebSocket hijacking.

Knows requests and origins only (RFC 6454; WHATWG HTML, section 7.1.1).
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import attrs

from trio_wspair._rules.display import quoted

from .hosts import Authority, ascii_host, parse_authority
from .messages import Request
from .urls import DEFAULT_PORTS

__all__ = ("same_origin",)

_ORIGIN: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#\\*\s]*)")
_HTTP: Final = {"ws": "http", "wss": "https"}
_OPAQUE: Final = ("null", "file://")
"""Origins without a host. Sandboxed pages and many others have ``null``."""


@attrs.frozen
class _Origin:
    scheme: str
    host: str
    port: int | None
    subdomains: bool = False
    """Whether this stands for all subdomains of the host, without the host itself."""

    def includes(self, other: "_Origin") -> bool:
        if not self.subdomains:
            return self == other
        name, dot, host = other.host.rpartition(f".{self.host}")
        same = (self.scheme, self.port) == (other.scheme, other.port)
        return same and name != "" and dot != "" and host == ""


def same_origin(request: Request, *, allow: Iterable[str] = ()) -> bool:
    """Return whether this request comes from a page of its own site, or from no page.

    A browser lets any page open a WebSocket to any server, and sends the user's cookies
    with the request. The header ``Origin`` says which page it is. The server has to
    check it (RFC 6455, section 10.2)::

        if not same_origin(request):
            return Response("not from that page", status=403)

    A request without an ``Origin`` comes from a program other than a browser, which
    could send any ``Origin``; it is accepted. The scheme, the host and the port of the
    ``Origin`` have to be those of the request's URL; case, the default port of the
    scheme, and the form of a host beyond ASCII make no difference. An ``Origin`` that
    is not valid, or comes twice, is refused. Behind a proxy that changes ``Host``, call
    `serve()` with `proxy_headers`, or list your own origin in `allow`.

    Args:
        request: The request.
        allow: More origins, of any scheme: ``"https://app.example.com"``,
            ``"capacitor://localhost"``, ``"chrome-extension://id"``. With
            ``"https://*.example.com"`` all subdomains are allowed, at any depth, but
            not ``example.com`` itself. ``"null"`` allows pages without an origin:
            sandboxed pages of any site, and in most browsers pages from files; other
            browsers send ``"file://"`` for pages from files.

    Raises:
        TypeError: `allow` is not a list of str.
        ValueError: `allow` contains a str that is not an origin.
    """
    if isinstance(allow, str):
        msg = f"allow must be a list of origins, such as allow=[{allow!r}]"
        raise TypeError(msg)
    more = [_allowed(_checked_str(text)) for text in allow]
    origins = request.headers.get_all("origin")
    if not origins:
        return True
    if len(origins) > 1:
        return False
    if origins[0] in _OPAQUE:
        return origins[0] in more
    try:
        origin = _parse(origins[0])
    except ValueError:
        return False
    return origin == _origin_of(request) or any(
        isinstance(allowed, _Origin) and allowed.includes(origin) for allowed in more
    )


def _checked_str(text: object) -> str:
    if not isinstance(text, str):
        msg = f"an origin in allow must be a str, not {type(text).__name__}"
        raise TypeError(msg)
    return text


def _origin_of(request: Request) -> _Origin | None:
    url = request._url
    try:
        return _origin(url.scheme, url.authority)
    except ValueError:  # RFC 3986 allows more hosts than browsers accept.
        return None


@lru_cache(maxsize=256)
def _allowed(text: str) -> _Origin | str:
    """Return an origin of `allow`.

    Raises:
        ValueError: The text is not an origin.
    """
    if text in _OPAQUE:
        return text
    scheme, separator, host = text.partition("://*.")
    try:
        if not separator or host[:1] in ("", ".", ":"):
            return _parse(text)
        # An IP address has no subdomains, so this refuses one.
        below = _parse(f"{scheme}://x.{host}")
    except ValueError as exc:
        msg = (
            f"{quoted(text)} is not an origin: a scheme, a host and perhaps a port, "
            "such as 'https://app.example.com', "
            "'https://*.example.com', 'http://localhost:8000', 'app://x', "
            f"'file://' or 'null' ({exc})"
        )
        raise ValueError(msg) from exc
    return attrs.evolve(below, host=below.host.removeprefix("x."), subdomains=True)


def _parse(text: str) -> _Origin:
    """Return the origin that a text stands for.

    Raises:
        ValueError: The text is not an origin.
    """
    found = _ORIGIN.fullmatch(text)
    if found is None:
        msg = "it does not have the form scheme://host or scheme://host:port"
        raise ValueError(msg)
    scheme, host = found[1].lower(), found[2]
    if not host.isascii():  # As programs may write it; browsers send A-labels.
        name, colon, port = host.partition(":")
        host = f"{ascii_host(name)}{colon}{port}"
    return _origin(_HTTP.get(scheme, scheme), parse_authority(host))


def _origin(scheme: str, authority: Authority) -> _Origin:
    """Return an origin whose parts can be compared.

    Raises:
        ValueError: Browsers do not accept the host.
    """
    default = DEFAULT_PORTS.get(scheme)
    port = None if authority.port == default else authority.port
    host = authority.host if default is None else ascii_host(authority.host)
    return _Origin(scheme, host, port)

"""Whose page is asking: the check against cross-site WebSocket hijacking.

Knows requests and origins (RFC 6454; WHATWG HTML, section 7.1.1), nothing else.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import attrs

from trio_wspair._rules.display import printable

from .hosts import Authority, ascii_host, parse_authority
from .messages import Request
from .urls import DEFAULT_PORTS

__all__ = ("same_origin",)

_ORIGIN: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#\\*\s]*)")
_HTTP: Final = {"ws": "http", "wss": "https"}
_OPAQUE: Final = ("null", "file://")
"""Origins that have no host. ``null`` is that of sandboxed pages and many others."""


@attrs.frozen
class _Origin:
    scheme: str
    host: str
    port: int | None
    subdomains: bool = False
    """Any host below this one is meant, not the host itself."""

    def includes(self, other: "_Origin") -> bool:
        if not self.subdomains:
            return self == other
        name, dot, host = other.host.rpartition(f".{self.host}")
        same = (self.scheme, self.port) == (other.scheme, other.port)
        return same and name != "" and dot != "" and host == ""


def same_origin(request: Request, *, allow: Iterable[str] = ()) -> bool:
    """Return whether no page of another site has made this request.

    Browsers let any page open a WebSocket to any server, and send the user's cookies
    along. They say which page it is in the header ``Origin``, and a server has to look
    (RFC 6455, section 10.2)::

        if not same_origin(request):
            return Response("not from that page", status=403)

    A request without an ``Origin`` comes from no page, but from a program, which could
    say what it likes. Behind a proxy that changes the ``Host``, call `serve()` with
    `proxy_headers`, or list your own origin. Scheme, host and port have to be equal;
    case, a port that is the scheme's default, and the form of a host beyond ASCII make
    no difference. An ``Origin`` that comes twice, or can't be read, is refused.

    Args:
        request: The request.
        allow: More origins, of any scheme: ``"https://app.example.com"``,
            ``"capacitor://localhost"``, ``"chrome-extension://id"``. With
            ``"https://*.example.com"`` all subdomains are allowed, at any depth, but
            not ``example.com`` itself. ``"null"`` allows pages that have no origin:
            sandboxed ones of anybody, and in most browsers those from files; other
            browsers send ``"file://"`` for the latter.

    Raises:
        TypeError: `allow` is not a list of str.
        ValueError: One of `allow` is no origin.
    """
    if isinstance(allow, str):
        msg = f"allow is a list of origins: allow=[{allow!r}]"
        raise TypeError(msg)
    more = [_allowed(_checked_str(text)) for text in allow]
    said = request.headers.get_all("origin")
    if not said:
        return True
    if len(said) > 1:
        return False
    if said[0] in _OPAQUE:
        return said[0] in more
    try:
        origin = _parse(said[0])
    except ValueError:
        return False
    return origin == _origin_of(request) or any(
        isinstance(allowed, _Origin) and allowed.includes(origin) for allowed in more
    )


def _checked_str(text: object) -> str:
    if not isinstance(text, str):
        msg = f"an origin in allow is a str, not {type(text).__name__}"
        raise TypeError(msg)
    return text


def _origin_of(request: Request) -> _Origin | None:
    url = request._url
    try:
        return _origin(url.scheme, url.authority)
    except ValueError:  # RFC 3986 knows more hosts than browsers do.
        return None


@lru_cache(maxsize=256)
def _allowed(text: str) -> _Origin | str:
    """Return an origin of `allow`.

    Raises:
        ValueError: It is none.
    """
    if text in _OPAQUE:
        return text
    scheme, separator, host = text.partition("://*.")
    try:
        if not separator or host[:1] in ("", ".", ":"):
            return _parse(text)
        # A subdomain of an IP address is none, so that this is an error, too.
        below = _parse(f"{scheme}://x.{host}")
    except ValueError as exc:
        msg = (
            f'"{printable(text)}" is not an origin: that is a scheme, a host and maybe '
            "a port, with nothing behind, such as 'https://app.example.com', "
            "'https://*.example.com', 'http://localhost:8000', 'app://x', "
            f"'file://' or 'null' ({exc})"
        )
        raise ValueError(msg) from exc
    return attrs.evolve(below, host=below.host.removeprefix("x."), subdomains=True)


def _parse(text: str) -> _Origin:
    """Return the origin that is written so.

    Raises:
        ValueError: It is none.
    """
    found = _ORIGIN.fullmatch(text)
    if found is None:
        msg = "it does not have the form scheme://host or scheme://host:port"
        raise ValueError(msg)
    scheme, host = found[1].lower(), found[2]
    if not host.isascii():  # As a program may write it; browsers send A-labels.
        name, colon, port = host.partition(":")
        host = f"{ascii_host(name)}{colon}{port}"
    return _origin(_HTTP.get(scheme, scheme), parse_authority(host))


def _origin(scheme: str, authority: Authority) -> _Origin:
    """Return an origin whose parts can be compared.

    Raises:
        ValueError: No browser takes the host.
    """
    default = DEFAULT_PORTS.get(scheme)
    port = None if authority.port == default else authority.port
    host = authority.host if default is None else ascii_host(authority.host)
    return _Origin(scheme, host, port)

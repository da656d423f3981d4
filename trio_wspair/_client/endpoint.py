"""Where a client connects: URLs of WebSockets and of proxies, parsed and checked.

`parse_endpoint()` is the part of WHATWG's URL parser that URLs with a host need, with
the rules of ``new WebSocket()``. It also accepts what programs may need and browsers
refuse: userinfo, and the zone of an IPv6 address. `proxy_from_environment()` chooses
the proxy for a URL. No error and no `repr()` shows userinfo, or a value of the query.
Knows text and environment variables only, no network.
"""

import ipaddress
import os
import re
from base64 import b64encode
from contextlib import suppress
from typing import Final
from urllib.parse import unquote, unquote_to_bytes
from urllib.request import getproxies_environment

import attrs

from trio_wspair._http.hosts import Authority, ascii_host
from trio_wspair._http.urls import DEFAULT_PORTS
from trio_wspair._rules.display import redacted

__all__ = (
    "Endpoint",
    "Proxy",
    "parse_endpoint",
    "parse_proxy",
    "proxy_from_environment",
    "proxy_variable",
)

_SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_SHOWN: Final = 200
"""The characters of a URL that an error shows at most."""
_CONTROLS_AND_SPACE: Final = "".join(map(chr, range(0x21)))
_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):[/\\]{2}(?P<authority>[^/\\?]*)"
    r"(?P<path>[^?]*)\??(?P<query>.*)",
    re.DOTALL,
)
_AUTHORITY: Final = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:]*)(?::(?P<port>.*))?")
_NOT_IN_A_PATH: Final = re.compile(r'[^!-~]|["<>^`{}]')
"""WHATWG's path percent-encode set, without ``?`` and ``#``, which end the path."""
_NOT_IN_A_QUERY: Final = re.compile(r"""[^!-~]|["'<>]""")
"""WHATWG's special-query percent-encode set."""
_PROXY_PORTS: Final = {
    "http": 80,
    "https": 443,
    "socks4": 1080,
    "socks4a": 1080,
    "socks5": 1080,
    "socks5h": 1080,
}
"""The schemes of proxies, with their default ports."""
_PROXY_URL: Final = re.compile(r"(?P<scheme>[^:/?#]*)://(?P<authority>[^/?#]*)/?")
_PROXY_VARIABLES: Final = {
    False: ("ws", "http", "all"),
    True: ("wss", "https", "all"),
}
"""The variables without their ending ``_PROXY``, by whether the URL is with TLS."""
_NO_PROXY_ENTRY: Final = re.compile(
    r"""(?P<address> [^\[\]:]*:[^\[\]]*:[^\[\]]* )
        | (?: \[ (?P<bracketed> [^\[\]]+ ) \] | (?P<name> [^\[\]:]+ ) )
          (?: : (?P<port> [0-9]+ ) )?""",
    re.VERBOSE,
)


@attrs.frozen
class _SplitAuthority:
    """The parts of an authority."""

    user: str | None = attrs.field(repr=False)
    """Percent-encoded, as in the URL; `None` without userinfo."""
    password: str | None = attrs.field(repr=False)
    """Percent-encoded as well; `None` if the userinfo has no colon."""
    host: str
    """In ASCII; an IPv6 address without brackets, and with its zone after ``%``."""
    port: int | None


@attrs.frozen
class Endpoint:
    """The URL of a WebSocket, parsed: the server, and the parts of the request."""

    host: str
    """The name or address to connect to: in ASCII, with a trailing dot if the URL has
    one. An IPv6 address is without brackets, and with its zone after ``%``."""
    port: int
    host_header: str
    """The value of `Host`: without the default port, and without the zone, which only
    this machine understands."""
    server_name: str
    """The name for SNI and in the certificate: `host` without the zone, and without the
    trailing dot (RFC 6066, section 3)."""
    resource: str = attrs.field(repr=False)
    """Path and query, percent-encoded (RFC 6455, section 3)."""
    secure: bool
    authorization: str | None = attrs.field(repr=False)
    """The value of `Authorization`, from the userinfo (RFC 7617), or `None`."""
    url: str = attrs.field(repr=redacted)
    """The whole URL, with ``ws:`` or ``wss:``, and without userinfo."""


def parse_endpoint(url: str) -> Endpoint:
    r"""Parse the URL of a WebSocket, as ``new WebSocket(url)`` does.

    ``http:`` means ``ws:``, and ``https:`` means ``wss:``. Spaces and control
    characters around the URL are removed, and tabs and line breaks within it. Dot
    segments of the path are resolved; path and query are percent-encoded where
    necessary. A ``\`` before the query is a ``/``. A fragment, even an empty one, is
    refused.

    Raises:
        ValueError: It is not the URL of a WebSocket.
    """
    try:
        return _parsed(_strip(url))
    except ValueError as exc:
        shown = redacted(url)
        end = "..." if len(shown) > _SHOWN else ""
        msg = f'"{shown[:_SHOWN]}{end}" is not the URL of a WebSocket: {exc}'
        raise ValueError(msg) from None


def _parsed(url: str) -> Endpoint:
    if any("\ud800" <= character <= "\udfff" for character in url):
        raise ValueError("it contains a lone surrogate: use valid Unicode")
    found = _URL.fullmatch(url)
    scheme = None if found is None else _SCHEMES.get(found["scheme"].lower())
    if found is None or scheme is None:
        raise ValueError("it must begin with ws://, wss://, http:// or https://")
    if "#" in url:
        raise ValueError("it has a fragment: remove '#' and what follows, or write %23")
    # With a '/' in an unquoted password, the authority would end inside of it.
    is_host = "@" not in found["path"] + found["query"]
    parts = _split_authority(found["authority"], show=is_host)
    address = parts.host.partition("%")[0]
    port = DEFAULT_PORTS[scheme] if parts.port is None else parts.port
    shown_port = None if port == DEFAULT_PORTS[scheme] else port
    path = _path(found["path"])
    query = _encoded(_NOT_IN_A_QUERY, found["query"])
    resource = f"{path}?{query}" if query else path
    return Endpoint(
        host=parts.host,
        port=port,
        host_header=str(Authority(address, shown_port)),
        server_name=address.removesuffix("."),
        resource=resource,
        secure=scheme == "wss",
        authorization=_basic(parts.user, parts.password),
        url=f"{scheme}://{Authority(parts.host, shown_port)}{resource}",
    )


def _strip(url: str) -> str:
    """Remove what WHATWG's URL parser removes first.

    That is spaces and control characters around a URL, and tabs and line breaks in it.
    """
    return re.sub(r"[\t\r\n]", "", url.strip(_CONTROLS_AND_SPACE))


def _split_authority(authority: str, *, show: bool = True) -> _SplitAuthority:
    """Split ``user:password@host:port``.

    Args:
        authority: The text between ``//`` and the path.
        show: Whether an error may show the host, which could be the beginning of a
            password that contains a ``/``.

    Raises:
        ValueError: A part of it is not valid.
    """
    userinfo, at, host_and_port = authority.rpartition("@")
    user, colon, password = userinfo.partition(":")
    found = _AUTHORITY.fullmatch(host_and_port)
    if found is None or ":" in (found["port"] or ""):
        raise ValueError("its host is not valid; put an IPv6 address in brackets")
    if not found["host"]:
        raise ValueError("it has no host")
    port = found["port"]
    if port and not (re.fullmatch("0*[0-9]{1,5}", port) and 0 < int(port) < 2**16):
        raise ValueError("its port must be a number from 1 to 65535")
    try:
        host = _checked_name(ascii_host(found["host"]))
    except ValueError as exc:
        raise ValueError(str(exc) if show else "its host is not valid") from None
    return _SplitAuthority(
        user if at else None,
        password if colon else None,
        host,
        int(port) if port else None,
    )


def _checked_name(host: str) -> str:
    """Check the lengths that DNS allows in a name (RFC 1035, section 2.3.4)."""
    labels = host.removesuffix(".").split(".")
    if ":" not in host and (
        len(host.removesuffix(".")) > 253 or not all(0 < len(x) < 64 for x in labels)
    ):
        msg = "its host must have at most 253 characters, with 1 to 63 between two dots"
        raise ValueError(msg)
    return host


def _basic(user: str | None, password: str | None) -> str | None:
    """Return the value of `Authorization` for userinfo (RFC 7617)."""
    if not user and not password:
        return None
    name, secret = unquote_to_bytes(user or ""), unquote_to_bytes(password or "")
    if b":" in name:
        raise ValueError("its user name can't contain a colon (RFC 7617, section 2)")
    if any(byte < 0x20 or byte == 0x7F for byte in name + secret):
        raise ValueError("its user name and password can't contain control characters")
    return f"Basic {b64encode(name + b':' + secret).decode('ascii')}"


def _path(text: str) -> str:
    """Return a path with its dot segments resolved, percent-encoded."""
    segments: list[str] = []
    dots = ""
    for segment in text.replace("\\", "/").split("/")[1:] or [""]:
        dots = re.sub("(?i)%2e", ".", segment)
        if dots == "..":
            del segments[-1:]
        elif dots != ".":
            segments.append(_encoded(_NOT_IN_A_PATH, segment))
    if dots in (".", ".."):  # The last one stands for a directory.
        segments.append("")
    return "/" + "/".join(segments)


def _encoded(pattern: re.Pattern[str], text: str) -> str:
    return pattern.sub(
        lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), text
    )


# -- proxies -------------------------------------------------------------------------


@attrs.frozen
class Proxy:
    """The URL of a proxy, parsed."""

    scheme: str
    host: str
    port: int
    user: str = attrs.field(repr=False)
    password: str = attrs.field(repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_proxy(url: str) -> Proxy:
    """Parse the URL of a proxy.

    Raises:
        TypeError: It is not a str.
        ValueError: It is not the URL of a proxy.
    """
    if not isinstance(url, str):
        what = type(url).__name__
        msg = f"proxy must be a URL such as 'socks5h://host:1080', not {what}"
        raise TypeError(msg)
    try:
        return _parsed_proxy(_strip(url))
    except ValueError as exc:
        msg = f'"{redacted(url)[:200]}" is not the URL of a proxy: {exc}'
        raise ValueError(msg) from None


def _parsed_proxy(url: str) -> Proxy:
    found = _PROXY_URL.fullmatch(url)
    scheme = None if found is None else found["scheme"].lower()
    if found is None or scheme not in _PROXY_PORTS:
        schemes = ", ".join(f"{name}://" for name in _PROXY_PORTS)
        msg = f"it must be like 'http://host:3128', and begin with one of {schemes}"
        raise ValueError(msg)
    parts = _split_authority(found["authority"])
    user, password = unquote(parts.user or ""), unquote(parts.password or "")
    if not (user + password).isprintable():
        raise ValueError("its user name and password can't contain control characters")
    if scheme.startswith("http"):
        if ":" in user:
            raise ValueError(
                "its user name can't contain a colon (RFC 7617, section 2)"
            )
    elif not (user + password).isascii() or max(len(user), len(password)) > 255:
        msg = "for SOCKS, its user name and password can have 255 ASCII characters each"
        raise ValueError(msg)
    elif scheme.startswith("socks4") and password:
        raise ValueError("it has a password, which SOCKS 4 doesn't support")
    elif scheme.startswith("socks5") and bool(user) != bool(password):
        raise ValueError("SOCKS 5 needs both a user name and a password, or neither")
    port = _PROXY_PORTS[scheme] if parts.port is None else parts.port
    return Proxy(scheme, parts.host, port, user, password)


def proxy_from_environment(url: str) -> str | None:
    """Return the URL of the proxy that the environment sets for a URL, or `None`.

    The first variable that is set counts: of ``WSS_PROXY``, ``HTTPS_PROXY`` and
    ``ALL_PROXY`` for ``wss:`` and ``https:``, of ``WS_PROXY``, ``HTTP_PROXY`` and
    ``ALL_PROXY`` for ``ws:`` and ``http:``. Lower case comes before upper case.
    ``HTTP_PROXY`` is ignored in a CGI program, where a client can set it. A value
    without a scheme is the host of an HTTP proxy.

    ``NO_PROXY`` lists the hosts that need no proxy, separated by commas: ``*`` for all,
    a domain with its subdomains, an address, or a network such as ``10.0.0.0/8``. An
    entry with a port is for that port only.

    Args:
        url: An absolute URL. The result is `None` for one that `connect()` refuses.
    """
    found = _found_in_environment(url)
    if found is None:
        return None
    _, proxy = found
    return proxy if "://" in proxy else f"http://{proxy}"


def proxy_variable(url: str) -> str | None:
    """Return the variable that `proxy_from_environment()` uses, or `None`."""
    found = _found_in_environment(url)
    if found is None:
        return None
    name = f"{found[0]}_proxy"
    return name if os.environ.get(name) else name.upper()


def _found_in_environment(url: str) -> tuple[str, str] | None:
    """Return the variable without its ending ``_PROXY``, and its value."""
    try:
        endpoint = parse_endpoint(
            url
        )  # With the parser of connect(), so that the host is the same.
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
    """Return whether an entry of ``NO_PROXY`` covers this host and port."""
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

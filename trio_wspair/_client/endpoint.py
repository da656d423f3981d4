"""`Endpoint`: what the URL of a WebSocket says, taken apart as browsers do.

Knows text only. `parse_endpoint()` is the part of WHATWG's URL parser that URLs with a
host need, and what `new WebSocket()` asks of them. What browsers refuse and a program
may want is taken as well: userinfo, and the zone of an IPv6 address. No error and no
`repr()` here shows userinfo, or a value of the query.
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

from trio_wspair._http.urls import DEFAULT_PORTS, Authority, ascii_host
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
"""How much of a URL is shown in an error."""
_CONTROLS_AND_SPACE: Final = "".join(map(chr, range(0x21)))
_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):[/\\]{2}(?P<authority>[^/\\?]*)"
    r"(?P<path>[^?]*)\??(?P<query>.*)",
    re.DOTALL,
)
_AUTHORITY: Final = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:]*)(?::(?P<port>.*))?")
_NOT_IN_A_PATH: Final = re.compile(r'[^!-~]|["<>^`{}]')
"""WHATWG's path percent-encode set; ``?`` and ``#`` don't get here."""
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
"""The kinds of proxies, with their default ports."""
_PROXY_URL: Final = re.compile(r"(?P<scheme>[^:/?#]*)://(?P<authority>[^/?#]*)/?")
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


@attrs.frozen
class _SplitAuthority:
    """The parts of an authority; none of them is shown by an error."""

    user: str | None = attrs.field(repr=False)
    """Percent-encoded, as in the URL; `None` if there is no userinfo."""
    password: str | None = attrs.field(repr=False)
    """The same; `None` if there is no colon in the userinfo."""
    host: str
    """In ASCII; an IPv6 address without brackets, and with its zone after ``%``."""
    port: int | None


@attrs.frozen
class Endpoint:
    """Where a WebSocket is, and what the request for it says."""

    host: str
    """To be looked up and dialled: in ASCII, with a trailing dot if it has one. An IPv6
    address is without brackets, and with its zone after ``%``."""
    port: int
    host_header: str
    """Without the default port; and without the zone, which is about this machine."""
    server_name: str
    """What the certificate has to be for, and what SNI says: as `host`, but without
    the trailing dot (RFC 6066, section 3) and the zone."""
    resource: str = attrs.field(repr=False)
    """Path and query, percent-encoded (RFC 6455, section 3)."""
    secure: bool
    authorization: str | None = attrs.field(repr=False)
    """The header that the userinfo stands for (RFC 7617)."""
    url: str = attrs.field(repr=redacted)
    """The whole, with ``ws:`` or ``wss:``, and without userinfo."""


def parse_endpoint(url: str) -> Endpoint:
    r"""Take the URL of a WebSocket apart, as ``new WebSocket(url)`` does.

    ``http:`` means ``ws:``, and ``https:`` means ``wss:``. Spaces and control
    characters around the URL go, tabs and line breaks within it, too. The path loses
    its dot segments; it and the query are percent-encoded where they have to be. A
    ``\`` before the query is a ``/``. A fragment is refused, an empty one, too.

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
        raise ValueError("it has a lone surrogate, which is not a character")
    found = _URL.fullmatch(url)
    scheme = None if found is None else _SCHEMES.get(found["scheme"].lower())
    if found is None or scheme is None:
        raise ValueError("it has to begin with ws://, wss://, http:// or https://")
    if "#" in url:
        raise ValueError("it can't have a fragment, which begins with '#'")
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
    """Return a URL without what WHATWG's parser takes away before it begins.

    Spaces and control characters around it, tabs and line breaks anywhere.
    """
    return re.sub(r"[\t\r\n]", "", url.strip(_CONTROLS_AND_SPACE))


def _split_authority(authority: str, *, show: bool = True) -> _SplitAuthority:
    """Split ``user:password@host:port``.

    Args:
        authority: What stands between ``//`` and the path.
        show: Whether an error may show the host. Not if it may be the beginning of a
            password that has a ``/`` in it.

    Raises:
        ValueError: A part of it can't be used.
    """
    userinfo, at, host_and_port = authority.rpartition("@")
    user, colon, password = userinfo.partition(":")
    found = _AUTHORITY.fullmatch(host_and_port)
    if found is None or ":" in (found["port"] or ""):
        raise ValueError("it has no valid host; an IPv6 address is put in brackets")
    if not found["host"]:
        raise ValueError("it has no host")
    port = found["port"]
    if port and not (re.fullmatch("0*[0-9]{1,5}", port) and 0 < int(port) < 2**16):
        raise ValueError("its port has to be a number from 1 to 65535")
    try:
        host = _checked_name(ascii_host(found["host"]))
    except ValueError as exc:
        raise ValueError(str(exc) if show else "it has no valid host") from None
    return _SplitAuthority(
        user if at else None,
        password if colon else None,
        host,
        int(port) if port else None,
    )


def _checked_name(host: str) -> str:
    """Check that DNS can be asked for a name (RFC 1035, section 2.3.4)."""
    labels = host.removesuffix(".").split(".")
    if ":" not in host and (
        len(host.removesuffix(".")) > 253 or not all(0 < len(x) < 64 for x in labels)
    ):
        msg = "its host is longer than 253, or a label of it is empty or longer than 63"
        raise ValueError(msg)
    return host


def _basic(user: str | None, password: str | None) -> str | None:
    """Return the value of `Authorization` for userinfo (RFC 7617)."""
    if not user and not password:
        return None
    name, secret = unquote_to_bytes(user or ""), unquote_to_bytes(password or "")
    if b":" in name:
        raise ValueError("its user name can't have a colon in it (RFC 7617, section 2)")
    if any(byte < 0x20 or byte == 0x7F for byte in name + secret):
        raise ValueError("its user name and password can't have control characters")
    return f"Basic {b64encode(name + b':' + secret).decode('ascii')}"


def _path(text: str) -> str:
    """Return a path without dot segments, percent-encoded."""
    segments: list[str] = []
    dots = ""
    for segment in text.replace("\\", "/").split("/")[1:] or [""]:
        dots = re.sub("(?i)%2e", ".", segment)
        if dots == "..":
            del segments[-1:]
        elif dots != ".":
            segments.append(_encoded(_NOT_IN_A_PATH, segment))
    if dots in (".", ".."):  # At the end they stand for a directory.
        segments.append("")
    return "/" + "/".join(segments)


def _encoded(pattern: re.Pattern[str], text: str) -> str:
    return pattern.sub(
        lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), text
    )


# -- proxies -------------------------------------------------------------------------


@attrs.frozen
class Proxy:
    scheme: str
    host: str
    port: int
    user: str = attrs.field(repr=False)
    password: str = attrs.field(repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_proxy(url: str) -> Proxy:
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
        return _parsed_proxy(_strip(url))
    except ValueError as exc:
        msg = f'"{redacted(url)[:200]}" is not the URL of a proxy: {exc}'
        raise ValueError(msg) from None


def _parsed_proxy(url: str) -> Proxy:
    found = _PROXY_URL.fullmatch(url)
    scheme = None if found is None else found["scheme"].lower()
    if found is None or scheme not in _PROXY_PORTS:
        schemes = ", ".join(f"{name}://" for name in _PROXY_PORTS)
        msg = f"it is like 'http://host:3128', and begins with one of {schemes}"
        raise ValueError(msg)
    parts = _split_authority(found["authority"])
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
    port = _PROXY_PORTS[scheme] if parts.port is None else parts.port
    return Proxy(scheme, parts.host, port, user, password)


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

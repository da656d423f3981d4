"""What proxies say of the request that they pass on: its client, and its URL.

Knows ``X-Forwarded-For``, ``-Proto``, ``-Host`` and ``-Port``, and ``Forwarded`` (RFC
7239); no I/O. A client can send all of these itself. So only one kind is looked at,
the one that the proxy is known to set, and of that only what the proxies said that are
known to be there: each adds its own at the end.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Final, Literal

import attrs

from trio_wspair._rules.display import printable

from .headers import Headers, comma_list
from .hosts import Authority, parse_authority
from .urls import DEFAULT_PORTS, http_scheme

__all__ = (
    "Forwarded",
    "ProxyHeaders",
    "checked_proxy_headers",
    "forwarded_by",
    "node_address",
)

ProxyHeaders = bool | Literal["forwarded"]
"""Which kind is believed: none, ``X-Forwarded-*`` (`True`), or ``Forwarded``."""

_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR: Final = re.compile(
    rf"""[ \t]* (?P<name>{_NAME}) =
         (?: (?P<token>{_NAME}) | "(?P<quoted>(?: [^"\\] | \\. )*)" )
         [ \t]* (?P<end> [;,] | $ )""",
    re.VERBOSE,
)
_BETWEEN: Final = re.compile(r"[ \t]*([;,]|$)")
_V4_NODE: Final = re.compile(r"([0-9.]+)(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?")
_V6_NODE: Final = re.compile(r"\[([^\[\]]*)\](?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?")


@attrs.frozen
class Forwarded:
    """What is believed; `None` is what was not said."""

    client: str | None = None
    """The address of the client, without a port."""
    scheme: str | None = None
    """``"http"`` or ``"https"``."""
    authority: Authority | None = None
    port: int | None = None
    """For an authority that has none."""

    def authority_for(self, scheme: str, otherwise: Authority) -> Authority:
        """Return the authority of the URL, given the one that the request has."""
        authority = self.authority or otherwise
        if self.port is None or authority.port is not None:
            return authority
        default = self.port == DEFAULT_PORTS[scheme]
        return authority if default else attrs.evolve(authority, port=self.port)


def checked_proxy_headers(kind: object) -> ProxyHeaders:
    """Return the argument of this name.

    Raises:
        ValueError: It is something else.
    """
    if isinstance(kind, bool):
        return kind
    if kind == "forwarded":
        return "forwarded"
    msg = (
        "proxy_headers is True for X-Forwarded-*, or 'forwarded' for Forwarded, not "
        f"{kind!r}"
    )
    raise ValueError(msg)


def forwarded_by(headers: Headers, kind: ProxyHeaders, proxies: int) -> Forwarded:
    """Return what the proxies say, of which there are `proxies`, one after another.

    Where fewer have said something, the first of them counts.

    Raises:
        ValueError: What they say of the URL is not valid, or ``Forwarded`` can't be
            understood. An address that is none is as good as none.
    """
    if kind == "forwarded":
        return _forwarded(headers, proxies)
    return _x_forwarded(headers, proxies) if kind else Forwarded()


def node_address(node: str) -> str | None:
    """Return the IP address of a node, without port and brackets; `None` without one.

    Nodes have the forms of RFC 7239, section 6, and IPv6 addresses may be bare, as they
    are in ``X-Forwarded-For``. Without an address are ``unknown``, obfuscated ones
    (``_hidden``), and what is no node at all.
    """
    v4 = _V4_NODE.fullmatch(node)
    v6 = _V6_NODE.fullmatch(node)
    try:
        if v4 is not None:
            return str(IPv4Address(v4[1]))
        address = node if v6 is None else v6[1]
        return parse_authority(f"[{address}]").host
    except ValueError:
        return None


def _x_forwarded(headers: Headers, proxies: int) -> Forwarded:
    client, scheme, host, port = (
        _said_by(comma_list(headers, f"x-forwarded-{name}"), proxies)
        for name in ("for", "proto", "host", "port")
    )
    if port is not None and re.fullmatch("[0-9]{1,5}", port) is None:
        msg = f'the port in X-Forwarded-Port is a number, not "{printable(port)}"'
        raise ValueError(msg)
    return Forwarded(
        None if client is None else node_address(client),
        None if scheme is None else http_scheme(scheme),
        None if host is None else parse_authority(host),
        # So that its range is checked, too.
        None if port is None else parse_authority(f"port:{port}").port,
    )


def _said_by(values: Sequence[str], proxies: int) -> str | None:
    return values[-min(proxies, len(values))] if values else None


def _forwarded(headers: Headers, proxies: int) -> Forwarded:
    elements = _elements(headers.get("forwarded", ""))[-proxies:]
    if not elements:
        return Forwarded()
    said: dict[str, str] = {}
    for element in reversed(elements):
        said |= element
    client = elements[0].get("for")
    return Forwarded(
        None if client is None else node_address(client),
        http_scheme(said["proto"]) if "proto" in said else None,
        parse_authority(said["host"]) if "host" in said else None,
    )


def _elements(text: str) -> list[dict[str, str]]:
    """Return the elements of ``Forwarded``, each with its parameters.

    Raises:
        ValueError: It is not of that form, or an element has a parameter twice.
    """
    elements: list[dict[str, str]] = []
    element: dict[str, str] = {}
    position = 0
    while position < len(text):
        name = ""
        found = _PAIR.match(text, position)
        if found is not None:
            name, end = found["name"].lower(), found["end"]
        else:
            found = _BETWEEN.match(text, position)  # Empty ones may be there.
            end = "" if found is None else found[1]
        if found is None or name in element:
            msg = "the header 'Forwarded' is not of the form of RFC 7239, section 4"
            raise ValueError(msg)
        if name:
            value = found["token"] or re.sub(r"\\(.)", r"\1", found["quoted"] or "")
            element[name] = value
        if end != ";" and element:
            elements.append(element)
            element = {}
        position = found.end()
    if element:
        elements.append(element)
    return elements

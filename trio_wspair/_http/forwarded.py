"""The headers in which proxies pass on the client's address and the URL of a request.

Knows ``X-Forwarded-For``, ``-Proto``, ``-Host`` and ``-Port``, and ``Forwarded`` (RFC
7239); no I/O. A client can send all of these headers itself. So only one kind is read,
the one that the proxy is known to set. Of its values only the last N count, where N is
the number of proxies: each proxy appends one.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Final, Literal

import attrs

from trio_wspair._rules.display import quoted

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
"""Which headers are trusted: none, ``X-Forwarded-*`` (`True`), or ``Forwarded``."""

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
    """What the trusted headers contain; `None` for what is missing."""

    client: str | None = None
    """The address of the client, without a port."""
    scheme: str | None = None
    """``"http"`` or ``"https"``."""
    authority: Authority | None = None
    port: int | None = None
    """The port, if the authority has none."""

    def authority_for(self, scheme: str, otherwise: Authority) -> Authority:
        """Return the authority of the URL, given that of the request itself."""
        authority = self.authority or otherwise
        if self.port is None or authority.port is not None:
            return authority
        default = self.port == DEFAULT_PORTS[scheme]
        return authority if default else attrs.evolve(authority, port=self.port)


def checked_proxy_headers(kind: object) -> ProxyHeaders:
    """Return the argument `proxy_headers`.

    Raises:
        ValueError: It is not one of the three kinds.
    """
    if isinstance(kind, bool):
        return kind
    if kind == "forwarded":
        return "forwarded"
    msg = (
        "proxy_headers must be True for X-Forwarded-*, or 'forwarded' for Forwarded, "
        "not "
        f"{kind!r}"
    )
    raise ValueError(msg)


def forwarded_by(headers: Headers, kind: ProxyHeaders, proxies: int) -> Forwarded:
    """Return what the proxies have added to these headers.

    Args:
        headers: The headers of the request.
        kind: Which headers are trusted.
        proxies: The number of proxies, one behind another. If a header has fewer
            values, its first value counts.

    Raises:
        ValueError: A part of the URL is not valid, or ``Forwarded`` can't be parsed. An
            invalid address of the client is ignored.
    """
    if kind == "forwarded":
        return _forwarded(headers, proxies)
    return _x_forwarded(headers, proxies) if kind else Forwarded()


def node_address(node: str) -> str | None:
    """Return the IP address of a node, without port and brackets.

    Nodes have the forms of RFC 7239, section 6; IPv6 addresses may be without brackets,
    as in ``X-Forwarded-For``. `None` for ``unknown``, for an obfuscated identifier
    (``_hidden``), and for text that is not a node.
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
        _value_of(comma_list(headers, f"x-forwarded-{name}"), proxies)
        for name in ("for", "proto", "host", "port")
    )
    if port is not None and re.fullmatch("[0-9]{1,5}", port) is None:
        msg = f"X-Forwarded-Port must be a port number, not {quoted(port)}"
        raise ValueError(msg)
    return Forwarded(
        None if client is None else node_address(client),
        None if scheme is None else http_scheme(scheme),
        None if host is None else parse_authority(host),
        # parse_authority() checks the range.
        None if port is None else parse_authority(f"port:{port}").port,
    )


def _value_of(values: Sequence[str], proxies: int) -> str | None:
    return values[-min(proxies, len(values))] if values else None


def _forwarded(headers: Headers, proxies: int) -> Forwarded:
    elements = _elements(headers.get("forwarded", ""))[-proxies:]
    if not elements:
        return Forwarded()
    parameters: dict[str, str] = {}
    for element in reversed(elements):
        parameters |= element
    client = elements[0].get("for")
    return Forwarded(
        None if client is None else node_address(client),
        http_scheme(parameters["proto"]) if "proto" in parameters else None,
        parse_authority(parameters["host"]) if "host" in parameters else None,
    )


def _elements(text: str) -> list[dict[str, str]]:
    """Return the elements of ``Forwarded``, each with its parameters.

    Raises:
        ValueError: The text is not valid, or an element has a parameter twice.
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
            found = _BETWEEN.match(text, position)  # Elements may be empty.
            end = "" if found is None else found[1]
        if found is None or name in element:
            msg = "the header 'Forwarded' is not valid (RFC 7239, section 4)"
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

"""Hosts: their names and addresses, and the authority of a URL.

Knows text only. `parse_authority()` reads what a client sends, strictly (RFC 3986);
`ascii_host()` converts the name of a host as browsers do (WHATWG URL, section 3.5).
"""

import re
import unicodedata
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import unquote_to_bytes

import attrs
import idna

from trio_wspair._rules.display import printable, quoted

__all__ = ("Authority", "ascii_host", "parse_authority")

_MAX_HOST: Final = 1000
"""Characters. DNS allows 253; the algorithms take more than linear time."""
_AUTHORITY: Final = re.compile(
    r"""(?: \[ (?P<address> [^\[\]]* ) \] | (?P<name> [^\[\]:@/?\#\\]* ) )
        (?: : (?P<port> [0-9]* ) )?""",
    re.VERBOSE,
)
_REG_NAME: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
"""RFC 3986, section 3.2.2; HTTP does not allow an empty name (RFC 9110, 4.2.1)."""
_ZONE: Final = re.compile(r"[A-Za-z0-9._~-]+")
_ESCAPED_ASCII: Final = re.compile(r"%([0-7][0-9A-Fa-f])")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~-]")
_FORBIDDEN_IN_A_DOMAIN: Final = re.compile(r"[\x00-\x20#/:<>?@\[\\\]^|%\x7f]")
"""WHATWG's forbidden domain code points that are ASCII."""


# -- authorities -----------------------------------------------------------------------


@attrs.frozen
class Authority:
    """A host and perhaps a port, as in a URL; never userinfo."""

    host: str
    """A name in lower case, or an address. An IPv6 address has no brackets; a zone
    follows after ``%``."""
    port: int | None = None

    def __str__(self) -> str:
        host = self.host
        if ":" in host:
            host = f"[{host.replace('%', '%25', 1)}]"  # RFC 6874.
        return host if self.port is None else f"{host}:{self.port}"


def parse_authority(text: str) -> Authority:
    """Return the host and the port of an authority without userinfo.

    Only the forms of RFC 3986, sections 3.2.2 and 3.2.3, are accepted: a name in ASCII,
    an IPv4 address, or an IPv6 address in brackets, perhaps with a zone (RFC 6874);
    then perhaps a port from 0 to 65535. The escape of an unreserved character is
    replaced by the character; that of a delimiter is refused, since parsers differ in
    its meaning.

    Raises:
        ValueError: The text is not an authority; the message says what is wrong.
    """
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        msg = f"{quoted(text)} is not a host, or a host and a port (RFC 3986)"
        raise ValueError(msg)
    port = _checked_port(found["port"] or "")
    if found["address"] is not None:
        return Authority(_checked_address(found["address"]), port)
    name = found["name"]
    if not name:
        msg = f"the host is missing in {quoted(text)}"
        raise ValueError(msg)
    if _REG_NAME.fullmatch(name) is None:
        msg = f"{quoted(name)} is not the name of a host (RFC 3986, section 3.2.2)"
        raise ValueError(msg)
    return Authority(_ESCAPED_ASCII.sub(_unreserved, name).lower(), port)


def _checked_port(digits: str) -> int | None:
    if not digits:
        return None
    significant = digits.lstrip("0") or "0"
    if len(significant) > 5 or int(significant) > 65535:
        msg = f"a port must be at most 65535, not {quoted(digits)}"
        raise ValueError(msg)
    return int(significant)


def _checked_address(text: str) -> str:
    """Return an IPv6 address in lower case, with its zone."""
    address, percent, zone = text.partition("%")
    zone = zone.removeprefix(
        "25"
    )  # In a URL "%" is written "%25"; a bare "%" is also common.
    try:
        IPv6Address(address)
    except ValueError as exc:
        msg = f"{quoted(text)} is not an IPv6 address"
        raise ValueError(msg) from exc
    if not percent:
        return address.lower()
    if _ZONE.fullmatch(zone) is None:
        msg = f"{quoted(text)} has a zone that is not the name of an interface"
        raise ValueError(msg)
    return f"{address.lower()}%{zone}"


def _unreserved(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    if _UNRESERVED.fullmatch(character) is None:
        msg = f"the name of a host can't contain {quoted(escape[0])}"
        raise ValueError(msg)
    return character


# -- host names ------------------------------------------------------------------------


def ascii_host(host: str) -> str:
    """Return the form of a host in which browsers look it up and send it.

    This is WHATWG's host parser for special URLs: escapes are decoded; then follows
    *domain to ASCII* with beStrict=false, which is UTS 46 without transitional
    processing, without CheckHyphens and UseSTD3ASCIIRules. So ``"Bücher.example"``
    becomes ``"xn--bcher-kva.example"``; sharp s and final sigma stay; underscores,
    emoji and a trailing dot are accepted. A host that ends in a number is an IPv4
    address in one of its forms: ``"0x7f.1"`` becomes ``"127.0.0.1"``. An IPv6 address
    becomes its shortest form without brackets; its zone is kept.

    Raises:
        ValueError: The text is not the name or the address of a host; the message says
            why.
    """
    if len(host) > _MAX_HOST:
        msg = f"a host of {len(host)} characters is too long"
        raise ValueError(msg)
    if ":" in host or host.startswith("["):
        address = host[1:-1] if host[:1] + host[-1:] == "[]" else host
        return _shortest_ipv6(_checked_address(address))
    try:
        decoded = unquote_to_bytes(host).decode("utf-8", "replace")
        domain = _domain_to_ascii(decoded)
    except ValueError as exc:  # Also errors of idna, and lone surrogates.
        msg = f"{quoted(host)} can't be the name of a host: {printable(str(exc))}"
        raise ValueError(msg) from exc
    forbidden = _FORBIDDEN_IN_A_DOMAIN.search(domain)
    if forbidden is not None:
        msg = f"{quoted(host)} can't be the name of a host: it has {forbidden[0]!r}"
        raise ValueError(msg)
    if not domain:
        msg = f"{quoted(host)} can't be the name of a host: it is empty"
        raise ValueError(msg)
    return _ipv4(domain) if _ends_in_a_number(domain) else domain


def _shortest_ipv6(address: str) -> str:
    """Return an IPv6 address in the form of WHATWG: mapped IPv4 is not in dots."""
    number, percent, zone = address.partition("%")
    value = int(IPv6Address(number))
    pieces = [f"{value >> shift & 0xFFFF:x}" for shift in range(112, -16, -16)]
    runs = re.finditer(r"(?<![^:])0(:0)+(?![^:])", ":".join(pieces))
    longest = max(runs, key=lambda run: len(run[0]), default=None)
    shortest = ":".join(pieces)
    if longest is not None:
        before, after = shortest[: longest.start()], shortest[longest.end() :]
        shortest = f"{before.rstrip(':')}::{after.lstrip(':')}"
    return shortest + percent + zone


def _domain_to_ascii(domain: str) -> str:
    labels = idna.uts46_remap(domain, std3_rules=False).split(".")
    _check_bidi([_unicode_label(label) for label in labels if label])
    return ".".join(map(_ascii_label, labels))


def _unicode_label(label: str) -> str:
    """Return a label in Unicode, checked (UTS 46, section 4.1).

    Raises:
        ValueError: The label is not valid.
    """
    if label.startswith("xn--"):
        decoded = label.encode("ascii")[4:].decode("punycode")
        if decoded.isascii() or _ascii_label(decoded) != label:
            msg = f"{label!r} is not valid Punycode"
            raise ValueError(msg)
        if idna.uts46_remap(decoded, std3_rules=False) != decoded:
            msg = f"{label!r} encodes characters that the name of a host can't have"
            raise ValueError(msg)
        label = decoded
    if unicodedata.category(label[0])[0] == "M":
        msg = "a label begins with a combining mark"
        raise ValueError(msg)
    for position, character in enumerate(label):
        if character in "\u200c\u200d" and not idna.valid_contextj(label, position):
            msg = "a zero-width joiner is between characters that it can't join"
            raise ValueError(msg)
    return label


def _ascii_label(label: str) -> str:
    return label if label.isascii() else f"xn--{label.encode('punycode').decode()}"


def _check_bidi(labels: list[str]) -> None:
    """Check the rules of RFC 5893, if a label is written from right to left."""
    directions = {unicodedata.bidirectional(c) for label in labels for c in label}
    if directions & {"R", "AL", "AN"}:
        for label in labels:
            idna.check_bidi(label, check_ltr=True)


def _ends_in_a_number(domain: str) -> bool:
    last = domain.removesuffix(".").rpartition(".")[2]
    return re.fullmatch("[0-9]+|0[Xx][0-9A-Fa-f]*", last) is not None


def _ipv4(domain: str) -> str:
    """Return an IPv4 address in dots (WHATWG URL, the IPv4 parser)."""
    parts = domain.removesuffix(".").split(".")
    numbers = [_ipv4_number(part) for part in parts]
    last_limit = 256 ** (5 - len(parts))
    if (
        None in numbers
        or len(parts) > 4
        or any(number is not None and number > 255 for number in numbers[:-1])
        or (numbers[-1] or 0) >= last_limit
    ):
        msg = f"{quoted(domain)} ends in a number, but is not an IPv4 address"
        raise ValueError(msg)
    value = sum((number or 0) << 24 - 8 * i for i, number in enumerate(numbers[:-1]))
    return str(IPv4Address(value + (numbers[-1] or 0)))


def _ipv4_number(part: str) -> int | None:
    if re.fullmatch("0[Xx][0-9A-Fa-f]*", part):
        return int(part[2:] or "0", 16)
    if re.fullmatch("0[0-7]+", part):
        return int(part, 8)
    return int(part) if re.fullmatch("0|[1-9][0-9]*", part) else None

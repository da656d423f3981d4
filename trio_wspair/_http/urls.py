"""The parts of a URL, each validated before anything is put together from them.

Knows text only. `parse_authority` and `parse_target` read what a client sends,
strictly (RFC 3986, RFC 9112); `parse_url` reads what a program writes, and encodes
what has to be encoded; `ascii_host` is what browsers make of the name of a host
(WHATWG URL, section 3.5). A `RequestURL` is built from such parts, and is never parsed
again.
"""

import re
import unicodedata
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

import attrs
import idna

from trio_wspair._rules.display import printable, redacted

__all__ = (
    "DEFAULT_PORTS",
    "Authority",
    "RequestURL",
    "Target",
    "ascii_host",
    "encoded_reference",
    "http_scheme",
    "make_target",
    "parse_authority",
    "parse_target",
    "parse_url",
    "percent_encoded",
)

DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
"""The schemes that are spoken, and the port of each."""
_HTTP_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_MAX_SHOWN: Final = 100
_MAX_HOST: Final = 1000
"""Characters; DNS ends at 253, and the algorithms are slower than linear."""
_AUTHORITY: Final = re.compile(
    r"""(?: \[ (?P<address> [^\[\]]* ) \] | (?P<name> [^\[\]:@/?\#\\]* ) )
        (?: : (?P<port> [0-9]* ) )?""",
    re.VERBOSE,
)
_REG_NAME: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
"""RFC 3986, section 3.2.2; an empty one is no host of HTTP (RFC 9110, 4.2.1)."""
_ZONE: Final = re.compile(r"[A-Za-z0-9._~-]+")
_ESCAPED_ASCII: Final = re.compile(r"%([0-7][0-9A-Fa-f])")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~-]")
_NOT_IN_A_URL: Final = re.compile(
    r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9._~:/?\#\[\]@!$&'()*+,;=%-]"
)
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NOT_IN_A_TARGET: Final = re.compile(r"[\x00-\x20\x7f#]")
_ABSOLUTE: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?]*)(?P<rest>.*)",
    re.DOTALL,
)
_REFERENCE: Final = re.compile(
    r"(?P<before>(?:[A-Za-z][A-Za-z0-9+.-]*:)?//(?:[^/?\#@]*@)?)"
    r"(?P<host>\[[^/?\#]*\]|[^/?\#:]*)(?P<rest>.*)",
    re.DOTALL,
)
_FORBIDDEN_IN_A_DOMAIN: Final = re.compile(r"[\x00-\x20#/:<>?@\[\\\]^|%\x7f]")
"""WHATWG's forbidden domain code points, of those that are ASCII."""


def _shown(text: str) -> str:
    """Return text in quotes for a message, its beginning if it is long."""
    end = "..." if len(text) > _MAX_SHOWN else ""
    return f'"{printable(text[:_MAX_SHOWN])}{end}"'


# -- authorities -----------------------------------------------------------------------


@attrs.frozen
class Authority:
    """A host and maybe a port, as they stand in a URL; never userinfo."""

    host: str
    """A name in lower case, or an address: one of IPv6 without brackets, with its zone
    after ``%``, if it has one."""
    port: int | None = None

    def __str__(self) -> str:
        host = self.host
        if ":" in host:
            host = f"[{host.replace('%', '%25', 1)}]"  # RFC 6874.
        return host if self.port is None else f"{host}:{self.port}"


def parse_authority(text: str) -> Authority:
    """Return the host and the port of an authority without userinfo.

    By RFC 3986, sections 3.2.2 and 3.2.3, and nothing else: a name in ASCII, an IPv4
    address, or an IPv6 address in brackets, maybe with a zone (RFC 6874); then maybe a
    port of 0 to 65535. An escape of an unreserved character is the same as that
    character; one of a delimiter is refused, since parsers don't agree on it.

    Raises:
        ValueError: The text is not an authority; the message says what is wrong.
    """
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        msg = f"{_shown(text)} is not a host, or a host and a port (RFC 3986)"
        raise ValueError(msg)
    port = _checked_port(found["port"] or "")
    if found["address"] is not None:
        return Authority(_checked_address(found["address"]), port)
    name = found["name"]
    if not name:
        msg = f"the host is missing in {_shown(text)}"
        raise ValueError(msg)
    if _REG_NAME.fullmatch(name) is None:
        msg = f"{_shown(name)} is not the name of a host (RFC 3986, section 3.2.2)"
        raise ValueError(msg)
    return Authority(_ESCAPED_ASCII.sub(_unreserved, name).lower(), port)


def _checked_port(digits: str) -> int | None:
    if not digits:
        return None
    significant = digits.lstrip("0") or "0"
    if len(significant) > 5 or int(significant) > 65535:
        msg = f"a port is at most 65535, not {_shown(digits)}"
        raise ValueError(msg)
    return int(significant)


def _checked_address(text: str) -> str:
    """Return an IPv6 address in lower case, with its zone."""
    address, percent, zone = text.partition("%")
    zone = zone.removeprefix("25")  # In a URL "%" is "%25"; a bare one is common, too.
    try:
        IPv6Address(address)
    except ValueError as exc:
        msg = f"{_shown(text)} is not an IPv6 address"
        raise ValueError(msg) from exc
    if not percent:
        return address.lower()
    if _ZONE.fullmatch(zone) is None:
        msg = f"{_shown(text)} has a zone that is not the name of an interface"
        raise ValueError(msg)
    return f"{address.lower()}%{zone}"


def _unreserved(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    if _UNRESERVED.fullmatch(character) is None:
        msg = f"the name of a host can't have {_shown(escape[0])} in it"
        raise ValueError(msg)
    return character


# -- host names ------------------------------------------------------------------------


def ascii_host(host: str) -> str:
    """Return a host as it is looked up and sent: as browsers do.

    WHATWG's host parser for special URLs: escapes are decoded; then *domain to ASCII*
    with beStrict=false, which is UTS 46 without transitional processing, without
    CheckHyphens and UseSTD3ASCIIRules. So ``"Bücher.example"`` gives
    ``"xn--bcher-kva.example"``, sharp s and final sigma stay what they are, underscores
    and emoji are taken, and a trailing dot is kept. What ends in a number is an IPv4
    address, in any of its forms: ``"0x7f.1"`` gives ``"127.0.0.1"``. An IPv6 address,
    with or without brackets, is given in its shortest form without them; a zone is
    kept.

    Raises:
        ValueError: It can't be the name or the address of a host; the message says why.
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
    except ValueError as exc:  # Those of idna, too, and lone surrogates.
        msg = f"{_shown(host)} can't be the name of a host: {printable(str(exc))}"
        raise ValueError(msg) from exc
    forbidden = _FORBIDDEN_IN_A_DOMAIN.search(domain)
    if forbidden is not None:
        msg = f"{_shown(host)} can't be the name of a host: it has {forbidden[0]!r}"
        raise ValueError(msg)
    if not domain:
        msg = f"{_shown(host)} can't be the name of a host: it is empty"
        raise ValueError(msg)
    return _ipv4(domain) if _ends_in_a_number(domain) else domain


def _shortest_ipv6(address: str) -> str:
    """Return an IPv6 address as WHATWG writes it, without mapped IPv4 in dots."""
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
        ValueError: It is not valid.
    """
    if label.startswith("xn--"):
        decoded = label.encode("ascii")[4:].decode("punycode")
        if decoded.isascii() or _ascii_label(decoded) != label:
            msg = f"{label!r} is not valid Punycode"
            raise ValueError(msg)
        if idna.uts46_remap(decoded, std3_rules=False) != decoded:
            msg = f"{label!r} stands for characters that no name of a host has"
            raise ValueError(msg)
        label = decoded
    if unicodedata.category(label[0])[0] == "M":
        msg = "a label begins with a combining mark"
        raise ValueError(msg)
    for position, character in enumerate(label):
        if character in "\u200c\u200d" and not idna.valid_contextj(label, position):
            msg = "a joiner stands where it joins nothing"
            raise ValueError(msg)
    return label


def _ascii_label(label: str) -> str:
    return label if label.isascii() else f"xn--{label.encode('punycode').decode()}"


def _check_bidi(labels: list[str]) -> None:
    """Check the rule of RFC 5893, if a label is written from right to left."""
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
        msg = f"{_shown(domain)} ends in a number, but is not an IPv4 address"
        raise ValueError(msg)
    value = sum((number or 0) << 24 - 8 * i for i, number in enumerate(numbers[:-1]))
    return str(IPv4Address(value + (numbers[-1] or 0)))


def _ipv4_number(part: str) -> int | None:
    if re.fullmatch("0[Xx][0-9A-Fa-f]*", part):
        return int(part[2:] or "0", 16)
    if re.fullmatch("0[0-7]+", part):
        return int(part, 8)
    return int(part) if re.fullmatch("0|[1-9][0-9]*", part) else None


# -- percent-encoding ------------------------------------------------------------------


def percent_encoded(text: str, *, encoding: str = "utf-8") -> str:
    """Return the text with escapes for all that can't be in a URL (RFC 3986).

    Delimiters and escapes stay as they are; a ``%`` that begins none becomes ``%25``.
    Lone surrogates become U+FFFD.
    """
    if encoding == "utf-8":
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _NOT_IN_A_URL.sub(
        lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode(encoding)),
        text,
    )


def encoded_reference(url: str) -> str:
    r"""Return a URL, or a relative one, as it can be sent in ``Location``.

    A host beyond ASCII becomes A-labels, all else is percent-encoded where it has to
    be; a ``\``, which browsers take for ``/``, too. Spaces around it go. Never raises.
    """
    url = url.strip("".join(map(chr, range(0x21))))
    found = _REFERENCE.fullmatch(url)
    if found is None or found["host"].isascii():
        return percent_encoded(url)
    try:
        host = ascii_host(found["host"])
    except ValueError:
        host = found["host"]
    return percent_encoded(found["before"] + host + found["rest"])


# -- targets and URLs ------------------------------------------------------------------


@attrs.frozen
class Target:
    """What a request asks for: path and query, percent-encoded."""

    path: str
    """Begins with ``/``; empty for ``OPTIONS *``."""
    query: str | None
    """`None` if there is no ``?``."""
    scheme: str | None = None
    """``"http"`` or ``"https"``, if the target says so (absolute-form)."""
    authority: Authority | None = None
    """As `scheme`."""

    def __str__(self) -> str:
        path = self.path or "*"
        return path if self.query is None else f"{path}?{self.query}"


def make_target(path: str, query: str | None) -> Target:
    """Return a target of path and query, as they are on the wire, read as Latin-1.

    What should have been percent-encoded is.

    Raises:
        ValueError: The path does not begin with a slash, or is not clear: it has an
            invalid escape, a ``#`` or ``?``, a space or a control character; or the
            query has one of those but the first.
    """
    if not path.startswith("/"):
        msg = f"the path {_shown(path)} does not begin with '/'"
        raise ValueError(msg)
    if _NOT_IN_A_TARGET.search(path) or "?" in path or _BAD_ESCAPE.search(path):
        msg = f"the path {_shown(path)} is not percent-encoded (RFC 3986)"
        raise ValueError(msg)
    if query is None:
        return Target(percent_encoded(path, encoding="latin-1"), None)
    if _NOT_IN_A_TARGET.search(query):  # It may be secret, so it isn't shown.
        msg = "the query is not percent-encoded (RFC 3986)"
        raise ValueError(msg)
    return Target(
        percent_encoded(path, encoding="latin-1"),
        percent_encoded(query, encoding="latin-1"),
    )


def parse_target(method: str, text: str) -> Target:
    """Return what the target of a request says, read as Latin-1 (RFC 9112, 3.2).

    Origin-form (``/path?query``), absolute-form (``http://host/path``), and for
    OPTIONS asterisk-form (``*``). There is no CONNECT here.

    Raises:
        ValueError: It is none of these; the message says what is wrong.
    """
    if method == "OPTIONS" and text == "*":
        return Target("", None)
    found = None if text.startswith("/") else _ABSOLUTE.fullmatch(text)
    rest = text if found is None else found["rest"]
    path, question_mark, query = rest.partition("?")
    if found is None:
        return make_target(path, query if question_mark else None)
    scheme = found["scheme"].lower()
    if scheme not in ("http", "https"):
        msg = f"the scheme of the target is {_shown(scheme)}, not http or https"
        raise ValueError(msg)
    authority = parse_authority(found["authority"])
    target = make_target(path or "/", query if question_mark else None)
    if method == "OPTIONS" and not rest:  # RFC 9112, section 3.2.4.
        target = Target("", None)
    return attrs.evolve(target, scheme=scheme, authority=authority)


def http_scheme(scheme: str) -> str:
    """Return ``"http"`` or ``"https"``: the scheme itself, or what ws and wss are.

    Raises:
        ValueError: It is another scheme.
    """
    found = _HTTP_SCHEMES.get(scheme.lower())
    if found is None:
        msg = f"the scheme is {_shown(scheme)}, not http or https"
        raise ValueError(msg)
    return found


@attrs.frozen
class RequestURL:
    """The URL of a request: its validated parts, which `str()` puts together."""

    scheme: str
    """``"http"`` or ``"https"``."""
    authority: Authority
    target: Target

    def __str__(self) -> str:
        path, query = self.target.path, self.target.query
        url = f"{self.scheme}://{self.authority}{path}"
        return url if query is None else f"{url}?{query}"

    @property
    def path(self) -> str:
        """The path, decoded; ``"*"`` for ``OPTIONS *``."""
        return unquote(self.target.path or "*")

    @property
    def secure(self) -> bool:
        """Whether the scheme says TLS."""
        return self.scheme == "https"


def parse_url(text: str, *, method: str = "GET") -> RequestURL:
    """Return the URL that a program has written, in parts.

    What is not ASCII is encoded: the host by `ascii_host`, the rest in UTF-8. ``ws:``
    and ``wss:`` are ``http:`` and ``https:``.

    Raises:
        ValueError: It is not an absolute URL of these schemes, or it has userinfo or a
            fragment, which no request has; the message says what is wrong.
    """
    encoded = encoded_reference(text)
    found = _ABSOLUTE.fullmatch(encoded)
    if found is None:
        msg = (
            f'"{redacted(text)[:_MAX_SHOWN]}" is not an absolute URL, such as '
            "'http://localhost:8000/a'"
        )
        raise ValueError(msg)
    scheme = http_scheme(found["scheme"])
    if "@" in found["authority"]:
        msg = "the URL of a request has no userinfo: it is sent in 'Authorization'"
        raise ValueError(msg)
    if "#" in encoded:
        msg = "the URL of a request has no fragment, which begins with '#'"
        raise ValueError(msg)
    target = parse_target(method, f"{scheme}://{found['authority']}{found['rest']}")
    assert target.authority is not None  # It was there.
    if "%" in target.authority.host and ":" not in target.authority.host:
        ascii_host(target.authority.host)  # Which says what is wrong with it.
    return RequestURL(scheme, target.authority, target)

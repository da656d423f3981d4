"""The parts of a URL, each validated before a URL is put together from them.

Knows text only. `parse_target()` reads what a client sends, strictly (RFC 9112);
`parse_url()` reads what a program writes, and encodes what has to be encoded. A
`RequestURL` is built from validated parts, and is never parsed again.
"""

import re
from typing import Final
from urllib.parse import unquote

import attrs

from trio_wspair._rules.display import quoted, redacted

from .hosts import Authority, ascii_host, parse_authority

__all__ = (
    "DEFAULT_PORTS",
    "RequestURL",
    "Target",
    "encoded_reference",
    "http_scheme",
    "make_target",
    "parse_target",
    "parse_url",
    "percent_encoded",
)

DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
"""The schemes that are spoken, and the port of each."""
_HTTP_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_MAX_SHOWN: Final = 100
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
        msg = f"the path {quoted(path)} does not begin with '/'"
        raise ValueError(msg)
    if _NOT_IN_A_TARGET.search(path) or "?" in path or _BAD_ESCAPE.search(path):
        msg = f"the path {quoted(path)} is not percent-encoded (RFC 3986)"
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
        msg = f"the scheme of the target is {quoted(scheme)}, not http or https"
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
        msg = f"the scheme is {quoted(scheme)}, not http or https"
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

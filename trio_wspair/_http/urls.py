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
"""The schemes of HTTP and WebSockets, and the default port of each."""
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
    """Return the text with escapes for characters that a URL can't have (RFC 3986).

    Delimiters and escapes stay as they are; a ``%`` that begins no escape becomes
    ``%25``. Lone surrogates become U+FFFD.
    """
    if encoding == "utf-8":
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _NOT_IN_A_URL.sub(
        lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode(encoding)),
        text,
    )


def encoded_reference(url: str) -> str:
    r"""Return a URL, which may be relative, in a form that ``Location`` can have.

    A host beyond ASCII becomes A-labels; other characters that a URL can't have are
    percent-encoded, also a ``\``, which browsers treat as ``/``. Spaces around it are
    removed. Never raises.
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
    """The target of a request: path and query, percent-encoded."""

    path: str
    """Begins with ``/``; empty for ``OPTIONS *``."""
    query: str | None
    """`None` if there is no ``?``."""
    scheme: str | None = None
    """``"http"`` or ``"https"``, if the target has a scheme (absolute-form)."""
    authority: Authority | None = None
    """The authority, if the target has one (absolute-form)."""

    def __str__(self) -> str:
        path = self.path or "*"
        return path if self.query is None else f"{path}?{self.query}"


def make_target(path: str, query: str | None) -> Target:
    """Return a target of path and query, which are decoded from the wire as Latin-1.

    Characters that a URL can't have are percent-encoded.

    Raises:
        ValueError: The path does not begin with a slash, or contains an invalid escape,
            a ``#`` or ``?``, a space or a control character; or the query contains a
            ``#``, a space or a control character.
    """
    if not path.startswith("/"):
        msg = f"the path {quoted(path)} does not begin with '/'"
        raise ValueError(msg)
    if _NOT_IN_A_TARGET.search(path) or "?" in path or _BAD_ESCAPE.search(path):
        msg = f"the path {quoted(path)} is not percent-encoded (RFC 3986)"
        raise ValueError(msg)
    if query is None:
        return Target(percent_encoded(path, encoding="latin-1"), None)
    if _NOT_IN_A_TARGET.search(query):  # Not shown: it may be a secret.
        msg = "the query is not percent-encoded (RFC 3986)"
        raise ValueError(msg)
    return Target(
        percent_encoded(path, encoding="latin-1"),
        percent_encoded(query, encoding="latin-1"),
    )


def parse_target(method: str, text: str) -> Target:
    """Return the target of a request, which is decoded as Latin-1 (RFC 9112, 3.2).

    It is in origin-form (``/path?query``), absolute-form (``http://host/path``), or for
    OPTIONS in asterisk-form (``*``). CONNECT has another form, which is refused.

    Raises:
        ValueError: The text is not a target; the message says what is wrong.
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
        msg = f"the scheme of the target must be http or https, not {quoted(scheme)}"
        raise ValueError(msg)
    authority = parse_authority(found["authority"])
    target = make_target(path or "/", query if question_mark else None)
    if method == "OPTIONS" and not rest:  # RFC 9112, section 3.2.4.
        target = Target("", None)
    return attrs.evolve(target, scheme=scheme, authority=authority)


def http_scheme(scheme: str) -> str:
    """Return ``"http"`` or ``"https"``, also for ``ws`` and ``wss``.

    Raises:
        ValueError: The scheme is none of these.
    """
    found = _HTTP_SCHEMES.get(scheme.lower())
    if found is None:
        msg = f"the scheme must be http or https, not {quoted(scheme)}"
        raise ValueError(msg)
    return found


@attrs.frozen
class RequestURL:
    """The URL of a request: validated parts, which `str()` puts together."""

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
        """Whether the scheme is that of TLS."""
        return self.scheme == "https"


def parse_url(text: str, *, method: str = "GET") -> RequestURL:
    """Return the parts of a URL that a program has written.

    Text beyond ASCII is encoded: the host by `ascii_host`, the rest in UTF-8. ``ws:``
    and ``wss:`` become ``http:`` and ``https:``.

    Raises:
        ValueError: The text is not an absolute URL of these schemes, or has userinfo or
            a fragment, which requests do not have; the message says what is wrong.
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
        msg = "the URL of a request can't have userinfo: send it in 'Authorization'"
        raise ValueError(msg)
    if "#" in encoded:
        msg = "the URL of a request can't have a fragment, which begins with '#'"
        raise ValueError(msg)
    target = parse_target(method, f"{scheme}://{found['authority']}{found['rest']}")
    assert target.authority is not None  # It is in absolute-form.
    if "%" in target.authority.host and ":" not in target.authority.host:
        ascii_host(target.authority.host)  # The error says what is wrong.
    return RequestURL(scheme, target.authority, target)

"""`Headers`: the fields of a request or a response, and lists in their values.

Follows the Fetch standard and RFC 9110, section 5. Treats a field in a special way only
if its value must be unique, or is joined or encoded differently.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Final, cast

from multidict import CIMultiDict

from .urls import encoded_reference

__all__ = (
    "Headers",
    "HeadersInit",
    "check_single_values",
    "comma_list",
    "decode_headers",
    "encode_headers",
    "is_token",
)

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's name (RFC 9110, section 5.6.2)."""
_NOT_IN_A_VALUE: Final = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
"""What a value can't contain: line breaks, text beyond Latin-1 (RFC 9110, 5.5)."""

_SINGLE: Final = (
    "authorization",
    "content-length",
    "content-type",
    "date",
    "from",
    "host",
    "if-modified-since",
    "if-range",
    "if-unmodified-since",
    "max-forwards",
    "origin",
    "proxy-authorization",
    "range",
    "referer",
    "sec-websocket-key",
    "sec-websocket-version",
    "user-agent",
)
"""Fields of a request that are not lists. If one came twice, recipients could differ in
which they use (RFC 9110, section 5.3; RFC 6455, section 11.3)."""


class Headers(MutableMapping[str, str]):
    """HTTP headers: names are case-insensitive, and may have several values.

    As in the Fetch standard, ``headers[name]`` is all values joined with ``", "``;
    those of ``Cookie`` are joined with ``"; "`` (RFC 6265, section 5.4). `get_all()`
    returns them one by one. Names and values that would not be a single header on the
    wire are refused. The value of ``Location`` is percent-encoded where necessary.

    Args:
        headers: The first headers: pairs of name and value, or a mapping.

    Raises:
        TypeError: A name or a value is not a str.
        ValueError: A name or a value can't be sent.
    """

    __slots__ = ("_values",)

    def __init__(self, headers: "HeadersInit" = ()) -> None:
        self._values: CIMultiDict[str] = CIMultiDict()
        if isinstance(headers, Headers):
            headers = headers.pairs()
        elif isinstance(headers, Mapping):
            headers = list(cast("Mapping[str, str]", headers).items())
        if not isinstance(headers, Iterable):
            headers = [headers]
        for pair in headers:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                # Not shown: a line such as "Authorization: ..." contains a secret.
                msg = (
                    "headers must be a mapping, or pairs of name and value, not "
                    f"{type(pair).__name__}"
                )
                raise TypeError(msg)
            self.append(*pair)

    def __repr__(self) -> str:
        return f"Headers({self.pairs()!r})"

    def __getitem__(self, name: str) -> str:
        """Return the values of `name`, joined."""
        values = self._values.getall(name)
        return ("; " if name.lower() == "cookie" else ", ").join(values)

    def __setitem__(self, name: str, value: str) -> None:
        """Replace all values of `name`."""
        self._values[_checked_name(name)] = _checked_value(name, value)

    def __delitem__(self, name: str) -> None:
        """Remove all values of `name`."""
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, each once and in lower case."""
        return iter(dict.fromkeys(name.lower() for name in self._values))

    def __len__(self) -> int:
        """Return the number of names."""
        return len(list(iter(self)))

    def append(self, name: str, value: str) -> None:
        """Add a value to those of `name`.

        Raises:
            TypeError: The name or the value is not a str.
            ValueError: The name or the value can't be sent.
        """
        self._values.add(_checked_name(name), _checked_value(name, value))

    def get_all(self, name: str) -> list[str]:
        """Return the values of `name`, in order; without any, an empty list."""
        return list(self._values.getall(name, []))

    def pairs(self) -> list[tuple[str, str]]:
        """Return every name with each of its values, in order."""
        return list(self._values.items())


HeadersInit = Headers | Mapping[str, str] | Iterable[tuple[str, str]]


def encode_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return headers as bytes, as they are sent."""
    return [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in headers
    ]


def decode_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Return received headers as text."""
    return [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in headers
    ]


def is_token(text: str) -> bool:
    """Return whether a text is a token, as are names of headers and subprotocols."""
    return _TOKEN.fullmatch(text) is not None


def check_single_values(headers: Headers) -> None:
    """Check that no field of a request comes twice if it must have a single value.

    Raises:
        ValueError: Such a field comes more than once.
    """
    names = [name.lower() for name, _ in headers.pairs()]
    if len(set(names)) == len(names):
        return
    for name in _SINGLE:
        if names.count(name) > 1:
            msg = f"the header {name!r} comes more than once"
            raise ValueError(msg)


def comma_list(headers: Headers, name: str) -> list[str]:
    """Return the elements of a header that is a list (RFC 9110, section 5.6.1)."""
    # Not strip(): for other recipients, U+0085 and U+00A0 are part of an element.
    elements = [element.strip(" \t") for element in headers.get(name, "").split(",")]
    return [element for element in elements if element]


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        msg = f"the name of a header must be a str, not {type(name).__name__}"
        raise TypeError(msg)
    if not is_token(name):
        # The text after a colon is a value, which may be a secret.
        shown, colon, _ = name.partition(":")
        rest = " and what follows it" if colon else ""
        msg = f"{shown!r}{rest} can't be the name of a header (RFC 9110, section 5.1)"
        raise ValueError(msg)
    return name


def _checked_value(name: str, value: object) -> str:
    if not isinstance(value, str):
        msg = f"the value of header {name!r} must be a str, not {type(value).__name__}"
        raise TypeError(msg)
    if name.lower() == "location":
        value = encoded_reference(value)
    stripped = value.strip(" \t")
    wrong = _NOT_IN_A_VALUE.search(stripped)
    if wrong is not None:  # The rest is not shown: it may be a secret.
        msg = (
            f"the value of header {name!r} contains {wrong[0]!r}: line breaks and "
            "characters beyond Latin-1 can't be sent"
        )
        raise ValueError(msg)
    return stripped

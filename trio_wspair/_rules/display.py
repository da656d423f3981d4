"""Text from the network, made safe to show in a log line, a terminal or an error.

Knows only text. `printable()` and `quoted()` are for any text, `redacted()` for URLs,
which may contain secrets.
"""

import re
from typing import Final

__all__ = ("printable", "quoted", "redacted")

_MAX_QUOTED: Final = 100
"""The characters of a text that a message shows."""
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U0001d159\U000e0100-\U000e01ef]"
)
"""Invisible characters that `str.isprintable()` accepts: most of Unicode's
``Default_Ignorable_Code_Point``, and the blank Braille pattern."""
_BEFORE_AUTHORITY: Final = re.compile(
    r"(?:wss?|https?):[/\\]+|(?:[^:/?#@\\]*:)?[/\\]{2,}|", re.IGNORECASE
)
"""The part of a URL before the authority; empty if the scheme is missing. Browsers
accept any number of slashes after the schemes of HTTP and WebSockets."""
_NO_PORT: Final = re.compile(r"(\[[^\[\]]*\]|[^:]*):.*", re.DOTALL)
_HOST_AND_PORT: Final = re.compile(r"(\[[^\[\]@]*\]|[^\[\]@:\s]*)(:[0-9]*)?")


def printable(text: str) -> str:
    r"""Return the text with an escape for each character that is not safe to show.

    Control characters (ESC among them), separators of lines and paragraphs, spaces
    other than U+0020, marks of writing direction and other format characters,
    invisible and unassigned characters, lone surrogates, ``"`` and ``\`` are escaped
    as in Python's string literals. Other text stays as it is, also beyond ASCII.
    Between double quotes, the result is a literal of the text.
    """
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable() and _INVISIBLE.match(character) is None:
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quoted(text: str) -> str:
    """Return text in double quotes for a message; of a long text, its beginning."""
    end = "..." if len(text) > _MAX_QUOTED else ""
    return f'"{printable(text[:_MAX_QUOTED])}{end}"'


def redacted(url: str) -> str:
    """Return a URL without its secrets: userinfo, values of the query, fragment.

    ``wss://me:secret@h/p?token=abc#x`` becomes ``wss://h/p?token=...#...``. A part of
    the query without a name is replaced, too. Never raises: text that is not a URL is
    redacted in the same way. The result is also `printable()`.
    """
    url = re.sub(r"[\t\r\n]", "", url)  # As browsers do.
    rest, hash_sign, _ = url.partition("#")
    rest, question_mark, query = rest.partition("?")
    before, authority, path = _split(rest)
    if "@" in url and not _is_host(authority):
        # The userinfo may contain a "/", "?" or "#" that should have been encoded.
        return redacted(before + url[len(before) :].rpartition("@")[2])
    if not _is_host(authority):  # As in "host:port:user:password".
        authority = _NO_PORT.sub(r"\1:...", authority)
    shown = before + authority + path
    if question_mark:
        shown += "?" + "&".join(map(_without_value, query.split("&")))
    if hash_sign:
        shown += "#..."
    return printable(shown)


def _split(url: str) -> tuple[str, str, str]:
    """Return the part before the authority, the authority, and the path.

    The authority is returned without userinfo. A slash of either kind ends it, as
    in browsers.
    """
    found = _BEFORE_AUTHORITY.match(url)
    assert found is not None  # It matches the empty string.
    before, rest = found[0], url[found.end() :]
    if not before and not rest.startswith(("/", "\\")):
        rest = rest.rpartition("@")[2]  # As in "ws//user@host", a scheme without ":".
    slash = re.search(r"[/\\]", rest)
    end = len(rest) if slash is None else slash.start()
    return before, rest[:end].rpartition("@")[2], rest[end:]


def _is_host(authority: str) -> bool:
    """Whether this is empty, or can be a host, perhaps with a port."""
    return _HOST_AND_PORT.fullmatch(authority) is not None


def _without_value(part: str) -> str:
    name, _, value = part.partition("=")
    if name and value.strip("="):
        return f"{name}=..."
    return "..." if part else ""

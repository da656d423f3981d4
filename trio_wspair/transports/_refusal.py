"""The error for an HTTP answer that opens no WebSocket, with what it says.

Knows HTTP heads and bodies as they came; no network.
"""

import codecs
import re
from http import HTTPStatus
from typing import Final

import h11

from trio_wspair._http.headers import decode_headers
from trio_wspair._rules.display import printable, redacted
from trio_wspair._rules.errors import HandshakeError

__all__ = ("refusal",)

_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
_READ_BYTES: Final = 2000
"""How much of a body is looked at, ..."""
_SHOWN_LINES: Final = 3
_SHOWN_CHARACTERS: Final = 200
"""... and how much of it is shown."""
_HIDDEN: Final = re.compile(r"(?is)<(style|script)\b.*?(</\1>|\Z)|<[^>]*>?")
"""What an HTML page does not show."""


def refusal(host: str, response: h11.Response, body: bytes) -> HandshakeError:
    """Return the error for a response that is not a 101.

    Args:
        host: The host and port of the server, as they are to be shown.
        response: The head.
        body: The body, or as much of it as came.
    """
    status = response.status_code
    headers = decode_headers(response.headers)
    fields = dict(headers)
    reason = response.reason.decode("latin-1")
    phrase = printable(_PHRASES.get(status, reason)[:60])
    said = f"status {status} ({phrase})" if phrase else f"status {status}"
    lines = first_lines(body, is_html="html" in fields.get("content-type", ""))
    tail = f': "{lines}"' if lines else ""
    location = fields.get("location")
    if 300 <= status < 400 and location is not None:
        where = redacted(location)[:_SHOWN_CHARACTERS]
        what = f'redirects to "{where}" with {said}; redirects are not followed'
    elif status < 400:
        what = f"answered with {said} instead of opening a WebSocket{tail}"
    else:
        what = f"refused the WebSocket with {said}{tail}"
    return HandshakeError(
        f"the server {host} {what}", status=status, headers=tuple(headers), body=body
    )


def first_lines(body: bytes, *, is_html: bool) -> str:
    """Return the first lines of a body in one, printable; ``""`` if it is not text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:  # The end may be half a character.
        text = decoder.decode(body[:_READ_BYTES])
    except UnicodeDecodeError:
        return ""
    if is_html:
        text = _HIDDEN.sub("\n", text)
    lines = [line.strip() for line in text.splitlines()]
    shown = " / ".join([line for line in lines if line][:_SHOWN_LINES])
    end = "..." if len(shown) > _SHOWN_CHARACTERS else ""
    return printable(shown[:_SHOWN_CHARACTERS]) + end

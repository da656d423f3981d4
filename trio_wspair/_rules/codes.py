"""Close codes and the Close frame: which may be sent and received, and their meaning.

Knows no state: whether a half may close now is decided in `state`.
"""

import re
from enum import IntEnum
from typing import Final

import attrs

from .errors import ProtocolError

__all__ = (
    "MAX_REASON_BYTES",
    "NORMAL_CODES",
    "Close",
    "CloseCode",
    "check_received_close",
    "checked_close",
    "checked_text",
    "close_from_payload",
    "payload_of_close",
    "usv_string",
)

MAX_REASON_BYTES: Final = 123
"""A control frame holds 125 bytes, two of which are the code (RFC 6455, 5.5)."""


class CloseCode(IntEnum):
    """The registered close codes (RFC 6455, section 7.4, and the IANA registry)."""

    NORMAL_CLOSURE = 1000
    """The purpose of the connection is fulfilled."""
    GOING_AWAY = 1001
    """The server stops, or the browser leaves the page."""
    PROTOCOL_ERROR = 1002
    """The peer broke the protocol."""
    UNSUPPORTED_DATA = 1003
    """A kind of data that this endpoint can't accept."""
    NO_STATUS_RECEIVED = 1005
    """Never sent: the peer's Close had no code."""
    ABNORMAL_CLOSURE = 1006
    """Never sent: the connection ended without a Close."""
    INVALID_PAYLOAD = 1007
    """Text that was not UTF-8."""
    POLICY_VIOLATION = 1008
    """A rule of the application was broken."""
    MESSAGE_TOO_BIG = 1009
    """A message above the limit."""
    MANDATORY_EXTENSION = 1010
    """The server did not offer an extension that the client needs."""
    INTERNAL_ERROR = 1011
    """An unexpected condition, such as an exception in a listener."""
    SERVICE_RESTART = 1012
    """The server restarts; the client may reconnect."""
    TRY_AGAIN_LATER = 1013
    """The server is overloaded."""
    BAD_GATEWAY = 1014
    """A server behind this one, such as a proxy's, failed."""
    TLS_HANDSHAKE = 1015
    """Never sent: TLS could not be established."""


NORMAL_CODES: Final = frozenset({1000, 1001, 1005})
"""The codes of a normal end of a conversation."""
_NEVER_SENT: Final = frozenset({1004, 1005, 1006, 1015})
_DEFINED: Final = frozenset({*range(1000, 1004), *range(1007, 1015)})
"""The codes below 3000 that a peer may send (RFC 6455, section 7.4.2): the members of
`CloseCode` without those that are never sent. No extension in use defines more. As in
Workers, `close()` accepts 1016 to 2999 as well, which arrive only in memory."""


@attrs.frozen(slots=True)
class Close:
    """A Close frame. Code 1005 stands for a frame without a code."""

    code: int = 1005
    reason: str = ""


_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def usv_string(text: str) -> str:
    """Return `text` with each lone surrogate as U+FFFD (WHATWG USVString).

    Two surrogates that form a pair become the character that they encode.
    """
    # Differs: workerd puts three U+FFFD for a lone surrogate in a message.
    text = str.__str__(text)  # For a subclass, such as StrEnum, a plain str.
    if _LONE_SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def checked_text(what: str, text: object, most: int, advice: str = "") -> str:
    """Return `usv_string(text)` if it has at most `most` bytes of UTF-8.

    Args:
        what: The name of the text in error messages.
        text: The text.
        most: The most bytes.
        advice: The end of the message of a `ValueError`: what to do instead.

    Raises:
        TypeError: `text` is not a str.
        ValueError: `text` is too long.
    """
    # Differs: workerd converts other types.
    if not isinstance(text, str):
        msg = f"{what} is a str, not {type(text).__name__}"
        raise TypeError(msg)
    text = usv_string(text)
    size = len(text.encode())
    if size > most:
        msg = f"{what} has at most {most} bytes of UTF-8, this one has {size}{advice}"
        raise ValueError(msg)
    return text


def checked_close(code: int | None, reason: str | None) -> Close:
    """Return the Close that these arguments of `close()` ask for.

    Raises:
        TypeError: An argument is of another type.
        ValueError: The code may not be sent, the reason is too long, or there
            is a reason without a code.
    """
    # Differs: workerd converts the arguments (`close("3000")`, `close(3000.9)`).
    if code is not None:
        if not isinstance(code, int) or isinstance(code, bool):
            msg = f"a close code is an int such as 1000, not {code!r}"
            raise TypeError(msg)
        if not 1000 <= code <= 4999 or code in _NEVER_SENT:
            msg = (
                f"close code {code} can't be sent: use 1000 for a normal end, or "
                "3000-4999 for codes of your own (of 1000-4999 only 1004, 1005, "
                "1006 and 1015 are reserved; for no code call close())"
            )
            raise ValueError(msg)
    if reason is not None:
        advice = ": send it as a message before closing"
        reason = checked_text("a close reason", reason, MAX_REASON_BYTES, advice)
        if code is None:
            msg = "a close reason needs a code: close(1000, reason)"
            raise ValueError(msg)
    return Close(1005 if code is None else int(code), reason or "")


def close_from_payload(payload: bytes) -> Close:
    """Return the Close that a peer has sent with this payload (RFC 6455, 5.5.1).

    Raises:
        ProtocolError: The payload has one byte, or a code that may not be sent (1002),
            or the reason is not UTF-8 (1007).
    """
    if not payload:
        return Close()
    if len(payload) == 1:
        raise ProtocolError(1002, "a Close has a payload of one byte; a code takes two")
    code = int.from_bytes(payload[:2], "big")
    try:
        reason = payload[2:].decode()
    except UnicodeDecodeError as exc:
        msg = f"the reason of a Close is not UTF-8: {exc.reason}"
        raise ProtocolError(1007, msg) from None
    if not _may_be_received(code):
        raise ProtocolError(1002, f"a Close has the code {code}, which is not allowed")
    return Close(code, reason)


def check_received_close(close: Close) -> None:
    """Check a Close that a connection has received; code 1005 stands for no code.

    Raises:
        ProtocolError: 1002 if the code may not be sent, or the reason is too long.
    """
    if close.code != 1005 and not _may_be_received(close.code):
        msg = f"a Close has the code {close.code}, which is not allowed"
        raise ProtocolError(1002, msg)
    size = len(usv_string(close.reason).encode())
    if size > MAX_REASON_BYTES:
        msg = f"the reason of a Close has {size} bytes; {MAX_REASON_BYTES} are allowed"
        raise ProtocolError(1002, msg)


def _may_be_received(code: int) -> bool:
    return code in _DEFINED or 3000 <= code <= 4999


def payload_of_close(close: Close) -> bytes:
    """Return the payload of a Close frame. A reason that is too long is cut."""
    if close.code == 1005:
        return b""
    reason = close.reason.encode()[:MAX_REASON_BYTES]
    # Without an incomplete character at the end.
    whole = reason.decode(errors="ignore").encode()
    return close.code.to_bytes(2, "big") + whole

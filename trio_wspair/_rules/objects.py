"""Values of Durable Objects: their ids, tags, automatic answers and time limits.

Knows no Trio and no sockets. The limits are those of Workers.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable
from typing import Any, Final, cast

import attrs

from .codes import checked_text
from .limits import check_limit

__all__ = (
    "MAX_SOCKETS",
    "DurableObjectId",
    "WebSocketRequestResponsePair",
    "checked_event_timeout",
    "checked_tags",
    "id_from_name",
    "new_unique_id",
)

MAX_SOCKETS: Final = 32_768
_MAX_TAGS: Final = 10
_MAX_TAG_BYTES: Final = 256
_MAX_ANSWER_BYTES: Final = 2_048
_MAX_EVENT_TIMEOUT: Final = 604_800_000
"""Seven days, in milliseconds."""
_DIGITS: Final = re.compile(r"[0-9a-f]{64}")


# -- ids -------------------------------------------------------------------------------


def _check_digits(_id: object, _field: object, digits: Any) -> None:  # noqa: ANN401
    if not isinstance(digits, str):
        msg = f"the digits of an id must be a str, not {type(digits).__name__}"
        raise TypeError(msg)
    if _DIGITS.fullmatch(digits) is None:
        msg = f"an id has 64 hexadecimal digits in lower case, not {digits!r:.80}"
        raise ValueError(msg)


@attrs.frozen
class DurableObjectId:
    """The id of an object in its namespace.

    Raises:
        TypeError: `digits` is not a str.
        ValueError: `digits` are not 64 hexadecimal digits in lower case.
    """

    _digits: str = attrs.field(alias="digits", validator=_check_digits)
    name: str | None = attrs.field(default=None, eq=False)
    """The name, if `id_from_name()` has made this id."""

    def __str__(self) -> str:
        """Return the 64 hexadecimal digits that `id_from_string()` takes."""
        return self._digits


def id_from_name(namespace: str, name: object) -> DurableObjectId:
    """Return the id that a name always has in this namespace.

    Raises:
        TypeError: The name is not a str.
    """
    if not isinstance(name, str):
        msg = f"the name of an object must be a str, not {type(name).__name__}"
        raise TypeError(msg)
    seed = f"{namespace}\0{name}".encode("utf-8", "surrogatepass")
    return DurableObjectId(hashlib.sha256(seed).hexdigest(), name)


def new_unique_id() -> DurableObjectId:
    """Return a random id, which no other object has."""
    return DurableObjectId(secrets.token_hex(32))


# -- settings --------------------------------------------------------------------------


def _checked_text(text: str) -> str:
    return checked_text("a request or a response", text, _MAX_ANSWER_BYTES)


@attrs.frozen
class WebSocketRequestResponsePair:
    """A text message, and the automatic answer to it, which does not wake the object.

    Differs from Workers: the sizes are checked here, not when the pair is set.

    Raises:
        TypeError: `request` or `response` is not a str.
        ValueError: `request` or `response` has more than 2,048 bytes of UTF-8.
    """

    request: str = attrs.field(converter=_checked_text)
    """The message that is answered. It must be equal, not only begin like this."""
    response: str = attrs.field(converter=_checked_text)
    """The answer."""


def checked_tags(tags: object) -> tuple[str, ...]:
    """Return the tags without duplicates.

    Raises:
        TypeError: `tags` is not an iterable of str.
        ValueError: There are too many tags, or a tag is too long.
    """
    # Differs: workerd accepts arrays only.
    if isinstance(tags, (str, bytes)) or not isinstance(tags, Iterable):
        msg = f"tags must be a list of str, such as ['lobby'], not {tags!r:.80}"
        raise TypeError(msg)
    kept: dict[str, None] = {}
    for tag in cast("Iterable[object]", tags):
        if len(kept) == _MAX_TAGS:  # A duplicate is refused as well, as in workerd.
            msg = f"a WebSocket can have at most {_MAX_TAGS} tags"
            raise ValueError(msg)
        kept[checked_text("a tag", tag, _MAX_TAG_BYTES)] = None
    return tuple(kept)


def checked_event_timeout(ms: object) -> int | None:
    """Return a time limit in milliseconds; `None` for no limit.

    Raises:
        TypeError: `ms` is neither an int nor `None`.
        ValueError: `ms` is out of range.
    """
    if ms is None:
        return None
    check_limit("ms", ms, least=0, most=_MAX_EVENT_TIMEOUT)
    return cast("int", ms) or None

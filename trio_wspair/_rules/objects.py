"""Values of Durable Objects: their ids, tags, automatic answers and time limits.

The limits are those of Workers.
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
        msg = f"an id is made from a str, not from {type(digits).__name__}"
        raise TypeError(msg)
    if _DIGITS.fullmatch(digits) is None:
        msg = f"an id has 64 hexadecimal digits in lower case, as str(id): {digits!r}"
        raise ValueError(msg)


@attrs.frozen
class DurableObjectId:
    """Which object of a namespace is meant; equal ids mean the same one.

    Raises:
        TypeError: The digits are no str.
        ValueError: They are no 64 hexadecimal digits in lower case.
    """

    _digits: str = attrs.field(alias="digits", validator=_check_digits)
    name: str | None = attrs.field(default=None, eq=False)
    """What it was made from by `id_from_name()`."""

    def __str__(self) -> str:
        """Return the 64 hexadecimal digits that `id_from_string()` takes."""
        return self._digits


def id_from_name(namespace: str, name: object) -> DurableObjectId:
    """Return the id that a name always has in this namespace.

    Raises:
        TypeError: The name is no str.
    """
    if not isinstance(name, str):
        msg = f"the name of an object is a str, not {type(name).__name__}"
        raise TypeError(msg)
    seed = f"{namespace}\0{name}".encode("utf-8", "surrogatepass")
    return DurableObjectId(hashlib.sha256(seed).hexdigest(), name)


def new_unique_id() -> DurableObjectId:
    """Return an id that no other object has."""
    return DurableObjectId(secrets.token_hex(32))


# -- settings --------------------------------------------------------------------------


def _checked_text(text: str) -> str:
    return checked_text("a request or a response", text, _MAX_ANSWER_BYTES)


@attrs.frozen
class WebSocketRequestResponsePair:
    """A text, and the one that answers it while the object sleeps on.

    Differs from Workers: the sizes are checked here, not when it is set.

    Raises:
        TypeError: One is no str.
        ValueError: One has more than 2,048 bytes of UTF-8.
    """

    request: str = attrs.field(converter=_checked_text)
    """The whole of a message that is answered."""
    response: str = attrs.field(converter=_checked_text)
    """The answer."""


def checked_tags(tags: object) -> tuple[str, ...]:
    """Return tags, each once.

    Raises:
        TypeError: They are no iterable of str.
        ValueError: They are too many, or one is too long.
    """
    # Differs: workerd takes nothing but arrays.
    if isinstance(tags, (str, bytes)) or not isinstance(tags, Iterable):
        msg = f"tags are a list of str such as ['lobby'], not {tags!r}"
        raise TypeError(msg)
    kept: dict[str, None] = {}
    for tag in cast("Iterable[object]", tags):
        if len(kept) == _MAX_TAGS:  # Even if this one is among them, as in workerd.
            msg = f"a WebSocket can have at most {_MAX_TAGS} tags"
            raise ValueError(msg)
        kept[checked_text("a tag", tag, _MAX_TAG_BYTES)] = None
    return tuple(kept)


def checked_event_timeout(ms: object) -> int | None:
    """Return milliseconds, `None` for no limit.

    Raises:
        TypeError: It is neither an int nor `None`.
        ValueError: It is out of range.
    """
    if ms is None:
        return None
    check_limit("ms", ms, least=0, most=_MAX_EVENT_TIMEOUT)
    return cast("int", ms) or None

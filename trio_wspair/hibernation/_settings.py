"""What an object may ask for, checked: tags, an automatic answer, a time limit.

Knows the limits of Workers, and no sockets.
"""

from collections.abc import Iterable
from typing import Final, cast

import attrs

from trio_wspair._rules.codes import checked_text
from trio_wspair._rules.limits import check_limit

__all__ = (
    "MAX_SOCKETS",
    "WebSocketRequestResponsePair",
    "checked_event_timeout",
    "checked_tags",
)

MAX_SOCKETS: Final = 32_768
_MAX_TAGS: Final = 10
_MAX_TAG_BYTES: Final = 256
_MAX_ANSWER_BYTES: Final = 2_048
_MAX_EVENT_TIMEOUT: Final = 604_800_000
"""Seven days, in milliseconds."""


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

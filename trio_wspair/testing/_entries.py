"""`Entry`: one thing that has happened in a conversation.

Knows no half and no Trio: it is read from a file as well.
"""

from typing import Literal

import attrs

__all__ = ("Entry", "What")

What = Literal["accept", "send", "receive", "close", "closed"]


@attrs.frozen
class Entry:
    """Something that a half has done, or that has happened to it."""

    time: float
    """Seconds since the record began, in Trio's time."""
    half: str
    """Which half: one of the two names of the record."""
    what: What
    """``"accept"``: somebody has taken it. ``"send"``, ``"receive"``: a message.
    ``"close"``: it has sent its Close. ``"closed"``: its close event."""
    message: str | bytes | None = None
    """Of `send` and `receive`."""
    code: int | None = None
    """Of `close` and `closed`; 1005 for a Close without a code."""
    reason: str = ""
    """Of `close` and `closed`."""
    was_clean: bool | None = None
    """Of `closed`."""
    error: str = ""
    """Of `closed`: what the `error` event before it has told, if there was one."""
    task: str = attrs.field(default="", eq=False)
    """The name of the task in which it happened."""

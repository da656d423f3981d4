"""`Entry`: one thing that has happened in a conversation, and `FailedStep`.

Knows no half and no Trio: it is read from a file as well.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import attrs
from attrs.validators import in_, instance_of, optional

__all__ = ("Entry", "FailedStep", "What")

What = Literal["accept", "send", "receive", "close", "closed"]


@attrs.frozen
class Entry:
    """Something that a half has done, or that has happened to it."""

    time: float = attrs.field(validator=instance_of((int, float)))
    """Seconds since the record began, in Trio's time."""
    half: str = attrs.field(validator=instance_of(str))
    """Which half: one of the two names of the record."""
    what: What = attrs.field(validator=in_(get_args(What)))
    """``"accept"``: somebody has taken it. ``"send"``, ``"receive"``: a message.
    ``"close"``: it has sent its Close. ``"closed"``: its close event."""
    message: str | bytes | None = attrs.field(
        default=None, validator=optional(instance_of((str, bytes)))
    )
    """Of `send` and `receive`."""
    code: int | None = attrs.field(default=None, validator=optional(instance_of(int)))
    """Of `close` and `closed`; 1005 for a Close without a code."""
    reason: str = attrs.field(default="", validator=instance_of(str))
    """Of `close` and `closed`."""
    was_clean: bool | None = None
    """Of `closed`."""
    error: str = attrs.field(default="", validator=instance_of(str))
    """Of `closed`: what the `error` event before it has told, if there was one."""
    task: str = attrs.field(default="", eq=False)
    """The name of the task in which it happened."""


@attrs.frozen
class FailedStep:
    """The step at which a test has failed, for the pictures of the conversation."""

    half: str
    """Whose step it was: one of the two names of the record."""
    what: str
    """What has gone wrong, in words."""
    at: int
    """How many entries the record had then."""
    entry: int | None = None
    """The index of the entry that was not expected; `None` if something is missing, or
    if the failure has nothing to do with a single entry."""
    waits: Sequence[tuple[str, str]] = ()
    """What still waited then: the name of a half, and the step that waits."""
    states: Sequence[tuple[str, str]] = ()
    """More about the halves at that moment: the name of a half, and a line."""

"""`Limits`: all limits in one place, and the checks of numbers and seconds.

Knows their names, defaults and ranges. Users set them by keyword arguments of
`serve()`, `connect()`, `couple()` and `ASGIApp`, which have the same names and
defaults, and pass them on as one value. ``docs/serving.rst`` has the table of what
happens beyond each.
"""

from typing import Any, Final

import attrs

__all__ = (
    "MAX_ANSWER_BODY_BYTES",
    "MAX_ANSWER_HEAD_BYTES",
    "Limits",
    "check_limit",
    "check_seconds",
)

MAX_ANSWER_HEAD_BYTES: Final = 2**16
"""The head of a server's answer to `connect()`."""
MAX_ANSWER_BODY_BYTES: Final = 2**20
"""What is kept of the body of such an answer, if it is a refusal."""


def check_limit(
    name: str, value: object, *, least: int = 1, most: int | None = None
) -> None:
    """Check a number of bytes or things.

    Raises:
        TypeError: It is not an int.
        ValueError: It is below `least` or above `most`.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        msg = f"{name} must be an int, not {value!r}"
        raise TypeError(msg)
    if value < least:
        msg = f"{name} must be at least {least}, not {value!r}"
        raise ValueError(msg)
    if most is not None and value > most:
        msg = f"{name} must be at most {most}, not {value!r}"
        raise ValueError(msg)


def check_seconds(name: str, value: object) -> None:
    """Check a duration; `math.inf` is one.

    Raises:
        TypeError: It is not a number.
        ValueError: It is negative or not a number.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        msg = f"{name} must be a number of seconds, not {value!r}"
        raise TypeError(msg)
    if not value >= 0:
        msg = f"{name} must be 0 or more seconds, not {value!r}"
        raise ValueError(msg)


def _count(default: int | None, *, least: int = 1) -> Any:  # noqa: ANN401 - of a field
    """Return the field of a number of things or bytes; `None` is allowed if default."""

    def check(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
        if value is not None or default is not None:
            check_limit(field.name, value, least=least)

    return attrs.field(default=default, validator=check)


def _seconds(default: float) -> Any:  # noqa: ANN401 - of a field
    """Return the field of a duration."""

    def check(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
        check_seconds(field.name, value)

    return attrs.field(default=default, validator=check)


@attrs.frozen(kw_only=True)
class Limits:
    """What a server, a client or a connection may cost.

    Raises:
        TypeError: An argument is of another type.
        ValueError: An argument is out of range.
    """

    max_connections: int = _count(1000)
    """Connections of a server at the same time."""
    max_connections_per_client: int | None = _count(None)
    """Those of one client; `None` for no separate limit."""

    max_head_bytes: int = _count(2**15, least=1024)
    """The head of a request: its first line and its headers."""
    max_body_bytes: int = _count(2**20, least=0)
    """The body of a request."""
    max_message_bytes: int = _count(2**25)
    """One message that is received."""
    max_buffered_bytes: int = _count(2**26)
    """What a half has sent and the other has not taken."""
    receive_buffer_bytes: int = _count(2**20)
    """What has come from the network and was not taken; reading stops above it."""

    connect_timeout: float = _seconds(10.0)
    """For a client, from dialing to the answer to its handshake."""
    handshake_timeout: float = _seconds(10.0)
    """For a server, TLS and the head of a request."""
    idle_timeout: float = _seconds(60.0)
    """Between two requests on one connection; 0 for one request only."""
    body_timeout: float = _seconds(30.0)
    """For the next piece of a body to come, or to be taken."""
    ping_interval: float = _seconds(20.0)
    """Between two pings; `math.inf` for none."""
    ping_timeout: float = _seconds(20.0)
    """From a ping to a sign of life."""
    close_grace: float = _seconds(5.0)
    """For a closing handshake."""

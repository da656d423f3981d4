"""`Limits`: all limits in one place, and the checks of numbers and seconds.

Knows the names, defaults and ranges of the limits. Users set limits by keyword
arguments of `serve()`, `connect()`, `couple()` and `ASGIApp`. These arguments have the
same names and defaults, and are passed on as one `Limits` value. ``docs/serving.rst``
has a table of what happens when each limit is exceeded.
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
"""The most bytes in the head of a server's answer to `connect()`."""
MAX_ANSWER_BODY_BYTES: Final = 2**20
"""The most bytes that are kept of the body of such an answer, if it is a refusal."""


def check_limit(
    name: str, value: object, *, least: int = 1, most: int | None = None
) -> None:
    """Check a limit that is an int.

    Raises:
        TypeError: `value` is not an int.
        ValueError: `value` is below `least` or above `most`.
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
    """Check a duration; `math.inf` is allowed.

    Raises:
        TypeError: `value` is not an int or float.
        ValueError: `value` is negative or NaN.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        msg = f"{name} must be a number of seconds, not {value!r}"
        raise TypeError(msg)
    if not value >= 0:
        msg = f"{name} must be 0 or more seconds, not {value!r}"
        raise ValueError(msg)


def _count(default: int | None, *, least: int = 1) -> Any:  # noqa: ANN401 - of a field
    """Return a field for an int; `None` is allowed if it is the default."""

    def check(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
        if value is not None or default is not None:
            check_limit(field.name, value, least=least)

    return attrs.field(default=default, validator=check)


def _seconds(default: float) -> Any:  # noqa: ANN401 - of a field
    """Return a field for a duration."""

    def check(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
        check_seconds(field.name, value)

    return attrs.field(default=default, validator=check)


@attrs.frozen(kw_only=True)
class Limits:
    """The limits of a server, a client or a connection.

    Raises:
        TypeError: An argument is of another type.
        ValueError: An argument is out of range.
    """

    max_connections: int = _count(1000)
    """The most connections of a server at the same time."""
    max_connections_per_client: int | None = _count(None)
    """The most connections of one client; `None` for no separate limit."""

    max_head_bytes: int = _count(2**15, least=1024)
    """The most bytes in the head of a request: its first line and its headers."""
    max_body_bytes: int = _count(2**20, least=0)
    """The most bytes in the body of a request."""
    min_body_rate: int = _count(500, least=0)
    """The least bytes in a second of a body that is received or sent; 0 for any."""
    max_message_bytes: int = _count(2**25)
    """The most bytes of a message that is received."""
    max_buffered_bytes: int = _count(2**26)
    """The most bytes that one half has sent and the other half has not taken."""
    receive_buffer_bytes: int = _count(2**20)
    """Reading stops while a half has more untaken bytes from the network than this."""

    connect_timeout: float = _seconds(10.0)
    """For a client: the time from dialing to the answer to its handshake."""
    handshake_timeout: float = _seconds(10.0)
    """For a server: the time for TLS and the head of a request."""
    idle_timeout: float = _seconds(60.0)
    """The time between two requests on a connection; with 0, there is only one."""
    body_timeout: float = _seconds(30.0)
    """The time until the next piece of a body arrives, or is taken by the peer."""
    ping_interval: float = _seconds(20.0)
    """The time between two pings; `math.inf` for no pings."""
    ping_timeout: float = _seconds(20.0)
    """The time from a ping to the next byte of the peer."""
    close_grace: float = _seconds(5.0)
    """The time for a closing handshake."""

    def body_seconds(self, size: int, waited: float) -> float:
        """Return how long a body may wait for the peer now.

        Args:
            size: The bytes of the body that were received or sent.
            waited: The seconds that it has waited for the peer.
        """
        if not self.min_body_rate:
            return self.body_timeout
        total = self.body_timeout + size / self.min_body_rate
        return max(0.0, min(self.body_timeout, total - waited))

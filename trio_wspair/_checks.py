"""Checks of arguments: a wrong one is refused before anything happens."""

import ssl

__all__ = ("check_limit", "check_seconds", "check_ssl_context")


def check_limit(name: str, value: object, *, least: int = 1) -> None:
    """Check a number of bytes or things.

    Raises:
        TypeError: It is no int.
        ValueError: It is below `least`.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        msg = f"{name} must be an int, not {value!r}"
        raise TypeError(msg)
    if value < least:
        msg = f"{name} must be at least {least}, not {value!r}"
        raise ValueError(msg)


def check_seconds(name: str, value: object) -> None:
    """Check a duration; `math.inf` is one.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative or not a number.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        msg = f"{name} must be a number of seconds, not {value!r}"
        raise TypeError(msg)
    if not value >= 0:
        msg = f"{name} must be 0 or more seconds, not {value!r}"
        raise ValueError(msg)


def check_ssl_context(context: object, *, server: bool) -> None:
    """Check what TLS is to be spoken with; `None` is no TLS.

    Raises:
        TypeError: It is no context.
        ValueError: It is one for the other side.
    """
    if context is None:
        return
    if not isinstance(context, ssl.SSLContext):
        msg = f"ssl_context must be an ssl.SSLContext, not {context!r}"
        raise TypeError(msg)
    side = "server" if server else "client"
    others = ssl.PROTOCOL_TLS_CLIENT if server else ssl.PROTOCOL_TLS_SERVER
    if context.protocol is others:
        msg = (
            f"this ssl_context is not for the {side}'s side: use "
            f"ssl.create_default_context({'ssl.Purpose.CLIENT_AUTH' if server else ''})"
        )
        raise ValueError(msg)

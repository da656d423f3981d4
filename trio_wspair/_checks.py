"""Checks of arguments: a wrong one is refused before anything happens."""

__all__ = ("check_limit", "check_seconds")


def check_limit(
    name: str, value: object, *, least: int = 1, most: int | None = None
) -> None:
    """Check a number of bytes or things.

    Raises:
        TypeError: It is no int.
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
        TypeError: It is no number.
        ValueError: It is negative or not a number.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        msg = f"{name} must be a number of seconds, not {value!r}"
        raise TypeError(msg)
    if not value >= 0:
        msg = f"{name} must be 0 or more seconds, not {value!r}"
        raise ValueError(msg)

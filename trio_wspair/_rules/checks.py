"""Checks of a call: a wrong argument, or thread, is refused before anything happens."""

from threading import get_ident

from .errors import InvalidStateError

__all__ = ("check_limit", "check_seconds", "check_thread", "foreign_thread_error")


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


def check_thread(thread: int, verb: str) -> None:
    """Check that `verb` is called in this thread, the one of its Trio run.

    `WebSocket.send()` and others that run for every message write this out.

    Raises:
        InvalidStateError: It is called in another thread.
    """
    if get_ident() != thread:
        raise foreign_thread_error(verb)


def foreign_thread_error(verb: str) -> InvalidStateError:
    """Return the error for a call in another thread than that of the Trio run."""
    return InvalidStateError(
        f"{verb} was called in another thread than that of its Trio run, and has "
        "changed nothing. In a thread of trio.to_thread.run_sync(), call it by "
        "trio.from_thread.run_sync(), or by trio.from_thread.run() if it is async; in "
        "any other thread, also pass these a trio_token"
    )

"""What goes wrong in an object: the error that others get, and the line in the log."""

import logging
from typing import Final, cast

from trio_wspair._errors import WebSocketError

__all__ = ("DurableObjectResetError", "log_failure")

_logger: Final = logging.getLogger("trio_wspair")


class DurableObjectResetError(WebSocketError):
    """The instance of a Durable Object was dropped while it was handling this.

    It has called ``ctx.abort()``, one of its tasks has failed, or its namespace has
    ended. The next request meets a new instance.
    """


def log_failure(exc: BaseException, label: str, what: str) -> None:
    """Log what an object has raised, and raise the rest: `Cancelled` and the like.

    Both come in one group if tasks of it were cancelled and one failed over that.
    """
    errors: BaseException | None = None
    others: BaseException | None = None
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        errors, others = group.split(Exception)
    elif isinstance(exc, Exception):
        errors = exc
    else:
        others = exc
    if errors is not None:
        message = "%s of %s failed"
        _logger.error(message, what, label, exc_info=errors, extra={"object": label})
    if others is not None:
        raise others

"""What goes wrong in an object: the error that others get, and the line in the log."""

import logging
from typing import Final, cast

from trio_wspair._rules.errors import DurableObjectResetError
from trio_wspair._rules.state import End
from trio_wspair._tasks.nurseries import bare, failure_in, hides_failure

__all__ = ("log_failure",)

_logger: Final = logging.getLogger("trio_wspair")


def log_failure(
    exc: BaseException, label: str, what: str, end: End | None = None
) -> None:
    """Log what an object has raised, and raise the rest: `Cancelled` and the like.

    Both come in one group if tasks of it were cancelled and one failed over that. What
    says only that the peer of the socket has ended like this is no failure. A reset was
    logged where it was made.
    """
    if isinstance(exc, DurableObjectResetError) and not hides_failure(exc):
        return
    errors: Exception | None = None
    others: BaseException | None = None
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        errors, others = group.split(Exception)
    elif isinstance(exc, Exception):
        errors = exc
    else:
        others = exc
    if errors is not None:
        facts = {"object": label}
        left = failure_in(errors, end)
        if left is None:
            message = "%s of %s has ended with its client: %s"
            _logger.debug(message, what, label, bare(errors), extra=facts)
        else:
            message = "%s of %s failed"
            _logger.error(message, what, label, exc_info=left, extra=facts)
    if others is not None:
        raise others

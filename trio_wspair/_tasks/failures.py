"""What the log is told of a failure: the exception itself, if it is a failure at all.

Knows exceptions and how a conversation ends; no logger. An error tracker groups
records by the exception in their `exc_info`, so that is not a group around the only
one that was raised, as nurseries make it.
"""

from typing import cast

from trio_wspair._rules.codes import Close
from trio_wspair._rules.errors import ConnectionClosedError
from trio_wspair._rules.state import End

__all__ = ("bare", "failure_in", "hides_failure")


def bare(exc: BaseException) -> BaseException:
    """Return the only exception in a group, however deep, and else `exc` itself.

    It has its own traceback, which leads from the nursery to where it was raised.
    """
    while isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        if len(group.exceptions) != 1:
            return group
        exc = group.exceptions[0]
    return exc


def failure_in(exc: Exception, end: End | None) -> Exception | None:
    """Return what is left of `exc` without those who say only that the peer has ended.

    Any client can cause a `ConnectionClosedError` in a handler, and it is no failure of
    the handler: the conversation is over. One that was raised while another exception
    was handled is left, as that one may be a failure: of ``finally: ws.send("bye")``
    nobody would see it otherwise.

    Args:
        exc: What was raised, perhaps a group.
        end: What the peer has said last, if anything.
    """

    def tells_end(one: BaseException) -> bool:
        if end is None or not isinstance(one, ConnectionClosedError):
            return False
        code = end.code if isinstance(end, Close) else 1006
        return one.code == code and all(map(tells_end, _handled_before(one)))

    rest: BaseException | None = exc
    if isinstance(exc, ExceptionGroup):
        group = cast("ExceptionGroup[Exception]", exc)
        _, rest = group.split(tells_end)
    elif tells_end(exc):
        rest = None
    if rest is None:
        return None
    left = bare(rest)
    assert isinstance(left, Exception)
    return left


def hides_failure(exc: Exception) -> bool:
    """Return whether `exc`, which is no failure, was raised while one was handled."""
    return any(
        not isinstance(before, type(exc)) or hides_failure(before)
        for before in _handled_before(exc)
    )


def _handled_before(exc: BaseException) -> list[Exception]:
    """Return the exception that was handled when `exc` was raised, if there is one.

    Cancellation and the like are passed over.
    """
    before: BaseException | None = exc
    while before is not None:
        is_hidden = before.__suppress_context__
        before = before.__cause__ or (None if is_hidden else before.__context__)
        if isinstance(before, Exception):
            return [before]
    return []

"""Nurseries, cancellation and exception groups: what goes beyond Trio itself.

Knows no halves and no logger. Of a failure, the log gets the exception itself rather
than a group around it: error trackers sort records by the exception in `exc_info`.
"""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, cast

import trio

from trio_wspair._rules.codes import Close
from trio_wspair._rules.errors import ConnectionClosedError, InvalidStateError
from trio_wspair._rules.state import End

__all__ = (
    "bare",
    "check_in_trio",
    "check_nursery_is_here",
    "failure_in",
    "hides_failure",
    "let_others_clean_up",
    "let_unread_bytes_count",
    "open_service_nursery",
    "raise_together",
)

_STEPS_FROM_THE_SOCKET: Final = 6
"""At most so many tasks, one after the other, pass on what was read from a socket."""


def check_in_trio() -> None:
    """Check that the caller runs in a task of Trio.

    Raises:
        RuntimeError: It does not; the text differs if it runs in asyncio.
    """
    if trio.lowlevel.in_trio_task():
        return
    msg = "trio-wspair works in a Trio run only: start it with trio.run()"
    if _in_asyncio():
        msg = "this is asyncio, and trio-wspair needs Trio: start it with trio.run()"
    raise RuntimeError(msg)


def _in_asyncio() -> bool:
    asyncio = sys.modules.get("asyncio")  # Importing it takes time.
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def check_nursery_is_here(nursery: trio.Nursery, what: str) -> None:
    """Check that a nursery belongs to the Trio run of the caller.

    Raises:
        InvalidStateError: It belongs to another one, or the caller runs in no Trio run.
    """
    try:
        here = trio.lowlevel.current_root_task()
    except RuntimeError:  # There is no run in this thread.
        here = None
    root = nursery.parent_task
    while (parent := root.parent_nursery) is not None:
        root = parent.parent_task
    if root is not here:
        msg = (
            f"{what} has to be called in the Trio run of its nursery. That has ended, "
            "or it runs in another thread; there, use trio.from_thread.run_sync(), or "
            "trio.from_thread.run() for what is async"
        )
        raise InvalidStateError(msg)


async def let_others_clean_up() -> None:
    """Let tasks that are cancelled at the same moment run first, whatever the order.

    They may call `close()` in a ``finally``, which shall count. Two steps: a task that
    checks for cancellation is one step ahead of a task that is woken by it.
    """
    await trio.lowlevel.cancel_shielded_checkpoint()
    await trio.lowlevel.cancel_shielded_checkpoint()


async def let_unread_bytes_count() -> None:
    """Let what has arrived take effect before a deadline that has passed does.

    The loop may have been blocked, or the machine suspended, while the peer was in
    time; and Trio runs timers and readers in no certain order. Each step is a pass of
    the loop, which looks at the sockets. What arrives later is not waited for.
    """
    for _ in range(_STEPS_FROM_THE_SOCKET):
        await trio.lowlevel.cancel_shielded_checkpoint()


@asynccontextmanager
async def open_service_nursery() -> AsyncGenerator[trio.Nursery, None]:
    """Open a nursery that is cancelled when its block ends.

    An exception of the block comes out as it is, unless tasks have raised something
    other than `Cancelled`. So the code around it need not know of the nursery.

    Raises:
        RuntimeError: This is not a task of Trio.
    """
    check_in_trio()
    error: BaseException | None = None
    others: BaseException | None = None
    cancelled: BaseException | None = None
    passed: BaseException | None = None
    by_tasks: BaseExceptionGroup[BaseException] | None = None
    try:
        try:
            async with trio.open_nursery(strict_exception_groups=True) as nursery:
                try:
                    yield nursery
                except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised below
                    error = exc
                    cancelled, others = _split_cancelled(exc)
                    if cancelled is not None:  # It may come from this nursery.
                        raise cancelled from None  # noqa: ASYNC104
                finally:
                    nursery.cancel_scope.cancel(reason="the block has ended")
        except BaseExceptionGroup as group:
            passed, by_tasks = group.split(trio.Cancelled)
            if error is None or (by_tasks is not None and others is None):
                raise
            if passed is not None or others is None:
                others = error
            if by_tasks is not None:
                message = group.message
                group = BaseExceptionGroup(message, [others, *by_tasks.exceptions])
                raise group from None
        if others is not None:
            raise others
    finally:  # Their tracebacks refer to this frame.
        del error, others, cancelled, passed, by_tasks


def _split_cancelled(
    exc: BaseException,
) -> tuple[BaseException | None, BaseException | None]:
    """Return the part of an exception that is `Cancelled`, and the rest."""
    if isinstance(exc, trio.Cancelled):
        return exc, None
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        cancelled, others = group.split(trio.Cancelled)
        if cancelled is not None:
            return cancelled, others
        return None, group
    return None, exc


def raise_together(
    raised: list[BaseException], message: str = "listeners of WebSockets raised"
) -> None:
    """Raise these exceptions, as a group if they are several.

    A `Cancelled` beside others is left out, as those end the nursery, too. The list is
    empty afterwards: tracebacks refer to frames, which refer to the list.
    """
    parts = [_split_cancelled(exc)[1] for exc in raised]
    kept = [exc for exc in parts if exc is not None] or raised[:1]
    raised.clear()
    parts.clear()
    try:
        if len(kept) == 1:
            raise kept[0]
        if kept:
            raise BaseExceptionGroup(message, kept)
    finally:
        del kept


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
    """Return `exc` without the exceptions that only report the end of the peer.

    Any client can cause a `ConnectionClosedError` in a handler. It is not a failure of
    the handler: the conversation is over. One that was raised while another exception
    was handled is kept, as the other one may be a failure, which would be hidden by
    ``finally: ws.send("bye")``.

    Args:
        exc: The exception, perhaps a group.
        end: The end that has come from the peer, if any.
    """

    def reports_end(one: BaseException) -> bool:
        if end is None or not isinstance(one, ConnectionClosedError):
            return False
        code = end.code if isinstance(end, Close) else 1006
        return one.code == code and all(map(reports_end, _handled_before(one)))

    rest: BaseException | None = exc
    if isinstance(exc, ExceptionGroup):
        group = cast("ExceptionGroup[Exception]", exc)
        _, rest = group.split(reports_end)
    elif reports_end(exc):
        rest = None
    if rest is None:
        return None
    left = bare(rest)
    assert isinstance(left, Exception)
    return left


def hides_failure(exc: Exception) -> bool:
    """Return whether `exc`, not a failure itself, was raised while one was handled."""
    return any(
        not isinstance(before, type(exc)) or hides_failure(before)
        for before in _handled_before(exc)
    )


def _handled_before(exc: BaseException) -> list[Exception]:
    """Return the exception that was handled when `exc` was raised, if there is one.

    Cancellation and the like are skipped.
    """
    before: BaseException | None = exc
    while before is not None:
        is_hidden = before.__suppress_context__
        before = before.__cause__ or (None if is_hidden else before.__context__)
        if isinstance(before, Exception):
            return [before]
    return []

"""Nurseries, cancellation and exception groups: additions to Trio.

Knows no halves and no logger. Callers log an exception without the groups around it
(see `bare()`), as error trackers sort records by the exception in `exc_info`.
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
"""The most tasks, one after the other, that pass on what was read from a socket."""


def check_in_trio() -> None:
    """Check that the caller runs in a task of Trio.

    Raises:
        RuntimeError: The caller runs in asyncio, or in no event loop.
    """
    if trio.lowlevel.in_trio_task():
        return
    msg = "trio-wspair works in a Trio run only: start it with trio.run()"
    if _in_asyncio():
        msg = "this is asyncio, and trio-wspair needs Trio: start it with trio.run()"
    raise RuntimeError(msg)


def _in_asyncio() -> bool:
    asyncio = sys.modules.get("asyncio")  # An import would take time.
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
        InvalidStateError: The nursery belongs to another Trio run, or the caller runs
            in none.
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
            f"{what} has to be called in the Trio run of its nursery. That run has "
            "ended, or is in another thread; from another thread, call it by "
            "trio.from_thread.run_sync(), or by trio.from_thread.run() if it is async"
        )
        raise InvalidStateError(msg)


async def let_others_clean_up() -> None:
    """Let all tasks that are cancelled at the same moment run before the caller.

    These tasks may call `close()` in a ``finally``, and this Close is to be sent. Two
    checkpoints are needed: of two cancelled tasks, one that was at a checkpoint runs a
    pass of the scheduler earlier than one that is woken from a wait.
    """
    await trio.lowlevel.cancel_shielded_checkpoint()
    await trio.lowlevel.cancel_shielded_checkpoint()


async def let_unread_bytes_count() -> None:
    """Let bytes that have arrived take effect before a deadline that has passed.

    The event loop may have been blocked, or the machine suspended, when the bytes
    arrived in time; and Trio runs timers and readers in no certain order. Each
    checkpoint is a pass of the event loop, which looks at the sockets. Bytes that
    arrive later are not waited for.
    """
    for _ in range(_STEPS_FROM_THE_SOCKET):
        await trio.lowlevel.cancel_shielded_checkpoint()


@asynccontextmanager
async def open_service_nursery() -> AsyncGenerator[trio.Nursery, None]:
    """Open a nursery that is cancelled when its block ends.

    An exception of the block is raised without a group around it, unless tasks of the
    nursery have raised something other than `Cancelled`. So the code around the block
    need not know of the nursery.

    Raises:
        RuntimeError: The caller does not run in a task of Trio.
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
                    if cancelled is not None:  # This nursery may have cancelled it.
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
    finally:  # The tracebacks refer to this frame.
        del error, others, cancelled, passed, by_tasks


def _split_cancelled(
    exc: BaseException,
) -> tuple[BaseException | None, BaseException | None]:
    """Return the part of an exception that is `Cancelled`, and the other part."""
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
    """Raise these exceptions; several are raised as a group.

    A `Cancelled` is left out if there are other exceptions, as those end the nursery,
    too. The list is emptied, as tracebacks refer to frames that refer to the list.
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
    """Return `exc` without the groups of one exception around it.

    The returned exception has a traceback from the nursery to the line that raised it.
    """
    while isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        if len(group.exceptions) != 1:
            return group
        exc = group.exceptions[0]
    return exc


def failure_in(exc: Exception, end: End | None) -> Exception | None:
    """Return `exc` without the exceptions that only report the end of the peer.

    Any client can cause a `ConnectionClosedError` in a handler. This is not a failure
    of the handler: the conversation is over. But a `ConnectionClosedError` that was
    raised while another exception was handled is kept, as ``finally: ws.send("bye")``
    would otherwise hide a failure.

    Args:
        exc: The exception, perhaps a group.
        end: The end that the peer has sent, if any.
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
    """Whether `exc` was raised while an exception of another class was handled."""
    return any(
        not isinstance(before, type(exc)) or hides_failure(before)
        for before in _handled_before(exc)
    )


def _handled_before(exc: BaseException) -> list[Exception]:
    """Return the exception that was being handled when `exc` was raised, if any.

    `Cancelled`, `KeyboardInterrupt` and the like are skipped.
    """
    before: BaseException | None = exc
    while before is not None:
        is_hidden = before.__suppress_context__
        before = before.__cause__ or (None if is_hidden else before.__context__)
        if isinstance(before, Exception):
            return [before]
    return []

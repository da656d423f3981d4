"""Structured concurrency beyond Trio's own: for nurseries, cancellations and groups."""

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
"""Tasks that pass on what was read, one after the other, with some to spare."""


def check_in_trio() -> None:
    """Check that the caller runs in a task of Trio.

    Raises:
        RuntimeError: It does not; the text says so if it runs in asyncio.
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
        InvalidStateError: It belongs to another one, or the caller is in none.
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
    """Let tasks that are cancelled at the same moment go first, whatever the order.

    They may say `close()` in a ``finally``, and that shall count. Two steps, as who
    looks for a cancellation by itself is one step ahead of who is woken by it.
    """
    await trio.lowlevel.cancel_shielded_checkpoint()
    await trio.lowlevel.cancel_shielded_checkpoint()


async def let_unread_bytes_count() -> None:
    """Let what has arrived take effect before a deadline that has passed does.

    The loop may have been blocked, or the machine suspended, while the peer was in
    time; and whether Trio runs timers or readers first is luck. Each step is a pass
    of the loop, in which sockets are looked at. Nothing that arrives later is waited
    for.
    """
    for _ in range(_STEPS_FROM_THE_SOCKET):
        await trio.lowlevel.cancel_shielded_checkpoint()


@asynccontextmanager
async def open_service_nursery() -> AsyncGenerator[trio.Nursery, None]:
    """Open a nursery that is cancelled when its block ends.

    What the block raises comes out as it is, when nothing else was raised but a
    `Cancelled`, which it stands for. Nobody outside has to know of the nursery.

    Raises:
        RuntimeError: This is no task of Trio.
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
                    if cancelled is not None:  # It may be meant for this very nursery.
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
    """Raise these, as a group if they are several.

    A `Cancelled` beside others is left out: they end the nursery too. The list is
    empty afterwards, as tracebacks refer to the frames that refer to it.
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

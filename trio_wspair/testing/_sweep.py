"""Rare moments forced at every step: cancelling an operation, and leaving memory."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import trio

from trio_wspair.hibernation import DurableObjectNamespace

__all__ = (
    "Attempt",
    "cancel_at_every_step",
    "hibernate_after_every_event",
)


class Attempt:
    """A block of code that is cancelled at one of its steps: ``with attempt:``."""

    number: int
    """How many beginnings and ends of steps come before the cancellation."""
    entered: bool
    """Whether the block was reached."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.entered = False
        self._scope = trio.CancelScope()
        self._countdown = _Countdown(number, self._scope)

    @property
    def cancelled(self) -> bool:
        """Whether the block was cut short.

        Otherwise it has ended as if nothing had happened: its step did not come, or
        came too late to be noticed, or there is nothing in it that can be cancelled.
        """
        return self._scope.cancelled_caught

    @property
    def got_through(self) -> bool:
        """Whether the block ended before its step came."""
        return not self._scope.cancel_called

    def __enter__(self) -> Self:
        self.entered = True
        self._scope.__enter__()
        trio.lowlevel.add_instrument(self._countdown)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        trio.lowlevel.remove_instrument(self._countdown)
        return self._scope.__exit__(exc_type, exc, traceback)

    def __repr__(self) -> str:
        return f"<Attempt number {self.number}>"


class _Countdown(trio.abc.Instrument):
    """Cancels a scope at a beginning or an end of a step of any task.

    At an end, the task waits already; at a beginning, it has been woken.
    """

    def __init__(self, number: int, scope: trio.CancelScope) -> None:
        self._left = number + 1
        self._scope = scope
        self._count()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        self._count()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        # Else the beginning of the next step is the same moment.
        if not trio.lowlevel.current_statistics().tasks_runnable:
            self._count()

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._scope.cancel(reason="the sweep has come to this step")


def cancel_at_every_step() -> Iterator[Attempt]:
    """Cancel a block at each of its steps in turn, until it gets through.

    A step is what any task of the program does between two moments at which Trio can
    switch tasks. So the block is cancelled before it waits, while it waits, and when
    it has been woken but doesn't know yet, with everything around it at any stage::

        for attempt in cancel_at_every_step():
            async with open_websocket_pair() as (client, server):
                client.accept()
                server.accept()
                with attempt:
                    await client.aclose()
                assert client.ready_state is ReadyState.CLOSED

    What is set up before the block and checked after it is never cancelled. The block
    has to end by itself: one that only ends when it is cancelled is waited for.

    The steps of a program are the same again if its input is; with a network below, or
    with several tasks that can run at the same time, repeat the sweep.

    Raises:
        RuntimeError: The attempt was not entered.
    """
    number = 0
    while True:
        attempt = Attempt(number)
        yield attempt
        if not attempt.entered:
            msg = "write 'with attempt:' around what is to be cancelled"
            raise RuntimeError(msg)
        if attempt.got_through:
            return
        number += 1


@contextmanager
def hibernate_after_every_event(
    namespace: DurableObjectNamespace,
) -> Generator[None, None, None]:
    """Let the objects of `namespace` leave memory whenever no event runs in them.

    An object that keeps what it needs in attachments, tags and `env` behaves just
    the same; one that relies on an attribute is found out. Even between two messages
    that are there already it is another instance, unlike with ``hibernate_after=0``.
    What keeps an object awake does so here too.

    Args:
        namespace: It need not be open yet.

    Raises:
        TypeError: It is no namespace.
    """
    if not isinstance(namespace, DurableObjectNamespace):
        kind = type(namespace).__name__
        msg = f"namespace is a DurableObjectNamespace, not {kind}"
        raise TypeError(msg)
    residence = namespace._residence
    before = residence.leaves_at_once
    residence.leaves_at_once = True
    for actor in namespace._actors.values():
        actor.look_around()
    try:
        yield
    finally:
        residence.leaves_at_once = before

"""Rare moments forced in tests: cancelling at every step, hibernating after each event.

Knows Trio's steps of tasks, and the one setting of a namespace that this needs.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import trio

from trio_wspair.hibernation import DurableObjectNamespace

__all__ = ("Attempt", "cancel_at_every_step", "hibernate_after_every_event")


class Attempt:
    """A block of code that is cancelled at one of its steps: ``with attempt:``."""

    number: int
    """How many starts and ends of steps come before the cancellation."""
    entered: bool
    """Whether the block was entered."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.entered = False
        self._scope = trio.CancelScope()
        self._countdown = _Countdown(number, self._scope)

    @property
    def cancelled(self) -> bool:
        """Whether the cancellation has ended the block.

        Otherwise the block has ended normally: before its step, or without reaching
        another checkpoint after it, or because all in it is shielded.
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
    """Cancels a scope at a start or an end of a step of any task.

    At an end, the task waits; at a start, it has been woken.
    """

    def __init__(self, number: int, scope: trio.CancelScope) -> None:
        self._left = number + 1
        self._scope = scope
        self._count()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        self._count()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        # Otherwise the start of the next step is the same moment.
        if not trio.lowlevel.current_statistics().tasks_runnable:
            self._count()

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._scope.cancel(reason="cancel_at_every_step() cancels at this step")


def cancel_at_every_step() -> Iterator[Attempt]:
    """Cancel a block at each of its steps in turn, until it ends before its step.

    A step is what any task of the program does between two points at which Trio can
    switch tasks. So the block is cancelled before it waits, while it waits, and when it
    was woken but has not run yet, in combination with each step of all other tasks::

        for attempt in cancel_at_every_step():
            async with open_websocket_pair() as (client, server):
                client.accept()
                server.accept()
                with attempt:
                    await client.aclose()
                assert client.ready_state is ReadyState.CLOSED

    The code before and after the block is never cancelled. The block has to end by
    itself: the sweep doesn't end if the block ends only when it is cancelled.

    The steps of a program are the same in each attempt if its input is. If it uses a
    network, or if several tasks can run at the same time, repeat the sweep.

    Raises:
        RuntimeError: The loop went on without ``with attempt:``.
    """
    number = 0
    while True:
        attempt = Attempt(number)
        yield attempt
        if not attempt.entered:
            msg = "put the code to cancel into a block 'with attempt:'"
            raise RuntimeError(msg)
        if attempt.got_through:
            return
        number += 1


@contextmanager
def hibernate_after_every_event(
    namespace: DurableObjectNamespace,
) -> Generator[None, None, None]:
    """Make the objects of `namespace` hibernate after every event.

    An object that keeps its state in attachments, tags and `env` behaves the same as
    without; one that keeps state in an attribute fails. Unlike with
    ``hibernate_after=0``, a new instance handles each message, also when the next
    message has already arrived. What else keeps an object awake still does.

    Args:
        namespace: The namespace, which may be opened later.

    Raises:
        TypeError: It isn't a `DurableObjectNamespace`.
    """
    if not isinstance(namespace, DurableObjectNamespace):
        kind = type(namespace).__name__
        msg = f"namespace is a DurableObjectNamespace, not {kind}"
        raise TypeError(msg)
    residence = namespace._residence
    before = residence.leaves_at_once
    residence.leaves_at_once = True
    for actor in namespace._actors.values():
        actor.sleep_if_idle()
    try:
        yield
    finally:
        residence.leaves_at_once = before

"""`Turnstile`: tasks that have to wait go on in the order in which they came.

Knows only a function that returns whether they may go on.

Theory of operation. A `trio.Event` wakes all the tasks that wait for it together, in
random order. Here each task wakes the next one when it goes on itself. So the second
task is checked only when the first has run to its next checkpoint, since the first may
close the turnstile again.
"""

from collections import deque
from collections.abc import Callable

import trio

__all__ = ("Turnstile",)


class Turnstile:
    """A place where tasks wait until it is open.

    Each method takes `is_open`, always the same function, which returns whether a task
    may go on now. The turnstile does not keep the function, to avoid a cycle of
    references to the turnstile's owner. The owner calls `admit()` when the result
    becomes true.
    """

    def __init__(self) -> None:
        self._turns: deque[trio.Event] = deque()
        self._admitting = False
        """Whether a task was woken and has not run yet."""

    def __bool__(self) -> bool:
        """Return whether any task is waiting."""
        return self._admitting or bool(self._turns)

    def is_clear(self, is_open: Callable[[], bool]) -> bool:
        """Return whether a task may go on without `pass_through()`."""
        return not self._turns and not self._admitting and is_open()

    async def pass_through(self, is_open: Callable[[], bool]) -> None:
        """Wait for this task's turn, if `is_clear()` has returned false."""
        turn = trio.Event()
        self._turns.append(turn)
        while True:
            try:
                await turn.wait()
            except BaseException:
                if turn.is_set():  # Its turn came after it was cancelled.
                    self._admitting = False
                    self.admit(is_open)
                else:
                    self._turns.remove(turn)
                raise
            self._admitting = False
            if is_open():
                break
            # It was closed again before this task ran.
            turn = trio.Event()
            self._turns.appendleft(turn)
        self.admit(is_open)

    def admit(self, is_open: Callable[[], bool]) -> None:
        """Let the waiting tasks go on, one by one, if it is open."""
        if self._turns and not self._admitting and is_open():
            self._admitting = True
            self._turns.popleft().set()

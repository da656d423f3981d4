"""`Turnstile`: tasks that have to wait go on in the order in which they came.

Knows nothing of what they wait for, only whether it is there. Tasks that wait for a
`trio.Event` are woken together, in an order that is luck. Here each task wakes the next
one as it goes on itself: so the first has run to its next checkpoint when the second is
asked whether it may still go on.
"""

from collections import deque
from collections.abc import Callable

import trio

__all__ = ("Turnstile",)


class Turnstile:
    """Where tasks wait until it is open.

    Each method is told by `is_open`, which is always the same function, whether a task
    may go on now. It is not kept, as it refers to what has the turnstile. When it
    becomes true, somebody has to call `admit()`.
    """

    def __init__(self) -> None:
        self._turns: deque[trio.Event] = deque()
        self._admitting = False
        """A task was woken that has not run yet."""

    def __bool__(self) -> bool:
        """Return whether a task waits."""
        return self._admitting or bool(self._turns)

    def is_clear(self, is_open: Callable[[], bool]) -> bool:
        """Return whether a task may go on without `pass_through()`."""
        return not self._turns and not self._admitting and is_open()

    async def pass_through(self, is_open: Callable[[], bool]) -> None:
        """Wait for one's turn, where it is not clear."""
        turn = trio.Event()
        self._turns.append(turn)
        while True:
            try:
                await turn.wait()
            except BaseException:
                if turn.is_set():  # It was cancelled already when its turn came.
                    self._admitting = False
                    self.admit(is_open)
                else:
                    self._turns.remove(turn)
                raise
            self._admitting = False
            if is_open():
                break
            # Somebody has closed it again meanwhile.
            turn = trio.Event()
            self._turns.appendleft(turn)
        self.admit(is_open)

    def admit(self, is_open: Callable[[], bool]) -> None:
        """Let the tasks that wait go on, one by one, if it is open."""
        if self._turns and not self._admitting and is_open():
            self._admitting = True
            self._turns.popleft().set()

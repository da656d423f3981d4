"""What is said to many at once, and sent together.

Knows nothing of connections, only that they rather send at the end of a batch, in the
task that is running, than each wake a task of their own.
"""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

__all__ = ("batch", "send_later")


class _Batch(threading.local):
    """The batch that is being made; each run of Trio has a thread of its own."""

    sends: list[Callable[[], None]] | None = None


_current: Final = _Batch()


@contextmanager
def batch() -> Generator[None, None, None]:
    """Send what the block has said when it is over. The block must not await."""
    before = _current.sends
    sends: list[Callable[[], None]] = []
    _current.sends = sends
    try:
        yield
    finally:
        _current.sends = before
        for send in sends:
            send()


def send_later(send: Callable[[], None]) -> bool:
    """Have `send` called at the end of the batch; return whether there is one.

    It must not raise, and never block.
    """
    if _current.sends is None:
        return False
    _current.sends.append(send)
    return True

"""The queue in front of a half, where no half can show it."""

from trio_wspair._codes import Close
from trio_wspair._inbox import Inbox


async def test_a_message_that_is_released_after_the_end_is_not_counted_twice() -> None:
    inbox = Inbox(limit=1000)
    inbox.put("message", 7)
    message = inbox.items.receive_nowait()
    inbox.close()
    assert isinstance(message, str)
    inbox.release(message)
    assert (inbox.buffered, inbox.weight) == (0, 0)


async def test_only_the_first_end_counts() -> None:
    inbox = Inbox(limit=1000)
    inbox.put_end(Close(1000))
    inbox.put_end(Close(1001))
    assert inbox.end == Close(1000)

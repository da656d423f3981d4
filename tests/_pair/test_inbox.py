"""`Inbox`: behaviour that can't be seen through a half."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings, strategies as st

from trio_wspair import BufferFullError
from trio_wspair._pair.inbox import Inbox
from trio_wspair._rules.codes import Close
from trio_wspair._rules.messages import Message, as_message, size_of, weight_of

messages = st.one_of(st.text(max_size=80), st.binary(max_size=80)).map(as_message)


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


async def test_a_message_that_comes_after_the_end_is_not_intercepted() -> None:
    inbox = Inbox(limit=1000)
    seen: list[Message] = []

    def intercept(message: Message) -> Callable[[], None]:
        return lambda: seen.append(message)

    inbox.intercept = intercept
    assert inbox.put("in time", 7)
    inbox.put_end(Close(1000))
    assert inbox.put("late", 4, limited=False)
    assert seen == ["in time"]
    assert inbox.late


async def test_a_message_taken_out_of_the_queue_leaves_the_end_in_place() -> None:
    inbox = Inbox(limit=1000)
    for message in ("a", "ping", "b"):
        inbox.put(message, len(message))
    inbox.put_end(Close(1000))
    seen: list[Message] = []

    def intercept(message: Message) -> Callable[[], None] | None:
        return (lambda: seen.append(message)) if message == "ping" else None

    inbox.intercept = intercept
    inbox.intercept_queued()
    assert seen == ["ping"]
    left = [inbox.items.receive_nowait() for _ in range(3)]
    assert left == ["a", "b", Close(1000)]
    assert inbox.buffered == 2


@given(sent=st.lists(messages, max_size=8), limit=st.integers(1, 400))
@settings(max_examples=100, deadline=None)
async def test_messages_are_counted_by_the_rules_of_size_and_weight(
    sent: list[Message], limit: int
) -> None:
    inbox = Inbox(limit)
    queued: list[Message] = []
    for message in sent:
        size = size_of(message)
        fits = sum(weight_of(size_of(m)) for m in [*queued, message]) <= limit
        assert inbox.has_room(size) is fits
        if fits:
            assert inbox.put(message, size)
            queued.append(message)
        else:
            with pytest.raises(BufferFullError):
                inbox.put(message, size)
    while queued:
        assert inbox.buffered == sum(map(size_of, queued))
        assert inbox.weight == sum(weight_of(size_of(m)) for m in queued)
        taken = queued.pop(0)
        if len(queued) % 2:
            assert inbox.take() == taken
        else:
            assert inbox.items.receive_nowait() == taken
            inbox.release(taken)
    assert (inbox.buffered, inbox.weight) == (0, 0)

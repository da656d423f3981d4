"""`broadcast()`: one message for many halves."""

import pytest
import trio
from pairs import in_virtual_time

from trio_wspair import (
    BufferFullError,
    ConnectionClosedError,
    InvalidStateError,
    WebSocket,
    WebSocketPair,
    broadcast,
)
from trio_wspair._pair.verbs import half_of


def joined(
    nursery: trio.Nursery, number: int, *, max_buffered_bytes: int = 1000
) -> tuple[list[WebSocket], list[WebSocket]]:
    """Return the halves of so many pairs: those that send, and those that pull."""
    here, there = [], []
    for _ in range(number):
        near, far = WebSocketPair(nursery, max_buffered_bytes=max_buffered_bytes)
        near.accept()
        far.accept(pull=True)
        here.append(near)
        there.append(far)
    return here, there


@pytest.mark.parametrize(
    ("message", "arrives"),
    [
        ("hello", "hello"),
        ("h\u00e9llo \ud800", "h\u00e9llo \ufffd"),
        (b"bytes", b"bytes"),
        (bytearray(b"array"), b"array"),
        (memoryview(b"view"), b"view"),
        (1.0, "1"),
    ],
)
@in_virtual_time
async def test_every_half_gets_the_message(
    message: str | bytes, arrives: str | bytes
) -> None:
    async with trio.open_nursery() as nursery:
        here, there = joined(nursery, 5)
        assert broadcast(here, message) == {}
        assert [await ws.receive() for ws in there] == [arrives] * 5
        nursery.cancel_scope.cancel()


@in_virtual_time
async def test_a_half_that_cannot_send_is_returned_with_the_error() -> None:
    async with trio.open_nursery() as nursery:
        here, there = joined(nursery, 5)
        full, closing, closed, untaken, fine = here
        full.send("x" * 1000)
        closing.close()
        await there[2].aclose(3000, "bye")
        untaken, _ = WebSocketPair(nursery)
        skipped = broadcast([full, closing, closed, untaken, fine], "news")
        assert list(skipped) == [full, closing, closed, untaken]
        kinds = [BufferFullError, InvalidStateError, ConnectionClosedError]
        assert [type(error) for error in skipped.values()] == [
            *kinds,
            InvalidStateError,
        ]
        assert await there[4].receive() == "news"
        assert full.buffered_amount == 1000
        nursery.cancel_scope.cancel()


@in_virtual_time
async def test_a_half_whose_peer_has_ended_is_skipped() -> None:
    async with trio.open_nursery() as nursery:
        (here,), (there,) = joined(nursery, 1)
        half_of(there).inbox.close()  # As if it had ended a moment ago.
        assert list(broadcast([here], "x")) == [here]
        nursery.cancel_scope.cancel()


@in_virtual_time
async def test_a_value_that_is_not_a_message_is_not_sent_at_all() -> None:
    async with trio.open_nursery() as nursery:
        here, _ = joined(nursery, 2)
        both = WebSocketPair(nursery)[:]
        with pytest.raises(TypeError, match=r"json\.dumps"):
            broadcast(here, {"type": "news"})  # type: ignore[arg-type] # on purpose
        with pytest.raises(TypeError, match="sends to WebSockets, not tuple"):
            broadcast([*here, both], "x")  # type: ignore[list-item] # on purpose
        assert [ws.buffered_amount for ws in here] == [0, 0]
        nursery.cancel_scope.cancel()


def test_a_broadcast_to_an_empty_list_does_nothing() -> None:
    assert broadcast([], "hello") == {}

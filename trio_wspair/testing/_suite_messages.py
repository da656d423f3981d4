"""The checks of messages and Closes in the behaviour suite: G1, G2, G3 and G9.

Each check opens fresh ends, and sends from the `near` one to the `far` one. `Setup`
checks at the end of the block what must hold for any two halves that have ended.
"""

from typing import Final

import trio

from trio_wspair._rules.errors import BufferFullError

from ._suite_ends import Check, End, Setup, broken

__all__ = ("CHECKS_OF_MESSAGES",)

_MESSAGES: Final[tuple[str | bytes, ...]] = (
    "plain",
    "",
    b"",
    "\x00 \x7f \x80 ߿ ࠀ \uffff 𐀀 \U0010ffff",
    bytes(range(256)),
    *("x" * size for size in (125, 126, 65_535, 65_536)),
    *(bytes(size) for size in (125, 126, 65_535, 65_536)),
    "é€😀" * 30_000,
    *map(str, range(200)),
)
"""Text and binary with each size of a frame header, and characters of each width."""
_REASON: Final = "é" * 61 + "!"
"""The longest possible reason: 123 bytes."""
_MOMENT: Final = 0.2
"""Seconds that a check waits for something that should not happen."""
_CHUNK: Final = bytes(2**18)
_LARGE_CHUNK: Final = bytes(2**22)
_MAX_LARGE_CHUNKS: Final = 64
"""A half must not buffer this many (256 MiB) for an end that receives nothing."""
_MAX_CHUNKS: Final = 256
"""The way between two ends must not buffer this many (64 MiB)."""


async def messages_keep_their_order(setup: Setup) -> None:
    """G1: messages of all kinds and sizes."""
    async with setup.ends() as (near, far):
        near.accept()
        far.accept()
        near.send(*_MESSAGES)
        near.close(1000)
        await far.expect(*_MESSAGES, code=1000)


async def both_directions_work_at_once(setup: Setup) -> None:
    """G1: neither direction waits for the other."""
    texts = [str(number) for number in range(300)]
    async with setup.ends() as (near, far):
        near.accept()
        far.accept()
        for text in texts:
            near.send(text)
            far.send(text.encode())
            if text.endswith("0"):
                await _drain(near)
        await far.expect(*texts)
        await near.expect(*(text.encode() for text in texts))


async def codes_and_reasons_arrive(setup: Setup) -> None:
    """G2: the far end gets code and reason, and the near end the code in the answer."""
    closes = [(1000, ""), (3000, "over"), (4999, _REASON)]
    empty = [(None, None)] if setup.empty_close else []
    for code, reason in closes + empty:
        async with setup.ends() as (near, far):
            near.accept()
            far.accept()
            near.close(code, reason)
            await far.expect(code=code or 1005, reason=reason)
            await near.expect(code=code or 1005)


async def both_may_close_at_once(setup: Setup) -> None:
    """G2 and G3: each gets the messages sent before, and one close event."""
    async with setup.ends() as (near, far):
        near.accept()
        far.accept()
        near.send("from near")
        far.send("from far")
        await near.expect("from far")
        await far.expect("from near")
        near.close(3001)
        far.close(3002)
        if setup.half_open:
            await far.expect("from near", code=3001)
            await near.expect("from far", code=3002)
        else:  # The layer below may have answered first.
            await far.expect("from near", code=(3001, 3002))
            await near.expect("from far", code=(3001, 3002))


async def an_end_may_be_accepted_late(setup: Setup) -> None:
    """G3: messages wait for it, and so does the Close."""
    async with setup.ends() as (near, far):
        near.accept()
        near.send("early", b"bird")
        near.close(3000, "over")
        await trio.sleep(_MOMENT)
        far.accept()
        await far.expect("early", b"bird", code=3000, reason="over")


async def messages_may_be_pulled(setup: Setup) -> None:
    """G3: iteration yields all messages, and ends with the Close."""
    async with setup.ends() as (near, far):
        near.accept()
        far.accept(pull=True)
        near.send("a", b"b", "c")
        near.close(1000, "over")
        with far.keeping("G3", "iteration"):
            pulled = [message async for message in far.socket]
        far.check_messages(["a", b"b", "c"], pulled)
        await far.expect(code=1000, reason="over")


async def an_end_may_be_half_open(setup: Setup) -> None:
    """G3: it can send after it has received a Close, until it sends its own."""
    if not setup.half_open:
        return
    async with setup.ends() as (near, far):
        near.accept()
        far.accept(allow_half_open=True)
        near.close(3000)
        await far.expect(code=3000)
        far.send("the", "rest")
        far.close(3001, "all sent")
        await near.expect("the", "rest", code=3001, reason="all sent")


async def drain_waits_until_all_is_taken(setup: Setup) -> None:
    """G9: and `buffered_amount` counts the bytes that are not taken."""
    async with setup.ends() as (near, far):
        near.accept()
        far.accept()
        near.send("é" * 10)
        if near.socket.buffered_amount not in (0, 20):
            what = f"buffered_amount is {near.socket.buffered_amount}, not 20 bytes"
            raise broken("G9", f"{what} after a message of {near.name}")
        await _drain(near)
        if near.socket.buffered_amount:
            what = f"buffered_amount is {near.socket.buffered_amount}, not 0"
            raise broken("G9", f"{what} after drain() of {near.name}")
        await far.expect("é" * 10)


async def a_slow_end_stops_the_other(setup: Setup) -> None:
    """G9: drain() waits for an end that receives nothing, and no message is dropped."""
    async with setup.ends() as (near, far):
        near.accept()
        far.accept(pull=True)
        chunks: list[str | bytes] = []
        scope = trio.CancelScope()
        while not scope.cancelled_caught:
            if len(chunks) == _MAX_CHUNKS:
                what = f"{len(chunks) * len(_CHUNK)} bytes were taken from {near.name}"
                raise broken("G9", f"{what}, though {far.name} has received nothing")
            near.send(_CHUNK)
            chunks.append(_CHUNK)
            with trio.move_on_after(_MOMENT) as scope:
                await _drain(near)
        near.close(1000)
        with far.keeping("G3", "receive()"):
            far.check_messages(chunks, [message async for message in far.socket])


async def a_sender_without_a_receiver_is_refused(setup: Setup) -> None:
    """G9: `BufferFullError` changes nothing; messages sent before it arrive."""
    async with setup.ends() as (near, far):
        near.accept()
        far.accept(pull=True)
        taken = 0
        before = 0
        try:
            while taken < _MAX_LARGE_CHUNKS:
                before = near.socket.buffered_amount
                near.socket.send(_LARGE_CHUNK)
                taken += 1
        except BufferFullError:
            after = near.socket.buffered_amount
        else:
            size = taken * len(_LARGE_CHUNK)
            what = f"{near.name} has taken {size} bytes at once without BufferFullError"
            raise broken("G9", what)
        with far.keeping("G3", f"receive() of {taken} messages"):
            arrived = [await far.socket.receive() for _ in range(taken)]
        if after != before:
            what = f"a refused message has changed the buffered_amount of {near.name}"
            raise broken("G9", f"{what} from {before} to {after}")
        far.check_messages([_LARGE_CHUNK] * taken, arrived)


CHECKS_OF_MESSAGES: Final[tuple[Check, ...]] = (
    messages_keep_their_order,
    both_directions_work_at_once,
    codes_and_reasons_arrive,
    both_may_close_at_once,
    an_end_may_be_accepted_late,
    messages_may_be_pulled,
    an_end_may_be_half_open,
    drain_waits_until_all_is_taken,
    a_slow_end_stops_the_other,
    a_sender_without_a_receiver_is_refused,
)


async def _drain(end: End) -> None:
    with end.keeping("G9", "drain()"):
        await end.socket.drain()

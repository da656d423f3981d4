"""What the behaviour suite checks of messages and Closes: G1, G2, G3 and G9.

Each check opens fresh ends, and talks from the `near` one to the `far` one. What holds
in the end, whatever has happened, is checked when its block is left; see `Meeting`.
"""

from typing import Final

import trio

from trio_wspair._rules.errors import BufferFullError

from ._suite_ends import Check, End, Meeting, broken

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
"""Text and binary of every size that has a header of its own, and of every width."""
_REASON: Final = "é" * 61 + "!"
"""As long as one can be: 123 bytes."""
_MOMENT: Final = 0.2
"""Seconds after which what has not come is taken not to come."""
_CHUNK: Final = bytes(2**18)
_LARGE_CHUNK: Final = bytes(2**22)
_TOO_MUCH_TO_HOLD: Final = 64
"""So many of them, 256 MiB, are not to be held for an end that takes nothing."""
_TOO_MUCH: Final = 256
"""So many chunks, 64 MiB, have no place between two ends."""


async def messages_keep_their_order(meeting: Meeting) -> None:
    """G1: whatever they are, and how large."""
    async with meeting.ends() as (near, far):
        near.accept()
        far.accept()
        near.send(*_MESSAGES)
        near.close(1000)
        await far.hears(*_MESSAGES, code=1000)


async def both_directions_work_at_once(meeting: Meeting) -> None:
    """G1: neither waits for the other."""
    texts = [str(number) for number in range(300)]
    async with meeting.ends() as (near, far):
        near.accept()
        far.accept()
        for text in texts:
            near.send(text)
            far.send(text.encode())
            if text.endswith("0"):
                await _draining(near)
        await far.hears(*texts)
        await near.hears(*(text.encode() for text in texts))


async def codes_and_reasons_arrive(meeting: Meeting) -> None:
    """G2: at the far end as they were said, and the code in the answer."""
    closes = [(1000, ""), (3000, "over"), (4999, _REASON)]
    empty = [(None, None)] if meeting.empty_close else []
    for code, reason in closes + empty:
        async with meeting.ends() as (near, far):
            near.accept()
            far.accept()
            near.close(code, reason)
            await far.hears(code=code or 1005, reason=reason)
            await near.hears(code=code or 1005)


async def both_may_close_at_once(meeting: Meeting) -> None:
    """G2 and G3: each hears what the other has said before, and one close event."""
    async with meeting.ends() as (near, far):
        near.accept()
        far.accept()
        near.send("from near")
        far.send("from far")
        await near.hears("from far")
        await far.hears("from near")
        near.close(3001)
        far.close(3002)
        if meeting.half_open:
            await far.hears("from near", code=3001)
            await near.hears("from far", code=3002)
        else:  # What has answered below may have been faster.
            await far.hears("from near", code=(3001, 3002))
            await near.hears("from far", code=(3001, 3002))


async def an_end_may_be_accepted_late(meeting: Meeting) -> None:
    """G3: what was sent waits, and so does the Close."""
    async with meeting.ends() as (near, far):
        near.accept()
        near.send("early", b"bird")
        near.close(3000, "over")
        await trio.sleep(_MOMENT)
        far.accept()
        await far.hears("early", b"bird", code=3000, reason="over")


async def messages_may_be_pulled(meeting: Meeting) -> None:
    """G3: an iteration gives all, and ends with the Close."""
    async with meeting.ends() as (near, far):
        near.accept()
        far.accept(pull=True)
        near.send("a", b"b", "c")
        near.close(1000, "over")
        with far.keeping("G3", "iteration"):
            pulled = [message async for message in far.socket]
        far.check_messages(["a", b"b", "c"], pulled)
        await far.hears(code=1000, reason="over")


async def an_end_may_be_half_open(meeting: Meeting) -> None:
    """G3: it goes on sending after the Close of the other, until its own."""
    if not meeting.half_open:
        return
    async with meeting.ends() as (near, far):
        near.accept()
        far.accept(allow_half_open=True)
        near.close(3000)
        await far.hears(code=3000)
        far.send("the", "rest")
        far.close(3001, "all sent")
        await near.hears("the", "rest", code=3001, reason="all sent")


async def drain_waits_until_all_is_taken(meeting: Meeting) -> None:
    """G9: and `buffered_amount` counts what is not."""
    async with meeting.ends() as (near, far):
        near.accept()
        far.accept()
        near.send("é" * 10)
        if near.socket.buffered_amount not in (0, 20):
            what = f"buffered_amount is {near.socket.buffered_amount}, not 20 bytes"
            raise broken("G9", f"{what} after a message of {near.name}")
        await _draining(near)
        if near.socket.buffered_amount:
            what = f"buffered_amount is {near.socket.buffered_amount}, not 0"
            raise broken("G9", f"{what} after drain() of {near.name}")
        await far.hears("é" * 10)


async def a_slow_end_stops_the_other(meeting: Meeting) -> None:
    """G9: what nobody receives is not taken, and what was taken is not dropped."""
    async with meeting.ends() as (near, far):
        near.accept()
        far.accept(pull=True)
        chunks: list[str | bytes] = []
        patience = trio.CancelScope()
        while not patience.cancelled_caught:
            if len(chunks) == _TOO_MUCH:
                what = f"{len(chunks) * len(_CHUNK)} bytes were taken from {near.name}"
                raise broken("G9", f"{what}, though {far.name} has received nothing")
            near.send(_CHUNK)
            chunks.append(_CHUNK)
            with trio.move_on_after(_MOMENT) as patience:
                await _draining(near)
        near.close(1000)
        with far.keeping("G3", "receive()"):
            far.check_messages(chunks, [message async for message in far.socket])


async def a_sender_without_a_taker_is_refused(meeting: Meeting) -> None:
    """G9: with `BufferFullError`, which changes nothing; what was taken arrives."""
    async with meeting.ends() as (near, far):
        near.accept()
        far.accept(pull=True)
        taken = 0
        before = 0
        try:
            while taken < _TOO_MUCH_TO_HOLD:
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
    a_sender_without_a_taker_is_refused,
)


async def _draining(end: End) -> None:
    with end.keeping("G9", "drain()"):
        await end.socket.drain()

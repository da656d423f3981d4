"""`FaultyStream`: a stream with chosen faults."""

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from pairs import bounded
from patched_network import WithoutHalfClose
from trio.testing import (
    MockClock,
    check_half_closeable_stream,
    check_one_way_stream,
    check_two_way_stream,
    lockstep_stream_pair,
    memory_stream_pair,
    open_stream_to_socket_listener,
    wait_all_tasks_blocked,
)

from trio_wspair.testing import FaultyStream, cancel_at_every_step

Ends = tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]
Opener = Callable[[], Awaitable[Ends]]
TEXT = bytes(range(100))


async def in_memory() -> Ends:
    return memory_stream_pair()


async def in_lockstep() -> Ends:
    return lockstep_stream_pair()


async def sockets() -> Ends:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = await open_stream_to_socket_listener(listener)
        return near, await listener.accept()


def spoiled(opener: Opener, **faults: Any) -> Opener:
    """Put faults on both ends."""

    async def open_spoiled() -> Ends:
        near, far = await opener()
        return FaultyStream(near, seed=1, **faults), FaultyStream(far, seed=2, **faults)

    return open_spoiled


async def received(stream: trio.abc.ReceiveStream) -> tuple[list[bytes], str]:
    """Return the received pieces, and how they end."""
    pieces: list[bytes] = []
    try:
        while piece := await stream.receive_some():
            pieces.append(bytes(piece))
    except trio.BrokenResourceError:
        return pieces, "reset"
    except trio.ClosedResourceError:
        return pieces, "closed"
    return pieces, "end"


# -- without faults -----------------------------------------------------------


@pytest.mark.parametrize(
    "faults",
    [{}, {"receive_at_most": 3000, "send_at_most": 2000}, {"delay": 0.0001}],
    ids=str,
)
@pytest.mark.parametrize(
    ("opener", "clogged"),
    [(in_memory, None), (in_lockstep, in_lockstep), (sockets, None)],
    ids=["memory", "lockstep", "sockets"],
)
async def test_a_stream_that_splits_and_delays_passes_the_checks_of_trio(
    opener: Opener, clogged: Opener | None, faults: dict[str, Any]
) -> None:
    with trio.fail_after(5):
        open_clogged = clogged and spoiled(clogged, **faults)
        await check_half_closeable_stream(spoiled(opener, **faults), open_clogged)


@pytest.mark.parametrize("opener", [in_memory, in_lockstep, sockets])
async def test_a_stream_of_single_bytes_passes_the_checks_of_trio(
    opener: Opener,
) -> None:
    with trio.fail_after(5):
        bytewise = spoiled(opener, receive_at_most=1, send_at_most=1)
        await check_one_way_stream(bytewise, None)


async def test_a_stream_without_half_close_can_be_wrapped() -> None:
    async def open_two_way() -> tuple[FaultyStream, FaultyStream]:
        near, far = memory_stream_pair()
        return FaultyStream(WithoutHalfClose(near)), FaultyStream(WithoutHalfClose(far))

    with trio.fail_after(5):
        await check_two_way_stream(open_two_way, None)
        stream, _ = await open_two_way()
        with pytest.raises(
            TypeError, match="a HalfCloseableStream below, not WithoutHalfClose"
        ):
            await stream.send_eof()


@bounded
async def test_a_delayed_send_refuses_others(autojump_clock: MockClock) -> None:
    near, _ = memory_stream_pair()
    stream = FaultyStream(near, delay=1.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, b"slowly")
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await stream.send_all(b"meanwhile")
        with pytest.raises(trio.BusyResourceError):
            await stream.wait_send_all_might_not_block()
        with pytest.raises(trio.BusyResourceError):
            await stream.send_eof()


# -- pieces -------------------------------------------------------------------


async def pieces_received(**faults: Any) -> list[bytes]:
    near, far = memory_stream_pair()
    await near.send_all(TEXT)
    await near.send_eof()
    pieces, _ = await received(FaultyStream(far, **faults))
    return pieces


async def pieces_sent(**faults: Any) -> list[bytes]:
    """Return the pieces that reach the stream below."""
    near, far = lockstep_stream_pair()
    stream = FaultyStream(near, **faults)
    pieces: list[bytes] = []

    async def receive() -> None:
        pieces.extend((await received(far))[0])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await stream.send_all(TEXT)
        await stream.send_eof()
    return pieces


PIECES = pytest.mark.parametrize(
    ("get_pieces", "option"),
    [(pieces_received, "receive_at_most"), (pieces_sent, "send_at_most")],
    ids=["receiving", "sending"],
)


@PIECES
@bounded
async def test_pieces_have_random_sizes_up_to_the_chosen_one(
    get_pieces: Callable[..., Awaitable[list[bytes]]],
    option: str,
    autojump_clock: MockClock,
) -> None:
    pieces = await get_pieces(**{option: 7})
    assert b"".join(pieces) == TEXT
    assert {len(piece) for piece in pieces} >= {1, 4, 7}
    assert max(map(len, pieces)) == 7
    assert await get_pieces(**{option: 1}) == [bytes([byte]) for byte in TEXT]
    assert await get_pieces() == [TEXT]


@PIECES
@bounded
async def test_the_same_seed_makes_the_same_pieces(
    get_pieces: Callable[..., Awaitable[list[bytes]]],
    option: str,
    autojump_clock: MockClock,
) -> None:
    first = await get_pieces(seed=1, **{option: 7})
    assert await get_pieces(seed=1, **{option: 7}) == first
    assert await get_pieces(seed=2, **{option: 7}) != first


@bounded
async def test_no_more_bytes_are_received_than_asked_for(
    autojump_clock: MockClock,
) -> None:
    near, far = memory_stream_pair()
    await near.send_all(TEXT)
    stream = FaultyStream(far, receive_at_most=50)
    for _ in range(5):
        assert 1 <= len(await stream.receive_some(3)) <= 3


# -- delays -------------------------------------------------------------------


@bounded
async def test_each_piece_is_delayed_once(
    autojump_clock: MockClock,
) -> None:
    near, far = memory_stream_pair()
    stream = FaultyStream(near, send_at_most=1, delay=2.0)
    arrivals: list[float] = []

    async def receive() -> None:
        while await far.receive_some():
            arrivals.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await stream.send_all(TEXT)
        await stream.aclose()
    gaps = [b - a for a, b in zip([0.0, *arrivals], arrivals, strict=False)]
    assert len(gaps) == len(TEXT)
    assert 0 < min(gaps) < 0.5
    assert 1.5 < max(gaps) < 2


@bounded
async def test_bytes_that_come_during_a_delay_are_merged(
    autojump_clock: MockClock,
) -> None:
    near, far = memory_stream_pair()
    stream = FaultyStream(far, delay=3.0)

    async def send() -> None:
        for byte in TEXT:
            await near.send_all(bytes([byte]))
            await trio.sleep(0.5)
        await near.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        pieces, end = await received(stream)
    assert b"".join(pieces) == TEXT
    assert {len(piece) for piece in pieces} >= {1, 2, 3}
    assert end == "end"


# -- cuts ---------------------------------------------------------------------

CUTS = pytest.mark.parametrize("cut", ["end", "reset", "silence"])
PLACES = pytest.mark.parametrize("place", [0, 1, 50, 99, 100])


@CUTS
@PLACES
@bounded
async def test_a_cut_comes_after_a_number_of_received_bytes(
    cut: Any, place: int, autojump_clock: MockClock
) -> None:
    near, far = memory_stream_pair()
    await near.send_all(TEXT)
    stream = FaultyStream(far, receive_at_most=7, cut_after_received=place, cut=cut)
    pieces: list[bytes] = []
    end = "silence"
    with trio.move_on_after(500):
        while sum(map(len, pieces)) < place:
            pieces.append(await stream.receive_some())
        (rest, end) = await received(stream)
        assert rest == []
    assert b"".join(pieces) == TEXT[:place]
    assert end == cut


@CUTS
@PLACES
@bounded
async def test_a_cut_comes_after_a_number_of_sent_bytes(
    cut: Any, place: int, autojump_clock: MockClock
) -> None:
    near, far = memory_stream_pair()
    stream = FaultyStream(near, send_at_most=7, cut_after_sent=place, cut=cut)
    error = None
    try:
        await stream.send_all(TEXT)
        await stream.send_all(b"more")
    except trio.BrokenResourceError as exc:
        error = exc
    assert (error is None) is (cut == "silence")
    await stream.aclose()
    pieces, _ = await received(far)
    assert b"".join(pieces) == TEXT[:place]


@CUTS
@bounded
async def test_a_cut_ends_both_directions_also_for_waiting_tasks(
    cut: Any, autojump_clock: MockClock
) -> None:
    near, _ = memory_stream_pair()
    stream = FaultyStream(near, cut_after_sent=3, cut=cut)
    ends: list[str] = []

    async def receive() -> None:
        with trio.move_on_after(500):
            ends.append((await received(stream))[1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        await stream.send_all(b"123")
    assert ends == ([] if cut == "silence" else [cut])


@CUTS
@bounded
async def test_a_cut_raises_in_a_task_that_waits_for_room(
    cut: Any, autojump_clock: MockClock
) -> None:
    near, far = lockstep_stream_pair()
    stream = FaultyStream(near, cut_after_received=1, cut=cut)
    outcome: list[str] = []

    async def clog() -> None:
        try:
            await stream.send_all(b"never read by it")
            outcome.append("sent")
        except trio.BrokenResourceError:
            outcome.append("broken")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(clog)
        nursery.start_soon(far.send_all, b"1")
        await wait_all_tasks_blocked()
        assert await stream.receive_some() == b"1"
    assert outcome == ["sent" if cut == "silence" else "broken"]


@pytest.mark.parametrize("cut", ["end", "reset"])
@bounded
async def test_after_a_cut_sending_stays_broken(
    cut: Any, autojump_clock: MockClock
) -> None:
    near, _ = memory_stream_pair()
    stream = FaultyStream(near, cut_after_sent=0, cut=cut)
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await stream.wait_send_all_might_not_block()
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_eof()


@bounded
async def test_bytes_sent_into_silence_vanish(autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair()
    stream = FaultyStream(near, cut_after_sent=3, cut="silence")
    await stream.send_all(b"abcdef")
    await stream.send_all(b"more")
    await stream.wait_send_all_might_not_block()
    await stream.send_eof()
    assert await far.receive_some() == b"abc"
    with trio.CancelScope() as scope:
        scope.cancel()
        await far.receive_some()  # Silence: the end doesn't come.
    assert scope.cancelled_caught


@bounded
async def test_silence_ends_when_the_stream_is_closed(
    autojump_clock: MockClock,
) -> None:
    near, _ = memory_stream_pair()
    stream = FaultyStream(near, cut_after_received=0, cut="silence")
    ends: list[str] = []

    async def receive() -> None:
        ends.append((await received(stream))[1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        assert ends == []
        await stream.aclose()
    assert ends == ["closed"]


@pytest.mark.parametrize("cut", ["end", "reset"])
async def test_the_peer_of_a_socket_sees_the_cut(
    cut: Any, no_socket_left: None
) -> None:
    near, far = await sockets()
    stream = FaultyStream(near, cut_after_sent=3, cut=cut)
    with trio.fail_after(5):
        async with far, stream:
            await stream.send_all(b"123")
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"4")
            pieces, end = await received(far)
    assert end == cut
    # A reset may overtake sent bytes.
    assert b"".join(pieces) == b"123" or end == "reset"


@pytest.mark.parametrize("opener", [in_memory, sockets])
@pytest.mark.parametrize("steps", range(5))
async def test_a_cut_in_the_other_direction_drops_received_bytes(
    opener: Opener, steps: int
) -> None:
    async def receive(stream: FaultyStream) -> None:
        assert (await received(stream))[1] == "reset"

    async def send_later(stream: trio.abc.Stream) -> None:
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        with suppress(trio.BrokenResourceError):
            await stream.send_all(b"x")

    # Received bytes are being delivered when the other direction is cut.
    for seed in range(10):
        trio._core._run._r.seed(seed)
        near, far = await opener()
        stream = FaultyStream(near, cut_after_sent=1)
        with trio.fail_after(5):
            async with far, stream, trio.open_nursery() as nursery:
                nursery.start_soon(receive, stream)
                await wait_all_tasks_blocked()
                nursery.start_soon(stream.send_all, b"y")
                nursery.start_soon(send_later, far)


@bounded
async def test_a_cancelled_receive_loses_nothing_at_a_cut(
    autojump_clock: MockClock,
) -> None:
    for attempt in cancel_at_every_step():
        near, far = memory_stream_pair()
        stream = FaultyStream(far, cut_after_received=4, cut="end")
        await near.send_all(b"1234")
        data = b""
        with attempt:
            data += await stream.receive_some()
        if attempt.cancelled:
            data += await stream.receive_some()
        assert data == b"1234"
        assert await stream.receive_some() == b""


# -- corruption ---------------------------------------------------------------


@bounded
async def test_the_chosen_number_of_bytes_is_corrupted(
    autojump_clock: MockClock,
) -> None:
    async def wrong(corrupt: float, **options: Any) -> list[int]:
        got = b"".join(await pieces_received(corrupt=corrupt, **options))
        assert len(got) == len(TEXT)
        return [place for place, byte in enumerate(got) if byte != TEXT[place]]

    assert await wrong(0) == []
    assert await wrong(1) == list(range(100))
    some = await wrong(0.3)
    assert 10 < len(some) < 60
    assert await wrong(0.3, receive_at_most=7) == some
    assert await wrong(0.3, seed=1) != some


@bounded
async def test_sent_bytes_are_not_corrupted(autojump_clock: MockClock) -> None:
    assert b"".join(await pieces_sent(corrupt=1)) == TEXT


# -- closing ------------------------------------------------------------------


@bounded
async def test_closing_closes_the_stream_below_unless_it_is_kept_open(
    autojump_clock: MockClock,
) -> None:
    near, far = memory_stream_pair()
    await FaultyStream(near).aclose()
    assert await far.receive_some() == b""

    near, far = memory_stream_pair()
    stream = FaultyStream(near, keep_open=True)
    for _ in range(2):
        await stream.aclose()
    for use in (stream.receive_some, stream.wait_send_all_might_not_block):
        with pytest.raises(trio.ClosedResourceError):
            await use()
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_eof()
    await near.send_all(b"below")
    assert await far.receive_some() == b"below"


@CUTS
@bounded
async def test_a_stream_can_be_closed_after_a_cut(
    cut: Any, autojump_clock: MockClock
) -> None:
    near, _ = memory_stream_pair()
    stream = FaultyStream(near, cut_after_sent=1, cut=cut)
    await stream.send_all(b"1")
    await stream.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"2")


@bounded
async def test_the_stream_below_may_be_closed_by_another_task(
    autojump_clock: MockClock,
) -> None:
    near, _ = memory_stream_pair()
    stream = FaultyStream(near)
    await near.aclose()
    assert await received(stream) == ([], "closed")


# -- arguments ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"receive_at_most": 0}, ValueError, "receive_at_most must be at least 1"),
        ({"receive_at_most": 1.5}, TypeError, "receive_at_most must be an int"),
        ({"send_at_most": 0}, ValueError, "send_at_most must be at least 1"),
        ({"delay": -1}, ValueError, "delay must be 0 or more seconds"),
        ({"delay": "1"}, TypeError, "delay must be a number of seconds"),
        ({"cut_after_received": -1}, ValueError, "cut_after_received must be at least"),
        ({"cut_after_sent": -1}, ValueError, "cut_after_sent must be at least 0"),
        ({"cut_after_sent": "1"}, TypeError, "cut_after_sent must be an int"),
        ({"cut": "fin"}, ValueError, "cut is 'end', 'reset' or 'silence', not 'fin'"),
        ({"corrupt": 1.1}, ValueError, "corrupt is a probability from 0 to 1"),
        ({"corrupt": math.nan}, ValueError, "corrupt is a probability from 0 to 1"),
        ({"corrupt": "1"}, TypeError, "not supported"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    near, _ = memory_stream_pair()
    with pytest.raises(error, match=message):
        FaultyStream(near, **arguments)

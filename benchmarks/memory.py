"""What a pair costs while nothing happens, and to make and unmake."""

import gc
import math
import tracemalloc
from collections.abc import Callable
from typing import Final

import trio
import trio.testing

from trio_wspair import WebSocketPair

from .work import OURS, Batch, Measure, Quantity, Sample, Work, rate

__all__ = ("WORKS",)

CHANNELS: Final = "two memory channels"
TASKS: Final = "two memory channels, a task each"
PAIRS: Final = 2000

BYTES: Final = Quantity("bytes/pair", more_is_better=False)
PAIR_RATE: Final = Quantity("pairs/s")

Channels = tuple[trio.MemorySendChannel[str], trio.MemoryReceiveChannel[str]]


def open_channels() -> tuple[Channels, Channels]:
    return (
        trio.open_memory_channel[str](math.inf),
        trio.open_memory_channel[str](math.inf),
    )


async def take_all(
    receive: trio.MemoryReceiveChannel[str],
    send: trio.MemorySendChannel[str],
    over: Callable[[object], None],
) -> None:
    """Be one end of a conversation: it is over when the other end says so."""
    async for _ in receive:
        pass
    send.close()
    over(None)


# -- idle --------------------------------------------------------------------


def idle_pair(nursery: trio.Nursery) -> object:
    client, server = pair = WebSocketPair(nursery)
    client.accept()
    server.accept()
    return pair


def idle_channels(_nursery: trio.Nursery) -> object:
    return open_channels()


def idle_channels_and_tasks(nursery: trio.Nursery) -> object:
    return open_with_tasks(nursery, ignore)


def ignore(_: object) -> None:
    pass


def allocated(make: Callable[[trio.Nursery], object]) -> Measure:
    """Return a measure of the bytes that Python allocates for each."""

    async def grow() -> float:
        async with trio.open_nursery() as nursery:
            kept = [make(nursery) for _ in range(10)]
            await trio.testing.wait_all_tasks_blocked()
            gc.collect()
            tracemalloc.start()
            kept += [make(nursery) for _ in range(PAIRS)]
            await trio.testing.wait_all_tasks_blocked()
            gc.collect()
            grown, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            nursery.cancel_scope.cancel()
        return grown / PAIRS

    def measure(_seconds: float) -> Sample:
        return {BYTES.name: trio.run(grow)}

    return measure


# -- created and closed --------------------------------------------------------

Open = Callable[[trio.Nursery, Callable[[object], None]], Callable[[], object]]
"""Opens a pair that calls back at each end when it has closed; returns its `close`."""


def open_with_listeners(
    nursery: trio.Nursery, over: Callable[[object], None]
) -> Callable[[], object]:
    client, server = WebSocketPair(nursery)
    for half in client, server:
        half.add_event_listener("close", over)
        half.accept()
    return client.close


def open_with_tasks(
    nursery: trio.Nursery, over: Callable[[object], None]
) -> Callable[[], object]:
    (send_there, receive_there), (send_back, receive_back) = open_channels()
    nursery.start_soon(take_all, receive_there, send_back, over)
    nursery.start_soon(take_all, receive_back, send_there, over)
    return send_there.close


def churn(open_pair: Open, at_a_time: int) -> Measure:
    """Return a measure of the pairs that are created, and closed at both ends."""

    def prepare(nursery: trio.Nursery) -> Batch:
        async def batch() -> int:
            open_ends = 2 * at_a_time
            all_over = trio.Event()

            def over(_: object) -> None:
                nonlocal open_ends
                open_ends -= 1
                if not open_ends:
                    all_over.set()

            closes = [open_pair(nursery, over) for _ in range(at_a_time)]
            for close in closes:
                close()
            await all_over.wait()
            return at_a_time

        return batch

    return rate(PAIR_RATE, prepare)


WORKS: Final = (
    Work(
        "idle",
        "idle, both halves accepted",
        (BYTES,),
        {
            CHANNELS: allocated(idle_channels),
            TASKS: allocated(idle_channels_and_tasks),
            OURS: allocated(idle_pair),
        },
    ),
    *(
        Work(
            f"churn-{at_a_time}",
            f"created and closed, {at_a_time} at a time",
            (PAIR_RATE,),
            {
                TASKS: churn(open_with_tasks, at_a_time),
                OURS: churn(open_with_listeners, at_a_time),
            },
        )
        for at_a_time in (1, 100)
    ),
)

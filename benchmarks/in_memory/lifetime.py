"""The cost of a pair: memory while it is idle, and time to create and close it."""

import gc
import os
from collections.abc import Awaitable, Callable
from typing import Final

import trio
import trio.testing

from benchmarks.machine import resident_bytes
from benchmarks.repeating import Batch, rate
from benchmarks.workload import VALUE, Measure, Sample
from trio_wspair import WebSocketPair

from .messages import Message, open_channel

__all__ = (
    "IDLE_PAIRS",
    "WARM_PAIRS",
    "churn",
    "growth",
    "idle",
    "ignore",
    "open_accepted",
    "open_with_listeners",
    "open_with_tasks",
)

IDLE_PAIRS: Final = 10_000
WARM_PAIRS: Final = 50

OnClosed = Callable[[object], None]
Open = Callable[[trio.Nursery, OnClosed], Callable[[], object]]
"""Opens a pair, and returns the function that closes it.

Each end calls the `OnClosed` callback when it has closed.
"""


def ignore(*_: object) -> None:
    pass


def open_accepted(nursery: trio.Nursery, _on_closed: OnClosed) -> Callable[[], object]:
    client, server = WebSocketPair(nursery)
    client.accept()
    server.accept()
    return client.close


def open_with_listeners(
    nursery: trio.Nursery, on_closed: OnClosed
) -> Callable[[], object]:
    client, server = WebSocketPair(nursery)
    for half in client, server:
        half.add_event_listener("close", on_closed)
        half.accept()
    return client.close


async def take_all(
    receive: trio.MemoryReceiveChannel[Message],
    send: trio.MemorySendChannel[Message],
    on_closed: OnClosed,
) -> None:
    """Receive until the other end closes its channel; then close this end."""
    async for _ in receive:
        pass
    send.close()
    on_closed(None)


def open_with_tasks(nursery: trio.Nursery, on_closed: OnClosed) -> Callable[[], object]:
    send_there, receive_there = open_channel()
    send_back, receive_back = open_channel()
    nursery.start_soon(take_all, receive_there, send_back, on_closed)
    nursery.start_soon(take_all, receive_back, send_there, on_closed)
    return send_there.close


def idle(open_pair: Open) -> Measure:
    """Return a measure of the memory that the process allocates for each pair."""

    async def grow() -> Sample:
        async with trio.open_nursery() as nursery:

            async def open_one() -> object:
                return open_pair(nursery, ignore)

            sample = await growth(open_one)
            nursery.cancel_scope.cancel()
        return sample

    return lambda _seconds: trio.run(grow)


async def growth(open_one: Callable[[], Awaitable[object]]) -> Sample:
    """Call `open_one` often; return the memory that the process allocates per call."""
    kept = [await open_one() for _ in range(WARM_PAIRS)]
    before = await _settled_bytes()
    kept += [await open_one() for _ in range(IDLE_PAIRS)]
    return {VALUE: (await _settled_bytes() - before) / IDLE_PAIRS}


async def _settled_bytes() -> int:
    await trio.testing.wait_all_tasks_blocked()
    gc.collect()
    return resident_bytes(os.getpid())


def churn(open_pair: Open, at_a_time: int) -> Measure:
    """Return a measure of how many pairs are created and closed per second."""

    def prepare(nursery: trio.Nursery) -> Batch:
        async def batch() -> int:
            open_ends = 2 * at_a_time
            all_closed = trio.Event()

            def on_closed(_: object) -> None:
                nonlocal open_ends
                open_ends -= 1
                if not open_ends:
                    all_closed.set()

            closes = [open_pair(nursery, on_closed) for _ in range(at_a_time)]
            for close in closes:
                close()
            await all_closed.wait()
            return at_a_time

        return batch

    return rate(prepare)

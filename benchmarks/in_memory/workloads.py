"""The workloads in memory, and their implementations."""

from typing import Final

from benchmarks.repeating import rate
from benchmarks.workload import OURS, Goal, Quantity, Workload

from .discarding import broadcast_of_websockets
from .lifetime import churn, idle, open_accepted, open_with_listeners, open_with_tasks
from .messages import LARGE, TEXT
from .one_to_many import PAIRS, broadcast_to_pairs, fan_out, fan_out_to_channels
from .one_way import (
    BURST,
    LARGE_BURST,
    burst_to_channel_iteration,
    burst_to_channel_receive,
    burst_to_iteration,
    burst_to_listener,
    burst_to_receive,
    large_through_channel,
    large_to_listener,
    small_to_listener,
)
from .there_and_back import EXCHANGES, ping_pong, ping_pong_through_channels
from .workerd import idle_in_workerd, in_workerd

__all__ = ("COSTS", "MESSAGES")

CHANNELS: Final = "memory channels"
WORKERD: Final = "workerd"
SMALL: Final = "the same with 64 B"
WEBSOCKETS: Final = "websockets on asyncio"

PER_SECOND: Final = Quantity("messages/s")
ROUND_TRIPS: Final = Quantity("round trips/s")
PAIRS_PER_SECOND: Final = Quantity("pairs/s")
BYTES: Final = Quantity("bytes/pair", more_is_better=False)

MESSAGES: Final = (
    Workload(
        "burst",
        f"one way, bursts of {BURST:,} to a sync listener",
        PER_SECOND,
        {
            CHANNELS: rate(burst_to_channel_iteration),
            WORKERD: in_workerd("burst", BURST, together=BURST, size=len(TEXT)),
            OURS: rate(burst_to_listener),
        },
        (Goal(CHANNELS, 4), Goal(WORKERD, 4)),
    ),
    Workload(
        "ping-pong",
        "ping-pong between sync listeners",
        ROUND_TRIPS,
        {
            CHANNELS: rate(ping_pong_through_channels),
            WORKERD: in_workerd("pingPong", EXCHANGES, size=len(TEXT)),
            OURS: rate(ping_pong),
        },
        (Goal(CHANNELS, 3), Goal(WORKERD, 4)),
    ),
    Workload(
        "fan-out",
        f"one message to each of {PAIRS:,} pairs with sync listeners",
        PER_SECOND,
        {
            CHANNELS: rate(fan_out_to_channels),
            WORKERD: in_workerd("fanOut", PAIRS, pairs=PAIRS, size=len(TEXT)),
            OURS: rate(fan_out),
        },
        (Goal(CHANNELS, 8), Goal(WORKERD, 15)),
    ),
    Workload(
        "broadcast-in-memory",
        f"broadcast to {PAIRS:,} halves; with websockets, no peer receives",
        PER_SECOND,
        {WEBSOCKETS: broadcast_of_websockets, OURS: rate(broadcast_to_pairs)},
        (Goal(WEBSOCKETS, 1),),
    ),
    Workload(
        "iteration",
        "one way, pull mode: async for",
        PER_SECOND,
        {CHANNELS: rate(burst_to_channel_iteration), OURS: rate(burst_to_iteration)},
        (Goal(CHANNELS, 3),),
    ),
    Workload(
        "receive",
        "one way, pull mode: receive()",
        PER_SECOND,
        {CHANNELS: rate(burst_to_channel_receive), OURS: rate(burst_to_receive)},
        (Goal(CHANNELS, 1),),
    ),
    Workload(
        "large",
        f"one way, 64 KiB of bytes, bursts of {LARGE_BURST}",
        PER_SECOND,
        {
            CHANNELS: rate(large_through_channel),
            WORKERD: in_workerd(
                "burst",
                LARGE_BURST,
                together=LARGE_BURST,
                size=len(LARGE),
                binary=1,
            ),
            SMALL: rate(small_to_listener),
            OURS: rate(large_to_listener),
        },
        (Goal(SMALL, 0.9),),
        yardsticks=(SMALL,),
    ),
)

COSTS: Final = (
    Workload(
        "idle",
        "idle pairs, both halves accepted; channels with two tasks",
        BYTES,
        {
            CHANNELS: idle(open_with_tasks),
            WORKERD: idle_in_workerd,
            OURS: idle(open_accepted),
        },
        limit=5 * 1024,
    ),
    *(
        Workload(
            f"churn-{at_a_time}",
            f"created and closed, {at_a_time} at a time",
            PAIRS_PER_SECOND,
            {
                CHANNELS: churn(open_with_tasks, at_a_time),
                WORKERD: in_workerd("churn", at_a_time, together=at_a_time),
                OURS: churn(open_with_listeners, at_a_time),
            },
            (Goal(CHANNELS, 1),),
        )
        for at_a_time in (1, 100)
    ),
)

"""The workloads of Durable Objects, in memory and over loopback.

An object that is *asleep* leaves memory as soon as it is idle, and is created again for
each message.
"""

from typing import Final

from benchmarks.in_memory.one_to_many import PAIRS
from benchmarks.network.implementations import WEBSOCKETS_ASYNCIO, WEBSOCKETS_TRIO
from benchmarks.network.load import Load
from benchmarks.network.workloads import IDLE, memory, server_workload, under_load
from benchmarks.processes import Command, python
from benchmarks.workload import OURS, Quantity, Workload

from . import in_memory, websockets_trio
from .room import broadcast_to_room, send_to_room

__all__ = ("IN_MEMORY", "LOOPBACK")

AWAKE: Final = f"{OURS} awake"
ASLEEP: Final = f"{OURS} asleep"
IN_ONE: Final = f"{OURS} in one object"
SENDING: Final = f"{OURS} with send()"
BROADCASTING: Final = f"{OURS} with broadcast()"

PER_SECOND: Final = Quantity("messages/s")
BYTES: Final = Quantity("bytes/socket", more_is_better=False)


def _deliver(objects: int, title: str) -> Workload:
    return Workload(
        f"deliver-{objects}",
        title,
        PER_SECOND,
        {
            WEBSOCKETS_TRIO: websockets_trio.deliver(objects),
            AWAKE: in_memory.deliver(objects, asleep=False),
            ASLEEP: in_memory.deliver(objects, asleep=True),
        },
    )


IN_MEMORY: Final = (
    Workload(
        "idle-objects",
        "idle sockets, in an object each or all in one",
        BYTES,
        {
            WEBSOCKETS_TRIO: websockets_trio.idle(),
            IN_ONE: in_memory.idle(separate=False, asleep=True),
            AWAKE: in_memory.idle(separate=True, asleep=False),
            ASLEEP: in_memory.idle(separate=True, asleep=True),
        },
    ),
    _deliver(1, "one message at a time to one object"),
    _deliver(1000, "one message to each of 1,000 objects"),
    Workload(
        "broadcast-object",
        f"one of {PAIRS:,} sockets of an object sends, all receive",
        PER_SECOND,
        {
            WEBSOCKETS_TRIO: websockets_trio.broadcast(),
            SENDING: in_memory.broadcast(send_to_room),
            BROADCASTING: in_memory.broadcast(broadcast_to_room),
        },
    ),
)


def _serving(place: str, state: str, handle: str) -> Command:
    return python("objects", place, state, handle)


LOOPBACK: Final = (
    server_workload(
        "idle-object-connections",
        f"idle connections, {IDLE:,} of them, in an object each or all in one",
        BYTES,
        {
            WEBSOCKETS_TRIO: python("websockets_trio", "echo"),
            IN_ONE: _serving("one", "asleep", "echo"),
            AWAKE: _serving("each", "awake", "echo"),
            ASLEEP: _serving("each", "asleep", "echo"),
        },
        memory,
    ),
    server_workload(
        "broadcast-object-connections",
        "broadcast of an object to 1,000 connections",
        PER_SECOND,
        {
            WEBSOCKETS_TRIO: python("websockets_trio", "broadcast"),
            WEBSOCKETS_ASYNCIO: python("websockets_asyncio", "broadcast"),
            SENDING: _serving("one", "awake", "send"),
            BROADCASTING: _serving("one", "awake", "broadcast"),
        },
        under_load(Load("broadcast", 1000)),
    ),
)

"""The works of objects, in memory and over loopback.

An object that is *asleep* leaves memory as soon as nothing happens in it, and is built
again for each message.
"""

from typing import Final

from benchmarks.in_memory.one_to_many import PAIRS
from benchmarks.network.contestants import WEBSOCKETS_ASYNCIO, WEBSOCKETS_TRIO
from benchmarks.network.load import Load
from benchmarks.network.works import IDLE, memory, server_work, under_load
from benchmarks.processes import Command, python
from benchmarks.work import OURS, Quantity, Work

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


def _told(objects: int, title: str) -> Work:
    return Work(
        f"told-{objects}",
        title,
        PER_SECOND,
        {
            WEBSOCKETS_TRIO: websockets_trio.told(objects),
            AWAKE: in_memory.told(objects, asleep=False),
            ASLEEP: in_memory.told(objects, asleep=True),
        },
    )


IN_MEMORY: Final = (
    Work(
        "idle-objects",
        "idle sockets, an object each or all of one",
        BYTES,
        {
            WEBSOCKETS_TRIO: websockets_trio.idle(),
            IN_ONE: in_memory.idle(each=False, asleep=True),
            AWAKE: in_memory.idle(each=True, asleep=False),
            ASLEEP: in_memory.idle(each=True, asleep=True),
        },
    ),
    _told(1, "one message after the other to one object"),
    _told(1000, "one message to each of 1,000 objects"),
    Work(
        "broadcast-object",
        f"what one says to an object of {PAIRS:,}, all get",
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
    server_work(
        "idle-object-connections",
        f"idle connections, {IDLE:,} of them, an object each or all of one",
        BYTES,
        {
            WEBSOCKETS_TRIO: python("websockets_trio", "echo"),
            IN_ONE: _serving("one", "asleep", "echo"),
            AWAKE: _serving("each", "awake", "echo"),
            ASLEEP: _serving("each", "asleep", "echo"),
        },
        memory,
    ),
    server_work(
        "broadcast-object-connections",
        "broadcast to 1,000 by an object",
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

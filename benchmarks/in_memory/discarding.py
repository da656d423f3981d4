"""`websockets.broadcast()` to connections whose transports discard the bytes.

It does less than a broadcast to pairs, because no peer receives the messages.
"""

import asyncio
import time
from typing import Final

from benchmarks.workload import PER_CPU_SECOND, VALUE, MissingError, Sample

from .messages import TEXT
from .one_to_many import PAIRS

__all__ = ("broadcast_of_websockets",)

_BATCH: Final = 10


class _Nowhere(asyncio.Transport):
    """A transport that discards what is written to it, and is never full."""

    def write(self, data: "bytes | bytearray | memoryview[int]") -> None:
        pass

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        pass


def broadcast_of_websockets(seconds: float) -> Sample:
    return asyncio.run(_broadcast(seconds))


async def _broadcast(seconds: float) -> Sample:
    try:
        from websockets.asyncio.connection import Connection, broadcast  # noqa: PLC0415
        from websockets.protocol import Protocol, Side, State  # noqa: PLC0415
    except ImportError as error:
        raise MissingError(str(error)) from error

    members: set[Connection] = set()
    for _ in range(PAIRS):
        member = Connection(Protocol(Side.SERVER, state=State.OPEN), ping_interval=None)
        member.connection_made(_Nowhere())
        members.add(member)
    done = 0
    cpu, start = time.process_time(), time.perf_counter()
    spent = 0.0
    while spent < seconds:
        for _ in range(_BATCH):
            broadcast(members, TEXT)
        done += _BATCH * PAIRS
        spent = time.perf_counter() - start
    return {VALUE: done / spent, PER_CPU_SECOND: done / (time.process_time() - cpu)}

"""One message to each of many pairs or memory channels."""

from collections.abc import Callable, Sequence
from typing import Final

import trio

from benchmarks.broadcasting import broadcast
from benchmarks.repeating import Batch
from trio_wspair import WebSocket, WebSocketPair

from .messages import TEXT, Message, Tally, iterate, open_channel

__all__ = (
    "PAIRS",
    "broadcast_to_pairs",
    "fan_out",
    "fan_out_to_channels",
    "send_to_all",
)

PAIRS: Final = 1000


def listening_pairs(nursery: trio.Nursery, tally: Tally) -> list[WebSocket]:
    """Open pairs whose servers count their messages; return the clients."""
    count = tally.listener()
    clients: list[WebSocket] = []
    for _ in range(PAIRS):
        client, server = WebSocketPair(nursery)
        client.accept()
        server.accept()
        server.add_event_listener("message", count)
        clients.append(client)
    return clients


def fan_out(nursery: trio.Nursery) -> Batch:
    tally = Tally()
    clients = listening_pairs(nursery, tally)
    return send_to_all([client.send for client in clients], tally)


def fan_out_to_channels(nursery: trio.Nursery) -> Batch:
    tally = Tally()
    sends: list[Callable[[Message], None]] = []
    for _ in range(PAIRS):
        send, receive = open_channel()
        nursery.start_soon(iterate, receive, tally)
        sends.append(send.send_nowait)
    return send_to_all(sends, tally)


def send_to_all(sends: Sequence[Callable[[Message], None]], tally: Tally) -> Batch:
    async def batch() -> int:
        tally.expect(len(sends))
        for send in sends:
            send(TEXT)
        await tally.all_came.wait()
        return len(sends)

    return batch


def broadcast_to_pairs(nursery: trio.Nursery) -> Batch:
    tally = Tally()
    members = set(listening_pairs(nursery, tally))

    async def batch() -> int:
        tally.expect(len(members))
        broadcast(members, TEXT)
        await tally.all_came.wait()
        return len(members)

    return batch

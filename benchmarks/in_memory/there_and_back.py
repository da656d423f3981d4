"""Ping-pong: one message in flight."""

from typing import Final

import trio

from benchmarks.repeating import Batch
from trio_wspair import MessageEvent, WebSocketPair

from .messages import TEXT, Tally, open_channel

__all__ = ("EXCHANGES", "ping_pong", "ping_pong_through_channels")

EXCHANGES: Final = 1000


def ping_pong(nursery: trio.Nursery) -> Batch:
    tally = Tally()
    client, server = WebSocketPair(nursery)
    client.accept()
    server.accept()

    @server.on("message")
    def answer(event: MessageEvent) -> None:
        server.send(event.data)

    @client.on("message")
    def send_next(event: MessageEvent) -> None:
        tally.came += event.data == TEXT
        if tally.came == tally.expected:
            tally.all_came.set()
        else:
            client.send(TEXT)

    async def batch() -> int:
        tally.expect(EXCHANGES)
        client.send(TEXT)
        await tally.all_came.wait()
        return EXCHANGES

    return batch


def ping_pong_through_channels(nursery: trio.Nursery) -> Batch:
    send_ping, receive_ping = open_channel()
    send_pong, receive_pong = open_channel()

    async def answer() -> None:
        async for message in receive_ping:
            send_pong.send_nowait(message)

    async def batch() -> int:
        came = 0
        while came < EXCHANGES:
            send_ping.send_nowait(TEXT)
            came += await receive_pong.receive() == TEXT
        return EXCHANGES

    nursery.start_soon(answer)
    return batch

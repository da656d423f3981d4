"""Bursts of messages through one pair; the next one follows when all have arrived."""

from collections.abc import Callable
from typing import Final

import trio

from benchmarks.repeating import Batch, Prepare
from trio_wspair import WebSocketPair

from .messages import (
    LARGE,
    TEXT,
    Message,
    Tally,
    iterate,
    open_channel,
    receive_in_loop,
)

__all__ = (
    "BURST",
    "LARGE_BURST",
    "burst_to_channel_iteration",
    "burst_to_channel_receive",
    "burst_to_iteration",
    "burst_to_listener",
    "burst_to_receive",
    "large_through_channel",
    "large_to_listener",
    "small_to_listener",
)

BURST: Final = 1000
LARGE_BURST: Final = 16


def burst(send: Callable[[Message], None], tally: Tally, messages: int) -> Batch:
    """Return a batch that sends many messages at once and waits for the last."""
    message = tally.message

    async def batch() -> int:
        tally.expect(messages)
        for _ in range(messages):
            send(message)
        await tally.all_came.wait()
        return messages

    return batch


def to_listener(message: Message, messages: int) -> Prepare:
    def prepare(nursery: trio.Nursery) -> Batch:
        tally = Tally(message)
        client, server = WebSocketPair(nursery)
        client.accept()
        server.accept()
        server.add_event_listener("message", tally.listener())
        return burst(client.send, tally, messages)

    return prepare


def through_channel(message: Message, messages: int) -> Prepare:
    def prepare(nursery: trio.Nursery) -> Batch:
        tally = Tally(message)
        send, receive = open_channel()
        nursery.start_soon(iterate, receive, tally)
        return burst(send.send_nowait, tally, messages)

    return prepare


burst_to_listener: Final = to_listener(TEXT, BURST)
burst_to_channel_iteration: Final = through_channel(TEXT, BURST)
large_to_listener: Final = to_listener(LARGE, LARGE_BURST)
small_to_listener: Final = to_listener(LARGE[:64], LARGE_BURST)
large_through_channel: Final = through_channel(LARGE, LARGE_BURST)


def burst_to_iteration(nursery: trio.Nursery) -> Batch:
    tally = Tally()
    client, server = WebSocketPair(nursery)
    client.accept()
    nursery.start_soon(iterate, server, tally)
    return burst(client.send, tally, BURST)


def burst_to_receive(nursery: trio.Nursery) -> Batch:
    tally = Tally()
    client, server = WebSocketPair(nursery)
    client.accept()
    nursery.start_soon(receive_in_loop, server, tally)
    return burst(client.send, tally, BURST)


def burst_to_channel_receive(nursery: trio.Nursery) -> Batch:
    tally = Tally()
    send, receive = open_channel()
    nursery.start_soon(receive_in_loop, receive, tally)
    return burst(send.send_nowait, tally, BURST)

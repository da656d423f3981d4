"""Messages through pairs, against the same through raw Trio memory channels.

A message is 64 characters of text. Only the right ones are counted, so that one that
is lost or spoilt shows as a timeout.
"""

import math
from collections.abc import AsyncIterable, Callable
from typing import Final, Protocol

import trio

from trio_wspair import MessageEvent, WebSocketPair

from .work import OURS, Batch, Prepare, Quantity, Work, rate

__all__ = ("WORKS",)

CHANNEL: Final = "memory channel"
MESSAGE: Final = "0123456789abcdef" * 4
BURST: Final = 1000
RALLIES: Final = 1000
PAIRS: Final = 1000

MESSAGES: Final = Quantity("messages/s")
ROUND_TRIPS: Final = Quantity("round trips/s")

Message = str | bytes


class Tally:
    """Counts what arrives, and tells when all that was sent has."""

    __slots__ = ("all_came", "came", "expected")

    def __init__(self) -> None:
        self.came = 0
        self.expected = 0
        self.all_came = trio.Event()

    def expect(self, messages: int) -> None:
        """Expect so many more."""
        self.expected += messages
        self.all_came = trio.Event()

    def listener(self) -> Callable[[MessageEvent], None]:
        """Return a listener that counts."""

        def count(event: MessageEvent) -> None:
            self.came += event.data == MESSAGE
            if self.came == self.expected:
                self.all_came.set()

        return count


class Source(Protocol):
    """What both a half and the receiving end of a channel are."""

    async def receive(self) -> Message:
        """Wait for the next message."""
        ...


async def iterate(source: AsyncIterable[Message], tally: Tally) -> None:
    async for message in source:
        tally.came += message == MESSAGE
        if tally.came == tally.expected:
            tally.all_came.set()


async def receive_in_loop(source: Source, tally: Tally) -> None:
    while True:
        tally.came += await source.receive() == MESSAGE
        if tally.came == tally.expected:
            tally.all_came.set()


def burst(send: Callable[[str], None], tally: Tally) -> Batch:
    """Return a batch that sends many messages at once and waits for the last."""

    async def batch() -> int:
        tally.expect(BURST)
        for _ in range(BURST):
            send(MESSAGE)
        await tally.all_came.wait()
        return BURST

    return batch


def open_channel() -> tuple[
    trio.MemorySendChannel[Message], trio.MemoryReceiveChannel[Message]
]:
    return trio.open_memory_channel[Message](math.inf)


# -- one way -----------------------------------------------------------------


def burst_to_listener(nursery: trio.Nursery) -> Batch:
    tally = Tally()
    client, server = WebSocketPair(nursery)
    client.accept()
    server.accept()
    server.add_event_listener("message", tally.listener())
    return burst(client.send, tally)


def burst_to_iteration(nursery: trio.Nursery) -> Batch:
    tally = Tally()
    client, server = WebSocketPair(nursery)
    client.accept()
    nursery.start_soon(iterate, server, tally)
    return burst(client.send, tally)


def burst_to_receive(nursery: trio.Nursery) -> Batch:
    tally = Tally()
    client, server = WebSocketPair(nursery)
    client.accept()
    nursery.start_soon(receive_in_loop, server, tally)
    return burst(client.send, tally)


def burst_to_channel_iteration(nursery: trio.Nursery) -> Batch:
    tally = Tally()
    send, receive = open_channel()
    nursery.start_soon(iterate, receive, tally)
    return burst(send.send_nowait, tally)


def burst_to_channel_receive(nursery: trio.Nursery) -> Batch:
    tally = Tally()
    send, receive = open_channel()
    nursery.start_soon(receive_in_loop, receive, tally)
    return burst(send.send_nowait, tally)


# -- there and back, one message in flight -----------------------------------


def ping_pong(nursery: trio.Nursery) -> Batch:
    tally = Tally()
    client, server = WebSocketPair(nursery)
    client.accept()
    server.accept()

    @server.on("message")
    def answer(event: MessageEvent) -> None:
        server.send(event.data)

    @client.on("message")
    def serve_again(event: MessageEvent) -> None:
        tally.came += event.data == MESSAGE
        if tally.came == tally.expected:
            tally.all_came.set()
        else:
            client.send(MESSAGE)

    async def batch() -> int:
        tally.expect(RALLIES)
        client.send(MESSAGE)
        await tally.all_came.wait()
        return RALLIES

    return batch


def ping_pong_through_channels(nursery: trio.Nursery) -> Batch:
    send_ping, receive_ping = open_channel()
    send_pong, receive_pong = open_channel()

    async def answer() -> None:
        async for message in receive_ping:
            send_pong.send_nowait(message)

    async def batch() -> int:
        came = 0
        while came < RALLIES:
            send_ping.send_nowait(MESSAGE)
            came += await receive_pong.receive() == MESSAGE
        return RALLIES

    nursery.start_soon(answer)
    return batch


# -- one to many -------------------------------------------------------------


def fan_out(nursery: trio.Nursery) -> Batch:
    tally = Tally()
    count = tally.listener()
    sends: list[Callable[[str], None]] = []
    for _ in range(PAIRS):
        client, server = WebSocketPair(nursery)
        client.accept()
        server.accept()
        server.add_event_listener("message", count)
        sends.append(client.send)
    return send_to_all(sends, tally)


def fan_out_to_channels(nursery: trio.Nursery) -> Batch:
    tally = Tally()
    sends: list[Callable[[str], None]] = []
    for _ in range(PAIRS):
        send, receive = open_channel()
        nursery.start_soon(iterate, receive, tally)
        sends.append(send.send_nowait)
    return send_to_all(sends, tally)


def send_to_all(sends: list[Callable[[str], None]], tally: Tally) -> Batch:
    async def batch() -> int:
        tally.expect(len(sends))
        for send in sends:
            send(MESSAGE)
        await tally.all_came.wait()
        return len(sends)

    return batch


def _work(
    name: str, title: str, quantity: Quantity, ours: Prepare, theirs: Prepare
) -> Work:
    contestants = {CHANNEL: rate(quantity, theirs), OURS: rate(quantity, ours)}
    return Work(name, title, (quantity,), contestants)


WORKS: Final = (
    _work(
        "burst",
        f"one way, bursts of {BURST:,}: sync listener / `async for`",
        MESSAGES,
        burst_to_listener,
        burst_to_channel_iteration,
    ),
    _work(
        "ping-pong",
        "ping-pong: sync listeners / `receive()` and `async for`",
        ROUND_TRIPS,
        ping_pong,
        ping_pong_through_channels,
    ),
    _work(
        "fan-out",
        f"one message to {PAIRS:,}: sync listeners / `async for` in tasks",
        MESSAGES,
        fan_out,
        fan_out_to_channels,
    ),
    _work(
        "iteration",
        "one way, pull mode: `async for` / the same",
        MESSAGES,
        burst_to_iteration,
        burst_to_channel_iteration,
    ),
    _work(
        "receive",
        "one way, pull mode: `receive()` / the same",
        MESSAGES,
        burst_to_receive,
        burst_to_channel_receive,
    ),
)

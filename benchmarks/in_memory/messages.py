"""Messages, and a counter of those that arrive.

It counts only messages with the right content, so that a lost or damaged message shows
as a timeout.
"""

import math
from collections.abc import AsyncIterable, Callable
from typing import Final, Protocol

import trio

from trio_wspair import MessageEvent

__all__ = (
    "LARGE",
    "TEXT",
    "Channel",
    "Message",
    "Tally",
    "iterate",
    "open_channel",
    "receive_in_loop",
)

Message = str | bytes
Channel = tuple[trio.MemorySendChannel[Message], trio.MemoryReceiveChannel[Message]]

TEXT: Final = "0123456789abcdef" * 4
LARGE: Final = bytes(range(256)) * 256
"""64 KiB."""


def open_channel() -> Channel:
    return trio.open_memory_channel[Message](math.inf)


class Tally:
    """Counts the messages that arrive; sets `all_came` when all have arrived."""

    __slots__ = ("all_came", "came", "expected", "message")

    def __init__(self, message: Message = TEXT) -> None:
        self.message = message
        self.came = 0
        self.expected = 0
        self.all_came = trio.Event()

    def expect(self, messages: int) -> None:
        """Expect this many more messages."""
        self.expected += messages
        self.all_came = trio.Event()

    def take(self, message: Message) -> None:
        """Count a message."""
        self.came += message == self.message
        if self.came == self.expected:
            self.all_came.set()

    def listener(self) -> Callable[[MessageEvent], None]:
        """Return a listener that counts messages."""
        wanted = self.message

        def count(event: MessageEvent) -> None:
            self.came += event.data == wanted
            if self.came == self.expected:
                self.all_came.set()

        return count


class Source(Protocol):
    """Half of a pair, or the receiving end of a memory channel."""

    async def receive(self) -> Message:
        """Wait for the next message."""
        ...


async def iterate(source: AsyncIterable[Message], tally: Tally) -> None:
    wanted = tally.message
    async for message in source:
        tally.came += message == wanted
        if tally.came == tally.expected:
            tally.all_came.set()


async def receive_in_loop(source: Source, tally: Tally) -> None:
    wanted = tally.message
    while True:
        tally.came += await source.receive() == wanted
        if tally.came == tally.expected:
            tally.all_came.set()

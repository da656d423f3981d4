"""Short conversations between a client and a server, and the guarantees for each.

Every script sends its messages in a fixed order, so that the bytes in one direction are
the same in every run; how the two directions interleave may differ.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import attrs
import trio

from trio_wspair import (
    CloseEvent,
    ErrorEvent,
    HandshakeError,
    MessageEvent,
    ReadyState,
    Request,
    Response,
    Server,
    WebSocket,
    WebSocketError,
    WebSocketPair,
    connect,
)

Message = str | bytes
Heard = Message | ErrorEvent | CloseEvent


class OverError(Exception):
    """The conversation has ended before the event that the script waits for."""


class End:
    """One end of a conversation: its half, the messages sent, and the events."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.sent: list[Message] = []
        self.own_close: CloseEvent | None = None
        """The close event for the other end, if the script has called `close()`."""
        self.events: list[Heard] = []
        self._news = trio.Event()
        socket.add_event_listener("message", self._add)
        socket.add_event_listener("error", self._add)
        socket.add_event_listener("close", self._add)

    def _add(self, event: MessageEvent | ErrorEvent | CloseEvent) -> None:
        self.events.append(event.data if isinstance(event, MessageEvent) else event)
        self._news.set()
        self._news = trio.Event()

    async def run(self, script: "Script", *, half_open: bool) -> None:
        """Run a script until it ends or can't go on, then wait for the close event."""
        self.socket.accept(allow_half_open=half_open)
        with suppress(WebSocketError, OverError):
            await script(self)
        await self.socket.wait_closed()

    def send(self, message: Message) -> None:
        self.socket.send(message)
        self.sent.append(message)

    def close(self, code: int, reason: str = "") -> None:
        if self.socket.ready_state is not ReadyState.CLOSED:
            self.own_close = CloseEvent(code, reason, was_clean=True)
        self.socket.close(code, reason)

    async def receives(self, *messages: Message) -> None:
        """Wait until exactly these messages have come."""
        while self.messages() != list(messages):
            if self.closes():
                raise OverError
            await self._news.wait()

    async def receives_close(self) -> None:
        while not self.closes():
            await self._news.wait()

    def messages(self) -> list[Message]:
        return [heard for heard in self.events if isinstance(heard, (str, bytes))]

    def closes(self) -> list[CloseEvent]:
        return [heard for heard in self.events if isinstance(heard, CloseEvent)]

    def errors(self) -> list[Exception]:
        return [heard.error for heard in self.events if isinstance(heard, ErrorEvent)]


Script = Callable[[End], Awaitable[None]]


@attrs.frozen
class Conversation:
    """The scripts of the client and of the server."""

    client: Script
    server: Script
    server_half_open: bool = False


def check(end: End, other: End | None) -> None:
    """Check the guarantees for an end, whatever happened to the connection."""
    messages = end.messages()
    # G2: one close event, last, and an error only before it.
    (close,) = end.closes()
    told = [*messages, *(h for h in end.events if isinstance(h, ErrorEvent)), close]
    assert end.events == told
    assert len(end.errors()) <= 1
    assert end.socket.ready_state is ReadyState.CLOSED
    # G1: in order, without gaps, and only sent messages.
    sent = [] if other is None else other.sent
    assert messages == sent[: len(messages)]
    if close.was_clean:
        # G3: all messages. The Close is the other's own, or its reply to ours.
        assert other is not None
        assert messages == sent
        assert close == (other.own_close or end.own_close)
        assert end.errors() == []
    else:
        assert close.code == 1006


def _tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


class Stage:
    """Plays a conversation again and again, with a client and a server."""

    def __init__(
        self, conversation: Conversation, *, poll_seconds: float = 1.0, **options: Any
    ) -> None:
        self._conversation = conversation
        self._poll_seconds = poll_seconds
        self._options = options
        self._served: End | None = None

    async def fetch(self, request: Request) -> Response:
        """Play the server's part."""
        client, server = WebSocketPair()
        self._served = End(server)
        conversation = self._conversation
        request.nursery.start_soon(
            partial(
                self._served.run,
                conversation.server,
                half_open=conversation.server_half_open,
            )
        )
        return Response(None, status=101, web_socket=client)

    async def play(self, server: Server) -> tuple[End | None, End | None]:
        """Play it once; return the ends of the client and the server, if any.

        `connect()` gets the options. After the end, the number of tasks is checked
        every `poll_seconds`. The caller bounds the time.
        """
        self._served = client = None
        tasks = _tasks()
        async with trio.open_nursery() as nursery:
            with suppress(HandshakeError):
                socket = await connect(server.url, nursery=nursery, **self._options)
                client = End(socket)
                await client.run(self._conversation.client, half_open=False)
        # G10: some time later, the tasks of the connection have ended.
        while _tasks() > tasks:  # noqa: ASYNC110 - there is no event for it
            await trio.sleep(self._poll_seconds)
        return client, self._served


# -- the corpus ---------------------------------------------------------------

MEDIUM = bytes(range(130))
LARGE = "0123456789" * 7000


async def asks_and_closes(end: End) -> None:
    end.send("hi")
    await end.receives("hello")
    end.close(3000, "bye")


async def answers(end: End) -> None:
    await end.receives("hi")
    end.send("hello")


async def waits(end: End) -> None:
    await end.receives_close()


async def sends_and_closes(end: End) -> None:
    end.send("one")
    end.send(b"\0\1")
    end.close(4000)


async def sends_the_rest_after_the_close(end: End) -> None:
    end.send("first")
    await end.receives_close()
    end.send("the")
    end.send("rest")
    end.close(3003, "all")


async def closes(end: End) -> None:
    end.close(3001)


async def pings_and_closes(end: End) -> None:
    await end.socket.ping()
    end.send("there")
    await end.receives("you, too")
    end.close(1000)


async def pings_and_answers(end: End) -> None:
    await end.receives("there")
    await end.socket.ping()
    end.send("you, too")


async def sends_medium(end: End) -> None:
    end.send(MEDIUM)
    await end.receives(MEDIUM)
    end.close(1000)


async def returns_medium(end: End) -> None:
    await end.receives(MEDIUM)
    end.send(MEDIUM)


async def sends_large(end: End) -> None:
    end.send(LARGE)
    await end.receives(LARGE)
    end.close(1000)


async def returns_large(end: End) -> None:
    end.send(LARGE)
    await end.receives(LARGE)


CORPUS = {
    "the client asks and closes": Conversation(asks_and_closes, answers),
    "the server closes": Conversation(waits, sends_and_closes),
    "both close at once": Conversation(sends_and_closes, sends_and_closes),
    "half-open": Conversation(
        closes, sends_the_rest_after_the_close, server_half_open=True
    ),
    "pings": Conversation(pings_and_closes, pings_and_answers),
    "medium": Conversation(sends_medium, returns_medium),
    "large": Conversation(sends_large, returns_large),
}

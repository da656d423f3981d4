"""Short conversations between a client and a server, and what must hold of each.

Every script says its own part in its own order, so that what goes over the wire in
one direction is the same in every run; how the two are interleaved may differ.
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
    """The conversation has ended before what the script waits for."""


class End:
    """One end of a conversation: what it has said, and what it has heard."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.sent: list[Message] = []
        self.said_close: CloseEvent | None = None
        """What the other end hears of our Close, if we have said one by ourselves."""
        self.heard: list[Heard] = []
        self._news = trio.Event()
        socket.add_event_listener("message", self._hear)
        socket.add_event_listener("error", self._hear)
        socket.add_event_listener("close", self._hear)

    def _hear(self, event: MessageEvent | ErrorEvent | CloseEvent) -> None:
        self.heard.append(event.data if isinstance(event, MessageEvent) else event)
        self._news.set()
        self._news = trio.Event()

    async def run(self, script: "Script", *, half_open: bool) -> None:
        """Say one's part, as far as that goes, and stay to the end."""
        self.socket.accept(allow_half_open=half_open)
        with suppress(WebSocketError, OverError):
            await script(self)
        await self.socket.wait_closed()

    def send(self, message: Message) -> None:
        self.socket.send(message)
        self.sent.append(message)

    def close(self, code: int, reason: str = "") -> None:
        if self.socket.ready_state is not ReadyState.CLOSED:
            self.said_close = CloseEvent(code, reason, was_clean=True)
        self.socket.close(code, reason)

    async def hears(self, *messages: Message) -> None:
        """Wait until these are what has been said."""
        while self.messages() != list(messages):
            if self.closes():
                raise OverError
            await self._news.wait()

    async def hears_close(self) -> None:
        while not self.closes():
            await self._news.wait()

    def messages(self) -> list[Message]:
        return [heard for heard in self.heard if isinstance(heard, (str, bytes))]

    def closes(self) -> list[CloseEvent]:
        return [heard for heard in self.heard if isinstance(heard, CloseEvent)]

    def errors(self) -> list[Exception]:
        return [heard.error for heard in self.heard if isinstance(heard, ErrorEvent)]


Script = Callable[[End], Awaitable[None]]


@attrs.frozen
class Conversation:
    """Two scripts."""

    client: Script
    server: Script
    server_half_open: bool = False


def check(end: End, other: End | None) -> None:
    """Check what must hold of an end, however the connection has gone."""
    messages = end.messages()
    # G2: one close event, last, and an error only before it.
    (close,) = end.closes()
    told = [*messages, *(h for h in end.heard if isinstance(h, ErrorEvent)), close]
    assert end.heard == told
    assert len(end.errors()) <= 1
    assert end.socket.ready_state is ReadyState.CLOSED
    # G1: in order, without gaps, and nothing that was not sent.
    sent = [] if other is None else other.sent
    assert messages == sent[: len(messages)]
    if close.was_clean:
        # G3: all of it. And the Close is the other's own, or its answer to ours.
        assert other is not None
        assert messages == sent
        assert close == (other.said_close or end.said_close)
        assert end.errors() == []
    else:
        assert close.code == 1006


def _tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


class Stage:
    """Where a conversation is played: a client and a server, again and again."""

    def __init__(
        self, conversation: Conversation, *, glance: float = 1.0, **options: Any
    ) -> None:
        self._conversation = conversation
        self._glance = glance
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
        """Play it once; return the ends of the client and the server, if they came.

        `connect()` gets the options. What is left of the connection is looked for
        every `glance` seconds. The caller bounds the time.
        """
        self._served = client = None
        tasks = _tasks()
        async with trio.open_nursery() as nursery:
            with suppress(HandshakeError):
                socket = await connect(server.url, nursery=nursery, **self._options)
                client = End(socket)
                await client.run(self._conversation.client, half_open=False)
        # G10: some time later, the server has no more tasks than before.
        while _tasks() > tasks:  # noqa: ASYNC110 - there is no event for it
            await trio.sleep(self._glance)
        return client, self._served


# -- the corpus ---------------------------------------------------------------

MEDIUM = bytes(range(130))
LARGE = "0123456789" * 7000


async def asks_and_closes(end: End) -> None:
    end.send("hi")
    await end.hears("hello")
    end.close(3000, "bye")


async def answers(end: End) -> None:
    await end.hears("hi")
    end.send("hello")


async def waits(end: End) -> None:
    await end.hears_close()


async def says_and_closes(end: End) -> None:
    end.send("one")
    end.send(b"\0\1")
    end.close(4000)


async def says_the_rest_after_the_close(end: End) -> None:
    end.send("first")
    await end.hears_close()
    end.send("the")
    end.send("rest")
    end.close(3003, "all")


async def closes(end: End) -> None:
    end.close(3001)


async def pings_and_closes(end: End) -> None:
    await end.socket.ping()
    end.send("there")
    await end.hears("you, too")
    end.close(1000)


async def pings_and_answers(end: End) -> None:
    await end.hears("there")
    await end.socket.ping()
    end.send("you, too")


async def says_more(end: End) -> None:
    end.send(MEDIUM)
    await end.hears(MEDIUM)
    end.close(1000)


async def says_the_same(end: End) -> None:
    await end.hears(MEDIUM)
    end.send(MEDIUM)


async def says_much(end: End) -> None:
    end.send(LARGE)
    await end.hears(LARGE)
    end.close(1000)


async def says_as_much(end: End) -> None:
    end.send(LARGE)
    await end.hears(LARGE)


CORPUS = {
    "the client asks and closes": Conversation(asks_and_closes, answers),
    "the server closes": Conversation(waits, says_and_closes),
    "both close at once": Conversation(says_and_closes, says_and_closes),
    "half-open": Conversation(
        closes, says_the_rest_after_the_close, server_half_open=True
    ),
    "pings": Conversation(pings_and_closes, pings_and_answers),
    "medium": Conversation(says_more, says_the_same),
    "large": Conversation(says_much, says_as_much),
}

"""What the tests of ASGI share: a server that says exactly what it is told to say."""

import math
from collections.abc import MutableMapping
from typing import Any

import trio

from trio_wspair import Headers
from trio_wspair.asgi import ASGIApp

Event = MutableMapping[str, Any]

HTTP: Event = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.5"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"test")],
    "client": ("192.0.2.1", 50000),
    "server": ("test", 80),
}
WEBSOCKET: Event = {
    **HTTP,
    "type": "websocket",
    "scheme": "ws",
    "subprotocols": [],
    "extensions": {"websocket.http.response": {}},
}
del WEBSOCKET["method"]
CONNECT: Event = {"type": "websocket.connect"}
GONE: Event = {"type": "http.disconnect"}


def piece(body: bytes, *, more: bool = False) -> Event:
    """Return a piece of the body of a request."""
    return {"type": "http.request", "body": body, "more_body": more}


def disconnect(code: int, **more: str) -> Event:
    """Return how the end of a WebSocket is told."""
    return {"type": "websocket.disconnect", "code": code, **more}


class ByHand:
    """A server for one scope: it puts events, and keeps what the application says."""

    def __init__(self, scope: Event, *events: Event, **changes: Any) -> None:
        self.scope = {**scope, **changes}
        self._put, self._events = trio.open_memory_channel[Event](math.inf)
        self.put(*events)
        self.said: list[Event] = []
        self.received = 0
        self.takes = trio.Event()
        """Until it is set, `send()` waits."""
        self.takes.set()
        self.error: Exception | None = None
        """What `send()` raises."""

    def put(self, *events: Event) -> None:
        """Let the application receive these."""
        for event in events:
            self._put.send_nowait(event)

    def hang_up(self) -> None:
        """Let there be nothing more to receive."""
        self._put.close()

    async def run(self, app: ASGIApp) -> "ByHand":
        """Call the application as a server does, until it returns."""
        await app(self.scope, self.receive, self.send)
        return self

    async def receive(self) -> Event:
        event = await self._events.receive()
        self.received += 1
        return event

    async def send(self, event: Event) -> None:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self.said.append(event)
        await self.takes.wait()

    # -- what a client understands ---------------------------------------------------

    @property
    def types(self) -> list[str]:
        """The types of what was said, without what they have in common."""
        return [event["type"].rpartition(".")[2] for event in self.said]

    @property
    def status(self) -> int:
        """The status of the answer."""
        return int(self.said[0]["status"])

    @property
    def headers(self) -> Headers:
        """The headers of the answer."""
        return Headers(
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in self.said[0]["headers"]
        )

    @property
    def body(self) -> bytes:
        """What came of the body."""
        return b"".join(event["body"] for event in self.said[1:])

    @property
    def complete(self) -> bool:
        """Whether the body has come to its end."""
        return self.said[-1].get("more_body") is False

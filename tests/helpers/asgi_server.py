"""A scripted ASGI server: it sends events to an application, and keeps the answers."""

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
    """Return the event that ends a WebSocket."""
    return {"type": "websocket.disconnect", "code": code, **more}


class ASGIServer:
    """A server for one scope: it puts events, and keeps what the application sends."""

    def __init__(self, scope: Event, *events: Event, **changes: Any) -> None:
        self.scope = {**scope, **changes}
        self._put, self._events = trio.open_memory_channel[Event](math.inf)
        self.put(*events)
        self.sent: list[Event] = []
        self.received = 0
        self.send_allowed = trio.Event()
        """`send()` waits until it is set."""
        self.send_allowed.set()
        self.error: Exception | None = None
        """The error that `send()` raises."""

    def put(self, *events: Event) -> None:
        """Queue events for the application to receive."""
        for event in events:
            self._put.send_nowait(event)

    def hang_up(self) -> None:
        """End the channel: the application receives nothing more."""
        self._put.close()

    async def run(self, app: ASGIApp) -> "ASGIServer":
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
        self.sent.append(event)
        await self.send_allowed.wait()

    # -- what a client understands ---------------------------------------------------

    @property
    def types(self) -> list[str]:
        """The last parts of the types of the sent events."""
        return [event["type"].rpartition(".")[2] for event in self.sent]

    @property
    def status(self) -> int:
        """The status of the answer."""
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> Headers:
        """The headers of the answer."""
        return Headers(
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in self.sent[0]["headers"]
        )

    @property
    def body(self) -> bytes:
        """The body as sent so far."""
        return b"".join(event["body"] for event in self.sent[1:])

    @property
    def complete(self) -> bool:
        """Whether the body is complete."""
        return self.sent[-1].get("more_body") is False

"""`open_asgi_websocket()`: a client of an ASGI application, with a simulated server.

Knows the events of ASGI; no network and no HTTP. The application runs in one task, and
talks to a `SimulatedServer` with ASGI's ``receive`` and ``send``. For the client's half
that server is a `Connection`, which a `Coupling` runs in another task.
"""

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, cast
from urllib.parse import unquote

import attrs
import trio

from trio_wspair._http.headers import (
    Headers,
    HeadersInit,
    decode_headers,
    encode_headers,
)
from trio_wspair._pair.pair import WebSocketPair, closing_on_exit
from trio_wspair._pair.verbs import half_of
from trio_wspair._pair.websocket import WebSocket
from trio_wspair._rules.codes import Close, checked_close
from trio_wspair._rules.errors import ConnectionClosedError, HandshakeError
from trio_wspair._rules.limits import Limits, check_seconds
from trio_wspair._tasks.nurseries import open_service_nursery
from trio_wspair.transports._asgi import DENIAL, Event
from trio_wspair.transports._connection import Item
from trio_wspair.transports._couple import Coupling

__all__ = ("Application", "SimulatedServer", "open_asgi_websocket")


Application = Callable[[Any, Any, Any], Awaitable[object]]
"""An ASGI application. Each framework types its arguments differently."""

_BUFFER_SIZE: Final = 2**20
"""The bytes that may wait for an application to receive them; then sending waits."""
_CLIENT_GONE: Final = "the client has closed this WebSocket"


@attrs.frozen(eq=False)
class _Parcel:
    """An item on its way to the client."""

    item: Item
    taken: trio.Event = attrs.Factory(trio.Event)


@attrs.define
class _Denial:
    """The response of an application that refuses the WebSocket."""

    status: int | None = None
    headers: Headers = attrs.Factory(Headers)
    body: bytes = b""


class SimulatedServer:
    """A server for one WebSocket; for the client's half it is a `Connection`."""

    def __init__(self, app: Application, scope: dict[str, Any]) -> None:
        self._app = app
        self._scope = scope
        self._put_event, self._events = trio.open_memory_channel[Event](math.inf)
        self._put_parcel, self._parcels = trio.open_memory_channel[_Parcel](math.inf)
        self._put_event.send_nowait({"type": "websocket.connect"})
        self._expected = ["websocket.accept", "websocket.close"]
        """The events that the application may send next."""
        if DENIAL in scope["extensions"]:
            self._expected.append(f"{DENIAL}.start")
        self._denial = _Denial()
        self._unread = 0
        """Bytes of messages that the application has not received."""
        self._room = trio.lowlevel.ParkingLot()
        self._disconnected = False
        """Whether websocket.disconnect was put where the application receives."""
        self._has_received_all = False
        self.subprotocol: str | None = None
        """The selected subprotocol, ``""`` for none; `None` before it has accepted."""
        self.answered = trio.Event()
        """The application has accepted or refused, or has returned."""
        self.returned = trio.Event()
        """The application has returned."""

    # -- the side of the application -------------------------------------------------

    async def run_app(self) -> None:
        """Run the application."""
        await self._app(self._scope, self._receive, self._send)
        self._put_parcel.close()
        self.returned.set()
        self.answered.set()

    async def _receive(self) -> Event:
        if self._has_received_all:
            await trio.lowlevel.checkpoint()
            msg = "receive() was called after websocket.disconnect, the last event"
            raise RuntimeError(msg)
        event = await self._events.receive()
        self._has_received_all = event["type"] == "websocket.disconnect"
        if event["type"] == "websocket.receive":
            self._unread -= len(event.get("text") or event.get("bytes") or "")
            self._room.unpark_all()
        return event

    async def _send(self, event: Event) -> None:
        await trio.lowlevel.checkpoint()
        kind: str = event["type"]
        if kind not in self._expected:
            expected = " or ".join(self._expected) or "nothing more"
            msg = f"the application has sent {kind}, but {expected} is expected"
            raise RuntimeError(msg)
        if self._disconnected:  # The specification wants an OSError, since version 2.4.
            raise BrokenPipeError(_CLIENT_GONE)
        accepted = self.subprotocol is not None
        if kind == "websocket.accept":
            self._accept(event)
        elif kind == "websocket.send":
            await self._pass_on(_message_in(event))
        elif kind == "websocket.close" and accepted:
            code = event.get("code", 1000)
            close = checked_close(code, event.get("reason") or "")
            self._expected = []
            await self._pass_on(close)
        else:
            self._refuse(event)

    def _accept(self, event: Event) -> None:
        chosen, offered = event.get("subprotocol"), self._scope["subprotocols"]
        if chosen is not None and chosen not in offered:
            msg = f"the client has offered the subprotocols {offered!r}, not {chosen!r}"
            raise ValueError(msg)
        self.subprotocol = chosen or ""
        self._expected = ["websocket.send", "websocket.close"]
        self.answered.set()

    def _refuse(self, event: Event) -> None:
        """Keep the response with which the application refuses."""
        if event["type"] == f"{DENIAL}.start":
            self._denial.status = event["status"]
            for pair in decode_headers(event.get("headers", ())):
                self._denial.headers.append(*pair)
            self._expected = [f"{DENIAL}.body"]
            return
        if event["type"] == "websocket.close":
            self._denial.status = 403
        self._denial.body += event.get("body", b"")
        if not event.get("more_body", False):
            self._expected = []
            self.answered.set()

    async def _pass_on(self, item: Item) -> None:
        """Pass an item to the client's half, and wait until that has taken it."""
        parcel = _Parcel(item)
        self._put_parcel.send_nowait(parcel)
        await parcel.taken.wait()

    def refusal(self) -> HandshakeError:
        """Return the client's error, after the application hasn't accepted."""
        denial = self._denial
        if denial.status is not None:
            message = f"the application refused the WebSocket with {denial.status}"
        elif self.returned.is_set():
            message = "the application returned without accepting or refusing"
        else:
            message = "the application did not accept or refuse in time"
        headers = tuple(denial.headers.pairs())
        return HandshakeError(
            message, status=denial.status, headers=headers, body=denial.body
        )

    async def disconnect(self) -> None:
        """Send websocket.disconnect, and wait until the application returns."""
        self._disconnect(Close(1006))
        await self.returned.wait()

    async def wait_returned(self, seconds: float) -> None:
        """Wait until the application returns, after the conversation.

        Raises:
            TimeoutError: It doesn't return in time.
        """
        with trio.move_on_after(seconds):
            await self.returned.wait()
        if not self.returned.is_set():
            msg = (
                f"the application has not returned {seconds} s after the end of the "
                "conversation: it should return when it receives websocket.disconnect"
            )
            raise TimeoutError(msg)

    def _disconnect(self, close: Close) -> None:
        if not self._disconnected:
            self._disconnected = True
            self._room.unpark_all()
            event = {"code": close.code, "reason": close.reason}
            self._put_event.send_nowait({"type": "websocket.disconnect", **event})

    # -- the side of the client; see `Connection` --------------------------------------

    async def receive(self) -> Sequence[Item]:
        """Wait for the next item from the application."""
        try:
            parcel = await self._parcels.receive()
        except trio.EndOfChannel:
            why = "the application has returned without a Close"
            raise ConnectionClosedError(1006, why, was_clean=False) from None
        parcel.taken.set()
        return [parcel.item]

    async def send(self, items: Sequence[Item]) -> None:
        """Put items where the application receives them."""
        for item in items:
            if isinstance(item, Close):
                if not self._disconnected and self._expected:
                    with suppress(trio.ClosedResourceError):  # It may have returned.
                        self._put_parcel.send_nowait(_Parcel(item))
                self._disconnect(item)
            else:
                key = "text" if isinstance(item, str) else "bytes"
                self._put_event.send_nowait({"type": "websocket.receive", key: item})
                self._unread += len(item)
        while self._unread > _BUFFER_SIZE and not self._disconnected:
            await self._room.park()

    async def aclose(self, code: int, reason: str) -> None:
        """Send a Close, unless one was sent."""
        await self.send([Close(code, reason)])

    def abort(self) -> None:
        """Send websocket.disconnect, unless it was sent, and drop unread items."""
        self._disconnect(Close(1006))
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                self._parcels.receive_nowait().taken.set()


def _message_in(event: Event) -> str | bytes:
    """Return the message in a websocket.send event.

    Raises:
        TypeError: It has no message, or two.
    """
    text, data = event.get("text"), event.get("bytes")
    if isinstance(text, str) and data is None:
        return text
    if isinstance(data, (bytes, bytearray, memoryview)) and text is None:
        return bytes(cast("bytes", data))
    msg = f"websocket.send has either text (str) or bytes, not {text!r} and {data!r}"
    raise TypeError(msg)


_HANDSHAKE: Final = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


@asynccontextmanager
async def open_asgi_websocket(
    app: Application,
    path: str = "/",
    *,
    protocols: str | Sequence[str] = (),
    headers: HeadersInit = (),
    scope: Mapping[str, Any] | None = None,
    app_timeout: float = 10.0,
    close_grace: float = 5.0,
    receive_buffer_bytes: int = 2**20,
) -> AsyncGenerator[WebSocket, None]:
    """Open a WebSocket to an ASGI application: no server, no network, no threads.

    ``async with open_asgi_websocket(app, "/chat?room=1") as ws:`` yields the client's
    half, as `open_websocket()` does. On leaving, it is closed with 1000, or with 1011
    when the block has raised, and the application has to return. When the application
    raises, the block is cancelled, and the exception comes in an `ExceptionGroup`.

    Args:
        app: An ASGI application that runs on Trio, such as an `ASGIApp` or one of
            Starlette or Quart-Trio. It gets no lifespan events.
        path: The path, with an optional query.
        protocols: The subprotocols to offer; ``ws.protocol`` is the selected one.
        headers: Headers of the request, in addition to those of the handshake.
        scope: Keys of the scope to replace, such as ``client``, ``state``, or
            ``{"extensions": {}}`` for a server that can refuse with 403 only.
        app_timeout: Seconds in which the application has to accept or refuse, and to
            return after the conversation.
        close_grace: Seconds for the closing handshake.
        receive_buffer_bytes: Sending waits in the application while the client's half
            has more unread bytes than this.

    Raises:
        HandshakeError: The application has refused (``status``, ``headers`` and
            ``body`` are its response), or has not accepted in time, or has returned.
        TimeoutError: The application has not returned in time.
        TypeError: An argument is of another type.
        ValueError: An argument is out of range.
    """
    check_seconds("app_timeout", app_timeout)
    limits = Limits(
        close_grace=close_grace,
        receive_buffer_bytes=receive_buffer_bytes,
        ping_interval=math.inf,
    )
    server = SimulatedServer(
        app, {**_scope_for(path, protocols, headers), **(scope or {})}
    )
    async with open_service_nursery() as nursery:
        nursery.start_soon(server.run_app)
        with trio.move_on_after(app_timeout):
            await server.answered.wait()
        if server.subprotocol is None:
            refusal = server.refusal()
            with trio.move_on_after(app_timeout):
                await server.disconnect()
            raise refusal
        pair = WebSocketPair(nursery, close_grace=close_grace)
        link = half_of(pair[0]).link
        link.url, link.protocol = f"ws://localhost{path}", server.subprotocol
        nursery.start_soon(Coupling(pair[1], limits).run, server)
        pair[0].accept(pull=True)
        async with closing_on_exit(pair[:1], grace=close_grace):
            yield pair[0]
        await server.wait_returned(app_timeout)


def _scope_for(
    path: str, protocols: str | Sequence[str], headers: HeadersInit
) -> dict[str, Any]:
    """Return the scope of a request."""
    offered = [protocols] if isinstance(protocols, str) else list(protocols)
    all_headers = Headers(_HANDSHAKE)
    if offered:
        all_headers["Sec-WebSocket-Protocol"] = ", ".join(offered)
    more_headers = Headers(headers)
    for name in more_headers:
        all_headers.pop(name, None)
    raw_path, _, query = path.partition("?")
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode("ascii"),
        "query_string": query.encode("ascii"),
        "root_path": "",
        "headers": encode_headers(
            (name.lower(), value)
            for name, value in [*all_headers.pairs(), *more_headers.pairs()]
        ),
        "client": ("127.0.0.1", 50000),
        "server": ("localhost", 80),
        "subprotocols": offered,
        "state": {},
        "extensions": {DENIAL: {}},
    }

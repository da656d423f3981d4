"""`open_asgi_websocket()`: a client of an ASGI application, with a simulated server.

Knows the messages of ASGI; no network and no HTTP.
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

__all__ = (
    "Application",
    "PlayedServer",
    "open_asgi_websocket",
)


Application = Callable[[Any, Any, Any], Awaitable[object]]
"""An ASGI application; each framework has types of its own for what it takes."""

_BUFFER_SIZE: Final = 2**20
"""So much is on its way to an application that does not receive; then sending waits."""
_CLIENT_GONE: Final = "the client of this WebSocket has gone"


@attrs.frozen(eq=False)
class _Parcel:
    """An item on its way to the client."""

    item: Item
    taken: trio.Event = attrs.Factory(trio.Event)


class PlayedServer:
    """A server for one WebSocket; for the client's half it is a `Connection`."""

    def __init__(self, app: Application, scope: dict[str, Any]) -> None:
        self._app = app
        self._scope = scope
        self._put_event, self._events = trio.open_memory_channel[Event](math.inf)
        self._put_parcel, self._parcels = trio.open_memory_channel[_Parcel](math.inf)
        self._put_event.send_nowait({"type": "websocket.connect"})
        self._expected = ["websocket.accept", "websocket.close"]
        """What the application may send."""
        if DENIAL in scope["extensions"]:
            self._expected.append(f"{DENIAL}.start")
        self._status: int | None = None
        self._headers = Headers()
        self._body = b""
        self._unread = 0
        """Bytes of messages that the application has not received."""
        self._room = trio.lowlevel.ParkingLot()
        self._disconnected = False
        """The application has been told that the client has gone, or soon will be."""
        self._has_received_all = False
        self.subprotocol: str | None = None
        """What was chosen, maybe ``""``, once the application has accepted."""
        self.answered = trio.Event()
        self.returned = trio.Event()

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
            msg = "receive() after websocket.disconnect: nothing more will come"
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
            msg = f"the application sends {kind}, where {expected} is expected"
            raise RuntimeError(msg)
        if self._disconnected:  # As the specification has it, from version 2.4 on.
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
            msg = f"subprotocol {chosen!r} was not offered by the client: {offered!r}"
            raise ValueError(msg)
        self.subprotocol = chosen or ""
        self._expected = ["websocket.send", "websocket.close"]
        self.answered.set()

    def _refuse(self, event: Event) -> None:
        """Keep what the application says instead of accepting."""
        if event["type"] == f"{DENIAL}.start":
            self._status = event["status"]
            for pair in decode_headers(event.get("headers", ())):
                self._headers.append(*pair)
            self._expected = [f"{DENIAL}.body"]
            return
        if event["type"] == "websocket.close":
            self._status = 403
        self._body += event.get("body", b"")
        if not event.get("more_body", False):
            self._expected = []
            self.answered.set()

    async def _pass_on(self, item: Item) -> None:
        """Wait until the client's side has taken this."""
        parcel = _Parcel(item)
        self._put_parcel.send_nowait(parcel)
        await parcel.taken.wait()

    def refusal(self) -> HandshakeError:
        """Return the error for a client that has not got its WebSocket."""
        if self._status is not None:
            message = f"the application refused the WebSocket with {self._status}"
        elif self.returned.is_set():
            message = "the application returned without accepting or refusing"
        else:
            message = "the application did not accept or refuse in time"
        headers = tuple(self._headers.pairs())
        return HandshakeError(
            message, status=self._status, headers=headers, body=self._body
        )

    async def hang_up(self) -> None:
        """Tell the application that the client has gone, and wait until it returns."""
        self._disconnect(Close(1006))
        await self.returned.wait()

    async def see_off(self, seconds: float) -> None:
        """Wait until the application returns, after the conversation.

        Raises:
            TimeoutError: It doesn't.
        """
        with trio.move_on_after(seconds):
            await self.returned.wait()
        if not self.returned.is_set():
            msg = (
                f"the application has not returned {seconds} s after the end of the "
                "conversation: does it receive() websocket.disconnect?"
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
        """Wait for what the application sends."""
        try:
            parcel = await self._parcels.receive()
        except trio.EndOfChannel:
            why = "the application has returned without a Close"
            raise ConnectionClosedError(1006, why, was_clean=False) from None
        parcel.taken.set()
        return [parcel.item]

    async def send(self, items: Sequence[Item]) -> None:
        """Put these where the application receives."""
        for item in items:
            if isinstance(item, Close):
                if not self._disconnected and self._expected:
                    with suppress(trio.ClosedResourceError):  # Returned meanwhile.
                        self._put_parcel.send_nowait(_Parcel(item))
                self._disconnect(item)
            else:
                key = "text" if isinstance(item, str) else "bytes"
                self._put_event.send_nowait({"type": "websocket.receive", key: item})
                self._unread += len(item)
        while self._unread > _BUFFER_SIZE and not self._disconnected:
            await self._room.park()

    async def aclose(self, code: int, reason: str) -> None:
        """Say Close, unless that was done."""
        await self.send([Close(code, reason)])

    def abort(self) -> None:
        """Tell the application that the client has gone, if it was not told."""
        self._disconnect(Close(1006))
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                self._parcels.receive_nowait().taken.set()


def _message_in(event: Event) -> str | bytes:
    """Return the message that an application sends.

    Raises:
        TypeError: There is none, or two.
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

    ``async with open_asgi_websocket(app, "/chat?room=1") as ws:`` gives a client's
    half, as `open_websocket()` does. On leaving it is closed with 1000, or 1011 when
    the block has raised, and the application has to return. What it raises ends the
    block, and comes out as an `ExceptionGroup`, as from any nursery.

    Args:
        app: An ASGI application that runs on Trio, such as an `ASGIApp` or one of
            Starlette or Quart-Trio. Its lifespan is not played.
        path: The path, and after a ``?`` the query.
        protocols: The subprotocols to offer; ``ws.protocol`` tells which was chosen.
        headers: Headers of the request, beside those of a handshake.
        scope: Keys of the scope that shall be others, such as ``client``, ``state``,
            or ``{"extensions": {}}`` for a server that can refuse with 403 only.
        app_timeout: Seconds until the application has to accept or refuse, and to
            return when the conversation is over.
        close_grace: Seconds for the closing handshake.
        receive_buffer_bytes: Sending waits in the application while the client's half
            has so much that it has not taken.

    Raises:
        HandshakeError: The application has refused; ``status``, ``headers`` and
            ``body`` are its answer. Or it has not answered, in time or at all.
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
    server = PlayedServer(
        app, {**_scope_for(path, protocols, headers), **(scope or {})}
    )
    async with open_service_nursery() as nursery:
        nursery.start_soon(server.run_app)
        with trio.move_on_after(app_timeout):
            await server.answered.wait()
        if server.subprotocol is None:
            refusal = server.refusal()
            with trio.move_on_after(app_timeout):
                await server.hang_up()
            raise refusal
        pair = WebSocketPair(nursery, close_grace=close_grace)
        link = half_of(pair[0]).link
        link.url, link.protocol = f"ws://localhost{path}", server.subprotocol
        nursery.start_soon(Coupling(pair[1], limits).run, server)
        pair[0].accept(pull=True)
        async with closing_on_exit(pair[:1], grace=close_grace):
            yield pair[0]
        await server.see_off(app_timeout)


def _scope_for(
    path: str, protocols: str | Sequence[str], headers: HeadersInit
) -> dict[str, Any]:
    """Return the scope of a client that asks like this."""
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

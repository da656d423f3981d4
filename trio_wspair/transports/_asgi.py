"""A `Connection` on the `receive` and `send` of an ASGI server.

Knows the ASGI messages about an open WebSocket. The server reads and writes the frames,
and answers Closes and pings.
"""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from typing import Any, Final

import trio

from trio_wspair._rules.codes import Close
from trio_wspair._rules.errors import ConnectionClosedError, connection_lost

from ._connection import Item

__all__ = ("DENIAL", "GONE", "ASGIConnection", "Event", "Receive", "Send")

Event = MutableMapping[str, Any]
"""A message between server and application."""
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

DENIAL: Final = "websocket.http.response"
"""The extension for refusals, and how the types of its messages begin."""
GONE: Final = (
    OSError,  # Required by the specification, from version 2.4 on.
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.EndOfChannel,
)
"""The exceptions of a server's `receive` and `send` when the client has gone."""
_CLIENT_GONE: Final = "the ASGI server reports that the client has gone without a Close"
_STOPPED: Final = "the server has stopped"


def _message_of(event: Event) -> str | bytes:
    """Return the message of a "websocket.receive" event.

    If the event has both text and bytes, return the text.

    Raises:
        TypeError: The event has neither text nor bytes.
    """
    match event:
        case {"text": str() as text}:
            return text
        case {"bytes": bytes() | bytearray() as data}:
            return bytes(data)
        case _:
            kinds = {name: type(event.get(name)).__name__ for name in ("text", "bytes")}
            msg = (
                "the ASGI server violates the specification: a message has text "
                f"(str) or bytes, not {kinds}"
            )
            raise TypeError(msg)


class ASGIConnection:
    """A WebSocket that the application has accepted; see `Connection` for the methods.

    The server ends the connection when the application returns. So `aclose()` only
    sends a Close, and `abort()` does nothing.
    """

    answers_close: Final = True

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._close_sent = False
        self._disconnected = False
        self._stopped = False
        self._receiving = trio.CancelScope()

    async def receive(self) -> Sequence[Item]:
        """Wait for a message or a Close; see `Connection`."""
        if self._disconnected:
            await trio.lowlevel.checkpoint()
            raise connection_lost("the client has gone")
        event: Event = {"type": "websocket.disconnect", "code": 1006}
        with trio.CancelScope() as self._receiving:
            self._cancel_receive_after_stop()
            with suppress(*GONE):
                event = await self._receive()
        if event["type"] == "websocket.receive":
            return [_message_of(event)]
        self._disconnected = True
        code = int(event.get("code") or 1005)
        if code == 1006:
            raise connection_lost(_STOPPED if self._stopped else _CLIENT_GONE)
        return [Close(code, event.get("reason") or "")]

    async def send(self, items: Sequence[Item]) -> None:
        """Pass messages or a Close to the server; see `Connection`.

        After the client's Close, which the server has answered, a message raises the
        error of a lost connection, and a Close is ignored.
        """
        for item in items:
            if self._close_sent or (self._disconnected and isinstance(item, Close)):
                return
            if self._disconnected:
                raise connection_lost(_CLIENT_GONE)
            try:
                await self._send(self._event(item))
            except GONE:
                raise connection_lost(_CLIENT_GONE) from None
        self._cancel_receive_after_stop()

    def _event(self, item: Item) -> Event:
        if isinstance(item, str):
            return {"type": "websocket.send", "text": item}
        if isinstance(item, bytes):
            return {"type": "websocket.send", "bytes": item}
        self._close_sent = True
        # ASGI can't express a Close without a code: the server would send 1000.
        code = {} if item.code == 1005 else {"code": item.code}
        return {"type": "websocket.close", **code, "reason": item.reason}

    def stop(self) -> None:
        """Note that the server stops: `receive()` ends when a Close has been sent.

        A server that stops reads no more, so the client's answer would not arrive.
        """
        self._stopped = True
        self._cancel_receive_after_stop()

    def give_up(self) -> None:
        """Note that the client has received nothing for too long: it counts as gone."""
        self._disconnected = True

    def _cancel_receive_after_stop(self) -> None:
        if self._stopped and self._close_sent:
            self._receiving.cancel(reason=_STOPPED)

    async def aclose(self, code: int, reason: str) -> None:
        """Send a Close, unless one was sent; see `Connection`."""
        await self.send([Close(code, reason)])

    def abort(self) -> None:
        """Do nothing: the connection ends when the application returns."""

    async def discard(self) -> None:
        """Receive and discard everything up to the end. The caller bounds the time.

        Hypercorn's reading task would otherwise wait forever for the application to
        receive it.
        """
        with suppress(ConnectionClosedError):
            while not self._disconnected:
                await self.receive()

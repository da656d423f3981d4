"""A `Connection` on the `receive` and `send` of an ASGI server.

Knows the messages of ASGI about an open WebSocket; the server knows frames, and
answers Closes and pings by itself.
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
    OSError,  # As the specification has it, from its version 2.4 on.
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.EndOfChannel,
)
"""What `receive` and `send` of a server may raise when the client has gone."""
_VANISHED: Final = "the ASGI server reports that the client has gone without a Close"
_STOPPED: Final = "the server has stopped"


def _message_of(event: Event) -> str | bytes:
    """Return the message that a server gives; it has text or bytes, and text first.

    Raises:
        TypeError: It has neither.
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
    """A WebSocket that an application has accepted; see `Connection` for the methods.

    The connection ends when the application returns, so there is not much to do for
    `aclose()` and `abort()`.
    """

    answers_close: Final = True

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._close_sent = False
        self._disconnected = False
        self._stopped = False
        self._listening = trio.CancelScope()

    async def receive(self) -> Sequence[Item]:
        """Wait for a message or a Close; see `Connection`."""
        if self._disconnected:
            await trio.lowlevel.checkpoint()
            raise connection_lost("the client has gone")
        event: Event = {"type": "websocket.disconnect", "code": 1006}
        with trio.CancelScope() as self._listening:
            self._look_for_stop()
            with suppress(*GONE):
                event = await self._receive()
        if event["type"] == "websocket.receive":
            return [_message_of(event)]
        self._disconnected = True
        code = int(event.get("code") or 1005)
        if code == 1006:
            raise connection_lost(_STOPPED if self._stopped else _VANISHED)
        return [Close(code, event.get("reason") or "")]

    async def send(self, items: Sequence[Item]) -> None:
        """Give messages or a Close to the server; see `Connection`.

        The client's Close was answered by the server: no message can be sent after it.
        """
        for item in items:
            if self._close_sent or (self._disconnected and isinstance(item, Close)):
                return
            if self._disconnected:
                raise connection_lost(_VANISHED)
            try:
                await self._send(self._event(item))
            except GONE:
                raise connection_lost(_VANISHED) from None
        self._look_for_stop()

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
        """Take note that the server reads no more: no answer to our Close will come."""
        self._stopped = True
        self._look_for_stop()

    def give_up(self) -> None:
        """Take note that the client has taken nothing for too long."""
        self._disconnected = True

    def _look_for_stop(self) -> None:
        if self._stopped and self._close_sent:
            self._listening.cancel(reason=_STOPPED)

    async def aclose(self, code: int, reason: str) -> None:
        """Say Close, unless that was done; see `Connection`."""
        await self.send([Close(code, reason)])

    def abort(self) -> None:
        """Do nothing: the application returns, which ends it; see `Connection`."""

    async def discard(self) -> None:
        """Take what the server still has for us, up to the end; the caller bounds it.

        Otherwise Hypercorn's reader would wait forever for it to be received.
        """
        with suppress(ConnectionClosedError):
            while not self._disconnected:
                await self.receive()

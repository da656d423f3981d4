"""Clients that behave like the clients of the recording.

They answer a Close, and wait 1.5 s for the answer to a Close.
"""

from contextlib import suppress
from typing import Any

import trio

from conformance.player import message_detail
from trio_wspair.testing import ScriptedPeer
from trio_wspair.testing._scripted_peer import BINARY, PONG, Said

CLOSE_TIMEOUT = 1.5
"""Seconds that a client waits for the rest of a closing handshake."""

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class Client:
    """A client, with the events of its connection."""

    def __init__(self, peer: ScriptedPeer) -> None:
        self.events: list[Any] = []
        self._peer = peer
        self._closing = False
        self._closed_with: dict[str, Any] = {"code": 1006, "reason": ""}
        self._scope = trio.CancelScope()
        self._sending = trio.Lock()

    @property
    def closing(self) -> bool:
        """Whether the client has sent a Close, and waits for the connection to end."""
        return self._closing and self.events[-1][0] != "closed"

    @property
    def _open(self) -> bool:
        return bool(self.events) and self.events[-1][0] not in {"closed", "refused"}

    def give_up(self) -> None:
        """Drop the connection."""
        self._scope.cancel()

    async def run(self, target: str) -> None:
        """Open a WebSocket, and record its events until the connection has ended."""
        async with self._peer.stream:
            with self._scope:
                await self._converse(target)
        if self.events and self.events[0] == ["open"]:
            self.events.append(["closed", self._closed_with])

    async def _converse(self, target: str) -> None:
        answer = await self._peer.handshake(target=target)
        status = int(answer.split()[1])
        if status != 101:
            self.events.append(["refused", {"status": status}])
            return
        self.events.append(["open"])
        while (said := await self._peer.receive()) is not None:
            await self._hear(said)

    async def take(self, step: dict[str, Any]) -> None:
        """Take a step of the scenario."""
        match step:
            case _ if not self._open:
                pass
            case {"rawFrame": frame}:
                await self._peer.send(bytes.fromhex(frame))
            case {"terminate": True}:
                self.give_up()
            case {"end": True}:
                await self._end()
            case {"close": arguments}:
                await self._close(*arguments)
            case {"text": text} if not self._closing:
                await self._say(self._peer.text_frame(text))
            case {"bytes": data} if not self._closing:
                await self._say(self._peer.frame(BINARY, bytes.fromhex(data)))
            case {"text": _} | {"bytes": _}:
                pass  # After its Close, a client sends no messages.
            case _:
                raise AssertionError(f"no such step: {step}")

    async def _hear(self, said: Said) -> None:
        match said:
            case ("ping", bytes(payload)):
                await self._peer.send(self._peer.frame(PONG, payload))
            case (int(code), str(reason)):
                self._closed_with = {"code": code, "reason": reason}
                self.events.append(["closeFrame", self._closed_with])
                await self._close(*(() if code == 1005 else (code, reason)))
                await self._end()
            case str() | bytes():
                self.events.append(["message", message_detail(said)])

    async def _close(self, code: int | None = None, reason: str = "") -> None:
        """Send a Close, if none was sent; then the client waits 1.5 s for the end."""
        if not self._closing:
            self._closing = True
            self._scope.deadline = trio.current_time() + CLOSE_TIMEOUT
            await self._say(self._peer.close_frame(code, reason))

    async def _say(self, frame: bytes) -> None:
        async with self._sending:
            with suppress(*_GONE):  # The server may have ended the connection.
                await self._peer.send(frame)

    async def _end(self) -> None:
        assert isinstance(self._peer.stream, trio.abc.HalfCloseableStream)
        async with self._sending:
            with suppress(*_GONE):
                await self._peer.stream.send_eof()

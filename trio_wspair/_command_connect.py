"""`trio-wspair connect`: a conversation with a server, in a terminal or a pipe.

Knows lines, colours and exit codes; what a connection is is known below.
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Final, TextIO

import trio

from ._client import open_websocket
from ._codes import CloseCode
from ._errors import ConnectionClosedError, HandshakeError
from ._socket import CloseEvent, WebSocket
from .transports._engines import EngineName

__all__ = ("converse",)

_COLOURS: Final = {"green": 32, "red": 31, "dim": 2}
_SHOWN_BYTES: Final = 512
"""How much of a refusal is shown."""


async def converse(
    url: str,
    *,
    protocols: Sequence[str],
    headers: Sequence[tuple[str, str]],
    proxy: str | None,
    wait: float,
    engine: EngineName,
    compression: bool,
) -> int:
    """Send each line of the input, print what comes; return the exit code.

    Messages go to the standard output, and everything else to the standard error: so
    it works in a pipe.
    """
    try:
        async with open_websocket(
            url,
            protocols=protocols,
            headers=headers,
            proxy=proxy,
            engine=engine,
            compression=compression,
        ) as ws:
            chosen = f", subprotocol {ws.protocol}" if ws.protocol else ""
            chosen += f", {ws.extensions}" if ws.extensions else ""
            _tell(f"connected to {url}{chosen}", "dim")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_send_lines, ws, wait)
                event = await _print_messages(ws)
                nursery.cancel_scope.cancel(reason="the server has closed")
    except (HandshakeError, OSError, ValueError) as exc:
        _tell(f"no connection to {url}: {exc}", "red")
        if isinstance(exc, HandshakeError) and exc.body:
            _tell(_harmless(exc.body[:_SHOWN_BYTES].decode("utf-8", "replace")), "dim")
        return 1
    good = event.code in (1000, 1001, 1005)
    _tell(_explained(event), "green" if good else "red")
    return 0 if good else 1


async def _send_lines(ws: WebSocket, wait: float) -> None:
    rest = b""
    with contextlib.suppress(ConnectionClosedError):  # The other task tells it.
        # Of the file descriptor: a thread that waits in sys.stdin holds up the exit.
        while data := await trio.to_thread.run_sync(
            os.read, sys.stdin.fileno(), 2**16, abandon_on_cancel=True
        ):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                await _send(ws, line)
        if rest:
            await _send(ws, rest)
        await trio.sleep(wait)
        ws.close(1000)


async def _send(ws: WebSocket, line: bytes) -> None:
    ws.send(line.removesuffix(b"\r").decode("utf-8", "replace"))
    await ws.drain()


async def _print_messages(ws: WebSocket) -> CloseEvent:
    try:
        async for message in ws:
            text = message if isinstance(message, str) else f"0x{message.hex()}"
            if sys.stdout.isatty():
                text = _painted(f"< {_harmless(text)}", "green", sys.stdout)
            print(text, flush=True)
    except ConnectionClosedError:
        pass  # wait_closed() tells it.
    return await ws.wait_closed()


def _explained(event: CloseEvent) -> str:
    """Say what a close code means."""
    try:
        meaning = CloseCode(event.code).name.replace("_", " ").lower()
    except ValueError:
        meaning = "a code of the application" if event.code >= 3000 else "unregistered"
    reason = f": {_harmless(event.reason)}" if event.reason else ""
    return f"closed with {event.code} ({meaning}){reason}"


def _harmless(text: str) -> str:
    """Escape what could command a terminal."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1]
        for char in text
    )


def _tell(text: str, colour: str) -> None:
    print(_painted(text, colour, sys.stderr), file=sys.stderr, flush=True)


def _painted(text: str, colour: str, file: TextIO) -> str:
    if not file.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"

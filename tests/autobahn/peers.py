"""The peers under test: an echo server and an echo client."""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

import trio

from trio_wspair import (
    ConnectionClosedError,
    MessageEvent,
    Request,
    Response,
    Server,
    WebSocketPair,
    open_websocket,
    serve,
)

AGENT: Final = "trio-wspair"
MAX_MESSAGE_BYTES: Final = 2**26
"""More than the largest messages of the suite, 16 MiB in section 9."""
_START_SECONDS: Final = 30.0
_CASE_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.1


async def _fetch(request: Request) -> Response:
    """Echo through listeners, as `examples/echo_server.py` does."""
    client, server = WebSocketPair()

    @server.on("message")
    async def echo(event: MessageEvent) -> None:
        server.send(event.data)
        await server.drain()

    server.accept()
    return Response(None, status=101, web_socket=client)


@asynccontextmanager
async def echo_server() -> AsyncGenerator[Server]:
    """Run the server for the block."""
    start = partial(serve, _fetch, 0, max_message_bytes=MAX_MESSAGE_BYTES)
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(start)
        yield server
        nursery.cancel_scope.cancel()


async def echo_client(url: str) -> None:
    """Play every case of the fuzzing server at `url`.

    The client echoes in pull mode and the server with listeners, so that both ways of
    receiving are tested.
    """
    with trio.fail_after(_START_SECONDS):
        count = await _case_count(url)
    for number in range(1, count + 1):
        with trio.move_on_after(_CASE_SECONDS) as patience:
            await _echo(f"{url}/runCase?case={number}&agent={AGENT}")
        if patience.cancelled_caught:
            print(f"case number {number} does not end", file=sys.stderr)
    await _echo(f"{url}/updateReports?agent={AGENT}")


async def _case_count(url: str) -> int:
    while True:
        try:
            async with open_websocket(f"{url}/getCaseCount") as ws:
                return int(await ws.receive())
        except OSError:  # The suite is still starting.
            await trio.sleep(_POLL_SECONDS)


async def _echo(url: str) -> None:
    """Send each message back until the connection ends, cleanly or not."""
    async with open_websocket(url, max_message_bytes=MAX_MESSAGE_BYTES) as ws:
        with suppress(ConnectionClosedError):
            async for message in ws:
                ws.send(message)
                await ws.drain()

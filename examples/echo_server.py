"""An echo server: it sends each message, text or binary, back to its client.

Run it with `trio-wspair serve examples/echo_server.py`, or without the command with
`python examples/echo_server.py --port 8000`, and connect to it with
`python examples/echo_client.py ws://127.0.0.1:8000/ hello`. Ctrl-C stops it.
"""

import argparse
import logging
from functools import partial

import trio

from trio_wspair import (
    CloseEvent,
    MessageEvent,
    Request,
    Response,
    WebSocketPair,
    serve,
)

logger = logging.getLogger("echo")


async def fetch(request: Request) -> Response:
    """Keep one half of a pair, and give the other to the client."""
    if not request.wants_websocket:
        return Response("This is a WebSocket echo server.\n", status=426)
    client, server = WebSocketPair()

    @server.on("message")
    async def echo(event: MessageEvent) -> None:
        server.send(event.data)
        await server.drain()  # Wait for a client that reads slowly.

    @server.on("close")
    def report(event: CloseEvent) -> None:
        logger.info("%s has closed with %s", request.client, event.code)

    server.accept()
    logger.info("%s has connected", request.client)
    return Response(None, status=101, web_socket=client)


async def main(host: str, port: int) -> None:
    """Serve until cancelled."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, fetch, port, host=host))
        print(server.url, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A WebSocket echo server.")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="0 for a free port")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    # Ctrl-C then raises KeyboardInterrupt in main() only, never in a handler.
    run = partial(trio.run, restrict_keyboard_interrupt_to_checkpoints=True)
    try:
        run(main, options.host, options.port)
    except* KeyboardInterrupt:
        logger.info("stopped")

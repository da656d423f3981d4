"""A broadcast server: it sends each message of a client to all clients.

Run it with `trio-wspair serve examples/broadcast.py`, or without the command with
`python examples/broadcast.py --port 8002`, and connect a few times with any WebSocket
client, such as `trio-wspair connect`. Ctrl-C stops it.
"""

import argparse
from functools import partial

import trio

from trio_wspair import (
    BufferFullError,
    CloseEvent,
    ConnectionClosedError,
    MessageEvent,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    serve,
)

MAX_BACKLOG = 2**20
"""The most bytes that may wait for a client; a slower client is disconnected."""


class Room:
    """The connected clients."""

    def __init__(self) -> None:
        self.members: set[WebSocket] = set()

    async def fetch(self, request: Request) -> Response:
        """Accept a client, and pass its messages on to all clients."""
        if not request.wants_websocket:
            return Response("A WebSocket is required.\n", status=426)
        client, server = WebSocketPair(max_buffered_bytes=MAX_BACKLOG)

        @server.on("message")
        def pass_on(event: MessageEvent) -> None:
            self.broadcast(event.data)

        @server.on("close")
        def leave(event: CloseEvent) -> None:
            self.members.discard(server)

        server.accept()
        self.members.add(server)
        return Response(None, status=101, web_socket=client)

    def broadcast(self, message: str | bytes) -> None:
        """Send a message to all clients; a slow client does not delay the others."""
        for member in list(self.members):
            try:
                member.send(message)
            except BufferFullError:
                member.close(1008, "too slow")
                self.members.discard(member)
            except ConnectionClosedError:
                self.members.discard(member)


app = Room()


async def main(host: str, port: int) -> None:
    """Serve until cancelled."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, app, port, host=host))
        print(server.url, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A WebSocket broadcast server.")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8002, help="0 for a free port")
    options = parser.parse_args()
    # Ctrl-C then raises KeyboardInterrupt in main() only, never in a handler.
    run = partial(trio.run, restrict_keyboard_interrupt_to_checkpoints=True)
    try:
        run(main, options.host, options.port)
    except* KeyboardInterrupt:
        print("stopped")

"""A page and its WebSocket on one port: a count of clicks that all pages share.

Run it with `trio-wspair serve examples/click_counter.py`, or without the command with
`python examples/click_counter.py --port 8003`, open the address that it prints in two
windows, and click. Ctrl-C stops it. The idea is from Cloudflare's websocket-template.
"""

import argparse
import json
from functools import partial
from pathlib import Path

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
    same_origin,
    serve,
)

PAGE = Path(__file__).with_suffix(".html").read_text("utf-8")
MAX_BACKLOG = 2**16
"""The most bytes that may wait for a page; a slower page is disconnected."""


class Counter:
    """The count, and the pages that show it."""

    def __init__(self) -> None:
        self.count = 0
        self.watchers: set[WebSocket] = set()

    def watch(self) -> WebSocket:
        """Open a pair for a page, and return the half that the page will get."""
        client, server = WebSocketPair(max_buffered_bytes=MAX_BACKLOG)

        @server.on("message")
        def click(event: MessageEvent) -> None:
            if event.data == "CLICK":
                self.count += 1
                for watcher in list(self.watchers):
                    self.tell(watcher, {"count": self.count})
            else:
                self.tell(server, {"error": "Unknown message received"})

        @server.on("close")
        def leave(event: CloseEvent) -> None:
            self.watchers.discard(server)

        server.accept()
        self.watchers.add(server)
        self.tell(server, {"count": self.count})
        return client

    def tell(self, watcher: WebSocket, news: dict[str, int | str]) -> None:
        """Send a JSON message to a page; a slow page does not delay the others."""
        if watcher not in self.watchers:
            return
        try:
            watcher.send(json.dumps(news))
        except BufferFullError:
            watcher.close(1008, "too slow")
            self.watchers.discard(watcher)
        except ConnectionClosedError:
            self.watchers.discard(watcher)


counter = Counter()


async def fetch(request: Request) -> Response:
    """Answer with the page, or with a WebSocket."""
    if request.path == "/":
        return Response(PAGE, headers={"Content-Type": "text/html;charset=UTF-8"})
    if request.path != "/ws":
        return Response("Not found.\n", status=404)
    if not request.wants_websocket:
        return Response("A WebSocket is required.\n", status=400)
    if not same_origin(request):
        return Response("Only pages of this server may connect.\n", status=403)
    return Response(None, status=101, web_socket=counter.watch())


async def main(host: str, port: int) -> None:
    """Serve until cancelled."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, fetch, port, host=host))
        print(server.url.replace("ws", "http", 1), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A page that counts clicks.")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8003, help="0 for a free port")
    options = parser.parse_args()
    # Ctrl-C then raises KeyboardInterrupt in main() only, never in a handler.
    run = partial(trio.run, restrict_keyboard_interrupt_to_checkpoints=True)
    try:
        run(main, options.host, options.port)
    except* KeyboardInterrupt:
        print("stopped")

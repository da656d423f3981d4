"""A proxy: it passes messages and close codes between its clients and a server.

Run it with `python examples/proxy.py ws://127.0.0.1:8000/ --port 8001`, or with
`trio-wspair serve examples/proxy.py --port 8001`, with an echo server on port 8000.
Ctrl-C stops it.
"""

import argparse
from functools import partial

import trio

from trio_wspair import (
    CloseEvent,
    HandshakeError,
    MessageEvent,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    connect,
    serve,
)


def forward(source: WebSocket, target: WebSocket) -> None:
    """Pass on the messages of `source`, and its Close."""

    @source.on("message")
    async def pass_on(event: MessageEvent) -> None:
        target.send(event.data)
        await target.drain()  # Wait for a side that reads slowly.

    @source.on("close")
    def pass_close_on(event: CloseEvent) -> None:
        if not event.was_clean:
            target.close(1014, "the other side of the proxy has gone")
        elif event.code == 1005:  # A Close without a code.
            target.close()
        else:
            target.close(event.code, event.reason)


async def fetch(upstream_url: str, request: Request) -> Response:
    """Connect upstream first; if that fails, refuse the client."""
    if not request.wants_websocket:
        return Response("A WebSocket is required.\n", status=426)
    try:
        upstream = await connect(upstream_url)
    except (HandshakeError, OSError) as exc:
        return Response(f"No upstream: {exc}\n", status=502)
    client, server = WebSocketPair()
    forward(server, upstream)
    forward(upstream, server)
    # Half-open: the proxy answers a Close only after the other side has answered it.
    server.accept(allow_half_open=True)
    upstream.accept(allow_half_open=True)
    return Response(None, status=101, web_socket=client)


app = partial(fetch, "ws://127.0.0.1:8000/")


async def main(upstream_url: str, host: str, port: int) -> None:
    """Serve until cancelled."""
    handler = partial(fetch, upstream_url)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, handler, port, host=host))
        print(server.url, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A WebSocket proxy.")
    parser.add_argument("upstream", help="such as ws://127.0.0.1:8000/")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8001, help="0 for a free port")
    options = parser.parse_args()
    # Ctrl-C then raises KeyboardInterrupt in main() only, never in a handler.
    run = partial(trio.run, restrict_keyboard_interrupt_to_checkpoints=True)
    try:
        run(main, options.upstream, options.host, options.port)
    except* KeyboardInterrupt:
        print("stopped")

"""The server for the WebSocket tests of the Web Platform Tests (WPT).

Run it with `python tests/wpt_server.py --port 8888`, and the tests in a browser. It
serves the paths of WPT's folder `websockets/handlers`. Most handlers are for `serve()`;
the handlers in `wpt/raw.py` send bytes that `serve()` can't send.
"""

import argparse
from typing import cast

import trio
from wpt import paths, raw, shared

from trio_wspair import Request, Response, Server, serve

PATHS = paths.PATHS | shared.PATHS


async def fetch(request: Request) -> Response:
    """Pass a request to the handler of its path."""
    handler = PATHS.get(request.path)
    if handler is None:
        return Response("Not Found\n", status=404)
    if not request.wants_websocket:
        return Response("This path is for WebSockets.\n", status=426)
    return await handler(request)


async def run(
    port: int, *, task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled."""
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        others = [raw.RawPaths(listener) for listener in listeners]
        for listener in others:
            nursery.start_soon(listener.run)
        await serve(
            fetch,
            listeners=cast("list[trio.SocketListener]", others),
            task_status=task_status,
        )


async def main(port: int) -> None:
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(run, port)
        print(server.url, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8888, help="0 for a free port")
    options = parser.parse_args()
    try:
        trio.run(main, options.port)
    except* KeyboardInterrupt:
        print("stopped")

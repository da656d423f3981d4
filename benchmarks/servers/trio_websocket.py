"""trio-websocket, with the echo handler of its README."""

import sys

import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket


async def echo(request: WebSocketRequest) -> None:
    connection = await request.accept()
    while True:
        try:
            await connection.send_message(await connection.get_message())
        except ConnectionClosed:
            break


if __name__ == "__main__":
    _, _app, port = sys.argv
    trio.run(serve_websocket, echo, "127.0.0.1", int(port), None)

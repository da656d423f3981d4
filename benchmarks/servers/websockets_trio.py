"""websockets, on Trio."""

import sys
from functools import partial

import trio
from websockets.trio.server import ServerConnection, serve


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


if __name__ == "__main__":
    _, _app, port = sys.argv
    run = partial(serve, host="127.0.0.1", compression=None, ping_interval=None)
    trio.run(run, echo, int(port))

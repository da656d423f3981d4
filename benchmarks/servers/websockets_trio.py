"""websockets, on Trio."""

import sys
from functools import partial

import trio
from websockets.trio.connection import Connection, broadcast
from websockets.trio.server import ServerConnection, serve


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


members: set[Connection] = set()


async def pass_on(connection: ServerConnection) -> None:
    members.add(connection)
    try:
        async for message in connection:
            await broadcast(members, message)
    finally:
        members.discard(connection)


if __name__ == "__main__":
    _, app, port = sys.argv
    handler = {"echo": echo, "broadcast": pass_on}[app]
    run = partial(serve, host="127.0.0.1", compression=None, ping_interval=None)
    trio.run(run, handler, int(port))

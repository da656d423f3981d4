"""websockets, on asyncio's default event loop."""

import asyncio
import sys

from websockets.asyncio.server import ServerConnection, broadcast, serve


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


members: set[ServerConnection] = set()


async def pass_on(connection: ServerConnection) -> None:
    members.add(connection)
    try:
        async for message in connection:
            broadcast(members, message)
    finally:
        members.discard(connection)


async def main(app: str, port: int) -> None:
    handler = {"echo": echo, "broadcast": pass_on}[app]
    async with serve(
        handler, "127.0.0.1", port, compression=None, ping_interval=None
    ) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))

"""Durable Objects: ``python -m benchmarks.servers.objects PLACE STATE APP PORT``.

PLACE is ``one`` (all connections are in one object) or ``each`` (each connection has an
object); STATE is ``awake`` or ``asleep``; APP is ``echo``, ``broadcast`` or ``send``.
"""

import sys
from itertools import count

import trio

from benchmarks.objects.room import broadcast_to_room, echo, rooms, send_to_room
from benchmarks.servers.ours import server
from trio_wspair import Request, Response

APPS = {"echo": echo, "broadcast": broadcast_to_room, "send": send_to_room}


async def main(place: str, state: str, app: str, port: int) -> None:
    numbers = count()
    async with rooms(APPS[app], asleep=state == "asleep") as namespace:

        async def fetch(request: Request) -> Response:
            name = str(next(numbers)) if place == "each" else "lobby"
            return await namespace.get_by_name(name).fetch(request)

        await server("websockets")(fetch, port)


if __name__ == "__main__":
    _, place, state, app, port = sys.argv
    trio.run(main, place, state, app, int(port))

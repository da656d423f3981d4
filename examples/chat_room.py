"""A chat: named rooms that leave memory while nobody speaks, and lose nothing by it.

Run it with `trio-wspair serve examples/chat_room.py`, or without the command with
`python examples/chat_room.py --port 8004`, and open the address that it prints in two
windows. Any name after `/rooms/` is a room. Ctrl-C stops it.

A page says `{"type": "join", "name": ...}` first, then `{"type": "say", "text": ...}`.
It hears `welcome` with the last messages, `said`, `joined` and `left` with the names of
all who are here, and `error` with a text for it alone. `ping` is answered by `pong`.
"""

import argparse
import json
import math
import re
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypedDict, cast

import trio

from trio_wspair import (
    BufferFullError,
    FetchHandler,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    broadcast,
    same_origin,
    serve,
)
from trio_wspair.hibernation import (
    DurableObject,
    DurableObjectNamespace,
    DurableObjectState,
    WebSocketRequestResponsePair,
)

PAGE = Path(__file__).with_suffix(".html").read_text("utf-8")
PATH = re.compile(r"/rooms/([\w-]{1,40})(/ws)?")

MAX_NAME, MAX_TEXT = 24, 1000
"""Characters in a name, and in what somebody says. The page knows them, too."""
PACE, BURST = 1.0, 5
"""Seconds for each message, in the long run, and how many may come at once."""
MAX_HISTORY, MAX_ROOMS = 50, 1000
"""Messages kept for each room, and rooms whose messages are kept."""
MAX_BACKLOG = 2**20
"""Bytes that somebody may be behind before they have to go."""


class Said(TypedDict):
    """A message in the history."""

    name: str
    text: str
    time: float


class Histories:
    """What was said last, room by room. In earnest this would be a database."""

    def __init__(self) -> None:
        self._rooms: OrderedDict[str, deque[Said]] = OrderedDict()

    def of(self, room: str) -> list[Said]:
        """Return the last messages of a room, the oldest first."""
        return list(self._rooms.get(room, ()))

    def add(self, room: str, said: Said) -> None:
        """Keep a message, and forget the room that was silent for longest."""
        self._rooms.setdefault(room, deque(maxlen=MAX_HISTORY)).append(said)
        self._rooms.move_to_end(room)
        if len(self._rooms) > MAX_ROOMS:
            self._rooms.popitem(last=False)


class Person(TypedDict):
    """What a socket carries in its attachment, from the moment somebody joins."""

    name: str
    busy_until: float
    """When what was said is over, if each message takes PACE seconds."""


class ChatError(Exception):
    """Something can't be done, for a reason that its sender is told."""


class Room(DurableObject):
    """A room. It has no attributes of its own, so it can sleep at any moment."""

    env: Histories

    def __init__(self, ctx: DurableObjectState, env: Histories) -> None:
        super().__init__(ctx, env)
        ctx.set_web_socket_auto_response(WebSocketRequestResponsePair("ping", "pong"))

    async def fetch(self, request: Request) -> Response:
        """Open a socket. Nobody is here before they have said their name."""
        client, server = WebSocketPair(max_buffered_bytes=MAX_BACKLOG)
        self.ctx.accept_web_socket(server)
        return Response(None, status=101, web_socket=client)

    async def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
        """Do what a message asks for, or tell its sender why not."""
        try:
            match parse(message):
                case {"type": "join", "name": str(name)}:
                    self.join(ws, name)
                case {"type": "say", "text": str(text)}:
                    self.say(ws, text)
                case _:
                    tell([ws], "error", text="This is nothing that a room can do.")
        except ChatError as error:
            tell([ws], "error", text=str(error))

    async def web_socket_close(
        self, ws: WebSocket, code: int, reason: str, was_clean: bool
    ) -> None:
        """Say goodbye."""
        self.leave(ws)

    async def web_socket_error(self, ws: WebSocket, error: Exception) -> None:
        """Say goodbye to somebody whose program is broken."""
        self.leave(ws)

    # Nothing below awaits, so nobody comes between a look at the room and a change.

    def join(self, ws: WebSocket, name: str) -> None:
        """Let somebody in, under a name that nobody else has."""
        name = " ".join(name.split())
        if (person := person_at(ws)) is not None:
            raise ChatError(f"You are here already, as {person['name']}.")
        if not name:
            raise ChatError("A name is needed to join.")
        if len(name) > MAX_NAME:
            raise ChatError(f"A name has at most {MAX_NAME} characters.")
        if not name.isprintable():
            raise ChatError("There is something in this name that can't be shown.")
        if name.casefold() in map(str.casefold, self.people().values()):
            raise ChatError(f"The name {name} is taken.")
        ws.serialize_attachment(Person(name=name, busy_until=0.0))
        tell([ws], "welcome", name=name, messages=self.env.of(str(self.ctx.id)))
        self.tell_all("joined", name, self.people())

    def say(self, ws: WebSocket, text: str) -> None:
        """Pass on what somebody says, unless that is too long or too much."""
        text = text.strip()
        if (person := person_at(ws)) is None:
            raise ChatError("Join before you speak.")
        if not text:
            raise ChatError("There is nothing in this message.")
        if len(text) > MAX_TEXT:
            raise ChatError(f"A message has at most {MAX_TEXT} characters.")
        now = trio.current_time()
        busy_until = max(now, person["busy_until"]) + PACE
        too_early = busy_until - now - BURST * PACE
        if too_early > 0:
            wait = f"Wait {math.ceil(too_early)} s, and send it again."
            raise ChatError(f"That was too fast. {wait}")
        ws.serialize_attachment(Person(name=person["name"], busy_until=busy_until))
        said = Said(name=person["name"], text=text, time=time.time())
        self.env.add(str(self.ctx.id), said)
        tell(self.people(), "said", **said)

    def leave(self, ws: WebSocket) -> None:
        """Tell the others that somebody has gone."""
        if (person := person_at(ws)) is not None:
            people = self.people()
            people.pop(ws, None)
            self.tell_all("left", person["name"], people)

    def tell_all(self, type: str, name: str, people: dict[WebSocket, str]) -> None:
        """Tell all people who has come or gone, and who is here now."""
        names = sorted(people.values(), key=str.casefold)
        tell(people, type, name=name, people=names, time=time.time())

    def people(self) -> dict[WebSocket, str]:
        """Return the name of everybody who is here, by their socket."""
        sockets = self.ctx.get_web_sockets()
        return {ws: person["name"] for ws in sockets if (person := person_at(ws))}


def parse(message: str | bytes) -> object:
    """Return what a message says in JSON."""
    try:
        return json.loads(message)
    except (ValueError, RecursionError):
        raise ChatError("This is no JSON.") from None


def person_at(ws: WebSocket) -> Person | None:
    """Return who is at the other end of a socket, if they have said so."""
    return cast("Person | None", ws.deserialize_attachment())


def tell(sockets: Iterable[WebSocket], type: str, **news: object) -> None:
    """Send news, and wait for nobody."""
    skipped = broadcast(sockets, json.dumps({"type": type, **news}))
    for ws, error in skipped.items():
        if isinstance(error, BufferFullError):
            ws.close(1008, "too slow")


async def fetch(rooms: DurableObjectNamespace, request: Request) -> Response:
    """Answer with the page, or with a WebSocket from one of the rooms."""
    if request.path == "/":
        return Response.redirect("/rooms/lobby")
    found = PATH.fullmatch(request.path)
    if found is None:
        return Response("Not found\n", status=404)
    room, wants_socket = found.groups()
    if not wants_socket:
        return Response(PAGE, headers={"Content-Type": "text/html;charset=UTF-8"})
    if not request.wants_websocket:
        return Response("Expected a WebSocket\n", status=426)
    if not same_origin(request):
        return Response("Only for pages of this server\n", status=403)
    return await rooms.get_by_name(room).fetch(request)


@asynccontextmanager
async def app(hibernate_after: float = 10.0) -> AsyncGenerator[FetchHandler, None]:
    """Open the rooms, and give the handler of their server."""
    async with DurableObjectNamespace(Room, Histories(), hibernate_after) as rooms:
        yield partial(fetch, rooms)


async def main(host: str, port: int, hibernate_after: float) -> None:
    """Serve until cancelled."""
    rooms = app(hibernate_after)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            partial(serve, rooms, port, host=host, max_message_bytes=2**16)
        )
        print(server.url.replace("ws", "http", 1), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A chat with named rooms.")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen")
    parser.add_argument("--port", type=int, default=8004, help="0 picks a free one")
    parser.add_argument(
        "--hibernate-after",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how long a silent room stays in memory",
    )
    options = parser.parse_args()
    # Ctrl-C is for main() alone then, so it can't strike while a client is served.
    run = partial(trio.run, restrict_keyboard_interrupt_to_checkpoints=True)
    try:
        run(main, options.host, options.port, options.hibernate_after)
    except* KeyboardInterrupt:
        print("stopped")

"""A chat with named rooms. A silent room leaves memory, and loses nothing.

Run it with `trio-wspair serve examples/chat_room.py`, or without the command with
`python examples/chat_room.py --port 8004`, and open the address that it prints in two
windows. Any name after `/rooms/` is a room. Ctrl-C stops it.

A page sends `{"type": "join", "name": ...}` first, then `{"type": "say", "text": ...}`
for each message. The server sends `welcome` with the last messages, `said` with a
message, `joined` and `left` with the names of all people in the room, and `error` with
a text. It answers `ping` with `pong`.
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
"""The most characters of a name, and of a message. The page has the same limits."""
PACE, BURST = 1.0, 5
"""The seconds per message on average, and the most messages at once."""
MAX_HISTORY, MAX_ROOMS = 50, 1000
"""The most messages that are kept for a room, and the most rooms with messages."""
MAX_BACKLOG = 2**20
"""The most bytes that may wait for a client; a slower client is disconnected."""


class Said(TypedDict):
    """A message in the history."""

    name: str
    text: str
    time: float


class Histories:
    """The last messages of each room. A real application would use a database."""

    def __init__(self) -> None:
        self._rooms: OrderedDict[str, deque[Said]] = OrderedDict()

    def of(self, room: str) -> list[Said]:
        """Return the last messages of a room, the oldest first."""
        return list(self._rooms.get(room, ()))

    def add(self, room: str, said: Said) -> None:
        """Keep a message; forget the room that has been silent for the longest time."""
        self._rooms.setdefault(room, deque(maxlen=MAX_HISTORY)).append(said)
        self._rooms.move_to_end(room)
        if len(self._rooms) > MAX_ROOMS:
            self._rooms.popitem(last=False)


class Person(TypedDict):
    """The attachment of a socket, from the moment at which a person joins."""

    name: str
    busy_until: float
    """The time when this person's messages are over, if each takes PACE seconds."""


class ChatError(Exception):
    """A message can't be handled; its sender receives the reason."""


class Room(DurableObject):
    """A room. It keeps no state in attributes, so it can sleep at any moment."""

    env: Histories

    def __init__(self, ctx: DurableObjectState, env: Histories) -> None:
        super().__init__(ctx, env)
        ctx.set_web_socket_auto_response(WebSocketRequestResponsePair("ping", "pong"))

    async def fetch(self, request: Request) -> Response:
        """Accept a client. Its user is in the room after sending a name."""
        client, server = WebSocketPair(max_buffered_bytes=MAX_BACKLOG)
        self.ctx.accept_web_socket(server)
        return Response(None, status=101, web_socket=client)

    async def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
        """Handle a message, or send its sender the reason for an error."""
        try:
            match parse(message):
                case {"type": "join", "name": str(name)}:
                    self.join(ws, name)
                case {"type": "say", "text": str(text)}:
                    self.say(ws, text)
                case _:
                    tell([ws], "error", text="The type of this message is unknown.")
        except ChatError as error:
            tell([ws], "error", text=str(error))

    async def web_socket_close(
        self, ws: WebSocket, code: int, reason: str, was_clean: bool
    ) -> None:
        """Tell the others that a person has left."""
        self.leave(ws)

    async def web_socket_error(self, ws: WebSocket, error: Exception) -> None:
        """Tell the others that a person has left after a protocol error."""
        self.leave(ws)

    # Nothing below awaits, so the room does not change between a check and an action.

    def join(self, ws: WebSocket, name: str) -> None:
        """Let a person join, with a name that is unique in the room."""
        name = " ".join(name.split())
        if (person := person_at(ws)) is not None:
            raise ChatError(f"You have joined already, as {person['name']}.")
        if not name:
            raise ChatError("A name is required.")
        if len(name) > MAX_NAME:
            raise ChatError(f"A name has at most {MAX_NAME} characters.")
        if not name.isprintable():
            raise ChatError("This name contains a character that can't be shown.")
        if name.casefold() in map(str.casefold, self.people().values()):
            raise ChatError(f"The name {name} is taken.")
        ws.serialize_attachment(Person(name=name, busy_until=0.0))
        tell([ws], "welcome", name=name, messages=self.env.of(str(self.ctx.id)))
        self.tell_all("joined", name, self.people())

    def say(self, ws: WebSocket, text: str) -> None:
        """Send a message to the whole room, unless it is invalid or too early."""
        text = text.strip()
        if (person := person_at(ws)) is None:
            raise ChatError("Join before you send a message.")
        if not text:
            raise ChatError("This message is empty.")
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
        """Tell the others that a person has left, if the socket had joined."""
        if (person := person_at(ws)) is not None:
            people = self.people()
            people.pop(ws, None)
            self.tell_all("left", person["name"], people)

    def tell_all(self, type: str, name: str, people: dict[WebSocket, str]) -> None:
        """Tell all people that a person has joined or left, and the names of all."""
        names = sorted(people.values(), key=str.casefold)
        tell(people, type, name=name, people=names, time=time.time())

    def people(self) -> dict[WebSocket, str]:
        """Return the names of all people in the room, by socket."""
        sockets = self.ctx.get_web_sockets()
        return {ws: person["name"] for ws in sockets if (person := person_at(ws))}


def parse(message: str | bytes) -> object:
    """Return the value of a message, which is JSON."""
    try:
        return json.loads(message)
    except (ValueError, RecursionError):
        raise ChatError("This message is not JSON.") from None


def person_at(ws: WebSocket) -> Person | None:
    """Return the person at the other end of a socket, or `None` before they join."""
    return cast("Person | None", ws.deserialize_attachment())


def tell(sockets: Iterable[WebSocket], type: str, **news: object) -> None:
    """Send a JSON message to sockets; a slow client does not delay the others."""
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
        return Response("Not found.\n", status=404)
    room, wants_socket = found.groups()
    if not wants_socket:
        return Response(PAGE, headers={"Content-Type": "text/html;charset=UTF-8"})
    if not request.wants_websocket:
        return Response("A WebSocket is required.\n", status=426)
    if not same_origin(request):
        return Response("Only pages of this server may connect.\n", status=403)
    return await rooms.get_by_name(room).fetch(request)


@asynccontextmanager
async def app(hibernate_after: float = 10.0) -> AsyncGenerator[FetchHandler, None]:
    """Open the rooms, and yield the handler of the server."""
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
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8004, help="0 for a free port")
    parser.add_argument(
        "--hibernate-after",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how long a silent room stays in memory",
    )
    options = parser.parse_args()
    # Ctrl-C then raises KeyboardInterrupt in main() only, never in a handler.
    run = partial(trio.run, restrict_keyboard_interrupt_to_checkpoints=True)
    try:
        run(main, options.host, options.port, options.hibernate_after)
    except* KeyboardInterrupt:
        print("stopped")

"""`open_inspector()`: a local page that shows the connections, live.

Knows requests, the page and its WebSocket. The page says what it has, and asks for what
is new; a `Watcher` answers when there is something. The server of the page isn't
watched itself.
"""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib import resources
from itertools import islice
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
import trio

from trio_wspair._http.messages import Request, Response
from trio_wspair._http.origin import same_origin
from trio_wspair._pair.instruments import use_instrument
from trio_wspair._pair.pair import WebSocketPair
from trio_wspair._pair.websocket import MessageEvent, WebSocket
from trio_wspair._rules.errors import ConnectionClosedError
from trio_wspair._rules.state import ReadyState
from trio_wspair._server.serving import Server, serve
from trio_wspair._tasks.nurseries import open_service_nursery

from ._connections import Connections, Frame

__all__ = ("Inspector", "Site", "Watcher", "open_inspector")


_PACE: Final = 0.1
"""The fewest seconds between two updates."""
_CONNECTIONS: Final = 200
"""The most connections in an update."""
_FRAMES: Final = 200
"""The most frames in an update."""
_BYTES: Final = 2**18
"""About the most bytes of payloads in an update."""


@attrs.frozen
class _Question:
    """What a page has already."""

    revision: int
    connection: int | None
    """The number of the connection whose frames it shows."""
    after: int
    """The number of the last frame that it has."""


class Watcher:
    """The WebSocket of one page.

    Args:
        socket: The server's half of it.
        connections: The connections to show.
    """

    def __init__(self, socket: WebSocket, connections: Connections) -> None:
        self._socket = socket
        self._connections = connections
        self._question: _Question | None = None
        socket.add_event_listener("message", self._keep_question)
        socket.accept()

    def _keep_question(self, event: MessageEvent) -> None:
        self._question = _question_in(event.data)
        if self._question is None:
            self._socket.close(1008, "invalid question")
        self._connections.wake()

    async def run(self) -> None:
        """Answer the page's questions until it is closed."""
        with suppress(ConnectionClosedError):
            while self._socket.ready_state is ReadyState.OPEN:
                update = self._update()
                if update is None:
                    await self._connections.wait_change()
                else:
                    self._question = None
                    self._socket.send(json.dumps(update))
                    await self._socket.drain()
                    await trio.sleep(_PACE)

    def _update(self) -> dict[str, Any] | None:
        """Return the answer to the page's question; `None` if nothing is new."""
        asked, all_ = self._question, self._connections
        if asked is None:
            return None
        changed = [w for w in all_.by_id.values() if w.revision > asked.revision]
        changed.sort(key=lambda watched: watched.revision)
        included = changed[:_CONNECTIONS]
        complete = len(included) == len(changed)
        update: dict[str, Any] = {
            "revision": all_.revision if complete else included[-1].revision,
            "connections": [watched.as_json() for watched in included],
        }
        if all_.forgotten > asked.revision:
            update["ids"] = list(all_.by_id)
        watched = all_.by_id.get(asked.connection or 0)
        if watched is not None:
            frames = _some(f for f in watched.history if f.number > asked.after)
            update["of"] = asked.connection
            update["frames"] = [frame.as_json() for frame in frames]
        return update if included or update.get("frames") or "ids" in update else None


def _question_in(text: str | bytes) -> _Question | None:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    match fields:
        case {
            "revision": int(revision),
            "connection": int() | None as connection,
            "after": int(after),
        }:
            return _Question(revision, connection, after)
        case _:
            return None


def _some(frames: Iterable[Frame]) -> list[Frame]:
    """Return as many frames from the beginning as an update may have."""
    chosen: list[Frame] = []
    room = _BYTES
    for frame in islice(frames, _FRAMES):
        chosen.append(frame)
        room -= len(frame.data)
        if room < 0:
            break
    return chosen


_FOLDER: Final = resources.files("trio_wspair.inspector")
_PAGE: Final = (_FOLDER / "page.html").read_text("utf-8")
_NAMES: Final = frozenset({"127.0.0.1", "localhost", "::1"})


def _hash_of(element: str) -> str:
    """Return the hash of the text in an element of the page, for the page's policy."""
    found = re.search(f"<{element}>(.*?)</{element}>", _PAGE, re.DOTALL)
    assert found is not None
    digest = hashlib.sha256(found[1].encode()).digest()
    return f"'sha256-{b64encode(digest).decode()}'"


_HEADERS: Final = {
    "Content-Type": "text/html;charset=UTF-8",
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash_of('script')}",
            f"style-src {_hash_of('style')}",
            "img-src data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ]
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Site:
    """The handler of the page's requests.

    Args:
        connections: The connections that the page shows.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.port: int | None = None
        """The port of the server. Before it is set, every request is refused."""

    async def fetch(self, request: Request) -> Response:
        """Answer a request."""
        if not self._is_local(request):
            message = f"The inspector's page is http://127.0.0.1:{self.port}/\n"
            return Response(message, status=403)
        if request.path == "/":
            return Response(_PAGE, headers=_HEADERS)
        if request.path != "/ws":
            return Response("The inspector has the page / only.\n", status=404)
        if not same_origin(request):
            message = "This WebSocket is for the inspector's page only.\n"
            return Response(message, status=403)
        if not request.wants_websocket:
            message = "This URL is for a WebSocket: send an upgrade request.\n"
            return Response(message, status=426)
        client, server = WebSocketPair()
        request.nursery.start_soon(Watcher(server, self._connections).run)
        return Response(None, status=101, web_socket=client)

    def _is_local(self, request: Request) -> bool:
        """Return whether the request's host is a name of this machine, with the port.

        Otherwise a page of another site could have its name resolve to this server.
        """
        url = urlsplit(request.url)
        return url.hostname in _NAMES and (url.port or 80) == self.port


_PAGES: Final = 20
"""The most connections of browsers."""


@attrs.frozen(eq=False)
class Inspector:
    """A page that shows the connections of this process."""

    url: str
    """The URL of the page, such as ``http://127.0.0.1:8001/``."""


@asynccontextmanager
async def open_inspector(port: int = 0) -> AsyncGenerator[Inspector, None]:
    """Show all connections that are made in the block, on a local page.

    ``async with open_inspector() as inspector: await serve(...)``. The page is at
    `inspector.url`, on ``127.0.0.1`` only. It shows everything that clients send, to
    every user of this machine: use it for development.

    It shows connections of `serve()` and of `connect()`. Like an instrument, it is
    inherited by tasks that are started in the block. Memory is bounded: of each
    connection the last 500 frames are kept, of each payload the first 16 KiB, 32 MiB in
    all; and the last 100 connections that have closed. A slow page misses frames, and
    never delays a connection.

    Args:
        port: The port of the page; 0 picks a free one.

    Raises:
        OSError: The port is in use or not permitted.
        TypeError: The port isn't an int.
        ValueError: The port is out of range.
    """
    connections = Connections()
    site = Site(connections)
    async with open_service_nursery() as nursery:
        run = partial(
            serve,
            site.fetch,
            port,
            host="127.0.0.1",
            max_connections=_PAGES,
            max_message_bytes=1024,
            max_body_bytes=0,
            close_grace=0.5,
        )
        server: Server = await nursery.start(run)
        site.port = server.port
        nursery.start_soon(connections.keep_sampling)
        with use_instrument(connections):
            try:
                yield Inspector(f"http://127.0.0.1:{server.port}/")
            finally:
                connections.stop()

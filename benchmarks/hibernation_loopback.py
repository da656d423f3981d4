"""Objects and `websockets` behind real connections, each server in its own process.

``python -m benchmarks.hibernation_loopback SERVER`` prints its port. To each line on
its standard input it answers how much memory it holds after a garbage collection, and
how much CPU time it has used. The clients are sockets of the process that started it.
"""

import asyncio
import gc
import itertools
import math
import os
import resource
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Final

import attrs
import trio
import websockets.asyncio.server
import websockets.trio.connection
import websockets.trio.server

from trio_wspair import Request, Response, WebSocket, WebSocketPair, broadcast, serve
from trio_wspair.hibernation import (
    DurableObject,
    DurableObjectNamespace,
    DurableObjectState,
)

__all__ = ("TEXT", "Handle", "Room", "broadcast_by", "idle_at", "resident_bytes")

HOST: Final = "127.0.0.1"
TEXT: Final = "0123456789abcdef" * 4
WARM: Final = 50
_SETTLING: Final = 0.5
_SPARE_FILES: Final = 100 + WARM
_TOGETHER: Final = 50
"""Handshakes in flight."""

_MASK: Final = b"\x37\xfa\x21\x3d"
_ASKED: Final = (
    bytes([0x81, 0x80 | len(TEXT)])
    + _MASK
    + bytes(byte ^ _MASK[i % 4] for i, byte in enumerate(TEXT.encode()))
)
"""What a client sends: final text frame, masked (RFC 6455, section 5.2)."""
_TOLD: Final = bytes([0x81, len(TEXT)]) + TEXT.encode()
"""What everybody gets."""
_HANDSHAKE: Final = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def resident_bytes() -> int:
    """Return how much memory this process holds. Linux only."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


# -- the servers ---------------------------------------------------------------

Handle = Callable[[DurableObjectState, str | bytes], None]


class Room(DurableObject):
    """Takes every socket. What is done with messages is its `env`."""

    async def fetch(self, request: Request) -> Response:  # noqa: ARG002
        """Let somebody in."""
        client, server = WebSocketPair()
        self.ctx.accept_web_socket(server)
        return Response(None, status=101, web_socket=client)

    async def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:  # noqa: ARG002
        """Do what is wanted."""
        handle: Handle = self.env
        handle(self.ctx, message)


def broadcast_to_room(ctx: DurableObjectState, message: str | bytes) -> None:
    broadcast(ctx.get_web_sockets(), message)


def send_to_room(ctx: DurableObjectState, message: str | bytes) -> None:
    for ws in ctx.get_web_sockets():
        ws.send(message)


async def serve_rooms(
    *,
    handle: Handle = broadcast_to_room,
    hibernate_after: float = math.inf,
    each: bool = False,
) -> None:
    """Serve one object, or one for each connection."""
    numbers = itertools.count()
    rooms = DurableObjectNamespace(Room, handle, hibernate_after)

    async def fetch(request: Request) -> Response:
        name = str(next(numbers)) if each else "lobby"
        return await rooms.get_by_name(name).fetch(request)

    run = partial(serve, max_connections=100_000, ping_interval=math.inf)
    async with rooms, trio.open_nursery() as nursery:
        started = await nursery.start(run, fetch, 0)
        print(started.port, flush=True)


async def serve_websockets_trio() -> None:
    members: set[websockets.trio.connection.Connection] = set()

    async def pass_on(connection: websockets.trio.server.ServerConnection) -> None:
        members.add(connection)
        try:
            async for message in connection:
                await websockets.trio.connection.broadcast(members, message)
        finally:
            members.discard(connection)

    listeners = await trio.open_tcp_listeners(0, host=HOST)
    print(listeners[0].socket.getsockname()[1], flush=True)
    await websockets.trio.server.serve(
        pass_on, listeners=listeners, compression=None, ping_interval=None
    )


async def serve_websockets_asyncio() -> None:
    members: set[websockets.asyncio.server.ServerConnection] = set()

    async def pass_on(connection: websockets.asyncio.server.ServerConnection) -> None:
        members.add(connection)
        try:
            async for message in connection:
                websockets.asyncio.server.broadcast(members, message)
        finally:
            members.discard(connection)

    async with websockets.asyncio.server.serve(
        pass_on, HOST, 0, compression=None, ping_interval=None
    ) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await server.serve_forever()


Serve = Callable[[], Awaitable[None]]
SERVERS: Final[Mapping[str, Serve]] = {
    "websockets-trio": serve_websockets_trio,
    "websockets-asyncio": serve_websockets_asyncio,
    "room-awake": serve_rooms,
    "room-hibernated": partial(serve_rooms, hibernate_after=0.0),
    "room-each-awake": partial(serve_rooms, each=True),
    "room-each-hibernated": partial(serve_rooms, each=True, hibernate_after=0.0),
    "room-send": partial(serve_rooms, handle=send_to_room),
}


def answer_questions() -> None:
    """Tell how things stand, until the process that has started this one ends."""
    for _ in sys.stdin:
        gc.collect()
        print(resident_bytes(), time.process_time(), flush=True)
    os._exit(0)


def run_server(name: str) -> None:
    allow_many_files()
    threading.Thread(target=answer_questions, daemon=True).start()
    if name == "websockets-asyncio":
        asyncio.run(serve_websockets_asyncio())
    else:
        trio.run(SERVERS[name])


# -- the clients ---------------------------------------------------------------


def allow_many_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def possible(connections: int) -> int:
    """Return how many of these connections a process may have at most."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return connections
    return min(connections, (most - _SPARE_FILES) // _TOGETHER * _TOGETHER)


@attrs.frozen
class Server:
    """A server in another process."""

    port: int
    _questions: IO[str]
    _answers: IO[str]

    def ask(self) -> tuple[int, float]:
        """Return the bytes that it holds, and the seconds of CPU time it has used."""
        print(file=self._questions, flush=True)
        resident, spent = self._answers.readline().split()
        return int(resident), float(spent)


@contextmanager
def start_server(name: str) -> Generator[Server, None, None]:
    command = [sys.executable, "-m", "benchmarks.hibernation_loopback", name]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            yield Server(port, process.stdin, process.stdout)
        finally:
            process.kill()


def connect(port: int, connections: int) -> Iterator[socket.socket]:
    """Open WebSockets, some at a time."""
    for _ in range(0, connections, _TOGETHER):
        opened = [socket.create_connection((HOST, port), 30) for _ in range(_TOGETHER)]
        for client in opened:
            client.sendall(_HANDSHAKE)
        for client in opened:
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                received = client.recv(2**16)
                assert received, f"no handshake: {answer!r}"
                answer += received
            assert answer.startswith(b"HTTP/1.1 101 "), answer
            yield client


def idle_at(name: str, connections: int, _seconds: float) -> dict[str, float]:
    """Return the memory of the server for each connection."""
    allow_many_files()
    with start_server(name) as server:
        kept = list(connect(server.port, WARM))
        time.sleep(_SETTLING)
        before, _ = server.ask()
        kept += connect(server.port, connections)
        time.sleep(_SETTLING)
        grown = server.ask()[0] - before
    assert len(kept) == WARM + connections
    return {"bytes/socket": grown / connections}


def broadcast_by(name: str, members: int, seconds: float) -> dict[str, float]:
    """Return how many messages arrive in a second, of the clock and of its CPU time."""
    allow_many_files()
    with start_server(name) as server, selectors.DefaultSelector() as selector:
        clients = list(connect(server.port, members))
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
        _broadcast_for(seconds / 4, clients, selector)  # Warm up.
        _, before = server.ask()
        start = time.perf_counter()
        came = _broadcast_for(seconds, clients, selector)
        spent = time.perf_counter() - start
        _, after = server.ask()
    return {"messages/s": came / spent, "messages/CPU s": came / (after - before)}


def _broadcast_for(
    seconds: float, clients: list[socket.socket], selector: selectors.BaseSelector
) -> int:
    """Have one message after the other passed on, and count what arrives: all."""
    came = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        clients[0].sendall(_ASKED)
        waiting = len(clients)
        while waiting:
            ready = selector.select(10)
            assert ready, f"{waiting} messages were lost"
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                assert key.fileobj.recv(2**12) == _TOLD, "a wrong message"
                waiting -= 1
        came += len(clients)
    return came


if __name__ == "__main__":
    run_server(sys.argv[1])

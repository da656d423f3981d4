"""Echo over loopback: a pair behind `serve()`, against a plain trio-websocket handler.

The server has a process of its own: ``python -m benchmarks.loopback CONTESTANT``. The
client is the same for both. It makes its frames beforehand and compares bytes, so that
it is not the limit.
"""

import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import attrs
import trio
import trio_websocket

from trio_wspair import MessageEvent, Request, Response, WebSocketPair, serve

from .work import OURS, Measure, Quantity, Sample, Work

__all__ = ("WORKS",)

HOST: Final = "127.0.0.1"
CONNECTIONS: Final = 10
TRIO_WEBSOCKET: Final = "trio-websocket"

TEXT: Final = b"0123456789abcdef" * 4
MASK: Final = b"\x37\xfa\x21\x3d"
FRAME: Final = (
    bytes([0x81, 0x80 | len(TEXT)])
    + MASK
    + bytes(byte ^ MASK[i % 4] for i, byte in enumerate(TEXT))
)
"""What the client sends: final text frame, masked (RFC 6455, section 5.2)."""
ECHO: Final = bytes([0x81, len(TEXT)]) + TEXT
"""What comes back."""
READ_BYTES: Final = 2**16
ECHOES: Final = ECHO * (READ_BYTES // len(ECHO) + 2)
"""As many echoes as one read can bring, wherever in the first it begins."""
HANDSHAKE: Final = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

MESSAGES: Final = Quantity("messages/s")
SERVER_TIME: Final = Quantity("server CPU µs/message", more_is_better=False)
CLIENT_LOAD: Final = "client CPU share"
"""Not in the table: it shows whether the client was the limit."""

# -- the servers -------------------------------------------------------------

Start = Callable[[trio.Nursery], Awaitable[int]]
"""Starts a server and returns its port."""


async def start_pair_server(nursery: trio.Nursery) -> int:
    async def fetch(_request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept()

        @server.on("message")
        def echo(event: MessageEvent) -> None:
            server.send(event.data)

        return Response(None, status=101, web_socket=client)

    started = await nursery.start(serve, fetch, 0)
    return int(started.port)


async def start_trio_websocket_server(nursery: trio.Nursery) -> int:
    async def echo(request: trio_websocket.WebSocketRequest) -> None:
        connection = await request.accept()
        while True:
            try:
                await connection.send_message(await connection.get_message())
            except trio_websocket.ConnectionClosed:
                break

    started = await nursery.start(trio_websocket.serve_websocket, echo, HOST, 0, None)
    return int(started.port)


SERVERS: Final[dict[str, Start]] = {
    TRIO_WEBSOCKET: start_trio_websocket_server,
    OURS: start_pair_server,
}


async def run_server(name: str) -> None:
    """Serve, and tell on another port how much CPU time that took so far."""

    async def tell_cpu_time(stream: trio.SocketStream) -> None:
        async for _ in stream:
            await stream.send_all(f"{time.process_time()}\n".encode())

    async with trio.open_nursery() as nursery:
        port = await SERVERS[name](nursery)
        control = await nursery.start(trio.serve_tcp, tell_cpu_time, 0)
        print(port, control[0].socket.getsockname()[1], flush=True)


@attrs.frozen
class Server:
    """A server in another process."""

    port: int
    control: socket.socket

    def cpu_time(self) -> float:
        """Return the seconds of CPU time that it has used."""
        self.control.sendall(b"?")
        return float(self.control.recv(100))


@contextmanager
def start_server(name: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "benchmarks.loopback", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port, control_port = map(int, process.stdout.readline().split())
            with socket.create_connection((HOST, control_port), 10) as control:
                yield Server(port, control)
        finally:
            process.terminate()


# -- the client --------------------------------------------------------------


@attrs.define
class Connection:
    """An open WebSocket."""

    socket: socket.socket
    offset: int = 0
    """Bytes that have come of an echo that is not complete yet."""

    def take_echoes(self) -> int:
        """Read what is there, check it, and return how many echoes are complete."""
        data = self.socket.recv(READ_BYTES)
        assert data, "the server has closed"
        end = self.offset + len(data)
        assert data == ECHOES[self.offset : end], "a wrong echo"
        echoes, self.offset = divmod(end, len(ECHO))
        return echoes


def connect(port: int) -> Connection:
    client = socket.create_connection((HOST, port), 10)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(HANDSHAKE)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        received = client.recv(READ_BYTES)
        assert received, f"no handshake: {answer!r}"
        answer += received
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    return Connection(client)


def converse(connections: list[Connection], window: int, seconds: float) -> int:
    """Keep `window` messages in flight on each. Return how many came back: all."""
    came = 0
    in_flight = window * len(connections)
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            connection.socket.sendall(FRAME * window)
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        end = time.perf_counter() + seconds
        while in_flight:
            ready = selector.select(10)
            assert ready, f"{in_flight} messages were lost"
            going_on = time.perf_counter() < end
            for key, _ in ready:
                connection = key.data
                echoes = connection.take_echoes()
                came += echoes
                if going_on:
                    connection.socket.sendall(FRAME * echoes)
                else:
                    in_flight -= echoes
    return came


def echo(name: str, window: int) -> Measure:
    def measure(seconds: float) -> Sample:
        with start_server(name) as server:
            connections = [connect(server.port) for _ in range(CONNECTIONS)]
            converse(connections, window, seconds / 5)  # Warm up.
            server_before, client_before = server.cpu_time(), time.process_time()
            start = time.perf_counter()
            messages = converse(connections, window, seconds)
            spent = time.perf_counter() - start
            server_after, client_after = server.cpu_time(), time.process_time()
            for connection in connections:
                connection.socket.close()
        return {
            MESSAGES.name: messages / spent,
            SERVER_TIME.name: (server_after - server_before) / messages * 1e6,
            CLIENT_LOAD: (client_after - client_before) / spent,
        }

    return measure


WORKS: Final = tuple(
    Work(
        f"echo-{window}",
        f"echo, {CONNECTIONS} connections, {window} in flight on each",
        (MESSAGES, SERVER_TIME),
        {name: echo(name, window) for name in SERVERS},
    )
    for window in (1, 32)
)

if __name__ == "__main__":
    trio.run(run_server, sys.argv[1])

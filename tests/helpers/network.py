"""The network of tests: servers, clients, scripted peers, and the log, on the loopback.

The fixtures `net`, `one_end`, `logged` and `tls` of `conftest.py` give them to tests.
"""

import logging
import os
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any

import attrs
import trio
from pairs import accept_and_collect

from trio_wspair import (
    MessageEvent,
    Request,
    Response,
    Server,
    WebSocket,
    WebSocketPair,
    connect,
    serve,
)
from trio_wspair.testing import (
    ScriptedPeer,
    open_scripted_client,
    open_scripted_server,
)
from trio_wspair.testing._scripted_peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    KEY,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    accept_key,
    head,
)

Script = Callable[[ScriptedPeer], Awaitable[None]]


OneEnd = Callable[..., AbstractAsyncContextManager[tuple[WebSocket, ScriptedPeer]]]


class Network:
    """Servers, clients and raw peers on the loopback interface."""

    CONTINUATION, TEXT, BINARY = CONTINUATION, TEXT, BINARY
    CLOSE, PING, PONG = CLOSE, PING, PONG
    KEY, UPGRADE = KEY, UPGRADE
    head = staticmethod(head)
    accept_key = staticmethod(accept_key)
    raw = ScriptedPeer

    @asynccontextmanager
    async def serve(
        self, fetch: Callable[[Request], Any], **options: Any
    ) -> AsyncGenerator[Server]:
        """Run `serve()` for a block, and stop it afterwards."""
        options.setdefault("close_grace", 2.0)
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(partial(serve, fetch, 0, **options))
            yield server
            nursery.cancel_scope.cancel()

    accept = staticmethod(accept_and_collect)

    @staticmethod
    async def echo(request: Request) -> Response:
        """Send each message back: a `fetch` handler."""
        if not request.wants_websocket:
            return Response("A WebSocket is required.", status=426)
        client, server = WebSocketPair()

        @server.on("message")
        def echo(event: MessageEvent) -> None:
            server.send(event.data)

        server.accept()
        return Response(None, status=101, web_socket=client)

    @asynccontextmanager
    async def serve_halves(
        self, **options: Any
    ) -> AsyncGenerator[tuple[Server, trio.MemoryReceiveChannel[WebSocket]]]:
        """Serve WebSockets; the handler sends its half of each to the channel."""
        pair_options = options.pop("pair_options", {})
        send, receive = trio.open_memory_channel[WebSocket](100)

        async def fetch(request: Request) -> Response:
            client, server = WebSocketPair(**pair_options)
            send.send_nowait(server)
            return Response(None, status=101, web_socket=client)

        async with self.serve(fetch, **options) as server:
            yield server, receive

    @asynccontextmanager
    async def joined(
        self,
        *,
        client_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> AsyncGenerator[tuple[WebSocket, WebSocket]]:
        """Open one connection and give its two ends: the client, the server."""
        async with (
            self.serve_halves(**options) as (server, halves),
            trio.open_nursery() as nursery,
        ):
            chosen: dict[str, Any] = {"close_grace": 2.0, **(client_options or {})}
            client = await connect(server.url, nursery=nursery, **chosen)
            yield client, await halves.receive()
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def dial(self, server: Server) -> AsyncGenerator[ScriptedPeer]:
        """Open a bare TCP connection to a server."""
        stream = await trio.open_tcp_stream(*server.addresses[0])
        async with open_scripted_client(stream, handshake=False) as peer:
            yield peer

    @asynccontextmanager
    async def peer(
        self, server: Server, *headers: str, target: str = "/"
    ) -> AsyncGenerator[ScriptedPeer]:
        """Open a WebSocket to a server with a scripted handshake."""
        async with self.dial(server) as peer:
            answer = await peer.handshake(*headers, target=target)
            assert answer.startswith("HTTP/1.1 101 "), answer
            yield peer

    @asynccontextmanager
    async def server_end(
        self, **options: Any
    ) -> AsyncGenerator[tuple[WebSocket, ScriptedPeer]]:
        """Give the half of a server, and the scripted client at its other end."""
        async with (
            self.serve_halves(**options) as (server, halves),
            self.peer(server) as peer,
        ):
            yield await halves.receive(), peer

    @asynccontextmanager
    async def client_end(
        self, **options: Any
    ) -> AsyncGenerator[tuple[WebSocket, ScriptedPeer]]:
        """Give the half of a client, and the scripted server at its other end."""
        send, receive = trio.open_memory_channel[ScriptedPeer](1)
        done = trio.Event()
        pair_options = options.pop("pair_options", {})
        options = {"close_grace": 2.0, **options, **pair_options}

        async def script(peer: ScriptedPeer) -> None:
            send.send_nowait(peer)
            await done.wait()

        async with open_scripted_server(script) as url, trio.open_nursery() as nursery:
            client = await connect(url, nursery=nursery, **options)
            yield client, await receive.receive()
            done.set()
            nursery.cancel_scope.cancel()

    @staticmethod
    def script(script: Script) -> AbstractAsyncContextManager[str]:
        """Run a scripted server that also has to answer the handshake."""
        return open_scripted_server(script, handshake=False)

    @staticmethod
    def open_sockets() -> int:
        """Count the open sockets of this process."""
        count = 0
        for fd in os.listdir("/proc/self/fd"):
            with suppress(OSError):  # The descriptor that lists the folder.
                count += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
        return count

    async def until_open_sockets(self, count: int) -> None:
        """Wait until this number of sockets is open; the caller bounds the time."""
        await self.until(lambda: self.open_sockets() == count)

    @staticmethod
    async def until(happened: Callable[[], object]) -> None:
        """Poll until a condition is true; the caller bounds the time."""
        while not happened():  # noqa: ASYNC110 - there is no event for it
            await trio.sleep(0.01)


class Logged(logging.Handler):
    """The warnings and errors that are logged, until the test takes them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.records.append(record)

    def take(self) -> str:
        """Return the text of the only record, with its traceback, and remove it."""
        assert len(self.records) == 1, [r.getMessage() for r in self.records]
        return logging.Formatter().format(self.records.pop())


@attrs.frozen
class Tls:
    """The TLS contexts of a server and of a client that trusts it."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    pem: bytes
    """The certificate of the server, and its key."""

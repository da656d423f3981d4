"""What the tests of the network share: a server, peers made of bytes, and watchers.

Everything is reached through the fixture `net`, which also sees that a test ends in
time, leaves no socket open, and that nothing is logged that the test does not expect.
"""

import base64
import hashlib
import logging
import os
import re
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any

import attrs
import pytest
import trio
import trustme

from trio_wspair import (
    CloseEvent,
    ErrorEvent,
    MessageEvent,
    Request,
    Response,
    Server,
    WebSocket,
    WebSocketPair,
    connect,
    serve,
)

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""The key of the example in RFC 6455, section 1.3."""
UPGRADE = (
    "Host: 127.0.0.1",
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Version: 13",
)
"""The headers of a good handshake."""


def head(*headers: str, start: str = "GET / HTTP/1.1") -> bytes:
    """Return the head of a message, to the empty line."""
    return "\r\n".join([start, *headers, "", ""]).encode("latin-1")


def accept_key(key: str) -> str:
    """Return what a server answers to a key (RFC 6455, section 4.2.2)."""
    digest = hashlib.sha1(
        f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False
    )
    return base64.b64encode(digest.digest()).decode()


Said = str | bytes | tuple[int, str] | tuple[str, bytes]
"""What a frame says: text, binary, (code, reason) of a Close, or ("ping", payload)."""


def said_by(opcode: int, payload: bytes) -> Said:
    """Return what a whole frame says."""
    if opcode == TEXT:
        return payload.decode()
    if opcode == BINARY:
        return payload
    if opcode == CLOSE:
        code = struct.unpack("!H", payload[:2])[0] if payload else 1005
        return code, payload[2:].decode()
    return {PING: "ping", PONG: "pong"}[opcode], payload


class RawPeer:
    """The other end of a connection, which says exactly what it is told to say.

    Its frames are made and read here, by nobody's library.
    """

    def __init__(self, stream: trio.abc.Stream, *, masks: bool) -> None:
        self.stream = stream
        self.masks = masks
        self._received = bytearray()

    # -- speaking -------------------------------------------------------------

    def frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
        """Return a good frame."""
        size = len(payload)
        mask_bit = 0x80 if self.masks else 0
        if size < 126:
            header = struct.pack("!BB", opcode | (fin << 7), mask_bit | size)
        elif size < 2**16:
            header = struct.pack("!BBH", opcode | (fin << 7), mask_bit | 126, size)
        else:
            header = struct.pack("!BBQ", opcode | (fin << 7), mask_bit | 127, size)
        # A mask of zeros leaves the payload as it is.
        return header + (bytes(4) if self.masks else b"") + payload

    def text(self, text: str) -> bytes:
        """Return a text message."""
        return self.frame(TEXT, text.encode())

    def close(self, code: int | None = None, reason: str = "") -> bytes:
        """Return a Close."""
        payload = b"" if code is None else struct.pack("!H", code) + reason.encode()
        return self.frame(CLOSE, payload)

    async def send(self, *data: bytes | bytearray) -> None:
        """Send bytes, all at once."""
        await self.stream.send_all(b"".join(data))

    # -- hearing --------------------------------------------------------------

    async def _more(self) -> bool:
        """Read on; return whether there was something."""
        try:
            data = await self.stream.receive_some(2**16)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        self._received += data
        return bool(data)

    async def read_head(self) -> str:
        """Return the head of an HTTP message, as far as it comes."""
        while b"\r\n\r\n" not in self._received and await self._more():
            pass
        end = self._received.find(b"\r\n\r\n") + 4
        text = self._received[:end].decode("latin-1")
        del self._received[:end]
        return text

    async def read_all(self) -> bytes:
        """Return everything until the end of TCP."""
        while await self._more():
            pass
        data = bytes(self._received)
        self._received.clear()
        return data

    async def hear(self) -> Said | None:
        """Return what the next frame says; `None` if TCP ends before it."""
        while (found := self._parse()) is None:
            if not await self._more():
                assert not self._received, f"torn: {bytes(self._received[:40])!r}"
                return None
        said, size = found
        del self._received[:size]
        return said

    async def hear_all(self) -> list[Said]:
        """Return what all frames say until the end of TCP."""
        everything: list[Said] = []
        while (said := await self.hear()) is not None:
            everything.append(said)
        return everything

    def _parse(self) -> tuple[Said, int] | None:
        data = self._received
        if len(data) < 2:
            return None
        masked, size, start = data[1] & 0x80, data[1] & 0x7F, 2
        assert bool(masked) is not self.masks, "a client masks, a server does not"
        assert data[0] & 0xF0 == 0x80, "nothing but whole frames is sent"
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        mask = bytes(data[start : start + 4]) if masked else b""
        start += len(mask)
        if len(data) < start + size:
            return None
        payload = bytes(data[start : start + size])
        if mask:
            pad = (mask * (size // 4 + 1))[:size]
            number = int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")
            payload = number.to_bytes(size, "big")
        return said_by(data[0] & 0x0F, payload), start + size

    # -- the opening handshake ------------------------------------------------

    async def ask(self, *headers: str, target: str = "/") -> str:
        """Ask for a WebSocket, as a client; return the head of the answer."""
        await self.send(head(*UPGRADE, *headers, start=f"GET {target} HTTP/1.1"))
        return await self.read_head()

    async def answer(self, *headers: str) -> str:
        """Open a WebSocket, as a server; return the head of the request."""
        request = await self.read_head()
        found = re.search(r"(?i)\r\nsec-websocket-key: (\S+)\r\n", request)
        assert found is not None, request
        await self.send(
            head(
                "Upgrade: websocket",
                "Connection: Upgrade",
                f"Sec-WebSocket-Accept: {accept_key(found[1])}",
                *headers,
                start="HTTP/1.1 101 Switching Protocols",
            )
        )
        return request


Heard = str | bytes | CloseEvent | ErrorEvent
Script = Callable[[RawPeer], Awaitable[None]]


class Network:
    """Servers, clients and raw peers on the loopback interface."""

    CONTINUATION, TEXT, BINARY = CONTINUATION, TEXT, BINARY
    CLOSE, PING, PONG = CLOSE, PING, PONG
    KEY, UPGRADE = KEY, UPGRADE
    head = staticmethod(head)
    accept_key = staticmethod(accept_key)
    raw = RawPeer

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

    @staticmethod
    def hear(socket: WebSocket, *, allow_half_open: bool = False) -> list[Heard]:
        """Accept a half and return the list that its events are put into."""
        heard: list[Heard] = []

        def on_message(event: MessageEvent) -> None:
            heard.append(event.data)

        socket.add_event_listener("message", on_message)
        socket.add_event_listener("error", heard.append)
        socket.add_event_listener("close", heard.append)
        socket.accept(allow_half_open=allow_half_open)
        return heard

    @staticmethod
    async def echo(request: Request) -> Response:
        """Answer every message with itself: a `fetch` handler."""
        protocols = request.headers.get("upgrade", "").lower().split(",")
        if "websocket" not in [protocol.strip() for protocol in protocols]:
            return Response("This is for WebSockets.", status=426)
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
        """Serve WebSockets; the channel gives the handler's half of each."""
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
    async def dial(self, server: Server) -> AsyncGenerator[RawPeer]:
        """Open a bare TCP connection to a server."""
        stream = await trio.open_tcp_stream(*server.addresses[0])
        try:
            yield RawPeer(stream, masks=True)
        finally:
            await trio.aclose_forcefully(stream)

    @asynccontextmanager
    async def peer(
        self, server: Server, *headers: str, target: str = "/"
    ) -> AsyncGenerator[RawPeer]:
        """Open a WebSocket to a server, by hand."""
        async with self.dial(server) as peer:
            answer = await peer.ask(*headers, target=target)
            assert answer.startswith("HTTP/1.1 101 "), answer
            yield peer

    @asynccontextmanager
    async def server_end(
        self, **options: Any
    ) -> AsyncGenerator[tuple[WebSocket, RawPeer]]:
        """Give a half of a server and the raw client that it talks to."""
        async with (
            self.serve_halves(**options) as (server, halves),
            self.peer(server) as peer,
        ):
            yield await halves.receive(), peer

    @asynccontextmanager
    async def client_end(
        self, **options: Any
    ) -> AsyncGenerator[tuple[WebSocket, RawPeer]]:
        """Give a half of a client and the raw server that it talks to."""
        send, receive = trio.open_memory_channel[RawPeer](1)
        done = trio.Event()
        pair_options = options.pop("pair_options", {})
        options = {"close_grace": 2.0, **options, **pair_options}

        async def script(peer: RawPeer) -> None:
            await peer.answer()
            send.send_nowait(peer)
            await done.wait()

        async with self.script(script) as url, trio.open_nursery() as nursery:
            client = await connect(url, nursery=nursery, **options)
            yield client, await receive.receive()
            done.set()
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def script(self, script: Script) -> AsyncGenerator[str]:
        """Run a server made of bytes, for one connection after the other."""

        async def run(stream: trio.SocketStream) -> None:
            async with stream:
                await script(RawPeer(stream, masks=False))

        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(
                partial(trio.serve_tcp, run, 0, host="127.0.0.1")
            )
            port = listeners[0].socket.getsockname()[1]
            yield f"ws://127.0.0.1:{port}/"
            nursery.cancel_scope.cancel()

    @staticmethod
    def open_sockets() -> int:
        """Count the sockets that this process has open."""
        count = 0
        for fd in os.listdir("/proc/self/fd"):
            with suppress(OSError):  # For the one that listed the others.
                count += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
        return count

    async def until_open_sockets(self, count: int) -> None:
        """Wait until as many sockets are open; the caller bounds the time."""
        await self.until(lambda: self.open_sockets() == count)

    @staticmethod
    async def until(happened: Callable[[], object]) -> None:
        """Wait for what tells nobody of itself; the caller bounds the time."""
        while not happened():  # noqa: ASYNC110 - there is no event for it
            await trio.sleep(0.01)


class Logged(logging.Handler):
    """What was logged, from warnings on. What nobody takes fails the test."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.records.append(record)

    def take(self) -> str:
        """Return the one record that there is, traceback included, and forget it."""
        assert len(self.records) == 1, [r.getMessage() for r in self.records]
        return logging.Formatter().format(self.records.pop())


@pytest.fixture
def logged() -> Generator[Logged]:
    """Keep the log. Nothing may be in it that the test does not take."""
    keeper = Logged()
    logging.getLogger().addHandler(keeper)
    try:
        yield keeper
        assert not keeper.records, [keeper.format(r) for r in keeper.records]
    finally:
        logging.getLogger().removeHandler(keeper)


@pytest.fixture
def no_socket_left() -> Generator[None]:
    """See that no socket is open after the test that was not open before."""
    before = Network.open_sockets()
    yield
    assert Network.open_sockets() == before


@pytest.fixture
async def net(logged: Logged, no_socket_left: None) -> AsyncGenerator[Network]:
    """The network, for a test that takes less than ten seconds."""
    with trio.fail_after(10):
        yield Network()


OneEnd = Callable[..., AbstractAsyncContextManager[tuple[WebSocket, RawPeer]]]


@pytest.fixture(params=["server", "client"])
def one_end(request: pytest.FixtureRequest, net: Network) -> OneEnd:
    """Open a connection whose one end is a half and whose other is bytes."""
    return net.server_end if request.param == "server" else net.client_end


@attrs.frozen
class Tls:
    """Two ends that trust each other."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    pem: bytes
    """The certificate of the server, and its key."""


@pytest.fixture(scope="session")
def tls() -> Tls:
    """A certificate for this machine, and a client that trusts it."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.configure_cert(server)  # pyright: ignore[reportUnknownMemberType]
    client = ssl.create_default_context()
    authority.configure_trust(client)  # pyright: ignore[reportUnknownMemberType]
    return Tls(server, client, certificate.private_key_and_cert_chain_pem.bytes())

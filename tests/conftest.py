"""What the tests of the network share: a server, peers made of bytes, and watchers.

Everything is reached through the fixture `net`, which also sees that a test ends in
time, leaves no socket open, and that nothing is logged that the test does not expect.
"""

import logging
import os
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trustme

# What test modules share asserts as they do, also with `python -O`.
SHARED = {path.stem for path in (Path(__file__).parent / "helpers").glob("*.py")}
pytest.register_assert_rewrite(*SHARED)

from engines import ENGINES, using  # noqa: E402 - see above
from processes import default_signals  # noqa: E402

from trio_wspair import (  # noqa: E402
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
from trio_wspair.testing import (  # noqa: E402
    ScriptedPeer,
    open_scripted_client,
    open_scripted_server,
)
from trio_wspair.testing._scripted_peer import (  # noqa: E402
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
from trio_wspair.transports._engines import EngineName  # noqa: E402

pytest_plugins = ["pytester"]

Heard = str | bytes | CloseEvent | ErrorEvent
Script = Callable[[ScriptedPeer], Awaitable[None]]


@pytest.fixture(scope="session", autouse=True)
def signals_as_in_a_terminal() -> Generator[None]:
    """Let the tests, and the programs that they start, be interrupted by signals."""
    with default_signals():
        yield


@pytest.fixture(scope="session", autouse=True)
def output_as_in_a_terminal() -> Generator[None]:
    """Let the programs that tests start buffer their output, as they do by default."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONUNBUFFERED", raising=False)
        yield


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
        if not request.wants_websocket:
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
    async def dial(self, server: Server) -> AsyncGenerator[ScriptedPeer]:
        """Open a bare TCP connection to a server."""
        stream = await trio.open_tcp_stream(*server.addresses[0])
        async with open_scripted_client(stream, handshake=False) as peer:
            yield peer

    @asynccontextmanager
    async def peer(
        self, server: Server, *headers: str, target: str = "/"
    ) -> AsyncGenerator[ScriptedPeer]:
        """Open a WebSocket to a server, by hand."""
        async with self.dial(server) as peer:
            answer = await peer.handshake(*headers, target=target)
            assert answer.startswith("HTTP/1.1 101 "), answer
            yield peer

    @asynccontextmanager
    async def server_end(
        self, **options: Any
    ) -> AsyncGenerator[tuple[WebSocket, ScriptedPeer]]:
        """Give a half of a server and the raw client that it talks to."""
        async with (
            self.serve_halves(**options) as (server, halves),
            self.peer(server) as peer,
        ):
            yield await halves.receive(), peer

    @asynccontextmanager
    async def client_end(
        self, **options: Any
    ) -> AsyncGenerator[tuple[WebSocket, ScriptedPeer]]:
        """Give a half of a client and the raw server that it talks to."""
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
        """Run a server made of bytes, which also answers the handshake."""
        return open_scripted_server(script, handshake=False)

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


@pytest.fixture(params=ENGINES, scope="module")
def engine(request: pytest.FixtureRequest) -> Generator[EngineName]:
    """Run a test on each engine. A module may have another fixture, for one of them.

    Every test on `net` does; one without it asks for this fixture.
    """
    with using(request.param):
        yield request.param


@pytest.fixture
async def net(
    request: pytest.FixtureRequest,
    logged: Logged,
    no_socket_left: None,
    engine: EngineName,
) -> AsyncGenerator[Network]:
    """The network, for a test that takes less than ten seconds.

    A module whose tests start programs may have more, as its `SECONDS`.
    """
    with trio.fail_after(getattr(request.module, "SECONDS", 10)):
        yield Network()


OneEnd = Callable[..., AbstractAsyncContextManager[tuple[WebSocket, ScriptedPeer]]]


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

"""The cancellation sweep over TCP, TLS, and streams in memory.

The other end is scripted, and fails at a torn frame. The clock is virtual, and jumps
when the network is quiet.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Final, NoReturn

import pytest
import trio
from cancellation_sweep import (
    QUICK,
    ROLES,
    EventLog,
    Listening,
    Peer,
    Role,
    Wire,
    Wiring,
)
from engines import engine_in_use
from network import Logged, Tls
from pairs import BodyError, abnormal, clean

from trio_wspair import (
    CloseEvent,
    ConnectionClosedError,
    MessageEvent,
    ReadyState,
    Request,
    Response,
    Server,
    WebSocket,
    WebSocketPair,
    connect,
    open_websocket,
    serve,
)
from trio_wspair.testing import Attempt, ScriptedPeer
from trio_wspair.testing._scripted_peer import KEY
from trio_wspair.transports import Connection, couple

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("engine")]

GRACE: Final = 30.0
"""Seconds: longer than any operation takes that isn't stuck."""
CANCELLED: Final = abnormal("closing was cancelled")
UNANSWERED: Final = abnormal("the peer did not answer the Close in 1.0 s")

with_networks = pytest.mark.parametrize("wire", ["tcp", "tls"])
with_ends = pytest.mark.parametrize(
    ("role", "wire"),
    [(role, wire) for role in ROLES for wire in ("memory", "tcp", "tls")],
)
with_some_listeners = pytest.mark.parametrize(
    ("role", "wire", "listening"),
    [
        ("client", "memory", "slow"),
        ("server", "memory", "stubborn"),
        ("client", "tcp", "async"),
        ("server", "tls", "sync"),
    ],
)
"""Only a few combinations: on a network, waiting for a listener takes real time."""


@pytest.fixture
def wiring(wire: Wire, tls: Tls, logged: Logged) -> Wiring:
    """Return how the ends of a test are connected; nothing may be logged."""
    if wire == "tls":
        return Wiring(wire, tls.server, tls.client)
    return Wiring(wire, None, None)


# -- the verbs of a half that is coupled with a connection -----------------------------


def open_connection(
    role: Role, stream: trio.abc.Stream
) -> AbstractAsyncContextManager[Connection]:
    """Open a connection on a stream; as a server, after the request was read."""
    if role == "server":
        return engine_in_use().open_server(
            stream,
            key=KEY,
            extensions="",
            received=b"",
            subprotocol=None,
            headers=[],
            max_message_bytes=2**20,
        )
    return engine_in_use().open_client(
        stream,
        host="127.0.0.1",
        resource="/",
        subprotocols=[],
        headers=[],
        max_message_bytes=2**20,
    )


async def couple_on(
    stream: trio.abc.Stream,
    role: Role,
    half: WebSocket,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> CloseEvent:
    """Open a connection on a stream, and couple a half with it."""
    if role == "server":
        await ScriptedPeer(stream, masks=False).read_head()
    async with open_connection(role, stream) as connection:
        task_status.started()
        return await couple(half, connection, close_grace=GRACE)


def other(role: Role) -> Role:
    """Return the role of the other end."""
    return "server" if role == "client" else "client"


@asynccontextmanager
async def one_end(
    role: Role, wiring: Wiring, close_grace: float = GRACE
) -> AsyncGenerator[tuple[WebSocket, Peer]]:
    """Give a half and its peer, connected by a network."""
    ours, theirs = await wiring.streams(role)
    peer = Peer(other(role))
    async with trio.open_nursery() as nursery:
        half, coupled = WebSocketPair(nursery, close_grace=close_grace)
        nursery.start_soon(peer.run, theirs)
        await nursery.start(couple_on, ours, role, coupled)
        yield half, peer
        await half.aclose()


@with_ends
def test_g5_a_cancelled_receive_loses_no_message(role: Role, wiring: Wiring) -> None:
    async def operation(attempt: Attempt) -> None:
        got: list[str | bytes] = []
        async with one_end(role, wiring) as (half, peer):
            half.accept(pull=True)
            half.send("a")
            half.send("b")
            with attempt:
                got.append(await half.receive())
                got.append(await half.receive())
            assert half.ready_state is ReadyState.OPEN
            half.send("c")
            while len(got) < 3:
                got.append(await half.receive())
        assert got == ["a!", "b!", "c!"]
        assert peer.received == ["a", "b", "c", (1000, "")]

    wiring.sweep(operation)


@with_some_listeners
def test_g5_a_cancelled_drain_tears_no_frame(
    listening: Listening, role: Role, wiring: Wiring
) -> None:
    large = "large" * 50_000

    async def operation(attempt: Attempt) -> None:
        async with one_end(role, wiring) as (half, peer):
            events = EventLog(half, listening)
            half.accept()
            half.send(large)
            half.send("b")
            with attempt:
                await half.drain()
                assert half.buffered_amount == 0
            assert half.ready_state is ReadyState.OPEN
            half.send("c")
            await half.drain()
        assert peer.received == [large, "b", "c", (1000, "")]
        assert events.messages == ["large" * 4 + "!", "b!", "c!"]
        assert events.close_event() == clean(1000)

    wiring.sweep(operation)


@with_some_listeners
def test_g5_a_cancelled_ping_leaves_the_connection_as_it_was(
    listening: Listening, role: Role, wiring: Wiring
) -> None:
    async def operation(attempt: Attempt) -> None:
        async with one_end(role, wiring) as (half, peer):
            events = EventLog(half, listening)
            half.accept()
            half.send("a")
            with attempt:
                assert await half.ping() >= 0
            assert half.ready_state is ReadyState.OPEN
            assert await half.ping() >= 0
            half.send("b")
        assert [said for said in peer.received if said[0] != "ping"] == [
            *("a", "b"),
            (1000, ""),
        ]
        assert events.messages == ["a!", "b!"]
        assert events.close_event() == clean(1000)

    wiring.sweep(operation)


@with_some_listeners
def test_g6_a_cancelled_aclose_has_closed(
    listening: Listening, role: Role, wiring: Wiring
) -> None:
    async def operation(attempt: Attempt) -> None:
        async with one_end(role, wiring, close_grace=1.0) as (half, peer):
            events = EventLog(half, listening)
            half.accept()
            half.send("a")
            half.send("b")
            with attempt:
                await half.aclose(3000, "enough")
            assert half.ready_state is ReadyState.CLOSED
        assert peer.received == ["a", "b", (3000, "enough")]
        end = events.close_event()
        if attempt.got_through and listening in QUICK:
            assert end == clean(3000, "enough")
            assert events.messages == ["a!", "b!"]
        else:
            assert end in (clean(3000, "enough"), CANCELLED, UNANSWERED)

    wiring.sweep(operation)


# -- couple() -------------------------------------------------------------------------


@with_ends
def test_g4_a_cancelled_couple_sends_the_queued_messages_and_a_close(
    role: Role, wiring: Wiring
) -> None:
    async def operation(attempt: Attempt) -> None:
        ours, theirs = await wiring.streams(role)
        peer = Peer(other(role), greetings=("1!", "2!"))
        event: CloseEvent | None = None
        coupling = False
        async with trio.open_nursery() as nursery:
            half, coupled = WebSocketPair(nursery)
            events = EventLog(half, "async")
            half.accept(allow_half_open=True)
            half.send("a")
            half.send("b")

            async def close() -> None:
                with suppress(ConnectionClosedError):
                    await half.drain()
                    half.send("c")
                    half.close(3000)

            nursery.start_soon(peer.run, theirs)
            with attempt:
                if role == "server":
                    await ScriptedPeer(ours, masks=False).read_head()
                async with open_connection(role, ours) as connection:
                    coupling = True
                    nursery.start_soon(close)
                    event = await couple(coupled, connection, close_grace=GRACE)
            if not coupling:  # No coupling has begun that would close them.
                await trio.aclose_forcefully(ours)
                await half.aclose()
            await half.wait_closed()
        end = events.close_event()
        if event is not None:
            assert peer.received == ["a", "b", "c", (3000, "")]
            assert events.messages == ["1!", "2!", "a!", "b!", "c!"]
            assert event == end == clean(3000)
        elif coupling:
            assert peer.texts in (["a", "b"], ["a", "b", "c"])
            assert peer.close == (1001 if len(peer.texts) == 2 else 3000)
            assert end.was_clean or end.code == 1006
        else:
            assert peer.received == []

    wiring.sweep(operation)


# -- connect() and open_websocket() ----------------------------------------------------


@with_networks
def test_g5_a_cancelled_connect_leaves_no_connection(wiring: Wiring) -> None:
    async def operation(attempt: Attempt) -> None:
        ws: WebSocket | None = None
        async with wiring.peers() as (url, peers), trio.open_nursery() as nursery:
            with attempt:
                ws = await connect(
                    url,
                    nursery=nursery,
                    ssl_context=wiring.client,
                    close_grace=GRACE,
                )
            if ws is None:
                assert not nursery.child_tasks
                nursery.start_soon(trio.lowlevel.checkpoint)
            else:
                ws.accept(pull=True)
                ws.send("a")
                assert await ws.receive() == "a!"
                await ws.aclose()
        said = [] if ws is None else ["a", (1000, "")]
        assert [peer.received for peer in peers] in ([], [said])

    wiring.sweep(operation)


def fail() -> NoReturn:
    raise BodyError


@with_networks
@pytest.mark.parametrize("raises", [True, False])
def test_g6_open_websocket_cancelled_at_any_step_has_closed(
    *, raises: bool, wiring: Wiring
) -> None:
    async def operation(attempt: Attempt) -> None:
        events: list[EventLog] = []
        leaving = raised = False
        async with wiring.peers() as (url, peers):
            try:
                with attempt:
                    async with open_websocket(
                        url, ssl_context=wiring.client, close_grace=GRACE
                    ) as ws:
                        events.append(EventLog(ws, "async", pulled=True))
                        ws.send("a")
                        assert await ws.receive() == "a!"
                        ws.send("b!")
                        leaving = True
                        if raises:
                            fail()
            except BodyError:
                raised = True
        assert raised is (leaving and raises), "the exception of the block is raised"
        if not events:
            assert [peer.received for peer in peers] in ([], [[]])
            return
        end = events[0].close_event()
        code = 1011 if raises else 1000
        if attempt.got_through:
            assert end == clean(code)
        elif end != clean(code):
            assert end.code == 1006
        said = ["a", "b!"] if leaving else ["a"]
        assert peers[0].texts == said
        assert peers[0].close in ((code, 1001) if leaving else (1001,))

    wiring.sweep(operation)


# -- serve() --------------------------------------------------------------------------


@asynccontextmanager
async def serving(
    wiring: Wiring, fetch: Callable[[Request], Awaitable[Response]]
) -> AsyncGenerator[Server]:
    """Run `serve()` for a block of code, and stop it afterwards."""
    async with trio.open_nursery() as nursery:
        yield await nursery.start(
            partial(serve, fetch, 0, ssl_context=wiring.server, close_grace=GRACE)
        )
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("wire", "listening"),
    [
        ("tcp", "async"),
        ("tcp", "slow"),
        ("tls", "stubborn"),
    ],
)
def test_g2_serve_cancelled_at_any_step_gives_every_half_its_close_event(
    listening: Listening, wiring: Wiring
) -> None:
    async def operation(attempt: Attempt) -> None:
        events: list[EventLog] = []
        visitor = Peer("client", greetings=("hello!",))

        async def fetch(_request: Request) -> Response:
            client, server = WebSocketPair()
            events.append(EventLog(server, listening))
            server.accept()
            server.send("a!")
            await trio.lowlevel.checkpoint()
            server.send("b!")
            return Response(None, status=101, web_socket=client)

        async with trio.open_nursery() as visitors:
            with attempt:
                async with serving(wiring, fetch) as server:
                    visitors.start_soon(wiring.visit, server, visitor)
                    await visitor.two_messages.wait()
        if visitor.opened:
            assert visitor.received == ["a!", "b!", (1001, "the server stops")]
        else:
            assert visitor.received == []
        for each in events:
            end = each.close_event()
            if visitor.opened and listening in QUICK:
                assert end == clean(1001, "the server stops")
                assert each.messages == ["hello!"]
            elif not end.was_clean:
                assert end.code == 1006

    wiring.sweep(operation)


@with_networks
@pytest.mark.parametrize("taking", ["pulling", "listening"])
def test_g5_a_handler_cancelled_at_any_step_loses_no_message(
    taking: str, wiring: Wiring
) -> None:
    async def operation(attempt: Attempt) -> None:
        visitor = Peer("client", greetings=("1", "2"))

        async def fetch(request: Request) -> Response:
            client, server = WebSocketPair()
            got: list[str | bytes] = []

            async def pull() -> None:
                while len(got) < 2:
                    got.append(await server.receive())
                    server.send(f"{got[-1]!s}!")
                    await server.drain()

            async def echo() -> None:
                with attempt:
                    await pull()
                await pull()
                await server.aclose(4000)

            async def answer(event: MessageEvent) -> None:
                got.append(event.data)
                server.send(f"{event.data!s}!")
                if len(got) == 1:
                    with attempt:
                        await server.drain()
                else:
                    await server.aclose(4000)

            if taking == "pulling":
                request.nursery.start_soon(echo)
            else:
                server.onmessage = answer
                server.accept()
            return Response(None, status=101, web_socket=client)

        async with serving(wiring, fetch) as server:
            await wiring.visit(server, visitor)
        assert visitor.received == ["1!", "2!", (4000, "")]

    wiring.sweep(operation)


@pytest.mark.parametrize("wire", ["tcp"])
def test_g2_a_client_cancelled_at_any_step_gives_the_server_one_close_event(
    wiring: Wiring,
) -> None:
    async def operation(attempt: Attempt) -> None:
        ours: list[EventLog] = []
        theirs: list[EventLog] = []

        async def fetch(_request: Request) -> Response:
            client, server = WebSocketPair()
            theirs.append(EventLog(server, "async"))
            server.accept()
            server.send("hello")
            return Response(None, status=101, web_socket=client)

        async with serving(wiring, fetch) as server:
            with attempt:
                async with open_websocket(
                    server.url, ssl_context=wiring.client, close_grace=GRACE
                ) as ws:
                    ours.append(EventLog(ws, "async", pulled=True))
                    ws.send("a")
                    assert await ws.receive() == "hello"
                    await ws.drain()
            for each in theirs:
                await each.half.wait_closed()
        for each in theirs:
            end = each.close_event()
            assert (end.code, end.was_clean) in (
                (1000, True),
                (1001, True),
                (1006, False),
            )
            if ours:
                assert end.was_clean, "it was open, so a Close was sent"
                assert each.messages == ["a"]
        for each in ours:
            end = each.close_event()
            assert end.code == (1000 if end.was_clean else 1006)
            if attempt.got_through:
                assert end.was_clean

    wiring.sweep(operation)

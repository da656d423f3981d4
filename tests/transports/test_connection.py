"""`Connection`: its behaviour on each engine, over streams in memory."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from engines import engine_in_use
from network import Network
from trio.testing import MockClock

from trio_wspair import ConnectionClosedError, HandshakeError, ProtocolError
from trio_wspair.testing import ScriptedPeer
from trio_wspair.transports import Close, Connection, SupportsPing
from trio_wspair.transports._connection import FrameSender
from trio_wspair.transports._engines import Opened


async def ping(connection: Connection) -> float:
    """Measure the round trip."""
    assert isinstance(connection, SupportsPing)
    return await connection.ping()


@asynccontextmanager
async def server_connection(
    net: Network,
    *,
    max_message_bytes: int = 1000,
    streams: Callable[
        [], tuple[trio.abc.Stream, trio.abc.Stream]
    ] = trio.testing.memory_stream_pair,
) -> AsyncGenerator[tuple[Opened, "ScriptedPeer"]]:
    """Open a connection as a server, and give the scripted client."""
    near, far = streams()
    peer = net.raw(far, masks=True)
    async with engine_in_use().open_server(
        near,
        key=net.KEY,
        extensions="",
        received=b"",
        subprotocol=None,
        headers=[],
        max_message_bytes=max_message_bytes,
    ) as connection:
        assert (await peer.read_head()).startswith("HTTP/1.1 101 ")
        yield connection, peer


async def test_a_server_connection(net: Network) -> None:
    async with server_connection(net) as (connection, peer):
        assert connection.subprotocol == ""
        await peer.send(peer.text_frame("a"), peer.frame(2, b"b"))
        received = [*await connection.receive()]
        while len(received) < 2:
            received += await connection.receive()
        assert received == ["a", b"b"]
        await connection.send(["x", b"y", Close(4000, "z")])
        assert [await peer.receive() for _ in range(3)] == ["x", b"y", (4000, "z")]
        await peer.send(peer.close_frame(4001))
        assert list(await connection.receive()) == [Close(4001, "")]
        await connection.aclose(1000, "")
    assert await peer.receive() is None


async def test_a_client_connection(net: Network) -> None:
    near, far = trio.testing.memory_stream_pair()
    peer = net.raw(far, masks=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.handshake, "Sec-WebSocket-Protocol: b")
        async with engine_in_use().open_client(
            near,
            host="example",
            resource="/x",
            subprotocols=["a", "b"],
            headers=[("X", "é")],
            max_message_bytes=1000,
        ) as connection:
            assert connection.subprotocol == "b"
            await connection.send([Close()])
            assert await peer.receive() == (1005, "")
            await peer.send(peer.text_frame("late"), peer.close_frame())
            received = [*await connection.receive()]
            while len(received) < 2:
                received += await connection.receive()
            assert received == ["late", Close(1005, "")]
            nursery.start_soon(far.aclose)
            await connection.aclose(1000, "")
    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"x")


async def test_after_a_close_it_waits_until_the_peer_has_gone(net: Network) -> None:
    async with server_connection(net) as (connection, peer):
        await peer.send(peer.close_frame(1000), peer.text_frame("forbidden"))
        assert list(await connection.receive()) == [Close(1000, "")]
        with trio.move_on_after(0.05) as scope:
            await connection.receive()
        assert scope.cancelled_caught
        await connection.send(["one more"])
        assert await peer.receive() == "one more"
        await peer.stream.aclose()
        with pytest.raises(ConnectionClosedError):
            await connection.receive()


async def test_every_verb_raises_when_the_peer_has_gone(net: Network) -> None:
    async with server_connection(net) as (connection, peer):
        await peer.stream.aclose()
        with pytest.raises(ConnectionClosedError) as caught:
            await connection.receive()
        assert caught.value.code == 1006
        with pytest.raises(ConnectionClosedError):
            await connection.send(["x"])
        with pytest.raises(ConnectionClosedError):
            await connection.send(["x"])
        with pytest.raises(ConnectionClosedError):
            await ping(connection)
        await connection.aclose(1000, "")
        with trio.testing.assert_no_checkpoints():
            connection.abort()


async def test_a_ping_after_the_close_of_the_peer_fails(net: Network) -> None:
    async with server_connection(net) as (connection, peer):
        await peer.send(peer.close_frame(1000))
        assert list(await connection.receive()) == [Close(1000, "")]
        with pytest.raises(ConnectionClosedError):
            await ping(connection)


async def test_a_ping_after_the_end_fails_at_once(net: Network) -> None:
    async with server_connection(net) as (connection, _):
        pass
    with trio.testing.assert_checkpoints(), pytest.raises(ConnectionClosedError):
        await ping(connection)


async def test_aclose_sends_its_close_unless_one_was_sent(net: Network) -> None:
    async with server_connection(net) as (connection, peer):
        await connection.aclose(1002, "é" * 100)  # Longer than the limit for a Close.
        said = await peer.receive()
        assert said == (1002, "é" * 61)
    async with server_connection(net) as (connection, peer):
        await connection.send([Close(1000)])
        await connection.aclose(1002, "never")
        assert await peer.receive() == (1000, "")
    assert await peer.receive() is None


async def test_a_protocol_error_has_the_code_for_the_peer(net: Network) -> None:
    async with server_connection(net) as (connection, peer):
        await peer.send(peer.text_frame("a"), peer.text_frame("x" * 1001))
        assert list(await connection.receive()) == ["a"]
        with pytest.raises(ProtocolError, match="more than 1000 bytes") as caught:
            await connection.receive()
        assert caught.value.code == 1009


async def received_until_the_end(connection: Connection) -> list[object]:
    """Return all received items, and the code of the error that ends them."""
    received: list[object] = []
    try:
        while True:
            received += await connection.receive()
    except ProtocolError as exc:
        return [*received, exc.code]
    except ConnectionClosedError:
        return received


async def test_messages_that_come_together_are_received_together(net: Network) -> None:
    async with server_connection(net) as (connection, peer):
        await peer.send(
            peer.text_frame("a"),
            peer.frame(2, b"b", fin=False),
            peer.frame(0),
            peer.text_frame(""),
            peer.text_frame("half")[:8],
        )
        assert list(await connection.receive()) == ["a", b"b", ""]
        await peer.send(peer.text_frame("half")[8:], peer.text_frame("next"))
        received = [*await connection.receive()]
        if received == ["half"]:  # Or with the rest: engines differ.
            received += await connection.receive()
        assert received == ["half", "next"]


@pytest.mark.parametrize(
    ("last", "end"),
    [
        ([], []),
        (["close"], [Close(4000, "")]),
        (["ping", "close"], [Close(4000, "")]),
        (["long"], [1009]),
        (["long in bytes"], [1009]),
        (["long in bytes", "long", "close"], [1009]),
        (["wrong", "close"], [1002]),
    ],
)
async def test_no_message_is_lost_before_an_end_that_came_with_it(
    net: Network,
    autojump_clock: MockClock,
    last: Sequence[str],
    end: Sequence[object],
) -> None:
    sent = [str(number) for number in range(40)]
    async with server_connection(net) as (connection, peer):
        frames = {
            "close": peer.close_frame(4000),
            "ping": peer.frame(9),
            "long": peer.text_frame("x" * 1001),
            "long in bytes": peer.text_frame("é" * 501),
            "wrong": peer.frame(3),
        }
        await peer.send(*map(peer.text_frame, sent), *(frames[name] for name in last))
        await peer.stream.aclose()
        assert await received_until_the_end(connection) == [*sent, *end]


@pytest.mark.parametrize("patience", range(12))
async def test_a_cancelled_receive_loses_nothing(
    net: Network, autojump_clock: MockClock, patience: int
) -> None:
    sent = [str(number) for number in range(5)]
    async with server_connection(net) as (connection, peer):
        received: list[object] = []

        async def receive() -> None:
            received.extend(await connection.receive())

        await peer.send(*map(peer.text_frame, sent))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            for _ in range(patience):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        with trio.fail_after(60):
            while received != sent:
                received += await connection.receive()


async def test_g9_pings_of_a_peer_that_reads_no_pongs_delay_nothing_and_take_no_memory(
    net: Network, autojump_clock: MockClock
) -> None:
    streams = trio.testing.lockstep_stream_pair
    async with (
        server_connection(net, streams=streams) as (connection, peer),
        trio.open_nursery() as nursery,
    ):
        received: list[object] = []

        async def receive() -> None:
            while received != ["a", "b", "c"]:
                received.extend(await connection.receive())

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(connection, FrameSender)
        assert not connection.send_now([bytes(2**20)]), "the peer does not read"
        await peer.send(peer.text_frame("a"), peer.text_frame("b"))
        for number in range(100):
            await peer.send(peer.frame(9, str(number).encode()))
        await peer.send(peer.text_frame("c"))
        await trio.testing.wait_all_tasks_blocked()
        assert received == ["a", "b", "c"]
        assert await peer.receive() == bytes(2**20)
        assert await peer.receive() == ("pong", b"99")


async def test_opening_raises_when_the_client_has_gone_before_the_101(
    net: Network,
) -> None:
    near, far = trio.testing.memory_stream_pair()
    await far.aclose()
    with pytest.raises((HandshakeError, ConnectionClosedError)):
        async with engine_in_use().open_server(
            near,
            key=net.KEY,
            extensions="",
            received=b"",
            subprotocol=None,
            headers=[],
            max_message_bytes=1,
        ) as connection:
            await connection.receive()


async def test_an_exception_of_the_block_is_raised_bare(net: Network) -> None:
    msg = "of the block"
    with pytest.raises(KeyError, match=msg):
        async with server_connection(net):
            raise KeyError(msg)

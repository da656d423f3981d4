"""What a connection does, on each engine, over streams in memory."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from engines import engine_in_use

from trio_wspair import ConnectionClosedError, HandshakeError, ProtocolError
from trio_wspair.testing import ScriptedPeer
from trio_wspair.transports import Close, Connection, SupportsPing
from trio_wspair.transports._engines import Opened

if TYPE_CHECKING:
    from conftest import Network


async def ping(connection: Connection) -> float:
    """Measure the round trip."""
    assert isinstance(connection, SupportsPing)
    return await connection.ping()


@asynccontextmanager
async def server_connection(
    net: "Network", *, max_message_bytes: int = 1000
) -> AsyncGenerator[tuple[Opened, "ScriptedPeer"]]:
    """Open a connection as a server, and give the raw client."""
    near, far = trio.testing.memory_stream_pair()
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


async def test_a_server_connection(net: "Network") -> None:
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


async def test_a_client_connection(net: "Network") -> None:
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


async def test_after_a_close_it_waits_until_the_peer_has_gone(net: "Network") -> None:
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


async def test_a_peer_that_has_gone_is_told_by_every_verb(net: "Network") -> None:
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


async def test_a_ping_after_the_close_of_the_peer_fails(net: "Network") -> None:
    async with server_connection(net) as (connection, peer):
        await peer.send(peer.close_frame(1000))
        assert list(await connection.receive()) == [Close(1000, "")]
        with pytest.raises(ConnectionClosedError):
            await ping(connection)


async def test_a_ping_after_the_end_fails_at_once(net: "Network") -> None:
    async with server_connection(net) as (connection, _):
        pass
    with trio.testing.assert_checkpoints(), pytest.raises(ConnectionClosedError):
        await ping(connection)


async def test_aclose_says_its_close_unless_one_was_said(net: "Network") -> None:
    async with server_connection(net) as (connection, peer):
        await connection.aclose(1002, "é" * 100)  # Longer than a Close can be.
        said = await peer.receive()
        assert said == (1002, "é" * 61)
    async with server_connection(net) as (connection, peer):
        await connection.send([Close(1000)])
        await connection.aclose(1002, "never")
        assert await peer.receive() == (1000, "")
    assert await peer.receive() is None


async def test_a_protocol_error_has_the_code_for_the_peer(net: "Network") -> None:
    async with server_connection(net) as (connection, peer):
        await peer.send(peer.text_frame("a"), peer.text_frame("x" * 1001))
        assert list(await connection.receive()) == ["a"]
        with pytest.raises(ProtocolError, match="more than 1000 bytes") as caught:
            await connection.receive()
        assert caught.value.code == 1009


async def test_a_client_that_has_gone_before_the_101(net: "Network") -> None:
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


async def test_an_exception_of_the_block_comes_out_bare(net: "Network") -> None:
    msg = "of the block"
    with pytest.raises(KeyError, match=msg):
        async with server_connection(net):
            raise KeyError(msg)

"""`Wire` and the connections on it, over streams in memory."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from trio.testing import MemoryReceiveStream, MemorySendStream, MockClock

from trio_wspair import ConnectionClosedError, HandshakeError, ProtocolError
from trio_wspair.transports import (
    Close,
    TrioWebSocketConnection,
    open_client_connection,
    open_server_connection,
)
from trio_wspair.transports._linger import linger
from trio_wspair.transports._wire import Wire

if TYPE_CHECKING:
    from conftest import Network, RawPeer


@pytest.fixture(scope="module")
def engine() -> None:
    """Run them on one engine: they are not about the wire."""


CLOSE = b"\x88\x02\x03\xe8"
"""A Close, as trio-websocket would write it."""


Memory = trio.StapledStream[MemorySendStream, MemoryReceiveStream]


def streams() -> tuple[Memory, Memory]:
    """Return the two ends of a network in memory."""
    return trio.testing.memory_stream_pair()


@asynccontextmanager
async def running(wire: Wire) -> AsyncGenerator[None]:
    """Run the flusher of a wire."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.run)
            try:
                yield
            finally:
                wire.stop()  # It is shielded.


class Blocked(trio.abc.Stream):
    """A network that takes nothing until it may."""

    def __init__(self) -> None:
        self.taken = bytearray()
        self.room = trio.Event()
        self.sending = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sending = len(data)
        await self.room.wait()
        self.taken += data

    async def wait_send_all_might_not_block(self) -> None:
        await self.room.wait()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        del max_bytes
        await trio.sleep_forever()
        return b""

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


# -- the wire -----------------------------------------------------------------


async def test_what_is_written_reaches_the_network_in_order(
    autojump_clock: MockClock,
) -> None:
    near, far = streams()
    wire = Wire(near)
    async with running(wire):
        wire.write(b"a")
        wire.write(b"b")
        await wire.send_all(b"c")
        wire.write(b"d")
        await wire.flush()
        assert await far.receive_some(100) == b"abcd"
        await wire.flush()


async def test_a_close_of_the_engine_is_swallowed(autojump_clock: MockClock) -> None:
    near, far = streams()
    wire = Wire(near)
    async with running(wire):
        await wire.send_all(b"pong")
        assert not wire.engine_said_close
        with trio.testing.assert_checkpoints():
            await wire.send_all(CLOSE)
        assert wire.engine_said_close
        await wire.flush()
        assert await far.receive_some(100) == b"pong"


async def test_after_the_last_frames_nothing_more_is_taken(
    autojump_clock: MockClock,
) -> None:
    near, far = streams()
    wire = Wire(near)
    async with running(wire):
        wire.write(b"last", last=True)
        wire.write(b"too late")
        await wire.send_all(b"pong")
        await wire.flush()
        assert await far.receive_some(100) == b"last"


async def test_no_cancellation_stops_the_flusher(autojump_clock: MockClock) -> None:
    stream = Blocked()
    wire = Wire(stream)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.run)
            wire.write(b"a" * 1000)
            await trio.testing.wait_all_tasks_blocked()
            assert stream.sending == 1000
            nursery.cancel_scope.cancel()
            wire.write(b"b" * 1000)
            stream.room.set()
            with trio.move_on_after(5, shield=True):
                await wire.flush()
            wire.stop()
    assert stream.taken == b"a" * 1000 + b"b" * 1000


async def test_a_cancelled_flush_takes_nothing_back(autojump_clock: MockClock) -> None:
    stream = Blocked()
    wire = Wire(stream)
    async with running(wire):
        wire.write(b"a")
        with trio.move_on_after(1) as scope:
            await wire.flush()
        assert scope.cancelled_caught
        stream.room.set()
        await wire.flush()
        assert stream.taken == b"a"


async def test_a_network_that_breaks_is_told_to_all_who_wait(
    autojump_clock: MockClock,
) -> None:
    near, far = streams()
    wire = Wire(near)
    async with running(wire):
        await far.aclose()
        wire.write(b"a")
        with pytest.raises(trio.BrokenResourceError):
            await wire.flush()
        await wire.send_all(b"pong")  # trio-websocket finds out by reading.
        wire.write(b"never blocks")


async def test_a_wire_that_was_stopped_lets_nobody_wait(
    autojump_clock: MockClock,
) -> None:
    stream = Blocked()
    wire = Wire(stream)
    async with running(wire):
        wire.write(b"x" * 2**19)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:

            async def flush() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await wire.flush()

            async def pong() -> None:
                await wire.send_all(b"pong")

            nursery.start_soon(flush)
            nursery.start_soon(flush)
            nursery.start_soon(pong)
            await trio.testing.wait_all_tasks_blocked()
            wire.stop()


async def test_pongs_wait_for_room(autojump_clock: MockClock) -> None:
    stream = Blocked()
    wire = Wire(stream)
    async with running(wire):
        written = 0

        async def pongs() -> None:
            nonlocal written
            for _ in range(100):
                await wire.send_all(b"p" * 2**16)
                written += 2**16

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pongs)
            await trio.testing.wait_all_tasks_blocked()
            assert written < 2**20
            stream.room.set()
        assert written == 100 * 2**16
        await wire.flush()
        assert stream.taken == b"p" * written


async def test_the_head_comes_first_and_what_is_held_after_the_answer(
    autojump_clock: MockClock,
) -> None:
    near, far = streams()
    wire = Wire(near, head=b"head", held=b"held")
    await far.send_all(b"more")
    async with running(wire):
        with trio.testing.assert_checkpoints():
            assert await wire.receive_some(100) == b"head"
        with trio.move_on_after(1) as scope:
            await wire.receive_some(100)
        assert scope.cancelled_caught, "held back until the answer"
        await wire.send_all(b"101")
        assert await wire.receive_some(100) == b"held"
        assert await wire.receive_some(100) == b"more"
        await far.aclose()
        assert await wire.receive_some(100) == b""


async def test_reading_from_a_broken_network_gives_up(
    autojump_clock: MockClock,
) -> None:
    near, _ = streams()
    wire = Wire(near)
    with trio.fail_after(60):
        await near.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await wire.receive_some(10)
        await wire.wait_gone()


async def test_the_engine_cannot_close_the_network(autojump_clock: MockClock) -> None:
    near, far = streams()
    wire = Wire(near)
    async with running(wire):
        await wire.wait_send_all_might_not_block()
        with trio.testing.assert_checkpoints():
            await wire.aclose()
        wire.write(b"still here")
        assert await far.receive_some(100) == b"still here"


async def test_wait_gone_discards_until_the_end(autojump_clock: MockClock) -> None:
    near, far = streams()
    wire = Wire(near)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(60):
            nursery.start_soon(wire.wait_gone)
            await far.send_all(bytes(2**20))
            await trio.testing.wait_all_tasks_blocked()
            await far.aclose()


async def test_linger_says_the_end_and_waits_for_that_of_the_peer(
    autojump_clock: MockClock,
) -> None:
    near, far = streams()
    async with trio.open_nursery() as nursery:
        with trio.fail_after(60):
            nursery.start_soon(linger, near)
            assert await far.receive_some(10) == b""
            await far.send_all(b"unread")
            await far.aclose()
        await near.aclose()


async def test_linger_on_a_network_that_cannot_half_close(
    autojump_clock: MockClock,
) -> None:
    stream = Blocked()
    with trio.move_on_after(1) as scope:
        await linger(stream)
    assert scope.cancelled_caught


async def test_linger_on_what_has_gone_returns(autojump_clock: MockClock) -> None:
    near, far = streams()
    with trio.fail_after(60):
        await near.aclose()
        await linger(near)
        await far.aclose()


# -- a connection on it -------------------------------------------------------


@asynccontextmanager
async def server_connection(
    net: "Network", *, max_message_bytes: int = 1000
) -> AsyncGenerator[tuple[TrioWebSocketConnection, "RawPeer"]]:
    """Open a connection as a server, and give the raw client."""
    near, far = streams()
    peer = net.raw(far, masks=True)
    async with open_server_connection(
        near,
        key=net.KEY,
        subprotocol=None,
        headers=[],
        max_message_bytes=max_message_bytes,
    ) as connection:
        assert (await peer.read_head()).startswith("HTTP/1.1 101 ")
        yield connection, peer


async def test_a_server_connection(net: "Network") -> None:
    async with server_connection(net) as (connection, peer):
        assert connection.subprotocol == ""
        await peer.send(peer.text("a"), peer.frame(2, b"b"))
        received = [*await connection.receive()]
        while len(received) < 2:
            received += await connection.receive()
        assert received == ["a", b"b"]
        await connection.send(["x", b"y", Close(4000, "z")])
        assert [await peer.hear() for _ in range(3)] == ["x", b"y", (4000, "z")]
        await peer.send(peer.close(4001))
        assert list(await connection.receive()) == [Close(4001, "")]
        await connection.aclose(1000, "")
    assert await peer.hear() is None


async def test_a_client_connection(net: "Network") -> None:
    near, far = streams()
    peer = net.raw(far, masks=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer, "Sec-WebSocket-Protocol: b")
        async with open_client_connection(
            near,
            host="example",
            resource="/x",
            subprotocols=["a", "b"],
            headers=[("X", "é")],
            max_message_bytes=1000,
        ) as connection:
            assert connection.subprotocol == "b"
            await connection.send([Close()])
            assert await peer.hear() == (1005, "")
            await peer.send(peer.text("late"), peer.close())
            assert list(await connection.receive()) == ["late"]
            assert list(await connection.receive()) == [Close(1005, "")]
            nursery.start_soon(far.aclose)
            await connection.aclose(1000, "")
    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"x")


async def test_after_a_close_it_waits_until_the_peer_has_gone(net: "Network") -> None:
    async with server_connection(net) as (connection, peer):
        await peer.send(peer.close(1000), peer.text("forbidden"))
        assert list(await connection.receive()) == [Close(1000, "")]
        with trio.move_on_after(0.05) as scope:
            await connection.receive()
        assert scope.cancelled_caught
        await connection.send(["one more"])
        assert await peer.hear() == "one more"
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
            await connection.ping()
        await connection.aclose(1000, "")
        with trio.testing.assert_no_checkpoints():
            connection.abort()


async def test_a_ping_after_the_close_of_the_peer_fails(net: "Network") -> None:
    async with server_connection(net) as (connection, peer):
        await peer.send(peer.close(1000))
        assert list(await connection.receive()) == [Close(1000, "")]
        with pytest.raises(ConnectionClosedError):
            await connection.ping()


async def test_a_ping_after_the_end_fails_at_once(net: "Network") -> None:
    async with server_connection(net) as (connection, _):
        pass
    with trio.testing.assert_checkpoints(), pytest.raises(ConnectionClosedError):
        await connection.ping()


async def test_aclose_says_its_close_unless_one_was_said(net: "Network") -> None:
    async with server_connection(net) as (connection, peer):
        await connection.aclose(1002, "é" * 100)  # Longer than a Close can be.
        said = await peer.hear()
        assert said == (1002, "é" * 61)
    async with server_connection(net) as (connection, peer):
        await connection.send([Close(1000)])
        await connection.aclose(1002, "never")
        assert await peer.hear() == (1000, "")
    assert await peer.hear() is None


async def test_a_protocol_error_has_the_code_for_the_peer(net: "Network") -> None:
    async with server_connection(net) as (connection, peer):
        await peer.send(peer.text("a"), peer.text("x" * 1001))
        assert list(await connection.receive()) == ["a"]
        with pytest.raises(ProtocolError, match="more than 1000 bytes") as caught:
            await connection.receive()
        assert caught.value.code == 1009


async def test_a_client_that_has_gone_before_the_101(net: "Network") -> None:
    near, far = streams()
    await far.aclose()
    with pytest.raises((HandshakeError, ConnectionClosedError)):
        async with open_server_connection(
            near, key=net.KEY, subprotocol=None, headers=[], max_message_bytes=1
        ) as connection:
            await connection.receive()


async def test_an_exception_of_the_block_comes_out_bare(net: "Network") -> None:
    msg = "of the block"
    with pytest.raises(KeyError, match=msg):
        async with server_connection(net):
            raise KeyError(msg)

"""Hostile peers: time and memory are bounded, and the server goes on."""

import random
import struct
from contextlib import suppress
from typing import Any

import pytest
import trio
from network import Network, OneEnd

from trio_wspair import (
    CloseEvent,
    ConnectionClosedError,
    ErrorEvent,
    HandshakeError,
    ProtocolError,
    Request,
    Response,
    Server,
    open_websocket,
)
from trio_wspair.testing import ScriptedPeer


async def assert_it_lives(net: Network, server: Server) -> None:
    """Exchange messages with an echo server."""
    async with net.peer(server) as peer:
        await peer.send(peer.text_frame("still there?"), peer.close_frame(1000))
        assert await peer.receive_all() == ["still there?", (1000, "")]


# -- peers that stop ----------------------------------------------------------


async def test_a_peer_that_vanishes_within_a_message_gives_a_close_event_only(
    net: Network, one_end: OneEnd
) -> None:
    async with one_end() as (half, peer):
        heard = net.accept(half)
        begun = peer.frame(net.TEXT, b"begun", fin=False)
        torn = peer.frame(net.CONTINUATION, b"and never ended")[:-5]
        await peer.send(peer.text_frame("whole"), begun, torn)
        await peer.stream.aclose()
        closed = await half.wait_closed()
        assert (closed.code, closed.was_clean) == (1006, False)
        assert closed.reason == "WebSocket disconnected without sending Close frame."
        assert heard == ["whole", closed]


async def test_a_peer_that_never_answers_our_close_is_dropped_after_the_grace(
    net: Network, one_end: OneEnd
) -> None:
    async with one_end(close_grace=0.1) as (half, peer):
        heard = net.accept(half)
        before = net.open_sockets()
        half.close(4000, "done")
        await half.wait_closed()
        error, closed = heard
        assert isinstance(error, ErrorEvent)
        assert isinstance(error.error, TimeoutError)
        assert isinstance(closed, CloseEvent)
        assert (closed.code, closed.was_clean) == (1006, False)
        assert await peer.receive_all() == [(4000, "done")]
        await net.until_open_sockets(before - 1)


async def test_a_peer_that_sends_on_instead_of_answering_our_close_is_dropped(
    one_end: OneEnd,
) -> None:
    async with (
        one_end(close_grace=0.2) as (half, peer),
        trio.open_nursery() as nursery,
    ):
        half.accept()

        async def talk() -> None:
            with suppress(trio.BrokenResourceError):
                while True:
                    await peer.send(peer.text_frame("bla") * 10, peer.frame(9, b"bla"))
                    await trio.sleep(0.001)

        nursery.start_soon(talk)
        half.close(4000, "done")
        assert (await half.wait_closed()).code == 1006


async def test_a_peer_that_never_reads_does_not_delay_closing(
    net: Network, one_end: OneEnd
) -> None:
    async with one_end(close_grace=0.1) as (half, _):
        heard = net.accept(half)
        before = net.open_sockets()
        for _ in range(40):
            half.send(bytes(2**20))
        half.close(4000, "done")
        assert (await half.wait_closed()).code == 1006
        assert isinstance(heard[0], ErrorEvent)
        await net.until_open_sockets(before - 1)


async def test_a_server_stops_although_a_client_never_reads(net: Network) -> None:
    async with net.server_end(close_grace=0.1) as (half, _):
        half.accept()
        for _ in range(40):
            half.send(bytes(2**20))
        await trio.sleep(0.05)


async def test_a_half_open_half_ends_when_its_peer_has_gone(
    net: Network, one_end: OneEnd
) -> None:
    async with one_end(close_grace=0.1) as (half, peer):
        net.accept(half, allow_half_open=True)
        await peer.send(peer.close_frame(4000, "done"))
        await peer.stream.aclose()
        with trio.move_on_after(1) as scope:
            await half.wait_closed()
        assert not scope.cancelled_caught, "a client that has gone keeps its place"
        with pytest.raises(ConnectionClosedError):
            half.send("into the void")


async def test_a_client_that_never_reads_its_response_is_dropped(net: Network) -> None:
    async def fetch(request: Request) -> Response:
        return Response(bytes(2**26))

    async with net.serve(fetch, body_timeout=0.2, close_grace=0.2) as server:
        before = net.open_sockets()
        async with net.dial(server) as peer:
            await peer.send(net.head("Host: a"))
            await peer.read_head()
            await net.until_open_sockets(before + 1)


# -- peers that send too much -------------------------------------------------


async def test_a_huge_length_reserves_no_memory_and_gets_1009_in_time(
    one_end: OneEnd,
) -> None:
    async with one_end(max_message_bytes=10_000) as (half, peer):
        half.accept()
        mask = bytes(4) if peer.masks else b""
        bit = 0x80 if peer.masks else 0
        await peer.send(struct.pack("!BBQ", 0x82, bit | 127, 2**62) + mask)
        await peer.send(bytes(10_001))
        said = await peer.receive()
        assert isinstance(said, tuple)
        assert said[0] == 1009


async def test_a_message_without_end_gets_1009(net: Network, one_end: OneEnd) -> None:
    async with one_end(max_message_bytes=10_000) as (half, peer):
        heard = net.accept(half)
        await peer.send(peer.frame(net.TEXT, b"x" * 100, fin=False))
        with suppress(trio.BrokenResourceError):
            for _ in range(200):
                await peer.send(peer.frame(net.CONTINUATION, b"x" * 100, fin=False))
        said = await peer.receive()
        assert isinstance(said, tuple)
        assert said[0] == 1009
        await peer.stream.aclose()
        await half.wait_closed()
        assert len(heard) == 2


# -- random bytes -------------------------------------------------------------


async def test_random_bytes_instead_of_a_request(net: Network) -> None:
    source = random.Random(1)
    start = net.head(*net.UPGRADE)
    async with net.serve(net.echo, handshake_timeout=0.3, close_grace=0.2) as server:
        before = net.open_sockets()

        async def attack(number: int) -> None:
            async with net.dial(server) as peer:
                data = bytearray(start if number % 2 else source.randbytes(200))
                for _ in range(number % 7):
                    data[source.randrange(len(data))] = source.randrange(256)
                with suppress(trio.BrokenResourceError):
                    await peer.send(data)
                    if number % 3:
                        assert isinstance(peer.stream, trio.SocketStream)
                        await peer.stream.send_eof()
                with trio.move_on_after(0.5):
                    await peer.read_all()

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(attack, number)
        await net.until_open_sockets(before)
        await assert_it_lives(net, server)


async def test_random_bytes_instead_of_frames(net: Network) -> None:
    source = random.Random(2)
    async with net.serve_halves(close_grace=0.2, max_message_bytes=500) as served:
        server, halves = served
        before = net.open_sockets()

        async def attack(number: int) -> None:
            async with net.peer(server) as peer:
                data = bytearray(peer.text_frame("a") + peer.frame(2, b"b") * 3)
                data += peer.frame(9, b"c") + peer.frame(1, b"d", fin=False)
                for _ in range(number % 5):
                    data[source.randrange(len(data))] = source.randrange(256)
                await peer.send(data, source.randbytes(number % 50))
                with suppress(trio.BrokenResourceError):
                    assert isinstance(peer.stream, trio.SocketStream)
                    await peer.stream.send_eof()
                assert all(isinstance(said, tuple) for said in await peer.receive_all())

        events: list[list[Any]] = []
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(attack, number)
                half = await halves.receive()
                events.append(net.accept(half))
        await net.until_open_sockets(before)
        for heard in events:
            assert isinstance(heard[-1], CloseEvent)
            ends = [event for event in heard if not isinstance(event, (str, bytes))]
            assert ends == heard[-len(ends) :]
            assert len(ends) <= 2
            if len(ends) == 2:
                assert isinstance(ends[0], ErrorEvent)
                assert isinstance(ends[0].error, ProtocolError)
                assert ends[1].code == 1006


async def test_random_bytes_from_a_server(net: Network) -> None:
    source = random.Random(3)
    count = 0

    async def script(peer: "ScriptedPeer") -> None:
        nonlocal count
        count += 1
        if count % 2:
            await peer.read_head()
            data = bytearray(net.head("Content-Length: 3", start="HTTP/1.1 403 No"))
            data += b"abc"
        else:
            await peer.handshake()
            data = bytearray(peer.text_frame("a") + peer.frame(2, b"b", fin=False))
        for _ in range(count % 6):
            data[source.randrange(len(data))] = source.randrange(256)
        await peer.send(data)

    async with net.script(script) as url:
        before = net.open_sockets()
        for _ in range(100):
            with suppress(HandshakeError, ConnectionClosedError):
                async with open_websocket(
                    url, connect_timeout=0.5, close_grace=0.1
                ) as ws:
                    heard = await ws.receive()
                    assert isinstance(heard, (str, bytes))
        await net.until_open_sockets(before)


async def test_the_server_serves_while_it_is_attacked(net: Network) -> None:
    async with (
        net.serve(net.echo, handshake_timeout=30) as server,
        trio.open_nursery() as nursery,
    ):

        async def hold() -> None:
            async with net.dial(server) as peer:
                await peer.send(b"GET / HTTP/1.1\r\n")
                await trio.sleep_forever()

        for _ in range(100):
            nursery.start_soon(hold)
        await trio.sleep(0.05)
        await assert_it_lives(net, server)
        nursery.cancel_scope.cancel()


async def test_a_slow_handler_does_not_delay_other_clients(net: Network) -> None:
    async def fetch(request: Request) -> Response:
        if request.url.endswith("/slow"):
            await trio.sleep_forever()
        return Response("ok")

    async with net.serve(fetch) as server, net.dial(server) as slow:
        await slow.send(net.head("Host: a", start="GET /slow HTTP/1.1"))
        async with net.dial(server) as peer:
            await peer.send(net.head("Host: a", "Connection: close"))
            assert (await peer.read_all()).endswith(b"\r\n\r\nok")


async def test_pipelined_requests_get_one_response_each(
    net: Network,
) -> None:
    async def fetch(request: Request) -> Response:
        return Response("ok")

    async with net.serve(fetch) as server, net.dial(server) as peer:
        await peer.send(net.head("Host: a") * 99)
        await peer.send(net.head("Host: a", "Connection: close") * 2)
        answer = await peer.read_all()
        assert answer.count(b"HTTP/1.1 200") == 100, "none after the last"
        assert answer.count(b"\r\n\r\nok") == 100


async def test_a_client_that_floods_without_reading_is_dropped(
    net: Network,
) -> None:
    async def fetch(request: Request) -> Response:
        return Response("no", status=403)

    async with net.serve(fetch, close_grace=0.2) as server:
        before = net.open_sockets()
        async with net.dial(server) as peer, trio.open_nursery() as nursery:

            async def flood() -> None:
                with suppress(trio.BrokenResourceError):
                    while True:
                        await peer.send(bytes(2**16))

            await peer.send(net.head("Host: a", start="POST / HTTP/1.1"))
            nursery.start_soon(flood)
            assert (await peer.read_head()).startswith("HTTP/1.1 403 ")
            await net.until_open_sockets(before + 1)
            nursery.cancel_scope.cancel()

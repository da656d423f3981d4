"""Scripted peers: each method misbehaves as documented, and both our ends stand it."""

from typing import Any

import pytest
import trio
from network import Network, OneEnd
from pairs import takes
from patched_network import WithoutHalfClose
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_wspair import (
    BufferFullError,
    CloseEvent,
    ConnectionClosedError,
    ErrorEvent,
    HandshakeError,
    ProtocolError,
    Request,
    Response,
    open_websocket,
)
from trio_wspair.testing import (
    ScriptedPeer,
    open_scripted_client,
    open_scripted_server,
)

DONE = CloseEvent(4000, "", was_clean=True)


# -- scripts, against a server and a client -------------------------------------------


async def test_close_late_delays_its_close(net: Network, one_end: OneEnd) -> None:
    async with one_end() as (half, peer), trio.open_nursery() as nursery:
        heard = net.accept(half)
        nursery.start_soon(peer.close_late, 0.1)
        await peer.send(peer.frame(net.PONG))
        half.send("not a Close")
        half.close(4000)
        assert (await half.wait_closed()) == DONE
        assert heard == [DONE]


async def test_close_late_answers_a_close_without_a_code_with_one_without_a_code(
    one_end: OneEnd,
) -> None:
    async with one_end() as (half, peer), trio.open_nursery() as nursery:
        half.accept()
        nursery.start_soon(peer.close_late, 0)
        half.close()
        assert (await half.wait_closed()).code == 1005


async def test_close_late_ends_when_the_other_side_has_gone(one_end: OneEnd) -> None:
    async with one_end() as (half, peer), trio.open_nursery() as nursery:
        half.accept()
        nursery.start_soon(peer.close_late, 0)
        await wait_all_tasks_blocked()
        await peer.stream.aclose()


async def test_never_close_makes_the_other_side_time_out(
    net: Network, one_end: OneEnd
) -> None:
    grace: dict[str, Any] = {"close_grace": 0.1, "pair_options": {"close_grace": 0.1}}
    async with one_end(**grace) as (half, peer), trio.open_nursery() as nursery:
        heard = net.accept(half)
        nursery.start_soon(peer.never_close)
        await half.aclose()
        error, close = heard
        assert isinstance(error, ErrorEvent)
        assert isinstance(error.error, TimeoutError)
        assert isinstance(close, CloseEvent)
        assert close.code == 1006


async def test_read_slowly_fills_the_buffer_of_the_other_side(
    one_end: OneEnd,
) -> None:
    bounds: dict[str, Any] = {
        "close_grace": 0.1,
        "pair_options": {"max_buffered_bytes": 2**20},
    }
    async with one_end(**bounds) as (half, peer), trio.open_nursery() as nursery:
        half.accept()
        nursery.start_soon(peer.read_slowly, 10_000)
        with trio.move_on_after(0.2):
            while True:
                half.send(bytes(2**18))
                await half.drain()
        with pytest.raises(BufferFullError):
            half.send(bytes(2**20))
        await peer.reset()


async def test_close_late_and_read_slowly_use_the_clock_of_trio(
    autojump_clock: MockClock,
) -> None:
    near, far = memory_stream_pair()
    client, server = ScriptedPeer(near, masks=True), ScriptedPeer(far, masks=False)
    await client.send(client.close_frame(4000))
    with takes(3):
        await server.close_late(3)
    assert await client.receive() == (4000, "")
    await client.send(bytes(5000))
    await near.aclose()
    with takes(5):
        await server.read_slowly(1000)
    assert await server.read_all() == b""


@pytest.mark.parametrize("seed", range(5))
async def test_send_garbage_is_a_protocol_error(
    net: Network, one_end: OneEnd, seed: int
) -> None:
    async with one_end() as (half, peer):
        heard = net.accept(half)
        await peer.send_garbage(100, seed=seed)
        said = await peer.receive()
        assert isinstance(said, tuple)
        assert said[0] == 1002
        await half.wait_closed()
        error, close = heard
        assert isinstance(error, ErrorEvent)
        assert isinstance(error.error, ProtocolError)
        assert isinstance(close, CloseEvent)
        assert close.code == 1006


async def test_the_same_seed_makes_the_same_garbage() -> None:
    sent: list[bytes] = []
    for seed in (1, 1, 2):
        near, far = memory_stream_pair()
        await ScriptedPeer(near, masks=True).send_garbage(100, seed=seed)
        sent.append(bytes(await far.receive_some()))
    assert sent[0] == sent[1] != sent[2]


@pytest.mark.parametrize("size", [1001, 10_000_000])
async def test_a_large_message_gets_1009(
    net: Network, one_end: OneEnd, size: int
) -> None:
    async with one_end(max_message_bytes=1000) as (half, peer):
        heard = net.accept(half)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send_large_message, size)
            said = await peer.receive()
            assert isinstance(said, tuple)
            assert said[0] == 1009
        await half.wait_closed()
        assert isinstance(heard[0], ErrorEvent)
        assert isinstance(heard[0].error, ProtocolError)
        assert heard[0].error.code == 1009


async def test_a_large_message_may_be_small_enough(
    net: Network, one_end: OneEnd
) -> None:
    async with one_end() as (half, peer):
        half.accept(pull=True)
        await peer.send_large_message(100_000)
        assert await half.receive() == "x" * 100_000


@pytest.mark.parametrize("ending", ["reset", "end_tcp"])
async def test_an_end_without_a_close_gives_1006(
    net: Network, one_end: OneEnd, ending: str
) -> None:
    async with one_end() as (half, peer):
        heard = net.accept(half)
        await peer.send(peer.text_frame("last words"))
        await net.until(lambda: heard)
        await getattr(peer, ending)()
        close = await half.wait_closed()
        assert (close.code, close.was_clean) == (1006, False)
        assert heard == ["last words", close]


async def test_a_flood_of_pings_is_answered(net: Network, one_end: OneEnd) -> None:
    async with one_end() as (half, peer):
        half.accept(pull=True)
        await peer.flood_pings(100, b"?")
        await peer.send(peer.text_frame("after them"))
        assert await half.receive() == "after them"
        assert await peer.receive() == ("pong", b"?")


@pytest.mark.parametrize("message", ["é" * 10, b"\x00" * 10, ""])
async def test_fragments_are_one_message(one_end: OneEnd, message: str | bytes) -> None:
    async with one_end() as (half, peer):
        half.accept(pull=True)
        await peer.send_fragments(message, 3)
        assert await half.receive() == message


async def test_sizes_and_seconds_are_checked() -> None:
    peer = ScriptedPeer(memory_stream_pair()[0], masks=True)
    with pytest.raises(ValueError, match="seconds must be 0 or more"):
        await peer.close_late(-1)
    with pytest.raises(ValueError, match="bytes_per_second must be at least 1"):
        await peer.read_slowly(0)


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        (b"\x81\x85\0\0\0\0hell", "hell"),  # TCP ends within the frame.
        (b"\x81\x02hi", "has masked a frame, or"),
        (b"\x01\x82\0\0\0\0hi", "sent a fragment, or"),
        (b"\xc1\x82\0\0\0\0hi", "sent a fragment, or"),
    ],
)
async def test_receive_refuses_invalid_frames(data: bytes, wrong: str) -> None:
    near, far = memory_stream_pair()
    await far.send_all(data)
    await far.aclose()
    with pytest.raises(AssertionError, match=wrong):
        await ScriptedPeer(near, masks=False).receive()


async def test_receive_reads_frames_of_every_size_and_kind() -> None:
    near, far = memory_stream_pair()
    client, server = ScriptedPeer(near, masks=True), ScriptedPeer(far, masks=False)
    for size in (0, 125, 126, 65_535, 65_536):
        await client.send(client.text_frame("x" * size), client.frame(2, bytes(size)))
        assert await server.receive() == "x" * size
        assert await server.receive() == bytes(size)
    await client.send(client.frame(9, b"?"), client.frame(10), client.close_frame())
    await client.send(client.close_frame(3000, "é"))
    await near.aclose()
    heard = await server.receive_all()
    assert heard == [("ping", b"?"), ("pong", b""), (1005, ""), (3000, "é")]


async def test_end_tcp_works_on_a_stream_without_half_close() -> None:
    near, far = memory_stream_pair()
    await ScriptedPeer(WithoutHalfClose(near), masks=True).end_tcp()
    assert await far.receive_some() == b""


# -- servers and clients --------------------------------------------------------------


async def test_a_scripted_server_opens_the_websocket_and_ends_tcp_after_the_script(
    net: Network,
) -> None:
    async def greet(peer: ScriptedPeer) -> None:
        await peer.send(peer.text_frame("hello"))

    async with open_scripted_server(greet) as url:
        for _ in range(2):
            async with open_websocket(url) as ws:
                assert await ws.receive() == "hello"
                with pytest.raises(ConnectionClosedError) as caught:
                    await ws.receive()
                assert caught.value.code == 1006


async def test_a_script_that_returns_ends_tcp_cleanly(net: Network) -> None:
    async def greet(peer: ScriptedPeer) -> None:
        await peer.send(peer.text_frame("hello"))

    async with open_scripted_server(greet) as url, open_scripted_client(url) as client:
        assert await client.receive_all() == ["hello"]
        for _ in range(3):  # There isn't a reset.
            await client.send(client.text_frame("still here"))
            await trio.sleep(0.01)


async def test_a_script_may_answer_the_handshake_itself(net: Network) -> None:
    async def refuse(peer: ScriptedPeer) -> None:
        assert "\r\nX: y\r\n" in await peer.read_head()
        await peer.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

    async with open_scripted_server(refuse, handshake=False) as url:
        with pytest.raises(HandshakeError) as caught:
            async with open_websocket(url, headers={"X": "y"}):
                pass
    assert caught.value.status == 503


async def test_a_script_may_outlive_its_client_but_not_its_server(
    net: Network,
) -> None:
    ended = trio.Event()

    async def talk(peer: ScriptedPeer) -> None:
        while True:  # Until the client has gone.
            await peer.send(peer.text_frame("x" * 10_000))
            await trio.sleep(0.001)

    async def wait(_peer: ScriptedPeer) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with open_scripted_server(talk) as url:
        async with open_scripted_client(url) as client:
            await client.reset()
        await trio.sleep(0.05)
    async with open_scripted_server(wait) as url, open_scripted_client(url):
        pass
    assert ended.is_set()


async def test_an_error_of_a_script_ends_the_block(net: Network) -> None:
    async def fail(_peer: ScriptedPeer) -> None:
        raise KeyError

    with pytest.RaisesGroup(KeyError, flatten_subgroups=True):
        async with open_scripted_server(fail) as url, open_scripted_client(url):
            await trio.sleep_forever()


async def test_a_request_without_an_upgrade_ends_the_block(net: Network) -> None:
    no_request = pytest.RaisesExc(AssertionError, match="has no Sec-WebSocket-Key")
    with pytest.RaisesGroup(no_request, flatten_subgroups=True):
        async with (
            open_scripted_server(ScriptedPeer.never_close) as url,
            open_scripted_client(url, handshake=False) as client,
        ):
            await client.send(b"GET / HTTP/1.1\r\n\r\n")
            await trio.sleep_forever()


async def test_a_scripted_client_sends_the_given_request(net: Network) -> None:
    asked: list[str] = []

    async def fetch(request: Request) -> Response:
        assert request.headers["x"] == "y"
        asked.append(request.url)
        return await net.echo(request)

    async with net.serve(fetch) as server:
        origin = server.url.removesuffix("/")
        for target in ("", "/", "/a?b=c", "?d"):
            async with open_scripted_client(origin + target, "X: y") as client:
                await client.send(client.text_frame("hello"))
                assert await client.receive() == "hello"
        targets = [url.removeprefix(origin.replace("ws", "http")) for url in asked]
        assert targets == ["/", "/", "/a?b=c", "/?d"]
        stream = await trio.open_tcp_stream(*server.addresses[0])
        async with open_scripted_client(stream, "X: y") as client:
            await client.send(client.close_frame(3000))
            assert await client.receive() == (3000, "")


async def test_a_refused_scripted_client_raises(net: Network) -> None:
    async def refuse(_request: object) -> Response:
        return Response("no", status=403)

    async with net.serve(refuse) as server:
        with pytest.raises(HandshakeError, match=r"HTTP/1\.1 403 "):
            async with open_scripted_client(server.url):
                pass


@pytest.mark.parametrize("url", ["wss://127.0.0.1/", "ws:///", "x"])
async def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must be like 'ws://127"):
        async with open_scripted_client(url):
            pass

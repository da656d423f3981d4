"""Engines by name, and compression, which only one of them has."""

import sys
import zlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from network import Network

from trio_wspair import (
    CloseEvent,
    ErrorEvent,
    HandshakeError,
    ProtocolError,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    connect,
    open_websocket,
    serve,
)
from trio_wspair._pair.verbs import half_of
from trio_wspair.testing import ScriptedPeer
from trio_wspair.testing._scripted_peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    frame_header,
)

ON = {"engine": "websockets", "compression": True}
OFFER = "Sec-WebSocket-Extensions: permessage-deflate"
RSV1 = 0x40


@pytest.fixture(scope="module")
def engine() -> None:
    """Let the tests choose the engine."""


# -- choosing one -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"engine": "picows"}, ValueError, "'trio-websocket' or 'websockets'"),
        ({"engine": None}, ValueError, "'trio-websocket' or 'websockets'"),
        ({"compression": True}, ValueError, "pass engine='websockets'"),
        ({"engine": "websockets", "compression": 1}, TypeError, "True or False"),
        ({"engine": "websockets", "compression": "deflate"}, TypeError, "'deflate'"),
    ],
)
async def test_options_that_an_engine_lacks_are_refused(
    net: Network, options: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await serve(net.echo, 0, **options)
    async with trio.open_nursery() as nursery:
        with pytest.raises(error, match=words):
            await connect("ws://localhost:1/", nursery=nursery, **options)


async def test_the_error_without_the_package_of_an_engine_names_it(
    net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = sys.modules["trio_wspair.transports"]
    name = f"{package.__name__}._websockets"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr(package, "_websockets", raising=False)
    handshakes = sys.modules["trio_wspair.transports.rfc6455"]
    name = f"{handshakes.__name__}._handshakes"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr(handshakes, "_handshakes", raising=False)
    monkeypatch.setitem(sys.modules, "websockets.client", None)
    with pytest.raises(ImportError, match=r"pip install 'trio-wspair\[websockets\]'"):
        await serve(net.echo, 0, engine="websockets")


# -- compression ------------------------------------------------------------------


def deflated(data: bytes) -> bytes:
    """Return the payload of a compressed message (RFC 7692, section 7.2.1)."""
    deflate = zlib.compressobj(wbits=-12)
    return (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


async def code_after(peer: "ScriptedPeer") -> Any:
    """Return the code of the next Close."""
    said = await peer.receive()
    assert isinstance(said, tuple), said
    return said[0]


@pytest.mark.parametrize("client", [True, False])
@pytest.mark.parametrize("server", [True, False])
async def test_compression_is_negotiated_when_both_sides_ask_for_it(
    net: Network, client: bool, server: bool
) -> None:
    options = {"engine": "websockets", "compression": server}
    asking = {"engine": "websockets", "compression": client}
    async with net.joined(client_options=asking, **options) as (near, far):
        agreed = "permessage-deflate" if client and server else ""
        assert near.extensions.partition(";")[0] == agreed
        assert far.extensions == near.extensions
        near.accept(pull=True)
        far.accept(pull=True)
        for message in ("", "a", b"\0" * 100_000, "ä€😀" * 30_000, bytes(range(256))):
            near.send(message)
            assert await far.receive() == message
            far.send(message)
            assert await near.receive() == message


async def test_a_compressed_message_is_shorter_on_the_wire(net: Network) -> None:
    async with (
        net.serve_halves(**ON) as (server, halves),
        net.peer(server, OFFER) as peer,
    ):
        half = await halves.receive()
        half.accept()
        half.send("a" * 10_000)
        half.close(1000)
        await peer.send(peer.frame(CLOSE, b"\x03\xe8"))
        data = await peer.read_all()
        assert data[0] == 0x80 | RSV1 | 1
        assert len(data) < 200


@pytest.mark.parametrize("cut", [1, 5, 1000])
async def test_a_compressed_message_may_come_in_fragments_and_pieces(
    net: Network, cut: int
) -> None:
    text = "".join(map(str, range(2000)))
    data = deflated(text.encode())
    async with (
        net.serve_halves(**ON) as (server, halves),
        net.peer(server, OFFER) as peer,
    ):
        half = await halves.receive()
        half.accept(pull=True)
        frames = (
            peer.frame(1 | RSV1, data[:cut], fin=False)
            + peer.frame(PING, b"?")
            + peer.frame(CONTINUATION, data[cut:])
        )
        await peer.send(frames[: len(frames) // 2])
        await trio.sleep(0.01)
        await peer.send(frames[len(frames) // 2 :])
        assert await half.receive() == text


async def test_a_subprotocol_and_compression_are_negotiated_together(
    net: Network,
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept()
        headers = {"Sec-WebSocket-Protocol": "chat"}
        return Response(None, status=101, web_socket=client, headers=headers)

    async with net.serve(fetch, **ON) as server:
        offer: dict[str, Any] = {"protocols": ["news", "chat"], **ON}
        async with open_websocket(server.url, **offer) as ws:
            assert ws.protocol == "chat"
            assert ws.extensions.startswith("permessage-deflate")


@pytest.mark.parametrize(
    "offer", ["=;,", "permessage-deflate; server_max_window_bits=99", "x-other", "é"]
)
async def test_g12_an_invalid_offer_is_declined(net: Network, offer: str) -> None:
    async with net.serve(net.echo, **ON) as server, net.dial(server) as peer:
        answer = await peer.handshake(f"Sec-WebSocket-Extensions: {offer}")
        assert answer.startswith("HTTP/1.1 101 ")
        assert "extensions" not in answer.lower()
        await peer.send(peer.text_frame("plain"))
        assert await peer.receive() == "plain"


async def test_g12_a_compressed_message_without_negotiation_is_a_protocol_error(
    net: Network,
) -> None:
    async with net.serve(net.echo, **ON) as server, net.peer(server) as peer:
        await peer.send(peer.frame(1 | RSV1, deflated(b"hello")))
        assert await code_after(peer) == 1002


@pytest.mark.parametrize(
    ("limit", "pieces", "code"),
    [
        (999, [deflated(bytes(10**6))], 1009),
        (10**6 - 1, [deflated(bytes(10**6))], 1009),
        (5, [b"", deflated(b"123456")], 1009),
        (10**6, [b"\0", b"\xff" * 10], 1002),
        (10**6, [b"\xff"], 1002),
    ],
    ids=["bomb", "one byte", "in the second", "broken rest", "broken"],
)
async def test_g9_g12_the_inflated_size_has_the_limit_of_messages(
    net: Network, limit: int, pieces: list[bytes], code: int
) -> None:
    async with (
        net.serve_halves(max_message_bytes=limit, **ON) as (server, halves),
        net.peer(server, OFFER) as peer,
    ):
        heard = net.accept(await halves.receive())
        for number, piece in enumerate(pieces):
            opcode = CONTINUATION if number else BINARY | RSV1
            last = number == len(pieces) - 1
            await peer.send(peer.frame(opcode, piece, fin=last))
        assert await code_after(peer) == code
        await net.until(lambda: len(heard) == 2)
        error, closed = heard
        assert isinstance(error, ErrorEvent)
        assert isinstance(error.error, ProtocolError)
        assert error.error.code == code
        assert isinstance(closed, CloseEvent)
        assert closed.code == 1006


async def test_g9_g12_a_message_at_the_limit_inflates_no_further(
    net: Network,
) -> None:
    """To zlib, a limit of 0 bytes means no limit."""
    deflate = zlib.compressobj(wbits=-12)
    first = deflate.compress(bytes(1000)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    rest = deflate.compress(bytes(10**7)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    async with (
        net.serve_halves(max_message_bytes=1000, **ON) as (server, halves),
        net.peer(server, OFFER) as peer,
    ):
        net.accept(await halves.receive())
        await peer.send(peer.frame(BINARY | RSV1, first, fin=False))
        await peer.send(peer.frame(CONTINUATION, rest[:-4]))
        assert await code_after(peer) == 1009


async def test_a_server_may_not_accept_extensions_that_were_not_offered(
    net: Network,
) -> None:
    async def script(peer: "ScriptedPeer") -> None:
        await peer.handshake("Sec-WebSocket-Extensions: permessage-deflate; x=1")
        await peer.read_all()

    async with net.script(script) as url:
        with pytest.raises(HandshakeError, match="these extensions were not offered"):
            async with open_websocket(url, engine="websockets", compression=True):
                pass


# -- messages that are small when compressed -------------------------------------


@asynccontextmanager
async def compressing(
    net: Network, side: str, **options: Any
) -> AsyncGenerator[tuple[WebSocket, ScriptedPeer]]:
    """Give a half with a scripted peer, with permessage-deflate negotiated."""
    options = {**options, **ON}
    if side == "server":
        async with (
            net.serve_halves(**options) as (server, halves),
            net.peer(server, OFFER) as peer,
        ):
            yield await halves.receive(), peer
        return
    send, receive = trio.open_memory_channel[ScriptedPeer](1)

    async def script(peer: ScriptedPeer) -> None:
        await peer.handshake(OFFER)
        send.send_nowait(peer)
        await trio.sleep_forever()

    async with net.script(script) as url, trio.open_nursery() as nursery:
        half = await connect(url, nursery=nursery, close_grace=0.05, **options)
        yield half, await receive.receive()
        nursery.cancel_scope.cancel()


SIDES = pytest.mark.parametrize("side", ["server", "client"])


@SIDES
@pytest.mark.parametrize("fragments", [1, 3])
async def test_g9_decompression_bombs_in_one_read_take_no_more_memory_than_the_buffer(
    net: Network, side: str, fragments: int
) -> None:
    size, room = 2**16, 2**17
    bomb = deflated(bytes(size))
    async with compressing(
        net, side, max_message_bytes=size, receive_buffer_bytes=room
    ) as (half, peer):
        half.accept(pull=True)
        part = len(bomb) // fragments
        frames = [peer.frame(BINARY | RSV1, bomb[:part], fin=fragments == 1)]
        for number in range(1, fragments):
            last = number == fragments - 1
            rest = bomb[part * number :] if last else bomb[part * number :][:part]
            frames.append(peer.frame(CONTINUATION, rest, fin=last))
        whole = b"".join(frames)
        assert len(whole) * 100 < 2**15  # All of them come in one read.
        await peer.send(whole * 100 + peer.text_frame("the end"))
        waiting = half_of(half).inbox
        await net.until(lambda: waiting.buffered > room)
        for _ in range(100):
            await trio.lowlevel.checkpoint()
            assert waiting.buffered <= room + size
            assert await half.receive() == bytes(size)
        assert await half.receive() == "the end"


@SIDES
async def test_a_ping_after_bombs_is_answered_after_them(
    net: Network, side: str
) -> None:
    bomb = deflated(bytes(2**16))
    async with compressing(net, side) as (half, peer):
        half.accept()
        bombs = peer.frame(BINARY | RSV1, bomb) * 10
        await peer.send(bombs + peer.frame(PING, b"?"), peer.close_frame(1000))
        assert await peer.receive() == ("pong", b"?")
        assert await peer.receive() == (1000, "")


def finished(data: bytes) -> bytes:
    """Compress to a message with a final block (RFC 7692, section 7.2.3.4)."""
    deflate = zlib.compressobj(wbits=-12)
    return deflate.compress(data) + deflate.flush(zlib.Z_FINISH) + b"\0"


HELLO = bytes.fromhex("f3 48 cd c9 c9 07 00 00")
"""The example of RFC 7692, section 7.2.3.4."""
TWO_BLOCKS = bytes.fromhex("f2 48 05 00 00 00 ff ff ca c9 c9 07 00")
"""The example of RFC 7692, section 7.2.3.5."""


@SIDES
@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ([HELLO], "Hello"),
        ([TWO_BLOCKS], "Hello"),
        ([finished(b"x" * 5000)], "x" * 5000),
        ([finished(b"first ")[:-1] + finished(b"second")], "first second"),
        ([finished(b"no tail")[:-1]], "no tail"),
        ([HELLO[:3], HELLO[3:]], "Hello"),
        ([HELLO[:-1], HELLO[-1:]], "Hello"),
        ([finished(b"first ")[:-1], HELLO], "first Hello"),
        ([HELLO, b""], "Hello"),
    ],
)
async def test_messages_with_final_blocks_arrive_whole(
    net: Network, side: str, parts: list[bytes], whole: str
) -> None:
    async with compressing(net, side) as (half, peer):
        half.accept(pull=True)
        for _ in range(3):
            for number, part in enumerate(parts):
                opcode = CONTINUATION if number else TEXT | RSV1
                last = number == len(parts) - 1
                await peer.send(peer.frame(opcode, part, fin=last))
            assert await half.receive() == whole
            ordinary = zlib.compressobj(wbits=-12)
            data = ordinary.compress(b"as usual") + ordinary.flush(zlib.Z_SYNC_FLUSH)
            await peer.send(peer.frame(TEXT | RSV1, data[:-4]))
            assert await half.receive() == "as usual"


@SIDES
async def test_g9_g12_final_blocks_inflate_no_further_than_the_limit(
    net: Network, side: str
) -> None:
    async with compressing(net, side, max_message_bytes=1000) as (half, peer):
        half.accept()
        await peer.send(peer.frame(BINARY | RSV1, finished(bytes(500))[:-1] * 3))
        assert await code_after(peer) == 1009


async def test_without_context_takeover_each_message_is_inflated_separately(
    net: Network,
) -> None:
    each = "client_no_context_takeover; server_no_context_takeover"
    async with (
        net.serve(net.echo, **ON) as server,
        net.peer(server, f"{OFFER}; {each}") as peer,
    ):
        for text in b"one", b"two":
            await peer.send(peer.frame(TEXT | RSV1, deflated(text)))
        await peer.send(peer.close_frame(1000))
        expected = b"".join(
            frame_header(TEXT | RSV1, len(data), fin=True, masked=False) + data
            for data in (deflated(b"one"), deflated(b"two"))
        )
        assert (await peer.read_all()).startswith(expected)

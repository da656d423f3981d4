"""What an engine is asked for by name, and compression, which only one of them has."""

import sys
import zlib
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_wspair import (
    CloseEvent,
    ErrorEvent,
    HandshakeError,
    ProtocolError,
    Request,
    Response,
    WebSocketPair,
    connect,
    open_websocket,
    serve,
)
from trio_wspair.testing import ScriptedPeer
from trio_wspair.testing._peer_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
)

if TYPE_CHECKING:
    from conftest import Network

ON = {"engine": "websockets", "compression": True}
OFFER = "Sec-WebSocket-Extensions: permessage-deflate"
RSV1 = 0x40


@pytest.fixture(scope="module")
def engine() -> None:
    """Leave the choice to the tests."""


# -- asking for one ---------------------------------------------------------------


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
async def test_what_no_engine_can_do_is_refused(
    net: "Network", options: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await serve(net.echo, 0, **options)
    async with trio.open_nursery() as nursery:
        with pytest.raises(error, match=words):
            await connect("ws://localhost:1/", nursery=nursery, **options)


async def test_without_its_package_an_engine_says_what_to_install(
    net: "Network", monkeypatch: pytest.MonkeyPatch
) -> None:
    package = sys.modules["trio_wspair.transports"]
    name = f"{package.__name__}._websockets"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr(package, "_websockets", raising=False)
    monkeypatch.setitem(sys.modules, "websockets.frames", None)
    with pytest.raises(ImportError, match=r"pip install 'trio-wspair\[websockets\]'"):
        await serve(net.echo, 0, engine="websockets")


# -- compression ------------------------------------------------------------------


def deflated(data: bytes) -> bytes:
    """Return the payload of a compressed message (RFC 7692, section 7.2.1)."""
    deflate = zlib.compressobj(wbits=-12)
    return (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


async def code_after(peer: "ScriptedPeer") -> Any:
    """Return the code of the Close that comes next."""
    said = await peer.receive()
    assert isinstance(said, tuple), said
    return said[0]


@pytest.mark.parametrize("client", [True, False])
@pytest.mark.parametrize("server", [True, False])
async def test_compression_is_agreed_on_when_both_sides_ask_for_it(
    net: "Network", client: bool, server: bool
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


async def test_a_compressed_message_is_shorter_on_the_wire(net: "Network") -> None:
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
    net: "Network", cut: int
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


async def test_a_subprotocol_and_compression_are_agreed_on_together(
    net: "Network",
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
async def test_g12_an_offer_that_makes_no_sense_is_declined(
    net: "Network", offer: str
) -> None:
    async with net.serve(net.echo, **ON) as server, net.dial(server) as peer:
        answer = await peer.handshake(f"Sec-WebSocket-Extensions: {offer}")
        assert answer.startswith("HTTP/1.1 101 ")
        assert "extensions" not in answer.lower()
        await peer.send(peer.text_frame("plain"))
        assert await peer.receive() == "plain"


async def test_g12_a_compressed_message_without_agreement_is_a_breach(
    net: "Network",
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
async def test_g9_g12_what_is_inflated_has_to_be_within_the_limit(
    net: "Network", limit: int, pieces: list[bytes], code: int
) -> None:
    async with (
        net.serve_halves(max_message_bytes=limit, **ON) as (server, halves),
        net.peer(server, OFFER) as peer,
    ):
        heard = net.hear(await halves.receive())
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


async def test_g9_g12_a_message_that_is_full_inflates_no_further(
    net: "Network",
) -> None:
    """To zlib, a limit of 0 bytes is none."""
    deflate = zlib.compressobj(wbits=-12)
    first = deflate.compress(bytes(1000)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    rest = deflate.compress(bytes(10**7)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    async with (
        net.serve_halves(max_message_bytes=1000, **ON) as (server, halves),
        net.peer(server, OFFER) as peer,
    ):
        net.hear(await halves.receive())
        await peer.send(peer.frame(BINARY | RSV1, first, fin=False))
        await peer.send(peer.frame(CONTINUATION, rest[:-4]))
        assert await code_after(peer) == 1009


async def test_a_server_may_not_agree_on_what_was_not_offered(net: "Network") -> None:
    async def script(peer: "ScriptedPeer") -> None:
        await peer.handshake("Sec-WebSocket-Extensions: permessage-deflate; x=1")
        await peer.read_all()

    async with net.script(script) as url:
        with pytest.raises(HandshakeError, match="these extensions were not offered"):
            async with open_websocket(url, engine="websockets", compression=True):
                pass

"""The clients of the soak test that send raw bytes, and break rules of the protocols.

They have the same arguments and results as the functions in `clients`.
"""

import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Final

import trio

from soak.clients import CODES, LIMITS, SOON, Client, Target
from trio_wspair.testing import ScriptedPeer
from trio_wspair.testing._scripted_peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    TornFrameError,
    head,
)

PATIENCE: Final = 20.0
"""The most seconds until the server ends a connection."""
MASKED: Final = 0x80


class NoEndError(Exception):
    """The server has not ended a connection in time."""


class NoWebSocketError(Exception):
    """The server has answered with a status other than 101."""


@asynccontextmanager
async def dialled(target: Target) -> AsyncGenerator[ScriptedPeer]:
    """Open a TCP or TLS connection for the block."""
    tcp = await trio.open_tcp_stream(target.host, target.port)
    try:
        stream: trio.abc.Stream = tcp
        if target.context is not None:
            stream = trio.SSLStream(
                tcp,
                target.context,
                server_hostname=target.host,
                https_compatible=True,
            )
        yield ScriptedPeer(stream, masks=True)
    finally:
        await trio.aclose_forcefully(tcp)


def tcp_stream(peer: ScriptedPeer) -> trio.SocketStream:
    """Return the TCP stream of a peer, below TLS if there is any."""
    stream = peer.stream
    if isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    assert isinstance(stream, trio.SocketStream)
    return stream


def reset(peer: ScriptedPeer) -> None:
    """Make the TCP connection end with a reset, which drops bytes in transit."""
    linger = struct.pack("ii", 1, 0)
    tcp_stream(peer).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


@asynccontextmanager
async def opened(target: Target) -> AsyncGenerator[ScriptedPeer]:
    """Open a WebSocket for the block."""
    async with dialled(target) as peer:
        answer = await peer.handshake(target=target.resource)
        if not answer.startswith("HTTP/1.1 101 "):
            raise NoWebSocketError(status_of(answer))
        yield peer


def status_of(answer: str) -> str:
    """Return the text for the report about an HTTP response."""
    return f"HTTP {answer.split(' ')[1]}" if answer else "ended in the handshake"


def close_received(
    said: list[str | bytes | tuple[int, str] | tuple[str, bytes]],
) -> str:
    """Return the text for the report about the Close that the server has sent."""
    last = said[-1] if said else None
    if isinstance(last, tuple) and isinstance(last[0], int):
        return f"received Close {last[0]}"
    return "received no Close"


# -- peers that vanish --------------------------------------------------------


def conversation(peer: ScriptedPeer, target: Target, rng: Random) -> list[bytes]:
    """Return the bytes of a correct client: its request and its frames."""
    return [
        head(*UPGRADE, start=f"GET {target.resource} HTTP/1.1"),
        peer.text_frame("x" * rng.choice([1, 200, 70_000])),
        peer.frame(BINARY, b"begun", fin=False),
        peer.frame(PING, b"between"),
        peer.frame(CONTINUATION, b"ended"),
        peer.close_frame(rng.choice(CODES)),
    ]


async def vanish(target: Target, rng: Random) -> str:
    """Send a correct conversation up to a random byte, and end TCP in a random way."""
    how = rng.choice(["ended", "reset", "half-closed"])
    async with dialled(target) as peer:
        pieces = conversation(peer, target, rng)
        whole = rng.randrange(len(pieces))
        cut = rng.randrange(len(pieces[whole]))
        data = b"".join([*pieces[:whole], pieces[whole][:cut]])
        middle = rng.randrange(len(data) + 1)
        await peer.send(data[:middle])
        await trio.sleep(rng.expovariate(1 / SOON) * rng.choice([0, 1]))
        await peer.send(data[middle:])
        await trio.sleep(rng.expovariate(1 / SOON) * rng.choice([0, 1]))
        if how == "reset":
            reset(peer)
        elif how == "half-closed":
            await tcp_stream(peer).send_eof()
            with trio.move_on_after(PATIENCE) as scope:
                await peer.read_all()
            if scope.cancelled_caught:
                raise NoEndError
    return f"vanished, TCP {how}"


async def be_deaf(target: Target, rng: Random) -> str:
    """Send without reading, then vanish without a Close."""
    async with opened(target) as peer:
        with trio.move_on_after(rng.expovariate(1 / SOON) * 5):
            while True:
                await peer.send(peer.frame(BINARY, bytes(rng.choice([10, 60_000]))))
                await trio.sleep(rng.expovariate(1 / SOON) / 10)
        if rng.random() < 0.5:
            reset(peer)
    return "deaf, and vanished"


async def be_mute(target: Target, rng: Random) -> str:
    """Read, but answer neither pings nor Closes."""
    async with opened(target) as peer:
        await peer.send(peer.text_frame("go on"))
        with trio.move_on_after(rng.expovariate(1 / SOON) * 10):
            return f"mute, {close_received(await peer.receive_all())}"
    return "mute, and vanished"


# -- peers that send a Close --------------------------------------------------


async def close(target: Target, rng: Random) -> str:
    """Close cleanly, and read the answer, if the handler sends one."""
    async with opened(target) as peer:
        texts = [peer.text_frame("x" * rng.choice([1, 20_000]))] * rng.randrange(4)
        await peer.send(*texts, peer.close_frame(rng.choice([None, *CODES])))
        with trio.move_on_after(0.3):
            return close_received(await peer.receive_all())
    return "sent Close, and vanished without an answer"


async def close_and_talk_on(target: Target, rng: Random) -> str:
    """Send messages after the Close, which the protocol forbids."""
    async with opened(target) as peer:
        await peer.send(peer.text_frame("x"), peer.close_frame(1000))
        try:
            with trio.move_on_after(0.3):
                while True:
                    await peer.send(peer.text_frame("x" * 100))
                    await trio.sleep(0.001)
        except trio.BrokenResourceError:
            pass
    return "sent Close, then messages"


# -- peers that break the protocol --------------------------------------------


def bad_frames(peer: ScriptedPeer, rng: Random) -> list[bytes]:
    """Return invalid frames; the server ends the connection for different reasons."""
    size = LIMITS["max_message_bytes"] + 1
    return [
        peer.frame(TEXT, b"\xff\xfe"),  # Invalid UTF-8.
        peer.frame(TEXT, "é".encode()[:1], fin=False) + peer.frame(CONTINUATION, b"x"),
        peer.frame(CONTINUATION, b"nothing was begun"),
        peer.frame(TEXT, b"x", fin=False) + peer.text_frame("another"),
        peer.frame(3, b"reserved"),
        peer.frame(PING, bytes(126)),
        peer.frame(PING, b"", fin=False),
        bytes([0xC1]) + peer.text_frame("x")[1:],  # A reserved bit.
        ScriptedPeer(peer.stream, masks=False).text_frame("not masked"),
        peer.frame(CLOSE, b"\x03"),  # Half a close code.
        peer.frame(CLOSE, struct.pack("!H", rng.choice([0, 999, 1005, 1006, 5000]))),
        peer.frame(CLOSE, struct.pack("!H", 1000) + b"\xff"),
        peer.frame(BINARY, bytes(size)),
        struct.pack("!BBQ", 0x82, MASKED | 127, 2**62) + bytes(size),
        peer.frame(BINARY, bytes(60_000), fin=False)
        + peer.frame(CONTINUATION, bytes(60_000), fin=False) * 4,
        b"\xff" * 20 + rng.randbytes(200),
    ]


async def break_the_rules(target: Target, rng: Random) -> str:
    """Break the WebSocket protocol."""
    async with opened(target) as peer:
        frames = rng.choice(bad_frames(peer, rng))
        await peer.send(peer.text_frame("so far, so good") * rng.randrange(3), frames)
        with trio.move_on_after(0.3):
            return f"broke the rules, {close_received(await peer.receive_all())}"
    return "broke the rules, and vanished"


async def flood_with_pings(target: Target, rng: Random) -> str:
    """Send many pings, and read only some of the pongs."""
    async with opened(target) as peer:
        with trio.move_on_after(0.2):
            await peer.send(peer.frame(PING, bytes(125)) * 2000)
            await peer.send(peer.frame(PONG, b"unasked") * 10)
        # A TLS record that was cut off above ends the connection, within a frame.
        with trio.move_on_after(SOON), suppress(TornFrameError):
            for _ in range(rng.randrange(1000)):
                await peer.receive()
    return "many pings, and vanished"


# -- peers that send plain HTTP, or neither -----------------------------------


def bad_heads(rng: Random) -> list[bytes]:
    """Return requests that the server refuses, for different reasons."""
    host = "Host: 127.0.0.1"
    return [
        head(host, start=f"{rng.choice(['GET', 'HEAD', 'DELETE'])} / HTTP/1.1"),
        head(host, "Content-Length: 9", start="POST / HTTP/1.1") + b"some body",
        head(*UPGRADE[:-1], "Sec-WebSocket-Version: 8"),
        head(*UPGRADE[:-2], "Sec-WebSocket-Version: 13"),
        head(*UPGRADE, start="POST / HTTP/1.1"),
        head(*UPGRADE, start="GET / HTTP/1.0"),
        head(*UPGRADE, start="GET / HTTP/3.0"),
        head(*UPGRADE, "X: " + "x" * 40_000),
        head("no colon"),
        rng.randbytes(300) + b"\r\n\r\n",
    ]


async def ask_wrongly(target: Target, rng: Random) -> str:
    """Send a request that the server refuses."""
    async with dialled(target) as peer:
        await peer.send(rng.choice(bad_heads(rng)))
        with trio.move_on_after(PATIENCE):
            return status_of((await peer.read_all()).decode("latin-1"))
    raise NoEndError


async def be_slow(target: Target, rng: Random) -> str:
    """Send a head so slowly that the server times out."""
    async with dialled(target) as peer, trio.open_nursery() as nursery:

        async def trickle() -> None:
            for byte in head(*UPGRADE):
                await peer.send(bytes([byte]))
                await trio.sleep(SOON)

        nursery.start_soon(trickle)
        with trio.move_on_after(PATIENCE):
            answer = await peer.read_all()
            nursery.cancel_scope.cancel(reason="the server has given up")
            return status_of(answer.decode("latin-1"))
    raise NoEndError


async def speak_no_tls(target: Target, rng: Random) -> str:
    """Send bytes that are neither TLS nor HTTP, straight to TCP."""
    async with dialled(target) as peer:
        await tcp_stream(peer).send_all(rng.randbytes(rng.randrange(1, 500)))
        with trio.move_on_after(PATIENCE):
            while await tcp_stream(peer).receive_some():
                pass
            return "nonsense, and TCP ended"
    raise NoEndError


RAW_CLIENTS: Final[list[Client]] = [
    vanish,
    vanish,
    vanish,
    be_deaf,
    be_mute,
    close,
    close_and_talk_on,
    break_the_rules,
    break_the_rules,
    flood_with_pings,
    ask_wrongly,
    be_slow,
    speak_no_tls,
]

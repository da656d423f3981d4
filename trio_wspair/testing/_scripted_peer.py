"""`ScriptedPeer`: the other end of a connection, which sends exactly what a test says.

Knows the handshakes and frames of RFC 6455 as bytes, valid or not. They are written
here by a second reading of the RFC, so that they check the engines.
"""

import base64
import contextlib
import hashlib
import re
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Final
from urllib.parse import urlsplit

import trio

from trio_wspair._rules.errors import HandshakeError
from trio_wspair._rules.limits import check_limit, check_seconds
from trio_wspair._tasks.nurseries import open_service_nursery

from ._streams import reset

__all__ = (
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "KEY",
    "PING",
    "PONG",
    "TEXT",
    "UPGRADE",
    "Said",
    "ScriptedPeer",
    "TornFrameError",
    "accept_key",
    "frame_header",
    "head",
    "masked_with",
    "open_scripted_client",
    "open_scripted_server",
    "read_frame",
)


CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
"""The key of the example in RFC 6455, section 1.3."""
UPGRADE: Final = (
    "Host: 127.0.0.1",
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Version: 13",
)
"""The headers of a good handshake."""

Said = str | bytes | tuple[int, str] | tuple[str, bytes]
"""What a frame says: text, binary, (code, reason) of a Close, or ("ping", payload)."""


class TornFrameError(AssertionError):
    """TCP has ended within a frame: only the end of a grace may do that."""


def head(*headers: str, start: str = "GET / HTTP/1.1") -> bytes:
    """Return the head of a message, to the empty line."""
    return "\r\n".join([start, *headers, "", ""]).encode("latin-1")


def accept_key(key: str) -> str:
    """Return what a server answers to a key (RFC 6455, section 4.2.2)."""
    digest = hashlib.sha1(
        f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False
    )
    return base64.b64encode(digest.digest()).decode()


def frame_header(opcode: int, size: int, *, fin: bool, masked: bool) -> bytes:
    """Return what goes before a payload. A mask of zeros leaves that as it is."""
    first, mask_bit = opcode | (fin << 7), 0x80 if masked else 0
    if size < 126:
        header = struct.pack("!BB", first, mask_bit | size)
    elif size < 2**16:
        header = struct.pack("!BBH", first, mask_bit | 126, size)
    else:
        header = struct.pack("!BBQ", first, mask_bit | 127, size)
    return header + (bytes(4) if masked else b"")


def read_frame(data: bytes | bytearray, *, masked: bool) -> tuple[Said, int] | None:
    """Return what the first frame says and its size; `None` if it is not all there.

    Raises:
        AssertionError: It is none that a good peer would send.
    """
    if len(data) < 2:
        return None
    size, start = data[1] & 0x7F, 2
    # Raised, not asserted: `python -O` leaves assertions out.
    if bool(data[1] & 0x80) is not masked:
        raise AssertionError("a client masks, a server does not")
    if data[0] & 0xF0 != 0x80:
        raise AssertionError("nothing but whole frames is sent")
    if size >= 126:
        start = 4 if size == 126 else 10
        size = int.from_bytes(data[2:start], "big")
    mask = bytes(data[start : start + 4]) if masked else b""
    start += len(mask)
    if len(data) < start + size:
        return None
    payload = bytes(data[start : start + size])
    return _said_by(data[0] & 0x0F, masked_with(mask, payload)), start + size


def _said_by(opcode: int, payload: bytes) -> Said:
    """Return what a whole frame says."""
    if opcode == TEXT:
        return payload.decode()
    if opcode == BINARY:
        return payload
    if opcode == CLOSE:
        code = struct.unpack("!H", payload[:2])[0] if payload else 1005
        return code, payload[2:].decode()
    return {PING: "ping", PONG: "pong"}[opcode], payload


def masked_with(mask: bytes, payload: bytes) -> bytes:
    """Return a payload with a mask put on, or taken off (RFC 6455, section 5.3)."""
    if not any(mask):
        return payload
    size = len(payload)
    pad = (mask * (size // 4 + 1))[:size]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")
    return number.to_bytes(size, "big")


_PIECE: Final = 2**16
"""How many bytes are read, or sent, at once."""


class ScriptedPeer:
    """A peer that speaks WebSocket by hand, and misbehaves when it is told to.

    One comes from `open_scripted_server()` or `open_scripted_client()`. It does
    nothing by itself: no pong, no answer to a Close. Frames are made by `frame()`,
    `text_frame()` and `close_frame()`, sent by `send()`, and read by `receive()`::

        await peer.send(peer.text_frame("hello"), peer.close_frame(1000))

    The methods from `close_late()` on each misbehave in one way: they are steps of a
    script, or a whole one. Time is Trio's. What is sent to somebody who has gone raises
    `trio.BrokenResourceError`.

    Args:
        stream: The connection. It belongs to the peer.
        masks: Whether frames are masked: a client's are, a server's are not.
    """

    stream: trio.abc.Stream
    """The connection, for whatever there is no method for."""
    masks: bool
    """Whether this is a client (RFC 6455, section 5.1)."""

    def __init__(self, stream: trio.abc.Stream, *, masks: bool) -> None:
        self.stream = stream
        self.masks = masks
        self._received = bytearray()

    # -- the opening handshake --------------------------------------------------------

    async def handshake(
        self, *headers: str, target: str = "/", host: str = "127.0.0.1"
    ) -> str:
        """Open the WebSocket (RFC 6455, section 4), as a client or as a server.

        Args:
            headers: Lines to add, such as ``"Sec-WebSocket-Protocol: chat"``.
            target: What a client asks for: a path, and after a ``?`` the query.
            host: Whom a client asks, and the port after a colon.

        Returns:
            The head of what the other side has said, as far as it has come. It is the
            request, or the answer, which needn't be a 101.

        Raises:
            AssertionError: A server was not asked for a WebSocket.
        """
        if self.masks:
            _, *upgrade = UPGRADE
            start = f"GET {target} HTTP/1.1"
            await self.send(head(f"Host: {host}", *upgrade, *headers, start=start))
            return await self.read_head()
        request = await self.read_head()
        found = re.search(r"(?i)\r\nsec-websocket-key: (\S+)\r\n", request)
        if found is None:
            msg = f"this is no request for a WebSocket: {request!r}"
            raise AssertionError(msg)
        answer = (
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept_key(found[1])}",
        )
        start = "HTTP/1.1 101 Switching Protocols"
        await self.send(head(*answer, *headers, start=start))
        return request

    # -- speaking ---------------------------------------------------------------------

    def frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
        """Return a good frame (RFC 6455, section 5.2).

        Args:
            opcode: 0 for a continuation, 1 for text, 2 for binary, 8 for Close, 9 for
                ping, 10 for pong.
            payload: What it carries.
            fin: Whether it is the last one of its message.
        """
        return self._header(opcode, len(payload), fin=fin) + payload

    def text_frame(self, text: str) -> bytes:
        """Return the frame of a text message."""
        return self.frame(TEXT, text.encode())

    def close_frame(self, code: int | None = None, reason: str = "") -> bytes:
        """Return a Close, with any code, or none."""
        payload = b"" if code is None else struct.pack("!H", code) + reason.encode()
        return self.frame(CLOSE, payload)

    async def send(self, *data: bytes | bytearray) -> None:
        """Send frames, or any bytes, all at once."""
        await self.stream.send_all(b"".join(data))

    # -- hearing ----------------------------------------------------------------------

    async def receive(self) -> Said | None:
        """Return what the next frame says; `None` if TCP ends before it.

        Text is a str and binary is bytes; a Close is ``(code, reason)``, with 1005 if
        it has no code; others are ``("ping", payload)`` and ``("pong", payload)``.

        Raises:
            AssertionError: The frame is in fragments or compressed, is masked although
                a server's or not although a client's, or TCP ends within it.
        """
        while (found := read_frame(self._received, masked=not self.masks)) is None:
            if not await self._read_on():
                if self._received:
                    raise TornFrameError(bytes(self._received[:40]))
                return None
        said, size = found
        del self._received[:size]
        return said

    async def receive_all(self) -> list[Said]:
        """Return what all frames say until the end of TCP."""
        everything: list[Said] = []
        while (said := await self.receive()) is not None:
            everything.append(said)
        return everything

    async def read_head(self) -> str:
        """Return the head of an HTTP message, as far as it comes."""
        while b"\r\n\r\n" not in self._received and await self._read_on():
            pass
        end = self._received.find(b"\r\n\r\n") + 4
        text = self._received[:end].decode("latin-1")
        del self._received[:end]
        return text

    async def read_all(self) -> bytes:
        """Return every byte until the end of TCP."""
        while await self._read_on():
            pass
        data = bytes(self._received)
        self._received.clear()
        return data

    def _header(self, opcode: int, size: int, *, fin: bool = True) -> bytes:
        return frame_header(opcode, size, fin=fin, masked=self.masks)

    async def _read_on(self, max_bytes: int = _PIECE) -> bool:
        """Read on; return whether there was something."""
        try:
            data = await self.stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        self._received += data
        return bool(data)

    # -- misbehaving ------------------------------------------------------------------

    async def close_late(self, seconds: float) -> None:
        """Receive until a Close comes, and answer it so many seconds later."""
        check_seconds("seconds", seconds)
        while (said := await self.receive()) is not None:
            if isinstance(said, tuple) and isinstance(said[0], int):
                await trio.sleep(seconds)
                await self.send(self.close_frame(None if said[0] == 1005 else said[0]))
                return

    async def never_close(self) -> None:
        """Receive everything and answer nothing, until TCP ends."""
        self._received.clear()
        while await self._read_on():
            self._received.clear()

    async def read_slowly(self, bytes_per_second: int) -> None:
        """Do the same, but take no more than so many bytes a second.

        What the operating system buffers counts as taken: on a socket, send some
        megabytes to see the other side wait.
        """
        check_limit("bytes_per_second", bytes_per_second)
        self._received.clear()
        while await self._read_on(min(bytes_per_second, _PIECE)):
            await trio.sleep(len(self._received) / bytes_per_second)
            self._received.clear()

    async def send_garbage(self, size: int, *, seed: int = 0) -> None:
        """Send random bytes that begin like no frame: RFC 6455 wants a 1002.

        Args:
            size: How many.
            seed: The same one makes the same bytes.
        """
        check_limit("size", size)
        garbage = bytearray(Random(seed).randbytes(size))  # noqa: S311 - no secret
        garbage[0] |= 0x30  # Two bits that no extension uses.
        await self.send(garbage)

    async def send_large_message(self, size: int) -> None:
        """Send a text of so many bytes, as far as it is taken: one too many is a 1009.

        It goes out piece by piece, and ends early when the other side has gone.
        """
        check_limit("size", size)
        with contextlib.suppress(trio.BrokenResourceError):
            await self.send(self._header(TEXT, size))
            for start in range(0, size, _PIECE):
                await self.send(b"x" * min(_PIECE, size - start))

    async def send_fragments(self, message: str | bytes, size: int) -> None:
        """Send a message in fragments of so many bytes (RFC 6455, section 5.4)."""
        check_limit("size", size)
        opcode = TEXT if isinstance(message, str) else BINARY
        payload = message.encode() if isinstance(message, str) else message
        for start in range(0, len(payload) or 1, size):
            fin = start + size >= len(payload)
            await self.send(self.frame(opcode, payload[start : start + size], fin=fin))
            opcode = CONTINUATION

    async def flood_pings(self, count: int, payload: bytes = b"") -> None:
        """Send so many pings at once, and read none of the pongs meanwhile."""
        check_limit("count", count)
        await self.send(self.frame(PING, payload) * count)

    async def end_tcp(self) -> None:
        """End TCP without a Close, and wait until the other side has ended it, too."""
        gone = trio.BrokenResourceError, trio.ClosedResourceError
        if isinstance(self.stream, trio.abc.HalfCloseableStream):
            with contextlib.suppress(*gone):
                await self.stream.send_eof()
            await self.never_close()
        await self.stream.aclose()

    async def reset(self) -> None:
        """Break the connection off; on a socket, by a reset (RST)."""
        await reset(self.stream)


@asynccontextmanager
async def open_scripted_server(
    script: Callable[[ScriptedPeer], Awaitable[object]], *, handshake: bool = True
) -> AsyncGenerator[str, None]:
    """Open a server on the loopback interface that does what a script says.

    ``async with open_scripted_server(ScriptedPeer.never_close) as url:`` gives the URL
    to connect to. The script runs once for each connection. When it returns, or the
    client has gone, TCP ends in good order. What else it raises ends the block, and
    comes out as an `ExceptionGroup`, as from any nursery. On leaving, the scripts are
    cancelled.

    Args:
        script: An async function that takes the `ScriptedPeer` of a connection.
        handshake: Open the WebSocket before the script runs. Otherwise the script
            gets a bare connection, and may do that with `ScriptedPeer.handshake()`.
    """

    async def run(stream: trio.SocketStream) -> None:
        peer = ScriptedPeer(stream, masks=False)
        async with stream:
            try:
                if handshake:
                    await peer.handshake()
                await script(peer)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            await peer.end_tcp()

    async with open_service_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_tcp, run, 0, host="127.0.0.1")
        )
        yield f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/"


@asynccontextmanager
async def open_scripted_client(
    url_or_stream: str | trio.abc.Stream, *headers: str, handshake: bool = True
) -> AsyncGenerator[ScriptedPeer, None]:
    """Open a WebSocket to a server as a client that does what the block says.

    ``async with open_scripted_client(server.url) as peer:``. On leaving, TCP ends.

    Args:
        url_or_stream: The URL of the server, with ``ws``; or a stream to it, such as a
            `trio.SSLStream` or a `FaultyStream`. It belongs to the client.
        headers: Lines to add to the request, such as ``"Origin: https://example.com"``.
        handshake: Open the WebSocket before the block runs. Otherwise the block gets a
            bare connection, and may do that with `ScriptedPeer.handshake()`.

    Raises:
        HandshakeError: The server has not opened a WebSocket.
        OSError: There is nobody at that address.
        ValueError: It is no URL of that kind.
    """
    target, host = "/", "127.0.0.1"
    if isinstance(url_or_stream, str):
        parts = urlsplit(url_or_stream)
        if parts.scheme != "ws" or parts.hostname is None:
            msg = f"url is like 'ws://127.0.0.1:8000/', not {url_or_stream!r}"
            raise ValueError(msg)
        target = f"{parts.path or '/'}{parts.query and '?'}{parts.query}"
        host = parts.netloc
        stream: trio.abc.Stream = await trio.open_tcp_stream(
            parts.hostname, parts.port or 80
        )
    else:
        stream = url_or_stream
    peer = ScriptedPeer(stream, masks=True)
    try:
        if handshake:
            answer = await peer.handshake(*headers, target=target, host=host)
            if not answer.startswith("HTTP/1.1 101 "):
                msg = f"the server has not opened a WebSocket: {answer!r}"
                raise HandshakeError(msg)
        yield peer
    finally:
        await trio.aclose_forcefully(peer.stream)

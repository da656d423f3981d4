"""`ScriptedPeer`: the other end of a connection, which sends exactly what a test says.

Knows the handshakes and frames of RFC 6455 as bytes, valid or not. They are implemented
here independently of the engines, to check them.
"""

import base64
import hashlib
import re
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
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
"""The headers of a valid handshake."""

Said = str | bytes | tuple[int, str] | tuple[str, bytes]
"""The content of a frame: text, binary, (code, reason), or ("ping", payload)."""


class TornFrameError(AssertionError):
    """TCP has ended within a frame. That is right only after a grace period."""


def head(*headers: str, start: str = "GET / HTTP/1.1") -> bytes:
    """Return the head of an HTTP message, with the empty line at its end."""
    return "\r\n".join([start, *headers, "", ""]).encode("latin-1")


def accept_key(key: str) -> str:
    """Return the Sec-WebSocket-Accept for a key (RFC 6455, section 4.2.2)."""
    digest = hashlib.sha1(
        f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False
    )
    return base64.b64encode(digest.digest()).decode()


def frame_header(opcode: int, size: int, *, fin: bool, masked: bool) -> bytes:
    """Return the bytes before a payload. The mask is zero: it changes nothing."""
    first, mask_bit = opcode | (fin << 7), 0x80 if masked else 0
    if size < 126:
        header = struct.pack("!BB", first, mask_bit | size)
    elif size < 2**16:
        header = struct.pack("!BBH", first, mask_bit | 126, size)
    else:
        header = struct.pack("!BBQ", first, mask_bit | 127, size)
    return header + (bytes(4) if masked else b"")


def read_frame(data: bytes | bytearray, *, masked: bool) -> tuple[Said, int] | None:
    """Return the content and the size of the first frame; `None` if it is incomplete.

    Raises:
        AssertionError: It isn't a complete, uncompressed, correctly masked frame.
    """
    if len(data) < 2:
        return None
    size, start = data[1] & 0x7F, 2
    # Raised, not asserted: `python -O` ignores assert statements.
    if bool(data[1] & 0x80) is not masked:
        raise AssertionError("a server has masked a frame, or a client has not")
    if data[0] & 0xF0 != 0x80:
        raise AssertionError("the peer sent a fragment, or set a reserved bit")
    if size >= 126:
        start = 4 if size == 126 else 10
        size = int.from_bytes(data[2:start], "big")
    mask = bytes(data[start : start + 4]) if masked else b""
    start += len(mask)
    if len(data) < start + size:
        return None
    payload = bytes(data[start : start + size])
    return _content_of(data[0] & 0x0F, masked_with(mask, payload)), start + size


def _content_of(opcode: int, payload: bytes) -> Said:
    """Return the content of a complete frame."""
    if opcode == TEXT:
        return payload.decode()
    if opcode == BINARY:
        return payload
    if opcode == CLOSE:
        code = struct.unpack("!H", payload[:2])[0] if payload else 1005
        return code, payload[2:].decode()
    return {PING: "ping", PONG: "pong"}[opcode], payload


def masked_with(mask: bytes, payload: bytes) -> bytes:
    """Return a payload masked or unmasked (RFC 6455, section 5.3)."""
    if not any(mask):
        return payload
    size = len(payload)
    pad = (mask * (size // 4 + 1))[:size]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")
    return number.to_bytes(size, "big")


_PIECE: Final = 2**16
"""The bytes that are read or sent at once."""


class ScriptedPeer:
    """A peer that sends exactly the frames that a script says, valid or not.

    `open_scripted_server()` and `open_scripted_client()` make one. It does nothing by
    itself: it sends no pong, and no answer to a Close. `frame()`, `text_frame()` and
    `close_frame()` make frames, `send()` sends them, and `receive()` reads them::

        await peer.send(peer.text_frame("hello"), peer.close_frame(1000))

    Each method from `close_late()` on misbehaves in one way: it can be a step of a
    script, or the whole script. Time is Trio's. Sending raises
    `trio.BrokenResourceError` if the other side has closed the connection.

    Args:
        stream: The connection. The peer closes it.
        masks: Whether to mask frames: a client does, a server doesn't.
    """

    stream: trio.abc.Stream
    """The connection, for all that this class has no method for."""
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
            target: The path that a client requests, with an optional query.
            host: The client's ``Host``: the host, with an optional port.

        Returns:
            The head of the request or of the response (which may be another than 101).
            It is incomplete if the connection has ended early.

        Raises:
            AssertionError: A server got another request than one for a WebSocket.
        """
        if self.masks:
            _, *upgrade = UPGRADE
            start = f"GET {target} HTTP/1.1"
            await self.send(head(f"Host: {host}", *upgrade, *headers, start=start))
            return await self.read_head()
        request = await self.read_head()
        found = re.search(r"(?i)\r\nsec-websocket-key: (\S+)\r\n", request)
        if found is None:
            msg = f"the request has no Sec-WebSocket-Key: {request!r}"
            raise AssertionError(msg)
        answer = (
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept_key(found[1])}",
        )
        status = "HTTP/1.1 101 Switching Protocols"
        await self.send(head(*answer, *headers, start=status))
        return request

    # -- sending ----------------------------------------------------------------------

    def frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
        """Return a well-formed frame (RFC 6455, section 5.2).

        Args:
            opcode: 0 for a continuation, 1 for text, 2 for binary, 8 for Close, 9 for
                ping, 10 for pong.
            payload: The payload.
            fin: Whether it is the last frame of its message.
        """
        return self._header(opcode, len(payload), fin=fin) + payload

    def text_frame(self, text: str) -> bytes:
        """Return the frame of a text message."""
        return self.frame(TEXT, text.encode())

    def close_frame(self, code: int | None = None, reason: str = "") -> bytes:
        """Return a Close frame, with any code or without one."""
        payload = b"" if code is None else struct.pack("!H", code) + reason.encode()
        return self.frame(CLOSE, payload)

    async def send(self, *data: bytes | bytearray) -> None:
        """Send frames, or any bytes, in one call of ``send_all()``."""
        await self.stream.send_all(b"".join(data))

    # -- receiving --------------------------------------------------------------------

    async def receive(self) -> Said | None:
        """Return the content of the next frame; `None` if TCP ends before it.

        Text is a str and binary is bytes; a Close is ``(code, reason)``, with 1005 if
        it has no code; others are ``("ping", payload)`` and ``("pong", payload)``.

        Raises:
            AssertionError: The frame is a fragment or compressed, or a server has
                masked it or a client has not, or TCP ends within it.
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
        """Return the contents of all frames until the end of TCP."""
        everything: list[Said] = []
        while (said := await self.receive()) is not None:
            everything.append(said)
        return everything

    async def read_head(self) -> str:
        """Return the head of an HTTP message; only its beginning if TCP ends early."""
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
        """Read more bytes; return whether there were any."""
        try:
            data = await self.stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        self._received += data
        return bool(data)

    # -- misbehaving ------------------------------------------------------------------

    async def close_late(self, seconds: float) -> None:
        """Receive until a Close comes, and answer it some seconds later."""
        check_seconds("seconds", seconds)
        while (said := await self.receive()) is not None:
            if isinstance(said, tuple) and isinstance(said[0], int):
                await trio.sleep(seconds)
                await self.send(self.close_frame(None if said[0] == 1005 else said[0]))
                return

    async def never_close(self) -> None:
        """Read everything until TCP ends, and send nothing."""
        self._received.clear()
        while await self._read_on():
            self._received.clear()

    async def read_slowly(self, bytes_per_second: int) -> None:
        """Read until TCP ends, at a limited rate, and send nothing.

        The operating system buffers some megabytes on a socket: only a sender of more
        than that has to wait.
        """
        check_limit("bytes_per_second", bytes_per_second)
        self._received.clear()
        while await self._read_on(min(bytes_per_second, _PIECE)):
            await trio.sleep(len(self._received) / bytes_per_second)
            self._received.clear()

    async def send_garbage(self, size: int, *, seed: int = 0) -> None:
        """Send random bytes that can't begin a frame: RFC 6455 demands code 1002.

        Args:
            size: The number of bytes.
            seed: The same seed makes the same bytes.
        """
        check_limit("size", size)
        garbage = bytearray(Random(seed).randbytes(size))  # noqa: S311 - no secret
        garbage[0] |= 0x30  # Two bits that no extension uses.
        await self.send(garbage)

    async def send_large_message(self, size: int) -> None:
        """Send a text message of `size` bytes. If it is too large, expect code 1009.

        Sending stops, without an error, if the other side closes the connection.
        """
        check_limit("size", size)
        with suppress(trio.BrokenResourceError):
            await self.send(self._header(TEXT, size))
            for start in range(0, size, _PIECE):
                await self.send(b"x" * min(_PIECE, size - start))

    async def send_fragments(self, message: str | bytes, size: int) -> None:
        """Send a message in fragments of `size` bytes (RFC 6455, section 5.4)."""
        check_limit("size", size)
        opcode = TEXT if isinstance(message, str) else BINARY
        payload = message.encode() if isinstance(message, str) else message
        for start in range(0, len(payload) or 1, size):
            fin = start + size >= len(payload)
            await self.send(self.frame(opcode, payload[start : start + size], fin=fin))
            opcode = CONTINUATION

    async def flood_pings(self, count: int, payload: bytes = b"") -> None:
        """Send `count` pings at once, without reading the pongs meanwhile."""
        check_limit("count", count)
        await self.send(self.frame(PING, payload) * count)

    async def end_tcp(self) -> None:
        """End TCP without a Close, and wait until the other side has ended it too."""
        gone = trio.BrokenResourceError, trio.ClosedResourceError
        if isinstance(self.stream, trio.abc.HalfCloseableStream):
            with suppress(*gone):
                await self.stream.send_eof()
            await self.never_close()
        await self.stream.aclose()

    async def reset(self) -> None:
        """Close the connection at once; a socket sends a reset (RST)."""
        await reset(self.stream)


@asynccontextmanager
async def open_scripted_server(
    script: Callable[[ScriptedPeer], Awaitable[object]], *, handshake: bool = True
) -> AsyncGenerator[str, None]:
    """Open a server on the loopback interface that runs a script for each connection.

    ``async with open_scripted_server(ScriptedPeer.never_close) as url:`` yields the URL
    to connect to. When the script returns, or the client has closed the connection, TCP
    is ended normally. Any other exception of the script cancels the block, and comes in
    an `ExceptionGroup`. On leaving, the scripts are cancelled.

    Args:
        script: An async function that takes the `ScriptedPeer` of a connection.
        handshake: Open the WebSocket before the script runs. Otherwise the script gets
            a bare connection, and may call `ScriptedPeer.handshake()`.
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
    """Open a WebSocket to a server, as a `ScriptedPeer` that the block drives.

    ``async with open_scripted_client(server.url) as peer:``. On leaving, TCP ends.

    Args:
        url_or_stream: The URL of the server, with ``ws``; or a stream to it, such as a
            `trio.SSLStream` or a `FaultyStream`, which the client closes.
        headers: Lines to add to the request, such as ``"Origin: https://example.com"``.
        handshake: Open the WebSocket before the block runs. Otherwise the block gets a
            bare connection, and may call `ScriptedPeer.handshake()`.

    Raises:
        HandshakeError: The server has not opened a WebSocket.
        OSError: The connection can't be made.
        ValueError: The URL isn't a ``ws`` URL with a host.
    """
    target, host = "/", "127.0.0.1"
    if isinstance(url_or_stream, str):
        parts = urlsplit(url_or_stream)
        if parts.scheme != "ws" or parts.hostname is None:
            msg = f"the URL must be like 'ws://127.0.0.1:8000/', not {url_or_stream!r}"
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
            response = await peer.handshake(*headers, target=target, host=host)
            if not response.startswith("HTTP/1.1 101 "):
                msg = f"the server has not opened a WebSocket: {response!r}"
                raise HandshakeError(msg)
        yield peer
    finally:
        await trio.aclose_forcefully(peer.stream)

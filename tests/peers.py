"""Peers that are made of bytes, and say exactly what they are told to say.

Nobody's library makes or reads their frames.
"""

import base64
import hashlib
import re
import struct

import trio

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""The key of the example in RFC 6455, section 1.3."""
UPGRADE = (
    "Host: 127.0.0.1",
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Version: 13",
)
"""The headers of a good handshake."""


def head(*headers: str, start: str = "GET / HTTP/1.1") -> bytes:
    """Return the head of a message, to the empty line."""
    return "\r\n".join([start, *headers, "", ""]).encode("latin-1")


def accept_key(key: str) -> str:
    """Return what a server answers to a key (RFC 6455, section 4.2.2)."""
    digest = hashlib.sha1(
        f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False
    )
    return base64.b64encode(digest.digest()).decode()


Said = str | bytes | tuple[int, str] | tuple[str, bytes]
"""What a frame says: text, binary, (code, reason) of a Close, or ("ping", payload)."""


def said_by(opcode: int, payload: bytes) -> Said:
    """Return what a whole frame says."""
    if opcode == TEXT:
        return payload.decode()
    if opcode == BINARY:
        return payload
    if opcode == CLOSE:
        code = struct.unpack("!H", payload[:2])[0] if payload else 1005
        return code, payload[2:].decode()
    return {PING: "ping", PONG: "pong"}[opcode], payload


def read_frame(data: bytes | bytearray, *, masked: bool) -> tuple[Said, int] | None:
    """Return what the first frame says and its size; `None` if it is not all there.

    Raises:
        AssertionError: It is none that a good peer would send.
    """
    if len(data) < 2:
        return None
    size, start = data[1] & 0x7F, 2
    assert bool(data[1] & 0x80) is masked, "a client masks, a server does not"
    assert data[0] & 0xF0 == 0x80, "nothing but whole frames is sent"
    if size >= 126:
        start = 4 if size == 126 else 10
        size = int.from_bytes(data[2:start], "big")
    mask = bytes(data[start : start + 4]) if masked else b""
    start += len(mask)
    if len(data) < start + size:
        return None
    payload = bytes(data[start : start + size])
    return said_by(data[0] & 0x0F, masked_with(mask, payload)), start + size


def masked_with(mask: bytes, payload: bytes) -> bytes:
    """Return a payload with a mask put on, or taken off (RFC 6455, section 5.3)."""
    if not any(mask):
        return payload
    size = len(payload)
    pad = (mask * (size // 4 + 1))[:size]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")
    return number.to_bytes(size, "big")


class TornError(AssertionError):
    """TCP has ended within a frame: only the end of a grace may do that."""


class RawPeer:
    """The other end of a connection."""

    def __init__(self, stream: trio.abc.Stream, *, masks: bool) -> None:
        self.stream = stream
        self.masks = masks
        self._received = bytearray()

    # -- speaking -------------------------------------------------------------

    def frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
        """Return a good frame."""
        size = len(payload)
        mask_bit = 0x80 if self.masks else 0
        if size < 126:
            header = struct.pack("!BB", opcode | (fin << 7), mask_bit | size)
        elif size < 2**16:
            header = struct.pack("!BBH", opcode | (fin << 7), mask_bit | 126, size)
        else:
            header = struct.pack("!BBQ", opcode | (fin << 7), mask_bit | 127, size)
        # A mask of zeros leaves the payload as it is.
        return header + (bytes(4) if self.masks else b"") + payload

    def text(self, text: str) -> bytes:
        """Return a text message."""
        return self.frame(TEXT, text.encode())

    def close(self, code: int | None = None, reason: str = "") -> bytes:
        """Return a Close."""
        payload = b"" if code is None else struct.pack("!H", code) + reason.encode()
        return self.frame(CLOSE, payload)

    async def send(self, *data: bytes | bytearray) -> None:
        """Send bytes, all at once."""
        await self.stream.send_all(b"".join(data))

    # -- hearing --------------------------------------------------------------

    async def _more(self) -> bool:
        """Read on; return whether there was something."""
        try:
            data = await self.stream.receive_some(2**16)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        self._received += data
        return bool(data)

    async def read_head(self) -> str:
        """Return the head of an HTTP message, as far as it comes."""
        while b"\r\n\r\n" not in self._received and await self._more():
            pass
        end = self._received.find(b"\r\n\r\n") + 4
        text = self._received[:end].decode("latin-1")
        del self._received[:end]
        return text

    async def read_all(self) -> bytes:
        """Return everything until the end of TCP."""
        while await self._more():
            pass
        data = bytes(self._received)
        self._received.clear()
        return data

    async def hear(self) -> Said | None:
        """Return what the next frame says; `None` if TCP ends before it."""
        while (found := read_frame(self._received, masked=not self.masks)) is None:
            if not await self._more():
                if self._received:
                    raise TornError(bytes(self._received[:40]))
                return None
        said, size = found
        del self._received[:size]
        return said

    async def hear_all(self) -> list[Said]:
        """Return what all frames say until the end of TCP."""
        everything: list[Said] = []
        while (said := await self.hear()) is not None:
            everything.append(said)
        return everything

    # -- the opening handshake ------------------------------------------------

    async def ask(self, *headers: str, target: str = "/") -> str:
        """Ask for a WebSocket, as a client; return the head of the answer."""
        await self.send(head(*UPGRADE, *headers, start=f"GET {target} HTTP/1.1"))
        return await self.read_head()

    async def answer(self, *headers: str) -> str:
        """Open a WebSocket, as a server; return the head of the request."""
        request = await self.read_head()
        found = re.search(r"(?i)\r\nsec-websocket-key: (\S+)\r\n", request)
        assert found is not None, request
        await self.send(
            head(
                "Upgrade: websocket",
                "Connection: Upgrade",
                f"Sec-WebSocket-Accept: {accept_key(found[1])}",
                *headers,
                start="HTTP/1.1 101 Switching Protocols",
            )
        )
        return request

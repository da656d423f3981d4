"""Handshakes and frames of RFC 6455 as bytes, for peers that are made of bytes.

Knows no Trio. Nobody's library makes or reads them: what our engines say is checked
by a second reading of the RFC.
"""

import base64
import hashlib
import struct
from typing import Final

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
    "TornFrameError",
    "accept_key",
    "frame_header",
    "head",
    "masked_with",
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

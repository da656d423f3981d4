"""Frames to bytes and back, strictly as RFC 6455, section 5.2, has them.

Knows headers, masks and sizes; not what is in a message, and no network. Only the
masking, which is C, is that of `websockets`: its parser takes lengths in more bytes
than they need, and three times as long for a small frame.
"""

import math
import secrets
from collections.abc import Iterator
from typing import Final

from trio_wspair._rules.errors import ProtocolError

try:
    from websockets.speedups import apply_mask
except ImportError:  # It is optional there, too.
    from websockets.utils import apply_mask

from trio_wspair.transports._ends import too_big

from ._headers import BINARY, FIN, MASKED, TEXT, header

__all__ = (
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "CONTROL",
    "FIN",
    "OPCODE",
    "PING",
    "PONG",
    "RSV1",
    "TEXT",
    "FrameReader",
    "framed",
)

CONTINUATION: Final = 0
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
OPCODE: Final = 0x0F
CONTROL: Final = 0x08
"""The bit of an opcode that makes it that of a control frame."""
RSV1: Final = 0x40
"""Set in the first frame of a compressed message (RFC 7692, section 6)."""
_COPIED: Final = 2**12
"""To mask a slice that is larger, a view of it is cheaper than a copy."""


def framed(first: int, data: bytes, *, masked: bool) -> bytes:
    """Return the frame that begins with the byte `first`."""
    if not masked:
        return header(first, len(data)) + data
    mask = secrets.token_bytes(4)
    return header(first, len(data), MASKED) + mask + apply_mask(data, mask)


class FrameReader:
    """Finds the frames in what comes.

    A data frame that has not come whole is handed out as if its sender had made several
    of it. So no more than a header or a control frame is kept here.

    Args:
        masked: Whether they have to be masked, as those of a client.
        compressed: Whether messages may be.
        max_message_bytes: What a message may have that is not compressed.
    """

    def __init__(
        self, *, masked: bool, compressed: bool, max_message_bytes: int
    ) -> None:
        self._mask_size = 4 if masked else 0
        self._mask_bit = MASKED if masked else 0
        self._good = _GOOD_COMPRESSED if compressed else _GOOD
        self._max_message_bytes = max_message_bytes
        self._rest = b""
        """The beginning of a frame of which too little has come."""
        self._left = 0
        """Bytes that are to come of a data frame of which a part was handed out."""
        self._fin = 0
        """The bit of that frame."""
        self._mask = b""
        """Its mask, for the bytes to come."""
        self._size: int | None = None
        """Bytes of the message that has begun, as the headers tell them."""
        self._limit: float = max_message_bytes
        """What they may be."""

    def feed(  # noqa: C901, PLR0912 - in one piece, as each frame goes through it
        self, data: bytes | bytearray
    ) -> Iterator[tuple[int, bytes]]:
        """Read on, and yield the first byte of each frame, and what is in it.

        Raises:
            ProtocolError: The peer has broken the protocol. Nothing more can be read.
        """
        at = 0
        if self._left:
            at = min(self._left, len(data))
            yield self._part(CONTINUATION, data[:at])
        elif self._rest:
            data = self._rest + data
        end = len(data)
        while at + 2 <= end:
            first = data[at]
            size = data[at + 1] ^ self._mask_bit
            start = at + 2
            if first not in self._good or size > 127:
                raise _wrong("the header of a frame is wrong")
            if size > 125:
                if first & CONTROL:
                    raise _wrong("a control frame is too long")
                start += 2 if size == 126 else 8
                if start > end:
                    break
                size = _long(data[at + 2 : start])
            start += self._mask_size
            stop = start + size
            if start > end or (first & CONTROL and stop > end):
                break
            if not first & CONTROL:
                self._count(first, size)
            mask = data[start - self._mask_size : start]
            if stop > end:
                self._left, self._fin, self._mask = size, first & FIN, bytes(mask)
                yield self._part(first & ~FIN, data[start:])
            elif not mask:
                yield first, bytes(data[start:stop])
            elif size < _COPIED:
                yield first, apply_mask(data[start:stop], mask)
            else:
                yield first, apply_mask(memoryview(data)[start:stop], mask)
            at = stop
        self._rest = bytes(data[at:])

    def _part(self, first: int, data: bytes | bytearray) -> tuple[int, bytes]:
        """Return a part of a frame as a frame; the last one ends the message."""
        self._left -= len(data)
        if not self._left:
            first |= self._fin
        if not self._mask:
            return first, bytes(data)
        mask, turn = self._mask, len(data) % 4
        self._mask = mask[turn:] + mask[:turn]
        return first, apply_mask(data, mask)

    def _count(self, first: int, size: int) -> None:
        """Take note of a data frame.

        Raises:
            ProtocolError: There must not be one like this now.
        """
        if not first & OPCODE:
            if self._size is None:
                raise _wrong("there is no message to go on with")
            size += self._size
        elif self._size is not None:
            raise _wrong("a message begins before the last one has ended")
        else:
            self._limit = math.inf if first & RSV1 else self._max_message_bytes
        if size > self._limit:
            raise too_big(self._max_message_bytes)
        self._size = None if first & FIN else size


def _long(data: bytes | bytearray) -> int:
    """Return a length of 2 or 8 bytes."""
    size = int.from_bytes(data, "big")
    least = 126 if len(data) == 2 else 2**16
    if not least <= size < 2**63:
        raise _wrong("the length of a frame is not as it has to be written")
    return size


def _wrong(what: str) -> ProtocolError:
    return ProtocolError(1002, what)


_GOOD: Final = frozenset(
    {CONTINUATION, TEXT, BINARY}
    | {FIN | opcode for opcode in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)}
)
"""The bytes that a frame may begin with."""
_GOOD_COMPRESSED: Final = _GOOD | {
    fin | RSV1 | opcode for fin in (0, FIN) for opcode in (TEXT, BINARY)
}

"""Frames and messages: bytes to frames and back, and fragments to messages.

Knows headers, masks, sizes and compression, strictly as in RFC 6455, section 5; no
network. Masking is done in C by `websockets`. Its parser is not used, as it accepts
lengths in more bytes than they need, and takes three times as long for a small frame.
"""

import codecs
import math
import secrets
import zlib
from collections.abc import Iterator
from typing import Final

from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate

from trio_wspair._rules.errors import ProtocolError, message_too_big
from trio_wspair._rules.messages import Message

from ._headers import BINARY, CONTROL, FIN, MASKED, TEXT, header

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
    "Assembly",
    "FrameReader",
    "decoded",
    "framed",
)


try:
    from websockets.speedups import apply_mask
except ImportError:  # The compiled module is an optional part of `websockets`.
    from websockets.utils import apply_mask


CONTINUATION: Final = 0
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
OPCODE: Final = 0x0F
RSV1: Final = 0x40
"""Set in the first frame of a compressed message (RFC 7692, section 6)."""
_MIN_VIEW_BYTES: Final = 2**12
"""Slices of at least this size are masked through a view, without a copy."""


def framed(first: int, data: bytes, *, masked: bool) -> bytes:
    """Return a frame.

    Args:
        first: The first byte: `FIN`, `RSV1` and the opcode.
        data: The payload.
        masked: Whether to mask the payload, as a client has to.
    """
    if not masked:
        return header(first, len(data)) + data
    mask = secrets.token_bytes(4)
    return header(first, len(data), MASKED) + mask + apply_mask(data, mask)


class FrameReader:
    """Finds the frames in the bytes that arrive.

    A data frame that arrives in several pieces is returned as several fragments. So the
    reader keeps no more than a header or a control frame.

    Args:
        masked: Whether frames must be masked, as those of a client.
        compressed: Whether messages may be compressed.
        max_message_bytes: The most bytes of a message that is not compressed.
    """

    def __init__(
        self, *, masked: bool, compressed: bool, max_message_bytes: int
    ) -> None:
        self._mask_size = 4 if masked else 0
        self._mask_bit = MASKED if masked else 0
        self._first_bytes = _FIRST_BYTES_COMPRESSED if compressed else _FIRST_BYTES
        self._max_message_bytes = max_message_bytes
        self._rest = b""
        """The beginning of a header or a control frame that is incomplete."""
        self._left = 0
        """The bytes that are missing of a data frame that was returned in part."""
        self._fin = 0
        """The FIN bit of that frame."""
        self._mask = b""
        """The mask of that frame, for the missing bytes."""
        self._size: int | None = None
        """The bytes of the incomplete message, by its headers; `None` without one."""
        self._limit: float = max_message_bytes
        """The most bytes of the incomplete message."""

    def feed(  # noqa: C901, PLR0912 - one function, as it runs for every frame
        self, data: bytes | bytearray
    ) -> Iterator[tuple[int, bytes]]:
        """Parse the next bytes, and yield the first byte and the payload of each frame.

        Raises:
            ProtocolError: The peer broke the protocol. Nothing more can be parsed.
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
            if first not in self._first_bytes or size > 127:
                begin = data[at : at + 2].hex()
                raise _wrong(f"a frame begins with {begin}, which is not allowed")
            if size > 125:
                if first & CONTROL:
                    raise _wrong("a control frame has more than 125 bytes")
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
            elif size < _MIN_VIEW_BYTES:
                yield first, apply_mask(data[start:stop], mask)
            else:
                yield first, apply_mask(memoryview(data)[start:stop], mask)
            at = stop
        self._rest = bytes(data[at:])

    def _part(self, first: int, data: bytes | bytearray) -> tuple[int, bytes]:
        """Return a part of a frame as a fragment. The last part has the FIN bit."""
        self._left -= len(data)
        if not self._left:
            first |= self._fin
        if not self._mask:
            return first, bytes(data)
        mask, turn = self._mask, len(data) % 4
        self._mask = mask[turn:] + mask[:turn]
        return first, apply_mask(data, mask)

    def _count(self, first: int, size: int) -> None:
        """Check a data frame against the frames before it, and count its bytes.

        Raises:
            ProtocolError: The frame is not allowed here, or the message is too big.
        """
        if not first & OPCODE:
            if self._size is None:
                raise _wrong("a continuation frame does not follow a fragment")
            size += self._size
        elif self._size is not None:
            raise _wrong("a message begins before the previous one has ended")
        else:
            self._limit = math.inf if first & RSV1 else self._max_message_bytes
        if size > self._limit:
            raise message_too_big(self._max_message_bytes)
        self._size = None if first & FIN else size


def _long(data: bytes | bytearray) -> int:
    """Return a length of 2 or 8 bytes."""
    size = int.from_bytes(data, "big")
    least = 126 if len(data) == 2 else 2**16
    if not least <= size < 2**63:
        raise _wrong("the length of a frame is too large, or has too many bytes")
    return size


def _wrong(what: str) -> ProtocolError:
    return ProtocolError(1002, what)


_FIRST_BYTES: Final = frozenset(
    {CONTINUATION, TEXT, BINARY}
    | {FIN | opcode for opcode in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)}
)
"""The first bytes that a frame may have."""
_FIRST_BYTES_COMPRESSED: Final = _FIRST_BYTES | {
    fin | RSV1 | opcode for fin in (0, FIN) for opcode in (TEXT, BINARY)
}


_utf_8_decoder: Final = codecs.getincrementaldecoder("utf-8")
_TAIL: Final = b"\0\0\xff\xff"
"""The bytes that a sender removes from the end of each compressed message."""

_AFTER_A_FINAL_BLOCK: Final = 2**10
"""The bytes passed to zlib at once after a final block: with many final blocks, zlib
would copy all remaining bytes after each of them."""


class _Inflater:
    """Decompresses one message after the other.

    A peer may send a final block (RFC 7692, section 7.2.3.4). After this block, zlib
    accepts no more data, so a new decompressor is made.

    Args:
        deflate: The negotiated parameters of the compression.
        max_bytes: The most bytes of a decompressed message.
    """

    def __init__(self, deflate: PerMessageDeflate, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bits = -deflate.remote_max_window_bits
        self._keeps_window = not deflate.remote_no_context_takeover
        if self._keeps_window:
            del deflate.decoder  # It is not used, and takes 7 KB.
        self._zlib = zlib.decompressobj(self._bits)
        self._fresh = True
        """Whether this decompressor has not been given any data yet."""

    def begin_message(self) -> None:
        """Prepare for the first part of a message."""
        if not self._keeps_window:
            self._begin_anew()

    def inflate(self, data: bytes, so_far: int, *, final: bool) -> bytes:
        """Return a part of a message, decompressed.

        Args:
            data: The compressed part.
            so_far: The number of bytes of the message before this part, decompressed.
            final: Whether this is the last part.

        Raises:
            ProtocolError: The message is too big, or can't be decompressed.
        """
        inflated = self._inflate(data, so_far)
        if final and not self._fresh:
            inflated += self._inflate(_TAIL, so_far + len(inflated))
        return inflated

    def _inflate(self, data: bytes, so_far: int) -> bytes:
        inflated = b""
        view, at, size = memoryview(data), 0, len(data)
        while at < len(data):
            piece = view[at : at + size]
            self._fresh = False
            room = self._max_bytes - so_far - len(inflated)
            try:
                # One byte more than allowed, as zlib takes 0 for no limit.
                inflated += self._zlib.decompress(piece, room + 1)
            except zlib.error:
                raise ProtocolError(1002, "a message can't be decompressed") from None
            if so_far + len(inflated) > self._max_bytes:
                raise message_too_big(self._max_bytes)
            at += len(piece) - len(self._zlib.unused_data)
            if self._zlib.eof:
                self._begin_anew()
                size = _AFTER_A_FINAL_BLOCK
        return inflated

    def _begin_anew(self) -> None:
        self._zlib = zlib.decompressobj(self._bits)
        self._fresh = True


class Assembly:
    """Joins fragments to messages, and decompresses them.

    Args:
        max_bytes: The most bytes of a compressed message, after decompression.
        deflate: The negotiated parameters, if messages may be compressed.
    """

    def __init__(self, max_bytes: int, deflate: Extension | None) -> None:
        self._inflater: _Inflater | None = None
        if deflate is not None:
            assert isinstance(deflate, PerMessageDeflate)
            self._inflater = _Inflater(deflate, max_bytes)
        self._buffer = bytearray()
        self._checker: codecs.IncrementalDecoder | None = None
        """Checks the UTF-8 of a text message; `None` for bytes."""
        self._inflates: _Inflater | None = None
        """The inflater of this message, if it is compressed."""

    def add(self, first: int, data: bytes) -> Message | None:
        """Add a data frame, and return the message if it is complete.

        Args:
            first: The first byte of the frame.
            data: The payload of the frame.

        Raises:
            ProtocolError: The message is too big, can't be decompressed, or is a text
                that is not UTF-8.
        """
        final = bool(first & FIN)
        if first & OPCODE != CONTINUATION:
            self._inflates = self._inflater if first & RSV1 else None
            if self._inflates is not None:
                self._inflates.begin_message()
            self._checker = _utf_8_decoder() if first & OPCODE == TEXT else None
        if self._inflates is not None:
            data = self._inflates.inflate(data, len(self._buffer), final=final)
        if self._checker is not None:
            # Checked for each fragment, so that a long text that is wrong fails early.
            try:
                self._checker.decode(data, final)
            except UnicodeDecodeError as exc:
                raise _no_utf_8(exc) from None
        self._buffer += data
        if not final:
            return None
        whole, self._buffer = self._buffer, bytearray()
        return bytes(whole) if self._checker is None else whole.decode()


def decoded(data: bytes) -> str:
    """Return a text message that is in one frame.

    Raises:
        ProtocolError: The text is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise _no_utf_8(exc) from None


def _no_utf_8(error: UnicodeDecodeError) -> ProtocolError:
    return ProtocolError(1007, f"a text message is not UTF-8: {error.reason}")

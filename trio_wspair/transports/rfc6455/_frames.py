"""Frames and messages: bytes to frames and back, and fragments to messages.

Strictly as RFC 6455, section 5, says. Knows headers, masks, sizes and compression; no
network. Only the masking, which is C, is that of `websockets`: its parser takes lengths
in more bytes than they need, and three times as long for a small frame.
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
except ImportError:  # It is optional there, too.
    from websockets.utils import apply_mask


CONTINUATION: Final = 0
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
OPCODE: Final = 0x0F
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
        """Bytes of the message that has begun, by its frame headers."""
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
            raise message_too_big(self._max_message_bytes)
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


_utf_8_decoder: Final = codecs.getincrementaldecoder("utf-8")
_TAIL: Final = b"\0\0\xff\xff"
"""What a sender leaves out at the end of each message."""

_AFTER_A_FINAL_BLOCK: Final = 2**10
"""Bytes given to zlib at once then: it copies what is left after the next one."""


class _Inflater:
    """Inflates one message after the other.

    A peer may end a message with a final block (RFC 7692, section 7.2.3.4), after
    which zlib takes nothing more: inflating then begins anew.

    Args:
        deflate: What was agreed on.
        max_bytes: What a message may have.
    """

    def __init__(self, deflate: PerMessageDeflate, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bits = -deflate.remote_max_window_bits
        self._keeps_window = not deflate.remote_no_context_takeover
        if self._keeps_window:
            del deflate.decoder  # It takes 7 KB, and is not used.
        self._zlib = zlib.decompressobj(self._bits)
        self._fresh = True
        """Nothing was inflated since the beginning, or since a final block."""

    def begin_message(self) -> None:
        """Take what comes next as the beginning of a message."""
        if not self._keeps_window:
            self._begin_anew()

    def inflate(self, data: bytes, so_far: int, *, final: bool) -> bytes:
        """Return what is in a part of a message.

        Args:
            data: The part.
            so_far: The bytes that the message has already.
            final: Whether it is the last one.

        Raises:
            ProtocolError: The message has become too large, or can't be inflated.
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
                # One more, as 0 would be no limit.
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
    """The message whose frames are arriving.

    Args:
        max_bytes: What it may have.
        deflate: What was agreed on, if messages may be compressed.
    """

    def __init__(self, max_bytes: int, deflate: Extension | None) -> None:
        self._inflater: _Inflater | None = None
        if deflate is not None:
            assert isinstance(deflate, PerMessageDeflate)
            self._inflater = _Inflater(deflate, max_bytes)
        self._buffer = bytearray()
        self._checker: codecs.IncrementalDecoder | None = None
        """Of a text: has seen whatever is in the buffer."""
        self._inflates: _Inflater | None = None
        """What inflates this message, if it is compressed."""

    def add(self, first: int, data: bytes) -> Message | None:
        """Take a data frame, and return the message if it ends here.

        Args:
            first: The first byte of the frame.
            data: What is in it.

        Raises:
            ProtocolError: The message has become too large, or is no UTF-8.
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
            # At once, so that a peer hears of its mistake before its message has ended.
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
    """Return a text that has come in one frame.

    Raises:
        ProtocolError: It is no UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise _no_utf_8(exc) from None


def _no_utf_8(error: UnicodeDecodeError) -> ProtocolError:
    return ProtocolError(1007, f"a text is no UTF-8: {error.reason}")

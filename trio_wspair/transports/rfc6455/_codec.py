"""`Codec`: the items of a WebSocket connection from bytes, and bytes from items.

Knows RFC 6455, section 5, and permessage-deflate; no I/O, no clock, no handshake. One
class serves both roles, which differ in masking.

Theory of operation. `feed()` is a generator: the consumer asks for one item after
another, and nothing is decompressed or put together before it is asked for. An
incomplete data frame is handled like the first fragments of a message. So the codec
keeps no more than a frame header or a control frame, and the message that is being
received; a text is checked as it comes. The consumer takes all items before it feeds
more bytes, and answers each `Ping` with a `Pong`. After a Close nothing is read. Whole
small frames, which are nearly all, take a short way through `feed()`.

The masking is that of the package `websockets`, in C.
"""

import codecs
import secrets
from collections.abc import Iterator
from typing import Final

import attrs

from trio_wspair._rules.codes import Close, close_from_payload, payload_of_close
from trio_wspair._rules.errors import ProtocolError, message_too_big
from trio_wspair._rules.messages import Message

from ._deflate import DeflateParameters, Deflater, Inflater
from ._headers import BINARY, FIN, MASKED, TEXT, header

__all__ = ("Codec", "Item", "Ping", "Pong")


try:
    from websockets.speedups import apply_mask
except ImportError:  # The compiled module is optional.
    from websockets.utils import apply_mask


_CONTINUATION: Final = 0
_CLOSE: Final = 8
_PING: Final = 9
_PONG: Final = 10
_OPCODE: Final = 0x0F
_CONTROL: Final = 0x08
"""The bit of an opcode that is set for control frames."""
_RSV1: Final = 0x40
"""The bit of the first frame of a compressed message (RFC 7692, section 6)."""
_WHOLE_TEXT: Final = FIN | TEXT
_WHOLE_BINARY: Final = FIN | BINARY

_LARGE_PART: Final = 2**10
"""A smaller part of a message is copied."""

_VALID: Final = frozenset(
    {_CONTINUATION, TEXT, BINARY}
    | {FIN | code for code in (_CONTINUATION, TEXT, BINARY, _CLOSE, _PING, _PONG)}
)
"""The bytes with which a frame may begin."""
_VALID_COMPRESSED: Final = _VALID | {
    fin | _RSV1 | opcode for fin in (0, FIN) for opcode in (TEXT, BINARY)
}


@attrs.frozen(slots=True)
class Ping:
    """A ping; the receiver answers it with a `Pong` of the same payload."""

    payload: bytes = b""


@attrs.frozen(slots=True)
class Pong:
    """A pong."""

    payload: bytes = b""


Item = Message | Close | Ping | Pong


class Codec:
    """One endpoint of a connection.

    Args:
        is_client: Whether this endpoint is the client, which masks its frames.
        max_message_bytes: The most bytes of a message that is received, decompressed.
        deflate: The parameters of permessage-deflate, if it was negotiated.
    """

    __slots__ = (
        "_declared",
        "_deflater",
        "_ended",
        "_frame",
        "_inflater",
        "_is_client",
        "_max_message_bytes",
        "_message",
        "_takes_small",
        "_unread",
        "_valid",
    )

    def __init__(
        self,
        *,
        is_client: bool,
        max_message_bytes: int,
        deflate: DeflateParameters | None = None,
    ) -> None:
        self._is_client = is_client
        self._max_message_bytes = max_message_bytes
        self._valid = _VALID if deflate is None else _VALID_COMPRESSED
        self._deflater = None if deflate is None else Deflater(deflate)
        self._inflater = (
            None if deflate is None else Inflater(deflate, max_message_bytes)
        )
        self._message: _Message | None = None
        """The message of which a part was received."""
        self._declared = 0
        """The bytes of that message so far, by the headers of its frames."""
        self._frame: _Part | None = None
        """The data frame of which a part was received."""
        self._unread = b""
        """The beginning of a frame whose header, or control frame, is incomplete."""
        self._takes_small = max_message_bytes >= 125
        """Whether any message in a small frame is within the limit."""
        self._ended = False
        """Whether a Close was received, or the peer broke the protocol."""

    # -- receiving ---------------------------------------------------------------

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Item]:
        """Read bytes, and yield the items that they complete, one by one.

        Raises:
            ProtocolError: The peer has broken the protocol. The error has the close
                code; nothing more can be read.
        """
        if self._ended:
            return
        if self._unread:
            data = self._unread + data
            self._unread = b""
        at, end = 0, len(data)
        mask_size, masked = (0, 0) if self._is_client else (4, MASKED)
        try:
            while at < end:
                # The short way of a small frame that is a whole message.
                if (
                    (start := at + 2 + mask_size) <= end
                    and ((first := data[at]) == _WHOLE_TEXT or first == _WHOLE_BINARY)
                    and (size := data[at + 1] ^ masked) <= 125
                    and (stop := start + size) <= end
                    and self._message is None
                    and self._frame is None
                    and self._takes_small
                ):
                    payload = bytes(data[start:stop])
                    if mask_size:
                        payload = apply_mask(payload, bytes(data[start - 4 : start]))
                    at = stop
                    yield _decoded(payload) if first == _WHOLE_TEXT else payload
                    continue
                frame = self._next_frame(data, at)
                if frame is None:
                    break
                first, payload, at = frame
                item = self._item(first, payload)
                if item is not None:
                    yield item
                    if self._ended:
                        return
        except ProtocolError:
            self._ended = True
            raise
        self._unread = bytes(data[at:])

    def _next_frame(
        self, data: bytes | bytearray | memoryview, at: int
    ) -> tuple[int, bytes, int] | None:
        """Read a frame, or a part of a data frame as if it were a fragment.

        Returns:
            The first byte, the payload and the position after it. `None` if the header,
            or a control frame, is incomplete.

        Raises:
            ProtocolError: The frame is not valid, or not allowed here.
        """
        if self._frame is not None:
            part = self._frame
            payload = part.take(data[at : at + part.left])
            first = _CONTINUATION
            if not part.left:
                first |= part.fin
                self._frame = None
            return first, payload, at + len(payload)
        header = self._next_header(data, at)
        if header is None:
            return None
        first, size, mask, start = header
        stop = start + size
        if first & _CONTROL:
            if stop > len(data):
                return None
        else:
            self._begin_data_frame(first, size)
        if stop <= len(data):
            return first, _unmasked(memoryview(data)[start:stop], mask), stop
        part = self._frame = _Part(size, first & FIN, mask)
        return first & ~FIN, part.take(data[start:]), len(data)

    def _next_header(
        self, data: bytes | bytearray | memoryview, at: int
    ) -> tuple[int, int, bytes, int] | None:
        """Read a header: the first byte, the size of the payload, and the mask.

        Returns:
            These, and the position after the header; `None` if it is incomplete.

        Raises:
            ProtocolError: The header is not valid.
        """
        start = at + 2
        if start > len(data):
            return None
        first, second = data[at:start]
        if first not in self._valid or bool(second & MASKED) is self._is_client:
            begin = bytes(data[at:start]).hex()
            raise _wrong(f"a frame begins with {begin}, which is not allowed")
        size = second & ~MASKED
        if size > 125:
            if first & _CONTROL:
                raise _wrong(f"a control frame has length {size}; 125 is allowed")
            end = start + (2 if size == 126 else 8)
            if end > len(data):
                return None
            size, start = _long_size(data[start:end]), end
        mask = b""
        if not self._is_client:
            mask = bytes(data[start : start + 4])
            start += 4
        return (first, size, mask, start) if start <= len(data) else None

    def _begin_data_frame(self, first: int, size: int) -> None:
        """Check a data frame by its header.

        Raises:
            ProtocolError: The frame is not allowed here, or the message is too large.
        """
        message = self._message
        if first & _OPCODE:
            if message is not None:
                raise _wrong("a message begins before the previous one has ended")
            self._declared = size
            compressed = bool(first & _RSV1)
        elif message is None:
            raise _wrong("a continuation frame does not follow a fragment")
        else:
            self._declared += size
            compressed = message.inflater is not None
        # The size of a compressed message is checked when it is decompressed.
        if not compressed and self._declared > self._max_message_bytes:
            raise message_too_big(self._max_message_bytes)

    def _item(self, first: int, payload: bytes) -> Item | None:
        """Return the item that a frame completes, if it does.

        Raises:
            ProtocolError: The payload is not valid, or the message is too large.
        """
        if first == _WHOLE_TEXT:
            return _decoded(payload)
        if first == _WHOLE_BINARY:
            return payload
        opcode = first & _OPCODE
        if not opcode & _CONTROL:
            if opcode:
                inflater = self._inflater if first & _RSV1 else None
                self._message = _Message(opcode == TEXT, inflater)
            assert self._message is not None
            message = self._message.add(payload, final=bool(first & FIN))
            if message is not None:
                self._message = None
            return message
        if opcode != _CLOSE:
            return Ping(payload) if opcode == _PING else Pong(payload)
        self._ended = True
        return close_from_payload(payload)

    # -- sending -----------------------------------------------------------------

    def encode(self, item: Item) -> bytes:
        """Return the frame of an item: a message is never fragmented."""
        if isinstance(item, str):
            first, payload = _WHOLE_TEXT, item.encode()
        elif isinstance(item, bytes):
            first, payload = _WHOLE_BINARY, item
        else:
            first, payload = _control_frame(item)
        if self._deflater is not None and not first & _CONTROL:
            first |= _RSV1
            payload = self._deflater.deflate(payload)
        if not self._is_client:
            return header(first, len(payload)) + payload
        mask = secrets.token_bytes(4)
        head = header(first, len(payload), MASKED)
        return head + mask + apply_mask(payload, mask)


class _Part:
    """A data frame of which a part was received.

    Args:
        left: The bytes of its payload.
        fin: Its FIN bit.
        mask: Its mask; empty if it is not masked.
    """

    __slots__ = ("fin", "left", "mask")

    def __init__(self, left: int, fin: int, mask: bytes) -> None:
        self.left = left
        """The bytes of the payload that are still to come."""
        self.fin = fin
        self.mask = mask
        """The mask for the bytes that are still to come."""

    def take(self, data: bytes | bytearray | memoryview) -> bytes:
        """Return the next bytes of the payload, unmasked."""
        self.left -= len(data)
        payload = _unmasked(data, self.mask)
        if self.mask:
            turn = len(data) % 4
            self.mask = self.mask[turn:] + self.mask[:turn]
        return payload


class _Message:
    """A message that is being received.

    Args:
        is_text: Whether it is a text.
        inflater: What decompresses it, if it is compressed.
    """

    __slots__ = ("_checker", "_is_text", "_parts", "inflater")

    def __init__(self, is_text: bool, inflater: Inflater | None) -> None:  # noqa: FBT001
        self._is_text = is_text
        self._parts: list[bytes | bytearray] = []
        self._checker: codecs.IncrementalDecoder | None = None
        """Has decoded the parts of a text."""
        self.inflater = inflater
        if inflater is not None:
            inflater.begin_message()

    def add(self, payload: bytes, *, final: bool) -> Message | None:
        """Add the payload of a frame; return the message if it is complete.

        Raises:
            ProtocolError: The text is not UTF-8, or the message can't be decompressed,
                or is too large.
        """
        if self.inflater is not None:
            payload = self.inflater.inflate(payload, final=final)
        if final and not self._parts:
            return _decoded(payload) if self._is_text else payload
        if self._is_text:
            # At once, so that a peer learns of its error before the message ends.
            self._checker = self._checker or _utf_8_decoder()
            try:
                self._checker.decode(payload, final)
            except UnicodeDecodeError as exc:
                raise _not_utf_8(exc) from None
        if len(payload) >= _LARGE_PART:
            self._parts.append(payload)
        elif self._parts and isinstance(self._parts[-1], bytearray):
            self._parts[-1] += payload
        else:  # Each small part as an object would take a multiple of its size.
            self._parts.append(bytearray(payload))
        if not final:
            return None
        whole = b"".join(self._parts)
        return whole.decode() if self._is_text else whole


def _control_frame(item: Close | Ping | Pong) -> tuple[int, bytes]:
    """Return the first byte and the payload of the frame of a control item."""
    match item:
        case Close():
            return FIN | _CLOSE, payload_of_close(item)
        case Ping():
            return FIN | _PING, item.payload
        case _:
            return FIN | _PONG, item.payload


def _unmasked(data: bytes | bytearray | memoryview, mask: bytes) -> bytes:
    if not mask:
        return bytes(data)
    return apply_mask(data, mask)


def _long_size(data: bytes | bytearray | memoryview) -> int:
    """Return a payload length of 2 or 8 bytes.

    Raises:
        ProtocolError: It is not written in the fewest bytes, or is too large.
    """
    size = int.from_bytes(data, "big")
    least = 126 if len(data) == 2 else 2**16
    if not least <= size < 2**63:
        raise _wrong("the length of a frame is too large, or has too many bytes")
    return size


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise _not_utf_8(exc) from None


def _not_utf_8(error: UnicodeDecodeError) -> ProtocolError:
    return ProtocolError(1007, f"a text message is not UTF-8: {error.reason}")


def _wrong(what: str) -> ProtocolError:
    return ProtocolError(1002, what)


_utf_8_decoder: Final = codecs.getincrementaldecoder("utf-8")

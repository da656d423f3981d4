"""The fragments of a message, inflated and put together.

Knows sizes, UTF-8 and DEFLATE (RFC 7692, section 7.2.2); no network. What is kept is
the bytes of the message that has begun, in one piece, however many fragments they came
in.
"""

import codecs
import zlib
from typing import Final

from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate

from trio_wspair._rules.errors import ProtocolError
from trio_wspair._rules.messages import Message
from trio_wspair.transports._ends import too_big

from ._frames import CONTINUATION, FIN, OPCODE, RSV1, TEXT

__all__ = ("Assembly", "decoded")

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
                raise too_big(self._max_bytes)
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

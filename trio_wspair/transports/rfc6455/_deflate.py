"""permessage-deflate (RFC 7692): one message after another, through zlib.

Knows the negotiated parameters and bytes; neither frames nor UTF-8.
"""

import zlib
from collections.abc import Mapping
from typing import Any, Final

import attrs

from trio_wspair._rules.errors import ProtocolError, message_too_big

__all__ = ("DeflateParameters", "Deflater", "Inflater")

_TAIL: Final = b"\0\0\xff\xff"
"""The bytes that a sender removes from the end of each message (section 7.2.1)."""
_AFTER_A_FINAL_BLOCK: Final = 2**10
"""Bytes passed to zlib at a time after a final block: it copies all that follow one."""


@attrs.frozen(slots=True)
class DeflateParameters:
    """The negotiated parameters, for each direction (section 7.1)."""

    sends_context: bool
    """Whether a message that is sent may refer to those before it."""
    receives_context: bool
    """Whether a message that is received may refer to those before it."""
    sent_window_bits: int
    received_window_bits: int
    settings: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    """More arguments of `zlib.compressobj()`."""


class Deflater:
    """Compresses messages.

    Args:
        parameters: The negotiated parameters.
    """

    __slots__ = ("_parameters", "_zlib")

    def __init__(self, parameters: DeflateParameters) -> None:
        self._parameters = parameters
        self._zlib = self._new()

    def _new(self) -> "zlib._Compress":
        bits = self._parameters.sent_window_bits
        return zlib.compressobj(wbits=-bits, **self._parameters.settings)

    def deflate(self, data: bytes) -> bytes:
        """Return a whole message, compressed."""
        compressor = self._zlib if self._parameters.sends_context else self._new()
        compressed = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return compressed[: -len(_TAIL)]


class Inflater:
    """Decompresses messages, each of them in parts.

    A peer may end a message with a final block (section 7.2.3.4). zlib accepts nothing
    after it, so inflating then begins anew.

    Args:
        parameters: The negotiated parameters.
        max_bytes: The most bytes of one message.
    """

    __slots__ = ("_fresh", "_max_bytes", "_parameters", "_size", "_zlib")

    def __init__(self, parameters: DeflateParameters, max_bytes: int) -> None:
        self._parameters = parameters
        self._max_bytes = max_bytes
        self._size = 0
        """The bytes of the message so far."""
        self._begin_anew()

    def begin_message(self) -> None:
        """Begin a new message."""
        self._size = 0
        if not self._parameters.receives_context:
            self._begin_anew()

    def inflate(self, data: bytes, *, final: bool) -> bytes:
        """Return a part of the message, decompressed.

        Args:
            data: The part.
            final: Whether it is the last part.

        Raises:
            ProtocolError: 1009 if the message is too large; 1002 if it can't be
                decompressed.
        """
        inflated = self._inflate(data)
        if final and not self._fresh:
            inflated += self._inflate(_TAIL)
        return inflated

    def _inflate(self, data: bytes) -> bytes:
        inflated = b""
        view, at, step = memoryview(data), 0, len(data)
        while at < len(data):
            piece = view[at : at + step]
            self._fresh = False
            room = self._max_bytes - self._size
            try:
                # One byte more than there is room for: 0 would mean no limit.
                part = self._zlib.decompress(piece, room + 1)
            except zlib.error:
                raise ProtocolError(1002, "a message can't be decompressed") from None
            self._size += len(part)
            if self._size > self._max_bytes:
                raise message_too_big(self._max_bytes)
            inflated += part
            at += len(piece) - len(self._zlib.unused_data)
            if self._zlib.eof:
                self._begin_anew()
                step = _AFTER_A_FINAL_BLOCK
        return inflated

    def _begin_anew(self) -> None:
        self._zlib = zlib.decompressobj(-self._parameters.received_window_bits)
        self._fresh = True
        """Whether nothing was decompressed since the beginning or a final block."""

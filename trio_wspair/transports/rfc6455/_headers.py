"""Frame headers (RFC 6455, section 5.2): writing one, and counting those that arrive.

Knows no payloads. Both engines use it, so it does not import `websockets`.
"""

from typing import Final

__all__ = ("BINARY", "CONTROL", "FIN", "MASKED", "TEXT", "FragmentCounter", "header")

TEXT: Final = 1
BINARY: Final = 2
CONTROL: Final = 0x08
"""The bit of an opcode that makes it that of a control frame."""
FIN: Final = 0x80
MASKED: Final = 0x80
"""The bit of the second byte for a mask that follows."""
_SMALL: Final = 64
"""Smaller fragments than this take trio-websocket more memory than their bytes."""


def header(first: int, size: int, bit: int = 0) -> bytes:
    """Return the header of a frame, up to the mask.

    Args:
        first: The first byte: `FIN` and the opcode.
        size: The length of the payload.
        bit: `MASKED`, or 0 for a frame without a mask.
    """
    if size < 126:
        return bytes((first, bit | size))
    if size < 2**16:
        return bytes((first, bit | 126)) + size.to_bytes(2, "big")
    return bytes((first, bit | 127)) + size.to_bytes(8, "big")


class FragmentCounter:
    """Counts small fragments and messages in the bytes that arrive."""

    count: int = 0
    """The number of small fragments of the incomplete message."""
    messages: int = 0
    """The number of messages that the last call of `feed()` has completed."""

    def __init__(self) -> None:
        self._rest = b""
        """The beginning of an incomplete header."""
        self._skip = 0
        """The number of bytes of the last frame that have not arrived yet."""

    def feed(self, data: bytes) -> None:
        """Count in the next bytes, which may begin or end within a frame."""
        data = self._rest + data
        at, end = self._skip, len(data)
        messages = 0
        while at + 2 <= end:
            first, second = data[at], data[at + 1]
            size, start = second & 0x7F, at + 2
            if size >= 126:
                start += 2 if size == 126 else 8
                if start > end:
                    break
                size = int.from_bytes(data[at + 2 : start], "big")
            at = start + size + (4 if second & MASKED else 0)
            if first & CONTROL:
                continue
            if first & FIN:
                self.count = 0
                messages += at <= end
            else:
                self.count += size < _SMALL
        self.messages = messages
        self._rest, self._skip = data[at:], max(0, at - end)

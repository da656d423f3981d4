"""Frame headers, as both engines write them (RFC 6455, section 5.2)."""

from typing import Final

__all__ = ("BINARY", "FIN", "MASKED", "TEXT", "header")

TEXT: Final = 1
BINARY: Final = 2
FIN: Final = 0x80
MASKED: Final = 0x80
"""The bit of the second byte for a mask that follows."""


def header(first: int, size: int, bit: int = 0) -> bytes:
    """Return what a frame begins with, up to the mask.

    Args:
        first: The first byte: `FIN` and the opcode.
        size: How long the payload is.
        bit: `MASKED`, or 0.
    """
    if size < 126:
        return bytes((first, bit | size))
    if size < 2**16:
        return bytes((first, bit | 126)) + size.to_bytes(2, "big")
    return bytes((first, bit | 127)) + size.to_bytes(8, "big")

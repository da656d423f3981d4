"""The fragments of a message, put together.

Knows sizes and UTF-8, no frames. What is kept is the bytes of the message that has
begun, in one piece, however many fragments they came in.
"""

import codecs

from trio_wspair._errors import ProtocolError
from trio_wspair._inbox import Message

__all__ = ("Assembly", "too_big")

_utf_8_decoder = codecs.getincrementaldecoder("utf-8")


class Assembly:
    """The message whose fragments are arriving.

    Args:
        max_bytes: What it may have.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._checker: codecs.IncrementalDecoder | None = None
        """Of a text: has seen whatever is in the buffer."""

    def begin(self, data: bytes | bytearray, *, text: bool) -> None:
        """Take the first of several fragments.

        Raises:
            ProtocolError: The message is too large already, or no UTF-8.
        """
        self._checker = _utf_8_decoder() if text else None
        self._add(data, final=False)

    def go_on(self, data: bytes | bytearray, *, final: bool) -> Message | None:
        """Take one more, and return the message if it is the `final` one.

        Raises:
            ProtocolError: The message has become too large, or is no UTF-8.
        """
        self._add(data, final=final)
        if not final:
            return None
        whole, self._buffer = self._buffer, bytearray()
        return bytes(whole) if self._checker is None else whole.decode()

    def _add(self, data: bytes | bytearray, *, final: bool) -> None:
        if len(self._buffer) + len(data) > self._max_bytes:
            raise too_big(self._max_bytes)
        if self._checker is not None:
            # At once, so that a peer hears of its mistake before its message has ended.
            try:
                self._checker.decode(data, final)
            except UnicodeDecodeError as exc:
                raise ProtocolError(1007, f"a text is no UTF-8: {exc.reason}") from None
        self._buffer += data


def too_big(max_bytes: int) -> ProtocolError:
    """Return the error for a message with more bytes than these."""
    return ProtocolError(1009, f"a message has more than {max_bytes} bytes")

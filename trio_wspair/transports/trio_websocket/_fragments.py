"""Counts what arrives: small fragments of a message, and messages.

trio-websocket keeps each fragment until the message has ended, which costs more than
the bytes that are in it. And it hands over one message at a time: who knows that more
of them have come can wait for these.

Knows the headers of frames (RFC 6455, section 5.2), and nothing of what is in them.
Whether a frame is good is not asked here.
"""

from typing import Final

__all__ = ("FragmentCounter",)

_FIN: Final = 0x80
_CONTROL: Final = 0x08
_MASKED: Final = 0x80
_SMALL: Final = 64
"""A fragment of so many bytes costs less than as much again."""


class FragmentCounter:
    """Is fed with all that arrives, in pieces of any size."""

    count: int = 0
    """The small fragments of the message that has begun and not ended."""
    messages: int = 0
    """The last frames of messages that are whole in the last piece."""

    def __init__(self) -> None:
        self._rest = b""
        """The beginning of a header that is not whole yet."""
        self._skip = 0
        """The bytes that are left of the last frame."""

    def feed(self, data: bytes) -> None:
        """Count on."""
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
            at = start + size + (4 if second & _MASKED else 0)
            if first & _CONTROL:
                continue
            if first & _FIN:
                self.count = 0
                messages += at <= end
            else:
                self.count += size < _SMALL
        self.messages = messages
        self._rest, self._skip = data[at:], max(0, at - end)

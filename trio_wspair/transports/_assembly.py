"""The fragments of a message, inflated and put together.

Knows sizes, UTF-8, and how `websockets` inflates; no network. What is kept is the bytes
of the message that has begun, in one piece, however many fragments they came in.
"""

import codecs
from typing import Final

from websockets.exceptions import PayloadTooBig, ProtocolError as WebSocketsError
from websockets.extensions import Extension
from websockets.frames import Frame, Opcode

from trio_wspair._errors import ProtocolError
from trio_wspair._inbox import Message

from ._ends import too_big
from ._frames import CONTINUATION, FIN, OPCODE, RSV1, TEXT

__all__ = ("Assembly", "decoded")

_utf_8_decoder: Final = codecs.getincrementaldecoder("utf-8")


class Assembly:
    """The message whose frames are arriving.

    Args:
        max_bytes: What it may have.
        deflate: What inflates it, if it is compressed.
    """

    def __init__(self, max_bytes: int, deflate: Extension | None) -> None:
        self._max_bytes = max_bytes
        self._deflate = deflate
        self._buffer = bytearray()
        self._checker: codecs.IncrementalDecoder | None = None
        """Of a text: has seen whatever is in the buffer."""
        self._inflates = False

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
            self._inflates = bool(first & RSV1)
            self._checker = _utf_8_decoder() if first & OPCODE == TEXT else None
        if self._inflates:
            data = self._inflated(first, data)
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

    def _inflated(self, first: int, data: bytes) -> bytes:
        assert self._deflate is not None
        room = self._max_bytes - len(self._buffer)
        frame = Frame(
            Opcode(first & OPCODE), data, bool(first & FIN), bool(first & RSV1)
        )
        try:
            # One more, as 0 would be no limit.
            inflated = self._deflate.decode(frame, max_size=room + 1).data
        except PayloadTooBig:
            raise too_big(self._max_bytes) from None
        except WebSocketsError:
            raise ProtocolError(1002, "a message can't be decompressed") from None
        if len(inflated) > room:
            raise too_big(self._max_bytes)
        return bytes(inflated)


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

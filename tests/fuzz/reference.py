"""The expected result of a stream of frames: a second implementation of RFC 6455.

It follows the RFC, shares no code with the library, and reads whole inputs. Where the
RFC does not say when an endpoint must notice an error, several ends are right.
"""

import codecs
import struct

import attrs

from trio_wspair.testing._scripted_peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    masked_with,
)

NEVER_SENT = frozenset({1004, 1005, 1006, 1015})
"""Close codes that are never on the wire (RFC 6455, section 7.4.1)."""


@attrs.frozen
class Clean:
    """The peer sends a Close."""

    code: int
    reason: str


@attrs.frozen
class Broken:
    """The peer breaks the protocol, and receives this close code."""

    code: int


@attrs.frozen
class Vanished:
    """The bytes end without an error."""


End = Clean | Broken | Vanished


@attrs.frozen
class Expected:
    """The expected result of reading a stream of frames."""

    messages: list[str | bytes]
    pings: list[bytes]
    """The pings that may be answered."""
    sure_pings: int
    """The number of pings before every possible end, which must be answered."""
    ends: set[End]
    """The possible ends of the connection."""


class FoundError(Exception):
    """The stream ends here; the arguments are the possible ends."""


class Reader:
    """Reads a stream of frames.

    Args:
        masked: Whether the frames have to be masked, as frames of a client.
        limit: The most bytes of a message.
    """

    def __init__(self, data: bytes, *, masked: bool, limit: int) -> None:
        self._data = data
        self._masked = masked
        self._limit = limit
        self._at = 0
        self._opcode: int | None = None
        """The opcode of the message whose fragments are being read."""
        self._payload = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._possible: set[End] = set()
        """The ends that an endpoint may have reached already."""
        self._messages: list[str | bytes] = []
        self._pings: list[bytes] = []
        self._sure_pings = 0

    def read(self) -> Expected:
        """Read the whole input."""
        try:
            while True:
                self._read_frame()
        except FoundError as found:
            ends = self._possible | set(found.args)
            return Expected(self._messages, self._pings, self._sure_pings, ends)

    def _take(self, size: int, wrong: set[End]) -> bytes:
        """Take this many bytes.

        If they are missing, the stream ends: as vanished, or with the errors `wrong`.
        """
        if len(self._data) < self._at + size:
            raise FoundError(Vanished(), *wrong)
        self._at += size
        return self._data[self._at - size : self._at]

    def _read_frame(self) -> None:
        first = self._take(1, set())[0]
        fin, reserved, opcode = bool(first & 0x80), first & 0x70, first & 0x0F
        is_control = bool(opcode & 8)
        wrong: set[End] = set()
        if (
            reserved
            or opcode not in {CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG}
            or (is_control and not fin)
        ):
            wrong.add(Broken(1002))
        second = self._take(1, wrong)[0]
        size = second & 0x7F
        if bool(second & 0x80) is not self._masked or (is_control and size > 125):
            wrong.add(Broken(1002))
        if size >= 126:
            width, least = (2, 126) if size == 126 else (8, 2**16)
            size = int.from_bytes(self._take(width, wrong), "big")
            if not least <= size < 2**63:
                wrong.add(Broken(1002))
        mask = self._take(4, wrong) if self._masked and second & 0x80 else b""
        if wrong:
            raise FoundError(*wrong)
        if is_control:
            self._control(opcode, masked_with(mask, self._take(size, set())))
        else:
            self._piece(opcode, size, mask, fin=fin)

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self._pings.append(payload)
            self._sure_pings += not self._possible
        elif opcode == CLOSE:
            raise FoundError(*self._close(payload))

    def _close(self, payload: bytes) -> set[End]:
        if not payload:
            return {Clean(1005, "")}
        if len(payload) == 1:
            return {Broken(1002)}
        (code,) = struct.unpack("!H", payload[:2])
        ends: set[End] = set()
        if not 1000 <= code <= 4999 or code in NEVER_SENT or 1016 <= code <= 2999:
            ends.add(Broken(1002))
        try:
            reason = payload[2:].decode()
        except UnicodeDecodeError:
            ends.add(Broken(1007))
            reason = ""
        ends = ends or {Clean(code, reason)}
        if code == 1014:  # Registered after the RFC; wsproto doesn't accept it.
            ends.add(Broken(1002))
        return ends

    def _piece(self, opcode: int, size: int, mask: bytes, *, fin: bool) -> None:
        """Read the available part of the payload of a data frame."""
        payload = masked_with(mask, self._data[self._at : self._at + size])
        whole = len(payload) == size
        wrong: set[End] = set()
        if (opcode == CONTINUATION) is (self._opcode is None):
            wrong.add(Broken(1002))
        else:
            self._opcode = self._opcode or opcode
            wrong |= self._decode(payload, final=whole and fin)
        if len(self._payload) + size > self._limit:
            self._possible.add(Broken(1009))  # The length alone shows the error.
        self._payload += payload
        if len(self._payload) > self._limit:
            # An engine that counts characters, of up to 4 bytes, may read on.
            late = len(self._payload) < 4 * self._limit + 4 and not (whole and fin)
            (self._possible if late else wrong).add(Broken(1009))
        if wrong and whole:
            raise FoundError(*wrong)
        self._take(size, wrong)
        if fin:
            text = self._opcode == TEXT
            self._messages.append(self._payload.decode() if text else self._payload)
            self._opcode = None
            self._payload = b""
            self._decoder.reset()

    def _decode(self, payload: bytes, *, final: bool) -> set[End]:
        if self._opcode == TEXT:
            try:
                self._decoder.decode(payload, final=final)
            except UnicodeDecodeError:
                return {Broken(1007)}
        return set()


def expected(data: bytes, *, masked: bool, limit: int) -> Expected:
    """Return the expected result of these bytes."""
    return Reader(data, masked=masked, limit=limit).read()

"""`Codec` reads random and mutated streams as wsproto and `websockets` do.

All three read each stream. They return the same messages, and the same kind of end, but
for the differences in `is_explained()`, where RFC 6455 decides.
"""

import random
import struct
from collections.abc import Callable, Iterator
from typing import Final

import attrs
import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from trio_wspair._rules.codes import Close
from trio_wspair._rules.errors import ProtocolError
from trio_wspair.transports.rfc6455._codec import Codec

LIMIT: Final = 300
STREAMS: Final = 3_000
"""In a run of the tests; the session `fuzz` reads more."""


@attrs.frozen
class Reading:
    """The result of reading a stream."""

    items: list[object]
    """Messages, and the payloads of pings and pongs."""
    end: str
    """``"error"``, ``"close"``, or ``""`` if more may come."""
    why: str = attrs.field(default="", eq=False)
    """The text of the error."""


# -- streams -------------------------------------------------------------------------


def a_frame(rng: random.Random) -> bytes:
    """Return a frame that is nearly always valid."""
    opcode = rng.choice([0, 1, 1, 2, 2, 8, 8, 9, 10, rng.randrange(16)])
    fin = 0x80 * (rng.random() < 0.7 or (opcode >= 8 and rng.random() < 0.95))
    reserved = rng.choice([0] * 30 + [0x10, 0x20, 0x40])
    size = rng.choice([0, 1, 5, 60, 124, 125, rng.randrange(140), rng.randrange(400)])
    payload = a_payload(rng, opcode, size)
    masked = rng.random() < 0.98
    mask = rng.randbytes(4)
    head = bytes([fin | reserved | opcode]) + a_length(rng, len(payload), masked=masked)
    if not masked:
        return head + payload
    return head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


def a_payload(rng: random.Random, opcode: int, size: int) -> bytes:
    if opcode == 8:
        code = rng.choice([1000, 1001, 3000, 4999, 1005, 1015, 999, 5000, 2000])
        forms = [
            b"",
            b"\x03",
            struct.pack("!H", code),
            struct.pack("!H", code) + b"why",
        ]
        return rng.choice(forms)
    if opcode in (0, 1):
        text = "".join(rng.choice("aä€😀") for _ in range(size // 2)).encode()
        return text[: rng.choice([len(text)] * 6 + [size])]
    return rng.randbytes(size)


def a_length(rng: random.Random, size: int, *, masked: bool) -> bytes:
    bit = 0x80 * masked
    forms = [bytes([bit | size])] if size < 126 else []
    if size >= 126 or rng.random() < 0.02:
        forms = [bytes([bit | 126]) + struct.pack("!H", size)]
    if rng.random() < 0.02:
        forms = [bytes([bit | 127]) + struct.pack("!Q", size)]
    return forms[0]


def a_stream(rng: random.Random) -> bytes:
    data = bytearray(b"".join(a_frame(rng) for _ in range(rng.randrange(1, 7))))
    if rng.random() < 0.3:
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data[: rng.choice([len(data)] * 3 + [rng.randrange(len(data) + 1)])])


# -- readers -------------------------------------------------------------------------


def as_codec(pieces: list[bytes]) -> Reading:
    codec = Codec(is_client=False, max_message_bytes=LIMIT)
    items: list[object] = []
    try:
        for piece in pieces:
            for item in codec.feed(piece):
                if isinstance(item, Close):
                    return Reading(items, "close", f"code {item.code}")
                items.append(getattr(item, "payload", item))
    except ProtocolError as error:
        return Reading(items, "error", str(error))
    return Reading(items, "")


def as_wsproto(pieces: list[bytes]) -> Reading:
    """Read with wsproto. It has no limit, and reads on after a Close."""
    connection = Connection(ConnectionType.SERVER)
    items: list[object] = []
    parts: list[str | bytes] = []
    size = 0
    for piece in pieces:
        connection.receive_data(piece)
        for event in connection.events():
            match event:
                case TextMessage() | BytesMessage():
                    data = event.data
                    size += len(data.encode() if isinstance(data, str) else data)
                    if size > LIMIT:
                        return Reading(items, "error")
                    parts.append(data if isinstance(data, str) else bytes(data))
                    if event.message_finished:
                        items.append(type(parts[0])().join(parts))  # type: ignore[arg-type]
                        parts, size = [], 0
                case Ping() | Pong():
                    items.append(bytes(event.payload))
                case CloseConnection():
                    # A violation is reported as a Close with the reason of the error.
                    broken = connection.state.name == "OPEN"
                    return Reading(items, "error" if broken else "close")
                case _:
                    raise AssertionError(event)
    return Reading(items, "")


def as_websockets(pieces: list[bytes]) -> Reading:
    """Read with `websockets`, whose frames are joined here. UTF-8 is checked here."""
    protocol = ServerProtocol(state=State.OPEN, max_size=LIMIT)
    items: list[object] = []
    parts: list[bytes] = []
    is_text = False
    for piece in pieces:
        protocol.receive_data(piece)
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode in (Opcode.PING, Opcode.PONG):
                items.append(bytes(frame.data))
            elif frame.opcode is Opcode.CLOSE:
                return Reading(items, "close")
            else:
                if frame.opcode is not Opcode.CONT:
                    is_text = frame.opcode is Opcode.TEXT
                parts.append(bytes(frame.data))
                if not frame.fin:
                    continue
                whole, parts = b"".join(parts), []
                try:
                    items.append(whole.decode() if is_text else whole)
                except UnicodeDecodeError:
                    return Reading(items, "error")
        if protocol.parser_exc is not None:
            return Reading(items, "error", repr(protocol.parser_exc))
    return Reading(items, "")


def in_pieces(rng: random.Random, data: bytes) -> list[bytes]:
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice([0, 0, 1, 3])))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def differences(seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    data = a_stream(rng)
    ours = as_codec(in_pieces(rng, data))
    for read in as_wsproto, as_websockets:
        theirs = read(in_pieces(rng, data))
        if not is_allowed(read, ours, theirs):
            yield f"{seed}: {read.__name__} {data.hex()}\n  {ours}\n  {theirs}"


def is_allowed(
    read: Callable[[list[bytes]], Reading], ours: Reading, theirs: Reading
) -> bool:
    if ours == theirs:
        return True
    shorter, longer = sorted([ours.items, theirs.items], key=len)
    if longer[: len(shorter)] != shorter:
        return False
    if ours.items == theirs.items and {ours.end, theirs.end} == {"error", ""}:
        return True  # One of them notices an error in a frame that is incomplete.
    if ours.end == "error" and ("not UTF-8" in ours.why or "more than" in ours.why):
        return ours.items == shorter  # By a fragment, or the header of a fragment.
    if read is as_wsproto:
        return "1014" in ours.why  # The code is newer than wsproto.
    return is_explained(ours, theirs)


def is_explained(ours: Reading, theirs: Reading) -> bool:
    """Return whether RFC 6455 decides a difference to `websockets` in our favour."""
    if "too many bytes" in ours.why or "a control frame has length" in ours.why:
        return True  # Section 5.2: a length is written in the fewest bytes.
    if "incomplete fragmented message" in theirs.why:
        # Section 5.4: control frames may come between fragments.
        return ours.end == "close"
    # Section 5.4: a control frame between fragments is not a part of the message.
    reads_on = len(ours.items) > len(theirs.items) or ours.end == "close"
    return "PayloadTooBig" in theirs.why and reads_on


@pytest.mark.parametrize("part", range(10))
def test_the_codec_agrees_with_two_other_implementations(part: int) -> None:
    seeds = range(part * STREAMS // 10, (part + 1) * STREAMS // 10)
    found = [difference for seed in seeds for difference in differences(seed)]
    assert found == []


def test_the_streams_are_of_all_kinds() -> None:
    ends = [as_codec([a_stream(random.Random(seed))]).end for seed in range(500)]
    assert {end: ends.count(end) >= 20 for end in ("error", "close", "")} == {
        "error": True,
        "close": True,
        "": True,
    }

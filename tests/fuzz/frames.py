"""Valid and invalid frames, and random streams of them."""

import struct
from itertools import pairwise

import attrs
from hypothesis import strategies as st

from trio_wspair.testing._scripted_peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    masked_with,
)

MASK = b"\x0f\xf0\x5a\xa5"
BAD_UTF8 = (
    b"\x80",  # a continuation of nothing
    b"\xc3",  # cut short
    b"\xc0\xaf",  # overlong
    b"\xe0\x80\xaf",
    b"\xed\xa0\x80",  # a surrogate
    b"\xf0\x9f\x98",  # an emoji cut short
    b"\xf4\x90\x80\x80",  # beyond U+10FFFF
    b"\xf8\x88\x80\x80\x80",  # five bytes
    b"\xff",
)
CODES = (0, 999, *range(1000, 1018), 1999, 2000, 2999, 3000, 3999, 4000, 4999, 5000)
LENGTHS = (0, 1, 125, 126, 127, 128, 999, 1000, 1001, 2**16 - 1, 2**16, 2**16 + 1)
CLAIMS = (0, 1, 126, 2**16, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
"""Lengths that headers announce."""


@attrs.frozen
class Frame:
    """A frame, in which each field may be invalid."""

    opcode: int
    payload: bytes = b""
    fin: bool = True
    reserved: int = 0
    mask: bytes = b""
    masked: bool | None = None
    """The mask bit; `None` for the correct one."""
    width: int = 0
    """The number of bytes of the extended length; 0 for the shortest encoding."""
    claim: int | None = None
    """The length in the header; `None` for the correct one."""

    def encode(self) -> bytes:
        """Return the bytes of the frame."""
        size = len(self.payload) if self.claim is None else self.claim
        first = self.fin << 7 | self.reserved << 4 | self.opcode
        is_masked = bool(self.mask) if self.masked is None else self.masked
        width = self.width or (0 if size < 126 else 2 if size < 2**16 else 8)
        if width == 0:
            length = bytes([is_masked << 7 | size & 0x7F])
        elif width == 2:
            length = struct.pack("!BH", is_masked << 7 | 126, size & 0xFFFF)
        else:
            length = struct.pack("!BQ", is_masked << 7 | 127, size)
        return (
            bytes([first]) + length + self.mask + masked_with(self.mask, self.payload)
        )


def close(code: int, reason: bytes = b"") -> bytes:
    """Return the payload of a Close."""
    return struct.pack("!H", code) + reason


# -- at random ------------------------------------------------------------------

TEXTS = st.text(st.sampled_from("aé€😀\0"), max_size=12).map(str.encode)
REPEATED = st.sampled_from(LENGTHS).map(lambda size: b"x" * size)
PAYLOADS = st.one_of(
    TEXTS,
    REPEATED,
    st.binary(max_size=8),
    st.tuples(TEXTS, st.sampled_from(BAD_UTF8), TEXTS).map(b"".join),
)
CONTROL_PAYLOADS = st.one_of(
    st.binary(max_size=8), st.sampled_from([b"y" * 124, b"y" * 125])
)
CLOSE_PAYLOADS = st.one_of(
    st.just(b""),
    st.builds(
        close,
        st.one_of(st.just(1000), st.sampled_from(CODES), st.integers(0, 0xFFFF)),
        st.one_of(st.just(b""), TEXTS, st.sampled_from(BAD_UTF8)),
    ),
    st.binary(min_size=1, max_size=1),
)


CONTROLS = st.builds(Frame, st.sampled_from([PING, PONG]), CONTROL_PAYLOADS)
CLOSES = st.builds(Frame, st.just(CLOSE), CLOSE_PAYLOADS)


@st.composite
def messages(draw: st.DrawFn) -> list[Frame]:
    """Create a message of several fragments, with control frames between them."""
    opcode = draw(st.sampled_from([TEXT, BINARY]))
    payload = draw(PAYLOADS)
    cuts = draw(st.lists(st.integers(0, len(payload)), max_size=4).map(sorted))
    made: list[Frame] = []
    for start, end in pairwise([0, *cuts, len(payload)]):
        made.append(Frame(opcode, payload[start:end], fin=False))
        opcode = CONTINUATION
        made += draw(st.lists(CONTROLS, max_size=1))
    last = max(index for index, frame in enumerate(made) if frame.opcode < CLOSE)
    made[last] = attrs.evolve(made[last], fin=True)
    return made


SINGLE = st.one_of(CONTROLS, CONTROLS, CLOSES).map(lambda frame: [frame])
WRONGS = st.one_of(
    st.fixed_dictionaries({"opcode": st.integers(0, 15)}),
    st.fixed_dictionaries({"fin": st.booleans()}),
    st.fixed_dictionaries({"reserved": st.integers(1, 7)}),
    st.fixed_dictionaries({"masked": st.booleans()}),
    st.fixed_dictionaries({"mask": st.sampled_from([b"", MASK])}),
    st.fixed_dictionaries({"width": st.sampled_from([0, 2, 8])}),
    st.fixed_dictionaries(
        {"claim": st.sampled_from(CLAIMS), "width": st.sampled_from([0, 2, 8])}
    ),
    st.fixed_dictionaries({"payload": PAYLOADS}),
)
"""Changes to the fields of a frame that may make it invalid."""


@st.composite
def streams(draw: st.DrawFn, *, masks: bool) -> bytes:
    """Create a stream of frames, most of which are valid."""
    parts = draw(st.lists(st.one_of(messages(), messages(), SINGLE), max_size=6))
    made = [frame for part in parts for frame in part]
    if masks:
        made = [attrs.evolve(frame, mask=MASK) for frame in made]
    for wrong in draw(st.lists(WRONGS, max_size=2)) if made else []:
        index = draw(st.integers(0, len(made) - 1))
        made[index] = attrs.evolve(made[index], **wrong)
    return b"".join(frame.encode() for frame in made)

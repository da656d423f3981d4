"""Random cases: valid input with errors in its structure and bytes, cut into pieces."""

from itertools import pairwise
from typing import Literal

from hypothesis import strategies as st

from fuzz.applications import APPLICATIONS
from fuzz.case import GOOD_ANSWER, GOOD_REQUEST, Case
from fuzz.frames import streams
from fuzz.heads import heads, interim_answers
from fuzz.network import ENDINGS

LIMITS = (1000, 2, 2**17)
"""Values of `max_message_bytes`."""
SMALL = 2_000
"""The most bytes of an input that is sent byte by byte; a larger one takes too long."""


@st.composite
def spoilt(draw: st.DrawFn, data: bytes) -> bytes:
    """Change some bytes."""
    made = bytearray(data)
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(made)))
        stop = start + draw(st.integers(0, 4))
        change = draw(st.sampled_from(["replace", "repeat", "cut off"]))
        if change == "replace":
            made[start:stop] = draw(st.binary(max_size=4))
        elif change == "repeat":
            made[start:start] = made[start : start + draw(st.integers(1, 64))]
        else:
            del made[start:]
    return bytes(made)


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> tuple[bytes, ...]:
    """Cut bytes into pieces."""
    if len(data) < SMALL and draw(st.booleans()):
        return tuple(data[at : at + 1] for at in range(len(data)))
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=8).map(sorted))
    pieces = (data[start:stop] for start, stop in pairwise([0, *cuts, len(data)]))
    return tuple(filter(None, pieces))


@st.composite
def cases(draw: st.DrawFn, side: Literal["server", "client"]) -> Case:
    """Create an attack on one side."""
    is_server = side == "server"
    head = GOOD_REQUEST if is_server else GOOD_ANSWER
    frames = draw(streams(masks=is_server))
    kind = draw(st.sampled_from(["frames", "frames", "bytes", "head"]))
    if kind == "head":
        head = draw(heads(of_answer=not is_server))
    if not is_server:
        head = draw(interim_answers()) + head
    if kind == "bytes":
        data = draw(spoilt(head + frames))
    else:
        data = head + draw(spoilt(frames))
    return Case(
        side,
        draw(cut(data)),
        ending=draw(st.sampled_from(ENDINGS)),
        application=draw(st.sampled_from(APPLICATIONS)),
        patient=draw(st.booleans()),
        limit=draw(st.sampled_from(LIMITS)),
        room=draw(st.sampled_from([2**20, 1])),
    )

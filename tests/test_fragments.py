"""Counting the small fragments of a message."""

from hypothesis import given, settings, strategies as st
from wsproto.frame_protocol import FrameProtocol

from trio_wspair.transports._fragments import FragmentCounter

FRAMES = st.lists(
    st.tuples(st.sampled_from([0, 1, 63, 64, 125, 126, 70_000]), st.booleans()),
    max_size=8,
)


def written(frames: list[tuple[int, bool]], *, client: bool) -> tuple[bytes, int]:
    """Return these fragments on the wire, and how many small ones are pending."""
    framer = FrameProtocol(client, [])
    wire, pending = b"", 0
    for size, last in frames:
        wire += bytes(framer.send_data(bytes(size), fin=last))
        wire += bytes(framer.ping(b"between"))
        pending = 0 if last else pending + (size < 64)
    return wire, pending


@given(FRAMES, st.booleans(), st.data())
@settings(max_examples=150, deadline=None)
def test_small_fragments_are_counted_in_whatever_pieces_they_come(
    frames: list[tuple[int, bool]],
    client: bool,
    data: st.DataObject,
) -> None:
    wire, pending = written(frames, client=client)
    counter = FragmentCounter()
    while wire:
        size = data.draw(st.sampled_from([1, 2, 3, 7, 130, 2**16]))
        counter.feed(wire[:size])
        wire = wire[size:]
    assert counter.count == pending

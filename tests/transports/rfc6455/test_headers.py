"""Counts of small fragments, and of the messages in received bytes."""

from hypothesis import given, settings, strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode

from trio_wspair.transports.rfc6455._headers import FragmentCounter

FRAMES = st.lists(
    st.tuples(st.sampled_from([0, 1, 63, 64, 125, 126, 70_000]), st.booleans()),
    max_size=8,
)


def written(
    frames: list[tuple[int, bool]], *, client: bool, pings: bool = True
) -> tuple[bytes, int]:
    """Return fragments as bytes, and the number of pending small ones."""
    framer = FrameProtocol(client, [])
    wire, pending = b"", 0
    for size, last in frames:
        wire += bytes(framer.send_data(bytes(size), fin=last))
        if pings:
            wire += bytes(framer.ping(b"between"))
        pending = 0 if last else pending + (size < 64)
    return wire, pending


@given(FRAMES, st.booleans(), st.data())
@settings(max_examples=150, deadline=None)
def test_small_fragments_are_counted_in_any_pieces(
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


@given(FRAMES, st.booleans(), st.booleans(), st.data())
@settings(max_examples=150, deadline=None)
def test_only_messages_that_end_in_a_piece_are_counted(
    frames: list[tuple[int, bool]],
    client: bool,
    pings: bool,
    data: st.DataObject,
) -> None:
    wire, _ = written(frames, client=client, pings=pings)
    counter, reader = FragmentCounter(), FrameProtocol(not client, [])
    while wire:
        size = data.draw(st.sampled_from([1, 7, 130, 2**16, 2**20]))
        counter.feed(wire[:size])
        reader.receive_bytes(wire[:size])
        wire = wire[size:]
        came = [
            frame.message_finished and frame.opcode is not Opcode.PING
            for frame in reader.received_frames()
        ]
        assert counter.messages <= sum(came)


@given(st.lists(st.sampled_from([0, 1, 125, 126, 70_000])), st.booleans(), st.data())
@settings(deadline=None)
def test_only_whole_messages_are_counted(
    sizes: list[int], client: bool, data: st.DataObject
) -> None:
    pings = data.draw(st.booleans())
    messages, _ = written([(size, True) for size in sizes], client=client, pings=pings)
    more, _ = written([(200, False), (200, True)], client=client, pings=True)
    part = data.draw(st.integers(0, len(more) - len("between") - 10))
    counter = FragmentCounter()
    counter.feed(messages + more[:part])
    assert counter.messages == len(sizes)

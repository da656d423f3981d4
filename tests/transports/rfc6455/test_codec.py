"""`Codec`: items from bytes and back, in any pieces; errors; compression."""

import zlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, strategies as st

from trio_wspair._rules.codes import Close
from trio_wspair._rules.errors import ProtocolError
from trio_wspair.transports.rfc6455._codec import Codec, Item, Ping, Pong
from trio_wspair.transports.rfc6455._deflate import DeflateParameters

LIMIT = 2**17


def parameters(
    *, context: bool, sent: int = 12, received: int = 12
) -> DeflateParameters:
    return DeflateParameters(context, context, sent, received)


WITH_CONTEXT = parameters(context=True)
WITHOUT_CONTEXT = parameters(context=False, sent=9, received=15)
any_deflate = st.sampled_from([None, WITH_CONTEXT, WITHOUT_CONTEXT])

LARGE: dict[str, str | bytes] = {
    "125 characters": "x" * 125,
    "126 characters": "x" * 126,
    "35,000 umlauts": "ä" * 35_000,
    "65,535 bytes": bytes(65_535),
    "65,536 bytes": bytes(65_536),
}
"""Messages that are too large for the reports of Hypothesis, by their names."""

messages = st.text(max_size=300) | st.binary(max_size=300) | st.sampled_from([*LARGE])
controls = st.builds(Ping, st.binary(max_size=125)) | st.builds(
    Pong, st.binary(max_size=125)
)
items = st.lists(messages | controls, max_size=8)
cuts = st.lists(st.integers(1, 200_000), max_size=20)


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    found: list[bytes] = []
    for cut in cuts:
        found.append(data[:cut])
        data = data[cut:]
    return [*found, data]


def read(codec: Codec, *data: bytes) -> list[Item]:
    return [item for piece in data for item in codec.feed(piece)]


def mirrored(deflate: DeflateParameters | None) -> DeflateParameters | None:
    if deflate is None:
        return None
    return DeflateParameters(
        deflate.receives_context,
        deflate.sends_context,
        deflate.received_window_bits,
        deflate.sent_window_bits,
    )


def pair(
    deflate: DeflateParameters | None = None, *, from_client: bool, limit: int = LIMIT
) -> tuple[Codec, Codec]:
    make = partial(Codec, max_message_bytes=limit)
    sender = make(is_client=from_client, deflate=deflate)
    return sender, make(is_client=not from_client, deflate=mirrored(deflate))


def server(limit: int = LIMIT, deflate: DeflateParameters | None = None) -> Codec:
    return Codec(is_client=False, max_message_bytes=limit, deflate=deflate)


def frame(
    first: int,
    payload: bytes = b"",
    *,
    mask: bytes | None = b"\0\0\0\0",
    size: bytes | None = None,
) -> bytes:
    bit = 0 if mask is None else 0x80
    if size is None:
        if len(payload) < 126:
            size = bytes([bit | len(payload)])
        elif len(payload) < 2**16:
            size = bytes([bit | 126]) + len(payload).to_bytes(2, "big")
        else:
            size = bytes([bit | 127]) + len(payload).to_bytes(8, "big")
    mask = mask or b""
    return bytes([first]) + size + mask + payload


def error_of(codec: Codec, *data: bytes) -> tuple[list[Item], ProtocolError]:
    found: list[Item] = []
    try:
        for piece in data:
            for item in codec.feed(piece):
                found.append(item)  # noqa: PERF402 - kept when it raises
    except ProtocolError as error:
        assert list(codec.feed(frame(0x81, b"later"))) == []
        return found, error
    pytest.fail("the codec has accepted this")


# -- items and bytes -------------------------------------------------------------------


@given(items, cuts, st.booleans(), any_deflate)
def test_items_arrive_as_they_were_sent_in_any_pieces(
    named: list[Item],
    cuts: list[int],
    from_client: bool,
    deflate: DeflateParameters | None,
) -> None:
    sent = [LARGE.get(item, item) if isinstance(item, str) else item for item in named]
    sender, receiver = pair(deflate, from_client=from_client)
    data = b"".join([*map(sender.encode, sent), sender.encode(Close(4000, "over"))])
    assert read(receiver, *pieces(data, cuts)) == [*sent, Close(4000, "over")]


@given(st.booleans(), st.sampled_from([bytes, bytearray, memoryview]))
def test_bytes_may_come_in_any_buffer(from_client: bool, kind: Any) -> None:
    sender, receiver = pair(from_client=from_client)
    data = sender.encode("small") + sender.encode(bytes(10_000)) + sender.encode("end")
    assert read(receiver, kind(data[:3])) == []
    assert read(receiver, kind(data[3:])) == ["small", bytes(10_000), "end"]


@given(messages, cuts, any_deflate)
def test_a_message_may_come_in_fragments_with_controls_between(
    named: str | bytes, cuts: list[int], deflate: DeflateParameters | None
) -> None:
    message = LARGE.get(named, named) if isinstance(named, str) else named
    sender = Codec(is_client=False, max_message_bytes=LIMIT, deflate=deflate)
    whole = sender.encode(message)
    first, start = whole[0], {126: 4, 127: 10}.get(whole[1], 2)
    parts = pieces(whole[start:], cuts)
    frames = b""
    for number, part in enumerate(parts):
        fin = 0x80 * (number == len(parts) - 1)
        frames += frame(fin | (first & 0x7F if number == 0 else 0), part)
        frames += frame(0x89, b"between") * (not fin)
    receiver = server(deflate=mirrored(deflate))
    pings = [Ping(b"between")] * (len(parts) - 1)
    assert read(receiver, frames) == [*pings, message]


def test_nothing_is_read_after_a_close() -> None:
    codec = server()
    assert read(codec, frame(0x88) + frame(0x81, b"late")) == [Close()]
    assert read(codec, frame(0x81, b"later"), b"\xff\xff") == []


def test_items_are_read_one_by_one() -> None:
    codec = server()
    found = codec.feed(frame(0x81, b"one") + frame(0xFF))
    assert next(found) == "one"
    with pytest.raises(ProtocolError):
        next(found)


# -- what is not allowed ---------------------------------------------------------------

WRONG = {
    "no mask": (frame(0x81, b"a", mask=None), 1002),
    "RSV1 without compression": (frame(0xC1, b"a"), 1002),
    "RSV2": (frame(0xA1, b"a"), 1002),
    "RSV3": (frame(0x91, b"a"), 1002),
    "unknown opcode": (frame(0x83, b"a"), 1002),
    "unknown control opcode": (frame(0x8B), 1002),
    "fragmented ping": (frame(0x09), 1002),
    "long ping": (frame(0x89, bytes(126)), 1002),
    "length of 2 bytes for 125": (frame(0x81, bytes(125), size=b"\xfe\x00\x7d"), 1002),
    "length of 8 bytes for 65535": (
        frame(0x82, bytes(65_535), size=b"\xff" + (65_535).to_bytes(8, "big")),
        1002,
    ),
    "length with the highest bit": (frame(0x82, size=b"\xff\x80" + bytes(7)), 1002),
    "continuation of nothing": (frame(0x80, b"a"), 1002),
    "message in a message": (frame(0x01, b"a") + frame(0x81, b"b"), 1002),
    "text that is not UTF-8": (frame(0x81, b"\xff"), 1007),
    "half a character at the end": (frame(0x81, b"\xc3"), 1007),
    "long text that is not UTF-8": (frame(0x81, b"\xff" * 200), 1007),
    "Close of one byte": (frame(0x88, b"\x03"), 1002),
    "Close with code 1005": (frame(0x88, b"\x03\xed"), 1002),
    "Close whose reason is not UTF-8": (frame(0x88, b"\x03\xe8\xff"), 1007),
}


@pytest.mark.parametrize(("data", "code"), WRONG.values(), ids=WRONG)
def test_a_peer_that_breaks_the_protocol_gets_a_code(data: bytes, code: int) -> None:
    found, error = error_of(server(), frame(0x81, b"before") + data)
    assert found == ["before"]
    assert error.code == code


@pytest.mark.parametrize("first", range(256))
def test_only_known_first_bytes_are_accepted(first: int) -> None:
    known = {0x01, 0x02, 0x81, 0x82, 0x88, 0x89, 0x8A}
    compressed = {0x41, 0x42, 0xC1, 0xC2}
    for deflate, good in ((None, known), (WITH_CONTEXT, known | compressed)):
        codec = server(deflate=deflate)
        if first in good:
            read(codec, frame(first, b"\x00" * (first in compressed)))
        else:
            assert error_of(codec, frame(first))[1].code == 1002


def test_a_client_refuses_a_mask() -> None:
    codec = Codec(is_client=True, max_message_bytes=LIMIT)
    assert error_of(codec, frame(0x81, b"a"))[1].code == 1002


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_wrong_text_is_noticed_before_its_message_has_ended(cut: int) -> None:
    data = frame(0x01, "größe".encode() + b"\xff" + b"x" * 9)
    assert error_of(server(), data[:-cut])[1].code == 1007


# -- limits ----------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 100, 125, 126, 70_000])
def test_a_message_may_have_as_many_bytes_as_the_limit(limit: int) -> None:
    longest: list[str | bytes] = ["x" * limit, bytes(limit)]
    longer: list[str | bytes] = ["x" * (limit + 1), bytes(limit + 1)]
    for message, too_long in zip(longest, longer, strict=True):
        sender, receiver = pair(from_client=True, limit=limit)
        assert read(receiver, sender.encode(message)) == [message]
        assert error_of(receiver, sender.encode(too_long))[1].code == 1009


@pytest.mark.parametrize("limit", [1, 100, 70_000])
@pytest.mark.parametrize("deflate", [WITH_CONTEXT, WITHOUT_CONTEXT])
def test_the_limit_is_for_the_decompressed_message(
    limit: int, deflate: DeflateParameters
) -> None:
    sender, receiver = pair(deflate, from_client=True, limit=limit)
    assert read(receiver, sender.encode(bytes(limit))) == [bytes(limit)]
    assert error_of(receiver, sender.encode(bytes(limit + 1)))[1].code == 1009


def test_a_large_message_is_refused_by_its_header() -> None:
    header = frame(0x82, size=b"\xff" + (LIMIT + 1).to_bytes(8, "big"))
    assert error_of(server(), header)[1].code == 1009


def test_fragments_are_added_up() -> None:
    data = frame(0x02, bytes(LIMIT - 1)) + frame(0x00, b"a") + frame(0x80, b"b")
    assert error_of(server(), data)[1].code == 1009


# -- compression ----------------------------------------------------------------------


def deflated(text: bytes, flush: int, *, bits: int = 12) -> bytes:
    compressor = zlib.compressobj(wbits=-bits)
    return compressor.compress(text) + compressor.flush(flush)


FORMS = {
    "as usual": deflated(b"hello", zlib.Z_SYNC_FLUSH)[:-4],
    "a final block": deflated(b"hello", zlib.Z_FINISH) + b"\0",
    "a final block and nothing": deflated(b"hello", zlib.Z_FINISH),
    "two final blocks": deflated(b"he", zlib.Z_FINISH)
    + deflated(b"llo", zlib.Z_FINISH)
    + b"\0",
    "a stored block": b"\0\5\0\xfa\xffhello\0",
    "trailing empty blocks": deflated(b"hello", zlib.Z_SYNC_FLUSH)
    + b"\0\0\0\xff\xff" * 3
    + b"\0",
    "a full flush": deflated(b"hello", zlib.Z_FULL_FLUSH)[:-4],
}


@pytest.mark.parametrize("receives_context", [True, False])
@pytest.mark.parametrize("payload", FORMS.values(), ids=FORMS)
def test_all_forms_of_deflate_are_understood(
    payload: bytes, receives_context: bool
) -> None:
    codec = server(deflate=parameters(context=receives_context))
    empty = frame(0xC1, b"\0")
    data = frame(0xC1, payload) + empty + frame(0x81, b"plain") + frame(0xC1, payload)
    assert read(codec, data) == ["hello", "", "plain", "hello"]


def test_a_message_after_a_final_block_may_refer_to_itself_only() -> None:
    codec = server(deflate=WITH_CONTEXT)
    data = frame(0xC2, deflated(b"abc" * 99, zlib.Z_FINISH) + b"\0")
    data += frame(0xC2, deflated(b"abc" * 50, zlib.Z_SYNC_FLUSH)[:-4])
    assert read(codec, data) == [b"abc" * 99, b"abc" * 50]


@pytest.mark.parametrize("payload", [b"\xff\xff", b"\x06\x01\x02", b"\0\5\0\0\0hello"])
def test_what_is_not_deflate_is_refused(payload: bytes) -> None:
    assert error_of(server(deflate=WITH_CONTEXT), frame(0xC2, payload))[1].code == 1002


def test_nothing_is_decompressed_before_it_is_asked_for() -> None:
    bomb = frame(0xC2, deflated(bytes(LIMIT), zlib.Z_SYNC_FLUSH)[:-4])
    codec = server(deflate=WITHOUT_CONTEXT)
    found = codec.feed(bomb * 1000)
    for _ in range(3):
        assert next(found) == bytes(LIMIT)


def test_an_empty_message_after_another_is_sent_compressed() -> None:
    sender, receiver = pair(WITH_CONTEXT, from_client=True)
    sent: list[Item] = ["a", "", b"", "b"]
    assert read(receiver, b"".join(map(sender.encode, sent))) == sent

"""Hostile bytes: the right end, in time, for every split; and the server goes on.

The rules for each case are in `fuzz.checking`, and `nox -s fuzz` makes more cases.
"""

import gc
import socket
import struct
import tracemalloc
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal

import attrs
import pytest
import trio
from fuzz.applications import APPLICATIONS, take
from fuzz.case import GOOD_ANSWER, GOOD_REQUEST, Case
from fuzz.cases import cases
from fuzz.checking import GOOD_CLIENT, GRACE, HANDSHAKE, check
from fuzz.frames import BAD_UTF8, CODES, MASK, Frame, close
from fuzz.network import ScriptedStream, dialling_in_memory, listening_in_memory
from hypothesis import given, settings
from network import Logged, Network
from trio.testing import MockClock

from trio_wspair import (
    HandshakeError,
    Request,
    Response,
    Server,
    WebSocketPair,
    connect,
    serve,
)
from trio_wspair.testing._scripted_peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    head,
)
from trio_wspair.transports._engines import EngineName

Side = Literal["server", "client"]
both_sides = pytest.mark.parametrize("side", ["server", "client"])

GREETING = "grüß 😀"
TALK = (
    Frame(TEXT, GREETING.encode()),
    Frame(PING, b"?"),
    Frame(BINARY, bytes(range(130)), fin=False),
    Frame(PONG, b"!"),
    Frame(CONTINUATION, b""),
    Frame(CLOSE, close(1000, b"bye")),
)
"""A conversation with frames of every kind."""


def handshake(side: Side) -> bytes:
    """Return the bytes that open a WebSocket, as one side receives them."""
    return GOOD_REQUEST if side == "server" else GOOD_ANSWER


def stream(side: Side, *frames: Frame) -> bytes:
    """Return the bytes of a frame as one side receives it, masked if it has to be."""
    mask = MASK if side == "server" else b""
    return b"".join(attrs.evolve(frame, mask=mask).encode() for frame in frames)


def attack(side: Side, *data: bytes | Frame, **options: Any) -> str:
    """Open a WebSocket, send bytes, and check all rules; return how it ends."""
    sent = [one if isinstance(one, bytes) else stream(side, one) for one in data]
    return check(Case(side, (handshake(side), b"".join(sent)), **options))


# A counterexample may be large.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Generating overly large repr"),
    pytest.mark.usefixtures("engine"),
]

# -- at random ------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(cases("server"))
def test_g12_a_server_keeps_the_rules_for_random_input(case: Case) -> None:
    check(case)


@settings(max_examples=100, deadline=None)
@given(cases("client"))
def test_g12_a_client_keeps_the_rules_for_random_input(case: Case) -> None:
    check(case)


# -- pieces ---------------------------------------------------------------------


def cuts(side: Side) -> list[int]:
    """Return the places to cut the conversation: in all frames, and in the head."""
    start = len(handshake(side))
    found = {*range(0, start, 9), *range(start - 5, start)}
    for frame in TALK:
        size = len(stream(side, frame))
        found |= {start + offset for offset in range(min(size, 12))}
        start += size
    return sorted(found)


@both_sides
def test_g12_a_conversation_is_the_same_in_any_two_pieces(side: Side) -> None:
    data = handshake(side) + stream(side, *TALK)
    for at in cuts(side):
        case = Case(side, (data[:at], data[at:]), patient=bool(at % 2))
        assert check(case) == "clean 1000"


@both_sides
@pytest.mark.parametrize("application", APPLICATIONS)
def test_g12_a_conversation_is_the_same_byte_by_byte(
    side: Side, application: Any
) -> None:
    data = handshake(side) + stream(side, *TALK)
    pieces = tuple(data[at : at + 1] for at in range(len(data)))
    for patient in (False, True):
        case = Case(side, pieces, application=application, patient=patient, room=1)
        assert check(case) == "clean 1000"


@both_sides
def test_g12_a_conversation_may_end_anywhere(side: Side) -> None:
    start = handshake(side)
    data = start + stream(side, *TALK)
    for at in cuts(side):
        ending: Literal["eof", "reset"] = "reset" if at % 2 else "eof"
        outcome = check(Case(side, (data[:at],), ending=ending))
        if outcome == "no answer":  # A reset may come before the Close.
            assert ending == "reset" or at < len(start)
        else:
            assert outcome == "vanished" or at < len(start)


# -- invalid frames ----------------------------------------------------------------


@both_sides
def test_g12_every_opcode_with_and_without_fin(side: Side) -> None:
    for fin, good in (
        (False, {TEXT, BINARY}),
        (True, {TEXT, BINARY, CLOSE, PING, PONG}),
    ):
        for opcode in range(16):
            outcome = attack(side, Frame(opcode, fin=fin))
            assert (opcode in good) is (outcome != "broken 1002"), (opcode, fin)


@both_sides
def test_g12_every_reserved_bit(side: Side) -> None:
    for reserved in range(1, 8):
        for opcode in (TEXT, BINARY, CLOSE, PING, PONG):
            assert attack(side, Frame(opcode, reserved=reserved)) == "broken 1002"


@both_sides
def test_g12_every_kind_of_second_byte_of_a_frame(side: Side) -> None:
    mask = MASK if side == "server" else b""
    for size in (0, 1, 124, 125, 126, 127):
        for bit in (0, 0x80):
            begin = bytes([0x82, bit | size])
            good = bool(bit) is bool(mask) and size < 126
            # After 126 and 127 come extended lengths, which are zeros here.
            rest = mask + bytes(size) if good else bytes(20)
            outcome = attack(side, begin + rest, Frame(CLOSE))
            assert outcome == ("clean 1005" if good else "broken 1002"), begin


@both_sides
def test_g12_a_length_that_overflows(side: Side) -> None:
    for claim in (2**63, 2**63 + 1, 2**64 - 1):
        assert attack(side, Frame(BINARY, b"x", width=8, claim=claim)) == "broken 1002"


@both_sides
def test_g12_a_length_in_more_bytes_than_it_needs(side: Side) -> None:
    for width, claim in ((2, 0), (2, 125), (8, 0), (8, 126), (8, 2**16 - 1)):
        frame = Frame(BINARY, bytes(claim), width=width)
        assert attack(side, frame, limit=2**17) == "broken 1002"


@both_sides
def test_g12_a_payload_shorter_than_its_length(side: Side, engine: EngineName) -> None:
    # trio-websocket checks the received bytes, not the length.
    little = "vanished" if engine == "trio-websocket" else "broken 1009"
    for claim in (2**16, 2**31, 2**32, 2**62, 2**63 - 1):
        assert attack(side, Frame(BINARY, b"x", width=8, claim=claim)) == little
        much = Frame(BINARY, bytes(1001), width=8, claim=claim)
        assert attack(side, much) == "broken 1009"


@both_sides
@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG, 11, 15])
def test_g12_a_control_frame_that_is_too_long_or_fragmented(
    side: Side, opcode: int
) -> None:
    for size in (126, 2**16):
        payload = close(1000, bytes(size - 2))
        assert attack(side, Frame(opcode, payload)) == "broken 1002"
    piece = Frame(opcode, close(1000), fin=False)
    rest = Frame(CONTINUATION, b"bye")
    assert attack(side, piece, rest) == "broken 1002"


@both_sides
def test_g12_a_frame_that_is_masked_the_wrong_way(side: Side) -> None:
    mask = b"" if side == "server" else MASK
    for opcode in (TEXT, BINARY, CLOSE, PING, PONG):
        wrong = Frame(opcode, mask=mask).encode()
        before = Frame(TEXT, b"before")
        assert attack(side, before, wrong, before) == "broken 1002"


@both_sides
def test_g12_continuations_without_a_start_and_starts_within_a_message(
    side: Side,
) -> None:
    begun = Frame(TEXT, b"begun", fin=False)
    for frames in (
        [Frame(CONTINUATION)],
        [Frame(CONTINUATION, b"a", fin=False)],
        [Frame(TEXT, b"all"), Frame(CONTINUATION, b"more")],
        [begun, Frame(TEXT, b"other")],
        [begun, Frame(PING), Frame(BINARY, b"other", fin=False)],
    ):
        assert attack(side, *frames) == "broken 1002"
    assert attack(side, begun, Frame(CLOSE, close(1000))) == "clean 1000"


@both_sides
def test_g12_compressed_messages_that_were_not_negotiated(side: Side) -> None:
    for opcode in (TEXT, BINARY):
        assert attack(side, Frame(opcode, bytes(9), reserved=4)) == "broken 1002"


# -- invalid UTF-8 -----------------------------------------------------------------


@both_sides
def test_g12_invalid_utf8_in_any_two_pieces(side: Side) -> None:
    for bad in BAD_UTF8:
        text = "é😀".encode() + bad
        for at in range(len(text) + 1):
            start = Frame(TEXT, text[:at], fin=False)
            rest = Frame(CONTINUATION, text[at:])
            assert attack(side, start, Frame(PING), rest) == "broken 1007", (bad, at)


@both_sides
def test_g12_invalid_utf8_byte_by_byte(side: Side) -> None:
    for bad in BAD_UTF8:
        data = handshake(side) + stream(side, Frame(TEXT, b"a" + bad), Frame(CLOSE))
        pieces = tuple(data[at : at + 1] for at in range(len(data)))
        for patient in (False, True):
            assert check(Case(side, pieces, patient=patient)) == "broken 1007", bad


@both_sides
def test_g12_valid_text_in_any_pieces(side: Side) -> None:
    text = "\0é€😀\U0010ffff".encode()
    for at in range(len(text) + 1):
        frames = [
            Frame(TEXT, text[:at], fin=False),
            Frame(CONTINUATION, text[at : at + 1], fin=False),
            Frame(CONTINUATION, text[at + 1 :]),
            Frame(CLOSE, close(1000)),
        ]
        assert attack(side, *frames) == "clean 1000"


@both_sides
def test_g12_a_reason_with_invalid_utf8(side: Side) -> None:
    for bad in BAD_UTF8:
        assert attack(side, Frame(CLOSE, close(1000, b"a" + bad))) == "broken 1007"


# -- close codes, and bytes after a Close -----------------------------------------


@both_sides
def test_g12_valid_and_invalid_close_codes(side: Side) -> None:
    good = {*range(1000, 1004), *range(1007, 1014), 3000, 3999, 4000, 4999}
    for code in {*CODES, *range(0, 2**16, 4999)} - {1014}:  # See docs/limits.rst.
        outcome = attack(side, Frame(CLOSE, close(code)))
        assert outcome == (f"clean {code}" if code in good else "broken 1002")
    assert attack(side, Frame(CLOSE)) == "clean 1005"
    assert attack(side, Frame(CLOSE, b"\x03")) == "broken 1002"


@both_sides
@pytest.mark.parametrize("application", APPLICATIONS)
def test_g12_bytes_after_a_close_are_ignored(side: Side, application: Any) -> None:
    end = Frame(CLOSE, close(3000))
    for after in (
        [Frame(TEXT, b"late"), Frame(PING, b"late")],
        [Frame(CLOSE, close(4000))],
        [Frame(7, reserved=7)],
        [b"GET / HTTP/1.1\r\n\r\n" * 100],
        [bytes(2**17)],
    ):
        for patient in (False, True):
            outcome = attack(
                side, end, *after, application=application, patient=patient
            )
            assert outcome == "clean 3000"


# -- messages that are too large ----------------------------------------------------


@both_sides
@pytest.mark.parametrize("limit", [1, 125, 126, 1000, 2**16])
def test_g12_a_message_may_have_as_many_bytes_as_the_limit(
    side: Side, limit: int
) -> None:
    end = Frame(CLOSE, close(1000))
    for opcode, byte in ((TEXT, b"x"), (BINARY, b"\xff")):
        for size, outcome in ((limit, "clean 1000"), (limit + 1, "broken 1009")):
            whole = [Frame(opcode, byte * size)]
            pieces = [
                Frame(opcode, byte, fin=False),
                Frame(CONTINUATION, byte * (size - 1)),
            ]
            for frames in (whole, pieces):
                assert attack(side, *frames, end, limit=limit) == outcome


@both_sides
def test_g12_a_text_is_measured_in_bytes(side: Side) -> None:
    for text in ("é" * 501, "€" * 334, "😀" * 251):
        start = Frame(TEXT, text[:100].encode(), fin=False)
        rest = Frame(CONTINUATION, text[100:].encode())
        assert attack(side, start, rest, Frame(CLOSE)) == "broken 1009"


@both_sides
def test_g12_fragments_of_one_byte_are_counted(side: Side) -> None:
    more = [Frame(CONTINUATION, b"x", fin=False)] * 1000
    assert attack(side, Frame(TEXT, b"x", fin=False), *more) == "broken 1009"


# -- bytes beyond a handshake -------------------------------------------------------


def test_g12_requests_pipelined_after_a_handshake() -> None:
    assert attack("server", GOOD_REQUEST * 2) == "broken 1002"
    assert attack("server", b"\r") == "vanished"
    assert attack("server", bytes(2**17)) == "broken 1002"


def test_g12_a_second_response_after_a_handshake() -> None:
    assert attack("client", GOOD_ANSWER) == "broken 1002"
    assert attack("client", b"<html>" * 2**14) == "broken 1002"


def test_g12_a_body_after_a_refused_request() -> None:
    request = GOOD_REQUEST.replace(b"Upgrade: websocket\r\n", b"")
    for body in (b"x" * 2**17, GOOD_REQUEST * 100, bytes(2**17)):
        for ending in ("eof", "silence"):
            assert check(Case("server", (request + body,), ending)) == "status 426"


def test_g12_a_response_to_head_has_no_body_even_for_an_error() -> None:
    for request, status in (
        (head("Host: a", start="HEAD / HTTP/1.1"), 426),
        (head(start="HEAD / HTTP/1.1"), 400),
        (head("Host: a", start="HEAD / HTTP/2.0"), 505),
        (GOOD_REQUEST.replace(b"GET", b"HEAD"), 400),
        (head("Host: a", f"X: {'x' * 2**16}", start="HEAD / HTTP/1.1"), 431),
    ):
        assert check(Case("server", (request,))) == f"status {status}"


# -- slow peers -------------------------------------------------------------------


class Dripping(ScriptedStream):
    """A peer that sends a byte a second, and never ends."""

    def __init__(self, data: bytes) -> None:
        super().__init__([bytes([byte]) for byte in data], "silence")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.sleep(1)
        return await super().receive_some(max_bytes)


async def echo(request: Request) -> Response:
    client, server = WebSocketPair()
    take("listener", server, request.nursery)
    return Response(None, status=101, web_socket=client)


async def test_g12_heads_that_come_too_slowly_delay_nothing_and_get_408(
    autojump_clock: MockClock,
) -> None:
    server = partial(serve, echo, 0, handshake_timeout=HANDSHAKE, close_grace=GRACE)
    with trio.fail_after(100), listening_in_memory() as dial:
        async with trio.open_nursery() as nursery:
            await nursery.start(server)
            slow = [Dripping(GOOD_REQUEST) for _ in range(100)]
            for one in slow:
                dial(one)
            await trio.sleep(HANDSHAKE / 2)
            good = ScriptedStream(GOOD_CLIENT)
            dial(good)
            with trio.fail_after(0.5):
                await good.closed.wait()
            assert good.sent.startswith(b"HTTP/1.1 101 ")
            await trio.sleep(HANDSHAKE / 2 + GRACE + 1)
            for one in slow:
                assert one.closed.is_set()
                assert one.sent.startswith(b"HTTP/1.1 408 ")
            nursery.cancel_scope.cancel()


async def test_g12_a_response_that_comes_too_slowly_times_out(
    autojump_clock: MockClock,
) -> None:
    slow = Dripping(GOOD_ANSWER)
    with trio.fail_after(HANDSHAKE + 1):
        async with trio.open_nursery() as nursery:
            with (
                dialling_in_memory(slow),
                pytest.raises(HandshakeError, match="within"),
            ):
                await connect("ws://a/", nursery=nursery, connect_timeout=HANDSHAKE)
    assert slow.closed.is_set()


# -- floods -------------------------------------------------------------------------


@asynccontextmanager
async def harmless(net: Network, **options: Any) -> AsyncGenerator[Server]:
    """Serve an echo for a block; check then that it works and nothing is left."""
    async with net.serve(net.echo, **options) as server:
        sockets = net.open_sockets()
        tasks = trio.lowlevel.current_statistics().tasks_living
        yield server
        await net.until_open_sockets(sockets)
        await net.until(
            lambda: trio.lowlevel.current_statistics().tasks_living == tasks
        )
        async with net.peer(server) as peer:
            await peer.send(peer.text_frame("still there?"), peer.close_frame(1000))
            assert await peer.receive_all() == ["still there?", (1000, "")]


async def test_g12_a_flood_of_handshakes_leaves_nothing(
    net: Network, logged: Logged
) -> None:
    statuses: list[str] = []
    async with harmless(net, max_connections=100, handshake_timeout=0.5) as server:

        async def knock(size: int) -> None:
            async with net.dial(server) as peer:
                await peer.send(GOOD_REQUEST[:size])
                statuses.append((await peer.read_head())[9:12])

        async with trio.open_nursery() as nursery:
            for number in range(150):
                nursery.start_soon(knock, number % 100)
        assert set(statuses) == {"408", "503"}
        assert statuses.count("408") >= 100
    assert "max_connections" in logged.take()


async def test_g12_clients_that_reset_at_any_moment_leave_nothing(
    net: Network,
) -> None:
    talk = GOOD_REQUEST + stream("server", *TALK)
    async with harmless(net) as server:

        async def knock(size: int) -> None:
            async with net.dial(server) as peer:
                await peer.send(talk[:size])
                await trio.sleep(size % 3 / 100)
                assert isinstance(peer.stream, trio.SocketStream)
                at_once = struct.pack("ii", 1, 0)
                peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)

        async with trio.open_nursery() as nursery:
            for size in cuts("server"):
                nursery.start_soon(knock, size)


# -- memory -------------------------------------------------------------------------

SLACK = 2**16
"""Bytes by which memory may vary: the size of one read."""


class Forgetful(ScriptedStream):
    """A peer that counts the bytes it receives, and drops them."""

    count = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await super().send_all(data)
        self.count += len(data)
        self.sent.clear()


def peak(*connections: Sequence[bytes]) -> int:
    """Serve streams one by one; return the peak of memory in bytes."""

    async def main() -> None:
        server = partial(serve, echo, 0, max_message_bytes=2**18)
        with trio.fail_after(1000), listening_in_memory() as dial:
            async with trio.open_nursery() as nursery:
                await nursery.start(server)
                for chunks in connections:
                    peer = Forgetful(chunks)
                    dial(peer)
                    await peer.closed.wait()
                    assert peer.count, "no answer"
                nursery.cancel_scope.cancel()

    gc.collect()
    tracemalloc.start()
    try:
        trio.run(main, clock=MockClock(autojump_threshold=0))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


Scripts = Sequence[Sequence[bytes]]


def assert_flat(few: Scripts, many: Scripts, slack: int = SLACK) -> None:
    """Check that many take no more memory than few."""
    peak(*few)  # A first run, for modules and caches.
    assert peak(*many) < peak(*few) + slack


def test_g12_ten_thousand_pings_take_no_more_memory_than_a_hundred() -> None:
    pings = stream("server", *[Frame(PING, bytes(125))] * 100)
    assert_flat([[GOOD_REQUEST, pings]], [[GOOD_REQUEST, *[pings] * 100]])


def test_g12_a_message_that_is_far_too_large_takes_no_more_memory() -> None:
    begin = GOOD_REQUEST + stream("server", Frame(BINARY, fin=False))
    more = stream("server", Frame(CONTINUATION, bytes(2**12), fin=False))
    assert_flat([[begin, *[more] * 65]], [[begin, *[more] * 1000]])


def test_g12_a_hundred_hostile_connections_take_no_more_memory_than_ten() -> None:
    connections = [
        [head(f"X: {'x' * 2**16}")],
        [GOOD_REQUEST, stream("server", Frame(BINARY, bytes(2**18 + 1)))],
        [GOOD_REQUEST, stream("server", Frame(TEXT, b"x" * 1000 + b"\xff"))],
        [GOOD_REQUEST, stream("server", Frame(BINARY, width=8, claim=2**62))],
        [GOOD_REQUEST, stream("server", Frame(BINARY, b"x", fin=False))],
    ]
    # Trio keeps up to 1000 deadlines that are no longer used, which is about
    # 500 bytes for each connection. A connection that stays would be more than 50 kB.
    assert_flat(connections * 2, connections * 20, slack=2**20)


def test_g12_empty_fragments_take_no_memory() -> None:
    begin = GOOD_REQUEST + stream("server", Frame(BINARY, fin=False))
    more = stream("server", *[Frame(CONTINUATION, fin=False)] * 1000)
    # trio-websocket keeps some bytes of each, up to 4,096 fragments.
    assert_flat([[begin, *[more] * 4]], [[begin, *[more] * 12]])

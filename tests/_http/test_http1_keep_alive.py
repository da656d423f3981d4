"""Several requests on one connection: order, limits, and deadlines."""

from collections.abc import AsyncGenerator
from contextlib import suppress
from itertools import pairwise
from unittest import TestCase

import attrs
import pytest
import trio
import trio.testing
from handlers import echo_body, echo_path
from hypothesis import given, settings, strategies as st
from memory_server import (
    UPGRADE,
    Answer,
    answer_to,
    chunked,
    converse,
    parse_answers,
    read_all,
    request_bytes,
    served,
)
from network import Logged
from pairs import run

from trio_wspair import Request, Response


async def raises(request: Request) -> Response:
    msg = "secret"
    raise KeyError(msg)


# -- one after the other ---------------------


async def test_a_connection_is_kept_for_the_next_request() -> None:
    async with served(echo_path) as client:
        for number in range(3):
            await client.send_all(request_bytes("GET", f"/{number}"))
            answer = bytes(await client.receive_some())
            assert parse_answers(answer)[0].body == f"/{number}".encode()
            assert parse_answers(answer)[0].keeps_alive


async def test_pipelined_requests_get_their_responses_in_order() -> None:
    methods = ["GET", "HEAD", "POST"] * 10
    data = b"".join(
        request_bytes(method, f"/{i}", body=b"x" * i if method == "POST" else None)
        for i, method in enumerate(methods)
    )
    answers = parse_answers(await converse(echo_path, data), *methods)
    for i, (method, got) in enumerate(zip(methods, answers, strict=True)):
        assert got.body == (b"" if method == "HEAD" else f"/{i}".encode())


async def test_a_pipelined_request_waits_for_the_response_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    log: list[str] = []

    async def fetch(request: Request) -> Response:
        async def body() -> AsyncGenerator[str]:
            await trio.sleep(10)
            yield request.path
            await trio.sleep(10)
            log.append(f"sent {request.path}")

        log.append(f"asked {request.path}")
        await trio.sleep(10)
        return Response(body())

    data = await converse(
        fetch, request_bytes("GET", "/1") + request_bytes("GET", "/2")
    )
    assert [got.body for got in parse_answers(data, "GET", "GET")] == [b"/1", b"/2"]
    assert log == ["asked /1", "sent /1", "asked /2", "sent /2"]


async def test_many_pipelined_requests_do_not_starve_other_tasks() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery, served(echo_path) as client:
        nursery.start_soon(count)
        await client.send_all(request_bytes() * 100)
        await client.send_eof()
        await read_all(client)
        nursery.cancel_scope.cancel()
    assert turns > 100


@pytest.mark.parametrize(
    "last",
    [
        request_bytes("GET", "/1", "Connection: close"),
        request_bytes("GET", "/1", "Connection: Keep-Alive, CLOSE"),
        b"GET /1 HTTP/1.0\r\n\r\n",
        b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ],
    ids=["close", "close in a list", "HTTP/1.0", "HTTP/1.0 and keep-alive"],
)
async def test_no_response_follows_the_last_request(last: bytes) -> None:
    async with served(echo_path) as client:
        await client.send_all(
            request_bytes("GET", "/0") + last + request_bytes("GET", "/2")
        )
        first, second = parse_answers(await read_all(client), "GET", "GET")
    assert (first.body, first.keeps_alive) == (b"/0", True)
    assert (second.body, second.keeps_alive) == (b"/1", False)


async def test_a_client_that_ends_its_direction_gets_its_responses() -> None:
    data = await converse(
        echo_path, request_bytes("GET", "/0") + request_bytes("GET", "/1")
    )
    assert [got.keeps_alive for got in parse_answers(data, "GET", "GET")] == [
        True,
        True,
    ]


async def test_the_connection_is_kept_after_a_failure_of_the_handler(
    logged: Logged,
) -> None:
    async def fetch(request: Request) -> Response:
        return await (raises if request.path == "/bad" else echo_path)(request)

    data = request_bytes("POST", "/bad", body=b"abc") + request_bytes("GET", "/good")
    bad, good = parse_answers(await converse(fetch, data), "POST", "GET")
    assert (bad.status, bad.keeps_alive) == (500, True)
    assert (good.status, good.body) == (200, b"/good")
    assert "KeyError: 'secret'" in logged.take()


async def test_a_refused_websocket_leaves_the_connection_open() -> None:
    async def fetch(request: Request) -> Response:
        if request.wants_websocket:
            return Response("no", status=403)
        return Response(status=426)

    data = (
        request_bytes("GET", "/", *UPGRADE)
        + request_bytes()
        + request_bytes("GET", "/", "Upgrade: h2c")
        + request_bytes()
    )
    answers = parse_answers(await converse(fetch, data), *["GET"] * 4)
    assert [got.status for got in answers] == [403, 426, 426, 426]


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (request_bytes("GET", "/", "Host: again"), 400),
        (request_bytes("GET", "/", "Transfer-Encoding: chunked", body=b""), 400),
        (request_bytes("GET", "/", *UPGRADE[:-1]), 426),
        (request_bytes("GET", "/", "X: " + "x" * 40_000), 431),
        (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 505),
    ],
)
async def test_g12_a_refused_request_is_the_last(
    bad: bytes, status: int, logged: Logged
) -> None:
    for before in ("GET", "HEAD"):
        data = await converse(
            echo_path, request_bytes(before, "/1") + bad + request_bytes("GET", "/evil")
        )
        first, second = parse_answers(data, before, "GET")
        assert (first.status, first.keeps_alive) == (200, True)
        assert (second.status, second.keeps_alive) == (status, False)
        assert len(second.body) > 10


async def test_a_client_that_leaves_before_its_response_is_not_an_error(
    logged: Logged,
) -> None:
    for data in (b"nonsense\r\n\r\n", request_bytes(), b"GET / HT", b""):
        async with served(echo_path) as client:
            await client.send_all(data)
            await client.aclose()


# -- limits ---------------------


def head_of(size: int) -> bytes:
    start = b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: "
    return start + b"a" * (size - len(start) - 4) + b"\r\n\r\n"


@pytest.mark.parametrize("piece", [1_000_000, 10_000], ids=["at once", "in pieces"])
async def test_the_limit_of_heads_is_for_each(piece: int) -> None:
    data = (
        head_of(32_768) * 5
        + request_bytes("POST", body=bytes(50_000))
        + head_of(32_768)
    )
    pieces = [data[i : i + piece] for i in range(0, len(data), piece)]
    methods = ["GET"] * 5 + ["POST", "GET"]
    answers = parse_answers(await converse(echo_body, *pieces), *methods)
    assert [got.status for got in answers] == [200] * 7
    assert len(answers[5].body) == 50_000


@pytest.mark.parametrize("piece", [1_000_000, 10_000], ids=["at once", "in pieces"])
async def test_g12_a_later_head_that_is_too_large_is_refused(piece: int) -> None:
    data = request_bytes() + head_of(32_768) + head_of(32_769)
    pieces = [data[i : i + piece] for i in range(0, len(data), piece)]
    answers = parse_answers(await converse(echo_path, *pieces), "GET", "GET", "GET")
    assert [got.status for got in answers] == [200, 200, 431]


async def test_the_limit_of_bodies_is_for_each() -> None:
    data = request_bytes("POST", body=bytes(80)) + request_bytes(
        "POST", body=bytes(100)
    )
    data += request_bytes("POST", body=bytes(101)) + request_bytes(
        "POST", body=bytes(100)
    )
    answers = parse_answers(
        await converse(echo_body, data, max_body_bytes=100), *["POST"] * 4
    )
    assert [got.status for got in answers] == [200, 200, 413, 200]


# -- deadlines ---------------------


async def test_a_connection_without_a_request_ends_after_its_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served(echo_path, handshake_timeout=7.0) as client:
        (got,) = parse_answers(await read_all(client))
        assert (got.status, got.keeps_alive) == (408, False)
        assert trio.current_time() == pytest.approx(7)


async def test_an_idle_connection_is_kept_for_its_time_and_no_longer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served(echo_path, handshake_timeout=7.0, idle_timeout=60.0) as client:
        for _ in range(3):
            await client.send_all(request_bytes())
            assert parse_answers(bytes(await client.receive_some()))[0].keeps_alive
            await trio.sleep(59)
        await client.send_all(request_bytes())
        assert parse_answers(bytes(await client.receive_some()))[0].keeps_alive
        since = trio.current_time()
        assert await client.receive_some() == b"", "no 408 without a request"
        assert trio.current_time() == pytest.approx(since + 60)


async def test_with_an_idle_time_of_zero_a_connection_ends_after_its_response(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served(echo_path, idle_timeout=0) as client:
        await client.send_all(request_bytes())
        assert parse_answers(await read_all(client))[0].status == 200
        assert trio.current_time() < 1


async def test_the_time_limit_of_a_later_head_starts_with_its_first_byte(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served(echo_path, handshake_timeout=7.0) as client:
        await client.send_all(request_bytes())
        await client.receive_some()
        await trio.sleep(50)
        since = trio.current_time()
        for byte in request_bytes()[:6]:
            await client.send_all(bytes([byte]))
            await trio.sleep(1)
        (got,) = parse_answers(await read_all(client))
        assert (got.status, got.keeps_alive) == (408, False)
        assert trio.current_time() == pytest.approx(since + 7)


async def test_a_handler_has_no_time_limit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def fetch(request: Request) -> Response:
        await trio.sleep(50_000)
        return Response("at last")

    assert (await answer_to(fetch, request_bytes())).body == b"at last"


async def test_a_client_that_reads_no_response_is_dropped_after_its_time(
    autojump_clock: trio.testing.MockClock, logged: Logged
) -> None:
    client, server = trio.testing.lockstep_stream_pair()
    async with served(echo_path, streams=(client, server), body_timeout=7.0):
        await client.send_all(request_bytes())
        await trio.sleep(6.9)
        assert await client.receive_some(1) == b"H", "it is still there"
        await trio.sleep(10)
        with pytest.raises(trio.BrokenResourceError):
            await client.send_all(request_bytes())


async def test_an_ended_connection_waits_for_the_client_no_longer_than_its_grace(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served(echo_path) as client:
        await client.send_all(request_bytes("GET", "/", "Connection: close"))
        await read_all(client)
        since = trio.current_time()
        with suppress(trio.BrokenResourceError):
            while trio.current_time() - since < 10:
                await client.send_all(b"more")  # The rest is discarded.
                await trio.sleep(0.5)
        assert trio.current_time() - since == pytest.approx(5, abs=1)


# -- any requests, in any pieces ---------------------


@attrs.frozen
class Asked:
    """A request, and the behaviour of its handler."""

    method: str
    body: bytes | None
    in_chunks: bool
    reads: bool
    answers: str

    def as_bytes(self, number: int) -> bytes:
        target = f"/{number}?{self.answers}&{'reads' if self.reads else ''}"
        if self.body is None:
            return request_bytes(self.method, target)
        if not self.in_chunks:
            return request_bytes(self.method, target, body=self.body)
        half = len(self.body) // 2
        pieces = [piece for piece in (self.body[:half], self.body[half:]) if piece]
        coding = "Transfer-Encoding: chunked"
        return request_bytes(self.method, target, coding) + chunked(*pieces)

    @property
    def bytes_read(self) -> bytes:
        return (self.body or b"") if self.reads else b""

    @property
    def may_be_the_last(self) -> bool:
        """An unread body that is incomplete ends the connection."""
        has_a_body = self.body is not None and (self.in_chunks or bool(self.body))
        return has_a_body and not self.reads


async def answer_as_asked(request: Request) -> Response:
    number, _, wishes = request.url.rpartition("/")[2].partition("?")
    body = await request.bytes() if "reads" in wishes else b""
    headers = {"X-Number": number}
    if "nothing" in wishes:
        return Response(status=204, headers=headers)
    if "bytes" in wishes:
        return Response(body, headers=headers)

    async def pieces() -> AsyncGenerator[bytes]:
        for byte in body:
            yield bytes([byte])

    return Response(pieces(), headers=headers)


asked = st.builds(
    Asked,
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT"]),
    body=st.none() | st.binary(max_size=40),
    in_chunks=st.booleans(),
    reads=st.booleans(),
    answers=st.sampled_from(["nothing", "bytes", "pieces"]),
)


def check(request: Asked, number: int, got: Answer) -> None:
    """Check that this is the response to this request."""
    assert got.headers["x-number"] == str(number)
    assert got.complete
    if request.answers == "nothing":
        assert (got.status, got.body) == (204, b"")
    else:
        expected = b"" if request.method == "HEAD" else request.bytes_read
        assert (got.status, got.body) == (200, expected)


@given(
    st.lists(asked, min_size=1, max_size=6),
    st.lists(st.integers(0, 2000), max_size=8),
)
@settings(max_examples=120, deadline=None)
def test_in_any_pieces_each_request_gets_its_response(
    requests: list[Asked], places: list[int]
) -> None:
    data = b"".join(request.as_bytes(i) for i, request in enumerate(requests))
    edges = sorted({0, len(data), *(place % len(data) for place in places)})
    pieces = [data[a:b] for a, b in pairwise(edges)]
    heard = run(lambda: converse(answer_as_asked, *pieces))
    answered = requests[: heard.count(b"X-Number: ")]
    answers = parse_answers(heard, *[request.method for request in answered])
    for number, (request, got) in enumerate(zip(answered, answers, strict=True)):
        check(request, number, got)
        assert got.keeps_alive or request.may_be_the_last
    assert len(answers) == len(requests) or not answers[-1].keeps_alive


@given(
    st.lists(asked, min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=2)), min_size=1),
    st.integers(0, 2000),
)
@settings(max_examples=120, deadline=None)
def test_g12_with_any_wrong_bytes_the_connection_ends_without_failures(
    requests: list[Asked], wrong: list[tuple[int, bytes]], place: int
) -> None:
    data = b"".join(request.as_bytes(i) for i, request in enumerate(requests))
    for number, what in wrong:
        where = number % len(data)
        data = data[:where] + what + data[where + 1 :] or b"?"
    place %= len(data)
    with TestCase().assertNoLogs("trio_wspair", "WARNING"):
        heard = run(lambda: converse(answer_as_asked, data[:place], data[place:]))
    assert b"HTTP/1.1 500 " not in heard


@given(st.binary(max_size=200), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_g12_good_requests_get_responses_whatever_follows_them(
    rest: bytes, count: int
) -> None:
    heard = run(
        lambda: converse(echo_path, request_bytes("GET", "/good") * count + rest)
    )
    assert heard.count(b"\r\n\r\n/good") == count

"""Waiting for the body of a request: deadlines, and 100 Continue."""

import pytest
import trio
import trio.testing
from handlers import echo_body, ignore_body
from memory_server import (
    Fetch,
    answer_to,
    chunked,
    converse,
    parse_answers,
    read_all,
    request_bytes,
    served,
)

from trio_wspair import Request, RequestBodyError, Response

CHUNKED = "Transfer-Encoding: chunked"
EXPECT = "Expect: 100-continue"


# -- deadlines ---------------------


async def test_a_body_that_stops_coming_is_a_408(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served(echo_body, body_timeout=7.0) as client:
        await client.send_all(request_bytes("POST", body=b"abcde")[:-1])
        answer = bytes(await client.receive_some())
        assert trio.current_time() == pytest.approx(7)
        got = parse_answers(answer, "POST")[0]
        assert (got.status, got.keeps_alive) == (408, False)
        assert got.body == (
            b"the body of the request has arrived too slowly: 4 bytes in 7 s\n"
        )
        await client.aclose()


async def test_each_piece_of_a_body_has_the_time_limit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served(echo_body, body_timeout=7.0, min_body_rate=0) as client:
        await client.send_all(request_bytes("POST", "/", "Content-Length: 10"))
        for _ in range(10):
            await trio.sleep(6)
            await client.send_all(b"x")
        await client.send_eof()
        assert parse_answers(await read_all(client))[0].body == b"x" * 10


DRIPS = {
    "a byte at a time": b"x",
    "chunks of a byte": b"1\r\nx\r\n",
    "an endless chunk extension": b";",
    "endless trailers": b"A: b\r\n",
}


@pytest.mark.parametrize("drip", DRIPS.values(), ids=DRIPS)
async def test_a_body_has_a_lowest_rate(
    drip: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    how = "Content-Length: 1000" if drip == b"x" else CHUNKED
    start = {b";": b"1", b"A: b\r\n": b"0\r\n"}.get(drip, b"")
    async with served(echo_body, body_timeout=7.0, min_body_rate=2) as client:
        await client.send_all(request_bytes("POST", "/", how) + start)
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012 - until it is refused
            while True:
                await trio.sleep(1)
                await client.send_all(drip)
        got = parse_answers(bytes(await client.receive_some()), "POST")[0]
        assert (got.status, got.keeps_alive) == (408, False)
        assert trio.current_time() <= 7 + 14 + 5 + 1  # Then the server lingers.
        await client.aclose()


async def test_a_body_at_its_lowest_rate_arrives(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served(echo_body, body_timeout=7.0, min_body_rate=2) as client:
        await client.send_all(request_bytes("POST", "/", "Content-Length: 100"))
        for _ in range(50):
            await client.send_all(b"xx")
            await trio.sleep(1)
        await client.send_eof()
        assert parse_answers(await read_all(client))[0].body == b"x" * 100


async def test_the_time_in_which_a_handler_does_not_read_does_not_count(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def fetch(request: Request) -> Response:
        await trio.sleep(1000)
        return Response(await request.bytes())

    async with served(fetch, body_timeout=7.0, min_body_rate=2) as client:
        await client.send_all(request_bytes("POST", "/", "Content-Length: 10"))
        await trio.sleep(1001)
        await client.send_all(b"x" * 10)
        await client.send_eof()
        assert parse_answers(await read_all(client))[0].body == b"x" * 10


async def test_a_body_that_came_too_slowly_stays_unreadable(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def fetch(request: Request) -> Response:
        for _ in range(3):
            with pytest.raises(RequestBodyError) as caught:
                await request.bytes()
            assert caught.value.status == 408
        assert trio.current_time() == pytest.approx(7)
        return Response("never mind")

    async with served(fetch, body_timeout=7.0) as client:
        await client.send_all(request_bytes("POST", body=b"abcde")[:-1])
        got = parse_answers(await read_all(client), "POST")[0]
    assert (got.body, got.keeps_alive) == (b"never mind", False)


async def test_time_that_a_handler_takes_before_reading_does_not_count(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def fetch(request: Request) -> Response:
        await trio.sleep(1000)
        return Response(await request.bytes())

    assert (await answer_to(fetch, request_bytes("POST", body=b"abc"))).body == b"abc"


# -- 100 Continue ---------------------


async def interim_and_rest(fetch: Fetch, *headers: str) -> tuple[bytes, bytes]:
    """Wait for the response to a head, then send the body; return both responses."""
    async with served(fetch, max_body_bytes=100) as client:
        await client.send_all(request_bytes("POST", "/", EXPECT, *headers))
        first = bytes(await client.receive_some())
        if first.startswith(b"HTTP/1.1 100 "):
            await client.send_all(b"abc" if CHUNKED not in headers else chunked(b"abc"))
        await client.send_eof()
        return first, await read_all(client)


@pytest.mark.parametrize("header", ["Content-Length: 3", CHUNKED])
async def test_a_waiting_client_gets_100_when_the_handler_reads(
    header: str,
) -> None:
    first, rest = await interim_and_rest(echo_body, header)
    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    got = parse_answers(rest, "POST")[0]
    assert (got.status, got.body, got.keeps_alive) == (200, b"abc", True)


async def test_a_client_gets_100_only_once() -> None:
    async def fetch(request: Request) -> Response:
        await request.text()
        return Response(await request.bytes())

    data = await converse(
        fetch, request_bytes("POST", "/", EXPECT, "Content-Length: 3"), b"a", b"b", b"c"
    )
    (got,) = parse_answers(data, "POST")
    assert (got.interim, got.body) == ([100], b"abc")


async def test_a_client_that_does_not_wait_gets_no_100() -> None:
    for request in (
        request_bytes("POST", body=b"abc"),
        request_bytes("POST", "/", EXPECT, body=b"abc"),
        request_bytes("POST", "/", EXPECT, body=b""),
        request_bytes("POST", "/", EXPECT, CHUNKED) + chunked(b"abc"),
    ):
        assert (await answer_to(echo_body, request)).interim == []


async def test_a_client_of_http_1_0_gets_no_100() -> None:
    head = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    got = await answer_to(echo_body, head, b"abc")
    assert (got.interim, got.body) == ([], b"abc")


async def test_an_unread_body_is_not_asked_for() -> None:
    first, rest = await interim_and_rest(ignore_body, "Content-Length: 3")
    got = parse_answers(first, "POST")[0]
    assert (got.status, got.keeps_alive, got.interim) == (200, False, [])
    assert rest == b""


async def test_a_body_that_is_too_large_is_not_asked_for() -> None:
    first, rest = await interim_and_rest(echo_body, "Content-Length: 101")
    assert parse_answers(first, "POST")[0].status == 413
    assert rest == b""


async def test_a_refused_request_gets_no_100() -> None:
    first, rest = await interim_and_rest(echo_body, "Content-Length: 3", "Host: again")
    assert parse_answers(first, "POST")[0].status == 400
    assert rest == b""


async def test_a_request_after_one_with_100_gets_its_response() -> None:
    request = request_bytes("POST", "/", EXPECT, "Content-Length: 3")
    data = await converse(echo_body, request, b"abc", request, b"def" + request_bytes())
    answers = parse_answers(data, "POST", "POST", "GET")
    assert [got.interim for got in answers] == [[100], [100], []]
    assert [got.body for got in answers] == [b"abc", b"def", b""]

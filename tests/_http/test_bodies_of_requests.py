"""The bodies of requests: lengths, chunks, reading, limits, and errors."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from itertools import pairwise

import pytest
import trio
import trio.testing
from handlers import echo_body, ignore_body
from hypothesis import given, settings, strategies as st
from memory_server import (
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

from trio_wspair import Request, RequestBodyError, Response

CHUNKED = "Transfer-Encoding: chunked"
EXPECT = "Expect: 100-continue"


# -- reading ---------------------


async def test_a_body_by_length_is_read_whole() -> None:
    assert (
        await answer_to(echo_body, request_bytes("POST", body=b"some\0data"))
    ).body == (b"some\0data")


async def test_a_body_in_chunks_is_read_whole() -> None:
    request = request_bytes("PUT", "/", CHUNKED)
    got = await answer_to(echo_body, request + chunked(b"some", b"\0", b"data" * 500))
    assert got.body == b"some\0" + b"data" * 500


async def test_chunks_may_have_extensions_and_trailers() -> None:
    chunks = b"3;a=b\r\nabc\r\n0A;x\r\n0123456789\r\n000\r\nX-Sum: 5\r\n\r\n"
    got = await answer_to(echo_body, request_bytes("POST", "/", CHUNKED) + chunks)
    assert got.body == b"abc0123456789"


async def test_a_body_may_come_byte_by_byte() -> None:
    for request in (
        request_bytes("POST", body=b"abc"),
        request_bytes("POST", "/", CHUNKED) + chunked(b"a", b"bc"),
    ):
        pieces = [bytes([byte]) for byte in request]
        (got,) = parse_answers(await converse(echo_body, *pieces), "POST")
        assert (got.status, got.body) == (200, b"abc")


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "POST"])
async def test_a_request_without_a_body_has_an_empty_one(method: str) -> None:
    bodies: list[bytes] = []

    async def fetch(request: Request) -> Response:
        bodies.append(await request.bytes())
        return Response()

    assert (await answer_to(fetch, request_bytes(method))).status == 200
    assert (await answer_to(fetch, request_bytes(method, body=b""))).status == 200
    assert bodies == [b"", b""]


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "BREW"])
async def test_every_method_may_have_a_body(method: str) -> None:
    assert (await answer_to(echo_body, request_bytes(method, body=b"x"))).body == b"x"


async def test_a_body_can_be_read_several_times() -> None:
    results: list[object] = []

    async def fetch(request: Request) -> Response:
        results.extend([await request.bytes(), await request.bytes()])
        results.extend([await request.text(), await request.json()])
        return Response()

    await answer_to(fetch, request_bytes("POST", body=b'{"a": [1, "\xe2\x82\xac"]}'))
    raw = b'{"a": [1, "\xe2\x82\xac"]}'
    assert results == [raw, raw, raw.decode(), {"a": [1, "\N{EURO SIGN}"]}]


async def test_tasks_that_read_at_once_get_the_same_body() -> None:
    results: list[bytes] = []

    async def fetch(request: Request) -> Response:
        async def read() -> None:
            results.append(await request.bytes())

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(read)
        return Response()

    first, second = request_bytes("POST", body=b"a")[:-1], b"a"
    assert (await answer_to(fetch, first, second)).status == 200
    assert results == [b"a"] * 3


@pytest.mark.parametrize("way", [Request.bytes, Request.text, Request.json])
async def test_reading_a_body_is_always_a_checkpoint(
    way: Callable[[Request], Awaitable[object]],
) -> None:
    async def fetch(request: Request) -> Response:
        for _ in range(2):
            with trio.testing.assert_checkpoints():
                await way(request)
        return Response()

    assert (await answer_to(fetch, request_bytes("POST", body=b"1"))).status == 200
    assert (await answer_to(fetch, request_bytes("POST", body=b"1"))).status == 200


async def test_g5_a_cancelled_reader_loses_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def fetch(request: Request) -> Response:
        with trio.move_on_after(5) as patience:
            await request.bytes()
        assert patience.cancelled_caught
        return Response(await request.bytes())

    async with served(fetch) as client:
        await client.send_all(request_bytes("POST", body=b"12345678")[:-4])
        await trio.sleep(10)
        await client.send_all(b"5678")
        await client.send_eof()
        assert parse_answers(await read_all(client))[0].body == b"12345678"


async def test_a_body_may_be_read_while_the_response_is_being_sent() -> None:
    async def fetch(request: Request) -> Response:
        async def shout() -> AsyncGenerator[bytes]:
            yield b"you said: "
            yield (await request.bytes()).upper()

        return Response(shout())

    whole = request_bytes("POST", body=b"hello")
    for pieces in ([whole], [whole[:-2], whole[-2:]], [whole[:-5], b"hello"]):
        got = await answer_to(fetch, *pieces)
        assert (got.body, got.complete) == (b"you said: HELLO", True)


async def test_a_finished_request_keeps_its_own_body() -> None:
    requests: list[Request] = []

    async def fetch(request: Request) -> Response:
        requests.append(request)
        bodies = [await request.bytes() for request in requests]
        return Response(b", ".join(bodies))

    async def fetch_unread(request: Request) -> Response:
        requests.append(request)
        return Response(b", ".join([await r.bytes() for r in requests[1:]]))

    data = b"".join(
        request_bytes("POST", body=body) for body in (b"one", b"two", b"three")
    )
    answers = parse_answers(await converse(fetch, data), *["POST"] * 3)
    assert [got.body for got in answers] == [b"one", b"one, two", b"one, two, three"]
    requests.clear()
    answers = parse_answers(await converse(fetch_unread, data), *["POST"] * 3)
    assert [got.body for got in answers] == [b"", b"two", b"two, three"]
    assert await requests[0].bytes() == b"one"


async def test_reading_after_the_end_of_the_connection_raises_request_body_error() -> (
    None
):
    requests: list[Request] = []

    async def fetch(request: Request) -> Response:
        requests.append(request)
        return Response()

    got = await answer_to(fetch, request_bytes("POST", body=b"abc")[:-1])
    assert not got.keeps_alive
    for _ in range(2):
        with pytest.raises(RequestBodyError, match="is not valid") as caught:
            await requests[0].bytes()
        assert caught.value.status == 400


# -- text and JSON ---------------------


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", ""),
        (b"gr\xc3\xbc\xc3\x9f dich", "grüß dich"),
        (b"\xef\xbb\xbfmark", "mark"),
        (b"bad \xff byte", "bad \N{REPLACEMENT CHARACTER} byte"),
        (b"\xff\xfea\0", "\N{REPLACEMENT CHARACTER}" * 2 + "a\0"),
    ],
    ids=ascii,
)
async def test_text_is_utf_8_without_its_byte_order_mark(
    body: bytes, text: str
) -> None:
    texts: list[str] = []

    async def fetch(request: Request) -> Response:
        texts.append(await request.text())
        return Response()

    await answer_to(fetch, request_bytes("POST", body=body))
    assert texts == [text]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nonsense", b"\xff", b"[" * 90_000, b"1" * 5000, b'{"a": 1}}'],
    ids=lambda body: f"{body[:8]!r}",
)
async def test_g12_invalid_json_is_a_value_error(body: bytes) -> None:
    async def fetch(request: Request) -> Response:
        with pytest.raises(ValueError, match=r".") as caught:
            await request.json()
        assert await request.bytes() == body
        return Response(type(caught.value).__name__)

    assert (await answer_to(fetch, request_bytes("POST", body=body))).status == 200


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
@settings(max_examples=30, deadline=None)
def test_json_of_a_client_arrives_and_comes_back(data: object) -> None:
    async def fetch(request: Request) -> Response:
        return Response.json(await request.json())

    body = json.dumps(data).encode()
    got = run(lambda: answer_to(fetch, request_bytes("POST", body=body)))
    assert json.loads(got.body) == data


# -- larger than allowed ---------------------


@pytest.mark.parametrize("size", [100, 101], ids=["as large", "larger"])
@pytest.mark.parametrize("way", ["length", "chunks", "one chunk"])
async def test_a_body_may_be_as_large_as_allowed_and_a_larger_one_gets_413(
    size: int, way: str
) -> None:
    if way == "length":
        request = request_bytes("POST", body=bytes(size))
    elif way == "one chunk":
        request = request_bytes("POST", "/", CHUNKED) + chunked(bytes(size))
    else:
        request = request_bytes("POST", "/", CHUNKED) + chunked(*[b"x"] * size)
    got = await answer_to(echo_body, request, max_body_bytes=100)
    if size == 100:
        assert (got.status, len(got.body)) == (200, 100)
    else:
        assert got.status == 413
        assert got.body == b"the body of a request has more than 100 bytes\n"


async def test_a_limit_of_0_lets_empty_bodies_pass() -> None:
    assert (
        await answer_to(echo_body, request_bytes("GET"), max_body_bytes=0)
    ).status == 200
    post = request_bytes("POST", body=b"x")
    assert (await answer_to(echo_body, post, max_body_bytes=0)).status == 413


async def test_g12_a_body_whose_length_is_too_large_is_refused_before_it_comes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served(echo_body, max_body_bytes=100) as client:
        await client.send_all(
            request_bytes("POST", "/", "Content-Length: 99999999999999999999")
        )
        got = parse_answers(await read_all(client), "POST")[0]
    assert trio.current_time() < 10, "only the end of the client was waited for"
    assert (got.status, got.keeps_alive) == (413, False)


async def test_g12_chunks_without_end_are_read_no_further_than_the_limit() -> None:
    heard: list[bytes] = []
    sent = 0
    async with (
        served(echo_body, max_body_bytes=10_000) as client,
        trio.open_nursery() as nursery,
    ):

        async def listen() -> None:
            heard.append(bytes(await client.receive_some()))

        nursery.start_soon(listen)
        await client.send_all(request_bytes("POST", "/", CHUNKED))
        while not heard:
            await client.send_all(b"3e8\r\n" + bytes(1000) + b"\r\n")
            sent += 1
            await trio.testing.wait_all_tasks_blocked()
    assert parse_answers(heard[0])[0].status == 413
    assert sent == 11


@pytest.mark.parametrize(
    "endless",
    [b"1;" + b"x" * 1000, b"0\r\n" + b"X: y\r\n" * 200, b"000000" * 200],
    ids=["an extension", "trailers", "a size"],
)
async def test_g12_chunk_headers_and_trailers_are_bounded(endless: bytes) -> None:
    rest = endless.partition(b"\r\n")[2] or endless[2:]
    more = [rest * 100 for _ in range(10)]
    got = await answer_to(
        echo_body, request_bytes("POST", "/", CHUNKED) + endless, *more
    )
    assert (got.status, got.keeps_alive) == (400, False)


# -- broken ---------------------


@pytest.mark.parametrize(
    "chunks",
    [
        *(b"x\r\n", b"-1\r\na\r\n", b"+1\r\na\r\n", b"0x1\r\na\r\n", b" 1\r\na\r\n"),
        *(
            b"1 1\r\na\r\n",
            b"\r\n",
            b"1\r\nab\r\n",
            b"2\r\nab0\r\n",
            b"1\r\na\r\r0\r\n",
        ),
        *(b"1" * 21 + b"\r\n", b"1_0\r\n", b"\xb2\r\n", b"0\r\n: x\r\n\r\n"),
    ],
    ids=ascii,
)
async def test_g12_bad_chunks_get_400_and_end_the_connection(chunks: bytes) -> None:
    request = request_bytes("POST", "/", CHUNKED) + chunks + request_bytes()
    got = await answer_to(echo_body, request)
    assert (got.status, got.keeps_alive) == (400, False)
    assert got.body.startswith(b"the body of the request is not valid: ")


@pytest.mark.parametrize("chunks", [b"x\r\n", b"1\r\nab\r\n"])
async def test_g12_unread_bad_chunks_end_the_connection(
    chunks: bytes,
) -> None:
    request = request_bytes("POST", "/", CHUNKED) + chunks + request_bytes()
    got = await answer_to(ignore_body, request)
    assert (got.status, got.keeps_alive) == (200, False)


@pytest.mark.parametrize(
    "request_",
    [
        request_bytes("POST", body=b"abc")[:-1],
        request_bytes("POST", "/", CHUNKED) + chunked(b"abc")[:-1],
    ],
    ids=["by length", "in chunks"],
)
async def test_an_incomplete_body_is_a_400(request_: bytes) -> None:
    got = await answer_to(echo_body, request_)
    assert (got.status, got.keeps_alive) == (400, False)


async def test_a_client_that_leaves_within_its_body_causes_no_error(
    logged: Logged,
) -> None:
    for headers in ([], [EXPECT]):
        async with served(echo_body) as client:
            await client.send_all(
                request_bytes("POST", "/", *headers, "Content-Length: 3")
            )
            await client.aclose()
        async with served(echo_body) as client:
            await client.send_all(
                request_bytes("POST", "/", *headers, "Content-Length: 3")
            )
            await trio.testing.wait_all_tasks_blocked()
            await client.aclose()


# -- errors in a handler ---------------------


async def test_an_error_of_the_body_can_be_caught() -> None:
    errors: list[RequestBodyError] = []

    async def fetch(request: Request) -> Response:
        for _ in range(2):
            with pytest.raises(RequestBodyError) as caught:
                await request.bytes()
            errors.append(caught.value)
        return Response("too much for me", status=418)

    got = await answer_to(fetch, request_bytes("POST", body=b"12345"), max_body_bytes=4)
    assert (got.status, got.body) == (418, b"too much for me")
    assert [error.status for error in errors] == [413, 413]


async def test_an_uncaught_error_of_the_body_is_not_a_500(
    logged: Logged,
) -> None:
    async def fetch(request: Request) -> Response:
        return Response(await request.json())

    got = await answer_to(fetch, request_bytes("POST", body=b"12345"), max_body_bytes=4)
    assert (got.status, got.keeps_alive) == (413, True)
    # The body has come whole, and nothing was logged.


async def test_an_unread_body_is_skipped_if_it_has_come() -> None:
    post = request_bytes("POST", body=b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n")
    chunks = request_bytes("POST", "/", CHUNKED) + chunked(b"abc", b"de")
    answers = parse_answers(
        await converse(ignore_body, post + chunks + request_bytes()),
        "POST",
        "POST",
        "GET",
    )
    assert [got.status for got in answers] == [200, 200, 200]


async def test_an_unread_body_that_is_incomplete_ends_the_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    for whole in (
        request_bytes("POST", body=b"abcde"),
        request_bytes("POST", "/", CHUNKED) + chunked(b"abc"),
    ):
        async with served(ignore_body) as client:
            await client.send_all(whole[:-2])
            await trio.sleep(1)
            await client.send_all(whole[-2:] + request_bytes("GET", "/evil"))
            await client.send_eof()
            got = parse_answers(await read_all(client), "POST")[0]
        assert (got.status, got.keeps_alive) == (200, False)


# -- in any pieces ---------------------


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % len(data) for place in places)})
    return [data[a:b] for a, b in pairwise(edges)]


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=30), max_size=4),
    places=st.lists(st.integers(0, 1000), max_size=6),
    in_chunks=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_a_body_arrives_in_any_pieces(
    pieces: list[bytes], places: list[int], *, in_chunks: bool
) -> None:
    body = b"".join(pieces)
    if in_chunks:
        request = request_bytes("POST", "/", CHUNKED) + chunked(*pieces)
    else:
        request = request_bytes("POST", body=body)

    async def play() -> bytes:
        return await converse(echo_body, *cut(request + request_bytes(), places))

    first, second = parse_answers(run(play), "POST", "GET")
    assert (first.body, second.body) == (body, b"")

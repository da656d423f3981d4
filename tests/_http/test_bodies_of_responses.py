"""Bodies of responses that are sent in pieces, and their errors."""

import gc
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from handlers import endless_body
from memory_server import (
    Fetch,
    answer_to,
    converse,
    parse_answers,
    request_bytes,
    served,
)
from network import Logged

from trio_wspair import Request, Response


def streaming(*pieces: Any, headers: dict[str, str] | None = None) -> Fetch:
    """Return a handler that responds with these pieces."""

    async def fetch(request: Request) -> Response:
        async def body() -> AsyncGenerator[Any]:
            for piece in pieces:
                yield piece

        return Response(body(), headers=headers or {})

    return fetch


# -- sending ---------------------


async def test_pieces_are_sent_in_chunks_and_the_connection_is_kept() -> None:
    data = await converse(streaming("a", b"bc"), request_bytes() + request_bytes())
    assert b"\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n" in data
    for got in parse_answers(data, "GET", "GET"):
        assert (got.status, got.body, got.complete, got.keeps_alive) == (
            *(200, b"abc"),
            *(True, True),
        )
        assert got.headers["transfer-encoding"] == "chunked"
        assert "content-length" not in got.headers
        assert "content-type" not in got.headers


async def test_text_is_sent_as_utf_8() -> None:
    got = await answer_to(streaming("grüß", " dich", "\ud800"), request_bytes())
    assert got.body.decode() == "grüß dich\N{REPLACEMENT CHARACTER}"


async def test_an_empty_piece_does_not_end_the_body() -> None:
    got = await answer_to(streaming("", b"", "a", "", b"b", b""), request_bytes())
    assert (got.body, got.complete) == (b"ab", True)


@pytest.mark.parametrize("pieces", [(), ("",)], ids=["no piece", "an empty one"])
async def test_a_body_may_be_empty(pieces: tuple[str, ...]) -> None:
    got = await answer_to(streaming(*pieces), request_bytes())
    assert (got.status, got.body, got.complete) == (200, b"", True)


async def test_each_piece_is_sent_when_it_comes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def fetch(request: Request) -> Response:
        async def body() -> AsyncGenerator[str]:
            await trio.sleep(100)
            yield "one"
            await trio.sleep(100)
            yield "two"

        return Response(body())

    async with served(fetch) as client:
        await client.send_all(request_bytes())
        heard = [(trio.current_time(), bytes(await client.receive_some()))]
        assert b"200 OK" in heard.pop()[1]
        assert await client.receive_some() == b"3\r\none\r\n"
        assert trio.current_time() == pytest.approx(100)
        assert await client.receive_some() == b"3\r\ntwo\r\n"
        assert trio.current_time() == pytest.approx(200)


async def test_a_large_piece_arrives_whole() -> None:
    piece = bytes(range(256)) * 4096
    got = await answer_to(streaming("<", piece, ">"), request_bytes())
    assert got.body == b"<" + piece + b">"


async def test_a_length_of_the_handler_is_not_sent() -> None:
    fetch = streaming("abc", headers={"Content-Length": "2", "X-Name": "a"})
    got = await answer_to(fetch, request_bytes())
    assert got.body == b"abc"
    assert "content-length" not in got.headers
    assert got.headers["x-name"] == "a"


async def test_empty_pieces_do_not_starve_other_tasks() -> None:
    log: list[str] = []

    async def fetch(request: Request) -> Response:
        async def body() -> AsyncGenerator[str]:
            for _ in range(10_000):
                yield ""
            log.append("exhausted")

        return Response(body())

    async with trio.open_nursery() as nursery:

        async def count() -> None:
            for _ in range(100):
                await trio.lowlevel.checkpoint()
            log.append("counted")

        nursery.start_soon(count)
        await answer_to(fetch, request_bytes())
    assert log == ["counted", "exhausted"]


# -- sources ---------------------


class Countdown:
    """An async iterable that isn't a generator."""

    def __init__(self) -> None:
        self.left = 3

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        return str(self.left)


async def test_any_async_iterable_may_be_a_body() -> None:
    async def fetch(request: Request) -> Response:
        return Response(Countdown())

    assert (await answer_to(fetch, request_bytes())).body == b"210"


async def test_tasks_of_the_handler_may_feed_a_body(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ends: list[str] = []

    async def fetch(request: Request) -> Response:
        send, receive = trio.open_memory_channel[str](0)

        async def feed() -> None:
            async with send:
                for number in range(3):
                    await trio.sleep(10)
                    await send.send(f"{number},")

        async def live() -> None:
            try:
                await trio.sleep_forever()
            finally:
                ends.append(f"cancelled at {trio.current_time():.0f}")

        request.nursery.start_soon(feed)
        request.nursery.start_soon(live)
        return Response(receive)

    start = trio.current_time()
    assert (await answer_to(fetch, request_bytes())).body == b"0,1,2,"
    assert ends == [f"cancelled at {start + 30:.0f}"]


async def test_the_generator_is_closed_before_the_next_request(
    autojump_clock: trio.testing.MockClock,
) -> None:
    log: list[str] = []

    async def fetch(request: Request) -> Response:
        log.append(f"asked {request.path}")

        async def body() -> AsyncGenerator[str]:
            try:
                yield "x"
            finally:
                await trio.sleep(10)
                log.append(f"closed {request.path}")

        return Response(body())

    await converse(fetch, request_bytes("GET", "/1") + request_bytes("GET", "/2"))
    assert log == ["asked /1", "closed /1", "asked /2", "closed /2"]


# -- requests without chunks ---------------------


async def test_a_head_request_gets_the_head_and_the_body_is_not_started() -> None:
    log: list[str] = []

    async def fetch(request: Request) -> Response:
        async def body() -> AsyncGenerator[str]:
            log.append(request.method)
            yield "x"

        return Response(body())

    data = await converse(fetch, request_bytes("HEAD") + request_bytes("GET"))
    head, get = parse_answers(data, "HEAD", "GET")
    assert (head.status, head.body, get.body) == (200, b"", b"x")
    del head.headers["date"], get.headers["date"]
    assert head.headers == get.headers
    assert log == ["GET"]
    gc.collect()  # No generator is left that would warn.


async def test_http_1_0_gets_pieces_without_chunks_and_then_the_end() -> None:
    data = await converse(streaming("a", "", b"bc"), b"GET / HTTP/1.0\r\n\r\n")
    assert data.endswith(b"\r\n\r\nabc")
    (got,) = parse_answers(data)
    assert (got.body, got.complete, got.keeps_alive) == (b"abc", True, False)
    assert "transfer-encoding" not in got.headers


# -- failures ---------------------


@pytest.mark.parametrize("piece", [5, None, ["x"], bytearray(b"x")], ids=repr)
async def test_a_piece_of_another_type_aborts_the_response_and_is_logged(
    piece: object, logged: Logged
) -> None:
    got = await answer_to(streaming("a", piece, "b"), request_bytes())
    assert (got.body, got.complete) == (b"a", False)
    record = logged.take()
    assert (
        f"a piece of a body must be str or bytes, not {type(piece).__name__}" in record
    )
    assert "GET /" in record
    assert "Traceback" in record


@pytest.mark.parametrize("after", ["", "some"], ids=["at once", "in the middle"])
@pytest.mark.parametrize(
    "error",
    [KeyError("secret"), trio.BrokenResourceError("secret"), ValueError("secret")],
    ids=lambda error: type(error).__name__,
)
async def test_g7_a_failing_body_aborts_the_response_and_is_logged(
    after: str, error: Exception, logged: Logged
) -> None:
    async def fetch(request: Request) -> Response:
        async def body() -> AsyncGenerator[str]:
            yield after
            raise error

        return Response(body())

    data = await converse(fetch, request_bytes() + request_bytes())
    (got,) = parse_answers(data)
    assert (got.status, got.body, got.complete) == (200, after.encode(), False)
    assert b"secret" not in data
    record = logged.take()
    assert "handling GET / failed" in record
    assert type(error).__name__ in record
    assert "secret" in record
    assert "Traceback" in record


async def test_g7_a_failing_task_aborts_the_response_and_is_logged(
    logged: Logged,
) -> None:
    closed: list[str] = []

    async def fetch(request: Request) -> Response:
        async def fail() -> None:
            await trio.testing.wait_all_tasks_blocked()
            raise KeyError("secret")

        request.nursery.start_soon(fail)
        return Response(endless_body(closed))

    data = await converse(fetch, request_bytes())
    (got,) = parse_answers(data)
    assert (got.body, got.complete, closed) == (b"some", False, ["closed"])
    assert "KeyError: 'secret'" in logged.take()
    assert b"secret" not in data


async def test_a_body_that_cancels_its_own_nursery_is_aborted() -> None:
    async def fetch(request: Request) -> Response:
        async def body() -> AsyncGenerator[str]:
            yield "some"
            request.nursery.cancel_scope.cancel()
            await trio.sleep_forever()

        return Response(body())

    got = await answer_to(fetch, request_bytes())
    assert (got.body, got.complete) == (b"some", False)


# -- clients that leave, or read nothing ---------------------


async def test_the_body_ends_when_the_client_has_gone(
    autojump_clock: trio.testing.MockClock, logged: Logged
) -> None:
    log: list[str] = []

    async def fetch(request: Request) -> Response:
        async def body() -> AsyncGenerator[str]:
            try:
                while True:
                    yield "tick"
                    await trio.sleep(1)
            finally:
                log.append("closed")

        return Response(body())

    async with served(fetch) as client:
        await client.send_all(request_bytes())
        await trio.sleep(3.5)
        assert not log
        await client.aclose()
        await trio.sleep(1)
        assert log == ["closed"]


async def test_the_body_ends_when_the_client_reads_nothing(
    autojump_clock: trio.testing.MockClock, logged: Logged
) -> None:
    log: list[float] = []

    async def fetch(request: Request) -> Response:
        async def body() -> AsyncGenerator[str]:
            try:
                while True:
                    yield "x" * 1000
            finally:
                log.append(trio.current_time())

        return Response(body())

    streams = trio.testing.lockstep_stream_pair()
    async with served(
        fetch, streams=streams, body_timeout=7.0, min_body_rate=0
    ) as client:
        await client.send_all(request_bytes())
        for _ in range(5):
            await trio.sleep(6)
            assert await client.receive_some()
        since = trio.current_time()
        await trio.sleep(20)
        assert log == [pytest.approx(since + 7)]


@pytest.mark.parametrize("silent", [0, 100])
async def test_a_client_that_reads_at_a_drip_is_dropped(
    autojump_clock: trio.testing.MockClock, silent: float
) -> None:
    ended: list[float] = []

    async def fetch(request: Request) -> Response:
        async def body() -> AsyncGenerator[str]:
            try:
                yield "x" * 100
                await trio.sleep(silent)  # The time of the handler does not count.
                while True:
                    yield "x" * 100
            finally:
                ended.append(trio.current_time())

        return Response(body())

    streams = trio.testing.lockstep_stream_pair()
    async with served(
        fetch, streams=streams, body_timeout=7.0, min_body_rate=100
    ) as client:
        await client.send_all(request_bytes())
        while not ended:
            await client.receive_some(40)
            await trio.sleep(1)
        assert silent + 7 < ended[0] < silent + 40


@pytest.mark.parametrize("in_pieces", [False, True], ids=["bytes", "one piece"])
async def test_a_slow_client_has_the_time_limit_for_each_part_of_a_large_piece(
    autojump_clock: trio.testing.MockClock, *, in_pieces: bool
) -> None:
    large = bytes(2**20)

    async def fetch(request: Request) -> Response:
        async def body() -> AsyncGenerator[bytes]:
            yield large

        return Response(body() if in_pieces else large)

    streams = trio.testing.lockstep_stream_pair()
    async with served(fetch, streams=streams, body_timeout=7.0) as client:
        await client.send_all(request_bytes("GET", "/", "Connection: close"))
        data = bytearray()
        while more := await client.receive_some(2**14):
            data += more
            await trio.sleep(1)
        assert trio.current_time() > 60
    assert parse_answers(bytes(data))[0].body == large


async def test_the_body_ends_when_the_server_stops(
    autojump_clock: trio.testing.MockClock,
) -> None:
    log: list[str] = []

    async def fetch(request: Request) -> Response:
        return Response(endless_body(log))

    async with trio.open_nursery() as nursery, served(fetch) as client:
        await client.send_all(request_bytes())
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert log == ["closed"]

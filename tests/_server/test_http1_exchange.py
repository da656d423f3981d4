"""One request over HTTP/1.1: failing handlers, proxies, and the access log."""

import logging
from collections.abc import AsyncGenerator

import pytest
import trio
import trio.testing
from handlers import echo_path, show_request
from memory_server import (
    UPGRADE,
    answer_to,
    chunked,
    converse,
    parse_answers,
    request_bytes,
    served,
)
from network import Logged

from trio_wspair import Request, RequestBodyError, Response, WebSocketPair

# -- handlers that fail ---------------------


class SecretError(Exception):
    """An error with a text that the client must not see."""


async def raises(request: Request) -> Response:
    word = "hunter2"
    raise SecretError(word)


async def raises_a_group(request: Request) -> Response:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raises, request)
    return Response("never")


async def raises_in_its_nursery(request: Request) -> Response:
    request.nursery.start_soon(raises, request)
    await trio.sleep_forever()
    return Response("never")


async def raises_after_reading(request: Request) -> Response:
    await request.bytes()
    return await raises(request)


async def raises_because_of_the_body(request: Request) -> Response:
    try:
        await request.json()
    except ValueError as exc:
        raise SecretError from exc
    return Response("never")


@pytest.mark.parametrize(
    "fetch",
    [
        raises,
        raises_a_group,
        raises_in_its_nursery,
        raises_after_reading,
        raises_because_of_the_body,
    ],
)
async def test_g7_a_failure_is_a_500_without_internals_and_logged_with_them(
    fetch: object, logged: Logged
) -> None:
    assert callable(fetch)
    data = await converse(fetch, request_bytes("POST", "/here?a=b", body=b"hunter2"))
    (got,) = parse_answers(data, "POST")
    assert (got.status, got.body) == (500, b"Internal Server Error\n")
    assert got.headers["content-type"] == "text/plain;charset=UTF-8"
    for word in (b"hunter2", b"Secret", b"Traceback", b".py"):
        assert word not in data
    record = logged.take()
    assert "handling POST /here failed" in record
    assert "Traceback (most recent call last)" in record
    assert "SecretError" in record


async def test_a_failure_is_logged_as_an_error_of_the_library(
    logged: Logged,
) -> None:
    await converse(raises, request_bytes())
    record = logged.records[0]
    assert (record.name, record.levelno) == ("trio_wspair", logging.ERROR)
    assert record.exc_info is not None
    logged.take()


async def test_a_response_that_cannot_be_sent_ends_the_connection_and_is_logged(
    logged: Logged,
) -> None:
    async def fetch(request: Request) -> Response:
        response = Response("fine")
        response.status = 7
        return response

    assert await converse(fetch, request_bytes() + request_bytes()) == b""
    assert "a connection has failed" in logged.take()


async def test_an_error_of_the_body_that_a_handler_raises_is_its_response(
    logged: Logged,
) -> None:
    async def fetch(request: Request) -> Response:
        raise RequestBodyError(415, "no such type here")

    got = await answer_to(fetch, request_bytes("POST", body=b"x"))
    assert (got.status, got.body, got.keeps_alive) == (
        415,
        b"no such type here\n",
        True,
    )


# -- the client and the URL ---------------------


@pytest.mark.parametrize(
    ("request_", "url"),
    [
        (request_bytes("GET", "/a?b=c%20d"), "http://test/a?b=c%20d"),
        (request_bytes("GET", "http://other:80/x"), "http://other:80/x"),
        (request_bytes("GET", "//evil/x"), "http://test//evil/x"),
        (request_bytes("OPTIONS", "*"), "http://test"),
        (b"GET /x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "http://[::1]:80/x"),
        (b"GET /x HTTP/1.0\r\n\r\n", "http://localhost/x"),
    ],
)
async def test_the_url_has_the_host_and_target_of_the_request(
    request_: bytes, url: str
) -> None:
    assert (await answer_to(show_request, request_)).body.decode() == f"- {url} False"


FORWARDED = (
    "X-Forwarded-For: 203.0.113.7, 198.51.100.3",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: example.com:8443",
)


async def test_headers_of_proxies_are_ignored_by_default() -> None:
    got = await answer_to(show_request, request_bytes("GET", "/x", *FORWARDED))
    assert got.body == b"- http://test/x False"


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        (FORWARDED, "198.51.100.3 https://example.com:8443/x True"),
        (FORWARDED[:1], "198.51.100.3 http://test/x False"),
        (FORWARDED[1:2], "- https://test/x True"),
        (FORWARDED[2:], "- http://example.com:8443/x False"),
        ((), "- http://test/x False"),
        (("X-Forwarded-For: 2001:db8::1",), "2001:db8::1 http://test/x False"),
        (("X-Forwarded-For: ::1", "X-Forwarded-For: ::2"), "::2 http://test/x False"),
        (
            ("X-Forwarded-For: ::1, ::2,", "X-Forwarded-For: "),
            "::2 http://test/x False",
        ),
        (("X-Forwarded-For: 192.0.2.1:1234",), "192.0.2.1 http://test/x False"),
        (("X-Forwarded-For: [2001:DB8::1]:1",), "2001:db8::1 http://test/x False"),
        (("X-Forwarded-For: 192.0.2.1, unknown",), "- http://test/x False"),
        (("X-Forwarded-For: \\x1b[31m",), "- http://test/x False"),
        (("X-Forwarded-Port: 8443",), "- http://test:8443/x False"),
        (("X-Forwarded-Port: 80",), "- http://test/x False"),
        (("Forwarded: for=192.0.2.1;host=evil",), "- http://test/x False"),
        (("X-Forwarded-For: ,",), "- http://test/x False"),
        (("X-Forwarded-Proto: HTTPS",), "- https://test/x True"),
        (("X-Forwarded-Proto: wss",), "- https://test/x True"),
        (("X-Forwarded-Proto: ws",), "- http://test/x False"),
        (("X-Forwarded-Proto: http, https",), "- https://test/x True"),
        (("X-Forwarded-Proto: ",), "- http://test/x False"),
        (("X-Forwarded-Host: a, b.example",), "- http://b.example/x False"),
    ],
)
async def test_headers_of_the_nearest_proxy_are_trusted_if_configured(
    headers: tuple[str, ...], shown: str
) -> None:
    # The client may send all but the last, which is the proxy's.
    request = request_bytes("GET", "/x", *headers)
    assert (
        await answer_to(show_request, request, proxy_headers=True)
    ).body.decode() == shown


# -- the access log ---------------------


@pytest.fixture
def access(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Keep the records of the access log."""
    caplog.set_level(logging.INFO, "trio_wspair.access")
    return caplog


async def test_each_request_is_a_line_in_the_access_log(
    access: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    async def fetch(request: Request) -> Response:
        await trio.sleep(0.25)
        if request.method == "POST":
            return Response(await request.bytes(), status=201)
        return Response("grüß dich")

    data = request_bytes("GET", "/a?b=c") + request_bytes("POST", "/d", body=b"xyz")
    await converse(fetch, data)
    assert access.messages == [
        '- "GET /a" 200, 11 bytes, 250.0 ms',
        '- "POST /d" 201, 3 bytes, 250.0 ms',
    ]
    assert {record.levelno for record in access.records} == {logging.INFO}


async def test_the_access_log_has_the_client_that_the_proxy_names(
    access: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    await converse(echo_path, request_bytes("GET", "/", *FORWARDED), proxy_headers=True)
    assert access.messages == ['198.51.100.3 "GET /" 200, 1 bytes, 0.0 ms']


async def test_a_failure_is_a_500_in_the_access_log(
    access: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
    logged: Logged,
) -> None:
    await converse(raises, request_bytes())
    assert access.messages[-1] == '- "GET /" 500, 22 bytes, 0.0 ms'
    logged.take()


async def test_a_body_that_is_too_large_is_a_413_in_the_access_log(
    access: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    await converse(
        raises_after_reading, request_bytes("POST", body=b"abc"), max_body_bytes=2
    )
    (line,) = access.messages
    assert line.startswith('- "POST /" 413, ')


async def test_a_streamed_response_is_a_line_when_it_has_ended(
    access: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    async def fetch(request: Request) -> Response:
        async def body() -> AsyncGenerator[str]:
            yield "some"
            await trio.sleep(2)
            assert not access.messages

        return Response(body())

    await converse(fetch, request_bytes())
    assert access.messages == ['- "GET /" 200, streamed, 2000.0 ms']


async def test_a_websocket_is_a_line_when_it_has_ended(
    access: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()

        async def talk() -> None:
            async for message in server:
                server.send(message)
                server.send(b"\0" * 10)

        request.nursery.start_soon(talk)
        return Response(None, status=101, web_socket=client)

    masked = b"\x81\x83\0\0\0\0abc"
    close = b"\x88\x82\0\0\0\0\x03\xe8"  # 1000
    async with served(fetch) as client:
        await client.send_all(request_bytes("GET", "/chat", *UPGRADE) + masked)
        await trio.sleep(1.5)
        assert not access.messages
        await client.send_all(masked + close)
        await client.send_eof()
        async for _ in client:
            pass
    (line,) = access.messages
    line, counts = line.split(" s, ")
    assert line == '- "GET /chat" 101, closed with 1000 after 1.5'
    assert counts == "2 messages (6 bytes) received, 4 messages (26 bytes) sent"


async def test_a_websocket_that_vanishes_is_closed_with_1006_in_the_log(
    access: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept()
        return Response(None, status=101, web_socket=client)

    async with served(fetch) as client:
        await client.send_all(request_bytes("GET", "/chat", *UPGRADE))
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
    assert "101, closed with 1006 after" in access.messages[-1]


async def test_a_request_cannot_add_a_line_to_the_access_log(
    access: pytest.LogCaptureFixture,
) -> None:
    await converse(
        echo_path, request_bytes("GET", '/"%0d%0aX"'), request_bytes("GET", "/%25s")
    )
    assert [line.partition(" 200")[0] for line in access.messages] == [
        '- "GET /%22%0d%0aX%22"',
        '- "GET /%25s"',
    ]


async def test_only_access_lines_are_logged_without_errors(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    post = request_bytes("POST", "/", "Transfer-Encoding: chunked") + chunked(b"x")
    await converse(echo_path, request_bytes() + request_bytes("HEAD") + post)
    assert {record.name for record in caplog.records} == {"trio_wspair.access"}

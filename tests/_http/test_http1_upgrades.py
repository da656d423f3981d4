"""Requests before an upgrade, and empty lines before requests (RFC 9112)."""

import pytest
import trio
import trio.testing
from memory_server import UPGRADE, Fetch, parse_answers, request_bytes, served

from trio_wspair import Request, Response, WebSocketPair

CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"  # 1000, masked with zeros.
MESSAGE = b"\x81\x83\0\0\0\0abc"
ECHO = b"\x81\x03abc" + b"\x88\x02\x03\xe8"


async def fetch(request: Request) -> Response:
    """Respond with the path, or with an echo WebSocket."""
    if not request.wants_websocket:
        await request.bytes()
        return Response(request.path)
    client, server = WebSocketPair()
    server.on("message")(lambda event: server.send(event.data))
    server.accept()
    return Response(None, status=101, web_socket=client)


async def response_to(data: bytes, *, pieces: int = 0, handler: Fetch = fetch) -> bytes:
    """Return the response of a server to bytes, sent at once or in pieces."""
    size = pieces or len(data)
    with trio.fail_after(5):
        async with served(handler) as client:
            for start in range(0, len(data), size):
                await client.send_all(data[start : start + size])
                await trio.testing.wait_all_tasks_blocked()
            await client.send_eof()
            answer = b""
            async for part in client:
                answer += part
    return answer


def upgraded(answer: bytes) -> bytes:
    """Check a 101, and return the bytes after it."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    return rest


@pytest.mark.parametrize("length", ["Content-Length: 0", "Content-Length: 00"])
async def test_an_upgrade_may_have_a_content_length_of_0(
    length: str, autojump_clock: trio.testing.MockClock
) -> None:
    data = request_bytes("GET", "/ws", *UPGRADE, length) + MESSAGE + CLOSE
    assert upgraded(await response_to(data)) == ECHO


@pytest.mark.parametrize("pieces", [0, 1])
@pytest.mark.parametrize("lines", [b"\r\n", b"\n", b"\r\n\r\n\n\r\n"])
async def test_empty_lines_before_a_request_are_ignored(
    lines: bytes, pieces: int, autojump_clock: trio.testing.MockClock
) -> None:
    answer = await response_to(lines + request_bytes("GET", "/a"), pieces=pieces)
    assert [a.body for a in parse_answers(answer)] == [b"/a"]
    data = lines + request_bytes("GET", "/ws", *UPGRADE) + MESSAGE + CLOSE
    assert upgraded(await response_to(data, pieces=pieces)) == ECHO


@pytest.mark.parametrize("pieces", [0, 1])
async def test_empty_lines_between_requests_are_ignored(
    pieces: int, autojump_clock: trio.testing.MockClock
) -> None:
    requests = [
        request_bytes("POST", "/a", body=b"x"),
        request_bytes("HEAD", "/b"),
        request_bytes("GET", "/c"),
    ]
    answer = await response_to(b"\r\n\r\n".join([*requests, b""]), pieces=pieces)
    answers = parse_answers(answer, "POST", "HEAD", "GET")
    assert [a.body for a in answers] == [b"/a", b"", b"/c"]


async def test_empty_lines_are_not_a_request(
    autojump_clock: trio.testing.MockClock,
) -> None:
    assert await response_to(b"\r\n" * 1000) == b""
    assert await response_to(b"\r\n" * 1000, pieces=3) == b""
    (answer,) = parse_answers(await response_to(b"\r\nnonsense\r\n\r\n"))
    assert answer.status == 400


@pytest.mark.parametrize("pieces", [0, 1])
async def test_requests_may_be_pipelined_before_an_upgrade(
    pieces: int, autojump_clock: trio.testing.MockClock
) -> None:
    before = (
        request_bytes("GET", "/a")
        + request_bytes("POST", "/b", body=b"xyz")
        + request_bytes("GET", "/c")
    )
    data = before + request_bytes("GET", "/ws", *UPGRADE) + MESSAGE + CLOSE
    answer = await response_to(data, pieces=pieces)
    plain, found, rest = answer.partition(b"HTTP/1.1 101 ")
    answers = parse_answers(plain, "GET", "POST", "GET")
    assert [a.body for a in answers] == [b"/a", b"/b", b"/c"]
    assert upgraded(found + rest) == ECHO


@pytest.mark.parametrize(
    "headers",
    [
        ("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AA"),
        ("Upgrade: h2c", "Connection: Upgrade"),
        ("Upgrade: TLS/1.0",),
        ("Upgrade: websocket2", "Connection: Upgrade"),
        ("Connection: Upgrade",),
    ],
)
async def test_another_upgrade_is_a_plain_request(
    headers: tuple[str, ...], autojump_clock: trio.testing.MockClock
) -> None:
    data = request_bytes("GET", "/a", *headers) + request_bytes("GET", "/b")
    answers = parse_answers(await response_to(data), "GET", "GET")
    assert [(a.status, a.body) for a in answers] == [(200, b"/a"), (200, b"/b")]


async def test_the_headers_of_an_upgrade_are_lists_without_case(
    autojump_clock: trio.testing.MockClock,
) -> None:
    headers = ["Upgrade: h2c", "upgrade: WebSocket", "connection: keep-alive"]
    data = request_bytes("GET", "/", *headers, "CONNECTION: UPGRADE", *UPGRADE[2:])
    assert upgraded(await response_to(data + MESSAGE + CLOSE)) == ECHO

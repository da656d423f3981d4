"""`ASGIApp` with plain requests, on a scripted server, in virtual time."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from asgi_server import CONNECT, GONE, HTTP, WEBSOCKET, ASGIServer, Event, piece
from network import Logged
from pairs import bounded
from trio.testing import MockClock

from trio_wspair import Request, RequestBodyError, Response, WebSocketPair
from trio_wspair.asgi import ASGIApp

Fetch = Callable[[Request], Awaitable[Response]]


async def ask(fetch: Fetch, *events: Event, **scope: Any) -> ASGIServer:
    """Send a request; return the server with the response."""
    return await ASGIServer(HTTP, *(events or [piece(b"")]), **scope).run(
        ASGIApp(fetch)
    )


def answering(response: Response) -> Fetch:
    """Return a handler with this response."""

    async def fetch(request: Request) -> Response:
        return response

    return fetch


async def seen_by_handler(**scope: Any) -> Request:
    """Return the request that the handler gets for a scope."""
    requests: list[Request] = []

    async def fetch(request: Request) -> Response:
        requests.append(request)
        return Response()

    await ask(fetch, **scope)
    return requests[0]


# -- the request ----------------------------------------------------------------


@bounded
async def test_the_handler_gets_the_request(autojump_clock: MockClock) -> None:
    request = await seen_by_handler(
        method="PUT",
        scheme="https",
        raw_path=b"/caf%C3%A9/a%2Fb",
        path="/café/a/b",
        root_path="/café",
        query_string=b"room=%C3%BC&x",
        headers=[(b"host", b"example.org:1"), (b"x-a", b"1"), (b"x-a", b"2")],
    )
    assert request.method == "PUT"
    assert request.url == "https://example.org:1/caf%C3%A9/a%2Fb?room=%C3%BC&x"
    assert request.path == "/café/a/b"
    assert request.secure
    assert request.headers.get_all("X-A") == ["1", "2"]
    assert request.client == "192.0.2.1"


@bounded
async def test_optional_keys_of_the_scope_may_be_missing(
    autojump_clock: MockClock,
) -> None:
    request = await seen_by_handler(raw_path=None, path="/ü?/a b", client=None)
    assert request.url == "http://test/%C3%BC%3F/a%20b"
    assert request.path == "/ü?/a b"
    assert request.client == ""


@bounded
async def test_an_absolute_target_is_the_url(autojump_clock: MockClock) -> None:
    path = "http://other.example/a"
    request = await seen_by_handler(
        path=path, raw_path=path.encode(), query_string=b"b"
    )
    assert request.url == "http://other.example/a?b"


@bounded
async def test_cookies_that_http_2_has_split_are_joined(
    autojump_clock: MockClock,
) -> None:
    headers = [(b"cookie", b"a=1"), (b"host", b"test"), (b"cookie", b"b=2")]
    request = await seen_by_handler(headers=headers, http_version="2")
    assert request.headers["cookie"] == "a=1; b=2"


@bounded
async def test_invalid_headers_are_refused_without_the_handler(
    autojump_clock: MockClock,
) -> None:
    headers = [(b"host", b"test"), (b"x", b"a\x01b")]
    server = await ask(answering(Response("not this")), headers=headers)
    assert server.status == 400
    assert b"not this" not in server.body


# -- its body -------------------------------------------------------------------


async def echo(request: Request) -> Response:
    return Response(await request.bytes())


@bounded
async def test_a_body_comes_in_pieces_and_can_be_read_twice(
    autojump_clock: MockClock,
) -> None:
    async def fetch(request: Request) -> Response:
        return Response.json([await request.text(), await request.json()])

    server = await ask(fetch, piece(b'{"a":', more=True), piece(b"1}"))
    assert server.body == b'["{\\"a\\":1}", {"a": 1}]'


@bounded
@pytest.mark.parametrize("headers", [[], [(b"content-length", b"6")]])
async def test_a_body_that_is_too_large_is_refused(
    autojump_clock: MockClock, headers: list[tuple[bytes, bytes]]
) -> None:
    app = ASGIApp(echo, max_body_bytes=5)
    server = ASGIServer(HTTP, piece(b"123", more=True), piece(b"456"), headers=headers)
    await server.run(app)
    assert server.status == 413
    assert b"more than 5 bytes" in server.body


@bounded
@pytest.mark.parametrize("body", ["text", 5])
async def test_a_body_that_is_not_bytes_is_an_error_of_the_server(
    autojump_clock: MockClock, logged: Logged, body: Any
) -> None:
    server = await ask(echo, {"type": "http.request", "body": body})
    assert server.status == 500
    assert "the ASGI server violates the specification: a body must be bytes" in (
        logged.take()
    )


@bounded
@pytest.mark.parametrize("event", [{}, {"body": None, "more_body": None}])
async def test_a_body_may_be_left_out(autojump_clock: MockClock, event: Event) -> None:
    server = await ask(echo, {"type": "http.request", **event})
    assert server.status == 200


@bounded
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"headers": [(b"host", b"a/b")]}, "not a host"),
        ({"headers": [(b"host", b"user@a")]}, "not a host"),
        ({"headers": [(b"host", b"a"), (b"Host", b"a")]}, "comes more than once"),
        ({"path": "@evil/admin", "raw_path": b"@evil/admin"}, "does not begin with"),
        ({"scheme": "javascript"}, "must be http or https"),
    ],
)
@pytest.mark.parametrize(
    ("scope", "first"),
    [(HTTP, piece(b"")), (WEBSOCKET, CONNECT)],
    ids=["http", "websocket"],
)
async def test_an_invalid_request_gets_400_before_the_handler(
    autojump_clock: MockClock,
    scope: Event,
    first: Event,
    changes: dict[str, Any],
    words: str,
    logged: Logged,
) -> None:
    async def fetch(request: Request) -> Response:
        raise AssertionError

    server = await ASGIServer(scope, first, **changes).run(ASGIApp(fetch))
    assert server.status == 400
    assert words in server.body.decode()


@bounded
@pytest.mark.parametrize(
    "changes",
    [
        {"headers": [(b"content-length", b"x")]},
        {"headers": [(b"content-length", b"5, 5")]},
        {"method": "GE T"},
    ],
)
async def test_a_plain_request_that_is_not_valid_gets_400(
    autojump_clock: MockClock, changes: dict[str, Any]
) -> None:
    assert (await ask(echo, **changes)).status == 400


@bounded
async def test_an_invalid_scope_is_an_error_for_the_server(
    autojump_clock: MockClock,
) -> None:
    with pytest.raises(TypeError, match="violates the specification"):
        await ask(echo, headers=[("host", "test")])


@bounded
async def test_two_tasks_may_read_the_same_body(autojump_clock: MockClock) -> None:
    read: list[bytes] = []
    server = ASGIServer(HTTP)

    async def fetch(request: Request) -> Response:
        async def keep() -> None:
            read.append(await request.bytes())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep)
            nursery.start_soon(keep)
            await trio.sleep(1)
            server.put(piece(b"whole"))
        return Response()

    await server.run(ASGIApp(fetch))
    assert read == [b"whole", b"whole"]


@bounded
async def test_a_body_as_large_as_allowed_is_read(autojump_clock: MockClock) -> None:
    app = ASGIApp(echo, max_body_bytes=6)
    server = ASGIServer(HTTP, piece(b"123", more=True), piece(b"456"))
    await server.run(app)
    assert server.body == b"123456"


@bounded
async def test_a_body_whose_length_is_too_large_is_never_read(
    autojump_clock: MockClock,
) -> None:
    received: list[int] = []
    server = ASGIServer(HTTP, headers=[(b"content-length", b"1000000000000")])

    async def fetch(request: Request) -> Response:
        with pytest.raises(RequestBodyError):
            await request.bytes()
        received.append(server.received)
        return Response()

    server.put(piece(b"1", more=True))
    await server.run(ASGIApp(fetch))
    assert received == [0]


@bounded
async def test_a_body_that_is_too_slow_is_refused(autojump_clock: MockClock) -> None:
    server = ASGIServer(HTTP, piece(b"1", more=True))
    await server.run(ASGIApp(echo, body_timeout=3.0))
    assert server.status == 408
    assert trio.current_time() == 3.0


@bounded
async def test_an_incomplete_body_is_refused(autojump_clock: MockClock) -> None:
    errors: list[int] = []

    async def fetch(request: Request) -> Response:
        for _ in range(2):
            with pytest.raises(RequestBodyError) as caught:
                await request.bytes()
            errors.append(caught.value.status)
        return Response()

    await ask(fetch, piece(b"1", more=True), GONE)
    assert errors == [400, 400]


@bounded
async def test_a_cancelled_reader_loses_nothing(
    autojump_clock: MockClock,
) -> None:
    server = ASGIServer(HTTP, piece(b"abc", more=True))

    async def fetch(request: Request) -> Response:
        with trio.move_on_after(1):
            await request.bytes()
        server.put(piece(b"def"))
        return Response(await request.bytes())

    await server.run(ASGIApp(fetch))
    assert server.body == b"abcdef"


# -- the response -----------------------------------------------------------------


@bounded
async def test_a_response_has_status_headers_and_body(
    autojump_clock: MockClock,
) -> None:
    headers = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Name", "Zoë")]
    server = await ask(answering(Response("grüß dich", status=418, headers=headers)))
    assert server.types[0] == "start"
    assert server.status == 418
    assert server.headers.get_all("set-cookie") == ["a=1", "b=2"]
    assert server.headers["x-name"] == "Zoë"
    assert server.headers["content-type"] == "text/plain;charset=UTF-8"
    assert server.headers["content-length"] == "11"
    assert server.body.decode() == "grüß dich"
    assert server.complete
    names = [name for name, _ in server.sent[0]["headers"]]
    assert names == [name.lower() for name in names], "as the specification asks"


@bounded
async def test_headers_of_the_connection_are_left_to_the_server(
    autojump_clock: MockClock,
) -> None:
    said = {
        "Connection": "close",
        "Content-Length": "1000",
        "Keep-Alive": "timeout=5",
        "Transfer-Encoding": "gzip, chunked",
        "Upgrade": "h2c",
        "X-Kept": "yes",
    }
    server = await ask(answering(Response(b"123", headers=said)))
    assert server.headers.pairs() == [("x-kept", "yes"), ("content-length", "3")]


@bounded
@pytest.mark.parametrize(
    ("version", "expected"), [("1.1", "websocket"), ("2", None), ("1.0", None)]
)
async def test_a_426_has_an_upgrade_header(
    autojump_clock: MockClock, version: str, expected: str | None
) -> None:
    server = await ask(answering(Response(status=426)), http_version=version)
    assert server.headers.get("upgrade") == expected
    assert ("connection" in server.headers) is (expected is not None)


@bounded
async def test_head_gets_the_headers_only(autojump_clock: MockClock) -> None:
    closed: list[str] = []

    async def pieces() -> AsyncGenerator[str, None]:
        closed.append("never begun")
        yield "x"

    server = await ask(answering(Response("hello")), method="HEAD")
    assert server.headers["content-length"] == "5"
    assert server.body == b""
    assert server.complete
    server = await ask(answering(Response(pieces())), method="HEAD")
    assert server.body == b""
    assert not closed


@bounded
@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_has_no_length(
    autojump_clock: MockClock, status: int
) -> None:
    server = await ask(answering(Response(status=status)))
    assert "content-length" not in server.headers
    assert server.body == b""


@bounded
async def test_a_large_body_is_sent_in_pieces(autojump_clock: MockClock) -> None:
    body = bytes(range(256)) * 1000
    server = await ask(answering(Response(body)))
    assert server.body == body
    assert max(len(event["body"]) for event in server.sent[1:]) <= 2**16


@bounded
async def test_a_streamed_body_is_sent_as_it_comes(autojump_clock: MockClock) -> None:
    server = ASGIServer(HTTP, piece(b""))
    seen: list[bytes] = []

    async def pieces() -> AsyncGenerator[str | bytes, None]:
        yield "grüß "
        await trio.sleep(1)
        seen.append(server.body)
        yield b"dich"

    await server.run(ASGIApp(answering(Response(pieces()))))
    assert seen == ["grüß ".encode()]
    assert server.body.decode() == "grüß dich"
    assert server.complete
    assert "content-length" not in server.headers


@bounded
async def test_a_lone_surrogate_in_a_streamed_body_is_replaced(
    autojump_clock: MockClock,
) -> None:
    async def pieces() -> AsyncGenerator[str, None]:
        yield "a\ud800b"

    server = await ask(answering(Response(pieces())))
    assert server.body.decode() == "a\ufffdb"


@bounded
async def test_a_streamed_body_may_be_fed_by_a_task(autojump_clock: MockClock) -> None:
    async def fetch(request: Request) -> Response:
        send, receive = trio.open_memory_channel[str](0)

        async def feed() -> None:
            async with send:
                await send.send("fed")

        request.nursery.start_soon(feed)
        return Response(receive)

    assert (await ask(fetch)).body == b"fed"


@bounded
async def test_the_body_of_the_request_can_be_read_while_the_response_is_sent(
    autojump_clock: MockClock,
) -> None:
    server = ASGIServer(HTTP, piece(b"a", more=True))

    async def fetch(request: Request) -> Response:
        async def pieces() -> AsyncGenerator[bytes, None]:
            yield b"begun, "
            server.put(piece(b"b"))
            await trio.sleep(1)
            yield await request.bytes()

        return Response(pieces())

    await server.run(ASGIApp(fetch))
    assert server.body == b"begun, ab"


@bounded
async def test_an_unread_body_does_not_block_the_server(
    autojump_clock: MockClock,
) -> None:
    # Hypercorn's reader waits for room in its queue, its writer for the reader.
    server = ASGIServer(HTTP, *[piece(b"x" * 2**16, more=True)] * 50, GONE)
    server.send_allowed = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, ASGIApp(answering(Response("ok"))))
        await trio.testing.wait_all_tasks_blocked()
        assert server.received == 51
        server.send_allowed.set()


@bounded
@pytest.mark.parametrize("broken", [GONE, None])
async def test_streaming_ends_when_the_client_leaves(
    autojump_clock: MockClock, broken: Event | None
) -> None:
    ended: list[float] = []
    server = ASGIServer(HTTP, piece(b""))

    async def pieces() -> AsyncGenerator[str, None]:
        try:
            yield "first"
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, ASGIApp(answering(Response(pieces()))))
        await trio.sleep(1)
        if broken is None:
            server.hang_up()
        else:
            server.put(broken)
    assert ended == [1.0]
    assert not server.complete


@bounded
async def test_an_abandoned_stream_is_closed_at_once(
    autojump_clock: MockClock,
) -> None:
    ended: list[float] = []
    server = ASGIServer(HTTP, piece(b""))

    async def pieces() -> AsyncGenerator[str, None]:
        try:
            server.send_allowed = trio.Event()
            yield "never taken"
        finally:
            ended.append(trio.current_time())

    app = ASGIApp(answering(Response(pieces())), body_timeout=7.0)
    await server.run(app)
    assert ended == [7.0]


@bounded
@pytest.mark.parametrize(
    "error", [OSError("gone"), trio.BrokenResourceError(), trio.ClosedResourceError()]
)
async def test_a_server_may_raise_when_the_client_has_gone(
    autojump_clock: MockClock, error: Exception
) -> None:
    server = ASGIServer(HTTP, piece(b""))
    server.error = error
    await server.run(ASGIApp(answering(Response("ok"))))
    assert server.sent == []


@bounded
async def test_a_client_that_reads_nothing_is_dropped(
    autojump_clock: MockClock,
) -> None:
    server = ASGIServer(HTTP, piece(b""))
    server.send_allowed = trio.Event()
    await server.run(ASGIApp(answering(Response("ok")), body_timeout=7.0))
    assert trio.current_time() == 7.0
    assert server.types == ["start"]


@bounded
async def test_the_last_send_of_a_server_is_not_cancelled_by_its_disconnect_event(
    autojump_clock: MockClock,
) -> None:
    # Hypercorn reports the end while it still cleans up in the last send().
    server = ASGIServer(HTTP, piece(b""))
    tidied: list[str] = []

    async def send(event: Event) -> None:
        if event.get("more_body") is False:
            server.put(GONE)
            await trio.sleep(1)
            tidied.append("up")

    app = ASGIApp(answering(Response("ok")))
    await app(server.scope, server.receive, send)
    assert tidied == ["up"]


# -- failures -----------------------------------------------------------------------


@bounded
async def test_g7_a_handler_that_raises_is_a_500_and_logged(
    autojump_clock: MockClock, logged: Logged
) -> None:
    async def fetch(request: Request) -> Response:
        msg = "secret"
        raise ZeroDivisionError(msg)

    server = await ask(fetch, path="/a", raw_path=b"/a", query_string=b"b")
    assert server.status == 500
    assert b"secret" not in server.body
    record = logged.take()
    assert "handling GET /a failed" in record
    assert "ZeroDivisionError: secret" in record


@bounded
async def test_g7_a_failing_body_does_not_complete_the_response(
    autojump_clock: MockClock, logged: Logged
) -> None:
    async def pieces() -> AsyncGenerator[str, None]:
        yield "first"
        msg = "in the middle"
        raise OSError(msg)

    server = await ask(answering(Response(pieces())))
    assert server.body == b"first"
    assert not server.complete
    assert "OSError: in the middle" in logged.take()


@bounded
async def test_a_piece_of_a_body_is_text_or_bytes(
    autojump_clock: MockClock, logged: Logged
) -> None:
    async def pieces() -> AsyncGenerator[Any, None]:
        yield 1

    server = await ask(answering(Response(pieces())))
    assert not server.complete
    assert "a piece of a body must be str or bytes, not int" in logged.take()


@bounded
async def test_a_websocket_is_refused_as_response_to_a_plain_request(
    autojump_clock: MockClock, logged: Logged
) -> None:
    async def fetch(request: Request) -> Response:
        return Response(None, status=101, web_socket=WebSocketPair()[0])

    assert (await ask(fetch)).status == 426
    assert "check request.wants_websocket first" in logged.take()


@bounded
async def test_a_handler_is_cancelled_with_the_server(
    autojump_clock: MockClock,
) -> None:
    ended: list[str] = []

    async def fetch(request: Request) -> Response:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("cancelled")

    server = ASGIServer(HTTP, piece(b""))
    with trio.move_on_after(1) as scope:
        await server.run(ASGIApp(fetch))
    assert scope.cancelled_caught
    assert ended == ["cancelled"]
    assert server.sent == []


@bounded
async def test_other_errors_of_a_server_propagate(
    autojump_clock: MockClock,
) -> None:
    server = ASGIServer(HTTP, piece(b""))
    server.error = KeyError("a fault of the server")
    with pytest.raises(KeyError):
        await server.run(ASGIApp(answering(Response("ok"))))


@bounded
async def test_tasks_of_a_request_end_with_it(autojump_clock: MockClock) -> None:
    ended: list[str] = []

    async def linger() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("ended")

    async def fetch(request: Request) -> Response:
        request.nursery.start_soon(linger)
        await trio.lowlevel.checkpoint()
        return Response()

    await ask(fetch)
    assert ended == ["ended"]


def test_arguments_are_checked() -> None:
    fetch = answering(Response())
    with pytest.raises(TypeError, match="an application must be an async function"):
        ASGIApp(1)  # type: ignore[arg-type] # on purpose
    bad: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"body_timeout": -1}, ValueError),
        ({"close_grace": "1"}, TypeError),
        ({"max_body_bytes": -1}, ValueError),
        ({"receive_buffer_bytes": 0}, ValueError),
    ]
    for arguments, error in bad:
        with pytest.raises(error, match=next(iter(arguments))):
            partial(ASGIApp, fetch, **arguments)()

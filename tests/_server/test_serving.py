"""`serve()`: requests and responses, wrong handshakes and handlers, and stopping."""

import gc
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from typing import Any, cast

import pytest
import trio
import trio.testing
from network import Logged, Network

from trio_wspair import (
    CloseEvent,
    ConnectionClosedError,
    HandshakeError,
    InvalidStateError,
    MessageEvent,
    Request,
    Response,
    Server,
    WebSocket,
    WebSocketPair,
    connect,
    open_websocket,
    serve,
)
from trio_wspair._http.http1 import HTTPConnection
from trio_wspair._server.http1_exchange import client_address
from trio_wspair._server.request_task import RequestTask, RequestTasks
from trio_wspair.testing import ScriptedPeer

CLIENT_CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
CLIENT_CONTEXT.check_hostname = False


def status_of(answer: str | bytes) -> int:
    """Return the status of an HTTP response."""
    text = answer if isinstance(answer, str) else answer.decode("latin-1")
    protocol, status, _ = text.split(" ", 2)
    assert protocol == "HTTP/1.1"
    return int(status)


async def exchange(net: Network, server: Server, data: bytes) -> bytes:
    """Send bytes to a server, end the sending, and return all that comes back."""
    async with net.dial(server) as peer:
        await peer.send(data)
        await half_close(peer)
        return await peer.read_all()


async def half_close(peer: "ScriptedPeer") -> None:
    """End the sending direction, so that the server doesn't keep the connection."""
    assert isinstance(peer.stream, trio.SocketStream)
    await peer.stream.send_eof()


async def assert_it_lives(net: Network, server: Server) -> None:
    """Exchange messages with an echo server."""
    async with net.peer(server) as peer:
        await peer.send(peer.text_frame("still there?"), peer.close_frame(1000))
        assert await peer.receive_all() == ["still there?", (1000, "")]


def without(headers: tuple[str, ...], name: str) -> list[str]:
    return [header for header in headers if not header.startswith(f"{name}:")]


# -- requests and responses ---------------------------------------------------


async def test_the_handler_gets_the_request(net: Network) -> None:
    seen: list[Request] = []

    async def fetch(request: Request) -> Response:
        seen.append(request)
        return Response("ok")

    async with net.serve(fetch) as server:
        head = net.head(
            "Host: example.org", "X-A: 1", "x-a: 2", start="PUT /a?b=c HTTP/1.1"
        )
        await exchange(net, server, head)
    (request,) = seen
    assert request.method == "PUT"
    assert request.url == "http://example.org/a?b=c"
    assert request.headers["X-A"] == "1, 2"
    assert request.headers.get_all("x-a") == ["1", "2"]
    assert request.client == "127.0.0.1"


async def test_an_absolute_target_becomes_the_url(net: Network) -> None:
    async def fetch(request: Request) -> Response:
        return Response(request.url)

    async with net.serve(fetch) as server:
        head = net.head("Host: a", start="GET http://b/c HTTP/1.1")
        assert (await exchange(net, server, head)).endswith(b"\r\n\r\nhttp://b/c")


async def test_a_response_is_sent_whole_and_the_connection_is_kept(
    net: Network,
) -> None:
    async def fetch(request: Request) -> Response:
        headers = [
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
            ("Content-Length", "7"),
        ]
        return Response("grüß dich", status=418, headers=headers)

    async with net.serve(fetch) as server:
        answer = await exchange(net, server, net.head("Host: a"))
    head, body = answer.split(b"\r\n\r\n", 1)
    assert status_of(answer) == 418
    lines = head.decode().lower().split("\r\n")[1:]
    assert lines.count("content-length: 11") == 1
    assert [line for line in lines if line.startswith("content-length")] == [
        "content-length: 11"
    ]
    assert "set-cookie: a=1" in lines
    assert "set-cookie: b=2" in lines
    assert "content-type: text/plain;charset=utf-8" in lines
    assert [line for line in lines if line.startswith("connection")] == [
        "connection: keep-alive"
    ]
    assert body.decode() == "grüß dich"


async def test_no_reset_destroys_a_response_after_an_unread_upload(
    net: Network,
) -> None:
    body = b"x" * 3_000_000

    async def fetch(request: Request) -> Response:
        return Response(body)

    async with (
        net.serve(fetch) as server,
        net.dial(server) as peer,
        trio.open_nursery() as nursery,
    ):
        length = 100 * 2**16
        lengths = f"Content-Length: {length}"
        nursery.start_soon(
            peer.send,
            net.head("Host: a", lengths, start="POST / HTTP/1.1"),
            bytes(length),
        )
        answer = b""
        while data := await peer.stream.receive_some():  # A reset would raise.
            answer += data
        assert answer.endswith(b"\r\n\r\n" + body)
        await trio.sleep(0.05)


async def test_a_head_request_gets_no_body(net: Network) -> None:
    async def fetch(request: Request) -> Response:
        return Response("hello")

    async with net.serve(fetch) as server:
        answer = await exchange(
            net, server, net.head("Host: a", start="HEAD / HTTP/1.1")
        )
    assert b"Content-Length: 5" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("status", [204, 205, 304])
async def test_a_status_without_a_body_is_sent_without_one(
    net: Network, status: int
) -> None:
    async def fetch(request: Request) -> Response:
        return Response(None, status=status)

    async with net.serve(fetch) as server:
        answer = await exchange(net, server, net.head("Host: a"))
    assert status_of(answer) == status
    assert answer.endswith(b"\r\n\r\n")
    assert (b"Content-Length: 0" in answer) is (status == 205)  # RFC 9110, section 8.6


async def test_a_header_beyond_ascii_is_sent_as_latin_1(net: Network) -> None:
    async def fetch(request: Request) -> Response:
        return Response("ok", headers={"X-Name": "Zoë"})

    async with net.serve(fetch) as server:
        answer = await exchange(net, server, net.head("Host: a"))
    assert b"X-Name: Zo\xeb\r\n" in answer


async def test_a_client_without_an_address_has_an_empty_string(net: Network) -> None:
    memory, _ = trio.testing.memory_stream_pair()
    assert client_address(memory) == ""
    async with net.serve(net.echo) as server, net.dial(server) as peer:
        assert client_address(peer.stream) == "127.0.0.1"
        assert (
            client_address(trio.SSLStream(peer.stream, CLIENT_CONTEXT)) == "127.0.0.1"
        )
    assert client_address(peer.stream) == "", "it has gone"


async def test_a_client_that_leaves_before_the_response_is_not_an_error(
    net: Network,
) -> None:
    asked, gone = trio.Event(), trio.Event()

    async def fetch(request: Request) -> Response:
        asked.set()
        await gone.wait()
        return Response(b"x" * 1_000_000)

    async with net.serve(fetch) as server:
        before = net.open_sockets()
        async with net.dial(server) as peer:
            await peer.send(net.head("Host: a"))
            assert isinstance(peer.stream, trio.SocketStream)
            linger = b"\x01\0\0\0\0\0\0\0"  # The connection ends with a reset.
            peer.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            await asked.wait()
        gone.set()
        await net.until_open_sockets(before)


async def test_the_handshake_is_answered_as_in_rfc_6455(net: Network) -> None:
    async with net.serve(net.echo) as server, net.dial(server) as peer:
        answer = (await peer.handshake()).lower()
        assert answer.startswith("http/1.1 101 ")
        assert "\r\nupgrade: websocket\r\n" in answer
        assert "\r\nconnection: upgrade\r\n" in answer
        key = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, section 1.3
        assert f"\r\nsec-websocket-accept: {key.lower()}\r\n" in answer
        assert "sec-websocket-protocol" not in answer
        assert "sec-websocket-extensions" not in answer


async def test_frames_right_after_the_handshake_are_not_lost(net: Network) -> None:
    async with net.serve(net.echo) as server, net.dial(server) as peer:
        await peer.send(
            net.head(*net.UPGRADE), peer.text_frame("early"), peer.close_frame(1000)
        )
        assert status_of(await peer.read_head()) == 101
        assert await peer.receive_all() == ["early", (1000, "")]


async def test_a_handshake_may_come_byte_by_byte(net: Network) -> None:
    async with net.serve(net.echo) as server, net.dial(server) as peer:
        for byte in (
            net.head(*net.UPGRADE) + peer.text_frame("early") + peer.close_frame(1000)
        ):
            await peer.send(bytes([byte]))
        assert status_of(await peer.read_head()) == 101
        assert await peer.receive_all() == ["early", (1000, "")]


async def test_headers_of_a_101_are_sent(net: Network) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept()
        headers = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Name", "Zoë")]
        return Response(None, status=101, web_socket=client, headers=headers)

    async with net.serve(fetch) as server, net.dial(server) as peer:
        answer = await peer.handshake()
        assert "\r\nSet-Cookie: a=1\r\n" in answer
        assert "\r\nSet-Cookie: b=2\r\n" in answer
        assert "\r\nX-Name: Zoë\r\n" in answer


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["chat"], "chat"),
        (["a, chat ,b"], "chat"),
        (["a", "b, chat"], "chat"),
        ([], None),
    ],
)
async def test_the_handler_chooses_a_subprotocol(
    net: Network, offered: list[str], chosen: str | None
) -> None:
    halves: list[WebSocket] = []

    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept()
        halves.append(server)
        headers = {} if chosen is None else {"Sec-WebSocket-Protocol": chosen}
        return Response(None, status=101, web_socket=client, headers=headers)

    async with net.serve(fetch) as server, net.dial(server) as peer:
        offers = [f"Sec-WebSocket-Protocol: {offer}" for offer in offered]
        answer = (await peer.handshake(*offers)).lower()
        assert status_of(answer.upper()) == 101
        assert ("sec-websocket-protocol: chat\r\n" in answer) is (chosen is not None)
        assert answer.count("sec-websocket-protocol") == (chosen is not None)
        assert halves[0].protocol == (chosen or "")
        assert halves[0].url is None


# -- wrong handshakes ---------------------------------------------------------

GOOD = (
    "Host: 127.0.0.1",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)


def wrong_handshakes() -> dict[str, tuple[int, bytes]]:
    """Return a request, and the status that it has to get."""

    def request(*headers: str, start: str = "GET / HTTP/1.1") -> bytes:
        return "\r\n".join([start, *headers, "", ""]).encode("latin-1")

    key = "Sec-WebSocket-Key"
    version = "Sec-WebSocket-Version"
    return {
        "no HTTP": (400, b"hello\r\n\r\n"),
        "TLS to a plain port": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n"),
        "HTTP/2 preface": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        "no Host": (400, request(*without(GOOD, "Host"))),
        "two Hosts": (400, request(*GOOD, "Host: b")),
        "POST": (400, request(*GOOD, start="POST / HTTP/1.1")),
        "HTTP/1.0": (400, request(*GOOD, start="GET / HTTP/1.0")),
        "no Connection": (400, request(*without(GOOD, "Connection"))),
        "other Connection": (
            400,
            request(*without(GOOD, "Connection"), "Connection: close"),
        ),
        "a body": (400, request(*GOOD, "Content-Length: 2") + b"ab"),
        "a chunked body": (400, request(*GOOD, "Transfer-Encoding: chunked") + b"0"),
        "no key": (400, request(*without(GOOD, key))),
        "short key": (400, request(*without(GOOD, key), f"{key}: c2hvcnQ=")),
        "key no base64": (400, request(*without(GOOD, key), f"{key}: {'?' * 24}")),
        "key beyond ASCII": (400, request(*without(GOOD, key), f"{key}: {'é' * 24}")),
        "two keys": (400, request(*GOOD, GOOD[3])),
        "no version": (426, request(*without(GOOD, version))),
        "version 8": (426, request(*without(GOOD, version), f"{version}: 8")),
        "a space in a name": (400, request(*GOOD, "X : 1")),
        "a control character": (400, request(*GOOD, "X: a\x01b")),
        "a DEL": (400, request(*GOOD, "X: a\x7fb")),
        "a NUL": (400, request(*GOOD, "X: a\0b")),
        "a huge length": (400, request("Host: a", f"Content-Length: {'9' * 5000}")),
        "a large head": (431, request(*GOOD, f"X: {'x' * 40_000}")),
        "a large line": (431, b"GET /" + b"x" * 70_000),
        "many headers": (431, request(*GOOD, *["X: y"] * 10_000)),
    }


WRONG_HANDSHAKES = wrong_handshakes()


@pytest.mark.parametrize("name", WRONG_HANDSHAKES)
async def test_a_wrong_handshake_gets_an_http_error(net: Network, name: str) -> None:
    status, data = WRONG_HANDSHAKES[name]
    async with net.serve(net.echo) as server:
        answer = await exchange(net, server, data)
        assert status_of(answer) == status
        assert (b"\r\nSec-WebSocket-Version: 13\r\n" in answer) is (status == 426)
        _, body = answer.split(b"\r\n\r\n", 1)
        assert len(body) > 10, "the error names the problem"
        await assert_it_lives(net, server)


@pytest.mark.parametrize(
    "header",
    ["Host: é", "Sec-WebSocket-Protocol: é", "Sec-WebSocket-Extensions: é"],
)
async def test_a_handshake_beyond_ascii_gets_a_response(
    net: Network, header: str
) -> None:
    headers = [*without(GOOD, header.split(":", maxsplit=1)[0]), header]
    async with net.serve(net.echo) as server:
        async with net.dial(server) as peer:
            await peer.send(net.head(*headers))
            assert status_of(await peer.read_head()) in {101, 400}
        await assert_it_lives(net, server)


@pytest.mark.parametrize("offer", ["é", "a b", '"a"', "a;b", "", ",", " , ,"])
async def test_an_odd_offer_of_subprotocols_gets_a_response(
    net: Network, offer: str
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept()
        offered = request.headers["Sec-WebSocket-Protocol"].split(",")
        first = offered[0].strip()
        headers = {"Sec-WebSocket-Protocol": first} if first else {}
        return Response(None, status=101, web_socket=client, headers=headers)

    async with net.serve(fetch) as server, net.dial(server) as peer:
        answer = await peer.handshake(f"Sec-WebSocket-Protocol: {offer}")
        assert status_of(answer) in {101, 400}


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([*GOOD, "Connection: keep-alive"], id="two Connections"),
        pytest.param(
            [*without(GOOD, "Upgrade"), "Upgrade: h2c, websocket"], id="two upgrades"
        ),
        pytest.param([h.lower() for h in GOOD[:3]] + list(GOOD[3:]), id="lower case"),
        pytest.param([h.upper() for h in GOOD[:3]] + list(GOOD[3:]), id="upper case"),
        pytest.param([*GOOD, "Sec-WebSocket-Extensions: permessage-deflate"], id="ext"),
        pytest.param([*GOOD, "Cookie: é"], id="cookie"),
        pytest.param([h.replace("127.0.0.1", "a..b") for h in GOOD], id="odd host"),
    ],
)
async def test_a_good_handshake_is_accepted(net: Network, headers: list[str]) -> None:
    async with net.serve(net.echo) as server, net.dial(server) as peer:
        await peer.send(net.head(*headers))
        assert status_of(await peer.read_head()) == 101
        await peer.send(peer.text_frame("hi"), peer.close_frame(1000))
        assert await peer.receive_all() == ["hi", (1000, "")]


@pytest.mark.parametrize(
    "data", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n"], ids=len
)
async def test_a_slow_head_gets_408(net: Network, data: bytes) -> None:
    async with (
        net.serve(net.echo, handshake_timeout=0.1) as server,
        net.dial(server) as peer,
    ):
        await peer.send(data)
        assert status_of(await peer.read_all()) == 408


async def test_a_head_that_comes_too_slowly_gets_408(net: Network) -> None:
    async with (
        net.serve(net.echo, handshake_timeout=0.3) as server,
        net.dial(server) as peer,
        trio.open_nursery() as nursery,
    ):

        async def trickle() -> None:
            with suppress(trio.BrokenResourceError):
                while True:
                    await peer.send(b"X: y\r\n")
                    await trio.sleep(0.01)

        await peer.send(b"GET / HTTP/1.1\r\n")
        nursery.start_soon(trickle)
        assert status_of(await peer.read_head()) == 408
        nursery.cancel_scope.cancel()


async def test_a_client_that_leaves_within_its_head_is_not_an_error(
    net: Network,
) -> None:
    async with net.serve(net.echo) as server:
        before = net.open_sockets()
        for data in (b"", b"GET / HT", net.head(*GOOD)[:-2]):
            async with net.dial(server) as peer:
                await peer.send(data)
        await net.until_open_sockets(before)
        await assert_it_lives(net, server)


# -- wrong handlers -----------------------------------------------------------


async def returns_nothing(request: Request) -> None:
    pass


async def returns_text(request: Request) -> str:
    return "hello"


@wraps(returns_nothing)
def seems_to_be_async(request: Request) -> Response:
    return Response("hello")


async def raises(request: Request) -> Response:
    msg = "oh no"
    raise KeyError(msg)


async def raises_in_the_nursery(request: Request) -> Response:
    request.nursery.start_soon(raises, request)
    await trio.sleep_forever()
    return Response("never")


async def takes_it_and_gives_it_away(request: Request) -> Response:
    client, _ = WebSocketPair()
    client.accept()
    return Response(None, status=101, web_socket=client)


async def chooses_what_was_not_offered(request: Request) -> Response:
    client, _ = WebSocketPair()
    headers = {"Sec-WebSocket-Protocol": "soap"}
    return Response(None, status=101, web_socket=client, headers=headers)


async def chooses_nothing(request: Request) -> Response:
    client, _ = WebSocketPair()
    headers = {"Sec-WebSocket-Protocol": ""}
    return Response(None, status=101, web_socket=client, headers=headers)


async def lies_about_a_length(request: Request) -> Response:
    client, _ = WebSocketPair()
    headers = {"Content-Length": "many"}
    return Response(None, status=101, web_socket=client, headers=headers)


async def speaks_of_an_encoding(request: Request) -> Response:
    client, _ = WebSocketPair()
    headers = {"Transfer-Encoding": "gzip"}
    return Response(None, status=101, web_socket=client, headers=headers)


@pytest.mark.parametrize(
    ("fetch", "words"),
    [
        (returns_nothing, "not NoneType: does every branch return one?"),
        (returns_text, "fetch must return a Response, not str: return Response(body)"),
        (seems_to_be_async, "async def fetch(request)"),
        (raises, "KeyError: 'oh no'"),
        (raises_in_the_nursery, "KeyError: 'oh no'"),
        (takes_it_and_gives_it_away, "this half is OPEN, accepted"),
        (lies_about_a_length, "Content-Length"),
        (speaks_of_an_encoding, "Transfer-Encoding"),
    ],
)
async def test_a_wrong_handler_gives_500_and_a_helpful_log_record(
    net: Network, logged: Logged, fetch: Callable[[Request], Any], words: str
) -> None:
    async with net.serve(fetch) as server:
        before = net.open_sockets()
        for _ in range(2):  # The server goes on after the first failure.
            async with net.dial(server) as peer:
                assert status_of(await peer.handshake(target="/here")) == 500
            record = logged.take()
            assert "GET /here" in record
            assert words.lower() in record.lower()
            assert "Traceback" in record
        await net.until_open_sockets(before)


@pytest.mark.parametrize(
    ("fetch", "chosen"),
    [(chooses_what_was_not_offered, "'soap'"), (chooses_nothing, "''")],
)
async def test_a_subprotocol_that_was_not_offered_gives_500_or_is_left_out(
    net: Network,
    logged: Logged,
    fetch: Callable[[Request], Any],
    chosen: str,
) -> None:
    async with net.serve(fetch) as server:
        async with net.dial(server) as peer:
            answer = await peer.handshake("Sec-WebSocket-Protocol: chat")
            assert status_of(answer) == 500
        assert f"{chosen}, which the client does not offer" in logged.take()
        for _ in range(2):
            async with net.dial(server) as peer:
                answer = await peer.handshake()
                assert status_of(answer) == 101
                assert "sec-websocket-protocol" not in answer.lower()
    left_out = [r for r in logged.records if "is not sent" in r.getMessage()]
    assert len(left_out) == 1
    logged.records.clear()  # The other halves weren't accepted, either.


async def test_a_response_that_cannot_be_sent_is_logged(
    net: Network, logged: Logged
) -> None:
    async def fetch(request: Request) -> Response:
        response = Response("fine")
        response.body = "broken"  # type: ignore[assignment]  # what one may try
        return response

    async with net.serve(fetch) as server:
        for _ in range(2):
            await exchange(net, server, net.head("Host: a"))
            assert "TypeError" in logged.take()


async def test_a_websocket_for_a_client_that_did_not_ask_is_a_426(
    net: Network, logged: Logged
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept()
        return Response(None, status=101, web_socket=client)

    async with net.serve(fetch) as server:
        answer = await exchange(net, server, net.head("Host: a"))
        assert status_of(answer) == 426
        assert b"\r\nUpgrade: websocket\r\n" in answer
        assert b"upgrade\r\n" in answer.partition(b"\r\nConnection:")[2]
        record = logged.take()
        assert "GET /: " in record
        assert "check request.wants_websocket first" in record


async def test_a_half_can_be_returned_only_once(net: Network, logged: Logged) -> None:
    async with trio.open_nursery() as nursery:
        client, server_half = WebSocketPair(nursery)
        server_half.accept()

        async def fetch(request: Request) -> Response:
            return Response(None, status=101, web_socket=client)

        async with net.serve(fetch) as server, net.peer(server) as first:
            async with net.dial(server) as second:
                assert status_of(await second.handshake()) == 500
            assert "given to a connection" in logged.take()
            server_half.send("yours")
            assert await first.receive() == "yours"
            await first.send(first.close_frame(1000))
            assert await first.receive_all() == [(1000, "")]


# -- arguments ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "options", "words"),
    [
        (TypeError, {"app": "x"}, "an async function of a request, .* this is"),
        (ValueError, {"port": 70000}, "port must be at most 65535, not 70000"),
        (TypeError, {"port": None}, "pass exactly one of port, unix and listeners"),
        (TypeError, {"listeners": []}, "pass exactly one of port, unix and listeners"),
        (TypeError, {"max_connections": "x"}, "max_connections must be an int"),
        (ValueError, {"max_connections": 0}, "max_connections must be at least 1"),
        (ValueError, {"handshake_timeout": -1}, "handshake_timeout must be 0 or more"),
        (ValueError, {"idle_timeout": -1}, "idle_timeout must be 0 or more"),
        (TypeError, {"body_timeout": "x"}, "body_timeout must be a number"),
        (TypeError, {"close_grace": None}, "close_grace must be a number"),
        (ValueError, {"max_body_bytes": -1}, "max_body_bytes must be at least 0"),
        (ValueError, {"stop_code": 1006}, "1006"),
        (TypeError, {"stop_code": "1001"}, "close code"),
        (TypeError, {"stop_code": trio.sleep_forever}, "or a sync function"),
        (ValueError, {"max_message_bytes": 0}, "max_message_bytes must be at least 1"),
        (ValueError, {"receive_buffer_bytes": 0}, "receive_buffer_bytes must be"),
    ],
)
async def test_a_wrong_argument_is_refused_before_anything_happens(
    net: Network, error: type[Exception], options: dict[str, Any], words: str
) -> None:
    arguments: dict[str, Any] = {"app": net.echo, "port": 0, **options}
    with pytest.raises(error, match=words):
        await serve(**arguments)


@pytest.mark.parametrize(
    ("context", "error"),
    [(True, TypeError), (CLIENT_CONTEXT, ValueError)],
    ids=["no context", "a context for clients"],
)
async def test_a_wrong_ssl_context_is_refused_before_the_first_client(
    net: Network, context: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="ssl_context"), trio.move_on_after(0.2):
        await serve(net.echo, 0, ssl_context=context)


async def test_a_port_in_use_is_an_os_error(net: Network) -> None:
    async with net.serve(net.echo) as server:
        with pytest.raises(OSError, match="in use"):
            await serve(net.echo, server.port)


async def test_the_server_has_the_addresses_that_it_listens_on(net: Network) -> None:
    async with net.serve(net.echo, host="localhost") as server:
        assert ("127.0.0.1", server.port) in server.addresses
        assert not server.secure
        assert server.url == f"ws://{server.addresses[0][0]}:{server.port}/"


# -- the life of a connection -------------------------------------------------


async def test_the_nursery_of_a_request_lives_as_long_as_the_connection(
    net: Network,
) -> None:
    lives: list[str] = []
    ended = trio.Event()

    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()

        async def live() -> None:
            lives.append("begun")
            try:
                lives.extend([str(message) async for message in server])
                lives.append("closed")
                await trio.sleep_forever()
            finally:
                lives.append("cancelled")
                ended.set()

        request.nursery.start_soon(live)
        return Response(None, status=101, web_socket=client)

    async with net.serve(fetch) as server, net.peer(server) as peer:
        await peer.send(peer.text_frame("hi"))
        await trio.sleep(0.05)
        assert not ended.is_set()
        await peer.send(peer.close_frame(1000))
        assert await peer.receive_all() == [(1000, "")]
        await ended.wait()
    assert lives == ["begun", "hi", "closed", "cancelled"]


async def test_the_nursery_of_a_plain_request_ends_before_the_answer(
    net: Network,
) -> None:
    events: list[str] = []

    async def fetch(request: Request) -> Response:
        async def background() -> None:
            try:
                await trio.sleep_forever()
            finally:
                events.append("cancelled")

        request.nursery.start_soon(background)
        return Response("ok")

    async with net.serve(fetch) as server:
        assert status_of(await exchange(net, server, net.head("Host: a"))) == 200
        assert events == ["cancelled"]


async def test_connect_in_a_handler_uses_the_nursery_of_the_request(
    net: Network,
) -> None:
    async with net.serve(net.echo) as upstream:

        async def fetch(request: Request) -> Response:
            half = await connect(upstream.url)
            return Response(None, status=101, web_socket=half)

        async with net.serve(fetch) as server, net.peer(server) as peer:
            await peer.send(peer.text_frame("through"), peer.close_frame(4000, "both"))
            assert await peer.receive_all() == ["through", (4000, "both")]


async def test_outside_of_a_handler_a_pair_needs_a_nursery(net: Network) -> None:
    with pytest.raises(RuntimeError, match="open_websocket_pair"):
        WebSocketPair()
    with pytest.raises(RuntimeError, match=r"open_websocket\(url\)"):
        await connect("ws://127.0.0.1:1/")


@pytest.mark.parametrize("accepted", [True, False])
async def test_cancelling_the_nursery_of_a_request_ends_its_connection(
    net: Network, *, accepted: bool
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        if accepted:
            server.accept()

        async def hang_up() -> None:
            await trio.sleep(0.05)
            request.nursery.cancel_scope.cancel()

        request.nursery.start_soon(hang_up)
        return Response(None, status=101, web_socket=client)

    async with net.serve(fetch) as server, net.peer(server) as peer:
        said: Any = "nothing"
        with trio.move_on_after(1):
            said = await peer.receive()
        assert said == (1001, "")
        await peer.send(peer.close_frame(1001))
        assert await peer.receive() is None


async def test_a_handler_that_cancels_its_own_nursery_gives_a_500(
    net: Network, logged: Logged
) -> None:
    async def fetch(request: Request) -> Response:
        request.nursery.cancel_scope.cancel()
        await trio.sleep_forever()
        return Response("never")

    async with net.serve(fetch) as server:
        assert status_of(await exchange(net, server, net.head("Host: a"))) == 500
        assert "fetch was cancelled" in logged.take()


async def test_messages_sent_before_the_101_follow_it(net: Network) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept()
        server.send("before")
        server.close(4000, "done")
        return Response(None, status=101, web_socket=client)

    async with net.serve(fetch) as server, net.peer(server) as peer:
        assert await peer.receive() == "before"
        assert await peer.receive() == (4000, "done")
        await peer.send(peer.close_frame(4000))
        assert await peer.receive() is None


async def test_a_half_may_outlive_the_connection_of_its_request(
    net: Network,
) -> None:
    async with trio.open_nursery() as room:
        ends: list[CloseEvent] = []

        async def fetch(request: Request) -> Response:
            client, server = WebSocketPair(room)
            server.add_event_listener("close", ends.append)
            server.accept()
            return Response(None, status=101, web_socket=client)

        async with net.serve(fetch) as server, net.peer(server) as peer:
            await peer.send(peer.close_frame(3000, "bye"))
            assert await peer.receive_all() == [(3000, "bye")]
    assert ends == [CloseEvent(3000, "bye", was_clean=True)]


# -- stopping -----------------------------------------------------------------


async def test_a_server_that_stops_closes_every_connection_with_1001(
    net: Network,
) -> None:
    async with trio.open_nursery() as nursery:
        halves: list[WebSocket] = []
        heard: list[list[Any]] = []

        async def fetch(request: Request) -> Response:
            client, server = WebSocketPair()
            halves.append(server)
            heard.append(net.accept(server))
            return Response(None, status=101, web_socket=client)

        server = await nursery.start(
            partial(serve, fetch, 0, close_grace=5.0), name="server"
        )
        async with net.peer(server) as first, net.peer(server) as second:
            halves[0].send("before")
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True), trio.fail_after(5):
                assert await first.receive() == "before"
                for peer in (first, second):
                    assert await peer.receive() == (1001, "the server stops")
                    await peer.send(
                        peer.text_frame("last words"), peer.close_frame(1001)
                    )
                    assert await peer.receive() is None
    end = CloseEvent(1001, "", was_clean=True)
    assert heard == [["last words", end], ["last words", end]]


async def test_a_server_that_stops_waits_no_longer_than_its_grace(
    net: Network,
) -> None:
    heard: list[list[Any]] = []

    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        heard.append(net.accept(server))
        return Response(None, status=101, web_socket=client)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, fetch, 0, close_grace=0.2))
        async with net.peer(server) as silent:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True), trio.fail_after(5):
                assert await silent.receive_all() == [(1001, "the server stops")]
    (events,) = heard
    assert events[-1] == CloseEvent(1006, events[-1].reason, was_clean=False)
    assert len([event for event in events if isinstance(event, CloseEvent)]) == 1


async def test_a_server_that_stops_leaves_nothing_behind(net: Network) -> None:
    async with trio.open_nursery() as nursery:
        tasks = trio.lowlevel.current_statistics().tasks_living
        sockets = net.open_sockets()
        started = trio.Event()

        async def fetch(request: Request) -> Response:
            started.set()
            await trio.sleep_forever()
            return Response("never")

        scope = trio.CancelScope()

        async def run(*, task_status: trio.TaskStatus[Server]) -> None:
            with scope:
                await serve(fetch, 0, task_status=task_status)

        server: Server = await nursery.start(run)
        async with net.dial(server) as silent, net.dial(server) as half:
            await half.send(net.head(*GOOD)[:-2])
            async with net.dial(server) as waiting:
                await waiting.send(net.head("Host: a"))
                await started.wait()
                scope.cancel()
                for peer in (silent, half, waiting):
                    assert await peer.read_all() == b""
        with pytest.raises(OSError, match="failed"):
            await trio.open_tcp_stream("127.0.0.1", server.port)
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert net.open_sockets() == sockets


async def test_a_server_stops_although_the_other_half_is_untaken(
    net: Network, logged: Logged
) -> None:
    async def fetch(request: Request) -> Response:
        client, _ = WebSocketPair()
        return Response(None, status=101, web_socket=client)

    async with net.serve(fetch, close_grace=0.2) as server, net.peer(server) as peer:
        await peer.send(peer.text_frame("into the void"))
    assert "never accepted: call server.accept()" in logged.take()


async def test_a_websocket_opened_while_the_server_stops_is_closed_at_once(
    net: Network,
) -> None:
    stop = trio.CancelScope()

    async def fetch(request: Request) -> Response:
        with trio.CancelScope(shield=True):
            stop.cancel()
            await trio.sleep(0.05)
        client, half = WebSocketPair()
        half.accept()
        return Response(None, status=101, web_socket=client)

    async def run(*, task_status: trio.TaskStatus[Server]) -> None:
        with stop:
            await serve(fetch, 0, close_grace=2.0, task_status=task_status)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(run)
        async with net.peer(server) as peer:
            assert await peer.receive() == (1001, "the server stops")
            await peer.send(peer.close_frame(1001))


def test_a_request_that_comes_while_a_server_stops_is_cancelled() -> None:
    class Asked:
        code = 0

        def stop(self, code: int) -> None:
            self.code = code

    tasks, asked = RequestTasks(), Asked()
    tasks.stop(1001)
    with tasks.including(cast("RequestTask", asked)):
        assert asked.code == 1001


async def test_a_message_after_the_close_of_the_server_makes_the_end_unclean(
    net: Network,
) -> None:
    halves: list[WebSocket] = []
    stop = trio.CancelScope()

    async def fetch(request: Request) -> Response:
        client, half = WebSocketPair()
        halves.append(half)
        heard.append(net.accept(half))
        return Response(None, status=101, web_socket=client)

    async def run(*, task_status: trio.TaskStatus[Server]) -> None:
        with stop:
            await serve(fetch, 0, close_grace=2.0, task_status=task_status)

    heard: list[list[Any]] = []
    async with trio.open_nursery() as nursery:
        server = await nursery.start(run)
        async with net.peer(server) as peer:
            stop.cancel()
            assert await peer.receive() == (1001, "the server stops")
            halves[0].send("too late")
            await peer.send(peer.close_frame(1001))
            await net.until(lambda: heard[0])
    assert [event.code for event in heard[0]] == [1006]


async def test_a_failed_write_ends_a_waiting_drain(net: Network) -> None:
    async with (
        net.serve_halves(receive_buffer_bytes=1000) as (server, halves),
        net.peer(server) as peer,
    ):
        half = await halves.receive()
        ended = trio.Event()

        @half.on("message")
        async def answer(event: MessageEvent) -> None:
            try:
                half.send(b"x" * 20_000_000)
                await half.drain()
            except ConnectionClosedError:
                ended.set()

        half.accept()
        for _ in range(100):
            await peer.send(peer.text_frame("y" * 1000))
        await trio.sleep(0.1)
        assert isinstance(peer.stream, trio.SocketStream)
        linger = b"\x01\0\0\0\0\0\0\0"
        peer.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await peer.stream.aclose()
        with trio.fail_after(5):
            await ended.wait()
            assert (await half.wait_closed()).code == 1006


async def test_the_port_is_free_as_soon_as_the_server_has_stopped(
    net: Network,
) -> None:
    async with net.serve(net.echo) as server, net.peer(server) as peer:
        await peer.send(peer.close_frame(1000))
        await peer.receive_all()
    async with net.serve(net.echo) as second:
        assert second.port
    async with trio.open_nursery() as nursery:
        again: Server = await nursery.start(serve, net.echo, server.port)
        assert again.port == server.port
        nursery.cancel_scope.cancel()


async def test_a_refusal_tells_the_client_the_reason(net: Network) -> None:
    async def fetch(request: Request) -> Response:
        return Response("members only", status=403, headers={"X-Reason": "dues"})

    async with net.serve(fetch) as server:
        with pytest.raises(HandshakeError) as caught:
            async with open_websocket(server.url):
                pass
    assert caught.value.status == 403
    assert caught.value.body == b"members only"
    assert ("x-reason", "dues") in caught.value.headers


async def test_sending_to_a_client_that_has_vanished_raises_in_the_end(
    net: Network,
) -> None:
    async with net.serve_halves() as (server, halves), net.dial(server) as peer:
        await peer.handshake()
        half = await halves.receive()
        half.accept(pull=True)
        await peer.send(peer.text_frame("unread"))
        await peer.stream.aclose()

        async def send_often() -> None:
            while True:
                half.send("are you there?")
                await trio.sleep(0.01)

        with pytest.raises(ConnectionClosedError) as caught:
            await send_often()
        assert (caught.value.code, caught.value.was_clean) == (1006, False)
        assert await half.receive() == "unread"


async def test_a_handler_cannot_use_the_half_that_it_has_returned(net: Network) -> None:
    given: list[WebSocket] = []

    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.onmessage = lambda event: server.send(event.data)
        server.accept(allow_half_open=True)
        server.onclose = lambda _event: server.close(3000)
        given.append(client)
        return Response(None, status=101, web_socket=client)

    async with net.serve(fetch, close_grace=0.1) as server, net.peer(server) as peer:
        with trio.move_on_after(0.3):
            await given[0].wait_closed()  # Waiting is allowed.
        with pytest.raises(InvalidStateError, match="use the other half"):
            await given[0].aclose()
        await peer.send(peer.text_frame("still here"), peer.close_frame(1000))
        assert await peer.receive_all() == ["still here", (3000, "")]


async def test_g10_a_request_leaves_no_garbage_for_the_collector(
    net: Network,
) -> None:
    kinds = (HTTPConnection, Request, WebSocket, trio.Nursery)

    def living() -> int:
        return sum(type(thing) in kinds for thing in gc.get_objects())

    async def fetch(request: Request) -> Response:
        if not request.wants_websocket:
            return Response("hello")
        client, server = WebSocketPair()
        server.accept()
        return Response(None, status=101, web_socket=client)

    async def visit(server: Server) -> None:
        await exchange(net, server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with net.peer(server) as peer:
            await peer.send(peer.close_frame(1000))
            assert await peer.receive() == (1000, "")
        await trio.testing.wait_all_tasks_blocked(0.02)

    async with net.serve(fetch) as server:
        await visit(server)  # By now, the caches are filled.
        gc.collect()
        gc.disable()
        try:
            before = living()
            await visit(server)
            await net.until(lambda: living() <= before)
        finally:
            gc.enable()

"""`connect()` and `open_websocket()`: requests, responses, and cancellation."""

import gc
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from network import Logged, Network, Script

from trio_wspair import (
    CloseEvent,
    HandshakeError,
    InvalidStateError,
    ReadyState,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    connect,
    open_websocket,
    serve,
)
from trio_wspair.testing import ScriptedPeer
from trio_wspair.testing._streams import MemoryPort


def answering(data: bytes, *, stays: bool = False) -> Script:
    """Return a server that responds to every request with `data`."""

    async def script(peer: "ScriptedPeer") -> None:
        await peer.read_head()
        with suppress(trio.BrokenResourceError):  # The client may have read enough.
            await peer.send(data)
        if stays:
            await peer.read_all()

    return script


async def refused(net: Network, script: Script, **options: Any) -> HandshakeError:
    """Try to connect to such a server and return the error."""
    async with net.script(script) as url:
        before = net.open_sockets()
        with pytest.raises(HandshakeError) as caught:
            async with open_websocket(url, **options):
                pass
        await net.until_open_sockets(before)
    return caught.value


# -- the request --------------------------------------------------------------


async def test_the_request_is_as_in_rfc_6455(net: Network) -> None:
    requests: list[str] = []

    async def script(peer: "ScriptedPeer") -> None:
        requests.append(await peer.handshake())
        await peer.send(peer.close_frame(1000))
        await peer.receive()

    async with net.script(script) as url:
        for _ in range(2):
            async with open_websocket(
                f"{url}chat?room=1",
                protocols=["soap", "wamp"],
                headers=[("Cookie", "a=1"), ("X-Name", "Zoë"), ("Cookie", "b=2")],
            ) as ws:
                assert ws.url == f"{url}chat?room=1"
                assert ws.extensions == ""
    lines = requests[0].split("\r\n")
    assert lines[0] == "GET /chat?room=1 HTTP/1.1"
    fields = {(k.lower(), v) for k, v in (line.split(": ") for line in lines[1:-2])}
    assert fields >= {
        ("host", url.removeprefix("ws://").removesuffix("/")),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "soap, wamp"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("x-name", "Zoë"),
    }
    keys = [request.lower().split("sec-websocket-key: ")[1] for request in requests]
    assert keys[0] != keys[1]


async def test_a_url_without_a_path_asks_for_the_root(net: Network) -> None:
    requests: list[str] = []

    async def script(peer: "ScriptedPeer") -> None:
        requests.append(await peer.handshake())

    async with net.script(script) as url, open_websocket(url[:-1] + "?a=b"):
        pass
    assert requests[0].startswith("GET /?a=b HTTP/1.1\r\n")


@pytest.mark.parametrize("offered", ["wamp", ["soap", "wamp"]], ids=["str", "list"])
async def test_the_subprotocol_chosen_by_the_server_is_its_protocol(
    net: Network, offered: str | list[str]
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept()
        headers = {"Sec-WebSocket-Protocol": "wamp"}
        return Response(None, status=101, web_socket=client, headers=headers)

    async with (
        net.serve(fetch) as server,
        open_websocket(server.url, protocols=offered) as ws,
    ):
        assert ws.protocol == "wamp"


async def test_without_a_subprotocol_the_protocol_is_empty_and_a_warning_is_logged_once(
    net: Network, logged: Logged
) -> None:
    async with net.serve(net.echo) as server:
        for _ in range(3):
            async with open_websocket(server.url, protocols=["wamp", "hunter2"]) as ws:
                assert ws.protocol == ""
    record = logged.take()
    assert "GET /: the client offers subprotocols (2) and fetch chose none" in record
    assert "headers={'Sec-WebSocket-Protocol': ...} in the Response" in record
    assert "hunter2" not in record


async def test_a_name_beyond_ascii_is_encoded_by_idna(net: Network) -> None:
    async with net.serve(net.echo) as server:
        url = f"ws://ｌｏｃａｌｈｏｓｔ:{server.port}/"  # noqa: RUF001 - that's the point
        async with open_websocket(url) as ws:
            ws.send("hi")
            assert await ws.receive() == "hi"


async def test_a_path_and_a_query_are_sent_percent_encoded(net: Network) -> None:
    urls: list[str] = []

    async def fetch(request: Request) -> Response:
        urls.append(request.url)
        return await net.echo(request)

    async with (
        net.serve(fetch) as server,
        open_websocket(server.url + "Zoë's room?q=ü b%20c"),
    ):
        pass
    assert urls[0].endswith("/Zo%C3%AB's%20room?q=%C3%BC%20b%20c")


# -- wrong calls --------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "arguments", "words"),
    [
        (TypeError, {"url": b"ws://a/"}, "url must be a str, not bytes"),
        (
            ValueError,
            {"url": "ftp://a/"},
            "is not the URL of a WebSocket: it must be",
        ),
        (ValueError, {"url": "ws://a:65536/"}, "a number from 1 to 65535"),
        (
            ValueError,
            {"url": "ws://me:secret@a/", "headers": {"Authorization": "Bearer x"}},
            "the URL has a user name, and the headers have 'Authorization'",
        ),
        (
            ValueError,
            {"ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)},
            "ssl_context is for wss://",
        ),
        (ValueError, {"connect_timeout": -1}, "connect_timeout must be 0 or more"),
        (TypeError, {"close_grace": "5"}, "close_grace must be a number"),
        (ValueError, {"max_message_bytes": 0}, "max_message_bytes must be at least 1"),
        (TypeError, {"max_buffered_bytes": 1.0}, "max_buffered_bytes must be an int"),
        (ValueError, {"receive_buffer_bytes": 0}, "receive_buffer_bytes must be"),
        (
            TypeError,
            {"headers": {"X": 1}},
            "value of header 'X' must be a str, not int",
        ),
        (ValueError, {"headers": {"X": "a\r\nY: b"}}, "line breaks and characters"),
        (ValueError, {"headers": {"X Y": "a"}}, "can't be the name of a header"),
        (TypeError, {"protocols": [1]}, "protocol"),
        (ValueError, {"protocols": ["ü"]}, "protocol"),
        (ValueError, {"protocols": ["a b"]}, "protocol"),
        (ValueError, {"protocols": "a, b"}, "protocol"),
        (ValueError, {"protocols": ""}, "protocol"),
        (ValueError, {"protocols": ["a", "a"]}, "protocol"),
        (ValueError, {"headers": {"Host": "b"}}, "(?i)host"),
        (ValueError, {"headers": {"Sec-WebSocket-Key": "b"}}, "(?i)sec-websocket-key"),
        (ValueError, {"headers": {"Content-Length": "5"}}, "(?i)content-length"),
        (TypeError, {"dial": "unix"}, "dial must be an async function"),
        (
            TypeError,
            {"dial": trio.open_tcp_stream, "proxy": "http://a:1"},
            "dial and proxy exclude each other",
        ),
    ],
)
async def test_a_wrong_argument_is_refused_before_anything_happens(
    net: Network, error: type[Exception], arguments: dict[str, Any], words: str
) -> None:
    called: list[str] = []

    async def script(peer: "ScriptedPeer") -> None:
        called.append(await peer.read_head())

    async with net.script(script) as url, trio.open_nursery() as nursery:
        arguments = {"url": url, "nursery": nursery, **arguments}
        with pytest.raises(error, match=words):
            await connect(**arguments)
    assert called == []


async def test_a_nursery_is_needed(net: Network) -> None:
    with pytest.raises(InvalidStateError, match=r"async with open_websocket\(url\)"):
        await connect("ws://127.0.0.1:1/")
    with pytest.raises(TypeError, match=r"nursery must be .*, not object"):
        # A missing argument on purpose.
        await connect("ws://127.0.0.1:1/", nursery=object())  # type: ignore[arg-type]


async def test_a_port_without_a_server_is_an_os_error(net: Network) -> None:
    async with net.serve(net.echo) as server:
        url = server.url
    with pytest.raises(
        ConnectionRefusedError,
        match=rf"can't reach 127\.0\.0\.1:{server.port}: connection refused",
    ):
        async with open_websocket(url):
            pass


# -- responses without a WebSocket --------------------------------------------

FORBIDDEN = "HTTP/1.1 403 Forbidden"


@pytest.mark.parametrize("stays", [False, True], ids=["leaves", "stays"])
async def test_a_refusal_has_status_headers_and_body(
    net: Network, *, stays: bool
) -> None:
    data = net.head("Content-Length: 4", "X-A: 1", "X-A: 2", start=FORBIDDEN) + b"dues"
    error = await refused(net, answering(data, stays=stays))
    assert error.status == 403
    assert error.headers == (("content-length", "4"), ("x-a", "1"), ("x-a", "2"))
    assert error.body == b"dues"
    assert "refused" in str(error)
    assert "403" in str(error)


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"Content-Length: 0\r\n\r\n", b""),
        (b"Content-Length: 10\r\n\r\ncut", b"cut"),
        (b"\r\nto the end", b"to the end"),
        (
            b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            b"abcde",
        ),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n9\r\nde", b"abcde"),
        (b"Content-Length: 200000\r\n\r\n" + b"x" * 200_000, b"x" * 200_000),
    ],
    ids=["empty", "cut short", "no length", "chunked", "chunked, cut short", "large"],
)
async def test_a_refusal_with_any_kind_of_body(
    net: Network, data: bytes, body: bytes
) -> None:
    error = await refused(net, answering(FORBIDDEN.encode() + b"\r\n" + data))
    assert (error.status, error.body) == (403, body)


async def test_a_refusal_whose_body_never_ends_keeps_its_status(net: Network) -> None:
    data = net.head("Content-Length: 9", start=FORBIDDEN) + b"abc"
    error = await refused(net, answering(data, stays=True), connect_timeout=0.2)
    assert (error.status, error.body) == (403, b"abc")


async def test_a_refusal_with_an_endless_body_is_not_read_for_ever(
    net: Network,
) -> None:
    sent = 0

    async def script(peer: "ScriptedPeer") -> None:
        nonlocal sent
        await peer.read_head()
        await peer.send(net.head(start=FORBIDDEN))
        try:
            while True:
                await peer.send(bytes(2**16))
                sent += 2**16
        except trio.BrokenResourceError:
            pass

    error = await refused(net, script, connect_timeout=2.0)
    assert error.status == 403
    assert sent < 2**24


async def test_a_response_with_too_large_a_head_is_not_read_to_its_end(
    net: Network,
) -> None:
    data = net.head(*["X: " + "y" * 1000] * 100, start="HTTP/1.1 101 Switching")
    error = await refused(net, answering(data, stays=True))
    assert "more than 64 KiB" in str(error)


async def test_a_server_that_resets_is_a_handshake_error(net: Network) -> None:
    async def script(peer: "ScriptedPeer") -> None:
        await peer.read_head()
        assert isinstance(peer.stream, trio.SocketStream)
        linger = b"\x01\0\0\0\0\0\0\0"
        peer.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    error = await refused(net, script)
    assert "closed the connection before it answered" in str(error)


async def test_a_reset_is_explained(net: Network) -> None:
    async def script(peer: "ScriptedPeer") -> None:
        await peer.read_head()
        await peer.reset()

    error = await refused(net, script)
    assert "before it answered (Connection reset by peer)" in str(error)
    assert isinstance(error.__cause__, ConnectionResetError)


async def test_endless_interim_responses_are_not_read_for_ever(
    net: Network,
) -> None:
    async def script(peer: "ScriptedPeer") -> None:
        await peer.read_head()
        with suppress(trio.BrokenResourceError):
            while True:
                await peer.send(net.head("Link: </a>", start="HTTP/1.1 103 Hints"))

    error = await refused(net, script, connect_timeout=0.3)
    assert "within 0.3 s" in str(error)


async def test_interim_responses_are_skipped(net: Network) -> None:
    async def script(peer: "ScriptedPeer") -> None:
        await peer.send(net.head("Link: </a>", start="HTTP/1.1 103 Early Hints"))
        await peer.handshake()
        await peer.send(peer.text_frame("hi"))
        await peer.receive_all()

    async with net.script(script) as url, open_websocket(url, close_grace=0.1) as ws:
        assert await ws.receive() == "hi"


@pytest.mark.parametrize(
    ("start", "lines", "body", "words"),
    [
        ("404 Not Found", [], b"", "refused the WebSocket with status 404 (Not Found)"),
        ("404 Nix", [], b"", "refused the WebSocket with status 404 (Not Found)"),
        ("599 Odd \x07", [], b"", "refused the WebSocket with status 599 (Odd \\x07)"),
        ("599 ", [], b"", "refused the WebSocket with status 599"),
        (
            "200 OK",
            [],
            b"hi",
            'with status 200 (OK) instead of opening a WebSocket: "hi"',
        ),
        ("403 X", [], b"\r\na\n\n  b\t\nc\nd", '(Forbidden): "a / b / c"'),
        ("403 X", [], "\x1b[1mZoë\u202e".encode(), '(Forbidden): "\\x1b[1mZoë\\u202e"'),
        ("403 X", [], b"x" * 5000, '(Forbidden): "' + "x" * 200 + '..."'),
        ("403 X", [], "é".encode() * 5000, '(Forbidden): "' + "é" * 200 + '..."'),
        ("403 X", [], b"\x1f\x8b\x08\x00\xff", "with status 403 (Forbidden)"),
        ("500 X", ["Content-Type: application/json"], b'{"a": 1}', '{\\"a\\": 1}"'),
        (
            "400 X",
            ["Content-Type: text/html; charset=utf-8"],
            b"<title>400 No</title><style>a{}</style><h1>Sent plain</h1><hr>to TLS<",
            '"400 No / Sent plain / to TLS"',
        ),
        (
            "302 X",
            ["Location: https://me:hunter2@b.example/x?token=hunter2\x1b"],
            b"hunter2",
            'redirects to "https://b.example/x?token=..." with status 302 (Found)',
        ),
        ("304 X", [], b"", "with status 304 (Not Modified) instead of opening"),
        ("101 X", ["Upgrade: h2c"], b"", "answered 101, but not as"),
    ],
)
async def test_the_error_shows_the_first_lines_of_an_http_response(
    net: Network, start: str, lines: list[str], body: bytes, words: str
) -> None:
    head = "\r\n".join([f"HTTP/1.1 {start}", *lines, "", ""])
    error = await refused(net, answering(head.encode("latin-1") + body))
    assert words in str(error)
    assert start[:3] in {"101", "302", "304"} or str(error).endswith(words)
    assert "the server 127.0.0.1:" in str(error)
    assert "hunter2" not in str(error)
    assert str(error).isprintable()


@pytest.mark.parametrize("status", [200, 302, 401, 500, 503])
async def test_other_statuses_are_refusals(net: Network, status: int) -> None:
    start = f"HTTP/1.1 {status} Whatever"
    data = net.head("Content-Length: 0", "Location: /x", start=start)
    error = await refused(net, answering(data))
    assert error.status == status
    assert ("location", "/x") in error.headers


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "closed the connection before it answered; if it speaks TLS, .* wss:"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "speaks TLS on this port; .* wss:"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "not HTTP/1.1; it begins with b'SSH-2.0"),
        (b"\x00" * 100_000, "not HTTP/1.1; it begins with"),
        (b"220 smtp.example ESMTP\r\n\r\n", "not HTTP/1.1; it begins with b'220 s"),
        (b"\0\0\x12\x04\0\0\0\0\0\0\3\0\0\0\x80\0\4\0", "speaks HTTP/2 only"),
        (b"HTTP/1.1 101 Swit", "closed the connection in the middle of its answer"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "is not valid HTTP/1.1: illegal status line"),
        (b"HTTP/1.1 101 OK\r\nA b: c\r\n\r\n", "is not valid HTTP/1.1: illegal header"),
    ],
    ids=[
        "nothing",
        "TLS alert",
        "SSH",
        "zeros",
        "SMTP",
        "HTTP/2",
        "a part",
        "bad status",
        "bad header",
    ],
)
async def test_the_error_for_a_response_that_is_not_http_says_so(
    net: Network, data: bytes, words: str
) -> None:
    error = await refused(net, answering(data))
    assert error.status is None
    with pytest.raises(HandshakeError, match=words):
        raise error
    assert len(str(error)) < 200


def opening(*without: str, extra: tuple[str, ...] = ()) -> Script:
    """Return a server whose 101 is invalid."""

    async def script(peer: "ScriptedPeer") -> None:
        request = await peer.read_head()
        key = request.lower().index("sec-websocket-key: ") + len("sec-websocket-key: ")
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {request[key : key + 24][::-1]}",
            *extra,
        ]
        kept = [line for line in lines if not line.startswith(without)]
        await peer.send("\r\n".join([*kept, "", ""]).encode())
        await peer.read_all()

    return script


@pytest.mark.parametrize("version", ["1.0", "2.0"])
async def test_a_101_of_another_http_version_is_refused(
    net: Network, version: str
) -> None:
    async def script(peer: "ScriptedPeer") -> None:
        key = re.search(r"(?i)sec-websocket-key: (\S+)", await peer.read_head())
        assert key is not None
        accept = f"Sec-WebSocket-Accept: {net.accept_key(key[1])}"
        start = f"HTTP/{version} 101 Switching Protocols"
        upgrade = ("Upgrade: websocket", "Connection: Upgrade")
        await peer.send(net.head(*upgrade, accept, start=start))
        await peer.read_all()

    assert "101, but not as RFC 6455" in str(await refused(net, script))


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(opening(), id="wrong Accept"),
        pytest.param(opening("Sec-WebSocket-Accept"), id="no Accept"),
        pytest.param(opening("Upgrade"), id="no Upgrade"),
        pytest.param(opening("Connection"), id="no Connection"),
    ],
)
async def test_a_101_with_wrong_headers_is_refused(
    net: Network, script: Script
) -> None:
    error = await refused(net, script)
    assert "101, but not as RFC 6455" in str(error)
    assert error.status == 101


@pytest.mark.parametrize(
    "header",
    [
        "Sec-WebSocket-Protocol: never-offered",
        "Sec-WebSocket-Extensions: permessage-deflate",
    ],
)
async def test_a_101_that_accepts_what_was_not_offered_is_refused(
    net: Network, header: str
) -> None:
    async def script(peer: "ScriptedPeer") -> None:
        await peer.handshake(header)
        await peer.read_all()

    error = await refused(net, script)
    assert "101, but not as RFC 6455" in str(error)


async def test_a_silent_server_ends_with_a_timeout(net: Network) -> None:
    error = await refused(net, answering(b"", stays=True), connect_timeout=0.1)
    assert "no WebSocket at 127.0.0.1:" in str(error)
    assert "within 0.1 s: the server has not answered the request" in str(error)


async def test_a_response_byte_by_byte_ends_with_a_timeout(net: Network) -> None:
    async def script(peer: "ScriptedPeer") -> None:
        await peer.read_head()
        try:
            for byte in net.head(*["X: y"] * 1000, start="HTTP/1.1 101 Switching"):
                await peer.send(bytes([byte]))
                await trio.sleep(0.01)
        except trio.BrokenResourceError:
            pass

    error = await refused(net, script, connect_timeout=0.2)
    assert "within 0.2 s" in str(error)


# -- connecting and cancelling ------------------------------------------------


async def test_a_cancelled_connect_leaves_no_connection(net: Network) -> None:
    heads: list[str] = []
    ends: list[bytes] = []
    asked = trio.Event()

    async def script(peer: "ScriptedPeer") -> None:
        heads.append(await peer.read_head())
        asked.set()
        ends.append(await peer.read_all())

    async with net.script(script) as url, trio.open_nursery() as nursery:
        before = net.open_sockets()
        with trio.CancelScope() as scope:
            scope.cancel()
            await connect(url, nursery=nursery)
        assert scope.cancelled_caught
        assert net.open_sockets() == before
        assert heads == []

        with trio.CancelScope() as scope:

            async def cancel() -> None:
                await asked.wait()
                scope.cancel()

            nursery.start_soon(cancel)
            await connect(url, nursery=nursery)
        assert scope.cancelled_caught
        await net.until_open_sockets(before)
        await net.until(lambda: ends)
        assert ends == [b""]


async def test_a_connection_outlives_the_timeouts_of_its_handshake(
    net: Network,
) -> None:
    async with (
        net.serve(net.echo, handshake_timeout=0.2) as server,
        open_websocket(server.url, connect_timeout=0.2) as ws,
    ):
        await trio.sleep(0.4)
        ws.send("still here")
        assert await ws.receive() == "still here"


async def test_connect_is_a_checkpoint(net: Network) -> None:
    async with net.serve(net.echo) as server, trio.open_nursery() as nursery:
        with trio.testing.assert_checkpoints():
            client = await connect(server.url, nursery=nursery)
        client.accept()
        await client.aclose()


async def test_a_nursery_ends_when_its_connection_has_closed(
    net: Network,
) -> None:
    async with net.serve(net.echo) as server, trio.open_nursery() as nursery:
        client = await connect(server.url, nursery=nursery)
        client.accept(pull=True)
        client.send("hi")
        assert await client.receive() == "hi"
        await client.aclose()


async def test_a_client_half_buffers_messages_until_it_is_accepted(
    net: Network,
) -> None:
    async def script(peer: "ScriptedPeer") -> None:
        await peer.handshake()
        await peer.send(peer.text_frame("early"), peer.close_frame(4000, "done"))
        assert await peer.receive_all() == [(4000, "done")]

    async with net.script(script) as url, trio.open_nursery() as nursery:
        client = await connect(url, nursery=nursery)
        with pytest.raises(InvalidStateError, match=r"accept\(\)"):
            client.send("too early")
        await trio.sleep(0.05)
        assert client.ready_state is ReadyState.OPEN
        heard = net.accept(client)
        await client.wait_closed()
        assert heard == ["early", CloseEvent(4000, "done", was_clean=True)]


async def test_frames_in_one_segment_with_the_101_are_not_lost(net: Network) -> None:
    async def script(peer: "ScriptedPeer") -> None:
        request = await peer.read_head()
        key = request[request.lower().index("sec-websocket-key: ") + 19 :][:24]
        accept = net.accept_key(key)
        head = net.head(
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept}",
            start="HTTP/1.1 101 Switching Protocols",
        )
        await peer.send(head, peer.text_frame("at once"), peer.close_frame(1000))
        assert await peer.receive_all() == [(1000, "")]

    async with net.script(script) as url, open_websocket(url) as ws:
        assert [message async for message in ws] == ["at once"]


async def test_open_websocket_is_accepted_and_pulls(net: Network) -> None:
    async with net.serve(net.echo) as server, open_websocket(server.url) as ws:
        ws.send("a")
        ws.send(b"b")
        assert await ws.receive() == "a"
        assert await anext(ws) == b"b"
        states = [ws.ready_state]
    states.append(ws.ready_state)
    assert states == [ReadyState.OPEN, ReadyState.CLOSED]


async def refuse(_request: Request) -> Response:
    return Response("not here", status=404)


async def wait_in_vain(_request: Request) -> Response:
    await trio.sleep_forever()
    raise AssertionError


@pytest.mark.parametrize("fetch", [refuse, wait_in_vain, None])
async def test_g10_a_connection_that_fails_leaves_no_cycle_of_references(
    net: Network, fetch: Callable[[Request], Awaitable[Response]] | None
) -> None:
    """A client that retries often must not need the collector."""

    def halves() -> int:
        return sum(type(thing) is WebSocket for thing in gc.get_objects())

    port = MemoryPort()
    async with trio.open_nursery() as nursery:
        options: dict[str, Any] = {}
        if fetch is not None:
            await nursery.start(partial(serve, fetch, listeners=[port]))
            options["dial"] = port.dial
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"ws://127.0.0.1:{unused.getsockname()[1]}/"
            gc.collect()
            gc.disable()
            try:
                before = halves()
                with suppress(OSError, HandshakeError):
                    async with open_websocket(url, connect_timeout=0.1, **options):
                        raise AssertionError
                assert halves() == before
            finally:
                gc.enable()
        nursery.cancel_scope.cancel()

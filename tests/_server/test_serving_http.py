"""HTTP on real sockets: kept connections, listeners, clients of other libraries."""

import http.client
import logging
import random
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from handlers import echo_path, endless_body, show_request
from memory_server import UPGRADE, Fetch, chunked, parse_answers, request_bytes
from network import Logged, Network, Tls

from trio_wspair import (
    InvalidStateError,
    Request,
    Response,
    Server,
    open_websocket,
    serve,
)
from trio_wspair.testing import ScriptedPeer


@pytest.fixture(scope="module")
def engine() -> None:
    """Run each test on one engine, as the engine doesn't matter here."""


async def mirror(request: Request) -> Response:
    """Respond with the body of the request, in pieces if the URL says so."""
    body = await request.bytes()
    headers = {"X-Method": request.method, "X-Path": request.path}

    async def pieces() -> AsyncGenerator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    return Response(pieces() if "pieces" in request.url else body, headers=headers)


async def page_and_socket(net: Network, request: Request) -> Response:
    """Serve a page, and an echo on ``/ws``."""
    return await (net.echo if request.path == "/ws" else echo_path)(request)


async def bytes_until_end(peer: "ScriptedPeer") -> bytes:
    """End the sending direction, and return all that comes."""
    assert isinstance(peer.stream, trio.SocketStream)
    await peer.stream.send_eof()
    return await peer.read_all()


async def read_to(peer: "ScriptedPeer", end: bytes) -> bytes:
    """Return all that comes, up to this end."""
    data = b""
    while not data.endswith(end) and (more := await peer.stream.receive_some()):
        data += more
    return data


# -- a page and a WebSocket ---------------------


async def test_a_connection_is_kept_and_becomes_a_websocket(net: Network) -> None:
    async with (
        net.serve(partial(page_and_socket, net)) as server,
        net.dial(server) as peer,
    ):
        for path in ("/", "/style.css"):
            await peer.send(request_bytes("GET", path))
            (got,) = parse_answers(await read_to(peer, path.encode()))
            assert (got.status, got.keeps_alive) == (200, True)
        assert (await peer.handshake(target="/ws")).startswith("HTTP/1.1 101 ")
        await peer.send(peer.text_frame("hi"), peer.close_frame(1000))
        assert await peer.receive_all() == ["hi", (1000, "")]


async def test_a_page_a_websocket_and_its_frames_may_be_sent_at_once(
    net: Network,
) -> None:
    async with (
        net.serve(partial(page_and_socket, net)) as server,
        net.dial(server) as peer,
    ):
        await peer.send(
            request_bytes("HEAD", "/"),
            request_bytes("POST", "/", "Transfer-Encoding: chunked"),
            chunked(b"not read"),
            request_bytes("GET", "/ws", *UPGRADE),
            peer.text_frame("early"),
            peer.frame(net.BINARY, bytes(100_000)),
            peer.close_frame(1000),
        )
        heads = [await peer.read_head() for _ in range(2)]
        assert all(head.startswith("HTTP/1.1 200 OK\r\n") for head in heads)
        upgraded = await peer.read_head()
        assert upgraded.startswith("/HTTP/1.1 101 "), "the body of the POST"
        assert await peer.receive_all() == ["early", bytes(100_000), (1000, "")]


async def test_a_websocket_is_the_last_request_on_a_connection(net: Network) -> None:
    async with net.serve(net.echo) as server, net.peer(server) as peer:
        await peer.send(peer.close_frame(1000), request_bytes("GET", "/"))
        assert await peer.receive_all() == [(1000, "")]


# -- clients of other libraries ---------------------


def ask_around(
    connection: http.client.HTTPConnection, source: random.Random, count: int
) -> int:
    """Send requests of all kinds on one connection; return their number."""
    with_body, asked = 0, 0
    connection.connect()
    first = connection.sock
    for number in range(count):
        method = source.choice(["GET", "HEAD", "POST", "PUT", "DELETE", "BREW"])
        path = f"/{number}" + source.choice(["", "?pieces"])
        body = source.choice([None, b"", source.randbytes(source.randrange(50_000))])
        in_chunks = body is not None and source.random() < 0.5
        chunks: Any = iter([b"<", body, b">"]) if in_chunks else body
        connection.request(method, path, chunks, encode_chunked=False)
        answer = connection.getresponse()
        data = answer.read()
        sent = b"<" + (body or b"") + b">" if in_chunks else body or b""
        assert answer.status == 200
        assert answer.getheader("X-Path") == f"/{number}"
        assert answer.getheader("X-Method") == method
        assert data == (b"" if method == "HEAD" else sent)
        assert connection.sock is first, "it was not kept"
        with_body += bool(sent)
        asked += 1
    assert with_body > count / 5
    return asked


async def test_the_client_of_the_standard_library_keeps_its_connection(
    net: Network,
) -> None:
    async with net.serve(mirror) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        try:
            asked = await trio.to_thread.run_sync(
                ask_around, connection, random.Random(5), 200
            )
        finally:
            connection.close()
        assert asked == 200


async def test_the_client_of_the_standard_library_keeps_its_tls_connection(
    net: Network, tls: Tls
) -> None:
    async with net.serve(mirror, ssl_context=tls.server) as server:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", server.port, timeout=5, context=tls.client
        )
        try:
            asked = await trio.to_thread.run_sync(
                ask_around, connection, random.Random(6), 50
            )
        finally:
            connection.close()
        assert asked == 50


async def test_the_handler_sees_that_the_connection_has_tls(
    net: Network, tls: Tls
) -> None:
    async with net.serve(show_request, ssl_context=tls.server) as server:
        raw = await trio.open_tcp_stream("127.0.0.1", server.port)
        stream = trio.SSLStream(
            raw, tls.client, server_hostname="localhost", https_compatible=True
        )
        async with stream:
            await stream.send_all(request_bytes("GET", "/x", "Connection: close"))
            data = b"".join([bytes(more) async for more in stream])
    assert data.endswith(b"\r\n\r\n127.0.0.1 https://test/x True")


# -- clients that are slow, or send too much ---------------------


async def test_a_large_upload_and_its_response_arrive_whole(net: Network) -> None:
    body = random.Random(7).randbytes(3_000_000)
    async with (
        net.serve(mirror, max_body_bytes=len(body)) as server,
        net.dial(server) as peer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(
            peer.send, request_bytes("POST", "/", "Connection: close", body=body)
        )
        (got,) = parse_answers(await peer.read_all(), "POST")
        assert got.body == body


async def test_a_client_that_sends_too_much_can_read_the_refusal(
    net: Network,
) -> None:
    async with (
        net.serve(mirror, max_body_bytes=100_000) as server,
        net.dial(server) as peer,
        trio.open_nursery() as nursery,
    ):
        chunks = chunked(*[bytes(10_000)] * 300)
        head = request_bytes("POST", "/", "Transfer-Encoding: chunked")
        nursery.start_soon(peer.send, head, chunks)
        data = b""
        while more := await peer.stream.receive_some():  # A reset would raise.
            data += more
        (got,) = parse_answers(data, "POST")
        assert (got.status, got.keeps_alive) == (413, False)


async def test_a_slow_body_is_read_and_a_stalled_one_is_not_waited_for(
    net: Network,
) -> None:
    async with (
        net.serve(mirror, body_timeout=0.3, min_body_rate=0) as server,
        net.dial(server) as peer,
    ):
        await peer.send(request_bytes("POST", "/", "Content-Length: 40"))
        for _ in range(40):
            await peer.send(b"x")
            await trio.sleep(0.02)
        assert await read_to(peer, b"x" * 40)
        await peer.send(request_bytes("POST", "/", "Content-Length: 40"), b"x")
        assert (await peer.read_head()).startswith("HTTP/1.1 408 ")


async def test_an_idle_connection_ends_and_its_place_is_free(
    net: Network, logged: Logged
) -> None:
    async with net.serve(echo_path, max_connections=1, idle_timeout=0.2) as server:
        async with net.dial(server) as idle:
            await idle.send(request_bytes("GET", "/idle"))
            await idle.read_head()
            async with net.dial(server) as second:
                assert (await second.read_head()).startswith("HTTP/1.1 503 ")
            assert await idle.read_all() == b"/idle"
        async with net.dial(server) as third:
            await third.send(request_bytes("GET", "/third"))
            assert (await bytes_until_end(third)).endswith(b"\r\n\r\n/third")
    assert "max_connections" in logged.take()


# -- addresses ---------------------


async def unix_listener(path: Path) -> trio.SocketListener:
    """Listen on a Unix socket."""
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await sock.bind(str(path))
    sock.listen()
    return trio.SocketListener(sock)


@asynccontextmanager
async def serving_on(
    fetch: Fetch, listeners: list[trio.SocketListener], **options: Any
) -> AsyncGenerator[Server]:
    """Run `serve()` on listeners for a block, and stop it afterwards."""
    async with trio.open_nursery() as nursery:
        run = partial(serve, fetch, listeners=listeners, **options)
        yield await nursery.start(run)
        nursery.cancel_scope.cancel()


async def test_the_default_host_is_localhost(net: Network) -> None:
    async with net.serve(echo_path) as server:
        assert server.addresses == (("127.0.0.1", server.port),)


async def test_host_none_listens_on_all_addresses(net: Network) -> None:
    async with net.serve(echo_path, host=None) as server:
        hosts = {address[0] for address in server.addresses}
        assert hosts & {"0.0.0.0", "::"}  # noqa: S104 - on purpose, and briefly
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with stream:
            await stream.send_all(request_bytes("GET", "/x", "Connection: close"))
            assert b"".join([bytes(m) async for m in stream]).endswith(b"\r\n/x")


async def test_a_unix_socket_serves_requests_and_websockets(
    net: Network, tmp_path: Path
) -> None:
    path = tmp_path / "server.sock"

    async def fetch(request: Request) -> Response:
        return await (net.echo if request.path == "/ws" else show_request)(request)

    async with serving_on(fetch, [await unix_listener(path)]) as server:
        assert server.addresses == (str(path),)
        assert not server.secure
        for attribute in ("port", "url"):
            with pytest.raises(InvalidStateError, match="has no port") as caught:
                getattr(server, attribute)
            assert repr(str(path)) in str(caught.value)
        peer = net.raw(await trio.open_unix_socket(str(path)), masks=True)
        async with peer.stream:
            await peer.send(
                request_bytes("GET", "/x") + request_bytes("GET", "/ws", *UPGRADE)
            )
            await peer.read_head()
            shown = await peer.read_head()
            assert shown.startswith("- http://test/x FalseHTTP/1.1 101 ")
            await peer.send(peer.text_frame("hi"), peer.close_frame(1000))
            assert await peer.receive_all() == ["hi", (1000, "")]


async def test_a_client_connects_to_a_unix_socket_through_dial(
    net: Network, tmp_path: Path
) -> None:
    path = tmp_path / "server.sock"

    async def dial(host: str, port: int) -> trio.SocketStream:
        assert (host, port) == ("there", 80)
        return await trio.open_unix_socket(str(path))

    async with (
        serving_on(net.echo, [await unix_listener(path)]),
        open_websocket("ws://there/", dial=dial) as ws,
    ):
        ws.send("hi")
        assert await ws.receive() == "hi"


async def test_behind_a_proxy_a_unix_socket_has_the_address_of_the_client(
    net: Network, tmp_path: Path
) -> None:
    path = tmp_path / "server.sock"
    async with serving_on(
        show_request, [await unix_listener(path)], proxy_headers=True
    ):
        peer = net.raw(await trio.open_unix_socket(str(path)), masks=True)
        async with peer.stream:
            said = ("X-Forwarded-For: ::1, 192.0.2.1", "X-Forwarded-Proto: https")
            await peer.send(request_bytes("GET", "/x", *said))
            shown = await bytes_until_end(peer)
    assert shown.endswith(b"\r\n\r\n192.0.2.1 https://test/x True")


async def test_several_listeners_are_served_together(
    net: Network, tmp_path: Path
) -> None:
    path = tmp_path / "server.sock"
    first, second = [
        (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] for _ in range(2)
    ]
    third = await unix_listener(path)
    async with serving_on(echo_path, [first, second, third]) as server:
        assert len(server.addresses) == 3
        assert server.addresses[2] == str(path)
        assert server.port == first.socket.getsockname()[1]
        assert server.url == f"ws://127.0.0.1:{server.port}/"
        for address in server.addresses[:2]:
            assert isinstance(address, tuple)
            async with await trio.open_tcp_stream(*address) as stream:
                await stream.send_all(request_bytes("GET", "/x", "Connection: close"))
                data = b"".join([bytes(more) async for more in stream])
                assert data.endswith(b"\r\n/x")
        async with await trio.open_unix_socket(str(path)) as stream:
            await stream.send_all(request_bytes("GET", "/x", "Connection: close"))
            data = b"".join([bytes(more) async for more in stream])
            assert data.endswith(b"\r\n/x")
    for listener in (first, second, third):
        assert listener.socket.fileno() == -1, "it was not closed"


async def test_a_bound_socket_can_be_served(net: Network) -> None:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    async with serving_on(echo_path, [listener]) as server, net.dial(server) as peer:
        await peer.send(request_bytes("GET", "/x"))
        assert (await bytes_until_end(peer)).endswith(b"\r\n/x")


async def test_listeners_may_speak_tls(net: Network, tls: Tls) -> None:
    listeners = [
        (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] for _ in range(2)
    ]
    async with serving_on(net.echo, listeners, ssl_context=tls.server) as server:
        assert server.secure
        assert server.url == f"wss://127.0.0.1:{server.port}/"
        for address in server.addresses:
            url = f"wss://localhost:{address[1]}/"
            async with open_websocket(url, ssl_context=tls.client) as ws:
                ws.send("hi")
                assert await ws.receive() == "hi"


# -- proxies, and stopping ---------------------


@pytest.mark.parametrize("believed", [True, False])
async def test_headers_of_proxies_are_trusted_only_if_configured(
    net: Network, *, believed: bool
) -> None:
    headers = (
        "X-Forwarded-For: 203.0.113.7, 198.51.100.3",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: example.com",
    )
    async with (
        net.serve(show_request, proxy_headers=believed) as server,
        net.dial(server) as peer,
    ):
        await peer.send(request_bytes("GET", "/x", *headers))
        shown = (await bytes_until_end(peer)).rpartition(b"\r\n")[2].decode()
    if believed:
        assert shown == "198.51.100.3 https://example.com/x True"
    else:
        assert shown == "127.0.0.1 http://test/x False"


@pytest.mark.parametrize("stop_code", [1012, lambda: 1012], ids=["int", "function"])
async def test_the_close_code_of_a_stopping_server_can_be_chosen(
    net: Network, stop_code: int | Callable[[], int]
) -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, net.echo, 0, stop_code=stop_code))
        async with net.peer(server) as peer:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True), trio.fail_after(5):
                assert await peer.receive() == (1012, "the server stops")
                await peer.send(peer.close_frame(1012))
                assert await peer.receive() is None


async def test_a_server_that_stops_does_not_wait_for_idle_clients_or_responses(
    net: Network,
) -> None:
    log: list[str] = []

    async def fetch(request: Request) -> Response:
        if request.path == "/slow":
            await trio.sleep_forever()
        return Response("ok" if request.path == "/" else endless_body(log))

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, fetch, 0, close_grace=1000))
        async with (
            net.dial(server) as idle,
            net.dial(server) as slow,
            net.dial(server) as streaming,
        ):
            await idle.send(request_bytes("GET", "/"))
            await slow.send(request_bytes("GET", "/slow"))
            await streaming.send(request_bytes("GET", "/stream"))
            await idle.read_head()
            await streaming.read_head()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True), trio.fail_after(5):
                assert await idle.read_all() == b"ok"
                assert await slow.read_all() == b""
                await streaming.read_all()
    assert log == ["closed"]


async def test_the_access_log_has_the_address_of_the_client(
    net: Network, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_wspair.access")
    async with net.serve(echo_path) as server, net.dial(server) as peer:
        await peer.send(request_bytes("GET", "/x"))
        await bytes_until_end(peer)
        await net.until(lambda: caplog.messages)
    assert caplog.messages[0].startswith('127.0.0.1 "GET /x" 200, 2 bytes, ')

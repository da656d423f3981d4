"""TLS, of servers and clients."""

import socket
import ssl
from contextlib import suppress
from typing import Any

import pytest
import trio
import trustme
from network import Logged, Network, Tls

from trio_wspair import (
    CloseEvent,
    HandshakeError,
    ReadyState,
    Request,
    Response,
    Server,
    WebSocketPair,
    connect,
    open_websocket,
)
from trio_wspair.testing import ScriptedPeer

DONE = CloseEvent(4000, "done", was_clean=True)


async def assert_it_lives(server: Server, tls: Tls) -> None:
    """Exchange messages with an echo server."""
    async with open_websocket(server.url, ssl_context=tls.client) as ws:
        ws.send("still there?")
        assert await ws.receive() == "still there?"


async def test_messages_pass_over_tls(net: Network, tls: Tls) -> None:
    sent: list[str | bytes] = ["hello", b"\x80" * 1_000_000, "é" * 70_000, ""]
    async with net.serve(net.echo, ssl_context=tls.server) as server:
        assert server.secure
        assert server.url == f"wss://127.0.0.1:{server.port}/"
        async with open_websocket(server.url, ssl_context=tls.client) as ws:
            for message in sent:
                ws.send(message)
            assert [await ws.receive() for _ in sent] == sent
            assert await ws.ping() >= 0
        assert ws.ready_state is ReadyState.CLOSED


@pytest.mark.parametrize("first", ["client", "server"])
async def test_a_close_over_tls(net: Network, tls: Tls, first: str) -> None:
    async with net.joined(
        ssl_context=tls.server, client_options={"ssl_context": tls.client}
    ) as (client, server):
        near, far = (client, server) if first == "client" else (server, client)
        near.accept()
        heard = net.accept(far)
        near.send("last")
        near.close(4000, "done")
        assert await near.wait_closed() == DONE
        assert await far.wait_closed() == DONE
        assert heard == ["last", DONE]


@pytest.mark.parametrize("first", ["client", "server"])
async def test_half_open_over_tls(net: Network, tls: Tls, first: str) -> None:
    async with net.joined(
        ssl_context=tls.server, client_options={"ssl_context": tls.client}
    ) as (client, server):
        near, far = (client, server) if first == "client" else (server, client)
        near_heard = net.accept(near)
        far_heard = net.accept(far, allow_half_open=True)
        near.close(4000, "done")
        await net.until(lambda: far_heard)
        far.send("one more")
        await trio.sleep(0.01)
        far.send(b"x" * 100_000)
        far.close(4001, "now I")
        await near.wait_closed()
        end = CloseEvent(4001, "now I", was_clean=True)
        assert near_heard == ["one more", b"x" * 100_000, end]
        assert far_heard == [DONE]


async def test_a_handler_sees_https(net: Network, tls: Tls) -> None:
    requests: list[Request] = []

    async def fetch(request: Request) -> Response:
        requests.append(request)
        return Response("no", status=403)

    async with net.serve(fetch, ssl_context=tls.server) as server:
        with pytest.raises(HandshakeError, match="403") as caught:
            async with open_websocket(server.url, ssl_context=tls.client):
                pass
    assert caught.value.body == b"no"
    assert requests[0].url == f"https://127.0.0.1:{server.port}/"
    assert requests[0].client == "127.0.0.1"


async def test_the_name_of_the_server_is_checked(net: Network, tls: Tls) -> None:
    async with net.serve(net.echo, ssl_context=tls.server) as server:
        url = f"wss://localhost:{server.port}/"
        async with open_websocket(url, ssl_context=tls.client) as ws:
            ws.send("hi")
            assert await ws.receive() == "hi"
    # The certificate is for localhost and 127.0.0.1.
    async with net.serve(net.echo, host="127.0.0.2", ssl_context=tls.server) as server:
        before = net.open_sockets()
        with pytest.raises(HandshakeError, match=r"(?i)no TLS with 127.0.0.2.*address"):
            async with open_websocket(server.url, ssl_context=tls.client):
                pass
        await net.until_open_sockets(before)


async def test_by_default_only_known_authorities_are_trusted(
    net: Network, tls: Tls
) -> None:
    async with net.serve(net.echo, ssl_context=tls.server) as server:
        before = net.open_sockets()
        with pytest.raises(HandshakeError, match="certificate verify failed"):
            async with open_websocket(server.url):
                pass
        async with trio.open_nursery() as nursery:
            with pytest.raises(HandshakeError, match="certificate verify failed"):
                await connect(server.url, nursery=nursery)
        await net.until_open_sockets(before)
        await assert_it_lives(server, tls)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        bytes(1000),
    ],
    ids=["nothing", "plain HTTP", "a torn hello", "zeros"],
)
async def test_garbage_instead_of_tls_does_not_affect_others(
    net: Network, tls: Tls, garbage: bytes
) -> None:
    async with net.serve(net.echo, ssl_context=tls.server) as server:
        before = net.open_sockets()
        async with net.dial(server) as peer:
            with suppress(trio.BrokenResourceError):
                await peer.send(garbage)
                assert isinstance(peer.stream, trio.SocketStream)
                await peer.stream.send_eof()
            assert b"HTTP" not in await peer.read_all()
        await net.until_open_sockets(before)
        await assert_it_lives(server, tls)


@pytest.mark.parametrize(
    "said", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], ids=len
)
async def test_a_tls_handshake_has_a_deadline(
    net: Network, tls: Tls, said: bytes
) -> None:
    async with net.serve(
        net.echo, ssl_context=tls.server, handshake_timeout=0.1
    ) as server:
        before = net.open_sockets()
        async with net.dial(server) as peer:
            await peer.send(said)
            assert await peer.read_all() == b""
            await net.until_open_sockets(before + 1)


async def test_a_head_within_tls_has_a_deadline(net: Network, tls: Tls) -> None:
    async with net.serve(
        net.echo, ssl_context=tls.server, handshake_timeout=0.2
    ) as server:
        tcp = await trio.open_tcp_stream(*server.addresses[0])
        async with trio.SSLStream(
            tcp, tls.client, server_hostname="127.0.0.1", https_compatible=True
        ) as stream:
            await stream.send_all(b"GET / HT")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 408 ")
            assert (await stream.receive_some()) == b""


async def test_with_tls_one_connection_too_many_gets_503(
    net: Network, tls: Tls, logged: Logged
) -> None:
    async with (
        net.serve(net.echo, ssl_context=tls.server, max_connections=1) as server,
        open_websocket(server.url, ssl_context=tls.client) as ws,
    ):
        with pytest.raises(HandshakeError, match="with status 503"):
            async with open_websocket(server.url, ssl_context=tls.client):
                pass
        ws.send("hi")
        assert await ws.receive() == "hi"
    assert "max_connections" in logged.take()


async def test_a_client_that_resets_within_tls_does_not_affect_others(
    net: Network, tls: Tls
) -> None:
    async with net.serve_halves(ssl_context=tls.server) as (server, halves):
        before = net.open_sockets()
        tcp = await trio.open_tcp_stream(*server.addresses[0])
        stream = trio.SSLStream(tcp, tls.client, server_hostname="127.0.0.1")
        peer = net.raw(stream, masks=True)
        assert (await peer.handshake()).startswith("HTTP/1.1 101 ")
        heard = net.accept(await halves.receive())
        await peer.send(peer.text_frame("hi"))
        await net.until(lambda: heard)
        linger = b"\x01\0\0\0\0\0\0\0"
        tcp.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await trio.aclose_forcefully(tcp)
        await net.until(lambda: len(heard) == 2)
        assert isinstance(heard[1], CloseEvent)
        assert heard[1].code == 1006
        await net.until_open_sockets(before)


async def test_a_wrong_ssl_context_leaves_no_connection(net: Network, tls: Tls) -> None:
    async with net.serve(net.echo, ssl_context=tls.server) as server:
        before = net.open_sockets()
        async with trio.open_nursery() as nursery:
            with pytest.raises(TypeError, match="ssl_context"):
                await connect(
                    server.url,
                    nursery=nursery,
                    ssl_context=True,  # type: ignore[arg-type]  # what one may try
                )
            with pytest.raises(ValueError, match="ssl_context"):
                await connect(server.url, nursery=nursery, ssl_context=tls.server)
        await net.until_open_sockets(before)


async def test_a_plain_server_behind_a_wss_url_is_a_handshake_error(
    net: Network, tls: Tls
) -> None:
    async with net.serve(net.echo, handshake_timeout=0.2) as server:
        before = net.open_sockets()
        url = server.url.replace("ws:", "wss:")
        with pytest.raises(HandshakeError, match="no TLS with 127"):
            async with open_websocket(url, ssl_context=tls.client):
                pass
        await net.until_open_sockets(before)


async def test_a_silent_server_in_place_of_tls_is_a_timeout(
    net: Network, tls: Tls
) -> None:
    async def script(peer: "ScriptedPeer") -> None:
        await peer.read_all()

    async with net.script(script) as url:
        before = net.open_sockets()
        with pytest.raises(HandshakeError, match=r"0.1 s: .* the TLS handshake"):
            async with open_websocket(
                url.replace("ws:", "wss:"), ssl_context=tls.client, connect_timeout=0.1
            ):
                pass
        await net.until_open_sockets(before)


async def test_a_server_that_stops_closes_with_1001_over_tls(
    net: Network, tls: Tls
) -> None:
    async with trio.open_nursery() as nursery:
        ends: list[CloseEvent] = []
        async with net.serve(net.echo, ssl_context=tls.server) as server:
            client = await connect(server.url, nursery=nursery, ssl_context=tls.client)
            client.add_event_listener("close", ends.append)
            client.accept()
            client.send("hi")
            await client.ping()
        await client.wait_closed()
    assert ends == [CloseEvent(1001, "the server stops", was_clean=True)]


async def test_a_connection_is_freed_although_tls_is_not_closed_by_the_peer(
    net: Network, tls: Tls
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept()
        server.close(4000, "done")
        return Response(None, status=101, web_socket=client)

    async with net.serve(fetch, ssl_context=tls.server, close_grace=0.2) as server:
        before = net.open_sockets()
        tcp = await trio.open_tcp_stream(*server.addresses[0])
        stream = trio.SSLStream(tcp, tls.client, server_hostname="127.0.0.1")
        peer = net.raw(stream, masks=True)
        assert (await peer.handshake()).startswith("HTTP/1.1 101 ")
        assert await peer.receive() == (4000, "done")
        await peer.send(peer.close_frame(4000))
        await net.until_open_sockets(before + 1)
        await trio.aclose_forcefully(tcp)


async def test_a_server_that_never_finishes_tls_is_not_waited_for(
    net: Network,
) -> None:
    async def script(peer: "ScriptedPeer") -> None:
        await peer.read_all()

    before = net.open_sockets()
    async with net.script(script) as url, trio.open_nursery() as nursery:
        with pytest.raises(HandshakeError, match=r"within 0\.1 s"):
            await connect(
                url.replace("ws:", "wss:"), nursery=nursery, connect_timeout=0.1
            )
    await net.until_open_sockets(before)


# -- errors of a client ---------------------------------------------------------------


async def refused(url: str, **options: Any) -> HandshakeError:
    """Return the error of a client that does not get a WebSocket."""
    with pytest.raises(HandshakeError) as caught:
        async with open_websocket(url, **options):
            pass
    return caught.value


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def mutual(
    authority: trustme.CA, version: ssl.TLSVersion
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return contexts of a server that requires client certificates, and a client."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    server.maximum_version = version
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def answer_in_a_thread(context: ssl.SSLContext, listener: socket.socket) -> None:
    """Accept one connection with the standard library, which sends TLS alerts."""
    with listener:
        connection, _ = listener.accept()
    with connection:
        connection.settimeout(5)
        try:
            with context.wrap_socket(connection, server_side=True) as secure:
                secure.recv(1000)
        except OSError:
            # So that no reset overtakes the alert.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1000):
                    pass


async def refused_by(context: ssl.SSLContext, client: ssl.SSLContext) -> HandshakeError:
    """Return the error of a client of such a server."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"wss://127.0.0.1:{listener.getsockname()[1]}/"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            trio.to_thread.run_sync, answer_in_a_thread, context, listener
        )
        return await refused(url, ssl_context=client)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (ssl.TLSVersion.TLSv1_2, "it may require a client certificate"),
        (ssl.TLSVersion.TLSv1_3, "the server requires a client certificate"),
    ],
    ids=["1.2", "1.3"],
)
async def test_the_error_for_a_missing_client_certificate_says_so(
    net: Network, version: ssl.TLSVersion, words: str
) -> None:
    error = await refused_by(*mutual(trustme.CA(), version))
    assert words in str(error)
    assert str(error).startswith("no TLS with 127.0.0.1:")
    assert not error.retryable
    assert isinstance(error.__cause__, ssl.SSLError)


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
async def test_the_error_for_a_refused_client_certificate_says_so(
    net: Network, version: ssl.TLSVersion
) -> None:
    server, client = mutual(trustme.CA(), version)
    trustme.CA().issue_cert("a@b.example").configure_cert(client)
    error = await refused_by(server, client)
    assert "the server refused the client certificate (unknown ca)" in str(error)
    assert not error.retryable


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
async def test_a_server_that_gives_no_reason_may_require_a_client_certificate(
    net: Network, version: ssl.TLSVersion
) -> None:
    """Trio's TLS, which `serve()` uses, sends no alerts."""
    server_context, client = mutual(trustme.CA(), version)
    async with net.serve(net.echo, ssl_context=server_context) as server:
        error = await refused(server.url, ssl_context=client)
    assert "closed the connection" in str(error)
    assert "it may require a client certificate" in str(error)


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
async def test_the_error_names_the_client_certificate_as_a_possible_reason(
    net: Network, version: ssl.TLSVersion
) -> None:
    server_context, client = mutual(trustme.CA(), version)
    trustme.CA().issue_cert("a@b.example").configure_cert(client)
    async with net.serve(net.echo, ssl_context=server_context) as server:
        error = await refused(server.url, ssl_context=client)
    assert "or not accept the one that was sent" in str(error)


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
async def test_an_accepted_client_certificate_opens_the_websocket(
    net: Network, version: ssl.TLSVersion
) -> None:
    authority = trustme.CA()
    server_context, client = mutual(authority, version)
    authority.issue_cert("a@b.example").configure_cert(client)
    async with (
        net.serve(net.echo, ssl_context=server_context) as server,
        open_websocket(server.url, ssl_context=client) as ws,
    ):
        ws.send("hi")
        assert await ws.receive() == "hi"


async def test_the_error_for_a_refused_certificate_has_the_reason(
    net: Network, tls: Tls
) -> None:
    async with net.serve(net.echo, ssl_context=tls.server) as server:
        error = await refused(server.url)
        assert "certificate verify failed: unable to get local issuer" in str(error)
        assert "to trust it, pass an ssl_context that does" in str(error)
        assert not error.retryable
        assert isinstance(error.__cause__, ssl.SSLCertVerificationError)


async def test_a_trailing_dot_is_removed_for_the_certificate(
    net: Network, tls: Tls
) -> None:
    async with net.serve(net.echo, ssl_context=tls.server) as server:

        async def dial(host: str, port: int) -> trio.abc.Stream:
            assert (host, port) == ("localhost.", server.port)
            return await trio.open_tcp_stream("127.0.0.1", port)

        url = f"wss://localhost.:{server.port}/"
        async with open_websocket(url, ssl_context=tls.client, dial=dial) as ws:
            assert ws.url == url


async def test_the_error_for_a_server_that_chooses_http_2_says_so(net: Network) -> None:
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    server_context.set_alpn_protocols(["h2", "http/1.1"])
    client = ssl.create_default_context()
    authority.configure_trust(client)
    async with net.serve(net.echo, ssl_context=server_context) as server:
        client.set_alpn_protocols(["h2", "http/1.1"])
        before = net.open_sockets()
        error = await refused(server.url, ssl_context=client)
        await net.until_open_sockets(before)
        assert 'the server chose "h2" by ALPN' in str(error)
        assert "offer 'http/1.1'" in str(error)
        assert not error.retryable
        client.set_alpn_protocols(["http/1.1"])
        async with open_websocket(server.url, ssl_context=client) as ws:
            ws.send("hi")
            assert await ws.receive() == "hi"


async def test_the_error_for_tls_on_one_side_only_says_so(
    net: Network, tls: Tls
) -> None:
    async with net.serve(net.echo, ssl_context=tls.server) as server:
        error = await refused(server.url.replace("wss:", "ws:"))
        assert "if it speaks TLS, the URL has to begin with wss:" in str(error)
        assert error.retryable
    async with net.serve(net.echo) as server:
        error = await refused(server.url.replace("ws:", "wss:"))
        assert "the server does not speak TLS on this port" in str(error)
        assert error.retryable


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "the server closed the connection during the handshake, without"),
        (None, "the connection was lost: Connection reset by peer"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "the server refused the handshake"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "no version of TLS in common"),
        (b"\x15\x03\x03\x00\x02\x02\x70", "has no certificate for this name"),
        (b"\x15\x03\x03\x00\x02\x02\x78", "none of the protocols that the ssl_con"),
        (b"\x15\x03\x03\x00\x02\x02\x50", "internal error"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "the server does not speak TLS on this port"),
    ],
    ids=[
        "end",
        "reset",
        "handshake failure",
        "version",
        "name",
        "ALPN",
        "internal error",
        "SSH",
    ],
)
async def test_the_error_for_a_failed_tls_handshake_has_the_reason(
    net: Network, answer: bytes | None, words: str
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.stream.receive_some(1)
        if answer is None:
            await peer.reset()
        else:
            await peer.stream.receive_some()
            await peer.send(answer)

    async with net.script(script) as url:
        before = net.open_sockets()
        error = await refused(url.replace("ws:", "wss:"))
        await net.until_open_sockets(before)
    assert words in str(error)
    assert str(error).startswith("no TLS with 127.0.0.1:")
    assert error.__cause__ is None or not isinstance(error.__cause__, ExceptionGroup)


async def test_unreadable_requests_are_logged_at_debug_level_only(
    net: Network, tls: Tls, logged: Logged, caplog: pytest.LogCaptureFixture
) -> None:
    """Any client can cause them, so they must not flood the log."""
    caplog.set_level("DEBUG", "trio_wspair")
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100 + b"\r\n\r\n"
    plain = net.head("Host: a")
    talk = [
        (None, b"GET / HTTP/1.1\r\n\r\n", "400: Missing mandatory Host"),
        (None, hello, "400: illegal request line"),
        (None, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400: The header 'Host'"),
        (None, b"GET", "it took longer than 0.5 s"),
        (tls.server, plain, "the connection has failed: [SSL: HTTP_REQUEST]"),
        (tls.server, b"", "it took longer than 0.5 s"),
    ]
    for context, data, words in talk:
        async with (
            net.serve(net.echo, ssl_context=context, handshake_timeout=0.5) as server,
            net.dial(server) as peer,
        ):
            await peer.send(data)
            with suppress(trio.BrokenResourceError):
                await peer.read_all()
        told = [r for r in caplog.records if "could not read a request" in r.msg]
        caplog.clear()
        [record] = told
        assert record.levelname == "DEBUG"
        assert f"from 127.0.0.1: {words}" in record.getMessage().replace(
            "answering ", ""
        )
        assert vars(record)["peer"] == "127.0.0.1"
        assert record.getMessage().isprintable()

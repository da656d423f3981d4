"""TLS, both ways."""

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio

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

if TYPE_CHECKING:
    from conftest import Network, Tls

DONE = CloseEvent(4000, "done", was_clean=True)


async def assert_it_lives(server: Server, tls: "Tls") -> None:
    """Have a conversation with an echo server."""
    async with open_websocket(server.url, ssl_context=tls.client) as ws:
        ws.send("still there?")
        assert await ws.receive() == "still there?"


async def test_a_conversation_over_tls(net: "Network", tls: "Tls") -> None:
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
async def test_a_close_over_tls(net: "Network", tls: "Tls", first: str) -> None:
    async with net.joined(
        ssl_context=tls.server, client_options={"ssl_context": tls.client}
    ) as (client, server):
        near, far = (client, server) if first == "client" else (server, client)
        near.accept()
        heard = net.hear(far)
        near.send("last")
        near.close(4000, "done")
        assert await near.wait_closed() == DONE
        assert await far.wait_closed() == DONE
        assert heard == ["last", DONE]


@pytest.mark.parametrize("first", ["client", "server"])
async def test_half_open_over_tls(net: "Network", tls: "Tls", first: str) -> None:
    async with net.joined(
        ssl_context=tls.server, client_options={"ssl_context": tls.client}
    ) as (client, server):
        near, far = (client, server) if first == "client" else (server, client)
        near_heard = net.hear(near)
        far_heard = net.hear(far, allow_half_open=True)
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


async def test_a_handler_sees_https(net: "Network", tls: "Tls") -> None:
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


async def test_the_name_of_the_server_is_checked(net: "Network", tls: "Tls") -> None:
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
    net: "Network", tls: "Tls"
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
async def test_garbage_instead_of_tls_harms_nobody(
    net: "Network", tls: "Tls", garbage: bytes
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
    net: "Network", tls: "Tls", said: bytes
) -> None:
    async with net.serve(
        net.echo, ssl_context=tls.server, handshake_timeout=0.1
    ) as server:
        before = net.open_sockets()
        async with net.dial(server) as peer:
            await peer.send(said)
            assert await peer.read_all() == b""
            await net.until_open_sockets(before + 1)


async def test_a_head_within_tls_has_a_deadline_too(net: "Network", tls: "Tls") -> None:
    async with net.serve(
        net.echo, ssl_context=tls.server, handshake_timeout=0.2
    ) as server:
        tcp = await trio.open_tcp_stream(*server.addresses[0])
        async with trio.SSLStream(
            tcp, tls.client, server_hostname="127.0.0.1"
        ) as stream:
            await stream.send_all(b"GET / HT")
            with suppress(trio.BrokenResourceError):
                assert await stream.receive_some() in {b"", b"HTTP/1.1 408 "}


async def test_with_tls_one_connection_too_many_is_dropped(
    net: "Network", tls: "Tls"
) -> None:
    async with (
        net.serve(net.echo, ssl_context=tls.server, max_connections=1) as server,
        open_websocket(server.url, ssl_context=tls.client) as ws,
    ):
        with pytest.raises(HandshakeError, match="no TLS"):
            async with open_websocket(server.url, ssl_context=tls.client):
                pass
        ws.send("hi")
        assert await ws.receive() == "hi"


async def test_a_client_that_resets_within_tls_harms_nobody(
    net: "Network", tls: "Tls"
) -> None:
    async with net.serve_halves(ssl_context=tls.server) as (server, halves):
        before = net.open_sockets()
        tcp = await trio.open_tcp_stream(*server.addresses[0])
        stream = trio.SSLStream(tcp, tls.client, server_hostname="127.0.0.1")
        peer = net.raw(stream, masks=True)
        assert (await peer.handshake()).startswith("HTTP/1.1 101 ")
        heard = net.hear(await halves.receive())
        await peer.send(peer.text_frame("hi"))
        await net.until(lambda: heard)
        linger = b"\x01\0\0\0\0\0\0\0"
        tcp.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await trio.aclose_forcefully(tcp)
        await net.until(lambda: len(heard) == 2)
        assert isinstance(heard[1], CloseEvent)
        assert heard[1].code == 1006
        await net.until_open_sockets(before)


async def test_a_wrong_ssl_context_leaves_no_connection(
    net: "Network", tls: "Tls"
) -> None:
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
    net: "Network", tls: "Tls"
) -> None:
    async with net.serve(net.echo, handshake_timeout=0.2) as server:
        before = net.open_sockets()
        url = server.url.replace("ws:", "wss:")
        with pytest.raises(HandshakeError, match="no TLS with 127"):
            async with open_websocket(url, ssl_context=tls.client):
                pass
        await net.until_open_sockets(before)


async def test_a_server_that_says_nothing_instead_of_tls(
    net: "Network", tls: "Tls"
) -> None:
    async def script(peer: "ScriptedPeer") -> None:
        await peer.read_all()

    async with net.script(script) as url:
        before = net.open_sockets()
        with pytest.raises(HandshakeError, match=r"within 0.1 s"):
            async with open_websocket(
                url.replace("ws:", "wss:"), ssl_context=tls.client, connect_timeout=0.1
            ):
                pass
        await net.until_open_sockets(before)


async def test_a_server_that_stops_says_so_over_tls(net: "Network", tls: "Tls") -> None:
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
    net: "Network", tls: "Tls"
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
    net: "Network",
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

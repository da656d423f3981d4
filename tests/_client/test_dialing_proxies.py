"""Proxies on the way to a server: HTTP ones, and those of SOCKS."""

import base64
import socket
import ssl
import struct
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import trio
import trustme
from network import Network, Tls

from trio_wspair import HandshakeError, open_websocket
from trio_wspair.testing import ScriptedPeer


@pytest.fixture(scope="module")
def engine() -> None:
    """Run each test on one engine, as the engine doesn't matter here."""


class Gate:
    """A proxy on the loopback interface, which logs the requested targets."""

    scheme = "http"

    def __init__(self, *, credentials: str | None = None) -> None:
        self.credentials = credentials
        self.asked: list[str] = []

    async def run(self, stream: trio.abc.Stream) -> None:
        async with stream:
            # The target may be missing.
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                address = await self.agree(stream)
                if address is not None:
                    async with await trio.open_tcp_stream(*address) as far:
                        await self.carry(stream, far)

    async def agree(self, stream: trio.abc.Stream) -> tuple[str, int] | None:
        raise NotImplementedError

    async def carry(self, stream: trio.abc.Stream, far: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.pump, stream, far)
            await self.pump(far, stream)
            nursery.cancel_scope.cancel()

    async def pump(self, source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await sink.send_all(data)
            if isinstance(sink, trio.SocketStream):
                await sink.send_eof()

    @asynccontextmanager
    async def open(self, userinfo: str = "") -> AsyncGenerator[str]:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(
                partial(trio.serve_tcp, self.accept, 0, host="127.0.0.1")
            )
            port = listeners[0].socket.getsockname()[1]
            yield f"{self.scheme}://{userinfo}127.0.0.1:{port}"
            nursery.cancel_scope.cancel()

    async def accept(self, stream: trio.SocketStream) -> None:
        await self.run(stream)


class HTTPGate(Gate):
    """A proxy for CONNECT (RFC 9110, section 9.3.6)."""

    def __init__(
        self, *answer: bytes, credentials: str | None = None, context: Any = None
    ) -> None:
        super().__init__(credentials=credentials)
        self.answer = answer or (b"HTTP/1.1 200 OK\r\n\r\n",)
        self.context: ssl.SSLContext | None = context
        if context is not None:
            self.scheme = "https"

    async def accept(self, stream: trio.SocketStream) -> None:
        if self.context is None:
            await self.run(stream)
            return
        with suppress(trio.BrokenResourceError):
            await self.run(trio.SSLStream(stream, self.context, server_side=True))

    async def agree(self, stream: trio.abc.Stream) -> tuple[str, int] | None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = await stream.receive_some()
            if not data:
                return None
            head += data
        text = head.decode()
        self.asked.append(text.splitlines()[0])
        if self.credentials is not None:
            found = text.lower().partition("proxy-authorization: basic ")[0]
            value = text[len(found) :].partition("asic ")[2].partition("\r")[0]
            if base64.b64decode(value).decode() != self.credentials:
                await stream.send_all(b"HTTP/1.1 407 X\r\nContent-Length: 0\r\n\r\n")
                return None
        for piece in self.answer:
            await stream.send_all(piece)
            await trio.sleep(0.01)
        if not b"".join(self.answer).partition(b" ")[2].startswith((b"2", b"103")):
            return None
        host, _, port = text.split()[1].rpartition(":")
        return host.strip("[]"), int(port)


class Socks5Gate(Gate):
    """A proxy for SOCKS 5 (RFC 1928, RFC 1929)."""

    scheme = "socks5"

    def __init__(self, *, reply: int = 0, credentials: str | None = None) -> None:
        super().__init__(credentials=credentials)
        self.reply = reply

    async def agree(self, stream: trio.abc.Stream) -> tuple[str, int] | None:
        _, count = await self.read(stream, 2)
        methods = await self.read(stream, count)
        if self.credentials is not None:
            if 2 not in methods:
                await stream.send_all(b"\5\xff")
                return None
            await stream.send_all(b"\5\2")
            _, size = await self.read(stream, 2)
            user = await self.read(stream, size)
            (size,) = await self.read(stream, 1)
            given = user + b":" + await self.read(stream, size)
            is_right = given.decode() == self.credentials
            await stream.send_all(b"\1" + bytes([not is_right]))
            if not is_right:
                return None
        else:
            await stream.send_all(b"\5\0")
        kind = (await self.read(stream, 4))[3]
        if kind == 1:
            host = socket.inet_ntop(socket.AF_INET, await self.read(stream, 4))
        elif kind == 4:
            host = socket.inet_ntop(socket.AF_INET6, await self.read(stream, 16))
        else:
            (size,) = await self.read(stream, 1)
            host = (await self.read(stream, size)).decode()
        (port,) = struct.unpack("!H", await self.read(stream, 2))
        self.asked.append(f"{host}:{port}")
        await stream.send_all(bytes([5, self.reply, 0, 1]) + bytes(6))
        return None if self.reply else (host, port)

    @staticmethod
    async def read(stream: trio.abc.Stream, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = await stream.receive_some(size - len(data))
            if not piece:
                raise trio.BrokenResourceError
            data += piece
        return data


class Socks4Gate(Gate):
    """A proxy for SOCKS 4 and 4A."""

    scheme = "socks4"

    def __init__(self, *, reply: int = 0x5A) -> None:
        super().__init__()
        self.reply = reply

    async def agree(self, stream: trio.abc.Stream) -> tuple[str, int] | None:
        data = bytes(await stream.receive_some())
        (port,) = struct.unpack("!H", data[2:4])
        host = socket.inet_ntop(socket.AF_INET, data[4:8])
        if host.startswith("0.0.0."):
            host = data[8:].split(b"\0")[1].decode()
        self.asked.append(f"{host}:{port}")
        await stream.send_all(bytes([0, self.reply]) + bytes(6))
        return None if self.reply != 0x5A else (host, port)


async def converse(url: str, **options: Any) -> None:
    async with open_websocket(url, **options) as ws:
        ws.send("through")
        assert await ws.receive() == "through"


async def refused(url: str, **options: Any) -> HandshakeError:
    with pytest.raises(HandshakeError) as caught:
        async with open_websocket(url, **options):
            pass
    assert "hunter2" not in f"{caught.value}{caught.value.__cause__}"
    return caught.value


# -- HTTP -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        (b"HTTP/1.1 200 OK\r\n\r\n",),
        (b"HTTP/1.0 200 Connection established\r\nX: y\r\n\r\n",),
        (b"HTTP/1.1 2", b"04 No Content\r", b"\n", b"\r\n"),
        (b"HTTP/1.1 103 Hints\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
    ],
    ids=["1.1", "1.0", "in pieces", "interim"],
)
async def test_an_http_proxy_carries_the_connection(
    net: Network, answer: tuple[bytes, ...]
) -> None:
    gate = HTTPGate(*answer)
    async with net.serve(net.echo) as server, gate.open() as proxy:
        await converse(server.url, proxy=f" {proxy}/\n")
        assert gate.asked == [f"CONNECT 127.0.0.1:{server.port} HTTP/1.1"]


async def test_tls_goes_through_an_http_proxy(net: Network, tls: Tls) -> None:
    gate = HTTPGate()
    async with (
        net.serve(net.echo, ssl_context=tls.server) as server,
        gate.open() as proxy,
    ):
        url = server.url.replace("127.0.0.1", "localhost")
        await converse(url, proxy=proxy, ssl_context=tls.client)
        assert gate.asked == [f"CONNECT localhost:{server.port} HTTP/1.1"]


async def test_an_http_proxy_resolves_names_and_gets_no_zones(net: Network) -> None:
    gate = HTTPGate(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
    async with gate.open() as proxy:
        for url in ("ws://no-such-host.invalid.:8/", "ws://[fe80::1%25eth0]:8/"):
            error = await refused(url, proxy=proxy)
            assert "it answered with status 502 (Bad Gateway)" in str(error)
            assert error.status == 502
            assert error.retryable
    assert gate.asked == [
        "CONNECT no-such-host.invalid.:8 HTTP/1.1",
        "CONNECT [fe80::1]:8 HTTP/1.1",
    ]


@pytest.mark.parametrize("tls_inside", [False, True], ids=["plain", "TLS in TLS"])
async def test_an_https_proxy_carries_the_connection(
    net: Network, tls: Tls, monkeypatch: pytest.MonkeyPatch, tls_inside: bool
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    gate = HTTPGate(context=context)
    server_context = tls.server if tls_inside else None
    client_context = tls.client if tls_inside else None
    async with (
        net.serve(net.echo, ssl_context=server_context) as server,
        gate.open() as proxy,
    ):
        error = await refused(server.url, proxy=proxy, ssl_context=client_context)
        assert "no TLS with the proxy 127.0.0.1:" in str(error)
        assert "certificate verify failed" in str(error)
        assert not error.retryable
        with authority.cert_pem.tempfile() as path:
            monkeypatch.setenv("SSL_CERT_FILE", path)
            await converse(server.url, proxy=proxy, ssl_context=client_context)


@pytest.mark.parametrize(
    ("userinfo", "sent"),
    [
        ("me:hunter2@", "me:hunter2"),
        ("m%C3%A9:a%3Ab%40@", "mé:a:b@"),
        ("me@", "me:"),
        (":hunter2@", ":hunter2"),
    ],
)
async def test_an_http_proxy_gets_user_name_and_password(
    net: Network, userinfo: str, sent: str
) -> None:
    gate = HTTPGate(credentials=sent)
    async with net.serve(net.echo) as server, gate.open(userinfo) as proxy:
        await converse(server.url, proxy=proxy)


@pytest.mark.parametrize(
    ("userinfo", "words"),
    [
        ("", "it requires a user name and a password (status 407)"),
        ("me:hunter2@", "it refused the user name and the password (status 407)"),
    ],
)
async def test_a_wrong_password_for_an_http_proxy_is_an_error_at_once(
    net: Network, userinfo: str, words: str
) -> None:
    async with HTTPGate(credentials="x:y").open(userinfo) as proxy:
        before = net.open_sockets()
        error = await refused("ws://h/", proxy=proxy)
        await net.until_open_sockets(before)
    assert words in str(error)
    assert "does not connect to h:80" in str(error)
    assert error.status == 407
    assert not error.retryable


@pytest.mark.parametrize(
    ("answer", "words", "status"),
    [
        (b"HTTP/1.1 403 No \x1b[0m\r\n\r\n", r"with status 403 (No \x1b[0m)", 403),
        (b"HTTP/1.1 403 Nope\r\nX: y\r\n\r\n", "with status 403 (Nope)", 403),
        (b"HTTP/1.1 503 \xfc\r\n\r\n", "with status 503 (\xfc)", 503),
        (b"", "it closed the connection", None),
        (b"SSH-2.0\r\n\r\n", "its answer is not HTTP/1.1", None),
        (b"HTTP/1.1 200 OK\r\n\r\nmore", "sent more than its answer", None),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 2**17, "has more than 64 KiB", None),
    ],
    ids=["ESC", "403", "503", "nothing", "SSH", "more", "too large"],
)
async def test_the_response_of_a_refusing_http_proxy_is_shown(
    net: Network, answer: bytes, words: str, status: int | None
) -> None:
    gate = HTTPGate(answer)
    async with gate.open() as proxy:
        before = net.open_sockets()
        error = await refused("ws://h:8/", proxy=proxy)
        await net.until_open_sockets(before)
    assert words in str(error)
    assert "the proxy 127.0.0.1:" in str(error)
    assert "does not connect to h:8: " in str(error)
    assert error.status == status
    assert error.retryable == (status != 403)


async def test_a_silent_proxy_ends_with_a_timeout(net: Network) -> None:
    class Silent(Gate):
        async def accept(self, stream: trio.SocketStream) -> None:
            async for _ in stream:
                pass

    for scheme in ("http", "https"):
        gate = Silent()
        gate.scheme = scheme
        async with gate.open("me:hunter2@") as proxy:
            before = net.open_sockets()
            error = await refused("ws://h/", proxy=proxy, connect_timeout=0.1)
            await net.until_open_sockets(before)
        assert "no WebSocket at h within 0.1 s: the proxy 127.0.0.1:" in str(error)
        assert "has not answered" in str(error)


async def test_the_error_for_an_https_proxy_without_tls_says_so(net: Network) -> None:
    async with net.serve(net.echo) as server:
        error = await refused("ws://h/", proxy=server.url.replace("ws:", "https:"))
    assert "does not speak TLS on this port" in str(error)
    assert "for plain TCP, the URL has to begin with http:" in str(error)


@pytest.mark.parametrize("scheme", ["socks4", "socks5"])
async def test_the_error_for_a_proxy_without_socks_says_so(
    net: Network, scheme: str
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.stream.receive_some()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with net.script(script) as url:
        error = await refused(
            "ws://127.0.0.1:8/", proxy=url.replace("ws:", f"{scheme}:")
        )
    assert str(error).endswith(
        "does not connect to 127.0.0.1:8: it does not speak SOCKS"
    )


# -- SOCKS ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "scheme", "name"),
    [
        (Socks5Gate, "socks5h", "localhost"),
        (Socks5Gate, "socks5", "127.0.0.1"),
        (Socks4Gate, "socks4a", "localhost"),
        (Socks4Gate, "socks4", "127.0.0.1"),
    ],
)
async def test_only_some_proxies_resolve_names(
    net: Network, kind: type[Gate], scheme: str, name: str
) -> None:
    gate = kind()
    async with (
        net.serve(net.echo, host="127.0.0.1") as server,
        gate.open() as proxy,
    ):
        url = server.url.replace("127.0.0.1", "localhost")
        if scheme == "socks5":  # The proxy takes the first of the addresses.
            url = server.url
        await converse(url, proxy=proxy.replace(gate.scheme, scheme))
        assert gate.asked == [f"{name}:{server.port}"]


@pytest.mark.parametrize("scheme", ["socks4", "socks5"])
async def test_the_error_for_an_unknown_name_that_the_client_resolves_has_the_name(
    net: Network, scheme: str
) -> None:
    with pytest.raises(socket.gaierror, match=r'the name "a\.invalid" was not found'):
        async with open_websocket("ws://a.invalid/", proxy=f"{scheme}://h:1"):
            pass


async def test_a_socks_proxy_gets_user_name_and_password(net: Network) -> None:
    gate = Socks5Gate(credentials="me:hunter 2")
    async with net.serve(net.echo) as server, gate.open("me:hunter%202@") as proxy:
        await converse(server.url, proxy=proxy)


@pytest.mark.parametrize(
    ("userinfo", "words"),
    [("", "it requires a user name"), ("me:hunter2@", "it refused the user name")],
)
async def test_a_wrong_password_for_a_socks_proxy_is_an_error_at_once(
    net: Network, userinfo: str, words: str
) -> None:
    async with Socks5Gate(credentials="x:y").open(userinfo) as proxy:
        error = await refused("ws://127.0.0.1/", proxy=proxy)
    assert words in str(error)
    assert not error.retryable


@pytest.mark.parametrize(
    ("gate", "words", "retryable"),
    [
        (Socks5Gate(reply=1), "General SOCKS server failure", True),
        (Socks5Gate(reply=2), "Connection not allowed by ruleset", False),
        (Socks5Gate(reply=4), "Host unreachable", True),
        (Socks5Gate(reply=5), "Connection refused by destination host", True),
        (Socks5Gate(reply=7), "Command not supported", False),
        (Socks5Gate(reply=99), "Invalid reply code", True),
        (Socks4Gate(reply=0x5B), "rejected or failed", True),
        (Socks4Gate(reply=0x5D), "identd", False),
        (HTTPGate(b"HTTP/1.1 400 X\r\n\r\n"), "onnection closed unexpectedly", True),
    ],
    ids=lambda value: value.scheme if isinstance(value, Gate) else str(value),
)
async def test_the_reason_of_a_refusing_socks_proxy_is_shown(
    net: Network, gate: Gate, words: str, retryable: bool
) -> None:
    async with gate.open() as proxy:
        before = net.open_sockets()
        url = proxy.replace("http", "socks5")
        if gate.scheme == "http":  # The client waits for a whole head.
            url = url.replace("socks5", "socks4")
        error = await refused("ws://127.0.0.1:8/", proxy=url, connect_timeout=0.5)
        await net.until_open_sockets(before)
    assert words in str(error) or "within 0.5 s" in str(error)
    assert error.retryable is retryable


# -- proxies that can't be reached, and wrong URLs -----------------------------------


@pytest.mark.parametrize(
    "scheme", ["http", "https", "socks4", "socks4a", "socks5", "socks5h"]
)
async def test_a_port_without_a_proxy_is_an_os_error(net: Network, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    userinfo = "" if scheme.startswith("socks4") else "me:hunter2@"
    with pytest.raises(
        ConnectionRefusedError,
        match=rf"can't reach the proxy 127\.0\.0\.1:{port}: connection refused",
    ) as caught:
        async with open_websocket(
            "ws://127.0.0.1/", proxy=f"{scheme}://{userinfo}127.0.0.1:{port}"
        ):
            pass
    assert "hunter2" not in repr(caught.value)


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_the_error_for_an_unknown_name_of_a_proxy_has_the_name(
    net: Network, scheme: str
) -> None:
    with pytest.raises(socket.gaierror, match=r"a\.invalid.*: Name or service"):
        async with open_websocket("ws://h/", proxy=f"{scheme}://a.invalid:1"):
            pass


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("nonsense", "it must be like 'http://host:3128'"),
        ("ftp://hunter2:hunter2@localhost:1", "begin with one of http://, https://"),
        ("http://h/path", "it must be like 'http://host:3128'"),
        ("http://h?hunter2", "it must be like 'http://host:3128'"),
        ("http://", "it has no host"),
        ("http://h:0", "its port must be"),
        ("http://h:3128:me:hunter2", "its host is not valid"),
        ("http:/me:hunter2@h:3128", "it must be like 'http://host:3128'"),
        ("http://me:hunter2@h:99999", "its port must be"),
        ("http://me:hunter2@a b", "can't be the name of a host"),
        ("http://m%3Ae:hunter2@h", "its user name can't contain a colon"),
        ("http://me:hunter2%0d%0a@h", "can't contain control characters"),
        ("socks5://me:hunter2%C3%A9@h", "can have 255 ASCII characters"),
        ("socks5://me:hunter2" + "x" * 255 + "@h", "can have 255 ASCII characters"),
        ("socks5://hunter2@h", "both a user name and a password, or neither"),
        ("socks4://me:hunter2@h", "which SOCKS 4 doesn't support"),
    ],
)
async def test_a_wrong_proxy_url_is_an_error(proxy: str, words: str) -> None:
    with pytest.raises(ValueError, match="is not the URL of a proxy") as caught:
        async with open_websocket("ws://localhost/", proxy=proxy):
            pass
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_a_proxy_must_be_a_str() -> None:
    proxy: Any = b"http://me:hunter2@h"
    with pytest.raises(TypeError, match="proxy must be a URL such as") as caught:
        async with open_websocket("ws://localhost/", proxy=proxy):
            pass
    assert "hunter2" not in str(caught.value)


async def test_the_extra_for_proxies_is_named_when_it_is_missing(
    net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)
    with pytest.raises(ImportError, match=r"pip install 'trio-wspair\[proxy\]'"):
        async with open_websocket("ws://localhost/", proxy="socks5://localhost:1"):
            pass
    async with net.serve(net.echo) as server, HTTPGate().open() as proxy:
        await converse(server.url, proxy=proxy)

"""The URL of a request: an invalid host, target or proxy header gets 400."""

import logging
import ssl
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import trio
import trio.testing
import trustme
from asgi_server import HTTP, ASGIServer, piece
from network import Network

from trio_wspair import Request, Response, same_origin, serve
from trio_wspair.asgi import ASGIApp

HOSTS = [
    *("evil/admin", "evil/admin?", "evil?a", "evil#a", "me@evil", "evil\\x", "a b"),
    *("[1]", "[::1:]", "[...]", "[", "]", "[::1", "::1", "[v1.x]", "[::1%25]", "é"),
    *(
        "a:b",
        "a:99999",
        "a:80:80",
        "http://a",
        "a%2fb",
        "a%40b",
        "a%zz",
        "a,b c",
        '"a"',
    ),
]
TARGETS = [
    *(
        "@evil/admin",
        ".evil.com/x",
        "evil",
        "*",
        "?x",
        "javascript:x",
        "javascript://h/x",
    ),
    *(
        "http://[/",
        "http://",
        "http:///x",
        "http://a@evil/x",
        "http://evil\\x/",
        "//#x",
    ),
    *(
        "/a#b",
        "/?#",
        "/%",
        "/%zz",
        "/%4",
        "ftp://evil/x",
        "https://evil/x",
        "ws://evil/x",
    ),
]
FORWARDED = [
    *(
        "X-Forwarded-Proto: javascript",
        "X-Forwarded-Proto: https:",
        "X-Forwarded-Port: x",
    ),
    *(
        "X-Forwarded-Port: 65536",
        "X-Forwarded-Host: a, evil/b",
        "X-Forwarded-Host: [1]",
    ),
    *("X-Forwarded-Host: a@b", "X-Forwarded-Host: a?b", "X-Forwarded-Host: a#b"),
]
GOOD = [
    ("/", "/", "/"),
    ("/a?b#".rstrip("#"), "/a?b", "/a"),
    ("//evil/x", "//evil/x", "//evil/x"),
    ("/@evil", "/@evil", "/@evil"),
    ("/a;b=c", "/a;b=c", "/a;b=c"),
    ("/a%2Fb%20c%C3%BC", "/a%2Fb%20c%C3%BC", "/a/b cü"),
    ("/..//./a", "/..//./a", "/..//./a"),
    ("/%23%3F?%", "/%23%3F?%25", "/#?"),
    ("/a|b\\{}?\\|[]{}", "/a%7Cb%5C%7B%7D?%5C%7C[]%7B%7D", "/a|b\\{}"),
    ("/%FF", "/%FF", "/\N{REPLACEMENT CHARACTER}"),
    ("/http://evil/x", "/http://evil/x", "/http://evil/x"),
    ("/?http://evil/x", "/?http://evil/x", "/"),
]


class Seen:
    """The requests that a handler got."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def fetch(self, request: Request) -> Response:
        """Respond with the URL."""
        self.requests.append(request)
        return Response(request.url)


async def answer_of(net: Network, server: Any, data: bytes) -> bytes:
    """Return the response of a server to bytes."""
    with trio.fail_after(5):
        async with net.dial(server) as peer:
            await peer.send(data)
            return bytes(await peer.read_all())


def silent(caplog: pytest.LogCaptureFixture) -> bool:
    """Return whether nothing was logged above DEBUG."""
    return not [r for r in caplog.records if r.levelno > logging.DEBUG]


def asked(net: Network, target: str, *headers: str) -> bytes:
    start = f"GET {target} HTTP/1.1"
    return net.head(*headers, "Connection: close", start=start)


@pytest.mark.parametrize("upgrade", [False, True], ids=["plain", "upgrade"])
async def test_g12_an_invalid_host_gets_400_before_the_handler(
    net: Network, caplog: pytest.LogCaptureFixture, upgrade: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    seen = Seen()
    more = net.UPGRADE[1:] if upgrade else ["Connection: close"]
    async with net.serve(seen.fetch) as server:
        for host in HOSTS:
            data = net.head(f"Host: {host}", *more, start="GET /x HTTP/1.1")
            answer = await answer_of(net, server, data)
            assert answer.startswith(b"HTTP/1.1 400 "), host
    assert seen.requests == []
    assert silent(caplog)


async def test_g12_an_invalid_target_gets_400_before_the_handler(
    net: Network, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen = Seen()
    async with net.serve(seen.fetch) as server:
        for target in TARGETS:
            answer = await answer_of(net, server, asked(net, target, "Host: a"))
            assert answer.startswith(b"HTTP/1.1 400 "), target
    assert seen.requests == []
    assert silent(caplog)


async def test_g12_an_invalid_url_in_a_proxy_header_gets_400(
    net: Network, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen = Seen()
    async with net.serve(seen.fetch, proxy_headers=True) as server:
        for header in FORWARDED:
            answer = await answer_of(net, server, asked(net, "/x", "Host: a", header))
            assert answer.startswith(b"HTTP/1.1 400 "), header
    async with net.serve(seen.fetch, proxy_headers="forwarded") as server:
        for value in ('for="', "host=a/b", 'host="a@b"', "proto=javascript", "x"):
            header = f"Forwarded: {value}"
            answer = await answer_of(net, server, asked(net, "/x", "Host: a", header))
            assert answer.startswith(b"HTTP/1.1 400 "), header
    assert seen.requests == []
    assert silent(caplog)


async def test_the_path_of_the_target_is_the_path_of_the_url(net: Network) -> None:
    seen = Seen()
    async with net.serve(seen.fetch) as server:
        for target, _, _ in GOOD:
            data = asked(net, target, "Host: Example.com:8000")
            assert b" 200 " in await answer_of(net, server, data)
    for request, (_, url, decoded) in zip(seen.requests, GOOD, strict=True):
        assert request.url == f"http://example.com:8000{url}"
        assert request.path == decoded == unquote(urlsplit(request.url).path)
        assert not request.secure


async def test_an_absolute_target_takes_precedence_over_the_host(net: Network) -> None:
    seen = Seen()
    async with net.serve(seen.fetch) as server:
        for target in ("http://B:1/x", "HTTP://b:1/x"):
            data = asked(net, target, "Host: a", "Origin: http://b:1")
            assert b" 200 " in await answer_of(net, server, data)
    for request in seen.requests:
        assert (request.url, request.path) == ("http://b:1/x", "/x")
        assert request.headers["host"] == "b:1"
        assert same_origin(request)


async def test_a_request_for_the_whole_server_has_a_star(net: Network) -> None:
    seen = Seen()
    async with net.serve(seen.fetch) as server:
        for target in ("*", "http://a:1"):
            head = net.head(
                "Host: a:1", "Connection: close", start=f"OPTIONS {target} HTTP/1.1"
            )
            assert b" 200 " in await answer_of(net, server, head)
    assert [(r.url, r.path) for r in seen.requests] == 2 * [("http://a:1", "*")]


async def test_without_a_host_header_the_url_has_the_address_of_the_server(
    net: Network,
) -> None:
    seen = Seen()
    async with net.serve(seen.fetch) as server:
        for data in (b"GET /x HTTP/1.0\r\n\r\n", asked(net, "/x", "Host:")):
            assert b" 200 " in await answer_of(net, server, data)
        bad = await answer_of(net, server, b"GET /x HTTP/1.1\r\n\r\n")
        assert bad.startswith(b"HTTP/1.1 400 ")
    assert {request.url for request in seen.requests} == {
        f"{server.url}x".replace("ws", "http", 1)
    }


async def test_on_a_unix_socket_a_url_without_a_host_has_localhost(
    net: Network, tmp_path: Path
) -> None:
    seen = Seen()
    path = tmp_path / "s"
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, seen.fetch, unix=path))
        with trio.fail_after(5):
            async with await trio.open_unix_socket(path) as stream:
                await stream.send_all(b"GET /x HTTP/1.0\r\n\r\n")
                assert b" 200 " in await stream.receive_some()
        nursery.cancel_scope.cancel()
    assert [request.url for request in seen.requests] == ["http://localhost/x"]


async def test_a_server_for_https_accepts_https_targets_only(net: Network) -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    seen = Seen()
    async with net.serve(seen.fetch, ssl_context=server_context) as server:
        for scheme, status in (("https", b" 200 "), ("http", b" 400 ")):
            tcp = await trio.open_tcp_stream("127.0.0.1", server.port)
            async with trio.SSLStream(
                tcp, context, server_hostname="127.0.0.1", https_compatible=True
            ) as stream:
                await stream.send_all(asked(net, f"{scheme}://a/x", "Host: a"))
                assert status in await stream.receive_some()
    assert [(r.url, r.secure) for r in seen.requests] == [("https://a/x", True)]


@pytest.mark.parametrize(
    ("headers", "options", "expected"),
    [
        (
            ["X-Forwarded-For: 1.1.1.1, [2001:db8::1]:80", "X-Forwarded-Host: B:8"],
            {"proxy_headers": True},
            "2001:db8::1 http://b:8/x",
        ),
        (
            [
                "X-Forwarded-Host: b",
                "X-Forwarded-Port: 443",
                "X-Forwarded-Proto: https",
            ],
            {"proxy_headers": True},
            "127.0.0.1 https://b/x",
        ),
        (
            ["X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3", "X-Forwarded-Port: 8443"],
            {"proxy_headers": True, "proxies": 2},
            "2.2.2.2 http://a:8443/x",
        ),
        (
            [
                "Forwarded: for=1.1.1.1, for=2.2.2.2;proto=https;host=b",
                "X-Forwarded-For: 3.3.3.3",
            ],
            {"proxy_headers": "forwarded"},
            "2.2.2.2 https://b/x",
        ),
        (
            ["Forwarded: for=1.1.1.1;host=evil", "X-Forwarded-For: unknown"],
            {"proxy_headers": True},
            "127.0.0.1 http://a/x",
        ),
        (
            [
                "X-Forwarded-For: 1.1.1.1",
                "X-Forwarded-Host: evil/",
                "Forwarded: host=evil",
            ],
            {},
            "127.0.0.1 http://a/x",
        ),
    ],
)
async def test_proxies_are_trusted_up_to_their_number(
    net: Network, headers: list[str], options: dict[str, Any], expected: str
) -> None:
    async def fetch(request: Request) -> Response:
        return Response(f"{request.client} {request.url}")

    async with net.serve(fetch, **options) as server:
        answer = await answer_of(net, server, asked(net, "/x", "Host: a", *headers))
    assert answer.decode().partition("\r\n\r\n")[2] == expected


async def test_a_number_of_proxies_without_proxy_headers_is_refused() -> None:
    with pytest.raises(ValueError, match="pass proxy_headers=True or"):
        await serve(Seen().fetch, 0, proxies=2)


@pytest.mark.parametrize("proxies", [0, -1, True, "2"])
async def test_the_number_of_proxies_is_at_least_one(proxies: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="proxies must be"):
        await serve(Seen().fetch, 0, proxies=proxies)


# -- ASGI ---------------------


async def over_asgi(seen: Seen, **scope: Any) -> int:
    """Return the status of an application's response."""
    with trio.fail_after(5):
        server = await ASGIServer(HTTP, piece(b""), **scope).run(ASGIApp(seen.fetch))
    return server.status


async def test_g12_over_asgi_an_invalid_host_gets_400(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen = Seen()
    for host in HOSTS:
        headers = [(b"host", host.encode("latin-1"))]
        assert await over_asgi(seen, headers=headers) == 400, host
    twice = [(b"host", b"a"), (b"host", b"b")]
    assert await over_asgi(seen, headers=twice) == 400
    assert seen.requests == []
    assert silent(caplog)


async def test_g12_over_asgi_an_invalid_target_gets_400(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen = Seen()
    for target in TARGETS:
        if not target.startswith(("?", "https:")):
            path, _, query = target.encode().partition(b"?")
            scope = {"raw_path": path, "path": target, "query_string": query}
            assert await over_asgi(seen, **scope) == 400, target
    for scheme in ("javascript", "ftp", "http:"):
        assert await over_asgi(seen, scheme=scheme) == 400
    for method in ("GET /x", "", "\x1b[31m"):
        assert await over_asgi(seen, method=method) == 400
    assert await over_asgi(seen, query_string=b"a b") == 400
    assert seen.requests == []
    assert silent(caplog)


async def test_over_asgi_the_path_is_the_path_of_the_url(
    autojump_clock: trio.testing.MockClock,
) -> None:
    seen = Seen()
    for target, _, _ in GOOD:
        path, _, query = target.encode().partition(b"?")
        scope = {"raw_path": path, "path": unquote(path), "query_string": query}
        assert await over_asgi(seen, **scope) == 200
    for request, (_, url, decoded) in zip(seen.requests, GOOD, strict=True):
        assert request.url == f"http://test{url}"
        assert request.path == decoded == unquote(urlsplit(request.url).path)


async def test_over_asgi_a_request_without_a_host_has_the_address_of_the_server(
    autojump_clock: trio.testing.MockClock,
) -> None:
    seen = Seen()
    for server in (("Example.com", 8000), ("::1", 80), ("/run/x.sock", None), None):
        assert await over_asgi(seen, headers=[], server=server) == 200
    hosts = [request.url.split("/")[2] for request in seen.requests]
    assert hosts == ["example.com:8000", "[::1]", "localhost", "localhost"]

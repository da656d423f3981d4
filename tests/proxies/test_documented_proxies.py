"""The proxies of docs/serving.rst, run with the configuration on that page."""

import json
import os
import re
import socket
import ssl
import tempfile
import textwrap
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from network import Tls

from trio_wspair import (
    HandshakeError,
    Request,
    Response,
    Server,
    WebSocketPair,
    open_websocket,
    same_origin,
    serve,
)

pytestmark = pytest.mark.proxies

PAGE = (Path(__file__).parents[2] / "docs" / "serving.rst").read_text()
CLIENT = "127.0.0.5"
"""The address of the client; that of the proxy is 127.0.0.1."""


def block(title: str) -> str:
    """Return the page's configuration for a proxy."""
    pattern = rf"\n{title}\n   \.\. code-block:: \w+\n\n((?:      .*\n|\n)+)"
    found = re.search(pattern, PAGE)
    assert found, f"the page has no configuration for {title}"
    return textwrap.dedent(found[1])


def changed(text: str, **changes: str) -> str:
    """Return a configuration with the values of a test."""
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old!r} in {text}"
        text = text.replace(old, new)
    return text


@attrs.frozen
class Place:
    """The ports and files of a proxy."""

    folder: Path
    port: int
    upstream: int | Path
    """The port of the server, or its Unix socket."""
    pem: Path | None
    """The file with the certificate and its key, with TLS."""

    def at(self, port: str, *, unix: str) -> str:
        """Return the address of the server, in one of two forms."""
        form = unix if isinstance(self.upstream, Path) else port
        return form.format(self.upstream)

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)


def nginx(place: Place) -> list[str]:
    """Return the command that runs nginx."""
    text = changed(
        block("nginx"),
        **{
            "http://127.0.0.1:8000": "http://"
            + place.at("127.0.0.1:{}", unix="unix:{}"),
            "server_name example.com;": "server_name localhost;",
        },
    )
    if place.pem is None:
        text = changed(text, **{"443 ssl": f"127.0.0.1:{place.port}"})
        text = re.sub(r"ssl_certificate.*;", "", text)
    else:
        text = changed(text, **{"443 ssl": f"127.0.0.1:{place.port} ssl"})
        text = re.sub(r"/etc/ssl\S*\.pem", str(place.pem), text)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = [f"{kind}_temp_path {place.folder}/{kind};" for kind in kinds]
    user = "user root;" if os.geteuid() == 0 else ""
    head = f"{user} daemon off; pid {place.folder}/pid; error_log stderr; events {{}}"
    http = ["access_log off;", *paths, text]
    config = place.write("nginx.conf", f"{head}\nhttp {{\n{chr(10).join(http)}\n}}\n")
    return ["nginx", "-e", "stderr", "-p", str(place.folder), "-c", config]


def caddy(place: Place) -> list[str]:
    """Return the command that runs Caddy."""
    scheme = "http" if place.pem is None else "https"
    begin = f"{scheme}://localhost:{place.port} {{\n"
    if place.pem is not None:
        begin += f"    tls {place.pem} {place.pem}\n"
    changes = {
        "example.com {\n": begin,
        "127.0.0.1:8000": place.at("127.0.0.1:{}", unix="unix/{}"),
    }
    options = "{\n    admin off\n    auto_https off\n}\n"
    config = place.write("Caddyfile", options + changed(block("Caddy"), **changes))
    return ["caddy", "run", "--config", config, "--adapter", "caddyfile"]


def haproxy(place: Place) -> list[str]:
    """Return the command that runs HAProxy."""
    crt = "ssl crt /etc/ssl/example.com/fullchain-and-privkey.pem"
    changes = {
        f":443 {crt}": f"127.0.0.1:{place.port}"
        + ("" if place.pem is None else f" ssl crt {place.pem}"),
        "127.0.0.1:8000": place.at("127.0.0.1:{}", unix="{}"),
    }
    config = place.write("haproxy.cfg", changed(block("HAProxy"), **changes))
    return ["haproxy", "-db", "-f", config]


Command = Callable[[Place], list[str]]


async def fetch(request: Request) -> Response:
    """Respond with the facts of the request, or echo."""
    facts = {
        "url": request.url,
        "client": request.client,
        "secure": request.secure,
        "same": same_origin(request),
    }
    if request.path == "/stream":
        return Response(ticking())
    if request.path != "/ws":
        return Response.json(facts)
    if not facts["same"]:
        return Response("not from that page\n", status=403)
    client, server = WebSocketPair()
    server.add_event_listener("message", lambda event: server.send(event.data))
    server.accept()
    server.send(json.dumps(facts))
    return Response(None, status=101, web_socket=client)


async def ticking() -> AsyncGenerator[str]:
    """Yield a piece, then wait until the client has gone."""
    yield "first piece\n"
    await trio.sleep_forever()


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@attrs.frozen
class Proxied:
    """A running proxy, and a server behind it."""

    port: int
    context: ssl.SSLContext | None

    @property
    def origin(self) -> str:
        return f"{'http' if self.context is None else 'https'}://localhost:{self.port}"

    def url(self, path: str) -> str:
        return f"{self.origin.replace('http', 'ws', 1)}{path}"

    async def dial(self, host: str, port: int) -> trio.SocketStream:
        """Connect from the address of the client."""
        assert host == "localhost"
        return await trio.open_tcp_stream("127.0.0.1", port, local_address=CLIENT)

    async def open_stream(self) -> trio.abc.Stream:
        stream = await self.dial("localhost", self.port)
        if self.context is None:
            return stream
        return trio.SSLStream(
            stream, self.context, server_hostname="localhost", https_compatible=True
        )

    async def get(self, path: str, *headers: str, until: bytes = b"") -> bytes:
        """Return the response to a request, to its end or to these bytes."""
        stream = await self.open_stream()
        lines = [f"GET {path} HTTP/1.1", *headers, "Connection: close", "", ""]
        answer = b""
        async with stream:
            await stream.send_all("\r\n".join(lines).encode())
            async for data in stream:
                answer += data
                if until and until in answer:
                    break
        return answer


@asynccontextmanager
async def proxied(
    command: Command,
    folder: Path,
    tls: Tls | None,
    *,
    unix: bool = False,
    believed: bool = True,
) -> AsyncGenerator[Proxied]:
    """Run a proxy in front of a server for a block."""
    pem = None
    if tls is not None:
        pem = folder / "cert.pem"
        # nginx, Caddy and HAProxy accept the key first or last.
        pem.write_bytes(tls.pem)
    async with trio.open_nursery() as nursery:
        path = folder / "app.sock"
        where: dict[str, Any] = {"unix": path} if unix else {"port": 0}
        run = partial(serve, fetch, proxy_headers=believed, close_grace=1, **where)
        server: Server = await nursery.start(run)
        place = Place(folder, free_port(), path if unix else server.port, pem)
        env = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
        with (folder / "log").open("wb") as log:
            start = partial(
                trio.run_process,
                command(place),
                env=env,
                check=False,
                stdout=log,
                stderr=log,
            )
            process: trio.Process = await nursery.start(start)
            try:
                await until_it_listens(place.port, process)
                yield Proxied(place.port, tls.client if tls else None)
            except BaseException:
                print((folder / "log").read_text())
                raise
            process.terminate()
            await process.wait()
            nursery.cancel_scope.cancel()


async def until_it_listens(port: int, process: trio.Process) -> None:
    """Wait until a port accepts connections; the caller bounds the time."""
    while True:
        assert process.returncode is None, "the proxy has ended"
        with suppress(OSError):
            await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
            return
        await trio.sleep(0.02)


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
def tls_or_not(request: pytest.FixtureRequest, tls: Tls) -> Tls | None:
    return tls if request.param else None


COMMANDS = [nginx, caddy, haproxy]
NAMES = ["nginx", "Caddy", "HAProxy"]


@pytest.fixture(params=COMMANDS, ids=NAMES)
async def proxy(
    request: pytest.FixtureRequest, tmp_path: Path, tls_or_not: Tls | None
) -> AsyncGenerator[Proxied]:
    """Each proxy, plain and with TLS, on an unusual port."""
    with trio.fail_after(30):
        async with proxied(request.param, tmp_path, tls_or_not) as running:
            yield running


def expected(proxy: Proxied, path: str) -> dict[str, Any]:
    """Return the facts that the handler has to see."""
    return {
        "url": f"{proxy.origin}{path}",
        "client": CLIENT,
        "secure": proxy.context is not None,
        "same": True,
    }


async def converse(proxy: Proxied) -> None:
    """Open a WebSocket as a page of the same origin does, use it, and close it."""
    async with open_websocket(
        proxy.url("/ws?a=b%20c"),
        headers={"Origin": proxy.origin},
        ssl_context=proxy.context,
        dial=proxy.dial,
    ) as ws:
        facts = json.loads(await ws.receive())
        assert facts == expected(proxy, "/ws?a=b%20c")
        for message in ("hello", b"\x00\xff" * 70_000):
            ws.send(message)
            assert await ws.receive() == message
        assert await ws.ping() >= 0
        ws.close(3000, "bye")
        end = await ws.wait_closed()
    assert (end.code, end.reason, end.was_clean) == (3000, "bye", True)


async def test_a_websocket_of_the_same_origin_gets_through(proxy: Proxied) -> None:
    await converse(proxy)


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
async def test_a_server_on_a_unix_socket_is_reached(command: Command, tls: Tls) -> None:
    # The paths of pytest's folders are too long for a socket.
    with (
        trio.fail_after(30),
        tempfile.TemporaryDirectory(prefix="wspair") as folder,
    ):
        async with proxied(command, Path(folder), tls, unix=True) as proxy:
            await converse(proxy)


@pytest.mark.parametrize("wrong", ["port", "scheme", "host"])
async def test_a_page_of_another_origin_gets_403(proxy: Proxied, wrong: str) -> None:
    scheme, host, port = "http" if proxy.context is None else "https", "localhost", 0
    if wrong == "scheme":
        scheme, port = "http" if scheme == "https" else "https", proxy.port
    elif wrong == "host":
        host, port = "evil.example", proxy.port
    origin = f"{scheme}://{host}" + (f":{port}" if port else "")
    with pytest.raises(HandshakeError) as caught:
        async with open_websocket(
            proxy.url("/ws"),
            headers={"Origin": origin},
            ssl_context=proxy.context,
            dial=proxy.dial,
        ):
            pass
    assert caught.value.status == 403


def facts_in(answer: bytes) -> dict[str, Any]:
    """Return the facts that the handler has seen; the body may be chunked."""
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    _, _, body = answer.partition(b"\r\n\r\n")
    facts: dict[str, Any] = json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])
    return facts


LIES = (
    "X-Forwarded-For: 203.0.113.7",
    "X-Forwarded-Proto: gopher",
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Port: 1",
    "Forwarded: for=203.0.113.7;host=evil.example;proto=gopher",
)


@pytest.mark.parametrize("lies", [(), LIES], ids=["honest", "lying"])
@pytest.mark.parametrize("with_port", [True, False], ids=["port", "no port"])
async def test_headers_of_a_client_about_itself_are_not_trusted(
    proxy: Proxied, lies: tuple[str, ...], *, with_port: bool
) -> None:
    origin = proxy.origin if with_port else proxy.origin.rpartition(":")[0]
    headers = f"Host: {origin.partition('//')[2]}", f"Origin: {origin}", *lies
    answer = await proxy.get("/page?x=1", *headers)
    assert facts_in(answer) == {
        **expected(proxy, "/page?x=1"),
        "url": f"{origin}/page?x=1",
    }


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
async def test_a_server_that_trusts_no_proxy_still_knows_host_and_port(
    tmp_path: Path, command: Command
) -> None:
    with trio.fail_after(30):
        async with proxied(command, tmp_path, None, believed=False) as proxy:
            headers = f"Host: localhost:{proxy.port}", f"Origin: {proxy.origin}"
            facts = facts_in(await proxy.get("/page", *headers))
    assert facts == {**expected(proxy, "/page"), "client": "127.0.0.1"}


async def test_a_streamed_response_comes_piece_by_piece(proxy: Proxied) -> None:
    host = f"Host: localhost:{proxy.port}"
    assert b"first piece" in await proxy.get("/stream", host, until=b"first piece\n")

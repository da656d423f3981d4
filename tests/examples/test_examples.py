"""Each example, run as a program, does what its docstring says."""

import json
import re
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio
from commands import serving
from processes import read_to_end, running

from trio_wspair import (
    CloseEvent,
    ConnectionClosedError,
    HandshakeError,
    WebSocket,
    connect,
    open_websocket,
)

EXAMPLES = Path(__file__).parents[2] / "examples"


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]


@asynccontextmanager
async def server(
    name: str, *arguments: str, prints: str = "(stopped\n)?"
) -> AsyncGenerator[str, None]:
    """Run an example that serves; give its URL, and stop it as Ctrl-C does."""
    async with running(*command(name, *arguments, "--port", "0")) as process:
        assert process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            piece = await process.stdout.receive_some()
            assert piece, await read_to_end(process.stderr)
            line += piece
        url = line.decode().strip()
        assert re.match(r"(ws|http)://127\.0\.0\.1:", url), url
        yield url
        process.send_signal(signal.SIGINT)
        with trio.fail_after(20):
            output = await read_to_end(process.stdout)
            errors = await read_to_end(process.stderr)
            status = await process.wait()
        assert status == 0, errors
        assert "Traceback" not in errors
        assert re.fullmatch(prints, output, re.DOTALL), output


async def run(name: str, *arguments: str) -> str:
    """Run an example to its end; return its output."""
    with trio.fail_after(20):
        done = await trio.run_process(command(name, *arguments), capture_stdout=True)
    return done.stdout.decode()


async def test_the_echo_server_echoes_text_and_binary() -> None:
    async with server("echo_server.py") as url, open_websocket(url) as ws:
        for message in ("text", b"\x00\xff", "", "\u00fc" * 50_000):
            ws.send(message)
            assert await ws.receive() == message


async def test_the_echo_server_stops_with_1001_on_ctrl_c() -> None:
    closes: list[CloseEvent] = []
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            async with server("echo_server.py") as url:
                ws = await connect(url, nursery=nursery)
                ws.add_event_listener("close", closes.append)
                ws.accept()
            await ws.wait_closed()
    assert [event.code for event in closes] == [1001]
    assert closes[0].was_clean


async def test_the_echo_client_prints_what_comes_back() -> None:
    async with server("echo_server.py") as url:
        output = await run("echo_client.py", url, "hello", "world")
    assert output == "hello\nworld\n"


async def test_the_echo_client_prints_why_it_cannot_connect() -> None:
    with trio.fail_after(20):
        done = await trio.run_process(
            command("echo_client.py", "ws://127.0.0.1:1/", "hello"),
            capture_stderr=True,
            check=False,
        )
    assert done.returncode == 1
    told = done.stderr.decode()
    assert told == "echo_client.py: " + told[16:].splitlines()[0] + "\n"
    assert "can't reach 127.0.0.1:1: connection refused" in told


async def test_the_conversation_is_as_printed() -> None:
    output = await run("conversation.py")
    assert output.splitlines() == [
        "client: Hello?",
        "server: You said 'Hello?'.",
        "client: Is it me?",
        "server: You said 'Is it me?'.",
        "client: Goodbye.",
        "server: You said 'Goodbye.'.",
        "server: closed with 1000, 'that was all'",
    ]


async def test_the_traced_server_prints_a_span_of_each_connection() -> None:
    events = '.*"name": "received",.*"length": 5.*"name": "sent",.*"length": 5.*'
    span = f'{{\n    "name": "websocket",.*"websocket.close.code": 3000\n{events}}}\n'
    async with server("tracing.py", prints=span) as url, open_websocket(url) as ws:
        ws.send("hello")
        assert await ws.receive() == "hello"
        await ws.aclose(3000)


async def test_the_proxy_forwards_messages_and_close_codes() -> None:
    async with (
        server("echo_server.py") as upstream,
        server("proxy.py", upstream) as url,
        open_websocket(url) as ws,
    ):
        ws.send("through")
        ws.send(b"both")
        assert [await ws.receive(), await ws.receive()] == ["through", b"both"]
        ws.close(4321, "the far end answers")
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.receive()
        assert (caught.value.code, caught.value.was_clean) == (4321, True)


async def test_the_proxy_refuses_without_an_upstream() -> None:
    async with server("proxy.py", "ws://127.0.0.1:1/") as url:
        with pytest.raises(HandshakeError) as caught:
            async with open_websocket(url):
                pass
        assert caught.value.status == 502


async def test_a_broadcast_reaches_every_client() -> None:
    async with (
        server("broadcast.py") as url,
        open_websocket(url) as one,
        open_websocket(url) as two,
        open_websocket(url) as three,
    ):
        two.send("hello all")
        for ws in (one, two, three):
            assert await ws.receive() == "hello all"


# -- by the command --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path", "message", "answer"),
    [
        ("echo_server.py", "", "hello", "hello"),
        ("broadcast.py", "", "hello", "hello"),
        ("click_counter.py", "ws", "CLICK", '{"count": 0}'),
        ("tracing.py", "", "hello", "hello"),
        ("chat_room.py", "rooms/lobby/ws", "ping", "pong"),
    ],
)
async def test_the_command_serves_each_example(
    name: str, path: str, message: str, answer: str
) -> None:
    async with serving(str(EXAMPLES / name)) as (process, url):
        async with open_websocket(url + path) as ws:
            ws.send(message)
            assert await ws.receive() == answer
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(20):
            output = await read_to_end(process.stdout)
            errors = await read_to_end(process.stderr)
            assert await process.wait() == 0
    assert "Traceback" not in errors
    assert ('"name": "websocket"' in output) == (name == "tracing.py")


async def test_the_command_serves_the_proxy_too() -> None:
    async with serving(str(EXAMPLES / "proxy.py")) as (_, url):
        status, _, _ = await trio.to_thread.run_sync(get, url, "/")
    assert status == 426


# -- the click counter; tests/browser tests its page ---------------------------


def get(url: str, path: str) -> tuple[int, str, str]:
    """Return the status, content type and body of the response for a path."""
    with closing(HTTPConnection(urlsplit(url).netloc, timeout=20)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        content_type = response.getheader("Content-Type", "")
        return response.status, content_type, response.read().decode()


async def test_the_click_counter_serves_a_self_contained_page() -> None:
    async with server("click_counter.py") as url:
        status, content_type, page = await trio.to_thread.run_sync(get, url, "/")
    assert (status, content_type) == (200, "text/html;charset=UTF-8")
    assert "<title>Click counter</title>" in page
    # It refers to itself only; the one URL is the namespace of SVG.
    assert re.findall(r"(?:src|href)=.{6}", page) == ['href="data:']
    assert set(re.findall(r"https?://[^'\"]+", page)) == {"http://www.w3.org/2000/svg"}


async def test_the_click_counter_refuses_other_requests() -> None:
    async with server("click_counter.py") as url:
        for path, expected in [("/ws", 400), ("/other", 404), ("/ws/", 404)]:
            status, _, _ = await trio.to_thread.run_sync(get, url, path)
            assert status == expected
        with pytest.raises(HandshakeError) as caught:
            async with open_websocket(
                url.replace("http", "ws") + "ws",
                headers={"Origin": "http://elsewhere.example"},
            ):
                pass
        assert caught.value.status == 403


async def test_the_click_counter_pushes_the_count_to_every_client() -> None:
    async with server("click_counter.py") as url:
        address = url.replace("http", "ws") + "ws"
        async with (
            open_websocket(address, headers={"Origin": url.rstrip("/")}) as one,
            open_websocket(address) as two,
        ):
            for ws in (one, two):
                assert await receive_json(ws) == {"count": 0}
            one.send("CLICK")
            for ws in (one, two):
                assert await receive_json(ws) == {"count": 1}
            one.send("what?")
            one.send(b"CLICK")
            for _ in range(2):
                assert await receive_json(one) == {"error": "Unknown message received"}
            two.send("CLICK")
            for ws in (one, two):
                assert await receive_json(ws) == {"count": 2}
            await one.aclose()
            two.send("CLICK")
            assert await receive_json(two) == {"count": 3}


async def receive_json(ws: WebSocket) -> object:
    """Return the parsed next message."""
    with trio.fail_after(20):
        return json.loads(await ws.receive())

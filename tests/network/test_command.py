"""The command `trio-wspair`, as its users meet it."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_wspair import (
    Request,
    Response,
    WebSocketPair,
    __version__,
    connect,
    open_websocket,
)
from trio_wspair._cli import main
from trio_wspair._command_connect import converse
from trio_wspair._command_serve import UsageError, load_handler

if TYPE_CHECKING:
    from conftest import Network, Tls


@pytest.fixture(scope="module")
def engine() -> None:
    """Run them on one engine: they are not about the wire."""


A_FETCH = (
    "an async function of a request; it has fetch, another: try app_of_a_test.py:fetch"
)
COMMAND = (sys.executable, "-m", "trio_wspair")
HANDLER = """
from trio_wspair import Response, WebSocketPair

async def fetch(request):
    if not request.wants_websocket:
        return Response("version 1")
    client, server = WebSocketPair()
    server.add_event_listener("message", lambda event: server.send(event.data))
    server.accept()
    return Response(None, status=101, web_socket=client)

async def another(request):
    return Response("another")

number = 5
"""


def failed(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command, see that it was called wrongly, and return what it says."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """A file with a handler in it, in the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    file = tmp_path / "app_of_a_test.py"
    file.write_text(HANDLER)
    yield file
    sys.modules.pop("app_of_a_test", None)


# -- which handler --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("app_of_a_test.py", "fetch"),
        ("app_of_a_test.py:another", "another"),
        ("app_of_a_test", "fetch"),
        ("app_of_a_test:another", "another"),
    ],
)
def test_a_handler_is_found_in_a_file_and_in_a_module(
    app: Path, name: str, attribute: str
) -> None:
    handler: Any = load_handler(name)
    assert handler.__name__ == attribute


def test_a_handler_is_found_by_its_whole_path(app: Path) -> None:
    assert callable(load_handler(str(app)))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("nothing.py", "there is no file 'nothing.py'"),
        ("nothing", "there is no file and no module 'nothing'"),
        ("nothing.at.all:fetch", "there is no file and no module 'nothing.at.all'"),
        ("app_of_a_test.py:missing", f"app_of_a_test.py has no 'missing', {A_FETCH}"),
        (
            "app_of_a_test.py:number",
            "'number' of app_of_a_test.py is no function but 5",
        ),
        ("folder.py", "there is no file 'folder.py'"),
        ("data", "'data' is no Python file"),
        ("empty.py", "empty.py has no 'fetch', an async function of a request"),
    ],
)
def test_a_handler_that_is_not_there_is_told(app: Path, name: str, what: str) -> None:
    (app.parent / "folder.py").mkdir()
    (app.parent / "data").write_text("5")
    (app.parent / "empty.py").write_text("")
    with pytest.raises(UsageError) as caught:
        load_handler(name)
    assert str(caught.value) == what


def test_what_a_module_lacks_is_its_own_error(app: Path) -> None:
    (app.parent / "lacking.py").write_text("import nothing_of_the_kind")
    with pytest.raises(ModuleNotFoundError, match="nothing_of_the_kind"):
        load_handler("lacking")


# -- misuse ---------------------------------------------------------------------


def test_misuse_is_told_on_one_line(
    app: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell = partial(failed, capsys=capsys)
    assert "no file 'no.py'" in tell("serve", "no.py")
    assert "COMMAND" in tell()
    assert "a header is 'Name: value', not 'x'" in tell("connect", "u", "--header", "x")
    assert "engine='websockets', too" in tell("serve", str(app), "--compression")
    assert "engine='websockets', too" in tell("connect", "u", "--compression")
    assert "invalid choice: 'ws'" in tell("connect", "u", "--engine", "ws")
    assert "--keyfile is for a --certfile" in tell("serve", str(app), "--keyfile", "k")
    assert "can't use no.pem" in tell("serve", str(app), "--certfile", "no.pem")
    assert "can't use no.pem with k.pem" in tell(
        "serve", str(app), "--certfile", "no.pem", "--keyfile", "k.pem"
    )


async def test_a_port_that_is_taken_is_told(app: Path, net: "Network") -> None:
    async with net.serve(net.echo) as server:
        done = await trio.run_process(
            [*COMMAND, "serve", str(app), "--port", str(server.port)],
            capture_stderr=True,
            check=False,
        )
    assert done.returncode == 2
    assert b"can't listen on 127.0.0.1 port" in done.stderr


def test_the_version_can_be_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip() == __version__


# -- serving ----------------------------------------------------------------------


@asynccontextmanager
async def serving(*arguments: str) -> AsyncGenerator[tuple[trio.Process, str]]:
    """Run `trio-wspair serve` for a block; give the process and its WebSocket URL."""
    start = partial(
        trio.run_process,
        [*COMMAND, "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        check=False,
    )
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(start)
        assert process.stdout is not None
        yield process, await read_url(process.stdout)
        nursery.cancel_scope.cancel()


async def read_url(stream: trio.abc.ReceiveStream) -> str:
    text = ""
    while (found := re.search(r"http(s?://\S+)", text)) is None:
        data = await stream.receive_some()
        assert data, text
        text += data.decode()
    return "ws" + found[1]


async def read_all(stream: trio.abc.ReceiveStream | None) -> str:
    assert stream is not None
    return b"".join([bytes(data) async for data in stream]).decode()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
async def test_a_handler_is_served_until_a_signal(
    app: Path, net: "Network", stop: signal.Signals
) -> None:
    async with serving(str(app)) as (process, url), trio.open_nursery() as nursery:
        ws = await connect(url, nursery=nursery)
        ws.accept(pull=True)
        ws.send("hi")
        assert await ws.receive() == "hi"
        process.send_signal(stop)
        assert (await ws.wait_closed()).code == 1001
        log = await read_all(process.stderr)
        assert await process.wait() == (130 if stop is signal.SIGINT else 0)
        assert "Traceback" not in log
        line = (
            r'INFO    127\.0\.0\.1 "GET /" 101, closed with 1001 after \d+\.\d s, '
            r"1 messages \(2 bytes\) received, 1 messages \(2 bytes\) sent"
        )
        assert re.search(line, log), log


async def test_server_and_client_agree_on_compression_if_both_are_told_to(
    app: Path,
    typed: Callable[[bytes], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = "--engine", "websockets", "--compression"
    async with serving(str(app), *options) as (process, url):
        typed(b"hello")
        typed(b"")
        assert await talk(url, engine="websockets", compression=True) == 0
        process.send_signal(signal.SIGTERM)
        await process.wait()
    out, err = capsys.readouterr()
    assert out == "hello\n"
    assert f"connected to {url}, permessage-deflate" in err


async def test_each_request_is_a_line_unless_the_log_is_quiet(app: Path) -> None:
    for level, lines in ("info", 1), ("warning", 0):
        async with serving(str(app), "--log-level", level) as (process, url):
            port = int(url.rstrip("/").rpartition(":")[2])
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(
                    b"GET /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                )
                assert (await read_all(stream)).endswith("\r\n\r\nversion 1")
            process.send_signal(signal.SIGTERM)
            log = await read_all(process.stderr)
            found = re.findall(r'"GET /page" 200, 9 bytes, \d+\.\d ms', log)
            assert len(found) == lines, log


def listening(process: trio.Process) -> int:
    """Count the sockets on which a process listens."""
    tcp = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    inodes = {f"socket:[{fields[9]}]" for fields in tcp if fields[3] == "0A"}
    folder = Path(f"/proc/{process.pid}/fd")
    return sum(os.readlink(file) in inodes for file in folder.iterdir())


async def test_connections_can_be_inspected(app: Path) -> None:
    command = [*COMMAND, "serve", str(app), "--port", "0", "--inspect", "0"]
    start = partial(
        trio.run_process,
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        check=False,
    )
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(start)
        assert process.stdout is not None
        lines = ""
        while lines.count("\n") < 2:
            lines += (await process.stdout.receive_some()).decode()
        inspect, serve = re.findall(r"http://\S+", lines)
        assert lines.startswith(f"Inspect the connections on {inspect}\nServing")
        assert listening(process) == 2
        page_url = inspect.replace("http", "ws", 1) + "ws"
        server_url = serve.replace("http", "ws", 1)
        async with open_websocket(server_url) as ws, open_websocket(page_url) as page:
            ws.send("hello")
            assert await ws.receive() == "hello"
            page.send('{"revision": 0, "connection": 1, "after": 0}')
            update = json.loads(await page.receive())
            assert [row["url"] for row in update["connections"]] == [serve]
            assert {frame["data"] for frame in update["frames"]} == {"hello"}
        nursery.cancel_scope.cancel()


async def test_nothing_is_inspected_unless_asked_for(app: Path) -> None:
    async with serving(str(app)) as (process, _):
        assert listening(process) == 1


async def test_a_port_of_the_inspector_that_is_taken_is_told(
    app: Path, net: "Network"
) -> None:
    async with net.serve(net.echo) as server:
        done = await trio.run_process(
            [*COMMAND, "serve", str(app), "--port=0", f"--inspect={server.port}"],
            capture_stderr=True,
            check=False,
        )
    assert done.returncode == 2
    assert b"can't inspect on port" in done.stderr


async def test_tls_is_served_with_a_certificate(
    app: Path, tls: "Tls", tmp_path: Path
) -> None:
    file = tmp_path / "certificate.pem"
    file.write_bytes(tls.pem)
    async with (
        serving(str(app), "--certfile", str(file)) as (_, url),
        open_websocket(url, ssl_context=tls.client) as ws,
    ):
        assert url.startswith("wss://")
        ws.send("secret")
        assert await ws.receive() == "secret"


def test_the_extra_for_reload_is_named_when_it_is_missing(
    app: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    told = failed("serve", str(app), "--reload", capsys=capsys)
    assert "pip install 'trio-wspair[reload]'" in told


@pytest.mark.slow
async def test_reload_closes_with_1012_and_serves_what_is_new(
    app: Path, net: "Network"
) -> None:
    with trio.fail_after(60):
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        port = listener.socket.getsockname()[1]
        await listener.aclose()
        command = ["--reload", str(app), "--port", str(port)]
        async with serving(*command) as (process, url):
            async with trio.open_nursery() as nursery:
                ws = await connect(url, nursery=nursery)
                ws.accept()
                new = HANDLER.replace("version 1", "version 2")
                await trio.Path(app).write_text(new)
                assert (await ws.wait_closed()).code == 1012
            assert process.stdout is not None
            assert await read_url(process.stdout) == url
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(
                    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                )
                assert (await read_all(stream)).endswith("version 2")
            process.send_signal(signal.SIGINT)
            await process.wait()


# -- connecting -----------------------------------------------------------------


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Generator[Callable[[bytes], None]]:
    """Give a function that types into the standard input; nothing ends that."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as file:
        monkeypatch.setattr(sys, "stdin", file)
        ends = [writing]

        def type_in(data: bytes) -> None:
            if data:
                os.write(writing, data)
            else:
                os.close(ends.pop())

        yield type_in
        if ends:
            type_in(b"")


async def talk(url: str, **options: Any) -> int:
    defaults: dict[str, Any] = {
        "protocols": [],
        "headers": [],
        "proxy": None,
        "wait": 0.0,
        "engine": "trio-websocket",
        "compression": False,
    }
    return await converse(url, **{**defaults, **options})


async def test_lines_are_sent_and_messages_are_printed(
    net: "Network",
    typed: Callable[[bytes], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed("one\ntwö\r\n\nlast".encode())
    typed(b"")
    async with net.serve(net.echo) as server:
        assert await talk(server.url) == 0
    out, err = capsys.readouterr()
    assert out == "one\ntwö\n\nlast\n"
    assert err == (f"connected to {server.url}\nclosed with 1000 (normal closure)\n")


class Handler:
    """A handler that says something and closes, or answers something else."""

    def __init__(self, *says: str | bytes, close: tuple[int, str]) -> None:
        self.says: Sequence[str | bytes] = says
        self.close = close
        self.requests: list[Request] = []

    async def fetch(self, request: Request) -> Response:
        self.requests.append(request)
        client, server = WebSocketPair()
        server.accept()
        for message in self.says:
            server.send(message)
        server.close(*self.close)
        headers = {}
        if "sec-websocket-protocol" in request.headers:
            headers["Sec-WebSocket-Protocol"] = "b"
        return Response(None, status=101, web_socket=client, headers=headers)


@pytest.mark.parametrize(
    "ending",
    [
        ((1001, ""), 0, "closed with 1001 (going away)"),
        ((1011, "oops\x1b[2J"), 1, "closed with 1011 (internal error): oops\\x1b[2J"),
        ((4000, ""), 1, "closed with 4000 (a code of the application)"),
        ((1099, ""), 1, "closed with 1006 (abnormal closure)"),
    ],
)
async def test_the_close_is_explained(
    net: "Network",
    typed: Callable[[bytes], None],
    capsys: pytest.CaptureFixture[str],
    ending: tuple[tuple[int, str], int, str],
) -> None:
    close, status, told = ending
    handler = Handler(b"\x00\xff", "\x1b[31mred", close=close)
    async with net.serve(handler.fetch) as server:
        code = await talk(server.url, protocols=["a", "b"], headers=[("X-Name", "1")])
    assert code == status
    out, err = capsys.readouterr()
    assert out == "0x00ff\n\x1b[31mred\n"
    assert err.startswith(f"connected to {server.url}, subprotocol b\n{told}")
    assert handler.requests[0].headers["x-name"] == "1"


async def test_in_a_terminal_there_are_colours_and_nothing_commands_it(
    net: "Network",
    typed: Callable[[bytes], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    handler = Handler("\x1b[2Jhi\tthere", close=(1000, ""))
    async with net.serve(handler.fetch) as server:
        await talk(server.url)
        assert capsys.readouterr().out == "\x1b[32m< \\x1b[2Jhi\tthere\x1b[0m\n"
        monkeypatch.setenv("NO_COLOR", "1")
        await talk(server.url)
        assert capsys.readouterr().out == "< \\x1b[2Jhi\tthere\n"


async def test_after_the_input_it_can_wait_for_more(
    net: "Network",
    typed: Callable[[bytes], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept()

        async def say_late() -> None:
            await trio.sleep(0.05)
            server.send("late")
            server.close(1000)

        request.nursery.start_soon(say_late)
        return Response(None, status=101, web_socket=client)

    typed(b"")
    async with net.serve(fetch) as server:
        assert await talk(server.url, wait=60.0) == 0
    assert capsys.readouterr().out == "late\n"


async def test_a_server_that_refuses_is_told_with_what_it_says(
    net: "Network",
    typed: Callable[[bytes], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def fetch(_request: Request) -> Response:
        return Response("members only\x1b[0m", status=403)

    async with net.serve(fetch) as server:
        assert await talk(server.url) == 1
    assert await talk("ftp://localhost/") == 1
    assert await talk(server.url) == 1
    err = capsys.readouterr().err.splitlines()
    assert "refused the WebSocket with status 403 (Forbidden)" in err[0]
    assert err[1] == "members only\\x1b[0m"
    assert "is not the URL of a WebSocket" in err[2]
    assert f"no connection to {server.url}: " in err[3]


async def test_it_works_in_a_pipe(net: "Network") -> None:
    async with net.serve(net.echo) as server:
        done = await trio.run_process(
            [*COMMAND, "connect", server.url, "--header", "X-Name: value"],
            stdin=b"hello\n",
            capture_stdout=True,
            capture_stderr=True,
        )
    assert done.stdout == b"hello\n"
    assert b"closed with 1000 (normal closure)" in done.stderr

"""`trio-wspair serve` as a program: options, signals, TLS and the log."""

import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import attrs
import pytest
import trio
import trustme
from commands import (
    COMMAND,
    HANDLER,
    called,
    in_shell,
    line_in,
    ran,
    read_url,
    refused,
    serving,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from network import Network, Tls
from processes import read_to_end, running

from trio_wspair import HandshakeError, __version__, connect, open_websocket
from trio_wspair._command.main import main

# -- misuse ----------------------------------------------------------------------------

MISUSES = {
    (): "required: COMMAND (see: trio-wspair --help)",
    ("swerve",): "invalid choice: 'swerve'",
    ("serve",): "required: APPLICATION (see: trio-wspair serve --help)",
    ("serve", "no.py"): "there is no file 'no.py'",
    ("serve", "no.py", "--reload"): "there is no file 'no.py'",
    ("serve", "app", "--port", "65536"): "from 0 to 65535, not '65536'",
    ("serve", "app", "--port=-1"): "from 0 to 65535, not '-1'",
    ("serve", "app", "--port", "9" * 5000): "from 0 to 65535, not '999",
    ("serve", "app", "--port", "1_0"): "from 0 to 65535, not '1_0'",
    ("serve", "app", "--inspect", "x"): "from 0 to 65535, not 'x'",
    ("serve", "app", "--max-connections-per-client", "0"): "from 1 to 999999999",
    ("serve", "app", "--proxies", "0"): "from 1 to 999999999",
    (
        "serve",
        "app",
        "--proxies",
        "2",
    ): "--proxies needs --proxy-headers or --forwarded",
    ("serve", "app", "--forwarded", "--proxy-headers"): "not allowed with argument",
    ("serve", "app", "--unix", "s", "--port", "1"): "--unix excludes --host and --port",
    ("serve", "app", "--compression"): "--compression needs --engine websockets",
    ("serve", "app", "--engine", "ws"): "invalid choice: 'ws'",
    ("serve", "app", "--p", "1"): "arguments: --p 1 (see: trio-wspair serve --help)",
    ("connect", "u", "--no"): "arguments: --no (see: trio-wspair connect --help)",
    ("connect", "ws://h/", "--header", "Host: x"): "the handshake sets the header",
    ("connect",): "required: URL",
    ("connect", "u", "--header", "x"): "must be like 'Name: value', and it has no",
    ("connect", "u", "--header", "a b: c"): "'a b'",
    ("connect", "u", "--wait", "nan"): "must be a number of seconds from 0 on, or inf",
    ("connect", "u", "--wait=-1"): "must be a number of seconds from 0 on, or inf",
    ("connect", "u", "--wait", "soon"): "must be a number of seconds from 0 on, or inf",
    ("connect", "u", "--compression"): "--compression needs --engine websockets",
    ("connect", "u", "--unix", "s", "--proxy", "p"): "--unix and --proxy exclude",
    ("connect", "u"): '"u" is not the URL of a WebSocket',
    ("connect", "ws://\udcff\n\x1b[2J/"): "is not the URL of a WebSocket",
    ("connect", "ws://h:0/"): "is not the URL of a WebSocket",
    ("connect", f"ws://{'a' * 300}/"): "is not the URL of a WebSocket",
    (
        "connect",
        "ws://h/",
        "--protocol",
        "a b",
    ): "a subprotocol can't have ' ' in it",
    ("connect", "ws://h/", "--insecure"): "certificates need a wss:// URL",
    ("connect", "wss://h/", "--keyfile", "k"): "--keyfile needs --certfile",
    ("connect", "wss://h/", "--cafile", "no.pem"): "can't use no.pem: No such file",
}


@pytest.mark.parametrize("arguments", MISUSES, ids=lambda a: " ".join(a)[:40])
def test_wrong_arguments_are_an_error_of_one_line(
    app: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    (app.parent / "app").write_text(HANDLER)
    assert MISUSES[arguments] in refused(*arguments, capsys=capsys)


def test_version_prints_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize("command", [[], ["serve"], ["connect"]], ids=str)
async def test_the_help_fits_into_80_columns_and_has_examples(
    command: list[str], net: Network
) -> None:
    done = await ran(*command, "--help", env={**os.environ, "COLUMNS": "80"})
    text = done.stdout.decode()
    assert done.returncode == 0
    assert max(map(len, text.splitlines())) <= 80
    assert ("examples:\n" in text) == bool(command)


# -- unusable addresses ----------------------------------------------------------------


async def test_a_port_in_use_is_an_error(app: Path, net: Network) -> None:
    async with net.serve(net.echo) as server:
        done = await ran("serve", str(app), "--port", str(server.port))
    assert done.returncode == 1
    what = f"can't listen on 127.0.0.1 port {server.port}: Address already in use"
    assert line_in(done.stderr.decode()) == what


@pytest.mark.parametrize(
    ("arguments", "status", "what"),
    [
        (["--port=0", "--host", "a" * 300], 2, "can't listen: "),
        (["--port=0", "--host", "256.1.1.1"], 1, "can't listen on 256.1.1.1 port 0: "),
        (["--unix", "no/such.sock"], 1, "can't listen on the Unix socket no/such.sock"),
        (["--unix", "a" * 120], 2, "can't listen: "),
        (["--unix", "app_of_a_test.py"], 1, "can't listen on the Unix socket app_of"),
    ],
)
def test_an_address_that_can_not_be_used_is_an_error(
    app: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    what: str,
) -> None:
    got, errors = called("serve", str(app), *arguments, capsys=capsys)
    assert got == status
    assert line_in(errors).startswith(what)


# -- serving ----------------------------------------------------------------------


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
async def test_a_handler_is_served_until_a_signal(
    app: Path, net: Network, stop: signal.Signals
) -> None:
    async with serving(str(app)) as (process, url), trio.open_nursery() as nursery:
        ws = await connect(url, nursery=nursery)
        ws.accept(pull=True)
        ws.send("hi")
        assert await ws.receive() == "hi"
        process.send_signal(stop)
        assert (await ws.wait_closed()).code == 1001
        log = await read_to_end(process.stderr)
        assert await process.wait() == (130 if stop is signal.SIGINT else 0)
        assert "Traceback" not in log
        line = (
            r'INFO    127\.0\.0\.1 "GET /" 101, closed with 1001 after \d+\.\d s, '
            r"1 messages \(2 bytes\) received, 1 messages \(2 bytes\) sent"
        )
        assert re.search(line, log), log


async def test_a_request_under_way_is_answered_after_a_signal(tmp_path: Path) -> None:
    program = tmp_path / "slow.py"
    program.write_text(
        "import trio\n"
        "from trio_wspair import Response\n"
        "async def fetch(request):\n"
        "    print('called', flush=True)\n"
        "    await trio.sleep(0.5)\n"
        "    return Response('answered')\n"
    )
    async with serving(str(program)) as (process, url):
        port = int(url.rstrip("/").rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert process.stdout is not None
            while b"called" not in await process.stdout.receive_some():
                pass
            process.send_signal(signal.SIGTERM)
            answer = await read_to_end(stream)
        assert answer.endswith("\r\n\r\nanswered")
        assert "Connection: close" in answer
        assert await process.wait() == 0


async def test_a_signal_stops_an_application_that_opens(tmp_path: Path) -> None:
    program = tmp_path / "opening.py"
    program.write_text(
        "import trio\n"
        "from contextlib import asynccontextmanager\n"
        "@asynccontextmanager\n"
        "async def app():\n"
        "    print('opening', flush=True)\n"
        "    await trio.sleep_forever()\n"
        "    yield\n"
    )
    async with running(*COMMAND, "serve", str(program), "--port", "0") as process:
        assert process.stdout is not None
        with trio.fail_after(30):
            while b"opening" not in await process.stdout.receive_some():
                pass
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        assert await read_to_end(process.stderr) == ""


async def test_the_query_is_logged_only_with_log_query(app: Path) -> None:
    for options, shown in (
        ([], '"GET /" 101'),
        (["--log-query"], '"GET /?token=1" 101'),
    ):
        async with serving(str(app), *options) as (process, url):
            async with open_websocket(url + "?token=1"):
                pass
            process.send_signal(signal.SIGTERM)
            log = await read_to_end(process.stderr)
            assert shown in log


@pytest.mark.parametrize(
    ("options", "client"),
    [
        ([], "127.0.0.1"),
        (["--proxy-headers"], "192.0.2.3"),
        (["--proxies", "2", "--proxy-headers"], "192.0.2.2"),
        (["--forwarded"], "2001:db8::3"),
        (["--forwarded", "--proxies", "2"], "2001:db8::2"),
    ],
)
async def test_the_client_address_comes_from_the_known_proxies(
    app: Path, options: list[str], client: str
) -> None:
    x_forwarded = "X-Forwarded-For: 192.0.2.1, 192.0.2.2, 192.0.2.3"
    forwarded = ", ".join(f'for="[2001:db8::{number}]"' for number in (1, 2, 3))
    headers = f"{x_forwarded}\r\nForwarded: {forwarded}\r\nConnection: close\r\n"
    async with serving(str(app), *options) as (process, url):
        port = int(url.rstrip("/").rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            request = f"GET /page HTTP/1.1\r\nHost: a\r\n{headers}\r\n"
            await stream.send_all(request.encode())
            await read_to_end(stream)
        process.send_signal(signal.SIGTERM)
        log = await read_to_end(process.stderr)
    assert f'{client} "GET /page" 200' in log


async def test_each_request_is_a_line_unless_the_log_is_quiet(app: Path) -> None:
    for level, lines in ("info", 1), ("warning", 0):
        async with serving(str(app), "--log-level", level) as (process, url):
            port = int(url.rstrip("/").rpartition(":")[2])
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(
                    b"GET /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                )
                assert (await read_to_end(stream)).endswith("\r\n\r\nversion 1")
            process.send_signal(signal.SIGTERM)
            log = await read_to_end(process.stderr)
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
    async with running(*command) as process:
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
        process.terminate()
        assert await process.wait() == 0


async def test_without_inspect_there_is_no_inspector(app: Path) -> None:
    async with serving(str(app)) as (process, _):
        assert listening(process) == 1


async def test_a_port_of_the_inspector_in_use_is_an_error(
    app: Path, net: Network
) -> None:
    async with net.serve(net.echo) as server:
        done = await ran("serve", str(app), "--port=0", f"--inspect={server.port}")
    assert done.returncode == 1
    assert line_in(done.stderr.decode()).startswith("can't open the inspector on port")


async def test_tls_is_served_with_a_certificate(
    app: Path, tls: Tls, tmp_path: Path
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


@pytest.mark.parametrize("host", ["", "*"])
async def test_all_addresses_can_be_served(app: Path, host: str) -> None:
    async with (
        serving(str(app), "--host", host) as (_, url),
        open_websocket(url) as ws,
    ):
        ws.send("hi")
        assert await ws.receive() == "hi"


async def test_a_unix_socket_is_served_and_removed(app: Path) -> None:
    command = [*COMMAND, "serve", str(app), "--unix", "here.sock"]
    async with running(*command) as process:
        assert process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            line += await process.stdout.receive_some()
        what = f"Serving {app} on the Unix socket here.sock - Ctrl-C stops it\n"
        assert line.decode() == what
        done = await ran("connect", "ws://x/", "--unix", "here.sock", stdin=b"hi\n")
        assert (done.returncode, done.stdout) == (0, b"hi\n")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    assert not Path("here.sock").exists()  # noqa: ASYNC240 - it does not block


async def test_an_application_that_opens_objects_is_served(app: Path) -> None:
    await trio.Path(app).write_text("""
from contextlib import asynccontextmanager
from trio_wspair import Response, WebSocketPair
from trio_wspair.hibernation import DurableObject, DurableObjectNamespace

class Room(DurableObject):
    async def fetch(self, request):
        client, server = WebSocketPair()
        self.ctx.accept_web_socket(server)
        return Response(None, status=101, web_socket=client)

    def web_socket_message(self, ws, message):
        ws.send(message)

    def web_socket_close(self, ws, code, reason, was_clean):
        print("closed with", code, was_clean, flush=True)

@asynccontextmanager
async def app():
    async with DurableObjectNamespace(Room) as rooms:
        print("opened", flush=True)
        yield rooms.get_by_name("lobby")
    print("left", flush=True)
""")
    async with serving(str(app)) as (process, url), trio.open_nursery() as nursery:
        ws = await connect(url, nursery=nursery)
        ws.accept(pull=True)
        ws.send("hi")
        assert await ws.receive() == "hi"
        process.send_signal(signal.SIGINT)
        assert (await ws.wait_closed()).code == 1001
        assert "closed with 1001 True\n" in await read_to_end(process.stdout)
        assert await process.wait() == 130
        assert "Traceback" not in await read_to_end(process.stderr)


APPLICATION_THAT_FAILS = """
from contextlib import asynccontextmanager
import trio

async def fail():
    {in_task}

@asynccontextmanager
async def app():
    {on_entering}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        yield fetch
        await trio.sleep_forever()

async def fetch(request): ...
"""


@pytest.mark.parametrize("where", ["in_task", "on_entering"])
async def test_an_application_that_fails_shows_its_own_traceback_only(
    app: Path, net: Network, where: str
) -> None:
    lines = {"in_task": "pass", "on_entering": "pass", where: "raise OSError('oh no')"}
    await trio.Path(app).write_text(APPLICATION_THAT_FAILS.format(**lines))
    done = await ran("serve", str(app), "--port=0")
    errors = done.stderr.decode()
    assert done.returncode == 1
    assert errors.startswith("Traceback (most recent call last):\n")
    assert errors.endswith("raise OSError('oh no')\nOSError: oh no\n")
    assert re.findall('File "([^"]+)"', errors) == [str(app)]


HANDLER_THAT_SHOWS = """
import logging

async def fetch(request):
    logging.warning("asked for %s", request.path)
    raise ValueError(request.path)
"""
COMMANDS = "\x1b]0;title\x07\n00:00:00 ERROR   fake\r\x9b31m\u202e"


async def test_control_sequences_and_line_breaks_are_escaped_in_the_log(
    app: Path, net: Network
) -> None:
    await trio.Path(app).write_text(HANDLER_THAT_SHOWS)
    async with serving(str(app)) as (process, url):
        target = "/" + quote(COMMANDS)
        with pytest.raises(HandshakeError, match="500"):
            async with open_websocket(url + target[1:]):
                pass
        process.send_signal(signal.SIGINT)
        errors = await read_to_end(process.stderr)
    assert all(line.isprintable() for line in errors.split("\n"))
    assert r"ValueError: /\x1b]0;title\x07" in errors
    assert "\n  Traceback" in errors
    lines = [line for line in errors.split("\n") if "fake" in line]
    assert len(lines) >= 2
    for line in lines:
        assert line.startswith("  ") or "INFO" in line or "handling GET" in line


async def test_control_sequences_are_escaped_in_a_traceback(
    app: Path, net: Network
) -> None:
    code = {"in_task": f"raise OSError({COMMANDS!r})", "on_entering": "pass"}
    await trio.Path(app).write_text(APPLICATION_THAT_FAILS.format(**code))
    done = await ran("serve", str(app), "--port=0")
    errors = done.stderr.decode()
    assert "OSError: \\x1b]0;title\\x07\n" in errors
    assert all(line.isprintable() for line in errors.split("\n"))


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [("7", 7, ""), ("", 0, ""), ("'no'", 1, "trio-wspair: no\n")],
)
async def test_a_handler_that_exits_sets_the_exit_status(
    app: Path, code: str, status: int, told: str
) -> None:
    source = f"import sys\nasync def fetch(request): sys.exit({code})"
    await trio.Path(app).write_text(source)
    async with serving(str(app)) as (process, url):
        with trio.fail_after(10), pytest.raises(HandshakeError):
            async with open_websocket(url):
                pass
        assert await process.wait() == status
        errors = await read_to_end(process.stderr)
        assert errors.endswith(told)
        assert "Traceback" not in errors


async def test_a_handler_that_raises_keyboard_interrupt_ends_the_server(
    app: Path,
) -> None:
    source = "async def fetch(request): raise KeyboardInterrupt"
    await trio.Path(app).write_text(source)
    async with serving(str(app)) as (process, url):
        with trio.fail_after(10), pytest.raises(HandshakeError):
            async with open_websocket(url):
                pass
        assert await process.wait() == 130
        assert "Traceback" not in await read_to_end(process.stderr)


def test_a_bug_of_the_command_itself_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise BaseExceptionGroup("", [LookupError()])

    monkeypatch.setattr(
        "trio_wspair._command.main.ConnectCommand", attrs.make_class("X", [])
    )
    monkeypatch.setattr("trio_wspair._command.main._fields", fail)
    with pytest.raises(BaseExceptionGroup):
        main(["connect", "ws://x/"])


async def test_connections_per_client_are_limited_by_the_option(
    app: Path,
) -> None:
    async with (
        serving(str(app), "--max-connections-per-client", "1") as (_, url),
        open_websocket(url),
    ):
        with pytest.raises(HandshakeError) as caught:
            async with open_websocket(url):
                pass
        assert caught.value.status in (429, 503)


# -- signals ---------------------------------------------------------------------------


async def test_a_second_signal_ends_the_server_at_once(app: Path, net: Network) -> None:
    async with serving(str(app)) as (process, url):
        # A client that doesn't answer a Close would have 5 seconds.
        stream = await trio.open_tcp_stream("127.0.0.1", int(url.split(":")[2][:-1]))
        async with stream:
            head = net.head(*net.UPGRADE)
            await stream.send_all(head)
            answer = await stream.receive_some()
            assert answer.startswith(b"HTTP/1.1 101")
            process.send_signal(signal.SIGINT)
            await stream.receive_some()  # The Close.
            process.send_signal(signal.SIGINT)
            assert await process.wait() == -signal.SIGINT


async def test_a_signal_that_is_ignored_stays_ignored(app: Path) -> None:
    script = ["bash", "-c", 'trap "" HUP; exec "$@"', "bash", *COMMAND]
    async with running(*script, "serve", str(app), "--port=0") as process:
        url = await read_url(process)
        process.send_signal(signal.SIGHUP)
        async with open_websocket(url) as ws:
            ws.send("alive")
            assert await ws.receive() == "alive"
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


# -- TLS -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pki() -> Generator["Pki"]:
    """Certificates of a server and a client, and unusable files."""
    with tempfile.TemporaryDirectory() as folder:
        yield Pki(Path(folder))


class Pki:
    """Files of certificates."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        server, client = (authority.issue_cert(n) for n in ("127.0.0.1", "me@x.org"))
        self.ca = self.write(folder / "ca.pem", authority.cert_pem.bytes())
        self.chain = self.write(folder / "chain.pem", server.cert_chain_pems[0].bytes())
        self.key = self.write(folder / "key.pem", server.private_key_pem.bytes())
        self.server = self.write(
            folder / "server.pem", server.private_key_and_cert_chain_pem.bytes()
        )
        self.client = self.write(
            folder / "client.pem", client.private_key_and_cert_chain_pem.bytes()
        )
        self.other_key = self.write(
            folder / "other.pem", client.private_key_pem.bytes()
        )
        key = load_pem_private_key(server.private_key_pem.bytes(), None)
        self.locked_key = self.write(
            folder / "locked.pem",
            key.private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
            ),
        )
        old = authority.issue_cert(
            "127.0.0.1", not_after=datetime(2020, 1, 1, tzinfo=UTC)
        )
        self.old = self.write(
            folder / "old.pem", old.private_key_and_cert_chain_pem.bytes()
        )
        self.nonsense = self.write(folder / "nonsense.pem", b"nonsense")

    @staticmethod
    def write(file: Path, data: bytes) -> str:
        file.write_bytes(data)
        return str(file)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"keyfile": "key"}, "--keyfile needs --certfile"),
        ({"client-ca": "ca"}, "--client-ca needs --certfile"),
        ({"certfile": "chain"}, "a certificate and its private key are needed, both"),
        ({"certfile": "nonsense"}, "a certificate and its private key are needed"),
        ({"certfile": "chain", "keyfile": "other_key"}, "the key belongs to another"),
        (
            {"certfile": "chain", "keyfile": "locked_key"},
            "has a password: remove it with",
        ),
        (
            {"certfile": "server", "client-ca": "nonsense"},
            "it contains no certificate in PEM",
        ),
    ],
)
def test_unusable_tls_files_are_an_error(
    app: Path,
    pki: Pki,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, str],
    what: str,
) -> None:
    arguments = [f"--{name}={getattr(pki, file)}" for name, file in options.items()]
    assert what in refused("serve", str(app), "--port=0", *arguments, capsys=capsys)


async def test_an_expired_certificate_is_reported_on_both_sides(
    app: Path, pki: Pki, net: Network
) -> None:
    async with serving(str(app), f"--certfile={pki.old}") as (process, url):
        done = await ran("connect", url, f"--cafile={pki.ca}")
        assert done.returncode == 1
        assert "certificate has expired" in line_in(done.stderr.decode())
        process.send_signal(signal.SIGTERM)
        first, *_ = (await read_to_end(process.stderr)).splitlines()
    what = f"clients will refuse {pki.old}: certificate has expired"
    assert first == f"trio-wspair: warning: {what}"


def test_missing_files_of_tls_are_named(
    app: Path, pki: Pki, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["serve", str(app), "--port=0", f"--certfile={pki.chain}"]
    told = refused(*command, "--keyfile=no.pem", capsys=capsys)
    assert told == "can't use no.pem: No such file or directory"
    told = refused(*command, "--keyfile=a\0b", capsys=capsys)
    assert "null byte" in told


async def test_clients_show_their_certificates_and_check_the_servers(
    app: Path, pki: Pki, net: Network
) -> None:
    options = f"--certfile={pki.server}", f"--client-ca={pki.ca}"
    async with serving(str(app), *options) as (_, url):
        ours = f"--certfile={pki.client}"
        done = await ran("connect", url, f"--cafile={pki.ca}", ours, stdin=b"hi\n")
        assert (done.returncode, done.stdout) == (0, b"hi\n")
        done = await ran("connect", url, "--insecure", ours, stdin=b"hi\n")
        assert (done.returncode, done.stdout) == (0, b"hi\n")
        assert b"warning: --insecure: the certificate is not checked" in done.stderr
        for missing in f"--cafile={pki.ca}", ours:
            done = await ran("connect", url, missing)
            assert done.returncode == 1
            assert line_in(done.stderr.decode()).startswith("no connection to wss:")
        done = await ran("connect", url, "--insecure", f"--cafile={pki.ca}")
        assert done.returncode == 2
        assert "--insecure and --cafile exclude each other" in line_in(
            done.stderr.decode()
        )


# -- logs ------------------------------------------------------------------------------


async def test_the_server_stops_when_the_reader_of_its_log_has_gone(app: Path) -> None:
    async with serving(str(app)) as (process, url), trio.open_nursery() as nursery:
        assert process.stderr is not None
        ws = await connect(url, nursery=nursery)
        ws.accept()
        await process.stderr.aclose()
        async with open_websocket(url):
            pass  # A line is logged at the end of the connection.
        assert (await ws.wait_closed()).code == 1001
        assert await process.wait() == 141


async def test_the_server_starts_with_all_streams_closed(
    app: Path, net: Network
) -> None:
    script = 'exec "$@" <&- >&- 2>&-'
    command = [*COMMAND, "serve", str(app), "--unix", "here.sock"]
    async with running("bash", "-c", script, "bash", *command) as process:
        while not Path("here.sock").exists():  # noqa: ASYNC110, ASYNC240
            await trio.sleep(0.01)
        done = await ran("connect", "ws://x/", "--unix", "here.sock", stdin=b"hi\n")
        assert (done.returncode, done.stdout) == (0, b"hi\n")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def test_an_output_that_can_not_be_written_is_an_error(
    app: Path, net: Network
) -> None:
    done = await in_shell('"$@" >/dev/full', "serve", str(app), "--port=0")
    assert done.returncode == 1
    told = line_in(done.stderr.decode())
    assert told == "can't write to the standard output: No space left on device"


async def test_an_interrupt_during_the_import_ends_the_command_like_ctrl_c(
    tmp_path: Path,
) -> None:
    (tmp_path / "app.py").write_text("raise KeyboardInterrupt\n")
    done = await ran("serve", str(tmp_path / "app.py"))
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_an_engine_whose_package_is_not_installed_is_an_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("websockets", "trio_wspair.transports._websockets"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delattr("trio_wspair.transports._websockets", raising=False)
    said = refused("serve", "app", "--engine", "websockets", capsys=capsys)
    assert "pip install 'trio-wspair[websockets]'" in said

"""`trio-wspair connect`: lines are sent, messages are printed."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from commands import COMMAND, in_shell, line_in, pipe_without_reader, ran
from network import Network, Tls
from processes import read_to_end, running

from trio_wspair import CloseEvent, Request, Response, WebSocketPair
from trio_wspair._command.connect import ConnectCommand, Lines
from trio_wspair._command.process import CommandError

# -- connecting -----------------------------------------------------------------


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Generator[Callable[[bytes], None]]:
    """Give a function that writes into the standard input, and leaves it open."""
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
    """Run the command in this process; return the exit status, or raise its error."""
    return await ConnectCommand(url, **options).run()


async def test_lines_are_sent_and_messages_are_printed(
    net: Network,
    typed: Callable[[bytes], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    typed("one\ntwö\r\n\nlast".encode())
    typed(b"")
    async with net.serve(net.echo) as server:
        assert await talk(server.url) == 0
    out, err = capfd.readouterr()
    assert out == "one\ntwö\n\nlast\n"
    assert err == (f"connected to {server.url}\nclosed with 1000 (normal closure)\n")


class Handler:
    """A handler that sends a message and closes, or responds without a WebSocket."""

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
    net: Network,
    typed: Callable[[bytes], None],
    capfd: pytest.CaptureFixture[str],
    ending: tuple[tuple[int, str], int, str],
) -> None:
    close, status, told = ending
    handler = Handler(b"\x00\xff", "\x1b[31mred", close=close)
    async with net.serve(handler.fetch) as server:
        code = await talk(server.url, protocols=["a", "b"], headers=[("X-Name", "1")])
    assert code == status
    out, err = capfd.readouterr()
    assert out == "0x00ff\n\x1b[31mred\n"
    assert err.startswith(f"connected to {server.url}, subprotocol b\n{told}")
    assert handler.requests[0].headers["x-name"] == "1"


async def test_a_terminal_gets_colours_and_no_control_sequences_of_the_server(
    net: Network,
    typed: Callable[[bytes], None],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    handler = Handler('{"\x1b[2J": "hi\t\nthere"}', close=(1000, ""))
    async with net.serve(handler.fetch) as server:
        await talk(server.url)
        shown = '\x1b[32m< {"\\x1b[2J": "hi\\x09\\x0athere"}\x1b[0m\n'
        assert capfd.readouterr().out == shown
        monkeypatch.setenv("NO_COLOR", "1")
        await talk(server.url)
        assert capfd.readouterr().out == '< {"\\x1b[2J": "hi\\x09\\x0athere"}\n'


async def test_wait_keeps_the_connection_open_after_the_input(
    net: Network,
    typed: Callable[[bytes], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept()

        async def send_late() -> None:
            await trio.sleep(0.05)
            server.send("late")
            server.close(1000)

        request.nursery.start_soon(send_late)
        return Response(None, status=101, web_socket=client)

    typed(b"")
    async with net.serve(fetch) as server:
        assert await talk(server.url, wait=60.0) == 0
    assert capfd.readouterr().out == "late\n"


async def test_a_refusal_is_shown_with_the_text_of_the_server(
    net: Network, typed: Callable[[bytes], None]
) -> None:
    async def fetch(_request: Request) -> Response:
        return Response("members only\x1b[0m", status=403)

    async with net.serve(fetch) as server:
        with pytest.raises(CommandError) as caught:
            await talk(server.url)
    assert str(caught.value).startswith(f"no connection to {server.url}: the server ")
    assert str(caught.value).endswith('403 (Forbidden): "members only\\x1b[0m"')
    with pytest.raises(CommandError, match="connection refused"):
        await talk(server.url)


async def test_compression_is_negotiated_if_both_sides_offer_it(
    net: Network,
    typed: Callable[[bytes], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    typed(b"hello")
    typed(b"")
    async with net.serve(net.echo, engine="websockets", compression=True) as server:
        assert await talk(server.url, engine="websockets", compression=True) == 0
    out, err = capfd.readouterr()
    assert out == "hello\n"
    assert f"connected to {server.url}, permessage-deflate" in err


async def test_a_missing_unix_socket_is_named(
    net: Network, typed: Callable[[bytes], None]
) -> None:
    with pytest.raises(CommandError) as caught:
        await talk("ws://x/", unix="no.sock")
    what = "through the Unix socket no.sock: No such file or directory"
    assert str(caught.value) == f"no connection to ws://x/ {what}"


async def test_secrets_of_the_url_are_not_shown(
    net: Network,
    typed: Callable[[bytes], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    typed(b"")
    async with net.serve(net.echo) as server:
        assert await talk(f"{server.url}?token=secret") == 0
    assert f"connected to {server.url}?token=...\n" in capfd.readouterr().err


async def test_proxies_come_from_the_environment_unless_an_option_excludes_them(
    net: Network,
    typed: Callable[[bytes], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    typed(b"")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with net.serve(net.echo) as server:
        with pytest.raises(CommandError, match="proxy"):
            await talk(server.url)
        with pytest.raises(CommandError, match="proxy"):
            await talk(server.url, proxy="http://127.0.0.1:2", no_proxy=True)
        assert await talk(server.url, no_proxy=True) == 0


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "WS_PROXY"])
async def test_an_error_names_the_variable_with_the_proxy(
    net: Network, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with monkeypatch.context() as environment:
        environment.setenv(name, "127.0.0.1:1")
        with pytest.raises(CommandError) as caught:
            await talk("ws://h.example/")
        assert "can't reach the proxy 127.0.0.1:1" in str(caught.value)
        assert str(caught.value).endswith(f" (the proxy is from {name})")
        environment.setenv(name, "ftp://h")
        with pytest.raises(CommandError) as caught:
            await talk("ws://h.example/")
        assert str(caught.value).endswith(f" (the proxy is from {name})")
        with pytest.raises(CommandError) as caught:
            await talk("ws://h.example/", proxy="http://127.0.0.1:1")
        assert "is from" not in str(caught.value)


async def test_an_untrusted_certificate_is_an_error_that_names_the_options(
    net: Network, tls: Tls
) -> None:
    async with net.serve(net.echo, ssl_context=tls.server) as server:
        with pytest.raises(CommandError, match="pass --cafile FILE, or --insecure"):
            await talk(server.url)


async def test_a_line_that_is_not_utf8_is_reported_and_the_others_are_sent(
    net: Network,
    typed: Callable[[bytes], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    typed(b"one\n\xff\nthree\n")
    typed(b"")
    async with net.serve(net.echo) as server:
        assert await talk(server.url) == 1
    out, err = capfd.readouterr()
    assert out == "one\nthree\n"
    assert (
        "trio-wspair: line 2 was not sent: it is not UTF-8; --binary sends bytes\n"
        in err
    )


async def test_lines_can_be_sent_as_bytes(
    net: Network,
    typed: Callable[[bytes], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    typed(b"one\n\xff\n")
    typed(b"")
    async with net.serve(net.echo) as server:
        assert await talk(server.url, binary=True) == 0
    assert capfd.readouterr().out == "0x6f6e65\n0xff\n"


async def test_a_line_that_is_too_long_is_reported_and_the_others_are_sent(
    net: Network,
    typed: Callable[[bytes], None],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trio_wspair._command.connect._MAX_LINE_BYTES", 10)
    typed(b"x" * 11 + b"\nshort\r\n" + b"y" * 10 + b"\r\n")
    typed(b"")
    async with net.serve(net.echo) as server:
        assert await talk(server.url) == 1
    out, err = capfd.readouterr()
    assert out == "short\nyyyyyyyyyy\n"
    assert "trio-wspair: line 1 was not sent: it has more than 10 bytes\n" in err


async def test_a_message_beyond_the_limit_of_the_server_is_closed_with_1009(
    net: Network,
    typed: Callable[[bytes], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    typed(b"x" * 2000 + b"\n")
    async with net.serve(net.echo, max_message_bytes=1000) as server:
        assert await talk(server.url) == 1
    assert "closed with 1009 (message too big)" in capfd.readouterr().err


async def test_lines_after_the_close_are_not_sent(
    net: Network,
    typed: Callable[[bytes], None],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closing = trio.Event()

    async def write_slowly(_text: str) -> None:
        closing.set()
        await trio.sleep(0.3)

    async def type_late() -> None:
        await closing.wait()
        await trio.sleep(0.1)
        typed(b"too late\n")

    monkeypatch.setattr("trio_wspair._command.connect.write_output", write_slowly)
    handler = Handler("x", close=(1000, "enough"))
    async with net.serve(handler.fetch) as server, trio.open_nursery() as nursery:
        nursery.start_soon(type_late)
        assert await talk(server.url) == 0
    assert "closed with 1000 (normal closure): enough\n" in capfd.readouterr().err


# -- lines -----------------------------------------------------------------------------


def lines_of(*pieces: bytes, max_bytes: int = 10) -> list[bytes | None]:
    lines = Lines(max_bytes)
    found = [line for piece in pieces for line in lines.feed(piece)]
    return [*found, *lines.end()]


def test_lines_do_not_depend_on_how_the_input_is_split() -> None:
    text = b"one\n\ntwo\r\n\r\nthree\rfour\nlast"
    expected = [b"one", b"", b"two", b"", b"three\rfour", b"last"]
    assert lines_of(text) == expected
    assert lines_of(*(bytes([byte]) for byte in text)) == expected


def test_a_line_that_is_too_long_is_left_out_in_bounded_memory() -> None:
    assert lines_of(b"x" * 11, b"\n", b"y" * 10, b"\r\nz") == [None, b"y" * 10, b"z"]
    assert lines_of(b"x" * 12, b"\n") == [None]
    lines = Lines(10)
    for _ in range(100):
        assert list(lines.feed(b"x" * 5)) == []
    assert lines.pending_bytes <= 10


# -- signals ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
async def test_a_signal_closes_with_1000(
    net: Network, number: signal.Signals, status: int
) -> None:
    async with net.serve_halves() as (server, halves):
        command = [*COMMAND, "connect", server.url, "--wait", "inf"]
        async with running(*command) as process:
            half = await halves.receive()
            heard = net.accept(half)
            half.send("hello")
            assert process.stdout is not None
            assert await process.stdout.receive_some() == b"hello\n"
            process.send_signal(number)
            errors = await read_to_end(process.stderr)
            assert await process.wait() == status
        (close,) = heard
        assert isinstance(close, CloseEvent)
        assert close.code == 1000
    assert errors.endswith("closed with 1000 (normal closure)\n")
    assert "Traceback" not in errors


async def test_a_signal_ends_the_wait_for_a_connection(net: Network) -> None:
    async with await open_deaf_listener() as listener:
        port = listener.socket.getsockname()[1]
        command = [*COMMAND, "connect", f"ws://127.0.0.1:{port}/"]
        async with running(*command) as process:
            async with await listener.accept():
                process.send_signal(signal.SIGINT)
                assert await process.wait() == 130
            assert await read_to_end(process.stderr) == ""


async def open_deaf_listener() -> trio.SocketListener:
    """Listen on a port, without an answer."""
    return (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]


async def test_a_signal_ends_the_command_even_if_its_output_is_not_read(
    net: Network,
) -> None:
    async with (
        net.serve_halves() as (server, halves),
        running(*COMMAND, "connect", server.url, "--wait=inf") as process,
    ):
        half = await halves.receive()
        half.accept()
        half.send("x" * 2**20)  # More than a pipe holds.
        await half.drain()
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130


async def test_a_second_signal_ends_the_command_at_once(net: Network) -> None:
    async with (
        net.serve_halves() as (server, halves),
        running(*COMMAND, "connect", server.url, "--wait=inf") as process,
    ):
        half = await halves.receive()
        half.accept()
        half.send("x" * 2**20)  # More than a pipe holds.
        await half.drain()
        process.send_signal(signal.SIGINT)
        assert (await half.wait_closed()).code == 1000
        process.send_signal(signal.SIGINT)
        assert await process.wait() == -signal.SIGINT


# -- streams that are closed, full, or of another encoding -----------------------------


async def test_lines_and_messages_go_through_pipes(net: Network) -> None:
    async with net.serve(net.echo) as server:
        options = "--header", "X-Name: value"
        done = await ran("connect", server.url, *options, stdin=b"hello\n")
    assert done.returncode == 0
    assert done.stdout == b"hello\n"
    assert b"closed with 1000 (normal closure)" in done.stderr


STREAMS = {
    'echo hi | "$@" <&-': (0, "", ["closed with 1000"]),
    'echo hi | "$@" >&-': (1, "", ["can't write to the standard output: Bad file"]),
    'echo hi | "$@" 2>&-': (0, "hi\n", []),
    'echo hi | "$@" >/dev/full': (1, "", ["can't write to the standard output: No sp"]),
    '"$@" <&- >&- 2>&-': (0, "", []),
    'echo hi | PYTHONIOENCODING=ascii "$@"': (0, "hi\n", ["closed with 1000"]),
    "printf 'h\\303\\274' | PYTHONIOENCODING=ascii \"$@\"": (0, "h\\xfc\n", []),
}


@pytest.mark.parametrize("script", STREAMS)
async def test_streams_can_be_closed_or_full_or_of_any_encoding(
    net: Network, script: str
) -> None:
    status, output, errors = STREAMS[script]
    async with net.serve(net.echo) as server:
        done = await in_shell(script, "connect", server.url)
    text = done.stderr.decode()
    assert (done.returncode, done.stdout.decode()) == (status, output), text
    assert "Traceback" not in text
    assert all(error in text for error in errors), text


async def test_an_error_does_not_wait_for_an_input_that_stays_open(
    net: Network,
) -> None:
    reading, writing = os.pipe()
    try:
        done = await ran("connect", "ws://h/", "--no-such", stdin=reading)
    finally:
        os.close(reading)
        os.close(writing)
    assert done.returncode == 2
    assert "unrecognized arguments" in line_in(done.stderr.decode())


async def test_the_command_ends_quietly_when_the_reader_of_its_output_has_gone(
    net: Network,
) -> None:
    async with (
        net.serve(net.echo) as server,
        running(*COMMAND, "connect", server.url, stdin=subprocess.PIPE) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.send_all(b"1\n")
        assert await process.stdout.receive_some() == b"1\n"
        await process.stdout.aclose()
        await process.stdin.send_all(b"2\n3\n4\n")
        assert await process.wait() == 141
        assert await read_to_end(process.stderr) == f"connected to {server.url}\n"


async def test_an_unreadable_input_is_an_error(net: Network) -> None:
    async with net.serve(net.echo) as server:
        done = await in_shell('"$@" 0>/dev/full', "connect", server.url)
    assert done.returncode == 1
    assert b"can't read the standard input: Bad file descriptor" in done.stderr


async def test_nonblocking_input_and_output_work(
    net: Network,
) -> None:
    async with net.serve_halves() as (server, halves):
        stdin, typing = os.pipe()
        reading, stdout = os.pipe()
        os.set_blocking(stdin, False)
        os.set_blocking(stdout, False)
        command = [*COMMAND, "connect", server.url]
        async with running(*command, stdin=stdin, stdout=stdout) as process:
            os.close(stdin)
            os.close(stdout)
            half = await halves.receive()
            half.accept(pull=True)
            half.send("x" * 2**18)
            await trio.sleep(0.1)
            os.write(typing, b"hi\n")
            assert await half.receive() == "hi"
            os.close(typing)
            async with trio.lowlevel.FdStream(reading) as output:
                assert len(await read_to_end(output)) == 2**18 + 1
            assert await process.wait() == 0


async def test_the_help_ends_quietly_when_its_reader_has_gone(net: Network) -> None:
    for command in [["--help"], ["connect", "--help"], ["--version"]]:
        with pipe_without_reader() as stdout:
            done = await ran(*command, stdout=stdout)
        assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("full", "status", "told"),
    [(True, 3, "can't write to the standard output"), (False, 141, "")],
    ids=["full", "no reader"],
)
async def test_output_of_a_program_that_can_not_be_written_is_an_error(
    net: Network, tmp_path: Path, full: bool, status: int, told: str
) -> None:
    file = tmp_path / "printing.py"
    source = "import sys\nprint('x')\nsys.exit(3)\n"
    await trio.Path(file).write_text(source)
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    with ExitStack() as stack:
        stdout = stack.enter_context(pipe_without_reader())
        if full:
            stdout = stack.enter_context(open("/dev/full", "wb")).fileno()  # noqa: ASYNC230
        done = await ran("serve", str(file), stdout=stdout, env=environment)
    assert done.returncode == status
    assert told in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert "Exception ignored" not in done.stderr.decode()


async def test_a_help_text_that_can_not_be_written_is_an_error(net: Network) -> None:
    done = await in_shell('"$@" >/dev/full', "--help")
    assert done.returncode == 1
    told = line_in(done.stderr.decode())
    assert told == "can't write to the standard output: No space left on device"

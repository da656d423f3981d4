"""Where a server listens: ports, Unix sockets, and listeners of a program."""

import contextlib
import errno
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from memory_server import request_bytes
from network import Network, Tls
from trio.testing import MockClock

from trio_wspair import Application, Request, Response, Server, open_websocket, serve
from trio_wspair._http.messages import FetchHandler
from trio_wspair._server.listening import Endpoint
from trio_wspair._server.unix_listener import open_unix_listener

Listener = trio.abc.Listener[Any]


@pytest.fixture(scope="module")
def engine() -> None:
    """Run each test on one engine, as the engine doesn't matter here."""


async def show(request: Request) -> Response:
    """Respond with the facts of the connection."""
    return Response(f"{request.url} {request.secure} {request.client or '-'}")


@asynccontextmanager
async def serving(**options: Any) -> AsyncGenerator[Server]:
    """Run `serve()` for a block, and stop it afterwards."""
    async with trio.open_nursery() as nursery:
        options.setdefault("close_grace", 2.0)
        yield await nursery.start(partial(serve, show, **options))
        nursery.cancel_scope.cancel()


async def body_from(stream: trio.abc.Stream) -> str:
    """Return the body of the response to ``GET /x``."""
    await stream.send_all(request_bytes("GET", "/x", "Connection: close"))
    data = b"".join([bytes(more) async for more in stream])
    await stream.aclose()
    return data.partition(b"\r\n\r\n")[2].decode()


async def on_unix(path: Path) -> str:
    return await body_from(await trio.open_unix_socket(str(path)))


# -- ports --------------------------------------------------------------------


@pytest.mark.parametrize("host", [None, "localhost"])
async def test_with_port_0_all_addresses_have_the_same_port(
    net: Network, host: str | None
) -> None:
    async with serving(port=0, host=host) as server:
        assert {address[1] for address in server.addresses} == {server.port}
        if host is None and socket.has_ipv6:
            assert {"0.0.0.0", "::"} == {a[0] for a in server.addresses}  # noqa: S104
        for address in server.addresses:
            assert isinstance(address, tuple)
            stream = await trio.open_tcp_stream(*address)
            assert (await body_from(stream)).startswith("http://test/x False ")
        assert len(server.urls) == len(server.addresses)


async def test_with_port_0_a_port_is_free_at_all_addresses(
    net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = trio.open_tcp_listeners
    asked: list[int] = []

    async def open_tcp_listeners(port: int, *, host: Any) -> list[trio.SocketListener]:
        asked.append(port)
        if len(asked) == 2:
            raise OSError(errno.EADDRINUSE, "in use")
        return await opened(port, host=host)

    monkeypatch.setattr(trio, "open_tcp_listeners", open_tcp_listeners)
    before = net.open_sockets()
    async with serving(port=0, host=None) as server:
        assert {address[1] for address in server.addresses} == {server.port}
        assert asked == [0, asked[1], 0, server.port]
        assert net.open_sockets() == before + 2


async def test_an_address_that_a_name_has_twice_is_one_address(
    net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = trio.open_tcp_listeners

    async def open_tcp_listeners(port: int, *, host: Any) -> list[trio.SocketListener]:
        listeners = await opened(port, host=host)
        return listeners if port else [*listeners, *await opened(port, host=host)]

    monkeypatch.setattr(trio, "open_tcp_listeners", open_tcp_listeners)
    async with serving(port=0, host="127.0.0.1") as server:
        assert server.addresses == (("127.0.0.1", server.port),)


async def test_without_a_port_that_is_free_at_all_addresses_an_error_is_raised(
    net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = trio.open_tcp_listeners

    async def open_tcp_listeners(port: int, *, host: Any) -> list[trio.SocketListener]:
        if port != 0:
            raise OSError(errno.EADDRINUSE, "in use")
        return await opened(port, host=host)

    monkeypatch.setattr(trio, "open_tcp_listeners", open_tcp_listeners)
    with pytest.raises(OSError, match="in use"):
        await serve(show, 0, host=None)


async def test_an_invalid_host_is_an_error_that_shows_it(
    net: Network,
) -> None:
    with pytest.raises(ValueError, match=f"host='{'x' * 64}' is not the name or "):
        await serve(show, 0, host="x" * 64)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (("127.0.0.1", 80), "ws://127.0.0.1:80/"),
        (("192.0.2.1", 8080), "ws://192.0.2.1:8080/"),
        (("0.0.0.0", 80), "ws://127.0.0.1:80/"),  # noqa: S104 - not bound
        (("::", 80), "ws://[::1]:80/"),
        (("::1", 80), "ws://[::1]:80/"),
        (("fe80::1%eth0", 80), "ws://[fe80::1%25eth0]:80/"),
    ],
)
def test_a_url_reaches_the_address(address: tuple[str, int], url: str) -> None:
    assert Server((Endpoint(address, secure=False),), lambda: None).url == url
    secure = Server((Endpoint(address, secure=True),), lambda: None)
    assert (secure.url, secure.secure) == (url.replace("ws:", "wss:"), True)


class Silence(trio.abc.Listener[trio.abc.Stream]):
    """A listener on a socket that has nothing but an address."""

    def __init__(self, family: socket.AddressFamily, address: object) -> None:
        class Socket(trio.socket.SocketType):
            def getsockname(self) -> object:
                return address

        Socket.family = family  # type: ignore[assignment] # a property there
        self.socket = Socket()

    async def accept(self) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    async def aclose(self) -> None:
        pass


def test_the_repr_of_a_server_shows_where_it_listens() -> None:
    places = ("127.0.0.1", 8000), "/run/app.sock", None
    endpoints = tuple(Endpoint(place, secure=False) for place in places)
    server = Server(endpoints, lambda: None)
    assert repr(server) == (
        "<Server on ws://127.0.0.1:8000/, /run/app.sock, another listener>"
    )


async def test_a_link_local_address_has_its_zone(net: Network) -> None:
    number, name = socket.if_nameindex()[0]
    listener = Silence(socket.AF_INET6, ("fe80::1", 80, 0, number))
    async with serving(listeners=[listener]) as server:
        assert server.addresses == ((f"fe80::1%{name}", 80),)
        assert server.url == f"ws://[fe80::1%25{name}]:80/"


async def test_a_socket_of_another_family_has_no_address(net: Network) -> None:
    async with serving(listeners=[Silence(socket.AF_VSOCK, (2, 1234))]) as server:
        assert server.addresses == ()


# -- Unix sockets by their path -----------------------------------------------


@pytest.mark.parametrize("kind", [str, Path])
async def test_a_unix_socket_is_created_at_its_path_and_removed_in_the_end(
    net: Network, tmp_path: Path, kind: type[Any]
) -> None:
    path = tmp_path / "app.sock"
    async with serving(unix=kind(path)) as server:
        assert server.addresses == (str(path),)
        assert server.urls == ()
        assert not server.secure
        assert await on_unix(path) == "http://test/x False -"
    assert not path.exists()


async def test_a_unix_socket_speaks_tls(net: Network, tls: Tls, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"

    async def dial(host: str, port: int) -> trio.SocketStream:
        return await trio.open_unix_socket(str(path))

    run = partial(serve, net.echo, unix=path, ssl_context=tls.server)
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(run)
        assert server.secure
        url = "wss://localhost/"
        async with open_websocket(url, ssl_context=tls.client, dial=dial) as ws:
            ws.send("hi")
            assert await ws.receive() == "hi"
        nursery.cancel_scope.cancel()
    assert not path.exists()


@pytest.mark.parametrize(("umask", "mode"), [(0o007, 0o770), (0o077, 0o700)])
async def test_the_umask_decides_who_may_connect(
    net: Network, tmp_path: Path, umask: int, mode: int
) -> None:
    path = tmp_path / "app.sock"
    before = os.umask(umask)
    try:
        async with serving(unix=path):
            assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(before)


def leave_stale(path: Path) -> None:
    """Leave a stale file, as of a server that has died."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()


async def test_a_stale_file_is_taken_over(net: Network, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    leave_stale(path)
    async with serving(unix=path):
        assert await on_unix(path) == "http://test/x False -"
    assert not path.exists()


async def test_the_file_of_a_server_that_was_killed_is_taken_over(
    net: Network, tmp_path: Path
) -> None:
    path = tmp_path / "app.sock"
    program = f"""if True:
        import trio
        from trio_wspair import serve
        class Started:
            def started(self, server):
                print("listening", flush=True)
        async def main():
            await serve(print, unix={str(path)!r}, task_status=Started())
        trio.run(main)
    """
    command = [sys.executable, "-c", program]
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, stdout=subprocess.PIPE, check=False)
        process: trio.Process = await nursery.start(run)
        assert process.stdout is not None
        said = b""
        while not said.endswith(b"\n"):
            said += await process.stdout.receive_some()
        with pytest.raises(OSError, match="listens on this socket already") as caught:
            await serve(show, unix=path)
        assert caught.value.errno == errno.EADDRINUSE
        process.send_signal(signal.SIGKILL)
    assert path.exists()
    async with serving(unix=path):
        assert await on_unix(path) == "http://test/x False -"


async def test_a_file_is_never_taken_from_a_running_server(
    net: Network, tmp_path: Path
) -> None:
    path = tmp_path / "app.sock"
    async with serving(unix=path):
        with pytest.raises(OSError, match="listens on this socket already") as caught:
            await serve(show, unix=path)
        assert caught.value.errno == errno.EADDRINUSE
        assert caught.value.filename == str(path)
        assert await on_unix(path) == "http://test/x False -"


async def test_a_server_that_is_too_busy_to_accept_counts_as_running(
    net: Network, tmp_path: Path
) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
        busy.bind(str(path))
        busy.listen(0)
        client.connect(str(path))
        with pytest.raises(OSError, match="listens on this socket already"):
            await serve(show, unix=path)


async def test_one_of_several_starting_servers_gets_the_stale_file(
    net: Network, tmp_path: Path
) -> None:
    path = tmp_path / "app.sock"
    for _ in range(20):
        leave_stale(path)
        outcomes: list[str] = []
        both = trio.Event()

        async def run(both: trio.Event = both, outcomes: list[str] = outcomes) -> None:
            try:
                async with serving(unix=path):
                    outcomes.append("served")
                    await both.wait()
            except* OSError:
                outcomes.append("refused")
                both.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            nursery.start_soon(run)
        assert sorted(outcomes) == ["refused", "served"]
        assert not path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
async def test_a_file_that_is_not_a_socket_is_left_in_place(
    net: Network, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "app.sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        leave_stale(tmp_path / "other.sock")
        path.symlink_to(tmp_path / "other.sock")
    with pytest.raises(FileExistsError, match="not a socket, and is left alone"):
        await serve(show, unix=path)
    assert path.exists()


@pytest.mark.parametrize("then", ["another file", "nothing", "no folder"])
async def test_a_server_removes_only_its_own_file(
    net: Network, tmp_path: Path, then: str
) -> None:
    path = tmp_path / "run" / "app.sock"
    path.parent.mkdir()
    async with serving(unix=path):
        path.unlink()
        if then == "another file":
            leave_stale(path)
        elif then == "no folder":
            path.parent.rmdir()
    assert path.exists() is (then == "another file")


async def test_a_file_is_found_after_a_change_of_the_working_directory(
    net: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with serving(unix="app.sock") as server:
        assert server.addresses == ("app.sock",)
        monkeypatch.chdir("/")
    assert not (tmp_path / "app.sock").exists()


async def test_a_missing_folder_is_an_error_that_names_it(
    net: Network, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        await serve(show, unix=tmp_path / "nowhere" / "app.sock")


async def test_an_error_of_the_system_has_the_path(
    net: Network, tmp_path: Path
) -> None:
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    name = "z" * 300
    with pytest.raises(ValueError, match=r"has \d+ bytes, too many for a Unix socket"):
        await serve(show, unix=folder / ("y" * 90))
    with pytest.raises(OSError, match="too long"):
        await serve(show, unix=tmp_path / name)
    with pytest.raises(OSError, match="'/proc/app'"):
        await serve(show, unix="/proc/app")


async def test_closing_a_listener_twice_removes_its_file_once(
    net: Network, tmp_path: Path
) -> None:
    path = tmp_path / "app.sock"
    listener = await open_unix_listener(str(path))
    await listener.aclose()
    leave_stale(path)
    await listener.aclose()
    assert path.exists()


@pytest.mark.parametrize("unix", ["", "\0abstract", "a\0b"])
async def test_a_path_that_no_file_can_have_is_refused(net: Network, unix: str) -> None:
    with pytest.raises(ValueError, match="unix must be the path of a file, not"):
        await serve(show, unix=unix)


@pytest.mark.parametrize("unix", [5, b"/run/app.sock"])
async def test_a_path_must_be_text(net: Network, unix: Any) -> None:
    with pytest.raises(
        TypeError, match="unix must be the path of a Unix socket, a str"
    ):
        await serve(show, unix=unix)


async def test_a_system_without_unix_sockets_says_so(
    net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(ValueError, match="this system has no Unix sockets"):
        await serve(show, unix="/run/app.sock")


async def test_a_folder_that_stays_locked_is_an_error(
    logged: object, autojump_clock: MockClock, tmp_path: Path
) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(
            OSError, match="holds the lock on the directory of the socket"
        ):
            await serve(show, unix=tmp_path / "app.sock")
    finally:
        os.close(folder)
    assert os.listdir(tmp_path) == []


async def test_a_folder_that_is_locked_for_a_moment_is_waited_for(
    logged: object, autojump_clock: MockClock, tmp_path: Path
) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve, show, unix=tmp_path / "app.sock"))
        await trio.sleep(1)
        assert os.listdir(tmp_path) == []
        os.close(folder)
        await trio.sleep(1)
        assert os.listdir(tmp_path) == ["app.sock"]
        nursery.cancel_scope.cancel()


# -- listeners of a program ---------------------------------------------------


async def test_tls_listeners_are_secure(net: Network, tls: Tls) -> None:
    listeners = await trio.open_ssl_over_tcp_listeners(
        0, tls.server, host="127.0.0.1", https_compatible=True
    )
    async with serving(listeners=listeners) as server:
        assert server.secure
        assert server.url == f"wss://127.0.0.1:{server.port}/"
        stream = await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", server.port, ssl_context=tls.client, https_compatible=True
        )
        assert await body_from(stream) == "https://test/x True 127.0.0.1"


async def test_listeners_with_and_without_tls_can_be_mixed(
    net: Network, tls: Tls, tmp_path: Path
) -> None:
    (plain,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    # As in a program that doesn't know `https_compatible`.
    (secure,) = await trio.open_ssl_over_tcp_listeners(0, tls.server, host="127.0.0.1")
    sock = trio.socket.socket(socket.AF_UNIX)
    await sock.bind(str(tmp_path / "app.sock"))
    sock.listen()
    listeners: list[Listener] = [trio.SocketListener(sock), secure, plain]
    async with serving(listeners=listeners) as server:
        addresses: tuple[Any, ...] = server.addresses
        path, (_, tls_port), (_, port) = addresses
        assert path == str(tmp_path / "app.sock")
        assert (server.secure, server.port) == (True, tls_port)
        assert server.urls == (
            f"wss://127.0.0.1:{tls_port}/",
            f"ws://127.0.0.1:{port}/",
        )
        assert await on_unix(tmp_path / "app.sock") == "http://test/x False -"
        stream: trio.abc.Stream = await trio.open_tcp_stream("127.0.0.1", port)
        assert await body_from(stream) == "http://test/x False 127.0.0.1"
        stream = await trio.open_ssl_over_tcp_stream(
            "127.0.0.1",
            tls_port,
            ssl_context=tls.client,
            https_compatible=True,
        )
        assert await body_from(stream) == "https://test/x True 127.0.0.1"


@pytest.mark.parametrize(
    ("error", "listeners", "words"),
    [
        (ValueError, [], "listeners is empty: pass at least one"),
        (
            TypeError,
            5,
            "sequence of trio.abc.Listener objects, not int",
        ),
        (TypeError, ["127.0.0.1:80"], r"not str; for a Trio socket, pass trio\."),
        (TypeError, [None], "not NoneType; for a Trio socket, pass"),
    ],
)
async def test_objects_that_are_not_listeners_are_refused(
    net: Network, error: type[Exception], listeners: Any, words: str
) -> None:
    with pytest.raises(error, match=words):
        await serve(show, listeners=listeners)


@asynccontextmanager
async def never_open() -> AsyncGenerator[FetchHandler]:
    await trio.sleep_forever()
    yield show


@asynccontextmanager
async def broken() -> AsyncGenerator[FetchHandler]:
    await trio.lowlevel.checkpoint()
    msg = "no database"
    raise OSError(msg)
    yield show


@pytest.mark.parametrize("app", [never_open, broken, show])
async def test_listeners_are_closed_when_the_application_fails_to_open(
    net: Network, app: Application
) -> None:
    """Cancel it while it opens, let it fail, or cancel it before the start."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with trio.CancelScope() as scope, contextlib.suppress(OSError):
        if app is not broken:
            scope.cancel()
        await serve(app, listeners=listeners)
    assert [listener.socket.fileno() for listener in listeners] == [-1]


async def test_a_single_listener_is_not_a_sequence(net: Network) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        with pytest.raises(TypeError, match=r"a sequence of .*, not SocketListener"):
            await serve(show, listeners=listener)  # type: ignore[arg-type]
        bare: Any = listener.socket
        with pytest.raises(TypeError, match=r"trio\.SocketListener\(sock\)"):
            await serve(show, listeners=[bare])


async def test_a_closed_listener_is_refused(net: Network) -> None:
    first, second = [
        (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] for _ in range(2)
    ]
    await second.aclose()
    with pytest.raises(ValueError, match="a listener in listeners is closed"):
        await serve(show, listeners=[first, second])
    await first.aclose()


async def test_tls_inside_tls_is_refused(net: Network, tls: Tls) -> None:
    listeners = await trio.open_ssl_over_tcp_listeners(0, tls.server, host="127.0.0.1")
    with pytest.raises(ValueError, match="use TLS already: leave out ssl_context"):
        await serve(show, listeners=listeners, ssl_context=tls.server)
    for listener in listeners:
        await listener.aclose()


@pytest.mark.parametrize(
    "places", [{}, {"port": 0, "unix": "/x"}, {"unix": "/x", "listeners": []}]
)
async def test_ports_paths_and_listeners_exclude_each_other(
    net: Network, places: dict[str, Any]
) -> None:
    with pytest.raises(TypeError, match="pass exactly one of port, unix and listeners"):
        await serve(show, **places)


async def test_the_error_for_a_port_in_use_has_the_address(
    net: Network,
) -> None:
    async with net.serve(net.echo) as server:
        with pytest.raises(OSError, match=rf"'127\.0\.0\.1:{server.port}'") as caught:
            await serve(net.echo, server.port)
    assert caught.value.errno == errno.EADDRINUSE


async def test_a_host_of_another_type_is_refused(net: Network) -> None:
    with pytest.raises(TypeError, match=r"host must be .*, not 5"):
        await serve(net.echo, 0, host=5)  # type: ignore[arg-type]

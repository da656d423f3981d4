"""`trio-wspair serve --reload`: the server restarts at a change."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from commands import COMMAND, HANDLER, called, line_in, ran, refused
from network import Network
from processes import running
from trio.testing import MockClock

from trio_wspair import connect, open_websocket
from trio_wspair._command.serve import _stop_process, serve_and_reload


@attrs.define
class Reloading:
    """A server that is reloaded, and what it prints."""

    process: trio.Process
    output: str = ""
    """The output of both streams that is still unchecked."""

    async def until(self, text: str) -> str:
        """Wait until a text is printed; return the output up to it."""
        assert self.process.stdout is not None
        while text not in self.output:
            data = await self.process.stdout.receive_some()
            assert data, self.output
            self.output += data.decode()
        before, found, self.output = self.output.partition(text)
        return before + found

    async def url(self) -> str:
        """Wait until it serves, and return its WebSocket URL."""
        await self.until("Serving ")
        line = await self.until("/ - Ctrl-C")
        return line[line.index("http") :].replace("http", "ws").partition(" ")[0]


@asynccontextmanager
async def reloading(*arguments: str) -> AsyncGenerator[Reloading]:
    """Run `trio-wspair serve --reload` for a block."""
    command = *COMMAND, "serve", "--reload", "--port=0", *arguments
    with trio.fail_after(60):
        async with running(*command, stderr=subprocess.STDOUT) as process:
            yield Reloading(process)


async def test_a_change_closes_with_1012_and_serves_the_new_program(app: Path) -> None:
    async with reloading(str(app)) as server, trio.open_nursery() as nursery:
        ws = await connect(await server.url(), nursery=nursery)
        ws.accept()
        await trio.Path(app).write_text(HANDLER.replace("event.data", "'new'"))
        assert (await ws.wait_closed()).code == 1012
        assert "app_of_a_test.py changed: starting again" in await server.until("again")
        async with open_websocket(await server.url()) as other:
            other.send("x")
            assert await other.receive() == "new"
        server.process.send_signal(signal.SIGINT)
        assert await server.process.wait() == 130


async def test_a_mistake_is_shown_and_its_correction_is_served(app: Path) -> None:
    await trio.Path(app).write_text("import nothing_of_the_kind\n")
    async with reloading(str(app)) as server:
        shown = await server.until(
            f"starts again when a .py file in {app.parent} changes"
        )
        assert shown.startswith(
            f'Traceback (most recent call last):\n  File "{app}", line 1, in <module>\n'
        )
        assert shown.count("File ") == 1
        assert "ModuleNotFoundError: No module named 'nothing_of_the_kind'" in shown
        await trio.Path(app).write_text(HANDLER)
        async with open_websocket(await server.url()) as ws:
            ws.send("hi")
            assert await ws.receive() == "hi"
        server.process.send_signal(signal.SIGTERM)
        assert await server.process.wait() == 0


async def test_an_application_is_left_before_it_is_opened_again(app: Path) -> None:
    await trio.Path(app).write_text(
        HANDLER
        + "from contextlib import asynccontextmanager\n"
        + "@asynccontextmanager\n"
        + "async def app():\n"
        + "    try:\n"
        + "        yield fetch\n"
        + "    finally:\n"
        + "        print('left', flush=True)\n"
    )
    async with reloading("app_of_a_test") as server:
        await server.url()
        await (trio.Path(app).parent / "beside.py").write_text("")
        assert "left\n" in await server.until("Serving")


async def test_the_server_ends_when_its_parent_process_is_killed(
    app: Path,
) -> None:
    async with reloading(str(app)) as server, trio.open_nursery() as nursery:
        ws = await connect(await server.url(), nursery=nursery)
        ws.accept()
        server.process.kill()
        assert (await ws.wait_closed()).code == 1001


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_server_that_stops_for_good_closes_with_1001(
    app: Path, number: signal.Signals
) -> None:
    async with reloading(str(app)) as server, trio.open_nursery() as nursery:
        ws = await connect(await server.url(), nursery=nursery)
        ws.accept()
        server.process.send_signal(number)
        assert (await ws.wait_closed()).code == 1001
        assert await server.process.wait() == {signal.SIGINT: 130}.get(number, 0)


async def test_a_missing_file_is_an_error_before_anything_is_watched(
    app: Path, net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = await ran("serve", "--reload", "no/such.py")
    assert done.returncode == 2
    assert line_in(done.stderr.decode()) == "there is no file 'no/such.py'"


def test_a_folder_that_can_not_be_watched_is_an_error(
    app: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def awatch(*_: object, **__: object) -> AsyncGenerator[None]:
        raise OSError("inotify has no more watches")
        yield

    monkeypatch.setattr("watchfiles.awatch", awatch)
    status, errors = called("serve", "--reload", "--port=0", str(app), capsys=capsys)
    assert status == 1
    told = f"can't watch {app.parent}: inotify has no more watches"
    assert line_in(errors) == told


async def test_the_thread_of_watchfiles_ends(
    app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[bool] = []

    async def awatch(
        *_: object, stop_event: trio.Event, **__: object
    ) -> AsyncGenerator[set[tuple[int, str]]]:
        signal.raise_signal(signal.SIGTERM)
        with trio.move_on_after(20, shield=True):  # A thread can't be cancelled.
            await stop_event.wait()
            ends.append(True)
        return
        yield set()

    monkeypatch.setattr("watchfiles.awatch", awatch)
    arguments = ["serve", "--port=0", str(app)]
    assert await serve_and_reload(arguments, app.parent) == 0
    assert ends == [True]


async def test_a_server_that_does_not_stop_in_time_is_killed(
    autojump_clock: MockClock,
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    async with running(sys.executable, "-c", "import time; time.sleep(60)") as process:
        lifeline = open(writing, "wb")  # noqa: ASYNC230, SIM115
        await _stop_process(lifeline, trio.Event(), process)
        assert await process.wait() == -signal.SIGKILL


def test_the_extra_for_reload_is_named_when_it_is_missing(
    app: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    told = refused("serve", str(app), "--reload", capsys=capsys)
    assert "pip install 'trio-wspair[reload]'" in told

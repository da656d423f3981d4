"""`ASGIApp` in a server on asyncio: an error that says so, and nothing hangs."""

import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
from memory_server import request_bytes

from trio_wspair import HandshakeError, open_websocket

REMEDY = "hypercorn --worker-class trio module:app"
APP = """if True:
    from trio_wspair import Response
    from trio_wspair.asgi import ASGIApp

    async def fetch(request):
        return Response("never")

    app = ASGIApp(fetch)
"""


@attrs.define
class Uvicorn:
    """The server, and its output so far."""

    process: trio.Process
    text: str = ""

    async def read_to(self, pattern: str) -> re.Match[str]:
        """Read until this text or the end; the caller bounds the time."""
        assert self.process.stdout is not None
        while (found := re.search(pattern, self.text)) is None:
            data = await self.process.stdout.receive_some()
            assert data, self.text
            self.text += data.decode()
        return found


@asynccontextmanager
async def uvicorn(folder: Path, *options: str) -> AsyncGenerator[Uvicorn]:
    """Run Uvicorn with an application for a block, and kill it afterwards."""
    (folder / "module.py").write_text(APP)
    command = [sys.executable, "-m", "uvicorn", "module:app", "--port=0", *options]
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            run = partial(
                trio.run_process,
                command,
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
            process: trio.Process = await nursery.start(run)
            yield Uvicorn(process)
            if process.returncode is None:
                process.kill()


@pytest.mark.parametrize("lifespan", ["auto", "on"])
async def test_a_server_on_asyncio_does_not_start_and_says_why(
    tmp_path: Path, lifespan: str
) -> None:
    async with uvicorn(tmp_path, "--lifespan", lifespan) as server:
        await server.read_to(REMEDY)
        await server.read_to("Application startup failed. Exiting.")
        assert await server.process.wait() != 0


async def test_without_a_lifespan_each_request_fails_and_says_why(
    tmp_path: Path,
) -> None:
    async with uvicorn(tmp_path, "--lifespan", "off") as server:
        url = (await server.read_to(r"http://127\.0\.0\.1:(\d+)"))[0]
        stream = await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))
        async with stream:
            await stream.send_all(request_bytes())
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 500 ")
        await server.read_to(REMEDY)
        server.text = ""
        with pytest.raises(HandshakeError) as caught:
            async with open_websocket(url.replace("http", "ws")):
                pass
        assert caught.value.status == 500
        await server.read_to(REMEDY)

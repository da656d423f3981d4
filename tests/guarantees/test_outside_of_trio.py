"""Calls outside of a Trio run, or in asyncio, raise an error that names Trio."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest

from trio_wspair import Response, open_websocket, open_websocket_pair, serve


async def serve_something() -> None:
    async def fetch(_request: object) -> Response:
        return Response("never")

    await serve(fetch, 0)


async def open_pair() -> None:
    async with open_websocket_pair():
        pytest.fail("it was opened")


async def open_one() -> None:
    async with open_websocket("ws://localhost/"):
        pytest.fail("it was opened")


@pytest.mark.parametrize("call", [serve_something, open_pair, open_one])
def test_a_call_in_asyncio_raises_an_error_that_names_trio(
    call: Callable[[], Awaitable[None]],
) -> None:
    async def main() -> None:
        await call()

    with pytest.raises(RuntimeError, match="this is asyncio, and trio-wspair needs"):
        asyncio.run(main())


def test_a_call_without_an_event_loop_raises_an_error_that_names_trio() -> None:
    coroutine = open_pair()
    with pytest.raises(RuntimeError, match="works in a Trio run only"):
        coroutine.send(None)


PROGRAM = """
import sys
from trio_wspair._tasks.nurseries import check_in_trio
sys.modules.pop("asyncio", None)
try:
    check_in_trio()
except RuntimeError as exc:
    print(exc)
"""


def test_the_check_works_when_asyncio_is_not_imported() -> None:
    told = subprocess.check_output([sys.executable, "-c", PROGRAM], timeout=60)
    assert told.startswith(b"trio-wspair works in a Trio run only")

"""Endings in which two events happen at the same moment."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest
import trio
from patched_network import memory_network
from trio._core._run import _r as scheduler_random
from trio.testing import MockClock

from trio_wspair import (
    CloseCode,
    ConnectionClosedError,
    HandshakeError,
    MessageEvent,
    Request,
    Response,
    WebSocketPair,
    connect,
    open_websocket_pair,
    serve,
)
from trio_wspair.testing import open_test_client
from trio_wspair.transports import couple

pytestmark = pytest.mark.usefixtures("engine")


async def test_g7_a_listener_raises_while_the_block_waits_in_a_nursery(
    autojump_clock: MockClock,
) -> None:
    def fail(_event: MessageEvent) -> None:
        raise KeyError

    with trio.fail_after(5), pytest.RaisesGroup(KeyError, flatten_subgroups=True):
        async with open_websocket_pair() as (client, server):
            server.on("message")(fail)
            client.accept()
            server.accept()
            client.send("x")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)


class Slow:
    """A connection whose peer reads nothing for 3 seconds, and then everything."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.ends: list[Any] = []

    async def receive(self) -> Sequence[str | bytes]:
        await trio.sleep_forever()
        raise AssertionError

    async def send(self, items: Sequence[Any]) -> None:
        await trio.sleep(3)
        self.sent += items

    async def aclose(self, code: int, reason: str) -> None:  # noqa: ARG002
        await trio.lowlevel.checkpoint()
        self.ends.append(code)

    def abort(self) -> None:
        self.ends.append("abort")


async def test_g3_after_a_timeout_of_the_pair_its_slow_connection_gets_no_clean_close(
    autojump_clock: MockClock,
) -> None:
    connection = Slow()
    ends = []

    async def run_couple() -> None:
        ends.append(await couple(client, connection))

    async with (
        trio.open_nursery() as nursery,
        open_websocket_pair(close_grace=1) as (client, server),
    ):
        server.accept()
        nursery.start_soon(run_couple)
        server.send("first")
        await trio.sleep(0.5)
        server.send("second")  # Not taken by any consumer.
    assert [end.code for end in ends] == [1006]
    assert connection.sent == ["first"]
    assert connection.ends == ["abort"]


@pytest.mark.parametrize("seed", range(8))
def test_g11_a_close_at_the_moment_of_a_ping(seed: int) -> None:
    codes = []

    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.on("close")(lambda event: codes.append(event.code))
        server.accept()

        async def close() -> None:
            await trio.sleep(1)
            server.close(4000)

        request.nursery.start_soon(close)
        return Response(None, status=101, web_socket=client)

    async def main() -> None:
        with memory_network():
            async with trio.open_nursery() as nursery:
                server = await nursery.start(
                    lambda task_status: serve(
                        fetch,
                        0,
                        ping_interval=1,
                        ping_timeout=0.5,
                        close_grace=5,
                        task_status=task_status,
                    )
                )
                ws = await connect(server.url, nursery=nursery, ping_interval=99)
                ws.accept(allow_half_open=True)
                await trio.sleep(3)
                ws.close(4000)
                await ws.wait_closed()
                nursery.cancel_scope.cancel()

    scheduler_random.seed(seed)
    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert codes == [4000]


async def test_g7_an_interrupt_of_a_listener_while_the_server_stops_is_raised(
    autojump_clock: MockClock,
) -> None:
    async def fetch(_request: Request) -> Response:
        client, server = WebSocketPair()

        @server.on("close")
        def interrupt(_event: object) -> None:
            raise SystemExit

        server.accept()
        return Response(None, status=101, web_socket=client)

    with memory_network(), trio.fail_after(9):
        async with trio.open_nursery() as nursery:
            with pytest.RaisesGroup(SystemExit, flatten_subgroups=True):
                async with trio.open_nursery() as serving:
                    server = await serving.start(serve, fetch, 0)
                    ws = await connect(server.url, nursery=nursery)
                    ws.accept(pull=True)
                    await trio.sleep(1)
                    serving.cancel_scope.cancel()
            nursery.cancel_scope.cancel()


async def test_g7_an_error_of_a_handler_when_the_server_stops_is_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fetch(request: Request) -> Response:
        request.nursery.start_soon(trio.sleep_forever)
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError
        raise AssertionError

    with memory_network():
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve, fetch, 0)
            stream = await trio.open_tcp_stream(*server.addresses[0])
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
    assert "handling GET / failed" in [r.getMessage() for r in caplog.records]


async def test_a_handler_that_loses_its_connection_has_refused_the_request(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)

    async def fetch(_request: Request) -> Response:
        raise ConnectionClosedError(CloseCode.GOING_AWAY, "upstream", was_clean=True)

    async with open_test_client(fetch) as client:
        with pytest.raises(HandshakeError, match="500"):
            await client.open_websocket("/")
        await client.expect_handler_error(ConnectionClosedError, "upstream")

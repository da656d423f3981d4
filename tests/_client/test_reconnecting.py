"""`reconnecting()`: when it retries, after which waits, and when it stops."""

import logging
import math
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing
from network import Logged, Network

from trio_wspair import (
    ConnectionClosedError,
    HandshakeError,
    InvalidStateError,
    ReadyState,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    reconnecting,
    serve,
)
from trio_wspair.testing import ScriptedPeer


@pytest.fixture(scope="module")
def engine() -> None:
    """Run each test on one engine, as the engine doesn't matter here."""


quick = partial(reconnecting, min_delay=0.001, max_delay=0.01)


class Refusing:
    """A handler that answers with these statuses, and then opens WebSockets."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.opened: list[WebSocket] = []

    async def fetch(self, _request: Request) -> Response:
        if self.statuses:
            return Response("not now", status=self.statuses.pop(0))
        client, server = WebSocketPair()
        server.accept()
        server.send(f"number {len(self.opened)}")
        self.opened.append(server)
        return Response(None, status=101, web_socket=client)


async def test_one_connection_comes_after_the_other(net: Network) -> None:
    handler = Refusing()
    async with net.serve(handler.fetch) as server:
        async with quick(server.url) as connections:
            heard: list[str | bytes] = []
            async for ws in connections:
                async for message in ws:
                    heard.append(message)
                    handler.opened[-1].close(1000)
                if len(heard) == 3:
                    break
        assert heard == ["number 0", "number 1", "number 2"]


async def test_the_next_step_closes_the_previous_connection(net: Network) -> None:
    handler = Refusing()
    async with net.serve(handler.fetch) as server:
        async with quick(server.url) as connections:
            first = await anext(connections)
            second = await anext(connections)
            assert first.ready_state is ReadyState.CLOSED
            assert second.ready_state is ReadyState.OPEN
        assert second.ready_state.name == "CLOSED"
        for half in handler.opened:
            assert (await half.wait_closed()).code == 1000


async def test_an_exception_of_the_block_closes_with_1011(net: Network) -> None:
    handler = Refusing()
    async with net.serve(handler.fetch) as server:

        async def fail() -> None:
            async with quick(server.url) as connections:
                await anext(connections)
                raise LookupError

        with pytest.raises(LookupError):
            await fail()
        assert (await handler.opened[0].wait_closed()).code == 1011


async def test_attempts_are_repeated_until_the_server_is_there(
    net: Network, logged: Logged
) -> None:
    handler = Refusing()
    async with net.serve(handler.fetch) as server:
        port, url = server.port, server.url
    heard: list[str | bytes] = []

    async def receive_one() -> None:
        async with quick(url) as connections:
            async for ws in connections:
                heard.append(await ws.receive())
                break

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive_one)
        await trio.sleep(0.05)
        assert heard == []
        async with trio.open_nursery() as server_nursery:
            await server_nursery.start(serve, handler.fetch, port)
            await net.until(lambda: heard)
            server_nursery.cancel_scope.cancel()
    assert heard == ["number 0"]
    logged.records.clear()  # The number of attempts depends on the machine.


async def test_waiting_can_be_cancelled(net: Network) -> None:
    async with net.serve(Refusing().fetch) as server:
        url = server.url
    with trio.move_on_after(0.05) as scope:
        async with quick(url) as connections:
            await anext(connections)
    assert scope.cancelled_caught


async def test_an_unclean_end_is_raised_in_the_loop_of_the_caller(
    net: Network,
) -> None:
    handler = Refusing()
    async with (
        net.serve(handler.fetch) as server,
        quick(server.url) as connections,
    ):
        ws = await anext(connections)
        assert await ws.receive() == "number 0"
        handler.opened[0].close(1011)
        with pytest.raises(ConnectionClosedError):
            await ws.receive()
        assert await (await anext(connections)).receive() == "number 1"


async def retry_async(_error: object) -> bool:
    raise NotImplementedError


class RetryAsync:
    async def __call__(self, _error: object) -> bool:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"min_delay": -1.0}, ValueError, "min_delay must be 0 or more"),
        ({"max_delay": -1.0}, ValueError, "max_delay must be 0 or more"),
        ({"max_delay": "1"}, TypeError, "max_delay must be a number"),
        ({"should_retry": True}, TypeError, "should_retry must be a function"),
        ({"should_retry": retry_async}, TypeError, "must be a sync function"),
        ({"should_retry": partial(retry_async)}, TypeError, "must be a sync function"),
        ({"should_retry": RetryAsync()}, TypeError, "must be a sync function"),
        ({"url": None}, TypeError, "url must be a str or a function, not NoneType"),
        ({"url": "ftp://h/"}, ValueError, "is not the URL of a WebSocket"),
        ({"headers": {"A": "b\n"}}, ValueError, "line breaks and characters"),
    ],
)
async def test_wrong_arguments_are_refused_at_once(
    wrong: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        async with reconnecting(**{"url": "ws://localhost/", **wrong}):
            pass


async def test_a_coroutine_instead_of_the_url_is_refused_at_once() -> None:
    async def url() -> str:
        raise NotImplementedError

    with pytest.raises(
        TypeError, match=r"only once: pass \S*url instead of \S*url\(\)"
    ):
        async with reconnecting(url()):  # type: ignore[arg-type]  # what one may try
            pass


async def test_after_its_block_there_are_no_more_connections(net: Network) -> None:
    async with net.serve(Refusing().fetch) as server:
        async with quick(server.url) as connections:
            pass
        with pytest.raises(InvalidStateError, match="the block of reconnecting"):
            await anext(connections)


# -- in virtual time ------------------------------------------------------------------

Clock = trio.testing.MockClock


class Attempts:
    """A `dial` function that logs its calls, and a server with chosen responses."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = list(answers)
        self.began = trio.current_time()
        self.times: list[float] = []
        self.heads: list[str] = []

    async def dial(self, _host: str, _port: int) -> trio.abc.Stream:
        self.times.append(trio.current_time() - self.began)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        near, far = trio.testing.memory_stream_pair()
        trio.lowlevel.spawn_system_task(self.answer, far, answer)
        return near

    async def answer(self, stream: trio.abc.Stream, answer: bytes) -> None:
        # The client may have gone before, when it is cancelled.
        with suppress(AssertionError, trio.BrokenResourceError):
            await self.try_to_answer(ScriptedPeer(stream, masks=False), answer)

    async def try_to_answer(self, peer: ScriptedPeer, answer: bytes) -> None:
        if answer:
            self.heads.append(await peer.read_head())
            await peer.send(answer)
        else:
            self.heads.append(await peer.handshake())
            await peer.send(peer.close_frame(1000))
        await peer.end_tcp()

    @property
    def waits(self) -> list[float]:
        """The seconds before each attempt."""
        starts = [0.0, *self.times]
        return [after - before for before, after in pairwise(starts)]


def status(line: str, *headers: str) -> bytes:
    head = [f"HTTP/1.1 {line}", "Content-Length: 0", *headers, "", ""]
    return "\r\n".join(head).encode()


OPENED = b""
BUSY = status("503 Service Unavailable")


async def attempts_of(
    count: int, attempts: Attempts, url: Any = "ws://h/", **options: Any
) -> list[float]:
    """Return the waits before a number of attempts."""
    with trio.CancelScope() as scope:

        def watch() -> str:
            if len(attempts.times) >= count:
                scope.cancel()
            return "ws://h/"

        async with reconnecting(watch, dial=attempts.dial, **options) as connections:
            async for ws in connections:
                with pytest.raises(StopAsyncIteration):
                    await anext(ws)
    assert scope.cancelled_caught
    return attempts.waits[:count]


async def test_waits_grow_with_jitter_up_to_a_limit(autojump_clock: Clock) -> None:
    different = set()
    for _ in range(20):
        attempts = Attempts(ConnectionRefusedError("no"))
        waits = await attempts_of(8, attempts, min_delay=0.5, max_delay=10.0)
        limits = [0, 0.5, 1, 2, 4, 8, 10, 10]
        for wait, limit in zip(waits, limits, strict=True):
            assert limit / 2 - 1e-6 <= wait <= limit + 1e-6
        different.add(waits[1])
    assert len(different) > 1


@pytest.mark.parametrize(
    ("least", "most"), [(0, 0), (0, 60), (0.001, 0.01), (math.inf, 0), (5, 1)]
)
@pytest.mark.parametrize("answer", [OPENED, BUSY, OSError("no")], ids=["1", "2", "3"])
async def test_there_is_always_a_wait_between_attempts(
    autojump_clock: Clock, least: float, most: float, answer: bytes | Exception
) -> None:
    attempts = Attempts(answer)
    waits = await attempts_of(10, attempts, min_delay=least, max_delay=most)
    assert waits[0] == pytest.approx(0)
    for wait in waits[1:]:
        assert 0.1 - 1e-6 <= wait <= max(0.1, most) + 1e-6


async def test_there_is_a_wait_after_an_exception_of_a_function(
    autojump_clock: Clock,
) -> None:
    times = []

    def url() -> str:
        times.append(trio.current_time())
        raise LookupError

    async with reconnecting(url, max_delay=0) as connections:
        for _ in range(5):
            with pytest.raises(LookupError):
                await anext(connections)
    assert all(after - before > 0.0999 for before, after in pairwise(times))


async def test_waits_are_short_again_after_a_long_connection(
    autojump_clock: Clock,
) -> None:
    attempts = Attempts(*[OSError("no")] * 6, OPENED)
    async with reconnecting("ws://h/", dial=attempts.dial) as connections:
        await anext(connections)
        await trio.sleep(100)
        await anext(connections)
    assert attempts.waits[6] >= 8
    assert 100.25 - 1e-6 <= attempts.waits[7] <= 100.5 + 1e-6


async def test_waits_stay_long_after_a_short_connection(
    autojump_clock: Clock,
) -> None:
    attempts = Attempts(*[OSError("no")] * 6, OPENED)
    async with reconnecting("ws://h/", dial=attempts.dial) as connections:
        await anext(connections)
        await trio.sleep(3)
        await anext(connections)
    assert attempts.waits[7] >= 16


DATE = "Date: Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        (["Retry-After: 5"], 5, 6),
        (["Retry-After:  5 "], 5, 6),
        (["Retry-After: 0"], 0, 1),
        (["Retry-After: 1000"], 60, 60),
        (["Retry-After: " + "9" * 5000], 60, 60),
        ([DATE, "Retry-After: Sun, 06 Nov 1994 08:49:47 GMT"], 10, 11),
        ([DATE, "Retry-After: Sun, 06 Nov 1994 08:49:47 -0000"], 10, 11),
        ([DATE, "Retry-After: Sun, 06 Nov 1994 08:49:27 GMT"], 0, 1),
        (["Retry-After: Sun, 06 Nov 1994 08:49:27 GMT"], 0, 1),
        (["Retry-After: Thu, 06 Nov 2994 08:49:27 GMT"], 60, 60),
        (["Retry-After: soon"], 0, 1),
        (["Retry-After: -5"], 0, 1),
        (["Retry-After: 1e9"], 0, 1),
        (["Retry-After: \xb2"], 0, 1),
        (["Retry-After: Sun, 99 Nov 1994 08:49:27 GMT"], 0, 1),
        (["Retry-After:"], 0, 1),
    ],
)
async def test_retry_after_is_honoured_up_to_the_limit(
    autojump_clock: Clock, headers: list[str], least: float, most: float
) -> None:
    answer = status("503 Service Unavailable", *headers)
    waits = await attempts_of(2, Attempts(answer.decode().encode("latin-1")))
    assert least - 1e-6 <= waits[1] <= most + 1e-6


async def test_the_url_and_the_headers_can_be_functions(autojump_clock: Clock) -> None:
    attempts = Attempts(BUSY, OPENED)
    tokens = iter("abcdef")

    async def url() -> str:
        await trio.lowlevel.checkpoint()
        return f"ws://h/?token={next(tokens)}"

    async def headers() -> dict[str, str]:
        await trio.lowlevel.checkpoint()
        return {"X-Token": next(tokens)}

    async with reconnecting(url, headers=headers, dial=attempts.dial) as connections:
        assert (await anext(connections)).url == "ws://h/?token=c"
        assert (await anext(connections)).url == "ws://h/?token=e"
    assert [(head.split()[1], head[-6:-4]) for head in attempts.heads] == [
        ("/?token=a", " b"),
        ("/?token=c", " d"),
        ("/?token=e", " f"),
    ]


async def test_functions_can_be_sync_and_headers_an_iterator(
    autojump_clock: Clock,
) -> None:
    attempts = Attempts(BUSY, OPENED)
    async with reconnecting(
        lambda: "ws://h/a", headers=iter([("X", "1")]), dial=attempts.dial
    ) as connections:
        await anext(connections)
    async with reconnecting(
        "ws://h/a", headers=lambda: [("X", "1")], dial=attempts.dial
    ) as connections:
        await anext(connections)
    assert len(attempts.heads) == 3
    for head in attempts.heads:
        assert "\r\nx: 1\r\n" in head.lower()


@pytest.mark.parametrize("argument", ["url", "headers"])
async def test_an_exception_of_a_function_is_raised_at_once(
    autojump_clock: Clock, argument: str
) -> None:
    async def fail() -> str:
        await trio.lowlevel.checkpoint()
        raise ConnectionError("no token")

    attempts = Attempts(OPENED)
    arguments: dict[str, Any] = {"url": "ws://h/", argument: fail}
    async with reconnecting(**arguments, dial=attempts.dial) as connections:
        with pytest.raises(ConnectionError, match="no token"):
            await anext(connections)
    assert attempts.times == []


@pytest.mark.parametrize("url", ["ftp://me:hunter2@h/", b"ws://h/", None])
async def test_a_wrong_url_of_a_function_is_raised_at_once(
    autojump_clock: Clock, url: Any
) -> None:
    async with reconnecting(lambda: url) as connections:
        with pytest.raises((ValueError, TypeError)) as caught:
            await anext(connections)
    assert "hunter2" not in str(caught.value)


LASTING = [
    *(f"{code} X" for code in (200, 301, 302, 400, 401, 403, 404, 407, 410, 426)),
    *("501 X", "505 X"),
]
PASSING = [f"{code} X" for code in (408, 425, 429, 500, 502, 503, 504, 520, 599)]


@pytest.mark.parametrize("line", LASTING)
async def test_a_permanent_status_is_raised(autojump_clock: Clock, line: str) -> None:
    attempts = Attempts(status(line))
    async with reconnecting("ws://h/", dial=attempts.dial) as connections:
        with pytest.raises(HandshakeError) as caught:
            await anext(connections)
    assert caught.value.status == int(line[:3])
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "answer",
    [
        *(status(line) for line in PASSING),
        b"SSH-2.0-OpenSSH_9.6\r\n",
        ConnectionRefusedError("no"),
        TimeoutError("no"),
        ssl.SSLError("no"),
    ],
    ids=repr,
)
async def test_a_temporary_status_is_retried(
    autojump_clock: Clock, answer: bytes | Exception
) -> None:
    attempts = Attempts(answer, OPENED)
    async with reconnecting("ws://h/", dial=attempts.dial) as connections:
        await anext(connections)
    assert len(attempts.times) == 2


async def test_a_certificate_that_is_refused_is_raised(autojump_clock: Clock) -> None:
    attempts = Attempts(ssl.SSLCertVerificationError("no"))
    async with reconnecting("ws://h/", dial=attempts.dial) as connections:
        with pytest.raises(ssl.SSLCertVerificationError):
            await anext(connections)


async def test_should_retry_overrides_the_default(autojump_clock: Clock) -> None:
    asked: list[Exception] = []

    def should_retry(exc: OSError | HandshakeError) -> bool:
        asked.append(exc)
        return isinstance(exc, HandshakeError) and exc.status == 404

    attempts = Attempts(status("404 X"), status("404 X"), ConnectionError("no"))
    async with reconnecting(
        "ws://h/", dial=attempts.dial, should_retry=should_retry
    ) as connections:
        with pytest.raises(ConnectionError):
            await anext(connections)
    assert [type(exc) for exc in asked] == [HandshakeError] * 2 + [ConnectionError]


async def test_attempts_are_logged_without_secrets(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "trio_wspair")
    attempts = Attempts(
        BUSY, socket.gaierror(socket.EAI_NONAME, "no such name"), OPENED
    )
    url = "ws://me:hunter2@h/p?token=hunter2"
    async with reconnecting(url, dial=attempts.dial) as connections:
        ws = await anext(connections)
        assert ws.url == "ws://h/p?token=hunter2"
    assert "hunter2" not in caplog.text
    assert "bWU6aHVudGVyMg" not in caplog.text
    first, second = [
        record for record in caplog.records if "no connection to" in record.message
    ]
    assert first.levelname == "INFO"
    assert "no connection to ws://h/p?token=..., next attempt in 0." in first.message
    assert "status 503 (Service Unavailable)" in first.message
    assert second.levelname == "WARNING"
    assert "no such name" in second.message


class Awaitable:
    def __await__(self) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("decision", [lambda: retry_async(None), Awaitable])
async def test_an_async_should_retry_is_refused(
    autojump_clock: Clock, decision: Callable[[], object]
) -> None:
    def should_retry(_error: Exception) -> Any:
        return decision()

    async with reconnecting(
        "ws://h/", dial=Attempts(BUSY).dial, should_retry=should_retry
    ) as connections:
        with pytest.raises(TypeError, match="should_retry must be a sync function"):
            await anext(connections)


async def test_another_task_gets_no_connection_after_the_block(
    autojump_clock: Clock,
) -> None:
    attempts = Attempts(BUSY)
    errors: list[Exception] = []

    async def iterate(connections: AsyncIterator[WebSocket]) -> None:
        with pytest.raises(InvalidStateError) as caught:
            await anext(connections)
        errors.append(caught.value)

    async with (
        trio.open_nursery() as nursery,
        reconnecting("ws://h/", dial=attempts.dial) as connections,
    ):
        nursery.start_soon(iterate, connections)
        await trio.sleep(0.01)
    assert len(errors) == len(attempts.times) == 1


async def test_the_third_failure_in_a_row_is_a_warning(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_wspair")
    busy = [BUSY] * 2
    attempts = Attempts(*busy, BUSY, BUSY, OPENED, *busy, OPENED)
    async with reconnecting("ws://h/", dial=attempts.dial) as connections:
        await anext(connections)
        await anext(connections)
    levels = [record.levelname for record in caplog.records]
    assert levels == ["INFO", "INFO", "WARNING", "WARNING", "INFO", "INFO"]


async def test_a_server_without_tls_is_a_warning_at_once(
    net: Network, logged: Logged
) -> None:
    async with net.serve(Refusing().fetch) as server:
        url = server.url.replace("ws:", "wss:")
        async with trio.open_nursery() as nursery, quick(url) as connections:
            nursery.start_soon(anext, connections)
            await net.until(lambda: logged.records)
            assert "does not speak TLS on this port" in logged.take()
            nursery.cancel_scope.cancel()

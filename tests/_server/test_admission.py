"""Limits of connections, in all and for each client, and the refusals beyond them."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from handlers import echo_path
from memory_server import (
    UPGRADE,
    acceptor,
    parse_answers,
    read_all,
    request_bytes,
    serve_one,
)
from network import Logged, Network, Tls
from trio.testing import MockClock

from trio_wspair import (
    HandshakeError,
    Request,
    Response,
    Server,
    open_websocket,
    serve,
)
from trio_wspair._rules.limits import Limits
from trio_wspair._server.admission import MAX_REFUSALS, Admission, client_key


@pytest.fixture(scope="module")
def engine() -> None:
    """Run each test on one engine, as the engine doesn't matter here."""


class Held:
    """A handler that waits for the test before it responds."""

    def __init__(self) -> None:
        self.begun = 0
        self.go = trio.Event()

    async def fetch(self, request: Request) -> Response:
        self.begun += 1
        await self.go.wait()
        return Response(request.path)


def refusal(data: bytes) -> tuple[int, str]:
    """Return the status and ``Retry-After`` of the last response."""
    (answer,) = parse_answers(data)
    assert not answer.keeps_alive
    return answer.status, answer.headers["retry-after"]


# -- the client of a connection -----------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:DB8:0::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_a_client_is_an_ipv4_address_or_a_network_of_ipv6(
    one: str, other: str, *, same: bool
) -> None:
    assert client_key(one) is not None
    assert (client_key(one) == client_key(other)) is same


@pytest.mark.parametrize("address", ["", "unknown", "_hidden", "1.2.3", "é", "[::1]"])
def test_an_unknown_address_is_not_counted(address: str) -> None:
    assert client_key(address) is None
    admission = Admission(Limits(max_connections_per_client=1))
    with admission.client(address) as first, admission.client(address) as second:
        assert first
        assert second


def test_a_place_is_free_again_however_a_connection_ends() -> None:
    admission = Admission(Limits(max_connections=1, max_connections_per_client=1))

    def come_and_fail() -> None:
        with admission.client("::1") as free, admission.connection():
            assert free
            with admission.client("::1") as second:
                assert not second
                assert admission.full
            raise KeyError

    for _ in range(3):
        with pytest.raises(KeyError):
            come_and_fail()
    assert not admission.full
    assert not admission._clients, "clients that have gone are still counted"


# -- the limit in all -----------------------------------------------------------


async def test_one_connection_too_many_gets_503_and_retry_after(
    net: Network, logged: Logged
) -> None:
    async with net.serve(net.echo, max_connections=1) as server, net.peer(server):
        for _ in range(3):  # It is logged once a minute.
            async with net.dial(server) as peer:
                assert refusal(await peer.read_all()) == (503, "5")
    assert "answering 503: there are 1 connections, the limit max_connections" in (
        logged.take()
    )


async def test_with_tls_one_connection_too_many_gets_503(
    net: Network, logged: Logged, tls: Tls
) -> None:
    options: dict[str, Any] = {"ssl_context": tls.client}
    serving = net.serve(net.echo, max_connections=1, ssl_context=tls.server)
    async with serving as server, open_websocket(server.url, **options) as first:
        with pytest.raises(HandshakeError) as caught:
            async with open_websocket(server.url, **options):
                pass
        assert caught.value.status == 503
        assert ("retry-after", "5") in caught.value.headers
        first.send("still there?")
        assert await first.receive() == "still there?"
    logged.take()


async def test_a_client_that_never_starts_tls_is_dropped_soon(
    net: Network, logged: Logged, tls: Tls
) -> None:
    serving = net.serve(net.echo, max_connections=1, ssl_context=tls.server)
    async with serving as server, net.dial(server):
        before = net.open_sockets()
        async with net.dial(server) as silent:
            with trio.fail_after(5):
                assert await silent.read_all() == b""
        await net.until_open_sockets(before)
    logged.take()


async def test_pending_refusals_are_bounded_in_number_and_time(
    logged: Logged, autojump_clock: MockClock
) -> None:
    held = Held()
    serving = acceptor(held.fetch, max_connections=1)
    outcomes: list[bytes] = []

    async def ask_in_vain(nursery: trio.Nursery) -> None:
        client, server = trio.testing.memory_stream_pair()
        nursery.start_soon(serve_one, serving, server)
        outcomes.append(await read_all(client))  # The client never ends its direction.

    async with trio.open_nursery() as nursery:
        client, server = trio.testing.memory_stream_pair()
        nursery.start_soon(serve_one, serving, server)
        await client.send_all(request_bytes())
        await trio.testing.wait_all_tasks_blocked()
        assert held.begun == 1
        began = trio.current_time()
        async with trio.open_nursery() as crowd:
            for _ in range(10 * MAX_REFUSALS):
                crowd.start_soon(ask_in_vain, nursery)
            await trio.testing.wait_all_tasks_blocked()
            assert serving.admission.refusals == MAX_REFUSALS
        assert trio.current_time() - began <= 1
        await trio.sleep(2)
        assert serving.admission.refusals == 0
        # Later clients are refused with a response again.
        await ask_in_vain(nursery)
        held.go.set()
        await client.aclose()
    told = [outcome for outcome in outcomes if outcome]
    assert len(told) == MAX_REFUSALS + 1
    assert {refusal(outcome) for outcome in told} == {(503, "5")}
    assert serving.admission.connections == 0
    logged.take()


# -- the limit of one client --------------------------------------------------


async def test_a_client_may_have_any_number_unless_it_is_limited(
    net: Network,
) -> None:
    async with net.serve(net.echo) as server, AsyncExitStack() as stack:
        for _ in range(20):
            await stack.enter_async_context(net.peer(server))


async def test_one_connection_too_many_of_a_client_gets_429(
    net: Network, logged: Logged
) -> None:
    async with net.serve(net.echo, max_connections_per_client=2) as server:
        async with net.peer(server) as first, net.dial(server):
            async with net.dial(server) as third:
                assert refusal(await third.read_all()) == (429, "5")
            other = await trio.open_tcp_stream(
                "127.0.0.1", server.port, local_address="127.0.0.2"
            )
            async with other:
                await other.send_all(net.head(*net.UPGRADE))
                assert (await other.receive_some()).startswith(b"HTTP/1.1 101 ")
            await first.send(first.text_frame("hi"))
            assert await first.receive() == "hi"
            await first.send(first.close_frame(1000))
            assert await first.receive_all() == [(1000, "")]
        async with net.peer(server) as fourth:
            await fourth.send(fourth.close_frame(1000))
    assert "2 connections of 127.0.0.1, the limit max_connections_per_client" in (
        logged.take()
    )


async def test_with_tls_one_connection_too_many_of_a_client_gets_429(
    net: Network, logged: Logged, tls: Tls
) -> None:
    serving = net.serve(net.echo, max_connections_per_client=1, ssl_context=tls.server)
    async with serving as server, open_websocket(server.url, ssl_context=tls.client):
        with pytest.raises(HandshakeError) as caught:
            async with open_websocket(server.url, ssl_context=tls.client):
                pass
        assert caught.value.status == 429
        assert ("retry-after", "5") in caught.value.headers
    logged.take()


async def test_refused_clients_do_not_take_places_of_others(
    net: Network, logged: Logged
) -> None:
    limits = {"max_connections": 2, "max_connections_per_client": 1}
    async with (
        net.serve(net.echo, **limits) as server,
        net.peer(server),
        streams_to(server, 4) as greedy,
    ):
        for stream in greedy:
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 429 ")
        # The refused clients stay connected, but the second place is free.
        other = await trio.open_tcp_stream(
            "127.0.0.1", server.port, local_address="127.0.0.2"
        )
        async with other:
            await other.send_all(net.head(*net.UPGRADE))
            assert (await other.receive_some()).startswith(b"HTTP/1.1 101 ")
    logged.take()


async def test_a_place_is_free_after_each_kind_of_end(
    net: Network, logged: Logged
) -> None:
    async def fetch(request: Request) -> Response:
        if request.path == "/raises":
            raise KeyError
        if request.path == "/cancelled":
            request.nursery.cancel_scope.cancel()
            await trio.sleep_forever()
        return await (net.echo if request.path == "/ws" else echo_path)(request)

    limits: dict[str, Any] = {
        "max_connections": 1,
        "max_connections_per_client": 1,
        "handshake_timeout": 0.2,
        "idle_timeout": 0.2,
    }

    async def have_it(server: Server, data: bytes) -> None:
        """Connect to a server with one place, and end."""
        while True:
            async with net.dial(server) as peer:
                await peer.send(data)
                head = await peer.read_head()
                if head.startswith("HTTP/1.1 503 "):
                    continue  # The connection before has not quite ended.
                return

    async with net.serve(fetch, **limits) as server:
        for data in (
            request_bytes("GET", "/"),
            request_bytes("GET", "/raises"),
            request_bytes("GET", "/cancelled"),
            request_bytes("GET", "/", "Content-Length: x"),
            request_bytes("GET", "/ws", *UPGRADE),
            b"GET / HT",
            b"no HTTP\r\n\r\n",
            request_bytes("GET", "/", "Connection: close"),
        ):
            await have_it(server, data)
    levels = [record.levelname for record in logged.records]
    assert levels.count("ERROR") == 2
    logged.records.clear()


async def test_connections_over_unix_sockets_are_not_counted_by_client(
    net: Network, tmp_path: Path
) -> None:
    path = str(tmp_path / "app.sock")
    run = partial(serve, echo_path, unix=path, max_connections_per_client=1)
    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        streams = [await trio.open_unix_socket(path) for _ in range(3)]
        for stream in streams:
            await stream.send_all(request_bytes("GET", "/x"))
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
        for stream in streams:
            await stream.aclose()
        nursery.cancel_scope.cancel()


# -- behind a proxy -------------------------------------------------------------


@asynccontextmanager
async def behind_a_proxy(
    net: Network, fetch: Any, **options: Any
) -> AsyncGenerator[Server]:
    options = {"proxy_headers": True, "max_connections_per_client": 1, **options}
    async with net.serve(fetch, **options) as server:
        yield server


def of(client: str) -> str:
    return f"X-Forwarded-For: {client}"


async def status_from(stream: trio.abc.Stream, data: bytes = b"") -> int:
    """Send a request, read the response, and return its status."""
    await stream.send_all(data)
    answer = b""
    while not answer.endswith((b"/1", b"/2", b"/3", b"/4", b"later.\n")):
        answer += await stream.receive_some()
    return int(answer.split(b" ")[1])


@asynccontextmanager
async def streams_to(
    server: Server, number: int
) -> AsyncGenerator[list[trio.SocketStream]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                await trio.open_tcp_stream("127.0.0.1", server.port)
            )
            for _ in range(number)
        ]


async def test_behind_a_proxy_requests_of_one_client_are_counted(
    net: Network, logged: Logged
) -> None:
    held = Held()
    async with (
        behind_a_proxy(net, held.fetch) as server,
        streams_to(server, 3) as (first, second, third),
    ):
        await first.send_all(request_bytes("GET", "/1", of("2001:db8::1")))
        await net.until(lambda: held.begun == 1)
        request = request_bytes("GET", "/2", of("2001:db8::2"))
        assert await status_from(second, request) == 429
        await third.send_all(request_bytes("GET", "/3", of("2001:db8:0:1::1")))
        await net.until(lambda: held.begun == 2)
        held.go.set()
        assert await status_from(first) == 200
        assert await status_from(third) == 200
        # The proxy keeps its connection, for requests of all clients.
        request = request_bytes("GET", "/4", of("2001:db8::2"))
        assert await status_from(second, request) == 200
    assert "1 connections of 2001:db8::2" in logged.take()


@pytest.mark.parametrize("told", [(), (of("unknown"),), (of("_hidden"),)])
async def test_behind_a_proxy_clients_that_it_does_not_name_are_not_counted(
    net: Network, told: tuple[str, ...]
) -> None:
    held = Held()
    async with (
        behind_a_proxy(net, held.fetch) as server,
        streams_to(server, 3) as streams,
    ):
        for stream in streams:
            await stream.send_all(request_bytes("GET", "/1", *told))
        await net.until(lambda: held.begun == 3)
        held.go.set()
        assert [await status_from(stream) for stream in streams] == [200, 200, 200]


async def test_behind_a_proxy_a_websocket_keeps_its_place_to_the_end(
    net: Network, logged: Logged
) -> None:
    async with behind_a_proxy(net, net.echo) as server:
        async with net.peer(server, of("192.0.2.1")) as first:
            async with streams_to(server, 1) as (second,):
                request = request_bytes("GET", "/", of("::ffff:192.0.2.1"), *UPGRADE)
                assert await status_from(second, request) == 429
            async with net.peer(server, of("192.0.2.2")):
                pass
            await first.send(first.close_frame(1000))
            assert await first.receive_all() == [(1000, "")]
        async with net.peer(server, of("192.0.2.1")):
            pass
    logged.take()

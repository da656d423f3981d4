"""Connecting by TCP: the order of addresses, timeouts, and errors."""

import errno
import os
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import pytest
import trio
import trio.testing

from trio_wspair import HandshakeError, open_websocket
from trio_wspair._client.dialing import Progress, open_tcp

NAME = "server_1.example"
"""A host name with an underscore, as of containers."""


class _Socket(trio.socket.SocketType):
    """A socket that connects, or fails, as its world says."""

    type = socket.SOCK_STREAM

    def __init__(self, world: "World", family: int) -> None:
        self.world = world
        self.expected_family = family
        self.is_open = True

    async def connect(self, address: Any) -> None:
        world = self.world
        host = address[0]
        assert self.expected_family == family_of(host)
        world.tried.append((trio.current_time() - world.began, host))
        delay, number = world.outcomes[host]
        if isinstance(delay, trio.Event):
            await delay.wait()
        else:
            await trio.sleep(delay)
        if number:
            raise OSError(number, f"Error connecting to {address}")

    def setsockopt(self, *_: Any) -> None:
        pass

    def close(self) -> None:
        self.is_open = False


def family_of(host: str) -> int:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


class World(trio.abc.HostnameResolver, trio.abc.SocketFactory):
    """A network in which each address answers after a while, or fails."""

    def __init__(self) -> None:
        self.outcomes: Mapping[str, tuple[float | trio.Event, int]] = {}
        self.tried: list[tuple[float, str]] = []
        self.sockets: list[_Socket] = []
        self.missing: int | None = None
        self.lookup_seconds = 0.0
        self.began = 0.0

    def socket(self, family: int = 0, *_: Any, **__: Any) -> trio.socket.SocketType:
        self.sockets.append(_Socket(self, family))
        return self.sockets[-1]

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        assert host == NAME.encode()
        await trio.sleep(self.lookup_seconds)
        self.began = trio.current_time()
        if self.missing is not None:
            raise socket.gaierror(self.missing, "Name or service not known")
        return [
            (family_of(host), socket.SOCK_STREAM, 6, "", (host, port))
            for host in [*self.outcomes, *self.outcomes]
        ]

    async def getnameinfo(self, *_: Any) -> Any:
        raise NotImplementedError

    def open_sockets(self) -> int:
        return sum(sock.is_open for sock in self.sockets)


@pytest.fixture
async def world() -> AsyncGenerator[World]:
    world = World()
    trio.socket.set_custom_hostname_resolver(world)
    trio.socket.set_custom_socket_factory(world)
    yield world
    trio.socket.set_custom_hostname_resolver(None)
    trio.socket.set_custom_socket_factory(None)


Clock = trio.testing.MockClock
REFUSED = (0.0, errno.ECONNREFUSED)
SLOW = (1000.0, errno.ETIMEDOUT)


async def dial() -> trio.SocketStream:
    return await open_tcp(NAME, 80, progress=Progress())


@pytest.mark.parametrize(
    ("outcomes", "tried"),
    [
        ({"10.0.0.1": (0, 0), "10.0.0.2": (0, 0)}, [(0, "10.0.0.1")]),
        (
            {"10.0.0.1": REFUSED, "10.0.0.2": (0, 0)},
            [(0, "10.0.0.1"), (0, "10.0.0.2")],
        ),
        (
            {"10.0.0.1": SLOW, "10.0.0.2": (0, 0)},
            [(0, "10.0.0.1"), (0.25, "10.0.0.2")],
        ),
        (
            {"::1": SLOW, "::2": SLOW, "10.0.0.1": (1, 0), "10.0.0.2": (9, 0)},
            [(0, "::1"), (0.25, "10.0.0.1"), (0.5, "::2"), (0.75, "10.0.0.2")],
        ),
    ],
)
async def test_addresses_are_tried_until_one_answers(
    world: World,
    autojump_clock: Clock,
    outcomes: dict[str, tuple[float, int]],
    tried: Sequence[tuple[float, str]],
) -> None:
    world.outcomes = outcomes
    stream = await dial()
    assert [(round(at, 6), host) for at, host in world.tried] == list(tried)
    assert world.open_sockets() == 1
    await stream.aclose()
    assert world.open_sockets() == 0


async def test_two_addresses_that_answer_at_once_give_one_connection(
    world: World,
    autojump_clock: Clock,
) -> None:
    answered = trio.Event()
    world.outcomes = {"10.0.0.1": (answered, 0), "10.0.0.2": (answered, 0)}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(set_later, answered)
        async with await dial():
            assert len(world.sockets) == 2
            assert world.open_sockets() == 1


async def set_later(event: trio.Event) -> None:
    """Set the event when both addresses are being tried."""
    await trio.sleep(1)
    event.set()


@pytest.mark.parametrize(
    ("outcomes", "kind", "words"),
    [
        (
            {"10.0.0.1": REFUSED},
            ConnectionRefusedError,
            "10.0.0.1: connection refused",
        ),
        (
            {"10.0.0.1": REFUSED, "::1": (1, errno.ECONNREFUSED)},
            ConnectionRefusedError,
            "10.0.0.1: connection refused; ::1: connection refused",
        ),
        (
            {"10.0.0.1": REFUSED, "::1": (0, errno.ENETUNREACH), "10.0.0.2": SLOW},
            OSError,
            "10.0.0.1: connection refused; ::1: network is unreachable; 10.0.0.2: conn",
        ),
    ],
)
async def test_an_unreachable_host_is_an_error_with_each_address(
    world: World,
    autojump_clock: Clock,
    outcomes: dict[str, tuple[float, int]],
    kind: type[OSError],
    words: str,
) -> None:
    world.outcomes = outcomes
    with pytest.raises(OSError, match="can't reach") as caught:
        await dial()
    assert type(caught.value) is kind
    assert f"can't reach {NAME}:80: {words}" in str(caught.value)
    cause = caught.value.__cause__
    assert isinstance(cause, OSError if len(outcomes) == 1 else ExceptionGroup)
    assert world.open_sockets() == 0


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (socket.EAI_NONAME, "was not found"),
        (socket.EAI_AGAIN, "can't be looked up"),
    ],
)
async def test_a_name_without_an_address_is_an_error(
    world: World, number: int, words: str
) -> None:
    world.missing = number
    with pytest.raises(socket.gaierror, match=f'the name "{NAME}" {words}') as caught:
        await dial()
    assert caught.value.errno == number


async def test_cancelling_leaves_no_socket(world: World, autojump_clock: Clock) -> None:
    world.outcomes = {"10.0.0.1": SLOW, "10.0.0.2": SLOW}
    with trio.move_on_after(1) as scope:
        await dial()
    assert scope.cancelled_caught
    assert len(world.sockets) == 2
    assert world.open_sockets() == 0


async def test_cancelling_at_the_moment_of_success_leaves_no_socket(
    world: World,
    autojump_clock: Clock,
) -> None:
    answered = trio.Event()
    world.outcomes = {"10.0.0.1": (answered, 0)}
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial)
            await trio.sleep(0.1)
            answered.set()
            scope.cancel()
    assert scope.cancelled_caught
    assert len(world.sockets) == 1
    assert world.open_sockets() == 0


async def fails(url: str = f"ws://{NAME}/", **options: Any) -> str:
    """Return the text of a client's error."""
    with pytest.raises(HandshakeError) as caught:
        async with open_websocket(url, **options):
            pass
    assert caught.value.retryable
    return str(caught.value)


async def test_the_error_of_a_timeout_names_the_slow_step(
    world: World, autojump_clock: Clock
) -> None:
    world.lookup_seconds = 60
    assert await fails() == (
        f"no WebSocket at {NAME} within 10.0 s: "
        f'the name "{NAME}" has not been looked up'
    )
    world.lookup_seconds = 0
    world.outcomes = {"10.0.0.1": REFUSED, "::1": SLOW, "10.0.0.2": SLOW}
    assert await fails(f"wss://{NAME}:8000/?token=hunter2", connect_timeout=3) == (
        f"no WebSocket at {NAME}:8000 within 3 s: "
        "10.0.0.1: connection refused; ::1: no answer; 10.0.0.2: no answer"
    )
    assert world.open_sockets() == 0


async def test_the_error_of_a_timeout_names_dial(
    autojump_clock: Clock,
) -> None:
    async def dial(host: str, port: int) -> trio.abc.Stream:
        assert (host, port) == ("h.", 8)
        await trio.sleep(60)
        raise AssertionError

    words = "no WebSocket at h.:8 within 10.0 s: dial() has not returned"
    assert await fails("ws://h.:8/", dial=dial) == words


async def test_a_zone_is_dialled_but_not_in_the_host_header() -> None:
    asked: list[str] = []

    async def dial(host: str, port: int) -> trio.abc.Stream:
        asked.append(host)
        near, far = trio.testing.memory_stream_pair()
        await far.send_all(b"HTTP/1.1 404 Not Found\r\n\r\n")
        await far.send_eof()
        nursery.start_soon(read, far)
        return near

    async def read(stream: trio.StapledStream[Any, Any]) -> None:
        asked.append((await stream.receive_some()).decode())

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await fails_with_404("ws://[fe80::1%25eth0]:8/", dial=dial)
    assert asked[0] == "fe80::1%eth0"
    assert "host: [fe80::1]:8\r\n" in asked[1].lower()


async def fails_with_404(url: str, **options: Any) -> None:
    with pytest.raises(
        HandshakeError, match=r"the server \[fe80::1\]:8 refused .* 404"
    ):
        async with open_websocket(url, **options):
            pass


async def test_an_address_of_this_machine_can_have_a_zone() -> None:
    interface = os.listdir("/sys/class/net")[0]
    with pytest.raises(OSError, match=rf"can't reach \[fe80::1%{interface}\]:9: "):
        await open_tcp(f"fe80::1%{interface}", 9, progress=Progress())


async def test_an_error_without_a_number_keeps_its_text(
    world: World, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: object, address: object) -> None:
        await trio.lowlevel.checkpoint()
        raise OSError("blocked")

    monkeypatch.setattr(_Socket, "connect", fail)
    with pytest.raises(OSError, match=r"can't reach 127\.0\.0\.1:9: blocked"):
        await open_tcp("127.0.0.1", 9, progress=Progress())


@pytest.mark.parametrize("returned", [None, b"stream"])
async def test_a_dial_that_does_not_return_a_stream_is_an_error(returned: Any) -> None:
    async def dial(_host: str, _port: int) -> Any:
        return returned

    words = f"dial\\(\\) must return a trio.abc.Stream, not {returned!r}"
    with pytest.raises(TypeError, match=words):
        async with open_websocket("ws://h/", dial=dial):
            pass

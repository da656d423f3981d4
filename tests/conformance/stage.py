"""Plays scenarios on a pair in memory, or on the two sides of a connection."""

import fcntl
import os
import socket
import struct
import sys
import termios
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wspair import (
    HandshakeError,
    Request,
    Response,
    Server,
    WebSocket,
    WebSocketPair,
    connect,
    serve,
)

from .player import Player, ScenarioError

Scenario = dict[str, Any]
Trace = dict[str, Any]
Play = Callable[[Scenario], Awaitable[Trace]]


def run(play: Play, scenario: Scenario, *, seed: int = 0) -> Trace:
    """Play a scenario in a new Trio run, with this seed for the order of tasks.

    The clock stands still until the scenario has ended, so that no deadline passes.
    """
    trio._core._run._r.seed(seed)
    return trio.run(play, scenario, clock=MockClock())


async def in_memory(scenario: Scenario) -> Trace:
    """Play a scenario on a pair, or with a server if it has a handler."""
    if "return" in scenario:
        return await _with_handler(scenario)
    async with _home() as nursery:
        pair = WebSocketPair(nursery)
        player = Player({"a": pair[0], "b": pair[1]}, pair)
        results = await player.play(scenario["steps"], wait_all_tasks_blocked)
        return {**player.trace(), "results": results}


async def on_the_wire(scenario: Scenario) -> Trace:
    """Play a scenario on the half of a client, `a`, and of its server, `b`."""
    arrived: list[WebSocket] = []

    async def fetch(_request: Request) -> Response:
        client, server = WebSocketPair()
        arrived.append(server)
        return Response(None, status=101, web_socket=client)

    async with _serving(fetch) as server, _home() as nursery:
        client = await connect(server.url, nursery=nursery)
        await network_settled()
        player = Player({"a": client, "b": arrived[0]})
        results = await player.play(scenario["steps"], network_settled)
        return {**player.trace(), "results": results}


async def _with_handler(scenario: Scenario) -> Trace:
    returned = scenario["return"]
    results: list[Any] = []
    players: list[Player] = []

    async def fetch(_request: Request) -> Response:
        pair = WebSocketPair()
        halves = {"a": pair[0], "b": pair[1]}
        players.append(Player(halves, pair))
        players[0].perform(scenario["steps"], results)
        half = halves[returned["half"]] if "half" in returned else None
        options = {key: returned[key] for key in ("status",) if key in returned}
        return Response(None, web_socket=half, **options)

    async with _serving(fetch) as server, _home() as nursery:
        asking = partial(_ask, upgrade=returned.get("upgrade", True))
        status, client = await asking(server, nursery)
        await network_settled()
        handler = players[0]
        after_results = await handler.play(scenario["after"], network_settled)
        caller = Player({} if client is None else {"c": client})
        client_results = await caller.play(scenario["client"], network_settled)
        return {
            "response": {"status": status, "webSocket": client is not None},
            "c": [],
            **handler.trace(),
            **caller.trace(),
            "results": results,
            "afterResults": after_results,
            "clientResults": client_results,
        }


async def _ask(
    server: Server, nursery: trio.Nursery, *, upgrade: bool
) -> tuple[int, WebSocket | None]:
    """Return the status of the response, and the half of the client, if any."""
    if upgrade:
        try:
            return 101, await connect(server.url, nursery=nursery)
        except HandshakeError as error:
            return error.status or 0, None
    async with await trio.open_tcp_stream(*server.addresses[0]) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return int((await stream.receive_some()).split()[1]), None


@asynccontextmanager
async def _home() -> AsyncGenerator[trio.Nursery]:
    """Open a nursery for halves; an error of a listener ends this nursery only."""

    async def home(task_status: trio.TaskStatus[trio.Nursery]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                task_status.started(nursery)
                await trio.sleep_forever()
        except* ScenarioError:
            pass

    async with trio.open_nursery() as outside:
        yield await outside.start(home)
        let_time_pass()
        outside.cancel_scope.cancel()


@asynccontextmanager
async def _serving(
    fetch: Callable[[Request], Awaitable[Response]],
) -> AsyncGenerator[Server]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(partial(serve, fetch, 0))
        nursery.cancel_scope.cancel()


def let_time_pass() -> None:
    """Let the virtual clock jump from now on."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    clock.autojump_threshold = 0


# -- waiting for the network -----------------------------------------------------

_TCP_INFO = struct.Struct("=128xQ64xQQ")
"""In `struct tcp_info` of Linux: the bytes received, sent, and retransmitted."""


async def network_settled() -> None:
    """Wait until all tasks are blocked, and all bytes on the network have been read."""
    await wait_all_tasks_blocked()
    while _under_way():
        await wait_all_tasks_blocked(0.0001)


def _under_way() -> bool:
    """Whether sockets of this process have written bytes that are still unread."""
    sent, received, unread = {}, {}, 0
    for fd in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # a descriptor that isn't a connected TCP socket
            end = socket.socket(fileno=fd)
            try:
                info = end.getsockopt(
                    socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size
                )
                here, there = end.getsockname(), end.getpeername()
                waiting = fcntl.ioctl(fd, termios.FIONREAD, bytes(4))
            finally:
                end.detach()
            received[there, here], count, retransmitted = _TCP_INFO.unpack(info)
            sent[here, there] = count - retransmitted
            unread += int.from_bytes(waiting, sys.byteorder)
    return unread > 0 or any(
        way in received and received[way] != count for way, count in sent.items()
    )

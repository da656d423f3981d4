"""The stage on which Cloudflare's runtime plays: an object of a running workerd.

The clients are the same as on our own stage, and so is the language of the scenarios,
as far as `workerd/worker.js` speaks it. Time is real there: a scenario has settled when
nothing has moved in it for a while.
"""

import json
import socket
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import h11
import trio

from conformance.stage import Scenario, Trace

from .stage import Stage

_CONFIG = Path(__file__).parent / "workerd" / "worker.capnp"
_POLL = 0.005
"""Seconds between two looks at what has moved."""


class Workerd:
    """A running workerd that plays scenarios, many at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._rooms = count()
        self._moves: dict[str, int] = {}
        self._polled = trio.Event()

    async def watch(self) -> None:
        """Look at what moves, for all scenarios at once."""
        while True:
            status, moves = await self.ask("GET", "/moves")
            assert status == 200
            self._moves = moves
            self._polled.set()
            self._polled = trio.Event()
            await trio.sleep(_POLL)

    async def next_moves(self, room: str) -> int:
        """Return how often something has moved in a room, by the next look."""
        await self._polled.wait()
        return self._moves[room]

    async def open_stream(self) -> trio.SocketStream:
        """Connect."""
        return await trio.open_tcp_stream("127.0.0.1", self._port)

    async def ask(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        """Make a request; return the status, and the body if there is JSON in it."""
        data = b"" if body is None else json.dumps(body).encode()
        http = h11.Connection(h11.CLIENT)
        headers = [
            ("Host", "workerd"),
            ("Connection", "close"),
            ("Content-Length", str(len(data))),
        ]
        request = h11.Request(method=method, target=target, headers=headers)
        async with await self.open_stream() as stream:
            for event in (request, h11.Data(data), h11.EndOfMessage()):
                await stream.send_all(http.send(event) or b"")
            status, received = 0, b""
            while True:
                match http.next_event():
                    case h11.NEED_DATA:
                        http.receive_data(await stream.receive_some())
                    case h11.Response(status_code=status):
                        pass
                    case h11.Data(data=piece):
                        received += piece
                    case _:
                        break
        return status, json.loads(received) if received[:1] in {b"[", b"{"} else None

    async def play(self, scenario: Scenario, calm: int) -> Trace:
        """Return the trace of a scenario, settled after so many quiet looks."""
        async with trio.open_nursery() as nursery:
            stage = _LiveStage(self, f"room-{next(self._rooms)}", nursery, calm)
            trace = await stage.play(scenario)
            nursery.cancel_scope.cancel()
        return trace


class _LiveStage(Stage):
    def __init__(
        self, workerd: Workerd, room: str, nursery: trio.Nursery, calm: int
    ) -> None:
        super().__init__(nursery)
        self._workerd = workerd
        self._room = room
        self._calm = calm
        self._results: list[Any] = []
        self._asking = 0

    async def play(self, scenario: Scenario) -> Trace:
        handlers = scenario.get("handlers", {})
        await self._workerd.ask("POST", f"/begin?room={self._room}", handlers)
        for number, step in enumerate(scenario["steps"]):
            await self.take(number, step)
        await self.settle()
        for client in self.clients.values():
            if client.closing:
                client.give_up()
        await self.settle()
        clients = {name: list(c.events) for name, c in self.clients.items()}
        results = sorted(self._results, key=itemgetter("step"))
        _, log = await self._workerd.ask("POST", f"/end?room={self._room}")
        return {"object": log, "clients": clients, "results": results}

    async def settle(self) -> None:
        quiet, before = 0, -1
        while quiet < self._calm:
            moves = await self._workerd.next_moves(self._room) + len(self._results)
            moves += sum(len(client.events) for client in self.clients.values())
            quiet = quiet + 1 if moves == before else 0
            before = moves

    async def open_stream(self) -> trio.abc.Stream:
        return await self._workerd.open_stream()

    def target(self, _number: int, step: dict[str, Any]) -> str:
        return f"/?room={self._room}&step={quote(json.dumps(step))}"

    async def ask(self, number: int, step: dict[str, Any]) -> None:
        status, results = await self._workerd.ask("GET", self.target(number, step))
        if results is None:
            results = {"status": status}
        self._results.append({"step": number, "results": results})

    async def open_gate(self, gate: str) -> None:
        await self._workerd.ask("POST", f"/open?room={self._room}&gate={gate}")

    async def let_pass(self, seconds: float) -> None:
        await trio.sleep(seconds)


@asynccontextmanager
async def running(program: str) -> AsyncGenerator[Workerd]:
    """Start workerd for a block, on a socket of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        command = [program, "serve", str(_CONFIG), f"--socket-fd=player={fd}"]
        with subprocess.Popen(  # noqa: ASYNC220 - it takes no time
            command, pass_fds=[fd], stderr=subprocess.DEVNULL
        ) as process:
            try:
                workerd = Workerd(listener.getsockname()[1])
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(workerd.watch)
                    yield workerd
                    nursery.cancel_scope.cancel()
            finally:
                process.kill()


async def play_all(
    workerd: Workerd, scenarios: list[Scenario], calm: int, at_once: int = 64
) -> list[Trace]:
    """Return the traces of scenarios, played side by side."""
    traces: list[Trace] = [{}] * len(scenarios)
    room = trio.CapacityLimiter(at_once)

    async def play(number: int) -> None:
        async with room:
            traces[number] = await workerd.play(scenarios[number], calm)

    async with trio.open_nursery() as nursery:
        for number in range(len(scenarios)):
            nursery.start_soon(play, number)
    return traces

"""Plays scenarios on an object of a running workerd, Cloudflare's runtime.

The clients are those of `stage`. The scenarios may use the operations that
`workerd/worker.js` implements. Time is real: a scenario counts as settled when nothing
has happened in it for some polls.
"""

import json
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
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
_rooms = count()
_POLL = 0.005
"""Seconds between two polls of the rooms."""


class Workerd:
    """A running workerd that plays scenarios, many at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._moves: dict[str, int] = {}
        self._polled = trio.Event()

    async def watch(self) -> None:
        """Poll the rooms of all scenarios at once."""
        while True:
            status, moves = await self.ask("GET", "/moves")
            assert status == 200
            self._moves = moves
            self._polled.set()
            self._polled = trio.Event()
            await trio.sleep(_POLL)

    async def next_moves(self, room: str) -> int:
        """Return the number of events in a room at the next poll."""
        await self._polled.wait()
        return self._moves.get(room, 0)

    async def open_stream(self) -> trio.SocketStream:
        """Open a TCP connection to workerd."""
        return await trio.open_tcp_stream("127.0.0.1", self._port)

    async def ask(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        """Make a request; return the status, and the body if it is JSON."""
        data = b"" if body is None else json.dumps(body).encode()
        http = h11.Connection(h11.CLIENT)
        headers = [
            ("Host", "workerd"),
            ("Connection", "close"),
            ("Content-Length", str(len(data))),
        ]
        request = h11.Request(method=method, target=target, headers=headers)
        async with await self.open_stream() as stream:
            for part in (request, h11.Data(data), h11.EndOfMessage()):
                await stream.send_all(http.send(part) or b"")
            status, received = 0, b""
            while True:
                try:
                    event = http.next_event()
                except h11.RemoteProtocolError:
                    return 500, None  # The object was reset during the response.
                match event:
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
        """Return the trace of a scenario; it settles after `calm` idle polls."""
        async with trio.open_nursery() as nursery:
            stage = _LiveStage(self, f"room-{next(_rooms)}", nursery, calm)
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

    async def open_gate(self, gate: str) -> bool:
        target = f"/open?room={self._room}&gate={gate}"
        _, answer = await self._workerd.ask("POST", target)
        return bool(answer["waited"])

    async def let_pass(self, seconds: float) -> None:
        await trio.sleep(seconds)


@contextmanager
def running(program: str) -> Generator[int]:
    """Run workerd for the block, on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        command = [program, "serve", str(_CONFIG), f"--socket-fd=player={fd}"]
        with subprocess.Popen(
            command, pass_fds=[fd], stderr=subprocess.DEVNULL
        ) as process:
            try:
                yield listener.getsockname()[1]
            finally:
                process.kill()


def play_all(port: int, scenarios: list[Scenario], calm: int) -> list[Trace]:
    """Return the traces of scenarios, played side by side."""
    return trio.run(_play_all, port, scenarios, calm)


async def _play_all(port: int, scenarios: list[Scenario], calm: int) -> list[Trace]:
    traces: list[Trace] = [{}] * len(scenarios)
    workerd = Workerd(port)

    async def play(number: int) -> None:
        traces[number] = await workerd.play(scenarios[number], calm)

    async with trio.open_nursery() as watching:
        watching.start_soon(workerd.watch)
        async with trio.open_nursery() as nursery:
            for number in range(len(scenarios)):
                nursery.start_soon(play, number)
        watching.cancel_scope.cancel()
    return traces

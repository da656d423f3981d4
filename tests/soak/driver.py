"""Runs a server and many clients, and takes their numbers before and after.

The actions of a connection depend only on the seed and on the connection's number.
Their times depend on the machine, so two runs with the same seed are similar, but not
the same.
"""

import math
import ssl
import traceback
from collections import Counter
from random import Random
from typing import Final
from urllib.parse import urlsplit

import trio
import trustme

from soak.behaviours import ECHOES, Planned
from soak.clients import CLIENTS, CODES, Target
from soak.numbers import is_back, take_numbers
from soak.process import Said, ServerProcess, running_server
from soak.raw import RAW_CLIENTS, NoWebSocketError
from soak.report import Moment, Report
from soak.server import PATHS
from trio_wspair import (
    ConnectionClosedError,
    HandshakeError,
    WebSocketError,
    open_websocket,
)

AT_A_TIME: Final = 50
SECURE_SHARE: Final = 0.15
RAW_SHARE: Final = 0.5
PHASES: Final = {"warmed up": 0.2, "middle": 0.4, "end": 0.4}
"""The moments at which numbers are taken, each with its share of the whole time."""
PATIENCE: Final = 30.0
"""Seconds after which a connection counts as hanging; others take a few seconds."""
QUIET_SECONDS: Final = 10.0
"""The most seconds until everything has ended after the last client."""
STOP_AFTER: Final = 0.5


async def soak(seconds: float, seed: int, report: Report) -> None:
    """Run the soak test for about this time, and fill the report."""
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    start = trio.current_time()
    async with running_server(authority) as server:
        crowd = _Crowd(server.urls, context, seed, report)
        said = await server.ask()
        report.moments.append(Moment("at the start", said.numbers, take_numbers()))
        for name, share in PHASES.items():
            await crowd.run(seconds * share)
            said = await _count_when_quiet(name, server, report)
            await crowd.talk()
        _take(said, report)
        # At the end, the server is stopped while clients are connected.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crowd.run, math.inf)
            await trio.sleep(STOP_AFTER)
            crowd.leave()
            await server.stop()
    report.seconds = trio.current_time() - start
    report.judge()


async def _count_when_quiet(name: str, server: ServerProcess, report: Report) -> Said:
    """Take the numbers as soon as everything has ended, or after `QUIET_SECONDS`."""
    start = report.moments[0]
    deadline = trio.current_time() + QUIET_SECONDS
    while True:
        said, ours = await server.ask(), take_numbers()
        back = is_back(start.server, said.numbers) and is_back(start.clients, ours)
        if back or trio.current_time() > deadline:
            report.moments.append(Moment(name, said.numbers, ours))
            return said
        await trio.sleep(0.1)


def _take(said: Said, report: Report) -> None:
    """Add the final numbers of the server to the report."""
    report.endings["The handlers have seen"] = said.endings
    report.endings["The server has logged"] = said.logged
    report.wrong += said.unplanned
    ends = [n for what, n in said.endings.items() if what.startswith("close event")]
    if sum(ends) != said.accepted:
        wrong = f"{said.accepted} halves accepted, but {sum(ends)} close events"
        report.wrong.append(wrong)


class _Crowd:
    """Clients that run at the same time, each with one connection after another."""

    def __init__(
        self,
        urls: dict[str, str],
        context: ssl.SSLContext,
        seed: int,
        report: Report,
    ) -> None:
        self._urls = urls
        self._context = context
        self._seed = seed
        self._report = report
        self._ours = report.endings["Our clients have seen"] = Counter()
        self._raw = report.endings["Clients made of bytes have seen"] = Counter()
        self._deadline = math.inf
        self._leaves = False

    async def run(self, seconds: float) -> None:
        """Let the clients run for some time, and wait for their ends."""
        self._deadline = trio.current_time() + seconds
        async with trio.open_nursery() as nursery:
            for _ in range(AT_A_TIME):
                nursery.start_soon(self._run_one)

    async def talk(self) -> None:
        """Check that the server works, by an echo on each of its ports."""
        for kind, base in self._urls.items():
            url = f"{base}echo?n=0&code=1000"
            context = self._context if kind == "secure" else None
            answer: object = None
            with trio.move_on_after(PATIENCE):
                try:
                    async with open_websocket(url, ssl_context=context) as ws:
                        ws.send("still there?")
                        answer = await ws.receive()
                except WebSocketError as exc:
                    answer = exc
            if answer != "still there?":
                self._report.wrong.append(f"{url} has answered {answer!r}")

    def leave(self) -> None:
        """Open no more connections; from now on, a missing server is no fault."""
        self._deadline = -math.inf
        self._leaves = True

    async def _run_one(self) -> None:
        while trio.current_time() < self._deadline:
            self._report.connections += 1
            await self._connect(self._report.connections)

    async def _connect(self, number: int) -> None:
        """Make a connection, and wait for its end."""
        rng = Random(f"{self._seed}/{number}")
        raw = rng.random() < RAW_SHARE
        client = rng.choice(RAW_CLIENTS if raw else CLIENTS)
        target = self._some_target(rng)
        what = f"connection {number}, {client.__module__}.{client.__name__}, {target}"
        ending = None
        try:
            with trio.move_on_after(PATIENCE):
                ending = await client(target, rng)
        except Exception as exc:
            ending = self._name_of(exc)
            if ending is None:
                self._report.wrong.append(f"{what}:\n{traceback.format_exc()}")
                return
        if ending is None:
            self._report.wrong.append(f"{what} hangs")
        else:
            (self._raw if raw else self._ours)[ending] += 1

    def _some_target(self, rng: Random) -> Target:
        secure = rng.random() < SECURE_SHARE
        url = urlsplit(self._urls["secure" if secure else "plain"])
        assert url.hostname is not None
        assert url.port is not None
        path = rng.choice(PATHS)
        return Target(
            url.hostname,
            url.port,
            self._context if secure else None,
            f"/{path}?n={rng.randrange(4)}&code={rng.choice(CODES)}",
            path in ECHOES,
        )

    def _name_of(self, exc: BaseException) -> str | None:
        """Return the name of an expected error of a client; `None` for any other."""
        match exc:
            case BaseExceptionGroup():
                names = [self._name_of(e) for e in exc.exceptions]
                return None if None in names else names[0]
            case HandshakeError():
                return f"HTTP {exc.status}" if exc.status else "no answer to the head"
            case NoWebSocketError():
                return str(exc)
            case Planned():
                return "raised in the block"
            case ConnectionClosedError():
                return f"closed with {exc.code}"
            case trio.BrokenResourceError():
                return "TCP broke"
            case OSError():
                return "no server" if self._leaves else None
            case _:
                return None

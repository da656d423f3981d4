"""Random programs over connections with faults, and the same programs in memory.

The network is in memory, so that time is virtual and every run can be repeated.
"""

import logging
import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from logging.handlers import BufferingHandler
from typing import Any, Literal

import attrs
import pytest
import trio
from conformance import stage
from conformance.programs import Step, programs
from hypothesis import assume, given, settings, strategies as st
from pairs import ListenerError, flat
from patched_network import Join, memory_network
from random_programs import (
    PROGRAMS,
    CutAtStep,
    Program,
    Run,
    Where,
    rarely,
)
from trio.testing import lockstep_stream_pair, memory_stream_pair

from trio_wspair import (
    Request,
    Response,
    Server,
    WebSocket,
    WebSocketPair,
    connect,
    serve,
)
from trio_wspair.testing import FaultyStream

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("engine")]

# -- faults of the network -------------------------------------------------------------


Place = Literal["client", "server"]
WARNINGS = (
    "half (was never|has not been) accepted|fetch has not returned yet"
    "|listeners for messages are never called"
)
"""The warnings that a program may cause: a client waits, or a puller has listeners."""


@attrs.frozen
class Link:
    """A connection in place of a pair: its first half is the client's."""

    served_in: Literal["the request", "the program"]
    """The nursery of the handler's half."""
    spoiled: Place
    faults: dict[str, Any]
    """Arguments of `FaultyStream` for the stream at this end."""


PIECES = rarely(st.sampled_from([1, 5, 50]))
AFTER_THE_HANDSHAKE = st.integers(151, 260)
LINKS = st.builds(
    Link,
    served_in=st.sampled_from(["the request", "the program"]),
    spoiled=st.sampled_from(["client", "server"]),
    faults=st.fixed_dictionaries(
        {
            "receive_at_most": PIECES,
            "send_at_most": PIECES,
            "delay": st.sampled_from([0.0, 0.0, 0.001, 0.02]),
            "cut_after_received": rarely(AFTER_THE_HANDSHAKE),
            "cut_after_sent": rarely(AFTER_THE_HANDSHAKE),
            "cut": st.sampled_from(["end", "reset", "silence"]),
            "keep_open": st.booleans(),
        }
    ),
)


class NetworkRun(Run):
    """One run of a program whose pairs are connections."""

    def __init__(
        self, program: Program, links: Sequence[Link], stop_at: int | None, join: Join
    ) -> None:
        if program.cut_at is not None:  # A connection takes more steps than a pair.
            program = attrs.evolve(program, cut_at=program.cut_at * 4)
        super().__init__(program)
        self._links = links
        self._link = links[0]
        self._join = join
        self._home: trio.Nursery | None = None
        self._serving, self._served = trio.open_memory_channel[WebSocket](1)
        self._stop = CutAtStep(stop_at)
        self._log = BufferingHandler(1000)

    def spoil(self, place: Place, stream: trio.abc.Stream) -> trio.abc.Stream:
        if place != self._link.spoiled:
            return stream
        return FaultyStream(stream, **self._link.faults)

    async def fetch(self, _request: Request) -> Response:
        client, server = WebSocketPair(self._home)
        self._serving.send_nowait(server)
        return Response(None, status=101, web_socket=client)

    @asynccontextmanager
    async def surroundings(self) -> AsyncGenerator[None]:
        """Run a server, and check that nothing is left of it."""
        trio.lowlevel.add_instrument(self._stop)
        network = memory_network(
            client=partial(self.spoil, "client"),
            server=partial(self.spoil, "server"),
            join=self._join,
        )
        tasks = trio.lowlevel.current_statistics().tasks_living
        with network, self.log_kept(), trio.fail_after(300):
            async with trio.open_nursery() as nursery:
                self._server: Server = await nursery.start(serve, self.fetch, 0)
                self._stopping = nursery.cancel_scope
                try:
                    yield
                finally:
                    self._stop.scope = None
                    self.cancelled = self._stopping.cancel_called
                    self._stopping.cancel()
        assert trio.lowlevel.current_statistics().tasks_living <= tasks
        for record in self._log.buffer:
            self.check_logged(record)

    @contextmanager
    def log_kept(self) -> Iterator[None]:
        """Keep the log records."""
        logger = logging.getLogger()
        logger.addHandler(self._log)
        try:
            yield
        finally:
            logger.removeHandler(self._log)

    async def open_pair(
        self, number: int, nursery: trio.Nursery
    ) -> Iterable[WebSocket]:
        self._link = self._links[number]
        self._home = nursery if self._link.served_in == "the program" else None
        client = await connect(self._server.url, nursery=nursery)
        return client, await self._served.receive()

    async def start(self, nurseries: dict[Where, trio.Nursery]) -> None:
        await super().start(nurseries)
        self._stop.start(self._stopping)

    def pair_is_over(self, first: int) -> bool:
        """Tell whether a connection has nothing left to do; an unaccepted half may."""
        taken = self.records[first].accepted and self.records[first + 1].accepted
        return taken and super().pair_is_over(first)

    def check_logged(self, record: logging.LogRecord) -> None:
        """Check that a server logs such a record about handlers."""
        if record.exc_info is None:
            assert re.search(WARNINGS, record.getMessage()), record.getMessage()
        else:
            assert record.getMessage() == "handling GET / failed"
            _, error, _ = record.exc_info
            assert error is not None
            assert all(isinstance(one, ListenerError) for one in flat(error))
            self.failed = True


@pytest.mark.parametrize("join", [memory_stream_pair, lockstep_stream_pair])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(PROGRAMS, st.lists(LINKS, min_size=3, max_size=3), rarely(st.integers(1, 600)))
def test_random_programs_keep_the_guarantees_on_a_faulty_network(
    join: Join, program: Program, links: list[Link], stop_at: int | None
) -> None:
    for seed in range(2):
        NetworkRun(program, links, stop_at, join).run(seed)


# -- the same program, with a connection in between and without --------------------


def closes_with(steps: list[Step], codes: set[int]) -> bool:
    """Tell whether one of these steps, or of those within, closes with such a code."""
    return any(
        step.get("code") in codes or closes_with(step.get("do", []), codes)
        for step in steps
    )


@settings(max_examples=80, deadline=None, derandomize=True)
@given(programs(), st.integers(0, 99))
def test_g11_a_program_does_the_same_in_memory_and_over_a_connection(
    steps: list[Step], seed: int
) -> None:
    assume(
        not closes_with(steps, {1014, 1016, 2999})
    )  # Close codes that can't be sent.
    pieces = partial(FaultyStream, seed=seed, receive_at_most=99, send_at_most=99)
    in_memory = stage.run(stage.in_memory, {"steps": steps}, seed=seed)
    with memory_network(client=pieces, server=pieces):
        connected = stage.run(stage.on_the_wire, {"steps": steps}, seed=seed)
    # Errors are equal if their texts are.
    assert repr(connected) == repr(in_memory)

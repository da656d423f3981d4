"""`check()`: what has to hold whatever bytes come, in whatever pieces.

Server and client run as they are, on a network in memory and in virtual time.
"""

import logging
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import trio
import trio.testing
from trio.testing import MockClock

from fuzz.case import GOOD_REQUEST, Case, Seen, with_accept
from fuzz.judging import judge_client, judge_server
from fuzz.network import ScriptedStream, dialling_in_memory, listening_in_memory
from fuzz.takers import Taking, take
from trio_wspair import (
    HandshakeError,
    Request,
    Response,
    WebSocketPair,
    connect,
    serve,
)

HANDSHAKE = 10.0
"""Seconds for an opening handshake."""
GRACE = 5.0
"""Seconds for a closing one."""
GOOD_CLIENT = (GOOD_REQUEST, b"\x81\x81\1\2\3\4i\x88\x80\1\2\3\4")
"""Opens a WebSocket, says h, and closes it."""


class Finding(Exception):  # noqa: N818 - to find one is no error
    """Something does not hold: a case, and what is wrong."""

    def __init__(self, case: Case, what: str) -> None:
        super().__init__(case, what)
        self.case = case
        self.what = what


def check(case: Case) -> str:
    """Attack with a case, and see that everything holds; return what it comes to.

    Raises:
        Finding: It does not.
    """
    attack = attack_server if case.side == "server" else attack_client
    logged: list[str] = []
    try:
        with log_kept_in(logged):
            outcome = trio.run(attack, case, clock=MockClock(autojump_threshold=0))
        assert not logged, "something is logged"
        return outcome
    except Exception as exc:
        raise Finding(case, "\n".join([*reasons(exc), *logged])) from exc


def reasons(exc: BaseException) -> list[str]:
    """Return what went wrong, one line for each exception in a group."""
    if isinstance(exc, BaseExceptionGroup):
        return [reason for inner in exc.exceptions for reason in reasons(inner)]
    return [f"{type(exc).__name__}: {exc}"]


@contextmanager
def log_kept_in(logged: list[str]) -> Generator[None]:
    """Keep what is logged in the block, from warnings on."""

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(logging.Formatter().format(record))

    keeper = Keeper(logging.WARNING)
    logging.getLogger().addHandler(keeper)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(keeper)


async def attack_server(case: Case) -> str:
    """Attack a server, and see that it lives on."""
    outcomes: list[str] = []
    takings: list[Taking] = []

    async def fetch(request: Request) -> Response:
        if not request.wants_websocket:
            return Response("This is for WebSockets.", status=426)
        client, server = WebSocketPair()
        takings.append(take(case.taker, server, request.nursery))
        return Response(None, status=101, web_socket=client)

    server = partial(
        serve,
        fetch,
        0,
        handshake_timeout=HANDSHAKE,
        idle_timeout=0,  # One request each: what follows is tried elsewhere.
        close_grace=GRACE,
        max_message_bytes=case.limit,
        receive_buffer_bytes=case.room,
    )
    with listening_in_memory() as dial:
        async with trio.open_nursery() as nursery:
            await nursery.start(server)
            for attack in (case, Case("server", GOOD_CLIENT, taker=case.taker)):
                takings.clear()
                async with no_task_left():
                    stream = ScriptedStream(
                        attack.chunks, attack.ending, patient=attack.patient
                    )
                    dial(stream)
                    hung_up = await until_closed(stream, attack)
                received = b"".join(attack.chunks)
                seen = Seen(received, bytes(stream.sent), takings, hung_up=hung_up)
                outcomes.append(judge_server(attack, seen))
            nursery.cancel_scope.cancel()
    return outcomes[0]


async def attack_client(case: Case) -> str:
    """Attack a client."""
    received: list[bytes] = []

    def fill_in(chunks: Sequence[bytes], request: bytes) -> Sequence[bytes]:
        answer = with_accept(b"".join(chunks), request)
        for chunk in chunks:
            received.append(answer[: len(chunk)])
            answer = answer[len(chunk) :]
        return received

    stream = ScriptedStream(
        case.chunks, case.ending, patient=case.patient, fill_in=fill_in
    )
    takings: list[Taking] = []
    refusal = None
    with dialling_in_memory(stream):
        async with no_task_left(), trio.open_nursery() as nursery:
            try:
                socket = await connect(
                    "ws://example.org/",
                    nursery=nursery,
                    connect_timeout=HANDSHAKE,
                    close_grace=GRACE,
                    max_message_bytes=case.limit,
                    receive_buffer_bytes=case.room,
                )
                takings.append(take(case.taker, socket, nursery))
            except HandshakeError as exc:
                refusal = exc
            hung_up = await until_closed(stream, case)
    seen = Seen(
        b"".join(received), bytes(stream.sent), takings, refusal, hung_up=hung_up
    )
    return judge_client(case, seen)


@asynccontextmanager
async def no_task_left() -> AsyncGenerator[None]:
    """See that after the block as many tasks are running as before."""
    await trio.testing.wait_all_tasks_blocked()
    before = trio.lowlevel.current_statistics().tasks_living
    yield
    await trio.testing.wait_all_tasks_blocked()
    left = trio.lowlevel.current_statistics().tasks_living - before
    assert left == 0, f"{left} tasks are left"


async def until_closed(stream: ScriptedStream, case: Case) -> bool:
    """See that a connection is closed in time; return whether the peer had to hang up.

    With a peer that is silent this may take as long as each timeout; else no time.
    """
    start = trio.current_time()
    with trio.move_on_after(HANDSHAKE + GRACE + 1):
        await stream.closed.wait()
    hung_up = case.ending == "silence" and not stream.closed.is_set()
    if case.ending == "silence":
        stream.hang_up()
        start = trio.current_time()
        with trio.move_on_after(GRACE):
            await stream.closed.wait()
    seconds = trio.current_time() - start
    assert stream.closed.is_set(), "the connection is not closed"
    assert not seconds, f"it took {seconds} s to close the connection"
    return hung_up

"""Runs a case against `serve()` or `connect()`, and checks the rules of `judging`.

They run unmodified, on a network in memory and in virtual time.
"""

import logging
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import trio
import trio.testing
from trio.testing import MockClock

from fuzz.applications import Observed, take
from fuzz.case import GOOD_REQUEST, Case, Seen, with_accept
from fuzz.judging import judge_client, judge_server
from fuzz.network import ScriptedStream, dialling_in_memory, listening_in_memory
from trio_wspair import (
    HandshakeError,
    Request,
    Response,
    WebSocketPair,
    connect,
    serve,
)
from trio_wspair._http.headers import comma_list

HANDSHAKE = 10.0
"""The timeout of an opening handshake, in seconds."""
GRACE = 5.0
"""The timeout of a closing handshake, in seconds."""
GOOD_CLIENT = (GOOD_REQUEST, b"\x81\x81\1\2\3\4i\x88\x80\1\2\3\4")
"""Opens a WebSocket, sends "h", and closes it."""


class Finding(Exception):  # noqa: N818 - a finding is a result, not an error
    """A case that breaks a rule, with the reason."""

    def __init__(self, case: Case, what: str) -> None:
        super().__init__(case, what)
        self.case = case
        self.what = what


def check(case: Case) -> str:
    """Attack with a case, and check all rules; return the outcome.

    Raises:
        Finding: A rule is broken.
    """
    attack = attack_server if case.side == "server" else attack_client
    logged: list[str] = []
    try:
        with log_kept_in(logged):
            outcome = trio.run(attack, case, clock=MockClock(autojump_threshold=0))
        assert not logged, "a warning or an error was logged"
        return outcome
    except Exception as exc:
        raise Finding(case, "\n".join([*reasons(exc), *logged])) from exc


def reasons(exc: BaseException) -> list[str]:
    """Return the errors, one line for each exception in a group."""
    if isinstance(exc, BaseExceptionGroup):
        return [reason for inner in exc.exceptions for reason in reasons(inner)]
    return [f"{type(exc).__name__}: {exc}"]


@contextmanager
def log_kept_in(logged: list[str]) -> Generator[None]:
    """Append the warnings and errors that are logged in the block to a list."""

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
    """Attack a server, and check that it still serves other clients."""
    outcomes: list[str] = []
    observed: list[Observed] = []

    async def fetch(request: Request) -> Response:
        if not request.wants_websocket:
            return Response("A WebSocket is required.", status=426)
        client, server = WebSocketPair()
        observed.append(take(case.application, server, request.nursery))
        # The server logs a warning if no subprotocol is chosen.
        name = "Sec-WebSocket-Protocol"
        offered = comma_list(request.headers, name)
        chosen = [(name, offered[0])] if offered else []
        return Response(None, status=101, web_socket=client, headers=chosen)

    server = partial(
        serve,
        fetch,
        0,
        handshake_timeout=HANDSHAKE,
        idle_timeout=0,  # One request per connection.
        close_grace=GRACE,
        max_message_bytes=case.limit,
        receive_buffer_bytes=case.room,
    )
    with listening_in_memory() as dial:
        async with trio.open_nursery() as nursery:
            await nursery.start(server)
            for attack in (
                case,
                Case("server", GOOD_CLIENT, application=case.application),
            ):
                observed.clear()
                async with no_task_left():
                    stream = ScriptedStream(
                        attack.chunks, attack.ending, patient=attack.patient
                    )
                    dial(stream)
                    hung_up = await until_closed(stream, attack)
                received = b"".join(attack.chunks)
                seen = Seen(received, bytes(stream.sent), observed, hung_up=hung_up)
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
    observed: list[Observed] = []
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
                observed.append(take(case.application, socket, nursery))
            except HandshakeError as exc:
                refusal = exc
            hung_up = await until_closed(stream, case)
    seen = Seen(
        b"".join(received), bytes(stream.sent), observed, refusal, hung_up=hung_up
    )
    return judge_client(case, seen)


@asynccontextmanager
async def no_task_left() -> AsyncGenerator[None]:
    """Check that the block leaves no task behind."""
    await trio.testing.wait_all_tasks_blocked()
    before = trio.lowlevel.current_statistics().tasks_living
    yield
    await trio.testing.wait_all_tasks_blocked()
    left = trio.lowlevel.current_statistics().tasks_living - before
    assert left == 0, f"{left} tasks are left"


async def until_closed(stream: ScriptedStream, case: Case) -> bool:
    """Check that a connection is closed in time; return whether the peer had to end it.

    If the peer is silent, closing may take until a timeout; else it takes no time.
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

"""`open_test_client()`: a handler on its real server, and a client that is recorded.

Knows `serve()`, `connect()` and what may lie between them; what is said there it
leaves to others.
"""

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Final, Literal, TypedDict, Unpack, cast

import trio

from trio_wspair._application import Application
from trio_wspair._checks import check_seconds
from trio_wspair._client import connect
from trio_wspair._errors import ConnectionClosedError, HandshakeError
from trio_wspair._handling import failures
from trio_wspair._http import HeadersInit
from trio_wspair._instruments import use_instrument
from trio_wspair._nurseries import open_service_nursery, raise_together
from trio_wspair._pair import closing_on_exit
from trio_wspair._server import serve
from trio_wspair._socket import WebSocket
from trio_wspair.transports._engines import EngineName

from ._memory import MemoryPort
from ._record import Record
from ._recorded import DEFAULT_WITHIN, RecordedWebSocket, telling

__all__ = ("ClientOptions", "ConnectionOptions", "Transport", "open_test_client")

Transport = Literal["memory", "loopback"]
"""What lies between client and server: streams in memory, or sockets."""
_CLOSE_GRACE: Final = 1.0


class ConnectionOptions(TypedDict, total=False):
    """What both `serve()` and `connect()` can be told."""

    close_grace: float
    max_message_bytes: int
    receive_buffer_bytes: int
    ping_interval: float
    ping_timeout: float
    engine: EngineName
    compression: bool


class ClientOptions(ConnectionOptions, total=False):
    """The options of `open_test_client()`, for those who pass them on."""

    protocols: str | Sequence[str]
    headers: HeadersInit
    within: float


@asynccontextmanager
async def open_test_client(
    app: Application,
    path: str = "/",
    *,
    over: Transport = "memory",
    protocols: str | Sequence[str] = (),
    headers: HeadersInit = (),
    names: tuple[str, str] = ("client", "server"),
    within: float = DEFAULT_WITHIN,
    **options: Unpack[ConnectionOptions],
) -> AsyncGenerator[RecordedWebSocket, None]:
    """Serve a handler for one WebSocket, and open that.

    ``async with open_test_client(fetch, "/chat") as client:`` gives a client's half,
    accepted in pull mode as by `open_websocket()`. It is the real server and the real
    client, handshake and frames included, on streams in memory: in virtual time if the
    test has a `trio.testing.MockClock`. Several clients of one handler are several
    blocks; each has a server of its own.

    On leaving it is closed with 1000, or 1011 when the block has raised, and the server
    stops. Leaving takes a few times `close_grace` at most, whatever the handler does
    that can be cancelled.

    What the handler raises, be it in `fetch`, in a listener or in a task in
    ``request.nursery``, is logged and seen by the client as ever. Besides, it comes out
    of the block at its end, so that a test can't pass by mistake: as it is, or in an
    `ExceptionGroup` with what the block itself has raised. Only a
    `ConnectionClosedError` doesn't: that the connection has ended is no failure. What
    comes out has the conversation as a note.

    Args:
        app: The handler or another application, as for `serve()`.
        path: The path, and after a ``?`` the query.
        over: ``"memory"``, or ``"loopback"`` for sockets on 127.0.0.1.
        protocols: The subprotocols to offer; ``client.protocol`` tells which one.
        headers: More headers for the request.
        names: What the record calls the client and the handler.
        within: Seconds for the handshake, and that an ``expect...()`` waits if nothing
            else is said.
        options: Those that `serve()` and `connect()` share, for both: `close_grace`,
            which is 1 s here, `max_message_bytes`, `receive_buffer_bytes`,
            `ping_interval`, `ping_timeout`, `engine` and `compression`.

    Raises:
        HandshakeError: The handler has refused, or not answered in time.
        TypeError: An argument is of another type.
        ValueError: An argument is out of range.
        ImportError: The extra for the engine is not installed.
    """
    check_seconds("within", within)
    if not path.startswith("/"):
        msg = f"path begins with a slash, such as '/chat?room=1'; this is {path!r}"
        raise ValueError(msg)
    if over not in ("memory", "loopback"):
        msg = f"over is 'memory' or 'loopback', not {over!r}"
        raise ValueError(msg)
    grace = options.setdefault("close_grace", _CLOSE_GRACE)
    record = Record(names)
    raised: list[Exception] = []

    async def open_connection(*, task_status: trio.TaskStatus[WebSocket]) -> None:
        # A task, as the context of this one may be shared: pytest-trio does that.
        failures.set(raised)
        port = MemoryPort()
        with use_instrument(record):
            if over == "memory":
                serving = partial(serve, app, listeners=[port], **options)
                await nursery.start(serving)
                origin = "ws://localhost"
            else:
                server = await nursery.start(partial(serve, app, 0, **options))
                origin = server.url.removesuffix("/")
            client = await connect(
                origin + path,
                nursery=nursery,
                protocols=protocols,
                headers=headers,
                dial=port.dial if over == "memory" else None,
                connect_timeout=within,
                **options,
            )
        task_status.started(client)

    with telling(record), _raising(raised):
        async with open_service_nursery() as nursery:
            try:
                client = await nursery.start(open_connection)
            except HandshakeError:
                if not _failures(raised):
                    raise
                return  # It is the answer to what is raised now.
            client.accept(pull=True)
            async with closing_on_exit([client], grace=grace):
                yield RecordedWebSocket(client, record, within)


@contextmanager
def _raising(by_handler: list[Exception]) -> Generator[None, None, None]:
    """Raise what a handler has raised after the block, beside what that raises."""
    raised: list[BaseException] = []
    try:
        yield
    except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised below
        raised.append(exc)
    raised += _failures(by_handler)
    raise_together(raised, "the test and its handler have raised")


def _failures(by_handler: list[Exception]) -> list[Exception]:
    """Return these without what is no failure: that the connection has ended."""
    split = [ExceptionGroup("", [e]).split(ConnectionClosedError) for e in by_handler]
    return [_unwrapped(failure) for _, failure in split if failure is not None]


def _unwrapped(exc: Exception) -> Exception:
    """Return the only exception in a group, or groups, of a nursery."""
    if not isinstance(exc, ExceptionGroup):
        return exc
    group = cast("ExceptionGroup[Exception]", exc)
    return _unwrapped(group.exceptions[0]) if len(group.exceptions) == 1 else group

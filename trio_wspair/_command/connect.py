"""`trio-wspair connect`: a conversation with a server, in a terminal or a pipe.

Knows lines, messages and how a connection ends; what a connection is is known below.
"""

import os
import select
import signal
import ssl
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

import attrs
import trio

from trio_wspair._client.connecting import ConnectOptions, connect
from trio_wspair._client.endpoint import proxy_from_environment, proxy_variable
from trio_wspair._pair.websocket import CloseEvent, WebSocket
from trio_wspair._rules.codes import CloseCode
from trio_wspair._rules.display import redacted
from trio_wspair._rules.errors import ConnectionClosedError, HandshakeError
from trio_wspair._tasks.nurseries import open_service_nursery
from trio_wspair.transports._engines import EngineName

from .process import (
    INTERRUPTED,
    READER_GONE,
    CommandError,
    Stop,
    UsageError,
    complain,
    open_stop,
    painted,
    shown,
    state,
    write_output,
)
from .tls import client_context

__all__ = ("Conversation",)

_MAX_LINE_BYTES: Final = 2**25
"""A longer line is not sent; no server of ours would take it by default."""
_BUFFERED_BYTES: Final = 2 * _MAX_LINE_BYTES
_READ_BYTES: Final = 2**16
_CLOSE_GRACE: Final = 5.0
_GOOD_CODES: Final = (1000, 1001, 1005)
_IN_OPTIONS: Final = {
    "pass an ssl_context that does": "pass --cafile FILE, or --insecure",
    "the ssl_context has loaded none": "pass --certfile FILE",
}
"""What errors of the library advise, and the options of the command for it."""
_STATUSES: Final = {
    signal.SIGINT: INTERRUPTED,
    signal.SIGTERM: 128 + signal.SIGTERM,
    **({signal.SIGHUP: 128 + signal.SIGHUP} if hasattr(signal, "SIGHUP") else {}),
}


@attrs.frozen
class Conversation:
    """What is to be said to whom."""

    url: str
    protocols: Sequence[str] = ()
    headers: Sequence[tuple[str, str]] = ()
    unix: str | None = None
    """The path of a Unix socket to go through."""
    proxy: str | None = None
    no_proxy: bool = False
    """Whether the environment's proxies are left alone."""
    cafile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    insecure: bool = False
    binary: bool = False
    """Whether lines are sent as bytes."""
    wait: float = 0.0
    """Seconds to wait for messages after the end of the input."""
    engine: EngineName = "trio-websocket"
    compression: bool = False

    async def run(self) -> int:
        """Send each line of the input, print what comes; return the exit status.

        Messages go to the standard output, and everything else to the standard error:
        so it works in a pipe.

        Raises:
            CommandError: It can't be done, or not to the end.
        """
        options = self._options()
        with open_stop(_STATUSES) as stop:
            async with open_service_nursery() as nursery:
                ws = None
                with trio.CancelScope() as dialing:
                    nursery.start_soon(_cancel_on, stop, dialing)
                    ws = await self._connect(nursery, options)
                    ws.accept(pull=True)
                if ws is not None:
                    return await self._talk(ws, stop)
        assert stop.status is not None
        return stop.status

    def _options(self) -> ConnectOptions:
        options = ConnectOptions(
            protocols=self.protocols,
            headers=self.headers,
            ssl_context=self._ssl_context(),
            engine=self.engine,
            compression=self.compression,
            close_grace=_CLOSE_GRACE,
            max_buffered_bytes=_BUFFERED_BYTES,
        )
        if self.unix is not None:
            path = self.unix

            async def dial(_host: str, _port: int) -> trio.SocketStream:
                return await trio.open_unix_socket(path)

            options["dial"] = dial
        elif self.proxy is not None:
            options["proxy"] = self.proxy
        elif not self.no_proxy:
            options["proxy"] = proxy_from_environment(self.url)
        return options

    def _source_of_proxy(self) -> str:
        """Say that the environment names the proxy, if it does, and by what."""
        if self.unix is not None or self.proxy is not None or self.no_proxy:
            return ""
        variable = proxy_variable(self.url)
        return "" if variable is None else f" (the proxy is from {variable})"

    def _ssl_context(self) -> ssl.SSLContext | None:
        context = client_context(
            cafile=self.cafile,
            certfile=self.certfile,
            keyfile=self.keyfile,
            insecure=self.insecure,
        )
        scheme = self.url.partition(":")[0].lower()
        if context is not None and scheme in ("ws", "http"):
            msg = f"options about certificates are for wss: URLs, this one is {scheme}:"
            raise UsageError(msg)
        if self.insecure:
            what = "--insecure: anybody can pretend to be this server, and read along"
            state(f"trio-wspair: warning: {what}", "red")
        return context

    async def _connect(
        self, nursery: trio.Nursery, options: ConnectOptions
    ) -> WebSocket:
        where = redacted(self.url)
        try:
            ws = await connect(self.url, nursery=nursery, **options)
        except ValueError as exc:
            msg = f"{_with_options(str(exc))}{self._source_of_proxy()}"
            raise UsageError(msg) from exc
        except (HandshakeError, OSError, ImportError) as exc:
            what = _with_options(str(exc))
            if isinstance(exc, OSError) and exc.strerror:
                what = exc.strerror
            what += self._source_of_proxy()
            through = f" through the Unix socket {self.unix}" if self.unix else ""
            msg = f"no connection to {where}{through}: {what}"
            raise CommandError(msg) from exc
        chosen = f", subprotocol {ws.protocol}" if ws.protocol else ""
        chosen += f", {ws.extensions}" if ws.extensions else ""
        state(f"connected to {where}{chosen}", "dim")
        return ws

    async def _talk(self, ws: WebSocket, stop: Stop) -> int:
        """Talk until the connection has ended, and return the exit status."""
        sending = _Sending(ws, self.binary, self.wait)
        good = True
        with trio.CancelScope() as talking:
            async with open_service_nursery() as nursery:
                nursery.start_soon(sending.run)
                nursery.start_soon(_end_on, stop, sending, talking)
                status = await _print_messages(ws, sending)
                event = await ws.wait_closed()
                good = event.code in _GOOD_CODES and not sending.has_failed
                if status != READER_GONE:
                    state(_explained(event), "green" if good else "red")
                return stop.status or status or int(not good)
        assert stop.status is not None
        return stop.status


def _with_options(error: str) -> str:
    """Return an error of the library as one of the command."""
    for advice, option in _IN_OPTIONS.items():
        error = error.replace(advice, option)
    return error


async def _cancel_on(stop: Stop, scope: trio.CancelScope) -> None:
    await stop.wait()
    scope.cancel(reason="a signal came")


async def _end_on(stop: Stop, sending: "_Sending", scope: trio.CancelScope) -> None:
    """End the conversation: with a closing handshake, if that comes in time."""
    await stop.wait()
    sending.end()
    # What is read meanwhile may not be printed, as nothing takes it.
    scope.deadline = trio.current_time() + _CLOSE_GRACE


@attrs.define
class _Sending:
    """Sends what is read from the standard input, line by line."""

    ws: WebSocket
    binary: bool
    wait: float
    has_failed: bool = False
    """Whether something was not sent, which the user was told."""
    _number: int = 0
    """The lines that were read so far."""
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def run(self) -> None:
        """Send all lines, and close with 1000 when there are no more."""
        with self._scope:
            await self._send_lines()
            await trio.sleep(self.wait)
            self.ws.close(1000)

    def end(self) -> None:
        """Send no more, and close with 1000."""
        self._scope.cancel(reason="the conversation ends")
        self.ws.close(1000)

    async def _send_lines(self) -> None:
        lines = Lines(_MAX_LINE_BYTES)
        try:
            while data := await _read_input():
                for line in lines.feed(data):
                    await self._send(line)
            for line in lines.end():
                await self._send(line)
        except ConnectionClosedError:
            pass  # The task that prints tells of it.
        except OSError as exc:
            self._fail(f"can't read the standard input: {exc.strerror}")

    async def _send(self, line: bytes | None) -> None:
        self._number += 1
        if line is None:
            what = f"has more than {_MAX_LINE_BYTES} bytes, not sent"
            self._fail(f"line {self._number} {what}")
            return
        message: str | bytes = line
        if not self.binary:
            try:
                message = line.decode()
            except UnicodeDecodeError:
                hint = "--binary sends bytes"
                self._fail(f"line {self._number} is not UTF-8, not sent; {hint}")
                return
        self.ws.send(message)
        await self.ws.drain()

    def _fail(self, what: str) -> None:
        self.has_failed = True
        complain(what)


class Lines:
    """Splits what comes in pieces into lines, in time and memory that are bounded.

    Lines end with a line feed, or with a carriage return and a line feed.

    Args:
        max_bytes: A longer line is dropped, and given as `None`.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._begun: list[bytes] = []
        """The pieces of the line that has not ended."""
        self._size = 0

    @property
    def pending_bytes(self) -> int:
        """What is kept of the line that has not ended."""
        return sum(map(len, self._begun))

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """Yield the lines that end in here."""
        *ends, begin = data.split(b"\n")
        for end in ends:
            self._add(end)
            yield self._take()
        self._add(begin)

    def end(self) -> Iterator[bytes | None]:
        """Yield the last line, if there is one without an end."""
        if self._size:
            yield self._take()

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max_bytes + 1:  # There may be a carriage return.
            self._begun.clear()
        elif piece:
            self._begun.append(piece)

    def _take(self) -> bytes | None:
        line = b"".join(self._begun).removesuffix(b"\r")
        is_whole = len(line) <= self._max_bytes and self._size <= self._max_bytes + 1
        self._begun.clear()
        self._size = 0
        return line if is_whole else None


async def _read_input() -> bytes:
    """Read from the standard input; ``b""`` at its end.

    Raises:
        OSError: It can't be read.
    """
    # Of the file descriptor: a thread that waits in sys.stdin holds up the exit.
    return await trio.to_thread.run_sync(_read, abandon_on_cancel=True)


def _read() -> bytes:
    stdin = sys.stdin.fileno() if sys.stdin is not None else 0
    while True:
        try:
            return os.read(stdin, _READ_BYTES)
        except BlockingIOError:
            select.select([stdin], [], [])


async def _print_messages(ws: WebSocket, sending: _Sending) -> int:
    """Print what comes; return the exit status for how that went."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    status = 0
    with suppress(ConnectionClosedError):  # It is told at the end.
        async for message in ws:
            if status:
                continue  # What is still on its way is lost.
            text = message if isinstance(message, str) else f"0x{message.hex()}"
            if is_terminal:
                text = painted(f"< {shown(text)}", "green", sys.stdout)
            try:
                await write_output(f"{text}\n")
            except BrokenPipeError:
                status = READER_GONE
                sending.end()
            except OSError as exc:
                status = 1
                complain(f"can't write to the standard output: {exc.strerror}")
                sending.end()
    return status


def _explained(event: CloseEvent) -> str:
    """Say what a close code means."""
    try:
        meaning = CloseCode(event.code).name.replace("_", " ").lower()
    except ValueError:
        meaning = "a code of the application" if event.code >= 3000 else "unregistered"
    reason = f": {event.reason}" if event.reason else ""
    return f"closed with {event.code} ({meaning}){reason}"

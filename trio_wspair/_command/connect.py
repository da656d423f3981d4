"""`trio-wspair connect`: lines to a server and its messages back, as a terminal client.

Theory of operation: `ConnectCommand.run()` connects, then `_Sending` sends the lines of
the standard input in one task, while the main task prints messages until the end of the
connection. The end of the input, a signal, or an output that can't be written closes
with 1000. Reading and writing happen in threads, which the exit does not wait for.

Knows lines, messages and close codes, not how a connection works.
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
from trio_wspair._rules.codes import NORMAL_CODES, CloseCode
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
    coloured,
    escaped,
    open_stop,
    print_error,
    print_status,
    print_warning,
    write_output,
)
from .tls import client_context

__all__ = ("ConnectCommand",)

_MAX_LINE_BYTES: Final = 2**25
"""A longer line is not sent; `serve()` would refuse it by default."""
_BUFFERED_BYTES: Final = 2 * _MAX_LINE_BYTES
_READ_BYTES: Final = 2**16
_CLOSE_GRACE: Final = 5.0
_IN_OPTIONS: Final = {
    "pass an ssl_context that does": "pass --cafile FILE, or --insecure",
    "the ssl_context has loaded none": "pass --certfile FILE",
}
"""Advice in errors of the library, and the same with options of the command."""
_STATUSES: Final = {
    signal.SIGINT: INTERRUPTED,
    signal.SIGTERM: 128 + signal.SIGTERM,
    **({signal.SIGHUP: 128 + signal.SIGHUP} if hasattr(signal, "SIGHUP") else {}),
}


@attrs.frozen
class ConnectCommand:
    """The options of `trio-wspair connect`, checked."""

    url: str
    protocols: Sequence[str] = ()
    headers: Sequence[tuple[str, str]] = ()
    unix: str | None = None
    """The path of a Unix socket to connect to."""
    proxy: str | None = None
    no_proxy: bool = False
    """Whether the proxies of the environment are ignored."""
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
        """Send each line of the input, and print each message; return the exit status.

        Messages go to the standard output, everything else to the standard error, so
        that it works in a pipe.

        Raises:
            CommandError: There is no connection, or an option can't be used.
        """
        options = self._options()
        with open_stop(_STATUSES) as stop:
            async with open_service_nursery() as nursery:
                ws = None
                with trio.CancelScope() as connecting:
                    nursery.start_soon(_cancel_on, stop, connecting)
                    ws = await self._connect(nursery, options)
                    ws.accept(pull=True)
                if ws is not None:
                    return await self._converse(ws, stop)
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
        """Return the end of an error that names the variable with the proxy, if any."""
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
            msg = f"options for certificates need a wss:// URL, this one is {scheme}://"
            raise UsageError(msg)
        if self.insecure:
            print_warning(
                "--insecure: the certificate is not checked, so another machine can "
                "pretend to be the server, and read and change every message"
            )
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
        print_status(f"connected to {where}{chosen}", "dim")
        return ws

    async def _converse(self, ws: WebSocket, stop: Stop) -> int:
        """Send and print until the connection has ended; return the exit status."""
        sending = _Sending(ws, self.binary, self.wait)
        good = True
        with trio.CancelScope() as scope:
            async with open_service_nursery() as nursery:
                nursery.start_soon(sending.run)
                nursery.start_soon(_end_on, stop, sending, scope)
                status = await _print_messages(ws, sending)
                event = await ws.wait_closed()
                good = event.code in NORMAL_CODES and not sending.has_failed
                if status != READER_GONE:
                    print_status(_explained(event), "green" if good else "red")
                return stop.status or status or int(not good)
        assert stop.status is not None
        return stop.status


def _with_options(error: str) -> str:
    """Return an error of the library with options of the command as advice."""
    for advice, option in _IN_OPTIONS.items():
        error = error.replace(advice, option)
    return error


async def _cancel_on(stop: Stop, scope: trio.CancelScope) -> None:
    await stop.wait()
    scope.cancel(reason="a signal came")


async def _end_on(stop: Stop, sending: "_Sending", scope: trio.CancelScope) -> None:
    """At a signal, end the connection, with a closing handshake if there is time."""
    await stop.wait()
    sending.end()
    # A bound, as printing can block for ever if nothing reads the output.
    scope.deadline = trio.current_time() + _CLOSE_GRACE


@attrs.define
class _Sending:
    """The task that sends the standard input, line by line."""

    ws: WebSocket
    binary: bool
    wait: float
    has_failed: bool = False
    """Whether something was not sent; an error was printed then."""
    _number: int = 0
    """The number of lines that were read so far."""
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def run(self) -> None:
        """Send all lines, then close with 1000."""
        with self._scope:
            await self._send_lines()
            await trio.sleep(self.wait)
            self.ws.close(1000)

    def end(self) -> None:
        """Stop sending, and close with 1000."""
        self._scope.cancel(reason="the connection is being closed")
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
            pass  # The task that prints messages reports it.
        except OSError as exc:
            self._fail(f"can't read the standard input: {exc.strerror}")

    async def _send(self, line: bytes | None) -> None:
        self._number += 1
        if line is None:
            what = f"it has more than {_MAX_LINE_BYTES} bytes"
            self._fail(f"line {self._number} was not sent: {what}")
            return
        message: str | bytes = line
        if not self.binary:
            try:
                message = line.decode()
            except UnicodeDecodeError:
                what = "it is not UTF-8; --binary sends bytes"
                self._fail(f"line {self._number} was not sent: {what}")
                return
        self.ws.send(message)
        await self.ws.drain()

    def _fail(self, what: str) -> None:
        self.has_failed = True
        print_error(what)


class Lines:
    """Splits chunks of bytes into lines, in bounded time and memory.

    Lines end with a line feed, or with a carriage return and a line feed.

    Args:
        max_bytes: A longer line is dropped, and yielded as `None`.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._begun: list[bytes] = []
        """The pieces of the unfinished line."""
        self._size = 0

    @property
    def pending_bytes(self) -> int:
        """The size of what is kept of the unfinished line."""
        return sum(map(len, self._begun))

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """Yield the lines that end in this chunk."""
        *ends, begin = data.split(b"\n")
        for end in ends:
            self._add(end)
            yield self._take()
        self._add(begin)

    def end(self) -> Iterator[bytes | None]:
        """Yield the last line, if it has no line feed."""
        if self._size:
            yield self._take()

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max_bytes + 1:  # One more for a carriage return.
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
    # From the descriptor: a thread that reads sys.stdin would block the exit.
    return await trio.to_thread.run_sync(_read, abandon_on_cancel=True)


def _read() -> bytes:
    stdin = sys.stdin.fileno() if sys.stdin is not None else 0
    while True:
        try:
            return os.read(stdin, _READ_BYTES)
        except BlockingIOError:
            select.select([stdin], [], [])


async def _print_messages(ws: WebSocket, sending: _Sending) -> int:
    """Print each message; return an exit status, which is 0 if all were printed."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    status = 0
    with suppress(ConnectionClosedError):  # The caller prints how it has ended.
        async for message in ws:
            if status:
                continue  # Messages after a failed write are dropped.
            text = message if isinstance(message, str) else f"0x{message.hex()}"
            if is_terminal:
                text = coloured(f"< {escaped(text)}", "green", sys.stdout)
            try:
                await write_output(f"{text}\n")
            except BrokenPipeError:
                status = READER_GONE
                sending.end()
            except OSError as exc:
                status = 1
                print_error(f"can't write to the standard output: {exc.strerror}")
                sending.end()
    return status


def _explained(event: CloseEvent) -> str:
    """Return a line about the close code and reason, with the meaning of the code."""
    try:
        meaning = CloseCode(event.code).name.replace("_", " ").lower()
    except ValueError:
        meaning = "a code of the application" if event.code >= 3000 else "unregistered"
    reason = f": {event.reason}" if event.reason else ""
    return f"closed with {event.code} ({meaning}){reason}"

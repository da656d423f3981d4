"""The server of the soak test: a process that serves, and reports its numbers.

``python -m soak.server CERTIFICATE ENGINE``. The process answers each byte on its
standard input with a line of JSON. The end of the input stops it.
"""

import json
import logging
import os
import ssl
import sys
from collections import Counter
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import attrs
import trio
from engines import engine_of, using

from soak.behaviours import BEHAVIOURS, GRACE, Call, Planned, is_planned, relay
from soak.numbers import take_numbers
from trio_wspair import (
    CloseEvent,
    ErrorEvent,
    HandshakeError,
    Request,
    Response,
    Server,
    WebSocket,
    WebSocketPair,
    connect,
    serve,
)

LIMITS: Final[dict[str, Any]] = {
    "close_grace": 0.5,
    "handshake_timeout": 0.7,
    "idle_timeout": 0.2,
    "max_connections": 50,
    "max_message_bytes": 2**18,
    "ping_interval": 0.3,
    "ping_timeout": 0.5,
    "receive_buffer_bytes": 2**16,
}
"""Small limits, so that all of them are reached."""
PATHS: Final = [
    *BEHAVIOURS,
    "proxy",
    "relay",
    "refuse",
    "raise",
    "accept-raise",
    "cancel",
]
STOP_SECONDS: Final = 10.0
"""Seconds after which a server that doesn't stop counts as hanging."""


class Handlers:
    """The `fetch` handler, which counts the ends of its connections."""

    url: str
    """The URL of the server, for the handlers that connect to it."""

    def __init__(self) -> None:
        self.endings: Counter[str] = Counter()
        self.accepted = 0

    async def fetch(self, request: Request) -> Response:
        """Answer a request with the handler that its path names."""
        try:
            response = await self._answer(request)
        except Planned:
            self.endings["the handler raised"] += 1
            raise
        if response.web_socket is None:
            self.endings[f"HTTP {response.status}"] += 1
        return response

    async def _answer(self, request: Request) -> Response:
        if not request.wants_websocket:
            return Response("A WebSocket is required.\n", status=426)
        url = urlsplit(request.url)
        path = url.path.removeprefix("/")
        if path == "refuse":
            return Response("Not today.\n", status=403)
        if path == "raise":
            raise Planned
        upstream = None
        if path in ("proxy", "relay"):
            try:
                upstream = await connect(
                    f"{self.url}echo?{url.query}", close_grace=GRACE
                )
            except (HandshakeError, OSError) as exc:
                return Response(f"{exc}\n", status=502)
            if path == "proxy":
                return Response(None, status=101, web_socket=upstream)
        client, server = WebSocketPair(close_grace=GRACE, max_buffered_bytes=2**20)
        call = self._call(request, server, parse_qs(url.query))
        if upstream is not None:
            relay(call, upstream)
        elif path == "accept-raise":
            call.accept()
            raise Planned
        elif path == "cancel":
            call.accept()
            request.nursery.cancel_scope.cancel(reason="that is planned")
            await trio.lowlevel.checkpoint()
        else:
            BEHAVIOURS[path](call)
        return Response(None, status=101, web_socket=client)

    def _call(
        self, request: Request, half: WebSocket, query: dict[str, list[str]]
    ) -> Call:
        @half.on("error")
        def failed(event: ErrorEvent) -> None:
            self.endings[f"error event: {type(event.error).__name__}"] += 1

        @half.on("close")
        def closed(event: CloseEvent) -> None:
            manner = "clean" if event.was_clean else "not clean"
            self.endings[f"close event {event.code}, {manner}"] += 1

        def accept(*, pull: bool = False, allow_half_open: bool = False) -> None:
            half.accept(pull=pull, allow_half_open=allow_half_open)
            self.accepted += 1

        n, code = int(query["n"][0]), int(query["code"][0])
        return Call(request, half, n, code, accept)


class Log(logging.Handler):
    """Counts the log records, and keeps the records of faults."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.counts: Counter[str] = Counter()
        self.unplanned: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record."""
        exc = record.exc_info[1] if record.exc_info else None
        if exc is None:  # "REQUEST: ERROR": count the error.
            self.counts[record.getMessage().split(": ", 1)[-1]] += 1
        else:
            self.counts[f"failed: {', '.join(sorted(_names(exc)))}"] += 1
        if exc is not None and not is_planned(exc):
            self.unplanned.append(logging.Formatter().format(record))

    def note(self, unraisable: Any) -> None:
        """Record an unraisable error, such as a warning of a finalizer, as a fault."""
        self.unplanned.append(f"the server: {unraisable.exc_value!r}")


def _names(exc: BaseException) -> set[str]:
    if isinstance(exc, BaseExceptionGroup):
        return set().union(*map(_names, exc.exceptions))
    return {type(exc).__name__}


async def main(certificate: str) -> None:
    """Serve until the input ends."""
    log = Log()
    logging.getLogger("trio_wspair").addHandler(log)
    sys.unraisablehook = log.note
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    handlers = Handlers()
    start = partial(serve, handlers.fetch, 0, **LIMITS)
    stopping = trio.Event()
    async with trio.open_nursery() as watch:
        watch.start_soon(_limit_stop, stopping)
        async with trio.open_nursery() as nursery:
            plain: Server = await nursery.start(start)
            secure: Server = await nursery.start(partial(start, ssl_context=context))
            handlers.url = plain.url
            _reply({"plain": plain.url, "secure": secure.url})
            async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as questions:
                while await questions.receive_some(1):
                    numbers = attrs.asdict(take_numbers())
                    _reply(
                        {
                            "numbers": numbers,
                            "endings": handlers.endings,
                            "accepted": handlers.accepted,
                            "logged": log.counts,
                            "unplanned": log.unplanned,
                        }
                    )
            stopping.set()
            nursery.cancel_scope.cancel(reason="that was all")
        watch.cancel_scope.cancel(reason="the server has stopped")


async def _limit_stop(stopping: trio.Event) -> None:
    await stopping.wait()
    await trio.sleep(STOP_SECONDS)
    print("The server does not stop:", take_numbers().tasks, file=sys.stderr)
    os._exit(1)


def _reply(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    with using(engine_of(sys.argv[2])):
        trio.run(main, sys.argv[1])

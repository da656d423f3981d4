"""`Site`: an application on its real server, and the state of one client of it.

It runs the server, connects to it, and keeps the client's cookies, WebSockets and
records. `serve()` and `connect()` do HTTP and frames.

Each WebSocket has a record. The handler makes the server's half, in a task of the
server that has no record in its context. So a site opens one WebSocket at a time: the
next upgrade request at the server belongs to it, and the handler is called with its
record in use.
"""

import math
import re
import ssl
from collections.abc import Sequence
from functools import partial
from types import NoneType
from urllib.parse import urlsplit

import attrs
import trio
from trio.testing import MockClock

from trio_wspair._client.connecting import connect
from trio_wspair._client.dialing import Dialer
from trio_wspair._http.messages import (
    FetchHandler,
    Headers,
    HeadersInit,
    Request,
    Response,
)
from trio_wspair._http.urls import percent_encoded
from trio_wspair._pair.instruments import use_instrument
from trio_wspair._pair.websocket import WebSocket
from trio_wspair._rules.errors import HandshakeError
from trio_wspair._rules.limits import check_seconds
from trio_wspair._server.serving import serve

from ._failures import Expected, Failures, check_kinds
from ._record import Record, place_of
from ._recorded import check_pattern
from ._requests import (
    ConnectionOptions,
    Cookies,
    RequestError,
    RequestToSend,
    TestResponse,
    Transport,
)
from ._streams import MemoryPort

__all__ = ("Settings", "Site", "check_path")


@attrs.define(eq=False)
class _Opening:
    """A WebSocket that is being opened."""

    record: Record
    task: trio.lowlevel.Task | None = None
    """The task in which the handler runs, if it runs."""
    hint: str = ""
    """Where the handler waited when the time was over."""

    async def note_place(self, seconds: float, scope: trio.CancelScope) -> None:
        """After some seconds, note where the handler waits.

        When the client gives up, the handler is cancelled, and no longer waits there.
        """
        with scope:
            await trio.sleep(seconds)
            self.hint = "" if self.task is None else _hint_about(self.task)


def _hint_about(task: trio.lowlevel.Task) -> str:
    return (
        f": fetch has not returned yet, and waits{place_of(task)}. The client is "
        "connected only when fetch has returned: do what comes after that in a "
        "listener or in a task of request.nursery"
    )


@attrs.frozen
class Settings:
    """How client and server of a site are connected."""

    over: Transport
    within: float
    """Seconds that the client waits by default."""
    ssl_context: ssl.SSLContext | None
    """The client's context for TLS; `None` for no TLS."""
    server_ssl_context: ssl.SSLContext | None
    """The server's context."""
    options: ConnectionOptions
    """Options of both `serve()` and `connect()`."""


class Site:
    """A server, and the state of one client of it.

    Args:
        fetch: The handler.
        nursery: For the server, and for the client's connections.
        failures: The exceptions that handlers raise.
        settings: How client and server are connected.
    """

    def __init__(
        self,
        fetch: FetchHandler,
        nursery: trio.Nursery,
        failures: Failures,
        settings: Settings,
    ) -> None:
        self._handler = fetch
        self._nursery = nursery
        self.failures = failures
        self._settings = settings
        self.cookies: Cookies = Cookies()
        self.sockets: list[WebSocket] = []
        """All WebSockets that were opened. They are closed in the end."""
        self.records: list[Record] = []
        """The records of all WebSockets."""
        self._one_opening = trio.Lock()
        self._opening: _Opening | None = None
        """The WebSocket that is being opened, until the server has its request."""
        self._dial: Dialer = trio.open_tcp_stream
        self.origin: str = ""

    # -- the server ---------------------------------------------------------------

    async def start(self) -> None:
        """Start the server.

        Raises:
            ValueError: Sockets can't be used in virtual time.
        """
        clock = trio.lowlevel.current_clock()
        virtual = isinstance(clock, MockClock) and clock.autojump_threshold < math.inf
        if virtual and self._settings.over == "loopback":
            msg = (
                "over='loopback' (or websocket_transport) needs real time: a MockClock "
                "with an autojump_threshold does not wait for the network"
            )
            raise ValueError(msg)
        await self._nursery.start(self._start)

    async def _start(self, *, task_status: trio.TaskStatus[None]) -> None:
        # In a task with its own context: that of the block may be shared by several
        # clients, as in pytest-trio.
        self.failures.attribute()
        run = partial(
            serve,
            self._fetch,
            ssl_context=self._settings.server_ssl_context,
            **self._settings.options,
        )
        host = "localhost"
        if self._settings.over == "memory":
            port = MemoryPort()
            self._dial = port.dial
            await self._nursery.start(partial(run, listeners=[port]))
        else:
            server = await self._nursery.start(partial(run, 0))
            host = f"127.0.0.1:{server.port}"
        scheme = "http" if self._settings.server_ssl_context is None else "https"
        self.origin = f"{scheme}://{host}"
        task_status.started()

    async def _fetch(self, request: Request) -> Response:
        """Call the handler, with the record of its WebSocket in use."""
        if self._opening is None or "upgrade" not in request.headers:
            return await self._handler(request)
        opening, self._opening = self._opening, None
        opening.task = trio.lowlevel.current_task()
        try:
            with use_instrument(opening.record):
                response: object = await self._handler(request)
        finally:
            opening.task = None
        if isinstance(response, Response):  # `connect()` doesn't return its headers.
            self.cookies.keep(request.url, response.headers.pairs())
        return response  # type: ignore[return-value]

    # -- the client ---------------------------------------------------------------

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: HeadersInit,
        body: str | bytes | None,
        json: object,
        within: float | None,
    ) -> TestResponse:
        """See `TestClient`."""
        seconds = self._settings.within if within is None else within
        check_seconds("within", seconds)
        target = self._target(url)
        url = self.origin + target
        request = RequestToSend(
            method,
            url,
            target,
            host=urlsplit(url).netloc,
            headers=self._with_cookies(url, headers),
            body=body,
            json=json,
        )
        with trio.move_on_after(seconds) as scope:
            stream = await self._open_stream()
            try:
                await request.send(stream)
            finally:
                with trio.CancelScope(shield=True):  # Never waits.
                    await trio.aclose_forcefully(stream)
        response = request.response
        if scope.cancelled_caught:
            what = f"{request}: no complete response within {seconds} s"
            if response is not None:
                size = len(response.body)
                what += f", only status {response.status} and {size:,} bytes of a body"
            raise RequestError(what, response)
        assert response is not None
        self.cookies.keep(url, response.headers.pairs())
        return response

    async def _open_stream(self) -> trio.abc.Stream:
        parts = urlsplit(self.origin)
        assert parts.hostname is not None
        stream = await self._dial(parts.hostname, parts.port or 0)
        if self._settings.ssl_context is None:
            return stream
        return trio.SSLStream(
            stream,
            self._settings.ssl_context,
            server_hostname=parts.hostname,
            https_compatible=True,
        )

    def _target(self, url: str) -> str:
        """Return the path and the query of a URL of this server.

        Raises:
            TypeError: It isn't a str.
            ValueError: It is of another server, or has a fragment.
        """
        if not isinstance(url, str):
            msg = f"a URL is a str such as '/chat?room=1', not {type(url).__name__}"
            raise TypeError(msg)
        path = url.removeprefix(self.origin) or "/"
        if not path.startswith("/"):
            msg = (
                "a URL is a path such as '/chat?room=1', or a URL of this server, "
                f"{self.origin}; not {url!r}"
            )
            raise ValueError(msg)
        if "#" in path:
            msg = f"leave out the fragment (from '#' on) of {url!r}: it is never sent"
            raise ValueError(msg)
        return percent_encoded(path)

    def _with_cookies(self, url: str, headers: HeadersInit) -> Headers:
        sent = Headers(headers)
        values = [self.cookies.header(url), *sent.get_all("cookie")]
        cookie = "; ".join(value for value in values if value)
        if cookie:
            sent["Cookie"] = cookie
        return sent

    async def open_websocket(
        self,
        path: str,
        *,
        protocols: str | Sequence[str] = (),
        headers: HeadersInit = (),
        names: tuple[str, str] = ("client", "server"),
        within: float | None = None,
    ) -> tuple[WebSocket, Record, float]:
        """Open a WebSocket in pull mode.

        Returns:
            The WebSocket, its record, and the seconds that it waits by default.
        """
        seconds = self._settings.within if within is None else within
        check_seconds("within", seconds)
        check_path(path)
        record = Record(names)
        url = self.origin + path
        sent = self._with_cookies(url, headers)
        async with self._one_opening:
            self._opening = opening = _Opening(record)
            watch = trio.CancelScope()
            self._nursery.start_soon(opening.note_place, seconds, watch)
            try:
                socket = await self._connect(url, protocols, sent, record, seconds)
            except HandshakeError as exc:
                self.cookies.keep(url, exc.headers)
                if opening.hint and exc.status is None:
                    msg = f"{exc}{opening.hint}"
                    raise HandshakeError(msg) from None
                # The place where the client read the answer doesn't help a test.
                exc.__traceback__ = None
                raise
            finally:
                self._opening = None
                watch.cancel(reason="the WebSocket is open, or can't be opened")
        self.sockets.append(socket)
        self.records.append(record)
        socket.accept(pull=True)
        return socket, record, seconds

    async def _connect(
        self,
        url: str,
        protocols: str | Sequence[str],
        headers: Headers,
        record: Record,
        seconds: float,
    ) -> WebSocket:
        async def run(*, task_status: trio.TaskStatus[WebSocket]) -> None:
            with use_instrument(record):  # In a task with its own context.
                socket = await connect(
                    "ws" + url.removeprefix("http"),
                    nursery=self._nursery,
                    protocols=protocols,
                    headers=headers,
                    dial=self._dial,
                    ssl_context=self._settings.ssl_context,
                    connect_timeout=seconds,
                    **self._settings.options,
                )
            task_status.started(socket)

        socket: WebSocket = await self._nursery.start(run)
        return socket

    async def expect_failure(
        self,
        expected: Expected,
        match: str | re.Pattern[str] | None,
        within: float | None,
    ) -> Exception:
        """See `TestClient`."""
        seconds = self._settings.within if within is None else within
        check_seconds("within", seconds)
        check_kinds(expected)
        if not isinstance(match, (str, re.Pattern, NoneType)):
            msg = f"match is a str or a pattern, not {type(match).__name__}"
            raise TypeError(msg)
        check_pattern("match", match)
        pattern = None if match is None else re.compile(match)
        failure = await self.failures.expect(expected, pattern, seconds)
        if failure is not None:
            return failure
        kinds = expected if isinstance(expected, tuple) else (expected,)
        what = " or ".join(kind.__name__ for kind in kinds)
        what += "" if match is None else f" that matches {match!r}"
        others = ", ".join(map(repr, self.failures.pending()))
        came = f"it raised {others}" if others else "it raised nothing"
        msg = f"expected the handler to raise {what} within {seconds} s, but {came}"
        raise AssertionError(msg)


def check_path(path: str) -> None:
    if not isinstance(path, str):
        msg = f"path is a str such as '/chat?room=1', not {type(path).__name__}"
        raise TypeError(msg)
    if not path.startswith("/"):
        msg = f"path must begin with a slash, such as '/chat?room=1', not {path!r}"
        raise ValueError(msg)

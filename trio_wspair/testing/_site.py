"""`Site`: an application on its real server, and what one client of it keeps.

It runs the server and reaches it, and keeps the client's cookies, its WebSockets, and
what handlers have raised for it.

Each WebSocket has a record. The server's half is made by the handler, in a task of the
server that knows nothing of records. So a site opens one WebSocket at a time: the next
upgrade that its server gets belongs to it, and the handler is called with that record
in use. What is said in HTTP and in frames is left to `serve()` and `connect()`.
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

__all__ = ("Site", "check_path")


@attrs.define(eq=False)
class _Opening:
    """A WebSocket that is being opened."""

    record: Record
    task: trio.lowlevel.Task | None = None
    """In which the handler runs, while it does."""
    waits: str = ""
    """Where the handler waited when the time was over."""

    async def look(self, seconds: float, scope: trio.CancelScope) -> None:
        """See where the handler waits after so many seconds.

        Once the client has given up, the handler is cancelled, and the place is lost.
        """
        with scope:
            await trio.sleep(seconds)
            self.waits = "" if self.task is None else _what_waits(self.task)


def _what_waits(task: trio.lowlevel.Task) -> str:
    return (
        f": fetch has not returned yet, and waits{place_of(task)}. The client is "
        "connected only when fetch returns; what goes on after that belongs into a "
        "listener or a task of request.nursery"
    )


class Site:
    """A server, and what one client of it keeps.

    Args:
        fetch: The handler.
        nursery: For the server, and for the client's connections.
        failures: Where what handlers raise is heard.
        over: How the server is reached.
        within: Seconds that the client waits, unless it says otherwise.
        ssl_context: For the client's side of TLS; `None` for none.
        server_ssl_context: For the server's side.
        options: Of both sides.
    """

    def __init__(
        self,
        fetch: FetchHandler,
        nursery: trio.Nursery,
        failures: Failures,
        *,
        over: Transport,
        within: float,
        ssl_context: ssl.SSLContext | None,
        server_ssl_context: ssl.SSLContext | None,
        options: ConnectionOptions,
    ) -> None:
        self._handler = fetch
        self._nursery = nursery
        self.failures = failures
        self._over = over
        self._within = within
        self._ssl_context = ssl_context
        self._server_ssl_context = server_ssl_context
        self._options = options
        self.cookies: Cookies = Cookies()
        self.sockets: list[WebSocket] = []
        """All that were opened, for closing."""
        self.records: list[Record] = []
        """Of all WebSockets."""
        self._one_opening = trio.Lock()
        self._opening: _Opening | None = None
        """Of the WebSocket that is being opened, until its request has come."""
        self._dial: Dialer = trio.open_tcp_stream
        self.origin: str = ""

    # -- the server ---------------------------------------------------------------

    async def start(self) -> None:
        """Start the server.

        Raises:
            ValueError: It would be reached through sockets, in virtual time.
        """
        clock = trio.lowlevel.current_clock()
        virtual = isinstance(clock, MockClock) and clock.autojump_threshold < math.inf
        if virtual and self._over == "loopback":
            msg = (
                "over='loopback' (or websocket_transport) is for real time: a "
                "MockClock with an autojump_threshold runs ahead of the network"
            )
            raise ValueError(msg)
        await self._nursery.start(self._start)

    async def _start(self, *, task_status: trio.TaskStatus[None]) -> None:
        # A task, as the context of the block may be shared: pytest-trio does that.
        self.failures.attribute()
        run = partial(
            serve,
            self._fetch,
            ssl_context=self._server_ssl_context,
            **self._options,
        )
        host = "localhost"
        if self._over == "memory":
            port = MemoryPort()
            self._dial = port.dial
            await self._nursery.start(partial(run, listeners=[port]))
        else:
            server = await self._nursery.start(partial(run, 0))
            host = f"127.0.0.1:{server.port}"
        scheme = "http" if self._server_ssl_context is None else "https"
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
        if isinstance(response, Response):  # `connect()` does not tell its headers.
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
        seconds = self._within if within is None else within
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
        with trio.move_on_after(seconds) as patience:
            stream = await self._open_stream()
            try:
                await request.send(stream)
            finally:
                with trio.CancelScope(shield=True):  # Never waits.
                    await trio.aclose_forcefully(stream)
        response = request.response
        if patience.cancelled_caught:
            what = f"{request}: no whole response within {seconds} s"
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
        if self._ssl_context is None:
            return stream
        return trio.SSLStream(
            stream,
            self._ssl_context,
            server_hostname=parts.hostname,
            https_compatible=True,
        )

    def _target(self, url: str) -> str:
        """Return the path and the query of a URL of this server.

        Raises:
            TypeError: It is no str.
            ValueError: It is of another server, or has a fragment.
        """
        if not isinstance(url, str):
            msg = f"a URL is a str such as '/chat?room=1', not {type(url).__name__}"
            raise TypeError(msg)
        path = url.removeprefix(self.origin) or "/"
        if not path.startswith("/"):
            msg = (
                "a URL is a path such as '/chat?room=1', or one of this server, "
                f"{self.origin}; not {url!r}"
            )
            raise ValueError(msg)
        if "#" in path:
            msg = f"a request has no '#fragment', as {url!r} has"
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
        """Open a WebSocket in pull mode, and return the seconds that it waits, too."""
        seconds = self._within if within is None else within
        check_seconds("within", seconds)
        check_path(path)
        record = Record(names)
        url = self.origin + path
        sent = self._with_cookies(url, headers)
        async with self._one_opening:
            self._opening = opening = _Opening(record)
            watch = trio.CancelScope()
            self._nursery.start_soon(opening.look, seconds, watch)
            try:
                socket = await self._connect(url, protocols, sent, record, seconds)
            except HandshakeError as exc:
                self.cookies.keep(url, exc.headers)
                if opening.waits and exc.status is None:
                    msg = f"{exc}{opening.waits}"
                    raise HandshakeError(msg) from None
                # Where the answer was read is of no use to a test.
                exc.__traceback__ = None
                raise
            finally:
                self._opening = None
                watch.cancel(reason="it is open, or can't be opened")
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
            with use_instrument(record):  # In a task, as in `_start()`.
                socket = await connect(
                    "ws" + url.removeprefix("http"),
                    nursery=self._nursery,
                    protocols=protocols,
                    headers=headers,
                    dial=self._dial,
                    ssl_context=self._ssl_context,
                    connect_timeout=seconds,
                    **self._options,
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
        seconds = self._within if within is None else within
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
        msg = f"path begins with a slash, such as '/chat?room=1'; this is {path!r}"
        raise ValueError(msg)

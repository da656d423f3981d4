"""`open_test_client()`: an application on its real server, and a client of it.

Who does what: `_Site` runs the server and reaches it, with what one client keeps: its
cookies, its WebSockets, and what handlers have raised for it. `TestClient` and
`TestWebSocket` are the two faces of a site: a client that has no WebSocket of its own,
and a WebSocket that was opened by one.

A path decides which of the two `open_test_client()` gives. Most tests are of one
conversation, which has to take one line; tests of pages have no WebSocket; and tests of
a login make requests before they open one. Either face can do what a client can.

Each WebSocket has a record. The server's half is made by the handler, in a task of the
server that knows nothing of records. So a site opens one WebSocket at a time: the next
upgrade that its server gets belongs to it, and the handler is called with that record
in use. What is said in HTTP and in frames is left to `serve()` and `connect()`.
"""

import re
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
)
from functools import partial
from typing import Final, Literal, Protocol, TypedDict, Unpack, overload
from urllib.parse import urlsplit

import trio

from trio_wspair._application import Application, open_application
from trio_wspair._checks import check_seconds
from trio_wspair._client import connect
from trio_wspair._dialing import Dialer
from trio_wspair._errors import HandshakeError
from trio_wspair._http import FetchHandler, Headers, HeadersInit, Request, Response
from trio_wspair._instruments import use_instrument
from trio_wspair._nurseries import open_service_nursery, raise_together
from trio_wspair._pair import closing_on_exit
from trio_wspair._server import serve
from trio_wspair._socket import WebSocket
from trio_wspair._tls import check_ssl_context
from trio_wspair._urls import percent_encoded
from trio_wspair.transports._engines import EngineName

from ._cookies import Cookies
from ._failures import Expected, Failures, hearing_failures
from ._memory import MemoryPort
from ._record import Record
from ._recorded import DEFAULT_WITHIN, RecordedWebSocket, tell, telling, tells
from ._requests import RequestError, RequestToSend, TestResponse

__all__ = (
    "ClientOptions",
    "ConnectionOptions",
    "FirstWebSocketOptions",
    "OpenClient",
    "ReplayOptions",
    "RequestOptions",
    "TestClient",
    "TestWebSocket",
    "Transport",
    "WebSocketOptions",
    "open_test_client",
)

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
    """The options of `open_test_client()` without a WebSocket, but for `over`."""

    within: float
    ssl_context: ssl.SSLContext | None
    server_ssl_context: ssl.SSLContext | None


class ReplayOptions(ClientOptions, total=False):
    """Those with a WebSocket, but for `over` and `names`."""

    protocols: str | Sequence[str]
    headers: HeadersInit


class WebSocketOptions(TypedDict, total=False):
    """What can be said about one more WebSocket of a test client."""

    protocols: str | Sequence[str]
    headers: HeadersInit
    names: tuple[str, str]
    within: float


class FirstWebSocketOptions(ReplayOptions, total=False):
    """Those with a WebSocket, but for `over`."""

    names: tuple[str, str]


class RequestOptions(TypedDict, total=False):
    """What a request can have, beside its method and its URL."""

    headers: HeadersInit
    body: str | bytes | None
    json: object
    within: float | None


class _Requests:
    """What a client of a site can do, whether it is a WebSocket itself or not."""

    __slots__ = ()
    __test__ = False  # It is no class of tests, whatever pytest takes from its name.
    _site: "_Site"

    @property
    def origin(self) -> str:
        """The origin of the server, such as ``"http://localhost"``."""
        return self._site.origin

    @property
    def cookies(self) -> dict[str, str]:
        """A copy of the cookies that this client keeps, by name."""
        return self._site.cookies.values()

    @property
    def records(self) -> Sequence[Record]:
        """The records of the WebSockets that this client has opened, in order."""
        return self._site.records

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: HeadersInit = (),
        body: str | bytes | None = None,
        json: object = ...,
        within: float | None = None,
    ) -> TestResponse:
        """Make an HTTP request to the server, on a connection of its own.

        Cookies are sent and kept as a browser does, also for later WebSockets of this
        client. A redirect is a response like any other. Always a checkpoint.

        Args:
            method: Such as ``"GET"``.
            url: The path, and after a ``?`` the query; or a whole URL of this server.
            headers: More headers. ``Host`` replaces the own one, and ``Cookie`` is
                sent in addition to the cookies that are kept.
            body: Text, which is sent as UTF-8 with a matching ``Content-Type``; or
                bytes.
            json: A value that is sent as JSON, instead of a body.
            within: Seconds for the whole response; by default those of the client.

        Raises:
            RequestError: There was no whole response in time, or it was broken off, or
                its body has more than 32 MiB. It has what has come of it.
            TypeError: An argument is of another type.
            ValueError: The request can't be sent, or goes to another server.
        """
        return await self._site.request(
            method, url, headers=headers, body=body, json=json, within=within
        )

    async def get(self, url: str, **options: Unpack[RequestOptions]) -> TestResponse:
        """Make a GET request; see `request()`."""
        return await self.request("GET", url, **options)

    async def post(self, url: str, **options: Unpack[RequestOptions]) -> TestResponse:
        """Make a POST request; see `request()`."""
        return await self.request("POST", url, **options)

    async def put(self, url: str, **options: Unpack[RequestOptions]) -> TestResponse:
        """Make a PUT request; see `request()`."""
        return await self.request("PUT", url, **options)

    async def patch(self, url: str, **options: Unpack[RequestOptions]) -> TestResponse:
        """Make a PATCH request; see `request()`."""
        return await self.request("PATCH", url, **options)

    async def delete(self, url: str, **options: Unpack[RequestOptions]) -> TestResponse:
        """Make a DELETE request; see `request()`."""
        return await self.request("DELETE", url, **options)

    async def open_websocket(
        self, path: str, **options: Unpack[WebSocketOptions]
    ) -> "TestWebSocket":
        """Open one more WebSocket of this client, with a record of its own.

        It is accepted in pull mode, and is closed with the client at the latest. It
        sends the cookies of the client. Always a checkpoint.

        Args:
            path: The path, and after a ``?`` the query.
            options: `protocols`, `headers`, `names` and `within`, as for
                `open_test_client()`.

        Raises:
            HandshakeError: The handler has refused, or not answered in time.
            TypeError: An argument is of another type.
            ValueError: An argument is out of range.
        """
        return await self._site.open_websocket(path, **options)

    async def expect_handler_error(
        self,
        expected: Expected = Exception,
        match: str | re.Pattern[str] | None = None,
        *,
        within: float | None = None,
    ) -> Exception:
        """Wait until the application has raised this, so that it doesn't fail the test.

        It counts what was raised in `fetch`, in a listener, in a task in
        ``request.nursery``, and in a Durable Object, before this call or after it. One
        call takes one failure. Always a checkpoint.

        Args:
            expected: The type of the exception, or several in a tuple.
            match: A pattern that is found in its text, as by `re.search()`.
            within: Seconds in which it has to be raised; by default those of the
                client.

        Returns:
            The exception.

        Raises:
            AssertionError: It was not raised. Of a WebSocket it is a
                `ConversationError`.
        """
        return await self._site.expect_failure(expected, match, within)


class TestClient(_Requests):
    """A client of an application: HTTP requests, cookies and WebSockets."""

    __slots__ = ("_site",)

    def __init__(self, site: "_Site") -> None:
        self._site = site

    def __repr__(self) -> str:
        return f"<TestClient of {self.origin}>"


class TestWebSocket(_Requests, RecordedWebSocket):
    """A WebSocket of a test client, which can also make that client's requests."""

    __slots__ = ("_site",)

    def __init__(
        self, socket: WebSocket, record: Record, within: float, site: "_Site"
    ) -> None:
        super().__init__(socket, record, within)
        self._site = site

    async def expect_handler_error(
        self,
        expected: Expected = Exception,
        match: str | re.Pattern[str] | None = None,
        *,
        within: float | None = None,
    ) -> Exception:
        """See `TestClient.expect_handler_error()`."""
        within = self._within if within is None else within
        try:
            return await self._site.expect_failure(expected, match, within)
        except AssertionError as exc:
            raise self._failure(str(exc)) from None


class _Site:
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
        self._opening: Record | None = None
        """Of the WebSocket that is being opened, until its request has come."""
        self._dial: Dialer = trio.open_tcp_stream
        self.origin: str = ""

    # -- the server ---------------------------------------------------------------

    async def start(self) -> None:
        """Start the server."""
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
        record, self._opening = self._opening, None
        with use_instrument(record):
            response: object = await self._handler(request)
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
    ) -> TestWebSocket:
        """See `TestClient`."""
        seconds = self._within if within is None else within
        check_seconds("within", seconds)
        _check_path(path)
        record = Record(names)
        url = self.origin + path
        sent = self._with_cookies(url, headers)
        async with self._one_opening:
            self._opening = record
            try:
                socket = await self._connect(url, protocols, sent, record, seconds)
            except HandshakeError as exc:
                self.cookies.keep(url, exc.headers)
                raise
            finally:
                self._opening = None
        self.sockets.append(socket)
        self.records.append(record)
        socket.accept(pull=True)
        return TestWebSocket(socket, record, seconds, self)

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


@overload
def open_test_client(
    app: Application,
    path: None = None,
    *,
    over: Transport = "memory",
    **options: Unpack[ClientOptions],
) -> AbstractAsyncContextManager[TestClient]: ...
@overload
def open_test_client(
    app: Application,
    path: str,
    *,
    over: Transport = "memory",
    **options: Unpack[FirstWebSocketOptions],
) -> AbstractAsyncContextManager[TestWebSocket]: ...
def open_test_client(
    app: Application,
    path: str | None = None,
    *,
    over: Transport = "memory",
    protocols: str | Sequence[str] = (),
    headers: HeadersInit = (),
    names: tuple[str, str] = ("client", "server"),
    within: float = DEFAULT_WITHIN,
    ssl_context: ssl.SSLContext | None = None,
    server_ssl_context: ssl.SSLContext | None = None,
    **options: Unpack[ConnectionOptions],
) -> AbstractAsyncContextManager[TestClient | TestWebSocket]:
    """Serve an application, and open a client of it.

    With a path, as in ``async with open_test_client(fetch, "/chat") as client:``, it
    opens a WebSocket, and gives its half with a record, accepted in pull mode as by
    `open_websocket()`. Without one, it gives a `TestClient`, for HTTP requests and for
    as many WebSockets as `TestClient.open_websocket()` opens. A WebSocket can do all
    that a `TestClient` can.

    It is the real server and the real client, handshakes and frames included, on
    streams in memory: in virtual time if the test has a `trio.testing.MockClock`. A
    client has cookies of its own, like a browser. Several clients of one handler are
    several blocks, each with a server of its own. An application that has to be opened
    is opened once for all of them: ``async with application() as fetch``.

    On leaving, the WebSockets are closed with 1000, or 1011 when the block has raised,
    and the server stops. Leaving takes a few times `close_grace` at most, whatever the
    handler does that can be cancelled.

    What the application raises is logged and seen by the client as ever: in `fetch`, in
    a listener, in a task in ``request.nursery``, or in a Durable Object. Besides, it
    comes out of the block at its end, so that a test can't pass by mistake, unless
    `expect_handler_error()` has taken it: as it is, or in an `ExceptionGroup`, before
    what the block itself has raised. What comes out has the conversation as a note.

    Args:
        app: The handler or another application, as for `serve()`. What has to be opened
            is open until the client is closed.
        path: Where to open a WebSocket: the path, and after a ``?`` the query. `None`
            for none.
        over: ``"memory"``, or ``"loopback"`` for sockets on 127.0.0.1.
        protocols: The subprotocols to offer; ``client.protocol`` tells which one. This
            and the next two are for the WebSocket at `path`.
        headers: More headers for its request.
        names: What its record calls the client and the handler.
        within: Seconds for a handshake or a response, and that an ``expect...()`` waits
            if nothing else is said.
        ssl_context: For TLS: with which the client checks the server, which is called
            localhost or, over loopback, 127.0.0.1.
        server_ssl_context: For TLS: that of the server. Both are given, or none.
        options: Those that `serve()` and `connect()` share, for both: `close_grace`,
            which is 1 s here, `max_message_bytes`, `receive_buffer_bytes`,
            `ping_interval`, `ping_timeout`, `engine` and `compression`.

    Raises:
        HandshakeError: The handler has refused, or not answered in time.
        InvalidStateError: `logging.disable()` hides what handlers raise.
        TypeError: An argument is of another type, or there is no path for it.
        ValueError: An argument is out of range.
        ImportError: The extra for the engine is not installed.
    """
    check_seconds("within", within)
    if over not in ("memory", "loopback"):
        msg = f"over is 'memory' or 'loopback', not {over!r}"
        raise ValueError(msg)
    check_ssl_context(ssl_context, server=False)
    check_ssl_context(server_ssl_context, server=True)
    if (ssl_context is None) is not (server_ssl_context is None):
        msg = "TLS needs two contexts: ssl_context for the client, server_ssl_context"
        raise TypeError(msg)
    opening = None
    if path is not None:
        _check_path(path)
        opening = partial(
            _Site.open_websocket,
            path=path,
            protocols=protocols,
            headers=headers,
            names=names,
        )
    elif protocols or headers or names != ("client", "server"):
        msg = (
            "protocols, headers and names are those of a WebSocket: pass its path, too"
        )
        raise TypeError(msg)
    grace = options.setdefault("close_grace", _CLOSE_GRACE)
    site = partial(
        _Site,
        over=over,
        within=within,
        ssl_context=ssl_context,
        server_ssl_context=server_ssl_context,
        options=options,
    )
    return _open(app, site, opening, grace)


class OpenClient(Protocol):
    """What the fixture `websocket_client` is."""

    @overload
    async def __call__(
        self, app: Application, path: None = None, **options: Unpack[ClientOptions]
    ) -> TestClient: ...
    @overload
    async def __call__(
        self, app: Application, path: str, **options: Unpack[FirstWebSocketOptions]
    ) -> TestWebSocket: ...
    async def __call__(
        self,
        app: Application,
        path: str | None = None,
        **options: Unpack[FirstWebSocketOptions],
    ) -> TestClient | TestWebSocket:
        """Serve an application, and open a client of it; see `open_test_client()`."""
        ...


@asynccontextmanager
async def _open(
    app: Application,
    make_site: Callable[[FetchHandler, trio.Nursery, Failures], _Site],
    open_first: Callable[[_Site], Awaitable[TestWebSocket]] | None,
    grace: float,
) -> AsyncGenerator[TestClient | TestWebSocket, None]:
    records: list[Record] = []
    with hearing_failures(records) as failures, _raising(failures, records):
        async with open_application(app) as fetch, open_service_nursery() as nursery:
            failures.go_on_hearing()  # The application may have set up its log.
            site = make_site(fetch, nursery, failures)
            site.records = records
            await site.start()
            async with closing_on_exit(site.sockets, grace=grace):
                client: TestClient | TestWebSocket = TestClient(site)
                if open_first is not None:
                    try:
                        client = await open_first(site)
                    except HandshakeError:
                        # It is the answer to what the handler has raised, if it has.
                        raise_together([*failures.take_rest()])
                        raise
                with telling(records):
                    yield client


@contextmanager
def _raising(
    failures: Failures, records: Sequence[Record]
) -> Generator[None, None, None]:
    """Raise what handlers have raised after the block, before what that raises."""
    raised: list[BaseException] = []
    try:
        yield
    except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised below
        raised.append(exc)
    unexpected = failures.take_rest()
    if unexpected and not any(map(tells, raised)):
        for record in records:
            record._stop_drawing_at_failure(unexpected[0])
        tell(unexpected[0], records)
    raised[:0] = unexpected
    raise_together(raised, "the handler and the test have raised")


def _check_path(path: str) -> None:
    if not isinstance(path, str):
        msg = f"path is a str such as '/chat?room=1', not {type(path).__name__}"
        raise TypeError(msg)
    if not path.startswith("/"):
        msg = f"path begins with a slash, such as '/chat?room=1'; this is {path!r}"
        raise ValueError(msg)

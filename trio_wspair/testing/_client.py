"""`open_test_client()`: an application on its real server, and a client of it.

A `Site` runs the server and does the client's work. A test uses it through one of two
classes: a `TestClient`, or a `TestWebSocket` that can do all that a client can.

The argument `path` decides which of them `open_test_client()` yields. Most tests check
one conversation, which should take one line to open; tests of pages need no WebSocket;
and tests of a login make requests before they open one.
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
from typing import Final, Protocol, Unpack, overload

from trio_wspair._http.messages import HeadersInit
from trio_wspair._pair.pair import closing_on_exit
from trio_wspair._pair.websocket import WebSocket
from trio_wspair._rules.errors import HandshakeError
from trio_wspair._rules.limits import check_seconds
from trio_wspair._server.application import Application, open_application
from trio_wspair._tasks.nurseries import open_service_nursery, raise_together
from trio_wspair.transports.io._tls import check_ssl_context

from ._failures import Expected, Failures, collect_failures
from ._record import Record
from ._recorded import (
    DEFAULT_WITHIN,
    RecordedWebSocket,
    add_notes,
    adding_notes,
    shows_conversation,
)
from ._requests import (
    ClientOptions,
    ConnectionOptions,
    FirstWebSocketOptions,
    RequestOptions,
    TestResponse,
    Transport,
    WebSocketOptions,
    check_options,
)
from ._site import Settings, Site, check_path

__all__ = ("OpenClient", "TestClient", "TestWebSocket", "open_test_client")

_CLOSE_GRACE: Final = 1.0


class _Requests:
    """The requests of a client, for `TestClient` and `TestWebSocket`."""

    __slots__ = ()
    __test__ = False  # pytest takes classes named Test... for classes of tests.
    _site: Site

    @property
    def origin(self) -> str:
        """The origin of the server, such as ``"http://localhost"``."""
        return self._site.origin

    @property
    def cookies(self) -> dict[str, str]:
        """A copy of this client's cookies, by name."""
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
        """Make an HTTP request to the server, on a new connection.

        Cookies are kept and sent as by a browser, for later requests and WebSockets of
        this client. Redirects are returned, not followed. Always a checkpoint.

        Args:
            method: Such as ``"GET"``. It is sent in upper case.
            url: The path with an optional query, or a whole URL of this server.
            headers: More headers. ``Host`` replaces the default, and ``Cookie`` is
                sent in addition to the client's cookies.
            body: A str, which is sent as UTF-8 with a matching ``Content-Type``; or
                bytes.
            json: A value that is sent as JSON, in place of a body.
            within: Seconds for the whole response; the client's by default.

        Raises:
            RequestError: There was no complete response in time, or its body has more
                than 32 MiB. Its `response` is the part that was received.
            TypeError: An argument is of another type.
            ValueError: The request can't be sent, or its URL is of another server.
        """
        return await self._site.request(
            method, url, headers=headers, body=body, json=json, within=within
        )

    async def get(self, url: str, **options: Unpack[RequestOptions]) -> TestResponse:
        """Make a GET request; see `request()`."""
        return await self._request("get", url, options)

    async def post(self, url: str, **options: Unpack[RequestOptions]) -> TestResponse:
        """Make a POST request; see `request()`."""
        return await self._request("post", url, options)

    async def put(self, url: str, **options: Unpack[RequestOptions]) -> TestResponse:
        """Make a PUT request; see `request()`."""
        return await self._request("put", url, options)

    async def patch(self, url: str, **options: Unpack[RequestOptions]) -> TestResponse:
        """Make a PATCH request; see `request()`."""
        return await self._request("patch", url, options)

    async def delete(self, url: str, **options: Unpack[RequestOptions]) -> TestResponse:
        """Make a DELETE request; see `request()`."""
        return await self._request("delete", url, options)

    async def _request(
        self, verb: str, url: str, options: RequestOptions
    ) -> TestResponse:
        check_options(verb, options, RequestOptions)
        return await self.request(verb, url, **options)

    async def open_websocket(
        self, path: str, **options: Unpack[WebSocketOptions]
    ) -> "TestWebSocket":
        """Open another WebSocket of this client, with another record.

        It is accepted in pull mode, and closed with the client at the latest. Its
        request has the client's cookies. Always a checkpoint.

        Args:
            path: The path, with an optional query.
            options: `protocols`, `headers`, `names` and `within`, as for
                `open_test_client()`.

        Raises:
            HandshakeError: The handler has refused it, or not answered in time.
            TypeError: An argument is of another type.
            ValueError: An argument is out of range.
        """
        check_options("open_websocket", options, WebSocketOptions)
        return await _open_websocket(self._site, path, **options)

    async def expect_handler_error(
        self,
        expected: Expected = Exception,
        match: str | re.Pattern[str] | None = None,
        *,
        within: float | None = None,
    ) -> Exception:
        """Wait for an exception of the application, so that it doesn't fail the test.

        It may be raised in `fetch`, in a listener, in a task in ``request.nursery`` or
        in a Durable Object, before this call or after it. One call takes one exception.
        Always a checkpoint.

        Args:
            expected: The type of the exception, or several in a tuple.
            match: A pattern that is found in its text, as by `re.search()`.
            within: Seconds to wait for it; the client's by default.

        Returns:
            The exception.

        Raises:
            AssertionError: It was not raised in time. `TestWebSocket` raises a
                `ConversationError`.
            TypeError: An argument is of another type.
        """
        return await self._site.expect_failure(expected, match, within)


class TestClient(_Requests):
    """A client of an application: HTTP requests, cookies and WebSockets."""

    __slots__ = ("_site",)

    def __init__(self, site: Site) -> None:
        self._site = site

    def __repr__(self) -> str:
        return f"<TestClient of {self.origin}>"


class TestWebSocket(_Requests, RecordedWebSocket):
    """A WebSocket of a test client, which can also make that client's requests."""

    __slots__ = ("_site",)

    def __init__(
        self, socket: WebSocket, record: Record, within: float, site: Site
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
        __tracebackhide__ = True
        within = self._within if within is None else within
        try:
            return await self._site.expect_failure(expected, match, within)
        except AssertionError as exc:
            raise self._failure(str(exc)) from None


async def _open_websocket(
    site: Site, path: str, **options: Unpack[WebSocketOptions]
) -> TestWebSocket:
    socket, record, within = await site.open_websocket(path, **options)
    return TestWebSocket(socket, record, within, site)


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
    opens a WebSocket, and yields its half with a record, accepted in pull mode. Without
    a path, it yields a `TestClient`, for HTTP requests and any number of WebSockets
    from `TestClient.open_websocket()`. The `TestWebSocket` can do these things, too.

    Client and server are the real ones, with handshakes and frames, on streams in
    memory: in virtual time if the test has a `trio.testing.MockClock`. Each client has
    its own cookies, like a browser, and its own server. To test several clients of one
    application that has to be opened, open it first (``async with application() as
    fetch``), then open several clients of ``fetch``.

    On leaving, the WebSockets are closed with 1000, or with 1011 when the block has
    raised, and the server stops. If the handler can be cancelled, leaving takes at most
    a few times `close_grace`.

    When the application raises an exception (in `fetch`, in a listener, in a task in
    ``request.nursery``, or in a Durable Object), it is logged, and the client sees what
    any client would see. In addition, leaving the block raises the exception, so that
    no test passes by mistake, unless `expect_handler_error()` has taken it. Several
    exceptions, also those of the block, are raised as an `ExceptionGroup`, with those
    of the application first. The conversation is added as a note.

    Args:
        app: The handler or another application, as for `serve()`. An application that
            has to be opened is open until the client is closed.
        path: The path of a WebSocket to open, with an optional query; `None` to open
            none.
        over: ``"memory"``, or ``"loopback"`` for sockets on 127.0.0.1, in real time.
        protocols: The subprotocols to offer; ``client.protocol`` is the selected one.
            This and the next two arguments are for the WebSocket at `path`.
        headers: More headers for its request.
        names: The names of the client and of the handler in its record.
        within: Seconds that handshakes, responses and the ``expect...()`` methods may
            take by default.
        ssl_context: The client's context for TLS. The server's name is localhost or,
            over loopback, 127.0.0.1.
        server_ssl_context: The server's context for TLS. Pass both contexts or none.
        options: Options of both `serve()` and `connect()`: `close_grace` (1 s by
            default here), `max_message_bytes`, `receive_buffer_bytes`,
            `ping_interval`, `ping_timeout`, `engine` and `compression`.

    Raises:
        HandshakeError: The handler has refused the WebSocket, or not answered in time.
        InvalidStateError: `logging.disable()` hides what handlers raise.
        TypeError: An argument is of another type, or needs a path.
        ValueError: An argument is out of range.
        ImportError: The extra for the engine is not installed.
    """
    check_options("open_test_client", options, FirstWebSocketOptions)
    check_seconds("within", within)
    _check_transport(over, ssl_context, server_ssl_context)
    opening = _opening_of(path, protocols, headers, names)
    grace = options.setdefault("close_grace", _CLOSE_GRACE)
    settings = Settings(over, within, ssl_context, server_ssl_context, options)
    return _open(app, settings, opening, grace)


def _check_transport(
    over: Transport,
    ssl_context: ssl.SSLContext | None,
    server_ssl_context: ssl.SSLContext | None,
) -> None:
    """Check these arguments of `open_test_client()`.

    Raises:
        TypeError: An argument is of another type, or one of the contexts is missing.
        ValueError: `over` is another string.
    """
    if over not in ("memory", "loopback"):
        msg = f"over is 'memory' or 'loopback', not {over!r}"
        raise ValueError(msg)
    check_ssl_context(ssl_context, server=False)
    check_ssl_context(server_ssl_context, server=True)
    if (ssl_context is None) is not (server_ssl_context is None):
        msg = "for TLS pass both ssl_context (the client's) and server_ssl_context"
        raise TypeError(msg)


def _opening_of(
    path: str | None,
    protocols: str | Sequence[str],
    headers: HeadersInit,
    names: tuple[str, str],
) -> Callable[[Site], Awaitable[TestWebSocket]] | None:
    """Return the function that opens the WebSocket at a path; `None` without a path.

    Raises:
        TypeError: There are options of a WebSocket, but no path.
        ValueError: The path is not valid.
    """
    if path is not None:
        check_path(path)
        return partial(
            _open_websocket,
            path=path,
            protocols=protocols,
            headers=headers,
            names=names,
        )
    if protocols or headers or names != ("client", "server"):
        msg = "protocols, headers and names are for a WebSocket: pass its path, too"
        raise TypeError(msg)
    return None


class OpenClient(Protocol):
    """The type of the fixture `websocket_client`."""

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
    settings: Settings,
    open_first: Callable[[Site], Awaitable[TestWebSocket]] | None,
    grace: float,
) -> AsyncGenerator[TestClient | TestWebSocket, None]:
    records: list[Record] = []
    with collect_failures(records) as failures, _raising(failures, records):
        async with open_application(app) as fetch, open_service_nursery() as nursery:
            failures.ensure_logged()  # The application may have set up its log.
            site = Site(fetch, nursery, failures, settings)
            site.records = records
            await site.start()
            async with closing_on_exit(site.sockets, grace=grace):
                client: TestClient | TestWebSocket = TestClient(site)
                if open_first is not None:
                    try:
                        client = await open_first(site)
                    except HandshakeError:
                        # If the handler has raised, that is the reason.
                        raise_together([*failures.take_rest()])
                        raise
                with adding_notes(records):
                    yield client


@contextmanager
def _raising(
    failures: Failures, records: Sequence[Record]
) -> Generator[None, None, None]:
    """After the block, raise the exceptions of handlers, then that of the block."""
    raised: list[BaseException] = []
    try:
        yield
    except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised below
        raised.append(exc)
    unexpected = failures.take_rest()
    if unexpected and not any(map(shows_conversation, raised)):
        for record in records:
            record._end_where_raised(unexpected[0])
        add_notes(unexpected[0], records)
    raised[:0] = unexpected
    raise_together(raised, "the handler and the test have raised")

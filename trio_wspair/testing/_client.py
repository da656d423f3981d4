"""`open_test_client()`: an application on its real server, and a client of it.

`TestClient` and `TestWebSocket` are the two faces of a `Site`, which runs the server:
a client that has no WebSocket of its own, and a WebSocket that was opened by one.

A path decides which of the two `open_test_client()` gives. Most tests are of one
conversation, which has to take one line; tests of pages have no WebSocket; and tests of
a login make requests before they open one. Either face can do what a client can.
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

import trio

from trio_wspair._http.messages import FetchHandler, HeadersInit
from trio_wspair._pair.pair import closing_on_exit
from trio_wspair._pair.websocket import WebSocket
from trio_wspair._rules.errors import HandshakeError
from trio_wspair._rules.limits import check_seconds
from trio_wspair._server.application import Application, open_application
from trio_wspair._tasks.nurseries import open_service_nursery, raise_together
from trio_wspair.transports.io._tls import check_ssl_context

from ._failures import Expected, Failures, hearing_failures
from ._record import Record
from ._recorded import DEFAULT_WITHIN, RecordedWebSocket, tell, telling, tells
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
from ._site import Site, check_path

__all__ = (
    "OpenClient",
    "TestClient",
    "TestWebSocket",
    "open_test_client",
)

_CLOSE_GRACE: Final = 1.0


class _Requests:
    """What a client of a site can do, whether it is a WebSocket itself or not."""

    __slots__ = ()
    __test__ = False  # It is no class of tests, whatever pytest takes from its name.
    _site: Site

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
            method: Such as ``"GET"``; in lower case, it is sent in upper case.
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
        check_options("open_websocket", options, WebSocketOptions)
        return await _open_websocket(self._site, path, **options)

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
        over: ``"memory"``, or ``"loopback"`` for sockets on 127.0.0.1, in real time.
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
    check_options("open_test_client", options, FirstWebSocketOptions)
    check_seconds("within", within)
    _check_transport(over, ssl_context, server_ssl_context)
    opening = _opening_of(path, protocols, headers, names)
    grace = options.setdefault("close_grace", _CLOSE_GRACE)
    site = partial(
        Site,
        over=over,
        within=within,
        ssl_context=ssl_context,
        server_ssl_context=server_ssl_context,
        options=options,
    )
    return _open(app, site, opening, grace)


def _check_transport(
    over: Transport,
    ssl_context: ssl.SSLContext | None,
    server_ssl_context: ssl.SSLContext | None,
) -> None:
    """Check these arguments of `open_test_client()`.

    Raises:
        TypeError: An argument is of another type, or one of the contexts is missing.
        ValueError: There is no such transport.
    """
    if over not in ("memory", "loopback"):
        msg = f"over is 'memory' or 'loopback', not {over!r}"
        raise ValueError(msg)
    check_ssl_context(ssl_context, server=False)
    check_ssl_context(server_ssl_context, server=True)
    if (ssl_context is None) is not (server_ssl_context is None):
        msg = "TLS needs two contexts: ssl_context for the client, server_ssl_context"
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
        msg = (
            "protocols, headers and names are those of a WebSocket: pass its path, too"
        )
        raise TypeError(msg)
    return None


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
    make_site: Callable[[FetchHandler, trio.Nursery, Failures], Site],
    open_first: Callable[[Site], Awaitable[TestWebSocket]] | None,
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

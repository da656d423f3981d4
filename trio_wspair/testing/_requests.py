"""Plain HTTP requests of a test client: its options, requests, responses and cookies.

Knows HTTP/1.1 as a client does; not how the server is reached.
"""

import json as json_module
import re
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from email.message import Message
from http.client import HTTPResponse
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final, Literal, TypedDict, cast
from urllib.request import Request as URLRequest

import attrs
import h11
import trio

from trio_wspair._http.headers import (
    Headers,
    HeadersInit,
    decode_headers,
    encode_headers,
    is_token as is_method,
)
from trio_wspair._rules.codes import usv_string
from trio_wspair.transports._engines import EngineName

__all__ = (
    "ClientOptions",
    "ConnectionOptions",
    "Cookies",
    "FirstWebSocketOptions",
    "ReplayOptions",
    "RequestError",
    "RequestOptions",
    "RequestToSend",
    "TestResponse",
    "Transport",
    "WebSocketOptions",
    "check_options",
)


Transport = Literal["memory", "loopback"]
"""What connects client and server: streams in memory, or sockets."""


class ConnectionOptions(TypedDict, total=False):
    """The options that both `serve()` and `connect()` have."""

    close_grace: float
    max_message_bytes: int
    receive_buffer_bytes: int
    ping_interval: float
    ping_timeout: float
    engine: EngineName
    compression: bool


class ClientOptions(ConnectionOptions, total=False):
    """The options of `open_test_client()` without a path, except `over`."""

    within: float
    ssl_context: ssl.SSLContext | None
    server_ssl_context: ssl.SSLContext | None


class ReplayOptions(ClientOptions, total=False):
    """The options of `replay()`, except `over`."""

    protocols: str | Sequence[str]
    headers: HeadersInit


class WebSocketOptions(TypedDict, total=False):
    """The options of `TestClient.open_websocket()`."""

    protocols: str | Sequence[str]
    headers: HeadersInit
    names: tuple[str, str]
    within: float


class FirstWebSocketOptions(ReplayOptions, total=False):
    """The options of `open_test_client()` with a path, except `over`."""

    names: tuple[str, str]


class RequestOptions(TypedDict, total=False):
    """The options of a request."""

    headers: HeadersInit
    body: str | bytes | None
    json: object
    within: float | None


_SYNONYMS: Final = {"timeout": "within", "data": "body", "content": "body"}
"""Names of options in other libraries, with the names here."""

_FIXTURES: Final = frozenset({"websocket_client", "golden_record"})


def check_options(
    function: str, options: Mapping[str, object], known: type[object]
) -> None:
    """Check the names of the options that a function was called with.

    Args:
        function: The name of the function.
        options: The options.
        known: The `TypedDict` of the options that it takes.

    Raises:
        TypeError: The function doesn't take an option of this name.
    """
    names: frozenset[str] = getattr(known, "__optional_keys__", frozenset())
    for name in options.keys() - names:
        msg = f"{function}() takes no argument {name!r}"
        meant = {_SYNONYMS.get(name)} & names or get_close_matches(name, names, 1)
        if name == "over" and function in _FIXTURES:
            msg += ": override the fixture websocket_transport"
        elif meant:
            msg += f": did you mean {next(iter(meant))!r}?"
        raise TypeError(msg)


_ENDS: Final = "trio-end"
"""The attribute of a cookie with the time at which it expires, in Trio's time."""


class Cookies:
    """The cookies of one client, kept and sent as by a browser.

    Two rules of browsers go beyond RFC 6265. A loopback address counts as secure, so a
    cookie with ``Secure`` works there without TLS. And a ``Domain`` equal to the host
    makes a cookie for this host only, even if the host contains no dot.

    Cookies expire in Trio's time, so that a test in virtual time can wait for that.
    """

    def __init__(self) -> None:
        # Every server of a test client has a loopback address.
        self._policy = DefaultCookiePolicy(secure_protocols=("http", "https"))
        self._jar = CookieJar(self._policy)

    def values(self) -> dict[str, str]:
        """Return the values by name. Of equal names, the longest path wins."""
        self._drop_expired()
        ordered = sorted(self._jar, key=lambda cookie: len(cookie.path))
        return {cookie.name: cookie.value or "" for cookie in ordered}

    def header(self, url: str) -> str:
        """Return the value of ``Cookie`` for a request, ``""`` for no cookies."""
        self._drop_expired()
        request = URLRequest(url)  # noqa: S310 - it is never opened
        self._jar.add_cookie_header(request)
        return request.get_header("Cookie") or ""

    def keep(self, url: str, headers: Iterable[tuple[str, str]]) -> None:
        """Keep the cookies in the headers of a response, if `url` may set them."""
        request = URLRequest(url)  # noqa: S310 - it is never opened
        response = cast("HTTPResponse", _Response(request.host, headers))
        for cookie in self._jar.make_cookies(response, request):
            if cookie.expires is not None:
                lifetime = cookie.expires - int(time.time())
                end = trio.current_time() + lifetime
                cookie.set_nonstandard_attr(_ENDS, str(end))
                cookie.expires = None  # The jar would compare it with the wall clock.
            if self._policy.set_ok(cookie, request):
                self._jar.set_cookie(cookie)

    def _drop_expired(self) -> None:
        now = trio.current_time()
        for cookie in list(self._jar):
            end = cookie.get_nonstandard_attr(_ENDS)
            if end is not None and float(end) <= now:
                self._jar.clear(cookie.domain, cookie.path, cookie.name)


class _Response:
    """A response of a host, with the one method that the cookie jar calls."""

    def __init__(self, host: str, headers: Iterable[tuple[str, str]]) -> None:
        name = re.escape(host.partition(":")[0])
        own = re.compile(rf";\s*domain\s*=\s*\.?{name}\s*(?=;|$)", re.IGNORECASE)
        self._message = Message()
        for field, value in headers:
            if field.lower() == "set-cookie":
                self._message["Set-Cookie"] = own.sub("", value)

    def info(self) -> Message:
        return self._message


_MAX_HEAD_BYTES: Final = 2**16
_MAX_BODY_BYTES: Final = 2**25
_READ_BYTES: Final = 2**16
_HEADERS_OF_THE_CLIENT: Final = frozenset(
    {"connection", "content-length", "transfer-encoding", "upgrade"}
)


@attrs.frozen(repr=False)
class TestResponse:
    """The response to a request of a test client, with its whole body."""

    __test__ = False  # pytest takes classes named Test... for classes of tests.

    url: str
    """The URL that was requested."""
    status: int
    """The status code, such as 200."""
    headers: Headers
    """The headers; names are compared without case: ``headers["content-type"]``."""
    body: bytes
    """The whole body; empty for HEAD, 204 and 304."""

    def __repr__(self) -> str:
        return f"<TestResponse {self.status}, {len(self.body):,} bytes, of {self.url}>"

    def text(self) -> str:
        """Return the body decoded as UTF-8, with U+FFFD in place of invalid bytes."""
        return self.body.decode("utf-8-sig", "replace")

    def json(self) -> Any:  # noqa: ANN401 - as json.loads()
        """Return the value of a JSON body.

        Raises:
            ValueError: The body isn't JSON.
        """
        return json_module.loads(self.body)


class RequestError(AssertionError):
    """A request of a test client didn't get a complete response."""

    response: TestResponse | None
    """The part of the response that was received; `None` if its head is missing."""

    def __init__(self, message: str, response: TestResponse | None = None) -> None:
        super().__init__(message)
        self.response = response


class RequestToSend:
    """A request, checked and ready to be sent on a stream.

    Args:
        method: The method, such as ``"GET"``; case doesn't matter.
        url: The URL, for the response.
        target: The path and the query, as they are sent.
        host: The value of ``Host``, unless it is among the headers.
        headers: More headers.
        body: The body. A str is sent as UTF-8.
        json: A value to send as JSON, in place of a body; ``...`` for none.

    Raises:
        TypeError: An argument is of another type, or there are two bodies.
        ValueError: The method or a header can't be sent.
    """

    def __init__(
        self,
        method: str,
        url: str,
        target: str,
        *,
        host: str,
        headers: HeadersInit = (),
        body: str | bytes | None = None,
        json: object = ...,
    ) -> None:
        if not isinstance(method, str):
            msg = f"a method is a str such as 'GET', not {type(method).__name__}"
            raise TypeError(msg)
        if not is_method(method) or method.upper() == "CONNECT":
            msg = f"{method!r} can't be the method of a request to a fetch handler"
            raise ValueError(msg)
        self.method = method = method.upper()  # As other clients do.
        self._url = url
        self._target = target
        sent = Headers({"Host": host})
        sent.update(Headers(headers))
        for name in _HEADERS_OF_THE_CLIENT & set(sent):
            msg = f"leave out the header {name!r}: request() sets it if needed"
            raise ValueError(f"{msg}, and open_websocket() opens a WebSocket")
        self._data, kind = _encoded(body, json)
        if kind:
            sent.setdefault("Content-Type", kind)
        if self._data or method in ("POST", "PUT", "PATCH"):
            sent["Content-Length"] = str(len(self._data))
        self._headers: Sequence[tuple[str, str]] = sent.pairs()
        self._status = 0
        self._answer_headers = Headers()
        self._body = bytearray()

    @property
    def response(self) -> TestResponse | None:
        """The response so far; `None` before its head has come."""
        if self._status == 0:
            return None
        url, body = self._url, bytes(self._body)
        return TestResponse(url, self._status, self._answer_headers, body)

    async def send(self, stream: trio.abc.Stream) -> None:
        """Send the request, and read the whole response. Always a checkpoint.

        Raises:
            RequestError: The response is incomplete, isn't HTTP, or is too large.
        """
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
        request = h11.Request(
            method=self.method,
            target=self._target,
            headers=encode_headers(self._headers),
        )
        data = parser.send(request) or b""
        if self._data:
            data += parser.send(h11.Data(self._data)) or b""
        data += parser.send(h11.EndOfMessage()) or b""
        async with trio.open_nursery() as nursery:
            # Both at once: the server may respond before it has read the whole body.
            nursery.start_soon(_send_all, stream, data)
            failure = await self._read(parser, stream)
            nursery.cancel_scope.cancel(reason="the response was received")
        if failure:
            raise RequestError(f"{self}: {failure}", self.response)

    def __str__(self) -> str:
        return f"{self.method} {self._target}"

    async def _read(self, parser: h11.Connection, stream: trio.abc.Stream) -> str:
        """Read the response. Return what is wrong with it, ``""`` if it is complete."""
        try:
            while len(self._body) <= _MAX_BODY_BYTES:
                event = parser.next_event()
                if event is h11.NEED_DATA:
                    parser.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
                elif isinstance(event, h11.Response):
                    self._status = event.status_code
                    pairs = decode_headers(
                        (bytes(n), bytes(v)) for n, v in event.headers
                    )
                    self._answer_headers = Headers(pairs)
                elif isinstance(event, h11.Data):
                    self._body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    return ""
        except trio.BrokenResourceError as exc:
            return f"the connection broke before the end of the response: {exc}"
        except h11.RemoteProtocolError as exc:
            return f"the response is incomplete, or isn't HTTP/1.1: {exc}"
        return f"the body of the response has more than {_MAX_BODY_BYTES:,} bytes"


async def _send_all(stream: trio.abc.Stream, data: bytes) -> None:
    # A server that stopped reading may have responded all the same.
    with suppress(trio.BrokenResourceError):
        await stream.send_all(data)


def _encoded(body: str | bytes | None, json: object) -> tuple[bytes, str]:
    """Return a body as it is sent, and its ``Content-Type``, ``""`` for none."""
    if json is not ...:
        if body is not None:
            msg = "pass either body or json to a request, not both"
            raise TypeError(msg)
        return json_module.dumps(json).encode(), "application/json"
    if body is None:
        return b"", ""
    if isinstance(body, str):
        return usv_string(body).encode(), "text/plain;charset=UTF-8"
    if not isinstance(body, bytes):
        msg = (
            f"a body is str or bytes, not {type(body).__name__}; pass JSON as json=..."
        )
        raise TypeError(msg)
    return body, ""

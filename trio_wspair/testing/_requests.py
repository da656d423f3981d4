"""Plain HTTP requests of a test client, and the options that it takes.

Responses and the cookies between requests are here, too.
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
"""What lies between client and server: streams in memory, or sockets."""


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


_ELSEWHERE: Final = {"timeout": "within", "data": "body", "content": "body"}
"""What other libraries call an option."""

_FIXTURES: Final = frozenset({"websocket_client", "golden_record"})


def check_options(
    function: str, options: Mapping[str, object], known: type[object]
) -> None:
    """Check the names of the options of a function.

    Args:
        function: Its name.
        options: What it was called with.
        known: The `TypedDict` of what it takes.

    Raises:
        TypeError: It takes no option of this name.
    """
    names: frozenset[str] = getattr(known, "__optional_keys__", frozenset())
    for name in options.keys() - names:
        msg = f"{function}() takes no argument {name!r}"
        meant = {_ELSEWHERE.get(name)} & names or get_close_matches(name, names, 1)
        if name == "over" and function in _FIXTURES:
            msg += ": the fixture websocket_transport decides"
        elif meant:
            msg += f": did you mean {next(iter(meant))!r}?"
        raise TypeError(msg)


_ENDS: Final = "trio-end"
"""The attribute of a cookie that says when it expires, in Trio's time."""


class Cookies:
    """The cookies of one client, sent and kept as a browser does.

    Two rules of browsers go beyond RFC 6265. A loopback address counts as secure, so
    that a cookie with ``Secure`` works there without TLS. A ``Domain`` that is the
    host itself makes a cookie for this host only, also where the host has no dot.

    A cookie expires in Trio's time, so that a test in virtual time can wait for it.
    """

    def __init__(self) -> None:
        # Every server of a test client has a loopback address.
        self._policy = DefaultCookiePolicy(secure_protocols=("http", "https"))
        self._jar = CookieJar(self._policy)

    def values(self) -> dict[str, str]:
        """Return the values by name; of equal names, that with the longest path."""
        self._drop_expired()
        ordered = sorted(self._jar, key=lambda cookie: len(cookie.path))
        return {cookie.name: cookie.value or "" for cookie in ordered}

    def header(self, url: str) -> str:
        """Return the value of ``Cookie`` for a request to `url`; ``""`` for none."""
        self._drop_expired()
        request = URLRequest(url)  # noqa: S310 - it is never opened
        self._jar.add_cookie_header(request)
        return request.get_header("Cookie") or ""

    def keep(self, url: str, headers: Iterable[tuple[str, str]]) -> None:
        """Keep what the headers of an answer set, as far as `url` may set it."""
        request = URLRequest(url)  # noqa: S310 - it is never opened
        answer = cast("HTTPResponse", _Answer(request.host, headers))
        for cookie in self._jar.make_cookies(answer, request):
            if cookie.expires is not None:
                lifetime = cookie.expires - int(time.time())
                end = trio.current_time() + lifetime
                cookie.set_nonstandard_attr(_ENDS, str(end))
                cookie.expires = None  # The jar would look at the wall clock.
            if self._policy.set_ok(cookie, request):
                self._jar.set_cookie(cookie)

    def _drop_expired(self) -> None:
        now = trio.current_time()
        for cookie in list(self._jar):
            end = cookie.get_nonstandard_attr(_ENDS)
            if end is not None and float(end) <= now:
                self._jar.clear(cookie.domain, cookie.path, cookie.name)


class _Answer:
    """The answer of a host, as far as the cookie jar looks at one."""

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

    __test__ = False  # It is no class of tests, whatever pytest takes from its name.

    url: str
    """The URL that was requested."""
    status: int
    """Such as 200."""
    headers: Headers
    """Without regard to case: ``response.headers["content-type"]``."""
    body: bytes
    """The whole body; empty for HEAD, 204 and 304."""

    def __repr__(self) -> str:
        return f"<TestResponse {self.status}, {len(self.body):,} bytes, of {self.url}>"

    def text(self) -> str:
        """Return the body as text: UTF-8, with U+FFFD for what is none."""
        return self.body.decode("utf-8-sig", "replace")

    def json(self) -> Any:  # noqa: ANN401 - as json.loads()
        """Return what the body says in JSON.

        Raises:
            ValueError: It is no JSON.
        """
        return json_module.loads(self.body)


class RequestError(AssertionError):
    """A request of a test client has not got a whole response."""

    response: TestResponse | None
    """What has come of the response, with the beginning of its body; `None` if not
    even its head has come."""

    def __init__(self, message: str, response: TestResponse | None = None) -> None:
        super().__init__(message)
        self.response = response


class RequestToSend:
    """A request, checked and ready to be sent on a stream.

    Args:
        method: Such as ``"GET"``, in any case.
        url: The URL, for the response.
        target: The path and the query, as they are sent.
        host: The value of ``Host``, unless the headers have one.
        headers: More headers.
        body: Text is sent as UTF-8.
        json: A value to send as JSON instead; ``...`` for none.

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
            msg = f"request() makes the header {name!r} itself"
            raise ValueError(f"{msg}; a WebSocket is opened by open_websocket()")
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
        """What has come of the response so far; `None` before its head has."""
        if self._status == 0:
            return None
        url, body = self._url, bytes(self._body)
        return TestResponse(url, self._status, self._answer_headers, body)

    async def send(self, stream: trio.abc.Stream) -> None:
        """Send it, and read the response to its end. Always a checkpoint.

        Raises:
            RequestError: The response is broken off, is no HTTP, or is too large.
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
            # At the same time: the server may answer before it has read the body.
            nursery.start_soon(_send_all, stream, data)
            failure = await self._read(parser, stream)
            nursery.cancel_scope.cancel(reason="the response is there")
        if failure:
            raise RequestError(f"{self}: {failure}", self.response)

    def __str__(self) -> str:
        return f"{self.method} {self._target}"

    async def _read(self, parser: h11.Connection, stream: trio.abc.Stream) -> str:
        """Read the response, and return what is wrong with it, ``""`` for nothing."""
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
            return f"the connection broke before the response had ended: {exc}"
        except h11.RemoteProtocolError as exc:
            return f"the response was broken off, or is no HTTP: {exc}"
        return f"the body of the response has more than {_MAX_BODY_BYTES:,} bytes"


async def _send_all(stream: trio.abc.Stream, data: bytes) -> None:
    # A server that reads no more may have answered all the same.
    with suppress(trio.BrokenResourceError):
        await stream.send_all(data)


def _encoded(body: str | bytes | None, json: object) -> tuple[bytes, str]:
    """Return a body as it is sent, and its ``Content-Type``, ``""`` for none."""
    if json is not ...:
        if body is not None:
            msg = "a request has a body or json, not both"
            raise TypeError(msg)
        return json_module.dumps(json).encode(), "application/json"
    if body is None:
        return b"", ""
    if isinstance(body, str):
        return usv_string(body).encode(), "text/plain;charset=UTF-8"
    if not isinstance(body, bytes):
        msg = f"a body is str or bytes, not {type(body).__name__}: for JSON pass json="
        raise TypeError(msg)
    return body, ""

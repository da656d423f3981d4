"""`Request` and `Response`: what a `fetch` handler gets and gives.

Values after the Fetch standard and Workers; knows no sockets and no parser.
"""

import inspect
import json
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any, Final, Protocol

import attrs
import trio

from trio_wspair._pair.websocket import WebSocket
from trio_wspair._rules.codes import usv_string
from trio_wspair._rules.display import printable, redacted
from trio_wspair._rules.errors import RequestBodyError

from .headers import Headers, HeadersInit
from .upgrade import upgrade_fault
from .urls import RequestURL, parse_url

__all__ = (
    "Body",
    "FetchHandler",
    "Headers",
    "HeadersInit",
    "Request",
    "Response",
    "wrong_answer",
)


class _NotJSONError(RequestBodyError, ValueError):
    """The body of a request is not JSON; a `ValueError` as from `json.loads()`."""


class _Empty:
    async def read(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return b""


class Body(Protocol):
    """Where the body of a request comes from."""

    async def read(self) -> bytes:
        """Return the whole body. Always a checkpoint.

        Raises:
            RequestBodyError: It can't be had.
        """
        ...


def _request_url(url: str | RequestURL) -> RequestURL:
    return url if isinstance(url, RequestURL) else parse_url(url)


def _headers(headers: HeadersInit) -> Headers:
    return headers if isinstance(headers, Headers) else Headers(headers)


@attrs.frozen(eq=False, kw_only=True, repr=False)
class Request:
    """A request, as a `fetch` handler gets it.

    A test makes one itself::

        Request(method="GET", url="http://localhost/chat", nursery=nursery)

    Args:
        method: Such as ``"GET"``.
        url: The whole URL. What is not ASCII in it is encoded; ``ws:`` and ``wss:``
            become ``http:`` and ``https:``.
        headers: `Headers`, pairs or a mapping.
        nursery: See `nursery`.
        client: The address of the client.
        wants_websocket: See `wants_websocket`; `None` looks at the method and the
            headers.

    Raises:
        TypeError: A header is not a str.
        ValueError: The URL is not one of HTTP or WebSockets, or a header can't be sent.
    """

    method: str
    """Such as ``"GET"``."""
    _url: RequestURL = attrs.field(alias="url", converter=_request_url)
    headers: Headers = attrs.field(converter=_headers, factory=Headers)
    nursery: trio.Nursery
    """Runs tasks for the life of the connection: it is cancelled when that is over,
    and `WebSocketPair()` and `connect()` use it by themselves in the handler."""
    client: str = ""
    """The address of the client, such as ``"127.0.0.1"``; ``""`` if there is none."""
    _body: Body = attrs.field(alias="body", factory=_Empty)
    _wants_websocket: bool | None = attrs.field(alias="wants_websocket", default=None)

    def __repr__(self) -> str:
        return f"<Request {printable(self.method)} {redacted(self.url)}>"

    @property
    def url(self) -> str:
        """The whole URL, such as ``"http://localhost:8000/chat?room=1"``.

        In ASCII: what is beyond is percent-encoded, and in the host it is an A-label.
        """
        return str(self._url)

    @property
    def secure(self) -> bool:
        """Whether the client speaks TLS."""
        return self._url.secure

    @property
    def path(self) -> str:
        """The path of the URL, such as ``"/chat"``, decoded.

        It begins with a slash, but for ``OPTIONS *``, which has the path ``"*"``.
        """
        return self._url.path

    @property
    def wants_websocket(self) -> bool:
        """Whether the client asks for a WebSocket, and asks well.

        If so, the answer may be a `Response` with status 101 and a WebSocket. By RFC
        6455, section 4.2.1: a GET with ``Connection: Upgrade``, ``Upgrade: websocket``
        (lists, without regard to case), a key and version 13. A WebSocket that a
        client asks for over HTTP/2 has no such headers, and is wanted, too.
        """
        if self._wants_websocket is not None:
            return self._wants_websocket
        return upgrade_fault(self.method, self.headers) is None

    async def bytes(self) -> bytes:
        """Return the body; a second time, the same again. Always a checkpoint.

        Raises:
            RequestBodyError: It is too large, too slow, or broken off.
        """
        return await self._body.read()

    async def text(self) -> str:
        """Return the body as text: UTF-8, with U+FFFD for what is none.

        Always a checkpoint.

        Raises:
            RequestBodyError: It is too large, too slow, or broken off.
        """
        return (await self._body.read()).decode("utf-8-sig", "replace")

    async def json(self) -> Any:  # noqa: ANN401 - as json.loads()
        """Return what the body says in JSON. Always a checkpoint.

        Raises:
            RequestBodyError: It is too large, too slow, or broken off; or it is not
                JSON, and then this is a `ValueError` as well.
        """
        data = await self._body.read()
        try:
            return json.loads(data)
        except RecursionError:
            why = "it is nested too deeply"
        except ValueError as exc:
            why = str(exc)
        raise _NotJSONError(400, f"the body of the request is not JSON: {why}")


_NULL_BODY_STATUSES: Final = frozenset({101, 204, 205, 304})
_REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})


class Response:
    """The answer to a request.

    ``Response("no", status=403)``, or with the half of a pair that the client shall
    talk to, ``Response(None, status=101, web_socket=client)``.

    Args:
        body: Text, bytes or nothing; or pieces of them from an async iterable, which
            are sent as they come. Text gets a ``Content-Type`` of plain UTF-8 unless
            the headers have one.
        status: 200-599, or 101 with a WebSocket.
        headers: Pairs or a mapping. With 101, ``Sec-WebSocket-Protocol`` chooses one
            of the subprotocols that the client has offered.
        web_socket: A half that nobody has accepted.

    Raises:
        TypeError: An argument is of another type, or there is a body with a status
            that has none.
        ValueError: The status doesn't fit.
    """

    __slots__ = ("body", "headers", "status", "web_socket")

    status: int
    headers: Headers
    body: bytes | AsyncIterable[str | bytes]
    web_socket: WebSocket | None

    def __init__(
        self,
        body: str | bytes | AsyncIterable[str | bytes] | None = None,
        *,
        status: int = 200,
        headers: HeadersInit = (),
        web_socket: WebSocket | None = None,
    ) -> None:
        if body is not None and not isinstance(body, (str, bytes, AsyncIterable)):
            what = f"str, bytes, an async iterable or None, not {type(body).__name__}"
            msg = f"a body is {what}; for JSON there is Response.json()"
            raise TypeError(msg)
        if web_socket is not None and not isinstance(web_socket, WebSocket):
            msg = f"web_socket is one half of a pair, not {type(web_socket).__name__}"
            raise TypeError(msg)
        if not isinstance(status, int) or isinstance(status, bool):
            msg = f"a status is an int such as 200, not {status!r}"
            raise TypeError(msg)
        if web_socket is not None and status != 101:
            msg = f"a response with a WebSocket has status=101, not {status}"
            raise ValueError(msg)
        if web_socket is None and status == 101:
            msg = "a status is 200-599, or 101 with a WebSocket: pass web_socket="
            raise ValueError(msg)
        if web_socket is None and not 200 <= status <= 599:
            msg = f"a status is 200-599, or 101 with a WebSocket, not {status}"
            raise ValueError(msg)
        if body and status in _NULL_BODY_STATUSES:
            msg = f"a response with status {status} has no body"
            raise TypeError(msg)
        self.status = status
        self.headers = Headers(headers)
        self.web_socket = web_socket
        self.body = usv_string(body).encode() if isinstance(body, str) else body or b""
        if isinstance(body, str) and web_socket is None:
            self.headers.setdefault("Content-Type", "text/plain;charset=UTF-8")

    @classmethod
    def json(
        cls, data: object, *, status: int = 200, headers: HeadersInit = ()
    ) -> "Response":
        """Return a response that says `data` in JSON.

        Raises:
            TypeError: The data can't be said in JSON, or as for `Response()`.
            ValueError: As for `Response()`, or the data has NaN or infinity in it.
        """
        text = json.dumps(data, ensure_ascii=False, allow_nan=False)
        # A lone surrogate is in a string, where it may be escaped.
        data_bytes = text.encode("utf-8", "backslashreplace")
        response = cls(data_bytes, status=status, headers=headers)
        response.headers.setdefault("Content-Type", "application/json")
        return response

    @classmethod
    def redirect(cls, url: str, status: int = 302) -> "Response":
        """Return a response that sends the client to another URL.

        Args:
            url: Where to; it may be relative (RFC 9110, section 10.2.2). What can't
                be in a URL is percent-encoded; a host beyond ASCII becomes A-labels.
            status: 301, 302, 303, 307 or 308.

        Raises:
            ValueError: The status is another one.
        """
        if status not in _REDIRECT_STATUSES:
            msg = f"a redirect has status 301, 302, 303, 307 or 308, not {status!r}"
            raise ValueError(msg)
        return cls(status=status, headers={"Location": url})

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


_WHAT_TO_RETURN: Final[tuple[tuple[type | tuple[type, ...], str], ...]] = (
    (type(None), "does every branch return one?"),
    ((str, bytes), "return Response(body)"),
    ((dict, list), "return Response.json(data)"),
    (tuple, "return Response(body, status=..., headers=...)"),
    (WebSocket, "return Response(None, status=101, web_socket=client)"),
    (Awaitable, "await it"),
)


def wrong_answer(answer: object) -> str:
    """Say what is wrong with what a handler has returned, and what to do instead."""
    name = type(answer).__name__
    if inspect.iscoroutine(answer):
        answer.close()  # So that Python doesn't warn of it, too.
    kinds = (words for types, words in _WHAT_TO_RETURN if isinstance(answer, types))
    what_to_do = next(kinds, "for a WebSocket, return Response(None, status=101, ...)")
    return f"must return a Response, not {name}: {what_to_do}"


FetchHandler = Callable[[Request], Awaitable[Response]]
"""What `serve()` calls for each request."""

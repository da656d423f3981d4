"""`Request` and `Response`: the argument and the result of a `fetch` handler.

Follows the Fetch standard and Workers; knows no sockets and no parser.
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
    """The body of a request."""

    async def read(self) -> bytes:
        """Return the whole body. Always a checkpoint.

        Raises:
            RequestBodyError: The body is too large, too slow, or incomplete.
        """
        ...


def _request_url(url: str | RequestURL) -> RequestURL:
    return url if isinstance(url, RequestURL) else parse_url(url)


def _headers(headers: HeadersInit) -> Headers:
    return headers if isinstance(headers, Headers) else Headers(headers)


@attrs.frozen(eq=False, kw_only=True, repr=False)
class Request:
    """A request: the argument of a `fetch` handler.

    A test can create one::

        Request(method="GET", url="http://localhost/chat", nursery=nursery)

    Args:
        method: Such as ``"GET"``.
        url: The whole URL. Characters beyond ASCII are encoded; ``ws:`` and ``wss:``
            become ``http:`` and ``https:``.
        headers: `Headers`, pairs of name and value, or a mapping.
        nursery: See `nursery`.
        client: The address of the client.
        wants_websocket: See `wants_websocket`; with `None`, the method and the headers
            decide.

    Raises:
        TypeError: A header is not a str.
        ValueError: The URL is not one of HTTP or WebSockets, or a header can't be sent.
    """

    method: str
    """Such as ``"GET"``."""
    _url: RequestURL = attrs.field(alias="url", converter=_request_url)
    headers: Headers = attrs.field(converter=_headers, factory=Headers)
    nursery: trio.Nursery
    """A nursery for the tasks of this connection; it is cancelled when the connection
    has ended. In the handler, `WebSocketPair()` and `connect()` use it."""
    client: str = ""
    """The address of the client, such as ``"127.0.0.1"``; ``""`` if it has none."""
    _body: Body = attrs.field(alias="body", factory=_Empty)
    _wants_websocket: bool | None = attrs.field(alias="wants_websocket", default=None)

    def __repr__(self) -> str:
        return f"<Request {printable(self.method)} {redacted(self.url)}>"

    @property
    def url(self) -> str:
        """The whole URL, such as ``"http://localhost:8000/chat?room=1"``.

        In ASCII: other characters are percent-encoded; in the host they are A-labels.
        """
        return str(self._url)

    @property
    def secure(self) -> bool:
        """Whether the client uses TLS."""
        return self._url.secure

    @property
    def path(self) -> str:
        """The path of the URL, such as ``"/chat"``, decoded.

        It begins with a slash, but for ``OPTIONS *``, which has the path ``"*"``.
        """
        return self._url.path

    @property
    def wants_websocket(self) -> bool:
        """Whether this is a valid request for a WebSocket.

        If so, the answer may be a `Response` with status 101 and a WebSocket. By RFC
        6455, section 4.2.1, it is a GET with ``Connection: Upgrade``, ``Upgrade:
        websocket`` (case-insensitive lists), a key and version 13. A request for a
        WebSocket over HTTP/2 has other headers; this is true for it, too.
        """
        if self._wants_websocket is not None:
            return self._wants_websocket
        return upgrade_fault(self.method, self.headers) is None

    async def bytes(self) -> bytes:
        """Return the body; it may be read again. Always a checkpoint.

        Raises:
            RequestBodyError: The body is too large, too slow, or incomplete.
        """
        return await self._body.read()

    async def text(self) -> str:
        """Return the body as text: UTF-8, with U+FFFD for invalid bytes.

        Always a checkpoint.

        Raises:
            RequestBodyError: The body is too large, too slow, or incomplete.
        """
        return (await self._body.read()).decode("utf-8-sig", "replace")

    async def json(self) -> Any:  # noqa: ANN401 - as json.loads()
        """Return the value of the body, which is JSON. Always a checkpoint.

        Raises:
            RequestBodyError: The body is too large, too slow, or incomplete; or it is
                not JSON, and then the error is a `ValueError` as well.
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

    ``Response("no", status=403)``; or, with the half of a pair for the client,
    ``Response(None, status=101, web_socket=client)``.

    Args:
        body: Text, bytes or `None`; or an async iterable of text or bytes, which are
            sent as they come. Text gets the ``Content-Type`` ``text/plain`` in UTF-8,
            unless the headers have one.
        status: 200-599, or 101 with a WebSocket.
        headers: Pairs or a mapping. With 101, ``Sec-WebSocket-Protocol`` chooses one
            of the subprotocols that the client has offered.
        web_socket: An untaken half.

    Raises:
        TypeError: An argument has the wrong type, or a response with this status can't
            have a body.
        ValueError: The status is out of range, or does not fit the other arguments.
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
            msg = (
                "a body must be str, bytes, an async iterable of them, or None, not "
                f"{type(body).__name__}; for JSON, call Response.json()"
            )
            raise TypeError(msg)
        if web_socket is not None and not isinstance(web_socket, WebSocket):
            msg = (
                "web_socket must be one half of a pair, not "
                f"{type(web_socket).__name__}"
            )
            raise TypeError(msg)
        if not isinstance(status, int) or isinstance(status, bool):
            msg = f"the status must be an int, such as 200, not {status!r}"
            raise TypeError(msg)
        if web_socket is not None and status != 101:
            msg = f"the status of a response with a WebSocket must be 101, not {status}"
            raise ValueError(msg)
        if web_socket is None and status == 101:
            msg = "a response with status 101 needs a WebSocket: pass web_socket="
            raise ValueError(msg)
        if web_socket is None and not 200 <= status <= 599:
            msg = f"the status must be 200-599, or 101 with a WebSocket, not {status}"
            raise ValueError(msg)
        if body and status in _NULL_BODY_STATUSES:
            msg = f"a response with status {status} can't have a body"
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
        """Return a response whose body is `data` in JSON.

        Raises:
            TypeError: `data` can't be converted to JSON; or as for `Response()`.
            ValueError: `data` contains NaN or infinity; or as for `Response()`.
        """
        text = json.dumps(data, ensure_ascii=False, allow_nan=False)
        # A lone surrogate is in a JSON string, where an escape is allowed.
        data_bytes = text.encode("utf-8", "backslashreplace")
        response = cls(data_bytes, status=status, headers=headers)
        response.headers.setdefault("Content-Type", "application/json")
        return response

    @classmethod
    def redirect(cls, url: str, status: int = 302) -> "Response":
        """Return a response that redirects the client to another URL.

        Args:
            url: The URL, which may be relative (RFC 9110, section 10.2.2). Characters
                that a URL can't have are percent-encoded; a host beyond ASCII becomes
                A-labels.
            status: 301, 302, 303, 307 or 308.

        Raises:
            ValueError: The status is not one of these.
        """
        if status not in _REDIRECT_STATUSES:
            msg = f"the status must be 301, 302, 303, 307 or 308, not {status!r}"
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
    """Return an error text for a handler that has not returned a `Response`."""
    name = type(answer).__name__
    if inspect.iscoroutine(answer):
        answer.close()  # Else Python warns that it was never awaited.
    kinds = (words for types, words in _WHAT_TO_RETURN if isinstance(answer, types))
    what_to_do = next(kinds, "for a WebSocket, return Response(None, status=101, ...)")
    return f"must return a Response, not {name}: {what_to_do}"


FetchHandler = Callable[[Request], Awaitable[Response]]
"""The function that `serve()` calls for each request."""

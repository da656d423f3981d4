"""`Request`, `Response` and `Headers`: what a `fetch` handler gets and gives.

Values after the Fetch standard and Workers; knows no sockets and no parser.
"""

import json
import re
from collections.abc import (
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
)
from typing import Any, Final, Protocol, cast
from urllib.parse import unquote, urlsplit

import attrs
import trio
from multidict import CIMultiDict

from ._codes import usv_string
from ._errors import WebSocketError
from ._socket import WebSocket

__all__ = (
    "Body",
    "FetchHandler",
    "Headers",
    "HeadersInit",
    "Request",
    "RequestBodyError",
    "Response",
    "decode_headers",
    "encode_headers",
    "is_token",
    "url_of",
)

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's name (RFC 9110, section 5.6.2)."""
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
"""A header's value: no line breaks, nothing beyond Latin-1 (RFC 9110, 5.5)."""


class Headers(MutableMapping[str, str]):
    """HTTP headers: names without regard to case, several values per name.

    Like the Fetch standard's class, reading a name gives its values joined with
    ``", "``; `get_all()` gives them one by one. Nothing gets in that would not be
    one header on the wire.

    Args:
        headers: Pairs, or a mapping, to start with.

    Raises:
        TypeError: A name or a value is no str.
        ValueError: A name or a value can't be sent.
    """

    __slots__ = ("_values",)

    def __init__(self, headers: "HeadersInit" = ()) -> None:
        self._values: CIMultiDict[str] = CIMultiDict()
        if isinstance(headers, Headers):
            headers = headers.pairs()
        elif isinstance(headers, Mapping):
            headers = list(cast("Mapping[str, str]", headers).items())
        if not isinstance(headers, Iterable):
            headers = [headers]
        for pair in headers:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                msg = f"headers are a mapping, or pairs of name and value, not {pair!r}"
                raise TypeError(msg)
            self.append(*pair)

    def __repr__(self) -> str:
        return f"Headers({self.pairs()!r})"

    def __getitem__(self, name: str) -> str:
        """Return the values of `name`, joined."""
        return ", ".join(self._values.getall(name))

    def __setitem__(self, name: str, value: str) -> None:
        """Replace all values of `name`."""
        self._values[_checked_name(name)] = _checked_value(name, value)

    def __delitem__(self, name: str) -> None:
        """Remove all values of `name`."""
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, each once and in lower case."""
        return iter(dict.fromkeys(name.lower() for name in self._values))

    def __len__(self) -> int:
        """Return the number of names."""
        return len(list(iter(self)))

    def append(self, name: str, value: str) -> None:
        """Add a value to those that `name` has.

        Raises:
            TypeError: The name or the value is no str.
            ValueError: The name or the value can't be sent.
        """
        self._values.add(_checked_name(name), _checked_value(name, value))

    def get_all(self, name: str) -> list[str]:
        """Return the values of `name`, in order; none is an empty list."""
        return list(self._values.getall(name, []))

    def pairs(self) -> list[tuple[str, str]]:
        """Return every name with each of its values, in order."""
        return list(self._values.items())


HeadersInit = Headers | Mapping[str, str] | Iterable[tuple[str, str]]


def encode_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return headers as they travel."""
    return [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in headers
    ]


def decode_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Return headers that have travelled."""
    return [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in headers
    ]


def url_of(scheme: str, host: str, target: str) -> str:
    """Return the URL that a client has asked for; one of a WebSocket is HTTP's."""
    if not target.startswith("/"):
        return target
    scheme = {"ws": "http", "wss": "https"}.get(scheme, scheme)
    return f"{scheme}://{host}{target}"


def is_token(text: str) -> bool:
    """Return whether this can be a name: of a header, of a subprotocol."""
    return _TOKEN.fullmatch(text) is not None


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        msg = f"a header's name is a str, not {type(name).__name__}"
        raise TypeError(msg)
    if not is_token(name):
        msg = f"{name!r} can't be the name of a header (RFC 9110, section 5.1)"
        raise ValueError(msg)
    return name


def _checked_value(name: str, value: object) -> str:
    if not isinstance(value, str):
        msg = f"the value of header {name!r} is a str, not {type(value).__name__}"
        raise TypeError(msg)
    stripped = value.strip(" \t")
    if _VALUE.fullmatch(stripped) is None:
        msg = (
            f"header {name!r} can't have the value {value!r}: no line breaks, and "
            "nothing beyond Latin-1"
        )
        raise ValueError(msg)
    return stripped


class RequestBodyError(WebSocketError):
    """The body of a request can't be had, and `status` is the answer to that.

    A handler need not catch it: the server then answers by itself.
    """

    status: int
    """408 if it came too slowly, 413 if it is too large, 400 if it is broken off."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status = status

    def __str__(self) -> str:
        return str(self.args[1])


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


@attrs.frozen(eq=False, kw_only=True)
class Request:
    """A request, as a `fetch` handler gets it."""

    method: str
    """Such as ``"GET"``."""
    url: str
    """The whole URL, such as ``"http://localhost:8000/chat?room=1"``."""
    headers: Headers
    nursery: trio.Nursery
    """Runs tasks for the life of the connection: it is cancelled when that is over,
    and `WebSocketPair()` and `connect()` use it by themselves in the handler."""
    client: str = ""
    """The address of the client, such as ``"127.0.0.1"``; ``""`` if there is none."""
    _body: Body = attrs.field(alias="body", factory=_Empty, repr=False)

    @property
    def secure(self) -> bool:
        """Whether the client speaks TLS."""
        return self.url.startswith(("https:", "wss:"))

    @property
    def path(self) -> str:
        """The path of the URL, such as ``"/chat"``, decoded."""
        return unquote(urlsplit(self.url).path)

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
            RequestBodyError: It is too large, too slow, or broken off.
            ValueError: It is no JSON.
        """
        data = await self._body.read()
        try:
            return json.loads(data)
        except RecursionError:
            msg = "the JSON is nested too deeply"
            raise ValueError(msg) from None


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
            url: Where to; it may be relative (RFC 9110, section 10.2.2).
            status: 301, 302, 303, 307 or 308.

        Raises:
            ValueError: The status is another one, or the URL can't be in a header.
        """
        if status not in _REDIRECT_STATUSES:
            msg = f"a redirect has status 301, 302, 303, 307 or 308, not {status!r}"
            raise ValueError(msg)
        return cls(status=status, headers={"Location": url})

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


FetchHandler = Callable[[Request], Awaitable[Response]]
"""What `serve()` calls for each request."""

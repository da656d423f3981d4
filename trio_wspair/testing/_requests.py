"""One plain HTTP request of a test client, and the response to it, through h11.

Knows a stream and HTTP/1.1; neither cookies nor servers.
"""

import json as json_module
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

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

__all__ = ("RequestError", "RequestToSend", "TestResponse")

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

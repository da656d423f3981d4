"""HTTP/1.1 on a stream, through h11: one request after another, and the responses.

Knows bytes, and the rules of upgrade requests (RFC 6455, section 4.2.1); not what
handles a request. A request that is not valid raises `Refusal`, which has the response.
"""

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import attrs
import h11
import trio

from trio_wspair._rules.errors import RequestBodyError
from trio_wspair._rules.limits import Limits

from .bodies import Pace, RequestBody, open_pieces
from .headers import (
    Headers,
    check_single_values,
    decode_headers,
    encode_headers,
)
from .hosts import Authority, parse_authority
from .messages import Body, Response
from .upgrade import VERSION, WRONG_VERSION, asks_for_websocket, upgrade_fault
from .urls import Target, parse_target

__all__ = ("ClientGoneError", "HTTPConnection", "Head", "Refusal", "bad_request")

_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}
_CHUNK_BYTES: Final = 2**16
_NO_HOST: Final = "Missing mandatory Host: header"
"""The text of h11's error for a missing ``Host``."""
_LENGTH: Final = re.compile(rb"\ncontent-length:([^\n]*)", re.IGNORECASE)


class ClientGoneError(Exception):
    """The client has gone, or has not read the response in time."""


class Refusal(Exception):  # noqa: N818 - a response, not a failure
    """The request is not handled; `response` is sent instead, and says why."""

    def __init__(self, response: Response, why: str = "") -> None:
        super().__init__(response.status)
        self.response = response
        assert isinstance(response.body, bytes)
        self.why: str = why or response.body.decode().strip()
        """The reason for the log; by default the body of the response."""


@attrs.frozen(slots=True)
class Head:
    """The head of a request."""

    method: str
    target: Target
    authority: Authority | None
    """The authority of the target, or else of ``Host``; `None` if both are missing."""
    headers: Headers
    wants_websocket: bool
    """Whether it is a valid request for a WebSocket."""
    body: Body
    """The body, which follows the head."""


class _ParserSource:
    """The source of a request body that h11 parses."""

    def __init__(
        self, parser: h11.Connection, receive: Callable[[], Awaitable[None]]
    ) -> None:
        self._parser = parser
        self._receive = receive

    def take(self) -> tuple[bytes, bool]:
        """Take what h11 has parsed; see `BodySource`."""
        data = bytearray()
        try:
            while True:
                event = self._parser.next_event()
                if event is h11.NEED_DATA:
                    return bytes(data), False
                if not isinstance(event, h11.Data):
                    return bytes(data), True
                data += event.data
        except h11.RemoteProtocolError as exc:
            msg = f"the body of the request is not valid: {exc}"
            raise RequestBodyError(400, msg) from None

    async def receive(self) -> None:
        """Receive more on the connection; see `BodySource`."""
        await self._receive()


class HTTPConnection:
    """The server's end of HTTP/1.1.

    Args:
        stream: The network.
        limits: The limits of a request. If `idle_timeout` is 0, the connection has only
            one.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        limits: Limits,
    ) -> None:
        self.stream = stream
        self._limits = limits
        self._parser = self._new_parser()
        self._body: RequestBody | None = None
        """The body of the request that is being handled; `None` if it is refused."""
        self._is_head = False
        self._pace = Pace(limits)
        """The pace of the response that is being sent."""
        self.failure: str = ""
        """Why reading has failed, also in TLS; empty if it has not."""

    # -- requests ----------------------------------------------------------------

    async def read_head(self) -> Head | None:
        """Read the head of the next request; `None` if the peer has ended before it.

        The caller bounds the time.

        Raises:
            Refusal: It is not valid HTTP, or not a valid request for a WebSocket.
        """
        received = bytearray(self._skip_empty_lines())
        self._is_head = received.startswith(b"HEAD ")
        try:
            while (event := self._parser.next_event()) is h11.NEED_DATA:
                if len(received) > self._limits.max_head_bytes:
                    raise _too_large()
                data = await self._receive()
                if not data:
                    return None
                self._parser.receive_data(data)
                received += data if received else self._skip_empty_lines()
                self._is_head = received.startswith(b"HEAD ")
        except h11.RemoteProtocolError as exc:
            body = "The request is not valid HTTP/1.1.\n"
            if str(exc) == _NO_HOST:
                body = "The header 'Host' is missing.\n"  # RFC 9112, section 3.2.
            refused = Response(body, status=exc.error_status_hint)
            raise Refusal(refused, str(exc)) from None
        assert isinstance(event, h11.Request)
        head = received[: len(received) - len(self.unread)]
        if len(head) > self._limits.max_head_bytes:
            raise _too_large()
        if b"\n " in head or b"\n\t" in head:  # RFC 9112, section 5.2.
            raise bad_request("A header must not continue on the next line.")
        lengths = _LENGTH.findall(head)  # h11 accepts several that are equal.
        if len(lengths) > 1 or b"," in b"".join(lengths):
            raise bad_request("The header 'Content-Length' comes more than once.")
        length = int(dict(event.headers).get(b"content-length", b"0"))
        request_body = RequestBody(
            _ParserSource(self._parser, self._receive_body),
            length,
            self._limits,
        )
        checked = _checked(event, request_body)
        self._body = request_body
        return checked

    async def wait_for_request(self) -> bool:
        """Wait for the first byte of another request; return whether it has come.

        The caller bounds the time.
        """
        self._parser.start_next_cycle()
        self._body = None
        await trio.lowlevel.checkpoint()
        while not self._skip_empty_lines():
            data = await self._receive()
            if not data:
                return False
            self._parser.receive_data(data)
        return True

    def _new_parser(self) -> h11.Connection:
        # The size of a head is checked here: h11 counts only what it can't parse yet.
        size = 2 * self._limits.max_head_bytes
        return h11.Connection(h11.SERVER, max_incomplete_event_size=size)

    def _skip_empty_lines(self) -> bytes:
        """Drop empty lines before a request (RFC 9112, 2.2); return what follows."""
        unread = self.unread
        if unread[:1] not in (b"\r", b"\n"):
            return unread
        rest = unread.lstrip(b"\r\n")
        self._parser = self._new_parser()  # The old one keeps its bytes.
        if rest:
            self._parser.receive_data(rest)
        return rest

    @property
    def unread(self) -> bytes:
        """What was received after the part that was parsed."""
        return bytes(self._parser.trailing_data[0])

    def hand_over(self) -> bytes:
        """End HTTP on this stream. Return what was received after the request."""
        unread = self.unread
        assert self._body is not None
        self._body.leave_empty()
        self.finish()
        del self._parser  # Else the WebSocket would keep it in memory.
        return unread

    def finish(self) -> None:
        """Forget the last request, whose body refers to this object."""
        self._body = None

    async def _receive_body(self) -> None:
        """Receive more of a body."""
        if self._parser.they_are_waiting_for_100_continue:  # RFC 9110, section 10.1.1.
            go_on = h11.InformationalResponse(
                status_code=100, reason=_REASONS[100], headers=[]
            )
            with suppress(ClientGoneError):
                await self._send(go_on)
        self._parser.receive_data(await self._receive())

    async def _receive(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(_CHUNK_BYTES))
        except trio.ClosedResourceError:
            return b""
        except trio.BrokenResourceError as exc:
            # Only the text: the exception would refer to this object.
            self.failure = str(exc.__cause__ or exc)
            return b""

    # -- responses -----------------------------------------------------------------

    @property
    def answered(self) -> bool:
        """Whether a response has begun."""
        return self._parser.our_state not in (h11.IDLE, h11.SEND_RESPONSE)

    async def send_response(self, response: Response, *, last: bool = False) -> bool:
        """Send a response; return whether another request may follow.

        Args:
            response: The response.
            last: Whether the connection ends after it.

        Raises:
            ClientGoneError: The client has gone, or has not read the response in time.
        """
        body = response.body
        self._pace = Pace(self._limits)
        headers = Headers(response.headers)
        for name in ("Content-Length", "Transfer-Encoding"):
            headers.pop(name, None)
        headers.setdefault("Date", formatdate(usegmt=True))
        if isinstance(body, bytes) and response.status not in (204, 304):
            headers["Content-Length"] = str(len(body))  # RFC 9110, section 8.6.
        keeps_alive = self._request_is_read() and not last
        keeps_alive = keeps_alive and self._limits.idle_timeout > 0
        connection = "keep-alive" if keeps_alive else "close"
        if response.status == 426:  # RFC 9110, section 15.5.22.
            headers.setdefault("Upgrade", "websocket")
            connection += ", upgrade"
        headers["Connection"] = connection
        head = h11.Response(
            status_code=response.status,
            reason=_REASONS.get(response.status, b""),
            headers=encode_headers(headers.pairs()),
        )
        if self._is_head and self._parser.our_state is h11.IDLE:
            await self._send(head)  # h11 does not know that it is HEAD.
            return False
        waiting: list[h11.Event] = [head]
        if not isinstance(body, bytes):
            await self._send(*waiting)  # The head does not wait for the first piece.
            waiting.clear()
        async with open_pieces(body, wanted=not self._is_head) as pieces:
            async for piece in pieces:
                await self._send(*waiting, h11.Data(data=piece))
                waiting.clear()
        await self._send(*waiting, h11.EndOfMessage())
        return self._parser.our_state is self._parser.their_state is h11.DONE

    def _request_is_read(self) -> bool:
        """Take what has come of the body; return whether it is complete."""
        return self._body is not None and isinstance(self._body.take(), bytes)

    async def _send(self, *events: h11.Event) -> None:
        data = b"".join(self._parser.send(event) or b"" for event in events)
        with self._pace.waiting() as scope:
            try:
                await self.stream.send_all(data)
            except trio.BrokenResourceError as exc:
                raise ClientGoneError from exc
        if scope.cancelled_caught:
            raise ClientGoneError
        self._pace.size += len(data)


def bad_request(why: object) -> Refusal:
    """Return the refusal of a request that is not valid."""
    return Refusal(Response(f"{why}\n", status=400))


def _checked(request: h11.Request, body: Body) -> Head:
    """Return the head of a request, checked.

    Raises:
        Refusal: The request is not valid.
    """
    if request.http_version not in (b"1.0", b"1.1"):
        raise Refusal(Response("Only HTTP/1.1 is supported.\n", status=505))
    if request.method == b"CONNECT":
        raise Refusal(Response("This server is not a proxy.\n", status=501))
    method, target_text = request.method.decode(), request.target.decode("latin-1")
    try:
        headers = Headers(decode_headers(request.headers))
        check_single_values(headers)
        target = parse_target(method, target_text)
    except ValueError as exc:
        raise bad_request(exc) from None
    authority = target.authority
    host = headers.get("host")
    if host:  # Also if the authority of the target takes precedence.
        try:
            authority = parse_authority(host)
        except ValueError as exc:
            raise bad_request(f"The header 'Host' is not valid: {exc}") from None
    if target.authority is not None:  # RFC 9112, section 3.2.2.
        authority = target.authority
        headers["Host"] = str(authority)
    if "transfer-encoding" in headers and (
        "content-length" in headers or request.http_version == b"1.0"
    ):  # A proxy may read the length otherwise (RFC 9112, section 6.1).
        raise bad_request("The length of the body of the request is not clear.")
    wants_websocket = asks_for_websocket(headers)
    if wants_websocket:
        _check_upgrade(request, headers)
    return Head(method, target, authority, headers, wants_websocket, body)


def _check_upgrade(request: h11.Request, headers: Headers) -> None:
    """Check a request for a WebSocket.

    Raises:
        Refusal: A header is missing or not valid.
    """
    fault = upgrade_fault(request.method.decode(), headers)
    if request.http_version != b"1.1":
        fault = "A request for a WebSocket must use HTTP/1.1."
    if fault is None:
        return
    if fault is not WRONG_VERSION:
        raise bad_request(fault)
    version = {"Sec-WebSocket-Version": VERSION}  # RFC 6455, section 4.4.
    raise Refusal(Response(f"{fault}\n", status=426, headers=version))


def _too_large() -> Refusal:
    return Refusal(Response("The head of the request is too large.\n", status=431))

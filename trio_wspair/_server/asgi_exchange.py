"""`ASGIExchange`: one request to an ASGI application, and its response.

Knows the messages of ASGI for requests and responses; not how a scope is read, nor how
requests are handled. https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio
from trio.lowlevel import enable_ki_protection

from trio_wspair._http.bodies import Pace, RequestBody, open_pieces
from trio_wspair._http.headers import Headers, encode_headers
from trio_wspair._http.hosts import Authority
from trio_wspair._http.messages import Request, Response
from trio_wspair._http.urls import RequestURL, Target
from trio_wspair._rules.codes import CloseCode
from trio_wspair._rules.display import printable
from trio_wspair._rules.errors import RequestBodyError
from trio_wspair._tasks.nurseries import open_service_nursery
from trio_wspair.transports._asgi import (
    DENIAL,
    GONE,
    ASGIConnection,
    Event,
    Receive,
    Send,
)
from trio_wspair.transports._connection import Connection

from .asgi_scope import Scope, ScopeRequest, client_of, read_scope
from .request_task import RequestTask, Service

__all__ = ("ASGIExchange",)

_OF_THE_CONNECTION: Final = frozenset(
    {"connection", "content-length", "keep-alive", "transfer-encoding", "upgrade"}
)
"""Headers that the ASGI server sets; HTTP/2 forbids them (RFC 9113, 8.2.2)."""
_NO_URL: Final = RequestURL("http", Authority("localhost"), Target("/", None))
_LEFTOVER_SECONDS: Final = 1.0


class ASGIExchange:
    """One request, and its response; see `Exchange` for the methods."""

    def __init__(
        self, service: Service, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._service = service
        self._scope = scope
        self._send = send
        self._is_websocket: bool = scope["type"] == "websocket"
        self.client: str = client_of(scope)
        self._refusal: Response | None = None
        try:  # Not every server validates requests.
            self._request = read_scope(scope)
        except ValueError as exc:
            self._refusal = Response(f"{exc}\n", status=400)
            # The handler is not called for this request.
            method = "GET" if self._is_websocket else scope.get("method", "GET")
            length = 0 if self._is_websocket else None
            self._request = ScopeRequest(method, _NO_URL, Headers(), None, length)
        length = self._request.body_length
        self._source = _MessageSource(receive, is_empty=length == 0)
        self._body = RequestBody(self._source, length or 0, service.limits)
        self._pace = Pace(service.limits)
        self._connection = ASGIConnection(receive, send)
        self._sending = trio.CancelScope()
        """The cancel scope of the response, cancelled when the client has gone."""
        self._is_sent = False
        self._opening = trio.CancelScope()
        """The cancel scope of accepting a WebSocket."""
        self.answered: bool = False

    async def run(self) -> None:
        """Call the handler, and answer with what it returns."""
        service = self._service
        if self._refusal is not None:
            await self.send_response(self._refusal)
            return
        task = RequestTask(self, service)
        async with open_service_nursery() as nursery:
            nursery.start_soon(self._watch_for_stop, task)
            await task.run()

    @enable_ki_protection
    async def _watch_for_stop(self, task: RequestTask) -> None:
        """Stop the task when the server stops: it cancels its applications.

        The conversation itself is shielded from that cancellation.
        """
        try:
            await trio.sleep_forever()
        finally:
            task.stop(CloseCode.GOING_AWAY)
            self._connection.stop()
            self._bound_opening(self._service.limits.close_grace)

    # -- the request -----------------------------------------------------------------

    def __str__(self) -> str:
        target = self._request.url.target
        shown = str(target) if self._service.log_query else target.path or "*"
        return f"{printable(self._request.method)} {shown}"

    def request(self, nursery: trio.Nursery) -> Request:
        """Return the request; see `Exchange`."""
        return Request(
            method=self._request.method,
            url=self._request.url,
            headers=self._request.headers,
            nursery=nursery,
            client=self.client,
            body=self._body,
            wants_websocket=self._is_websocket,
        )

    @property
    def offered_subprotocols(self) -> Sequence[str] | None:
        """The subprotocols that the client offers; see `Exchange`."""
        return self._request.subprotocols

    # -- the response ------------------------------------------------------------------

    async def send_response(self, response: Response) -> None:
        """Send a response as far as the client reads it; see `Exchange`."""
        self.answered = True
        if not self._is_websocket:
            await self._respond("http.response", response)
        elif DENIAL in (self._scope.get("extensions") or {}):
            await self._respond(DENIAL, response)
        else:
            await self._send_event({"type": "websocket.close"})  # The client sees 403.

    async def _respond(self, kind: str, response: Response) -> None:
        """Send a response until the client has gone."""
        with self._sending:
            async with open_service_nursery() as nursery:
                # Hypercorn may wait until receive() is called, even without an event.
                nursery.start_soon(self._watch_for_disconnect)
                await self._send_event(
                    {
                        "type": f"{kind}.start",
                        "status": response.status,
                        "headers": self._headers_for(response),
                    }
                )
                wanted = self._request.method != "HEAD"
                async with open_pieces(response.body, wanted=wanted) as pieces:
                    async for piece in pieces:
                        body = {"body": piece, "more_body": True}
                        await self._send_event({"type": f"{kind}.body", **body})
                self._is_sent = True
                last = {"body": b"", "more_body": False}
                await self._send_event({"type": f"{kind}.body", **last})

    @enable_ki_protection
    async def _watch_for_disconnect(self) -> None:
        await self._source.wait_gone(self._body)
        if not self._is_sent:  # Else the client may go.
            self._sending.cancel(reason="the client has gone")

    async def _send_event(self, event: Event) -> None:
        """Send an event to the server. Cancel the response if the client has gone."""
        gone = True
        with suppress(*GONE):
            with self._pace.waiting() as scope:
                await self._send(event)
            gone = scope.cancelled_caught
        if gone:
            self._sending.cancel(reason="the client has gone")
            await trio.lowlevel.checkpoint()
        self._pace.size += len(event.get("body", b""))

    def _headers_for(self, response: Response) -> list[tuple[bytes, bytes]]:
        headers = Headers(response.headers)
        for name in _OF_THE_CONNECTION:
            headers.pop(name, None)
        if isinstance(response.body, bytes) and response.status not in (204, 304):
            headers["Content-Length"] = str(len(response.body))
        if response.status == 426 and self._scope.get("http_version") == "1.1":
            headers["Upgrade"] = "websocket"  # RFC 9110, section 15.5.22.
            headers["Connection"] = "upgrade"
        return _as_bytes(headers)

    @asynccontextmanager
    async def open_websocket(
        self,
        subprotocol: str | None,
        headers: Headers,
        nursery: trio.Nursery,  # noqa: ARG002 - the server runs the tasks
    ) -> AsyncGenerator[Connection, None]:
        """Accept the WebSocket; see `Exchange`."""
        self._bound_opening(self._service.limits.body_timeout)
        with self._opening, suppress(*GONE):  # The next receive() reports it.
            await self._send(
                {
                    "type": "websocket.accept",
                    "subprotocol": subprotocol,
                    "headers": _as_bytes(headers),
                }
            )
        if self._opening.cancelled_caught:  # The client does not read.
            self._connection.give_up()
        yield self._connection
        with trio.move_on_after(_LEFTOVER_SECONDS):
            await self._connection.discard()

    def _bound_opening(self, seconds: float) -> None:
        """Bound the time for accepting a WebSocket."""
        end = trio.current_time() + seconds
        self._opening.deadline = min(self._opening.deadline, end)


class _MessageSource:
    """The source of a request body: the messages of the server until the disconnect.

    Args:
        receive: Receives the messages.
        is_empty: Whether the request has no body, by its head.
    """

    def __init__(self, receive: Receive, *, is_empty: bool) -> None:
        self._receive = receive
        self._received = b""
        self._is_complete = is_empty
        self._is_gone = False

    def take(self) -> tuple[bytes, bool]:
        """Take what has arrived; see `BodySource`."""
        data, self._received = self._received, b""
        return data, self._is_complete

    async def receive(self) -> None:
        """Receive a message; see `BodySource`."""
        event = await self._next()
        if event["type"] != "http.request":
            raise RequestBodyError(
                400, "the client has gone before the end of the body"
            )
        body = event.get("body") or b""
        if not isinstance(body, (bytes, bytearray)):
            msg = (
                "the ASGI server violates the specification: a body must be bytes, "
                f"not {type(body).__name__}"
            )
            raise TypeError(msg)
        self._received += body
        self._is_complete = not event.get("more_body", False)

    async def wait_gone(self, body: RequestBody) -> None:
        """Wait until the client has gone, keeping the body that arrives meanwhile."""
        with suppress(RequestBodyError):
            await body.read()
        while not self._is_gone:
            await self._next()

    async def _next(self) -> Event:
        event: Event = {"type": "http.disconnect"}
        with suppress(*GONE):
            event = await self._receive()
        self._is_gone = event["type"].endswith(".disconnect")
        return event


def _as_bytes(headers: Headers) -> list[tuple[bytes, bytes]]:
    return encode_headers((name.lower(), value) for name, value in headers.pairs())

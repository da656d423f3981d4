"""One request to an ASGI application, and the way back to its client.

Knows the messages of ASGI about requests and answers; not how a scope is read, nor what
becomes of the request. https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from trio_wspair._http.bodies import RequestBody, open_pieces
from trio_wspair._http.headers import Headers, encode_headers
from trio_wspair._http.messages import FetchHandler, Request, Response
from trio_wspair._http.urls import Authority, RequestURL, Target
from trio_wspair._rules.codes import CloseCode
from trio_wspair._rules.display import printable
from trio_wspair._rules.errors import RequestBodyError
from trio_wspair._rules.limits import Limits
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
from .request_task import Handling

__all__ = ("ASGIExchange", "ASGIService")

_OF_THE_CONNECTION: Final = frozenset(
    {"connection", "content-length", "keep-alive", "transfer-encoding", "upgrade"}
)
"""Headers that are the server's, and forbidden on HTTP/2 (RFC 9113, 8.2.2)."""
_NO_URL: Final = RequestURL("http", Authority("localhost"), Target("/", None))
_LEFTOVER_SECONDS: Final = 1.0


@attrs.frozen(eq=False)
class ASGIService:
    """What all requests to an application share."""

    fetch: FetchHandler
    limits: Limits
    log_query: bool = False
    warned: set[str] = attrs.Factory(set[str])
    """The warnings that were given, each of which is given once."""


class ASGIExchange:
    """One request, and its answer; see `Caller` for the methods."""

    def __init__(
        self, service: ASGIService, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._service = service
        self._scope = scope
        self._send = send
        self._is_websocket: bool = scope["type"] == "websocket"
        self.address: str = client_of(scope)
        self._refusal: Response | None = None
        try:  # Not every server looks at what a client sends.
            self._request = read_scope(scope)
        except ValueError as exc:
            self._refusal = Response(f"{exc}\n", status=400)
            # What no handler sees.
            method = "GET" if self._is_websocket else scope.get("method", "GET")
            length = 0 if self._is_websocket else None
            self._request = ScopeRequest(method, _NO_URL, Headers(), None, length)
        self._body = _RequestBody(
            receive,
            length=self._request.body_length,
            max_bytes=service.limits.max_body_bytes,
            timeout=service.limits.body_timeout,
        )
        self._connection = ASGIConnection(receive, send)
        self._giving_up = trio.CancelScope()
        """Around an answer, which may be given up until all of it is said."""
        self._all_is_said = False
        self._opening = trio.CancelScope()
        """Around accepting a WebSocket, which is shielded from the server's stop."""
        self.answered: bool = False

    async def run(self) -> None:
        """Call the handler, and answer with what it returns."""
        service = self._service
        if self._refusal is not None:
            await self.answer(self._refusal)
            return
        handling = Handling(
            self,
            fetch=service.fetch,
            limits=service.limits,
            log_query=service.log_query,
            warned=service.warned,
        )
        async with open_service_nursery() as nursery:
            nursery.start_soon(self._watch_for_stop, handling)
            await handling.run()

    @enable_ki_protection
    async def _watch_for_stop(self, handling: Handling) -> None:
        """Notice that the server stops: then it cancels its applications.

        The conversation itself is shielded from that.
        """
        try:
            await trio.sleep_forever()
        finally:
            handling.stop(CloseCode.GOING_AWAY)
            self._connection.stop()
            self._bound_opening(self._service.limits.close_grace)

    # -- the request -----------------------------------------------------------------

    def __str__(self) -> str:
        target = self._request.url.target
        shown = str(target) if self._service.log_query else target.path or "*"
        return f"{printable(self._request.method)} {shown}"

    def request(self, nursery: trio.Nursery) -> Request:
        """Return the request; see `Caller`."""
        return Request(
            method=self._request.method,
            url=self._request.url,
            headers=self._request.headers,
            nursery=nursery,
            client=self.address,
            body=self._body,
            wants_websocket=self._is_websocket,
        )

    @property
    def protocols(self) -> Sequence[str] | None:
        """The subprotocols that the client offers; see `Caller`."""
        return self._request.subprotocols

    # -- the answer --------------------------------------------------------------------

    async def answer(self, response: Response) -> None:
        """Send a response as far as the client takes it; see `Caller`."""
        self.answered = True
        if not self._is_websocket:
            await self._respond("http.response", response)
        elif DENIAL in (self._scope.get("extensions") or {}):
            await self._respond(DENIAL, response)
        else:
            await self._say({"type": "websocket.close"})  # The client sees 403.

    async def _respond(self, kind: str, response: Response) -> None:
        """Send a response, and give it up when the client has gone."""
        with self._giving_up:
            async with open_service_nursery() as nursery:
                # Even if it tells nothing: Hypercorn may wait for somebody who listens.
                nursery.start_soon(self._watch_for_disconnect)
                await self._say(
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
                        await self._say({"type": f"{kind}.body", **body})
                self._all_is_said = True
                last = {"body": b"", "more_body": False}
                await self._say({"type": f"{kind}.body", **last})

    @enable_ki_protection
    async def _watch_for_disconnect(self) -> None:
        await self._body.wait_gone()
        if not self._all_is_said:  # Afterwards it is no news.
            self._giving_up.cancel(reason="the client has gone")

    async def _say(self, event: Event) -> None:
        """Give a message to the server; cancelled when the client takes it no more."""
        try:
            with trio.fail_after(self._service.limits.body_timeout):
                await self._send(event)
        except (trio.TooSlowError, *GONE):
            self._giving_up.cancel(reason="the client has gone")
            await trio.lowlevel.checkpoint()

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
    async def open(
        self,
        subprotocol: str | None,
        headers: Headers,
        nursery: trio.Nursery,  # noqa: ARG002 - the server has the tasks
    ) -> AsyncGenerator[Connection, None]:
        """Accept the WebSocket; see `Caller`."""
        self._bound_opening(self._service.limits.body_timeout)
        with self._opening, suppress(*GONE):  # Which is what it receives next.
            await self._send(
                {
                    "type": "websocket.accept",
                    "subprotocol": subprotocol,
                    "headers": _as_bytes(headers),
                }
            )
        if self._opening.cancelled_caught:  # The client takes nothing.
            self._connection.give_up()
        yield self._connection
        with trio.move_on_after(_LEFTOVER_SECONDS):
            await self._connection.discard()

    def _bound_opening(self, seconds: float) -> None:
        """Wait no longer than this until a WebSocket is accepted."""
        end = trio.current_time() + seconds
        self._opening.deadline = min(self._opening.deadline, end)


class _RequestBody(RequestBody):
    """The body of a request, and behind it the news that the client has gone.

    Args:
        receive: Where it comes from.
        length: What the head says of it; `None` if that is nothing.
        max_bytes: A larger one is refused.
        timeout: Seconds for the next piece to come.
    """

    def __init__(
        self, receive: Receive, *, length: int | None, max_bytes: int, timeout: float
    ) -> None:
        super().__init__(length or 0, max_bytes=max_bytes)
        self._receive = receive
        self._timeout = timeout
        self._outcome = b"" if length == 0 else None
        self._gone = False

    async def _read_on(self) -> None:
        event: Event | None = None
        with trio.move_on_after(self._timeout):
            event = await self._next()
        if event is None:
            msg = f"no more of the body in {self._timeout} s"
            raise RequestBodyError(408, msg)
        if event["type"] != "http.request":
            raise RequestBodyError(400, "the body of a request is broken off")
        body = event.get("body") or b""
        if not isinstance(body, (bytes, bytearray)):
            msg = (
                "the ASGI server has not kept to the specification: a body is bytes, "
                f"not {type(body).__name__}"
            )
            raise TypeError(msg)
        self._received += body
        if not event.get("more_body", False):
            self._outcome = bytes(self._received)

    async def wait_gone(self) -> None:
        """Wait until the client has gone; what it says meanwhile can be read."""
        with suppress(RequestBodyError):
            await self.read()
        while not self._gone:
            await self._next()

    async def _next(self) -> Event:
        event: Event = {"type": "http.disconnect"}
        with suppress(*GONE):
            event = await self._receive()
        self._gone = event["type"].endswith(".disconnect")
        return event


def _as_bytes(headers: Headers) -> list[tuple[bytes, bytes]]:
    return encode_headers((name.lower(), value) for name, value in headers.pairs())

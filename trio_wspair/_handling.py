"""One request and what becomes of it: an answer, or a conversation.

Knows the handler, and couplings; how the client is reached only its `Caller` knows.
What the handler starts has a nursery of its own, so that a failure ends one
connection and is logged.
"""

import logging
from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Final, Protocol

import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from ._http import FetchHandler, Headers, Request, RequestBodyError, Response
from ._instruments import ConnectionInfo, tell_connected
from ._pair import current_nursery, forsake_untaken, untaken
from ._socket import CloseEvent, WebSocket, half_of
from ._state import Holder
from .transports._connection import Connection
from .transports._couple import Coupling, Limits

__all__ = ("Caller", "Handling", "failures")

failures: Final[ContextVar[list[Exception] | None]] = ContextVar(
    "failures", default=None
)
"""Where a test keeps what is logged: what a handler has raised."""

_HEADERS_OF_THE_HANDSHAKE: Final = frozenset(
    {
        "connection",
        "content-length",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "transfer-encoding",
        "upgrade",
    }
)
_logger: Final = logging.getLogger("trio_wspair")
_access: Final = logging.getLogger("trio_wspair.access")


class Caller(Protocol):
    """The client of one request, and the way to it."""

    def __str__(self) -> str:
        """Return what is asked for, for the log: ``GET /chat``."""
        ...

    @property
    def address(self) -> str:
        """As `Request.client`."""
        ...

    @property
    def protocols(self) -> Sequence[str] | None:
        """The subprotocols offered; `None` if it does not ask for a WebSocket."""
        ...

    @property
    def answered(self) -> bool:
        """Whether an answer was begun."""
        ...

    def request(self, nursery: trio.Nursery) -> Request:
        """Return the request, as the handler gets it."""
        ...

    async def answer(self, response: Response) -> None:
        """Send a response without a WebSocket, as far as the client takes it."""
        ...

    def open(
        self, subprotocol: str | None, headers: Headers
    ) -> AbstractAsyncContextManager[Connection]:
        """Open the WebSocket that was asked for, and keep it for the block."""
        ...


class Handling:
    """A request that is being handled.

    Args:
        caller: The client.
        fetch: The handler.
        limits: For a WebSocket.
        stopping: Set when the server stops: a Close is said then.
        stop_code: The code of that.
    """

    def __init__(
        self,
        caller: Caller,
        *,
        fetch: FetchHandler,
        limits: Limits,
        stopping: trio.Event,
        stop_code: int,
    ) -> None:
        self._caller = caller
        self._fetch = fetch
        self._limits = limits
        self._stopping = stopping
        self._stop_code = stop_code
        self._coupling: Coupling | None = None
        self._end: CloseEvent | None = None
        self._url = ""
        self._untaken: list[WebSocket] = []
        """Halves that Durable Objects have made for this client."""
        self._over = trio.Event()
        """The connection of the coupling has ended."""

    async def run(self) -> None:
        """Call the handler, and answer with what it returns."""
        try:
            await self._run()
        finally:
            forsake_untaken(self._untaken)

    async def _run(self) -> None:
        caller = self._caller
        response = Response("Internal Server Error\n", status=500)
        started = trio.current_time()
        with trio.CancelScope() as scope:
            # Two nurseries: when the handler's fails, the Close still gets out.
            async with trio.open_nursery() as transport_nursery:
                answer = None
                code = 1001
                try:
                    async with trio.open_nursery() as nursery:
                        answer = await self._call_handler(nursery)
                        if self._coupling is not None:
                            scope.shield = True  # The server's stop is told by Close.
                            await self._converse(
                                transport_nursery, self._coupling, answer.headers
                            )
                        elif not isinstance(answer.body, bytes):
                            # Tasks of the handler may feed it.
                            await caller.answer(answer)
                        nursery.cancel_scope.cancel(reason="the connection has closed")
                    if answer is None:
                        what = "fetch was cancelled, by cancelling request.nursery"
                        _logger.error("%s: %s", caller, what)
                    else:
                        response = answer
                except Exception as exc:
                    code = 1011
                    _logger.exception("handling %s failed", caller)
                    kept = failures.get()
                    if kept is not None:
                        kept.append(exc)
                if self._coupling is not None:
                    # Unless the half of the handler has said it already.
                    self._coupling.stop(code, "")
                    await self._over.wait()
                transport_nursery.cancel_scope.cancel(reason="the connection has ended")
        if self._coupling is None and not caller.answered:
            await caller.answer(response)
        self._log(response, trio.current_time() - started)

    def _log(self, response: Response, seconds: float) -> None:
        """Write a line into the access log."""
        coupling = self._coupling
        request = f'{self._caller.address or "-"} "{self._caller}"'
        if coupling is None:
            size = (
                len(response.body) if isinstance(response.body, bytes) else "streamed"
            )
            line = "%s %d, %s bytes, %.1f ms"
            _access.info(line, request, response.status, size, seconds * 1000)
        else:
            end = self._end.code if self._end is not None else 1006
            line = "%s 101, closed with %d after %.1f s, %s received, %s sent"
            _access.info(line, request, end, seconds, coupling.received, coupling.sent)

    @disable_ki_protection
    async def _call_handler(self, nursery: trio.Nursery) -> Response:
        request = self._caller.request(nursery)
        self._url = request.url
        current_nursery.set(nursery)
        untaken.set(self._untaken)
        awaitable: object = self._fetch(request)
        if not isinstance(awaitable, Awaitable):
            msg = "fetch must be an async function: async def fetch(request): ..."
            raise TypeError(msg)
        try:
            response: object = await awaitable
        except RequestBodyError as exc:
            response = Response(f"{exc}\n", status=exc.status)
        if not isinstance(response, Response):
            msg = (
                f"fetch must return a Response, not {type(response).__name__}: "
                "return Response(None, status=101, web_socket=client)"
            )
            raise TypeError(msg)
        if response.web_socket is not None:
            self._take(response.web_socket, response)
        return response

    def _take(self, socket: WebSocket, response: Response) -> None:
        """Take the half that the handler gives to this client.

        Raises:
            ValueError: The client has not asked for it like this.
            InvalidStateError: The half was taken before.
        """
        try:
            self._check_answer(response)
            self._coupling = Coupling(socket, self._limits)
        except Exception:
            half = half_of(socket)
            if half.state.holder is Holder.NOBODY:  # And nobody will take it.
                half.forsake("it could not be given to the client")
            raise

    def _check_answer(self, response: Response) -> None:
        offered = self._caller.protocols
        if offered is None:
            msg = (
                "fetch returned a WebSocket to a request without 'Upgrade: websocket': "
                "look at request.headers.get('upgrade') before, and answer 426"
            )
            raise ValueError(msg)
        chosen = response.headers.get("sec-websocket-protocol")
        if chosen is not None and chosen not in offered:
            msg = f"subprotocol {chosen!r} was not offered by the client: {offered!r}"
            raise ValueError(msg)
        for name in response.headers:
            if name in _HEADERS_OF_THE_HANDSHAKE:
                msg = f"a 101 can't have the header {name!r}: the server makes it"
                raise ValueError(msg)

    async def _converse(
        self, nursery: trio.Nursery, coupling: Coupling, headers: Headers
    ) -> None:
        """Wait until the client's half and the handler's half have both ended."""
        half = coupling.half
        patience = trio.CancelScope()
        nursery.start_soon(self._couple, coupling, headers)
        nursery.start_soon(self._watch_for_stop, coupling, patience)
        with patience:
            await self._over.wait()
            if half.peer.holder is not Holder.NOBODY:
                await half.wait_peer_finished()
            else:
                what = "the handler's half was never accepted: call server.accept()"
                _logger.warning("%s: %s", self._caller, what)

    @enable_ki_protection
    async def _couple(self, coupling: Coupling, answer_headers: Headers) -> None:
        headers = Headers(answer_headers)
        subprotocol = headers.pop("sec-websocket-protocol", None)
        coupling.half.link.protocol = subprotocol or ""
        try:
            async with self._caller.open(subprotocol, headers) as connection:
                info = ConnectionInfo("server", self._caller.address, self._url)
                tell_connected(coupling.socket, info)
                self._end = await coupling.run(connection)
        finally:
            self._over.set()

    @enable_ki_protection
    async def _watch_for_stop(
        self, coupling: Coupling, patience: trio.CancelScope
    ) -> None:
        """When the server stops, say a Close, and see that this ends too."""
        await self._stopping.wait()
        coupling.stop(self._stop_code, "the server stops")
        await self._over.wait()
        patience.deadline = trio.current_time() + self._limits.close_grace

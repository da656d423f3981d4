"""One request and what becomes of it: an answer, or a conversation.

Knows the handler, and couplings; how the client is reached only its `Caller` knows.
What the handler starts has a nursery of its own, so that a failure ends one
connection and is logged.
"""

import logging
from collections.abc import Awaitable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Final, Protocol

import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from trio_wspair._http.headers import Headers
from trio_wspair._http.messages import (
    FetchHandler,
    Request,
    Response,
    wrong_answer,
)
from trio_wspair._pair.instruments import ConnectionInfo, report_connected
from trio_wspair._pair.owner import Owner, current_owner
from trio_wspair._pair.verbs import half_of, home_of
from trio_wspair._pair.websocket import CloseEvent, WebSocket
from trio_wspair._rules.display import redacted
from trio_wspair._rules.errors import RequestBodyError
from trio_wspair._rules.limits import Limits
from trio_wspair._rules.state import Holder, check_thread
from trio_wspair._tasks.nurseries import bare, failure_in, hides_failure
from trio_wspair._tasks.timers import Alarms
from trio_wspair.transports._connection import Connection
from trio_wspair.transports._couple import Coupling

__all__ = ("Caller", "Handling", "Handlings")

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
_SLOW_SECONDS: Final = 5.0
"""When the log is told that a client waits, or what it says."""
_logger: Final = logging.getLogger("trio_wspair")
_access: Final = logging.getLogger("trio_wspair.access")


class Caller(Protocol):
    """The client of one request, and the way to it."""

    def __str__(self) -> str:
        """Return what is asked for, for the log: ``GET /chat``.

        Printable, and without the query, unless that shall be logged.
        """
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
        self, subprotocol: str | None, headers: Headers, nursery: trio.Nursery
    ) -> AbstractAsyncContextManager[Connection]:
        """Open the WebSocket that was asked for, and keep it for the block.

        The nursery is around the block, for tasks of the connection.
        """
        ...


class Handling:
    """A request that is being handled.

    Args:
        caller: The client.
        fetch: The handler.
        limits: For a WebSocket.
        alarms: Kept for all by the server, if it does that.
        log_query: Whether records of the log have the whole URL.
        warned: The warnings that the server has given, each of which comes once.
    """

    def __init__(
        self,
        caller: Caller,
        *,
        fetch: FetchHandler,
        limits: Limits,
        alarms: Alarms | None = None,
        log_query: bool,
        warned: set[str],
    ) -> None:
        self._log_query = log_query
        self._warned = warned
        self._caller = caller
        self._fetch = fetch
        self._limits = limits
        self._alarms = alarms
        self._stop_code: int | None = None
        self._coupling: Coupling | None = None
        self._told_of_no_accept = False
        self._end: CloseEvent | None = None
        self._url = ""
        self._connection: ConnectionInfo | None = None
        self._owner: Owner
        """Owns the halves of the handler."""
        self._over = trio.Event()
        """The connection of the coupling has ended."""
        self._patience: trio.CancelScope | None = None
        """Around waiting for the half of the handler after that."""

    async def run(self) -> None:
        """Call the handler, and answer with what it returns."""
        before = current_owner.get()
        try:
            await self._run()
        finally:
            if self._alarms is not None:
                self._alarms.cancel(_SLOW_SECONDS, self._tell_no_accept)
            current_owner.set(before)  # It refers to the task, and so to this.
            self._owner.end()
            self._owner.forget()

    async def _run(self) -> None:
        caller = self._caller
        response: Response | None = None
        started = trio.current_time()
        # Two nurseries: when the handler's fails, the Close still gets out.
        async with trio.open_nursery() as transport_nursery:
            scope = transport_nursery.cancel_scope
            answer = None
            code = 1001
            try:
                async with trio.open_nursery() as nursery:
                    self._owner = Owner(nursery)
                    self._owner.keep()
                    answer = await self._call_handler(nursery)
                    if self._coupling is not None:
                        scope.shield = True  # The server's stop is told by Close.
                        transport_nursery.start_soon(
                            self._couple,
                            self._coupling,
                            answer.headers,
                            transport_nursery,
                        )
                        await self._converse(self._coupling)
                    elif not isinstance(answer.body, bytes):
                        # Tasks of the handler may feed it.
                        await caller.answer(answer)
                    nursery.cancel_scope.cancel(reason="the connection has closed")
                if answer is None:
                    what = "fetch was cancelled, by cancelling request.nursery"
                    _logger.error("%s: %s", caller, what, extra=self._facts())
                else:
                    response = answer
            except Exception as exc:  # noqa: BLE001 - it is reported
                code = 1011
                self._report(exc)
            except BaseExceptionGroup as group:
                failure, interruption = group.split(Exception)
                if failure is not None:
                    self._report(failure)
                assert interruption is not None  # Else it were an Exception itself.
                raise interruption from None
            if self._coupling is not None:
                # Unless the half of the handler has said it already.
                self._coupling.stop(code, "")
                await self._over.wait()
            scope.cancel(reason="the connection has ended")
        if response is None:
            response = Response("Internal Server Error\n", status=500)
        if self._coupling is None and not caller.answered:
            await caller.answer(response)
        self._log(response, trio.current_time() - started)

    def _report(self, failure: Exception) -> None:
        """Tell the log what the handler has raised."""
        end = self._coupling.half.outbox.end if self._coupling is not None else None
        left = failure_in(failure, end)
        if left is None:
            what = "%s: the handler has ended with its client: %s"
            _logger.debug(what, self._caller, bare(failure), extra=self._facts())
            return
        what = "handling %s failed"
        _logger.error(what, self._caller, exc_info=left, extra=self._facts())

    def _log(self, response: Response, seconds: float) -> None:
        """Write a line into the access log."""
        if not _access.isEnabledFor(logging.INFO):
            return
        coupling = self._coupling
        request = f'{self._caller.address or "-"} "{self._caller}"'
        facts = {**self._facts(), "duration": seconds}
        if coupling is None:
            body = response.body
            size = f"{len(body)} bytes" if isinstance(body, bytes) else "streamed"
            line = "%s %d, %s, %.1f ms"
            values = request, response.status, size, seconds * 1000
            _access.info(line, *values, extra={**facts, "status": response.status})
        else:
            end = self._end.code if self._end is not None else 1006
            conversation = coupling.conversation
            received, sent = conversation.received, conversation.sent
            facts |= {
                "status": 101,
                "code": end,
                "received_messages": received.messages,
                "received_bytes": received.bytes,
                "sent_messages": sent.messages,
                "sent_bytes": sent.bytes,
            }
            line = "%s 101, closed with %d after %.1f s, %s received, %s sent"
            _access.info(line, request, end, seconds, received, sent, extra=facts)

    def _facts(self) -> dict[str, object]:
        """Return what log records have as attributes."""
        facts = {} if self._connection is None else self._connection.extra
        return {
            **facts,
            "request": str(self._caller),
            "peer": self._caller.address,
            "url": self._url if self._log_query else redacted(self._url),
        }

    @disable_ki_protection
    async def _call_handler(self, nursery: trio.Nursery) -> Response:
        request = self._caller.request(nursery)
        self._url = request.url
        current_owner.set(self._owner)
        awaitable: object = self._fetch(request)
        if not isinstance(awaitable, Awaitable):
            msg = "fetch must be an async function: async def fetch(request): ..."
            raise TypeError(msg)
        alarms = self._alarms if request.wants_websocket else None
        if alarms is not None:
            alarms.set(_SLOW_SECONDS, self._tell_no_answer)
        try:
            response: object = await awaitable
        except RequestBodyError as exc:
            response = Response(f"{exc}\n", status=exc.status)
            if hides_failure(exc):
                self._report(exc)
        finally:
            if alarms is not None:
                alarms.cancel(_SLOW_SECONDS, self._tell_no_answer)
        if not isinstance(response, Response):
            raise TypeError(f"fetch {wrong_answer(response)}")
        if response.web_socket is None:
            return response
        if self._caller.protocols is None:
            return self._refuse_websocket(response.web_socket)
        self._take(response.web_socket, response)
        if alarms is not None:
            alarms.set(_SLOW_SECONDS, self._tell_no_accept)
        return response

    def _tell_no_answer(self) -> None:
        """Tell the log that the client waits for `fetch`, which may wait for it."""
        what = (
            "fetch has not returned yet; the client is connected only when it does. "
            "Move the loop to request.nursery.start_soon()"
        )
        _logger.warning("%s: %s", self._caller, what, extra=self._facts())

    def _tell_no_accept(self) -> None:
        """Tell the log that nothing of what the client sends is seen."""
        assert self._coupling is not None
        half = self._coupling.half
        if half.peer.holder is Holder.NONE and not half.peer.released:
            self._told_of_no_accept = True
            what = "the handler's half has not been accepted yet: call server.accept()"
            _logger.warning("%s: %s", self._caller, what, extra=self._facts())

    def _refuse_websocket(self, socket: WebSocket) -> Response:
        """Return the answer to a client that gets a WebSocket without wanting one."""
        _let_go(socket)
        what = (
            "fetch returned a WebSocket to a request that does not ask for one, and "
            "the client got 426: check request.wants_websocket first"
        )
        _logger.warning("%s: %s", self._caller, what, extra=self._facts())
        # Differs: in workerd the handler fails. The answer gets the headers Upgrade and
        # Connection where they are allowed.
        return Response("This is for WebSockets.\n", status=426)

    def _take(self, socket: WebSocket, response: Response) -> None:
        """Take the half that the handler gives to this client.

        Raises:
            ValueError: The client has not asked for it like this.
            InvalidStateError: The half was taken before, or its Trio run is in another
                thread.
        """
        check_thread(home_of(socket).thread, "Giving this half to a connection")
        try:
            self._check_answer(response)
            self._coupling = Coupling(socket, self._limits)
        except Exception:
            _let_go(socket)
            raise

    def _check_answer(self, response: Response) -> None:
        offered = self._caller.protocols or ()
        chosen = response.headers.get("sec-websocket-protocol")
        if chosen is not None and not offered:
            # It is left out (RFC 6455, section 4.2.2): browsers would fail otherwise.
            what = (
                "the client offers no subprotocol, and the one that fetch chose was "
                "left out: set Sec-WebSocket-Protocol only if the request has it"
            )
            self._warn_once("no offer", what)
        elif chosen is not None and chosen not in offered:
            # Those offered are not shown: for lack of headers, pages put tokens there.
            what = "a list" if "," in chosen else f"{chosen!r}"
            msg = (
                f"the subprotocol that fetch chose, {what}, was not offered: it is one "
                "of those in request.headers['Sec-WebSocket-Protocol']"
            )
            raise ValueError(msg)
        if chosen is None and offered:
            what = (
                f"the client offers subprotocols ({len(offered)}) and fetch chose "
                "none: browsers fail such a connection. Choose one of those in "
                "request.headers['Sec-WebSocket-Protocol'] with headers="
                "{'Sec-WebSocket-Protocol': ...} in the Response"
            )
            self._warn_once("subprotocol", what)
        for name in response.headers:
            if name in _HEADERS_OF_THE_HANDSHAKE:
                msg = f"a 101 can't have the header {name!r}: the server makes it"
                raise ValueError(msg)

    def _warn_once(self, kind: str, what: str) -> None:
        """Give a warning, unless the server has given one of this kind."""
        if kind not in self._warned:
            self._warned.add(kind)
            what = f"{what} (this is said once)"
            _logger.warning("%s: %s", self._caller, what, extra=self._facts())

    async def _converse(self, coupling: Coupling) -> None:
        """Wait until the client's half and the handler's half have both ended."""
        if self._stop_code is not None:
            self.stop(self._stop_code)
        await self._over.wait()
        half = coupling.half
        if half.peer.holder is Holder.NONE:
            if not self._told_of_no_accept:
                what = "the handler's half was never accepted: call server.accept()"
                _logger.warning("%s: %s", self._caller, what, extra=self._facts())
        elif not half.peer.released:
            with trio.CancelScope() as self._patience:
                self._bound_patience()
                await half.wait_peer_released()

    def stop(self, code: int) -> None:
        """Say a Close to a WebSocket, since the server stops; see that all ends."""
        self._stop_code = code
        if self._coupling is not None:
            self._coupling.stop(code, "the server stops")
        self._bound_patience()

    def _bound_patience(self) -> None:
        """Wait no longer than the grace, once the connection has ended."""
        if self._stop_code is not None and self._patience is not None:
            self._patience.deadline = trio.current_time() + self._limits.close_grace

    @enable_ki_protection
    async def _couple(
        self, coupling: Coupling, answer_headers: Headers, nursery: trio.Nursery
    ) -> None:
        headers = Headers(answer_headers)
        subprotocol = headers.pop("sec-websocket-protocol", None)
        if not self._caller.protocols:
            subprotocol = None
        coupling.half.link.protocol = subprotocol or ""
        try:
            async with self._caller.open(subprotocol, headers, nursery) as connection:
                info = ConnectionInfo("server", self._caller.address, self._url)
                self._connection = info
                report_connected(coupling.conversation.socket, info)
                self._end = await coupling.run(connection, self._alarms)
        finally:
            self._over.set()


def _let_go(socket: WebSocket) -> None:
    """Let a half end that the client does not get."""
    half = half_of(socket)
    if half.state.holder is Holder.NONE:  # And nobody will take it.
        half.discard("it could not be given to the client")


class Handlings:
    """Those of a server, which stops them all."""

    def __init__(self) -> None:
        self._present: dict[Handling, None] = {}
        self._stop_code: int | None = None

    @contextmanager
    def having(self, handling: Handling) -> Generator[None, None, None]:
        """Count this one for the block."""
        self._present[handling] = None
        if self._stop_code is not None:
            handling.stop(self._stop_code)
        try:
            yield
        finally:
            del self._present[handling]

    def stop(self, code: int) -> None:
        """Stop them, and those that are still to come."""
        self._stop_code = code
        for handling in self._present:
            handling.stop(code)

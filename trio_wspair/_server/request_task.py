"""`RequestTask`: one request from the call of the handler to the end of its connection.

Knows the handler and the coupling of a WebSocket. An `Exchange`, of HTTP/1.1 or ASGI,
connects the request with its client. The order of its states is in `_rules.requests`.

Theory of operation. `run()` runs in the task of the connection, with two nurseries. The
inner one is ``request.nursery``: the handler's listeners and tasks run in it, and the
owner of the handler's halves ends when it ends. The outer one is for the connection: if
the handler returns a WebSocket, the coupling of the client's half with the connection
is a task of it, and is shielded. `run()` waits for the end of the coupling, and then
for that of the handler's half. If anything fails in the inner nursery, its halves fail,
and the coupling sends a Close; the outer nursery stays open until then. When the server
stops, another task calls `stop()`.
"""

from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Final, Protocol

import attrs
import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from trio_wspair._http.headers import Headers
from trio_wspair._http.messages import FetchHandler, Request, Response, wrong_answer
from trio_wspair._http.upgrade import UpgradeAnswer, check_upgrade_answer
from trio_wspair._pair.instruments import ConnectionInfo, report_connected
from trio_wspair._pair.owner import Owner, current_owner
from trio_wspair._pair.verbs import half_of, home_of
from trio_wspair._pair.websocket import CloseEvent, WebSocket
from trio_wspair._rules.errors import RequestBodyError
from trio_wspair._rules.limits import Limits
from trio_wspair._rules.requests import (
    RequestEvent,
    RequestLife,
    RequestState,
    StopEffect,
)
from trio_wspair._rules.state import Holder, check_thread
from trio_wspair._tasks.nurseries import hides_failure
from trio_wspair._tasks.timers import Timers
from trio_wspair.transports._connection import Connection
from trio_wspair.transports._couple import Coupling

from .request_log import RequestLog

__all__ = ("Exchange", "RequestTask", "RequestTasks", "Service")

_SLOW_SECONDS: Final = 5.0
"""After this time, a warning is logged if the client still waits for the handler."""


@attrs.frozen(eq=False, kw_only=True)
class Service:
    """The handler, limits and settings of a server, for all its requests."""

    fetch: FetchHandler
    limits: Limits
    log_query: bool = False
    """Whether log records contain the query of the URL."""
    timers: Timers | None = None
    """The timers of the server, if it has them."""
    warned: set[str] = attrs.Factory(set[str])
    """The kinds of warnings that are logged once and were."""


class Exchange(Protocol):
    """One request and its response, for a `RequestTask`, on some kind of connection."""

    def __str__(self) -> str:
        """Return the method and the target for the log: ``GET /chat``.

        Printable, and without the query, unless that may be logged.
        """
        ...

    @property
    def client(self) -> str:
        """The address of the client, as `Request.client`."""
        ...

    @property
    def offered_subprotocols(self) -> Sequence[str] | None:
        """The subprotocols offered; `None` if the client asks for no WebSocket."""
        ...

    @property
    def answered(self) -> bool:
        """Whether a response has begun."""
        ...

    def request(self, nursery: trio.Nursery) -> Request:
        """Return the request for the handler, with its body."""
        ...

    async def send_response(self, response: Response) -> None:
        """Send a response without a WebSocket, until the client has gone."""
        ...

    def open_websocket(
        self, subprotocol: str | None, headers: Headers, nursery: trio.Nursery
    ) -> AbstractAsyncContextManager[Connection]:
        """Open the WebSocket that the client asks for, and keep it for the block.

        The tasks of the connection run in the nursery, which is around the block.
        """
        ...


@attrs.define(eq=False)
class _OpenedWebSocket:
    """A WebSocket that the handler has returned, and its connection."""

    coupling: Coupling
    answer: UpgradeAnswer
    ended: trio.Event = attrs.Factory(trio.Event)
    """Set when the connection has ended."""
    end: CloseEvent | None = None
    """How the connection has ended, if it was open."""


class RequestTask:
    """A request that is being handled.

    Args:
        exchange: The request, and its response.
        service: The handler, limits and settings of the server.
        fetch: The handler of this request, if not that of the service.
    """

    def __init__(
        self, exchange: Exchange, service: Service, fetch: FetchHandler | None = None
    ) -> None:
        self._exchange = exchange
        self._service = service
        self._fetch = fetch or service.fetch
        self._log = RequestLog(
            str(exchange),
            exchange.client,
            log_query=service.log_query,
            warned=service.warned,
        )
        self._life = RequestLife()
        self._owner: Owner
        """The owner of the handler's halves."""
        self._opened: _OpenedWebSocket | None = None
        self._last_wait = trio.CancelScope()
        """The scope in which the end of the handler's half is awaited."""

    async def run(self) -> None:
        """Call the handler, and answer with what it returns."""
        before = current_owner.get()
        try:
            await self._run()
        finally:
            self._cancel_timer(self._warn_of_missing_accept)
            current_owner.set(before)  # It refers to the task, and so to this object.
            self._owner.end()
            self._owner.forget()

    async def _run(self) -> None:
        started = trio.current_time()
        # Two nurseries: if that of the handler fails, the Close is still sent.
        async with trio.open_nursery() as connection_nursery:
            response, code = await self._handle(connection_nursery)
            if self._opened is not None:
                # No effect if the handler's half has sent a Close.
                self._opened.coupling.stop(code, "")
                await self._opened.ended.wait()
            connection_nursery.cancel_scope.cancel(reason="the connection has ended")
        if self._opened is None and not self._exchange.answered:
            await self._exchange.send_response(response)
        self._life.advance(RequestEvent.END)
        seconds = trio.current_time() - started
        if self._opened is None:
            self._log.answered(response, seconds)
        else:
            conversation = self._opened.coupling.conversation
            self._log.conversed(conversation, self._opened.end, seconds)

    async def _handle(self, connection_nursery: trio.Nursery) -> tuple[Response, int]:
        """Call the handler, and wait until its nursery has ended.

        Returns:
            The response, which is not sent yet if its body is bytes; and the close code
            for a WebSocket.
        """
        answer: Response | None = None
        code = 1001
        try:
            async with trio.open_nursery() as nursery:
                self._owner = Owner(nursery)
                self._owner.keep()
                answer = await self._call_handler(nursery)
                if self._opened is not None:
                    # When the server stops, a Close is sent; nothing is cancelled.
                    connection_nursery.cancel_scope.shield = True
                    connection_nursery.start_soon(
                        self._couple, self._opened, connection_nursery
                    )
                    await self._converse(self._opened)
                elif not isinstance(answer.body, bytes):
                    # Tasks of the handler may produce its body.
                    await self._exchange.send_response(answer)
                nursery.cancel_scope.cancel(reason="the connection has closed")
            if answer is not None:
                if self._life.state is RequestState.CONVERSING:
                    # The handler has cancelled request.nursery.
                    self._life.advance(RequestEvent.FAILURE)
                return answer, code
            self._log.cancelled_handler()
        except Exception as exc:  # noqa: BLE001 - it is logged
            code = 1011
            self._log_failure(exc)
        except BaseExceptionGroup as group:
            failure, interruption = group.split(Exception)
            if failure is not None:
                self._log_failure(failure)
            assert (
                interruption is not None
            )  # Otherwise the group would be an Exception.
            raise interruption from None
        self._life.advance(RequestEvent.FAILURE)
        return Response("Internal Server Error\n", status=500), code

    def _log_failure(self, failure: Exception) -> None:
        opened = self._opened
        end = opened.coupling.half.outbox.end if opened is not None else None
        self._log.failure(failure, end)

    # -- the handler ------------------------------------------------------------------

    @disable_ki_protection
    async def _call_handler(self, nursery: trio.Nursery) -> Response:
        request = self._exchange.request(nursery)
        self._log.url = request.url
        current_owner.set(self._owner)
        awaitable: object = self._fetch(request)
        if not isinstance(awaitable, Awaitable):
            msg = "fetch must be an async function: async def fetch(request): ..."
            raise TypeError(msg)
        if request.wants_websocket:
            self._set_timer(self._warn_of_slow_handler)
        try:
            response: object = await awaitable
        except RequestBodyError as exc:
            response = Response(f"{exc}\n", status=exc.status)
            if hides_failure(exc):
                self._log_failure(exc)
        finally:
            self._cancel_timer(self._warn_of_slow_handler)
        if not isinstance(response, Response):
            raise TypeError(f"fetch {wrong_answer(response)}")
        socket = response.web_socket
        if socket is not None and self._exchange.offered_subprotocols is None:
            response = self._refuse_websocket(socket)
        elif socket is not None:
            self._opened = self._take(socket, response)
            self._life.advance(RequestEvent.WEBSOCKET)
            self._set_timer(self._warn_of_missing_accept)
            return response
        self._life.advance(RequestEvent.RESPONSE)
        return response

    def _take(self, socket: WebSocket, response: Response) -> _OpenedWebSocket:
        """Take the half that the handler gives to this client.

        Raises:
            ValueError: The headers of the response don't fit the request.
            InvalidStateError: The half is taken already, or belongs to another thread.
        """
        check_thread(home_of(socket).thread, "Giving this half to a connection")
        offered = self._exchange.offered_subprotocols or ()
        try:
            answer = check_upgrade_answer(response.headers, offered)
            if answer.warning is not None:
                self._log.warn_once(*answer.warning)
            return _OpenedWebSocket(Coupling(socket, self._service.limits), answer)
        except Exception:
            _discard(socket)
            raise

    def _refuse_websocket(self, socket: WebSocket) -> Response:
        """Return the response to a client that has not asked for a WebSocket."""
        _discard(socket)
        self._log.warn(
            "fetch returned a WebSocket to a client that did not ask for one and got "
            "status 426: check request.wants_websocket first"
        )
        # Differs: in workerd the handler fails. The exchange adds the headers Upgrade
        # and Connection where they are allowed.
        return Response("A WebSocket is required.\n", status=426)

    # -- warnings that come later --------------------------------------------------

    def _set_timer(self, call: Callable[[], None]) -> None:
        if self._service.timers is not None:
            self._service.timers.set(_SLOW_SECONDS, call)

    def _cancel_timer(self, call: Callable[[], None]) -> None:
        if self._service.timers is not None:
            self._service.timers.cancel(_SLOW_SECONDS, call)

    def _warn_of_slow_handler(self) -> None:
        self._log.warn(
            "fetch has not returned for 5 s; the client is connected when it does: "
            "run loops with request.nursery.start_soon()"
        )

    def _warn_of_missing_accept(self) -> None:
        assert self._opened is not None
        half = self._opened.coupling.half
        if half.peer.holder is Holder.NONE and not half.peer.released:
            self._log.missing_accept("has not been accepted yet")

    # -- the WebSocket ----------------------------------------------------------------

    @enable_ki_protection
    async def _couple(self, opened: _OpenedWebSocket, nursery: trio.Nursery) -> None:
        """Open the connection, and couple it with the client's half."""
        exchange, coupling, answer = self._exchange, opened.coupling, opened.answer
        coupling.half.link.protocol = answer.subprotocol or ""
        opening = exchange.open_websocket(answer.subprotocol, answer.headers, nursery)
        try:
            async with opening as connection:
                info = ConnectionInfo("server", exchange.client, self._log.url)
                self._log.connection = info
                report_connected(coupling.conversation.socket, info)
                opened.end = await coupling.run(connection, self._service.timers)
        finally:
            opened.ended.set()

    async def _converse(self, opened: _OpenedWebSocket) -> None:
        """Wait until the client's half and the handler's half have both ended."""
        if self._life.stop_code is not None:
            self.stop(self._life.stop_code)
        await opened.ended.wait()
        self._life.advance(RequestEvent.CONNECTION_END)
        half = opened.coupling.half
        if half.peer.holder is Holder.NONE:
            self._log.missing_accept("was never accepted")
        elif not half.peer.released:
            with self._last_wait:
                if self._life.stop_code is not None:
                    self.stop(self._life.stop_code)
                await half.wait_peer_released()

    def stop(self, code: int) -> None:
        """End in bounded time: the server stops. A WebSocket gets this close code."""
        effect = self._life.stop(code)
        if effect is StopEffect.SEND_CLOSE:
            assert self._opened is not None
            self._opened.coupling.stop(code, "the server stops")
        elif effect is StopEffect.BOUND_WAIT:
            grace = self._service.limits.close_grace
            self._last_wait.deadline = trio.current_time() + grace


def _discard(socket: WebSocket) -> None:
    """End a half that is not given to the client, unless it is taken already."""
    half = half_of(socket)
    if half.state.holder is Holder.NONE:
        half.discard("it could not be given to the client")


class RequestTasks:
    """The requests that a server is handling; it stops all of them together."""

    def __init__(self) -> None:
        self._present: dict[RequestTask, None] = {}
        self._stop_code: int | None = None

    @property
    def stopping(self) -> bool:
        """Whether the server stops."""
        return self._stop_code is not None

    @contextmanager
    def including(self, task: RequestTask) -> Generator[None, None, None]:
        """Include a task during the block. If the server is stopping, stop it."""
        self._present[task] = None
        if self._stop_code is not None:
            task.stop(self._stop_code)
        try:
            yield
        finally:
            del self._present[task]

    def stop(self, code: int) -> None:
        """Stop the tasks, and those that are included later."""
        self._stop_code = code
        for task in self._present:
            task.stop(code)

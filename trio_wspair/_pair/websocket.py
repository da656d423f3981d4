"""`WebSocket`, the public class of a half: its events, their listeners, and its end.

The other verbs are in its base class, and `broadcast()` sends to many halves. What
delivers the events is not known here.
"""

from collections.abc import Callable, Iterable
from threading import get_ident
from typing import ClassVar, Literal, TypeVar, overload

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from trio_wspair._rules.codes import checked_close
from trio_wspair._rules.errors import InvalidStateError, WebSocketError
from trio_wspair._rules.listeners import Listener, check_event_type
from trio_wspair._rules.messages import as_message, size_of
from trio_wspair._rules.state import Cause, Holder, check_thread, foreign_thread_error
from trio_wspair._tasks.cork import corked
from trio_wspair._tasks.nurseries import let_others_clean_up, let_unread_bytes_count

from .half import unanswered
from .verbs import Verbs, half_of, home_of

__all__ = (
    "CloseEvent",
    "ErrorEvent",
    "MessageEvent",
    "WebSocket",
    "broadcast",
    "close_event",
)


@attrs.define(slots=True)
class MessageEvent:
    """A message has arrived."""

    type: ClassVar[Literal["message"]] = "message"
    data: str | bytes
    """Text or binary, as it was sent."""
    target: "WebSocket | None" = attrs.field(default=None, eq=False, repr=False)
    """The half that it arrived at."""


@attrs.define(slots=True)
class CloseEvent:
    """The half has closed. Always its last event."""

    type: ClassVar[Literal["close"]] = "close"
    code: int
    """The code of the peer's Close; 1005 if it had none, 1006 if none came."""
    reason: str
    """The reason of the peer's Close, possibly empty."""
    was_clean: bool
    """Whether both sides have sent a Close, whatever its code."""
    target: "WebSocket | None" = attrs.field(default=None, eq=False, repr=False)
    """The half that has closed."""


@attrs.define(slots=True)
class ErrorEvent:
    """The half has failed; a `CloseEvent` follows."""

    type: ClassVar[Literal["error"]] = "error"
    message: str
    """A description of what went wrong."""
    error: Exception
    """What went wrong: a listener's exception, a `ProtocolError`, a timeout."""
    target: "WebSocket | None" = attrs.field(default=None, eq=False, repr=False)
    """The half that has failed."""


MessageListener = Callable[[MessageEvent], object]
CloseListener = Callable[[CloseEvent], object]
ErrorListener = Callable[[ErrorEvent], object]
_M = TypeVar("_M", bound=MessageListener)
_C = TypeVar("_C", bound=CloseListener)
_E = TypeVar("_E", bound=ErrorListener)
_L = TypeVar("_L", bound=Listener)


class WebSocket(Verbs):
    """One half of a pair, as the WHATWG and Workers interfaces of that name.

    Halves come from `open_websocket_pair()`, `WebSocketPair` and `connect()`.
    Every method but the ``async`` ones is synchronous, never a checkpoint, works in
    a cancelled scope, and takes effect or raises with nothing changed. All of them
    belong to the thread of the half's Trio run; in any other thread they raise
    `InvalidStateError`, and `trio.from_thread.run_sync()` is the way to call them. The
    attributes can be read everywhere.
    """

    __slots__ = ()

    # -- listening ------------------------------------------------------------

    @overload
    def add_event_listener(
        self,
        type: Literal["message"],
        listener: MessageListener,
        *,
        once: bool = False,
    ) -> None: ...
    @overload
    def add_event_listener(
        self, type: Literal["close"], listener: CloseListener, *, once: bool = False
    ) -> None: ...
    @overload
    def add_event_listener(
        self, type: Literal["error"], listener: ErrorListener, *, once: bool = False
    ) -> None: ...
    @enable_ki_protection
    def add_event_listener(
        self, type: str, listener: Listener, *, once: bool = False
    ) -> None:
        """Call `listener` with each event of this type, after those added before.

        An async listener is awaited before the next event of this half. An exception
        of a listener ends this half (`error`, then `close`) and propagates from the
        nursery. Adding the same listener again has no effect (WHATWG DOM, 2.7).

        Args:
            type: ``"message"``, ``"close"`` or ``"error"``.
            listener: A callable that takes the event.
            once: Remove the listener before its first call.

        Raises:
            ValueError: There is no such type of event.
            TypeError: The listener is not callable.
        """
        check_thread(self._home.thread, "add_event_listener()")
        self._listen(type, listener, once=once)

    @overload
    def remove_event_listener(
        self, type: Literal["message"], listener: MessageListener
    ) -> None: ...
    @overload
    def remove_event_listener(
        self, type: Literal["close"], listener: CloseListener
    ) -> None: ...
    @overload
    def remove_event_listener(
        self, type: Literal["error"], listener: ErrorListener
    ) -> None: ...
    @enable_ki_protection
    def remove_event_listener(self, type: str, listener: Listener) -> None:
        """Stop calling `listener`. Does nothing if it was never added.

        Raises:
            ValueError: There is no such type of event.
            TypeError: The listener is not callable.
        """
        check_thread(self._home.thread, "remove_event_listener()")
        self._half.listeners.remove(type, listener)

    @overload
    def on(self, type: Literal["message"]) -> Callable[[_M], _M]: ...
    @overload
    def on(self, type: Literal["close"]) -> Callable[[_C], _C]: ...
    @overload
    def on(self, type: Literal["error"]) -> Callable[[_E], _E]: ...
    def on(
        self, type: str
    ) -> Callable[[_M], _M] | Callable[[_C], _C] | Callable[[_E], _E]:
        """Return a decorator that adds a listener: ``@ws.on("message")``.

        Raises:
            ValueError: There is no such type of event.
        """
        check_thread(self._home.thread, "on()")
        check_event_type(type)

        @enable_ki_protection
        def add(listener: _L) -> _L:
            check_thread(self._home.thread, "on()")
            self._listen(type, listener, once=False)
            return listener

        return add

    @property
    def onmessage(self) -> MessageListener | None:
        """A further listener for messages, called before the others."""
        return self._half.listeners.slot("message")

    @onmessage.setter
    @enable_ki_protection
    def onmessage(self, listener: MessageListener | None) -> None:
        check_thread(self._home.thread, "Setting onmessage")
        listened = "message" in self._half.listeners
        self._half.listeners.set_slot("message", listener)
        if not listened:
            self._warn_if_pulled()

    @property
    def onclose(self) -> CloseListener | None:
        """A further listener for the close event, called before the others."""
        return self._half.listeners.slot("close")

    @onclose.setter
    @enable_ki_protection
    def onclose(self, listener: CloseListener | None) -> None:
        check_thread(self._home.thread, "Setting onclose")
        self._half.listeners.set_slot("close", listener)

    @property
    def onerror(self) -> ErrorListener | None:
        """A further listener for the error event, called before the others."""
        return self._half.listeners.slot("error")

    @onerror.setter
    @enable_ki_protection
    def onerror(self, listener: ErrorListener | None) -> None:
        check_thread(self._home.thread, "Setting onerror")
        self._half.listeners.set_slot("error", listener)

    def _listen(self, type: str, listener: Listener, *, once: bool) -> None:
        listened = "message" in self._half.listeners
        self._half.listeners.add(type, listener, once=once)
        if not listened:
            self._warn_if_pulled()

    # -- the end ------------------------------------------------------------------

    async def wait_closed(self) -> CloseEvent:
        """Wait for the end of this half and return its close event.

        When it returns, the close listeners have run, and a half-open half has called
        `close()`. Always a checkpoint.

        Raises:
            InvalidStateError: Called in a listener of this half, which would wait
                for itself.
        """
        check_thread(self._home.thread, "wait_closed()")
        if self._half.in_listener():
            await trio.lowlevel.checkpoint()
            msg = "wait_closed() in a listener of the same half would never return"
            raise InvalidStateError(msg)
        half = self._half
        half.inbox.end_is_awaited += 1
        half.inbox.wake_consumer()
        try:
            await half.wait_released()
        finally:
            half.inbox.end_is_awaited -= 1
        return close_event(self)

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close, and wait until the closing handshake is over.

        The handshake gets `close_grace` seconds; then, or when the call is cancelled,
        the half ends with 1006. In any case it is closed afterwards. On a half that is
        not accepted it implies ``accept(pull=True)``. In a listener of the same half it
        only calls `close()`. Always a checkpoint.

        Raises:
            ValueError: As for `close()`.
            TypeError: As for `close()`.
            InvalidStateError: The half was given to a connection.
        """
        check_thread(self._home.thread, "aclose()")
        checked_close(code, reason)
        half = self._half
        if half.state.holder is Holder.NONE and not half.state.closed:
            try:
                self.accept(pull=True)
            except InvalidStateError:  # Its nursery has ended.
                half.discard("its nursery has ended")
        if not half.state.closed:
            half.state.check_verb("aclose()")
        self.close(code, reason)
        if half.in_listener():
            await trio.lowlevel.checkpoint()
            return
        grace = self._home.close_grace
        try:
            with trio.move_on_after(grace):
                await half.wait_released()
                return
            if grace > 0:  # With 0 there is no answer to wait for.
                await let_unread_bytes_count()
            half.fail(unanswered(grace))
        finally:
            # An answer that has arrived already counts.
            await let_others_clean_up()  # noqa: ASYNC102 - shielded, two steps
            half.fail_by(Cause.CLOSING_CANCELLED)
        with trio.move_on_after(grace):  # The listeners of that end run.
            await half.wait_released()


def close_event(socket: WebSocket) -> CloseEvent:
    """Return the close event of this half."""
    return CloseEvent(*half_of(socket).state.outcome, socket)


@enable_ki_protection
def broadcast(
    sockets: Iterable[WebSocket],
    message: str | bytes | bytearray | memoryview | float,
) -> dict[WebSocket, WebSocketError]:
    """Send a message to all of `sockets` that can take it, and return the others.

    The message is converted once, as by `WebSocket.send()`, and queued for each socket.
    A socket that is closing, has closed, or is too far behind is skipped. Synchronous,
    never a checkpoint.

    Returns:
        The sockets that were skipped, each with the error that `send()` would have
        raised: `ConnectionClosedError`, `BufferFullError` or `InvalidStateError`.

    Raises:
        TypeError: The message is of another type, and was not sent at all.
        InvalidStateError: This is another thread than that of a socket, and the message
            was not sent at all.
    """
    plain = as_message(message)
    size = size_of(plain)
    skipped: dict[WebSocket, WebSocketError] = {}
    targets = list(sockets)
    thread = get_ident()
    for socket in targets:
        if not isinstance(socket, WebSocket):
            msg = f"broadcast() sends to WebSockets, not {type(socket).__name__}"
            raise TypeError(msg)
        if home_of(socket).thread != thread:
            raise foreign_thread_error("broadcast()")
    with corked():  # No task is woken for a connection that can write at once.
        for socket in targets:
            half = half_of(socket)
            try:
                half.state.check_send()
                if not half.outbox.put(plain, size):
                    raise half.gone_error()
            except WebSocketError as error:
                skipped[socket] = error
    return skipped

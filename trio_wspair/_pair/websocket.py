"""`WebSocket`, the public face of a half, and the events it shows.

Every verb checks, then does. The doing is in `half`; who delivers events is not
known here, only that a `Home` has someone for it.
"""

import logging
from collections.abc import Callable
from threading import get_ident
from typing import ClassVar, Literal, Protocol, TypeVar, overload

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from trio_wspair._rules.codes import NORMAL_CODES, checked_close
from trio_wspair._rules.errors import ConnectionClosedError, InvalidStateError
from trio_wspair._rules.limits import check_limit
from trio_wspair._rules.listeners import Listener, check_event_type
from trio_wspair._rules.messages import (
    Message,
    as_message,
    pack_attachment,
    size_of,
    unpack_attachment,
)
from trio_wspair._rules.state import (
    Failure,
    Holder,
    Operation,
    ReadyState,
    check_thread,
    foreign_thread_error,
)
from trio_wspair._tasks.nurseries import let_others_clean_up, let_unread_bytes_count

from .half import Half, unanswered
from .inbox import Item

__all__ = (
    "CloseEvent",
    "ErrorEvent",
    "Home",
    "MessageEvent",
    "WebSocket",
    "close_event",
    "close_grace",
    "half_of",
    "home_of",
    "move",
)

_logger = logging.getLogger("trio_wspair")
_STREAK = 64
"""Messages that iteration may give without a checkpoint."""


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
    """The conversation is over. Always the last event of a half."""

    type: ClassVar[Literal["close"]] = "close"
    code: int
    """The code of the peer's Close; 1005 if it had none, 1006 if none came."""
    reason: str
    """The peer's words, possibly empty."""
    was_clean: bool
    """Whether both sides said Close, whatever the code."""
    target: "WebSocket | None" = attrs.field(default=None, eq=False, repr=False)
    """The half that has closed."""


@attrs.define(slots=True)
class ErrorEvent:
    """The half has failed; a `CloseEvent` follows."""

    type: ClassVar[Literal["error"]] = "error"
    message: str
    """What went wrong, in words."""
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


class Home(Protocol):
    """Where a half lives: the nursery side, as far as a half needs to know."""

    @property
    def close_grace(self) -> float:
        """Seconds that a closing handshake may take."""
        ...

    @property
    def thread(self) -> int:
        """The thread of its Trio run, as `threading.get_ident()` tells it."""
        ...

    def adopt(self, socket: "WebSocket", *, pull: bool) -> None:
        """Deliver the events of this half from now on."""
        ...


class WebSocket:
    """One half of a pair, as the WHATWG and Workers interfaces of that name.

    Halves come from `open_websocket_pair()`, `WebSocketPair` and `connect()`.
    Every method but the ``async`` ones is synchronous, never a checkpoint, works in
    a cancelled scope, and takes effect or raises with nothing changed. All of them
    belong to the thread of the half's Trio run; in any other thread they raise
    `InvalidStateError`, and `trio.from_thread.run_sync()` is the way to call them. The
    attributes can be read everywhere.
    """

    __slots__ = ("__weakref__", "_half", "_home", "_streak")

    def __init__(self, half: Half, home: Home) -> None:
        self._half = half
        self._home = home
        self._streak = 0

    def __repr__(self) -> str:
        return f"<WebSocket {self._half.state.describe()}>"

    # -- taking it ------------------------------------------------------------

    @enable_ki_protection
    def accept(self, *, allow_half_open: bool = False, pull: bool = False) -> None:
        """Take this half for the application: what was sent to it begins to come.

        Events go to the listeners from the next time on that Trio runs other
        tasks, so listeners may be added right after. They see the context
        variables of this call. A second call changes nothing.

        Args:
            allow_half_open: Don't answer the peer's Close: `send()` works until
                one's own `close()` (Workers: `allowHalfOpen`).
            pull: There will be no message events; the application awaits
                `receive()` or iterates. The peer's Close takes effect when the
                messages before it have been received, or after one's own `close()`
                when it arrives.

        Raises:
            InvalidStateError: The half has closed, was given to a connection, or
                its nursery has ended.
            TypeError: An option is not a bool.
        """
        check_thread(self._home.thread, "accept()")
        for option in (allow_half_open, pull):
            # Differs: workerd takes any truthy value.
            if not isinstance(option, bool):
                msg = f"accept() takes True or False, not {option!r}"
                raise TypeError(msg)
        state = self._half.state
        new = state.holder is Holder.NONE
        act = Operation.PULL if pull and new else Operation.ACCEPT
        state.check_take(act)
        if new:
            self._home.adopt(self, pull=pull)
            state.take(act, half_open=allow_half_open)
            self._warn_if_pulled()

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

        An async listener is awaited before the next event of this half. What a
        listener raises ends this half (`error`, then `close`) and propagates from
        the nursery. Adding one twice has no effect (WHATWG DOM, 2.7).

        Args:
            type: ``"message"``, ``"close"`` or ``"error"``.
            listener: A callable that takes the event.
            once: Remove it when the first event comes.

        Raises:
            ValueError: There is no such event type.
            TypeError: The listener can't be called.
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
        """Stop calling `listener`; nothing happens if it was never added.

        Raises:
            ValueError: There is no such event type.
            TypeError: The listener can't be called.
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
            ValueError: There is no such event type.
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
        """One more listener for messages, called before the others."""
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
        """One more listener for the close event, called before the others."""
        return self._half.listeners.slot("close")

    @onclose.setter
    @enable_ki_protection
    def onclose(self, listener: CloseListener | None) -> None:
        check_thread(self._home.thread, "Setting onclose")
        self._half.listeners.set_slot("close", listener)

    @property
    def onerror(self) -> ErrorListener | None:
        """One more listener for the error event, called before the others."""
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

    def _warn_if_pulled(self) -> None:
        """Tell the log if there are listeners for messages that are never called."""
        half = self._half
        if half.state.holder is Holder.PULLER and "message" in half.listeners:
            _logger.warning(
                "listeners for messages are never called: this half is in pull mode, "
                "and its messages go to receive() and 'async for'. Leave out the "
                "listeners, or take the half with accept()"
            )  # It isn't in the record, which may be kept for long.

    # -- talking --------------------------------------------------------------

    @enable_ki_protection
    def send(self, message: str | bytes | bytearray | memoryview | float) -> None:
        """Send a message; it is queued at once and arrives in order.

        Bytes-like objects are copied. A number is sent as the text that ECMAScript
        prints for it. A lone surrogate becomes U+FFFD.

        Raises:
            InvalidStateError: Before `accept()`, or after one's own `close()`.
            ConnectionClosedError: The peer has closed, or the half has failed.
            BufferFullError: The other side is too far behind; see `drain()`.
            TypeError: The message is of another type.
        """
        if get_ident() != self._home.thread:
            raise foreign_thread_error("send()")
        half = self._half
        state = half.state
        # The same three facts as check_send(), but cheap when all is well.
        if (
            state.close_sent is not None
            or state.failure is not None
            or not state.holder.has_verbs
        ):
            state.check_send()
        if type(message) is str and message.isascii():
            taken = half.outbox.put(message, len(message))
        else:
            plain = as_message(message)
            taken = half.outbox.put(plain, size_of(plain))
        if not taken:
            raise half.gone_error()

    @enable_ki_protection
    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Start the closing handshake (RFC 6455, section 7.1.2).

        What was sent before arrives first. The half goes on receiving until the
        peer's Close comes. After a Close of one's own, or an automatic answer, the
        call is ignored; the arguments are checked all the same.

        Args:
            code: 1000-4999 except 1004, 1005, 1006 and 1015; without one the peer
                sees 1005. Peers on a network may refuse 1014 and 1016-2999.
            reason: At most 123 bytes of UTF-8, and only with a code.

        Raises:
            ValueError: The code or the reason can't be sent.
            TypeError: The code or the reason is of another type.
            InvalidStateError: Before `accept()`, or given to a connection.
        """
        check_thread(self._home.thread, "close()")
        close = checked_close(code, reason)
        half = self._half
        if half.state.start_close(close):
            half.outbox.put_end(close)
            half.inbox.wake_consumer()  # An end in the queue may be due now.

    # -- looking --------------------------------------------------------------

    @property
    def ready_state(self) -> ReadyState:
        """How far the closing has come (WHATWG `readyState`)."""
        return self._half.state.ready_state

    @property
    def url(self) -> str | None:
        """The URL of a half from `connect()`, else `None`."""
        return self._half.link.url

    @property
    def protocol(self) -> str:
        """The subprotocol that was agreed on, or ``""``."""
        return self._half.link.protocol

    @property
    def extensions(self) -> str:
        """The extensions that were agreed on, or ``""``."""
        return self._half.link.extensions

    @property
    def buffered_amount(self) -> int:
        """Bytes that were sent and not taken yet by the other side or the network."""
        return self._half.outbox.buffered

    # -- attachments ----------------------------------------------------------

    @enable_ki_protection
    def serialize_attachment(self, value: object) -> None:
        """Keep a copy of `value` with this half, in place of the last one.

        Args:
            value: None, bool, int, float, str, bytes, aware datetimes, and lists,
                dicts and sets of these, shared and cyclic references included.
                Tuples come back as lists. At most 16,384 bytes when serialised.

        Raises:
            TypeError: Something in it can't be kept.
            ValueError: It is too large.
        """
        check_thread(self._home.thread, "serialize_attachment()")
        self._half.attachment = pack_attachment(value)

    def deserialize_attachment(self) -> object:
        """Return a fresh copy of the attachment, or `None` if there is none."""
        packed = self._half.attachment
        return None if packed is None else unpack_attachment(packed)

    # -- waiting --------------------------------------------------------------

    @enable_ki_protection
    async def receive(self) -> str | bytes:
        """Wait for the next message. Always a checkpoint; no message gets lost.

        On a half that nobody has taken it implies ``accept(pull=True)``.

        Raises:
            ConnectionClosedError: There are no more messages.
            InvalidStateError: The messages go to listeners or to a connection.
        """
        if get_ident() != self._home.thread:
            raise foreign_thread_error("receive()")
        half = self._half
        if half.state.holder is not Holder.PULLER:
            await self._start_pulling()
        inbox = half.inbox
        item: Item | None = None
        try:
            if inbox.weight:  # receive() of the channel, written out: a call less.
                await trio.lowlevel.checkpoint_if_cancelled()
                try:
                    item = inbox.items.receive_nowait()
                    await trio.lowlevel.cancel_shielded_checkpoint()
                except trio.WouldBlock:  # Another one has been given it.
                    pass
            if item is None:
                item = await inbox.items.receive()
        except trio.ClosedResourceError:
            item = None
        if item is None:
            await trio.lowlevel.checkpoint()
            raise half.state.closed_error()
        return self._taken(half, item)

    def __aiter__(self) -> "WebSocket":
        """Iterate over the messages: ``async for message in ws``."""
        return self

    async def __anext__(self) -> str | bytes:
        """Return the next message. A checkpoint if it waits, or every 64 messages.

        Raises:
            StopAsyncIteration: The peer has closed with 1000, 1001 or no code.
            ConnectionClosedError: The conversation has ended in another way.
            InvalidStateError: As for `receive()`.
        """
        if get_ident() != self._home.thread:
            raise foreign_thread_error("Iteration")
        half = self._half
        item: Item | None = None
        if half.state.holder is Holder.PULLER and self._streak < _STREAK:
            try:
                item = half.inbox.items.receive_nowait()
            except (trio.WouldBlock, trio.ClosedResourceError):
                item = None
        try:
            if item is None:
                self._streak = 0
                return await self.receive()
            self._streak += 1
            return self._taken(half, item)
        except ConnectionClosedError as exc:
            if exc.was_clean and exc.code in NORMAL_CODES:
                raise StopAsyncIteration from None
            raise

    async def drain(self, max_bytes: int = 0) -> None:
        """Wait until the other side has taken all but `max_bytes` of what was sent.

        Always a checkpoint.

        Raises:
            ConnectionClosedError: The half has failed, meanwhile or before, or the
                other half has ended without taking it.
            InvalidStateError: Before `accept()`.
            ValueError: `max_bytes` is negative.
            TypeError: `max_bytes` is no int.
        """
        check_thread(self._home.thread, "drain()")
        check_limit("max_bytes", max_bytes, least=0)
        half = self._half
        state = half.state
        state.check_verb("drain()")
        await trio.lowlevel.checkpoint()
        while half.outbox.buffered > max_bytes and state.failure is None:
            if half.peer.released:
                raise half.gone_error()
            await half.outbox.wait_release()
        if state.failure is not None:
            raise state.closed_error()
        if half.outbox.lost:
            raise half.gone_error()

    async def wait_closed(self) -> CloseEvent:
        """Wait for the end of this half and return its close event.

        The close listeners have run then, and in half-open one's own `close()` has
        been called. Always a checkpoint.

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

        It gets `close_grace` seconds; then, or when the call is cancelled, the half
        ends with 1006. Whatever happens, it is closed afterwards. On a half that
        nobody has taken it implies ``accept(pull=True)``. In a listener of the same
        half it is `close()` and waits for nothing. Always a checkpoint.

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
            except InvalidStateError:  # Its nursery has ended: nobody can take it.
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
            if grace > 0:  # Else nothing was to be waited for.
                await let_unread_bytes_count()
            half.fail(unanswered(grace))
        finally:
            # An answer that is there already counts.
            await let_others_clean_up()  # noqa: ASYNC102 - shielded, two steps
            half.fail(Failure("closing was cancelled"))
        with trio.move_on_after(grace):  # For the listeners of that end.
            await half.wait_released()

    async def ping(self) -> float:
        """Send a ping and return the seconds until its pong (RFC 6455, 5.5.2).

        Always a checkpoint.

        Raises:
            ConnectionClosedError: The connection ends before the pong comes.
            InvalidStateError: There is no network under this half.
        """
        check_thread(self._home.thread, "ping()")
        ping = self._half.link.ping
        if ping is None:
            await trio.lowlevel.checkpoint()
            if self._half.state.closed:
                raise self._half.state.closed_error()
            if self._half.peer.released:  # Its own end is still on the way.
                raise self._half.gone_error()
            msg = "ping() needs a network connection, and this half has none"
            raise InvalidStateError(msg)
        return await ping()

    @property
    def latency(self) -> float | None:
        """The round trip to the peer in seconds, as the last ping has measured it.

        `None` before the first pong, and where there is no network under this half.
        """
        return self._half.link.latency

    async def _start_pulling(self) -> None:
        """Take the half for pulling, or say why that can't be."""
        holder = self._half.state.holder
        if holder is not Holder.NONE:
            msg = (
                f"receive() on a half that is {holder.label}: its messages go "
                "elsewhere. To receive() or iterate, call accept(pull=True) first, "
                "instead of accept()"
            )
            raise InvalidStateError(msg)
        await trio.lowlevel.checkpoint_if_cancelled()
        self.accept(pull=True)

    @staticmethod
    @enable_ki_protection
    def _taken(half: Half, item: Item) -> Message:
        inbox = half.inbox
        if isinstance(item, (str, bytes)):
            inbox.release(item)
            if inbox.end_is_awaited and inbox.weight == 0:
                inbox.wake_consumer()
            return item
        half.receive_end(item)
        inbox.wake_consumer()
        inbox.items.close()  # Wakes whoever else is waiting in receive().
        raise half.state.closed_error()


def half_of(socket: WebSocket) -> Half:
    """Return the inside of a half, for those who take halves."""
    return socket._half


def home_of(socket: WebSocket) -> Home:
    """Return where a half lives."""
    return socket._home


def close_grace(socket: WebSocket) -> float:
    """Return the seconds that this half gets to close."""
    return socket._home.close_grace


def move(socket: WebSocket, home: Home) -> None:
    """Let a half live elsewhere from now on."""
    socket._home = home


def close_event(socket: WebSocket) -> CloseEvent:
    """Return the event that tells the end of this half."""
    return CloseEvent(*socket._half.state.outcome, socket)

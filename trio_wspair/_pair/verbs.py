"""`Verbs`: what an application does with a half, apart from events.

The base class of `WebSocket`, which adds events. Every method checks its arguments,
asks `state` whether it is legal now, and then calls `half`. What delivers the events is
not known here, only that a `Home` has it.
"""

import logging
from threading import get_ident
from typing import Final, Protocol, Self

import trio
from trio.lowlevel import enable_ki_protection

from trio_wspair._rules.codes import NORMAL_CODES, checked_close
from trio_wspair._rules.errors import ConnectionClosedError, InvalidStateError
from trio_wspair._rules.limits import check_limit
from trio_wspair._rules.messages import (
    Message,
    as_message,
    pack_attachment,
    size_of,
    unpack_attachment,
)
from trio_wspair._rules.state import (
    Holder,
    Operation,
    ReadyState,
    check_thread,
    foreign_thread_error,
)

from .half import Half
from .inbox import Item

__all__ = ("Home", "Verbs", "close_grace", "half_of", "home_of", "move")

_logger: Final = logging.getLogger("trio_wspair")
_NONE, _PULLER = Holder.NONE, Holder.PULLER
"""Looking up a member of an `Enum` takes as long as a call."""
_STREAK: Final = 64
"""Messages that iteration returns without a checkpoint."""


class Home(Protocol):
    """The nursery in which a half lives, as the half sees it."""

    @property
    def close_grace(self) -> float:
        """Seconds that a closing handshake may take."""
        ...

    @property
    def thread(self) -> int:
        """The thread of its Trio run, as of `threading.get_ident()`."""
        ...

    def adopt(self, socket: "Verbs", *, pull: bool) -> None:
        """Deliver the events of this half from now on.

        Raises:
            InvalidStateError: The nursery has ended.
        """
        ...


class Verbs:
    """The part of `WebSocket` that is not about events."""

    __slots__ = ("__weakref__", "_half", "_home", "_streak")

    def __init__(self, half: Half, home: Home) -> None:
        self._half = half
        self._home = home
        self._streak = 0

    def __repr__(self) -> str:
        return f"<WebSocket {self._half.state.describe()}>"

    # -- taking the half ------------------------------------------------------------

    @enable_ki_protection
    def accept(self, *, allow_half_open: bool = False, pull: bool = False) -> None:
        """Take this half for the application: delivery of what was sent to it begins.

        The first event is dispatched when Trio runs other tasks, so that listeners may
        be added right after this call. Listeners see the context variables of this
        call. A second call changes nothing.

        Args:
            allow_half_open: Don't answer the peer's Close: `send()` works until this
                half calls `close()` (Workers: `allowHalfOpen`).
            pull: The application awaits `receive()` or iterates, and gets no message
                events. The peer's Close takes effect when the messages before it
                have been received, or when it arrives after `close()` of this half.

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
        new = state.holder is _NONE
        act = Operation.PULL if pull and new else Operation.ACCEPT
        state.check_take(act)
        if new:
            self._home.adopt(self, pull=pull)
            state.take(act, half_open=allow_half_open)
            self._warn_if_pulled()

    def _warn_if_pulled(self) -> None:
        """Log a warning if there are listeners for messages, which are never called."""
        half = self._half
        if half.state.holder is _PULLER and "message" in half.listeners:
            _logger.warning(
                "listeners for messages are never called: this half is in pull mode, "
                "and its messages go to receive() and 'async for'. Leave out the "
                "listeners, or take the half with accept()"
            )  # Without the half: a log record may be kept for long.

    # -- sending and closing ----------------------------------------------------

    @enable_ki_protection
    def send(self, message: str | bytes | bytearray | memoryview | float) -> None:
        """Send a message; it is queued at once and arrives in order.

        Bytes-like objects are copied. A number is sent as the text that ECMAScript
        prints for it. A lone surrogate becomes U+FFFD.

        Raises:
            InvalidStateError: Before `accept()`, or after `close()` of this half.
            ConnectionClosedError: The peer has closed, or the half has failed.
            BufferFullError: The other side is too far behind; see `drain()`.
            TypeError: The message is of another type.
        """
        if get_ident() != self._home.thread:
            raise foreign_thread_error("send()")
        half = self._half
        state = half.state
        # The facts of check_send(), without its call.
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

        Messages that were sent before arrive first. The half goes on receiving until
        the peer's Close comes. If this half has sent a Close already, also as an
        automatic answer, the arguments are checked and the call is ignored.

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

    # -- state ----------------------------------------------------------------

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
        """The negotiated subprotocol, or ``""``."""
        return self._half.link.protocol

    @property
    def extensions(self) -> str:
        """The negotiated extensions, or ``""``."""
        return self._half.link.extensions

    @property
    def buffered_amount(self) -> int:
        """Bytes that this half has sent, and the other side has not taken yet.

        The other side is a consumer in this process, or the network.
        """
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

    # -- receiving and waiting ----------------------------------------------------

    @enable_ki_protection
    async def receive(self) -> str | bytes:
        """Wait for the next message, and return it.

        Always a checkpoint. Cancellation loses no message. On a half that is not
        accepted it implies ``accept(pull=True)``.

        Raises:
            ConnectionClosedError: There are no more messages.
            InvalidStateError: The messages go to listeners or to a connection.
        """
        if get_ident() != self._home.thread:
            raise foreign_thread_error("receive()")
        half = self._half
        if half.state.holder is not _PULLER:
            await self._start_pulling()
        inbox = half.inbox
        item: Item | None = None
        try:
            if inbox.weight:  # receive() of the channel, written out to save a call.
                await trio.lowlevel.checkpoint_if_cancelled()
                try:
                    item = inbox.items.receive_nowait()
                    await trio.lowlevel.cancel_shielded_checkpoint()
                except trio.WouldBlock:  # The channel has handed it to another task.
                    pass
            if item is None:
                item = await inbox.items.receive()
        except trio.ClosedResourceError:
            item = None
        if item is None:
            await trio.lowlevel.checkpoint()
            raise half.state.closed_error()
        return self._taken(half, item)

    def __aiter__(self) -> Self:
        """Iterate over the messages: ``async for message in ws``."""
        return self

    async def __anext__(self) -> str | bytes:
        """Return the next message. A checkpoint if it waits, and every 64 messages.

        Raises:
            StopAsyncIteration: The peer has closed with 1000, 1001 or no code.
            ConnectionClosedError: The conversation has ended in another way.
            InvalidStateError: As for `receive()`.
        """
        if get_ident() != self._home.thread:
            raise foreign_thread_error("Iteration")
        half = self._half
        item: Item | None = None
        if half.state.holder is _PULLER and self._streak < _STREAK:
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
            TypeError: `max_bytes` is not an int.
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
            await half.outbox.wait_progress()
        if state.failure is not None:
            raise state.closed_error()
        if half.outbox.lost:
            raise half.gone_error()

    async def ping(self) -> float:
        """Send a ping and return the seconds until its pong (RFC 6455, 5.5.2).

        Always a checkpoint.

        Raises:
            ConnectionClosedError: The connection ends before the pong comes.
            InvalidStateError: This half has no network connection.
        """
        check_thread(self._home.thread, "ping()")
        ping = self._half.link.ping
        if ping is None:
            await trio.lowlevel.checkpoint()
            if self._half.state.closed:
                raise self._half.state.closed_error()
            if self._half.peer.released:  # The end of this half was not delivered yet.
                raise self._half.gone_error()
            msg = "ping() needs a network connection, and this half has none"
            raise InvalidStateError(msg)
        return await ping()

    @property
    def latency(self) -> float | None:
        """The round trip to the peer in seconds, as the last ping has measured it.

        `None` before the first pong, and for a half without a network connection.
        """
        return self._half.link.latency

    async def _start_pulling(self) -> None:
        """Take the half for pulling, or raise an error that says why not."""
        holder = self._half.state.holder
        if holder is not _NONE:
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
        inbox.items.close()  # Other tasks in receive() raise, too.
        raise half.state.closed_error()


def half_of(socket: Verbs) -> Half:
    """Return the inside of a half."""
    return socket._half


def home_of(socket: Verbs) -> Home:
    """Return the home of a half."""
    return socket._home


def close_grace(socket: Verbs) -> float:
    """Return the seconds that this half gets to close."""
    return socket._home.close_grace


def move(socket: Verbs, home: Home) -> None:
    """Give a half another home."""
    socket._home = home

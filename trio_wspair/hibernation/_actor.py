"""`Actor`: one object, with all that stays while it is out of memory.

Knows the object's sockets, its settings, and its instance while it is in memory.

Theory of operation. The dispatcher of the namespace's nursery calls `_take()` for each
event of a socket; the next event of the same socket follows when that has ended. An
event runs in the object's instance, in a task of its socket. If no instance is in
memory, `_enter()` constructs one. While an instance leaves memory, requests and events
wait at the entrance, and continue in the order in which they came.

A message that has an automatic answer needs no instance. It is answered at once, in
the task of its sender (`Inbox.intercept`), in two cases: no earlier message of its
socket is queued or being handled, or the handler of the earlier message has begun to
wait. Otherwise it is queued, because the answer must come after everything that the
handler sends before its first wait. A queued message is answered in its turn, or when
the handler first waits: `_begin_waiting()` searches the queue for such messages
(`Inbox.intercept_queued`).

When the object is reset, its sockets fail at once and no handler is called. An event
that was waiting finds that its socket is no longer one of the object's.
"""

import contextvars
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from trio_wspair._http.messages import Request, Response, wrong_answer
from trio_wspair._pair.delivery import Event
from trio_wspair._pair.dispatcher import NurseryHome
from trio_wspair._pair.half import Half
from trio_wspair._pair.verbs import half_of, move
from trio_wspair._pair.websocket import ErrorEvent, MessageEvent, WebSocket
from trio_wspair._rules.errors import (
    DurableObjectResetError,
    InvalidStateError,
    ProtocolError,
    WebSocketError,
)
from trio_wspair._rules.instances import MessageProgress
from trio_wspair._rules.messages import Message, size_of
from trio_wspair._rules.objects import MAX_SOCKETS, WebSocketRequestResponsePair
from trio_wspair._rules.state import Cause, Failure, Holder, Operation

from ._handlers import Handlers, call_fetch, call_handler, log_failure, target_of
from ._instance import Instance, Residence
from ._sockets import (
    Membership,
    ObjectKey,
    Sockets,
    closing_socket,
    ending_untaken,
    membership_of,
)
from ._turnstile import Turnstile

__all__ = ("Actor",)

_logger: Final = logging.getLogger("trio_wspair")


@attrs.define
class Settings:
    """What an object has set for all its sockets."""

    automatic: WebSocketRequestResponsePair | None = None
    """The message that is answered automatically, and its answer."""
    event_timeout: int | None = None
    """The milliseconds that a handler may take."""


class Actor:
    """An object, whether it is in memory or not.

    Args:
        label: The object's name in the log.
        build: Calls the constructor.
        residence: How long instances stay in memory.
        home: The home of its sockets.
        instances: The nursery in which instances run.
        on_empty: Called when it has neither an instance nor sockets any more.
    """

    def __init__(
        self,
        label: str,
        *,
        build: Callable[["Actor", Instance[Handlers]], Handlers],
        residence: Residence,
        home: NurseryHome,
        instances: trio.Nursery,
        on_empty: Callable[[], None],
    ) -> None:
        self.key: ObjectKey = ObjectKey(label, residence)
        self._build = build
        self._residence = residence
        self._home = home
        self._instances = instances
        self._on_empty = on_empty
        self._instance: Instance[Handlers] | None = None
        self._ended = False
        """Whether the namespace has ended, so that no instance is constructed."""
        self._entrance = Turnstile()
        """Where events wait until the last instance has left."""
        self.sockets: Sockets = Sockets()
        self.settings: Settings = Settings()

    @property
    def label(self) -> str:
        """The object's name in the log."""
        return self.key.label

    @property
    def thread(self) -> int:
        """The thread of the namespace's Trio run."""
        return self._home.thread

    # -- instances ----------------------------------------------------------------

    async def _wait_to_enter(self) -> None:
        """Wait until no instance is leaving: an object has one instance at a time."""
        try:
            await self._entrance.pass_through(self._may_enter)
        except BaseException:
            self._check_empty()  # This may have been the last event that waited.
            raise

    def _enter(self) -> Instance[Handlers]:
        """Return the instance. The caller begins its event before it awaits anything.

        Raises:
            DurableObjectResetError: The namespace has ended.
        """
        if self._ended:
            raise DurableObjectResetError(f"the namespace of {self.label} has ended")
        if self._instance is None:
            build = self._build
            self._instance = Instance(
                self.label,
                lambda instance: build(self, instance),
                self._residence,
                self._drop_all,
            )
            # An empty context: the instance must not depend on the first event.
            contextvars.Context().run(
                self._instances.start_soon, self._run_instance, self._instance
            )
        return self._instance

    @enable_ki_protection
    async def _run_instance(self, instance: Instance[Handlers]) -> None:
        try:
            await instance.run()
        finally:
            self._instance = None
            self._entrance.admit(self._may_enter)
            self._check_empty()

    def _may_enter(self) -> bool:
        return self._instance is None or self._instance.in_memory

    def _check_empty(self) -> None:
        """Report that nothing is left of the object but its settings, if so."""
        if self._instance is None and not self.sockets and not self._entrance:
            self._on_empty()

    @enable_ki_protection
    def _drop_all(self) -> None:
        """Forget all when the instance is reset. As in workerd, call no handler."""
        self.settings = Settings()
        for half in map(half_of, self.sockets.clear()):
            half.state.show_end()
            # Differs: workerd ends the connection without a Close.
            half.fail_by(Cause.OBJECT_RESET)

    def sleep_if_idle(self) -> None:
        """Let the instance leave memory if it is idle and need not wait."""
        if self._instance is not None:
            self._instance.sleep_if_idle()

    @enable_ki_protection
    def evict(self) -> None:
        """Let the instance leave memory as soon as no event is running."""
        if self._instance is not None:
            self._instance.evict()

    @enable_ki_protection
    def end(self) -> None:
        """Reset the instance because the namespace has ended; construct no other."""
        self._ended = True
        if self._instance is not None:
            self._instance.reset("its namespace has ended")

    # -- requests -------------------------------------------------------------------

    @enable_ki_protection
    async def fetch(self, request: Request) -> Response:
        """Let the object answer a request."""
        with ending_untaken():
            if not self._entrance.is_clear(self._may_enter):
                await self._wait_to_enter()
            with self._enter().event() as running:
                handlers = await running.get()
                response: object = await call_fetch(handlers, request)
                if not isinstance(response, Response):
                    msg = f"fetch() of {self.label} {wrong_answer(response)}"
                    raise TypeError(msg)
        return response

    # -- sockets --------------------------------------------------------------------

    @enable_ki_protection
    def accept(self, socket: WebSocket, tags: tuple[str, ...]) -> None:
        """Accept a half: the object receives its events from now on.

        Raises:
            InvalidStateError: The half or its other half was taken, or the object has
                too many sockets.
        """
        half = half_of(socket)
        half.state.check_take(Operation.HIBERNATE)
        if half.peer.holder is not Holder.NONE:
            msg = (
                "too late for accept_web_socket(): the other half is "
                f"{half.peer.holder.label}. Accept this one first"
            )
            raise InvalidStateError(msg)
        if len(self.sockets) >= MAX_SOCKETS:
            msg = f"{self.label} has {MAX_SOCKETS} WebSockets, and may have no more"
            raise InvalidStateError(msg)
        # An empty context: that of the caller may refer to the instance.
        contextvars.Context().run(self._home.adopt, socket, pull=False)
        half.state.take(Operation.HIBERNATE)
        half.listeners = Membership(self.key, tags, self._take, half.listeners)
        half.inbox.intercept = partial(self._intercept, half)
        move(socket, self._home)
        self.sockets.add(socket, tags)

    @enable_ki_protection
    def _take(self, event: Event) -> Awaitable[None] | None:
        """Handle an event of a socket. Return what is to be awaited, if anything."""
        if isinstance(event, MessageEvent):
            return self._take_message(event)
        end = half_of(target_of(event)).state.end
        protocol_error = isinstance(end, Failure) and isinstance(
            end.error, ProtocolError
        )
        if protocol_error != isinstance(event, ErrorEvent):
            return None  # One handler is called for an end, either for error or close.
        return self._run_last(event)

    def _take_message(self, event: MessageEvent) -> Awaitable[None] | None:
        half = half_of(target_of(event))
        membership = _membership(half)
        if membership.progress is MessageProgress.IDLE:
            answer = self._automatic_answer(half, event.data)
            if answer is not None:
                answer()
                return None
            membership.progress = MessageProgress.BEGINNING
        return self._run_message(event, half, membership)

    def _intercept(self, half: Half, message: Message) -> Callable[[], None] | None:
        """Return a function that answers a message which has just arrived.

        `None` if it has no automatic answer, or if the answer has to wait.
        """
        if _membership(half).progress.answers_at_once(half.inbox.weight):
            return self._automatic_answer(half, message)
        return None

    def _automatic_answer(
        self, half: Half, message: Message
    ) -> Callable[[], None] | None:
        """Return a function that answers a message; `None` if a handler has to."""
        pair = self.settings.automatic
        if pair is None or isinstance(message, bytes) or message != pair.request:
            return None
        size = size_of(pair.response)
        try:
            half.state.check_send()
        except WebSocketError:
            # The socket is closing. The answer counts, although it can't be sent.
            return partial(_note_answer, half)
        if not half.outbox.has_room(size):
            return None  # The object may act on a peer that does not read.
        return partial(_answer, half, pair.response, size)

    @enable_ki_protection
    async def _run_message(
        self, event: MessageEvent, half: Half, membership: Membership
    ) -> None:
        """Call the handler of a message."""
        try:
            await self._run(event, partial(self._begin_waiting, half, membership))
        finally:
            membership.progress = membership.progress.after_message(half.inbox.weight)

    @enable_ki_protection
    def _begin_waiting(self, half: Half, membership: Membership) -> None:
        """Let automatic answers overtake a handler that now waits."""
        if membership.progress is MessageProgress.BEGINNING:
            membership.progress = MessageProgress.WAITING
            if self.settings.automatic is not None and half.inbox.weight:
                half.inbox.intercept_queued()

    @enable_ki_protection
    async def _run(self, event: Event, on_wait: Callable[[], object]) -> None:
        """Call the handler of an event, and log what it raises."""
        socket = target_of(event)
        try:
            if not self._entrance.is_clear(self._may_enter):
                await self._wait_to_enter()
            if socket not in self.sockets:
                return  # The object was reset while this event waited.
            with self._enter().event() as running:
                handlers = await running.get()
                if not isinstance(event, MessageEvent):
                    self.sockets.begin_closing(socket)
                    half_of(socket).state.show_end()
                await self._handle(handlers, event, on_wait)
        except BaseException as exc:  # noqa: BLE001, ASYNC103 - the rest is raised
            what = f"web_socket_{event.type}()"
            log_failure(exc, self.label, what, half_of(socket).inbox.end)

    async def _handle(
        self, handlers: Handlers, event: Event, on_wait: Callable[[], object]
    ) -> None:
        """Call the handler of an event, and cancel it if it takes too long."""
        if self.settings.event_timeout is None:
            await call_handler(handlers, event, on_wait)
            return
        limit = self.settings.event_timeout / 1000
        with trio.move_on_after(limit) as scope:
            await call_handler(handlers, event, on_wait)
        if scope.cancelled_caught:
            late = "web_socket_%s() of %s was cancelled: it took over %g s"
            facts = {"object": self.label}
            _logger.warning(late, event.type, self.label, limit, extra=facts)

    @enable_ki_protection
    async def _run_last(self, event: Event) -> None:
        """Call the handler for the end of a socket, and remove the socket."""
        socket = target_of(event)
        if socket not in self.sockets:
            return  # The object was reset.
        closing_socket.set(socket)
        try:
            # Differs: workerd lists the socket only until its handler waits first.
            await self._run(event, _nothing)
        finally:
            # Differs: workerd leaves the Close unanswered.
            half_of(socket).answer()
            if socket in self.sockets:
                self.sockets.remove(socket, membership_of(socket, self.key).tags)
                self._check_empty()


def _nothing() -> None:
    """Do nothing."""


def _answer(half: Half, text: str, size: int) -> None:
    half.outbox.put(text, size)
    _note_answer(half)


def _note_answer(half: Half) -> None:
    _membership(half).answered_at = time.time()


def _membership(half: Half) -> Membership:
    assert isinstance(half.listeners, Membership)
    return half.listeners

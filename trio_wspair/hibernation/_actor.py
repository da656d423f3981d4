"""One object by its id: what stays of it while it is out of memory.

Knows its sockets, its settings and the instance, if there is one.

Theory of operation. The dispatcher of the namespace's nursery brings the events here,
one event of a socket after the other. Each is run in an instance, which is built if
there is none, in a task of its socket.

A message that has an automatic answer needs no instance, and waits for no handler. It
is kept out of the queue and answered where it arrives, in the task of its sender
(`Inbox.intercept`): if nothing of its socket comes before it, or if the handler of what
does has begun and waits. Else it is queued, as the answer has to follow what handlers
before it send at once. Then it is answered in its turn, or when the handler before it
begins to wait: in that moment the queue is searched (`Inbox.sift`).
"""

import contextvars
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import trio
from trio.lowlevel import enable_ki_protection

from trio_wspair._http.messages import Request, Response, wrong_answer
from trio_wspair._pair.delivery import Event
from trio_wspair._pair.dispatcher import NurseryHome
from trio_wspair._pair.half import Half
from trio_wspair._pair.verbs import half_of, move
from trio_wspair._pair.websocket import ErrorEvent, MessageEvent, WebSocket
from trio_wspair._rules.codes import Close
from trio_wspair._rules.errors import (
    DurableObjectResetError,
    InvalidStateError,
    ProtocolError,
    WebSocketError,
)
from trio_wspair._rules.messages import Message, size_of
from trio_wspair._rules.objects import MAX_SOCKETS, WebSocketRequestResponsePair
from trio_wspair._rules.state import Failure, Holder, Operation

from ._handlers import Handlers, call_fetch, call_handler, log_failure, target_of
from ._instance import Instance, Residence
from ._sockets import (
    Membership,
    Owner,
    Progress,
    Sockets,
    closing_socket,
    ending_untaken,
    membership_of,
)
from ._turnstile import Turnstile

__all__ = ("Actor",)

_logger: Final = logging.getLogger("trio_wspair")


class Actor:
    """An object, whether it is in memory or not.

    Args:
        label: How the log calls it.
        build: Calls the constructor.
        residence: How long instances stay.
        home: Where its sockets live.
        lives: Where its instances live.
        rest: Called when it has neither an instance nor sockets any more.
    """

    def __init__(
        self,
        label: str,
        *,
        build: Callable[["Actor", Instance[Handlers]], Handlers],
        residence: Residence,
        home: NurseryHome,
        lives: trio.Nursery,
        rest: Callable[[], None],
    ) -> None:
        self.label: str = label
        self.owner: Owner = Owner(label, residence)
        self.thread: int = home.thread
        """That of the namespace's Trio run."""
        self._build = build
        self._residence = residence
        self._home = home
        self._lives = lives
        self._rest = rest
        self._instance: Instance[Handlers] | None = None
        self._ended = False
        self._entrance = Turnstile()
        """Where events wait until the last instance is over."""
        self.sockets: Sockets = Sockets()
        self.automatic: WebSocketRequestResponsePair | None = None
        """What is answered where it arrives."""
        self.event_timeout: int | None = None
        """Milliseconds that a handler may take."""

    # -- instances ----------------------------------------------------------------

    async def _wait_turn(self) -> None:
        """Wait until no instance is about to leave: there is one at a time."""
        try:
            await self._entrance.pass_through(self._may_enter)
        except BaseException:
            self._look_around()  # It may be over at this very moment.
            raise

    def _enter(self) -> Instance[Handlers]:
        """Return the instance for an event that was let in; it has to enter at once.

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
            # An empty context: which event came first must not matter.
            contextvars.Context().run(
                self._lives.start_soon, self._live, self._instance
            )
        return self._instance

    @enable_ki_protection
    async def _live(self, instance: Instance[Handlers]) -> None:
        try:
            await instance.run()
        finally:
            self._instance = None
            self._entrance.admit(self._may_enter)
            self._look_around()

    def _may_enter(self) -> bool:
        return self._instance is None or not self._instance.leaving

    def _look_around(self) -> None:
        """Say so if nothing is left that happens in this object."""
        if self._instance is None and not self.sockets and not self._entrance:
            self._rest()

    @enable_ki_protection
    def _drop_all(self) -> None:
        """Forget all, as the instance is reset: as in workerd, no handler is told."""
        self.automatic = self.event_timeout = None
        for half in map(half_of, self.sockets.clear()):
            half.fail(Failure("the object was reset"))
            half.state.show_end()
            # Differs: workerd ends the connection without a Close.
            half.send_close(Close(1011))

    def look_around(self) -> None:
        """Let the instance leave memory if it wants to and may."""
        if self._instance is not None:
            self._instance.look_around()

    @enable_ki_protection
    def evict(self) -> None:
        """Let the instance leave memory as soon as no event runs."""
        if self._instance is not None:
            self._instance.evict()

    @enable_ki_protection
    def end(self) -> None:
        """Reset the instance, as the namespace has ended, and build no other."""
        self._ended = True
        if self._instance is not None:
            self._instance.reset("its namespace has ended")

    # -- requests -------------------------------------------------------------------

    @enable_ki_protection
    async def fetch(self, request: Request) -> Response:
        """Let the object answer a request."""
        with ending_untaken():
            if not self._entrance.is_clear(self._may_enter):
                await self._wait_turn()
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
        """Take a half: its events come to the object from now on.

        Raises:
            InvalidStateError: It was taken, or its other half was, or there are too
                many.
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
            msg = f"an object has at most {MAX_SOCKETS} WebSockets, and this one has"
            raise InvalidStateError(msg)
        # An empty context: that of this call may hold on to the instance.
        contextvars.Context().run(self._home.adopt, socket, pull=False)
        half.state.take(Operation.HIBERNATE)
        half.listeners = Membership(self.owner, tags, self._take, half.listeners)
        half.inbox.intercept = partial(self._intercept, half)
        move(socket, self._home)
        self.sockets.add(socket, tags)

    @enable_ki_protection
    def _take(self, event: Event) -> Awaitable[None] | None:
        """Take an event of a socket."""
        if isinstance(event, MessageEvent):
            return self._take_message(event)
        end = half_of(target_of(event)).state.end
        breach = isinstance(end, Failure) and isinstance(end.error, ProtocolError)
        if breach != isinstance(event, ErrorEvent):
            return None  # One of the two tells the end.
        return self._run_last(event)

    def _take_message(self, event: MessageEvent) -> Awaitable[None] | None:
        half = half_of(target_of(event))
        membership = _membership(half)
        if membership.progress is Progress.IDLE:
            act = self._answering(half, event.data)
            if act is not None:
                act()
                return None
            membership.progress = Progress.BEGINNING
        return self._run_message(event, half, membership)

    def _intercept(self, half: Half, message: Message) -> Callable[[], None] | None:
        """Return what answers a message that arrives, if it comes before its turn."""
        progress = _membership(half).progress
        first = progress is Progress.IDLE and half.inbox.weight == 0
        if first or progress is Progress.WAITING:
            return self._answering(half, message)
        return None

    def _answering(self, half: Half, message: Message) -> Callable[[], None] | None:
        """Return what answers a message automatically, if it has such an answer."""
        pair = self.automatic
        if pair is None or isinstance(message, bytes) or message != pair.request:
            return None
        size = size_of(pair.response)
        try:
            half.state.check_send()
        except WebSocketError:
            # Closing: the answer comes too late, but counts, as in workerd.
            return partial(_note_answer, half)
        if not half.outbox.has_room(size):
            return None  # The object may do something about a peer that won't read.
        return partial(_answer, half, pair.response, size)

    @enable_ki_protection
    async def _run_message(
        self, event: MessageEvent, half: Half, membership: Membership
    ) -> None:
        """Call the handler of a message."""
        try:
            await self._run(event, partial(self._begin_waiting, half, membership))
        finally:
            if membership.progress is Progress.BEGINNING or not half.inbox.weight:
                membership.progress = Progress.IDLE

    @enable_ki_protection
    def _begin_waiting(self, half: Half, membership: Membership) -> None:
        """Let automatic answers overtake a handler that waits from now on."""
        if membership.progress is Progress.BEGINNING:
            membership.progress = Progress.WAITING
            if self.automatic is not None and half.inbox.weight:
                half.inbox.intercept_queued()

    @enable_ki_protection
    async def _run(self, event: Event, on_wait: Callable[[], object]) -> None:
        """Call the handler of an event. What it raises is logged."""
        socket = target_of(event)
        try:
            if not self._entrance.is_clear(self._may_enter):
                await self._wait_turn()
            if socket not in self.sockets:
                return  # The object was reset since it came.
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
        if self.event_timeout is None:
            await call_handler(handlers, event, on_wait)
            return
        limit = self.event_timeout / 1000
        with trio.move_on_after(limit) as patience:
            await call_handler(handlers, event, on_wait)
        if patience.cancelled_caught:
            late = "web_socket_%s() of %s was cancelled: it took over %g s"
            facts = {"object": self.label}
            _logger.warning(late, event.type, self.label, limit, extra=facts)

    @enable_ki_protection
    async def _run_last(self, event: Event) -> None:
        """Call the handler that tells the end of a socket, and let the socket go."""
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
                self.sockets.remove(socket, membership_of(socket, self.owner).tags)
                self._look_around()


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

"""`Owner`: a request, an object's instance or a nursery, with its halves and their end.

Knows nothing of messages and how they are delivered, and has no rules of closing: it
carries out what `state` decides.

Theory of operation. A half joins its owner when an application or an object takes it
(`adopt()`). An untaken half joins when an object hands it over (`give()`). The end of a
single half is decided synchronously: by a Close or a failure that is taken from the
inbox, by a listener that raises, or by `aclose()` when the peer has not answered in
time. The end of all of them is decided by `end()`, which has three causes:

- A listener raises: the task that called it calls `end_by_failure()`, which also
  cancels the nursery.
- The nursery is cancelled: each task of the owner that catches `Cancelled` calls
  `end()`.
- The connection, or the instance, is over: its task calls `end()`, after the nursery
  has been left.

`end()` runs once, without awaiting. It decides the end of every half before it sends
any Close, so that no half sees the Close of another. From then on no half can join.
Then the events of each end, `error` if there is an error and `close`, are delivered:
by the half's task if it has one, and else by the dispatcher (`deliver_ends()`). A half
is *settled*, and leaves its owner, when its close event has been delivered.

The policy for failures: what listeners have raised is raised from the nursery.
"""

import contextvars
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Final

import attrs
import trio
from trio.lowlevel import RunVar, enable_ki_protection

from trio_wspair._rules.codes import Close
from trio_wspair._rules.errors import InvalidStateError
from trio_wspair._rules.state import Cause, Failure, Holder
from trio_wspair._tasks.cork import ReadyQueue
from trio_wspair._tasks.nurseries import let_others_clean_up, raise_together

from .delivery import Ending
from .half import Half
from .inbox import Corkable
from .verbs import Home, close_grace, half_of, home_of
from .websocket import WebSocket

__all__ = ("Owner", "Served", "current_owner")

current_owner: Final[ContextVar["Owner | None"]] = ContextVar(
    "current_owner", default=None
)
"""The request or the object's instance that is being handled, if any."""

_owners: Final[RunVar[dict[trio.Nursery, "Owner"]]] = RunVar("trio_wspair_owners")


@attrs.define(slots=True, eq=False)
class Served:
    """A half that a dispatcher serves."""

    queue: "ReadyQueue[Served | None]"
    """`None` in it makes the dispatcher check whether it is idle."""
    socket: WebSocket
    half: Half
    pull: bool
    context: contextvars.Context
    passed_by: bool = False
    """The dispatcher leaves it alone: it has a task, or is settled."""
    ending: Ending | None = None
    """The delivery of its end, once that is decided."""

    def wake(self) -> None:
        """Put it into the queue of the dispatcher."""
        self.queue.put(self)


def _new_queue() -> ReadyQueue[Served | None]:
    return ReadyQueue()  # With its type argument it would take longer.


@attrs.define(slots=True, eq=False)
class Owner:
    """A request, an instance of an object, or a nursery that a user has opened.

    That of a request or an instance lasts from `keep()` to `forget()`, that of a plain
    nursery as long as its dispatcher.
    """

    nursery: trio.Nursery
    """For the tasks of listeners, and for connections that are opened in it."""
    queue: ReadyQueue[Served | None] = attrs.field(init=False, factory=_new_queue)
    """The halves that are ready to be served."""
    served: dict[Served, None] = attrs.field(init=False, factory=dict[Served, None])
    """The halves that were taken, until they are settled."""
    raised: list[BaseException] = attrs.field(init=False, factory=list[BaseException])
    """What listeners have raised, until it is raised from the nursery."""
    ended: bool = attrs.field(init=False, default=False)
    """All halves have ended, and no half can join."""
    lasts: bool = attrs.field(init=False, default=False)
    """It stays the owner of its nursery when its dispatcher ends."""
    dispatcher: Corkable | None = attrs.field(init=False, default=None)
    """Serves the halves; `None` while there are none."""
    _given: dict[WebSocket, Home] | None = attrs.field(init=False, default=None)
    """The untaken halves, each with the home that it had when it was given."""

    @classmethod
    def of(cls, nursery: trio.Nursery) -> "Owner":
        """Return the owner of this nursery.

        Raises:
            InvalidStateError: It has ended, or its Trio run has.
        """
        if not trio.lowlevel.in_trio_run():
            msg = "the Trio run of this half has ended: accept() comes too late"
            raise InvalidStateError(msg)
        table = _table()
        owner = table.get(nursery)
        if owner is None:
            owner = table[nursery] = cls(nursery)
        elif owner.ended:
            msg = "the nursery of this half is going down: accept() comes too late"
            raise InvalidStateError(msg)
        return owner

    def keep(self) -> None:
        """Be the owner of the nursery until `forget()`."""
        _table()[self.nursery] = self
        self.lasts = True

    def forget(self) -> None:
        """Be its owner no more: the nursery has ended, or gets another one."""
        del _table()[self.nursery]

    def adopt(self, socket: WebSocket, *, pull: bool) -> None:
        """Serve this half from now on, in the context of the caller."""
        half = half_of(socket)
        context = contextvars.copy_context()
        served = Served(self.queue, socket, half, pull, context)
        self.served[served] = None
        inbox = half.inbox
        inbox.wake = served.wake
        inbox.dispatcher = self.dispatcher
        arrived = inbox.weight > 0 or inbox.end is not None
        inbox.notified = arrived or pull  # Messages of a puller need no dispatcher.
        if arrived:
            inbox.wake_consumer()

    def give(self, socket: WebSocket) -> None:
        """Own a half that nothing has taken; it ends with the owner if that stays so.

        Unless it is moved to another home meanwhile.
        """
        before = self._given or {}
        self._given = {s: h for s, h in before.items() if _is_untaken(s, h)}
        self._given[socket] = home_of(socket)

    def start_task(
        self,
        served: Served,
        task: Callable[..., Awaitable[None]],
        *args: object,
    ) -> None:
        """Start a task that serves this half from now on."""
        served.passed_by = True
        self.nursery.start_soon(task, served, *args)

    # -- the end of one half ------------------------------------------------------

    def _ending(self, served: Served) -> Ending:
        if served.ending is None:
            served.ending = Ending(served.socket, close_grace(served.socket))
            if self.ended:
                served.ending.hurry()
        return served.ending

    def deliver_end(self, served: Served) -> None:
        """Deliver the end of a half, which is decided; in a task if it has to wait."""
        ending = self._ending(served)
        ending.dispatch()
        if ending.awaitable is not None:
            self.start_task(served, self.deliver_end_and_raise, [])
        else:
            self._settle(served)
            self.raised += ending.take_errors()

    async def deliver_end_and_raise(
        self, served: Served, raised: list[BaseException]
    ) -> None:
        """Deliver the end of a half, and raise what was raised before or meanwhile."""
        before = len(raised)
        await self._deliver_end(served, raised)
        if len(raised) > before:
            await self.end_by_failure()
        raise_together(raised)

    async def _deliver_end(self, served: Served, raised: list[BaseException]) -> None:
        """Deliver the end of a half. Keep what its listeners raise."""
        served.half.listener_task = trio.lowlevel.current_task()
        ending = self._ending(served)
        delivered = False
        while not delivered:  # Until no listener is left, if one is interrupted.
            try:
                await ending.finish()
                delivered = True
            except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised by the caller
                raised.append(exc)
        raised += ending.take_errors()
        self._settle(served)

    @enable_ki_protection
    def _settle(self, served: Served) -> None:
        """Part with a half whose end has been delivered."""
        half = served.half
        half.listener_task = None
        if half.peer.released and not half.state.closed:
            # In half-open it owes its Close, and no half is left to receive it.
            half.fail_by(Cause.PEER_ENDED)
        served.passed_by = half.state.closed
        if not served.passed_by or served not in self.served:
            return  # In half-open it still owes its Close.
        del self.served[served]
        half.release()
        if not served.pull:  # What was not pulled yet can still be.
            half.inbox.close()
        if not self.served and not self.ended:
            self.queue.put(None)

    # -- the end of all halves ------------------------------------------------------

    @enable_ki_protection
    def end(self, *, queued_ends_count: bool = False) -> None:
        """Decide the end of every half, then send their Closes. Idempotent.

        Args:
            queued_ends_count: A Close that has arrived, and was not taken from the
                inbox yet, is the end of its half.
        """
        if not self.ended:
            self.ended = True
            self._end_served(queued_ends_count=queued_ends_count)
        for socket, home in (self._given or {}).items():
            if _is_untaken(socket, home):
                half_of(socket).discard("it was never accepted")
        self._given = None

    def _end_served(self, *, queued_ends_count: bool) -> None:
        cause = Cause.OWNER_ENDED
        assert cause.close is not None
        answers: list[tuple[Half, Close | None]] = []
        for served in self.served:
            half = served.half
            answer = None
            if queued_ends_count and isinstance(half.inbox.end, Close):
                answer = half.state.receive_close(half.inbox.end)
            half.fail(Failure(cause.reason))
            half.inbox.close()
            answers.append((half, answer))
            if served.ending is not None:
                served.ending.hurry()
        for half, answer in answers:
            if answer is None:
                half.send_close(cause.close)
            else:
                half.outbox.put_end(answer)

    async def end_by_failure(self) -> None:
        """End all halves, and cancel the nursery, because a listener has raised."""
        # Halves that fail at the same moment decide their ends by themselves.
        await let_others_clean_up()
        self.end(queued_ends_count=True)
        self.nursery.cancel_scope.cancel(reason="a WebSocket listener raised")

    async def deliver_ends(self) -> None:
        """Deliver the end of every half that has no task."""
        waiting: list[Served] = []
        for served in list(self.served):
            if served.passed_by:
                continue
            ending = self._ending(served)
            while exc := _try(served.context, ending.dispatch):
                self.raised.append(exc)
            if ending.awaitable is None:
                self.raised += ending.take_errors()
                self._settle(served)
            else:
                waiting.append(served)
        if waiting:
            with trio.CancelScope(shield=True):  # The endings bound it.
                async with trio.open_nursery() as nursery:
                    for served in waiting:
                        served.context.run(
                            nursery.start_soon, self._deliver_end, served, self.raised
                        )


def _table() -> dict[trio.Nursery, Owner]:
    try:
        return _owners.get()
    except LookupError:
        table = dict[trio.Nursery, Owner]()
        _owners.set(table)
        return table


def _is_untaken(socket: WebSocket, home: Home) -> bool:
    state = half_of(socket).state
    is_here = home_of(socket) is home and state.holder is Holder.NONE
    return is_here and not state.released


def _try(
    context: contextvars.Context, call: Callable[[], None]
) -> BaseException | None:
    try:
        context.run(call)
    except BaseException as exc:  # noqa: BLE001, ASYNC103 - the caller raises it
        return exc  # noqa: ASYNC104
    return None

"""The nursery side of halves: who calls their listeners.

Knows nothing of pairs, connections or requests, and when a half ends, but not how:
that is decided by `Owner`.

Theory of operation. One task per nursery, the *dispatcher*, serves all halves that
were accepted in it. A sender puts its message into the half's inbox and, if the
half isn't marked yet, marks it and puts it into the dispatcher's queue of ready
halves. The dispatcher takes a half, empties its inbox without awaiting (64 messages
at most between checkpoints) and calls the listeners. When one returns an awaitable,
that half gets a task of its own until its inbox is empty again; meanwhile the
dispatcher passes it by. So listeners of one half never overlap, and a slow half
holds up nobody.
"""

import contextvars
from collections.abc import Awaitable
from threading import get_ident
from typing import Final, cast

import attrs
import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from trio_wspair._rules.codes import Close
from trio_wspair._rules.errors import InvalidStateError
from trio_wspair._rules.state import Failure
from trio_wspair._tasks.nurseries import let_others_clean_up, raise_together

from .delivery import Delivery
from .half import Half
from .owner import Owner, Served
from .verbs import Verbs
from .websocket import MessageEvent, WebSocket

__all__ = ("Dispatcher", "NurseryHome")

_BUDGET: Final = 64
"""Messages between two checkpoints: counted, not timed, so that nothing is luck."""

_bare: Final = object.__new__


@attrs.define(slots=True, eq=False)  # Not frozen: there is one for each pair.
class NurseryHome:
    """The home of a half whose tasks run in `nursery`."""

    nursery: trio.Nursery
    close_grace: float
    thread: int = attrs.field(factory=get_ident)

    def adopt(self, socket: Verbs, *, pull: bool) -> None:
        """Deliver the events of this half from now on."""
        assert isinstance(socket, WebSocket)  # Halves have no other class.
        owner = Owner.of(self.nursery)
        if owner.dispatcher is None:
            Dispatcher(owner).start()
        owner.adopt(socket, pull=pull)


class Dispatcher:
    """Serves every half of one owner."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._queue = owner.queue
        self._keeps_owner = False
        """The owner is that of a nursery, and lasts while this runs."""
        self._interruption: BaseException | None = None
        """What a listener has raised that is no failure, in the task of another."""

    def start(self) -> None:
        """Start the task.

        Raises:
            InvalidStateError: The nursery has ended.
        """
        owner = self._owner
        try:
            # An empty context: which half came first must not matter.
            contextvars.Context().run(owner.nursery.start_soon, self._run)
        except RuntimeError:
            msg = "the nursery of this half has ended: accept() comes too late"
            raise InvalidStateError(msg) from None
        owner.dispatcher = self
        self._keeps_owner = owner.keep()

    # -- the task ---------------------------------------------------------------

    async def _run(self) -> None:
        owner = self._owner
        raised = owner.raised
        try:
            await self._dispatch()
            if not raised:
                return
            await owner.end_by_failure()
            await owner.deliver_ends()
        except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised below
            raised.append(exc)
            await let_others_clean_up()  # noqa: ASYNC102 - shielded, two steps
            owner.end()
            await owner.deliver_ends()  # noqa: ASYNC102 - shielded and bounded
        finally:
            self._queue.items.clear()  # They refer to it, too.
            owner.dispatcher = None
            if self._keeps_owner:
                owner.forget()
        raise_together(raised)

    async def _dispatch(self) -> None:
        """Serve until no half is open any more, or a listener has raised."""
        while self._owner.served:
            await self._queue.wait()
            await trio.lowlevel.checkpoint_if_cancelled()
            self._serve_ready()
            if self._interruption is not None:
                raise self._interruption
            if self._owner.raised:
                return

    def _serve_ready(self) -> None:
        """Serve those that are ready, within the budget."""
        items = self._queue.items
        raised = self._owner.raised
        serve = self._serve
        budget = _BUDGET
        while items and budget > 0 and not raised:
            served = items.popleft()
            if served is not None and not served.passed_by:
                budget -= served.context.run(serve, served, budget)

    # -- in the task of a connection, which saves a switch: see `Corkable` ----------

    def cork(self) -> None:
        """Don't wake the task of the dispatcher until `uncork()`."""
        self._queue.cork()

    @disable_ki_protection
    def uncork(self) -> None:
        """Serve those that are ready, in the task of the caller.

        What listeners raise is raised in the task of the dispatcher all the same.
        """
        try:
            self._serve_ready()
        except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised by the task
            self._interruption = exc
        owner = self._owner
        if owner.raised or self._interruption is not None or not owner.served:
            self._queue.put(None)  # For the task: it has to do something about that.
        self._queue.uncork()

    def _serve(self, served: Served, budget: int) -> int:
        """Call the listeners for what has arrived. Return the budget that it took."""
        half = served.half
        inbox = half.inbox
        if served.pull:
            self._serve_end(served)
            return 1
        listeners = half.listeners
        for count in range(budget):
            if inbox.weight == 0:  # Cheaper to see than to run into.
                inbox.notified = False
                if inbox.end is not None or inbox.wake is None:  # Failed: closed.
                    self._serve_end(served)
                return count + 1
            event = _bare(MessageEvent)  # Quicker than its constructor.
            event.data = inbox.take()
            event.target = served.socket
            only = listeners.only_message_listener
            if only is None:
                delivery = Delivery()
                delivery.start(event, listeners)
            else:  # The usual case, with as little as possible around the call.
                try:
                    result: object = only(event)
                except Exception as exc:  # noqa: BLE001 - raised from the nursery
                    delivery = Delivery(errors=[exc])
                else:
                    if result is None or not isinstance(result, Awaitable):
                        continue
                    delivery = Delivery(cast("Awaitable[object]", result))
            if delivery.awaitable is not None or delivery.errors:
                self._leave(served, delivery)
                return count + 1
        self._queue.put(served)  # Again, after the others.
        return budget

    def _leave(self, served: Served, delivery: Delivery) -> None:
        """Do what can't be done on the way: a task of its own, or a failure."""
        if delivery.awaitable is not None:
            self._owner.start_task(served, self._own, delivery)
        else:
            _fail(served.half, delivery.errors)
            self._owner.raised += delivery.errors
            self._owner.deliver_end(served)

    def _serve_end(self, served: Served) -> None:
        """Tell the end of a half, if nothing that comes before it is left."""
        half = served.half
        inbox = half.inbox
        if inbox.end is not None and half.state.end_is_due(
            queued=inbox.weight > 0,
            arrived_first=inbox.end_arrived_first,
            awaited=inbox.end_is_awaited > 0,
        ):
            half.receive_end(inbox.end)
        if half.state.end is not None:
            self._owner.deliver_end(served)

    # -- a half with async listeners: a task of its own --------------------------

    async def _own(self, served: Served, delivery: Delivery) -> None:
        """Serve one half, from an async listener on, until its inbox is empty."""
        served.half.listener_task = trio.lowlevel.current_task()
        raised: list[BaseException] = []
        try:
            if not await self._serve_async(served, delivery):
                return
        except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised below
            raised.append(exc)
            await let_others_clean_up()  # noqa: ASYNC102 - shielded, two steps
            self._owner.end()
        if delivery.errors:
            raised += delivery.errors
            await self._owner.end_by_failure()
        await self._owner.deliver_end_and_raise(served, raised)

    async def _serve_async(self, served: Served, delivery: Delivery) -> bool:
        """Deliver one event after the other. Return whether the half has ended."""
        half = served.half
        count = 0
        while True:
            count += 1
            while delivery.awaitable is not None:
                await delivery.wait()
                delivery.call_next()
            if count % _BUDGET == 0:
                await trio.lowlevel.checkpoint()
            if half.state.end is not None:  # Decided by others meanwhile.
                return True
            if delivery.errors:
                _fail(half, delivery.errors)
                return True
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                item = half.inbox.items.receive_nowait()
            except trio.WouldBlock:
                half.inbox.notified = served.passed_by = False
                half.listener_task = None
                return False
            if not isinstance(item, (str, bytes)):
                half.receive_end(item)
                return True
            half.inbox.release(item)
            delivery.start(MessageEvent(item, served.socket), half.listeners)


@enable_ki_protection
def _fail(half: Half, errors: list[Exception]) -> None:
    """Decide: listeners of this half have raised."""
    # Differs: workerd tells only an `error` event, and the peer sees 1006.
    half.fail(Failure("a listener raised", errors[0]))
    half.send_close(Close(1011))

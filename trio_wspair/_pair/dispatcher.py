"""`Dispatcher`: the task that takes messages from inboxes and calls listeners.

Knows nothing of pairs, connections or requests. It knows when a half ends; what follows
is decided by `Owner`.

Theory of operation. Each owner that has taken halves has one dispatcher, whose task
runs in the nursery of the owner, from the first `accept()` until no half is left. A
sender puts a message into an inbox. The inbox calls `Served.wake()`, unless it has done
so already; `wake()` puts the half into the queue of ready halves. `_dispatch()` takes a
half from that queue, and `_serve()` empties its inbox without awaiting, at most 64
messages between two checkpoints, and calls the listeners.

When a listener returns an awaitable, the half gets a task (`_serve_alone()`) until its
inbox is empty again; meanwhile `passed_by` is set, and the dispatcher leaves the half
alone. So listeners of one half never overlap, and a slow half delays no other.

The reader of a connection corks the dispatcher, fills an inbox, and uncorks.
`uncork()` calls the listeners in the reader's task (`_serve_ready()`), and leaves to
the dispatcher's task only to raise exceptions and to end itself. These two never
interleave, as neither awaits.

Three things end a half: its end is due (`_serve_end()`), a listener raises (`_fail()`),
or the owner ends. What listeners have raised leaves the nursery from here, by
`raise_together()`, when all ends have been delivered.
"""

import contextvars
from collections.abc import Awaitable
from threading import get_ident
from typing import Final, cast

import attrs
import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from trio_wspair._rules.errors import InvalidStateError
from trio_wspair._rules.state import Cause
from trio_wspair._tasks.nurseries import let_others_clean_up, raise_together

from .delivery import Delivery
from .half import Half
from .owner import Owner, Served
from .verbs import Verbs
from .websocket import MessageEvent, WebSocket

__all__ = ("Dispatcher", "NurseryHome")

_BUDGET: Final = 64
"""Messages between two checkpoints: counted, not timed, so that no clock decides."""

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
        self._interruption: BaseException | None = None
        """What a listener has raised, other than an `Exception`, while corked."""

    def start(self) -> None:
        """Start the task.

        Raises:
            InvalidStateError: The nursery has ended.
        """
        owner = self._owner
        try:
            # An empty context: which half is taken first must not matter.
            contextvars.Context().run(owner.nursery.start_soon, self._run)
        except RuntimeError:
            if not owner.lasts:
                owner.forget()
            msg = "the nursery of this half has ended: accept() comes too late"
            raise InvalidStateError(msg) from None
        owner.dispatcher = self

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
            self._queue.items.clear()  # Halves in it refer to the queue.
            owner.dispatcher = None
            if not owner.lasts:
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
        """Serve the halves that are ready, within the budget."""
        items = self._queue.items
        raised = self._owner.raised
        serve = self._serve
        budget = _BUDGET
        while items and budget > 0 and not raised:
            served = items.popleft()
            if served is not None and not served.passed_by:
                budget -= served.context.run(serve, served, budget)

    # -- in the task of a reader, see `Corkable` -------------------------------------

    def cork(self) -> None:
        """Don't wake the task of the dispatcher until `uncork()`."""
        self._queue.cork()

    @disable_ki_protection
    def uncork(self) -> None:
        """Serve the halves that are ready, in the task of the caller.

        What listeners raise is raised in the task of the dispatcher.
        """
        try:
            self._serve_ready()
        except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised by the task
            self._interruption = exc
        owner = self._owner
        if owner.raised or self._interruption is not None or not owner.served:
            self._queue.put(None)  # The task raises it, or ends.
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
            if inbox.weight == 0:  # Cheaper than an exception of take().
                inbox.notified = False
                if inbox.end is not None or inbox.wake is None:  # Closed: it failed.
                    self._serve_end(served)
                return count + 1
            event = _bare(MessageEvent)  # Faster than its constructor.
            event.data = inbox.take()
            event.target = served.socket
            only = listeners.only_message_listener
            if only is None:
                delivery = Delivery()
                delivery.start(event, listeners)
            else:  # The usual case, with little code around the call.
                try:
                    result: object = only(event)
                except Exception as exc:  # noqa: BLE001 - raised from the nursery
                    delivery = Delivery(errors=[exc])
                else:
                    if result is None or not isinstance(result, Awaitable):
                        continue
                    delivery = Delivery(cast("Awaitable[object]", result))
            if delivery.awaitable is not None or delivery.errors:
                self._detach(served, delivery)
                return count + 1
        self._queue.put(served)  # Again, after the others.
        return budget

    def _detach(self, served: Served, delivery: Delivery) -> None:
        """Give the half a task, for what has to be awaited, or let it fail."""
        if delivery.awaitable is not None:
            self._owner.start_task(served, self._serve_alone, delivery)
        else:
            _fail(served.half, delivery.errors)
            self._owner.raised += delivery.errors
            self._owner.deliver_end(served)

    def _serve_end(self, served: Served) -> None:
        """Deliver the end of a half, if it is due or decided."""
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

    # -- the task of a half with async listeners ----------------------------------

    async def _serve_alone(self, served: Served, delivery: Delivery) -> None:
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
            if half.state.end is not None:  # Decided meanwhile, such as by close().
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
    """Decide the end of a half whose listeners have raised."""
    # Differs: workerd dispatches only an `error` event, and the peer sees 1006.
    half.fail_by(Cause.LISTENER_RAISED, errors[0])

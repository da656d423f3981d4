"""The nursery side of halves: who calls their listeners, and what a crash does.

Knows nothing of pairs, connections or requests, and has no rules of its own about
closing: it carries out what `_state` decides.

Theory of operation. One task per nursery, the *dispatcher*, serves all halves that
were accepted in it. A sender puts its message into the half's inbox and, if the
half isn't marked yet, marks it and puts it into the dispatcher's channel of ready
halves. The dispatcher takes a half, empties its inbox without awaiting (64 messages
at most between checkpoints) and calls the listeners. When one returns an awaitable,
that half gets a task of its own until its inbox is empty again; meanwhile it is
*busy* and the dispatcher passes it by. So listeners of one half never overlap, and
a slow half holds up nobody.

A half ends in two steps. First its end is decided, synchronously, by whoever knows
it: a Close that is taken from the inbox, a listener that raises, a nursery that
falls. Then the events that tell it are delivered, `error` if there is an error and
`close`, and the half is *settled*. When a nursery falls, all its halves are decided
before anything is sent, so that none sees the farewell of another.
"""

import contextvars
import math
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import Final

import attrs
import trio
from trio.lowlevel import RunVar, enable_ki_protection

from ._codes import Close
from ._errors import InvalidStateError
from ._half import Half, delivering
from ._listeners import Listener
from ._socket import (
    CloseEvent,
    ErrorEvent,
    MessageEvent,
    WebSocket,
    close_event,
    half_of,
)
from ._state import Failure

__all__ = ("Dispatcher", "NurseryHome")

_BUDGET: Final = 64
"""Messages between two checkpoints: counted, not timed, so that nothing is luck."""

_dispatchers: Final[RunVar[dict[trio.Nursery, "Dispatcher"]]] = RunVar(
    "trio_wspair_dispatchers"
)

_Event = MessageEvent | CloseEvent | ErrorEvent
_Steps = Generator[Awaitable[object], None, None]
"""Calls listeners one after the other, and yields what has to be awaited."""
_First = tuple[Awaitable[object], _Steps]
"""The first thing to await, and the steps that come after it."""


@attrs.frozen(slots=True)
class NurseryHome:
    """The home of a half whose tasks run in `nursery`."""

    nursery: trio.Nursery
    close_grace: float

    def adopt(self, socket: WebSocket, *, pull: bool) -> None:
        """Deliver the events of this half from now on."""
        Dispatcher.of(self.nursery).adopt(socket, self.close_grace, pull=pull)


@attrs.define(slots=True, eq=False)
class _Served:
    """A half that the dispatcher serves."""

    socket: WebSocket
    half: Half
    grace: float
    """Seconds that async listeners get once the nursery falls."""
    pull: bool
    context: contextvars.Context
    busy: bool = False
    """A task of its own is serving it."""
    last_events: list[_Event] | None = None
    """The events of its end that are still to be told, once the end is decided."""
    deadline: float = math.inf
    """When the async listeners of the present one are cancelled."""
    scope: trio.CancelScope | None = None
    """Around such a listener while it runs."""


class Dispatcher:
    """Serves every half that was accepted in one nursery."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._send_ready, self._ready = trio.open_memory_channel[_Served | None](
            math.inf
        )
        self._halves: dict[_Served, None] = {}
        self._errors: list[Exception] = []
        """What listeners have raised, until it is raised from the nursery."""
        self._falling = False

    @classmethod
    def of(cls, nursery: trio.Nursery) -> "Dispatcher":
        """Return the dispatcher of this nursery, started if there is none.

        Raises:
            InvalidStateError: The nursery has ended or is going down.
        """
        try:
            table = _dispatchers.get()
        except LookupError:
            table = {}
            _dispatchers.set(table)
        dispatcher = table.get(nursery)
        if dispatcher is None:
            dispatcher = cls(nursery)
            try:
                # An empty context: which half came first must not matter.
                contextvars.Context().run(nursery.start_soon, dispatcher._run)
            except RuntimeError:
                msg = "the nursery of this half has ended: accept() comes too late"
                raise InvalidStateError(msg) from None
            table[nursery] = dispatcher
        if dispatcher._falling:
            msg = "the nursery of this half is going down: accept() comes too late"
            raise InvalidStateError(msg)
        return dispatcher

    def adopt(self, socket: WebSocket, grace: float, *, pull: bool) -> None:
        """Serve this half from now on, in the context of the caller."""
        half = half_of(socket)
        served = _Served(socket, half, grace, pull, contextvars.copy_context())
        self._halves[served] = None
        send_ready = self._send_ready.send_nowait
        half.inbox.wake = lambda: send_ready(served)
        half.inbox.marked = True
        half.inbox.wake()

    # -- the task ---------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._dispatch()
            if not self._errors:
                return
            self._fall(queued_ends_count=True)
            self._nursery.cancel_scope.cancel(reason="a WebSocket listener raised")
            await self._finish_all()
        except BaseException:
            # Others that are cancelled now clean up first, whatever the order.
            await trio.lowlevel.cancel_shielded_checkpoint()
            self._fall()
            await self._finish_all()
            if not self._errors:
                raise
        finally:
            self._falling = True
            self._send_ready.close()
            self._ready.close()
            del _dispatchers.get()[self._nursery]
        _raise_all(self._errors)

    async def _dispatch(self) -> None:
        """Serve until no half is open any more, or a listener has raised."""
        take = self._ready.receive_nowait
        while self._halves:
            served = await self._ready.receive()
            await trio.lowlevel.checkpoint_if_cancelled()
            budget = _BUDGET
            while True:
                if served is not None and served in self._halves and not served.busy:
                    budget -= served.context.run(self._serve, served, budget)
                if self._errors:
                    return
                if budget <= 0:
                    break
                try:
                    served = take()
                except trio.WouldBlock:
                    break

    def _serve(self, served: _Served, budget: int) -> int:
        """Call the listeners for what has arrived. Return the budget that it took."""
        half = served.half
        inbox = half.inbox
        if served.pull and half.state.close_sent is not None and inbox.end is not None:
            # Its own Close is out: nothing waits for the messages to be read.
            half.receive_end(inbox.end)
        if served.pull or half.state.end is not None:
            if half.state.end is not None:
                self._end(served)
            return 1
        for count in range(1, budget + 1):
            try:
                item = inbox.receive_nowait()
            except trio.WouldBlock:
                inbox.marked = False
                return count
            if not isinstance(item, (str, bytes)):
                half.receive_end(item)
                self._end(served)
                return count
            inbox.release(item)
            event = MessageEvent(item, served.socket)
            errors: list[Exception] = []
            only = half.listeners.only_message_listener
            calls = (
                half.listeners.to_call("message") if only is None else iter((only,))
            )
            awaitable = _call(calls, event, errors)
            if awaitable is not None:
                self._start_task(served, self._own, calls, event, errors, awaitable)
                return count
            if errors:
                self._fail(half, errors)
                self._errors.extend(errors)
                self._end(served)
                return count
        self._send_ready.send_nowait(served)  # Again, after the others.
        return budget

    # -- a half with async listeners: a task of its own --------------------------

    def _start_task(
        self,
        served: _Served,
        task: Callable[..., Awaitable[None]],
        *args: object,
    ) -> None:
        served.busy = True
        self._nursery.start_soon(task, served, *args)

    async def _own(
        self,
        served: _Served,
        calls: Iterator[Listener],
        event: _Event,
        errors: list[Exception],
        awaitable: Awaitable[object] | None,
    ) -> None:
        """Serve one half, from an async listener on, until its inbox is empty."""
        half = served.half
        delivering.set(half)
        count = 0
        try:
            while True:
                while awaitable is not None:
                    try:
                        await awaitable
                    except Exception as exc:  # noqa: BLE001 - told below
                        errors.append(exc)
                    awaitable = _call(calls, event, errors)
                await trio.lowlevel.checkpoint_if_cancelled()
                if half.state.end is not None:  # Decided by others meanwhile.
                    break
                if errors:
                    self._fail(half, errors)
                    break
                count += 1
                if count % _BUDGET == 0:
                    await trio.lowlevel.checkpoint()
                try:
                    item = half.inbox.receive_nowait()
                except trio.WouldBlock:
                    half.inbox.marked = served.busy = False
                    return
                if not isinstance(item, (str, bytes)):
                    half.receive_end(item)
                    break
                half.inbox.release(item)
                event = MessageEvent(item, served.socket)
                calls = half.listeners.to_call("message")
                awaitable = _call(calls, event, errors)
            if errors:
                self._fall(queued_ends_count=True)
                self._nursery.cancel_scope.cancel(reason="a WebSocket listener raised")
        except BaseException:
            await trio.lowlevel.cancel_shielded_checkpoint()
            self._fall()
            await self._finish(served, self._begin_end(served, errors), errors)
            if not errors:
                raise
        else:
            await self._finish(served, self._begin_end(served, errors), errors)
        self._raise_from_task(errors)

    # -- the end of a half --------------------------------------------------------

    @enable_ki_protection
    def _fail(self, half: Half, errors: list[Exception]) -> None:
        """Decide: listeners of this half have raised."""
        # Differs: workerd tells only an `error` event, and the peer sees 1006.
        half.fail(Failure("a listener raised", errors[0]))
        half.say_close(Close(1011))

    def _end(self, served: _Served) -> None:
        """Tell the end of a half that is decided."""
        errors: list[Exception] = []
        awaitable = self._begin_end(served, errors)
        if awaitable is None:
            self._settle(served)
            self._errors.extend(errors)
        else:
            self._start_task(served, self._own_end, awaitable, errors)

    async def _own_end(
        self, served: _Served, first: _First, errors: list[Exception]
    ) -> None:
        """Tell the end of one half that has async listeners for it."""
        delivering.set(served.half)
        await self._finish(served, first, errors)
        self._raise_from_task(errors)

    def _begin_end(self, served: _Served, errors: list[Exception]) -> _First | None:
        """Tell the end up to the first listener that has to be awaited."""
        if served.last_events is None:
            served.last_events = _last_events(served.socket)
        steps = self._tell_end(served, errors)
        awaitable = next(steps, None)
        return None if awaitable is None else (awaitable, steps)

    def _tell_end(self, served: _Served, errors: list[Exception]) -> _Steps:
        events = served.last_events
        while events:
            event = events.pop(0)
            served.deadline = math.inf
            if self._falling:
                served.deadline = trio.current_time() + served.grace
            calls = served.half.listeners.to_call(event.type)
            while (awaitable := _call(calls, event, errors)) is not None:
                yield awaitable

    async def _finish(
        self, served: _Served, first: _First | None, errors: list[Exception]
    ) -> None:
        """Await the listeners that `_begin_end()` has left, then settle."""
        if first is not None:
            awaitable: Awaitable[object] | None
            awaitable, steps = first
            while awaitable is not None:
                with trio.CancelScope(shield=True, deadline=served.deadline) as scope:
                    served.scope = scope
                    try:
                        await awaitable
                    except Exception as exc:  # noqa: BLE001 - raised by the caller
                        errors.append(exc)
                served.scope = None
                awaitable = next(steps, None)
        self._settle(served)

    @enable_ki_protection
    def _settle(self, served: _Served) -> None:
        """Let go of a half whose end has been told."""
        served.busy = False
        half = served.half
        if not half.state.finished or served not in self._halves:
            return  # In half-open it still owes its own Close.
        del self._halves[served]
        half.finish()
        if not served.pull:  # What was not pulled yet can still be.
            half.inbox.close()
        if not self._halves and not self._falling:
            self._send_ready.send_nowait(None)

    # -- the end of all -------------------------------------------------------------

    @enable_ki_protection
    def _fall(self, *, queued_ends_count: bool = False) -> None:
        """Decide the end of every half, then say goodbye for them. Idempotent."""
        if self._falling:
            return
        self._falling = True
        farewells: list[tuple[Half, Close | None]] = []
        for served in self._halves:
            half = served.half
            answer = None
            if queued_ends_count and isinstance(half.inbox.end, Close):
                answer = half.state.receive_close(half.inbox.end)
            half.fail(Failure("the nursery of this half was cancelled"))
            half.inbox.close()
            farewells.append((half, answer))
            if served.scope is not None:
                served.scope.deadline = trio.current_time() + served.grace
            served.deadline = trio.current_time() + served.grace
        for half, answer in farewells:
            if answer is None:
                half.say_close(Close(1001))
            else:
                half.outbox.put_end(answer)

    async def _finish_all(self) -> None:
        """Tell the end of every half that no task of its own does it for."""
        waiting: list[tuple[_Served, _First]] = []
        for served in list(self._halves):
            if served.busy:
                continue
            first = served.context.run(self._begin_end, served, self._errors)
            if first is None:
                self._settle(served)
            else:
                waiting.append((served, first))
        if waiting:
            with trio.CancelScope(shield=True):  # Bounded by the deadlines in _finish.
                async with trio.open_nursery() as nursery:
                    for served, first in waiting:
                        served.context.run(
                            nursery.start_soon,
                            self._finish,
                            served,
                            first,
                            self._errors,
                        )

    def _raise_from_task(self, errors: list[Exception]) -> None:
        """Raise what listeners have raised, everybody's end being decided first."""
        if errors:
            self._fall(queued_ends_count=True)
            _raise_all(errors)


def _last_events(socket: WebSocket) -> list[_Event]:
    """Return the events that tell the end of a half."""
    end = half_of(socket).state.end
    events: list[_Event] = []
    if isinstance(end, Failure) and end.error is not None:
        message = f"{type(end.error).__name__}: {end.error}"
        events.append(ErrorEvent(message, end.error, socket))
    events.append(close_event(socket))
    return events


def _call(
    calls: Iterator[Listener], event: _Event, errors: list[Exception]
) -> Awaitable[object] | None:
    """Call listeners until one has to be awaited; keep what they raise."""
    for listener in calls:
        try:
            result = listener(event)
        except Exception as exc:  # noqa: BLE001 - raised from the nursery later
            errors.append(exc)
        else:
            if result is not None and isinstance(result, Awaitable):
                return result
    return None


def _raise_all(errors: list[Exception]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        msg = "listeners of a WebSocket raised"
        raise ExceptionGroup(msg, errors)

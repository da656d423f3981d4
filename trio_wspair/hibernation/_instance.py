"""One instance of an object in memory, from its construction until it is dropped.

Knows events that run in it, and tasks; neither sockets nor what the events are.

An instance is *idle* when no event runs in it and its nursery has no task, such as
that of a plainly accepted WebSocket. Idle for long enough, it leaves: nothing here
refers to the object any more, its nursery is cancelled, and `over` is set when all
of that has ended.
"""

import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Token
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, TypeVarTuple

import attrs
import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from trio_wspair._pair.owner import Owner, current_owner
from trio_wspair._rules.display import printable
from trio_wspair._rules.errors import DurableObjectResetError
from trio_wspair._tasks.nurseries import bare

from ._handlers import log_failure
from ._turnstile import Turnstile

__all__ = ("EventScope", "Instance", "Residence")

_T = TypeVar("_T")
_O = TypeVar("_O")
_Ts = TypeVarTuple("_Ts")
_LOOK_AGAIN: Final = 1.0
"""Seconds between two looks at the tasks that keep an instance awake."""
_logger: Final = logging.getLogger("trio_wspair")


@attrs.define
class Residence:
    """How long instances stay; what all objects of a namespace share."""

    hibernate_after: float
    """Idle seconds."""
    leaves_at_once: bool = False
    """They leave whenever they are idle, for tests."""


class Instance(Generic[_O]):
    """An instance that is in memory, or about to be.

    Args:
        label: Which object it is, for the log.
        build: Calls the constructor.
        residence: How long it stays.
        on_reset: Called when it is reset.
    """

    def __init__(
        self,
        label: str,
        build: Callable[["Instance[_O]"], _O],
        residence: Residence,
        on_reset: Callable[[], None],
    ) -> None:
        self._label = label
        self._build = build
        self._residence = residence
        self._on_reset = on_reset
        self._object: _O | None = None
        self._failure: Exception | None = None
        """What the constructor has raised."""
        self._built = False
        self._first: list[Coroutine[Any, Any, object]] | None = None
        """What the constructor wants to run before the first event."""
        self._events: set[trio.CancelScope] = set()
        self._calm: trio.Event | None = None
        """Set when the last event has ended, if somebody waits for that."""
        self._quiet_since = trio.current_time()
        self._blocking = 0
        self._entrance = Turnstile()
        """Where events wait, until they may begin."""
        self._evicted = False
        self._reset_reason: str | None = None
        self._scope = trio.CancelScope()
        self.nursery: trio.Nursery
        """Runs what belongs to this instance, once it is built."""
        self.owner: Owner
        """Owns the halves that were plainly accepted in it."""
        self.leaving: bool = False
        """No event may begin any more."""
        self.over: trio.Event = trio.Event()
        """Nothing of it is left."""

    # -- its life ---------------------------------------------------------------

    @enable_ki_protection
    async def run(self) -> None:
        """Build the object, and stay until it has been idle for long, or has to go."""
        # Not cancelled from outside: its sockets are closed first, see `leave()`.
        with trio.CancelScope(shield=True):
            try:
                with self._scope:
                    async with trio.open_nursery(
                        strict_exception_groups=True
                    ) as self.nursery:
                        self.owner = Owner(self.nursery)
                        self.owner.keep()
                        try:
                            await self._begin()
                            await self._stay()
                            self.leave()
                        finally:  # Before its nursery closes.
                            self.reset("one of its tasks failed")  # Unless it has left.
            except Exception as exc:
                what = "a task of %s failed: it is reset"
                facts = {"object": self._label}
                _logger.exception(what, self._label, exc_info=bare(exc), extra=facts)
            finally:
                # Those that were cancelled clean up.
                await self._wait_calm()  # noqa: ASYNC102 - in the shield above
                self._failure = None  # Its traceback refers to this.
                self.owner.end()
                self.owner.forget()
                current_owner.set(None)  # It refers to the task, and so to this.

    async def _begin(self) -> None:
        current_owner.set(self.owner)
        first: list[Coroutine[Any, Any, object]] = []
        self._first = first
        try:
            built = self._build(self)
            self._first = None
            while first:
                await first.pop(0)
            if not self.leaving:
                self._object = built
        except Exception as exc:  # noqa: BLE001 - raised by the events
            self._failure = exc
            self.leave()
            self._on_reset()
        finally:
            for coroutine in first:
                coroutine.close()
        self._built = True  # Else the events that wait are cancelled, as it is reset.
        self._entrance.admit(self._may_begin)

    async def _stay(self) -> None:
        """Return when it has been idle for long enough."""
        patience = self._residence.hibernate_after
        self.look_around()
        while True:
            if self._events:
                await self._wait_calm()
            elif self.nursery.child_tasks:
                await trio.sleep(_LOOK_AGAIN)
                self._quiet_since = trio.current_time()
            elif trio.current_time() < self._quiet_since + patience:
                await trio.sleep_until(self._quiet_since + patience)
            else:
                return

    def leave(self) -> None:
        """Drop the object, and cancel what is in its nursery."""
        self.leaving = True
        self._object = None
        self._scope.cancel(reason="the object leaves memory")

    def look_around(self) -> None:
        """Leave, if that is wanted and may be."""
        if self._events or not self._built:
            return
        idle = not self.nursery.child_tasks
        if self._evicted or (idle and self._residence.leaves_at_once):
            self.leave()

    @enable_ki_protection
    def evict(self) -> None:
        """Leave now, or when the events that are running have ended."""
        self._evicted = True
        self.look_around()

    @enable_ki_protection
    def reset(self, reason: str) -> None:
        """Leave now, and cancel the events that are running."""
        if self.leaving:
            return
        self._reset_reason = reason
        for event in self._events:
            event.cancel(reason=reason)
        self.leave()
        self._on_reset()

    # -- its events -------------------------------------------------------------

    def event(self) -> "EventScope[_O]":
        """Return a context manager that counts its block as an event.

        It keeps the object awake, and is cancelled when that is reset.

        Raises:
            DurableObjectResetError: On leaving, if it was.
        """
        return EventScope(self)

    def begin_event(self, scope: trio.CancelScope) -> None:
        """Count an event."""
        self._events.add(scope)

    def end_event(self, scope: trio.CancelScope) -> None:
        """Count it no more."""
        self._events.remove(scope)
        if not self._events:
            self._quiet_since = trio.current_time()
            if self._calm is not None:
                self._calm.set()
                self._calm = None
            self.look_around()

    def check_reset(self, cancelled: BaseException | None) -> None:
        """Check that events have not been cancelled.

        Args:
            cancelled: With what an event has ended, if it was cancelled.

        Raises:
            DurableObjectResetError: They have.
        """
        if self._reset_reason is not None:
            msg = f"{self._label} was reset: {printable(self._reset_reason)}"
            if cancelled is None:
                raise DurableObjectResetError(msg)
            # What was being handled when it was cancelled is not to be hidden.
            raise DurableObjectResetError(msg) from cancelled.__context__

    def _may_begin(self) -> bool:
        return self._built and not self._blocking

    async def _wait_calm(self) -> None:
        """Wait until no event runs."""
        while self._events:
            if self._calm is None:
                self._calm = trio.Event()
            await self._calm.wait()

    async def get(self) -> _O:
        """Wait until an event may begin, and return the object.

        A checkpoint if it waits.

        Raises:
            Exception: What the constructor has raised.
        """
        if not self._entrance.is_clear(self._may_begin):
            await self._entrance.pass_through(self._may_begin)
        if self._failure is not None:
            raise self._failure
        if self._object is None:  # It was reset when this had been woken already.
            await trio.lowlevel.checkpoint_if_cancelled()
        assert self._object is not None
        return self._object

    def block(
        self, async_fn: Callable[[*_Ts], Awaitable[_T]], *args: *_Ts
    ) -> Coroutine[Any, Any, _T]:
        """Return what has to be awaited; in the constructor it is by itself."""
        coroutine = self._block(async_fn, *args)
        if self._first is not None:
            self._first.append(coroutine)
        return coroutine

    @enable_ki_protection
    async def _block(
        self, async_fn: Callable[[*_Ts], Awaitable[_T]], *args: *_Ts
    ) -> _T:
        self._blocking += 1
        try:
            await trio.lowlevel.checkpoint()
            result = await _call(async_fn, *args)
            await trio.lowlevel.checkpoint_if_cancelled()  # It may have called abort().
            return result
        except Exception as exc:
            if self._object is not None:  # Else the events get the exception itself.
                self.reset(f"block_concurrency_while() failed with {exc!r}")
            raise
        finally:
            self._blocking -= 1
            self._entrance.admit(self._may_begin)

    @enable_ki_protection
    def start(self, async_fn: Callable[[*_Ts], Awaitable[object]], *args: *_Ts) -> None:
        """Run a task that counts as an event."""
        self.nursery.start_soon(self._run_task, self.event(), async_fn, args)

    @enable_ki_protection
    async def _run_task(
        self,
        event: "EventScope[_O]",
        async_fn: Callable[..., Awaitable[object]],
        args: tuple[object, ...],
    ) -> None:
        try:
            with event:
                await _call(async_fn, *args)
        except BaseException as exc:  # noqa: BLE001, ASYNC103 - the rest is raised
            log_failure(exc, self._label, "a wait_until()")


class EventScope(Generic[_O]):
    """An event that runs in an instance; a class, as there is one for each message."""

    __slots__ = ("_before", "_instance", "_scope")

    def __init__(self, instance: Instance[_O]) -> None:
        self._instance = instance
        self._scope = trio.CancelScope()
        self._before: Token[Owner | None] | None = None
        """The owner that was current."""
        instance.begin_event(self._scope)

    def __enter__(self) -> Self:
        """Begin."""
        self._scope.__enter__()
        return self

    async def get(self) -> _O:
        """Return the object; its owner is current until the event ends.

        A checkpoint if it waits.

        Raises:
            Exception: What the constructor has raised.
        """
        built = await self._instance.get()
        self._before = current_owner.set(self._instance.owner)
        return built

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End, and say so if it was cancelled."""
        if self._before is not None:
            current_owner.reset(self._before)
        try:
            cancelled = self._scope.__exit__(exc_type, exc, traceback)
        finally:
            self._instance.end_event(self._scope)
        if cancelled or exc is None:
            self._instance.check_reset(exc)


@disable_ki_protection
async def _call(async_fn: Callable[[*_Ts], Awaitable[_T]], *args: *_Ts) -> _T:
    return await async_fn(*args)

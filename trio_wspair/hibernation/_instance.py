"""`Instance`: one instance of an object in memory, from its construction to its end.

Knows the events that run in it and its tasks; neither sockets nor what the events are.
What may happen in which state is in `_rules.instances`.

Theory of operation. `run()` is the task of an instance: it constructs the object, waits
until the instance has been idle for long enough, and leaves. The events run in tasks of
their callers: of a request, or of a socket. An `EventScope` lasts from the arrival of
an event to its end, and includes its wait in `get()`. While there is one, the instance
does not go to sleep. Events that wait for the constructor, or for a function that
blocks them, begin one by one, in the order in which they came.

An instance leaves memory in one of three ways. It *goes to sleep* (`_leave()`) while no
event is running: the object is dropped, and the nursery of its tasks is cancelled. It
is *reset* (`reset()`): the events are cancelled as well, and the scope of each raises
`DurableObjectResetError` at its end. Or the constructor raises (`_begin()`): then its
events raise the same exception. All three are synchronous, and have no effect on an
instance that is leaving already. To *evict* an instance is to send it to sleep without
waiting until it has been idle for long enough. `run()` is shielded, since sockets are
closed before their object ends; it returns when the tasks and the events have cleaned
up. The next instance is constructed only then.

Memory is given back at once, without the garbage collector: nothing here refers to the
object, or to an exception with its traceback, after the instance has left.
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
from trio_wspair._rules.instances import InstanceEvent, InstanceLife, InstanceState
from trio_wspair._tasks.nurseries import bare

from ._handlers import log_failure
from ._turnstile import Turnstile

__all__ = ("EventScope", "Instance", "Residence")

_T = TypeVar("_T")
_O = TypeVar("_O")
_Ts = TypeVarTuple("_Ts")
_TASK_CHECK_INTERVAL: Final = 1.0
"""Seconds between two checks of whether an instance has tasks that keep it awake."""
_logger: Final = logging.getLogger("trio_wspair")


@attrs.define
class Residence:
    """How long instances stay in memory; the objects of a namespace share it."""

    hibernate_after: float
    """Seconds for which an instance is idle until it goes to sleep."""
    leaves_at_once: bool = False
    """Whether instances go to sleep as soon as they are idle, for tests."""


class Instance(Generic[_O]):
    """An instance that is in memory, or about to be.

    Args:
        label: The object's name in the log.
        build: Calls the constructor.
        residence: How long the instance stays in memory.
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
        self._life = InstanceLife()
        self._object: _O | None = None
        self._failure: Exception | None = None
        """What the constructor has raised."""
        self._run_first: list[Coroutine[Any, Any, object]] | None = None
        """While the constructor runs: what it wants to run before the first event."""
        self._events = _Events()
        self._entrance = Turnstile()
        """Where events wait until they may begin."""
        self._reset_reason: str | None = None
        self._scope = trio.CancelScope()
        """The scope of its tasks."""
        self.nursery: trio.Nursery
        """The nursery of its tasks, once `run()` has begun."""
        self.owner: Owner
        """The owner of the halves that it has accepted with `accept()`."""

    # -- its life ---------------------------------------------------------------

    @property
    def in_memory(self) -> bool:
        """Whether events may enter, and the object may use its `ctx`."""
        return self._life.in_memory

    @enable_ki_protection
    async def run(self) -> None:
        """Construct the object, and return when the instance has left memory."""
        # A cancellation from outside waits: the namespace closes the sockets first.
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
                            self._leave()
                        finally:  # Before its nursery closes.
                            self.reset("one of its tasks failed")  # Unless it has left.
            except Exception as exc:
                what = "a task of %s failed: it is reset"
                facts = {"object": self._label}
                _logger.exception(what, self._label, exc_info=bare(exc), extra=facts)
            finally:
                # Events that were cancelled clean up.
                await self._events.wait_until_none()  # noqa: ASYNC102 - shielded above
                self._life.advance(InstanceEvent.END)
                self._failure = None  # Its traceback refers to the instance.
                self.owner.end()
                self.owner.forget()
                current_owner.set(None)  # It refers to this task.

    async def _begin(self) -> None:
        current_owner.set(self.owner)
        run_first = self._run_first = []
        try:
            built = self._build(self)
            self._run_first = None
            while run_first:
                await run_first.pop(0)
        except Exception as exc:  # noqa: BLE001 - the events raise it
            if self._life.advance(InstanceEvent.BUILD_FAILURE):
                self._failure = exc
                self._drop()
                self._on_reset()
            else:  # It has called abort(), so the events raise another error.
                log_failure(exc, self._label, "the constructor")
        else:
            if self._life.advance(InstanceEvent.BUILT):
                self._object = built
        finally:
            self._run_first = None
            for coroutine in run_first:
                coroutine.close()
        self._entrance.admit(self._may_begin)

    async def _stay(self) -> None:
        """Return when the instance has been idle for long enough."""
        self.sleep_if_idle()
        while not self._may_sleep(idle_long_enough=trio.current_time() >= self._due):
            if self._events:
                await self._events.wait_until_none()
            elif self.nursery.child_tasks:
                await trio.sleep(_TASK_CHECK_INTERVAL)
                self._events.idle_since = trio.current_time()
            else:
                await trio.sleep_until(self._due)

    @property
    def _due(self) -> float:
        """When the instance goes to sleep if it stays idle."""
        return self._events.idle_since + self._residence.hibernate_after

    def _may_sleep(self, *, idle_long_enough: bool) -> bool:
        return self._life.may_sleep(
            events=len(self._events),
            tasks=len(self.nursery.child_tasks),
            idle_long_enough=idle_long_enough,
        )

    def _leave(self) -> None:
        """Go to sleep."""
        self._life.advance(InstanceEvent.SLEEP)
        self._drop()

    def _drop(self) -> None:
        """Drop the object, and cancel its tasks."""
        self._object = None
        self._scope.cancel(reason="the object leaves memory")

    def sleep_if_idle(self) -> None:
        """Check whether the instance is idle and need not wait, and leave then."""
        if self._life.state is InstanceState.AWAKE and self._may_sleep(
            idle_long_enough=self._residence.leaves_at_once
        ):
            self._leave()

    @enable_ki_protection
    def evict(self) -> None:
        """Leave memory now, or when the running events have ended."""
        self._life.evicted = True
        self.sleep_if_idle()

    @enable_ki_protection
    def reset(self, reason: str) -> None:
        """Leave memory now, and cancel the running events."""
        if self._life.advance(InstanceEvent.RESET):
            self._reset_reason = reason
            self._events.cancel(reason)
            self._drop()
            self._on_reset()

    # -- its events -------------------------------------------------------------

    def event(self) -> "EventScope[_O]":
        """Return a context manager whose block is an event.

        An event keeps the instance awake, and is cancelled when that is reset.

        Raises:
            DurableObjectResetError: When the block ends, if the instance was reset.
        """
        return EventScope(self)

    def begin_event(self, scope: trio.CancelScope) -> None:
        """Count an event."""
        self._events.add(scope)

    def end_event(self, scope: trio.CancelScope) -> None:
        """Count an event no longer."""
        self._events.remove(scope)
        if not self._events:
            self.sleep_if_idle()

    def check_reset(self, cancelled: BaseException | None) -> None:
        """Check that the events of this instance were not cancelled.

        Args:
            cancelled: What an event has raised, if it was cancelled.

        Raises:
            DurableObjectResetError: The instance was reset.
        """
        if self._reset_reason is not None:
            msg = f"{self._label} was reset: {printable(self._reset_reason)}"
            if cancelled is None:
                raise DurableObjectResetError(msg)
            # Show the exception that was being handled when the event was cancelled.
            raise DurableObjectResetError(msg) from cancelled.__context__

    def _may_begin(self) -> bool:
        return self._life.lets_begin

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
        assert self._object is not None
        return self._object

    def block(
        self, async_fn: Callable[[*_Ts], Awaitable[_T]], *args: *_Ts
    ) -> Coroutine[Any, Any, _T]:
        """Return a coroutine that blocks events while it runs `async_fn`.

        The caller awaits it, except in the constructor: there it runs when the
        constructor has returned.
        """
        coroutine = self._block(async_fn, *args)
        if self._run_first is not None:
            self._run_first.append(coroutine)
        return coroutine

    @enable_ki_protection
    async def _block(
        self, async_fn: Callable[[*_Ts], Awaitable[_T]], *args: *_Ts
    ) -> _T:
        self._life.blocks += 1
        try:
            await trio.lowlevel.checkpoint()
            result = await _call(async_fn, *args)
            await trio.lowlevel.checkpoint_if_cancelled()  # It may have called abort().
            return result
        except Exception as exc:
            if self._life.state is InstanceState.AWAKE:
                self.reset(f"block_concurrency_while() failed with {exc!r}")
            raise  # While the instance is starting, its constructor has failed.
        finally:
            self._life.blocks -= 1
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


class _Events:
    """The events that run in an instance, or wait for their beginning."""

    def __init__(self) -> None:
        self._scopes: set[trio.CancelScope] = set()
        self._none: trio.Event | None = None
        """Set when the last event has ended, if a task waits for that."""
        self.idle_since: float = trio.current_time()
        """When the last event has ended."""

    def __len__(self) -> int:
        return len(self._scopes)

    def add(self, scope: trio.CancelScope) -> None:
        self._scopes.add(scope)

    def remove(self, scope: trio.CancelScope) -> None:
        self._scopes.remove(scope)
        if not self._scopes:
            self.idle_since = trio.current_time()
            if self._none is not None:
                self._none.set()
                self._none = None

    def cancel(self, reason: str) -> None:
        for scope in self._scopes:
            scope.cancel(reason=reason)

    async def wait_until_none(self) -> None:
        while self._scopes:
            if self._none is None:
                self._none = trio.Event()
            await self._none.wait()


class EventScope(Generic[_O]):
    """An event that runs in an instance; a class, because each message has one."""

    __slots__ = ("_before", "_instance", "_scope")

    def __init__(self, instance: Instance[_O]) -> None:
        self._instance = instance
        self._scope = trio.CancelScope()
        self._before: Token[Owner | None] | None = None
        """What restores the owner that was current."""
        instance.begin_event(self._scope)

    def __enter__(self) -> Self:
        """Begin."""
        self._scope.__enter__()
        return self

    async def get(self) -> _O:
        """Return the object. Its owner is current until the event ends.

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
        """End, and raise `DurableObjectResetError` if the instance was reset."""
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

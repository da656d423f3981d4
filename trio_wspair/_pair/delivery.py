"""`Delivery`: the listeners of one half are called for an event, one after the other.

Keeps what they raise. When an event is delivered, and what a failure causes, is decided
by the dispatcher and the owner.
"""

import math
from collections.abc import Awaitable, Iterator
from typing import Final

import attrs
import trio

from trio_wspair._rules.listeners import Listener, Listeners
from trio_wspair._rules.state import Failure

from .verbs import half_of
from .websocket import CloseEvent, ErrorEvent, MessageEvent, WebSocket, close_event

__all__ = ("Delivery", "Ending", "Event")

Event = MessageEvent | CloseEvent | ErrorEvent

_NO_LISTENERS: Final[Iterator[Listener]] = iter(())


@attrs.define(slots=True, eq=False)
class Delivery:
    """One event after the other, each for all its listeners."""

    awaitable: Awaitable[object] | None = None
    """What the last listener has returned, if that has to be awaited."""
    errors: list[Exception] = attrs.field(factory=list[Exception])
    """What listeners have raised so far."""
    _event: Event | None = None
    _listeners: Iterator[Listener] = _NO_LISTENERS

    def start(self, event: Event, listeners: Listeners) -> None:
        """Begin with an event: call listeners until one has to be awaited."""
        self._event = event
        self._listeners = listeners.to_call(event.type)
        self.call_next()

    def call_next(self) -> None:
        """Call the listeners that are left, until one has to be awaited."""
        self.awaitable = None
        for listener in self._listeners:
            try:
                result: object = listener(self._event)
            except Exception as exc:  # noqa: BLE001 - raised from the nursery later
                self.errors.append(exc)
            except (KeyboardInterrupt, SystemExit) as exc:
                self._raise_with_errors(exc)
                raise
            else:
                if result is not None and isinstance(result, Awaitable):
                    self.awaitable = result
                    return

    async def wait(self) -> None:
        """Await what has to be awaited."""
        assert self.awaitable is not None
        try:
            await self.awaitable
        except Exception as exc:  # noqa: BLE001 - raised from the nursery later
            self.errors.append(exc)
        except (KeyboardInterrupt, SystemExit) as exc:
            self._raise_with_errors(exc)
            raise
        finally:
            self.awaitable = None

    def _raise_with_errors(self, exc: BaseException) -> None:
        """Raise `exc`, which interrupts, in a group with what was raised before it."""
        if self.errors:
            msg = "a WebSocket listener was interrupted, and others raised"
            raise BaseExceptionGroup(msg, [exc, *self.take_errors()]) from None

    def take_errors(self) -> list[Exception]:
        """Return what listeners have raised, and keep it no more."""
        errors, self.errors = self.errors, []
        return errors


class Ending(Delivery):
    """The delivery of the end of a half: `error`, if there is an error, and `close`.

    When a `KeyboardInterrupt` or the like has interrupted it, it can be continued, so
    that every listener is called.
    """

    def __init__(self, socket: WebSocket, grace: float) -> None:
        super().__init__()
        self._socket = socket
        self._grace = grace
        self._deadline = math.inf
        self._scope: trio.CancelScope | None = None
        self._hurried = False
        end = half_of(socket).state.end
        self._events: list[Event] = [close_event(socket)]
        if isinstance(end, Failure) and end.error is not None:
            message = f"{type(end.error).__name__}: {end.error}"
            self._events.insert(0, ErrorEvent(message, end.error, socket))

    def dispatch(self) -> None:
        """Call listeners until one has to be awaited, or all were called."""
        self.call_next()
        while self._events and self.awaitable is None:
            if self._hurried:
                self._deadline = trio.current_time() + self._grace
            self.start(self._events.pop(0), half_of(self._socket).listeners)

    def hurry(self) -> None:
        """Give the async listeners `grace` seconds for each event from now on."""
        self._hurried = True
        self._deadline = trio.current_time() + self._grace
        if self._scope is not None:
            self._scope.deadline = self._deadline

    async def finish(self) -> None:
        """Call the listeners that are left, async ones shielded from cancellation."""
        if self.awaitable is None:
            self.dispatch()
        while self.awaitable is not None:
            try:
                with trio.CancelScope(shield=True, deadline=self._deadline) as scope:
                    self._scope = scope
                    await self.wait()
            except Exception as exc:  # noqa: BLE001 - it came with a `Cancelled`
                self.errors.append(exc)
            finally:
                self._scope = None
            self.dispatch()

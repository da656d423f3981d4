"""Events on their way through the listeners of one half.

Calls listeners and keeps what they raise; when that happens, and what follows from
it, is decided by the dispatcher.
"""

from collections.abc import Awaitable, Iterator

import attrs

from ._listeners import Listener, Listeners
from ._socket import (
    CloseEvent,
    ErrorEvent,
    MessageEvent,
    WebSocket,
    close_event,
    half_of,
)
from ._state import Failure

__all__ = ("Delivery", "Event", "last_events")

Event = MessageEvent | CloseEvent | ErrorEvent


@attrs.define(slots=True, eq=False)
class Delivery:
    """Events on their way through listeners, one listener after the other."""

    awaitable: Awaitable[object] | None = None
    """What the last listener that was called wants awaited, if anything."""
    errors: list[Exception] = attrs.field(factory=list[Exception])
    """What listeners have raised so far."""
    _event: Event | None = None
    _listeners: Iterator[Listener] = attrs.field(factory=lambda: iter(()))

    def start(self, event: Event, listeners: Listeners) -> None:
        """Take up an event, and call listeners until one has to be awaited."""
        self._event = event
        self._listeners = listeners.to_call(event.type)
        self.call_next()

    def call_next(self) -> None:
        """Call listeners until the next one that has to be awaited."""
        self.awaitable = None
        for listener in self._listeners:
            try:
                result: object = listener(self._event)
            except Exception as exc:  # noqa: BLE001 - raised from the nursery later
                self.errors.append(exc)
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


def last_events(socket: WebSocket) -> list[Event]:
    """Return the events that tell the end of a half."""
    end = half_of(socket).state.end
    events: list[Event] = []
    if isinstance(end, Failure) and end.error is not None:
        message = f"{type(end.error).__name__}: {end.error}"
        events.append(ErrorEvent(message, end.error, socket))
    events.append(close_event(socket))
    return events

"""The listeners of one half: which are called for an event, and in what order.

Knows events only by name, and calls no listener. The order is that of workerd: the
`on...` attribute first, then the listeners in the order in which they were added. As in
WHATWG DOM, section 2.7, there are no duplicates, a removal takes effect at once, an
addition takes effect for the next event, and a listener for `once` is removed before it
is called.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import attrs

__all__ = ("EVENT_TYPES", "Listener", "Listeners", "check_event_type")

Listener = Callable[..., object]
"""Is called with the event. An awaitable result is awaited; others are ignored."""

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
EVENT_TYPES: Final = ("message", "close", "error")


@attrs.frozen(slots=True)
class _Entry:
    listener: Listener
    once: bool


def _find(entries: tuple[_Entry, ...], listener: Listener) -> _Entry | None:
    # Differs: workerd compares by identity; bound methods are only ever equal.
    for entry in entries:
        if entry.listener == listener:
            return entry
    return None


class Listeners:
    """The registry of one half."""

    __slots__ = ("_entries", "_slots", "only_message_listener")

    only_message_listener: Listener | None
    """The listener for messages, if there is exactly one and it is not for `once`."""

    def __init__(self) -> None:
        # Mappings and tuples are replaced and never changed, so that a delivery keeps a
        # snapshot. All halves start with the same empty mapping, which saves memory.
        self._entries: Mapping[str, tuple[_Entry, ...]] = _NOTHING
        self._slots: Mapping[str, Listener] = _NOTHING
        self.only_message_listener = None

    def add(self, event_type: str, listener: Listener, *, once: bool) -> None:
        """Add a listener, unless it was added before."""
        entries = self._checked_entries(event_type, listener)
        if _find(entries, listener) is None:
            self._replace(event_type, (*entries, _Entry(listener, once)))

    def remove(self, event_type: str, listener: Listener) -> None:
        """Remove a listener, if it was added."""
        entries = self._checked_entries(event_type, listener)
        found = _find(entries, listener)
        if found is not None:
            self._replace(event_type, tuple(e for e in entries if e is not found))

    def __contains__(self, event_type: str) -> bool:
        """Whether there is a listener for events of this type."""
        return event_type in self._slots or bool(self._entries.get(event_type))

    def slot(self, event_type: str) -> Listener | None:
        """Return the listener in the `on...` attribute."""
        return self._slots.get(event_type)

    def set_slot(self, event_type: str, listener: Listener | None) -> None:
        """Set or clear the `on...` attribute."""
        slots = {t: slot for t, slot in self._slots.items() if t != event_type}
        if listener is not None:
            _check_callable(listener)
            slots[event_type] = listener
        self._slots = slots
        self._changed()

    def to_call(self, event_type: str) -> Iterator[Listener]:
        """Yield the listeners for one event, each when its turn comes."""
        entries = self._entries.get(event_type, ())
        slot = self._slots.get(event_type)
        if slot is not None:
            yield slot
        for entry in entries:
            # A listener that an earlier one removed and added again is called, as in
            # workerd.
            current = _find(self._entries.get(event_type, ()), entry.listener)
            if current is None:
                continue
            if current.once:
                self.remove(event_type, current.listener)
            yield current.listener

    def clear(self) -> None:
        """Remove all listeners."""
        self._entries = self._slots = _NOTHING
        self.only_message_listener = None

    def _checked_entries(
        self, event_type: str, listener: Listener
    ) -> tuple[_Entry, ...]:
        check_event_type(event_type)
        _check_callable(listener)
        return self._entries.get(event_type, ())

    def _replace(self, event_type: str, entries: tuple[_Entry, ...]) -> None:
        self._entries = {**self._entries, event_type: entries}
        self._changed()

    def _changed(self) -> None:
        """Update `only_message_listener`."""
        entries = self._entries.get("message", ())
        only = self._slots.get("message")
        if only is None and len(entries) == 1 and not entries[0].once:
            only = entries[0].listener
        elif entries:
            only = None
        self.only_message_listener = only


def check_event_type(event_type: object) -> None:
    """Check the name of an event.

    Raises:
        ValueError: WebSockets have no event with this name.
    """
    # Differs: workerd takes any type.
    if event_type not in EVENT_TYPES:
        what = "a function" if callable(event_type) else repr(event_type)
        msg = (
            f"no event is called {what}: a WebSocket has 'message', 'close' and "
            "'error', as in @ws.on('message')"
        )
        raise ValueError(msg)


def _check_callable(listener: object) -> None:
    # Differs: workerd also takes objects with a handleEvent method.
    if not callable(listener):
        msg = (
            "a listener is a callable that takes the event, "
            f"not {type(listener).__name__}"
        )
        raise TypeError(msg)

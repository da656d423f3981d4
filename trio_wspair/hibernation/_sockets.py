"""`Sockets`: the sockets of one object, in order, by their tags.

Knows neither the object nor what its handlers do. `Membership` is what an object keeps
with each socket. It replaces the listeners of the half, and remains after the end, so
that the tags can still be read.
"""

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import attrs

from trio_wspair._pair.delivery import Event
from trio_wspair._pair.pair import discard_untaken
from trio_wspair._pair.verbs import half_of
from trio_wspair._pair.websocket import WebSocket
from trio_wspair._rules.errors import InvalidStateError
from trio_wspair._rules.instances import MessageProgress
from trio_wspair._rules.listeners import Listener, Listeners
from trio_wspair._rules.state import Cause, Holder

__all__ = (
    "Membership",
    "ObjectKey",
    "Sockets",
    "answered_at",
    "closing_socket",
    "ending_untaken",
    "membership_of",
    "note_given",
)

_logger: Final = logging.getLogger("trio_wspair")

closing_socket: Final[ContextVar[WebSocket | None]] = ContextVar(
    "closing_socket", default=None
)
"""The socket whose close handler is running in this task, if any."""


@attrs.define
class _Fetch:
    given: list[WebSocket] = attrs.field(factory=list[WebSocket])
    """The untaken halves that it has received from other objects."""
    accepted: list[WebSocket] | None = attrs.field(factory=list[WebSocket])
    """The sockets that it has accepted; `None` when it has ended."""


_fetch: Final[ContextVar[_Fetch | None]] = ContextVar("_fetch", default=None)
"""The `fetch()` in which this task, or the task that started it, is running."""


@attrs.frozen
class ObjectKey:
    """Which object a socket belongs to."""

    label: str
    """Such as ``Room 'lobby'``."""
    namespace: object = attrs.field(eq=id)
    """Any value that differs for each namespace."""


class Membership(Listeners):
    """What an object keeps with a socket, in place of the listeners."""

    __slots__ = ("answered_at", "key", "progress", "tags")

    key: ObjectKey
    tags: tuple[str, ...]
    answered_at: float | None
    """When the last message with an automatic answer came, as `time.time()`."""
    progress: MessageProgress

    def __init__(
        self,
        key: ObjectKey,
        tags: tuple[str, ...],
        take: Callable[[Event], object],
        before: Listeners,
    ) -> None:
        super().__init__()
        self.key = key
        self.tags = tags
        self.answered_at = None
        self.progress = MessageProgress.IDLE
        self.only_message_listener = take
        self._entries = before._entries
        self._slots = before._slots
        self._changed()

    def to_call(self, event_type: str) -> Iterator[Listener]:  # noqa: ARG002
        """Yield the listener of all events."""
        assert self.only_message_listener is not None
        yield self.only_message_listener

    def _changed(self) -> None:
        if self._entries or self._slots:
            _logger.warning(
                "listeners of a WebSocket that a Durable Object has accepted are never "
                "called: write web_socket_message() and web_socket_close(), or call "
                "accept() instead of accept_web_socket()"
            )


def membership_of(socket: WebSocket, key: ObjectKey) -> Membership:
    """Return what an object keeps with one of its sockets, also after its end.

    Raises:
        InvalidStateError: The object has not accepted the socket.
    """
    half = half_of(socket)
    membership = half.listeners
    if isinstance(membership, Membership):
        if membership.key == key:
            return membership
        other = membership.key.label
        msg = f"{key.label} has not accepted this WebSocket: {other} has"
    elif half.state.holder is Holder.NONE:
        msg = "this WebSocket has no tags yet: accept it with accept_web_socket() first"
    else:
        msg = (
            "only a WebSocket that accept_web_socket() has accepted has tags, not "
            f"{socket!r}"
        )
    raise InvalidStateError(msg)


def answered_at(socket: WebSocket) -> float | None:
    """Return when the last message with an automatic answer came, as `time.time()`."""
    membership = half_of(socket).listeners
    return membership.answered_at if isinstance(membership, Membership) else None


@contextmanager
def ending_untaken() -> Generator[None, None, None]:
    """End the untaken halves of a `fetch()`, which is the block, if it raises."""
    fetch = _Fetch()
    token = _fetch.set(fetch)
    try:
        yield
    except BaseException:
        for half in map(half_of, fetch.accepted or ()):
            if half.peer.holder is Holder.NONE:
                half.fail_by(Cause.PEER_NEVER_TAKEN)
        discard_untaken(fetch.given)
        raise
    finally:
        fetch.accepted = None  # The context of tasks that it has started refers to it.
        fetch.given.clear()
        _fetch.reset(token)


def note_given(socket: WebSocket) -> None:
    """Let an untaken half end if the `fetch()` that runs in this task raises."""
    fetch = _fetch.get()
    if fetch is not None and fetch.accepted is not None:
        fetch.given.append(socket)


class Sockets:
    """The sockets that an object has accepted and that have not ended."""

    def __init__(self) -> None:
        # dicts for their order
        self._all: dict[WebSocket, None] = {}
        self._by_tag: dict[str, dict[WebSocket, None]] = {}
        self._closing: set[WebSocket] = set()

    def __len__(self) -> int:
        """Return the number of sockets."""
        return len(self._all)

    def __contains__(self, socket: WebSocket) -> bool:
        """Return whether it is one of them."""
        return socket in self._all

    def listed(self, tag: str | None) -> list[WebSocket]:
        """Return all sockets, the latest first, or those of a tag, the oldest first.

        A socket whose close handler is running is returned to that handler only. Both
        rules are those of workerd.
        """
        found = reversed(self._all) if tag is None else self._by_tag.get(tag, ())
        if not self._closing:
            return list(found)
        hidden = self._closing - {closing_socket.get()}
        return [socket for socket in found if socket not in hidden]

    def add(self, socket: WebSocket, tags: tuple[str, ...]) -> None:
        """Add a socket under its tags."""
        self._all[socket] = None
        fetch = _fetch.get()
        if fetch is not None and fetch.accepted is not None:
            fetch.accepted.append(socket)
        for tag in tags:
            self._by_tag.setdefault(tag, {})[socket] = None

    def begin_closing(self, socket: WebSocket) -> None:
        """Show a socket only to its close handler from now on."""
        self._closing.add(socket)

    def remove(self, socket: WebSocket, tags: tuple[str, ...]) -> None:
        """Remove a socket that has ended."""
        del self._all[socket]
        self._closing.discard(socket)
        for tag in tags:
            del self._by_tag[tag][socket]
            if not self._by_tag[tag]:
                del self._by_tag[tag]

    def clear(self) -> list[WebSocket]:
        """Remove all sockets, and return them."""
        removed = list(self._all)
        self._all.clear()
        self._by_tag.clear()
        self._closing.clear()
        return removed

"""The sockets of one object: in what order, under which tags.

Knows neither the object nor what happens to events, only that somebody takes them.
"""

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum, auto
from typing import Final

import attrs

from trio_wspair._pair.delivery import Event
from trio_wspair._pair.pair import discard_untaken
from trio_wspair._pair.verbs import half_of
from trio_wspair._pair.websocket import WebSocket
from trio_wspair._rules.codes import Close
from trio_wspair._rules.errors import InvalidStateError
from trio_wspair._rules.listeners import Listener, Listeners
from trio_wspair._rules.state import Failure, Holder

__all__ = (
    "Membership",
    "Owner",
    "Progress",
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
"""The socket whose close handler is running here, if any."""


@attrs.define
class _Fetch:
    given: list[WebSocket] = attrs.field(factory=list[WebSocket])
    """Untaken halves that other objects have handed to it."""
    accepted: list[WebSocket] | None = attrs.field(factory=list[WebSocket])
    """The sockets that it has accepted; `None` once it is over."""


_fetch: Final[ContextVar[_Fetch | None]] = ContextVar("_fetch", default=None)
"""The `fetch()` that is running here, or was when this task was started."""


@attrs.frozen
class Owner:
    """Which object it is."""

    label: str
    """Such as ``Room 'lobby'``."""
    namespace: object = attrs.field(eq=id)
    """Anything that its namespace has to itself."""


class Progress(Enum):
    """How far the object has come with the messages of a socket.

    It decides what an automatic answer has to wait for. Workers start the handler of
    each message when it is read, and read the next one: so an answer comes after what
    the handlers of earlier messages send at once, and before what they send later.
    """

    IDLE = auto()
    """No handler runs: an answer waits for the messages that are queued."""
    BEGINNING = auto()
    """A handler is about to begin: an answer waits for it, and for what is queued."""
    WAITING = auto()
    """A handler waits, or did since the queue was empty last: an answer comes at once.
    In Workers, the handlers of what is queued behind it would have begun as well."""


class Membership(Listeners):
    """What an object keeps with a socket, in place of the listeners.

    It stays with the socket, so that tags can be asked for after the end.
    """

    __slots__ = ("answered_at", "owner", "progress", "tags")

    owner: Owner
    tags: tuple[str, ...]
    answered_at: float | None
    """When an automatic answer was sent last, as `time.time()`."""
    progress: Progress

    def __init__(
        self,
        owner: Owner,
        tags: tuple[str, ...],
        take: Callable[[Event], object],
        before: Listeners,
    ) -> None:
        super().__init__()
        self.owner = owner
        self.tags = tags
        self.answered_at = None
        self.progress = Progress.IDLE
        self.only_message_listener = take
        self._entries = before._entries
        self._slots = before._slots
        self._changed()

    def to_call(self, event_type: str) -> Iterator[Listener]:  # noqa: ARG002
        """Yield who takes all events."""
        assert self.only_message_listener is not None
        yield self.only_message_listener

    def _changed(self) -> None:
        if self._entries or self._slots:
            _logger.warning(
                "listeners of a WebSocket that a Durable Object has accepted are never "
                "called: write web_socket_message() and web_socket_close(), or call "
                "accept() instead of accept_web_socket()"
            )


def membership_of(socket: WebSocket, owner: Owner) -> Membership:
    """Return what `owner` keeps with one of its sockets, even after its end.

    Raises:
        InvalidStateError: It is none of them.
    """
    half = half_of(socket)
    membership = half.listeners
    if isinstance(membership, Membership):
        if membership.owner == owner:
            return membership
        others = membership.owner.label
        msg = f"{owner.label} has not accepted this WebSocket: {others} has"
    elif half.state.holder is Holder.NONE:
        msg = "only accept_web_socket() gives a WebSocket tags: call it before"
    else:
        msg = f"only accept_web_socket() gives tags, and this one is {socket!r}"
    raise InvalidStateError(msg)


def answered_at(socket: WebSocket) -> float | None:
    """Return when an automatic answer was sent last, if ever, as `time.time()`."""
    membership = half_of(socket).listeners
    return membership.answered_at if isinstance(membership, Membership) else None


@contextmanager
def ending_untaken() -> Generator[None, None, None]:
    """If the block fails, end what it has accepted or got and could not give away."""
    fetch = _Fetch()
    token = _fetch.set(fetch)
    try:
        yield
    except BaseException:
        for half in map(half_of, fetch.accepted or ()):
            if half.peer.holder is Holder.NONE:
                half.fail(Failure("the other half was never taken"))
                half.send_close(Close(1011))
        discard_untaken(fetch.given)
        raise
    finally:
        fetch.accepted = None  # Tasks that it has started have it in their context.
        fetch.given.clear()
        _fetch.reset(token)


def note_given(socket: WebSocket) -> None:
    """Let an untaken half end if the `fetch()` that is running here fails."""
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
        """Return how many there are."""
        return len(self._all)

    def __contains__(self, socket: WebSocket) -> bool:
        """Return whether it is one of them."""
        return socket in self._all

    def listed(self, tag: str | None) -> list[WebSocket]:
        """Return all sockets, the latest first, or those of a tag, the oldest first.

        Whose close handler is still running is seen by that handler alone. The order
        and this are workerd's.
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

"""`DurableObjectState`: what an object asks of the house it lives in, as `self.ctx`."""

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Final, TypeVar, TypeVarTuple

from trio.lowlevel import enable_ki_protection

from trio_wspair._pair.verbs import home_of
from trio_wspair._pair.websocket import WebSocket
from trio_wspair._rules.display import printable
from trio_wspair._rules.errors import InvalidStateError
from trio_wspair._rules.objects import (
    DurableObjectId,
    WebSocketRequestResponsePair,
    checked_event_timeout,
    checked_tags,
)
from trio_wspair._rules.state import check_thread

from ._actor import Actor
from ._handlers import Handlers
from ._instance import Instance
from ._sockets import answered_at, membership_of

__all__ = ("DurableObjectState",)

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_logger: Final = logging.getLogger("trio_wspair")


class DurableObjectState:
    """The sockets of an object, and what keeps it in memory.

    Objects get it as the first argument of their constructor. What is set here stays
    while the object is out of memory; without a socket, for a minute at least. The
    methods are synchronous, and take effect or raise with nothing changed; like those
    of a `WebSocket`, they belong to the thread of Trio.
    """

    __slots__ = ("_actor", "_id", "_instance")

    def __init__(
        self, object_id: DurableObjectId, actor: Actor, instance: Instance[Handlers]
    ) -> None:
        self._id = object_id
        self._actor = actor
        self._instance = instance

    def __repr__(self) -> str:
        return f"<DurableObjectState of {self._actor.label}>"

    @property
    def id(self) -> DurableObjectId:
        """The id of the object."""
        return self._id

    # -- sockets ------------------------------------------------------------------

    @enable_ki_protection
    def accept_web_socket(self, ws: WebSocket, tags: Iterable[str] = ()) -> None:
        """Take a half for the object: its events come to the object's handlers.

        The object may leave memory while it is open. Listeners of this half are not
        called. The other half is given to a `Response`, or accepted, later.

        Args:
            ws: A half of a pair; nobody has taken it or the other one.
            tags: At most 10 names of at most 256 bytes of UTF-8, for
                `get_web_sockets()`; the same one twice counts once.

        Raises:
            InvalidStateError: One of the halves was taken; the object has 32,768
                WebSockets already; it has left memory.
            TypeError: It is no WebSocket, or the tags are no list of str.
            ValueError: The tags are too many, or one is too long.
        """
        _check_socket(ws)
        tags = checked_tags(tags)
        self._check_alive("accept_web_socket()")
        check_thread(home_of(ws).thread, "accept_web_socket()")
        self._actor.accept(ws, tags)

    def get_web_sockets(self, tag: str | None = None) -> list[WebSocket]:
        """Return the sockets of the object, or those with a tag.

        All of them come with the latest first, those of a tag with the oldest first,
        as in workerd. Sockets that are closing may be among them. One whose close
        handler is running is seen by that handler only.

        Raises:
            TypeError: The tag is no str.
        """
        # Differs: workerd converts what is no string.
        if tag is not None and not isinstance(tag, str):
            msg = f"a tag is a str, not {type(tag).__name__}"
            raise TypeError(msg)
        return self._actor.sockets.listed(tag)

    def get_tags(self, ws: WebSocket) -> list[str]:
        """Return the tags of one of the object's sockets, also after its end.

        Raises:
            InvalidStateError: The object has not accepted it.
            TypeError: It is no WebSocket.
        """
        _check_socket(ws)
        return list(membership_of(ws, self._actor.owner).tags)

    # -- automatic answers ----------------------------------------------------------

    def set_web_socket_auto_response(
        self, pair: WebSocketRequestResponsePair | None = None
    ) -> None:
        """Answer a text on all sockets of the object without waking it.

        A message that is this text, exactly, is not seen by `web_socket_message()`,
        unless the answer finds no room, as the peer does not read. The answer waits
        for no handler that waits, and for no object that is blocked. It comes after
        what the handlers of earlier messages of its socket send before they wait.
        What is set counts for the messages that come later.

        Args:
            pair: The text and its answer; `None` for no automatic answers.

        Raises:
            InvalidStateError: The object has left memory.
            TypeError: It is no pair.
        """
        if pair is not None and not isinstance(pair, WebSocketRequestResponsePair):
            msg = (
                "an automatic answer is a WebSocketRequestResponsePair, not "
                f"{type(pair).__name__}"
            )
            raise TypeError(msg)
        self._check_alive("set_web_socket_auto_response()")
        self._actor.automatic = pair

    def get_web_socket_auto_response(self) -> WebSocketRequestResponsePair | None:
        """Return what is answered automatically, if anything."""
        return self._actor.automatic

    def get_web_socket_auto_response_timestamp(self, ws: WebSocket) -> datetime | None:
        """Return when there was a message for an automatic answer last, in UTC.

        `None` if there never was one. The answer may have come too late for a socket
        that is closing.

        Raises:
            TypeError: It is no WebSocket.
        """
        _check_socket(ws)
        moment = answered_at(ws)
        return None if moment is None else datetime.fromtimestamp(moment, UTC)

    # -- time limit -----------------------------------------------------------------

    def set_hibernatable_web_socket_event_timeout(self, ms: int | None = None) -> None:
        """Cancel handlers of WebSocket events that take longer than this.

        A warning is logged then, and the socket stays open.

        Args:
            ms: Milliseconds, at most 604,800,000 (seven days); 0 or `None` for no
                limit.

        Raises:
            InvalidStateError: The object has left memory.
            TypeError: It is no int.
            ValueError: It is out of range.
        """
        timeout = checked_event_timeout(ms)
        self._check_alive("set_hibernatable_web_socket_event_timeout()")
        self._actor.event_timeout = timeout

    def get_hibernatable_web_socket_event_timeout(self) -> int | None:
        """Return the limit in milliseconds, `None` if there is none."""
        return self._actor.event_timeout

    # -- staying in memory ------------------------------------------------------------

    def block_concurrency_while(
        self, async_fn: Callable[[*_Ts], Awaitable[_T]], *args: *_Ts
    ) -> Awaitable[_T]:
        """Run `async_fn(*args)` while no other event of the object begins.

        Those that wait begin in the order in which they came.

        In the constructor the call is enough: it runs before the first event. In a
        handler, await what is returned; that is a checkpoint. Events that run already
        go on. If it raises, the object is reset, as by `abort()`, and the exception
        goes on to the handler or, from a constructor, to the events that wait.

        Differs from Workers: there is no time limit; use `trio.fail_after()`.

        Returns:
            What `async_fn` returns, when awaited.

        Raises:
            InvalidStateError: The object has left memory.
            TypeError: `async_fn` can't be called.
        """
        _check_callable(async_fn)
        self._check_alive("block_concurrency_while()")
        return self._instance.block(async_fn, *args)

    @enable_ki_protection
    def wait_until(
        self, async_fn: Callable[[*_Ts], Awaitable[object]], *args: *_Ts
    ) -> None:
        """Run `async_fn(*args)` in the background, and keep the object in memory.

        What it raises is logged. It is cancelled when the namespace ends.

        Raises:
            InvalidStateError: The object has left memory.
            TypeError: `async_fn` can't be called.
        """
        _check_callable(async_fn)
        self._check_alive("wait_until()")
        self._instance.start(async_fn, *args)

    @enable_ki_protection
    def abort(self, reason: str = "") -> None:
        """Reset the object: cancel all that runs in it, and drop this instance.

        Its sockets end without `web_socket_close()`, and their peers see 1011; what
        was set is forgotten. The reason is logged. Who waits for `fetch()` gets a
        `DurableObjectResetError`; the next request meets a new instance. Whoever
        calls this goes on until it awaits something, where it is cancelled.

        Raises:
            InvalidStateError: The object has left memory.
            TypeError: The reason is no str.
        """
        if not isinstance(reason, str):
            msg = f"a reason is a str, not {type(reason).__name__}"
            raise TypeError(msg)
        self._check_alive("abort()")
        label = self._actor.label
        shown = printable(reason)
        _logger.error("%s calls abort(): %s", label, shown, extra={"object": label})
        self._instance.reset(reason or "it has called abort()")

    def _check_alive(self, verb: str) -> None:
        check_thread(self._actor.thread, verb)
        if self._instance.leaving:
            msg = f"{verb} comes too late: this instance has left memory"
            raise InvalidStateError(msg)


def _check_socket(ws: object) -> None:
    if not isinstance(ws, WebSocket):
        msg = f"this takes a WebSocket, one half of a pair, not {type(ws).__name__}"
        raise TypeError(msg)


def _check_callable(async_fn: object) -> None:
    if not callable(async_fn):
        if inspect.iscoroutine(async_fn):
            name = async_fn.__name__
            async_fn.close()  # So that Python doesn't warn of it, too.
            msg = f"this takes an async function, not a coroutine: pass {name} alone"
            raise TypeError(msg)
        msg = (
            "this takes an async function and its arguments, as nursery.start_soon() "
            f"does, not {type(async_fn).__name__}"
        )
        raise TypeError(msg)

"""`DurableObjectState`: how an object reaches its sockets and its settings: `self.ctx`.

Checks arguments, and that the object is in memory; `Actor` and `Instance` act.
"""

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
    """The sockets and settings of an object, and what keeps it in memory.

    It is the first argument of the object's constructor. Settings stay while the object
    is out of memory; if it has no socket, for at least a minute. The methods are
    synchronous; one that raises has changed nothing. Call them in the thread of Trio.
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
        """Accept a half for the object, whose handlers receive its events.

        The object may leave memory while the half is open. Listeners of the half are
        not called. Call this before the other half is accepted or given to a
        `Response`.

        Args:
            ws: An untaken half of a pair whose other half is untaken as well.
            tags: At most 10 names of at most 256 bytes of UTF-8, for
                `get_web_sockets()`; duplicates count once.

        Raises:
            InvalidStateError: One of the halves was taken; the object has 32,768
                WebSockets already; the object has left memory.
            TypeError: `ws` is not a WebSocket, or `tags` is not a list of str.
            ValueError: There are too many tags, or a tag is too long.
        """
        _check_socket(ws)
        tags = checked_tags(tags)
        self._check_alive("accept_web_socket()")
        check_thread(home_of(ws).thread, "accept_web_socket()")
        self._actor.accept(ws, tags)

    def get_web_sockets(self, tag: str | None = None) -> list[WebSocket]:
        """Return the sockets of the object, or those with a tag.

        As in workerd, all sockets are listed with the latest first, those with a tag
        with the oldest first. Sockets that are closing may be among them. A socket
        whose close handler is running is listed for that handler only.

        Raises:
            TypeError: The tag is not a str.
        """
        # Differs: workerd converts other types to a string.
        if tag is not None and not isinstance(tag, str):
            msg = f"a tag must be a str, not {type(tag).__name__}"
            raise TypeError(msg)
        return self._actor.sockets.listed(tag)

    def get_tags(self, ws: WebSocket) -> list[str]:
        """Return the tags of one of the object's sockets, also after its end.

        Raises:
            InvalidStateError: The object has not accepted the socket.
            TypeError: `ws` is not a WebSocket.
        """
        _check_socket(ws)
        return list(membership_of(ws, self._actor.key).tags)

    # -- automatic answers ----------------------------------------------------------

    def set_web_socket_auto_response(
        self, pair: WebSocketRequestResponsePair | None = None
    ) -> None:
        """Answer a text on all sockets of the object without waking it.

        `web_socket_message()` is not called for a message that is exactly this text,
        unless the buffer has no room for the answer because the peer does not read. The
        answer is sent even while handlers wait or the object blocks events. It follows
        what the handlers of earlier messages of its socket send before they first wait.
        The setting applies to messages that arrive later.

        Args:
            pair: The text and its answer; `None` for no automatic answers.

        Raises:
            InvalidStateError: The object has left memory.
            TypeError: `pair` is not a `WebSocketRequestResponsePair`.
        """
        if pair is not None and not isinstance(pair, WebSocketRequestResponsePair):
            msg = (
                "pair must be a WebSocketRequestResponsePair, not "
                f"{type(pair).__name__}"
            )
            raise TypeError(msg)
        self._check_alive("set_web_socket_auto_response()")
        self._actor.settings.automatic = pair

    def get_web_socket_auto_response(self) -> WebSocketRequestResponsePair | None:
        """Return the text that is answered automatically and its answer, if set."""
        return self._actor.settings.automatic

    def get_web_socket_auto_response_timestamp(self, ws: WebSocket) -> datetime | None:
        """Return when the last message with an automatic answer came, in UTC.

        `None` if there was no such message. If the socket was closing, the answer was
        not sent.

        Raises:
            TypeError: `ws` is not a WebSocket.
        """
        _check_socket(ws)
        moment = answered_at(ws)
        return None if moment is None else datetime.fromtimestamp(moment, UTC)

    # -- time limit -----------------------------------------------------------------

    def set_hibernatable_web_socket_event_timeout(self, ms: int | None = None) -> None:
        """Cancel handlers of WebSocket events that take longer than this.

        Each cancellation is logged as a warning. The socket stays open.

        Args:
            ms: Milliseconds, at most 604,800,000 (seven days); 0 or `None` for no
                limit.

        Raises:
            InvalidStateError: The object has left memory.
            TypeError: `ms` is not an int.
            ValueError: `ms` is out of range.
        """
        timeout = checked_event_timeout(ms)
        self._check_alive("set_hibernatable_web_socket_event_timeout()")
        self._actor.settings.event_timeout = timeout

    def get_hibernatable_web_socket_event_timeout(self) -> int | None:
        """Return the time limit in milliseconds; `None` for no limit."""
        return self._actor.settings.event_timeout

    # -- staying in memory ------------------------------------------------------------

    def block_concurrency_while(
        self, async_fn: Callable[[*_Ts], Awaitable[_T]], *args: *_Ts
    ) -> Awaitable[_T]:
        """Run `async_fn(*args)`; meanwhile no other event of the object begins.

        Events that arrive meanwhile begin afterwards, in the order in which they came.
        Events that are running already continue.

        In the constructor, call this without ``await``: the function runs before the
        first event. In a handler, await the result; that is a checkpoint. If the
        function raises, the object is reset, as by `abort()`. The exception is raised
        from the ``await`` in the handler or, after the constructor, from the `fetch()`
        calls that wait.

        Differs from Workers: there is no time limit; use `trio.fail_after()`.

        Returns:
            An awaitable for what `async_fn` returns.

        Raises:
            InvalidStateError: The object has left memory.
            TypeError: `async_fn` is not callable.
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
            TypeError: `async_fn` is not callable.
        """
        _check_callable(async_fn)
        self._check_alive("wait_until()")
        self._instance.start(async_fn, *args)

    @enable_ki_protection
    def abort(self, reason: str = "") -> None:
        """Reset the object: cancel its handlers and tasks, and drop this instance.

        Its sockets end without `web_socket_close()`; their peers receive a Close with
        code 1011. Its settings are lost. The reason is logged. `fetch()` calls that are
        waiting raise `DurableObjectResetError`; the next request constructs a new
        instance. The caller of `abort()` is cancelled at its next checkpoint.

        Raises:
            InvalidStateError: The object has left memory.
            TypeError: The reason is not a str.
        """
        if not isinstance(reason, str):
            msg = f"the reason must be a str, not {type(reason).__name__}"
            raise TypeError(msg)
        self._check_alive("abort()")
        label = self._actor.label
        shown = printable(reason)
        _logger.error("%s calls abort(): %s", label, shown, extra={"object": label})
        self._instance.reset(reason or "it has called abort()")

    def _check_alive(self, verb: str) -> None:
        check_thread(self._actor.thread, verb)
        if not self._instance.in_memory:
            msg = (
                f"{verb} was called on an instance that has left memory: keep no "
                "reference to an object or its ctx"
            )
            raise InvalidStateError(msg)


def _check_socket(ws: object) -> None:
    if not isinstance(ws, WebSocket):
        msg = f"ws must be a WebSocket, one half of a pair, not {type(ws).__name__}"
        raise TypeError(msg)


def _check_callable(async_fn: object) -> None:
    if not callable(async_fn):
        if inspect.iscoroutine(async_fn):
            name = async_fn.__name__
            async_fn.close()  # Else Python warns that it was never awaited.
            msg = f"pass the async function, {name}, and its arguments, not a coroutine"
            raise TypeError(msg)
        msg = (
            "pass an async function and its arguments, as to nursery.start_soon(), not "
            f"{type(async_fn).__name__}"
        )
        raise TypeError(msg)

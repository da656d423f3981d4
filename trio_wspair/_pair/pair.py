"""Pairs: two halves that are joined, and the context manager that closes them.

Knows the nursery in which a pair lives; what happens there is up to the dispatcher.
"""

import math
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, overload

import trio

from trio_wspair._rules.errors import InvalidStateError
from trio_wspair._rules.limits import check_limit, check_seconds
from trio_wspair._rules.state import Holder
from trio_wspair._tasks.nurseries import (
    check_nursery_is_here,
    let_unread_bytes_count,
    open_service_nursery,
)

from .dispatcher import NurseryHome
from .half import unanswered
from .instruments import join_watched
from .owner import current_owner
from .verbs import half_of
from .websocket import WebSocket

__all__ = (
    "DEFAULT_MAX_BUFFERED_BYTES",
    "WebSocketPair",
    "close_all",
    "closing_on_exit",
    "discard_untaken",
    "nursery_for",
    "open_websocket_pair",
)

DEFAULT_MAX_BUFFERED_BYTES: Final = 64 * 2**20


def nursery_for(nursery: trio.Nursery | None, what: str, instead: str) -> trio.Nursery:
    """Return `nursery`, or by default that of the current owner.

    Raises:
        InvalidStateError: There is neither, or it belongs to another Trio run.
        TypeError: It is not a nursery.
    """
    if nursery is None:
        owner = current_owner.get()
        nursery = owner.nursery if owner is not None else None
    if nursery is None:
        msg = (
            f"{what} needs a nursery for its tasks: use `async with {instead}`, "
            f"or pass a nursery (only a request handler has one already)"
        )
        raise InvalidStateError(msg)
    if not isinstance(nursery, trio.Nursery):
        msg = f"nursery must be a trio.Nursery, not {type(nursery).__name__}"
        raise TypeError(msg)
    check_nursery_is_here(nursery, what)
    return nursery


class WebSocketPair:
    """Two connected WebSockets: what one sends, the other receives.

    ``client, server = WebSocketPair(nursery)``, or ``pair[0]`` and ``pair[1]``.

    Args:
        nursery: The nursery for the tasks of both halves. By default that of the
            request or Durable Object that is being handled. It can end when both
            halves have closed.
        max_buffered_bytes: Bytes that may be sent and not taken yet, in each direction.
        close_grace: Seconds that `aclose()` waits for the peer, and that async
            close listeners get when the nursery is cancelled.

    Raises:
        InvalidStateError: There is no nursery; see `open_websocket_pair()`. Or it
            belongs to another Trio run, as in a foreign thread.
        TypeError: An argument is of another type.
        ValueError: An argument is out of range.
    """

    __slots__ = ("_halves",)

    def __init__(
        self,
        nursery: trio.Nursery | None = None,
        *,
        max_buffered_bytes: int = DEFAULT_MAX_BUFFERED_BYTES,
        close_grace: float = 1.0,
    ) -> None:
        nursery = nursery_for(nursery, "WebSocketPair()", "open_websocket_pair()")
        check_limit("max_buffered_bytes", max_buffered_bytes)
        check_seconds("close_grace", close_grace)
        home = NurseryHome(nursery, close_grace)
        self._halves = join_watched(max_buffered_bytes, home)

    def __repr__(self) -> str:
        return f"<WebSocketPair {self._halves[0]!r} {self._halves[1]!r}>"

    def __len__(self) -> int:
        """Return 2: type checkers and readers expect it beside indexing."""
        return 2

    def __iter__(self) -> Iterator[WebSocket]:
        """Iterate over the two halves."""
        return iter(self._halves)

    @overload
    def __getitem__(self, index: int) -> WebSocket: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[WebSocket, ...]: ...
    def __getitem__(self, index: int | slice) -> WebSocket | tuple[WebSocket, ...]:
        """Return a half.

        Raises:
            IndexError: The index is neither 0 nor 1.
        """
        return self._halves[index]


@asynccontextmanager
async def open_websocket_pair(
    *,
    max_buffered_bytes: int = DEFAULT_MAX_BUFFERED_BYTES,
    close_grace: float = 1.0,
) -> AsyncGenerator[WebSocketPair, None]:
    """Open a nursery with a pair in it, and close the pair on leaving.

    ``async with open_websocket_pair() as (client, server):``. On leaving, both halves
    are closed with 1000, or with 1011 when the block has raised; queued messages are
    delivered, and the closing handshake gets `close_grace` seconds. When it is
    cancelled, the halves close without that time. An exception of a listener comes out
    in an `ExceptionGroup`, as from any nursery; one of the block comes out as it is.

    Args:
        max_buffered_bytes: Bytes that may be sent and not taken yet, in each direction.
        close_grace: Seconds that closing may take.

    Raises:
        TypeError: An argument is of another type.
        ValueError: An argument is out of range.
    """
    async with open_service_nursery() as nursery:
        pair = WebSocketPair(
            nursery, max_buffered_bytes=max_buffered_bytes, close_grace=close_grace
        )
        async with closing_on_exit(tuple(pair), grace=close_grace):
            yield pair


@asynccontextmanager
async def closing_on_exit(
    sockets: Sequence[WebSocket], *, grace: float
) -> AsyncGenerator[None, None]:
    """Close `sockets` on leaving, with `grace` seconds for the handshake."""
    try:
        yield
        await close_all(sockets, 1000, grace)
    except BaseException:
        if trio.current_effective_deadline() != -math.inf:
            with trio.CancelScope(shield=True):  # So that this exception is kept.
                await close_all(sockets, 1011, grace)
        raise
    finally:
        discard_untaken(sockets)


async def close_all(sockets: Sequence[WebSocket], code: int, grace: float) -> None:
    """Close halves. Those that have not closed after `grace` seconds fail."""
    halves = [half_of(socket) for socket in sockets]
    taken = [half for half in halves if half.state.holder is not Holder.NONE]
    for socket in sockets:
        if half_of(socket).state.holder.has_verbs:
            socket.close(code)
    discard_untaken(sockets)
    with trio.move_on_after(grace) as waiting:
        for half in taken:
            await half.wait_released()
    if waiting.cancelled_caught:
        if grace > 0:  # With 0 there is no answer to wait for.
            await let_unread_bytes_count()
        for half in taken:
            half.fail(unanswered(grace))


def discard_untaken(sockets: Sequence[WebSocket]) -> None:
    """End those of `sockets` that are not taken."""
    for half in map(half_of, sockets):
        if half.state.holder is Holder.NONE and not half.state.released:
            half.discard("it was never accepted")

"""The life of a request: its states, the events that change them, and the stop.

Knows no Trio and no connection. The task of the request asks these tables what to do.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

import attrs

__all__ = ("RequestEvent", "RequestLife", "RequestState", "StopEffect")


class RequestState(Enum):
    """What the task of a request is doing."""

    CALLING = auto()
    """The handler is running."""
    ANSWERING = auto()
    """A response is being sent."""
    CONVERSING = auto()
    """The WebSocket is open, or about to be."""
    CLOSING = auto()
    """The handler's halves have failed, and the connection is being closed."""
    WAITING = auto()
    """The connection has ended, but the handler's half has not."""
    DONE = auto()
    """The request has ended."""


class RequestEvent(Enum):
    """What changes the state."""

    RESPONSE = auto()
    """The handler has returned a response without a WebSocket."""
    WEBSOCKET = auto()
    """The handler has returned a WebSocket that the client asked for."""
    FAILURE = auto()
    """Code of the application has raised, or has cancelled ``request.nursery``."""
    CONNECTION_END = auto()
    """The connection of the WebSocket has ended."""
    END = auto()
    """The task has nothing left to do."""


class StopEffect(Enum):
    """What the task of a request does when the server stops."""

    KEEP_CODE = auto()
    """Send a Close when a WebSocket opens."""
    NONE = auto()
    """Nothing: the request ends in bounded time."""
    SEND_CLOSE = auto()
    """Send a Close."""
    BOUND_WAIT = auto()
    """Wait for the handler's half no longer than the grace period."""


_S, _E = RequestState, RequestEvent
_NEXT: Final[Mapping[tuple[RequestState, RequestEvent], RequestState]] = {
    (_S.CALLING, _E.RESPONSE): _S.ANSWERING,
    (_S.CALLING, _E.WEBSOCKET): _S.CONVERSING,
    (_S.CALLING, _E.FAILURE): _S.ANSWERING,  # With status 500.
    (_S.ANSWERING, _E.FAILURE): _S.ANSWERING,  # Of its body, or of a task.
    (_S.ANSWERING, _E.END): _S.DONE,
    (_S.CONVERSING, _E.CONNECTION_END): _S.WAITING,
    (_S.CONVERSING, _E.FAILURE): _S.CLOSING,
    (_S.WAITING, _E.FAILURE): _S.CLOSING,
    (_S.WAITING, _E.END): _S.DONE,
    (_S.CLOSING, _E.END): _S.DONE,
}
"""(state, event) -> next state. A missing row is a bug of the caller."""

_ON_STOP: Final[Mapping[RequestState, StopEffect]] = {
    _S.CALLING: StopEffect.KEEP_CODE,
    _S.ANSWERING: StopEffect.NONE,
    _S.CONVERSING: StopEffect.SEND_CLOSE,
    _S.CLOSING: StopEffect.NONE,
    _S.WAITING: StopEffect.BOUND_WAIT,
    _S.DONE: StopEffect.NONE,
}


@attrs.define(eq=False)
class RequestLife:
    """The state of one request."""

    state: RequestState = RequestState.CALLING
    stop_code: int | None = None
    """The close code of the server's stop, once it stops."""

    def advance(self, event: RequestEvent) -> None:
        """Enter the next state."""
        self.state = _NEXT[self.state, event]

    def stop(self, code: int) -> StopEffect:
        """Note that the server stops, and return what the task has to do."""
        self.stop_code = code
        return _ON_STOP[self.state]

"""The exceptions of trio-wspair, and the errors by which connections end.

::

    Exception
    ├── WebSocketError
    │   ├── InvalidStateError (also a RuntimeError)  a verb at the wrong moment
    │   ├── BufferFullError                          the consumer is too far behind
    │   ├── ConnectionClosedError                    the conversation is over
    │   ├── ProtocolError                            the peer broke RFC 6455
    │   ├── HandshakeError                           the server opened no WebSocket
    │   └── DurableObjectResetError                  the object left memory meanwhile
    └── RequestBodyError                             the body did not arrive whole

A wrong argument is a plain `TypeError` or `ValueError`.
"""

from typing import Final

from .display import printable

__all__ = (
    "BufferFullError",
    "ConnectionClosedError",
    "DurableObjectResetError",
    "HandshakeError",
    "InvalidStateError",
    "ProtocolError",
    "RequestBodyError",
    "WebSocketError",
    "connection_lost",
    "message_too_big",
)


class WebSocketError(Exception):
    """Base class of the errors that are about WebSockets."""


class InvalidStateError(WebSocketError, RuntimeError):
    """The call is not allowed in this state of the half, and has changed nothing.

    For example, a `send()` before `accept()`, after `close()` of the same half, or in
    another thread than that of the half's Trio run.
    """


class BufferFullError(WebSocketError):
    """The queue is full: the other side is too slow. The message was not queued.

    ``await ws.drain()`` waits until there is room.
    """


class ConnectionClosedError(WebSocketError):
    """The conversation is over: messages can't be sent or received any more."""

    code: int
    """The close code that this half saw (RFC 6455, section 7.4)."""
    reason: str
    """The reason of the peer's Close, possibly empty."""
    was_clean: bool
    """Whether both sides have sent a Close."""

    def __init__(self, code: int, reason: str, was_clean: bool) -> None:  # noqa: FBT001
        super().__init__(code, reason, was_clean)
        self.code = code
        self.reason = reason
        self.was_clean = was_clean

    def __str__(self) -> str:
        manner = "cleanly" if self.was_clean else "abnormally"
        # The reason comes from the peer, and the text is shown in logs.
        reason = f": {printable(self.reason)}" if self.reason else ""
        return f"the connection has closed {manner} with code {self.code}{reason}"


class ProtocolError(WebSocketError):
    """The peer has sent what RFC 6455 forbids, or more than the limits allow.

    It is the `error` of an `ErrorEvent`.
    """

    code: int
    """The close code that was sent to the peer, such as 1002, 1007 or 1009."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code

    def __str__(self) -> str:
        return f"{self.args[1]} (closed with {self.code})"


_PASSING_4XX: Final = frozenset({408, 425, 429})
_LASTING_5XX: Final = frozenset({501, 505})


class HandshakeError(WebSocketError):
    """The server, or the proxy on the way to it, did not open a WebSocket.

    `status`, `headers` and `body` are those of the HTTP response. If there was no
    response, `status` is `None`.
    """

    status: int | None
    """The HTTP status, such as 403."""
    headers: tuple[tuple[str, str], ...]
    """The headers of the response, in order."""
    body: bytes
    """The start of the body of the response."""
    retryable: bool
    """Whether the same attempt may succeed later, without a change on this side.

    `True` after a timeout, a lost connection, a response that is not HTTP, and the
    statuses 408, 425, 429 and 5xx except 501 and 505. `False` after every other status,
    a certificate that either side has refused, and a wrong proxy password.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.body = body
        self.retryable = _may_pass(status) if retryable is None else retryable


def _may_pass(status: int | None) -> bool:
    if status is None or status in _PASSING_4XX:
        return True
    return status >= 500 and status not in _LASTING_5XX


class DurableObjectResetError(WebSocketError):
    """The instance of a Durable Object was dropped while it was handling this call.

    The object has called ``ctx.abort()``, one of its tasks has failed, or its namespace
    has ended. The next request is handled by a new instance.
    """


class RequestBodyError(Exception):
    """The body of a request could not be read.

    A handler need not catch this error: the server then answers with `status`. It is
    not a `WebSocketError`, as the body of a request has nothing to do with WebSockets.
    """

    status: int
    """408 if the body came too slowly, 413 if it is too large, 400 if it is incomplete
    or, for `Request.json()`, is not JSON."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status = status

    def __str__(self) -> str:
        return str(self.args[1])


def connection_lost(
    # The default is the text of workerd.
    why: str = "WebSocket disconnected without sending Close frame.",
) -> ConnectionClosedError:
    """Return the error for a connection that ended without a Close."""
    return ConnectionClosedError(1006, why, was_clean=False)


def message_too_big(max_bytes: int) -> ProtocolError:
    """Return the error for a message of more than `max_bytes` bytes."""
    return ProtocolError(1009, f"a message has more than {max_bytes} bytes")

"""The exceptions of trio-wspair, and nothing else.

::

    WebSocketError
    ├── InvalidStateError (also a RuntimeError)  you: a verb at the wrong moment
    ├── BufferFullError                          you: faster than the consumer
    ├── ConnectionClosedError                    nobody: the conversation is over
    ├── ProtocolError                            the peer: broke RFC 6455
    └── HandshakeError                           the server: no WebSocket here

A wrong argument is a plain `TypeError` or `ValueError`.
"""

__all__ = (
    "BufferFullError",
    "ConnectionClosedError",
    "HandshakeError",
    "InvalidStateError",
    "ProtocolError",
    "WebSocketError",
)


class WebSocketError(Exception):
    """Base class of everything that trio-wspair raises on its own account."""


class InvalidStateError(WebSocketError, RuntimeError):
    """The half is in no state for this, and has not changed.

    For example `send()` before `accept()`, or after one's own `close()`.
    """


class BufferFullError(WebSocketError):
    """The other side has not taken its messages yet; this one was not queued.

    ``await ws.drain()`` waits until there is room.
    """


class ConnectionClosedError(WebSocketError):
    """The conversation is over: no message can be sent or received any more."""

    code: int
    """The close code that this half saw (RFC 6455, section 7.4)."""
    reason: str
    """The peer's words, possibly empty."""
    was_clean: bool
    """Whether both sides said Close."""

    def __init__(self, code: int, reason: str, was_clean: bool) -> None:  # noqa: FBT001
        super().__init__(code, reason, was_clean)
        self.code = code
        self.reason = reason
        self.was_clean = was_clean

    def __str__(self) -> str:
        manner = "cleanly" if self.was_clean else "abnormally"
        reason = f": {self.reason}" if self.reason else ""
        return f"the connection has closed {manner} with code {self.code}{reason}"


class ProtocolError(WebSocketError):
    """The peer sent what RFC 6455 forbids, or more than the limits allow.

    Found as the `error` of an `ErrorEvent`.
    """

    code: int
    """The close code that the peer was told, such as 1002, 1007 or 1009."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code

    def __str__(self) -> str:
        return f"{self.args[1]} (closed with {self.code})"


class HandshakeError(WebSocketError):
    """The server did not open a WebSocket.

    When it answered in HTTP, `status`, `headers` and `body` tell what it said;
    when it said nothing that makes sense, `status` is `None`.
    """

    status: int | None
    """The HTTP status, such as 403."""
    headers: tuple[tuple[str, str], ...]
    """The headers of the answer, in order."""
    body: bytes
    """The start of the body of the answer."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.body = body

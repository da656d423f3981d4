"""`DurableObject`, which users' classes derive from."""

from collections.abc import Awaitable
from typing import Any

from trio_wspair._http.messages import Request, Response
from trio_wspair._pair.websocket import WebSocket

from ._state import DurableObjectState

__all__ = ("DurableObject",)


class DurableObject:
    """An object that may leave memory while its WebSockets stay open.

    The attributes of the instance are lost when it leaves memory. The attachments and
    tags of its sockets stay, and so does `env`. Handlers may be async or plain methods.
    The handlers of one socket never overlap; those of several sockets may, where they
    await. What a handler raises is logged, and its socket stays open.

    Args:
        ctx: Gives access to the sockets of the object, and keeps it in memory.
        env: The `env` of the namespace.
    """

    def __init__(self, ctx: DurableObjectState, env: Any) -> None:  # noqa: ANN401 - user's
        self.ctx = ctx
        self.env: Any = env

    async def fetch(self, request: Request) -> Response:
        """Answer a request that was made through a stub."""
        msg = (
            f"{type(self).__name__} has no fetch() method, which is needed to answer "
            f"{request.method} {request.path}"
        )
        raise NotImplementedError(msg)

    def web_socket_message(
        self, ws: WebSocket, message: str | bytes
    ) -> Awaitable[None] | None:
        """Handle a message of a socket that `ctx.accept_web_socket()` has accepted."""
        msg = (
            f"{type(self).__name__} has no web_socket_message() method, which is "
            f"needed to handle {message!r:.80}"
        )
        raise NotImplementedError(msg)

    def web_socket_close(
        self,
        ws: WebSocket,
        code: int,
        reason: str,
        was_clean: bool,  # noqa: FBT001
    ) -> Awaitable[None] | None:
        """Handle the end of a socket, by a Close or by the loss of the connection.

        If the peer has sent a Close, `send()` works until this handler has ended. Then
        the Close is answered, unless the handler has called `close()`.

        Args:
            ws: The socket.
            code: The code of the peer's Close; 1005 if that had no code, 1006 if the
                connection was lost.
            reason: The reason of the peer's Close, possibly empty.
            was_clean: Whether the peer has sent a Close.
        """

    def web_socket_error(
        self, ws: WebSocket, error: Exception
    ) -> Awaitable[None] | None:
        """Handle the end of a socket whose peer broke the protocol.

        `web_socket_close()` is not called in this case.
        """

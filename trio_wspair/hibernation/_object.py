"""`DurableObject`, which users' classes derive from."""

from collections.abc import Awaitable
from typing import Any

from trio_wspair._http.messages import Request, Response
from trio_wspair._pair.websocket import WebSocket

from ._context import DurableObjectState

__all__ = ("DurableObject",)


class DurableObject:
    """An object that may leave memory while its WebSockets stay open.

    Attributes of an instance are gone then; attachments and tags of the sockets stay,
    and so does what is in `env`. Handlers may be async or plain methods. Those of one
    socket never overlap; those of several may, where they await. What one raises is
    logged, and its socket stays open.

    Args:
        ctx: The sockets of the object, and what keeps it in memory.
        env: What was given to the namespace.
    """

    def __init__(self, ctx: DurableObjectState, env: Any) -> None:  # noqa: ANN401 - user's
        self.ctx = ctx
        self.env: Any = env

    async def fetch(self, request: Request) -> Response:
        """Answer a request that came through a stub."""
        msg = f"{type(self).__name__} has no fetch() for {request.method} {request.url}"
        raise NotImplementedError(msg)

    def web_socket_message(
        self, ws: WebSocket, message: str | bytes
    ) -> Awaitable[None] | None:
        """Take a message of a socket that `ctx.accept_web_socket()` has taken."""
        msg = f"{type(self).__name__} has no web_socket_message() for {message!r:.80}"
        raise NotImplementedError(msg)

    def web_socket_close(
        self,
        ws: WebSocket,
        code: int,
        reason: str,
        was_clean: bool,  # noqa: FBT001
    ) -> Awaitable[None] | None:
        """Take the end of a socket: the peer has closed, or is gone.

        Until this is over, `send()` works if the peer has said Close. Its Close is
        answered then, unless the handler has called `close()` itself.

        Args:
            ws: The socket.
            code: The code of the peer's Close; 1005 if it had none, 1006 if none came.
            reason: The peer's words, possibly empty.
            was_clean: Whether a Close came.
        """

    def web_socket_error(
        self, ws: WebSocket, error: Exception
    ) -> Awaitable[None] | None:
        """Take the end of a socket whose peer broke the protocol.

        There is no `web_socket_close()` then.
        """

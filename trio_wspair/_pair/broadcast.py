"""`broadcast()`: one message for many sockets."""

from collections.abc import Iterable
from threading import get_ident

from trio.lowlevel import enable_ki_protection

from trio_wspair._rules.errors import WebSocketError
from trio_wspair._rules.messages import as_message, size_of
from trio_wspair._rules.state import foreign_thread_error
from trio_wspair._tasks.cork import corked

from .websocket import WebSocket, half_of, home_of

__all__ = ("broadcast",)


@enable_ki_protection
def broadcast(
    sockets: Iterable[WebSocket],
    message: str | bytes | bytearray | memoryview | float,
) -> dict[WebSocket, WebSocketError]:
    """Send a message to all of `sockets` that can take it, and say who can't.

    The message is converted once, as by `WebSocket.send()`. Nobody is waited for: it
    is queued for each. Who is closing, has closed, or is too far behind, is skipped.
    Synchronous, never a checkpoint.

    Returns:
        Who was skipped, each with what `send()` would have raised:
        `ConnectionClosedError`, `BufferFullError` or `InvalidStateError`.

    Raises:
        TypeError: The message is of another type; nobody gets it then.
        InvalidStateError: In another thread than that of a socket; nobody gets it.
    """
    plain = as_message(message)
    size = size_of(plain)
    skipped: dict[WebSocket, WebSocketError] = {}
    targets = list(sockets)
    thread = get_ident()
    for socket in targets:
        if not isinstance(socket, WebSocket):
            msg = f"broadcast() sends to WebSockets, not {type(socket).__name__}"
            raise TypeError(msg)
        if home_of(socket).thread != thread:
            raise foreign_thread_error("broadcast()")
    with corked():  # No task is woken for a socket that takes it at once.
        for socket in targets:
            half = half_of(socket)
            try:
                half.state.check_send()
                if not half.outbox.put(plain, size):
                    raise half.gone_error()
            except WebSocketError as error:
                skipped[socket] = error
    return skipped

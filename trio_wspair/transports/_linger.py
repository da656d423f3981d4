"""Ending a TCP connection without destroying what was sent last."""

import trio

__all__ = ("linger",)


async def linger(stream: trio.abc.Stream) -> None:
    """Say that nothing more is sent, and discard what comes until the peer ends too.

    A socket that is closed with unread data in it answers with a reset, and that
    makes the peer lose what it has not read yet. The caller bounds the time.
    """
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    try:
        if isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
        while await stream.receive_some(65536):
            pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # Gone is gone.

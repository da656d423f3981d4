"""What lies below TLS: finding it, and ending it without destroying what was sent."""

from typing import cast

import trio

__all__ = ("below_tls", "discard", "linger")


def below_tls(stream: trio.abc.Stream) -> trio.abc.Stream:
    """Return the stream that carries this one, if that is TLS."""
    while isinstance(stream, trio.SSLStream):
        secure = cast("trio.SSLStream[trio.abc.Stream]", stream)
        stream = secure.transport_stream
    return stream


async def linger(stream: trio.abc.Stream) -> None:
    """Say that nothing more is sent, and discard what comes until the peer ends too.

    A socket that is closed with unread data in it answers with a reset, and that
    makes the peer lose what it has not read yet. The caller bounds the time.
    """
    bottom = below_tls(stream)
    if isinstance(bottom, trio.abc.HalfCloseableStream):
        try:
            await bottom.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
    await discard(bottom)


async def discard(stream: trio.abc.Stream) -> None:
    """Read and discard until the peer ends, or has gone."""
    try:
        while await stream.receive_some(2**16):
            pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # Gone is gone.

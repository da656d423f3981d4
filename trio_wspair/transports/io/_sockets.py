"""Socket I/O: the fastest way to read and write a stream, and how to end it.

Knows bytes and streams; no frames. A plain socket is read and written without its
`SocketStream`: that saves a pass through the scheduler for each read and each write.
"""

import os
from typing import Final, Protocol, cast

import trio

__all__ = (
    "NetworkIO",
    "SocketIO",
    "StreamIO",
    "below_tls",
    "discard",
    "linger",
    "network_io",
)


def below_tls(stream: trio.abc.Stream) -> trio.abc.Stream:
    """Return the stream below TLS, or `stream` itself if it is not a TLS stream."""
    while isinstance(stream, trio.SSLStream):
        secure = cast("trio.SSLStream[trio.abc.Stream]", stream)
        stream = secure.transport_stream
    return stream


async def linger(stream: trio.abc.Stream) -> None:
    """End the sending side, then read and discard until the peer ends the stream.

    Closing a socket that has unread data sends a reset, and then the peer loses the
    data that it has not read yet. The caller bounds the time.
    """
    bottom = below_tls(stream)
    if isinstance(bottom, trio.abc.HalfCloseableStream):
        try:
            await bottom.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
    await discard(bottom)


async def discard(stream: trio.abc.Stream) -> None:
    """Read and discard until the stream has ended or the connection is gone."""
    try:
        while await stream.receive_some(2**16):
            pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


_RECEIVE_BYTES: Final = 2**17
"""Enough for one read of a 64 KiB message, whose echo then takes a third less time."""

Data = bytes | bytearray | memoryview


class NetworkIO(Protocol):
    """Receives and sends bytes. One task may receive while another one sends."""

    async def receive(self) -> bytes | bytearray:
        """Wait for the next bytes; return none at the end or when the peer is gone."""
        ...

    def send_now(self, data: Data) -> int:
        """Send what can be sent without waiting, and return the number of bytes sent.

        Raises:
            BrokenResourceError: The connection is gone.
        """
        ...

    async def send(self, data: Data) -> None:
        """Send all bytes. After a cancellation, an unknown part of them was sent.

        Raises:
            BrokenResourceError: The connection is gone.
            ClosedResourceError: This side has closed it.
        """
        ...


def network_io(stream: trio.abc.Stream) -> NetworkIO:
    """Return the fastest I/O for a stream. The stream must not be used meanwhile."""
    # On Windows, os.read() and os.write() do not take sockets.
    if os.name == "posix" and isinstance(stream, trio.SocketStream):
        return SocketIO(stream.socket)
    return StreamIO(stream)


class StreamIO:
    """I/O through any stream, such as TLS."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def receive(self) -> bytes | bytearray:
        """Wait for the next bytes; see `NetworkIO`."""
        try:
            return await self._stream.receive_some(_RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    def send_now(self, data: Data) -> int:  # noqa: ARG002 - see below
        """Send nothing, as sending on a stream may have to wait; see `NetworkIO`."""
        return 0

    async def send(self, data: Data) -> None:
        """Send all bytes; see `NetworkIO`."""
        await self._stream.send_all(data)


class SocketIO:
    """I/O on a socket through its file descriptor; not on Windows."""

    def __init__(self, socket: trio.socket.SocketType) -> None:
        self._socket = socket

    async def receive(self) -> bytes | bytearray:
        """Wait for the next bytes; see `NetworkIO`."""
        while True:
            try:
                await trio.lowlevel.wait_readable(self._socket)
                # fileno() for each read: after close(), the number may be reused.
                return os.read(self._socket.fileno(), _RECEIVE_BYTES)
            except BlockingIOError:
                pass
            except (OSError, ValueError, trio.ClosedResourceError):
                return b""  # Of a closed socket, fileno() returns -1.

    def send_now(self, data: Data) -> int:
        """Send what the socket takes without waiting; see `NetworkIO`."""
        try:
            return os.write(self._socket.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise trio.BrokenResourceError from exc

    async def send(self, data: Data) -> None:
        """Send all bytes; see `NetworkIO`."""
        rest = memoryview(data)
        while True:
            rest = rest[self.send_now(rest) :]
            if not rest:
                return
            await trio.lowlevel.wait_writable(self._socket)

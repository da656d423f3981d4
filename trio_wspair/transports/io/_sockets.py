"""Socket I/O: the fastest way to read and write a stream, and how to end it.

Knows bytes, nothing of frames. A plain socket is read and written without the
`SocketStream` around it: that saves a pass through the scheduler for each read and
each write.
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
    """Send the end of the stream, then read and discard until the peer's end.

    Closing a socket that has unread data sends a reset, which makes the peer lose what
    it has not read yet. The caller bounds the time.
    """
    bottom = below_tls(stream)
    if isinstance(bottom, trio.abc.HalfCloseableStream):
        try:
            await bottom.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
    await discard(bottom)


async def discard(stream: trio.abc.Stream) -> None:
    """Read and discard until the peer ends the stream, or is gone."""
    try:
        while await stream.receive_some(2**16):
            pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # The connection is gone, which is an end, too.


_RECEIVE_BYTES: Final = 2**17
"""A message of 64 KiB arrives in one read; its echo takes a third less time."""

Data = bytes | bytearray | memoryview


class NetworkIO(Protocol):
    """Bytes to and from the network. One task receives while one sends."""

    async def receive(self) -> bytes | bytearray:
        """Wait for the next bytes; return none at the end, orderly or not."""
        ...

    def send_now(self, data: Data) -> int:
        """Send what can be sent without waiting. Return the number of bytes.

        Raises:
            BrokenResourceError: The connection is gone.
        """
        ...

    async def send(self, data: Data) -> None:
        """Send all bytes. When cancelled, an unknown part of them was sent.

        Raises:
            BrokenResourceError: The connection is gone.
            ClosedResourceError: This side has closed it.
        """
        ...


def network_io(stream: trio.abc.Stream) -> NetworkIO:
    """Return the fastest I/O for a stream, which must not be used otherwise."""
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
        """Send nothing: a stream may always have to wait; see `NetworkIO`."""
        return 0

    async def send(self, data: Data) -> None:
        """Send all bytes; see `NetworkIO`."""
        await self._stream.send_all(data)


class SocketIO:
    """I/O on a socket by its file descriptor; not on Windows."""

    def __init__(self, socket: trio.socket.SocketType) -> None:
        self._socket = socket

    async def receive(self) -> bytes | bytearray:
        """Wait for the next bytes; see `NetworkIO`."""
        while True:
            try:
                await trio.lowlevel.wait_readable(self._socket)
                # Asked for at each read: once closed, the number may be reused.
                return os.read(self._socket.fileno(), _RECEIVE_BYTES)
            except BlockingIOError:
                pass
            except (OSError, ValueError, trio.ClosedResourceError):
                return b""  # A closed socket has the number -1.

    def send_now(self, data: Data) -> int:
        """Send what the socket takes; see `NetworkIO`."""
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

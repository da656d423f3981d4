"""The way in and out of the network: a stream, or the socket below it.

Knows bytes, nothing of frames. A plain socket is read and written without a
`SocketStream` around it: that saves a step through the scheduler for each read and
each write, and what the socket takes at once needs nobody who waits for it.
"""

import os
from typing import Final, Protocol

import trio

__all__ = ("Port", "SocketPort", "StreamPort", "port_of")

_RECEIVE_BYTES: Final = 2**17
"""A message of 64 KiB comes in one piece: its echo takes two thirds of the time."""

Data = bytes | bytearray | memoryview


class Port(Protocol):
    """One task receives and one sends, at the same time."""

    async def receive(self) -> bytes | bytearray:
        """Wait for the next bytes; none at the end, whatever end it is."""
        ...

    def send_now(self, data: Data) -> int:
        """Send what can be sent without waiting. Return how many bytes that is.

        Raises:
            BrokenResourceError: The connection is gone.
        """
        ...

    async def send(self, data: Data) -> None:
        """Send it all. Cancelled, nobody knows how much of it was sent.

        Raises:
            BrokenResourceError: The connection is gone.
            ClosedResourceError: It was closed here.
        """
        ...


def port_of(stream: trio.abc.Stream) -> Port:
    """Return the fastest way through a stream, which is left alone meanwhile."""
    # On Windows a socket is no file.
    if os.name == "posix" and isinstance(stream, trio.SocketStream):
        return SocketPort(stream.socket)
    return StreamPort(stream)


class StreamPort:
    """Any stream: TLS, for example."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def receive(self) -> bytes | bytearray:
        """Wait for the next bytes; see `Port`."""
        try:
            return await self._stream.receive_some(_RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    def send_now(self, data: Data) -> int:  # noqa: ARG002 - it can't be known
        """Send nothing: a stream may always have to wait; see `Port`."""
        return 0

    async def send(self, data: Data) -> None:
        """Send it all; see `Port`."""
        await self._stream.send_all(data)


class SocketPort:
    """A socket, which is a file where it is not Windows."""

    def __init__(self, socket: trio.socket.SocketType) -> None:
        self._socket = socket

    async def receive(self) -> bytes | bytearray:
        """Wait for the next bytes; see `Port`."""
        while True:
            try:
                await trio.lowlevel.wait_readable(self._socket)
                # Asked for each time: when it is closed, the number is another's.
                return os.read(self._socket.fileno(), _RECEIVE_BYTES)
            except BlockingIOError:
                pass
            except (OSError, ValueError, trio.ClosedResourceError):
                return b""  # A socket that was closed before has the number -1.

    def send_now(self, data: Data) -> int:
        """Send what the socket takes; see `Port`."""
        try:
            return os.write(self._socket.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise trio.BrokenResourceError from exc

    async def send(self, data: Data) -> None:
        """Send it all; see `Port`."""
        rest = memoryview(data)
        while True:
            rest = rest[self.send_now(rest) :]
            if not rest:
                return
            await trio.lowlevel.wait_writable(self._socket)

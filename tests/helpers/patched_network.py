"""Streams that a test chooses for `connect()` and `serve()`, in memory or sockets.

The library gets its streams from Trio. During a block they come from here: in memory,
with virtual time and repeatable runs, or as sockets. A test may wrap each end, usually
in a `FaultyStream`.
"""

import math
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any
from unittest import mock

import trio
from trio.testing import memory_stream_pair

from trio_wspair.testing import FaultyStream

Spoil = Callable[[trio.abc.Stream], trio.abc.Stream]
"""Wraps one end of each new connection."""
Join = Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]
"""Makes the two ends of a connection in memory."""


def untouched(stream: trio.abc.Stream) -> trio.abc.Stream:
    """Return a stream as it is."""
    return stream


@contextmanager
def memory_network(
    *,
    client: Spoil = untouched,
    server: Spoil = untouched,
    join: Join = memory_stream_pair,
) -> Generator[None]:
    """Use streams in memory during a block, with each end wrapped."""
    with _instead_of_trio(_Memory(join), client, server):
        yield


@contextmanager
def loopback_network(
    *, client: Spoil = untouched, server: Spoil = untouched
) -> Generator[None]:
    """Use sockets, as always, during a block, with each end wrapped."""
    with _instead_of_trio(trio, client, server):
        yield


@contextmanager
def _instead_of_trio(network: Any, client: Spoil, server: Spoil) -> Generator[None]:
    open_stream, open_listeners = network.open_tcp_stream, network.open_tcp_listeners

    async def open_tcp_stream(*args: Any, **options: Any) -> trio.abc.Stream:
        return client(await open_stream(*args, **options))

    async def open_tcp(host: str, port: int, **_: object) -> trio.abc.Stream:
        return await open_tcp_stream(host, port)

    async def open_tcp_listeners(*args: Any, **options: Any) -> Sequence[_Spoiling]:
        listeners = await open_listeners(*args, **options)
        return [_Spoiling(listener, server) for listener in listeners]

    with (
        mock.patch.object(trio, "open_tcp_stream", open_tcp_stream),
        mock.patch.object(trio, "open_tcp_listeners", open_tcp_listeners),
        mock.patch("trio_wspair._client.dialing.open_tcp", open_tcp),
    ):
        yield


class Recorder(FaultyStream):
    """A stream without faults that records the sent bytes."""

    def __init__(self, stream: trio.abc.Stream, sent: bytearray) -> None:
        super().__init__(stream)
        self._sent = sent

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._sent += data
        await super().send_all(data)


class WithoutHalfClose(trio.abc.Stream):
    """A stream of which only both directions can end, as with TLS."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Spoiling(trio.abc.Listener[trio.abc.Stream]):
    """A listener that wraps the streams that it accepts."""

    def __init__(self, listener: Any, spoil: Spoil) -> None:
        self._listener = listener
        self._spoil = spoil
        self.socket = listener.socket

    async def accept(self) -> trio.abc.Stream:
        return self._spoil(await self._listener.accept())

    async def aclose(self) -> None:
        await self._listener.aclose()


class _Memory:
    """Ports in memory."""

    def __init__(self, join: Join) -> None:
        self._join = join
        self._ports: dict[int, trio.MemorySendChannel[trio.abc.Stream]] = {}
        self._numbers = count(1)

    async def open_tcp_stream(self, host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        near, far = self._join()
        try:
            self._ports[port].send_nowait(far)
        except (KeyError, trio.BrokenResourceError):
            msg = f"no listener at {host}:{port}"
            raise ConnectionRefusedError(msg) from None
        return near

    async def open_tcp_listeners(
        self, port: int, *, host: str
    ) -> "Sequence[_MemoryListener]":
        await trio.lowlevel.checkpoint()
        port = port or next(self._numbers)
        self._ports[port], arriving = trio.open_memory_channel[trio.abc.Stream](
            math.inf
        )
        return [_MemoryListener((host, port), arriving)]


class _Bound(trio.socket.SocketType):
    """A socket that has nothing but an address."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET

    def getsockname(self) -> tuple[str, int]:
        return self._address


class _MemoryListener:
    """A port in memory."""

    def __init__(
        self,
        address: tuple[str, int],
        arriving: trio.MemoryReceiveChannel[trio.abc.Stream],
    ) -> None:
        self._arriving = arriving
        self.socket = _Bound(address)

    async def accept(self) -> trio.abc.Stream:
        return await self._arriving.receive()

    async def aclose(self) -> None:
        await self._arriving.aclose()

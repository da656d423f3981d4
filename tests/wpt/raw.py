"""Handlers that send bytes which `serve()` can't send, such as invalid responses.

They use wsproto. `RawPaths` is a listener that serves their connections, and passes
all other connections to `serve()`.
"""

import math
import socket
from collections.abc import Awaitable, Callable

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Event,
    Message,
    Ping,
    TextMessage,
)
from wsproto.utilities import ProtocolError

Headers = list[tuple[bytes, bytes]]


class Peer:
    """A client; its request has not been read yet."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._protocol = WSConnection(ConnectionType.SERVER)

    async def answer(self, headers: Headers | None = None) -> bytes:
        """Read the request, and return a 101."""
        await self.receive()
        return self.encode(AcceptConnection(extra_headers=headers or []))

    def encode(self, event: Event) -> bytes:
        """Return the bytes of a frame."""
        return self._protocol.send(event)

    async def receive(self) -> Event | None:
        """Return the next event, or `None` when the TCP connection has ended."""
        while (event := next(self._protocol.events(), None)) is None:
            data = await self.stream.receive_some()
            if not data:
                return None
            self._protocol.receive_data(data)
        return event

    async def receive_message(self) -> bytes | None:
        """Return the next message, or `None` after the last one."""
        message = bytearray()
        while True:
            event = await self.receive()
            if event is None or isinstance(event, CloseConnection):
                return None
            if isinstance(event, Ping):
                await self.stream.send_all(self.encode(event.response()))
            elif isinstance(event, Message):
                data = event.data
                message += data.encode() if isinstance(data, str) else data
                if event.message_finished:
                    return bytes(message)

    async def close(self) -> None:
        """Send Close 1000, and wait until both sides have sent a Close."""
        await self.stream.send_all(self.encode(CloseConnection(code=1000)))
        while self._protocol.state is not ConnectionState.CLOSED:
            if await self.receive() is None:
                break


Talk = Callable[[Peer], Awaitable[None]]
"""Handles a client; when it returns, the TCP connection is closed."""


async def invalid(peer: Peer) -> None:
    await peer.stream.send_all(b"FOO BAR BAZ\r\n\r\n")


async def wrong_accept_key(peer: Peer) -> None:
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"Connection: Upgrade",
        b"Upgrade: WebSocket",
        b"Sec-WebSocket-Accept: thisisawrongacceptkey",
        b"",
        b"",
    ]
    await peer.answer()
    frame = peer.encode(TextMessage("test"))
    await peer.stream.send_all(b"\r\n".join(lines) + frame)
    await peer.close()


async def handshake_protocol(peer: Peer) -> None:
    """Choose the subprotocol "foobar", even if the client does not offer it."""
    answer = await peer.answer()
    chosen = b"\r\nSec-WebSocket-Protocol: foobar\r\n\r\n"
    await peer.stream.send_all(answer.replace(b"\r\n\r\n", chosen))
    await peer.close()


async def simple_handshake(peer: Peer) -> None:
    """Send a Close together with the 101."""
    answer = await peer.answer([(b"Set-Cookie", b"ws_test=test")])
    close = peer.encode(CloseConnection(code=1001, reason="PASS"))
    await peer.stream.send_all(answer + close)
    await peer.receive()


async def echo_raw(peer: Peer) -> None:
    """Write the payload of each message to TCP: it is a frame."""
    await peer.stream.send_all(await peer.answer())
    while (message := await peer.receive_message()) != b"exit":
        if message is None:
            break
        await peer.stream.send_all(message)
    await peer.close()


async def abrupt_close(peer: Peer) -> None:
    await peer.stream.send_all(await peer.answer() + peer.encode(Ping(b"ping")))


async def passive_close_abort(peer: Peer) -> None:
    """End TCP without an answer to the client's Close."""
    await peer.stream.send_all(await peer.answer())
    while await peer.receive_message() is not None:
        pass


async def receive_backpressure(peer: Peer) -> None:
    """Read nothing for two seconds."""
    await peer.stream.send_all(await peer.answer())
    await trio.sleep(2)
    await peer.receive_message()
    await peer.close()


PATHS: dict[str, Talk] = {
    "/echo_raw": echo_raw,
    "/handshake_protocol": handshake_protocol,
    "/invalid": invalid,
    "/passive-close-abort": passive_close_abort,
    "/receive-backpressure": receive_backpressure,
    "/simple_handshake": simple_handshake,
    "/wrong_accept_key": wrong_accept_key,
}


def find(head: bytes) -> Talk | None:
    """Return the handler for a request that begins with these bytes, or `None`."""
    request_line = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    path, _, query = "".join(request_line[1:2]).partition("?")
    if path == "/remote-close" and "abrupt=1" in query.split("&"):
        return abrupt_close
    return PATHS.get(path)


class RawPaths(trio.abc.Listener[trio.SocketStream]):
    """Serves the paths above, and passes all other connections to `serve()`."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self.socket = listener.socket
        self._listener = listener
        self._send, self._others = trio.open_memory_channel[trio.SocketStream](math.inf)

    async def accept(self) -> trio.SocketStream:
        """Return a connection with a request for another path."""
        return await self._others.receive()

    async def aclose(self) -> None:
        """Close the socket."""
        await self._listener.aclose()

    async def run(self) -> None:
        """Accept and sort connections, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._sort, await self._listener.accept())

    async def _sort(self, stream: trio.SocketStream) -> None:
        ours = True
        try:
            # The bytes stay in the socket, so that `serve()` can read them.
            head = await stream.socket.recv(2**16, socket.MSG_PEEK)
            talk = find(head)
            if talk is not None:
                await talk(Peer(stream))
            else:
                self._send.send_nowait(stream)
                ours = False
        except (OSError, trio.BrokenResourceError, ProtocolError):
            pass  # The client has vanished, or breaks the protocol on purpose.
        finally:
            if ours:
                await trio.aclose_forcefully(stream)

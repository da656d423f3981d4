"""A client of HTTP/2, on h2: requests, and WebSockets as in RFC 8441."""

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import h2.config
import h2.connection
import h2.events
import trio


class Exchange(trio.abc.HalfCloseableStream):
    """One stream of a connection: a response, or the bytes of a WebSocket."""

    def __init__(self, connection: "HTTP2", stream_id: int) -> None:
        self._connection = connection
        self._id = stream_id
        self._put, self._data = trio.open_memory_channel[bytes](math.inf)
        self.headers: dict[str, str] = {}
        self.answered = trio.Event()

    @property
    def status(self) -> int:
        """The status of the response; 200 for an open WebSocket."""
        return int(self.headers[":status"])

    async def read_all(self) -> bytes:
        """Return all data until the end of the stream."""
        return b"".join([data async for data in self._data])

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send data; it has to fit into the flow-control window."""
        self._connection.parser.send_data(self._id, bytes(data))
        await self._connection.flush()

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once."""
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive the next piece of data, whatever its size."""
        del max_bytes
        try:
            return await self._data.receive()
        except trio.EndOfChannel:
            return b""

    async def send_eof(self) -> None:
        """End the sending direction of the stream."""
        self._connection.parser.end_stream(self._id)
        await self._connection.flush()

    async def aclose(self) -> None:
        """Reset the stream."""
        self._connection.parser.reset_stream(self._id)
        await self._connection.flush()

    def handle(self, event: h2.events.Event) -> None:
        """Handle an event of this stream."""
        if isinstance(event, h2.events.ResponseReceived):
            self.headers = {
                str(name): str(value) for name, value in event.headers or []
            }
            self.answered.set()
        elif isinstance(event, h2.events.DataReceived):
            self._put.send_nowait(event.data or b"")
        elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
            self.end()

    def end(self) -> None:
        """End the receiving direction."""
        self._put.close()
        self.answered.set()


class HTTP2:
    """A connection. The server is known to speak HTTP/2 (RFC 9113, section 3.3)."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._lock = trio.Lock()
        self._exchanges: dict[int, Exchange] = {}
        self._greeted = trio.Event()
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.parser = h2.connection.H2Connection(config)

    async def flush(self) -> None:
        """Send the pending bytes of h2."""
        async with self._lock:
            await self._stream.send_all(self.parser.data_to_send())

    async def run(self) -> None:
        """Receive until the server ends the connection."""
        self.parser.initiate_connection()
        await self.flush()
        try:
            while data := await self._stream.receive_some():
                for event in self.parser.receive_data(data):
                    if isinstance(event, h2.events.RemoteSettingsChanged):
                        self._greeted.set()
                    elif isinstance(event, h2.events.DataReceived):
                        size = event.flow_controlled_length or 0
                        self.parser.acknowledge_received_data(size, event.stream_id)
                    exchange = self._exchanges.get(getattr(event, "stream_id", 0))
                    if exchange is not None:
                        exchange.handle(event)
                await self.flush()
        except trio.BrokenResourceError:
            pass
        for exchange in self._exchanges.values():
            exchange.end()

    async def ask(
        self, method: str, path: str, *headers: tuple[str, str], body: bytes = b""
    ) -> Exchange:
        """Send a request, and wait for the head of the response."""
        return await self._ask([(":method", method), *headers], path, body)

    async def ask_for_websocket(self, path: str, *headers: tuple[str, str]) -> Exchange:
        """Ask for a WebSocket, and wait for the head of the response."""
        head = [(":method", "CONNECT"), (":protocol", "websocket")]
        more = [("sec-websocket-version", "13"), *headers]
        return await self._ask([*head, *more], path, None)

    async def _ask(
        self, headers: list[tuple[str, str]], path: str, body: bytes | None
    ) -> Exchange:
        await self._greeted.wait()
        to = [(":scheme", "http"), (":authority", "example.org"), (":path", path)]
        # Pseudo-headers, which begin with a colon, come first.
        headers = sorted([*headers, *to], key=lambda pair: not pair[0].startswith(":"))
        stream_id = self.parser.get_next_available_stream_id()
        self.parser.send_headers(stream_id, headers)
        if body is not None:
            self.parser.send_data(stream_id, body, end_stream=True)
        exchange = self._exchanges[stream_id] = Exchange(self, stream_id)
        await self.flush()
        await exchange.answered.wait()
        return exchange


@asynccontextmanager
async def open_http2(port: int) -> AsyncGenerator[HTTP2, None]:
    """Open a connection to a server on this machine."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream, trio.open_nursery() as nursery:
        connection = HTTP2(stream)
        nursery.start_soon(connection.run)
        yield connection
        nursery.cancel_scope.cancel()

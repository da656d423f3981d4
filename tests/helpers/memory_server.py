"""One connection of `serve()` on a stream in memory, and a client that sends bytes.

The responses are parsed with h11.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import h11
import trio
import trio.testing

from trio_wspair import Headers, Request, Response
from trio_wspair._http.forwarded import ProxyHeaders
from trio_wspair._rules.limits import Limits
from trio_wspair._server.http1_exchange import HTTP1Service
from trio_wspair._server.serving import _Acceptor
from trio_wspair.transports._engines import engine_named

Stream = trio.abc.HalfCloseableStream
Fetch = Callable[[Request], Awaitable[Response]]
UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)


def request_bytes(
    method: str = "GET", target: str = "/", *headers: str, body: bytes | None = None
) -> bytes:
    """Return a request; with a body, it has a `Content-Length`."""
    lines = [f"{method} {target} HTTP/1.1", "Host: test", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def chunked(*pieces: bytes) -> bytes:
    """Return a body in chunks."""
    chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    return b"".join([*chunks, b"0\r\n\r\n"])


@attrs.frozen
class Answer:
    """A parsed response."""

    status: int
    headers: Headers
    body: bytes
    interim: list[int]
    """The statuses of the interim responses before it."""
    complete: bool
    """Whether the body is complete."""

    @property
    def keeps_alive(self) -> bool:
        """Whether another request may follow."""
        return self.headers["connection"] == "keep-alive"


def parse_answers(data: bytes, *methods: str) -> list[Answer]:
    """Return the responses to requests with these methods, and to nothing else."""
    parser = h11.Connection(h11.CLIENT)
    parser.receive_data(data)
    answers: list[Answer] = []
    for number, method in enumerate(methods or ("GET",)):
        if number:
            parser.start_next_cycle()
        parser.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        parser.send(h11.EndOfMessage())
        answers.append(_next_answer(parser))
    assert parser.trailing_data[0] == b"", "more responses than requests"
    return answers


def _next_answer(parser: h11.Connection) -> Answer:
    interim: list[int] = []
    while isinstance(event := parser.next_event(), h11.InformationalResponse):
        interim.append(event.status_code)
    assert isinstance(event, h11.Response), f"{event!r} after {interim}"
    body = bytearray()
    complete = False
    ended = False
    with suppress(h11.RemoteProtocolError):  # The body is incomplete.
        while not complete:
            data = parser.next_event()
            if isinstance(data, h11.Data):
                body += data.data
            elif data is h11.NEED_DATA and not ended:
                parser.receive_data(b"")  # A body may end with the connection.
                ended = True
            else:
                complete = isinstance(data, h11.EndOfMessage)
    pairs = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in event.headers]
    return Answer(event.status_code, Headers(pairs), bytes(body), interim, complete)


def acceptor(
    fetch: Fetch,
    *,
    proxy_headers: ProxyHeaders = False,
    proxies: int = 1,
    log_query: bool = False,
    stop_code: int = 1001,
    **limits: Any,
) -> _Acceptor:
    """Return the object that serves connections for `serve()`, with these options."""
    chosen: dict[str, Any] = {"max_connections": 10, **limits}
    engine = engine_named("trio-websocket", compression=False)
    service = HTTP1Service(
        fetch=fetch,
        engine=engine,
        limits=Limits(**chosen),
        proxy_headers=proxy_headers,
        proxies=proxies,
        log_query=log_query,
        stop_code=lambda: stop_code,
    )
    return _Acceptor(service)


async def serve_one(acceptor: _Acceptor, stream: trio.abc.Stream) -> None:
    """Serve one connection as `serve()` does, and close it."""
    try:
        async with acceptor.service.timers.kept():
            await acceptor.serve_stream(stream)
    finally:
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def served(
    fetch: Fetch, *, streams: tuple[Stream, Stream] | None = None, **options: Any
) -> AsyncGenerator[Stream]:
    """Serve one connection during a block, and give the client's end of it."""
    client, server = streams or trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_one, acceptor(fetch, **options), server)
        yield client
        await client.aclose()


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Return all data until the end of the stream."""
    return b"".join([bytes(data) async for data in stream])


async def converse(fetch: Fetch, *pieces: bytes, **options: Any) -> bytes:
    """Send pieces to a server, each when all tasks are blocked, then end the stream.

    Returns:
        All bytes that the server sends.
    """
    async with served(fetch, **options) as client:
        for piece in pieces:
            await client.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
        await client.send_eof()
        return await read_all(client)


async def answer_to(fetch: Fetch, *pieces: bytes, **options: Any) -> Answer:
    """Send one request in pieces, and return the response to it."""
    method = pieces[0].split(b" ")[0].decode()
    (answer,) = parse_answers(await converse(fetch, *pieces, **options), method)
    return answer

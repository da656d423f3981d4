"""Servers and clients whose other end is a script: `open_scripted_server()` and more.

Knows how connections come and go; what is said on them is up to the scripts.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import trio

from trio_wspair._rules.errors import HandshakeError
from trio_wspair._tasks.nurseries import open_service_nursery

from ._scripted_peer import ScriptedPeer

__all__ = ("open_scripted_client", "open_scripted_server")


@asynccontextmanager
async def open_scripted_server(
    script: Callable[[ScriptedPeer], Awaitable[object]], *, handshake: bool = True
) -> AsyncGenerator[str, None]:
    """Open a server on the loopback interface that does what a script says.

    ``async with open_scripted_server(ScriptedPeer.never_close) as url:`` gives the URL
    to connect to. The script runs once for each connection. When it returns, or the
    client has gone, TCP ends in good order. What else it raises ends the block, and
    comes out as an `ExceptionGroup`, as from any nursery. On leaving, the scripts are
    cancelled.

    Args:
        script: An async function that takes the `ScriptedPeer` of a connection.
        handshake: Open the WebSocket before the script runs. Otherwise the script
            gets a bare connection, and may do that with `ScriptedPeer.handshake()`.
    """

    async def run(stream: trio.SocketStream) -> None:
        peer = ScriptedPeer(stream, masks=False)
        async with stream:
            try:
                if handshake:
                    await peer.handshake()
                await script(peer)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            await peer.end_tcp()

    async with open_service_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_tcp, run, 0, host="127.0.0.1")
        )
        yield f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/"


@asynccontextmanager
async def open_scripted_client(
    url_or_stream: str | trio.abc.Stream, *headers: str, handshake: bool = True
) -> AsyncGenerator[ScriptedPeer, None]:
    """Open a WebSocket to a server as a client that does what the block says.

    ``async with open_scripted_client(server.url) as peer:``. On leaving, TCP ends.

    Args:
        url_or_stream: The URL of the server, with ``ws``; or a stream to it, such as a
            `trio.SSLStream` or a `FaultyStream`. It belongs to the client.
        headers: Lines to add to the request, such as ``"Origin: https://example.com"``.
        handshake: Open the WebSocket before the block runs. Otherwise the block gets a
            bare connection, and may do that with `ScriptedPeer.handshake()`.

    Raises:
        HandshakeError: The server has not opened a WebSocket.
        OSError: There is nobody at that address.
        ValueError: It is no URL of that kind.
    """
    target, host = "/", "127.0.0.1"
    if isinstance(url_or_stream, str):
        parts = urlsplit(url_or_stream)
        if parts.scheme != "ws" or parts.hostname is None:
            msg = f"url is like 'ws://127.0.0.1:8000/', not {url_or_stream!r}"
            raise ValueError(msg)
        target = f"{parts.path or '/'}{parts.query and '?'}{parts.query}"
        host = parts.netloc
        stream: trio.abc.Stream = await trio.open_tcp_stream(
            parts.hostname, parts.port or 80
        )
    else:
        stream = url_or_stream
    peer = ScriptedPeer(stream, masks=True)
    try:
        if handshake:
            answer = await peer.handshake(*headers, target=target, host=host)
            if not answer.startswith("HTTP/1.1 101 "):
                msg = f"the server has not opened a WebSocket: {answer!r}"
                raise HandshakeError(msg)
        yield peer
    finally:
        await trio.aclose_forcefully(peer.stream)

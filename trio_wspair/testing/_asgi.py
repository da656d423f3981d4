"""`open_asgi_websocket()`: an ASGI application at the other end of a pair.

Knows what a client asks for, and halves; ASGI is spoken next door.
"""

import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import unquote

import trio

from trio_wspair._http.headers import Headers, HeadersInit, encode_headers
from trio_wspair._pair.pair import WebSocketPair, closing_on_exit
from trio_wspair._pair.verbs import half_of
from trio_wspair._pair.websocket import WebSocket
from trio_wspair._rules.limits import Limits, check_seconds
from trio_wspair._tasks.nurseries import open_service_nursery
from trio_wspair.transports._asgi import DENIAL
from trio_wspair.transports._couple import Coupling

from ._asgi_server import Application, PlayedServer

__all__ = ("open_asgi_websocket",)

_HANDSHAKE: Final = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


@asynccontextmanager
async def open_asgi_websocket(
    app: Application,
    path: str = "/",
    *,
    protocols: str | Sequence[str] = (),
    headers: HeadersInit = (),
    scope: Mapping[str, Any] | None = None,
    app_timeout: float = 10.0,
    close_grace: float = 5.0,
    receive_buffer_bytes: int = 2**20,
) -> AsyncGenerator[WebSocket, None]:
    """Open a WebSocket to an ASGI application: no server, no network, no threads.

    ``async with open_asgi_websocket(app, "/chat?room=1") as ws:`` gives a client's
    half, as `open_websocket()` does. On leaving it is closed with 1000, or 1011 when
    the block has raised, and the application has to return. What it raises ends the
    block, and comes out as an `ExceptionGroup`, as from any nursery.

    Args:
        app: An ASGI application that runs on Trio, such as an `ASGIApp` or one of
            Starlette or Quart-Trio. Its lifespan is not played.
        path: The path, and after a ``?`` the query.
        protocols: The subprotocols to offer; ``ws.protocol`` tells which was chosen.
        headers: Headers of the request, beside those of a handshake.
        scope: Keys of the scope that shall be others, such as ``client``, ``state``,
            or ``{"extensions": {}}`` for a server that can refuse with 403 only.
        app_timeout: Seconds until the application has to accept or refuse, and to
            return when the conversation is over.
        close_grace: Seconds for the closing handshake.
        receive_buffer_bytes: Sending waits in the application while the client's half
            has so much that it has not taken.

    Raises:
        HandshakeError: The application has refused; ``status``, ``headers`` and
            ``body`` are its answer. Or it has not answered, in time or at all.
        TimeoutError: The application has not returned in time.
        TypeError: An argument is of another type.
        ValueError: An argument is out of range.
    """
    check_seconds("app_timeout", app_timeout)
    limits = Limits(
        close_grace=close_grace,
        receive_buffer_bytes=receive_buffer_bytes,
        ping_interval=math.inf,
    )
    server = PlayedServer(
        app, {**_scope_for(path, protocols, headers), **(scope or {})}
    )
    async with open_service_nursery() as nursery:
        nursery.start_soon(server.run_app)
        with trio.move_on_after(app_timeout):
            await server.answered.wait()
        if server.subprotocol is None:
            refusal = server.refusal()
            with trio.move_on_after(app_timeout):
                await server.hang_up()
            raise refusal
        pair = WebSocketPair(nursery, close_grace=close_grace)
        link = half_of(pair[0]).link
        link.url, link.protocol = f"ws://localhost{path}", server.subprotocol
        nursery.start_soon(Coupling(pair[1], limits).run, server)
        pair[0].accept(pull=True)
        async with closing_on_exit(pair[:1], grace=close_grace):
            yield pair[0]
        await server.see_off(app_timeout)


def _scope_for(
    path: str, protocols: str | Sequence[str], headers: HeadersInit
) -> dict[str, Any]:
    """Return the scope of a client that asks like this."""
    offered = [protocols] if isinstance(protocols, str) else list(protocols)
    all_headers = Headers(_HANDSHAKE)
    if offered:
        all_headers["Sec-WebSocket-Protocol"] = ", ".join(offered)
    more_headers = Headers(headers)
    for name in more_headers:
        all_headers.pop(name, None)
    raw_path, _, query = path.partition("?")
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode("ascii"),
        "query_string": query.encode("ascii"),
        "root_path": "",
        "headers": encode_headers(
            (name.lower(), value)
            for name, value in [*all_headers.pairs(), *more_headers.pairs()]
        ),
        "client": ("127.0.0.1", 50000),
        "server": ("localhost", 80),
        "subprotocols": offered,
        "state": {},
        "extensions": {DENIAL: {}},
    }

"""The handshake and the closing handshake that all handlers share."""

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

from trio_wspair import (
    ConnectionClosedError,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
)

Talk = Callable[[WebSocket], Awaitable[None]]
Handler = Callable[[Request], Awaitable[Response]]


def converse(
    request: Request,
    talk: Talk,
    *,
    protocol: str | None = None,
    headers: list[tuple[str, str]] | None = None,
    echo_close: bool = False,
) -> Response:
    """Accept, run `talk`, and close with 1000 when it returns.

    Args:
        request: The request of the client.
        talk: A function of the server's half. It need not handle the client's Close.
        protocol: The subprotocol, or an empty string for none. With `None`, the
            handshake fails if the client offers subprotocols.
        headers: More headers for the response.
        echo_close: Whether to answer the client's Close with its code and reason
            instead of 1000.
    """
    if protocol is None and "sec-websocket-protocol" in request.headers:
        return Response("none of these subprotocols\n", status=400)
    response_headers = list(headers or [])
    if protocol:
        response_headers.append(("Sec-WebSocket-Protocol", protocol))
    client, server = WebSocketPair()
    # Half-open, because the answer to a Close may have another code.
    server.accept(pull=True, allow_half_open=True)
    request.nursery.start_soon(_hold, server, talk, echo_close)
    return Response(None, status=101, headers=response_headers, web_socket=client)


async def _hold(server: WebSocket, talk: Talk, echo_close: bool) -> None:
    try:
        await talk(server)
    except ConnectionClosedError as end:
        if end.code == 1006:
            return
        if echo_close and end.code == 1005:
            server.close()
        elif echo_close:
            server.close(end.code, end.reason)
        else:
            server.close(1000)
    else:
        server.close(1000)


def say(*messages: str) -> Talk:
    """Return a function that sends these messages."""

    async def talk(ws: WebSocket) -> None:
        for message in messages:
            ws.send(message)

    return talk


async def until_closed(ws: WebSocket) -> None:
    """Wait for the client's Close."""
    while True:
        await ws.receive()


async def echo_until_goodbye(ws: WebSocket) -> None:
    """Echo messages up to and including "Goodbye"."""
    message: str | bytes = ""
    while message != "Goodbye":
        message = await ws.receive()
        ws.send(message)


async def discard_until_goodbye(ws: WebSocket) -> None:
    """Discard messages up to "Goodbye"."""
    while await ws.receive() != "Goodbye":
        pass


def offered(request: Request) -> list[str]:
    """Return the subprotocols that the client offers."""
    names = request.headers.get("sec-websocket-protocol", "").split(",")
    return [name.strip() for name in names if name.strip()]


def query(request: Request) -> str:
    """Return the query as it was sent: the text after the first question mark."""
    return request.url.partition("?")[2]


def parameters(request: Request) -> dict[str, str]:
    """Return the first value of each parameter of the query."""
    return {name: values[0] for name, values in parse_qs(query(request)).items()}

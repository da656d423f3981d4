"""Simple `fetch` handlers: they respond with the path, body or facts of a request."""

from collections.abc import AsyncGenerator

import trio

from trio_wspair import Request, Response


async def echo_path(request: Request) -> Response:
    """Respond with the path of the request."""
    return Response(request.path)


async def echo_body(request: Request) -> Response:
    """Respond with the body of the request."""
    return Response(await request.bytes())


async def ignore_body(_request: Request) -> Response:
    """Respond without reading the body."""
    return Response("ok")


async def show_request(request: Request) -> Response:
    """Respond with the client, the URL, and whether it is secure."""
    return Response(f"{request.client or '-'} {request.url} {request.secure}")


async def endless_body(log: list[str]) -> AsyncGenerator[str]:
    """Yield a piece, then wait until closed, which is logged."""
    try:
        yield "some"
        await trio.sleep_forever()
    finally:
        log.append("closed")

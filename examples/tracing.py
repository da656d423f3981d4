"""Tracing: an OpenTelemetry span for each connection of an echo server.

Needs `pip install opentelemetry-sdk`. Run it with `trio-wspair serve
examples/tracing.py` or `python examples/tracing.py`, and connect to it with `python
examples/echo_client.py ws://127.0.0.1:8000/ hello`. Ctrl-C stops it.
"""

import argparse
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from weakref import WeakKeyDictionary

import trio
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer

from trio_wspair import (
    CloseEvent,
    ConnectionInfo,
    FetchHandler,
    Instrument,
    MessageEvent,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    serve,
    use_instrument,
)


class Spans(Instrument):
    """Creates a span for each network connection, with an event for each message."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._spans: WeakKeyDictionary[WebSocket, Span] = WeakKeyDictionary()

    def connected(self, ws: WebSocket, connection: ConnectionInfo) -> None:
        """Begin a span for the connection, which has taken the half `ws` of a pair."""
        server = connection.side == "server"
        self._spans[ws] = self._tracer.start_span(
            "websocket",
            kind=SpanKind.SERVER if server else SpanKind.CLIENT,
            attributes={
                "network.protocol.name": "websocket",
                "network.peer.address": connection.peer,
                "url.full": str(connection.extra["url"]),  # Without secrets.
            },
        )

    def sent(self, ws: WebSocket, message: str | bytes) -> None:
        """Add an event for a message from the network: `ws` sends it to the handler."""
        if ws in self._spans:
            self._spans[ws].add_event("received", {"length": len(message)})

    def received(self, ws: WebSocket, message: str | bytes) -> None:
        """Add an event for a message to the network: `ws` gets it from the handler."""
        if ws in self._spans:
            self._spans[ws].add_event("sent", {"length": len(message)})

    def closed(self, ws: WebSocket, event: CloseEvent, error: Exception | None) -> None:
        """End the span."""
        span = self._spans.pop(ws, None)
        if span is None:
            return  # This is the handler's half, which has no span.
        span.set_attribute("websocket.close.code", event.code)
        if error is not None:
            span.record_exception(error)
        if not event.was_clean:
            span.set_status(StatusCode.ERROR, event.reason)
        span.end()


async def fetch(request: Request) -> Response:
    """Send each message back to its client."""
    if not request.wants_websocket:
        return Response("This is a WebSocket echo server.\n", status=426)
    client, server = WebSocketPair()

    @server.on("message")
    def echo(event: MessageEvent) -> None:
        server.send(event.data)

    server.accept()
    return Response(None, status=101, web_socket=client)


@asynccontextmanager
async def app() -> AsyncGenerator[FetchHandler, None]:
    """Watch the connections, and print each span when it ends."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    with use_instrument(Spans(provider.get_tracer("echo"))):
        yield fetch


async def main(host: str, port: int) -> None:
    """Serve until cancelled."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, app, port, host=host))
        print(server.url, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A traced WebSocket echo server.")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="0 for a free port")
    options = parser.parse_args()
    # Ctrl-C then raises KeyboardInterrupt in main() only, never in a handler.
    run = partial(trio.run, restrict_keyboard_interrupt_to_checkpoints=True)
    try:
        run(main, options.host, options.port)
    except* KeyboardInterrupt:
        pass

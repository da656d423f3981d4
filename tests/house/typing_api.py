"""The public names as type checkers see them: checked, never run.

A wrong call carries a ``type: ignore`` with its code: the checkers complain when it
is not needed any more.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

import ssl
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, assert_type

import trio

from trio_wspair import (
    Application,
    CloseCode,
    CloseEvent,
    ConnectionClosedError,
    ErrorEvent,
    FetchHandler,
    HandshakeError,
    Headers,
    InvalidStateError,
    MessageEvent,
    ProtocolError,
    ReadyState,
    Request,
    RequestBodyError,
    Response,
    Server,
    WebSocket,
    WebSocketError,
    WebSocketPair,
    connect,
    open_websocket,
    open_websocket_pair,
    reconnecting,
    same_origin,
    serve,
)
from trio_wspair.asgi import ASGIApp
from trio_wspair.hibernation import DurableObjectNamespace
from trio_wspair.testing import (
    GoldenRecord,
    OpenClient,
    Record,
    ScriptedPeer,
    TestClient,
    TestResponse,
    TestWebSocket,
    check_websocket_pair,
    open_scripted_client,
    open_scripted_server,
    open_test_client,
    replay,
)
from trio_wspair.transports import Connection, couple


def a_pair_is_two_halves(nursery: trio.Nursery) -> None:
    pair = WebSocketPair(nursery, max_buffered_bytes=1000, close_grace=0.5)
    first, second = pair
    assert_type(first, WebSocket)
    assert_type(second, WebSocket)
    assert_type(pair[0], WebSocket)
    assert_type(pair[-1], WebSocket)
    assert_type(pair[:], tuple[WebSocket, ...])
    assert_type(list(pair), list[WebSocket])
    assert_type(len(pair), int)
    pair["first"]  # type: ignore[call-overload]
    WebSocketPair()
    WebSocketPair("nursery")  # type: ignore[arg-type]


async def an_opened_pair_is_the_same() -> None:
    async with open_websocket_pair(max_buffered_bytes=1000, close_grace=1) as pair:
        assert_type(pair, WebSocketPair)
    async with open_websocket_pair() as (client, server):
        assert_type(client, WebSocket)
        assert_type(server, WebSocket)


# -- listeners ---------------------


def on_message(event: MessageEvent) -> None: ...


async def on_message_async(event: MessageEvent) -> None: ...


def on_close(event: CloseEvent) -> int:
    return event.code


def on_error(event: ErrorEvent) -> None: ...


def on_any(event: MessageEvent | CloseEvent | ErrorEvent) -> None: ...


def listeners_have_the_type_of_their_event(ws: WebSocket) -> None:
    ws.add_event_listener("message", on_message)
    ws.add_event_listener("message", on_message_async, once=True)
    ws.add_event_listener("close", on_close)
    ws.add_event_listener("error", on_error)
    ws.add_event_listener("message", lambda event: event.data)
    ws.add_event_listener("close", lambda event: event.code)
    ws.add_event_listener("error", lambda event: event.error)
    ws.remove_event_listener("message", on_message)
    ws.remove_event_listener("close", on_close)
    ws.remove_event_listener("error", on_error)
    for _ in range(2):
        ws.add_event_listener("message", on_any)
        ws.add_event_listener("close", on_any)
        ws.add_event_listener("error", on_any)

    ws.add_event_listener("message", on_close)  # type: ignore[call-overload]
    ws.add_event_listener("close", on_error)  # type: ignore[call-overload]
    ws.add_event_listener("error", on_message_async)  # type: ignore[call-overload]
    ws.remove_event_listener("close", on_message)  # type: ignore[call-overload]
    ws.add_event_listener("open", on_any)  # type: ignore[call-overload]
    ws.add_event_listener("message", None)  # type: ignore[call-overload]
    ws.add_event_listener("message", on_message, "once")  # type: ignore[call-overload]


def on_keeps_the_type_of_what_it_decorates(ws: WebSocket) -> None:
    @ws.on("message")
    def listen(event: MessageEvent, times: int = 1) -> list[int]:
        return [times]

    @ws.on("close")
    async def listen_async(event: CloseEvent) -> str:
        return event.reason

    assert_type(listen(MessageEvent("x"), times=2), list[int])
    listen(MessageEvent("x"), times="2")  # type: ignore[arg-type]

    async def use() -> None:
        assert_type(await listen_async(CloseEvent(1000, "", was_clean=True)), str)

    del use
    assert_type(ws.on("error")(on_error)(ErrorEvent("m", ValueError())), None)

    @ws.on("message")  # type: ignore[type-var]
    def listen_wrong(event: CloseEvent) -> None: ...

    @ws.on("open")  # type: ignore[call-overload, untyped-decorator]
    def listen_never(event: MessageEvent) -> None: ...

    del listen_wrong, listen_never


def slots_hold_a_listener_or_none(ws: WebSocket) -> None:
    ws.onmessage = on_message
    ws.onmessage = on_message_async
    ws.onclose = on_close
    ws.onerror = on_error
    ws.onmessage = None
    ws.onclose = None
    ws.onerror = None
    ws.onmessage = on_close  # type: ignore[assignment]
    ws.onclose = on_error  # type: ignore[assignment]
    ws.onerror = on_message  # type: ignore[assignment]


def slots_are_read_as_what_they_hold(ws: WebSocket) -> None:
    assert_type(ws.onmessage, Callable[[MessageEvent], object] | None)
    assert_type(ws.onclose, Callable[[CloseEvent], object] | None)
    assert_type(ws.onerror, Callable[[ErrorEvent], object] | None)


def events_have_their_fields(
    message: MessageEvent, close: CloseEvent, error: ErrorEvent
) -> None:
    assert_type(message.type, Literal["message"])
    assert_type(message.data, str | bytes)
    assert_type(message.target, WebSocket | None)
    assert_type(close.type, Literal["close"])
    assert_type(close.code, int)
    assert_type(close.reason, str)
    assert_type(close.was_clean, bool)
    assert_type(close.target, WebSocket | None)
    assert_type(error.type, Literal["error"])
    assert_type(error.message, str)
    assert_type(error.error, Exception)
    assert_type(error.target, WebSocket | None)
    MessageEvent(5)  # type: ignore[arg-type]


def the_type_of_an_event_tells_which_it_is(
    event: MessageEvent | CloseEvent | ErrorEvent,
) -> None:
    match event:
        case MessageEvent(data=data):
            assert_type(data, str | bytes)
        case CloseEvent(code=code):
            assert_type(code, int)
        case _:
            assert_type(event, ErrorEvent)


# -- verbs and views ---------------------


def sync_verbs(ws: WebSocket) -> None:
    ws.accept()
    ws.accept(allow_half_open=True, pull=True)
    ws.accept("pull")  # type: ignore[call-arg, arg-type]
    ws.send("text")
    ws.send(b"bytes")
    ws.send(bytearray(b"bytes"))
    ws.send(memoryview(b"bytes"))
    ws.send(5)
    ws.send(0.5)
    ws.send(None)  # type: ignore[arg-type]
    ws.send({"a": 1})  # type: ignore[arg-type]
    ws.close()
    ws.close(1000)
    ws.close(CloseCode.GOING_AWAY, "reason")
    ws.close(code=4000, reason="reason")
    ws.close("1000")  # type: ignore[arg-type]
    ws.serialize_attachment({"any": ["value", {1, 2}]})
    assert_type(ws.deserialize_attachment(), object)


def views(ws: WebSocket) -> None:
    assert_type(ws.ready_state, ReadyState)
    assert_type(ws.url, str | None)
    assert_type(ws.protocol, str)
    assert_type(ws.extensions, str)
    assert_type(ws.buffered_amount, int)
    ws.url = "elsewhere"  # type: ignore[misc]
    ws.ready_state = ReadyState.OPEN  # type: ignore[misc]


async def async_verbs(ws: WebSocket) -> None:
    async for message in ws:
        assert_type(message, str | bytes)
        if isinstance(message, str):
            assert_type(message, str)
        else:
            assert_type(message, bytes)
    assert_type([m async for m in ws], list[str | bytes])
    assert_type(await anext(ws), str | bytes)
    assert_type(await ws.receive(), str | bytes)
    assert_type(await ws.wait_closed(), CloseEvent)
    assert_type(await ws.ping(), float)
    await ws.drain()
    await ws.drain(max_bytes=1000)
    await ws.aclose()
    await ws.aclose(CloseCode.NORMAL_CLOSURE, "reason")
    for message in ws:  # type: ignore[attr-defined]
        del message


# -- errors ---------------------


def errors(ws: WebSocket) -> None:
    try:
        ws.send("x")
    except ConnectionClosedError as exc:
        assert_type(exc.code, int)
        assert_type(exc.reason, str)
        assert_type(exc.was_clean, bool)
    except ProtocolError as exc:
        assert_type(exc.code, int)
    except HandshakeError as exc:
        assert_type(exc.status, int | None)
        assert_type(exc.headers, tuple[tuple[str, str], ...])
        assert_type(exc.body, bytes)
    except WebSocketError as exc:
        assert_type(exc, WebSocketError)
    misuse: RuntimeError = InvalidStateError("too late")
    del misuse
    assert_type(CloseCode.NORMAL_CLOSURE.value, Literal[1000])


# -- the network ---------------------


async def a_server(request: Request) -> Response:
    assert_type(request.method, str)
    assert_type(request.url, str)
    assert_type(request.headers, Headers)
    assert_type(request.headers["upgrade"], str)
    assert_type(request.headers.get("upgrade"), str | None)
    assert_type(request.headers.get_all("upgrade"), list[str])
    assert_type(request.nursery, trio.Nursery)
    assert_type(request.client, str)
    assert_type(request.path, str)
    assert_type(request.secure, bool)
    assert_type(request.wants_websocket, bool)
    Request(method="GET", url="http://h/", nursery=request.nursery, headers={"a": "b"})
    Request(method="GET", url=5, nursery=request.nursery)  # type: ignore[arg-type]
    assert_type(same_origin(request), bool)
    request.url = "elsewhere"  # type: ignore[misc]
    client, server = WebSocketPair()
    server.accept()
    return Response(None, status=101, web_socket=client)


async def bodies_of_requests(request: Request) -> Response:
    try:
        assert_type(await request.bytes(), bytes)
        assert_type(await request.text(), str)
        assert_type(await request.json(), Any)
    except RequestBodyError as exc:
        assert_type(exc.status, int)
        raise
    return Response.json({"any": ["value", 1, None]}, status=201, headers={"A": "b"})


async def text_pieces() -> AsyncGenerator[str]:
    yield "text"


class MixedPieces:
    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        yield "text"
        yield b"bytes"


def bodies_of_responses(
    channel: trio.MemoryReceiveChannel[bytes], numbers: AsyncIterable[int]
) -> None:
    Response(text_pieces())
    Response(MixedPieces(), status=206)
    Response(channel, headers=[("Content-Type", "text/event-stream")])
    Response(numbers)  # type: ignore[arg-type]
    Response(["text"])  # type: ignore[arg-type]
    Response(text_pieces)  # type: ignore[arg-type]
    assert_type(Response.json([1]), Response)
    assert_type(Response.redirect("/login"), Response)
    assert_type(Response.redirect("/moved", 308), Response)
    Response.redirect(5)  # type: ignore[arg-type]
    Response.json(1, 201)  # type: ignore[call-arg]


def responses(ws: WebSocket, headers: Headers) -> None:
    Response()
    Response("no", status=403)
    Response(b"data", headers={"A": "b"})
    Response("", headers=[("A", "b"), ("A", "c")])
    Response("", headers=headers)
    response = Response(None, status=101, web_socket=ws)
    assert_type(response.status, int)
    assert_type(response.body, bytes | AsyncIterable[str | bytes])
    assert_type(response.headers, Headers)
    assert_type(response.web_socket, WebSocket | None)
    Response(5)  # type: ignore[arg-type]
    Response("", 403)  # type: ignore[call-arg]
    Response("", headers={"A": 5})  # type: ignore[arg-type]


async def serving(
    nursery: trio.Nursery,
    context: ssl.SSLContext,
    listeners: list[trio.SocketListener],
) -> None:
    server: Server = await nursery.start(serve, a_server, 0)
    assert_type(server.port, int)
    assert_type(server.url, str)
    assert_type(server.urls, tuple[str, ...])
    assert_type(server.addresses, tuple[tuple[str, int] | str, ...])
    await serve(a_server, 8000, host="localhost", ssl_context=context)
    await serve(a_server, 0, host=None, proxy_headers=True, stop_code=1012)
    await serve(a_server, 0, max_body_bytes=10, min_body_rate=100)
    await serve(a_server, 0, proxy_headers="forwarded", proxies=2, log_query=True)
    await serve(a_server, 0, proxy_headers="x")  # type: ignore[arg-type]
    await serve(a_server, listeners=listeners, idle_timeout=5, body_timeout=0.5)
    await serve(a_server, 0, max_connections=5, max_body_bytes=0)
    await serve(a_server, 0, max_connections_per_client=5, max_head_bytes=2**14)
    await serve(a_server, unix="/run/app.sock")
    await serve(a_server, unix=Path("/run/app.sock"))
    await serve(a_server, unix=b"/run/app.sock")  # type: ignore[arg-type]
    await serve(a_server, listeners=[5])  # type: ignore[list-item]
    await serve(on_message, 8000)  # type: ignore[arg-type]
    await serve(a_server, "8000")  # type: ignore[arg-type]


async def a_url() -> str:
    return "ws://localhost/"


async def connecting(nursery: trio.Nursery, connection: Connection) -> None:
    ws = await connect(
        "ws://localhost/",
        nursery=nursery,
        protocols=["chat"],
        headers={"Authorization": "Bearer x"},
    )
    assert_type(ws, WebSocket)
    async with open_websocket("ws://localhost/", protocols="chat") as ws:
        assert_type(ws, WebSocket)
    async with reconnecting("ws://localhost/", max_delay=5, protocols="chat") as every:
        assert_type(every, AsyncIterator[WebSocket])
        async for ws in every:
            assert_type(ws, WebSocket)

    async def headers() -> dict[str, str]:
        return {"Authorization": "Bearer x"}

    reconnecting(lambda: "ws://localhost/", headers=headers)
    reconnecting(a_url, headers=lambda: [("Authorization", "Bearer x")])
    reconnecting(a_url, should_retry=lambda exc: isinstance(exc, OSError))
    reconnecting(lambda: b"ws://localhost/")  # type: ignore[arg-type, return-value]
    reconnecting("ws://localhost/", nursery=nursery)  # type: ignore[call-arg]
    assert_type(await couple(ws, connection, close_grace=1), CloseEvent)
    await couple(ws, ws)  # type: ignore[arg-type]


async def misbehaving(stream: trio.SSLStream[trio.SocketStream]) -> None:
    async with open_scripted_server(ScriptedPeer.never_close) as url:
        assert_type(url, str)
    async with open_scripted_server(lambda peer: peer.close_late(3), handshake=False):
        pass
    async with open_scripted_client(stream, "X: y") as peer:
        assert_type(peer, ScriptedPeer)
        assert_type(
            await peer.receive(),
            str | bytes | tuple[int, str] | tuple[str, bytes] | None,
        )
    await check_websocket_pair(open_websocket_pair, half_open=False, timeout=5)
    await check_websocket_pair(open_websocket_pair())  # type: ignore[arg-type]


async def tested(websocket_client: OpenClient, golden_record: GoldenRecord) -> None:
    async with open_test_client(
        a_server, "/a", over="loopback", protocols="chat", engine="websockets"
    ) as client:
        assert_type(client, TestWebSocket)
        assert_type(await client.expect("a"), str)
        assert_type(await client.get("/", within=1), TestResponse)
    async with open_test_client(a_server, within=1) as browser:
        assert_type(browser, TestClient)
        assert_type(
            await browser.post("/", json=None, headers={"A": "b"}), TestResponse
        )
        assert_type(await browser.open_websocket("/a", protocols="b"), TestWebSocket)
        assert_type(await browser.expect_handler_error(KeyError, "b"), Exception)
        await browser.expect_handler_error(KeyboardInterrupt)  # type: ignore[arg-type]
    open_test_client(a_server, over="tcp")  # type: ignore[call-overload]
    open_test_client(on_message)  # type: ignore[arg-type]
    open_test_client(a_server, protocols="chat")  # type: ignore[call-overload]
    client = await websocket_client(a_server, "/a", names=("Ada", "Bob"), within=5)
    assert_type(client, TestWebSocket)
    assert_type(await websocket_client(a_server, within=5), TestClient)
    assert_type(await replay(client.record, a_server, close_grace=2), Record)
    await golden_record(a_server, "chat.json", headers={"A": "b"})
    await golden_record(a_server)  # type: ignore[call-arg]


async def handle(request: Request) -> Response:
    return Response(request.path)


class Site:
    async def fetch(self, request: Request) -> Response:
        return await handle(request)


class OpenedSite(Site):
    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pass


@asynccontextmanager
async def opening_a_handler() -> AsyncGenerator[FetchHandler, None]:
    yield handle


@asynccontextmanager
async def opening_an_object(number: int) -> AsyncGenerator[Site, None]:
    yield Site()


def sync(request: Request) -> Response:
    raise NotImplementedError


async def an_application_is_one_of_these(rooms: DurableObjectNamespace) -> None:
    applications: list[Application] = [
        handle,
        Site(),
        Site().fetch,
        OpenedSite(),
        rooms.get_by_name("lobby"),
        opening_a_handler,
        opening_a_handler(),
        opening_an_object(1),
        partial(opening_an_object, 1),
    ]
    for app in applications:
        await serve(app, 0)
    ASGIApp(opening_a_handler)
    await serve(sync, 0)  # type: ignore[arg-type]
    await serve(Site, 0)  # type: ignore[arg-type]
    await serve(rooms, 0)  # type: ignore[arg-type]
    await serve(opening_an_object, 0)  # type: ignore[arg-type]

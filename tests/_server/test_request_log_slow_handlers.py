"""Warnings while a client waits: for `fetch`, or for an `accept()`."""

from typing import Any

import trio
from memory_server import UPGRADE, answer_to, read_all, request_bytes, served
from network import Logged
from trio.testing import MockClock

from trio_wspair import Request, Response, WebSocketPair
from trio_wspair._http.messages import wrong_answer


async def test_a_fetch_that_waits_for_a_message_is_warned_about_once(
    logged: Logged, autojump_clock: MockClock
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        with trio.move_on_after(60):
            await server.receive()  # The message comes only after fetch has returned.
        return Response(None, status=101, web_socket=client)

    async with served(fetch) as client:
        await client.send_all(request_bytes("GET", "/", *UPGRADE))
        await trio.sleep(4.9)
        assert logged.records == []
        await trio.sleep(0.2)
        record = logged.take()
        assert (
            "GET /: fetch has not returned for 5 s; the client is connected" in record
        )
        assert "request.nursery.start_soon()" in record
        await trio.sleep(10)
        assert logged.records == []


async def test_a_half_that_is_not_accepted_is_warned_about_once(
    logged: Logged, autojump_clock: MockClock
) -> None:
    async def fetch(request: Request) -> Response:
        client, _ = WebSocketPair()
        return Response(None, status=101, web_socket=client)

    async with served(fetch) as client:
        await client.send_all(request_bytes("GET", "/", *UPGRADE))
        await trio.sleep(4.9)
        assert logged.records == []
        await trio.sleep(0.2)
        assert "GET /: the handler's half has not been accepted yet" in logged.take()
        await trio.sleep(10)
    assert logged.records == []


async def test_a_half_that_is_accepted_in_time_causes_no_warning(
    logged: Logged, autojump_clock: MockClock
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()

        async def accept_later() -> None:
            await trio.sleep(4)
            server.accept()

        request.nursery.start_soon(accept_later)
        return Response(None, status=101, web_socket=client)

    async with served(fetch) as client:
        await client.send_all(request_bytes("GET", "/", *UPGRADE))
        await trio.sleep(10)
    assert logged.records == []


async def test_a_slow_response_without_a_websocket_causes_no_warning(
    logged: Logged, autojump_clock: MockClock
) -> None:
    async def fetch(request: Request) -> Response:
        await trio.sleep(20)
        return Response("at last")

    async with served(fetch) as client:
        await client.send_all(request_bytes())
        await client.send_eof()
        assert b"at last" in await read_all(client)
    assert logged.records == []


async def test_a_body_that_is_not_json_gets_400_unless_handled(
    logged: Logged,
) -> None:
    async def parse(request: Request) -> Response:
        return Response.json(await request.json())

    async def catch(request: Request) -> Response:
        try:
            return await parse(request)
        except ValueError:
            return Response("not today", status=422)

    for body in (b"", b"{", b"\xff", b"[" * 100_000):
        request = request_bytes("POST", "/", body=body)
        answer = await answer_to(parse, request)
        assert answer.status == 400
        assert answer.body.startswith(b"the body of the request is not JSON: ")
        assert (await answer_to(catch, request)).status == 422
    assert logged.records == []


async def test_the_error_for_a_return_value_that_is_no_response_explains_it() -> None:
    async def answer() -> Response:
        return Response("never")

    async with trio.open_nursery() as nursery:
        half = WebSocketPair(nursery)[0]
    expected: dict[str, Any] = {
        "does every branch return one?": None,
        "return Response(body)": b"",
        "return Response.json(data)": {},
        "return Response(body, status=..., headers=...)": ("no", 404),
        "return Response(None, status=101, web_socket=client)": half,
        "await it": answer(),
        "for a WebSocket, return Response(None, status=101, ...)": 404,
    }
    for words, returned in expected.items():
        name = type(returned).__name__
        assert wrong_answer(returned) == (
            f"must return a Response, not {name}: {words}"
        )

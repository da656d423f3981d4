"""Messages of a connection are dispatched by its reading task, with all guarantees."""

from collections.abc import Callable
from functools import partial
from typing import NoReturn

import pytest
import trio
from pairs import run
from patched_network import memory_network
from trio.testing import wait_all_tasks_blocked

from trio_wspair import (
    CloseEvent,
    ErrorEvent,
    MessageEvent,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    connect,
    serve,
)


class OutsideException(BaseException):
    """An exception outside of `Exception`, which a listener may raise."""


async def talk(
    listen: Callable[[WebSocket, Request], None], client: Callable[[WebSocket], None]
) -> list[object]:
    """Serve halves with this listener; return the events of a client."""
    heard: list[object] = []

    async def fetch(request: Request) -> Response:
        near, far = WebSocketPair()
        listen(far, request)
        far.accept()
        return Response(None, status=101, web_socket=near)

    with memory_network():
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve, fetch, 0))
            ws = await connect(server.url, nursery=nursery)
            ws.add_event_listener("message", lambda event: heard.append(event.data))
            ws.add_event_listener("close", lambda event: heard.append(event.code))
            ws.accept()
            client(ws)
            await trio.sleep(30)
            nursery.cancel_scope.cancel()
    return heard


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OutsideException])
def test_g7_base_exceptions_of_a_listener_propagate_from_the_server(
    error: type[BaseException],
) -> None:
    ends: list[CloseEvent] = []

    def listen(half: WebSocket, _request: Request) -> None:
        @half.on("message")
        def interrupt(_event: MessageEvent) -> NoReturn:
            raise error

        half.add_event_listener("close", ends.append)

    with pytest.raises(BaseExceptionGroup) as caught:
        run(partial(talk, listen, lambda ws: ws.send("now")))
    assert caught.group_contains(error)
    assert [end.code for end in ends] == [1006]


def test_g7_a_listener_that_raises_ends_its_connection_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors: list[str] = []

    def listen(half: WebSocket, _request: Request) -> None:
        half.add_event_listener("message", lambda event: half.send(event.data))
        half.add_event_listener("message", lambda event: 1 // len(event.data))

        @half.on("error")
        def failed(event: ErrorEvent) -> None:
            errors.append(event.message)

    def client(ws: WebSocket) -> None:
        for message in ("a", "", "b"):
            ws.send(message)

    assert run(partial(talk, listen, client)) == ["a", "", 1011]
    assert errors == ["ZeroDivisionError: integer division or modulo by zero"]
    assert "integer division" in caplog.text


def test_g8_an_async_listener_delays_the_messages_after_it() -> None:
    running = 0

    def listen(half: WebSocket, _request: Request) -> None:
        @half.on("message")
        async def answer(event: MessageEvent) -> None:
            nonlocal running
            running += 1
            assert running == 1
            await trio.sleep(1)
            half.send(event.data)
            running -= 1

    def client(ws: WebSocket) -> None:
        for number in range(10):
            ws.send(str(number))

    assert run(partial(talk, listen, client)) == [*map(str, range(10)), 1006]


def test_g9_many_messages_at_once_do_not_starve_other_tasks() -> None:
    """One read may bring more messages than are dispatched between two checkpoints."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    def listen(half: WebSocket, request: Request) -> None:
        seen: list[int] = []

        @half.on("message")
        def answer(event: MessageEvent) -> None:
            if not seen:
                request.nursery.start_soon(count)
            seen.append(turns)
            if event.data == "999":
                half.send(str(seen[-1] - seen[0] >= 10))
                request.nursery.cancel_scope.cancel()

    def client(ws: WebSocket) -> None:
        for number in range(1000):
            ws.send(str(number))

    assert run(partial(talk, listen, client))[0] == "True"


def test_g11_each_half_has_the_context_of_its_accept_call() -> None:
    async def main() -> list[object]:
        await wait_all_tasks_blocked()
        return await talk(listen, lambda ws: ws.send("name"))

    def listen(half: WebSocket, request: Request) -> None:
        @half.on("message")
        def answer(_event: MessageEvent) -> None:
            # A pair that is made in a listener lives in the nursery of the request.
            WebSocketPair()
            half.send(request.path)

    assert run(main) == ["/", 1006]

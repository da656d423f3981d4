"""Logged failures: the exception itself, and no error for a mere end of the peer.

An error tracker groups records by the type of the exception in `exc_info`, and shows
the line where it was raised.
"""

import contextlib
import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from durable_objects import Room, World, open_namespace
from network import Logged, Network
from trio.testing import wait_all_tasks_blocked

from trio_wspair import (
    ConnectionClosedError,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
)
from trio_wspair._pair.owner import current_owner
from trio_wspair.asgi import ASGIApp
from trio_wspair.testing import ScriptedPeer

Talk = Callable[[WebSocket], Awaitable[None]]


class BugError(Exception):
    """A bug of the application."""


def fail(*_: object) -> None:
    msg = "the line of the user"
    raise BugError(msg)


def only(logged: Logged) -> BaseException:
    """Return the exception of the only record; its traceback ends in the test."""
    [record] = logged.records
    logged.records.clear()
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    exc = record.exc_info[1]
    assert exc is not None
    assert record.exc_info[:2] == (type(exc), exc)
    assert record.exc_info[2] is exc.__traceback__
    if not isinstance(exc, BaseExceptionGroup):
        last = traceback.extract_tb(exc.__traceback__)[-1]
        assert last.filename == __file__
        assert last.name == "fail"
    return exc


# -- failures of handlers --------------------------------------------------------


async def fail_in_a_task(request: Request) -> None:
    async def nested() -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(trio.sleep_forever)
            await trio.lowlevel.checkpoint()
            fail()

    request.nursery.start_soon(nested)
    await trio.sleep_forever()


async def fail_in_fetch(_request: Request) -> None:
    fail()


async def fail_in_a_nursery(_request: Request) -> None:
    async with trio.open_nursery(), trio.open_nursery():
        fail()


@pytest.mark.parametrize("how", [fail_in_fetch, fail_in_a_nursery, fail_in_a_task])
async def test_an_error_of_a_handler_is_logged_without_the_groups_of_nurseries(
    net: Network, logged: Logged, how: Callable[[Request], Awaitable[None]]
) -> None:
    async def fetch(request: Request) -> Response:
        await how(request)
        return Response("never")

    async with net.serve(fetch) as server, net.dial(server) as peer:
        assert (await peer.handshake()).startswith("HTTP/1.1 500 ")
    exc = only(logged)
    assert type(exc) is BugError
    assert exc.__cause__ is None


@pytest.mark.parametrize("listener", ["sync", "async"])
async def test_an_error_of_a_listener_is_logged_without_a_group(
    net: Network, logged: Logged, listener: str
) -> None:
    async def fail_later(_event: object) -> None:
        await trio.lowlevel.checkpoint()
        fail()

    async with net.joined() as (client, server):
        server.on("message")(fail if listener == "sync" else fail_later)
        server.accept()
        client.accept()
        client.send("hello")
        assert (await client.wait_closed()).code == 1011
        await net.until(lambda: logged.records)
    exc = only(logged)
    assert type(exc) is BugError
    assert exc.__context__ is None


async def test_errors_raised_together_are_logged_as_one_group(
    net: Network, logged: Logged
) -> None:
    async with net.joined() as (client, server):
        server.on("message")(fail)
        server.on("message")(lambda _: fail())
        server.accept()
        client.accept()
        client.send("hello")
        assert (await client.wait_closed()).code == 1011
        await net.until(lambda: logged.records)
    exc = only(logged)
    assert isinstance(exc, ExceptionGroup)
    assert [type(one) for one in exc.exceptions] == [BugError, BugError]


async def test_the_cause_of_an_error_is_kept(net: Network, logged: Logged) -> None:
    async def fetch(_request: Request) -> Response:
        try:
            fail()
        except BugError as exc:
            raise ValueError from exc
        raise AssertionError

    async with net.serve(fetch) as server, net.dial(server) as peer:
        assert (await peer.handshake()).startswith("HTTP/1.1 500 ")
    [record] = logged.records
    logged.records.clear()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    assert isinstance(record.exc_info[1].__cause__, BugError)


# -- objects, and applications ------------------------------------------------------


async def test_an_error_of_an_object_is_logged_without_a_group(logged: Logged) -> None:
    async def fail_in_groups(_room: Room, _ws: WebSocket, _message: object) -> None:
        async with trio.open_nursery(), trio.open_nursery():
            fail()

    with trio.fail_after(5):
        async with open_namespace(World(on_message=fail_in_groups)) as namespace:
            visitor = await namespace.visit()
            visitor.send("hello")
            await visitor.aclose()
    assert type(only(logged)) is BugError


async def test_an_error_of_an_object_task_is_logged_without_a_group(
    logged: Logged,
) -> None:
    async def start(_room: Room, request: Request) -> Response:
        async def soon() -> None:
            async with trio.open_nursery():
                fail()

        owner = current_owner.get()
        assert owner is not None
        owner.nursery.start_soon(soon)
        return Response("started")

    with trio.fail_after(5):
        async with open_namespace(World(on_fetch=start)) as namespace:
            await namespace.ask()
            await wait_all_tasks_blocked()
    assert type(only(logged)) is BugError


async def test_an_error_of_an_application_at_its_start_is_logged_without_a_group(
    logged: Logged,
) -> None:
    class Application:
        async def __aenter__(self) -> Any:
            async with trio.open_nursery():
                fail()

        async def __aexit__(self, *_: object) -> None: ...

    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    await ASGIApp(Application())({"type": "lifespan"}, receive, send)
    assert type(only(logged)) is BugError
    assert sent[-1]["message"] == "BugError: the line of the user"


# -- a mere end of the peer ------------------------------------------------------------


async def receive_all(ws: WebSocket) -> None:
    ws.accept(pull=True)
    async for _ in ws:
        pass
    await ws.receive()


async def receive_one(ws: WebSocket) -> None:
    ws.accept(pull=True)
    await ws.receive()


async def drain(ws: WebSocket) -> None:
    ws.accept()
    for _ in range(60):
        ws.send(bytes(2**20))
    await ws.drain()


async def send_when_it_has_gone(ws: WebSocket) -> None:
    ws.accept()
    while True:
        ws.send("tick")
        await trio.sleep(0.001)


async def several_tasks(ws: WebSocket) -> None:
    ws.accept(pull=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive_one, ws)
        nursery.start_soon(receive_one, ws)


async def end_with_1011(peer: ScriptedPeer) -> None:
    await peer.send(peer.close_frame(1011, "oh\x1b[2J no"))


async def end_with_1000(peer: ScriptedPeer) -> None:
    await peer.send(peer.close_frame(1000))


async def reset(peer: ScriptedPeer) -> None:
    await peer.reset()


async def break_the_protocol(peer: ScriptedPeer) -> None:
    await peer.send(peer.frame(11))


@pytest.mark.parametrize(
    "end", [end_with_1011, end_with_1000, reset, break_the_protocol]
)
@pytest.mark.parametrize(
    "talk", [receive_all, receive_one, several_tasks, drain, send_when_it_has_gone]
)
async def test_the_end_of_a_peer_is_not_logged_as_an_error(
    net: Network,
    logged: Logged,
    caplog: pytest.LogCaptureFixture,
    talk: Talk,
    end: Callable[[ScriptedPeer], Awaitable[None]],
) -> None:
    caplog.set_level(logging.DEBUG, "trio_wspair")

    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        request.nursery.start_soon(talk, server)
        return Response(None, status=101, web_socket=client)

    def logged_records() -> list[logging.LogRecord]:
        return [
            r for r in caplog.records if "ended because its client has closed" in r.msg
        ]

    async with net.serve(fetch, close_grace=0.1) as server, net.peer(server) as peer:
        await end(peer)
        await net.until(lambda: "closed with" in caplog.text)
    # A task that only sends may be cancelled before it gets the error.
    assert logged_records() or talk is send_when_it_has_gone
    for record in logged_records():
        assert record.levelno == logging.DEBUG
        assert record.exc_info is None
        assert "\x1b" not in record.getMessage()
    assert "ConnectionClosedError" not in caplog.text


async def test_a_bug_beside_the_end_of_a_peer_is_logged_without_it(
    net: Network, logged: Logged
) -> None:
    async def talk(ws: WebSocket) -> None:
        ws.accept(pull=True)
        try:
            await ws.receive()
        finally:
            fail_beside.set()

    async def fail_then() -> None:
        await fail_beside.wait()
        fail()

    fail_beside = trio.Event()

    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        request.nursery.start_soon(talk, server)
        request.nursery.start_soon(shielded)
        return Response(None, status=101, web_socket=client)

    async def shielded() -> None:
        with trio.CancelScope(shield=True):
            await fail_then()

    async with net.serve(fetch) as server, net.peer(server) as peer:
        await end_with_1011(peer)
        await net.until(lambda: logged.records)
    assert type(only(logged)) is BugError


async def fail_and_report(ws: WebSocket) -> None:
    try:
        fail()
    finally:
        ws.send("goodbye")


async def fail_and_report_cancelled(ws: WebSocket) -> None:
    try:
        fail()
    finally:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            finally:
                ws.send("goodbye")


async def fail_and_name_the_end(ws: WebSocket) -> None:
    with pytest.raises(ConnectionClosedError) as ended:
        ws.send("goodbye")
    try:
        fail()
    except BugError as exc:
        raise ended.value from exc


@pytest.mark.parametrize(
    "react", [fail_and_report, fail_and_report_cancelled, fail_and_name_the_end]
)
async def test_a_bug_is_logged_although_the_peer_ends_after_it(
    net: Network, logged: Logged, react: Talk
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        request.nursery.start_soon(talk, server)
        return Response(None, status=101, web_socket=client)

    async def talk(ws: WebSocket) -> None:
        ws.accept(pull=True)
        with contextlib.suppress(ConnectionClosedError):
            await ws.receive()
        await react(ws)

    async with net.serve(fetch) as server, net.peer(server) as peer:
        await end_with_1011(peer)
        await net.until(lambda: logged.records)
    assert "BugError: the line of the user" in logged.take()


async def end_when_it_has_ended(ws: WebSocket) -> None:
    ws.accept(pull=True)
    try:
        await ws.receive()
    except ConnectionClosedError:
        await ws.receive()


async def end_without_what_was_before(ws: WebSocket) -> None:
    ws.accept(pull=True)
    try:
        await ws.receive()
    except ConnectionClosedError as end:
        try:
            fail()
        except BugError:  # The handler catches it.
            raise end from None


@pytest.mark.parametrize("talk", [end_when_it_has_ended, end_without_what_was_before])
async def test_an_end_of_the_peer_with_nothing_else_before_is_not_an_error(
    net: Network, logged: Logged, caplog: pytest.LogCaptureFixture, talk: Talk
) -> None:
    caplog.set_level(logging.DEBUG, "trio_wspair")

    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        request.nursery.start_soon(talk, server)
        return Response(None, status=101, web_socket=client)

    async with net.serve(fetch) as server, net.peer(server) as peer:
        await end_with_1011(peer)
        await net.until(lambda: "ended because its client has closed" in caplog.text)


async def test_the_end_of_another_peer_is_logged_as_an_error(
    net: Network, logged: Logged
) -> None:
    """A relay doesn't expect it: its own client is still connected."""

    async def fetch(_request: Request) -> Response:
        client, server = WebSocketPair()
        server.on("message")(leave)
        server.accept()
        return Response(None, status=101, web_socket=client)

    def leave(_event: object) -> None:
        raise ConnectionClosedError(1011, "of another connection", was_clean=True)

    async with net.serve(fetch) as server, net.peer(server) as peer:
        await peer.send(peer.text_frame("hello"))
        assert await peer.receive() == (1011, "")
        await net.until(lambda: logged.records)
    assert "of another connection" in logged.take()


async def test_the_end_of_a_client_is_not_logged_as_an_error_of_an_object(
    net: Network, logged: Logged, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "trio_wspair")

    async def tick(_room: Room, ws: WebSocket, _message: object) -> None:
        while True:
            ws.send("tick")
            await trio.sleep(0.001)

    def logged_records() -> list[logging.LogRecord]:
        return [
            r for r in caplog.records if "ended because its client has closed" in r.msg
        ]

    async with (
        open_namespace(World(on_message=tick)) as namespace,
        net.serve(namespace.rooms.get_by_name("room").fetch) as server,
        net.peer(server) as peer,
    ):
        await peer.send(peer.text_frame("hello"))
        assert await peer.receive() == "tick"
        await peer.reset()
        await net.until(logged_records)
    [record] = logged_records()
    assert (record.levelno, record.exc_info) == (logging.DEBUG, None)
    assert "web_socket_message() of Room" in record.getMessage()

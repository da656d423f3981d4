"""What is logged, and the facts that a record has as attributes."""

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio
from rooms import World, open_house

from trio_wspair import (
    HandshakeError,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    connect,
    open_websocket,
)

if TYPE_CHECKING:
    from conftest import Logged, Network

PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName"}


def facts(record: logging.LogRecord) -> dict[str, Any]:
    """Return what a record has beside what every record has."""
    return {name: value for name, value in vars(record).items() if name not in PLAIN}


def find(caplog: pytest.LogCaptureFixture, words: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if words in record.getMessage()]


async def echo(request: Request) -> Response:
    if not request.wants_websocket:
        return Response("hello")
    if request.path == "/fails":
        msg = "no"
        raise ValueError(msg)
    client, server = WebSocketPair()
    server.on("message")(lambda event: server.send(event.data))
    server.accept()
    return Response(None, status=101, web_socket=client)


async def test_a_websocket_that_has_ended_is_in_the_access_log_with_its_facts(
    net: "Network", caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_wspair.access")
    async with net.serve(echo) as server:
        async with open_websocket(server.url + "chat") as ws:
            ws.send("hell\u00f6")
            ws.send(b"123")
            assert [await ws.receive() for _ in "12"] == ["hell\u00f6", b"123"]
            await ws.aclose(3000)
        await net.until(lambda: caplog.records)
    [record] = caplog.records
    assert (record.name, record.levelname) == ("trio_wspair.access", "INFO")
    found = facts(record)
    assert isinstance(found.pop("connection"), int)
    assert found.pop("duration") > 0
    assert found == {
        "side": "server",
        "peer": "127.0.0.1",
        "url": f"http://127.0.0.1:{server.port}/chat",
        "request": "GET /chat",
        "status": 101,
        "code": 3000,
        "received_messages": 2,
        "received_bytes": 9,
        "sent_messages": 2,
        "sent_bytes": 9,
    }


async def test_a_request_is_in_the_access_log_with_its_facts(
    net: "Network", caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_wspair.access")
    async with net.serve(echo) as server, net.dial(server) as peer:
        await peer.send(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert await peer.read_all()
        await net.until(lambda: caplog.records)
    found = facts(caplog.records[0])
    assert found.pop("duration") > 0
    assert found == {
        "peer": "127.0.0.1",
        "url": "http://a/x",
        "request": "GET /x",
        "status": 200,
    }


async def test_a_failure_is_logged_with_its_facts(
    net: "Network", logged: "Logged"
) -> None:
    async with net.serve(echo) as server:
        with pytest.raises(HandshakeError):
            async with open_websocket(server.url + "fails"):
                pass
    record = logged.records[0]
    assert "ValueError: no" in logged.take()
    assert (record.name, record.levelname) == ("trio_wspair", "ERROR")
    assert facts(record)["request"] == "GET /fails"
    assert facts(record)["peer"] == "127.0.0.1"


async def test_a_failure_during_a_conversation_names_the_connection(
    net: "Network", logged: "Logged"
) -> None:
    def fail(_event: object) -> None:
        msg = "no"
        raise ValueError(msg)

    async with net.joined() as (client, server):
        server.on("message")(fail)
        server.accept()
        client.accept()
        client.send("hello")
        assert (await client.wait_closed()).code == 1011
        await net.until(lambda: logged.records)
    record = logged.records[0]
    assert "ValueError: no" in logged.take()
    assert isinstance(facts(record)["connection"], int)


async def test_a_client_logs_its_connections_for_those_who_debug(
    net: "Network", caplog: pytest.LogCaptureFixture, nursery: trio.Nursery
) -> None:
    caplog.set_level(logging.DEBUG, "trio_wspair")
    async with net.serve(echo) as server:
        ws = await connect(server.url, nursery=nursery)
        await ws.aclose(3000)
        await net.until(lambda: find(caplog, "has closed with 3000"))
    [opened] = find(caplog, "is open")
    [closed] = find(caplog, "has closed with 3000")
    assert opened.levelname == closed.levelname == "DEBUG"
    assert facts(opened) == {
        "connection": facts(closed)["connection"],
        "side": "client",
        "peer": f"127.0.0.1:{server.port}",
        "url": server.url,
    }
    assert facts(closed)["code"] == 3000
    assert facts(closed)["duration"] > 0


async def test_what_fails_in_a_durable_object_names_it(logged: "Logged") -> None:
    async def fail(room: object, ws: WebSocket, message: str | bytes) -> None:
        msg = f"{room} {ws} {message!r}"
        raise ValueError(msg)

    with trio.fail_after(5):
        async with open_house(World(on_message=fail)) as house:
            visitor = await house.visit()
            visitor.send("hello")
            await visitor.aclose()
    record = logged.records[0]
    assert "ValueError" in logged.take()
    assert facts(record) == {"object": "Room 'room'"}

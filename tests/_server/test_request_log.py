"""The log of requests: the records, and their facts as attributes."""

import logging
from typing import Any

import pytest
import trio
from durable_objects import World, open_namespace
from network import Logged, Network

from trio_wspair import (
    HandshakeError,
    Request,
    Response,
    Server,
    WebSocket,
    WebSocketPair,
    connect,
    open_websocket,
)

PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName"}


def facts(record: logging.LogRecord) -> dict[str, Any]:
    """Return the attributes of a record that other records lack."""
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
    net: Network, caplog: pytest.LogCaptureFixture
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
    net: Network, caplog: pytest.LogCaptureFixture
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


async def test_a_failure_is_logged_with_its_facts(net: Network, logged: Logged) -> None:
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
    net: Network, logged: Logged
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


async def test_a_client_logs_its_connections_at_debug_level(
    net: Network, caplog: pytest.LogCaptureFixture, nursery: trio.Nursery
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


async def test_a_failure_in_a_durable_object_has_its_id(logged: Logged) -> None:
    async def fail(room: object, ws: WebSocket, message: str | bytes) -> None:
        msg = f"{room} {ws} {message!r}"
        raise ValueError(msg)

    with trio.fail_after(5):
        async with open_namespace(World(on_message=fail)) as namespace:
            visitor = await namespace.visit()
            visitor.send("hello")
            await visitor.aclose()
    record = logged.records[0]
    assert "ValueError" in logged.take()
    assert facts(record) == {"object": "Room 'room'"}


# -- secrets, and control characters ---------------------


def everything_in(record: logging.LogRecord) -> str:
    """Return the message of a record and its facts."""
    return " ".join([record.getMessage(), *map(str, facts(record).values())])


async def send_and_wait(net: Network, server: Server, data: bytes) -> None:
    """Send a request, and wait until the server has answered and closed."""
    with trio.fail_after(5):
        async with net.dial(server) as peer:
            await peer.send(data, peer.close_frame(1000))
            await peer.read_all()


@pytest.mark.parametrize("log_query", [False, True])
async def test_a_query_is_logged_only_if_configured(
    net: Network,
    caplog: pytest.LogCaptureFixture,
    logged: Logged,
    log_query: bool,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with net.serve(echo, log_query=log_query) as server:
        for target, headers in (
            ("/a?token=hunter2", ["Host: a", "Connection: close"]),
            ("/a?hunter2", ["Host: a", "Connection: close"]),
            ("/fails?token=hunter2", [*net.UPGRADE, "Connection: close"]),
            ("/ws?token=hunter2", [*net.UPGRADE, "Sec-WebSocket-Protocol: chat"]),
        ):
            data = net.head(*headers, start=f"GET {target} HTTP/1.1")
            await send_and_wait(net, server, data)
        with trio.fail_after(5):
            await net.until(lambda: len(find(caplog, '127.0.0.1 "GET /')) == 4)
    logged.records.clear()
    texts = [
        everything_in(record) for record in caplog.records if record.name != "asyncio"
    ]
    for words in ("handling GET /fails", "the client offers subprotocols (1)"):
        (record,) = find(caplog, words)
        assert ("hunter2" in everything_in(record)) is log_query
    assert any("hunter2" in text for text in texts) is log_query
    assert any("/a?token=..." in text for text in texts) is not log_query
    assert any('"GET /a?token=hunter2" 200' in text for text in texts) is log_query
    assert any('"GET /a" 200' in text for text in texts) is not log_query


async def test_text_of_a_client_is_printable_in_the_log(
    net: Network, caplog: pytest.LogCaptureFixture, logged: Logged
) -> None:
    caplog.set_level(logging.DEBUG)
    start = 'GET /a"%1b[31m%0d%0a%e2%80%ae|?"%1b[31m HTTP/1.1'
    forwarded = "X-Forwarded-For: \t[31m\x80\xad"
    options = {"proxy_headers": True, "log_query": True}
    async with net.serve(echo, **options) as server:
        for headers in (["Host: a", "Connection: close"], net.UPGRADE):
            offer = "Sec-WebSocket-Protocol: chat"
            data = net.head(forwarded, offer, *headers, start=start)
            await send_and_wait(net, server, data)
        with trio.fail_after(5):
            await net.until(lambda: len(find(caplog, '"GET /a')) == 2)
    assert "the client offers subprotocols (1)" in logged.take()
    for record in caplog.records:
        assert everything_in(record).isprintable()
        assert everything_in(record).isascii()
    lines = [r.getMessage() for r in caplog.records if r.name == "trio_wspair.access"]
    shown = '"GET /a%22%1b[31m%0d%0a%e2%80%ae%7C?%22%1b[31m" '
    assert [line.count('"') for line in lines] == [2, 2]
    assert all(shown in line for line in lines)

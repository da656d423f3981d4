"""Instruments: each event of a half's life is reported once, in order."""

import gc
import logging
import weakref
from typing import cast

import pytest
import trio
from durable_objects import open_namespace

from trio_wspair import (
    BufferFullError,
    CloseEvent,
    ConnectionClosedError,
    ConnectionInfo,
    Instrument,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    open_websocket,
    open_websocket_pair,
    serve,
    use_instrument,
)
from trio_wspair._pair.verbs import half_of

Told = tuple[object, ...]


class EventLog(Instrument):
    """Logs its calls; halves are numbers in the order of creation."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.infos: list[ConnectionInfo] = []
        self._halves: list[weakref.ref[WebSocket]] = []

    def _number(self, ws: WebSocket) -> int:
        return [half() for half in self._halves].index(ws)

    def pair_made(self, first: WebSocket, second: WebSocket) -> None:
        self._halves += [weakref.ref(first), weakref.ref(second)]

    def connected(self, ws: WebSocket, connection: ConnectionInfo) -> None:
        self.infos.append(connection)
        self.told.append((self._number(ws), "connected", connection.side))

    def taken(self, ws: WebSocket, by: str) -> None:
        self.told.append((self._number(ws), "taken", by))

    def sent(self, ws: WebSocket, message: str | bytes) -> None:
        self.told.append((self._number(ws), "sent", message))

    def received(self, ws: WebSocket, message: str | bytes) -> None:
        self.told.append((self._number(ws), "received", message))

    def close_sent(self, ws: WebSocket, code: int, reason: str) -> None:
        self.told.append((self._number(ws), "close_sent", code, reason))

    def closed(self, ws: WebSocket, event: CloseEvent, error: Exception | None) -> None:
        end = (event.code, event.reason, event.was_clean, error)
        self.told.append((self._number(ws), "closed", *end))

    def failed(self, ws: WebSocket, reason: str, error: Exception | None) -> None:
        self.told.append((self._number(ws), "failed", reason, error))

    def discarded(self, ws: WebSocket, reason: str) -> None:
        self.told.append((self._number(ws), "discarded", reason))

    def released(self, ws: WebSocket) -> None:
        self.told.append((self._number(ws), "released"))

    def about(self, number: int) -> list[Told]:
        return [told[1:] for told in self.told if told[0] == number]


@pytest.fixture
def event_log() -> EventLog:
    return EventLog()


async def test_every_event_of_two_halves_is_reported(event_log: EventLog) -> None:
    with use_instrument(event_log):
        async with open_websocket_pair() as (client, server):
            server.on("message")(lambda event: server.send(event.data + "!"))
            server.accept()
            client.accept(pull=True)
            client.send("hello")
            assert await client.receive() == "hello!"
            client.close(3000, "enough")
            await server.wait_closed()
    assert event_log.told == [
        (1, "taken", "application"),
        (0, "taken", "application"),
        (0, "sent", "hello"),
        (1, "received", "hello"),
        (1, "sent", "hello!"),
        (0, "received", "hello!"),
        (0, "close_sent", 3000, "enough"),
        (1, "closed", 3000, "enough", True, None),
        (1, "close_sent", 3000, "enough"),
        (1, "released"),
        (0, "closed", 3000, "enough", True, None),
        (0, "released"),
    ]


async def test_refused_and_dropped_messages_are_not_reported(
    event_log: EventLog,
) -> None:
    with use_instrument(event_log):
        async with open_websocket_pair(max_buffered_bytes=100) as (client, server):
            client.accept(pull=True)
            server.accept(pull=True)
            with pytest.raises(BufferFullError):
                client.send("x" * 200)
            with pytest.raises(ValueError, match="999"):
                client.close(999)
            client.close(1000)
            client.close(1001)
    assert event_log.about(0) == [
        ("taken", "application"),
        ("close_sent", 1000, ""),
        ("closed", 1000, "", True, None),
        ("released",),
    ]


async def test_a_message_that_can_no_longer_be_taken_is_not_reported(
    event_log: EventLog, nursery: trio.Nursery
) -> None:
    with use_instrument(event_log):
        client, server = WebSocketPair(nursery)
    client.accept()
    half_of(server).discard("its user has gone")
    with pytest.raises(ConnectionClosedError):
        client.send("hello")
    assert "sent" not in [told[0] for told in event_log.about(0)]
    await client.aclose()


async def test_an_abnormal_end_comes_with_its_error(event_log: EventLog) -> None:
    error = RuntimeError("no")

    def fail(_event: object) -> None:
        raise error

    with pytest.RaisesGroup(RuntimeError), use_instrument(event_log):
        async with open_websocket_pair() as (client, server):
            server.on("message")(fail)
            server.accept()
            client.accept()
            client.send("hello")
            await client.wait_closed()
    assert event_log.about(1) == [
        ("taken", "application"),
        ("received", "hello"),
        ("failed", "a listener raised", error),
        ("closed", 1006, "a listener raised", False, error),
        ("close_sent", 1011, ""),
        ("released",),
    ]
    assert event_log.about(0)[-3:] == [
        ("closed", 1011, "", True, None),
        ("close_sent", 1011, ""),
        ("released",),
    ]


async def test_an_untaken_half_is_discarded_with_the_reason(
    event_log: EventLog,
) -> None:
    with use_instrument(event_log):
        async with open_websocket_pair() as (client, _server):
            client.accept()
    assert event_log.about(1) == [
        ("closed", 1000, "", True, None),
        ("close_sent", 1000, ""),
        ("discarded", "it was never accepted"),
        ("released",),
    ]
    with use_instrument(event_log):
        async with trio.open_nursery() as nursery:
            halves = WebSocketPair(nursery)
            half_of(halves[0]).discard("the request has ended")
            half_of(halves[0]).discard("again")
    reason = "the request has ended"
    assert event_log.about(2) == [
        ("failed", reason, None),
        ("closed", 1006, reason, False, None),
        ("close_sent", 1001, ""),
        ("discarded", reason),
        ("released",),
    ]


async def test_a_lost_connection_is_reported_as_one_failure(
    event_log: EventLog, nursery: trio.Nursery
) -> None:
    async def fetch(_request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept()
        return Response(None, status=101, web_socket=client)

    with trio.fail_after(5):
        with use_instrument(event_log):
            server = await nursery.start(serve, fetch, 0)
        upgrade = (
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(upgrade)
            await stream.receive_some()
        while (0, "released") not in event_log.told:  # noqa: ASYNC110 - outside of tasks
            await trio.sleep(0.01)
    failures = [entry for entry in event_log.told if entry[1] == "failed"]
    assert [number for number, *_ in failures] == [0, 1]
    assert all(reason and error is None for *_, reason, error in failures)


async def test_each_half_ends_once_even_when_untaken(event_log: EventLog) -> None:
    with use_instrument(event_log):
        async with open_websocket_pair() as (client, _server):
            client.accept()
            with trio.CancelScope() as scope:
                scope.cancel()
                await client.aclose()
    ends = [told[0] for told in event_log.told if told[1] == "closed"]
    assert sorted(cast("list[int]", ends)) == [0, 1]


async def test_in_nested_blocks_each_instrument_is_called(event_log: EventLog) -> None:
    inner = EventLog()
    with use_instrument(event_log):
        with use_instrument(inner):
            async with open_websocket_pair() as (client, _):
                client.accept()
        async with open_websocket_pair() as (client, _):
            client.accept()
    assert event_log.about(2)[0] == ("taken", "application")
    assert inner.about(0)[0] == ("taken", "application")
    assert len(event_log.told) == 2 * len(inner.told)


async def test_pairs_made_outside_of_the_block_are_not_reported(
    event_log: EventLog,
) -> None:
    async with open_websocket_pair() as (client, _):
        with use_instrument(event_log):
            client.accept()
    assert event_log.told == []


async def test_an_error_of_an_instrument_is_logged_and_changes_nothing_else(
    event_log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Instrument):
        def sent(self, ws: WebSocket, message: str | bytes) -> None:
            msg = f"{ws} {message!r}"
            raise ValueError(msg)

    with use_instrument(Broken()), use_instrument(event_log):
        async with open_websocket_pair() as (client, server):
            client.accept()
            server.accept(pull=True)
            client.send("one")
            client.send("two")
            assert [await server.receive() for _ in "12"] == ["one", "two"]
    assert ("sent", "two") in event_log.about(0)
    [record] = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert "Broken" in record.getMessage()
    assert "not called any more" in record.getMessage()


def test_an_object_that_is_not_an_instrument_is_refused() -> None:
    wrong = cast("Instrument", EventLog)
    with (
        pytest.raises(TypeError, match="instrument must be an Instrument"),
        use_instrument(wrong),
    ):
        pass


async def test_both_ends_of_a_connection_are_reported(
    event_log: EventLog, nursery: trio.Nursery
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.on("message")(lambda event: server.send(event.data))
        server.accept()
        return Response(None, status=101, web_socket=client)

    with trio.fail_after(5), use_instrument(event_log):
        server = await nursery.start(serve, fetch, 0)
        async with open_websocket(server.url + "chat") as ws:
            ws.send("hello")
            assert await ws.receive() == "hello"
        nursery.cancel_scope.cancel()
    # The pair of the client was created first.
    assert [info.side for info in event_log.infos] == ["server", "client"]
    by_server, by_client = event_log.infos
    assert by_server.url == f"http://127.0.0.1:{server.port}/chat"
    assert by_server.peer == "127.0.0.1"
    assert by_client.url == f"ws://127.0.0.1:{server.port}/chat"
    assert by_client.peer == f"127.0.0.1:{server.port}"
    assert by_client.id != by_server.id
    for number in (1, 2):  # The halves that connections have taken.
        assert event_log.about(number)[:2] == [
            ("taken", "connection"),
            ("connected", ["", "client", "server"][number]),
        ]
    assert event_log.about(2)[2:4] == [("sent", "hello"), ("received", "hello")]
    assert event_log.about(1)[2:4] == [("received", "hello"), ("sent", "hello")]


async def test_the_taking_of_a_half_is_reported_once(event_log: EventLog) -> None:
    with use_instrument(event_log):
        async with open_websocket_pair() as (client, _):
            client.accept()
            client.accept()
    assert event_log.about(0).count(("taken", "application")) == 1


async def test_events_of_a_half_without_a_websocket_are_not_reported(
    event_log: EventLog, nursery: trio.Nursery
) -> None:
    with use_instrument(event_log):
        pair = WebSocketPair(nursery)
    inside = half_of(pair[0])
    del pair
    inside.discard("its user has dropped it")
    assert event_log.told == []


async def test_g10_a_watched_half_that_is_dropped_is_freed(event_log: EventLog) -> None:
    async with trio.open_nursery() as nursery:
        gc.disable()
        try:
            with use_instrument(event_log):
                pair = WebSocketPair(nursery)
            refs = [weakref.ref(half) for half in pair]
            del pair
            assert [ref() for ref in refs] == [None, None]
        finally:
            gc.enable()


async def test_events_of_a_socket_of_a_durable_object_are_reported(
    event_log: EventLog,
) -> None:
    with use_instrument(event_log):
        async with open_namespace() as namespace:
            visitor = await namespace.visit()
            visitor.send("hello")
            await visitor.aclose()
    assert event_log.about(1)[:2] == [("taken", "object"), ("received", "hello")]
    assert event_log.about(1)[-3:] == [
        ("closed", 1000, "", True, None),
        ("close_sent", 1000, ""),
        ("released",),
    ]

"""`open_asgi_websocket()`, with scripted applications, in virtual time."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pytest
import trio
import trio.testing
from pairs import bounded
from trio.testing import MockClock

from trio_wspair import (
    BufferFullError,
    ConnectionClosedError,
    HandshakeError,
    Headers,
    InvalidStateError,
)
from trio_wspair.testing import cancel_at_every_step, open_asgi_websocket

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

ACCEPT: Event = {"type": "websocket.accept"}
CLOSE: Event = {"type": "websocket.close"}
DENIAL = "websocket.http.response"


class App:
    """An application that sends events, and then keeps the received ones."""

    receive: Receive
    send: Send

    def __init__(self, *says: Event) -> None:
        self.says = says
        self.scope: dict[str, Any] = {}
        self.received: list[Event] = []
        self.error: Exception | None = None
        """The errors that `send()` raised."""
        self.returned_at: float | None = None

    async def __call__(
        self, scope: dict[str, Any], receive: Receive, send: Send
    ) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        self.received.append(await receive())
        for event in self.says:
            await send(event)
        await self.converse()
        self.returned_at = trio.current_time()

    async def converse(self) -> None:
        while self.received[-1]["type"] != "websocket.disconnect":
            self.received.append(await self.receive())

    async def try_to_send(self, event: Event) -> None:
        try:
            await self.send(event)
        except Exception as exc:
            self.error = exc


def text(data: str) -> Event:
    return {"type": "websocket.send", "text": data}


# -- opening ------------------------------------------------------------------


@bounded
async def test_the_application_gets_a_handshake(autojump_clock: MockClock) -> None:
    app = App(ACCEPT)
    path = "/caf%C3%A9/a?room=1&x=%20"
    headers = {"Origin": "https://example.org", "Host": "example.org"}
    async with open_asgi_websocket(app, path, protocols=["a", "b"], headers=headers):
        scope = app.scope
    assert app.received[0] == {"type": "websocket.connect"}
    assert scope["type"] == "websocket"
    assert scope["path"] == "/café/a"
    assert scope["raw_path"] == b"/caf%C3%A9/a"
    assert scope["query_string"] == b"room=1&x=%20"
    assert scope["subprotocols"] == ["a", "b"]
    sent = Headers((k.decode(), v.decode()) for k, v in scope["headers"])
    assert all(name == name.lower() for name, _ in scope["headers"])
    assert sent["upgrade"] == "websocket"
    assert sent["sec-websocket-version"] == "13"
    assert sent["sec-websocket-protocol"] == "a, b"
    assert sent["origin"] == "https://example.org"
    assert sent.get_all("host") == ["example.org"]


@bounded
async def test_the_scope_can_be_changed(autojump_clock: MockClock) -> None:
    app = App(ACCEPT)
    client = ("192.0.2.7", 1234)
    async with open_asgi_websocket(app, scope={"client": client, "state": {"a": 1}}):
        assert app.scope["client"] == client
        assert app.scope["state"] == {"a": 1}
        assert app.scope["path"] == "/"


@bounded
async def test_the_half_knows_its_url_and_its_subprotocol(
    autojump_clock: MockClock,
) -> None:
    app = App({**ACCEPT, "subprotocol": "b", "headers": [(b"x", b"y")]})
    async with open_asgi_websocket(app, "/a?b", protocols=["a", "b"]) as ws:
        assert ws.url == "ws://localhost/a?b"
        assert ws.protocol == "b"
    async with open_asgi_websocket(App(ACCEPT)) as ws:
        assert ws.protocol == ""
        with pytest.raises(InvalidStateError):
            await ws.ping()


@bounded
async def test_each_application_has_a_new_context_without_a_nursery(
    autojump_clock: MockClock,
) -> None:
    async with (
        open_asgi_websocket(App(ACCEPT, text("first"))) as one,
        open_asgi_websocket(App(ACCEPT, text("second"))) as two,
    ):
        assert await two.receive() == "second"
        assert await one.receive() == "first"


# -- messages -----------------------------------------------------------------


@bounded
async def test_messages_pass_both_ways(autojump_clock: MockClock) -> None:
    says = [
        text(""),
        {"type": "websocket.send", "bytes": bytearray(b"b"), "text": None},
    ]
    app = App(ACCEPT, *says)
    async with open_asgi_websocket(app) as ws:
        assert [await ws.receive(), await ws.receive()] == ["", b"b"]
        ws.send("größer")
        ws.send(b"")
    assert app.received[1:-1] == [
        {"type": "websocket.receive", "text": "größer"},
        {"type": "websocket.receive", "bytes": b""},
    ]


@bounded
async def test_g9_the_application_waits_while_the_client_reads_nothing(
    autojump_clock: MockClock,
) -> None:
    sent = 0

    class Flood(App):
        async def converse(self) -> None:
            nonlocal sent
            for _ in range(100):
                await self.send(text("x" * 1000))
                sent += 1
            await super().converse()

    async with open_asgi_websocket(Flood(ACCEPT), receive_buffer_bytes=5000) as ws:
        await trio.sleep(1)
        assert sent < 10
        for _ in range(100):
            await ws.receive()
        await trio.sleep(1)
        assert sent == 100


# -- closing ------------------------------------------------------------------


@bounded
async def test_g9_the_client_waits_while_the_application_receives_nothing(
    autojump_clock: MockClock,
) -> None:
    class Late(App):
        async def converse(self) -> None:
            await trio.sleep(5)
            await super().converse()

    app = Late(ACCEPT)
    async with open_asgi_websocket(app) as ws:
        for number in range(40):
            ws.send(bytes([number]) * 2**16)
            await ws.drain()
        assert trio.current_time() >= 5
    messages = [event["bytes"] for event in app.received if "bytes" in event]
    assert [message[0] for message in messages] == list(range(40))


@bounded
async def test_leaving_closes_with_1000_and_waits_for_the_application(
    autojump_clock: MockClock,
) -> None:
    class Slow(App):
        async def converse(self) -> None:
            await super().converse()
            await trio.sleep(2)

    app = Slow(ACCEPT)
    async with open_asgi_websocket(app):
        pass
    assert app.received[-1] == {
        "type": "websocket.disconnect",
        "code": 1000,
        "reason": "",
    }
    assert app.returned_at == 2.0


@bounded
async def test_leaving_with_an_exception_closes_with_1011(
    autojump_clock: MockClock,
) -> None:
    app = App(ACCEPT)
    with pytest.raises(ZeroDivisionError):
        async with open_asgi_websocket(app):
            raise ZeroDivisionError
    assert app.received[-1]["code"] == 1011


@bounded
async def test_g6_a_client_that_is_cancelled_leaves_nothing_behind(
    autojump_clock: MockClock,
) -> None:
    for attempt in cancel_at_every_step():
        app = App(ACCEPT, text("a"))
        tasks = trio.lowlevel.current_statistics().tasks_living
        with attempt:
            async with open_asgi_websocket(app) as ws:
                await ws.receive()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert attempt.cancelled or app.returned_at is not None
    assert trio.current_time() == 0.0, "it returns at once"


@bounded
async def test_the_client_closes_and_is_answered_at_once(
    autojump_clock: MockClock,
) -> None:
    app = App(ACCEPT)
    async with open_asgi_websocket(app) as ws:
        ws.send("last")
        ws.close(3000, "bye")
        event = await ws.wait_closed()
    assert (event.code, event.reason, event.was_clean) == (3000, "bye", True)
    assert app.received[1]["text"] == "last"
    assert app.received[2]["code"] == 3000
    assert app.received[2]["reason"] == "bye"


@bounded
async def test_a_close_without_a_code_is_1005_to_the_application(
    autojump_clock: MockClock,
) -> None:
    app = App(ACCEPT)
    async with open_asgi_websocket(app) as ws:
        ws.close()
    assert app.received[-1]["code"] == 1005


@bounded
@pytest.mark.parametrize(
    ("said", "code", "reason"),
    [
        ({"code": 4000, "reason": "größer"}, 4000, "größer"),
        ({}, 1000, ""),
        ({"code": 1001, "reason": None}, 1001, ""),
    ],
)
async def test_the_application_closes(
    autojump_clock: MockClock, said: Event, code: int, reason: str
) -> None:
    app = App(ACCEPT, text("last"), {**CLOSE, **said})
    async with open_asgi_websocket(app) as ws:
        assert await ws.receive() == "last"
        event = await ws.wait_closed()
    assert (event.code, event.reason, event.was_clean) == (code, reason, True)
    assert app.received[-1]["type"] == "websocket.disconnect"
    assert app.received[-1]["code"] == code


@bounded
async def test_both_close_at_once(autojump_clock: MockClock) -> None:
    app = App(ACCEPT, {**CLOSE, "code": 4000})
    async with open_asgi_websocket(app) as ws:
        ws.close(3000)
        assert (await ws.wait_closed()).code == 4000
    assert app.received[-1]["code"] == 3000


@bounded
async def test_g3_messages_sent_before_a_close_arrive_at_a_slow_client(
    autojump_clock: MockClock,
) -> None:
    class Hasty(App):
        async def converse(self) -> None:
            """Return at once, without receiving."""

    says = [text(str(number)) for number in range(5)]
    heard: list[str | bytes] = []
    async with open_asgi_websocket(Hasty(ACCEPT, *says, CLOSE)) as ws:
        await trio.sleep(60)
        async for message in ws:
            heard.append(message)
            await trio.sleep(60)
    assert heard == ["0", "1", "2", "3", "4"]


@bounded
async def test_an_application_that_returns_without_a_close_is_1006(
    autojump_clock: MockClock,
) -> None:
    class Forgetful(App):
        async def converse(self) -> None:
            """Return at once."""

    async with open_asgi_websocket(Forgetful(ACCEPT, text("last"))) as ws:
        assert await ws.receive() == "last"
        with pytest.raises(
            ConnectionClosedError, match="returned without a Close"
        ) as c:
            await ws.receive()
    assert c.value.code == 1006


@bounded
async def test_an_application_that_does_not_return_is_an_error(
    autojump_clock: MockClock,
) -> None:
    class Deaf(App):
        async def converse(self) -> None:
            await trio.sleep_forever()

    with pytest.raises(TimeoutError, match=r"not returned 3\.0 s after"):
        async with open_asgi_websocket(Deaf(ACCEPT), app_timeout=3.0):
            pass
    assert trio.current_time() == 3.0


@bounded
async def test_an_application_that_waits_to_send_gets_the_end_of_the_client(
    autojump_clock: MockClock,
) -> None:
    class Flood(App):
        async def converse(self) -> None:
            while self.error is None:
                await self.try_to_send(text("x" * 1000))

    app = Flood(ACCEPT)
    async with open_asgi_websocket(app, receive_buffer_bytes=1) as ws:
        await trio.sleep(1)
        ws.close(1000)
    assert isinstance(app.error, OSError)


@bounded
async def test_sending_after_the_client_has_closed_raises_as_in_asgi(
    autojump_clock: MockClock,
) -> None:
    class Chatty(App):
        async def converse(self) -> None:
            await super().converse()
            await self.try_to_send(text("too late"))

    app = Chatty(ACCEPT)
    async with open_asgi_websocket(app):
        pass
    assert isinstance(app.error, OSError)


# -- refusing -----------------------------------------------------------------


async def refused(app: App, **options: Any) -> HandshakeError:
    with pytest.raises(HandshakeError) as caught:
        async with open_asgi_websocket(app, **options):
            pytest.fail("this is not open")
    return caught.value


@bounded
async def test_a_close_before_the_accept_is_403_and_then_the_client_has_gone(
    autojump_clock: MockClock,
) -> None:
    app = App({**CLOSE, "code": 4000, "reason": "no"})
    error = await refused(app)
    assert (error.status, error.headers, error.body) == (403, (), b"")
    assert app.received[-1] == {
        "type": "websocket.disconnect",
        "code": 1006,
        "reason": "",
    }
    assert app.returned_at is not None


@bounded
async def test_a_denial_response_has_status_headers_and_body(
    autojump_clock: MockClock,
) -> None:
    headers = [(b"www-authenticate", b"Basic"), (b"set-cookie", b"a=\xe4")]
    error = await refused(
        App(
            {"type": f"{DENIAL}.start", "status": 401, "headers": headers},
            {"type": f"{DENIAL}.body", "body": b"go ", "more_body": True},
            {"type": f"{DENIAL}.body", "body": b"away"},
        )
    )
    assert error.status == 401
    assert error.headers == (("www-authenticate", "Basic"), ("set-cookie", "a=ä"))
    assert error.body == b"go away"
    short = App({"type": f"{DENIAL}.start", "status": 404}, {"type": f"{DENIAL}.body"})
    error = await refused(short)
    assert (error.status, error.headers, error.body) == (404, (), b"")


@bounded
async def test_the_extension_for_denials_can_be_missing(
    autojump_clock: MockClock,
) -> None:
    app = App({"type": f"{DENIAL}.start", "status": 401})
    with pytest.RaisesGroup(
        pytest.RaisesExc(RuntimeError, match="accept or .*close is")
    ):
        async with open_asgi_websocket(app, scope={"extensions": {}}):
            pass


@bounded
async def test_an_application_that_does_not_respond_times_out(
    autojump_clock: MockClock,
) -> None:
    app = App()
    error = await refused(app, app_timeout=3.0)
    assert error.status is None
    assert "in time" in str(error)
    assert trio.current_time() == 3.0
    assert app.received[-1]["code"] == 1006


@bounded
async def test_an_application_that_returns_without_a_response_is_an_error(
    autojump_clock: MockClock,
) -> None:
    class Silent(App):
        async def converse(self) -> None:
            """Return at once."""

    error = await refused(Silent())
    assert error.status is None
    assert "returned without accepting or refusing" in str(error)


@bounded
async def test_an_application_that_does_not_end_after_a_refusal_is_cancelled(
    autojump_clock: MockClock,
) -> None:
    class Deaf(App):
        async def converse(self) -> None:
            await trio.sleep_forever()

    assert (await refused(Deaf(CLOSE), app_timeout=3.0)).status == 403
    assert trio.current_time() == 3.0


# -- mistakes -----------------------------------------------------------------


@bounded
async def test_g7_an_error_of_the_application_is_raised(
    autojump_clock: MockClock,
) -> None:
    class Failing(App):
        async def converse(self) -> None:
            raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError):
        async with open_asgi_websocket(Failing()):
            pytest.fail("this is not open")
    with pytest.RaisesGroup(ZeroDivisionError):
        async with open_asgi_websocket(Failing(ACCEPT)):
            await trio.sleep_forever()


@bounded
@pytest.mark.parametrize(
    ("says", "error"),
    [
        ([text("early")], RuntimeError("websocket.send, but websocket.accept")),
        ([ACCEPT, ACCEPT], RuntimeError("but websocket.send or websocket.close is")),
        ([ACCEPT, CLOSE, text("late")], RuntimeError("but nothing more is expected")),
        ([CLOSE, CLOSE], RuntimeError("but nothing more is expected")),
        ([{"type": "http.response.start"}], RuntimeError("http.response.start")),
        ([ACCEPT, {"type": "websocket.send"}], TypeError("text (str) or bytes")),
        ([ACCEPT, {**text("a"), "bytes": b"b"}], TypeError("'a' and b'b'")),
        ([ACCEPT, {"type": "websocket.send", "text": 1}], TypeError("not 1 and None")),
        ([ACCEPT, {**CLOSE, "code": 1005}], ValueError("1005 can't be sent")),
        ([{**ACCEPT, "subprotocol": "x"}], ValueError("not 'x'")),
    ],
)
async def test_an_invalid_event_raises_in_the_application(
    autojump_clock: MockClock, says: list[Event], error: Exception
) -> None:
    class Careful(App):
        async def converse(self) -> None:
            await self.try_to_send(says[-1])
            await super().converse()

    app = Careful(*says[:-1])
    try:
        async with open_asgi_websocket(app, app_timeout=1.0):
            await trio.testing.wait_all_tasks_blocked()
    except HandshakeError:
        pass
    assert type(app.error) is type(error)
    assert str(error) in str(app.error)


@bounded
async def test_receiving_after_the_disconnect_is_an_error(
    autojump_clock: MockClock,
) -> None:
    class Greedy(App):
        async def converse(self) -> None:
            await super().converse()
            await self.receive()

    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="the last event")):
        async with open_asgi_websocket(Greedy(ACCEPT)):
            pass


@bounded
async def test_arguments_are_checked(autojump_clock: MockClock) -> None:
    bad: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"app_timeout": -1}, ValueError),
        ({"close_grace": "1"}, TypeError),
        ({"receive_buffer_bytes": 0}, ValueError),
    ]
    for arguments, error in bad:
        with pytest.raises(error, match=next(iter(arguments))):
            await open_asgi_websocket(App(ACCEPT), **arguments).__aenter__()


@bounded
async def test_g9_the_buffer_of_the_half_is_bounded(autojump_clock: MockClock) -> None:
    async with open_asgi_websocket(App(ACCEPT)) as ws:
        with pytest.raises(BufferFullError):
            ws.send(bytes(2**26 + 1))

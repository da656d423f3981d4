"""Pairs: the object, its nursery, and the errors of wrong calls."""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import trio
from pairs import bounded
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wspair import (
    BufferFullError,
    ConnectionClosedError,
    InvalidStateError,
    MessageEvent,
    ReadyState,
    WebSocket,
    WebSocketError,
    WebSocketPair,
    open_websocket_pair,
)
from trio_wspair._pair.owner import Owner, current_owner
from trio_wspair.transports import couple

# -- the pair object ---------------------------------------------


@bounded
async def test_a_pair_is_exactly_two_web_sockets(nursery: trio.Nursery) -> None:
    pair = WebSocketPair(nursery)
    assert len(pair) == 2
    client, server = pair
    assert isinstance(client, WebSocket)
    assert isinstance(server, WebSocket)
    assert client is not server
    assert pair[0] is pair[-2] is client
    assert pair[1] is pair[-1] is server
    assert pair[:] == (client, server)
    assert list(reversed(pair)) == [server, client]
    assert server in pair
    with pytest.raises(IndexError):
        pair[2]


@bounded
async def test_a_new_half_is_open_and_has_no_holder(nursery: trio.Nursery) -> None:
    for half in WebSocketPair(nursery):
        assert half.ready_state is ReadyState.OPEN
        assert (half.url, half.protocol, half.extensions) == (None, "", "")
        assert half.buffered_amount == 0
        assert half.deserialize_attachment() is None


@bounded
async def test_untaken_halves_keep_the_messages_sent_to_them(
    autojump_clock: MockClock,
) -> None:
    async with open_websocket_pair() as (client, server):
        client.accept()
        client.send("held")
        await trio.sleep(100)
        assert client.buffered_amount == 4
        heard: list[str | bytes] = []

        @server.on("message")
        def listen(event: MessageEvent) -> None:
            heard.append(event.data)

        server.accept()
        await client.drain()
    assert heard == ["held"]


@bounded
async def test_the_attachments_of_the_two_halves_are_separate_copies(
    nursery: trio.Nursery,
) -> None:
    client, server = WebSocketPair(nursery)
    value = {"user": "Ada", "rooms": [1, 2]}
    client.serialize_attachment(value)
    value["user"] = "changed later"
    assert client.deserialize_attachment() == {"user": "Ada", "rooms": [1, 2]}
    assert client.deserialize_attachment() is not client.deserialize_attachment()
    assert server.deserialize_attachment() is None
    client.serialize_attachment(None)
    assert client.deserialize_attachment() is None


@bounded
async def test_reprs_show_state_holder_and_codes(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        pair = client, server = WebSocketPair(nursery)
        assert repr(pair) == (
            "<WebSocketPair <WebSocket OPEN, not accepted> "
            "<WebSocket OPEN, not accepted>>"
        )
        client.accept()
        assert repr(client) == "<WebSocket OPEN, accepted>"
        server.accept(pull=True)
        assert repr(server) == "<WebSocket OPEN, accepted for receive()>"
        client.close(3000)
        assert repr(client) == "<WebSocket CLOSING, accepted, sent Close 3000>"
        await client.wait_closed()
        assert repr(client) == (
            "<WebSocket CLOSED, accepted, sent Close 3000, received Close 3000>"
        )
    with pytest.RaisesGroup(ValueError):
        async with trio.open_nursery() as nursery:
            client, server = WebSocketPair(nursery)
            client.accept()
            server.accept()

            @server.on("message")
            def fail(_event: MessageEvent) -> None:
                raise ValueError("no such room")

            client.send("x")
    assert repr(server) == (
        "<WebSocket CLOSED, accepted, sent Close 1011, "
        "failed with ValueError('no such room')>"
    )


# -- its nursery -------------------------------------------------


@bounded
async def test_a_pair_starts_nothing_before_accept(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        WebSocketPair(nursery)
        assert not nursery.child_tasks
    # The nursery has ended without being cancelled.


@bounded
async def test_one_task_serves_all_halves_of_a_nursery(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        pairs = [WebSocketPair(nursery) for _ in range(100)]
        for pair in pairs:
            for half in pair:
                half.accept()
        assert len(nursery.child_tasks) == 1
        for client, _server in pairs:
            client.close()


@bounded
async def test_pairs_of_different_nurseries_are_independent(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as outer:
        survivor = WebSocketPair(outer)
        async with trio.open_nursery() as inner:
            victim = WebSocketPair(inner)
            for half in (*survivor, *victim):
                half.accept()
            await wait_all_tasks_blocked()
            inner.cancel_scope.cancel()
        assert [half.ready_state for half in victim] == [ReadyState.CLOSED] * 2
        assert [half.ready_state for half in survivor] == [ReadyState.OPEN] * 2
        survivor[0].close()


@bounded
async def test_a_pair_without_a_nursery_lives_in_the_nursery_of_the_request(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        token = current_owner.set(Owner(nursery))
        client, server = WebSocketPair()
        current_owner.reset(token)
        client.accept()
        assert len(nursery.child_tasks) == 1
        server.accept()
        client.close()


@bounded
async def test_accept_after_the_nursery_has_ended_is_an_error_and_changes_nothing(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        client, _server = WebSocketPair(nursery)
    for _ in range(2):
        with pytest.raises(InvalidStateError, match="nursery of this half has ended"):
            client.accept()
        with pytest.raises(InvalidStateError, match="nursery of this half has ended"):
            await client.receive()
        assert repr(client) == "<WebSocket OPEN, not accepted>"


@bounded
async def test_accept_in_a_cancelled_nursery_ends_with_one_close_event(
    autojump_clock: MockClock,
) -> None:
    codes: list[int] = []
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        for half in client, server:
            half.onclose = lambda event: codes.append(event.code)
        nursery.cancel_scope.cancel()
        client.accept()
        server.accept(pull=True)
    assert codes == [1006, 1006]


# -- wrong calls: arguments --------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (
            {"max_buffered_bytes": 0},
            ValueError,
            "max_buffered_bytes must be at least 1, not 0",
        ),
        (
            {"max_buffered_bytes": 1.5},
            TypeError,
            "max_buffered_bytes must be an int, not 1.5",
        ),
        (
            {"max_buffered_bytes": True},
            TypeError,
            "max_buffered_bytes must be an int, not True",
        ),
        (
            {"close_grace": -1},
            ValueError,
            "close_grace must be 0 or more seconds, not -1",
        ),
        (
            {"close_grace": float("nan")},
            ValueError,
            "close_grace must be 0 or more seconds, not nan",
        ),
        (
            {"close_grace": None},
            TypeError,
            "close_grace must be a number of seconds, not None",
        ),
    ],
)
@bounded
async def test_wrong_options_of_a_pair_are_named(
    nursery: trio.Nursery,
    options: dict[str, Any],
    kind: type[Exception],
    message: str,
) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        WebSocketPair(nursery, **options)
    with pytest.raises(kind, match=re.escape(message)):
        async with open_websocket_pair(**options):
            pytest.fail("the block was entered")


@bounded
async def test_a_pair_without_a_nursery_points_to_open_websocket_pair() -> None:
    with pytest.raises(
        InvalidStateError, match=r"use `async with open_websocket_pair\(\)`, or pass a"
    ):
        WebSocketPair()


@bounded
async def test_a_pair_refuses_a_nursery_of_another_type() -> None:
    with pytest.raises(TypeError, match=r"must be a trio\.Nursery, not CancelScope"):
        WebSocketPair(trio.CancelScope())  # type: ignore[arg-type] # on purpose


Wrong = Callable[[WebSocket], object]
WRONG_ARGUMENTS: list[tuple[str, Wrong, type[Exception], str]] = [
    # Calls on an accepted half, and the words that the error must contain.
    (
        "send None",
        lambda half: half.send(None),  # type: ignore[arg-type] # on purpose
        TypeError,
        "send() takes str, bytes-like, int or float, not NoneType: did you mean",
    ),
    (
        "send a dict",
        lambda half: half.send({}),  # type: ignore[arg-type] # on purpose
        TypeError,
        "did you mean send(json.dumps(...))?",
    ),
    (
        "send True",
        lambda half: half.send(bool("x")),
        TypeError,
        "not bool: did you mean send(json.dumps(...))?",
    ),
    (
        "close with 1006",
        lambda half: half.close(1006),
        ValueError,
        "close code 1006 can't be sent: use 1000 for a normal end, or 3000-4999",
    ),
    (
        "close with 999",
        lambda half: half.close(999),
        ValueError,
        "close code 999 can't be sent: use 1000 for a normal end, or 3000-4999",
    ),
    (
        "close with text",
        lambda half: half.close("1000"),  # type: ignore[arg-type] # on purpose
        TypeError,
        "a close code is an int such as 1000, not '1000'",
    ),
    (
        "close with a bytes reason",
        lambda half: half.close(1000, b"bye"),  # type: ignore[arg-type] # on purpose
        TypeError,
        "a close reason is a str, not bytes",
    ),
    (
        "close with a long reason",
        lambda half: half.close(1000, "x" * 124),
        ValueError,
        "at most 123 bytes of UTF-8, this one has 124: send it as a message before",
    ),
    (
        "close with a reason alone",
        lambda half: half.close(reason="bye"),
        ValueError,
        "a close reason needs a code: close(1000, reason)",
    ),
    (
        "listen for open",
        lambda half: half.add_event_listener("open", print),  # type: ignore[call-overload] # on purpose
        ValueError,
        "no event is called 'open': a WebSocket has 'message', 'close' and 'error'",
    ),
    (
        "listen the wrong way round",
        lambda half: half.add_event_listener(print, "message"),  # type: ignore[call-overload] # on purpose
        ValueError,
        "a WebSocket has 'message', 'close' and 'error'",
    ),
    (
        "listen with what can't be called",
        lambda half: half.add_event_listener("message", None),  # type: ignore[call-overload] # on purpose
        TypeError,
        "a listener is a callable that takes the event, not NoneType",
    ),
    (
        "stop listening for open",
        lambda half: half.remove_event_listener("open", print),  # type: ignore[call-overload] # on purpose
        ValueError,
        "no event is called 'open'",
    ),
    (
        "decorate for open",
        lambda half: half.on("open")(print),  # type: ignore[call-overload] # on purpose
        ValueError,
        "no event is called 'open'",
    ),
    (
        "decorate without saying for what",
        lambda half: half.on(print),  # type: ignore[call-overload] # on purpose
        ValueError,
        "a WebSocket has 'message', 'close' and 'error'",
    ),
    (
        "put into a slot what can't be called",
        lambda half: setattr(half, "onmessage", "listener"),
        TypeError,
        "a listener is a callable that takes the event, not str",
    ),
    (
        "accept with a number",
        lambda half: half.accept(pull=1),  # type: ignore[arg-type] # on purpose
        TypeError,
        "accept() takes True or False, not 1",
    ),
    (
        "attach an object",
        lambda half: half.serialize_attachment(object()),
        TypeError,
        "Attach None, bool, int, float, str, bytes, aware datetimes, and lists",
    ),
    (
        "attach too much",
        lambda half: half.serialize_attachment("x" * 20_000),
        ValueError,
        "at most 16384 bytes, this one 20003: keep the data elsewhere and attach a key",
    ),
]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [pytest.param(*row[1:], id=row[0]) for row in WRONG_ARGUMENTS],
)
@bounded
async def test_the_error_for_a_wrong_argument_says_what_to_do(
    call: Wrong, kind: type[Exception], message: str
) -> None:
    async with open_websocket_pair() as (client, server):
        client.accept()
        server.accept()
        with pytest.raises(kind, match=re.escape(message)):
            call(client)


@pytest.mark.parametrize(
    ("max_bytes", "kind"), [(-1, ValueError), ("all", TypeError), (None, TypeError)]
)
@bounded
async def test_drain_refuses_what_it_could_wait_for_forever(
    autojump_clock: MockClock, max_bytes: Any, kind: type[Exception]
) -> None:
    async with open_websocket_pair() as (client, _server):
        client.accept()
        with trio.fail_after(5), pytest.raises(kind, match="max_bytes must be"):
            await client.drain(max_bytes)


# -- wrong calls: the moment -------------------------------------


@pytest.mark.parametrize(
    ("verb", "call"),
    [
        ("send()", lambda half: half.send("x")),
        ("close()", lambda half: half.close()),
    ],
)
@bounded
async def test_before_accept_the_error_names_accept(verb: str, call: Wrong) -> None:
    message = f"call accept() before {verb}: this half is not accepted yet"
    async with open_websocket_pair() as (client, _server):
        with pytest.raises(InvalidStateError, match=re.escape(message)) as caught:
            call(client)
    assert isinstance(caught.value, WebSocketError)
    assert isinstance(caught.value, RuntimeError)


@bounded
async def test_drain_before_accept_names_accept() -> None:
    async with open_websocket_pair() as (client, _server):
        with pytest.raises(InvalidStateError, match=r"call accept\(\) before drain"):
            await client.drain()


@bounded
async def test_send_after_close_says_so(autojump_clock: MockClock) -> None:
    async with open_websocket_pair() as (client, _server):
        client.accept()
        client.close(3000)
        with pytest.raises(InvalidStateError, match=r"send\(\) after close\(\)"):
            client.send("x")


@pytest.mark.parametrize("before", ["before the peer answers", "after it"])
@bounded
async def test_send_after_close_is_an_invalid_state_whatever_the_peer_does(
    autojump_clock: MockClock, before: str
) -> None:
    async with open_websocket_pair() as (client, server):
        client.accept()
        server.accept()
        client.close(3000)
        if before == "after it":
            await client.wait_closed()
        with pytest.raises(InvalidStateError, match=r"send\(\) after close\(\)"):
            client.send("x")


@bounded
async def test_send_to_a_peer_that_has_closed_raises_with_its_code(
    autojump_clock: MockClock,
) -> None:
    async with open_websocket_pair() as (client, server):
        client.accept()
        server.accept()
        client.close(3000, "enough")
        await server.wait_closed()
        message = "the connection has closed cleanly with code 3000: enough"
        with pytest.raises(ConnectionClosedError, match=f"^{message}$") as caught:
            server.send("x")
        error = caught.value
        assert (error.code, error.reason, error.was_clean) == (3000, "enough", True)


@bounded
async def test_a_full_buffer_points_to_drain() -> None:
    async with open_websocket_pair(max_buffered_bytes=100) as (client, _server):
        client.accept()
        client.send("x" * 80)
        message = (
            "80 bytes wait for the other side already, and this message of 40 would "
            "pass the limit of 100 (max_buffered_bytes; a message counts at least 64): "
            "await drain() before sending"
        )
        with pytest.raises(BufferFullError, match=re.escape(message)):
            client.send("y" * 40)


@bounded
async def test_accept_after_closing_shows_the_state(autojump_clock: MockClock) -> None:
    async with open_websocket_pair() as (client, server):
        client.accept()
        server.accept()
        await client.aclose(3000)
        message = (
            "too late for accept(): this half is CLOSED, accepted, sent Close 3000, "
            "received Close 3000"
        )
        with pytest.raises(InvalidStateError, match=re.escape(message)):
            client.accept()


@bounded
async def test_receive_on_a_half_with_listeners_names_the_option(
    autojump_clock: MockClock,
) -> None:
    async with open_websocket_pair() as (client, _server):
        client.accept()
        message = "To receive() or iterate, call accept(pull=True) first"
        with pytest.raises(InvalidStateError, match=re.escape(message)):
            await client.receive()


@bounded
async def test_ping_without_a_network_says_so(autojump_clock: MockClock) -> None:
    async with open_websocket_pair() as (client, _server):
        client.accept()
        with pytest.raises(InvalidStateError, match="needs a network connection"):
            await client.ping()


@bounded
async def test_python_refuses_a_for_loop_without_async(
    nursery: trio.Nursery,
) -> None:
    client, _server = WebSocketPair(nursery)
    with pytest.raises(TypeError, match="not iterable"):
        list(client)  # type: ignore[call-overload] # on purpose


class Silence:
    """A connection that never receives anything."""

    async def receive(self) -> Sequence[str]:
        await trio.sleep_forever()
        raise AssertionError

    async def send(self, _items: Sequence[object]) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self, _code: int, _reason: str) -> None:
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        pass


AsyncWrong = Callable[[WebSocket], Awaitable[object]]


@bounded
async def test_the_error_of_a_half_that_a_connection_holds_names_the_other_half(
    autojump_clock: MockClock,
) -> None:
    sync_verbs: dict[str, Wrong] = {
        "send()": lambda half: half.send("x"),
        "close()": lambda half: half.close(),
    }
    async_verbs: dict[str, AsyncWrong] = {
        "drain()": lambda half: half.drain(),
        "close()": lambda half: half.aclose(),
    }
    async with trio.open_nursery() as nursery:
        client, server = WebSocketPair(nursery)
        server.accept()
        nursery.start_soon(couple, client, Silence())
        await wait_all_tasks_blocked()
        for verb, call in sync_verbs.items():
            message = f"{verb} on a half that was given to a connection: use the other"
            with pytest.raises(InvalidStateError, match=re.escape(message)):
                call(client)
        for verb, async_call in async_verbs.items():
            message = f"{verb} on a half that was given to a connection: use the other"
            with pytest.raises(InvalidStateError, match=re.escape(message)):
                await async_call(client)
        message = "too late for accept(): this half is OPEN, given to a connection"
        with pytest.raises(InvalidStateError, match=re.escape(message)):
            client.accept()
        message = "receive() on a half that is given to a connection: its messages go"
        with pytest.raises(InvalidStateError, match=re.escape(message)):
            await client.receive()
        nursery.cancel_scope.cancel()


@bounded
async def test_an_accepted_half_cannot_be_coupled(
    autojump_clock: MockClock,
) -> None:
    async with open_websocket_pair() as (client, _server):
        client.accept()
        with pytest.raises(InvalidStateError, match="too late for handing it to a"):
            await couple(client, Silence())

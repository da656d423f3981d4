"""Bugs of trio-websocket 0.12.2 that the engine avoids, on real sockets."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket
from network import Logged, Network, OneEnd

from trio_wspair import (
    CloseEvent,
    ConnectionClosedError,
    ErrorEvent,
    HandshakeError,
    MessageEvent,
    ProtocolError,
    ReadyState,
    Request,
    Response,
    WebSocketPair,
    connect,
    open_websocket,
)
from trio_wspair.testing import ScriptedPeer
from trio_wspair.transports import open_client_connection

# -- a cancelled send_message() tears a frame and corrupts the stream ---------


async def test_a_cancelled_send_tears_no_frame(one_end: OneEnd) -> None:
    large = bytes(range(256)) * 2**15
    async with one_end() as (half, peer), trio.open_nursery() as nursery:
        half.accept()

        async def send() -> None:
            half.send(large)
            await half.drain()

        nursery.start_soon(send)
        await trio.sleep(0.05)  # The peer hasn't read, so the frame is partly written.
        assert half.buffered_amount == len(large)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            half.send("whole")
            assert await peer.receive() == large
            assert await peer.receive() == "whole"


# -- leaving open_websocket() hangs when the peer never closes TCP ------------


@pytest.mark.parametrize("cancelled", [False, True])
async def test_leaving_open_websocket_ends_although_tcp_is_never_closed(
    net: Network, *, cancelled: bool
) -> None:
    heard: list[Any] = []

    async def script(peer: "ScriptedPeer") -> None:
        await peer.handshake()
        heard.append(await peer.receive())
        await peer.send(peer.close_frame(1000))
        await trio.sleep_forever()

    async with net.script(script) as url:
        before = net.open_sockets()
        with trio.CancelScope() as scope:
            async with open_websocket(url, close_grace=0.1):
                if cancelled:
                    scope.cancel()
                    await trio.sleep_forever()
        # Only the listening socket of the server is left.
        await net.until_open_sockets(before + 1)
        assert heard == [(1001 if cancelled else 1000, "")]


# -- the socket stays open after a peer-initiated close, or 1009 --------------


async def send_close(peer: "ScriptedPeer") -> None:
    await peer.send(peer.close_frame(1000))


async def send_too_much(peer: "ScriptedPeer") -> None:
    await peer.send(peer.frame(2, bytes(1001)))


async def send_invalid_frames(peer: "ScriptedPeer") -> None:
    await peer.send(b"\xff" * 10)


@pytest.mark.parametrize("end", [send_close, send_too_much, send_invalid_frames])
@pytest.mark.parametrize("stays", [False, True], ids=["peer leaves", "peer stays"])
async def test_no_socket_is_left_after_an_end_by_the_peer(
    net: Network,
    one_end: OneEnd,
    end: Callable[["ScriptedPeer"], Any],
    *,
    stays: bool,
) -> None:
    async with one_end(max_message_bytes=1000, close_grace=0.2) as (half, peer):
        half.accept()
        before = net.open_sockets()
        await end(peer)
        said = await peer.receive()
        assert isinstance(said, tuple)
        await half.wait_closed()
        if stays:
            await net.until_open_sockets(before - 1)
        else:
            await peer.stream.aclose()
            await net.until_open_sockets(before - 2)


# -- a pending ping never returns when the connection drops -------------------


async def vanish(peer: "ScriptedPeer") -> None:
    await peer.stream.aclose()


async def close(peer: "ScriptedPeer") -> None:
    await peer.send(peer.close_frame(4000, "done"))


@pytest.mark.parametrize("end", [vanish, close, send_invalid_frames])
async def test_a_pending_ping_fails_when_the_connection_ends(
    net: Network, one_end: OneEnd, end: Callable[["ScriptedPeer"], Any]
) -> None:
    async with one_end() as (half, peer), trio.open_nursery() as nursery:
        half.accept()
        failed: list[ConnectionClosedError] = []

        async def ping() -> None:
            with pytest.raises(ConnectionClosedError) as caught:
                await half.ping()
            failed.append(caught.value)

        nursery.start_soon(ping)
        nursery.start_soon(ping)
        for _ in range(2):
            said = await peer.receive()
            assert isinstance(said, tuple)
            assert said[0] == "ping"
        await end(peer)
        await net.until(lambda: len(failed) == 2)
        await half.wait_closed()
        with pytest.raises(ConnectionClosedError):
            await half.ping()


async def test_pongs_are_matched_with_their_pings(
    net: Network, one_end: OneEnd
) -> None:
    async with one_end() as (half, peer), trio.open_nursery() as nursery:
        half.accept()
        times: list[float] = []

        async def ping() -> None:
            times.append(await half.ping())

        for _ in range(3):
            times.clear()
            nursery.start_soon(ping)
            said = await peer.receive()
            assert isinstance(said, tuple)
            await peer.send(
                peer.frame(10, b"unasked for"),
                peer.frame(10, said[1]),  # type: ignore[arg-type]  # of a ping: bytes
                peer.frame(10, b""),
            )
            await net.until(lambda: times)
            assert times[0] >= 0


async def test_a_cancelled_ping_is_forgotten(one_end: OneEnd) -> None:
    async with one_end() as (half, peer):
        half.accept()
        for _ in range(3):
            with trio.move_on_after(0.01) as scope:
                await half.ping()
            assert scope.cancelled_caught
        with trio.move_on_after(0.01) as scope:
            await half.ping()
        assert half.ready_state is ReadyState.OPEN
        for _ in range(4):
            said = await peer.receive()
            assert isinstance(said, tuple)
            assert said[0] == "ping"


# -- a full message queue stalls pings and closes -----------------------------


async def test_many_unread_messages_delay_neither_pings_nor_closes(
    one_end: OneEnd,
) -> None:
    async with one_end() as (half, peer):
        half.accept(pull=True)
        await peer.send(*[peer.text_frame(str(number)) for number in range(1000)])
        await peer.send(peer.frame(9, b"are you there?"))
        assert await peer.receive() == ("pong", b"are you there?")
        half.close(4000, "done")
        assert await peer.receive() == (4000, "done")


# -- an exception of a handler sends 1000 and ends the server -----------------


async def test_an_exception_of_a_listener_sends_1011_and_the_server_goes_on(
    net: Network, logged: Logged
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()

        @server.on("message")
        def listen(event: MessageEvent) -> None:
            msg = "listener"
            raise KeyError(msg)

        server.accept()
        return Response(None, status=101, web_socket=client)

    async with net.serve(fetch) as server:
        for _ in range(3):
            async with net.peer(server) as peer:
                await peer.send(peer.text_frame("a"))
                assert await peer.receive() == (1011, "")
                await peer.send(peer.close_frame(1011))
                assert await peer.receive() is None
            assert "KeyError: 'listener'" in logged.take()


async def test_an_exception_before_the_101_sends_500_and_the_server_goes_on(
    net: Network, logged: Logged
) -> None:
    async def fetch(request: Request) -> Response:
        _, server = WebSocketPair()
        server.accept()
        msg = "fetch"
        raise KeyError(msg)

    async with net.serve(fetch) as server:
        for _ in range(3):
            async with net.dial(server) as peer:
                assert (await peer.handshake()).startswith("HTTP/1.1 500 ")
            assert "KeyError: 'fetch'" in logged.take()


async def test_an_exception_of_a_task_of_the_request_ends_the_connection(
    net: Network, logged: Logged
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()

        async def pull() -> None:
            async for message in server:
                raise KeyError(message)

        request.nursery.start_soon(pull)
        return Response(None, status=101, web_socket=client)

    async with net.serve(fetch) as server:
        for _ in range(3):
            async with net.peer(server) as peer:
                await peer.send(peer.text_frame("a"))
                said = await peer.receive()
                assert said in {(1011, ""), (1001, "")}, "not 1000"
                await peer.send(peer.close_frame(1000))
                assert await peer.receive() is None
            assert "KeyError: 'a'" in logged.take()


async def test_an_exception_before_the_half_is_accepted_ends_the_connection(
    net: Network, logged: Logged
) -> None:
    async def fetch(request: Request) -> Response:
        client, _ = WebSocketPair()

        async def fail() -> None:
            msg = "task"
            raise KeyError(msg)

        request.nursery.start_soon(fail)
        return Response(None, status=101, web_socket=client)

    async with net.serve(fetch) as server, net.peer(server) as peer:
        said: Any = "nothing"
        with trio.move_on_after(1):
            said = await peer.receive()
        assert "KeyError: 'task'" in logged.take()
        assert said == (1011, ""), "the connection was left open"


# -- the size of a message is counted in characters, not in bytes -------------


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("x" * 3000, True),
        ("x" * 3001, False),
        ("€" * 1000, True),
        ("€" * 1000 + "x", False),
        ("𝄞" * 750, True),
        ("𝄞" * 750 + "x", False),
    ],
    ids=lambda value: f"{value[0]}{len(value)}" if isinstance(value, str) else None,
)
@pytest.mark.parametrize("fragments", [1, 3])
async def test_the_size_of_a_message_is_counted_in_bytes(
    net: Network, one_end: OneEnd, text: str, fragments: int, *, fits: bool
) -> None:
    async with one_end(max_message_bytes=3000) as (half, peer):
        heard = net.accept(half)
        data = text.encode()
        cut = -(-len(data) // fragments)
        parts = [data[start : start + cut] for start in range(0, len(data), cut)]
        for number, part in enumerate(parts):
            opcode = net.CONTINUATION if number else net.TEXT
            last = number == len(parts) - 1
            await peer.send(peer.frame(opcode, part, fin=last))
        await peer.send(peer.text_frame("next"))
        if fits:
            await net.until(lambda: len(heard) == 2)
            assert heard == [text, "next"]
            return
        said = await peer.receive()
        assert isinstance(said, tuple)
        assert said[0] == 1009
        assert "3000 bytes" in str(said[1])
        error, closed = heard
        assert isinstance(error, ErrorEvent)
        assert isinstance(error.error, ProtocolError)
        assert error.error.code == 1009
        assert isinstance(closed, CloseEvent)
        assert closed.code == 1006


async def test_a_close_of_the_peer_with_1009_is_a_close_of_the_peer(
    net: Network, one_end: OneEnd
) -> None:
    # The reason of a trio-websocket peer with the same limit.
    reason = "Exceeded maximum message size: 3000 bytes"
    async with one_end(max_message_bytes=3000) as (half, peer):
        heard = net.accept(half)
        await peer.send(peer.close_frame(1009, reason))
        assert await peer.receive() == (1009, reason)
        await half.wait_closed()
        assert heard == [CloseEvent(1009, reason, was_clean=True)]


# -- aclose() discards what arrives after our Close; a ping then crashes the reader


async def test_messages_that_arrive_after_our_close_are_delivered(
    net: Network, one_end: OneEnd
) -> None:
    async with one_end() as (half, peer):
        heard = net.accept(half)
        half.close(4000, "done")
        assert await peer.receive() == (4000, "done")
        await peer.send(
            peer.text_frame("late"),
            peer.frame(9, b"ping"),
            peer.text_frame("later"),
            peer.frame(10, b"pong"),
            peer.text_frame("latest"),
            peer.close_frame(4001, "me too"),
        )
        await half.wait_closed()
        end = CloseEvent(4001, "me too", was_clean=True)
        assert heard == ["late", "later", "latest", end]
        await peer.stream.aclose()


async def test_messages_that_arrive_after_our_close_can_be_pulled(
    one_end: OneEnd,
) -> None:
    async with one_end() as (half, peer):
        half.accept(pull=True)
        half.close(4000, "done")
        assert await peer.receive() == (4000, "done")
        await peer.send(
            peer.text_frame("late"), peer.frame(9), peer.text_frame("later")
        )
        await peer.send(peer.close_frame(1000))
        assert [message async for message in half] == ["late", "later"]


async def test_no_frame_is_sent_after_our_close(one_end: OneEnd) -> None:
    async with one_end() as (half, peer):
        half.accept()
        half.close(4000, "done")
        await peer.send(*[peer.frame(9, b"ping")] * 10, peer.close_frame(1000))
        said: list[Any] = []
        while (more := await peer.receive()) is not None:
            said.append(more)
            if more == (4000, "done") and peer.masks is False:
                break  # A client waits until its server ends TCP.
        assert said[-1] == (4000, "done")
        assert set(said[:-1]) <= {("pong", b"ping")}


# -- on a protocol error it sends no Close, and reports one as if from the peer


def nonsense(masks: bool) -> dict[str, tuple[int, bytes]]:
    """Return invalid frames of a peer, and the close codes for them."""
    bit = 0x80 if masks else 0
    mask = bytes(4) if masks else b""

    def frame(first: int, payload: bytes) -> bytes:
        return bytes([first, bit | len(payload)]) + mask + payload

    return {
        "reserved bit 1": (1002, frame(0xC1, b"")),
        "reserved bit 3": (1002, frame(0x91, b"")),
        "data opcode 3": (1002, frame(0x83, b"")),
        "control opcode 11": (1002, frame(0x8B, b"")),
        "ping in pieces": (1002, frame(0x09, b"")),
        "close in pieces": (1002, frame(0x08, b"\x03\xe8")),
        "long ping": (1002, bytes([0x89, bit | 126, 0, 126]) + mask + bytes(126)),
        "masked the wrong way": (
            1002,
            bytes([0x81, 0x80 - bit]) + (b"" if masks else bytes(4)),
        ),
        "continuation of nothing": (1002, frame(0x80, b"a")),
        "text within a text": (1002, frame(0x01, b"a") + frame(0x81, b"b")),
        "length too long a way": (
            1002,
            bytes([0x81, bit | 126, 0, 5]) + mask + b"hello",
        ),
        "negative length": (1002, bytes([0x82, bit | 127, 0x80]) + bytes(7) + mask),
        "bad UTF-8": (1007, frame(0x81, b"\xff")),
        "surrogate": (1007, frame(0x81, "\ud800".encode("utf-8", "surrogatepass"))),
        "UTF-8 cut short": (1007, frame(0x81, "é".encode()[:1])),
        "bad UTF-8 in pieces": (1007, frame(0x01, b"\xc3") + frame(0x80, b"\x28")),
        "close with one byte": (1002, frame(0x88, b"\x03")),
        "close 999": (1002, frame(0x88, (999).to_bytes(2, "big"))),
        "close 1005": (1002, frame(0x88, (1005).to_bytes(2, "big"))),
        "close 1006": (1002, frame(0x88, (1006).to_bytes(2, "big"))),
        "close 2000": (1002, frame(0x88, (2000).to_bytes(2, "big"))),
        "close 5000": (1002, frame(0x88, (5000).to_bytes(2, "big"))),
        "close with bad UTF-8": (1007, frame(0x88, b"\x03\xe8\xff")),
        "too much": (1009, frame(0x02, bytes(100)) + frame(0x80, bytes(100))),
    }


@pytest.mark.parametrize("name", nonsense(masks=True))
async def test_a_protocol_error_is_answered_and_reported_as_ours(
    net: Network, one_end: OneEnd, name: str
) -> None:
    async with one_end(max_message_bytes=150) as (half, peer):
        code, data = nonsense(peer.masks)[name]
        heard = net.accept(half)
        await peer.send(peer.text_frame("before"), data, peer.text_frame("after"))
        said = await peer.receive()
        assert isinstance(said, tuple)
        assert said[0] == code
        assert said[1], "the error names the problem"
        await peer.stream.aclose()
        await half.wait_closed()
        first, error, closed = heard
        assert first == "before"
        assert isinstance(error, ErrorEvent)
        assert isinstance(error.error, ProtocolError)
        assert error.error.code == code
        assert isinstance(closed, CloseEvent)
        assert (closed.code, closed.was_clean) == (1006, False)
        with pytest.raises(ConnectionClosedError):
            half.send("too late")


async def test_the_close_for_a_protocol_error_is_not_destroyed_by_a_reset(
    one_end: OneEnd,
) -> None:
    async with one_end() as (half, peer), trio.open_nursery() as nursery:
        half.accept()

        async def flood() -> None:
            # The peer may still be sending when the stream is closed below.
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                for _ in range(100):
                    await peer.send(bytes(2**16))

        await peer.send(b"\xff" * 9)
        nursery.start_soon(flood)  # Closing a socket with unread bytes would reset it.
        said = await peer.receive()
        assert isinstance(said, tuple)
        assert said[0] == 1002
        await trio.sleep(0.05)
        assert await peer.stream.receive_some(1) == b"", "the end, and no reset"
        await peer.stream.aclose()


async def test_a_client_lets_the_server_end_tcp_first(net: Network) -> None:
    async with net.client_end() as (half, peer):  # RFC 6455, section 7.1.1
        half.accept()
        before = net.open_sockets()
        await peer.send(peer.close_frame(1000))
        assert await peer.receive() == (1000, "")
        await trio.sleep(0.1)
        assert net.open_sockets() == before
        await peer.stream.aclose()
        await net.until_open_sockets(before - 2)


async def test_a_protocol_error_after_our_close_is_still_reported(
    net: Network, one_end: OneEnd
) -> None:
    async with one_end() as (half, peer):
        heard = net.accept(half)
        half.close(4000, "done")
        assert await peer.receive() == (4000, "done")
        await peer.send(b"\xff" * 9)
        await half.wait_closed()
        error, closed = heard
        assert isinstance(error, ErrorEvent)
        assert isinstance(error.error, ProtocolError)
        assert isinstance(closed, CloseEvent)
        assert closed.code == 1006
        assert await peer.receive() is None, "no second Close"


# -- it answers a Close before the application sees it, and what send() took vanishes


async def test_half_open_works_on_the_wire(net: Network, one_end: OneEnd) -> None:
    async with one_end() as (half, peer):
        heard = net.accept(half, allow_half_open=True)
        await peer.send(peer.text_frame("last"), peer.close_frame(4000, "done"))
        end = CloseEvent(4000, "done", was_clean=True)
        await net.until(lambda: end in heard)
        assert half.ready_state is ReadyState.CLOSING
        half.send("one more")
        assert await peer.receive() == "one more"
        half.send(b"and another")
        half.close(4001, "now I")
        assert await peer.receive() == b"and another"
        assert await peer.receive() == (4001, "now I")
        assert await half.wait_closed() == end
        assert heard == ["last", end]


async def test_messages_sent_before_the_close_was_read_arrive(
    net: Network,
) -> None:
    async with net.serve_halves() as (server, halves), net.peer(server) as peer:
        half = await halves.receive()
        half.accept()
        half.send("crossing")  # The message is in transit when the Close is sent.
        await peer.send(peer.close_frame(4000, "done"))
        assert await peer.receive_all() == ["crossing", (4000, "done")]


async def test_half_open_between_two_of_ours(net: Network) -> None:
    async with net.joined() as (client, server):
        heard = net.accept(server, allow_half_open=True)
        client.accept(pull=True)
        client.send("question")
        client.close(4000, "asked")
        await net.until(lambda: len(heard) == 2)
        server.send("answer")
        server.send("another")
        server.close(1000)
        assert [message async for message in client] == ["answer", "another"]
        assert heard == ["question", CloseEvent(4000, "asked", was_clean=True)]


# -- wrap_..._stream() never returns on EOF; a garbage response raises from the nursery


@pytest.mark.parametrize("size", [0, 1, 40, -1])
async def test_the_end_of_tcp_within_a_request_ends_the_connection(
    net: Network, size: int
) -> None:
    async with net.serve(net.echo, handshake_timeout=60) as server:
        before = net.open_sockets()
        async with net.dial(server) as peer:
            await peer.send(net.head(*net.UPGRADE)[:size])
            assert isinstance(peer.stream, trio.SocketStream)
            await peer.stream.send_eof()
            assert await peer.read_all() == b""
        await net.until_open_sockets(before)


@pytest.mark.parametrize("size", [0, 1, 20, -1])
async def test_the_end_of_tcp_within_a_response_is_a_handshake_error(
    net: Network, size: int
) -> None:
    answer = net.head("Upgrade: websocket", start="HTTP/1.1 101 Switching Protocols")

    async def script(peer: "ScriptedPeer") -> None:
        await peer.read_head()
        await peer.send(answer[:size])

    async with net.script(script) as url:
        with pytest.raises(HandshakeError):
            async with open_websocket(url, connect_timeout=60):
                pass


async def test_a_garbage_response_is_only_a_handshake_error(
    net: Network,
) -> None:
    async def script(peer: "ScriptedPeer") -> None:
        await peer.send(b"\0garbage\r\n\r\n" * 10)
        await peer.read_all()

    async with net.script(script) as url, trio.open_nursery() as nursery:
        with pytest.raises(HandshakeError, match="garbage"):
            await connect(url, nursery=nursery)
        await trio.testing.wait_all_tasks_blocked()  # The nursery isn't cancelled.


@pytest.mark.parametrize("engine", ["trio-websocket"], indirect=True)
async def test_an_interrupt_of_the_reader_is_not_reported_as_a_vanished_peer(
    net: Network,
) -> None:
    async def script(peer: "ScriptedPeer") -> None:
        await peer.handshake()
        await peer.read_all()

    async with net.script(script) as url:
        host = url.removeprefix("ws://").rstrip("/")
        name, port = host.split(":")
        async with open_client_connection(
            await trio.open_tcp_stream(name, int(port)),
            host=host,
            resource="/",
            subprotocols=[],
            headers=[],
            max_message_bytes=1000,
        ) as connection:
            connection._nursery.cancel_scope.cancel()
            with pytest.raises(ProtocolError) as caught:
                await connection.receive()
            assert caught.value.code == 1011


async def test_an_engine_that_fails_in_the_handshake_is_a_handshake_error(
    net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a bug of trio-websocket could cause it, as the response is valid."""

    async def fail(*_: object, **__: object) -> None:
        await trio.lowlevel.checkpoint()
        raise trio_websocket.HandshakeError

    monkeypatch.setattr(trio_websocket, "wrap_client_stream", fail)
    async with net.serve(net.echo) as server:
        before = net.open_sockets()
        with pytest.raises(HandshakeError, match="trio-websocket rejects"):
            async with open_websocket(server.url, engine="trio-websocket"):
                pass
        await net.until_open_sockets(before)

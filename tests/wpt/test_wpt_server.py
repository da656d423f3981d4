"""Each handler of `wpt_server.py` does what the Web Platform Tests expect."""

import json
from collections.abc import AsyncGenerator

import pytest
import trio
import wpt_server
from network import Logged, Network

from trio_wspair import Server
from trio_wspair.testing import ScriptedPeer
from trio_wspair.testing._scripted_peer import Said


@pytest.fixture(scope="module")
def engine() -> None:
    """Run each test on one engine, because the result does not depend on the engine."""


MIB = 2**20
NORMAL = (1000, "")


@pytest.fixture
async def server(net: Network) -> AsyncGenerator[Server]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(wpt_server.run, 0)
        nursery.cancel_scope.cancel()


def protocols(*names: str) -> str:
    return f"Sec-WebSocket-Protocol: {', '.join(names)}"


async def receive_to_the_end(peer: "ScriptedPeer") -> list[Said]:
    """Answer a Close as a browser does; return all messages and control frames."""
    heard: list[Said] = []
    while (said := await peer.receive()) is not None:
        heard.append(said)
        if isinstance(said, tuple) and isinstance(said[0], int):
            await peer.send(peer.close_frame(None if said[0] == 1005 else said[0]))
    return heard


# -- handshakes ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "header", "status"),
    [
        ("/", "", 404),
        ("/404", "", 404),
        ("/does-not-exist", "", 404),
        ("/invalid1?x", "", 404),
        ("/echo", protocols("foobar"), 400),
        ("/echo", protocols("eCho"), 400),
        ("/origin", protocols("foobar"), 400),
        ("/basic_auth", "", 401),
        ("/basic_auth", "Authorization: Basic d3Jvbmc=", 401),
    ],
)
async def test_a_handshake_fails(
    net: Network, server: Server, target: str, header: str, status: int
) -> None:
    async with net.dial(server) as peer:
        answer = await peer.handshake(*filter(None, [header]), target=target)
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert (status == 401) is (
        'www-authenticate: basic realm="camelot"' in answer.lower()
    )


@pytest.mark.parametrize(
    ("target", "header", "chosen"),
    [
        ("/echo", "", None),
        ("/echo", protocols("foobar", "echo"), "echo"),
        ("/protocol", protocols("chat"), "chat"),
        ("/protocol_array", protocols("foo", "bar"), "foo"),
        ("/handshake_protocol", protocols("foobar"), "foobar"),
        ("/handshake_protocol", protocols("FOOBAR"), "foobar"),
        ("/handshake_protocol", "", "foobar"),
        ("/handshake_no_protocol", protocols("foobar"), None),
        ("/handshake_no_extensions", "Sec-WebSocket-Extensions: x-test", None),
        ("/empty-message", "Sec-WebSocket-Extensions: permessage-deflate", None),
        ("/basic_auth", "Authorization: Basic Zm9vOmJhcg==", None),
    ],
)
async def test_a_handshake_succeeds(
    net: Network,
    server: Server,
    target: str,
    header: str,
    chosen: str | None,
    logged: Logged,
) -> None:
    async with net.dial(server) as peer:
        answer = (await peer.handshake(*filter(None, [header]), target=target)).lower()
    lines = answer.split("\r\n")
    assert lines[0].startswith("http/1.1 101 ")
    assert f"sec-websocket-accept: {net.accept_key(net.KEY)}".lower() in lines
    assert "sec-websocket-extensions" not in answer
    if target == "/handshake_no_protocol":
        assert "browsers fail such a connection" in logged.take()
    expected = [] if chosen is None else [f"sec-websocket-protocol: {chosen}"]
    assert [x for x in lines if x.startswith("sec-websocket-protocol")] == expected


@pytest.mark.parametrize(
    ("target", "cookies"),
    [
        ("/set-cookie?7", ["ws_test_7=test; Path=/"]),
        ("/set-cookie_http?7", ["ws_test_7=test; Path=/; HttpOnly"]),
        ("/set-cookie-secure?7", ["ws_test_7=test; Path=/; Secure"]),
        (
            "/set-cookies-samesite?value=2&clear",
            [
                "samesite-unspecified=2; Path=/; Max-Age=0",
                "samesite-lax=2; Path=/; SameSite=Lax; Max-Age=0",
                "samesite-strict=2; Path=/; SameSite=Strict; Max-Age=0",
                "samesite-none=2; Path=/; SameSite=None; Secure; Max-Age=0",
            ],
        ),
        ("/simple_handshake", ["ws_test=test"]),
        ("/origin", []),
    ],
)
async def test_a_response_sets_cookies(
    net: Network, server: Server, target: str, cookies: list[str]
) -> None:
    async with net.dial(server) as peer:
        lines = (await peer.handshake(target=target)).split("\r\n")
    start = "set-cookie: "
    found = [x[len(start) :] for x in lines if x.lower().startswith(start)]
    assert found == cookies


async def test_a_response_has_policies(net: Network, server: Server) -> None:
    async with net.dial(server) as peer:
        target = "/set-co-policies?coep=require-corp&corp=same-origin"
        lines = (await peer.handshake(target=target)).lower().split("\r\n")
    assert "cross-origin-embedder-policy: require-corp" in lines
    assert "cross-origin-resource-policy: same-origin" in lines


async def test_a_response_may_be_invalid_http(net: Network, server: Server) -> None:
    async with net.dial(server) as peer:
        await peer.send(net.head(*net.UPGRADE, start="GET /invalid HTTP/1.1"))
        assert await peer.read_all() == b"FOO BAR BAZ\r\n\r\n"


async def test_a_response_may_have_a_wrong_key(net: Network, server: Server) -> None:
    async with net.dial(server) as peer:
        answer = await peer.handshake(target="/wrong_accept_key")
        assert "Sec-WebSocket-Accept: thisisawrongacceptkey\r\n" in answer
        assert await receive_to_the_end(peer) == ["test", NORMAL]


async def test_a_close_may_come_with_the_101(net: Network, server: Server) -> None:
    async with net.dial(server) as peer:
        start = "GET /simple_handshake HTTP/1.1"
        await peer.send(net.head(*net.UPGRADE, start=start))
        data = await peer.stream.receive_some()
        assert data.startswith(b"HTTP/1.1 101 ")
        assert data.endswith(b"\r\n\r\n\x88\x06\x03\xe9PASS")
        await peer.send(peer.close_frame(1001))
        assert await peer.read_all() == b""


# -- only the server sends -------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "header", "said"),
    [
        ("/echo-query?a%20b?c=d", "", "a%20b?c=d"),
        ("/echo-query_v13?a%20b?c=d", "", "a%20b"),
        ("/echo-query_v13", "", ""),
        ("/echo-cookie", "", "(none)"),
        ("/echo-cookie", "Cookie: a=1; b=2", "a=1; b=2"),
        ("/origin", "Origin: http://web-platform.test:8000", None),
        ("/referrer", "Referer: http://web-platform.test/x", None),
        ("/referrer", "", "MISSING AS PER FETCH"),
        ("/protocol", protocols("chat"), "chat"),
        ("/protocol_array", protocols("foo", "bar"), "foo"),
    ],
)
async def test_the_server_sends_a_report_and_closes(
    net: Network, server: Server, target: str, header: str, said: str | None
) -> None:
    if said is None:
        said = header.partition(": ")[2]
    async with net.peer(server, *filter(None, [header]), target=target) as peer:
        assert await receive_to_the_end(peer) == [said, NORMAL]


@pytest.mark.parametrize(
    ("query", "heard"),
    [
        ("?code=1000", NORMAL),
        ("?code=1001", (1001, "")),
        ("?code=4000&reason=%E3%83%AD%E3%83%9C", (4000, "\u30ed\u30dc")),
        ("", (1005, "")),
        ("?abrupt=1", ("ping", b"ping")),
    ],
)
async def test_the_server_closes_as_the_query_says(
    net: Network, server: Server, query: str, heard: Said
) -> None:
    async with net.peer(server, target=f"/remote-close{query}") as peer:
        assert await receive_to_the_end(peer) == [heard]


# -- conversations ----------------------------------------------------------------


async def test_an_echo_keeps_types_and_ends_at_the_message_goodbye(
    net: Network, server: Server
) -> None:
    async with net.peer(server, target="/echo") as peer:
        for message in ("text", "", "\u00fc" * 60_000, "Goodbye"):
            await peer.send(peer.frame(net.BINARY, message.encode()))
            assert await peer.receive() == message.encode()
        await peer.send(peer.text_frame("text"), peer.frame(net.PING, b"x"))
        assert {await peer.receive(), await peer.receive()} == {"text", ("pong", b"x")}
        await peer.send(peer.text_frame("Goodbye"))
        assert await receive_to_the_end(peer) == ["Goodbye", NORMAL]


@pytest.mark.parametrize("target", ["/echo_exit", "/echo_close_data"])
async def test_a_message_of_8_mib_is_discarded(
    net: Network, server: Server, target: str
) -> None:
    async with net.peer(server, target=target) as peer:
        await peer.send(peer.frame(net.BINARY, bytes(8 * MIB)))
        await peer.send(peer.text_frame("Goodbye"))
        assert await receive_to_the_end(peer) == [NORMAL]


async def test_payloads_are_written_without_a_frame_header(
    net: Network, server: Server
) -> None:
    async with net.peer(server, target="/echo_raw") as peer:
        bytes_of_frames = b"\x81\x02ok" + b"\x83\x00"
        await peer.send(peer.frame(net.BINARY, bytes_of_frames))
        await peer.send(peer.frame(net.BINARY, b"exit"), peer.close_frame(1000))
        assert await peer.read_all() == bytes_of_frames + b"\x88\x02\x03\xe8"


@pytest.mark.parametrize(("text", "verdict"), [("", "pass"), ("x", "fail")])
async def test_an_empty_message_gets_a_different_answer(
    net: Network, server: Server, text: str, verdict: str
) -> None:
    async with net.peer(server, target="/empty-message") as peer:
        await peer.send(peer.text_frame(text))
        assert await receive_to_the_end(peer) == [verdict, NORMAL]


@pytest.mark.parametrize("target", ["/echo_exit", "/echo_raw", "/set-cookie?1"])
@pytest.mark.parametrize("close", [(None, ""), (3456, "pizza")])
async def test_most_paths_answer_any_close_with_1000(
    net: Network, server: Server, target: str, close: tuple[int | None, str]
) -> None:
    async with net.peer(server, target=target) as peer:
        await peer.send(peer.close_frame(*close))
        assert await peer.receive_all() == [NORMAL]


@pytest.mark.parametrize("target", ["/echo", "/delayed-passive-close"])
@pytest.mark.parametrize("close", [(1005, ""), (1000, ""), (3456, "pizza")])
async def test_some_paths_echo_the_close(
    net: Network, server: Server, target: str, close: tuple[int, str]
) -> None:
    code, reason = close
    async with net.peer(server, target=target) as peer:
        await peer.send(peer.close_frame(None if code == 1005 else code, reason))
        assert await peer.receive_all() == [close]


async def test_a_close_may_get_no_answer(net: Network, server: Server) -> None:
    async with net.peer(server, target="/passive-close-abort") as peer:
        await peer.send(peer.text_frame("discarded"), peer.close_frame(1000))
        assert await peer.read_all() == b""


# -- time -------------------------------------------------------------------------


async def test_a_handshake_takes_two_seconds(net: Network, server: Server) -> None:
    async with net.peer(server, target="/handshake_sleep_2") as peer:
        assert await receive_to_the_end(peer) == [NORMAL]


async def test_a_client_that_leaves_during_the_handshake_does_no_harm(
    net: Network, server: Server
) -> None:
    async with net.dial(server) as peer:
        with trio.move_on_after(0.2):
            await peer.handshake(target="/sleep_10_v13")
            pytest.fail("that was no 10 s")
    async with net.peer(server, target="/origin") as peer:
        assert await receive_to_the_end(peer) == ["", NORMAL]


async def test_the_server_reads_nothing_for_two_seconds(
    net: Network, server: Server
) -> None:
    sent = trio.Event()

    async def send(peer: "ScriptedPeer") -> None:
        await peer.send(peer.frame(net.BINARY, bytes(8 * MIB)))
        sent.set()

    async with (
        net.peer(server, target="/receive-backpressure") as peer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(send, peer)
        await trio.sleep(1)
        assert not sent.is_set()
        assert await receive_to_the_end(peer) == [NORMAL]
        assert sent.is_set()


async def test_sending_waits_for_a_client_that_does_not_read(
    net: Network, server: Server
) -> None:
    async with net.peer(server, target="/send-backpressure") as peer:
        await trio.sleep(1)
        assert await peer.receive() == b""
        for _ in range(16):
            assert await peer.receive() == b" " * MIB
        seconds, end = await receive_to_the_end(peer)
        assert isinstance(seconds, str)
        assert float(seconds) > 0.9
        assert end == NORMAL


async def test_messages_are_read_slowly_and_counted(
    net: Network, server: Server
) -> None:
    async with net.peer(server, target="/receive-many-with-backpressure") as peer:
        await peer.send(
            *[peer.frame(net.BINARY, bytes(65_536))] * 3, peer.text_frame("abc")
        )
        await peer.send(peer.close_frame())
        assert await peer.receive_all() == ["65536", "65536", "65536", "3", NORMAL]


# -- shared by connections -----------------------------------------------------------


async def test_a_channel_joins_connections(net: Network, server: Server) -> None:
    target = "/msg_channel?uuid=u&direction="

    def write(writer: "ScriptedPeer", command: str, data: object = None) -> bytes:
        return writer.text_frame(json.dumps([command, data]))

    async with net.peer(server, target=f"{target}write") as writer:
        await writer.send(write(writer, "message", {"a": 1}))
        async with net.peer(server, target=f"{target}read") as reader:
            assert await reader.receive() == '{"a": 1}'
            await reader.send(reader.close_frame())
            assert await reader.receive_all() == [NORMAL]
        async with net.peer(server, target=f"{target}read") as reader:
            await writer.send(write(writer, "message", "b"))
            assert await reader.receive() == '"b"'
            await writer.send(
                write(writer, "disconnectReader"), write(writer, "delete")
            )
            assert await receive_to_the_end(reader) == [NORMAL]


async def test_a_stash_outlives_connections(net: Network, server: Server) -> None:
    async def ask(query: str) -> object:
        target = f"/stash_responder?key=k&{query}"
        async with net.peer(server, target=target) as peer:
            await peer.send(peer.text_frame("echo"))
            answer, end = await receive_to_the_end(peer)
            assert isinstance(answer, str)
            assert end == NORMAL
            reply = json.loads(answer)
            assert reply["status"] == "success"
            return reply["result"]

    await ask("action=put&value=v")
    assert await ask("action=take") == "v"
    assert await ask("action=take") is None
    await ask("action=put&value=v")
    await ask("action=purge")
    assert await ask("action=take") is None


async def test_a_test_can_wait_for_a_setting(net: Network, server: Server) -> None:
    target = "/stash_responder_blocking"
    async with (
        net.peer(server, target=target) as getter,
        net.peer(server, target=target) as setter,
    ):
        await getter.send(getter.text_frame('{"action": "get", "key": "k"}'))
        await setter.send(
            setter.text_frame('{"action": "set", "key": "k", "value": 3}')
        )
        assert await receive_to_the_end(setter) == ["{}", NORMAL]
        assert await receive_to_the_end(getter) == ['{"value": 3}', NORMAL]

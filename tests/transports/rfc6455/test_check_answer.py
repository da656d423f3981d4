"""A client checks a 101 as strictly as a server checks a request, on both engines."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import example, given, settings, strategies as st
from network import Network, Script

from trio_wspair import HandshakeError, open_websocket
from trio_wspair.testing import ScriptedPeer
from trio_wspair.transports._read_answer import ask
from trio_wspair.transports.rfc6455._check_answer import check_answer

SWITCHING = "HTTP/1.1 101 Switching Protocols"
UPGRADE = "Upgrade: websocket"
CONNECTION = "Connection: Upgrade"
ACCEPT = "Sec-WebSocket-Accept: {accept}"
GOOD = (UPGRADE, CONNECTION, ACCEPT)


def answering(net: Network, lines: Sequence[str], *, before: bytes = b"") -> Script:
    """Return a server whose 101 has these lines, and that sends "hello" then."""

    async def script(peer: ScriptedPeer) -> None:
        request = await peer.read_head()
        key = request[request.lower().index("sec-websocket-key: ") + 19 :][:24]
        accept = net.accept_key(key)
        head = "\r\n".join([SWITCHING, *lines, "", ""]).format(accept=accept)
        await peer.send(before, head.encode("latin-1"), peer.text_frame("hello"))
        while await peer.receive() is not None:
            pass

    return script


@pytest.mark.parametrize(
    "lines",
    [
        (ACCEPT, CONNECTION, UPGRADE),
        ("upgrade:WebSocket", "CONNECTION:  upgrade  ", ACCEPT),
        (UPGRADE, "Connection: keep-alive", CONNECTION, ACCEPT),
        (UPGRADE, CONNECTION, "Connection: keep-alive", ACCEPT),
        (UPGRADE, "Connection: keep-alive,,\tuPgRaDe ,", ACCEPT),
        (*GOOD, "Content-Length: 0"),
        (*GOOD, "Sec-WebSocket-Extensions:"),
        (*GOOD, "Date: now", "Set-Cookie: a=1", "Set-Cookie: b=2", "X: \xfc"),
    ],
    ids=" | ".join,
)
async def test_a_good_101_opens_the_websocket(
    net: Network, lines: tuple[str, ...]
) -> None:
    async with (
        net.script(answering(net, lines)) as url,
        open_websocket(url, close_grace=0.1) as ws,
    ):
        assert await ws.receive() == "hello"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            (CONNECTION, ACCEPT),
            "'Upgrade: websocket' is required once, but it is missi",
        ),
        (("Upgrade: h2c", CONNECTION, ACCEPT), 'is required once, not "h2c"'),
        (("Upgrade: websocket, h2c", CONNECTION, ACCEPT), 'not "websocket, h2c"'),
        ((UPGRADE, *GOOD), 'is required once, not "websocket", "websocket"'),
        ((UPGRADE, ACCEPT), "'Connection: Upgrade' is required, but it is missing"),
        ((UPGRADE, "Connection: close", ACCEPT), 'is required, not "close"'),
        ((UPGRADE, "Connection: upgrades", ACCEPT), 'is required, not "upgrades"'),
        ((UPGRADE, CONNECTION), "Accept: .*' is required once, but it is missing"),
        ((UPGRADE, CONNECTION, "Sec-WebSocket-Accept:"), 'is required once, not ""'),
        ((UPGRADE, CONNECTION, "Sec-WebSocket-Accept: x"), 'is required once, not "x"'),
        ((*GOOD, ACCEPT), r'is required once, not ".{28}", ".{28}"'),
        ((*GOOD, "Sec-WebSocket-Accept: x"), r'is required once, not ".{28}", "x"'),
        (
            (*GOOD, "Sec-WebSocket-Protocol: b"),
            'subprotocol "b" was not offered',
        ),
        ((*GOOD, "Sec-WebSocket-Protocol:"), "the subprotocol was not offered"),
        (
            (*GOOD, "Sec-WebSocket-Protocol: a, a"),
            "the subprotocol was not offered",
        ),
        ((*GOOD, *["Sec-WebSocket-Protocol: a"] * 2), "Protocol' is allowed once only"),
        ((*GOOD, "Sec-WebSocket-Extensions: x"), 'no extension was offered, not "x"'),
        ((*GOOD, "Content-Length: 5"), "a 101 has no body"),
        ((*GOOD, "Transfer-Encoding: chunked"), "a 101 has no body"),
        (
            (UPGRADE, "Connection:", " Upgrade", ACCEPT),
            "a header continues in the next line",
        ),
        (("Upgrade: web\x7f", CONNECTION, ACCEPT), r'not "web\\x7f"|not valid HTTP'),
    ],
    ids=lambda value: " | ".join(value) if isinstance(value, tuple) else "",
)
async def test_an_invalid_101_raises_handshake_error(
    net: Network, lines: tuple[str, ...], words: str
) -> None:
    async with net.script(answering(net, lines)) as url:
        before = net.open_sockets()
        with pytest.raises(HandshakeError, match=words) as caught:
            async with open_websocket(url, protocols=["a", "A"]):
                pass
        if "not valid HTTP" not in str(caught.value):
            assert "101, but not as RFC 6455, section 4.1, requires" in str(
                caught.value
            )
            assert caught.value.status == 101
            assert caught.value.headers
            assert not caught.value.retryable
        await net.until_open_sockets(before)


async def test_a_subprotocol_that_was_not_offered_raises_handshake_error(
    net: Network,
) -> None:
    lines = (*GOOD, "Sec-WebSocket-Protocol: chat")
    async with net.script(answering(net, lines)) as url:
        with pytest.raises(HandshakeError, match='subprotocol "chat" was not offered'):
            async with open_websocket(url):
                pass


@pytest.mark.parametrize("status", [100, 102, 103, 199])
async def test_other_interim_responses_may_come_before_the_101(
    net: Network, status: int
) -> None:
    hints = f"HTTP/1.1 {status} Hints\r\nLink: </a>\r\n\r\n".encode() * 3
    script = answering(net, GOOD, before=hints)
    async with net.script(script) as url, open_websocket(url, close_grace=0.1) as ws:
        assert await ws.receive() == "hello"


COMPRESSING: dict[str, Any] = {"engine": "websockets", "compression": True}
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


@pytest.mark.parametrize(
    ("lines", "agreed"),
    [
        ((), ""),
        (("Sec-WebSocket-Extensions:",), ""),
        ((DEFLATE,), "permessage-deflate"),
        ((f"{DEFLATE}; server_no_context_takeover", "Sec-WebSocket-Extensions:"), None),
    ],
)
async def test_an_extension_that_was_offered_can_be_agreed_on(
    net: Network, lines: tuple[str, ...], agreed: str | None
) -> None:
    script = answering(net, (*GOOD, *lines))
    async with (
        net.script(script) as url,
        open_websocket(url, close_grace=0.1, **COMPRESSING) as ws,
    ):
        expected = "permessage-deflate; server_no_context_takeover"
        assert ws.extensions == (expected if agreed is None else agreed)
        assert await ws.receive() == "hello"


@pytest.mark.parametrize(
    "lines", [(DEFLATE, DEFLATE), (f"{DEFLATE}, x",), (DEFLATE + "=1",)]
)
async def test_an_extension_that_was_not_offered_raises_handshake_error(
    net: Network, lines: tuple[str, ...]
) -> None:
    async with net.script(answering(net, (*GOOD, *lines))) as url:
        with pytest.raises(
            HandshakeError, match="extensions were not offered"
        ) as caught:
            async with open_websocket(url, **COMPRESSING):
                pass
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("name", ["Extensions", "Protocol", "Accept"])
@pytest.mark.parametrize("options", [{}, COMPRESSING], ids=["plain", "compressing"])
async def test_an_error_shows_only_part_of_a_long_response(
    net: Network, name: str, options: dict[str, Any]
) -> None:
    line = f"Sec-WebSocket-{name}: permessage-deflate; x={'x' * 40000}"
    async with net.script(answering(net, (*GOOD, line))) as url:
        with pytest.raises(HandshakeError) as caught:
            async with open_websocket(url, **options):
                pass
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("size", [2**16, 2**17])
@pytest.mark.parametrize("end", ["", "\r\n\r\n"], ids=["endless", "ended"])
async def test_a_head_that_is_too_large_raises_handshake_error(
    net: Network, size: int, end: str
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.read_head()
        with suppress(trio.BrokenResourceError):
            head = "HTTP/1.1 101 X\r\nA: " + size * "a" + (end or size * "a")
            await peer.send(head.encode())

    async with net.script(script) as url:
        with pytest.raises(HandshakeError, match="has a head of more than 64 KiB"):
            async with open_websocket(url):
                pass


# -- random responses -----------------------------------------------------------------

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"Sec-WebSocket-Protocol: a\r\n\r\n"
)
pieces = st.sampled_from(
    [
        *(b"\r\n", b"\n", b" ", b":", b"\0", b"\xff", b"\x1b[2J", b"HTTP/1.1 ", b"101"),
        *(b"Location: ", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"),
        *(b"HTTP/1.1 103 X\r\n\r\n", b"HTTP/1.1 302 X\r\n", b"\x15\x03", b"\r\n\r\n"),
    ]
)


@given(
    st.lists(st.tuples(st.integers(0, len(ANSWER)), st.integers(0, 20), pieces)),
    st.integers(1, 50),
)
@settings(max_examples=300, deadline=None)
@example([], 1)
def test_any_response_opens_a_websocket_or_raises_handshake_error(
    changes: list[tuple[int, int, bytes]], size: int
) -> None:
    data = ANSWER
    for start, length, piece in changes:
        data = data[:start] + piece + data[start + length :]

    async def main() -> None:
        near, far = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_slowly, far)
            try:
                answer = await ask(near, b"", "h")
                chosen = check_answer(answer, host="h", key=KEY, subprotocols=["a"])
            except HandshakeError as exc:
                assert str(exc).isprintable()  # noqa: PT017
                assert len(str(exc)) < 600  # noqa: PT017
            else:
                assert chosen in {"", "a"}
            await trio.aclose_forcefully(near)

    async def send_slowly(stream: trio.abc.SendStream) -> None:
        with suppress(trio.BrokenResourceError):
            for start in range(0, len(data), size):
                await stream.send_all(data[start : start + size])
        await stream.aclose()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("size", [10**4, 10**6])
async def test_a_long_url_is_sent_whole(net: Network, size: int) -> None:
    heads: list[str] = []

    async def script(peer: ScriptedPeer) -> None:
        heads.append(await peer.handshake())
        await peer.receive_all()

    async with net.script(script) as url:
        long = f"{url}?a={'b' * size}"
        async with open_websocket(long, close_grace=0.1) as ws:
            assert ws.url == long
    assert heads[0].startswith(f"GET /?a={'b' * size} HTTP/1.1\r\n")

"""A client checks a 101 as strictly as a server checks a request, on both engines."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from trio_wspair import HandshakeError, open_websocket
from trio_wspair.testing import ScriptedPeer

if TYPE_CHECKING:
    from conftest import Network, Script

SWITCHING = "HTTP/1.1 101 Switching Protocols"
UPGRADE = "Upgrade: websocket"
CONNECTION = "Connection: Upgrade"
ACCEPT = "Sec-WebSocket-Accept: {accept}"
GOOD = (UPGRADE, CONNECTION, ACCEPT)


def answering(net: "Network", lines: Sequence[str], *, before: bytes = b"") -> "Script":
    """Return a server whose 101 has these lines, and that says hello then."""

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
    net: "Network", lines: tuple[str, ...]
) -> None:
    async with (
        net.script(answering(net, lines)) as url,
        open_websocket(url, close_grace=0.1) as ws,
    ):
        assert await ws.receive() == "hello"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((CONNECTION, ACCEPT), "'Upgrade: websocket' is wanted, once, but it is missi"),
        (("Upgrade: h2c", CONNECTION, ACCEPT), 'is wanted, once, not "h2c"'),
        (("Upgrade: websocket, h2c", CONNECTION, ACCEPT), 'not "websocket, h2c"'),
        ((UPGRADE, *GOOD), 'is wanted, once, not "websocket", "websocket"'),
        ((UPGRADE, ACCEPT), "'Connection: Upgrade' is wanted, but it is missing"),
        ((UPGRADE, "Connection: close", ACCEPT), 'is wanted, not "close"'),
        ((UPGRADE, "Connection: upgrades", ACCEPT), 'is wanted, not "upgrades"'),
        ((UPGRADE, CONNECTION), "Accept: .*' is wanted, once, but it is missing"),
        ((UPGRADE, CONNECTION, "Sec-WebSocket-Accept:"), 'is wanted, once, not ""'),
        ((UPGRADE, CONNECTION, "Sec-WebSocket-Accept: x"), 'is wanted, once, not "x"'),
        ((*GOOD, ACCEPT), r'is wanted, once, not ".{28}", ".{28}"'),
        ((*GOOD, "Sec-WebSocket-Accept: x"), r'is wanted, once, not ".{28}", "x"'),
        ((*GOOD, "Sec-WebSocket-Protocol: b"), 'offered are: a, A, not "b"'),
        ((*GOOD, "Sec-WebSocket-Protocol:"), 'offered are: a, A, not ""'),
        ((*GOOD, "Sec-WebSocket-Protocol: a, a"), 'offered are: a, A, not "a, a"'),
        ((*GOOD, *["Sec-WebSocket-Protocol: a"] * 2), 'offered are: .* not "a", "a"'),
        ((*GOOD, "Sec-WebSocket-Extensions: x"), 'no extension was offered, not "x"'),
        ((*GOOD, "Content-Length: 5"), "a 101 has no body"),
        ((*GOOD, "Transfer-Encoding: chunked"), "a 101 has no body"),
        (
            (UPGRADE, "Connection:", " Upgrade", ACCEPT),
            "a header goes on in the next line",
        ),
        (("Upgrade: web\x7f", CONNECTION, ACCEPT), r'not "web\\x7f"|not valid HTTP'),
    ],
    ids=lambda value: " | ".join(value) if isinstance(value, tuple) else "",
)
async def test_a_101_that_is_not_as_it_should_be_opens_none(
    net: "Network", lines: tuple[str, ...], words: str
) -> None:
    async with net.script(answering(net, lines)) as url:
        before = net.open_sockets()
        with pytest.raises(HandshakeError, match=words) as caught:
            async with open_websocket(url, protocols=["a", "A"]):
                pass
        if "not valid HTTP" not in str(caught.value):
            assert "101, but not as RFC 6455, section 4.1, asks" in str(caught.value)
            assert caught.value.status == 101
            assert caught.value.headers
            assert not caught.value.retryable
        await net.until_open_sockets(before)


async def test_a_subprotocol_without_an_offer_opens_none(net: "Network") -> None:
    lines = (*GOOD, "Sec-WebSocket-Protocol: chat")
    async with net.script(answering(net, lines)) as url:
        with pytest.raises(HandshakeError, match='offered are: none, not "chat"'):
            async with open_websocket(url):
                pass


@pytest.mark.parametrize("status", [100, 102, 103, 199])
async def test_other_interim_answers_come_before_the_101(
    net: "Network", status: int
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
    net: "Network", lines: tuple[str, ...], agreed: str | None
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
async def test_an_extension_that_was_not_offered_opens_none(
    net: "Network", lines: tuple[str, ...]
) -> None:
    async with net.script(answering(net, (*GOOD, *lines))) as url:
        with pytest.raises(
            HandshakeError, match="extensions were not offered"
        ) as caught:
            async with open_websocket(url, **COMPRESSING):
                pass
    assert caught.value.__cause__ is not None

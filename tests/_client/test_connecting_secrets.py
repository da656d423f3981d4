"""Secrets in the URL, headers or proxy of a client are never shown."""

import logging
import traceback
from typing import Any

import pytest
from network import Logged, Network

from trio_wspair import (
    ConnectionInfo,
    Instrument,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    open_websocket,
    use_instrument,
)
from trio_wspair.testing import ScriptedPeer

SECRETS = ("hunter2", "bWU6aHVudGVyMg")
"""A password, and its beginning in Base64 after the user name."""


def check(text: str) -> None:
    for secret in SECRETS:
        assert secret not in text


def with_secrets(url: str) -> str:
    return url.replace("//", "//me:hunter2@") + "chat?token=hunter2"


class Watching(Instrument):
    def __init__(self) -> None:
        self.infos: list[ConnectionInfo] = []

    def connected(self, _: WebSocket, connection: ConnectionInfo) -> None:
        self.infos.append(connection)


async def test_no_log_line_of_a_connection_shows_a_secret(
    net: Network, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    requests: list[str] = []

    async def script(peer: ScriptedPeer) -> None:
        requests.append(await peer.handshake())
        await peer.send(peer.close_frame(1000))
        await peer.receive_all()

    watching = Watching()
    async with net.script(script) as url:
        with use_instrument(watching):
            async with open_websocket(
                with_secrets(url), headers={"Cookie": "session=hunter2"}
            ) as ws:
                await ws.wait_closed()
                assert ws.url == f"{url}chat?token=hunter2"
                check(repr(ws))
    assert "GET /chat?token=hunter2 HTTP/1.1" in requests[0]
    assert "Basic bWU6aHVudGVyMg==" in requests[0]
    assert "is open" in caplog.text
    check(caplog.text)
    for record in caplog.records:
        check(repr(vars(record)))
    (info,) = watching.infos
    assert info.url == f"{url}chat?token=hunter2"
    check(repr(info))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense",
        b"HTTP/1.1 403 No\r\n\r\nno",
        b"HTTP/1.1 302 X\r\nLocation: https://me:hunter2@h/?token=hunter2\r\n\r\n",
        b"HTTP/1.1 302 X\r\nLocation: https:/me:hunter2@h/\r\n\r\n",
        b"HTTP/1.1 101 X\r\n\r\n",
        b"HTTP/1.0 101 X\r\n\r\n",
    ],
)
@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_no_error_shows_a_secret(
    net: Network, caplog: pytest.LogCaptureFixture, answer: bytes, scheme: str
) -> None:
    caplog.set_level(logging.DEBUG)

    async def script(peer: ScriptedPeer) -> None:
        if scheme == "ws":
            await peer.read_head()
        else:
            await peer.stream.receive_some()
        await peer.send(answer)

    async with net.script(script) as url:
        await fails(with_secrets(url.replace("ws:", f"{scheme}:")))
    check(caplog.text)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("ws://127.0.0.1:1/", {}),
        ("ws://no.invalid/", {}),
        ("ws://127.0.0.1:1/", {"proxy": "http://me:hunter2@127.0.0.1:1"}),
        ("ws://127.0.0.1:1/", {"proxy": "socks5://me:hunter2@127.0.0.1:1"}),
        ("ws://127.0.0.1:1/", {"proxy": "socks9://me:hunter2@127.0.0.1:1"}),
        ("ws://127.0.0.1:1/", {"connect_timeout": 0}),
        ("ws://127.0.0.1:1/", {"ssl_context": "hunter"}),
        ("ws://127.0.0.1:1/", {"headers": {"Authorization": "Bearer hunter2"}}),
        ("ws://127.0.0.1:1/", {"headers": {"Authorization": "Bearer hunter2\n"}}),
        ("ws://127.0.0.1:1/", {"headers": ["Authorization: Bearer hunter2"]}),
        ("ws://127.0.0.1:1/", {"headers": {"Sec-WebSocket-Key": "hunter2"}}),
        ("ftp://127.0.0.1:1/", {}),
        ("ws://127.0.0.1:0/", {}),
        ("ws://a b/", {}),
        ("ws:///127.0.0.1:1/", {}),
        ("ws://127.0.0.1:1/", {"protocols": ["bearer", "hunter2="]}),
        ("ws://127.0.0.1:1/", {"protocols": ["hunter2", "hunter2"]}),
        ("ws://127.0.0.1:1/", {"protocols": [b"hunter2"]}),
        ("ws://127.0.0.1:1/", {"proxy": b"http://me:hunter2@127.0.0.1:1"}),
        ("ws://127.0.0.1:1/", {"proxy": "http://127.0.0.1:1:me:hunter2"}),
    ],
)
async def test_no_error_before_a_connection_shows_a_secret(
    net: Network, url: str, options: dict[str, Any]
) -> None:
    await fails(with_secrets(url), **options)


async def test_no_error_shows_the_subprotocols_that_are_offered(
    net: Network, logged: Logged
) -> None:
    async def fetch(request: Request) -> Response:
        client, _ = WebSocketPair()
        offered = request.headers["Sec-WebSocket-Protocol"]
        headers = {
            "Sec-WebSocket-Protocol": offered
        }  # A mistake that passes all of them.
        return Response(None, status=101, web_socket=client, headers=headers)

    async with net.serve(fetch) as server:
        await fails(server.url, protocols=["bearer", "hunter2"])
    record = logged.take()
    assert "a list, which the client does not offer" in record
    check(record)

    async def script(peer: ScriptedPeer) -> None:
        await peer.handshake("Sec-WebSocket-Protocol: bearer, hunter2")

    async with net.script(script) as url:
        await fails(url, protocols=["bearer", "hunter2"])


async def fails(url: str, **options: Any) -> None:
    """Check that it fails; return the traceback without the lines of code."""
    with pytest.raises((OSError, Exception)) as caught:
        async with open_websocket(url, **options):
            pass
    error: BaseException | None = caught.value
    while error is not None:
        check(repr(error))
        check("".join(traceback.format_exception_only(error)))
        error = error.__cause__ or error.__context__

"""HTTP/1.1 on a stream, through h11: one head in, one answer out.

Knows bytes and what RFC 6455, section 4.2.1, asks of an upgrade; not what is behind
a request. Refusals are `Refusal`s, with the answer in them.
"""

import base64
import binascii
from http import HTTPStatus
from typing import Final

import attrs
import h11
import trio

from ._http import Headers, Response, is_token

__all__ = ("Head", "Refusal", "comma_list", "read_head", "send_response")

_MAX_HEAD_BYTES: Final = 2**15
_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}
_RECEIVE_BYTES: Final = 2**16


class Refusal(Exception):  # noqa: N818 - an answer, not an error of ours
    """The request is not to be handled, and `response` says why."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response
        self.to_head = False
        """It was asked with HEAD, and gets no body."""


@attrs.frozen(slots=True)
class Head:
    """The head of a request."""

    method: str
    target: str
    headers: Headers
    rest: bytes
    """What was read after it."""
    wants_websocket: bool
    """It asks for a WebSocket, and asks well."""


async def read_head(stream: trio.abc.Stream) -> Head | None:
    """Read the head of a request; `None` if the peer has gone before it.

    The caller bounds the time.

    Raises:
        Refusal: It is no good HTTP, or no good WebSocket handshake.
    """
    raw = bytearray()
    try:
        return await _read_head(stream, raw)
    except Refusal as refusal:
        refusal.to_head = raw.startswith(b"HEAD ")
        raise


async def _read_head(stream: trio.abc.Stream, raw: bytearray) -> Head | None:
    # h11 counts only what it can't parse yet, so the bytes are counted here.
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=2 * _MAX_HEAD_BYTES)
    try:
        while (event := parser.next_event()) is h11.NEED_DATA:
            if len(raw) > _MAX_HEAD_BYTES:
                raise _too_large()
            try:
                data = await stream.receive_some(_RECEIVE_BYTES)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            raw += data
            parser.receive_data(bytes(data))
    except h11.RemoteProtocolError as exc:
        body = "This is no HTTP request that can be understood here.\n"
        raise Refusal(Response(body, status=exc.error_status_hint)) from None
    assert isinstance(event, h11.Request)
    rest, _ = parser.trailing_data
    if len(raw) - len(rest) > _MAX_HEAD_BYTES:
        raise _too_large()
    if event.http_version not in (b"1.0", b"1.1"):
        raise Refusal(Response("Only HTTP/1.1 is spoken here.\n", status=505))
    try:
        headers = Headers(
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in event.headers
        )
    except ValueError as exc:
        raise Refusal(Response(f"{exc}\n", status=400)) from None
    upgrades = "websocket" in _tokens(headers, "upgrade")
    if upgrades:
        _check_handshake(event, headers)
    return Head(
        event.method.decode("latin-1"),
        event.target.decode("latin-1"),
        headers,
        bytes(rest),
        upgrades,
    )


def _too_large() -> Refusal:
    return Refusal(Response("The head of the request is too large.\n", status=431))


def _tokens(headers: Headers, name: str) -> list[str]:
    return [token.lower() for token in comma_list(headers, name)]


def comma_list(headers: Headers, name: str) -> list[str]:
    """Return the elements of a header that is a list (RFC 9110, section 5.6.1)."""
    elements = [element.strip() for element in headers.get(name, "").split(",")]
    return [element for element in elements if element]


def _check_handshake(request: h11.Request, headers: Headers) -> None:
    """Check what a WebSocket client has to send (RFC 6455, section 4.2.1).

    Raises:
        Refusal: Something is missing or wrong.
    """
    wrong: str | None = None
    if request.method != b"GET":
        wrong = "A WebSocket is opened with GET."
    elif request.http_version != b"1.1":
        wrong = "A WebSocket is opened with HTTP/1.1."
    elif "upgrade" not in _tokens(headers, "connection"):
        wrong = "The header 'Connection: Upgrade' is missing."
    elif "content-length" in headers or "transfer-encoding" in headers:
        wrong = "A request for a WebSocket has no body."
    elif not _is_key(headers.get("sec-websocket-key", "")):
        wrong = "The header 'Sec-WebSocket-Key' is missing or wrong."
    elif not all(map(is_token, comma_list(headers, "sec-websocket-protocol"))):
        wrong = "The header 'Sec-WebSocket-Protocol' is no list of tokens."
    if wrong is not None:
        raise Refusal(Response(f"{wrong}\n", status=400))
    if headers.get("sec-websocket-version") != "13":
        version = {"Sec-WebSocket-Version": "13"}
        body = "Only version 13 of the WebSocket protocol is spoken here.\n"
        raise Refusal(Response(body, status=426, headers=version))


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


async def send_response(
    stream: trio.abc.Stream, response: Response, *, to_head: bool = False
) -> None:
    """Send a response, the last one of the connection.

    Args:
        stream: The network.
        response: What to send.
        to_head: The request was a HEAD, which gets no body.

    Raises:
        BrokenResourceError: The peer has gone.
    """
    writer = h11.Connection(h11.SERVER)
    headers = Headers(response.headers)
    for name in ("Content-Length", "Transfer-Encoding"):
        headers.pop(name, None)
    if response.status not in (204, 304):  # RFC 9110, section 8.6.
        headers["Content-Length"] = str(len(response.body))
    headers["Connection"] = "close"
    if response.status == 426:  # RFC 9110, section 15.5.22.
        headers.setdefault("Upgrade", "websocket")
        headers["Connection"] = "close, upgrade"
    data = writer.send(
        h11.Response(
            status_code=response.status,
            reason=_REASONS.get(response.status, b""),
            headers=[
                (name.encode("latin-1"), value.encode("latin-1"))
                for name, value in headers.pairs()
            ],
        )
    )
    body = b"" if to_head else response.body
    await stream.send_all((data or b"") + body)

"""What a server answers to an upgrade request, read and checked for both engines.

Theory of operation: `ask()` reads up to the end of a 101, with h11, and passes
over other interim answers. Whatever else comes is a `HandshakeError` that says what it
was. `check_answer()` then holds the 101 against RFC 6455, section 4.1, as strictly as a
server checks a request. An engine gets only what has passed: trio-websocket would wait
for ever for the end of a refusal, and is laxer.
"""

import hashlib
import re
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Final

import attrs
import h11
import trio

from trio_wspair._http.headers import decode_headers, is_token
from trio_wspair._rules.display import printable
from trio_wspair._rules.errors import HandshakeError
from trio_wspair._rules.limits import MAX_ANSWER_BODY_BYTES, MAX_ANSWER_HEAD_BYTES
from trio_wspair._tasks.nurseries import open_service_nursery
from trio_wspair.transports.io._tls import MAY_NEED_CERTIFICATE, tls_error

from ._refusal import refusal

__all__ = ("Answer", "accept_for", "ask", "bad_answer", "check_answer")

_BODY_SECONDS: Final = 1.0
_TOO_LARGE: Final = f"has a head of more than {MAX_ANSWER_HEAD_BYTES // 2**10} KiB"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What is added to a key (RFC 6455, section 1.3)."""
_TLS_ALERT: Final = b"\x15\x03"
"""How an alert begins: its content type, and the major version (RFC 8446, 5.1)."""
_HTTP2_SETTINGS: Final = re.compile(rb"\x00.{2}\x04\x00\x00\x00\x00\x00", re.DOTALL)
"""How a server's first frame begins in HTTP/2 (RFC 9113, sections 3.4 and 4.1)."""


@attrs.frozen(slots=True)
class Answer:
    """A 101."""

    headers: list[tuple[str, str]]
    """Names in lower case, and values."""
    received: bytes
    """What was read after it."""
    is_folded: bool
    """Whether a header goes on in the next line (RFC 9112, section 5.2)."""

    def values(self, name: str) -> list[str]:
        """Return the values of a header, one for each time that it is there."""
        return [value.strip(" \t") for key, value in self.headers if key == name]


# -- reading -------------------------------------------------------------------------


async def ask(stream: trio.abc.Stream, request: bytes, host: str) -> Answer:
    """Send an upgrade request, and return the server's answer if it is a 101.

    Reading begins before the request is sent: a server that has ended the connection
    may have said why, in a TLS alert, and Trio's TLS reads nothing after it could not
    write. The caller bounds the time.

    Args:
        stream: The network.
        request: The head of the request.
        host: The host and port of the server, as they are to be shown.

    Raises:
        HandshakeError: The answer is something else, or there is none.
    """
    sent = trio.Event()

    async def send() -> None:
        with suppress(trio.BrokenResourceError):  # There may be an answer still.
            await stream.send_all(request)
        sent.set()

    async with open_service_nursery() as nursery:
        nursery.start_soon(send)
        answer = await _Reading(stream, host).read()
        await sent.wait()
    return answer


class _Reading:
    """An answer that is being read."""

    def __init__(self, stream: trio.abc.Stream, host: str) -> None:
        self._stream = stream
        self._host = host
        # h11's limit is for what it can't parse yet; ours comes first.
        self._parser = h11.Connection(
            h11.CLIENT, max_incomplete_event_size=2 * MAX_ANSWER_HEAD_BYTES
        )
        upgrade = [("Host", "x"), ("Connection", "Upgrade"), ("Upgrade", "websocket")]
        self._parser.send(h11.Request(method="GET", target="/", headers=upgrade))
        self._parser.send(h11.EndOfMessage())
        self._received = bytearray()
        self._lost: OSError | None = None
        """Why the connection has ended, if not in good order."""

    async def read(self) -> Answer:
        try:
            while True:
                event = self._parser.next_event()
                rest = bytes(self._parser.trailing_data[0])
                head = self._received[: len(self._received) - len(rest)]
                if len(head) > MAX_ANSWER_HEAD_BYTES:
                    raise HandshakeError(
                        f"the answer of the server {self._host} {_TOO_LARGE}"
                    )
                if isinstance(event, h11.InformationalResponse):
                    if event.status_code == 101:
                        return self._switched(event, head, rest)
                    self._received = bytearray(rest)
                elif event is h11.NEED_DATA:
                    data = await self._receive()
                    self._received += data
                    self._parser.receive_data(data)
                else:
                    assert isinstance(event, h11.Response)
                    body = await self._read_body()
                    raise refusal(self._host, event, body)
        except h11.RemoteProtocolError as exc:
            cause = exc if self._received else None  # Otherwise it says nothing.
            raise self._nonsense(exc) from (self._lost or cause)

    def _switched(
        self, event: h11.InformationalResponse, head: bytearray, rest: bytes
    ) -> Answer:
        if event.http_version != b"1.1":
            version = event.http_version.decode("ascii")
            raise bad_answer(self._host, f"in HTTP/{version}, not HTTP/1.1")
        folded = b"\n " in head or b"\n\t" in head
        return Answer(decode_headers(event.headers), rest, folded)

    async def _receive(self) -> bytes:
        """Return more bytes; nothing at the end.

        Raises:
            HandshakeError: TLS has failed.
        """
        try:
            return bytes(await self._stream.receive_some(2**16))
        except trio.BrokenResourceError as exc:
            cause = exc.__cause__
            if isinstance(self._stream, trio.SSLStream) and not self._received:
                raise tls_error(cause, self._host) from cause
            self._lost = cause if isinstance(cause, OSError) else None
            return b""

    async def _read_body(self) -> bytes:
        """Return as much of the body of a refusal as comes soon."""
        body = bytearray()
        now = trio.current_time()
        left = trio.current_effective_deadline() - now
        with trio.move_on_at(now + min(_BODY_SECONDS, left / 2)):
            try:
                while len(body) < MAX_ANSWER_BODY_BYTES:
                    event = self._parser.next_event()
                    if isinstance(event, h11.Data):
                        body += event.data
                    elif event is h11.NEED_DATA:
                        self._parser.receive_data(await self._receive())
                    else:
                        break
            except h11.RemoteProtocolError:
                pass  # Cut short: what has come is told.
        return bytes(body)

    def _nonsense(self, exc: h11.RemoteProtocolError) -> HandshakeError:
        """Return the error for what isn't HTTP, or only the beginning of it."""
        received = bytes(self._received)
        server = f"the server {self._host}"
        reason = f" ({self._lost.strerror})" if self._lost is not None else ""
        if not received:
            hint = "; if it speaks TLS, the URL has to begin with wss:"
            if isinstance(self._stream, trio.SSLStream):
                hint = f"; {MAY_NEED_CERTIFICATE}"
            what = f"{server} closed the connection before it answered{reason}{hint}"
        elif received.startswith(_TLS_ALERT):
            what = f"{server} speaks TLS on this port; the URL has to begin with wss:"
        elif _HTTP2_SETTINGS.match(received):
            what = f"{server} speaks HTTP/2 only; this client speaks HTTP/1.1"
        elif not received.startswith(b"HTTP/1."):
            start = received[:24]
            what = f"the answer of {server} is not HTTP/1.1; it begins with {start!r}"
        elif exc.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            what = f"the answer of {server} {_TOO_LARGE}"
        elif "closed connection" in str(exc):
            what = f"{server} closed the connection in the midst of its answer{reason}"
        else:
            shown = printable(str(exc))[:100]
            what = f"the answer of {server} is not valid HTTP/1.1: {shown}"
        return HandshakeError(what)


# -- checking ------------------------------------------------------------------------


def accept_for(key: str) -> str:
    """Return the `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key`."""
    proof = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return b64encode(proof).decode()


def check_answer(
    answer: Answer,
    *,
    host: str,
    key: str,
    subprotocols: Sequence[str],
    extensions: bool = False,
) -> str:
    """Return the subprotocol that a 101 has chosen, or ``""``.

    Args:
        answer: The 101.
        host: The host and port of the server, as they are to be shown.
        key: The `Sec-WebSocket-Key` of the request.
        subprotocols: The ones offered.
        extensions: Whether extensions were offered. Which ones, and with what
            parameters, is left to the engine.

    Raises:
        HandshakeError: It is not as RFC 6455, section 4.1, wants it; the message says
            what is wrong.
    """
    wrong = _what_is_wrong(answer, key, subprotocols, extensions=extensions)
    if wrong is not None:
        raise bad_answer(host, wrong, answer.headers)
    return next(iter(answer.values("sec-websocket-protocol")), "")


def _what_is_wrong(
    answer: Answer, key: str, subprotocols: Sequence[str], *, extensions: bool
) -> str | None:
    if answer.is_folded:
        return "a header goes on in the next line (RFC 9112, section 5.2)"
    upgrade = answer.values("upgrade")
    if [value.lower() for value in upgrade] != ["websocket"]:
        return f"'Upgrade: websocket' is wanted, once, {_found(upgrade)}"
    connection = ",".join(answer.values("connection"))
    if "upgrade" not in [token.strip(" \t").lower() for token in connection.split(",")]:
        found = _found(answer.values("connection"))
        return f"'Connection: Upgrade' is wanted, {found}"
    accept = answer.values("sec-websocket-accept")
    if accept != [accept_for(key)]:
        found = _found(accept)
        return f"'Sec-WebSocket-Accept: {accept_for(key)}' is wanted, once, {found}"
    chosen = answer.values("sec-websocket-protocol")
    if len(chosen) > 1:
        return "'Sec-WebSocket-Protocol' is wanted once"
    if chosen and chosen[0] not in subprotocols:
        # A list is not shown: it may repeat what was offered, a secret token included.
        found = f' "{chosen[0][:60]}"' if is_token(chosen[0]) else ""
        return f"the subprotocol{found} was not offered"
    agreed = [value for value in answer.values("sec-websocket-extensions") if value]
    if agreed and not extensions:
        return f"no extension was offered, {_found(agreed)}"
    # RFC 9110, section 8.6, and RFC 9112, section 6.1. Some servers send a length of 0.
    lengths = set(answer.values("content-length"))
    if answer.values("transfer-encoding") or lengths - {"0"}:
        return "a 101 has no body, but 'Content-Length' or 'Transfer-Encoding' is there"
    return None


def _found(values: list[str]) -> str:
    shown = ", ".join(f'"{printable(value[:60])}"' for value in values[:3])
    return f"not {shown}" if values else "but it is missing"


def bad_answer(
    host: str, why: str, headers: Sequence[tuple[str, str]] = ()
) -> HandshakeError:
    """Return the error for a 101 that opens no WebSocket."""
    asks = "answered 101, but not as RFC 6455, section 4.1, asks"
    return HandshakeError(
        f"the server {host} {asks}: {why}", status=101, headers=tuple(headers)
    )

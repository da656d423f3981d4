"""The server's answer to an upgrade request: `ask()` reads it, for both engines.

Theory of operation: `ask()` reads with h11 up to the end of a 101, and skips other
interim answers. Any other answer is a `HandshakeError` that shows its status and the
beginning of its body. An engine gets only a 101 that it has checked with
`rfc6455._answers`: trio-websocket would wait forever for the end of a refusal, and is
less strict.
"""

import codecs
import re
from contextlib import suppress
from http import HTTPStatus
from typing import Final

import h11
import trio

from trio_wspair._http.headers import decode_headers
from trio_wspair._rules.display import printable, redacted
from trio_wspair._rules.errors import HandshakeError
from trio_wspair._rules.limits import MAX_ANSWER_BODY_BYTES, MAX_ANSWER_HEAD_BYTES
from trio_wspair._tasks.nurseries import open_service_nursery
from trio_wspair.transports.io._tls import MAY_NEED_CERTIFICATE, tls_error
from trio_wspair.transports.rfc6455._answers import Answer, bad_answer

__all__ = (
    "ask",
    "refusal",
)


_BODY_SECONDS: Final = 1.0
_TOO_LARGE: Final = f"has a head of more than {MAX_ANSWER_HEAD_BYTES // 2**10} KiB"
_TLS_ALERT: Final = b"\x15\x03"
"""How an alert begins: its content type, and the major version (RFC 8446, 5.1)."""
_HTTP2_SETTINGS: Final = re.compile(rb"\x00.{2}\x04\x00\x00\x00\x00\x00", re.DOTALL)
"""How a server's first frame begins in HTTP/2 (RFC 9113, sections 3.4 and 4.1)."""


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
            cause = exc if self._received else None  # Otherwise it adds nothing.
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
                pass  # The body is cut short; the error shows what arrived.
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
            what = f"{server} closed the connection in the middle of its answer{reason}"
        else:
            shown = printable(str(exc))[:100]
            what = f"the answer of {server} is not valid HTTP/1.1: {shown}"
        return HandshakeError(what)


_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
_READ_BYTES: Final = 2000
"""How much of a body is looked at, ..."""
_SHOWN_LINES: Final = 3
_SHOWN_CHARACTERS: Final = 200
"""... and how much of it is shown."""
_HIDDEN: Final = re.compile(r"(?is)<(style|script)\b.*?(</\1>|\Z)|<[^>]*>?")
"""What an HTML page does not show."""


def refusal(host: str, response: h11.Response, body: bytes) -> HandshakeError:
    """Return the error for a response that is not a 101.

    Args:
        host: The host and port of the server, as they are to be shown.
        response: The head.
        body: The body, or as much of it as came.
    """
    status = response.status_code
    headers = decode_headers(response.headers)
    fields = dict(headers)
    reason = response.reason.decode("latin-1")
    phrase = printable(_PHRASES.get(status, reason)[:60])
    shown = f"status {status} ({phrase})" if phrase else f"status {status}"
    lines = first_lines(body, is_html="html" in fields.get("content-type", ""))
    tail = f': "{lines}"' if lines else ""
    location = fields.get("location")
    if 300 <= status < 400 and location is not None:
        where = redacted(location)[:_SHOWN_CHARACTERS]
        what = f'redirects to "{where}" with {shown}; redirects are not followed'
    elif status < 400:
        what = f"answered with {shown} instead of opening a WebSocket{tail}"
    else:
        what = f"refused the WebSocket with {shown}{tail}"
    return HandshakeError(
        f"the server {host} {what}", status=status, headers=tuple(headers), body=body
    )


def first_lines(body: bytes, *, is_html: bool) -> str:
    """Return the first lines of a body in one, printable; ``""`` if it is not text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:  # The end may be half a character.
        text = decoder.decode(body[:_READ_BYTES])
    except UnicodeDecodeError:
        return ""
    if is_html:
        text = _HIDDEN.sub("\n", text)
    lines = [line.strip() for line in text.splitlines()]
    shown = " / ".join([line for line in lines if line][:_SHOWN_LINES])
    end = "..." if len(shown) > _SHOWN_CHARACTERS else ""
    return printable(shown[:_SHOWN_CHARACTERS]) + end

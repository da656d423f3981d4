"""The server's answer to an upgrade request: `ask()` reads it, for both engines.

Knows HTTP/1.1 and streams; not the meaning of the headers of a 101.

Theory of operation: `ask()` runs in the task that opens a connection. It reads with h11
up to the end of a 101, and skips other interim responses. Any other response is a
`HandshakeError` that shows its status and the beginning of its body. The engines then
check the 101 with `check_answer()`. trio-websocket is not given the server's response,
because it would wait forever for the end of a refusal, and checks a 101 less strictly.
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
from trio_wspair.transports.rfc6455._check_answer import Answer, bad_answer

__all__ = (
    "ask",
    "refusal",
)


_BODY_SECONDS: Final = 1.0
_TOO_LARGE: Final = f"has a head of more than {MAX_ANSWER_HEAD_BYTES // 2**10} KiB"
_TLS_ALERT: Final = b"\x15\x03"
"""The first bytes of a TLS alert: content type and major version (RFC 8446, 5.1)."""
_HTTP2_SETTINGS: Final = re.compile(rb"\x00.{2}\x04\x00\x00\x00\x00\x00", re.DOTALL)
"""The first bytes of an HTTP/2 server (RFC 9113, sections 3.4 and 4.1)."""


async def ask(stream: trio.abc.Stream, request: bytes, host: str) -> Answer:
    """Send an upgrade request, and return the server's answer if it is a 101.

    Reading begins before the request is sent. A server that has ended the connection
    may have sent the reason in a TLS alert, and Trio's TLS stream can't read after a
    write has failed. The caller bounds the time.

    Args:
        stream: The network.
        request: The head of the request.
        host: The host and port of the server, for error messages.

    Raises:
        HandshakeError: The answer is not a 101, is not valid HTTP/1.1, or is missing.
    """
    sent = trio.Event()

    async def send() -> None:
        with suppress(trio.BrokenResourceError):  # An answer may have arrived.
            await stream.send_all(request)
        sent.set()

    async with open_service_nursery() as nursery:
        nursery.start_soon(send)
        answer = await _AnswerReader(stream, host).read()
        await sent.wait()
    return answer


class _AnswerReader:
    """Reads one answer."""

    def __init__(self, stream: trio.abc.Stream, host: str) -> None:
        self._stream = stream
        self._host = host
        # h11 limits the bytes that it can't parse yet. The limit in read() is lower.
        self._parser = h11.Connection(
            h11.CLIENT, max_incomplete_event_size=2 * MAX_ANSWER_HEAD_BYTES
        )
        upgrade = [("Host", "x"), ("Connection", "Upgrade"), ("Upgrade", "websocket")]
        self._parser.send(h11.Request(method="GET", target="/", headers=upgrade))
        self._parser.send(h11.EndOfMessage())
        self._received = bytearray()
        self._lost: OSError | None = None
        """The error that has ended the connection, if any."""

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
                        return self._accepted(event, head, rest)
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
            # Without any bytes, h11's error says nothing more than ours.
            cause = exc if self._received else None
            raise self._invalid(exc) from (self._lost or cause)

    def _accepted(
        self, event: h11.InformationalResponse, head: bytearray, rest: bytes
    ) -> Answer:
        if event.http_version != b"1.1":
            version = event.http_version.decode("ascii")
            raise bad_answer(self._host, f"in HTTP/{version}, not HTTP/1.1")
        folded = b"\n " in head or b"\n\t" in head
        return Answer(decode_headers(event.headers), rest, folded)

    async def _receive(self) -> bytes:
        """Wait for the next bytes, and return them; none at the end of the stream.

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
        """Return the part of a refusal's body that arrives in at most a second."""
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
                pass  # The body is incomplete. The error shows the part that arrived.
        return bytes(body)

    def _invalid(self, exc: h11.RemoteProtocolError) -> HandshakeError:
        """Return the error for an answer that is missing, incomplete or not HTTP."""
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
"""The part of a body in which `first_lines()` looks for lines."""
_SHOWN_LINES: Final = 3
_SHOWN_CHARACTERS: Final = 200
_HIDDEN: Final = re.compile(r"(?is)<(style|script)\b.*?(</\1>|\Z)|<[^>]*>?")
"""The parts of an HTML page that a browser does not show: tags, styles and scripts."""


def refusal(host: str, response: h11.Response, body: bytes) -> HandshakeError:
    """Return the error for a response that is not a 101.

    Args:
        host: The host and port of the server, for the error message.
        response: The head of the response.
        body: The body, or the part of it that arrived.
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
    """Return the first lines of a body as one printable line; ``""`` if not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:  # An incremental decoder ignores an incomplete character at the end.
        text = decoder.decode(body[:_READ_BYTES])
    except UnicodeDecodeError:
        return ""
    if is_html:
        text = _HIDDEN.sub("\n", text)
    lines = [line.strip() for line in text.splitlines()]
    shown = " / ".join([line for line in lines if line][:_SHOWN_LINES])
    end = "..." if len(shown) > _SHOWN_CHARACTERS else ""
    return printable(shown[:_SHOWN_CHARACTERS]) + end

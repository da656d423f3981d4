"""Heads of requests and responses, with random errors."""

from hypothesis import strategies as st

from fuzz.case import GOOD_ANSWER, GOOD_REQUEST

REQUEST_LINES = (
    b"GET / HTTP/1.0",
    b"GET / HTTP/1.2",
    b"GET / HTTP/2.0",
    b"GET /",
    b"GET  / HTTP/1.1",
    b"GET http://[::1/ HTTP/1.1",
    b"GET * HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"GET http://b/?c HTTP/1.1",
    b"GET https://b/ HTTP/1.1",
    b"GET http://b HTTP/1.1",
    b"GET @evil/admin HTTP/1.1",
    b"GET .evil/x HTTP/1.1",
    b"GET /a#b HTTP/1.1",
    b"GET /%zz HTTP/1.1",
    b"GET /a|b?% HTTP/1.1",
    b"GET /\xc3\xa9 HTTP/1.1",
    b"GET /" + b"a" * 40_000 + b" HTTP/1.1",
    b"HEAD / HTTP/1.1",
    b"POST / HTTP/1.1",
    b"CONNECT a:1 HTTP/1.1",
    b"PRI * HTTP/2.0",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"",
)
STATUS_LINES = (
    b"HTTP/1.0 101 Switching Protocols",
    b"HTTP/1.1 101",
    b"HTTP/1.1 100 Continue",
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 204 No Content",
    b"HTTP/1.1 302 Found",
    b"HTTP/1.1 401 Unauthorized",
    b"HTTP/1.1 503 \xe9\xe8",
    b"HTTP/1.1 999 ?",
    b"HTTP/1.1 1000 ?",
    b"HTTP/1.1 -1 ?",
    b"HTTP/2.0 101 No",
    b"ICY 200 OK",
    b"",
)
HEADERS = (
    b"Host: b",
    b"Host: \xc3\xa9",
    b"Host:",
    b"Host: [::1",
    b"Host: [1]",
    b"Host: a/b",
    b"Host: a@b",
    b"Host: a:99999",
    b"Origin: http://a",
    b"Upgrade: h2c",
    b"Upgrade: h2c, websocket",
    b"Upgrade: WebSocket",
    b"Upgrade:",
    b"Connection: close",
    b"Connection: keep-alive, Upgrade",
    b"Connection: \xff",
    b"Sec-WebSocket-Key: c2hvcnQ=",
    b"Sec-WebSocket-Key: " + b"A" * 22 + b"==",
    b"Sec-WebSocket-Key: " + b"A" * 24,
    b"Sec-WebSocket-Accept: " + b"A" * 27 + b"=",
    b"Sec-WebSocket-Version: 8",
    b"Sec-WebSocket-Version: 13, 8",
    b"Sec-WebSocket-Protocol: a, b",
    b"Sec-WebSocket-Protocol: a b;c",
    b"Sec-WebSocket-Protocol: ,",
    b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99",
    b"Sec-WebSocket-Extensions: =;,",
    b"Content-Length: 0",
    b"Content-Length: 5",
    b"Content-Length: -1",
    b"Content-Length: " + b"9" * 30,
    b"Content-Length: 1, 1",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Expect: 100-continue",
    b"Location: http://[",
    b" folded",
    b"no colon",
    b": no name",
    b"Sp ace: x",
    b"X: \0",
    b"X: " + b"x" * 40_000,
    b"X: " + b"x" * 70_000,
    b"X: y\r\n" * 3_000 + b"X: y",
)
ODD_ENDS = (
    (b"", b"\n\n"),
    (b"", b"\r\r"),
    (b"", b"\r\n"),
    (b"", b""),
    (b"\r\n", b"\r\n\r\n"),
    (b"\r\n\n\r\n", b"\r\n\r\n"),
    (b" ", b"\r\n\r\n"),
)
"""Bytes before a head, and its end."""
BODIES = (
    (b"X: y", b""),
    (b"X: y", b"hello"),
    (b"X: y", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (b"X: y", b"\0" * 100),
    (b"Content-Length: 5", b"hello"),
    (b"Content-Length: 9", b"hello"),
    (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"5\r\nhelloworld"),
    (b"Transfer-Encoding: chunked", b"f" * 17 + b"\r\n"),
)
"""Headers about a body, each with the bytes that follow the head."""


@st.composite
def heads(draw: st.DrawFn, *, of_answer: bool) -> bytes:
    """Create a head with one to three changes, and the bytes after it."""
    start, *lines = (GOOD_ANSWER if of_answer else GOOD_REQUEST).split(b"\r\n")[:-2]
    before, between, end, body = b"", b"\r\n", b"\r\n\r\n", b""
    odd = st.sampled_from(
        ["start", "added", "replaced", "removed", "lines", "end", "body"]
    )
    for what in draw(st.lists(odd, min_size=1, max_size=3)):
        index = draw(st.integers(0, len(lines)))
        if what == "start":
            start = draw(st.sampled_from(STATUS_LINES if of_answer else REQUEST_LINES))
        elif what == "added":
            lines.insert(index, draw(st.sampled_from(HEADERS)))
        elif what == "replaced":
            lines[index : index + 1] = [draw(st.sampled_from(HEADERS))]
        elif what == "removed":
            del lines[index : index + 1]
        elif what == "lines":
            between = draw(st.sampled_from([b"\n", b"\r"]))
        elif what == "end":
            before, end = draw(st.sampled_from(ODD_ENDS))
        else:
            header, body = draw(st.sampled_from(BODIES))
            lines.insert(index, header)
    return before + between.join([start, *lines]) + end + body


@st.composite
def interim_answers(draw: st.DrawFn) -> bytes:
    """Create some interim responses."""
    head = b"HTTP/1.1 %d Wait\r\nX: %s\r\n\r\n"
    statuses = draw(st.lists(st.sampled_from([100, 102, 103, 199]), max_size=3))
    return b"".join(head % (status, b"x" * 50) for status in statuses)

"""The heads of requests, over streams in memory: valid, refused, and upgrades."""

import base64
from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import example, given, settings, strategies as st

from trio_wspair import Headers, Response
from trio_wspair._http.headers import comma_list
from trio_wspair._http.http1 import Head, HTTPConnection, Refusal
from trio_wspair._rules.limits import Limits

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, section 1.3.
PLAIN = b"GET /path?query=1 HTTP/1.1\r\nHost: example.com\r\nX-Name: a, b\r\n\r\n"
MAX_HEAD = 32_768


def upgrade(
    request_line: str = "GET /chat HTTP/1.1",
    *,
    without: str = "",
    **changed: str,
) -> bytes:
    """Return a good handshake with changes; `_` stands for `-`."""
    headers = {
        "host": "example.com",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-key": KEY,
        "sec-websocket-version": "13",
    }
    headers |= {name.replace("_", "-"): value for name, value in changed.items()}
    headers.pop(without, None)
    lines = [request_line, *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def http_over(stream: trio.abc.Stream) -> HTTPConnection:
    return HTTPConnection(stream, Limits(max_body_bytes=1000, body_timeout=5))


def arriving(*chunks: bytes) -> HTTPConnection:
    """Return a connection on which these pieces arrive one by one, then the end."""
    _, server = trio.testing.memory_stream_pair()
    left = iter(chunks)

    async def receive_some_hook() -> None:
        chunk = next(left, None)
        if chunk is not None:
            server.receive_stream.put_data(chunk)
        else:
            server.receive_stream.put_eof()
        await trio.lowlevel.checkpoint()

    server.receive_stream.receive_some_hook = receive_some_hook
    return http_over(server)


async def read(*chunks: bytes) -> Head | None:
    """Read a head that arrives in pieces."""
    with trio.fail_after(5):
        return await arriving(*chunks).read_head()


async def read_good(*chunks: bytes) -> Head:
    head = await read(*chunks)
    assert head is not None
    return head


async def rest_of(*chunks: bytes) -> bytes:
    """Return the bytes received beyond the head."""
    http = arriving(*chunks)
    with trio.fail_after(5):
        assert await http.read_head() is not None
    return http.unread


async def refusal(*chunks: bytes) -> Response:
    """Read a head that is refused, and return the response."""
    with pytest.raises(Refusal) as caught:
        await read(*chunks)
    return caught.value.response


def words_of(response: Response) -> str:
    """Return the text of a refusal."""
    assert isinstance(response.body, bytes)
    return response.body.decode()


# -- good heads ---------------------


async def test_a_head_has_method_target_and_headers() -> None:
    head = await read_good(PLAIN)
    assert head.method == "GET"
    assert str(head.target) == "/path?query=1"
    assert head.headers.pairs() == [("host", "example.com"), ("x-name", "a, b")]
    assert head.wants_websocket is False
    assert await rest_of(PLAIN) == b""


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "BREW"])
async def test_every_method_is_read(method: str) -> None:
    head = await read_good(f"{method} /x HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (head.method, str(head.target)) == (method, "/x")


async def test_the_values_of_headers_are_latin_1() -> None:
    data = b"GET / HTTP/1.1\r\nHost: x\r\nX-Name:  caf\xe9\x80\xff \r\n\r\n"
    assert (await read_good(data)).headers["x-name"] == "caf\xe9\x80\xff"


async def test_headers_of_one_name_stay_separate() -> None:
    data = b"GET / HTTP/1.1\r\nHost: x\r\nA: 1\r\nB: 2\r\na: 3\r\n\r\n"
    head = await read_good(data)
    assert head.headers.get_all("A") == ["1", "3"]


async def test_http_1_0_is_read_even_without_a_host() -> None:
    head = await read_good(b"GET / HTTP/1.0\r\n\r\n")
    assert (head.method, head.headers.pairs()) == ("GET", [])


async def test_a_head_may_arrive_byte_by_byte_over_a_stream() -> None:
    client, server = trio.testing.memory_stream_pair()
    http = http_over(server)
    result: list[Head | None] = []

    async def reader() -> None:
        result.append(await http.read_head())

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
            for number in range(len(PLAIN)):
                assert result == []
                await client.send_all(PLAIN[number : number + 1])
                await trio.testing.wait_all_tasks_blocked()
    assert result[0] is not None
    assert (str(result[0].target), http.unread) == ("/path?query=1", b"")


@pytest.mark.parametrize(
    "rest", [b"", b"\r\n", b"\x81\x85\0\0\0\0hello", PLAIN, b"\xff" * 5000], ids=len
)
@pytest.mark.parametrize("data", [PLAIN, upgrade()], ids=["plain", "upgrade"])
async def test_bytes_read_after_the_head_are_kept_exactly(
    data: bytes, rest: bytes
) -> None:
    assert await rest_of(data + rest) == rest


async def test_the_body_of_a_request_is_not_part_of_its_head() -> None:
    data = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
    assert await rest_of(data + b"body") == b"body"
    data = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert await rest_of(data + b"4\r\nbody\r\n") == b"4\r\nbody\r\n"


async def test_nothing_is_read_beyond_the_piece_that_ends_the_head() -> None:
    assert await rest_of(PLAIN[:-1], PLAIN[-1:] + b"ab", b"cd") == b"ab"


@st.composite
def pieces(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """Return a head, and the same with more after it, in any pieces."""
    data = draw(st.sampled_from([PLAIN, upgrade(), PLAIN.replace(b"\r\n", b"\n")]))
    everything = data + draw(st.binary(max_size=20))
    cuts = draw(st.sets(st.integers(1, len(everything) - 1), max_size=8))
    edges = [0, *sorted(cuts), len(everything)]
    return data, [everything[a:b] for a, b in pairwise(edges)]


@given(pieces())
@settings(max_examples=60, deadline=None)
def test_a_head_in_any_pieces_is_the_same_head(
    cut: tuple[bytes, list[bytes]],
) -> None:
    data, chunks = cut
    head = trio.run(read_good, *chunks)
    assert b"".join(chunks).startswith(data + trio.run(rest_of, *chunks))
    assert head.headers == trio.run(read_good, data).headers


# -- no head ---------------------


@pytest.mark.parametrize("sent", [0, 1, 3, 20, len(PLAIN) - 1])
async def test_a_peer_that_leaves_before_the_end_of_its_head_gets_no_response(
    sent: int,
) -> None:
    assert await read(*([PLAIN[:sent]] if sent else [])) is None


async def test_a_connection_that_breaks_before_the_end_of_a_head_gets_no_response() -> (
    None
):
    client, server = trio.testing.memory_stream_pair()

    async def broken() -> None:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError

    await client.send_all(PLAIN[:10])
    await trio.testing.wait_all_tasks_blocked()
    server.receive_stream.receive_some_hook = broken
    with trio.fail_after(5):
        assert await http_over(server).read_head() is None


# -- too large ---------------------


def head_of(size: int) -> bytes:
    start = b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: "
    return start + b"a" * (size - len(start) - 4) + b"\r\n\r\n"


@pytest.mark.parametrize("rest", [b"", b"x" * 40_000], ids=["alone", "and more"])
@pytest.mark.parametrize("piece", [100_000, 1000], ids=["at once", "in pieces"])
async def test_a_head_of_exactly_32_kib_is_read(rest: bytes, piece: int) -> None:
    data = head_of(MAX_HEAD)
    assert len(data) == MAX_HEAD
    everything = data + rest
    pieces = [everything[i : i + piece] for i in range(0, len(everything), piece)]
    head = await read_good(*pieces)
    assert len(head.headers["x-long"]) > 32_000
    assert rest.startswith(await rest_of(*pieces))


@pytest.mark.parametrize("size", [MAX_HEAD + 1, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("piece", [1_000_000, 1000], ids=["at once", "in pieces"])
async def test_a_larger_head_is_refused_with_431(size: int, piece: int) -> None:
    data = head_of(size)
    answer = await refusal(*(data[i : i + piece] for i in range(0, size, piece)))
    assert answer.status == 431
    assert words_of(answer).endswith("\n")


@pytest.mark.parametrize(
    "line", [b"a", b"A: b\r\n", b"GET /", b"\xc3"], ids=["text", "headers", "?", "bin"]
)
async def test_g12_a_head_without_an_end_is_refused_after_a_bounded_number_of_bytes(
    line: bytes,
) -> None:
    client, server = trio.testing.memory_stream_pair()
    received = 0

    async def endless() -> None:
        nonlocal received
        await trio.lowlevel.checkpoint()
        chunk = line * 200
        received += len(chunk)
        server.receive_stream.put_data(chunk)

    await client.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ")
    server.receive_stream.receive_some_hook = endless
    with trio.fail_after(5), pytest.raises(Refusal) as caught:
        await http_over(server).read_head()
    assert caught.value.response.status in {400, 431}
    assert received <= 2 * MAX_HEAD


# -- invalid heads ---------------------


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
        pytest.param(b"\x00\x00\x00\x00", id="zeros"),
        pytest.param(b"hello\r\n\r\n", id="hello"),
        pytest.param(b"GET /\r\n\r\n", id="HTTP/0.9"),
        pytest.param(b"GET / HTTP/9\r\n\r\n", id="version"),
        pytest.param(b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", id="two spaces"),
        pytest.param(b"GET / x HTTP/1.1\r\nHost: x\r\n\r\n", id="space in target"),
        pytest.param(b"GET /\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n", id="raw UTF-8"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", id="two hosts"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n", id="A :"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", id="no name"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nA\r\n\r\n", id="no colon"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n", id="NUL"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", id="bare CR"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nA: \x01\r\n\r\n", id="control"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x7f\r\n\r\n", id="DEL"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nA: \x1b[0m\r\n\r\n", id="escape"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", id="length"
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", id="negative"
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\n", id="lengths"
        ),
    ],
)
async def test_g12_input_that_is_not_http_is_refused_with_400(data: bytes) -> None:
    answer = await refusal(data)
    assert answer.status == 400
    assert words_of(answer).endswith("\n")
    assert answer.headers["content-type"].startswith("text/plain")


async def test_an_unknown_transfer_coding_is_refused_with_501() -> None:
    data = b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n"
    assert (await refusal(data)).status == 501


def request(*headers: str, start: str = "POST / HTTP/1.1", body: bytes = b"") -> bytes:
    return "\r\n".join([start, *headers, "", ""]).encode("latin-1") + body


CHUNKS = b"2\r\nab\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(
            request("Host: x", "Content-Length: 2", "Transfer-Encoding: chunked"),
            id="length and chunks",
        ),
        pytest.param(
            request("Host: x", "Transfer-Encoding: chunked", "Content-Length: 12"),
            id="chunks and length",
        ),
        pytest.param(
            request("Transfer-Encoding: chunked", start="POST / HTTP/1.0"),
            id="chunks in HTTP/1.0",
        ),
        pytest.param(
            request("Host: x", "Content-Length: 2", "Content-Length: 12"),
            id="two lengths",
        ),
        pytest.param(request("Host: x", "Content-Length: +2"), id="sign"),
        pytest.param(request("Host: x", "Content-Length: 0x2"), id="hexadecimal"),
        pytest.param(request("Host: x", "Content-Length: 2 2"), id="space"),
        pytest.param(request("Host: x", "Content-Length: "), id="no length"),
        pytest.param(request("Host: x", "Content-Length: \xb2"), id="superscript"),
        pytest.param(request("Host: x", "Content-Length : 2"), id="space before colon"),
        pytest.param(request("Host: x", "Transfer-Encoding : chunked"), id="the same"),
        pytest.param(request("Host: x", "Transfer-Encoding:\n chunked"), id="LF SP"),
        pytest.param(request("Host: x", "X: a\r\n Content-Length: 2"), id="fold"),
        pytest.param(request("Host: x", "X: a\r\n\tb"), id="fold with a tab"),
        pytest.param(request(" Host: x", "Host: y"), id="fold at the start"),
        pytest.param(request("Host: x", "X: a\rContent-Length: 2"), id="bare CR"),
    ],
)
async def test_g12_an_ambiguous_head_is_refused_with_400(
    data: bytes,
) -> None:
    assert (await refusal(data + CHUNKS)).status == 400


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Length: 2", "Content-Length: 2"),
        ("Content-Length: 2", "content-length:2"),
        ("Content-Length: 2, 2",),
        ("Content-Length: 2,",),
        ("Host: x",),
        ("Content-Type: text/plain", "Content-Type: text/plain"),
        ("Authorization: Basic YTpi", "Authorization: Basic YTpj"),
        ("Origin: http://a.example", "origin: http://b.example"),
    ],
    ids=" ".join,
)
async def test_g12_a_single_valued_field_that_comes_twice_is_refused_with_400(
    headers: tuple[str, ...],
) -> None:
    assert (await refusal(request("Host: x", *headers, body=b"ab"))).status == 400


async def test_repeated_cookies_and_lists_are_joined_by_their_rules() -> None:
    cookies = ("Cookie: a=b, c", "Cookie: d=e")
    lists = ("Accept: text/html", "Accept: */*")
    head = await read_good(request("Host: x", *cookies, *lists))
    assert head.headers["cookie"] == "a=b, c; d=e"
    assert head.headers["Cookie"] == "a=b, c; d=e"
    assert head.headers["accept"] == "text/html, */*"


@pytest.mark.parametrize(
    "coding", ["gzip, chunked", "chunked, chunked", "identity", "xchunked", "chunked;a"]
)
async def test_g12_a_transfer_coding_other_than_chunked_is_refused(coding: str) -> None:
    data = request("Host: x", f"Transfer-Encoding: {coding}", body=CHUNKS)
    assert (await refusal(data)).status in {400, 501}


@pytest.mark.parametrize(
    "host",
    [
        *("x/admin", "x/admin?", "x?a", "x#a", "user@x", "http://x", "x:y", "x:80:80"),
        *("[::1", "::1", "[::1]x", "[x]", "x y", "x\\y", "x, y", "\xe9", '"x"'),
    ],
    ids=ascii,
)
async def test_g12_a_host_that_would_change_the_url_is_refused_with_400(
    host: str,
) -> None:
    answer = await refusal(request(f"Host: {host}", start="GET / HTTP/1.1"))
    assert answer.status == 400
    assert words_of(answer).startswith("The header 'Host' is not valid: ")


@pytest.mark.parametrize(
    "host",
    [
        *("", "example.com", "example.com:8080", "a_b", "a..b", "127.0.0.1:", "X-1.Y."),
        *("[::1]", "[::1]:80", "[::ffff:127.0.0.1]", "xn--nxasmq6b", "a%C3%A9", "a~b"),
    ],
    ids=ascii,
)
async def test_names_and_addresses_are_hosts(host: str) -> None:
    head = await read_good(request(f"Host: {host}", start="GET / HTTP/1.1"))
    assert head.headers["host"] == host


async def test_connect_is_refused_with_501() -> None:
    answer = await refusal(request("Host: x", start="CONNECT example.com:80 HTTP/1.1"))
    assert answer.status == 501


@pytest.mark.parametrize("version", ["0.9", "1.2", "2.0", "2.7", "3.1", "9.9"])
async def test_another_version_of_http_is_refused_with_505(version: str) -> None:
    answer = await refusal(f"GET / HTTP/{version}\r\nHost: x\r\n\r\n".encode())
    assert answer.status == 505
    assert words_of(answer) == "Only HTTP/1.1 is supported.\n"


async def outcome(*chunks: bytes) -> Head | Response | None:
    try:
        return await read(*chunks)
    except Refusal as exc:
        return exc.response


def check_outcome(result: Head | Response | None) -> None:
    if isinstance(result, Response):
        assert 400 <= result.status <= 599


@given(st.sampled_from([PLAIN, upgrade()]), st.data())
@settings(max_examples=150, deadline=None)
def test_g12_with_any_wrong_byte_the_outcome_is_a_head_or_a_refusal(
    data: bytes, draw: st.DataObject
) -> None:
    place = draw.draw(st.integers(0, len(data) - 1))
    wrong = draw.draw(st.binary(min_size=1, max_size=3))
    skip = draw.draw(st.sampled_from([0, 1]))
    check_outcome(trio.run(outcome, data[:place] + wrong + data[place + skip :]))


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=4))
@example([b"GET / HTTP/1.1\r\nHost: x\r\nA: \x01\r\n\r\n"])
@settings(max_examples=60, deadline=None)
def test_g12_with_any_input_the_outcome_is_nothing_a_head_or_a_refusal(
    chunks: list[bytes],
) -> None:
    check_outcome(trio.run(outcome, *chunks))


# -- upgrades ---------------------


async def test_a_good_handshake_wants_a_websocket() -> None:
    head = await read_good(upgrade())
    assert head.wants_websocket is True
    assert head.headers["sec-websocket-key"] == KEY
    assert str(head.target) == "/chat"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(upgrade(upgrade="WebSocket"), id="case of upgrade"),
        pytest.param(upgrade(upgrade="h2c, websocket"), id="several upgrades"),
        pytest.param(upgrade(upgrade=" ,websocket ,"), id="empty elements"),
        pytest.param(upgrade(connection="upgrade"), id="case of connection"),
        pytest.param(upgrade(connection="keep-alive, Upgrade"), id="several tokens"),
        pytest.param(upgrade(connection="keep-alive\r\nConnection: Upgrade"), id="two"),
        pytest.param(upgrade(sec_websocket_protocol="a, b"), id="subprotocols"),
        pytest.param(upgrade(origin="https://elsewhere"), id="origin"),
        pytest.param(upgrade(sec_websocket_key=f"  {KEY}  "), id="space"),
        pytest.param(upgrade("GET http://x/chat HTTP/1.1"), id="absolute target"),
    ],
)
async def test_handshakes_may_be_written_in_several_ways(data: bytes) -> None:
    assert (await read_good(data)).wants_websocket is True


@pytest.mark.parametrize("without", ["upgrade", "connection"])
async def test_without_upgrade_it_is_a_plain_request_and_without_connection_an_error(
    without: str,
) -> None:
    if without == "upgrade":
        assert (await read_good(upgrade(without=without))).wants_websocket is False
    else:
        answer = await refusal(upgrade(without=without))
        assert answer.status == 400
        assert "'Connection: Upgrade'" in words_of(answer)


@pytest.mark.parametrize(
    "other", ["h2c", "websockets", "web socket", "\xa0websocket", ""]
)
async def test_an_upgrade_to_something_else_is_a_plain_request(other: str) -> None:
    assert (await read_good(upgrade(upgrade=other))).wants_websocket is False


@pytest.mark.parametrize(
    ("values", "elements"),
    [
        ([], []),
        ([""], []),
        ([" , ,"], []),
        (["a"], ["a"]),
        (["a, B ,c d"], ["a", "B", "c d"]),
        ([",a,,b,"], ["a", "b"]),
        (["a,b", "c"], ["a", "b", "c"]),
        (["\ta \t,\tb"], ["a", "b"]),
        (["\xa0a,b\x85"], ["\xa0a", "b\x85"]),
    ],
    ids=str,
)
def test_a_header_that_is_a_list_may_have_empty_elements_and_several_lines(
    values: list[str], elements: list[str]
) -> None:
    headers = Headers([("X-List", value) for value in values])
    assert comma_list(headers, "x-list") == elements


def key_of(size: int) -> str:
    return base64.b64encode(b"k" * size).decode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(upgrade("POST /chat HTTP/1.1"), "must be GET", id="POST"),
        pytest.param(upgrade("HEAD /chat HTTP/1.1"), "must be GET", id="HEAD"),
        pytest.param(upgrade("GET /chat HTTP/1.0"), "must use HTTP/1.1", id="HTTP/1.0"),
        pytest.param(upgrade(connection="close"), "'Connection: Up", id="connection"),
        pytest.param(upgrade(connection="upgraded"), "'Connection: Up", id="similar"),
        pytest.param(upgrade(content_length="3"), "must not have a body", id="length"),
        pytest.param(
            upgrade(transfer_encoding="chunked"), "must not have a body", id="chunked"
        ),
        pytest.param(upgrade(without="sec-websocket-key"), "-Key' is", id="no key"),
        pytest.param(upgrade(sec_websocket_key=""), "-Key' is", id="empty key"),
        pytest.param(upgrade(sec_websocket_key="?" * 24), "-Key' is", id="no base64"),
        pytest.param(upgrade(sec_websocket_key=KEY[:-1]), "-Key' is", id="padding"),
        pytest.param(upgrade(sec_websocket_key=KEY[:-2]), "-Key' is", id="no padding"),
        pytest.param(upgrade(sec_websocket_key=key_of(15)), "-Key' is", id="15 bytes"),
        pytest.param(upgrade(sec_websocket_key=key_of(17)), "-Key' is", id="17 bytes"),
        pytest.param(upgrade(sec_websocket_key=f"{KEY} x"), "-Key' is", id="more"),
        pytest.param(upgrade(sec_websocket_key="\xe9" * 24), "-Key' is", id="Latin-1"),
        pytest.param(
            upgrade(sec_websocket_key=f"{KEY}\r\nSec-WebSocket-Key: {KEY}"),
            "-key' comes more than once",
            id="two keys",
        ),
    ],
)
async def test_a_wrong_handshake_is_refused_with_400_and_says_why(
    data: bytes, words: str
) -> None:
    answer = await refusal(data)
    assert answer.status == 400
    assert words in words_of(answer)


@pytest.mark.parametrize("version", ["12", "14", "8", "13, 8", "013", "", "thirteen"])
async def test_another_version_is_refused_with_426_and_version_13(
    version: str,
) -> None:
    answer = await refusal(upgrade(sec_websocket_version=version))
    assert answer.status == 426
    assert answer.headers.get_all("sec-websocket-version") == ["13"]
    assert "version 13" in words_of(answer)


async def test_a_missing_version_is_refused_with_426() -> None:
    answer = await refusal(upgrade(without="sec-websocket-version"))
    assert answer.status == 426
    assert answer.headers["sec-websocket-version"] == "13"

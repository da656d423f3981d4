"""The responses of a server, over streams in memory: their bytes."""

import http
import time
from collections.abc import Iterable
from email.utils import parsedate_to_datetime

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st
from memory_server import Answer, parse_answers, read_all, request_bytes

from trio_wspair import Response
from trio_wspair._http.http1 import ClientGoneError, HTTPConnection, Refusal
from trio_wspair._rules.limits import Limits


async def sent(response: Response, request: bytes = request_bytes()) -> bytes:
    """Return the bytes of a response to this request."""
    client, server = trio.testing.memory_stream_pair()
    http1 = HTTPConnection(server, Limits(max_body_bytes=1000, body_timeout=5))
    with trio.fail_after(5):
        await client.send_all(request)
        assert await http1.read_head() is not None
        await http1.send_response(response)
        await server.send_eof()
        return await read_all(client)


async def answer(response: Response, request: bytes = request_bytes()) -> Answer:
    """Return the parsed response to this request."""
    method = request.split(b" ")[0].decode()
    return parse_answers(await sent(response, request), method)[0]


async def test_a_response_is_http_1_1_with_its_length_and_its_date() -> None:
    before = int(time.time())
    data = await sent(Response("no\n", status=403, headers={"X-Name": "a"}))
    assert data.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    (got,) = parse_answers(data)
    assert (got.status, got.body) == (403, b"no\n")
    date = parsedate_to_datetime(got.headers.pop("date"))
    assert before <= date.timestamp() <= time.time()
    assert got.headers.pairs() == [
        ("x-name", "a"),
        ("content-type", "text/plain;charset=UTF-8"),
        ("content-length", "3"),
        ("connection", "keep-alive"),
    ]


async def test_a_date_of_the_handler_is_kept() -> None:
    date = "Sun, 06 Nov 1994 08:49:37 GMT"
    got = await answer(Response("", headers={"Date": date}))
    assert got.headers.get_all("date") == [date]


async def test_the_length_is_counted_in_bytes() -> None:
    got = await answer(Response("\N{EURO SIGN}"))
    assert got.headers["content-length"] == "3"
    assert got.body == b"\xe2\x82\xac"


async def test_an_empty_response_has_length_0() -> None:
    got = await answer(Response(None))
    assert list(got.headers) == ["date", "content-length", "connection"]
    assert (got.headers["content-length"], got.body) == ("0", b"")


async def test_a_large_body_arrives_whole() -> None:
    body = bytes(range(256)) * 4096
    assert (await answer(Response(body))).body == body


async def test_a_response_to_head_has_the_headers_and_no_body() -> None:
    data = await sent(Response("hello"), request_bytes("HEAD"))
    (got,) = parse_answers(data, "HEAD")
    assert (got.status, got.body) == (200, b"")
    assert got.headers["content-length"] == "5"
    assert data.endswith(b"\r\n\r\n")


async def test_framing_and_connection_headers_of_the_handler_are_replaced() -> None:
    response = Response(
        "hello",
        headers=[
            ("Content-Length", "99"),
            ("content-length", "5"),
            ("Transfer-Encoding", "chunked"),
            ("Connection", "close"),
            ("connection", "upgrade"),
        ],
    )
    got = await answer(response)
    assert (got.status, got.body) == (200, b"hello")
    assert got.headers.get_all("content-length") == ["5"]
    assert got.headers.get_all("connection") == ["keep-alive"]
    assert "transfer-encoding" not in got.headers


@pytest.mark.parametrize(
    "request_",
    [request_bytes("GET", "/", "Connection: close"), b"GET / HTTP/1.0\r\n\r\n"],
    ids=["asked for", "HTTP/1.0"],
)
async def test_the_response_to_the_last_request_says_close(
    request_: bytes,
) -> None:
    got = await answer(Response("x"), request_)
    assert got.headers.get_all("connection") == ["close"]
    assert got.body == b"x"


async def test_sending_does_not_change_the_headers_of_the_response() -> None:
    response = Response("x", headers={"Content-Length": "99"})
    before = response.headers.pairs()
    await sent(response)
    assert response.headers.pairs() == before


async def test_headers_of_one_name_are_sent_one_by_one() -> None:
    cookies = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    got = await answer(Response("", headers=cookies))
    assert got.headers.get_all("set-cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize("status", [200, 299, 418, 599])
async def test_a_status_is_sent_with_its_name_if_it_has_one(status: int) -> None:
    name = {200: "OK", 418: "I'm a Teapot"}.get(status, "")
    data = await sent(Response("x", status=status))
    assert data.startswith(f"HTTP/1.1 {status} {name}\r\n".encode())


async def test_a_named_status_is_sent_as_its_number() -> None:
    data = await sent(Response("no", status=http.HTTPStatus.FORBIDDEN))
    assert data.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("status", [204, 304])
async def test_a_response_that_cannot_have_a_body_has_no_length(status: int) -> None:
    # RFC 9110, section 8.6: never with 204; with 304 only that of the 200.
    got = await answer(Response(None, status=status, headers={"Content-Length": "3"}))
    assert "content-length" not in got.headers
    assert "transfer-encoding" not in got.headers
    assert got.keeps_alive


async def test_an_empty_205_has_length_0() -> None:
    got = await answer(Response(None, status=205))
    assert got.headers["content-length"] == "0"


async def test_a_426_has_an_upgrade_header() -> None:
    # RFC 9110, sections 15.5.22 and 7.8.
    got = await answer(Response("WebSockets only", status=426))
    assert got.headers["upgrade"] == "websocket"
    assert got.headers["connection"] == "keep-alive, upgrade"
    got = await answer(Response("", status=426, headers={"Upgrade": "h2c"}))
    assert got.headers["upgrade"] == "h2c"


async def test_a_header_in_latin_1_arrives_as_it_is() -> None:
    got = await answer(Response("", headers={"X-Name": "caf\xe9 \x80\xff"}))
    assert got.headers["x-name"] == "caf\xe9 \x80\xff"


good_headers = st.lists(
    st.tuples(
        st.sampled_from(["X-One", "x-two", "X!#$%&'*+-.^_`|~9"]),
        st.text([*map(chr, range(0x20, 0x7F)), "\t", "\x80", "\xe9", "\xff"]),
    ),
    max_size=3,
)


@given(good_headers, st.binary(max_size=50), st.sampled_from([200, 299, 404, 500, 599]))
@settings(max_examples=60, deadline=None)
def test_every_valid_response_can_be_sent(
    items: Iterable[tuple[str, str]], body: bytes, status: int
) -> None:
    response = Response(body, status=status, headers=items)
    expected = [(name.lower(), value) for name, value in response.headers.pairs()]
    got = trio.run(answer, response)
    assert (got.status, got.body) == (status, body)
    assert got.headers.pairs()[: len(expected)] == expected


# -- header injection ---------------------


@pytest.mark.parametrize("text", ["a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX-Evil: 1"])
async def test_g12_no_header_value_makes_another_header(text: str) -> None:
    response = Response("x")
    for act in (
        lambda: response.headers.append("X-Name", text),
        lambda: response.headers.__setitem__("X-Name", text),
        lambda: response.headers.update({text: "x"}),
        lambda: response.headers.setdefault("X-Name", text),
        lambda: Response("x", headers={"X-Name": text}),
        lambda: Response.json({}, headers=[("X-Name", text)]),
    ):
        with pytest.raises(ValueError, match="can't"):
            act()
    assert "x-evil" not in (await answer(response)).headers
    assert "x-evil" not in (await answer(Response.redirect(text))).headers


async def test_headers_that_were_replaced_are_checked_when_they_are_sent() -> None:
    response = Response("x")
    response.headers = {"X-Name": "a\r\nX-Evil: 1"}  # type: ignore[assignment] # on purpose
    with pytest.raises(ValueError, match=r"the value of header '.*' contains"):
        await sent(response)


# -- clients that have gone, and refusals ---------------------


async def test_a_response_to_a_client_that_has_gone_raises_client_gone_error() -> None:
    client, server = trio.testing.memory_stream_pair()
    http1 = HTTPConnection(server, Limits(max_body_bytes=1000, body_timeout=5))
    await client.send_all(request_bytes())
    with trio.fail_after(5):
        await http1.read_head()
        await client.aclose()
        with pytest.raises(ClientGoneError):
            await http1.send_response(Response("x"))


async def test_every_refusal_can_be_sent_and_is_the_last_response() -> None:
    upgrade = "Upgrade: websocket"
    large = f"X: {'x' * 33_000}"
    for data in (
        b"hello\r\n\r\n",
        request_bytes("GET", "/", upgrade),
        request_bytes("GET", "/", large),
        request_bytes("GET", "/", "X: a\r\n b"),
        request_bytes("GET", "/", "Host: b"),
        request_bytes("CONNECT", "a:80"),
        request_bytes("POST", "/", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    ):
        client, server = trio.testing.memory_stream_pair()
        http1 = HTTPConnection(server, Limits(max_body_bytes=1000, body_timeout=5))
        await client.send_all(data)
        with trio.fail_after(5):
            with pytest.raises(Refusal) as caught:
                await http1.read_head()
            refusal = caught.value.response
            assert not await http1.send_response(refusal)
            await server.send_eof()
            (got,) = parse_answers(await read_all(client))
        assert (got.status, got.body) == (refusal.status, refusal.body)
        assert got.headers["content-type"] == "text/plain;charset=UTF-8"
        assert got.headers.get_all("connection") == ["close"]


async def test_the_refusal_of_a_broken_head_after_a_head_request_has_a_body() -> None:
    client, server = trio.testing.memory_stream_pair()
    http1 = HTTPConnection(server, Limits(max_body_bytes=1000, body_timeout=5))
    await client.send_all(request_bytes("HEAD") + b"nonsense\r\n\r\n")
    with trio.fail_after(5):
        await http1.read_head()
        assert await http1.send_response(Response("x"))
        assert await http1.wait_for_request()
        with pytest.raises(Refusal) as caught:
            await http1.read_head()
        await http1.send_response(caught.value.response)
        await server.send_eof()
        first, second = parse_answers(await read_all(client), "HEAD", "GET")
    assert (first.status, second.status) == (200, 400)
    assert second.body == caught.value.response.body

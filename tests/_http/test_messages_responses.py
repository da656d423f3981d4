"""`Response`, as a `fetch` handler makes it, and wrong arguments."""

import http
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import cast

import pytest
import trio

from trio_wspair import Headers, Response, WebSocket, WebSocketPair

# -- responses without a WebSocket ---------------------


def test_an_empty_response_is_a_200_without_headers() -> None:
    response = Response()
    assert response.status == 200
    assert response.body == b""
    assert response.headers.pairs() == []
    assert response.web_socket is None
    assert repr(response) == "<Response 200>"


@pytest.mark.parametrize(
    ("text", "body"),
    [("", b""), ("no", b"no"), ("\N{EURO SIGN}", b"\xe2\x82\xac")],
)
def test_text_is_sent_as_utf8_with_its_content_type(text: str, body: bytes) -> None:
    response = Response(text, status=403)
    assert response.body == body
    assert response.headers.pairs() == [("Content-Type", "text/plain;charset=UTF-8")]
    assert repr(response) == "<Response 403>"


def test_a_given_content_type_is_kept() -> None:
    response = Response("<p>", headers={"content-type": "text/html"})
    assert response.headers.pairs() == [("content-type", "text/html")]


def test_bytes_have_no_default_content_type() -> None:
    response = Response(b"\x00\xff")
    assert response.body == b"\x00\xff"
    assert response.headers.pairs() == []


def test_a_response_keeps_a_copy_of_its_headers() -> None:
    headers = Headers({"A": "1"})
    response = Response("", headers=headers)
    headers["A"] = "2"
    assert response.headers["a"] == "1"
    assert "content-type" not in headers


def test_a_status_may_be_a_named_one() -> None:
    response = Response("no", status=http.HTTPStatus.FORBIDDEN)
    assert response.status == 403
    assert repr(response) == "<Response 403>"


@pytest.mark.parametrize("status", [200, 201, 299, 300, 404, 418, 500, 599])
def test_statuses_from_200_to_599_are_good(status: int) -> None:
    assert Response("x", status=status).status == status


@pytest.mark.parametrize("status", [-1, 0, 99, 100, 102, 103, 199, 600, 1000])
def test_other_statuses_are_refused(status: int) -> None:
    message = f"the status must be 200-599, or 101 with a WebSocket, not {status}$"
    with pytest.raises(ValueError, match=message):
        Response(None, status=status)


def test_101_needs_a_websocket() -> None:
    with pytest.raises(ValueError, match="pass web_socket="):
        Response(None, status=101)


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_status_without_a_body_refuses_one(status: int) -> None:
    for body in ("x", b"x"):
        with pytest.raises(
            TypeError, match=f"response with status {status} can't have a b"
        ):
            Response(body, status=status)
    for empty in ("", b"", None):
        assert Response(empty, status=status).body == b""


@pytest.mark.parametrize("status", ["200", 200.0, True, None, b"200"], ids=repr)
def test_a_status_that_is_not_an_int_is_a_type_error(status: object) -> None:
    with pytest.raises(
        TypeError, match="the status must be an int, such as 200, not"
    ) as err:
        Response("", status=cast("int", status))
    assert repr(status) in str(err.value)


async def pieces() -> AsyncGenerator[str]:
    yield "x"


class Pieces:
    """An async iterable that isn't a generator."""

    def __aiter__(self) -> AsyncIterator[str]:
        return pieces()


def test_an_async_iterable_is_kept_as_it_is_and_has_no_content_type() -> None:
    for body in (pieces(), Pieces()):
        response = Response(body)
        assert response.body is body
        assert response.headers.pairs() == []


@pytest.mark.parametrize("status", [204, 205, 304])
def test_statuses_without_a_body_refuse_an_async_iterable_too(status: int) -> None:
    for body in (pieces(), Pieces()):
        with pytest.raises(
            TypeError, match=f"response with status {status} can't have a b"
        ):
            Response(body, status=status)


@pytest.mark.parametrize(
    "body",
    [pieces, iter(["x"]), ("x" for _ in range(1))],
    ids=lambda b: type(b).__name__,
)
def test_a_sync_iterable_is_not_a_body(body: object) -> None:
    with pytest.raises(
        TypeError, match="an async iterable of them, or None, not "
    ) as caught:
        Response(cast("str", body))
    assert type(body).__name__ in str(caught.value)


# -- JSON and redirects ---------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"a": [1, 2.5, None, True]}, '{"a": [1, 2.5, null, true]}'),
        ("gr\xfc\xdfe", '"gr\xfc\xdfe"'),
        (None, "null"),
        ([], "[]"),
        (0, "0"),
    ],
)
def test_json_is_sent_as_utf_8_with_its_content_type(data: object, text: str) -> None:
    response = Response.json(data)
    assert response.status == 200
    assert response.body == text.encode()
    assert response.headers.pairs() == [("Content-Type", "application/json")]


def test_json_may_have_a_status_and_headers() -> None:
    headers = Headers({"content-type": "application/problem+json", "X-Name": "a"})
    response = Response.json({"detail": "no"}, status=404, headers=headers)
    assert response.status == 404
    assert response.headers.pairs() == headers.pairs()
    assert len(Response.json(1, headers={"X-Name": "a"}).headers) == 2


@pytest.mark.parametrize("data", [object(), {1, 2}, b"x", {(1, 2): 3}], ids=type)
def test_a_value_that_json_cannot_hold_is_a_type_error(data: object) -> None:
    with pytest.raises(TypeError):
        Response.json(data)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_cannot_hold_are_value_errors(number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        Response.json({"a": [number]})


def test_json_refuses_a_status_without_a_body() -> None:
    with pytest.raises(TypeError, match="a response with status 204 can't have a body"):
        Response.json(None, status=204)
    with pytest.raises(ValueError, match="200-599"):
        Response.json({}, status=99)


def test_a_lone_surrogate_is_sent_as_in_browsers() -> None:
    # WHATWG: a USVString in text, an escape in JSON. Clients can send them in JSON.
    assert Response("a\ud800b").body == b"a\xef\xbf\xbdb"
    assert Response.json(["\xe9", "\ud800"]).body == b'["\xc3\xa9", "\\ud800"]'
    assert Response.json({"\udfff": "\\"}).body == b'{"\\udfff": "\\\\"}'
    body = Response.json("a\udc80\\").body
    assert isinstance(body, bytes)
    assert json.loads(body) == "a\udc80\\"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_has_a_location(status: int) -> None:
    response = Response.redirect("https://example.com/a?b", status)
    assert (response.status, response.body) == (status, b"")
    assert response.headers.pairs() == [("Location", "https://example.com/a?b")]


def test_a_redirect_is_a_302_and_may_be_relative() -> None:
    response = Response.redirect("/login")
    assert (response.status, response.headers["location"]) == (302, "/login")


@pytest.mark.parametrize("status", [200, 300, 304, 306, 309, 400, "302", None, 302.5])
def test_another_status_does_not_redirect(status: object) -> None:
    with pytest.raises(ValueError, match="the status must be 301, 302, 303, 307"):
        Response.redirect("/", cast("int", status))


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("/a b?c d", "/a%20b?c%20d"),
        ("/a\r\nX-Evil: 1", "/a%0D%0AX-Evil:%201"),
        ("/\N{EURO SIGN}", "/%E2%82%AC"),
        ("/a\0b\0", "/a%00b"),
        ("/\xfc%20", "/%C3%BC%20"),
        ("http://b\xfccher.example/\xfc", "http://xn--bcher-kva.example/%C3%BC"),
        ("/\\evil.example", "/%5Cevil.example"),
        ("\ud800", "%EF%BF%BD"),
        ("", ""),
    ],
    ids=ascii,
)
def test_the_location_of_a_redirect_is_percent_encoded(url: str, location: str) -> None:
    assert Response.redirect(url).headers["location"] == location
    assert Response(headers={"Location": url}).headers["location"] == location
    response = Response()
    response.headers["LOCATION"] = url
    assert response.headers["location"] == location


def test_the_location_of_a_redirect_must_be_a_str() -> None:
    with pytest.raises(TypeError, match="must be a str, not int"):
        Response.redirect(cast("str", 5))


@pytest.mark.parametrize("body", [5, {}, ["x"], bytearray(b"x"), True], ids=repr)
def test_a_body_of_another_type_is_a_type_error(body: object) -> None:
    with pytest.raises(TypeError, match="a body must be str, bytes, an") as caught:
        Response(cast("str", body))
    assert type(body).__name__ in str(caught.value)


# -- responses with a WebSocket, with the rules of workerd ---------------------


async def test_a_101_carries_a_half(nursery: trio.Nursery) -> None:
    half = WebSocketPair(nursery)[0]
    response = Response(None, status=101, web_socket=half)
    assert response.status == 101
    assert response.web_socket is half
    assert response.headers.pairs() == []
    assert half.ready_state == 1


@pytest.mark.parametrize(
    "status", [200, 204, 404, 500, 0, 99, 100, 102, 600], ids=lambda s: f"status {s}"
)
async def test_a_half_goes_with_101_and_nothing_else(
    status: int, nursery: trio.Nursery
) -> None:
    half = WebSocketPair(nursery)[0]
    with pytest.raises(
        ValueError,
        match=f"the status of a response with a WebSocket must be 101, not {status}$",
    ):
        Response(None, status=status, web_socket=half)


async def test_a_half_does_not_go_with_the_default_status(
    nursery: trio.Nursery,
) -> None:
    with pytest.raises(ValueError, match="must be 101, not 200"):
        Response(None, web_socket=WebSocketPair(nursery)[0])


async def test_a_101_has_no_body_but_may_have_an_empty_one(
    nursery: trio.Nursery,
) -> None:
    half = WebSocketPair(nursery)[0]
    for body in ("text", b"data"):
        with pytest.raises(
            TypeError, match="a response with status 101 can't have a body"
        ):
            Response(body, status=101, web_socket=half)
    assert Response("", status=101, web_socket=half).headers.pairs() == []


@pytest.mark.parametrize("wrong", ["x", {}, 5, object()], ids=lambda v: f"{v!r:.7}")
@pytest.mark.parametrize("status", [101, 200])
def test_something_that_is_not_a_half_is_a_type_error(
    wrong: object, status: int
) -> None:
    with pytest.raises(
        TypeError, match="web_socket must be one half of a pair, not "
    ) as err:
        Response(None, status=status, web_socket=cast("WebSocket", wrong))
    assert type(wrong).__name__ in str(err.value)


async def test_a_pair_is_not_a_half(nursery: trio.Nursery) -> None:
    pair = cast("WebSocket", WebSocketPair(nursery))
    with pytest.raises(TypeError, match="one half of a pair, not WebSocketPair"):
        Response(None, status=101, web_socket=pair)


async def test_web_socket_none_means_no_half(nursery: trio.Nursery) -> None:
    assert Response(None, status=200, web_socket=None).web_socket is None
    with pytest.raises(ValueError, match="needs a WebSocket"):
        Response(None, status=101, web_socket=None)


async def test_a_response_can_be_made_again_with_the_same_half(
    nursery: trio.Nursery,
) -> None:
    client, server = WebSocketPair(nursery)
    first = Response(None, status=101, web_socket=client)
    second = Response(None, status=101, web_socket=client)
    assert first.web_socket is second.web_socket is client
    client.accept()
    server.accept(pull=True)
    client.send("x")
    with trio.fail_after(5):
        assert await server.receive() == "x"


async def test_a_response_does_not_check_whether_its_half_is_free(
    nursery: trio.Nursery,
) -> None:
    client, server = WebSocketPair(nursery)
    client.accept()
    assert Response(None, status=101, web_socket=client).web_socket is client
    server.accept()
    client.close()
    with trio.fail_after(5):
        await client.wait_closed()
    assert Response(None, status=101, web_socket=client).web_socket is client


async def test_a_101_may_choose_a_subprotocol_in_its_headers(
    nursery: trio.Nursery,
) -> None:
    response = Response(
        None,
        status=101,
        headers={"Sec-WebSocket-Protocol": "chat"},
        web_socket=WebSocketPair(nursery)[0],
    )
    assert response.headers.pairs() == [("Sec-WebSocket-Protocol", "chat")]

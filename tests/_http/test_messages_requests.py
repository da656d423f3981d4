"""`Request` and `Headers`, as a `fetch` handler uses them."""

from collections.abc import Mapping
from typing import Any, cast

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

from trio_wspair import (
    Headers,
    Request,
    RequestBodyError,
    Response,
    WebSocketError,
)

NAME_CHARACTERS = (
    "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

names = st.text(NAME_CHARACTERS, min_size=1, max_size=8)
good_characters = st.sampled_from("\t !~aZ0,;=\x80\xa0\xe9\xff")
good_values = st.text(good_characters, max_size=8).map(lambda v: v.strip(" \t"))
pairs = st.lists(st.tuples(names, good_values), max_size=6)


# -- headers: reading ---------------------


def test_headers_ignore_the_case_of_names() -> None:
    headers = Headers({"Content-Type": "text/plain"})
    assert headers["content-type"] == headers["CONTENT-TYPE"] == "text/plain"
    assert "CONTENT-type" in headers
    assert headers.get("content-TYPE") == "text/plain"
    assert headers.get_all("CONTENT-TYPE") == ["text/plain"]


def test_several_values_of_a_name_are_read_as_one_joined_value() -> None:
    headers = Headers([("Accept", "a"), ("X", "1"), ("accept", "b")])
    assert headers["accept"] == "a, b"
    assert headers.get_all("accept") == ["a", "b"]


def test_a_missing_name_reads_like_a_missing_key() -> None:
    headers = Headers()
    with pytest.raises(KeyError):
        headers["missing"]
    with pytest.raises(KeyError):
        del headers["missing"]
    assert headers.get("missing") is None
    assert headers.get("missing", "else") == "else"
    assert headers.get_all("missing") == []
    assert "missing" not in headers


def test_names_come_once_each_in_lower_case_and_in_order() -> None:
    headers = Headers([("B", "1"), ("A", "2"), ("b", "3")])
    assert list(headers) == ["b", "a"]
    assert len(headers) == 2
    assert list(headers.items()) == [("b", "1, 3"), ("a", "2")]
    assert headers.pairs() == [("B", "1"), ("A", "2"), ("b", "3")]


def test_empty_headers_are_false_and_have_no_names() -> None:
    assert not Headers()
    assert len(Headers()) == 0
    assert list(Headers()) == []
    assert Headers().pairs() == []


def test_the_repr_of_headers_can_be_evaluated() -> None:
    headers = Headers([("B", "1"), ("A", "2"), ("b", "3")])
    assert repr(headers) == "Headers([('B', '1'), ('A', '2'), ('b', '3')])"
    assert eval(repr(headers)) == headers  # noqa: S307 - that is the point


def test_headers_are_equal_whatever_the_case() -> None:
    assert Headers({"A": "1"}) == Headers({"a": "1"}) == {"a": "1"}
    assert Headers({"A": "1"}) != Headers({"a": "2"})


# -- headers: writing ---------------------


def test_setting_a_name_replaces_all_its_values_and_appending_adds_one() -> None:
    headers = Headers([("A", "1"), ("B", "2"), ("a", "3")])
    headers["A"] = "new"
    assert headers.get_all("a") == ["new"]
    headers.append("a", "more")
    assert headers["a"] == "new, more"
    assert headers["b"] == "2"


def test_deleting_a_name_deletes_all_its_values() -> None:
    headers = Headers([("A", "1"), ("B", "2"), ("a", "3")])
    del headers["a"]
    assert headers.pairs() == [("B", "2")]


def test_headers_are_a_mutable_mapping() -> None:
    headers = Headers({"A": "1"})
    headers.update({"B": "2"})
    assert headers.setdefault("a", "other") == "1"
    assert headers.setdefault("c", "3") == "3"
    assert headers.pop("b") == "2"
    assert headers.pairs() == [("A", "1"), ("c", "3")]


@pytest.mark.parametrize(
    "source",
    [
        pytest.param([("A", "1"), ("B", "2")], id="list of pairs"),
        pytest.param((["A", "1"], ["B", "2"]), id="lists in a tuple"),
        pytest.param({"A": "1", "B": "2"}, id="dict"),
        pytest.param(Headers({"A": "1", "B": "2"}), id="Headers"),
        pytest.param((pair for pair in [("A", "1"), ("B", "2")]), id="generator"),
    ],
)
def test_headers_are_made_of_pairs_or_of_a_mapping(source: Mapping[str, str]) -> None:
    assert Headers(source).pairs() == [("A", "1"), ("B", "2")]


def test_copied_headers_keep_every_value_and_are_independent() -> None:
    first = Headers([("Set-Cookie", "a"), ("set-cookie", "b")])
    second = Headers(first)
    assert second.pairs() == first.pairs()
    second.append("X", "1")
    assert "x" not in first


@given(pairs)
@settings(max_examples=50, deadline=None)
def test_appended_values_are_kept_in_order(items: list[tuple[str, str]]) -> None:
    headers = Headers(items)
    assert headers.pairs() == items
    assert Headers(headers).pairs() == items
    for name, _ in items:
        values = [value for other, value in items if other.lower() == name.lower()]
        assert headers.get_all(name.upper()) == values
        separator = "; " if name.lower() == "cookie" else ", "
        assert headers[name] == separator.join(values)
    assert list(headers) == list(dict.fromkeys(name.lower() for name, _ in items))


# -- headers: invalid ones ---------------------


def test_no_error_about_a_header_shows_its_value() -> None:
    wrong: list[Any] = [
        {"Authorization": "Bearer hunter2\n"},
        {"Authorization: Bearer hunter2": ""},
        ["Authorization: Bearer hunter2"],
        [("Authorization", "Bearer", "hunter2")],
        [("Authorization", b"Bearer hunter2")],
    ]
    for headers in wrong:
        with pytest.raises((ValueError, TypeError), match="header") as caught:
            Headers(headers)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "a b", "a:", ":authority", "a\r\nb", "a\n", "\ta", "a\0"),
        *("na\N{LATIN SMALL LETTER I WITH DIAERESIS}f", "\u0661", "(a)", '"a"', "a/b"),
    ],
    ids=ascii,
)
def test_a_name_that_is_not_a_token_is_refused(name: str) -> None:
    headers = Headers({"A": "1"})
    for act in (
        lambda: headers.append(name, "v"),
        lambda: headers.__setitem__(name, "v"),
        lambda: Headers({name: "v"}),
        lambda: Response("", headers=[(name, "v")]),
    ):
        with pytest.raises(ValueError, match="can't be the name of a header") as caught:
            act()
        assert repr(name.partition(":")[0]) in str(caught.value)
    assert headers.pairs() == [("A", "1")]


@pytest.mark.parametrize(
    "value",
    [
        *("a\r\nSet-Cookie: b", "a\nb", "a\rb", "a\n", "\r\na", "\n", "a\0b", "\x1b"),
        *("\x7f", "\u0100", "\N{EURO SIGN}", "\N{GRINNING FACE}", "\ud800", "\x0b"),
    ],
    ids=ascii,
)
def test_a_value_with_invalid_characters_is_refused(value: str) -> None:
    headers = Headers({"A": "1"})
    for act in (
        lambda: headers.append("X-Name", value),
        lambda: headers.__setitem__("a", value),
        lambda: Headers({"X-Name": value}),
        lambda: Response("", headers=[("X-Name", value)]),
    ):
        with pytest.raises(
            ValueError, match=r"the value of header '.*' contains"
        ) as caught:
            act()
        assert any(repr(character) in str(caught.value) for character in value)
        assert len(value) < 3 or value not in str(caught.value)
    assert headers.pairs() == [("A", "1")]


def test_every_character_is_either_refused_or_printable_latin_1() -> None:
    kept: list[int] = []
    for number in range(0x200):
        try:
            value = Headers({"x": f"a{chr(number)}b"})["x"]
        except ValueError:
            continue
        assert value == f"a{chr(number)}b"
        kept.append(number)
    assert kept == [0x09, *range(0x20, 0x7F), *range(0x80, 0x100)]


@pytest.mark.parametrize("value", [" a", "a ", "\ta\t", "  a \t "], ids=ascii)
def test_space_around_a_value_is_removed(value: str) -> None:
    headers = Headers({"a": value})
    headers["b"] = value
    assert headers.get_all("a") == headers.get_all("b") == ["a"]


@pytest.mark.parametrize("wrong", [1, None, b"a", ["a"], True], ids=repr)
def test_names_and_values_that_are_not_str_are_type_errors(wrong: object) -> None:
    headers = Headers({"A": "1"})
    text = cast("str", wrong)
    with pytest.raises(TypeError, match="the name of a header must be a str, not "):
        headers.append(text, "v")
    with pytest.raises(
        TypeError, match="the value of header 'X-Name' must be a str, not "
    ):
        headers.append("X-Name", text)
    with pytest.raises(TypeError, match="the value of header 'a' must be a str, not "):
        headers["a"] = text
    assert headers.pairs() == [("A", "1")]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param("X-Name: value", id="text"),
        pytest.param(b"ab", id="bytes"),
        pytest.param(["ab"], id="text of two characters"),
        pytest.param([("X-Name",)], id="one"),
        pytest.param([("X-Name", "a", "b")], id="three"),
        pytest.param(5, id="int"),
        pytest.param([5], id="int in a list"),
        pytest.param(None, id="None"),
    ],
)
def test_headers_that_are_not_pairs_are_refused_with_a_helpful_error(
    wrong: object,
) -> None:
    source = cast("Mapping[str, str]", wrong)
    with pytest.raises((TypeError, ValueError), match="pairs"):
        Headers(source)
    with pytest.raises((TypeError, ValueError), match="pairs"):
        Response("", headers=source)


# -- requests ---------------------


def make_request(nursery: trio.Nursery) -> Request:
    return Request(
        method="GET",
        url="http://localhost/chat?room=1",
        headers=Headers({"Upgrade": "websocket"}),
        nursery=nursery,
        client="127.0.0.1",
    )


async def test_a_request_has_its_method_url_headers_and_client(
    nursery: trio.Nursery,
) -> None:
    request = make_request(nursery)
    assert request.method == "GET"
    assert request.url == "http://localhost/chat?room=1"
    assert request.headers["upgrade"] == "websocket"
    assert request.nursery is nursery
    assert request.client == "127.0.0.1"


async def test_a_request_is_immutable_and_equals_only_itself(
    nursery: trio.Nursery,
) -> None:
    request = make_request(nursery)
    with pytest.raises(AttributeError):
        request.url = "http://elsewhere/"  # type: ignore[misc]  # That is the point.
    assert request != make_request(nursery)
    assert len({request, request, make_request(nursery)}) == 2


async def test_a_request_has_its_path_and_whether_it_came_over_tls(
    nursery: trio.Nursery,
) -> None:
    def at(url: str) -> Request:
        return Request(method="GET", url=url, headers=Headers(), nursery=nursery)

    assert at("http://x/chat?room=1").path == "/chat"
    assert at("http://x/a%20b/%C3%A9?c").path == "/a b/\xe9"
    assert at("http://x").path == "/"
    with pytest.raises(ValueError, match="not an absolute URL"):
        at("/chat")
    assert not at("http://https:80/").secure
    assert at("https://x/").secure
    assert at("wss://x/").secure
    assert at("http://x/").client == ""


async def test_a_request_needs_few_arguments_and_its_repr_shows_no_secret(
    nursery: trio.Nursery,
) -> None:
    request = Request(
        method="GET",
        url="ws://B\xfccher.example/gr\xfc\xdfe?token=secret",
        headers={"Cookie": "secret"},
        nursery=nursery,
    )
    assert request.path == "/gr\xfc\xdfe"
    url = "http://xn--bcher-kva.example/gr%C3%BC%C3%9Fe"
    assert request.url == f"{url}?token=secret"
    assert repr(request) == f"<Request GET {url}?token=...>"
    assert request.headers["cookie"] == "secret"
    assert Request(method="GET", url=url, nursery=nursery).headers.pairs() == []


UPGRADE = {
    "Connection": "keep-alive, UPGRADE",
    "Upgrade": "h2c, WebSocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


async def test_a_request_knows_whether_it_wants_a_websocket(
    nursery: trio.Nursery,
) -> None:
    def wanted(method: str = "GET", **changed: str) -> bool:
        headers = Headers(UPGRADE)
        for name, value in changed.items():
            headers[name.replace("_", "-")] = value
        request = Request(
            method=method, url="http://x/", headers=headers, nursery=nursery
        )
        return request.wants_websocket

    assert wanted()
    assert wanted(content_length="0")
    assert not wanted("POST")
    assert not wanted(upgrade="h2c")
    assert not wanted(upgrade="websocket2")
    assert not wanted(connection="close")
    assert not wanted(content_length="3")
    assert not wanted(sec_websocket_key="short")
    assert not wanted(sec_websocket_version="12")
    assert not wanted(sec_websocket_protocol="a b")
    plain = Request(method="GET", url="http://x/", nursery=nursery)
    assert not plain.wants_websocket
    told = Request(method="GET", url="http://x/", nursery=nursery, wants_websocket=True)
    assert told.wants_websocket


async def test_a_request_without_a_body_has_an_empty_one(
    nursery: trio.Nursery,
) -> None:
    request = make_request(nursery)
    with trio.testing.assert_checkpoints():
        assert await request.bytes() == b""
    assert await request.text() == ""
    with pytest.raises(ValueError, match="Expecting value"):
        await request.json()


def test_an_error_of_a_body_has_the_status_of_its_response() -> None:
    error = RequestBodyError(413, "too large")
    assert (error.status, str(error)) == (413, "too large")
    assert not isinstance(error, WebSocketError)

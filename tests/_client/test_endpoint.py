"""URLs of WebSockets: parsed as in browsers, and errors without secrets."""

import base64

import pytest
from hypothesis import given, strategies as st

from trio_wspair._client.endpoint import Endpoint, parse_endpoint


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://h", "ws://h/"),
        ("WSS://H/", "wss://h/"),
        ("http://h/a", "ws://h/a"),
        ("HTTPS://h/a?b", "wss://h/a?b"),
        ("ws://h?q", "ws://h/?q"),
        ("ws://h/?", "ws://h/"),
        ("ws://h/?a?b/c\\", "ws://h/?a?b/c\\"),
        ("ws://h:80/", "ws://h/"),
        ("wss://h:443/", "wss://h/"),
        ("ws://h:443/", "ws://h:443/"),
        ("ws://h:/", "ws://h/"),
        ("ws://h:00081/", "ws://h:81/"),
        ("ws://h:65535/", "ws://h:65535/"),
        (" \x00ws://h/a\r\n ", "ws://h/a"),
        ("w\ts://h/a\nb", "ws://h/ab"),
        ("ws:\\\\h\\a\\b", "ws://h/a/b"),
        ("ws://h/a/../b", "ws://h/b"),
        ("ws://h/../..", "ws://h/"),
        ("ws://h/a/b/..", "ws://h/a/"),
        ("ws://h/a/./b/.", "ws://h/a/b/"),
        ("ws://h/a/%2E%2e/b/%2e", "ws://h/b/"),
        ("ws://h/...", "ws://h/..."),
        ("ws://h//a//", "ws://h//a//"),
        ("ws://h/ä b\x7f^`{}<>\"|'[]%zz", "ws://h/%C3%A4%20b%7F%5E%60%7B%7D%3C%3E%22|'[]%zz"),
        ("ws://h/?ä b^`{}<>\"|'", "ws://h/?%C3%A4%20b^`{}%3C%3E%22|%27"),
        ("ws://h/?q=../..", "ws://h/?q=../.."),
        ("ws://127.1:8/", "ws://127.0.0.1:8/"),
        ("ws://0x7F.0.0.1/", "ws://127.0.0.1/"),
        ("ws://[::1]:8/", "ws://[::1]:8/"),
        ("ws://[0:0::0001]/", "ws://[::1]/"),
        ("ws://Bücher.example/", "ws://xn--bcher-kva.example/"),
        ("ws://faß.example/", "ws://xn--fa-hia.example/"),
        ("ws://βόλος.example/", "ws://xn--nxasmm1c.example/"),
        ("ws://\uff45xample\u3002com/", "ws://example.com/"),
        ("ws://a_b/", "ws://a_b/"),
        ("ws://h%2ec/", "ws://h.c/"),
        ("ws://me:secret@h/", "ws://h/"),
    ],
)  # fmt: skip
def test_a_url_is_parsed_as_in_browsers(url: str, expected: str) -> None:
    endpoint = parse_endpoint(url)
    assert endpoint.url == expected
    assert parse_endpoint(endpoint.url) == Endpoint(
        endpoint.host,
        endpoint.port,
        endpoint.host_header,
        endpoint.server_name,
        endpoint.resource,
        endpoint.secure,
        None,
        endpoint.url,
    )


@pytest.mark.parametrize(
    ("url", "host", "host_header", "server_name"),
    [
        ("ws://h/", "h", "h", "h"),
        ("ws://h.:8/", "h.", "h.:8", "h"),
        ("ws://127.0.0.1/", "127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("ws://[::1]:80/", "::1", "[::1]", "::1"),
        ("wss://[fe80::1%25eth0]:8/", "fe80::1%eth0", "[fe80::1]:8", "fe80::1"),
        ("wss://[FE80::1%Eth0]/", "fe80::1%Eth0", "[fe80::1]", "fe80::1"),
    ],
)
def test_a_trailing_dot_and_a_zone_are_left_out_of_headers(
    url: str, host: str, host_header: str, server_name: str
) -> None:
    endpoint = parse_endpoint(url)
    assert endpoint.host == host
    assert endpoint.host_header == host_header
    assert endpoint.server_name == server_name
    assert parse_endpoint(endpoint.url).host == host


@pytest.mark.parametrize(
    ("userinfo", "sent"),
    [
        ("me:secret", b"me:secret"),
        ("me", b"me:"),
        ("me:", b"me:"),
        (":secret", b":secret"),
        ("me:a:b", b"me:a:b"),
        ("m%C3%A9:%40%2f%00"[:-3], "mé:@/".encode()),
        ("mé:ü", "mé:ü".encode()),
        ("a@b:c@d", b"a@b:c@d"),
        ("", None),
        (":", None),
    ],
)
def test_userinfo_is_basic_authorization(userinfo: str, sent: bytes | None) -> None:
    endpoint = parse_endpoint(f"wss://{userinfo}@h/")
    if sent is None:
        assert endpoint.authorization is None
    else:
        scheme, _, value = (endpoint.authorization or "").partition(" ")
        assert (scheme, base64.b64decode(value)) == ("Basic", sent)
    assert endpoint.host == "h"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        *(
            (url, "it must begin with ws://, wss://, http:// or https://")
            for url in ("", "h", "a/b", "/a", "//h/", "ftp://h/", "wss", "ws:", "ws:h")
        ),
        ("ws:/h", "it must begin with"),
        ("javascript:ws://h/", "it must begin with"),
        ("wsx://h/", "it must begin with"),
        ("ws://", "it has no host"),
        ("ws:///b", "it has no host"),
        ("ws://me@/", "it has no host"),
        ("ws://:8/", "it has no host"),
        ("ws://?a", "it has no host"),
        *((f"ws://h/{end}", "it has a fragment") for end in ("#", "#a", "?#a")),
        ("ws://h#a", "it has a fragment"),
        *(
            (f"ws://h:{port}/", "its port must be a number from 1 to 65535")
            for port in ("0", "65536", "-1", "+1", "0x50", "8 0", "٣", "a", "1" * 5000)
        ),
        *(
            (f"ws://{host}/", "its host is not valid; put an IPv6 address in bracket")
            for host in ("a:b:c", "::1", "[::1", "::1]", "[::1]x", "[::1]:2:3")
        ),
        ("ws://[1]/", "not an IPv6 address"),
        ("ws://[::1%25]/", "zone"),
        ("ws://a b/", "can't be the name of a host"),
        ("ws://a%00/", "can't be the name of a host"),
        ("ws://1.2.3.256/", "not an IPv4 address"),
        ("ws://xn--a/", "can't be the name of a host"),
        ("ws://a..b/", "with 1 to 63 between two dots"),
        ("ws://.a/", "with 1 to 63 between two dots"),
        ("ws://./", "with 1 to 63 between two dots"),
        ("ws://" + "a" * 64 + "/", "with 1 to 63 between two dots"),
        ("ws://" + "a.." * 400 + "/", "too long"),
        ("ws://" + "a." * 126 + "aa/", "at most 253 characters"),
        ("ws://h/\ud800", "lone surrogate"),
        ("ws://\udfff/", "lone surrogate"),
        ("ws://m%3Ae@h/", "its user name can't contain a colon"),
        ("ws://m%0ae@h/", "can't contain control characters"),
        ("ws://me:%7f@h/", "can't contain control characters"),
    ],
)
def test_a_url_that_is_not_that_of_a_websocket_is_an_error(
    url: str, words: str
) -> None:
    with pytest.raises(ValueError, match="is not the URL of a WebSocket: ") as caught:
        parse_endpoint(url)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        "ws://me:hunter2@h:0/",
        "ws://me:hunter2@h/#a",
        "ws://me:hunter2@/",
        "ws://hunter2@a b/",
        "ws://me:hun/ter2@h/?a#b",
        "ws://me:hunter2/x@h/",
        "ws://hunter2 x/@h/",
        "ws://hunter2 x/y@h/",
        "ws://me:hunter2?@h/",
        "ws://me:%00hunter2@h/",
        "ws://m%3Ae:hunter2@h/",
        "ws://h:0/?token=hunter2",
        "ws://h/?hunter2#",
        "ws://h/?token=hunter2#hunter2",
        "ftp://me:hunter2@h/?token=hunter2",
        "me:hunter2@h",
        "ws:me:hunter2@h",
    ],
)
def test_no_error_shows_a_secret(url: str) -> None:
    with pytest.raises(ValueError, match="is not the URL") as caught:
        parse_endpoint(url)
    assert "hunter2" not in str(caught.value)
    assert "ter2" not in str(caught.value)


def test_no_repr_shows_a_secret() -> None:
    endpoint = parse_endpoint("wss://me:hunter2@h/a?token=hunter2&x=1")
    assert "hunter2" not in repr(endpoint)
    assert endpoint.authorization is not None
    assert endpoint.authorization.partition(" ")[2] not in repr(endpoint)
    assert "wss://h/a?token=...&x=..." in repr(endpoint)


def test_a_very_long_url_is_sent_whole() -> None:
    query = "a=" + "b" * 10**6
    assert parse_endpoint(f"ws://h/p?{query}").resource == f"/p?{query}"


any_text = st.text(st.characters() | st.characters(categories=["Cs", "Cc", "Cf"]))
url_like = st.text("ws:/\\@?#[]%25.:hé \n\t0128", max_size=30)


@given(any_text | url_like | url_like.map("ws://h".__add__))
def test_every_accepted_url_can_be_sent(url: str) -> None:
    try:
        endpoint = parse_endpoint(url)
    except ValueError as exc:
        message = str(exc)
    else:
        check(endpoint)
        return
    assert message.isprintable()


def check(endpoint: Endpoint) -> None:
    for text in (endpoint.host_header, endpoint.resource, endpoint.server_name):
        assert text.isascii()
        assert text.isprintable()
        assert " " not in text
    assert endpoint.resource.startswith("/")
    assert "#" not in endpoint.url
    again = parse_endpoint(endpoint.url)
    assert (again.url, again.host, again.port) == (
        endpoint.url,
        endpoint.host,
        endpoint.port,
    )

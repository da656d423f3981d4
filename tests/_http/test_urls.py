"""The parts of URLs: percent-encoding, targets, and whole URLs."""

from urllib.parse import unquote, unquote_to_bytes, urlsplit

import pytest
from hypothesis import given, strategies as st

from trio_wspair._http.hosts import Authority
from trio_wspair._http.urls import (
    RequestURL,
    Target,
    encoded_reference,
    http_scheme,
    make_target,
    parse_target,
    parse_url,
    percent_encoded,
)

any_text = st.text(st.characters() | st.characters(categories=["Cs", "Cc", "Cf"]))
authority_like = st.text("aZ09.-_~:[]@/?#\\%25f!$ \n\t\x00é", max_size=12)


# -- percent-encoding ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("/a b?ü#%", "/a%20b?%C3%BC#%25"),
        ("/%zz%4", "/%25zz%254"),
        ("/%C3%bc", "/%C3%bc"),
        ('<>"\\^`{|}', "%3C%3E%22%5C%5E%60%7B%7C%7D"),
        ("\r\n\x00\x7f", "%0D%0A%00%7F"),
        ("\ud800", "%EF%BF%BD"),
        ("\U0001f600", "%F0%9F%98%80"),
        ("\ufeffa", "%EF%BB%BFa"),
    ],
)
def test_characters_that_a_url_cannot_have_are_percent_encoded(
    text: str, encoded: str
) -> None:
    assert percent_encoded(text) == encoded


@pytest.mark.parametrize(
    ("url", "encoded"),
    [
        ("/", "/"),
        ("", ""),
        ("?a=ü", "?a=%C3%BC"),
        (
            "http://Bücher.example:8/ü?ü#ü",
            "http://xn--bcher-kva.example:8/%C3%BC?%C3%BC#%C3%BC",
        ),
        ("//ü@Bücher.example/x", "//%C3%BC@xn--bcher-kva.example/x"),
        ("http://EXAMPLE.com", "http://EXAMPLE.com"),
        ("http://[::1]:8/é", "http://[::1]:8/%C3%A9"),
        ("http://a\u0001é/", "http://a%01%C3%A9/"),
        (" /a b\n", "/a%20b"),
        ("/\\evil.example", "/%5Cevil.example"),
        ("/\t/evil.example", "/%09/evil.example"),
        ("/a\r\nSet-Cookie: x=y", "/a%0D%0ASet-Cookie:%20x=y"),
    ],
)
def test_a_location_is_encoded(url: str, encoded: str) -> None:
    assert encoded_reference(url) == encoded


@given(any_text)
def test_any_text_can_be_a_location(text: str) -> None:
    encoded = encoded_reference(text)
    assert encoded.isascii()
    assert encoded.isprintable()
    assert " " not in encoded
    assert encoded_reference(encoded) == encoded


# -- targets ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("/", Target("/", None)),
        ("/?", Target("/", "")),
        ("/a?b?c", Target("/a", "b?c")),
        ("//evil/x", Target("//evil/x", None)),
        ("/a;b=c/../d%2Fe", Target("/a;b=c/../d%2Fe", None)),
        ("/\xc3\xbc?\xff", Target("/%C3%BC", "%FF")),
        ("/a|b\\c?d[]={}\\", Target("/a%7Cb%5Cc", "d[]=%7B%7D%5C")),
        ("/a?100%", Target("/a", "100%25")),
        ("http://H:8/x", Target("/x", None, "http", Authority("h", 8))),
        ("HTTPS://h", Target("/", None, "https", Authority("h"))),
        ("http://h?q", Target("/", "q", "http", Authority("h"))),
        ("http://[::1]/@x", Target("/@x", None, "http", Authority("::1"))),
    ],
)
def test_a_target_is_a_path_and_a_query(text: str, target: Target) -> None:
    assert parse_target("GET", text) == target


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "*",
            "a",
            "@evil/admin",
            ".evil.com/x",
            "?a",
            "h:80",
            "http:/x",
            "http:x",
        ),
        *("javascript://h/x", "ws://h/x", "http://", "http:///x", "http://a@h/x"),
        *("http://[/", "http://h:x/", "http://h\\x/", "http://h#x", "://h/"),
        *(
            "/a#b",
            "/a?b#c",
            "/%",
            "/%zz",
            "/a b",
            "/a\tb",
            "/a\x00b",
            "/a?b c",
            "/\x7f",
        ),
    ],
)
def test_an_invalid_target_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"path|query|scheme|host|port|address"):
        parse_target("GET", text)


def test_options_may_be_for_the_whole_server() -> None:
    assert parse_target("OPTIONS", "*") == Target("", None)
    target = parse_target("OPTIONS", "http://h")
    url = RequestURL("http", Authority("h"), target)
    assert (str(url), url.path) == ("http://h", "*")
    assert str(target) == "*"
    assert str(parse_target("OPTIONS", "http://h/?x")) == "/?x"


def test_a_path_has_no_question_mark() -> None:
    with pytest.raises(ValueError, match="not percent-encoded"):
        make_target("/a?b", "c")


@given(
    st.sampled_from(["GET", "OPTIONS"]),
    st.text(st.characters(max_codepoint=0xFF))
    | authority_like
    | st.builds("http://{}{}".format, authority_like, authority_like),
)
def test_the_path_and_the_url_never_disagree(method: str, text: str) -> None:
    try:
        target = parse_target(method, text)
    except ValueError:
        return
    url = RequestURL("http", Authority("localhost", 8), target)
    parts = urlsplit(str(url))
    assert (parts.scheme, parts.netloc, parts.fragment) == ("http", "localhost:8", "")
    assert unquote(parts.path or "*") == url.path
    assert (parts.query or None) == (target.query or None)
    again = parse_url(str(url), method=method)
    assert (str(again), again.path) == (str(url), url.path)


@given(st.binary())
def test_a_decoded_path_has_the_bytes_that_were_sent(data: bytes) -> None:
    path = f"/{data.decode('latin-1')}"
    try:
        target = make_target(path, None)
    except ValueError:
        return
    assert unquote_to_bytes(target.path) == unquote_to_bytes(path.encode("latin-1"))


# -- URLs from programs ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "url", "path"),
    [
        ("http://localhost", "http://localhost/", "/"),
        ("http://localhost?a", "http://localhost/?a", "/"),
        ("ws://localhost:8/chat", "http://localhost:8/chat", "/chat"),
        ("WSS://LOCALHOST/", "https://localhost/", "/"),
        (
            "http://Bücher.example/größe",
            "http://xn--bcher-kva.example/gr%C3%B6%C3%9Fe",
            "/größe",
        ),
        ("http://[::1]/a%2Fb?c=%2F", "http://[::1]/a%2Fb?c=%2F", "/a/b"),
        ("http://[fe80::1%25eth0]/", "http://[fe80::1%25eth0]/", "/"),
        ("http://h/100%", "http://h/100%25", "/100%"),
    ],
)
def test_a_url_is_split_into_its_parts(text: str, url: str, path: str) -> None:
    parsed = parse_url(text)
    assert (str(parsed), parsed.path) == (url, path)
    assert parsed.secure is url.startswith("https:")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("/chat", "not an absolute URL"),
        ("localhost/chat?token=secret", "not an absolute URL"),
        ("http:/me:secret@localhost/chat", "not an absolute URL"),
        ("ftp://h/", 'scheme must be http or https, not "ftp"'),
        ("http:///x", "host is missing"),
        ("http://me:secret@h/", "can't have userinfo"),
        ("http://h/#access_token=secret", "can't have a fragment"),
        ("http://h:99999/", "a port must be at most 65535"),
        ("http://\udc80/", "can't be the name of a host"),
        ("http://[1]/", "not an IPv6 address"),
    ],
)
def test_a_url_that_a_request_cannot_have_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        parse_url(text)
    assert "secret" not in str(caught.value)


def test_only_http_and_https_are_accepted() -> None:
    assert http_scheme("WSS") == "https"
    with pytest.raises(ValueError, match="javascript"):
        http_scheme("javascript")

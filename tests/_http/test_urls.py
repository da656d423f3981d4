"""The parts of URLs: authorities, host names, targets, and whole URLs."""

from urllib.parse import unquote, unquote_to_bytes, urlsplit

import pytest
from hypothesis import example, given, strategies as st

from trio_wspair._http.urls import (
    Authority,
    RequestURL,
    Target,
    ascii_host,
    encoded_reference,
    http_scheme,
    make_target,
    parse_authority,
    parse_target,
    parse_url,
    percent_encoded,
)

any_text = st.text(st.characters() | st.characters(categories=["Cs", "Cc", "Cf"]))
ascii_text = st.text(st.characters(max_codepoint=0x7F))
authority_like = st.text("aZ09.-_~:[]@/?#\\%25f!$ \n\t\x00é", max_size=12)


# -- authorities -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("example.com", "example.com", None),
        ("EXAMPLE.com:8000", "example.com", 8000),
        ("example.com.:1", "example.com.", 1),
        ("h:", "h", None),
        ("h:0", "h", 0),
        ("h:65535", "h", 65535),
        ("h:000080", "h", 80),
        ("a_b.example", "a_b.example", None),
        ("a%2Eb%41", "a.ba", None),
        ("b%C3%BCcher", "b%c3%bccher", None),
        ("127.0.0.1:80", "127.0.0.1", 80),
        ("[::1]", "::1", None),
        ("[2001:DB8::1]:8", "2001:db8::1", 8),
        ("[::ffff:1.2.3.4]", "::ffff:1.2.3.4", None),
        ("[fe80::1%25eth0]:8", "fe80::1%eth0", 8),
        ("[fe80::1%Eth0]", "fe80::1%Eth0", None),
    ],
)
def test_an_authority_is_a_host_and_a_port(
    text: str, host: str, port: int | None
) -> None:
    assert parse_authority(text) == Authority(host, port)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":80", "a/b", "a?b", "a#b", "a@b", "a\\b", "a b", "a\tb", "a\nb", "h\n"),
        *("é.com", "a%2fb", "a%40b", "a%00b", "a%2", "a%zz", "h:-1", "h:8 0", "h:80x"),
        *("h:65536", "h:1" + "0" * 5000, "h:٣", "a:b:c", "::1", "1:2:3"),
        *("[1]", "[::1:]", "[...]", "[", "[]", "]", "[::1", "::1]", "[::1]x", "[v1.x]"),
        *("[::1%25]", "[::1%25a/b]", "[::1%a%b]", "[[::1]]", "[1::2::3]", "[é]"),
        *('h"', "h<", "{h}", "h|", "h^", "h`"),
    ],
)
def test_what_is_not_an_authority_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"host|port|address|zone"):
        parse_authority(text)


@given(authority_like | any_text)
def test_an_authority_stays_the_same_in_a_url(text: str) -> None:
    try:
        authority = parse_authority(text)
    except ValueError:
        return
    assert parse_authority(str(authority)) == authority
    parts = urlsplit(f"http://{authority}/p?q")
    assert (parts.path, parts.query, parts.fragment) == ("/p", "q", "")
    assert parts.username is None
    assert parts.port == authority.port
    assert (parts.hostname or "").replace("%25", "%").lower() == authority.host.lower()


# -- the names of hosts ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "ascii_form"),
    [
        ("EXAMPLE.com", "example.com"),
        ("example.com.", "example.com."),
        ("a_b.example", "a_b.example"),
        ("-a-.b--c", "-a-.b--c"),
        ("a..b", "a..b"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),
        ("b%C3%BCcher.example", "xn--bcher-kva.example"),
        ("ex%61mple.com", "example.com"),
        ("faß.de", "xn--fa-hia.de"),
        ("βόλος.com", "xn--nxasmm1c.com"),
        ("xn--fa-hia.de", "xn--fa-hia.de"),
        ("XN--FA-HIA.de", "xn--fa-hia.de"),
        ("日本。jp", "xn--wgv71a.jp"),
        ("\uff45\uff58\uff0ecom", "ex.com"),
        ("☕.example", "xn--53h.example"),
        ("a\u00adb.com", "ab.com"),
        ("נה.com", "xn--8dbx.com"),
        ("न्\u200dय.com", "xn--l2bo3g222i.com"),
        ("1.2.3.4", "1.2.3.4"),
        ("1.2.3.4.", "1.2.3.4"),
        ("0x7f.1", "127.0.0.1"),
        ("0X7F000001", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x.0x.0", "0.0.0.0"),  # noqa: S104
        ("\uff11\uff12\uff17.\uff11", "127.0.0.1"),
        ("1.2.3.4.example", "1.2.3.4.example"),
        ("0x7f.example", "0x7f.example"),
        ("[::1]", "::1"),
        ("2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"),
        ("::", "::"),
        ("1:0:0:0:0:0:0:0", "1::"),
        ("10:0:0:0:0:0:0:10", "10::10"),
        ("::ffff:1.2.3.4", "::ffff:102:304"),
        ("fe80::1%25Eth0", "fe80::1%Eth0"),
    ],
)
def test_a_host_is_normalized_as_in_browsers(host: str, ascii_form: str) -> None:
    assert ascii_host(host) == ascii_form
    assert ascii_host(ascii_form) == ascii_form


@pytest.mark.parametrize(
    "host",
    [
        *("", "\u00ad", "a b", "a/b", "a%2fb", "a%00b", "a%25b", "a@b", "a\\b", "a^b"),
        *(
            "a|b",
            "a<b",
            "a>b",
            "a#b",
            "a?b",
            "a\x7fb",
            "a\nb",
            "a\uff05b",
            "a℀b",
            "%ff",
        ),
        *("xn--", "xn--a", "xn--abc-", "xn--ü", "a.xn--0", "\udc80"),
        *("אa.com", "1א.example", "א.1א", "a\u200cb", "\u0301a", "\ufffe", "xn--u-ccb"),
        *("1.2.3.4.5", "1.2.3.256", "256.1", "09.1", "4294967296", "1.2.3.08", "a.1"),
        *("1..2", "0x100000000", "1.2.3.0x1ff", "a.0x", "[::1", "::1]", "1:2", "[]"),
        "a" * 1001,
    ],
)
def test_a_name_that_no_browser_accepts_is_not_a_host(host: str) -> None:
    with pytest.raises(ValueError, match=r"host|address"):
        ascii_host(host)


@given(any_text)
@example("xn--wgv71a.a")
def test_a_normalized_host_is_ascii_and_stable(host: str) -> None:
    try:
        found = ascii_host(host)
    except ValueError:
        return
    assert found.isascii()
    assert ascii_host(found) == found
    assert urlsplit(f"http://{Authority(found)}/x").path == "/x"


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
        ("ftp://h/", 'scheme is "ftp"'),
        ("http:///x", "host is missing"),
        ("http://me:secret@h/", "no userinfo"),
        ("http://h/#access_token=secret", "no fragment"),
        ("http://h:99999/", "a port is at most 65535"),
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

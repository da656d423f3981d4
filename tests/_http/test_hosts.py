"""Hosts: authorities, and the names of hosts."""

from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, strategies as st

from trio_wspair._http.hosts import Authority, ascii_host, parse_authority

any_text = st.text(st.characters() | st.characters(categories=["Cs", "Cc", "Cf"]))
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

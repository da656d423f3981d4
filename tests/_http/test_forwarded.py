"""Headers of proxies: how they are read, and how far they are trusted."""

from typing import Any, cast

import pytest
from hypothesis import given, strategies as st

from trio_wspair import Headers
from trio_wspair._http.forwarded import (
    Forwarded,
    ProxyHeaders,
    checked_proxy_headers,
    forwarded_by,
    node_address,
)
from trio_wspair._http.hosts import Authority


def forwarded(
    *headers: tuple[str, str], kind: ProxyHeaders = True, proxies: int = 1
) -> Forwarded:
    return forwarded_by(Headers(headers), kind, proxies)


# -- addresses ---------------------


@pytest.mark.parametrize(
    ("node", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:1234", "192.0.2.1"),
        ("192.0.2.1:_port", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:1234", "2001:db8::1"),
        ("[2001:db8::1]:_port", "2001:db8::1"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("[fe80::1%25eth0]:1", "fe80::1%eth0"),
    ],
)
def test_a_node_with_an_address_is_that_address(node: str, address: str) -> None:
    assert node_address(node) == address


@pytest.mark.parametrize(
    "node",
    [
        *("", "unknown", "UNKNOWN", "unknown:80", "_hidden", "_SEVKISEK", "_x:_y"),
        *("host", "host.example:80", "256.0.0.1", "1.2.3", "1.2.3.4.5", "01.2.3.4"),
        *("1.2.3.4:", "1.2.3.4:x", "1.2.3.4:123456", "[1.2.3.4]", "[::1", "::1]", "[]"),
        *("[::1]x", "[::1]:x", "[[::1]]", ":::", "2001:db8::1::2", "fe80::1%\x1b[31m"),
        *("192.0.2.1 ", "192.0.2.1\n", "\u0661.2.3.4", "::1/64"),
    ],
)
def test_a_node_without_an_address_is_empty(node: str) -> None:
    assert node_address(node) is None


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_address_is_read_in_all_forms(address: Any, port: int) -> None:
    forms = [f"[{address}]:{port}", f"[{address}]"]
    if address.version == 4:
        forms = [f"{address}:{port}"]
    assert {node_address(form) for form in [str(address), *forms]} == {str(address)}


@given(st.text())
def test_a_node_is_an_address_or_empty(node: str) -> None:
    address = node_address(node) or ""
    assert address.isascii()
    assert address.isprintable()


# -- X-Forwarded-* ---------------------

FOR, PROTO, HOST, PORT = (
    f"X-Forwarded-{name}" for name in ("For", "Proto", "Host", "Port")
)


def test_nothing_is_trusted_by_default() -> None:
    headers = [(FOR, "192.0.2.1"), ("Forwarded", "for=192.0.2.2;host=evil")]
    assert forwarded(*headers, kind=False) == Forwarded()


@pytest.mark.parametrize(
    ("headers", "proxies", "client"),
    [
        (["192.0.2.9, 192.0.2.1"], 1, "192.0.2.1"),
        (["192.0.2.9, 192.0.2.1, 192.0.2.2"], 2, "192.0.2.1"),
        (["192.0.2.9", "192.0.2.1", "192.0.2.2"], 2, "192.0.2.1"),
        (["192.0.2.1"], 3, "192.0.2.1"),
        (["192.0.2.9, unknown"], 1, None),
        (["192.0.2.9, , 192.0.2.1 ,"], 1, "192.0.2.1"),
        ([""], 1, None),
        ([], 1, None),
    ],
)
def test_the_client_is_the_one_that_the_first_trusted_proxy_names(
    headers: list[str], proxies: int, client: str | None
) -> None:
    pairs = [(FOR, value) for value in headers]
    assert forwarded(*pairs, proxies=proxies).client == client


def test_the_parts_of_the_url_are_trusted_as_far_as_the_client_is() -> None:
    headers = [
        (PROTO, "ftp, https, http"),
        (HOST, "evil/, Example.com, inner:8000"),
        (PORT, "x, 8443, 8000"),
    ]
    expected = Forwarded(None, "https", Authority("example.com"), 8443)
    assert forwarded(*headers, proxies=2) == expected
    nearest = Forwarded(None, "http", Authority("inner", 8000), 8000)
    assert forwarded(*headers) == nearest


@pytest.mark.parametrize(
    ("header", "value"),
    [
        *((PROTO, proto) for proto in ("javascript", "ftp", "http:", "https://", "*")),
        *((HOST, host) for host in ("a/b", "a?b", "a#b", "a@b", "a\\b", "[1]", "a b")),
        *(
            (HOST, host)
            for host in ("http://a", "a:b", "[::1:]", "[...]", "\xe9", ":1")
        ),
        *((PORT, port) for port in ("x", "-1", "65536", "1.5", "80:80", "99999999")),
    ],
)
def test_an_invalid_part_of_the_url_is_an_error(header: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"scheme|host|port|address"):
        forwarded((header, value))


@pytest.mark.parametrize(
    ("host", "port", "scheme", "authority"),
    [
        (None, None, "http", "old:1"),
        ("new", None, "http", "new"),
        ("new", 8443, "http", "new:8443"),
        ("new", 443, "https", "new"),
        ("new", 443, "http", "new:443"),
        ("new:2", 8443, "http", "new:2"),
        (None, 8443, "http", "old:1"),
        ("[::1]", 8, "http", "[::1]:8"),
    ],
)
def test_a_port_is_used_for_a_host_without_one(
    host: str | None, port: int | None, scheme: str, authority: str
) -> None:
    headers = [] if host is None else [(HOST, host)]
    headers += [] if port is None else [(PORT, str(port))]
    found = forwarded(*headers).authority_for(scheme, Authority("old", 1))
    assert str(found) == authority


# -- Forwarded ---------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("for=192.0.2.1", Forwarded("192.0.2.1")),
        ('For="[2001:db8::1]:47"', Forwarded("2001:db8::1")),
        ("for=unknown;by=203.0.113.43", Forwarded()),
        ("for=_hidden, for=_SEVKISEK", Forwarded()),
        ("for=192.0.2.9, for=192.0.2.1;proto=HTTPS", Forwarded("192.0.2.1", "https")),
        (
            'proto=http;host="Example.com:8000"; for = x'.replace(" = ", "="),
            Forwarded(None, "http", Authority("example.com", 8000)),
        ),
        ('host="\\e\\x\\a"', Forwarded(None, None, Authority("exa"))),
        ("  ,, ;for=192.0.2.1 ;; , ,", Forwarded("192.0.2.1")),
        ('for="";ext=1', Forwarded()),
        ("for=192.0.2.1;", Forwarded("192.0.2.1")),
        (
            'for=192.0.2.9;host="a, for=192.0.2.8", for=192.0.2.1',
            Forwarded("192.0.2.1"),
        ),
        ("", Forwarded()),
        (" , ", Forwarded()),
    ],
)
def test_forwarded_is_read_as_in_rfc_7239(value: str, expected: Forwarded) -> None:
    assert forwarded(("Forwarded", value), kind="forwarded") == expected


@pytest.mark.parametrize(
    "value",
    [
        *("for", "for=", "=x", "for=a b", "for =a", "for= a", 'for="a', 'for="a"b'),
        *(
            "for=192.0.2.1:80",
            "for=[::1]",
            "for=a;for=b",
            "for=a;FOR=b",
            "x/y=1",
            "é=1",
        ),
        *("host=a/b", 'host="a/b"', 'host="a:b"', "proto=javascript", 'host="[1]"'),
        *('host=""', 'proto=""', 'for=a, x="', "for=a; ,b"),
    ],
)
def test_forwarded_in_another_form_or_with_a_wrong_url_is_an_error(value: str) -> None:
    with pytest.raises(ValueError, match=r"'Forwarded'|scheme|host|address"):
        forwarded(("Forwarded", value), kind="forwarded")


def test_an_element_may_have_many_parameters() -> None:
    """A reader with quadratic time would take minutes."""
    value = ";".join(f"a{number}=b" for number in range(100_000))
    header = ("Forwarded", f"{value};for=192.0.2.1")
    assert forwarded(header, kind="forwarded") == Forwarded("192.0.2.1")
    with pytest.raises(ValueError, match="'Forwarded'"):
        forwarded(("Forwarded", f"{value};A0=b"), kind="forwarded")


def test_forwarded_is_trusted_for_the_number_of_proxies() -> None:
    value = "for=192.0.2.9;host=evil, for=192.0.2.1;proto=https, for=192.0.2.2;host=in"
    header = ("Forwarded", value)
    found = forwarded(header, kind="forwarded", proxies=2)
    assert found == Forwarded("192.0.2.1", "https", Authority("in"))
    assert forwarded(header, kind="forwarded", proxies=9).client == "192.0.2.9"


PROXY = 'for="[2001:db8::1]:47";proto=https;host="example.com:8443"'


@given(
    st.text('for=";,\\ ahostp[]:', max_size=30)
    | st.text(st.characters(codec="latin-1")),
    st.sampled_from(["its own line", "the same line"]),
)
def test_a_client_cannot_change_the_values_of_the_proxy(text: str, place: str) -> None:
    headers = Headers()
    try:
        if place == "its own line":
            headers.append("Forwarded", text)
            headers.append("Forwarded", PROXY)
        else:
            headers.append("Forwarded", f"{text}, {PROXY}")
        found = forwarded_by(headers, "forwarded", 1)
    except ValueError:
        return
    expected = Forwarded("2001:db8::1", "https", Authority("example.com", 8443))
    assert found == expected


@given(
    st.lists(st.text(st.characters(codec="latin-1"))),
    st.integers(1, 3),
)
def test_a_client_cannot_change_the_values_of_several_proxies(
    values: list[str], hops: int
) -> None:
    chain = [f"192.0.2.{number}" for number in range(1, hops + 1)]
    headers = Headers()
    try:
        for value in values:
            headers.append(FOR, value)
    except ValueError:
        return
    for address in chain:
        headers.append(FOR, address)
    assert forwarded_by(headers, True, hops).client == "192.0.2.1"  # noqa: FBT003


def test_proxy_headers_is_true_or_forwarded() -> None:
    assert [checked_proxy_headers(k) for k in (True, False)] == [True, False]
    assert checked_proxy_headers("forwarded") == "forwarded"
    for wrong in ("x-forwarded", None, 1):
        with pytest.raises(
            ValueError, match="proxy_headers must be True for X-Forwarded"
        ):
            checked_proxy_headers(cast("bool", wrong))

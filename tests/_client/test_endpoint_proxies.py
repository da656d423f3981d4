"""`proxy_from_environment()`: which proxy the environment names for a URL."""

import os

import pytest

from trio_wspair._client.endpoint import proxy_from_environment


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "REQUEST_METHOD":
            monkeypatch.delenv(name)


PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("variable", "url", "found"),
    [
        ("HTTP_PROXY", "ws://a/", True),
        ("http_proxy", "ws://a/", True),
        ("HTTP_PROXY", "http://a/", True),
        ("HTTP_PROXY", "wss://a/", False),
        ("HTTPS_PROXY", "wss://a/", True),
        ("https_proxy", "https://a:1/", True),
        ("HTTPS_PROXY", "ws://a/", False),
        ("ALL_PROXY", "ws://a/", True),
        ("all_proxy", "wss://a/", True),
        ("WS_PROXY", "ws://a/", True),
        ("wss_proxy", "wss://a/", True),
        ("FTP_PROXY", "ws://a/", False),
        ("ALL_PROXY", "ftp://a/", False),
        ("ALL_PROXY", "ws://a:x/", False),
        ("ALL_PROXY", "ws://[a/", False),
    ],
)
def test_the_variable_depends_on_the_scheme(
    monkeypatch: pytest.MonkeyPatch, variable: str, url: str, found: bool
) -> None:
    assert proxy_from_environment(url) is None
    monkeypatch.setenv(variable, PROXY)
    assert proxy_from_environment(url) == (PROXY if found else None)


def test_the_variable_of_the_scheme_comes_before_all_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5h://a:1080")
    monkeypatch.setenv("https_proxy", PROXY)
    assert proxy_from_environment("wss://a/") == PROXY
    assert proxy_from_environment("ws://a/") == "socks5h://a:1080"


def test_a_value_without_a_scheme_is_the_host_of_an_http_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", "proxy.example:3128")
    assert proxy_from_environment("wss://a/") == PROXY


def test_http_proxy_is_ignored_in_a_cgi_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    assert proxy_from_environment("ws://a/") is None


@pytest.mark.parametrize(
    ("entry", "host", "covered"),
    [
        ("*", "a.example", True),
        ("example.com", "example.com", True),
        ("example.com", "EXAMPLE.com.", True),
        ("Example.COM", "a.b.example.com", True),
        (".example.com", "a.example.com", True),
        (".example.com", "example.com", True),
        ("*.example.com", "a.example.com", True),
        ("example.com", "notexample.com", False),
        ("example.com:80", "example.com", True),
        ("example.com:81", "example.com", False),
        ("example.com:81", "example.com:81", True),
        ("a, b ,c", "b", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.0/8", "127.1.2.3", True),
        ("10.0.0.0/8", "127.0.0.1", False),
        ("0.0.1", "127.0.0.1", False),
        ("::1", "[::1]", True),
        ("[::1]:80", "[::1]", True),
        ("[::1]:80", "[::1]:81", False),
        ("fe80::/10", "[fe80::1%25eth0]", True),
        ("[::1", "[::1]", False),
        ("127.0.0.1", "0x7f.1", True),
        ("example.com", "ex%61mple.com", True),
        ("example.com", "example.com\\@other", True),
        ("example.com", "other\\@example.com", False),
        ("bücher.example", "a.xn--bcher-kva.example", True),
        ("xn--bcher-kva.example", "BÜCHER.example", True),
        ("ü%", "a.example", False),
        ("", "example.com", False),
        (".", "example.com", False),
    ],
)
def test_no_proxy_lists_hosts_that_need_no_proxy(
    monkeypatch: pytest.MonkeyPatch, entry: str, host: str, covered: bool
) -> None:
    monkeypatch.setenv("ALL_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", entry)
    assert (proxy_from_environment(f"ws://{host}/") is None) is covered

"""`same_origin()`: the origin of the page that sends a request."""

from typing import cast

import pytest
import trio

from trio_wspair import Headers, Request, same_origin


async def asked(url: str, *origins: str) -> Request:
    headers = Headers([("Origin", origin) for origin in origins])
    async with trio.open_nursery() as nursery:
        return Request(method="GET", url=url, headers=headers, nursery=nursery)
    raise AssertionError


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://localhost:8000/ws", "http://localhost:8000"),
        ("http://LOCALHOST:8000/ws", "HTTP://localhost:8000"),
        ("http://example.com/ws", "http://example.com:80"),
        ("http://example.com:00080/ws", "http://example.com"),
        ("https://example.com:443/ws?x=1", "https://example.com"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
        ("http://[0:0:0:0:0:0:0:1]/", "http://[::1]"),
        ("http://example.com./", "http://example.com."),
        ("http://b\xfccher.example/", "http://xn--bcher-kva.example"),
        ("http://a_b/", "http://a_b"),
    ],
)
async def test_a_page_of_the_server_is_allowed(url: str, origin: str) -> None:
    assert same_origin(await asked(url, origin))


async def test_a_program_without_an_origin_is_allowed() -> None:
    assert same_origin(await asked("http://example.com/ws"))


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://example.com",
        "http://example.com:8000",
        "http://example.com.",
        "http://sub.example.com",
        "http://example.com.evil.example",
        "http://example.com@evil.example",
        "http://evil.example#http://example.com",
        "http://example.com/",
        "http://example.com http://evil.example",
        "http://example.com,http://example.com",
        "null",
        "",
        "file://",
        "http://",
        "http://example.com:99999",
        "http://[example.com",
        "http://[1]",
        "http://exa mple.com",
        "http://exa\xadmple.com:x",
        "http://1.2.3.256",
        "example.com",
        "capacitor://localhost",
    ],
)
async def test_another_page_is_refused(origin: str) -> None:
    assert not same_origin(await asked("http://example.com/ws", origin))


async def test_an_origin_that_comes_twice_is_refused() -> None:
    origin = "http://example.com"
    assert not same_origin(await asked("http://example.com/ws", origin, origin))


async def test_a_host_that_no_browser_accepts_is_not_an_origin() -> None:
    request = await asked("http://1.2.3.256/", "http://1.2.3.256")
    assert not same_origin(request)
    other = await asked("http://1.2.3.256/", "http://example.com")
    assert not same_origin(other)
    assert same_origin(await asked("http://1.2.3.256/"))


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("HTTPS://APP.example.com:443", "https://app.example.com"),
        ("wss://app.example.com", "https://app.example.com"),
        ("https://b\xfccher.example:8", "https://xn--bcher-kva.example:8"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("tauri://localhost", "tauri://localhost"),
        ("app://x.y", "app://x.y"),
        ("chrome-extension://abcdefgh", "chrome-extension://abcdefgh"),
        ("moz-extension://2c127fa4-62c7-7e4f", "moz-extension://2c127fa4-62c7-7e4f"),
        ("vscode-webview://0gd3", "vscode-webview://0gd3"),
        ("app://x:8", "app://x:8"),
        ("app://1.2.3.256", "app://1.2.3.256"),
        ("file://", "file://"),
        ("null", "null"),
        ("https://*.example.com", "https://a.example.com"),
        ("https://*.example.com", "https://a.b.Example.com:443"),
        ("https://*.example.com:8443", "https://a.example.com:8443"),
        ("https://*.b\xfccher.example", "https://a.xn--bcher-kva.example"),
        ("https://*.x.example.com", "https://x.x.example.com"),
        ("https://*.localhost", "https://a.localhost"),
    ],
)
async def test_more_origins_can_be_allowed(allowed: str, origin: str) -> None:
    request = await asked("http://example.com/ws", origin)
    assert same_origin(request, allow=["https://else.example", allowed])
    assert not same_origin(request, allow=["https://else.example"])


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        ("https://*.example.com", "https://example.com"),
        ("https://*.example.com", "https://.example.com"),
        ("https://*.example.com", "https://evilexample.com"),
        ("https://*.example.com", "https://a.example.com.evil.example"),
        ("https://*.example.com", "http://a.example.com"),
        ("https://*.example.com", "https://a.example.com:8443"),
        ("https://*.example.com", "https://a.example.com."),
        ("https://*.x.example.com", "https://x.example.com"),
        ("app://x", "app://x:8"),
        ("app://x", "tauri://x"),
        ("file://", "null"),
        ("null", "file://"),
        ("null", ""),
    ],
)
async def test_no_other_origins_are_allowed(allowed: str, origin: str) -> None:
    request = await asked("http://example.org/ws", origin)
    assert not same_origin(request, allow=[allowed])


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            "app.example.com",
            "*",
            "https://*",
            "https://*.",
            "*.example.com",
            "http://",
        ),
        *("https://example.com/", "https://example.com/app", "https://a@example.com"),
        *("https://*.*.example.com", "https://a.*.example.com", "https://*.1.2.3.4"),
        *("https://*.[::1]", "http://a:b", "http://[1]", "http://1.2.3.256", "NULL"),
        *("file:///x", "file:", "https:example.com", "", "https://x\n", "https://x?y"),
    ],
)
async def test_an_invalid_allowed_origin_is_an_error_with_valid_examples(
    wrong: str,
) -> None:
    request = await asked("http://example.com/ws")
    with pytest.raises(ValueError, match=r"such as 'https://app\.example\.com'"):
        same_origin(request, allow=[wrong])


async def test_allowed_origins_must_be_a_list() -> None:
    request = await asked("http://example.com/ws")
    with pytest.raises(TypeError, match=r"allow=\['https://a.example'\]"):
        same_origin(request, allow=cast("list[str]", "https://a.example"))
    for wrong in (None, b"https://a.example", ["https://a.example"]):
        with pytest.raises(TypeError, match="an origin in allow must be a str, not "):
            same_origin(request, allow=cast("list[str]", [wrong]))

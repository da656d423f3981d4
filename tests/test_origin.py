"""Whose page is asking."""

import pytest
import trio

from trio_wspair import Headers, Request, same_origin


async def asked(url: str, origin: str | None) -> Request:
    headers = Headers() if origin is None else Headers({"Origin": origin})
    async with trio.open_nursery() as nursery:
        return Request(method="GET", url=url, headers=headers, nursery=nursery)
    raise AssertionError


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://localhost:8000/ws", "http://localhost:8000"),
        ("http://LOCALHOST:8000/ws", "http://localhost:8000"),
        ("http://example.com/ws", "http://example.com:80"),
        ("https://example.com:443/ws?x=1", "https://example.com"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
        ("http://example.com/ws", None),
    ],
)
async def test_a_page_of_the_server_may_ask(url: str, origin: str | None) -> None:
    assert same_origin(await asked(url, origin))


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://example.com",
        "http://example.com:8000",
        "http://sub.example.com",
        "http://example.com.evil.example",
        "null",
        "",
        "file://",
        "http://",
        "http://example.com:99999",
        "http://[example.com",
        "example.com",
    ],
)
async def test_another_page_may_not(origin: str) -> None:
    assert not same_origin(await asked("http://example.com/ws", origin))


async def test_more_origins_can_be_allowed() -> None:
    request = await asked("http://example.com/ws", "https://app.example.com")
    assert not same_origin(request, allow=["https://example.com"])
    assert same_origin(request, allow=["https://x.example", "https://app.example.com"])


@pytest.mark.parametrize("wrong", ["app.example.com", "*", "null", "http://a:b"])
async def test_an_allowed_origin_that_is_none_is_an_error(wrong: str) -> None:
    request = await asked("http://example.com/ws", None)
    with pytest.raises(ValueError, match="an origin is a scheme, a host"):
        same_origin(request, allow=[wrong])

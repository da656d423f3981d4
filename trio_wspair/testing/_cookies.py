"""`Cookies`: what one test client keeps between its requests.

Knows RFC 6265 through the standard library's cookie jar; no network.
"""

import re
import time
from collections.abc import Iterable
from email.message import Message
from http.client import HTTPResponse
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final, cast
from urllib.request import Request as URLRequest

import trio

__all__ = ("Cookies",)

_ENDS: Final = "trio-end"
"""The attribute of a cookie that says when it expires, in Trio's time."""


class Cookies:
    """The cookies of one client, sent and kept as a browser does.

    Two rules of browsers go beyond RFC 6265. A loopback address counts as secure, so
    that a cookie with ``Secure`` works there without TLS. A ``Domain`` that is the
    host itself makes a cookie for this host only, also where the host has no dot.

    A cookie expires in Trio's time, so that a test in virtual time can wait for it.
    """

    def __init__(self) -> None:
        # Every server of a test client has a loopback address.
        self._policy = DefaultCookiePolicy(secure_protocols=("http", "https"))
        self._jar = CookieJar(self._policy)

    def values(self) -> dict[str, str]:
        """Return the values by name; of equal names, that with the longest path."""
        self._drop_expired()
        ordered = sorted(self._jar, key=lambda cookie: len(cookie.path))
        return {cookie.name: cookie.value or "" for cookie in ordered}

    def header(self, url: str) -> str:
        """Return the value of ``Cookie`` for a request to `url`; ``""`` for none."""
        self._drop_expired()
        request = URLRequest(url)  # noqa: S310 - it is never opened
        self._jar.add_cookie_header(request)
        return request.get_header("Cookie") or ""

    def keep(self, url: str, headers: Iterable[tuple[str, str]]) -> None:
        """Keep what the headers of an answer set, as far as `url` may set it."""
        request = URLRequest(url)  # noqa: S310 - it is never opened
        answer = cast("HTTPResponse", _Answer(request.host, headers))
        for cookie in self._jar.make_cookies(answer, request):
            if cookie.expires is not None:
                lifetime = cookie.expires - int(time.time())
                end = trio.current_time() + lifetime
                cookie.set_nonstandard_attr(_ENDS, str(end))
                cookie.expires = None  # The jar would look at the wall clock.
            if self._policy.set_ok(cookie, request):
                self._jar.set_cookie(cookie)

    def _drop_expired(self) -> None:
        now = trio.current_time()
        for cookie in list(self._jar):
            end = cookie.get_nonstandard_attr(_ENDS)
            if end is not None and float(end) <= now:
                self._jar.clear(cookie.domain, cookie.path, cookie.name)


class _Answer:
    """The answer of a host, as far as the cookie jar looks at one."""

    def __init__(self, host: str, headers: Iterable[tuple[str, str]]) -> None:
        name = re.escape(host.partition(":")[0])
        own = re.compile(rf";\s*domain\s*=\s*\.?{name}\s*(?=;|$)", re.IGNORECASE)
        self._message = Message()
        for field, value in headers:
            if field.lower() == "set-cookie":
                self._message["Set-Cookie"] = own.sub("", value)

    def info(self) -> Message:
        return self._message

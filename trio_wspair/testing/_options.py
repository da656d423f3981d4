"""What the functions of a test client can be told, and the check of its names.

Knows no client: which of the options are of a value that can be used is checked where
they are used.
"""

import ssl
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Final, Literal, TypedDict

from trio_wspair._http.messages import HeadersInit
from trio_wspair.transports._engines import EngineName

__all__ = (
    "ClientOptions",
    "ConnectionOptions",
    "FirstWebSocketOptions",
    "ReplayOptions",
    "RequestOptions",
    "Transport",
    "WebSocketOptions",
    "check_options",
)

Transport = Literal["memory", "loopback"]
"""What lies between client and server: streams in memory, or sockets."""


class ConnectionOptions(TypedDict, total=False):
    """What both `serve()` and `connect()` can be told."""

    close_grace: float
    max_message_bytes: int
    receive_buffer_bytes: int
    ping_interval: float
    ping_timeout: float
    engine: EngineName
    compression: bool


class ClientOptions(ConnectionOptions, total=False):
    """The options of `open_test_client()` without a WebSocket, but for `over`."""

    within: float
    ssl_context: ssl.SSLContext | None
    server_ssl_context: ssl.SSLContext | None


class ReplayOptions(ClientOptions, total=False):
    """Those with a WebSocket, but for `over` and `names`."""

    protocols: str | Sequence[str]
    headers: HeadersInit


class WebSocketOptions(TypedDict, total=False):
    """What can be said about one more WebSocket of a test client."""

    protocols: str | Sequence[str]
    headers: HeadersInit
    names: tuple[str, str]
    within: float


class FirstWebSocketOptions(ReplayOptions, total=False):
    """Those with a WebSocket, but for `over`."""

    names: tuple[str, str]


class RequestOptions(TypedDict, total=False):
    """What a request can have, beside its method and its URL."""

    headers: HeadersInit
    body: str | bytes | None
    json: object
    within: float | None


_ELSEWHERE: Final = {"timeout": "within", "data": "body", "content": "body"}
"""What other libraries call an option."""

_FIXTURES: Final = frozenset({"websocket_client", "golden_record"})


def check_options(
    function: str, options: Mapping[str, object], known: type[object]
) -> None:
    """Check the names of the options of a function.

    Args:
        function: Its name.
        options: What it was called with.
        known: The `TypedDict` of what it takes.

    Raises:
        TypeError: It takes no option of this name.
    """
    names: frozenset[str] = getattr(known, "__optional_keys__", frozenset())
    for name in options.keys() - names:
        msg = f"{function}() takes no argument {name!r}"
        meant = {_ELSEWHERE.get(name)} & names or get_close_matches(name, names, 1)
        if name == "over" and function in _FIXTURES:
            msg += ": the fixture websocket_transport decides"
        elif meant:
            msg += f": did you mean {next(iter(meant))!r}?"
        raise TypeError(msg)

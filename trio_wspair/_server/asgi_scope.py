"""What a server says of a request in an ASGI scope, read strictly.

Pure: text and bytes in, a `ScopeRequest` out. Two kinds of fault are told apart. What
the server has got wrong, such as text where the specification has bytes, is a
`TypeError` for its developers. What the client has got wrong, and servers let through,
is a `ValueError`: the answer to that is 400.
https://asgi.readthedocs.io/en/latest/specs/www.html

Routers look at ``path``, so it decides; ``raw_path`` is taken only where it says the
same. An application that is mounted gets the whole path, and in ``root_path`` what it
is mounted at. Some servers, and Starlette before 0.33, leave that part out of ``path``;
the whole is then put together again.
"""

import re
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any, Final, cast
from urllib.parse import quote, unquote

import attrs

from trio_wspair._http.forwarded import node_address
from trio_wspair._http.headers import (
    Headers,
    check_single_values,
    decode_headers,
    is_token,
)
from trio_wspair._http.hosts import Authority, parse_authority
from trio_wspair._http.urls import DEFAULT_PORTS, RequestURL, http_scheme, parse_target
from trio_wspair._rules.display import printable

__all__ = ("Scope", "ScopeRequest", "client_of", "read_scope")

Scope = MutableMapping[str, Any]
"""What a server tells of a connection."""

_UNQUOTED: Final = "/:@!$&'()*+,;=~"
"""What a path may have beside letters, digits and ``-._``."""
_LENGTH: Final = re.compile("[0-9]{1,18}")


@attrs.frozen
class ScopeRequest:
    """A request whose parts were all checked."""

    method: str
    url: RequestURL
    headers: Headers
    subprotocols: Sequence[str] | None
    """Those that the client offers; `None` if it does not ask for a WebSocket."""
    body_length: int | None
    """Bytes of the body, if the head says so."""


def read_scope(scope: Scope) -> ScopeRequest:
    """Return the request of a scope of HTTP, or of a WebSocket.

    Raises:
        TypeError: The server violates the specification.
        ValueError: The client has not kept to HTTP.
    """
    is_websocket = _part(scope, "type", str, "") == "websocket"
    # On HTTP/2 a WebSocket is asked for by CONNECT, without Upgrade (RFC 8441).
    method = "GET" if is_websocket else _part(scope, "method", str, "GET")
    if not is_token(method):
        msg = f'the method "{printable(method)}" is not a token'
        raise ValueError(msg)
    headers = _headers_of(scope)
    subprotocols: Sequence[str] | None = None
    if is_websocket:
        headers.setdefault("upgrade", "websocket")
        subprotocols = _subprotocols_of(scope)
    url = _url_of(scope, method, headers)
    length = 0 if is_websocket else _body_length(headers)
    return ScopeRequest(method, url, headers, subprotocols, length)


def client_of(scope: Scope) -> str:
    """Return the address of the client; empty if the server doesn't tell one.

    Behind a proxy, some servers pass on what a header says, port and all, unchecked.
    """
    client = _place(scope, "client")
    if client is None:
        return ""
    return node_address(client[0]) or printable(client[0])


def _part(scope: Scope, name: str, kind: type[Any], default: Any) -> Any:  # noqa: ANN401 - of that type
    """Return a value of a scope, or the default if it is not there or `None`.

    Raises:
        TypeError: It is of another type.
    """
    value: object = scope.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        what = f"{kind.__name__}, not {type(value).__name__}"
        raise _server_is_wrong(f"{name!r} of a scope is {what}")
    return value


def _server_is_wrong(why: str) -> TypeError:
    return TypeError(f"the ASGI server violates the specification: {why}")


def _kinds(value: object) -> str:
    """Return the type of a value, and of what is in it; the value may be a secret."""
    kind = type(value).__name__
    if not isinstance(value, (tuple, list)):
        return kind
    parts = (type(part).__name__ for part in cast("Sequence[object]", value))
    return f"{kind} of {' and '.join(parts)}"


def _headers_of(scope: Scope) -> Headers:
    """Return the headers, as HTTP/1.1 has them.

    Raises:
        TypeError: They are no pairs of bytes.
        ValueError: One of them can't be.
    """
    pairs: list[tuple[bytes, bytes]] = []
    for pair in _part(scope, "headers", Iterable, ()):
        match pair:
            case [bytes() as name, bytes() as value]:
                pairs.append((name, value))
            case _:
                raise _server_is_wrong(
                    f"a header is a pair of bytes, not {_kinds(pair)}"
                )
    headers = Headers(decode_headers(pairs))
    check_single_values(headers)
    cookies = headers.get_all("cookie")
    if len(cookies) > 1:  # RFC 9113, section 8.2.3.
        headers["cookie"] = "; ".join(cookies)
    return headers


def _subprotocols_of(scope: Scope) -> list[str]:
    subprotocols: list[str] = [*_part(scope, "subprotocols", Iterable, ())]
    for subprotocol in subprotocols:
        if not isinstance(subprotocol, str):
            raise _server_is_wrong(f"a subprotocol is str, not {_kinds(subprotocol)}")
    if not all(map(is_token, subprotocols)):
        msg = "the header 'Sec-WebSocket-Protocol' is no list of tokens"
        raise ValueError(msg)
    return subprotocols


def _body_length(headers: Headers) -> int | None:
    length = headers.get("content-length")
    if length is None:
        return None
    if "transfer-encoding" in headers:  # RFC 9112, section 6.1.
        msg = "where the body of the request ends is not clear"
        raise ValueError(msg)
    if _LENGTH.fullmatch(length) is None:
        msg = "the header 'Content-Length' is no number of bytes"
        raise ValueError(msg)
    return int(length)


# -- the URL ---------------------------------------------------------------------------


def _url_of(scope: Scope, method: str, headers: Headers) -> RequestURL:
    """Return the URL that the client has asked for, which ``Host`` then agrees with.

    Raises:
        TypeError: The server violates the specification.
        ValueError: It is not valid, or has another scheme.
    """
    path = _raw_path(scope) or "/"
    query: str = _part(scope, "query_string", bytes, b"").decode("latin-1")
    target = parse_target(method, f"{path}?{query}" if query else path)
    scheme = http_scheme(_part(scope, "scheme", str, "") or "http")
    if target.scheme not in (None, scheme):  # RFC 9110, section 7.4.
        msg = f"this is a server for {scheme}, not {target.scheme}"
        raise ValueError(msg)
    host = headers.get("host")
    authority = parse_authority(host) if host else _server_of(scope, scheme)
    if target.authority is not None:  # RFC 9112, section 3.2.2.
        authority = target.authority
        headers["Host"] = str(authority)
    return RequestURL(scheme, authority, target)


def _raw_path(scope: Scope) -> str:
    """Return the whole path as it was on the wire, without the query.

    Raises:
        TypeError: The server violates the specification.
    """
    path: str = _part(scope, "path", str, "")
    raw_bytes: bytes = _part(scope, "raw_path", bytes, b"")
    raw = raw_bytes.decode("latin-1").partition("?")[0]  # Some servers leave it in.
    root: str = _part(scope, "root_path", str, "").rstrip("/")
    whole = path if _is_below(path, root) else root + path
    if path and not path.startswith("/"):  # The asterisk, or an absolute URL.
        root, whole = "", path
    decoded = unquote(raw)
    if decoded in (whole, root + path):
        return raw
    if decoded == path:  # What it is mounted at is missing there, too.
        return quote(root, safe=_UNQUOTED) + raw
    return quote(whole, safe=_UNQUOTED)


def _is_below(path: str, root: str) -> bool:
    return f"{path}/".startswith(f"{root}/")


def _server_of(scope: Scope, scheme: str) -> Authority:
    """Return where the server is, for a request that does not say so."""
    server = _place(scope, "server")
    if server is None or server[1] is None:  # A Unix socket has no port.
        return Authority("localhost")
    host, port = server
    authority = parse_authority(str(Authority(host.lower(), port)))
    return attrs.evolve(authority, port=None if port == DEFAULT_PORTS[scheme] else port)


def _place(scope: Scope, name: str) -> tuple[str, int | None] | None:
    """Return a host and a port of a scope; `None` if the server does not tell."""
    place: Sequence[object] = _part(scope, name, Sequence, ())
    match place:
        case []:
            return None
        case [str() as host]:
            return host, None
        case [str() as host, (int() | None) as port]:
            return host, port
        case _:
            what = f"{name!r} of a scope is a host and a port, not {place!r}"
            raise _server_is_wrong(what)

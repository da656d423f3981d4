"""`read_scope()`: the request that an ASGI scope describes, read strictly.

Pure: text and bytes in, a `ScopeRequest` out. There are two kinds of errors. A mistake
of the server, such as text where the specification requires bytes, is a `TypeError` for
its developers. A mistake of the client that the server has let through is a
`ValueError`, which is answered with status 400.
https://asgi.readthedocs.io/en/latest/specs/www.html

Routers use ``path``, so it takes precedence; ``raw_path`` is used only if it decodes to
the same. A mounted application gets the whole path, and in ``root_path`` the prefix at
which it is mounted. Some servers, and Starlette before 0.33, leave the prefix out of
``path``; then it is added again.
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
from trio_wspair._rules.display import printable, quoted

__all__ = ("Scope", "ScopeRequest", "client_of", "read_scope")

Scope = MutableMapping[str, Any]
"""The description of a connection by an ASGI server."""

_UNQUOTED: Final = "/:@!$&'()*+,;=~"
"""The other characters that a path may contain unescaped (RFC 3986, section 3.3)."""
_LENGTH: Final = re.compile("[0-9]{1,18}")


@attrs.frozen
class ScopeRequest:
    """A request whose parts are all checked."""

    method: str
    url: RequestURL
    headers: Headers
    subprotocols: Sequence[str] | None
    """The subprotocols offered; `None` if the client asks for no WebSocket."""
    body_length: int | None
    """The ``Content-Length`` in bytes, if the request has it."""


def read_scope(scope: Scope) -> ScopeRequest:
    """Return the request of a scope of HTTP, or of a WebSocket.

    Raises:
        TypeError: The server violates the specification.
        ValueError: The request of the client is not valid.
    """
    is_websocket = _part(scope, "type", str, "") == "websocket"
    # On HTTP/2 the method is CONNECT, and there is no Upgrade (RFC 8441).
    method = "GET" if is_websocket else _part(scope, "method", str, "GET")
    if not is_token(method):
        msg = f"the method {quoted(method)} is not a token"
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
    """Return the address of the client; empty if the scope has none.

    Behind a proxy, some servers pass on the value of a header unchecked, with its port.
    """
    client = _place(scope, "client")
    if client is None:
        return ""
    return node_address(client[0]) or printable(client[0])


def _part(scope: Scope, name: str, kind: type[Any], default: Any) -> Any:  # noqa: ANN401 - of that type
    """Return a value of a scope, or the default if it is missing or `None`.

    Raises:
        TypeError: The value has the wrong type.
    """
    value: object = scope.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        what = f"{kind.__name__}, not {type(value).__name__}"
        raise _server_is_wrong(f"{name!r} of a scope must be {what}")
    return value


def _server_is_wrong(why: str) -> TypeError:
    return TypeError(f"the ASGI server violates the specification: {why}")


def _kinds(value: object) -> str:
    """Return the types of a value and of its items; the value may be a secret."""
    kind = type(value).__name__
    if not isinstance(value, (tuple, list)):
        return kind
    parts = (type(part).__name__ for part in cast("Sequence[object]", value))
    return f"{kind} of {' and '.join(parts)}"


def _headers_of(scope: Scope) -> Headers:
    """Return the headers in the form of HTTP/1.1.

    Raises:
        TypeError: They are not pairs of bytes.
        ValueError: A header is not valid.
    """
    pairs: list[tuple[bytes, bytes]] = []
    for pair in _part(scope, "headers", Iterable, ()):
        match pair:
            case [bytes() as name, bytes() as value]:
                pairs.append((name, value))
            case _:
                raise _server_is_wrong(
                    f"a header must be a pair of bytes, not {_kinds(pair)}"
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
            what = f"a subprotocol must be a str, not {_kinds(subprotocol)}"
            raise _server_is_wrong(what)
    if not all(map(is_token, subprotocols)):
        msg = "the header 'Sec-WebSocket-Protocol' is not a list of tokens"
        raise ValueError(msg)
    return subprotocols


def _body_length(headers: Headers) -> int | None:
    length = headers.get("content-length")
    if length is None:
        return None
    if "transfer-encoding" in headers:  # RFC 9112, section 6.1.
        msg = "the length of the body of the request is not clear"
        raise ValueError(msg)
    if _LENGTH.fullmatch(length) is None:
        msg = "the header 'Content-Length' is not a number of bytes"
        raise ValueError(msg)
    return int(length)


# -- the URL ---------------------------------------------------------------------------


def _url_of(scope: Scope, method: str, headers: Headers) -> RequestURL:
    """Return the URL that the client has requested, and make ``Host`` agree with it.

    Raises:
        TypeError: The server violates the specification.
        ValueError: The URL is not valid, or has another scheme than the server.
    """
    path = _raw_path(scope) or "/"
    query: str = _part(scope, "query_string", bytes, b"").decode("latin-1")
    target = parse_target(method, f"{path}?{query}" if query else path)
    scheme = http_scheme(_part(scope, "scheme", str, "") or "http")
    if target.scheme not in (None, scheme):  # RFC 9110, section 7.4.
        msg = f"this server is for {scheme}, not for {target.scheme}"
        raise ValueError(msg)
    host = headers.get("host")
    authority = parse_authority(host) if host else _server_of(scope, scheme)
    if target.authority is not None:  # RFC 9112, section 3.2.2.
        authority = target.authority
        headers["Host"] = str(authority)
    return RequestURL(scheme, authority, target)


def _raw_path(scope: Scope) -> str:
    """Return the whole path as it was sent, without the query.

    Raises:
        TypeError: The server violates the specification.
    """
    path: str = _part(scope, "path", str, "")
    raw_bytes: bytes = _part(scope, "raw_path", bytes, b"")
    raw = raw_bytes.decode("latin-1").partition("?")[
        0
    ]  # Some servers include the query.
    root: str = _part(scope, "root_path", str, "").rstrip("/")
    whole = path if _is_below(path, root) else root + path
    if path and not path.startswith("/"):  # An asterisk, or an absolute URL.
        root, whole = "", path
    decoded = unquote(raw)
    if decoded in (whole, root + path):
        return raw
    if decoded == path:  # The prefix is missing there as well.
        return quote(root, safe=_UNQUOTED) + raw
    return quote(whole, safe=_UNQUOTED)


def _is_below(path: str, root: str) -> bool:
    return f"{path}/".startswith(f"{root}/")


def _server_of(scope: Scope, scheme: str) -> Authority:
    """Return the authority of the server, for a request without ``Host``."""
    server = _place(scope, "server")
    if server is None or server[1] is None:  # A Unix socket has no port.
        return Authority("localhost")
    host, port = server
    authority = parse_authority(str(Authority(host.lower(), port)))
    return attrs.evolve(authority, port=None if port == DEFAULT_PORTS[scheme] else port)


def _place(scope: Scope, name: str) -> tuple[str, int | None] | None:
    """Return a host and a port of a scope; `None` if it is missing."""
    place: Sequence[object] = _part(scope, name, Sequence, ())
    match place:
        case []:
            return None
        case [str() as host]:
            return host, None
        case [str() as host, (int() | None) as port]:
            return host, port
        case _:
            what = f"{name!r} of a scope must be a host and a port, not {place!r}"
            raise _server_is_wrong(what)

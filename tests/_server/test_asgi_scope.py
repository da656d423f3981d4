"""Reading ASGI scopes, as servers send them, valid and invalid."""

from collections.abc import Iterable
from typing import Any

import pytest
from asgi_server import HTTP, WEBSOCKET
from hypothesis import given, strategies as st

from trio_wspair._server.asgi_scope import client_of, read_scope


def scope(**changes: Any) -> dict[str, Any]:
    """Return a scope of HTTP, changed; with `...` a key is left out."""
    merged = {**HTTP, **changes}
    return {name: value for name, value in merged.items() if value is not ...}


def url(**changes: Any) -> str:
    return str(read_scope(scope(**changes)).url)


# -- paths ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "raw", "query", "seen"),
    [
        ("/a b", b"/a%20b", b"", "/a%20b"),
        ("/a b", b"/a%20b", b"x=1", "/a%20b?x=1"),
        ("/a b", b"/a%20b?x=1", b"x=1", "/a%20b?x=1"),
        ("/a b", ..., b"x=1", "/a%20b?x=1"),
        ("/a b", None, b"x=1", "/a%20b?x=1"),
        ("/ü?#", ..., b"", "/%C3%BC%3F%23"),
        ("/a/b", b"/a%2Fb", b"", "/a%2Fb"),
        ("/~a", b"/%7Ea", b"", "/%7Ea"),
        ("", b"", b"", "/"),
        ("", ..., b"x", "/?x"),
        ("", b"/", b"", "/"),
        (..., ..., b"", "/"),
        ("//a", b"//a", b"", "//a"),
        ("/\ufffd", b"/%ff", b"", "/%ff"),
        ("/x", b"/x", ..., "/x"),
        ("/x", b"/x", None, "/x"),
    ],
)
def test_the_path_is_as_on_the_wire(path: Any, raw: Any, query: Any, seen: str) -> None:
    assert url(path=path, raw_path=raw, query_string=query) == f"http://test{seen}"


@pytest.mark.parametrize("kind", [HTTP, WEBSOCKET], ids=["http", "websocket"])
def test_an_absolute_target_takes_precedence_over_the_host(
    kind: dict[str, Any],
) -> None:
    target = {"path": "http://EXAMPLE:81/x", "raw_path": b"http://EXAMPLE:81/x"}
    headers = [(b"host", b"other"), (b"a", b"b")]
    request = read_scope({**kind, **target, "headers": headers})
    assert str(request.url) == "http://example:81/x"
    assert request.headers["host"] == "example:81"
    with pytest.raises(ValueError, match="is not a host"):
        read_scope({**kind, **target, "headers": [(b"host", b"a/b")]})
    with pytest.raises(ValueError, match="this server is for https, not for http"):
        read_scope({**kind, **target, "scheme": "https"})


def test_the_path_of_the_scope_decides() -> None:
    request = read_scope(scope(path="/public", raw_path=b"/admin"))
    assert request.url.path == "/public"
    assert str(request.url) == "http://test/public"


@pytest.mark.parametrize(
    ("root", "path", "raw", "seen"),
    [
        # The whole path, as the specification says.
        ("/live", "/live/a b", b"/live/a%20b", "/live/a%20b"),
        ("/live", "/live/a b", ..., "/live/a%20b"),
        ("/live", "/live", b"/live", "/live"),
        ("/live/", "/live/a", b"/live/a", "/live/a"),
        # Without the root path; the raw path may be whole, or missing.
        ("/live", "/a b", b"/live/a%20b", "/live/a%20b"),
        ("/live", "/a b", b"/a%20b", "/live/a%20b"),
        ("/live", "/a b", ..., "/live/a%20b"),
        ("/live", "", b"/live", "/live"),
        ("/live", "", ..., "/live"),
        ("/live", "/", b"/live/", "/live/"),
        ("/li ve", "/a", b"/a", "/li%20ve/a"),
        ("/live", "/livestock", ..., "/live/livestock"),
        # The root path may come twice.
        ("/a", "/a/b", b"/a/b", "/a/b"),
        ("/a", "/a/b", b"/a/a/b", "/a/a/b"),
        # A raw path of another path is ignored.
        ("/live", "/a", b"/admin", "/live/a"),
        ("", "/a", b"/a", "/a"),
        (None, "/a", b"/a", "/a"),
        (..., "/a", b"/a", "/a"),
    ],
)
def test_a_mounted_application_gets_the_whole_path(
    root: Any, path: str, raw: Any, seen: str
) -> None:
    assert url(root_path=root, path=path, raw_path=raw) == f"http://test{seen}"


@given(st.text(), st.text(), st.binary(), st.binary())
def test_paths_make_a_valid_url_or_are_refused(
    path: str, root: str, raw: bytes, query: bytes
) -> None:
    changed = scope(path=path, root_path=root, raw_path=raw, query_string=query)
    try:
        request = read_scope(changed)
    except ValueError:
        return
    assert str(request.url).isascii()
    assert str(request.url).startswith(("http://", "https://"))


@given(st.text(st.characters(codec="utf-8")))
def test_a_valid_path_is_unchanged(text: str) -> None:
    path = f"/{text}"
    assert read_scope(scope(path=path, raw_path=...)).url.path == path


def test_options_may_be_for_the_whole_server() -> None:
    request = read_scope(scope(method="OPTIONS", path="*", raw_path=b"*"))
    assert request.url.path == "*"
    mounted = scope(method="OPTIONS", path="*", raw_path=b"*", root_path="/live")
    assert read_scope(mounted).url.path == "*"


@pytest.mark.parametrize("path", ["evil.example/x", "@evil/admin", "*", ".evil/x"])
def test_a_path_without_a_slash_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="does not begin with '/'"):
        url(path=path, raw_path=path.encode())


# -- the authority, and the scheme ---------------------------------------------


@pytest.mark.parametrize(
    ("server", "scheme", "seen"),
    [
        (("test", 80), "http", "http://test/"),
        (("test", 443), "https", "https://test/"),
        (("test", 443), "http", "http://test:443/"),
        (("TEST", 8000), "http", "http://test:8000/"),
        (["test", 8000], "http", "http://test:8000/"),
        (("::1", 8000), "http", "http://[::1]:8000/"),
        (("/run/app.sock", None), "http", "http://localhost/"),
        (("/run/app.sock",), "http", "http://localhost/"),
        (None, "http", "http://localhost/"),
        (..., "http", "http://localhost/"),
        ((), "http", "http://localhost/"),
        (("test", 80), ..., "http://test/"),
        (("test", 80), None, "http://test/"),
        (("test", 80), "", "http://test/"),
        (("test", 80), "ws", "http://test/"),
        (("test", 443), "wss", "https://test/"),
        (("test", 443), "HTTPS", "https://test/"),
    ],
)
@pytest.mark.parametrize("headers", [[], [(b"host", b"")]])
def test_without_a_host_header_the_address_of_the_server_is_used(
    server: Any, scheme: Any, headers: Any, seen: str
) -> None:
    assert url(server=server, scheme=scheme, headers=headers, path="/") == seen


@pytest.mark.parametrize(
    ("header", "seen"),
    [
        (b"test", "test"),
        (b"TEST:8000", "test:8000"),
        (b"[::1]:8000", "[::1]:8000"),
    ],
)
def test_the_host_is_that_of_the_host_header(header: bytes, seen: str) -> None:
    assert url(headers=[(b"host", header)]) == f"http://{seen}/"


@pytest.mark.parametrize(
    "header",
    [b"a/b", b"a?b", b"a#b", b"user@a", b"a\\b", b"[1]", b"[::1:]", b"a:b", b"a:99999"],
)
def test_an_invalid_host_is_refused(header: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        url(headers=[(b"host", header)])


@pytest.mark.parametrize("scheme", ["javascript", "ftp", "http://x", "h ttp"])
def test_other_schemes_are_refused(scheme: str) -> None:
    with pytest.raises(ValueError, match="must be http or https"):
        url(scheme=scheme)


@pytest.mark.parametrize("method", ["GE T", "", "GET\n", "G\x1b[2JT"])
def test_a_method_that_is_not_a_token_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="is not a token") as caught:
        read_scope(scope(method=method))
    assert str(caught.value).isprintable()


# -- headers -------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        [(b"Host", b"test"), (b"X-Name", b"Zo\xeb")],
        [[b"host", b"test"], [b"x-name", b"Zo\xeb"]],
        ((b"HOST", b"test"), (b"X-NAME", b"Zo\xeb")),
        iter([(b"host", b"test"), (b"x-name", b"Zo\xeb")]),
    ],
    ids=["tuples", "lists", "a tuple", "an iterator"],
)
def test_header_pairs_may_be_any_sequences_in_any_case(headers: Iterable[Any]) -> None:
    request = read_scope(scope(headers=headers))
    assert request.headers["x-name"] == "Zoë"
    assert str(request.url) == "http://test/"


@pytest.mark.parametrize("headers", [..., None, []])
def test_there_may_be_no_headers_at_all(headers: Any) -> None:
    assert len(read_scope(scope(headers=headers)).headers) == 0


@pytest.mark.parametrize(
    "name", [b"Host", b"Content-Length", b"Origin", b"Sec-WebSocket-Key"]
)
def test_a_single_valued_field_that_comes_twice_is_refused(name: bytes) -> None:
    headers = [(name, b"1"), (name.lower(), b"1")]
    with pytest.raises(ValueError, match="comes more than once"):
        read_scope(scope(headers=headers))


@pytest.mark.parametrize("length", [b"-1", b"1.5", b"x", b"", b"9" * 30, b"1, 1"])
def test_an_invalid_length_is_refused(length: bytes) -> None:
    with pytest.raises(ValueError, match="Content-Length"):
        read_scope(scope(method="POST", headers=[(b"content-length", length)]))


def test_a_length_beside_a_transfer_encoding_is_refused() -> None:
    headers = [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")]
    with pytest.raises(
        ValueError, match="length of the body of the request is not clear"
    ):
        read_scope(scope(method="POST", headers=headers))


def test_the_length_of_a_body_may_be_unknown() -> None:
    assert read_scope(scope(headers=[])).body_length is None
    assert read_scope(scope(headers=[(b"content-length", b"7")])).body_length == 7
    websocket = {**WEBSOCKET, "headers": [(b"content-length", b"0")]}
    assert read_scope(websocket).body_length == 0


# -- WebSockets, and clients ---------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "seen"),
    [(["a", "b"], ["a", "b"]), (("a",), ["a"]), ([], []), (None, []), (..., [])],
)
def test_every_websocket_has_a_list_of_subprotocols(offered: Any, seen: Any) -> None:
    changed = {**WEBSOCKET, "subprotocols": offered}
    if offered is ...:
        del changed["subprotocols"]
    request = read_scope(changed)
    assert request.subprotocols == seen
    assert request.method == "GET"
    assert request.headers["upgrade"] == "websocket"


def test_a_subprotocol_that_is_not_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match="not a list of tokens"):
        read_scope({**WEBSOCKET, "subprotocols": ["a b"]})


def test_a_plain_request_offers_no_subprotocols() -> None:
    assert read_scope(scope(subprotocols=["a"])).subprotocols is None


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("192.0.2.1", 50000), "192.0.2.1"),
        (["::1", 50000], "::1"),
        (("192.0.2.1", None), "192.0.2.1"),
        (("192.0.2.1:80", 0), "192.0.2.1"),
        (("[2001:db8::1]:80", 0), "2001:db8::1"),
        (("testclient", 50000), "testclient"),
        (("\x1b[2J", 0), r"\x1b[2J"),
        (None, ""),
        (..., ""),
        ((), ""),
    ],
)
def test_the_client_has_an_address_if_the_scope_has_it(
    client: Any, address: str
) -> None:
    assert client_of(scope(client=client)) == address


# -- scopes that break the specification ---------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"path": b"/"}, "'path' of a scope must be str, not bytes"),
        ({"raw_path": "/"}, "'raw_path' of a scope must be bytes, not str"),
        ({"query_string": "a=b"}, "'query_string' of a scope must be bytes, not str"),
        ({"root_path": b"/a"}, "'root_path' of a scope must be str, not bytes"),
        ({"scheme": b"http"}, "'scheme' of a scope must be str, not bytes"),
        ({"method": b"GET"}, "'method' of a scope must be str, not bytes"),
        ({"headers": 5}, "'headers' of a scope must be Iterable, not int"),
        (
            {"headers": [("cookie", "secret")]},
            "pair of bytes, not tuple of str and str",
        ),
        ({"headers": [[b"cookie", "secret"]]}, "of bytes, not list of bytes and str"),
        (
            {"headers": [b"cookie: secret"]},
            "a header must be a pair of bytes, not bytes",
        ),
        ({"headers": {b"host": b"test"}}, "a header must be a pair of bytes, not"),
        (
            {"headers": [], "server": "test:80"},
            "'server' of a scope must be a host and",
        ),
        (
            {"headers": [], "server": (b"test", 80)},
            "'server' of a scope must be a host and",
        ),
        (
            {"headers": [], "server": ("test", "80")},
            "'server' of a scope must be a host",
        ),
        (
            {"type": "websocket", "subprotocols": [b"secret"]},
            "a subprotocol must be a str, not bytes",
        ),
    ],
)
def test_a_scope_that_breaks_the_specification_is_an_error_that_says_so(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(TypeError, match="the ASGI server violates") as caught:
        read_scope(scope(**changes))
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_client_that_is_not_an_address_is_an_error_that_says_so() -> None:
    with pytest.raises(
        TypeError, match="'client' of a scope must be a host and a port"
    ):
        client_of(scope(client="192.0.2.1"))

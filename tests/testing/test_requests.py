"""Plain HTTP requests of a test client: bodies, cookies, and errors."""

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
import trustme
from trio.testing import MockClock

from trio_wspair import (
    HandshakeError,
    Request,
    Response,
    WebSocketPair,
    same_origin,
)
from trio_wspair.testing import (
    RequestError,
    TestResponse,
    TestWebSocket,
    open_test_client,
)
from trio_wspair.testing._requests import Transport

pytestmark = pytest.mark.usefixtures("engine")
over_both = pytest.mark.parametrize("over", ["memory", "loopback"])
Handler = Callable[[Request], Awaitable[Response]]


@pytest.fixture(autouse=True)
async def in_time() -> AsyncGenerator[None]:
    """Limit the time of every test, generously in virtual time."""
    virtual = isinstance(trio.lowlevel.current_clock(), MockClock)
    with trio.fail_after(10**9 if virtual else 10):
        yield


async def site(request: Request) -> Response:
    """Serve a page, a login, the facts of a request, and an echo."""
    if request.path == "/login":
        name = (await request.json())["name"]
        return Response("welcome", headers={"Set-Cookie": f"user={name}; HttpOnly"})
    if request.path == "/chat":
        client, server = WebSocketPair()
        server.accept()
        server.send(f"{request.url} {request.headers.get('cookie', 'no cookie')}")
        return Response(None, status=101, web_socket=client)
    said = {
        "method": request.method,
        "url": request.url,
        "headers": dict(request.headers),
        "body": (await request.bytes()).decode("latin-1"),
    }
    return Response.json(said)


def setting(*cookies: str, **options: Any) -> Handler:
    """Return a handler that sets cookies at ``/set``, and returns those it gets."""

    async def fetch(request: Request) -> Response:
        if not request.path.startswith("/set"):
            return Response(request.headers.get("cookie", ""))
        return Response("set", headers=[("Set-Cookie", each) for each in cookies])

    return fetch


# -- requests ---------------------


@over_both
async def test_a_request_is_answered_by_the_handler(over: Transport) -> None:
    async with open_test_client(site, over=over) as client:
        response = await client.get("/a%20b?c=d", headers={"X-Name": "Ada"})
        assert isinstance(response, TestResponse)
        assert response.status == 200
        assert response.headers["content-type"] == "application/json"
        assert response.url == f"{client.origin}/a%20b?c=d"
        said = response.json()
        assert (said["method"], said["body"]) == ("GET", "")
        assert said["url"] == response.url
        assert said["headers"]["x-name"] == "Ada"
        assert "TestClient of http://" in repr(client)
        assert repr(response).startswith("<TestResponse 200, ")


async def test_every_method_has_a_verb_or_works_with_request(
    autojump_clock: MockClock,
) -> None:
    async with open_test_client(site) as client:
        for verb in (client.get, client.post, client.put, client.patch, client.delete):
            said = (await verb("/")).json()
            assert said["method"] == verb.__name__.upper()
        assert (await client.request("PURGE", "/")).json()["method"] == "PURGE"
        assert (await client.request("post", "/")).json()["method"] == "POST"


@over_both
async def test_bodies_are_text_bytes_and_json(over: Transport) -> None:
    async with open_test_client(site, over=over) as client:
        text = (await client.post("/", body="über")).json()
        assert text["body"].encode("latin-1").decode() == "über"
        assert text["headers"]["content-type"] == "text/plain;charset=UTF-8"
        data = (await client.post("/", body=b"\0\xff")).json()
        assert data["body"] == "\0\xff"
        assert "content-type" not in data["headers"]
        for value in ({"a": [1, "ü"]}, None):
            said = (await client.put("/", json=value)).json()
            assert said["headers"]["content-type"] == "application/json"
            assert (await client.post("/", json=value)).status == 200
        own = {"Content-Type": "text/csv"}
        said = (await client.post("/", body="a,b", headers=own)).json()
        assert said["headers"]["content-type"] == "text/csv"
        empty = (await client.post("/")).json()
        assert empty["headers"]["content-length"] == "0"


async def test_text_is_utf8_and_invalid_json_is_an_error(
    autojump_clock: MockClock,
) -> None:
    async def fetch(_request: Request) -> Response:
        return Response(b"\xef\xbb\xbf\xc3\xa9\xff")

    async with open_test_client(fetch) as client:
        response = await client.get("/")
        assert response.text() == "é\N{REPLACEMENT CHARACTER}"
        with pytest.raises(ValueError, match=r"JSON|decode"):
            response.json()


@over_both
@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304), ("POST", 205)]
)
async def test_a_response_without_a_body_ends_with_its_head(
    over: Transport, method: str, status: int
) -> None:
    async def fetch(_request: Request) -> Response:
        return Response("a body" if status == 200 else None, status=status)

    async with open_test_client(fetch, over=over) as client:
        response = await client.request(method, "/")
        assert (response.status, response.body) == (status, b"")


async def test_a_redirect_is_a_response_whose_location_can_be_requested(
    autojump_clock: MockClock,
) -> None:
    async def fetch(request: Request) -> Response:
        if request.path == "/old":
            return Response.redirect(request.url.replace("old", "new"))
        return Response(request.path)

    async with open_test_client(fetch) as client:
        response = await client.get("/old")
        assert response.status == 302
        assert (await client.get(response.headers["location"])).text() == "/new"
        assert (await client.get(client.origin)).text() == "/"


@over_both
async def test_an_unread_body_does_not_block_the_response(
    over: Transport,
) -> None:
    async def refuse(_request: Request) -> Response:
        return Response("no", status=403)

    async with open_test_client(refuse, over=over) as client:
        response = await client.post("/", body=b"x" * 2**22)
        assert (response.status, response.text()) == (403, "no")


async def test_a_body_beyond_the_limit_is_refused_by_the_server(
    autojump_clock: MockClock,
) -> None:
    async with open_test_client(site) as client:
        assert (await client.post("/", body=b"x" * (2**20 + 1))).status == 413


@over_both
async def test_several_requests_at_once_do_not_wait_for_each_other(
    over: Transport,
) -> None:
    both = trio.Event()

    async def meet(request: Request) -> Response:
        if request.path == "/first":
            await both.wait()
        both.set()
        return Response(request.path)

    async with open_test_client(meet, over=over) as client, trio.open_nursery() as two:
        two.start_soon(client.get, "/first")
        await trio.testing.wait_all_tasks_blocked()
        assert (await client.get("/second")).status == 200


@over_both
async def test_requests_go_through_tls_as_well(over: Transport) -> None:
    authority = trustme.CA()
    of_client = ssl.create_default_context()
    authority.configure_trust(of_client)
    of_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(of_server)
    async with open_test_client(
        site, over=over, ssl_context=of_client, server_ssl_context=of_server
    ) as client:
        assert client.origin.startswith("https://")
        assert (await client.get("/")).json()["url"].startswith("https://")
        await client.post("/login", json={"name": "Ada"})
        chat = await client.open_websocket("/chat")
        assert await chat.expect(lambda told: "user=Ada" in str(told))


async def test_a_page_and_its_websocket_are_of_the_same_origin() -> None:
    async def fetch(request: Request) -> Response:
        return Response(status=200 if same_origin(request) else 403)

    for over in ("memory", "loopback"):
        async with open_test_client(fetch, over=over) as client:
            own = {"Origin": client.origin}
            assert (await client.get("/", headers=own)).status == 200
            other = {"Origin": "http://evil.example"}
            assert (await client.get("/", headers=other)).status == 403


# -- cookies ---------------------


@over_both
async def test_a_login_applies_to_later_requests_and_websockets(
    over: Transport,
) -> None:
    async with open_test_client(site, over=over) as client:
        assert client.cookies == {}
        await client.post("/login", json={"name": "Ada"})
        assert client.cookies == {"user": "Ada"}
        assert (await client.get("/")).json()["headers"]["cookie"] == "user=Ada"
        chat = await client.open_websocket("/chat")
        await chat.expect(f"{client.origin}/chat user=Ada")
        more = await client.open_websocket("/chat", headers={"Cookie": "theme=dark"})
        await more.expect(f"{client.origin}/chat user=Ada; theme=dark")


async def test_each_client_has_its_own_cookies(autojump_clock: MockClock) -> None:
    async with open_test_client(site) as ada, open_test_client(site) as bob:
        await ada.post("/login", json={"name": "Ada"})
        assert "cookie" not in (await bob.get("/")).json()["headers"]
        assert bob.cookies == {}


@pytest.mark.parametrize(
    ("cookie", "path", "sent"),
    [
        ("a=b", "/anywhere", "a=b"),
        ("a=b; Path=/admin", "/admin", "a=b"),
        ("a=b; Path=/admin", "/admin/users", "a=b"),
        ("a=b; Path=/admin", "/administration", ""),
        ("a=b; Path=/admin", "/", ""),
        ("a=b; Secure; HttpOnly; SameSite=Strict", "/", "a=b"),
        ("a=b; Domain=localhost", "/", "a=b"),
        ("a=b; domain = .localhost ; Path=/", "/", "a=b"),
        ("a=b; Domain=example.com", "/", ""),
        ("a=b; Domain=host", "/", ""),
        ("a=b; Max-Age=0", "/", ""),
        ("a=b; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "/", ""),
        ("a=b=c; Path=/", "/", "a=b=c"),
        ('a="b c"', "/", 'a="b c"'),
    ],
)
async def test_a_cookie_goes_where_a_browser_would_send_it(
    cookie: str, path: str, sent: str, autojump_clock: MockClock
) -> None:
    async with open_test_client(setting(cookie)) as client:
        await client.get("/set")
        assert (await client.get(path)).text() == sent


async def test_a_cookie_without_a_path_is_for_the_folder_of_its_request(
    autojump_clock: MockClock,
) -> None:
    async with open_test_client(setting("a=b")) as client:
        await client.get("/set/it/here")
        assert (await client.get("/set/it/there")).text() == "set"
        assert (await client.get("/elsewhere")).text() == ""
        assert client.cookies == {"a": "b"}


async def test_cookies_of_the_same_name_are_sent_with_the_longer_path_first(
    autojump_clock: MockClock,
) -> None:
    fetch = setting("a=wide; Path=/", "a=narrow; Path=/x")
    async with open_test_client(fetch) as client:
        await client.get("/set")
        assert (await client.get("/x/y")).text() == "a=narrow; a=wide"
        assert client.cookies == {"a": "narrow"}


async def test_a_cookie_is_replaced_and_deleted_by_its_name(
    autojump_clock: MockClock,
) -> None:
    async def fetch(request: Request) -> Response:
        return Response(headers={"Set-Cookie": request.headers["x-set"]})

    async with open_test_client(fetch) as client:
        for said in ("a=1", "b=2", "a=3"):
            await client.get("/", headers={"X-Set": said})
        assert client.cookies == {"a": "3", "b": "2"}
        await client.get("/", headers={"X-Set": "a=; Max-Age=0"})
        assert client.cookies == {"b": "2"}


async def test_a_cookie_expires_in_virtual_time(autojump_clock: MockClock) -> None:
    async with open_test_client(setting("a=b; Max-Age=3600")) as client:
        await client.get("/set")
        await trio.sleep(3590)
        assert (await client.get("/")).text() == "a=b"
        await trio.sleep(20)
        assert (await client.get("/")).text() == ""
        assert client.cookies == {}


async def test_the_response_to_a_websocket_can_set_cookies(
    autojump_clock: MockClock,
) -> None:
    async def fetch(request: Request) -> Response:
        if request.path == "/no":
            return Response("no", status=403, headers={"Set-Cookie": "no=1; Path=/"})
        client, server = WebSocketPair()
        server.accept()
        headers = {"Set-Cookie": "yes=1; Path=/"}
        return Response(None, status=101, headers=headers, web_socket=client)

    async with open_test_client(fetch) as client:
        with pytest.raises(HandshakeError, match="403"):
            await client.open_websocket("/no")
        await client.open_websocket("/yes")
        assert client.cookies == {"no": "1", "yes": "1"}


# -- several WebSockets ---------------------


@over_both
async def test_a_client_opens_several_websockets_with_separate_records(
    over: Transport,
) -> None:
    async def fetch(request: Request) -> Response:
        client, server = WebSocketPair()
        server.accept()
        server.on("message")(lambda event: server.send(event.data + request.path))
        return Response(None, status=101, web_socket=client)

    async with open_test_client(fetch, "/first", over=over) as first:
        second = await first.open_websocket("/second", names=("Bob", "his half"))
        assert isinstance(second, TestWebSocket)
        assert [first.record, second.record] == list(first.records)
        first.send("a ")
        second.send("b ")
        await second.expect("b /second")
        await first.expect("a /first")
        assert (await first.get("/", within=1)).status == 426
    sent = [e.message for e in second.record.entries if e.what == "send"]
    assert sent == ["b ", "b /second"]
    assert {e.half for e in second.record.entries} == {"Bob", "his half"}
    ends = [e.code for e in second.record.entries if e.what == "closed"]
    assert ends == [1000, 1000]


async def test_websockets_opened_at_once_have_separate_records(
    autojump_clock: MockClock,
) -> None:
    async def fetch(request: Request) -> Response:
        await trio.sleep(float(request.path[1:]))
        client, server = WebSocketPair()
        server.accept()
        server.send(request.path)
        return Response(None, status=101, web_socket=client)

    async with open_test_client(fetch) as client, trio.open_nursery() as nursery:

        async def talk(path: str) -> None:
            socket = await client.open_websocket(path, names=(path, "server"))
            await socket.expect(path)
            sent = [e.message for e in socket.record.entries if e.what == "send"]
            assert sent == [path]

        for path in ("/3", "/1", "/2"):
            nursery.start_soon(talk, path)


# -- errors ---------------------


async def test_a_missing_response_is_an_error(autojump_clock: MockClock) -> None:
    async def sleep(_request: Request) -> Response:
        await trio.sleep_forever()
        raise AssertionError

    async with open_test_client(sleep, within=3) as client:
        with pytest.raises(
            RequestError, match=r"^GET /a: no complete response within 3 "
        ):
            await client.get("/a")
        with pytest.raises(RequestError, match=r"within 7 s$") as caught:
            await client.get("/", within=7)
        assert caught.value.response is None
    assert trio.current_time() < 20


async def test_the_error_for_an_endless_response_shows_its_beginning(
    autojump_clock: MockClock,
) -> None:
    async def events() -> AsyncIterator[str]:
        for number in range(10**6):
            yield f"data: {number}\n\n"
            await trio.sleep(1)

    async def fetch(_request: Request) -> Response:
        return Response(events(), headers={"Content-Type": "text/event-stream"})

    async with open_test_client(fetch) as client:
        with pytest.raises(
            RequestError, match="only status 200 and 27 bytes"
        ) as caught:
            await client.get("/", within=2.5)
        response = caught.value.response
        assert response is not None
        assert response.text() == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
        assert response.headers["content-type"] == "text/event-stream"


async def test_an_incomplete_response_is_an_error(
    autojump_clock: MockClock,
) -> None:
    async def breaking() -> AsyncIterator[str]:
        yield "the beginning"
        raise KeyError("a bug")

    async def fetch(_request: Request) -> Response:
        return Response(breaking())

    async with open_test_client(fetch) as client:
        with pytest.raises(RequestError, match="is incomplete") as caught:
            await client.get("/")
        assert caught.value.response is not None
        assert caught.value.response.body == b"the beginning"
        await client.expect_handler_error(KeyError, "a bug")


async def test_a_response_that_is_too_large_is_an_error() -> None:
    async def fetch(_request: Request) -> Response:
        async def much() -> AsyncIterator[bytes]:
            while True:
                yield bytes(2**20)

        return Response(much())

    async with open_test_client(fetch) as client:
        with pytest.raises(RequestError, match=r"more than 33,554,432 bytes"):
            await client.get("/")


@pytest.mark.parametrize(
    ("broken", "words"),
    [(False, "is incomplete, or isn't HTTP"), (True, "the connection broke before")],
)
async def test_a_broken_connection_is_an_error(
    broken: bool, words: str, autojump_clock: MockClock
) -> None:
    near, far = trio.testing.memory_stream_pair()

    async def dial(_host: str, _port: int) -> trio.abc.Stream:
        return near

    async def break_down() -> None:
        raise trio.BrokenResourceError

    async with open_test_client(site) as client:
        client._site._dial = dial
        await far.aclose()
        if broken:
            near.receive_stream.receive_some_hook = break_down
        with pytest.raises(RequestError, match=f"^GET /: .*{words}"):
            await client.get("/")


async def test_interim_responses_are_skipped(autojump_clock: MockClock) -> None:
    near, far = trio.testing.memory_stream_pair()

    async def dial(_host: str, _port: int) -> trio.abc.Stream:
        return near

    async with open_test_client(site) as client:
        client._site._dial = dial
        await far.send_all(
            b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
        )
        response = await client.get("/")
        assert (response.status, response.text()) == (200, "hello")
        assert "link" not in response.headers


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"url": "chat"}, ValueError, "a URL is a path such as"),
        ({"url": "http://example.com/"}, ValueError, "a URL of this server"),
        ({"url": "/a#b"}, ValueError, "leave out the fragment"),
        ({"method": "GE T"}, ValueError, "can't be the method"),
        ({"method": "CONNECT"}, ValueError, "can't be the method"),
        ({"method": "connect"}, ValueError, "can't be the method"),
        ({"method": 5}, TypeError, "a method is a str such as 'GET', not int"),
        ({"url": 5}, TypeError, "a URL is a str such as .*, not int"),
        ({"headers": {"Upgrade": "websocket"}}, ValueError, "open_websocket()"),
        ({"headers": {"Content-Length": "3"}}, ValueError, "leave out the header"),
        ({"headers": {"X": "a\nb"}}, ValueError, "line breaks and characters"),
        ({"body": 3}, TypeError, "str or bytes, not int; pass JSON as"),
        ({"body": "a", "json": 3}, TypeError, "not both"),
        ({"json": {1, 2}}, TypeError, "not JSON serializable"),
        ({"within": -1}, ValueError, "within must be 0 or more"),
    ],
)
async def test_an_invalid_request_is_refused(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    async with open_test_client(site) as client:
        with pytest.raises(error, match=words):
            await client.request(**{"method": "GET", "url": "/", **arguments})


async def test_another_host_name_can_be_sent(
    autojump_clock: MockClock,
) -> None:
    async with open_test_client(site) as client:
        said = (await client.get("/", headers={"Host": "shop.example"})).json()
        assert said["url"] == "http://shop.example/"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"protocols": "chat"}, TypeError, "pass its path, too"),
        ({"headers": {"A": "b"}}, TypeError, "pass its path, too"),
        ({"names": ("Ada", "server")}, TypeError, "pass its path, too"),
        ({"path": 8000}, TypeError, "path is a str such as '/chat"),
        (
            {"ssl_context": ssl.create_default_context()},
            TypeError,
            "pass both ssl_context",
        ),
        ({"ssl_context": "yes"}, TypeError, "ssl_context"),
    ],
)
async def test_options_without_effect_are_refused(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        open_test_client(site, **arguments)

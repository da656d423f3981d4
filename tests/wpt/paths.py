"""Handlers for the tests in WPT's folder `websockets`, on `serve()`."""

import trio

from trio_wspair import ConnectionClosedError, Request, Response, WebSocket

from .conversations import (
    Handler,
    converse,
    discard_until_goodbye,
    echo_until_goodbye,
    offered,
    parameters,
    query,
    say,
    until_closed,
)

# -- echoes and reports --------------------------------------------------------


async def echo(request: Request) -> Response:
    protocol = "echo" if "echo" in offered(request) else None
    return converse(request, echo_until_goodbye, protocol=protocol, echo_close=True)


async def echo_exit(request: Request) -> Response:
    return converse(request, discard_until_goodbye)


async def echo_query(request: Request) -> Response:
    return converse(request, say(query(request)))


async def echo_query_v13(request: Request) -> Response:
    return converse(request, say(query(request).partition("?")[0]))


async def echo_cookie(request: Request) -> Response:
    return converse(request, say(request.headers.get("cookie", "(none)")))


async def origin(request: Request) -> Response:
    return converse(request, say(request.headers.get("origin", "")))


async def referrer(request: Request) -> Response:
    said = request.headers.get("referer", "MISSING AS PER FETCH")
    return converse(request, say(said))


async def empty_message(request: Request) -> Response:
    async def talk(ws: WebSocket) -> None:
        ws.send("pass" if await ws.receive() == "" else "fail")

    return converse(request, talk)


# -- handshakes ----------------------------------------------------------------


async def protocol(request: Request) -> Response:
    chosen = request.headers.get("sec-websocket-protocol", "")
    return converse(request, say(chosen), protocol=chosen)


async def protocol_array(request: Request) -> Response:
    chosen = next(iter(offered(request)), "")
    return converse(request, say(chosen), protocol=chosen)


async def handshake_no_protocol(request: Request) -> Response:
    return converse(request, say(), protocol="")


async def handshake_no_extensions(request: Request) -> Response:
    return converse(request, say())


async def handshake_sleep_2(request: Request) -> Response:
    await trio.sleep(2)
    return converse(request, say())


async def sleep_10_v13(request: Request) -> Response:
    await trio.sleep(10)
    return converse(request, echo_until_goodbye)


async def basic_auth(request: Request) -> Response:
    if request.headers.get("authorization") == "Basic Zm9vOmJhcg==":  # foo:bar
        return converse(request, say())
    return Response(status=401, headers={"WWW-Authenticate": 'Basic realm="camelot"'})


# -- cookies and other headers of the response ---------------------------------


def set_cookies(request: Request, *cookies: str) -> Response:
    headers = [("Set-Cookie", cookie) for cookie in cookies]
    return converse(request, until_closed, headers=headers)


async def set_cookie(request: Request) -> Response:
    return set_cookies(request, f"ws_test_{query(request)}=test; Path=/")


async def set_cookie_http(request: Request) -> Response:
    return set_cookies(request, f"ws_test_{query(request)}=test; Path=/; HttpOnly")


async def set_cookie_secure(request: Request) -> Response:
    return set_cookies(request, f"ws_test_{query(request)}=test; Path=/; Secure")


async def set_cookies_samesite(request: Request) -> Response:
    value = parameters(request).get("value", "1")
    end = "; Max-Age=0" if "clear" in query(request) else ""
    return set_cookies(
        request,
        f"samesite-unspecified={value}; Path=/{end}",
        f"samesite-lax={value}; Path=/; SameSite=Lax{end}",
        f"samesite-strict={value}; Path=/; SameSite=Strict{end}",
        f"samesite-none={value}; Path=/; SameSite=None; Secure{end}",
    )


async def set_co_policies(request: Request) -> Response:
    names = {
        "coep": "Cross-Origin-Embedder-Policy",
        "corp": "Cross-Origin-Resource-Policy",
    }
    asked = parameters(request)
    headers = [(names[key], asked[key]) for key in names if key in asked]
    return converse(request, until_closed, headers=headers)


# -- closing -------------------------------------------------------------------


async def remote_close(request: Request) -> Response:
    asked = parameters(request)

    async def talk(ws: WebSocket) -> None:
        if "code" in asked:
            ws.close(int(asked["code"]), asked.get("reason", ""))
        else:
            ws.close()
        await ws.wait_closed()

    return converse(request, talk)


async def delayed_passive_close(request: Request) -> Response:
    async def talk(ws: WebSocket) -> None:
        try:
            await ws.receive()
        except ConnectionClosedError:
            await trio.sleep(1)
            raise

    return converse(request, talk, echo_close=True)


# -- backpressure --------------------------------------------------------------


async def send_backpressure(request: Request) -> Response:
    async def talk(ws: WebSocket) -> None:
        ws.send(b"")
        start = trio.current_time()
        for _ in range(16):
            ws.send(b" " * 2**20)
            await ws.drain()
        ws.send(str(trio.current_time() - start))

    return converse(request, talk)


async def receive_many_with_backpressure(request: Request) -> Response:
    async def talk(ws: WebSocket) -> None:
        while True:
            await trio.sleep(0.1)
            ws.send(str(len(await ws.receive())))

    return converse(request, talk)


PATHS: dict[str, Handler] = {
    "/echo": echo,
    "/echo_exit": echo_exit,
    "/echo_close_data": echo_exit,
    "/echo-query": echo_query,
    "/echo-query_v13": echo_query_v13,
    "/echo-cookie": echo_cookie,
    "/origin": origin,
    "/referrer": referrer,
    "/empty-message": empty_message,
    "/protocol": protocol,
    "/protocol_array": protocol_array,
    "/handshake_no_protocol": handshake_no_protocol,
    "/handshake_no_extensions": handshake_no_extensions,
    "/handshake_sleep_2": handshake_sleep_2,
    "/sleep_10_v13": sleep_10_v13,
    "/basic_auth": basic_auth,
    "/set-cookie": set_cookie,
    "/set-cookie_http": set_cookie_http,
    "/set-cookie-secure": set_cookie_secure,
    "/set-cookies-samesite": set_cookies_samesite,
    "/set-co-policies": set_co_policies,
    "/remote-close": remote_close,
    "/delayed-passive-close": delayed_passive_close,
    "/send-backpressure": send_backpressure,
    "/receive-many-with-backpressure": receive_many_with_backpressure,
}

"""The inspector's page in Chromium: `nox -s browser`."""

import json
import re
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Thread
from typing import Any, Literal

import pytest
import trio

from trio_wspair import (
    MessageEvent,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    connect,
    serve,
)
from trio_wspair.inspector import open_inspector

pytest.importorskip("playwright", reason="`nox -s browser` installs it")

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    expect,
)

pytestmark = pytest.mark.browser


async def fetch(request: Request) -> Response:
    """Echo every message."""
    client, server = WebSocketPair()

    @server.on("message")
    def echo(event: MessageEvent) -> None:
        server.send(event.data)

    server.accept()
    return Response(None, status=101, web_socket=client)


class Server:
    """An inspected server in another thread, and its clients."""

    def __init__(self) -> None:
        self.port = 0

    def start(self) -> None:
        """Start; a second time, the page has the same URL."""
        started: SimpleQueue[None] = SimpleQueue()
        self._thread = Thread(target=trio.run, args=(self._run, started))
        self._thread.start()
        started.get(timeout=20)

    def stop(self) -> None:
        self.call(self._scope.cancel)
        self._thread.join(20)

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        trio.from_thread.run_sync(function, *args, trio_token=self._token)

    def connect(self, path: str) -> WebSocket:
        """Open a connection whose client half isn't inspected."""

        async def connect_there() -> WebSocket:
            ws = await connect(self.server_url + path, nursery=self._clients)
            ws.accept()
            return ws

        return trio.from_thread.run(connect_there, trio_token=self._token)

    async def _run(self, started: "SimpleQueue[None]") -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery, trio.open_nursery() as self._clients:
            self._scope = nursery.cancel_scope
            self.url, self.server_url = await nursery.start(self._serve)
            started.put(None)
            await trio.sleep_forever()

    async def _serve(self, *, task_status: trio.TaskStatus[tuple[str, str]]) -> None:
        async with (
            open_inspector(self.port) as inspector,
            trio.open_nursery() as nursery,
        ):
            self.port = int(re.findall(r":(\d+)/", inspector.url)[0])
            server = await nursery.start(serve, fetch, 0)
            task_status.started((inspector.url, server.url))


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.start()
    yield server
    server.stop()


Open = Callable[..., Page]
Keep = Callable[[Page, str], None]


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Iterator[Open]:
    """Open the page; scripts may not fail or break the content security policy."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if "Content Security" in message.text:
            errors.append(message.text)

    def open_page(
        width: int = 1280, height: int = 800, theme: Literal["dark", "light"] = "light"
    ) -> Page:
        context = browser.new_context(
            color_scheme=theme, viewport={"width": width, "height": height}
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(dialog.message))
        page.on("console", hear)
        page.goto(server.url)
        expect(page.get_by_role("status")).to_have_text("Live")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


# The structure that a screen reader finds.


def connections(page: Page) -> Locator:
    return page.get_by_role("navigation", name="Connections").get_by_role("button")


def frames(page: Page) -> Locator:
    return page.get_by_role("list", name="Frames").get_by_role("button")


def payload(page: Page) -> Locator:
    return page.get_by_label("Payload")


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def choose(page: Page, path: str) -> None:
    connections(page).filter(has_text=path).click()


def test_a_connection_is_shown_with_its_frames_and_its_close(
    server: Server, open_page: Open, keep: Keep
) -> None:
    page = open_page()
    expect(page.get_by_text("No connections yet.")).to_be_visible()
    keep(page, "empty")
    ws = server.connect("room?name=Ada")
    expect(connections(page)).to_have_count(1)
    expect(connections(page)).to_contain_text(["/room?name=Ada"])
    expect(connections(page)).to_contain_text(["open"])
    choose(page, "/room")
    server.call(ws.send, "hello")
    expect(frames(page)).to_have_count(2)
    expect(frames(page).first).to_contain_text("hello")
    expect(frames(page).first.get_by_role("img", name="received")).to_be_visible()
    expect(frames(page).last.get_by_role("img", name="sent")).to_be_visible()
    expect(connections(page)).to_contain_text(["↓ 1 (5 B) ↑ 1 (5 B)"])
    server.call(ws.close, 4000, "enough")
    expect(frames(page)).to_have_count(4)
    expect(frames(page).nth(2)).to_contain_text("4000 “enough”")
    expect(connections(page)).to_contain_text(["closed 4000"])
    expect(page.get_by_role("main")).to_contain_text("4000, clean")
    expect(page.get_by_text("0 open · 1 closed")).to_be_visible()
    keep(page, "closed")


def test_a_frame_opens_as_text_json_and_hex(
    server: Server, open_page: Open, keep: Keep
) -> None:
    page = open_page(theme="dark")
    ws = server.connect("kinds")
    choose(page, "/kinds")
    server.call(ws.send, '{"list":[1,2],"name":"Ada"}')
    server.call(ws.send, bytes(range(20)) + b"\xff")
    server.call(ws.send, "only text")
    server.call(ws.send, "x" * 20_000)
    expect(frames(page)).to_have_count(8)
    frames(page).filter(has_text="Ada").first.click()
    pretty = json.dumps({"list": [1, 2], "name": "Ada"}, indent=2)
    expect(payload(page)).to_have_text(pretty)
    keep(page, "json-dark")
    button(page, "Text").click()
    expect(payload(page)).to_have_text('{"list":[1,2],"name":"Ada"}')
    frames(page).filter(has_text="binary").first.click()
    expect(payload(page)).to_contain_text("000000  00 01 02 03 04 05 06 07  08 09")
    expect(payload(page)).to_contain_text("000010  10 11 12 13 ff")
    expect(button(page, "Text")).to_be_disabled()
    keep(page, "hex-dark")
    frames(page).filter(has_text="only text").first.click()
    expect(payload(page)).to_have_text("only text")
    expect(button(page, "JSON")).to_be_disabled()
    button(page, "Hex").click()
    expect(payload(page)).to_contain_text("6f 6e 6c 79")
    frames(page).filter(has_text="xxxx").first.click()
    expect(page.get_by_text("Only the first 16,384 bytes were kept.")).to_be_visible()
    expect(page.get_by_role("heading", name="20,000 bytes")).to_be_visible()
    page.keyboard.press("Escape")
    expect(payload(page)).to_be_hidden()
    expect(frames(page).filter(has_text="xxxx").first).to_be_focused()


def test_html_is_text(server: Server, open_page: Open) -> None:
    page = open_page()
    html = "<img src=x onerror=alert(1)><script>alert(2)</script><b>bold</b>"
    ws = server.connect("?<b>path</b>")
    choose(page, "path")
    server.call(ws.send, html)
    server.call(ws.close, 4000, "<b>reason</b>")
    expect(frames(page).first).to_contain_text(html)
    frames(page).first.click()
    expect(payload(page)).to_have_text(html)
    expect(page.get_by_role("main")).to_contain_text("<b>reason</b>")
    expect(page.locator("main b, main img, main script, nav b")).to_have_count(0)


def test_frames_are_filtered(server: Server, open_page: Open) -> None:
    page = open_page()
    ws = server.connect("")
    choose(page, "/")
    for text in ("apple", "pear", "pineapple"):
        server.call(ws.send, text)
    expect(page.get_by_text("6 frames")).to_be_visible()
    page.get_by_role("searchbox").fill("APPLE")
    expect(frames(page)).to_have_count(4)
    expect(page.get_by_text("4 of 6 frames")).to_be_visible()
    page.get_by_role("searchbox").fill("received apple")
    server.call(ws.send, "another apple")
    expect(page.get_by_text("of 8 frames")).to_be_visible()
    expect(frames(page)).to_have_count(0)
    page.get_by_role("searchbox").fill("received text pear")
    expect(frames(page)).to_have_count(1)


def test_a_pause_stops_the_frames_and_not_the_list(
    server: Server, open_page: Open
) -> None:
    page = open_page()
    ws = server.connect("busy")
    choose(page, "/busy")
    server.call(ws.send, "before")
    expect(frames(page)).to_have_count(2)
    button(page, "Pause").click()
    for number in range(400):
        server.call(ws.send, f"number {number}")
    expect(connections(page)).to_contain_text(["↓ 401"])
    expect(page.get_by_text("2 frames, paused")).to_be_visible()
    button(page, "Resume").click()
    expect(frames(page).last).to_contain_text("number 399")
    expect(page.get_by_text("300 frames skipped")).to_be_visible()
    expect(frames(page).last).to_be_in_viewport()


def test_the_view_stays_in_place_while_frames_come(
    server: Server, open_page: Open
) -> None:
    page = open_page(height=600)
    ws = server.connect("busy")
    choose(page, "/busy")
    for number in range(100):
        server.call(ws.send, f"number {number}.")
    expect(frames(page).last).to_contain_text("number 99.")
    frames(page).filter(has_text="number 20.").first.scroll_into_view_if_needed()
    expect(button(page, "↓ To the newest")).to_be_visible()
    for number in range(100, 240):  # So many that the first ones are dropped.
        server.call(ws.send, f"number {number}.")
    expect(frames(page).last).to_contain_text("number 239.")
    expect(frames(page).filter(has_text="number 20.").first).to_be_in_viewport()
    button(page, "↓ To the newest").click()
    expect(frames(page).last).to_be_in_viewport()


def test_the_page_can_be_used_with_the_keyboard_alone(
    server: Server, open_page: Open
) -> None:
    ws = server.connect("one")
    server.connect("two")
    page = open_page()  # With both at once: the first that is shown is the tab stop.
    expect(connections(page)).to_contain_text(["/two", "/one"])  # The newest first.
    page.bring_to_front()  # A page without the focus gets no key events.
    page.keyboard.press("Tab")
    expect(connections(page).first).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(connections(page).last).to_have_attribute("aria-current", "true")
    server.call(ws.send, "hello")
    expect(frames(page)).to_have_count(2)
    for _ in range(3):  # The filter, the pause, and the list of frames.
        page.keyboard.press("Tab")
    expect(frames(page).first).to_be_focused()
    page.keyboard.press("Enter")
    expect(payload(page)).to_have_text("hello")
    page.keyboard.press("ArrowDown")
    expect(frames(page).last).to_have_attribute("aria-current", "true")
    page.keyboard.press("Tab")
    expect(button(page, "Text")).to_be_focused()
    page.keyboard.press("Escape")
    expect(payload(page)).to_be_hidden()
    expect(frames(page).last).to_be_focused()


def test_the_page_comes_back_when_the_server_does(
    server: Server, open_page: Open
) -> None:
    page = open_page()
    server.connect("before")
    choose(page, "/before")
    server.stop()
    expect(page.get_by_role("status")).to_contain_text("Not connected")
    server.start()
    expect(page.get_by_role("status")).to_have_text("Live")
    expect(page.get_by_text("No connections yet.")).to_be_visible()
    server.connect("after")
    expect(connections(page)).to_contain_text(["/after"])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_fits_on_a_phone(
    server: Server, open_page: Open, keep: Keep, theme: Literal["dark", "light"]
) -> None:
    page = open_page(width=360, height=740, theme=theme)
    ws = server.connect("a-long-path-" + "x" * 200)
    choose(page, "/a-long")
    server.call(ws.send, "long " * 100)
    expect(frames(page)).to_have_count(2)
    frames(page).first.click()
    expect(payload(page)).to_be_in_viewport(ratio=1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    keep(page, f"phone-{theme}")

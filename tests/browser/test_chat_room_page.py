"""The chat room in Chromium: `nox -s browser`."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal

import pytest
import trio
from example_modules import load_example

from trio_wspair import serve
from trio_wspair.hibernation import DurableObjectNamespace

pytest.importorskip("playwright", reason="`nox -s browser` installs it")

from playwright.sync_api import (
    Locator,
    Page,
    WebSocketRoute,
    expect,
)

if TYPE_CHECKING:
    from browser.conftest import Visitors

pytestmark = pytest.mark.browser

chat_room: Any = load_example("chat_room")


class Server:
    """The example in another thread; a test can reach its rooms."""

    def __init__(self) -> None:
        self.built = 0
        """How often a room was constructed."""
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Start to serve: first on a free port, then on the same one again."""
        started: SimpleQueue[None] = SimpleQueue()
        self._thread = Thread(target=trio.run, args=(self._run, started))
        self._thread.start()
        started.get(timeout=20)

    def stop(self) -> None:
        self._call(self._scope.cancel)
        self._thread.join(20)

    def evict(self) -> None:
        """Evict the lobby from memory."""
        self._call(lambda: self._rooms.evict(self._rooms.id_from_name("lobby")))

    def _call(self, function: Callable[[], None]) -> None:
        trio.from_thread.run_sync(function, trio_token=self._token)

    async def _run(self, started: "SimpleQueue[None]") -> None:
        class Room(chat_room.Room):  # type: ignore[misc] # of a module without types
            def __init__(room, *args: Any) -> None:  # noqa: N805 - self is the server
                super().__init__(*args)
                self.built += 1

        self._token = trio.lowlevel.current_trio_token()
        async with (
            DurableObjectNamespace(Room, chat_room.Histories()) as self._rooms,
            trio.open_nursery() as nursery,
        ):
            self._scope = nursery.cancel_scope
            handler = partial(chat_room.fetch, self._rooms)
            server = await nursery.start(serve, handler, self.port)
            self.port = server.port
            started.put(None)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def url(server: Server) -> str:
    return server.url


Keep = Callable[[Page, str], None]


# The structure that a screen reader finds.


def state(page: Page) -> Locator:
    return page.get_by_role("status")


def alert(page: Page) -> Locator:
    return page.get_by_role("alert")


def log(page: Page) -> Locator:
    return page.get_by_role("log", name="Messages").get_by_role("listitem")


def people(page: Page) -> Locator:
    return page.get_by_role("list", name="Here now").get_by_role("listitem")


def text_field(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Message")


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name)


def enter(page: Page, name: str) -> None:
    page.get_by_role("textbox", name="Your name").fill(name)
    page.keyboard.press("Enter")


def come(visitors: "Visitors", room: str = "lobby", **options: Any) -> Page:
    """Open the page, without joining."""
    return visitors.open(f"rooms/{room}", **options)


def join(visitors: "Visitors", name: str, **options: Any) -> Page:
    """Open the page, and join."""
    page = come(visitors, **options)
    enter(page, name)
    expect(state(page)).to_have_text("Connected")
    return page


def say(page: Page, text: str) -> None:
    text_field(page).fill(text)
    page.keyboard.press("Enter")


def expect_last(page: Page, *parts: str) -> None:
    for part in parts:
        expect(log(page).last).to_contain_text(part)


def test_two_pages_talk_to_each_other(visitors: "Visitors", keep: Keep) -> None:
    ada, bob = join(visitors, "Ada"), join(visitors, "Bob", theme="dark")
    expect(text_field(ada)).to_be_focused()
    say(ada, "Did the server survive the night?")
    expect_last(bob, "Ada", "Did the server survive the night?")
    say(bob, "It did. All the rooms were asleep, and it did not show.")
    expect_last(ada, "Bob", "It did.")
    expect(button(ada, "Send")).to_be_disabled()  # The field is empty.
    say(ada, "  ")
    text_field(ada).fill("Good.")
    button(ada, "Send").click()
    expect_last(bob, "Ada", "Good.")
    expect(text_field(ada)).to_have_value("")
    expect(log(ada)).to_have_count(5)  # Two of them are notices.
    expect(log(ada).last.get_by_role("time")).to_have_text(re.compile(r"\d\d:\d\d"))
    keep(ada, "wide-light")
    keep(bob, "wide-dark")


def test_each_name_has_one_colour_on_every_page(
    visitors: "Visitors",
) -> None:
    ada, bob = join(visitors, "Ada"), join(visitors, "Bob")
    say(ada, "hello")
    expect_last(bob, "hello")
    say(bob, "hello")
    expect_last(ada, "Bob", "hello")

    def colours(page: Page) -> list[str]:
        script = "all => all.map((by) => getComputedStyle(by).color)"
        seen: list[str] = page.locator(".said .by").evaluate_all(script)
        return seen

    assert colours(ada) == colours(bob)
    assert len(set(colours(ada))) == 2


def test_the_page_shows_the_members_and_who_joins_or_leaves(
    visitors: "Visitors",
) -> None:
    ada = join(visitors, "Ada")
    expect(people(ada)).to_have_text([re.compile("Ada.*you")])
    bob = join(visitors, "Bob")
    expect_last(ada, "Bob has joined")
    for page in (ada, bob):
        expect(people(page)).to_contain_text(["Ada", "Bob"])
    eve = join(visitors, "Eve")
    button(eve, "Leave").click()
    expect_last(ada, "Eve has left")
    expect(eve.get_by_role("textbox", name="Your name")).to_be_focused()
    bob.close()
    expect_last(ada, "Bob has left")
    expect(people(ada)).to_have_count(1)
    enter(eve, "Eva")
    expect_last(ada, "Eva has joined")


def test_a_new_member_sees_the_earlier_messages(visitors: "Visitors") -> None:
    ada, bob = join(visitors, "Ada"), join(visitors, "Bob")
    say(ada, "one")
    expect_last(bob, "one")
    say(bob, "two")
    expect_last(ada, "two")
    carol = join(visitors, "Carol")
    expect(log(carol)).to_contain_text(["one", "two", "Carol has joined"])
    elsewhere = join(visitors, "Ada", room="elsewhere")
    expect(log(elsewhere)).to_contain_text(["Ada has joined"])


def test_a_taken_name_is_refused_and_another_one_accepted(
    visitors: "Visitors", keep: Keep
) -> None:
    ada = join(visitors, "Ada")
    other = come(visitors, theme="dark")
    keep(other, "door-dark")
    enter(other, "ada")
    expect(alert(other)).to_have_text("The name ada is taken.")
    expect(other.get_by_role("textbox", name="Your name")).to_be_focused()
    keep(other, "name-taken-dark")
    enter(other, "")
    expect(alert(other)).to_have_text("A name is required.")
    enter(other, "Bob")
    expect(state(other)).to_have_text("Connected")
    expect(people(ada)).to_have_count(2)


def test_a_sender_that_is_too_fast_gets_a_notice_and_keeps_the_text(
    visitors: "Visitors", keep: Keep
) -> None:
    ada, bob = join(visitors, "Ada", theme="dark"), join(visitors, "Bob")
    for number in range(chat_room.BURST + 1):
        say(ada, f"number {number}")
    expect(alert(ada)).to_have_text(re.compile(r"too fast\. Wait 1 s"))
    expect(text_field(ada)).to_have_value(f"number {chat_room.BURST}")
    keep(ada, "too-fast-dark")
    expect_last(bob, f"number {chat_room.BURST - 1}")
    expect(alert(bob)).to_have_count(0)
    ada.wait_for_timeout(1000 * chat_room.PACE)
    ada.keyboard.press("Enter")
    expect_last(bob, f"number {chat_room.BURST}")
    expect(alert(ada)).to_have_count(0)


def test_html_is_text(visitors: "Visitors") -> None:
    mallory, bob = join(visitors, "<img src=x onerror=a()>"), join(visitors, "Bob")
    html = "<script>alert(1)</script><img src=x onerror=alert(2)><b>bold</b> &amp;"
    say(mallory, html)
    expect_last(bob, html)
    expect(people(bob)).to_contain_text(["<img src=x onerror=a()>", "Bob"])
    for page in (mallory, bob, join(visitors, "Carol")):
        expect(log(page).filter(has_text=html)).to_have_count(1)
        expect(page.locator(".room :is(img, .text *)")).to_have_count(0)


def test_eviction_of_the_room_is_not_visible(
    visitors: "Visitors", server: Server
) -> None:
    ada, bob = join(visitors, "Ada"), join(visitors, "Bob")
    assert server.built == 1
    for number, (speaker, name, listener) in enumerate(
        [(ada, "Ada", bob), (bob, "Bob", ada)]
    ):
        server.evict()
        say(speaker, f"message {number}")
        expect_last(listener, name, f"message {number}")
        assert server.built == number + 2
    server.evict()
    carol = join(visitors, "Carol")
    expect(people(carol)).to_contain_text(["Ada", "Bob", "Carol"])
    expect(log(carol)).to_contain_text(["message 0", "message 1", "Carol has joined"])
    server.evict()
    bob.close()
    expect_last(ada, "Bob has left")
    expect(people(carol)).to_contain_text(["Ada", "Carol"])
    assert server.built == 5


def test_the_page_comes_back_when_the_server_does(
    visitors: "Visitors", server: Server, keep: Keep
) -> None:
    ada = join(visitors, "Ada")
    bob = join(visitors, "Bob", width=360, height=740, theme="dark")
    say(ada, "before")
    expect_last(bob, "before")
    server.stop()
    lost = re.compile(r"The connection is lost\. Next try in \d+ s\.")
    for page in (ada, bob):
        expect(page.get_by_text(lost)).to_be_visible()
        expect(state(page)).to_have_text(re.compile("Not connected|Reconnecting"))
    say(ada, "is this still on?")  # The text stays in the field.
    keep(ada, "lost-light")
    keep(bob, "lost-phone-dark")
    server.start()
    for page in (ada, bob):
        expect(state(page)).to_have_text("Connected")
        expect(page.get_by_text(lost)).to_be_hidden()
        expect(people(page)).to_contain_text(["Ada", "Bob"])
    expect(text_field(ada)).to_have_value("is this still on?")
    text_field(ada).press("Enter")
    expect_last(bob, "is this still on?")
    expect(log(bob).filter(has_text="before")).to_have_count(1)


def test_the_page_notices_that_the_network_is_silent_and_comes_back(
    visitors: "Visitors",
) -> None:
    """The old socket keeps its name until the server notices the silence."""
    servers: list[WebSocketRoute] = []
    said: list[str | bytes] = []
    silent = False

    def connect(ws: WebSocketRoute) -> None:
        server = ws.connect_to_server()
        servers.append(server)
        first = len(servers) == 1

        def to_server(message: str | bytes) -> None:
            said.append(message)
            server.send(message)

        def to_page(message: str | bytes) -> None:
            if not (first and silent):
                ws.send(message)

        ws.on_message(to_server)
        server.on_message(to_page)
        if first:
            ws.on_close(lambda *_: None)  # The server doesn't know of the end.

    page = come(visitors)
    page.route_web_socket(re.compile("/ws$"), connect)
    page.clock.install()
    enter(page, "Ada")
    expect(state(page)).to_have_text("Connected")
    for pings in range(1, 4):
        page.clock.run_for(20_000)
        expect(state(page)).to_have_text("Connected")
        page.wait_for_timeout(200)  # Until the answer has come.
        assert said.count("ping") == pings
    silent = True
    page.clock.run_for(20_000)
    expect(state(page)).to_have_text("Connected")
    page.clock.run_for(10_000)
    expect(page.get_by_text("The connection is lost.")).to_be_visible()
    page.clock.run_for(1000)
    expect(page.get_by_text("The name Ada is taken.")).to_be_visible()
    servers[0].close()
    page.wait_for_timeout(200)
    page.clock.run_for(4000)
    expect(state(page)).to_have_text("Connected")
    expect(people(page)).to_have_count(1)


def test_long_lines_wrap_and_long_texts_are_counted(visitors: "Visitors") -> None:
    ada, bob = join(visitors, "Ada"), join(visitors, "Bob")
    text_field(ada).press_sequentially("first")
    ada.keyboard.press("Shift+Enter")
    text_field(ada).press_sequentially("second")
    ada.keyboard.press("Enter")
    expect_last(bob, "first\nsecond")
    text_field(ada).fill("x" * (chat_room.MAX_TEXT - 7))
    expect(ada.get_by_text("7 left")).to_be_visible()
    text_field(ada).press("Enter")
    expect_last(bob, "x" * (chat_room.MAX_TEXT - 7))


def test_the_newest_message_stays_in_sight_unless_the_view_was_scrolled_up(
    visitors: "Visitors",
) -> None:
    ada, bob = join(visitors, "Ada", height=500), join(visitors, "Bob", height=500)
    for page in (ada, bob):
        say(page, "\n".join("many lines of text" for _ in range(30)))
        say(page, f"that was all of {page.title()}")
        expect_last(bob, "that was all")
    expect(log(bob).last).to_be_in_viewport()
    log(bob).first.scroll_into_view_if_needed()
    say(ada, "news")
    expect_last(bob, "news")
    expect(log(bob).last).not_to_be_in_viewport()
    button(bob, "New messages").click()
    expect(log(bob).last).to_be_in_viewport()
    expect(button(bob, "New messages")).to_be_hidden()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_fits_on_a_phone(
    visitors: "Visitors", keep: Keep, theme: Literal["light", "dark"]
) -> None:
    ada = join(visitors, "Ada", width=360, height=740, theme=theme)
    for name in ("Bob", "Grace", "Hedy", "W" * chat_room.MAX_NAME):
        say(
            join(visitors, name), f"Hello, I am {name}, and this is a rather long line."
        )
        expect_last(ada, name, "Hello, I am")
    say(ada, "https://example.com/" + "long" * 20)
    expect_last(ada, "longlong")
    for element in ("document.documentElement", "document.getElementById('log')"):
        assert ada.evaluate(f"{element}.scrollWidth") <= 360
    assert ada.evaluate("document.documentElement.scrollHeight") <= 740
    keep(ada, f"phone-{theme}")

"""The page of a recorded conversation in Chromium: `nox -s browser`."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from sample_records import NAMES, TALK, at

from trio_wspair.testing._entries import FailedStep
from trio_wspair.testing._pictures import draw_html

pytest.importorskip("playwright", reason="`nox -s browser` installs it")

from playwright.sync_api import Browser, Locator, Page, expect

pytestmark = pytest.mark.browser

HOSTILE = "</script><img src=x onerror=alert(1)> 12345678901234567890"
JSON = '{"id":12345678901234567890,"of":[],"who":{"name":"Ada, <b>"}}'
ENTRIES = (
    *TALK[:9],
    at(1.1, "client send", HOSTILE, task="main"),
    at(1.2, "client send", JSON),
    at(1.3, "server receive", JSON, task="room"),
    at(1.4, "client send", "long " * 2000),
    at(1.5, "server receive", "long " * 2000),
    at(1.6, "client send", bytes(range(256)) * 3),
    *TALK[9:11],
    at(2, "server close", code=1000, reason="bye"),
    at(2.5, "client closed", code=1006, was_clean=False, error="ProtocolError: no"),
)


Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Open the page as a file; scripts may not fail, and nothing may be blocked."""
    file = tmp_path / "conversation.html"
    file.write_text(draw_html(NAMES, ENTRIES), "utf-8")
    errors: list[object] = []
    contexts = []

    def hear(error: object) -> None:
        errors.append(error)

    def open_page(theme: Literal["dark", "light"] = "light", width: int = 1000) -> Page:
        context = browser.new_context(
            color_scheme=theme, viewport={"width": width, "height": 800}
        )
        contexts.append(context)
        page = context.new_page()
        for event in ("pageerror", "dialog", "console", "requestfailed"):
            page.on(event, hear)
        page.goto(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


def rows(page: Page) -> Locator:
    """Return the rows that are shown."""
    return page.get_by_role("list", name="Conversation").locator(".line:visible")


def row(page: Page, words: str) -> Locator:
    return rows(page).filter(has_text=words)


def payload(page: Page) -> Locator:
    return page.locator("pre:visible")


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def look(page: Page, words: str) -> Locator:
    """Open a row; return the element with its contents."""
    row(page, words).first.click()
    return page.locator(".details:visible")


def test_the_conversation_is_drawn_and_can_be_filtered(
    open_page: Open, keep: Callable[[Page, str], None]
) -> None:
    page = open_page()
    expect(page.get_by_role("status")).to_have_text("15 rows")
    expect(page.locator(".arrow.late")).to_have_count(2)
    keep(page, "light")
    page.get_by_label("server").uncheck()
    expect(page.get_by_role("status")).to_have_text("10 of 15 rows")
    expect(row(page, "sent, never taken")).to_have_count(0)
    page.get_by_label("Messages").uncheck()
    page.get_by_label("Accepts").uncheck()
    expect(rows(page)).to_contain_text(["Close 1000", "closed 1006"])
    page.get_by_label("Closes").uncheck()
    expect(page.get_by_role("status")).to_have_text("0 of 15 rows")
    for name in ("server", "Messages", "Accepts", "Closes"):
        page.get_by_label(name).check()
    page.keyboard.press("/")
    page.keyboard.type("ADA")
    expect(page.get_by_role("status")).to_have_text("1 of 15 rows")
    keep(page, "filtered")


def test_frames_are_opened_and_shown_whole(
    open_page: Open, keep: Callable[[Page, str], None]
) -> None:
    page = open_page(theme="dark")
    details = look(page, "Ada")
    expect(details).to_contain_text("client → server")
    expect(details).to_contain_text("1.200 s")
    expect(details).to_contain_text("1.300 s, in room")
    expect(payload(page)).to_have_text(
        '{\n  "id": 12345678901234567890,\n  "of": [],\n  "who": {\n'
        '    "name": "Ada, <b>"\n  }\n}',
        use_inner_text=True,
    )
    button(page, "Text").click()
    expect(payload(page)).to_have_text(JSON)
    button(page, "Hex").click()
    expect(payload(page)).to_contain_text("000010  31 32 33")
    keep(page, "open-dark")
    row(page, "Ada").click()
    expect(payload(page)).to_have_count(0)


def test_long_payloads_are_folded_until_opened(open_page: Open) -> None:
    page = open_page()
    expect(look(page, "long long")).to_contain_text("10,000 characters")
    assert len(payload(page).text_content() or "") == 4000
    button(page, "Show the whole payload").click()
    assert payload(page).text_content() == "long " * 2000
    expect(payload(page)).to_be_focused()


def test_hostile_text_is_shown_and_not_run(open_page: Open) -> None:
    page = open_page()
    look(page, "onerror")
    expect(payload(page)).to_have_text(HOSTILE)
    expect(page.locator("img")).to_have_count(0)


def test_binary_messages_are_dumped(open_page: Open) -> None:
    page = open_page()
    details = look(page, "(768 bytes)")
    expect(details).to_contain_text("never")
    expect(payload(page)).to_contain_text(
        "000040  40 41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f  @ABCDEFGHIJKLMNO"
    )
    expect(button(page, "Text")).to_have_count(0)


def test_an_unclean_end_shows_the_reason(open_page: Open) -> None:
    details = look(open_page(), "closed 1006")
    expect(details).to_contain_text("Clean")
    expect(details).to_contain_text("ProtocolError: no")


def test_the_page_can_be_used_with_the_keyboard_alone(open_page: Open) -> None:
    page = open_page()
    rows(page).first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(row(page, "closed 1006")).to_be_focused()
    page.keyboard.press("Enter")
    expect(row(page, "closed 1006")).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Escape")
    expect(row(page, "closed 1006")).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("Home")
    expect(rows(page).first).to_be_focused()
    look(page, "sent at 0.500")
    page.keyboard.press("Tab")
    button(page, "Go to the row where it was sent").press("Enter")
    expect(row(page, "00 01 ff").first).to_be_focused()


def test_the_page_fits_on_a_phone(
    open_page: Open, keep: Callable[[Page, str], None]
) -> None:
    page = open_page(theme="dark", width=360)
    look(page, "(768 bytes)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    keep(page, "phone")


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_a_failure_marks_its_row_and_stays_visible_under_every_filter(
    browser: Browser, tmp_path: Path, theme: Literal["dark", "light"]
) -> None:
    failure = FailedStep(
        "client",
        f"client expected {HOSTILE}",
        at=3,
        entry=2,
        waits=[("server", "server: a listener waits")],
        states=[("client", "OPEN"), ("server", "OPEN"), ("server", "no listener")],
    )
    file = tmp_path / "failed.html"
    file.write_text(draw_html(NAMES, ENTRIES, failure), "utf-8")
    context = browser.new_context(color_scheme=theme)
    page = context.new_page()
    page.goto(file.as_uri())
    items = page.locator("ol > li")
    expect(items.nth(2)).to_have_class(re.compile(r"\bwrong\b"))
    expect(items.nth(2)).to_contain_text("Not expected: ")
    expect(items.nth(3)).to_contain_text(f"✗client: client expected {HOSTILE}")
    expect(items.nth(4)).to_contain_text("…server: server: a listener waits")
    expect(page.locator("#states")).to_contain_text("no listener")
    arrows = page.locator(".arrows .arrow").count()
    page.get_by_label("Messages").uncheck()
    expect(items.nth(2)).to_be_hidden()
    expect(items.nth(3)).to_be_visible()
    page.get_by_label("Messages").check()
    expect(page.locator(".arrows .arrow")).to_have_count(arrows)
    context.close()


def test_a_conversation_without_a_failure_has_no_states(open_page: Open) -> None:
    expect(open_page().locator("#states")).to_be_hidden()

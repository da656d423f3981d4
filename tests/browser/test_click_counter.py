"""The click counter in Chromium: `nox -s browser`."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("playwright", reason="`nox -s browser` installs it")

from playwright.sync_api import Locator, Page, expect

if TYPE_CHECKING:
    from browser.conftest import Visitors

pytestmark = pytest.mark.browser

EXAMPLE = Path(__file__).parents[2] / "examples" / "click_counter.py"


@pytest.fixture
def url() -> Iterator[str]:
    """The URL of the example's page."""
    command = [sys.executable, "-W", "error", str(EXAMPLE), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()


def connect(visitors: "Visitors", **options: Any) -> Page:
    """Open the page, and wait until it is connected."""
    page = visitors.open(**options)
    expect(state(page)).to_have_text("Connected")
    return page


# The structure that a screen reader finds.


def state(page: Page) -> Locator:
    return page.get_by_role("status")


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name)


def log(page: Page) -> Locator:
    return page.get_by_role("log").get_by_role("listitem")


def expect_count(page: Page, count: str) -> None:
    expect(page.get_by_text(re.compile(r"^\S+ clicks?$"))).to_have_text(count)


def test_a_click_is_sent_and_the_count_comes_back(
    visitors: "Visitors", keep: Callable[[Page, str], None]
) -> None:
    page = connect(visitors)
    expect_count(page, "0 clicks")
    button(page, "Click").click()
    expect_count(page, "1 click")
    button(page, "Click").click()
    expect_count(page, "2 clicks")
    expect(log(page).nth(-2)).to_contain_text("sent CLICK")
    expect(log(page).last).to_contain_text('received {"count": 2}')
    keep(page, "connected")


def test_the_count_is_pushed_to_every_page(visitors: "Visitors") -> None:
    one, two = connect(visitors), connect(visitors)
    button(one, "Click").click()
    expect_count(two, "1 click")
    button(two, "Click").click()
    expect_count(one, "2 clicks")
    expect_count(connect(visitors), "2 clicks")


def test_an_unknown_message_is_shown_as_an_error(
    visitors: "Visitors", keep: Callable[[Page, str], None]
) -> None:
    page = connect(visitors, theme="dark")
    button(page, "Unknown message").click()
    expect(page.get_by_role("alert")).to_have_text("Unknown message received")
    expect(log(page).last).to_contain_text('{"error": "Unknown message received"}')
    keep(page, "error")
    button(page, "Click").click()
    expect_count(page, "1 click")
    expect(page.get_by_role("alert")).to_be_empty()


def test_the_page_closes_cleanly_and_connects_again(
    visitors: "Visitors", keep: Callable[[Page, str], None]
) -> None:
    page = connect(visitors)
    button(page, "Click").click()
    button(page, "Close").click()
    expect(state(page)).to_have_text("Closed: 1000, normal closure")
    expect(log(page).last).to_contain_text("clean")
    expect(log(page).last).not_to_contain_text("not clean")
    expect(button(page, "Click")).to_be_disabled()
    expect(button(page, "Unknown message")).to_be_disabled()
    keep(page, "closed")
    expect(button(page, "Reconnect")).to_be_focused()
    page.keyboard.press("Enter")
    expect(state(page)).to_have_text("Connected")
    expect_count(page, "1 click")
    button(page, "Click").click()
    expect_count(page, "2 clicks")


def test_the_page_fits_on_a_phone(
    visitors: "Visitors", keep: Callable[[Page, str], None]
) -> None:
    page = connect(visitors, width=360, height=740, theme="dark")
    button(page, "Click").click()
    expect_count(page, "1 click")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    keep(page, "phone")

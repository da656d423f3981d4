"""Chromium for the pages: `nox -s browser` installs it.

The screenshots go into the folder that the environment variable SCREENSHOTS names.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

FLAGS: Final = (
    "--no-sandbox",  # Needed as root; Chromium only opens our own pages.
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
TIMEOUT: Final = 20_000
"""Milliseconds to wait for an effect on the page."""


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """Chromium, with a new profile."""
    from playwright.sync_api import (  # noqa: PLC0415 - not there in other sessions
        expect,
        sync_playwright,
    )

    executable = shutil.which("chromium")
    assert executable is not None, "chromium is missing: install Debian's package"
    expect.set_options(timeout=TIMEOUT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


class Visitors:
    """Opens pages of a server, any number of times."""

    def __init__(self, browser: "Browser", url: str) -> None:
        self.browser = browser
        self.url = url
        self.contexts: list[BrowserContext] = []
        self.errors: list[object] = []

    def add_error(self, error: object) -> None:
        self.errors.append(error)

    def open(
        self,
        path: str = "",
        width: int = 1100,
        height: int = 760,
        theme: Literal["dark", "light"] = "light",
    ) -> "Page":
        context = self.browser.new_context(
            color_scheme=theme, viewport={"width": width, "height": height}
        )
        self.contexts.append(context)
        page = context.new_page()
        page.on("pageerror", self.add_error)
        page.on("dialog", self.add_error)
        page.goto(f"{self.url}{path}")
        return page


@pytest.fixture
def visitors(browser: "Browser", url: str) -> Iterator[Visitors]:
    """Open pages of `url`; scripts may not fail or open dialogs."""
    visitors = Visitors(browser, url)
    yield visitors
    for context in visitors.contexts:
        context.close()
    assert visitors.errors == []


@pytest.fixture
def keep(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[["Page", str], None]:
    """Keep a screenshot, named after the file of the test."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    subject = request.path.stem.removeprefix("test_").replace("_", "-")

    def keep(page: "Page", name: str) -> None:
        file = folder / f"{subject}-{name}.png"
        page.screenshot(
            path=file, animations="disabled"
        )  # Playwright makes the folder.
        assert file.read_bytes().startswith(b"\x89PNG")

    return keep

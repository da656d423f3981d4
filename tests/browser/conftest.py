"""Chromium for the pages: `nox -s browser` installs it.

The screenshots go into the folder that the environment variable SCREENSHOTS names.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS: Final = (
    "--no-sandbox",  # As root, and it sees nothing but our own page.
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
PATIENCE: Final = 20_000
"""Milliseconds to wait for what should happen at once."""


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """Chromium, with a new profile."""
    from playwright.sync_api import (  # noqa: PLC0415 - not there in other sessions
        expect,
        sync_playwright,
    )

    executable = shutil.which("chromium")
    assert executable is not None, "there is no chromium: install Debian's package"
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def keep(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[["Page", str], None]:
    """Keep a screenshot, named after the file of the test."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    subject = request.path.stem.removeprefix("test_").replace("_", "-")

    def keep(page: "Page", name: str) -> None:
        file = folder / f"{subject}-{name}.png"
        page.screenshot(path=file, animations="disabled")  # It makes the folder.
        assert file.read_bytes().startswith(b"\x89PNG")

    return keep

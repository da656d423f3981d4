"""Fixtures for tests of the command: a module with a handler, and time for programs."""

from pathlib import Path

import pytest
from commands import HANDLER


@pytest.fixture(scope="module")
def engine() -> None:
    """Run each test on one engine: the tests of the command are not about the wire."""


@pytest.fixture
def seconds() -> float:
    """Allow a minute: a test may start several programs."""
    return 60.0


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a module with a handler into a new current directory; return its path."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "app_of_a_test.py"
    file.write_text(HANDLER)
    return file

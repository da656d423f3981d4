"""Loads the recorded scenarios and the known differences."""

from pathlib import Path
from typing import Any

from conformance import corpus
from conformance.corpus import Scenario

HERE = Path(__file__).parent


def groups() -> dict[str, list[Scenario]]:
    """Return the scenarios of each file, by the file's name."""
    return corpus.groups(HERE)


def scenarios() -> list[Scenario]:
    """Return all scenarios."""
    return corpus.scenarios(HERE)


def listed() -> dict[str, list[dict[str, Any]]]:
    """Return the entries of `differences.toml`, by kind."""
    return corpus.listed(HERE)


def differing() -> dict[str, dict[str, Any]]:
    """Return the entry for each scenario whose trace differs."""
    return corpus.differing("difference", "javascript", folder=HERE)


def differing_parts(name: str) -> set[str]:
    """Return the parts of a scenario's trace that are known to differ."""
    entry = differing().get(name)
    return set() if entry is None else set(entry["scenarios"][name])

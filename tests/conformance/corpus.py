"""Loads the recorded scenarios and the known differences."""

import json
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

Scenario = dict[str, Any]


@cache
def groups(folder: Path = HERE) -> dict[str, list[Scenario]]:
    """Return the scenarios of each file, by the file's name."""
    files = sorted((folder / "scenarios").glob("*.json"))
    return {file.stem: json.loads(file.read_text("utf-8")) for file in files}


def scenarios(folder: Path = HERE) -> list[Scenario]:
    """Return all scenarios."""
    return [scenario for group in groups(folder).values() for scenario in group]


def makes_sense_on_the_wire(scenario: Scenario) -> bool:
    """Whether the halves of a scenario can be joined by a connection."""
    steps = {step["op"] for step in scenario["steps"]}
    return "return" not in scenario and not steps & {"pair", "response"}


@cache
def listed(folder: Path = HERE) -> dict[str, list[dict[str, Any]]]:
    """Return the entries of `differences.toml`, by kind."""
    text = (folder / "differences.toml").read_text("utf-8")
    return tomllib.loads(text)


def differing(*kinds: str, folder: Path = HERE) -> dict[str, dict[str, Any]]:
    """Return the entries of these kinds, by the names of their scenarios."""
    found: dict[str, dict[str, Any]] = {}
    for kind in kinds:
        for entry in listed(folder)[kind]:
            for name in entry.get("scenarios", ()):
                assert name not in found, f"{name} is explained twice"
                found[name] = entry
    return found


def differing_in_memory() -> dict[str, dict[str, Any]]:
    """Return the entry for each scenario whose trace differs on a pair."""
    return differing("difference", "javascript")


def differing_on_the_wire() -> dict[str, dict[str, Any]]:
    """Return the entry for each scenario whose trace differs over a connection."""
    return differing("difference", "javascript", "wire")

"""CONTRIBUTING's generated parts are up to date, and all paths in it exist."""

import re

import house_map
import pytest

TEXT = house_map.CONTRIBUTING.read_text()
PATHS = sorted(
    set(re.findall(r"`((?:trio_wspair|tests|docs|benchmarks|examples)/[\w/.]+)`", TEXT))
)


def test_the_generated_parts_are_up_to_date() -> None:
    assert house_map.with_generated_parts(TEXT) == TEXT, (
        "run: python tests/helpers/house_map.py"
    )


def test_the_map_has_every_module() -> None:
    modules = list(house_map.PACKAGE.rglob("*.py"))
    lines = [line for line in house_map.house_map().splitlines() if line]
    assert len(lines) == len(modules) - 1, "all but the package itself"
    assert all(line.endswith(".") for line in lines)


@pytest.mark.parametrize("path", PATHS)
def test_each_path_in_contributing_exists(path: str) -> None:
    assert (house_map.ROOT / path).exists()

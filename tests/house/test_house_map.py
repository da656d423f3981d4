"""CONTRIBUTING's generated parts are up to date, and all paths in it exist."""

import re
import tomllib

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


def test_a_contract_lists_the_modules_of_every_package() -> None:
    config = tomllib.loads((house_map.ROOT / "pyproject.toml").read_text())
    contracts = config["tool"]["importlinter"]["contracts"]
    listed = {
        package
        for contract in contracts
        if contract["type"] == "layers" and contract["exhaustive"]
        for package in contract["containers"]
    }
    packages = {
        ".".join(init.parent.relative_to(house_map.ROOT).parts)
        for init in house_map.PACKAGE.rglob("__init__.py")
    }
    assert packages == listed


@pytest.mark.parametrize("path", PATHS)
def test_each_path_in_contributing_exists(path: str) -> None:
    assert (house_map.ROOT / path).exists()

"""CONTRIBUTING's map of the house has every module, with what it says of itself."""

import house_map


def test_the_map_is_that_of_today() -> None:
    text = house_map.CONTRIBUTING.read_text()
    assert text == house_map.with_map(text), (
        "python tests/helpers/house_map.py writes it anew"
    )


def test_the_map_has_every_module() -> None:
    modules = list(house_map.PACKAGE.rglob("*.py"))
    lines = [line for line in house_map.house_map().splitlines() if line]
    assert len(lines) == len(modules) - 1, "all but the package itself"
    assert all(line.endswith(".") for line in lines)

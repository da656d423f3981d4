"""The map of the house in CONTRIBUTING.md, made from the first line of each module.

``python tests/helpers/house_map.py`` writes it anew.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ("CONTRIBUTING", "house_map", "with_map")

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "trio_wspair"
CONTRIBUTING: Final = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- map -->\n", "<!-- /map -->\n"


def house_map() -> str:
    """Return the packages from the ground up, each with a line for every module."""
    return "\n".join(_shown(PACKAGE / name) for name in _from_the_ground_up())


def with_map(text: str) -> str:
    """Return a text with the map of today between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{house_map()}\n{END}{after}"


def _from_the_ground_up() -> Iterator[str]:
    """Yield the packages and modules at the top, in the order of import-linter."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    for layer in reversed(contracts[0]["layers"]):
        yield from (name.strip() for name in layer.split("|"))


def _shown(place: Path) -> str:
    if not place.is_dir():
        return f"- **`{place.name}`** {_first_line(place.with_suffix('.py'))}\n"
    lines = [f"- **`{place.name}/`** {_first_line(place / '__init__.py')}\n"]
    lines += [
        f"  - `{_name_in(place, module)}` {_first_line(module)}\n"
        for module in sorted(place.rglob("*.py"))
        if module != place / "__init__.py"
    ]
    return "".join(lines)


def _name_in(package: Path, module: Path) -> str:
    name = module.relative_to(package).with_suffix("").as_posix()
    return name.removesuffix("__init__")


def _first_line(module: Path) -> str:
    text = ast.get_docstring(ast.parse(module.read_text())) or ""
    return text.partition("\n")[0]


if __name__ == "__main__":
    CONTRIBUTING.write_text(with_map(CONTRIBUTING.read_text()))

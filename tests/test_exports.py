"""The names that are public, the words they come with, and who imports whom."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import cast, get_origin

import pytest

import trio_wspair
from trio_wspair import hibernation, inspector, transports

PUBLIC = [trio_wspair, transports, hibernation, inspector]
MODULES = [
    trio_wspair,
    *(
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(trio_wspair.__path__, "trio_wspair.")
    ),
]
by_name = pytest.mark.parametrize("module", PUBLIC, ids=lambda m: m.__name__)
every_module = pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)


def names_in(module: ModuleType) -> tuple[str, ...]:
    return cast("tuple[str, ...]", module.__all__)


# -- names ---------------------


@by_name
def test_the_public_names_are_a_sorted_tuple(module: ModuleType) -> None:
    assert isinstance(names_in(module), tuple)
    assert names_in(module) == tuple(sorted(set(names_in(module))))


@by_name
def test_exactly_the_names_in_all_are_public(module: ModuleType) -> None:
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(names_in(module))


@every_module
def test_every_module_says_what_it_offers_and_has_it(module: ModuleType) -> None:
    if module.__name__ != "trio_wspair._version":
        assert isinstance(names_in(module), tuple)
        assert [name for name in names_in(module) if not hasattr(module, name)] == []


def test_the_version_is_that_of_the_package() -> None:
    numbers = trio_wspair.__version__.split(".")
    assert len(numbers) >= 3
    assert numbers[0].isdecimal()


def test_every_error_is_public() -> None:
    from trio_wspair._rules import errors as _errors  # noqa: PLC0415 - private, for this test only

    assert set(_errors.__all__) <= set(trio_wspair.__all__)


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(trio_wspair.__path__[0], "py.typed").is_file()


# -- words ---------------------


def documented() -> Iterator[tuple[str, object]]:
    """Yield everything public that is a class, a function, a method or a property."""
    for module in PUBLIC:
        for name in names_in(module):
            thing = getattr(module, name)
            if get_origin(thing) is not None:
                continue  # An alias of types, which can't have a docstring.
            yield f"{module.__name__}.{name}", thing
            for member, value in vars(thing).items() if inspect.isclass(thing) else ():
                is_code = isinstance(value, (property, classmethod, staticmethod))
                if not member.startswith("_") and (
                    is_code or inspect.isfunction(value)
                ):
                    yield f"{module.__name__}.{name}.{member}", value


DOCUMENTED = dict(documented())


def test_the_list_of_what_is_documented_has_the_verbs_and_the_views() -> None:
    for name in ("serve", "WebSocket", "WebSocket.send", "WebSocket.ready_state"):
        assert f"trio_wspair.{name}" in DOCUMENTED


@pytest.mark.parametrize("name", DOCUMENTED)
def test_everything_public_has_a_docstring_of_its_own(name: str) -> None:
    thing = DOCUMENTED[name]
    text = vars(thing)["__doc__"] if inspect.isclass(thing) else thing.__doc__
    assert text is not None
    first = inspect.cleandoc(text).splitlines()[0]
    assert len(first) > 10
    assert first.endswith((".", ":")), first


@every_module
def test_every_module_says_what_it_owns(module: ModuleType) -> None:
    assert module.__doc__ is not None
    assert module.__doc__.strip()


# -- imports ---------------------

IMPORT_ALONE = """
import importlib, sys, types
package = types.ModuleType("trio_wspair")  # Without what its __init__ imports.
package.__path__ = [sys.argv[1]]
sys.modules["trio_wspair"] = package
before = set(sys.modules)
for name in sys.argv[2:]:
    importlib.import_module("trio_wspair." + name)
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


def imported_with(*modules: str) -> set[str]:
    """Return the packages that a fresh interpreter has imported for these modules."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALONE, *trio_wspair.__path__, *modules],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return set(done.stdout.split())


NETWORK = {"trio", "trio_websocket", "wsproto", "h11", "ssl", "asyncio"}


def test_the_core_that_decides_imports_no_trio_and_no_network() -> None:
    imported = imported_with(
        *(m.__name__.partition(".")[2] for m in MODULES if "._rules." in m.__name__)
    )
    assert "trio_wspair" in imported
    assert imported & NETWORK == set()


def test_the_shell_does_import_trio_so_the_test_above_can_see_it() -> None:
    assert "trio" in imported_with("_pair.inbox")

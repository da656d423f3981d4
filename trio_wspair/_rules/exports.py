"""Public names: what a package exports names that package as its module."""

from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any, get_overloads, overload

__all__ = ("name_public_module",)


def name_public_module(namespace: Mapping[str, Any]) -> None:
    """Set `__module__` of all that a module exports to the name of that module.

    Tracebacks, `repr()`, `help()` and pickles then show ``trio_wspair.WebSocket``,
    which can be imported, and which stays when a private module is renamed. Methods are
    included; those that are inherited from a private class get the name of the public
    class, which errors show. Aliases of types keep the module of their `typing` class.

    Args:
        namespace: The `globals()` of the public module, when it has all its names.
    """
    module = namespace["__name__"]
    for name in namespace["__all__"]:
        exported = namespace[name]
        if isinstance(exported, type):
            _set_module(exported, module)
            for member in vars(exported).values():
                _set_module(getattr(member, "__func__", member), module)
            for base in _private_bases(exported, namespace):
                for member in vars(base).values():
                    function = getattr(member, "__func__", member)
                    _set_module(function, module)
                    if isinstance(function, FunctionType):
                        shown = f"{exported.__qualname__}.{function.__name__}"
                        function.__qualname__ = shown
        else:
            _set_module(exported, module)


def _private_bases(exported: type, namespace: Mapping[str, Any]) -> Iterator[type]:
    """Yield the bases of a class up to the first that is public."""
    for base in exported.__mro__[1:]:
        is_private = base.__module__.startswith("trio_wspair._")
        if not is_private or namespace.get(base.__name__) is base:
            return
        yield base


def _set_module(value: object, module: str) -> None:
    if not isinstance(value, (type, FunctionType)):
        return
    defined_in: str | None = value.__module__
    if defined_in is None or not defined_in.startswith("trio_wspair."):
        return
    # They are registered by module, where get_overloads() will look for them.
    overloads = get_overloads(value) if isinstance(value, FunctionType) else ()
    for variant in overloads:
        variant.__module__ = module
        overload(variant)
    value.__module__ = module

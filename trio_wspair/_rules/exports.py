"""Sets `__module__` of exported names to the public package that exports them."""

import re
from collections.abc import Mapping
from inspect import getattr_static, isclass
from types import FunctionType
from typing import Any, Final, get_overloads, overload

__all__ = ("name_public_module",)

_PRIVATE: Final = re.compile(r"trio_wspair\.(\w+\.)*_")


def name_public_module(namespace: Mapping[str, Any]) -> None:
    """Set `__module__` of everything that a module exports to the name of that module.

    Tracebacks, `repr()`, `help()` and pickles then show ``trio_wspair.WebSocket``. This
    name can be imported, and does not change when a private module is renamed. Methods
    are included. Methods that are inherited from a private class get the name of the
    exported class. Aliases of types keep the module of their `typing` class.

    Args:
        namespace: The `globals()` of the public module, after all its imports.
    """
    module = namespace["__name__"]
    exported = [namespace[name] for name in namespace["__all__"]]
    for value in exported:
        _set_module(value, module)
        if isinstance(value, type):
            for member in vars(value).values():
                _set_module(member, module)
    for value in filter(isclass, exported):
        for base in filter(_is_private, value.__mro__):
            for name, member in vars(base).items():
                if getattr_static(value, name) is member:  # Not overridden.
                    _set_module(member, module, f"{value.__qualname__}.{name}")


def _set_module(value: object, module: str, qualified: str = "") -> None:
    if isinstance(value, property):
        for function in value.fget, value.fset:
            _set_module(function, module, qualified)
    value = getattr(value, "__func__", value)
    if not isinstance(value, (type, FunctionType)) or not _is_private(value):
        return
    # get_overloads() finds overloads by these names, so they are registered anew.
    overloads = get_overloads(value) if isinstance(value, FunctionType) else ()
    for each in *overloads, value:
        each.__module__ = module
        each.__qualname__ = qualified or each.__qualname__
    for variant in overloads:
        overload(variant)


def _is_private(value: type | FunctionType) -> bool:
    """Whether a private module of trio-wspair defines this class or function."""
    defined_in: str | None = value.__module__
    return defined_in is not None and bool(_PRIVATE.match(defined_in))

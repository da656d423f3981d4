"""Public names: their modules, docstrings and texts; and the imports of the core."""

import importlib
import inspect
import pickle
import pkgutil
import subprocess
import sys
import traceback
import typing
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import cast, get_origin

import pytest

import trio_wspair
from trio_wspair import asgi, hibernation, inspector, testing, transports
from trio_wspair.testing import pytest_plugin

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


def members_of(cls: type) -> dict[str, object]:
    """Return the members that a class defines, or inherits from a private class."""
    members = dict(vars(cls))
    for base in cls.__mro__[1:]:
        if not base.__module__.startswith("trio_wspair._"):
            break
        members = vars(base) | members
    return members


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
def test_every_module_lists_its_public_names_in_all_and_has_them(
    module: ModuleType,
) -> None:
    if module.__name__ != "trio_wspair._version":
        assert isinstance(names_in(module), tuple)
        assert [name for name in names_in(module) if not hasattr(module, name)] == []


def test_the_version_is_that_of_the_package() -> None:
    numbers = trio_wspair.__version__.split(".")
    assert len(numbers) >= 3
    assert numbers[0].isdecimal()


def test_every_error_is_public() -> None:
    from trio_wspair._rules import errors as _errors  # noqa: PLC0415 - private, for this test only

    public = {*trio_wspair.__all__, *hibernation.__all__}
    errors = {n for n in _errors.__all__ if isinstance(getattr(_errors, n), type)}
    assert errors <= public


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(trio_wspair.__path__[0], "py.typed").is_file()


# -- the module of a public name ----------------------------------------

EXPORTED = {
    f"{module.__name__}.{name}": (module, getattr(module, name))
    for module in (*PUBLIC, testing, asgi, pytest_plugin)
    for name in names_in(module)
    if not (module is trio_wspair and name in ("Application", "FetchHandler"))
}
"""The public names, without type aliases."""
CLASSES = {
    name: value for name, (_, value) in EXPORTED.items() if inspect.isclass(value)
}
EXCEPTIONS: tuple[BaseException, ...] = (
    trio_wspair.WebSocketError("failed"),
    trio_wspair.InvalidStateError("too early"),
    trio_wspair.BufferFullError("full"),
    trio_wspair.ConnectionClosedError(1000, "done", was_clean=True),
    trio_wspair.ProtocolError(1002, "a masked frame"),
    trio_wspair.HandshakeError(
        "no", status=503, headers=(("a", "b"),), body=b"busy", retryable=False
    ),
    trio_wspair.RequestBodyError(413, "too large"),
    hibernation.DurableObjectResetError("aborted"),
    testing.ConversationError("no message came", testing.Record()),
    testing.RequestError("no response"),
)


@pytest.mark.parametrize("name", EXPORTED)
def test_every_public_object_has_the_module_that_exports_it(name: str) -> None:
    module, value = EXPORTED[name]
    assert value.__module__ == module.__name__


@pytest.mark.parametrize("name", CLASSES)
def test_the_methods_of_a_class_name_the_public_module_as_well(name: str) -> None:
    module, value = EXPORTED[name]
    for member in members_of(value).values():
        functions = [getattr(member, "__func__", member)]
        if isinstance(member, property):
            functions = [member.fget, member.fset]
        for function in functions:
            if not isinstance(function, FunctionType):
                continue
            if "trio_wspair" in function.__module__:
                assert function.__module__ == module.__name__
                if "<" not in function.__qualname__:
                    assert function.__qualname__.startswith(f"{value.__qualname__}.")


@pytest.mark.parametrize("name", CLASSES)
def test_the_repr_of_a_class_is_its_public_name(name: str) -> None:
    assert repr(CLASSES[name]) in (
        f"<class '{name}'>",
        f"<enum '{CLASSES[name].__name__}'>",
    )


@pytest.mark.parametrize("name", EXPORTED)
def test_a_pickle_of_a_class_or_function_has_its_public_name(name: str) -> None:
    module, value = EXPORTED[name]
    if module is not pytest_plugin:  # A fixture is an object of pytest.
        data = pickle.dumps(value)
        assert module.__name__.encode() in data
        assert b"._" not in data
        assert pickle.loads(data) is value  # noqa: S301 - made here


@pytest.mark.parametrize("name", CLASSES)
def test_the_annotations_of_a_class_can_be_evaluated(name: str) -> None:
    typing.get_type_hints(CLASSES[name])


@pytest.mark.parametrize(
    ("cls", "verb"),
    [
        (trio_wspair.WebSocket, "send"),
        (testing.TestClient, "request"),
        (transports.TrioWebSocketConnection, "send"),
    ],
)
def test_an_inherited_method_has_the_name_of_a_public_class(
    cls: type, verb: str
) -> None:
    method = getattr(cls, verb)
    assert repr(method).startswith(f"<function {cls.__name__}.{verb} ")
    assert pickle.loads(pickle.dumps(method)) is method  # noqa: S301 - made here


def test_overloads_are_found_by_typing() -> None:
    assert len(typing.get_overloads(trio_wspair.WebSocket.add_event_listener)) > 1


def test_the_list_of_exceptions_has_every_public_one() -> None:
    public = {cls for cls in CLASSES.values() if issubclass(cls, BaseException)}
    assert public == {type(exc) for exc in EXCEPTIONS}


@pytest.mark.parametrize("exc", EXCEPTIONS, ids=lambda exc: type(exc).__name__)
def test_a_traceback_shows_the_public_name_of_an_exception(exc: BaseException) -> None:
    (line,) = traceback.format_exception_only(exc)
    cls = type(exc)
    assert line == f"{cls.__module__}.{cls.__name__}: {exc}\n"
    assert f"{cls.__module__}.{cls.__name__}" in EXPORTED


@pytest.mark.parametrize("exc", EXCEPTIONS, ids=lambda exc: type(exc).__name__)
def test_a_pickled_exception_keeps_its_text_and_attributes(exc: BaseException) -> None:
    again = pickle.loads(pickle.dumps(exc))  # noqa: S301 - made here
    assert type(again) is type(exc)
    assert str(again) == str(exc)
    if not isinstance(
        exc, testing.ConversationError
    ):  # A record is equal to itself only.
        assert vars(again) == vars(exc)


@pytest.mark.parametrize(
    "value",
    [
        trio_wspair.CloseCode.GOING_AWAY,
        trio_wspair.ReadyState.OPEN,
        trio_wspair.Headers([("Accept", "a"), ("Accept", "b")]),
        trio_wspair.ConnectionInfo("server", "127.0.0.1:80", "ws://localhost/"),
        transports.Close(1000, "done"),
        hibernation.WebSocketRequestResponsePair("ping", "pong"),
        testing.Entry(0.5, "client", "send", "hello"),
        testing.FailedStep("client", "a message", 1),
        testing.TestResponse("http://localhost/", 200, trio_wspair.Headers(), b""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_pickled_value_equals_the_first_one(value: object) -> None:
    again = pickle.loads(pickle.dumps(value))  # noqa: S301 - made here
    assert type(again) is type(value)
    assert repr(again) == repr(value)


# -- docstrings ---------------------


def documented() -> Iterator[tuple[str, object]]:
    """Yield public classes, functions, methods and properties."""
    for module in PUBLIC:
        for name in names_in(module):
            thing = getattr(module, name)
            if get_origin(thing) is not None:
                continue  # A type alias can't have a docstring.
            yield f"{module.__name__}.{name}", thing
            for member, value in (
                members_of(thing).items() if inspect.isclass(thing) else ()
            ):
                is_code = isinstance(value, (property, classmethod, staticmethod))
                if not member.startswith("_") and (
                    is_code or inspect.isfunction(value)
                ):
                    yield f"{module.__name__}.{name}.{member}", value


DOCUMENTED = dict(documented())


def test_the_list_of_documented_objects_has_methods_and_properties() -> None:
    for name in ("serve", "WebSocket", "WebSocket.send", "WebSocket.ready_state"):
        assert f"trio_wspair.{name}" in DOCUMENTED


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_public_object_has_its_own_docstring(name: str) -> None:
    thing = DOCUMENTED[name]
    text = vars(thing)["__doc__"] if inspect.isclass(thing) else thing.__doc__
    assert text is not None
    first = inspect.cleandoc(text).splitlines()[0]
    assert len(first) > 10
    assert first.endswith((".", ":")), first


@every_module
def test_every_module_has_a_docstring(module: ModuleType) -> None:
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


def test_the_rules_import_neither_trio_nor_the_network() -> None:
    imported = imported_with(
        *(m.__name__.partition(".")[2] for m in MODULES if "._rules." in m.__name__)
    )
    assert "trio_wspair" in imported
    assert imported & NETWORK == set()


def test_the_package_imports_trio_so_the_test_above_can_fail() -> None:
    assert "trio" in imported_with("_pair.inbox")

"""The user's program: importing it, finding its application, showing its tracebacks.

Knows modules and tracebacks, not servers.
"""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import sys
import traceback
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Final, NoReturn, cast

import outcome
import trio

from trio_wspair._server.application import Application, handler_of

from .process import CommandError, UsageError, exceptions_in

__all__ = ("ProgramError", "load_application", "program_error", "split_name")

_NAMES: Final = ("app", "fetch")
"""The names to look for in a module, if the command names none."""
_RUNS: Final = (trio.run.__code__, trio.lowlevel.start_guest_run.__code__)
"""The functions that a module may not call while it is imported."""
_PUT_BELOW: Final = "put that below 'if __name__ == \"__main__\":'"
_FOREIGN: Final = (
    str(Path(__file__).parents[1]) + os.sep,
    str(Path(trio.__file__).parent) + os.sep,
    str(Path(outcome.__file__).parent) + os.sep,
    str(Path(importlib.__file__).parent) + os.sep,
    contextlib.__file__,
    "<frozen ",  # importlib and runpy
)
"""How the names of files begin whose lines are left out of tracebacks."""


class ProgramError(CommandError):
    """The user's program has failed. The text is its traceback, of several lines."""


def split_name(name: str) -> tuple[str, str]:
    """Split ``PLACE`` or ``PLACE:NAME``; the name may be empty."""
    place, colon, attribute = name.rpartition(":")
    if colon and all(map(str.isidentifier, attribute.split("."))):
        return place, attribute
    return name, ""


def load_application(name: str) -> Application:
    """Import the application that ``FILE[:NAME]`` or ``MODULE[:NAME]`` names.

    Called in a Trio run, so that a module that calls `trio.run()` while it is imported
    fails at once, instead of serving by itself.

    Raises:
        UsageError: It does not exist, or is not an application.
        CommandError: The module starts a Trio run, or exits.
        ProgramError: The module raises an exception.
    """
    place, attribute = split_name(name)
    try:
        module = _load(place)
    except CommandError:
        raise
    except SystemExit as exc:
        _raise_exit(place, exc)
    except Exception as exc:
        _check_runs(exc)
        raise program_error(exc) from exc
    if attribute:
        return _application_in(module, place, attribute)
    wrong = ""
    for attribute in _NAMES:
        if hasattr(module, attribute):
            try:
                return _application_in(module, place, attribute)
            except UsageError as exc:
                wrong = wrong or str(exc)
    what = wrong or f"{place} has no {' and no '.join(map(repr, _NAMES))}"
    raise UsageError(what + _hint(module, place))


def _application_in(module: ModuleType, place: str, attribute: str) -> Application:
    try:
        app: Application = attrgetter(attribute)(module)
    except AttributeError:
        msg = f"{place} has no {attribute!r}{_hint(module, place)}"
        raise UsageError(msg) from None
    try:
        handler_of(app)
    except TypeError as exc:
        msg = f"{attribute!r} of {place} can't be served: {exc}"
        raise UsageError(msg) from None
    return app


def _hint(module: ModuleType, place: str) -> str:
    """Return the end of an error that lists the applications in a module."""
    found = [key for key, value in vars(module).items() if _is_served(module, value)]
    if not found:
        return ""
    return f"; it has {', '.join(found)}: try {place}:{found[0]}"


def _is_served(module: ModuleType, value: object) -> bool:
    if inspect.ismodule(value) or inspect.iscoroutine(value):
        return False
    if inspect.isroutine(value) and value.__module__ != module.__name__:
        return False  # It is imported from another module.
    try:
        handler_of(cast("Application", value))
    except TypeError:
        return False
    return True


def _load(place: str) -> ModuleType:
    path = Path(place)
    if not path.is_file() and path.suffix != ".py":
        return _load_module(place)
    if not path.exists():
        msg = f"there is no file {place!r}"
        raise UsageError(msg)
    if not path.is_file():
        msg = f"{place!r} is not a file"
        raise UsageError(msg)
    try:
        with path.open("rb"):
            pass
    except OSError as exc:
        msg = f"can't read {place!r}: {exc.strerror}"
        raise UsageError(msg) from exc
    sys.path.insert(0, str(path.parent.resolve()))
    # A file may be called trio.py: it must not replace the module trio.
    name = path.stem if path.stem not in sys.modules else f"{path.stem} (served)"
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return module


def _load_module(place: str) -> ModuleType:
    if place and Path(place).is_dir() and not Path(place, "__init__.py").exists():
        msg = f"{place!r} is a directory: name the file in it"
        raise UsageError(msg)
    if not all(map(str.isidentifier, place.split("."))):
        msg = f"there is no file {place!r}"
        raise UsageError(msg)
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{place}.".startswith(f"{exc.name}."):
            raise  # The module itself exists, and imports a missing one.
        msg = f"there is no file and no module {place!r}"
        raise UsageError(msg) from None


def _check_runs(exc: Exception) -> None:
    """Check whether a module has failed because it started a Trio run.

    Raises:
        CommandError: It has. The text says where, and what to do.
    """
    where = None
    for frame, line in traceback.walk_tb(exc.__traceback__):
        if frame.f_code in _RUNS and where is not None:
            msg = (
                f"{where} calls trio.{frame.f_code.co_name}() while it is imported: "
                f"{_PUT_BELOW}"
            )
            raise CommandError(msg) from exc
        if frame.f_code.co_name == "<module>":
            where = f"{Path(frame.f_code.co_filename).name}, line {line},"


def _raise_exit(place: str, exc: SystemExit) -> NoReturn:
    """Raise the error for a module that exits while it is imported."""
    call = f"sys.exit({'' if exc.code is None else repr(exc.code)})"
    error = CommandError(f"{place} calls {call} while it is imported: {_PUT_BELOW}")
    if isinstance(exc.code, int):
        error.status = exc.code & 0xFF or 1
    raise error from None


def program_error(exc: BaseException) -> ProgramError:
    """Return an error whose text is the traceback of the user's program.

    Frames of this library, of Trio and of the import system are left out.
    """
    leaves = exceptions_in(exc)
    if len(leaves) == 1:  # The group around it comes from a Trio nursery.
        exc = leaves[0]
    report = traceback.TracebackException.from_exception(exc)
    _leave_out_foreign(report, exc)
    return ProgramError("".join(report.format()).rstrip("\n"))


def _leave_out_foreign(
    report: traceback.TracebackException, exc: BaseException
) -> None:
    """Leave out frames of other code, and a `Cancelled` as the context."""
    own = [frame for frame in report.stack if not frame.filename.startswith(_FOREIGN)]
    report.stack[:] = own
    if isinstance(exc.__context__, trio.Cancelled):
        report.__context__ = None
    reports = [report.__cause__, report.__context__, *(report.exceptions or ())]
    linked = [exc.__cause__, exc.__context__, *getattr(exc, "exceptions", ())]
    for inner, other in zip(reports, linked, strict=True):
        if inner is not None and other is not None:
            _leave_out_foreign(inner, other)

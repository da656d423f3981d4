"""How the command finds an application, and how it shows failures of its module."""

import re
import stat
import sys
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from commands import HANDLER, called, line_in, serving

from trio_wspair._command.process import CommandError, UsageError
from trio_wspair._command.program import load_application, program_error

CANDIDATES = "; it has fetch, another: try app_of_a_test.py:fetch"


@pytest.fixture
def app(app: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """Restore the path of imports and the imported modules after the test."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    before = set(sys.modules)
    yield app
    for name in set(sys.modules) - before:
        del sys.modules[name]


# -- applications that are found -------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("app_of_a_test.py", "fetch"),
        ("app_of_a_test.py:another", "another"),
        ("app_of_a_test", "fetch"),
        ("app_of_a_test:another", "another"),
        ("without_suffix", "fetch"),
        ("a_package", "fetch"),
        ("a_package.inner", "fetch"),
        ("app_of_a_test.py:fetch.__wrapped__", "another"),
    ],
)
def test_a_handler_is_found_in_a_file_and_in_a_module(
    app: Path, name: str, attribute: str
) -> None:
    app.write_text(HANDLER + "fetch.__wrapped__ = another\n")
    (app.parent / "without_suffix").write_text(HANDLER)
    package = app.parent / "a_package"
    package.mkdir()
    (package / "__init__.py").write_text(HANDLER)
    (package / "inner.py").write_text(HANDLER)
    handler: Any = load_application(name)
    assert handler.__name__ == attribute


def test_a_handler_is_found_by_its_whole_path(app: Path) -> None:
    assert callable(load_application(str(app)))


def test_app_comes_before_fetch_if_it_is_an_application(app: Path) -> None:
    app.write_text(HANDLER + "app = another\n")
    assert load_application(app.name).__name__ == "another"  # type: ignore[union-attr]
    app.write_text(HANDLER + "app = 5\n")
    assert load_application(app.name).__name__ == "fetch"  # type: ignore[union-attr]


def test_a_file_can_have_the_name_of_an_imported_module(app: Path) -> None:
    import trio  # noqa: PLC0415 - to see that it stays

    (app.parent / "trio.py").write_text(HANDLER)
    handler: Any = load_application("trio.py")
    assert handler.__name__ == "fetch"
    assert sys.modules["trio"] is trio


# -- applications that are not found ---------------------------------------------------


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("nothing.py", "there is no file 'nothing.py'"),
        ("nothing", "there is no file and no module 'nothing'"),
        ("not/there", "there is no file 'not/there'"),
        ("", "there is no file ''"),
        ("nothing.at.all:fetch", "there is no file and no module 'nothing.at.all'"),
        ("app_of_a_test.py:missing", f"app_of_a_test.py has no 'missing'{CANDIDATES}"),
        ("folder.py", "'folder.py' is not a file"),
        ("folder", "'folder' is a directory: name the file in it"),
        ("empty.py", "empty.py has no 'app' and no 'fetch'"),
        ("other.py", "other.py has no 'app' and no 'fetch'; it has site, serve_all"),
    ],
)
def test_a_missing_application_is_an_error(app: Path, name: str, what: str) -> None:
    (app.parent / "folder.py").mkdir()
    (app.parent / "folder").mkdir()
    (app.parent / "empty.py").write_text("import trio\ncoroutine = trio.sleep(1)\n")
    (app.parent / "other.py").write_text(
        "from contextlib import asynccontextmanager\n"
        "from app_of_a_test import another\n"
        "class Site:\n"
        "    async def fetch(self, request): ...\n"
        "site = Site()\n"
        "@asynccontextmanager\n"
        "async def serve_all():\n"
        "    yield site\n"
    )
    with pytest.raises(UsageError) as caught:
        load_application(name)
    assert str(caught.value).startswith(what)
    if name == "empty.py":
        sys.modules["empty"].coroutine.close()


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("app = 5", "'app' of it.py can't be served: .* this is 5, of type int"),
        ("def fetch(request): ...", "'fetch' of it.py .* fetch\\(\\) is not async"),
        ("class app: ...", "'app' of it.py .* the class app: pass an instance"),
        (
            "async def fetch(rooms, request): ...",
            "'fetch' of it.py .* fetch\\(\\) takes one argument, the request",
        ),
        (
            "async def app(scope, receive, send): ...",
            "'app' of it.py .* app\\(\\) takes one argument, the request",
        ),
    ],
)
def test_an_object_that_can_not_be_served_is_an_error_with_the_reason(
    app: Path, source: str, what: str
) -> None:
    (app.parent / "it.py").write_text(source)
    with pytest.raises(UsageError, match=what):
        load_application("it.py")


def test_an_unreadable_file_is_an_error(
    app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_(self: Path, mode: str) -> None:  # Root can read everything.
        raise PermissionError(13, "Permission denied")

    app.chmod(stat.S_IWUSR)
    monkeypatch.setattr(Path, "open", open_)
    with pytest.raises(UsageError, match=r"can't read 'app_of_a_test.py': Permission"):
        load_application(app.name)


# -- a module that fails ---------------------------------------------------------------

FAILURES = {
    "syntax": ("def fetch(:\n", 'File "{file}", line 1', "SyntaxError"),
    "null bytes": ("x = '\0'\n", "", "null bytes"),
    "no UTF-8": ("x = '\udcff'\n", "", "SyntaxError"),
    "import": ("import nothing_of_it\n", "in <module>", "ModuleNotFoundError"),
    "call": ("def f():\n    1 / 0\nf()\n", "in f\n", "ZeroDivisionError"),
    "cause": (
        "try: 1 / 0\nexcept ArithmeticError as e: raise ValueError('x') from e\n",
        "direct cause",
        "ValueError: x",
    ),
    "library": (
        "from trio_wspair import Response\nResponse(status=1)\n",
        "line 2, in <module>",
        "status",
    ),
    "group": (
        "raise ExceptionGroup('two', [ValueError(1), KeyError(2)])\n",
        "two (2 sub-exceptions)",
        "KeyError: 2",
    ),
}


@pytest.mark.parametrize("kind", FAILURES)
@pytest.mark.parametrize("name", ["failing.py", "failing"])
def test_a_module_that_fails_shows_its_own_traceback_only(
    app: Path, capsys: pytest.CaptureFixture[str], kind: str, name: str
) -> None:
    source, *words = FAILURES[kind]
    file = app.parent / "failing.py"
    file.write_bytes(source.encode("utf-8", "surrogateescape"))
    status, errors = called("serve", name, capsys=capsys)
    assert status == 1
    for text in words:
        assert text.format(file=file) in errors or text.format(file=file.name) in errors
    for foreign in ("importlib", "runpy", "_command", "_cli", "site-packages"):
        assert foreign not in errors


@pytest.mark.parametrize(
    ("call", "status"),
    [("sys.exit()", 1), ("sys.exit(0)", 1), ("sys.exit(7)", 7), ("sys.exit('no')", 1)],
)
def test_a_module_that_exits_is_an_error(app: Path, call: str, status: int) -> None:
    (app.parent / "leaving.py").write_text(f"import sys\n{call}\n")
    with pytest.raises(CommandError) as caught:
        load_application("leaving.py")
    what = f"leaving.py calls {call} while it is imported: put that below"
    assert str(caught.value) == f"{what} 'if __name__ == \"__main__\":'"
    assert caught.value.status == status


RUNNING = {
    "module": "trio.run(main)\n",
    "function": "def start():\n    trio.run(main)\nstart()\n",
    "handled": "try:\n    trio.run(main)\nexcept* KeyboardInterrupt:\n    pass\n",
    "guest": (
        "trio.lowlevel.start_guest_run(\n"
        "    main, run_sync_soon_threadsafe=print, done_callback=print\n"
        ")\n"
    ),
}


@pytest.mark.parametrize("kind", RUNNING)
@pytest.mark.parametrize("name", ["running.py", "imports_it"])
def test_a_module_that_runs_trio_when_imported_is_an_error_with_advice(
    app: Path, capsys: pytest.CaptureFixture[str], kind: str, name: str
) -> None:
    (app.parent / "running.py").write_text(
        "import trio\nfrom trio_wspair import serve\nfrom app_of_a_test import fetch\n"
        "async def main():\n    await serve(fetch, 0)\n" + RUNNING[kind]
    )
    (app.parent / "imports_it.py").write_text("import running\n")
    status, errors = called("serve", name, "--port=0", capsys=capsys)
    assert status == 1
    call = "trio.start_guest_run" if kind == "guest" else "trio.run"
    line = {"function": 8, "handled": 7}.get(kind, 6)
    assert line_in(errors) == (
        f"running.py, line {line}, calls {call}() while it is imported: put that below "
        "'if __name__ == \"__main__\":'"
    )


async def test_context_variables_of_a_module_are_set_when_it_serves(
    app: Path,
) -> None:
    await trio.Path(app).write_text(
        HANDLER.replace("version 1", "version {decimal.getcontext().prec}").replace(
            'Response("v', 'Response(f"v'
        )
        + "import decimal\ndecimal.getcontext().prec = 7\n"
    )
    async with serving(str(app)) as (_, url):
        host, port = url.removeprefix("ws://").rstrip("/").split(":")
        with trio.fail_after(10):
            stream = await trio.open_tcp_stream(host, int(port))
            async with stream:
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                data = b""
                while b"version" not in data:
                    data += await stream.receive_some()
    assert data.endswith(b"version 7")


def test_an_interrupted_import_ends_quietly(
    app: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (app.parent / "slow.py").write_text("raise KeyboardInterrupt\n")
    assert called("serve", "slow.py", capsys=capsys) == (130, "")


def failing(function: Callable[[], object]) -> Exception:
    """Return the error that a function raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any
        function()
    return caught.value


def test_a_nursery_around_one_exception_is_not_shown() -> None:
    error = failing(partial(int, "x"))
    report = str(program_error(ExceptionGroup("Exceptions from Trio nursery", [error])))
    assert "nursery" not in report
    assert report.endswith("ValueError: invalid literal for int() with base 10: 'x'")


async def test_a_cancelled_context_is_not_shown() -> None:
    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("not saved") from KeyError("cause")

    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(ValueError, match="not saved") as caught:
            await fail()
    report = str(program_error(caught.value))
    assert "Cancelled" not in report
    assert "KeyError: 'cause'" in report
    assert re.findall("in (.*)", report)[-1] == "fail"

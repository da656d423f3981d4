"""`Application`: what servers run, how its handler is found, opened and left.

An application is an async function of a request, an object with such a method, or an
async context manager that yields one of these. Knows neither servers nor networks.
"""

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final, Protocol, cast

import trio

from trio_wspair._http.messages import FetchHandler, Request, Response
from trio_wspair._tasks.nurseries import open_service_nursery

__all__ = ("Application", "handler_of", "open_application", "run_application")


class _Fetcher(Protocol):
    """An object with a handler, such as the stub of a Durable Object."""

    def fetch(self, request: Request, /) -> Awaitable[Response]: ...


Application = (
    FetchHandler
    | _Fetcher
    | AbstractAsyncContextManager[FetchHandler | _Fetcher]
    | Callable[[], AbstractAsyncContextManager[FetchHandler | _Fetcher]]
)
"""What `serve()` runs: a handler, an object with a handler, or an opener of these."""

_HANDLER: Final = "an async function of a request, or an object with an async fetch()"
_WANTED: Final = (
    f"an application must be {_HANDLER}, or an async context manager that yields one"
)
_YIELDED: Final = f"an application must yield {_HANDLER}"


def handler_of(app: Application) -> FetchHandler | None:
    """Return the handler of an application, or `None` if it has to be opened first.

    No code of the application runs.

    Raises:
        TypeError: `app` is not an application; the message says what to do.
    """
    if isinstance(app, AbstractAsyncContextManager):
        return None
    if not isinstance(app, type) and _is_opener(app):
        _check_opener(app)
        return None
    return _handler_in(app, _WANTED)


@asynccontextmanager
async def open_application(app: Application) -> AsyncGenerator[FetchHandler, None]:
    """Open an application during the block, and yield its handler.

    Raises:
        TypeError: `app` is not an application, or does not yield a handler.
        Exception: What the application raises when it is opened or left.
    """
    handler = handler_of(app)
    if handler is not None:
        yield handler
        return
    opener: object = app
    if not isinstance(opener, AbstractAsyncContextManager):
        opener = cast("Callable[[], object]", app)()
    async with cast("AbstractAsyncContextManager[object]", opener) as opened:
        yield _handler_in(opened, _YIELDED)


async def run_application(
    app: Application, run: Callable[[FetchHandler], Awaitable[None]]
) -> None:
    """Open an application, and await ``run(handler)`` in it.

    If the caller is cancelled, `run` is cancelled first. The application is cancelled
    when `run` has ended, so that its tasks and objects last until then.

    Raises:
        TypeError: As `open_application()`.
        Exception: What the application or `run` raises.
    """
    handler = handler_of(app)
    if handler is not None:
        await run(handler)
    else:
        await _run_opened(app, run)


async def _run_opened(
    app: Application, run: Callable[[FetchHandler], Awaitable[None]]
) -> None:
    async with open_service_nursery() as nursery:
        with trio.CancelScope() as life:
            async with open_application(app) as fetch:
                with trio.CancelScope() as running:
                    life.shield = True
                    nursery.start_soon(_pass_on_cancellation, running)
                    try:
                        await run(fetch)
                    finally:  # From here on, the application is cancelled as well.
                        life.shield = False


async def _pass_on_cancellation(scope: trio.CancelScope) -> None:
    """Cancel a scope when this task is cancelled."""
    try:
        await trio.sleep_forever()
    finally:
        scope.cancel(reason="the server is cancelled")


def _handler_in(thing: object, wanted: str) -> FetchHandler:
    """Return the handler that this object is or has.

    Args:
        thing: An application that is open, or needs no opening.
        wanted: What it should be, for errors.

    Raises:
        TypeError: It is not a handler, and has none.
    """
    handler: object = getattr(thing, "fetch", thing)
    if isinstance(thing, type) or not callable(handler) or _is_opener(handler):
        raise TypeError(f"{wanted}; {_what_is_wrong(thing)}")
    if not _is_async(handler):
        name = _name(handler)
        if inspect.isgeneratorfunction(_layers(handler)[-1]):
            msg = f"{wanted}; {name}() needs 'async def' and @asynccontextmanager"
            raise TypeError(msg)
        msg = f"{wanted}; {name}() is not async: write 'async def {name}(...)'"
        raise TypeError(msg)
    if not _takes_one(handler):
        layers = _layers(handler)
        if not inspect.iscoroutinefunction(layers[0]) and _takes_none(layers[-1]):
            msg = (
                f"{wanted}; {_name(handler)}() returns its handler: if it is decorated "
                "with @asynccontextmanager, it needs a 'yield' in place of 'return'"
            )
            raise TypeError(msg)
        msg = f"{wanted}; {_name(handler)}() takes one argument, the request"
        raise TypeError(msg)
    return cast("FetchHandler", handler)


def _what_is_wrong(thing: object) -> str:
    """Return a text that says what was passed, and what to pass instead."""
    if inspect.iscoroutine(thing):
        thing.close()  # Else Python warns that it was never awaited.
        return (
            f"this is a coroutine: pass {_name(thing)} instead of {_name(thing)}(...)"
        )
    if isinstance(thing, AsyncGenerator):
        return (
            "this is an async generator: decorate its function (@asynccontextmanager)"
        )
    if isinstance(thing, type):
        return f"this is the class {thing.__name__}: pass an instance of it"
    if thing is None:
        return "this is None"
    if _is_opener(thing):
        return f"{_name(thing)} opens an application: enter it with 'async with'"
    return f"this is {thing!r}, of type {type(thing).__name__}"


def _is_opener(thing: object) -> bool:
    """Return whether this is an async generator function, perhaps decorated."""
    layers = _layers(thing)
    if any(map(inspect.iscoroutinefunction, layers)):
        return False
    return inspect.isasyncgenfunction(layers[-1])


def _is_async(function: object) -> bool:
    """Return whether calling this returns an awaitable, as far as that is known."""
    layers = _layers(function)
    if not inspect.isroutine(layers[-1]):
        layers += _layers(inspect.getattr_static(type(layers[-1]), "__call__"))
    # Functions that are not written in Python are accepted.
    return any(map(inspect.iscoroutinefunction, layers)) or not inspect.isfunction(
        layers[-1]
    )


def _takes_one(function: object) -> bool:
    """Return whether this can be called with a request, as far as that is known."""
    try:
        signature = inspect.signature(cast("Callable[..., object]", function))
    except ValueError:
        return True  # It is not written in Python.
    try:
        signature.bind("a request")
    except TypeError:
        return False
    return True


def _takes_none(function: object) -> bool:
    return inspect.isfunction(function) and not inspect.signature(function).parameters


def _layers(function: object) -> list[object]:
    """Return a function, and those below methods, `partial()` and decorators."""
    layers = [function]
    while True:
        outer = layers[-1]
        inner: object
        if isinstance(outer, partial):
            inner = cast("partial[object]", outer).func
        elif inspect.ismethod(outer):
            inner = outer.__func__
        else:
            inner = inspect.getattr_static(outer, "__wrapped__", None)
        if inner is None:
            return layers
        layers.append(inner)


def _check_opener(function: object) -> None:
    """Check that this opens an application when it is called without arguments.

    Raises:
        TypeError: It is not decorated, or requires arguments.
    """
    name = _name(function)
    if inspect.isasyncgenfunction(function):
        msg = f"{name} is an async generator: decorate it with @asynccontextmanager"
        raise TypeError(msg)
    try:
        inspect.signature(cast("Callable[..., object]", function)).bind()
    except TypeError as exc:
        msg = (
            f"{name}() is called without arguments to open the application, but needs "
            f"some ({exc}): pass functools.partial({name}, ...), or {name}(...)"
        )
        raise TypeError(msg) from None


def _name(thing: object) -> str:
    names = (getattr(layer, "__name__", None) for layer in _layers(thing))
    return next(filter(None, names), type(thing).__name__)

"""`trio-wspair serve`: finding a handler, and running it.

Knows modules, certificates and signals; what serving is is known below.
"""

import importlib
import importlib.util
import inspect
import signal
import ssl
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

import trio

from ._codes import CloseCode
from ._http import FetchHandler
from ._server import Server, serve
from .inspector import open_inspector
from .transports._engines import EngineName

__all__ = ("UsageError", "load_handler", "run_reloading", "serve_handler")


class UsageError(Exception):
    """The command was called wrongly; the text says how to do it."""


async def serve_handler(
    handler: str,
    *,
    host: str,
    port: int,
    certfile: str | None,
    keyfile: str | None,
    proxy_headers: bool,
    restarts: bool,
    inspect_port: int | None,
    engine: EngineName,
    compression: bool,
) -> int:
    """Serve until Ctrl-C or SIGTERM; return the exit code."""
    fetch = load_handler(handler)
    run = partial(
        serve,
        fetch,
        port,
        host=host,
        ssl_context=_ssl_context(certfile, keyfile),
        proxy_headers=proxy_headers,
        stop_code=CloseCode.SERVICE_RESTART if restarts else CloseCode.GOING_AWAY,
        engine=engine,
        compression=compression,
    )
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with _inspecting(inspect_port), trio.open_nursery() as nursery:
            try:
                server: Server = await nursery.start(run)
            except OSError as exc:
                msg = f"can't listen on {host} port {port}: {exc}"
                raise UsageError(msg) from exc
            url = server.url.replace("ws", "http", 1)
            print(f"Serving {handler} on {url} - Ctrl-C stops it", flush=True)
            await anext(signals)
            nursery.cancel_scope.cancel(reason="SIGTERM")
    return 0


@asynccontextmanager
async def _inspecting(port: int | None) -> AsyncGenerator[None, None]:
    """Show the connections that are made in the block, if there is a port for it."""
    if port is None:
        yield
        return
    async with AsyncExitStack() as stack:
        try:
            inspector = await stack.enter_async_context(open_inspector(port))
        except OSError as exc:
            msg = f"can't inspect on port {port}: {exc}"
            raise UsageError(msg) from exc
        print(f"Inspect the connections on {inspector.url}", flush=True)
        yield


def load_handler(name: str) -> FetchHandler:
    """Import what ``FILE``, ``FILE:NAME``, ``MODULE`` or ``MODULE:NAME`` names.

    Raises:
        UsageError: There is no such thing.
    """
    place, colon, attribute = name.rpartition(":")
    if not colon or not attribute.isidentifier():
        place, attribute = name, "fetch"
    module = _load(place)
    handler: FetchHandler | None = getattr(module, attribute, None)
    if handler is None:
        found = [
            key
            for key, value in vars(module).items()
            if inspect.iscoroutinefunction(value)
            and value.__module__ == module.__name__
        ]
        hint = f"; it has {', '.join(found)}: try {place}:{found[0]}" if found else ""
        msg = f"{place} has no {attribute!r}, an async function of a request{hint}"
        raise UsageError(msg)
    if not callable(handler):
        msg = f"{attribute!r} of {place} is no function but {handler!r}"
        raise UsageError(msg)
    return handler


def _load(place: str) -> ModuleType:
    path = Path(place)
    if path.suffix != ".py" and not path.exists():
        sys.path.insert(0, str(Path.cwd()))
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as exc:
            if exc.name is None or not f"{place}.".startswith(f"{exc.name}."):
                raise  # Something that the module itself imports.
            msg = f"there is no file and no module {place!r}"
            raise UsageError(msg) from None
    if not path.is_file():
        msg = f"there is no file {place!r}"
        raise UsageError(msg)
    sys.path.insert(0, str(path.parent.resolve()))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        msg = f"{place!r} is no Python file"
        raise UsageError(msg)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _ssl_context(certfile: str | None, keyfile: str | None) -> ssl.SSLContext | None:
    if certfile is None:
        if keyfile is not None:
            msg = "--keyfile is for a --certfile, and there is none"
            raise UsageError(msg)
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certfile, keyfile)
    except OSError as exc:
        msg = f"can't use {certfile}{f' with {keyfile}' if keyfile else ''}: {exc}"
        raise UsageError(msg) from exc
    return context


def run_reloading(handler: str, run: Callable[[], object]) -> int:
    """Call `run` in another process, and anew whenever a file changes.

    Raises:
        UsageError: watchfiles is not installed.
    """
    try:
        import watchfiles  # noqa: PLC0415 - an extra
    except ImportError as exc:
        msg = "--reload needs watchfiles: pip install 'trio-wspair[reload]'"
        raise UsageError(msg) from exc
    path = Path(handler.rpartition(":")[0] or handler)
    folder = path.parent if path.suffix == ".py" else Path.cwd()
    watchfiles.run_process(
        folder,
        target=run,
        watch_filter=watchfiles.PythonFilter(),
        sigint_timeout=15,
    )
    return 0

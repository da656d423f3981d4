"""The engines, and making one of them the default of `serve()` and `connect()`."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final
from unittest import mock

from trio_wspair import connect, serve
from trio_wspair.transports._engines import Engine, EngineName, engine_named

ENGINES: Final[tuple[EngineName, ...]] = ("trio-websocket", "websockets")


@contextmanager
def using(name: EngineName, *, compression: bool = False) -> Generator[None]:
    """Make an engine the default of `serve()` and `connect()`."""
    options = {"engine": name, "compression": compression}
    with (
        mock.patch.dict(serve.__kwdefaults__, options),
        mock.patch.dict(connect.__kwdefaults__, options),
    ):
        yield


def name_in_use() -> EngineName:
    """Return the name of the engine that is the default."""
    assert serve.__kwdefaults__ is not None
    return engine_of(serve.__kwdefaults__["engine"])


def engine_of(argument: str) -> EngineName:
    """Return the engine that a command-line argument names."""
    (name,) = (name for name in ENGINES if name == argument)
    return name


def engine_in_use() -> Engine:
    """Return the engine that is the default."""
    return engine_named(name_in_use(), compression=False)

"""The engines: the libraries that speak the WebSocket protocol, chosen by name.

Knows what each of them can do. The package of one of them is an extra.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Literal, Protocol

import attrs
import trio

from trio_wspair.transports.trio_websocket import _engine as _trio_websocket

from ._connection import Connection

__all__ = ("Engine", "EngineName", "engine_named")

EngineName = Literal["trio-websocket", "websockets"]
"""The name of a library that speaks the WebSocket protocol."""


class Opened(Connection, Protocol):
    """A connection whose handshake is done."""

    subprotocol: str
    """The negotiated subprotocol, or ``""``."""


class OpenServer(Protocol):
    """Answers an upgrade request with 101."""

    def __call__(
        self,
        stream: trio.abc.Stream,
        *,
        key: str,
        extensions: str,
        received: bytes,
        subprotocol: str | None,
        headers: Sequence[tuple[str, str]],
        max_message_bytes: int,
        nursery: trio.Nursery | None = None,
    ) -> AbstractAsyncContextManager[Opened]:
        """Keep the connection open for the block.

        With `nursery`, one around the block, the connection opens none itself.
        """
        ...


class OpenClient(Protocol):
    """Sends an upgrade request."""

    def __call__(
        self,
        stream: trio.abc.Stream,
        *,
        host: str,
        resource: str,
        subprotocols: Sequence[str],
        headers: Sequence[tuple[str, str]],
        max_message_bytes: int,
    ) -> AbstractAsyncContextManager[Opened]:
        """Keep the connection open for the block.

        Raises:
            HandshakeError: The server has refused, or its answer is not valid.
        """
        ...


@attrs.frozen
class Engine:
    """How connections are opened."""

    open_server: OpenServer
    open_client: OpenClient


def engine_named(name: str, *, compression: bool) -> Engine:
    """Return an engine.

    Args:
        name: An `EngineName`.
        compression: Whether permessage-deflate may be negotiated.

    Raises:
        TypeError: `compression` is not a bool.
        ValueError: The name is unknown, or the engine can't compress.
        ImportError: Its package is not installed.
    """
    if not isinstance(compression, bool):
        msg = f"compression is True or False, not {compression!r}"
        raise TypeError(msg)
    if name == "trio-websocket":
        if compression:
            msg = "trio-websocket can't compress: pass engine='websockets', too"
            raise ValueError(msg)
        return Engine(
            _trio_websocket.open_server_connection,
            _trio_websocket.open_client_connection,
        )
    if name != "websockets":
        msg = f"engine is 'trio-websocket' or 'websockets', not {name!r}"
        raise ValueError(msg)
    try:
        from . import _websockets  # noqa: PLC0415 - an extra
    except ImportError as exc:
        msg = (
            "engine='websockets' needs websockets: "
            "pip install 'trio-wspair[websockets]'"
        )
        raise ImportError(msg) from exc
    return Engine(
        partial(_websockets.open_server_connection, compression=compression),
        partial(_websockets.open_client_connection, compression=compression),
    )

"""Which library speaks the protocol of WebSockets, chosen by its name.

Knows the engines and what each can do. One of them is an extra.
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
"""A library that speaks the protocol of WebSockets."""


class Opened(Connection, Protocol):
    """A connection whose handshake is done."""

    subprotocol: str
    """The subprotocol that was agreed on, or ``""``."""


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
        """Keep the connection for the block.

        A nursery around the block saves one of its own.
        """
        ...


class OpenClient(Protocol):
    """Asks for a WebSocket."""

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
        """Keep the connection for the block.

        Raises:
            HandshakeError: The server has refused, or answered nonsense.
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
        compression: Whether permessage-deflate may be agreed on.

    Raises:
        TypeError: `compression` is no bool.
        ValueError: There is no such engine, or it can't compress.
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

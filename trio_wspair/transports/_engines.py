"""The engines: the implementations of the WebSocket protocol, chosen by name.

An engine has the name of the library that it uses. trio-websocket does handshakes and
frames. The package `websockets` does handshakes and masking, and our `Codec` reads and
writes the frames.

Knows what each engine can do. The package `websockets` is an optional dependency, so
its engine is imported when it is first chosen.
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
    """Opens the server's side of a connection: answers an upgrade request with 101."""

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

        Some engines run their tasks in `nursery`, if it is given; it must be open for
        longer than the block. Otherwise the engine opens a nursery.
        """
        ...


class OpenClient(Protocol):
    """Opens the client's side of a connection: sends an upgrade request."""

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
            HandshakeError: The server has refused the request, or its answer is not
                valid.
        """
        ...


@attrs.frozen
class Engine:
    """The two functions of a library that open connections."""

    open_server: OpenServer
    open_client: OpenClient


def engine_named(name: str, *, compression: bool) -> Engine:
    """Return the engine with this name.

    Args:
        name: An `EngineName`.
        compression: Whether permessage-deflate may be negotiated.

    Raises:
        TypeError: `compression` is not a bool.
        ValueError: The name is unknown, or the engine can't compress.
        ImportError: The package of the engine is not installed.
    """
    if not isinstance(compression, bool):
        msg = f"compression must be True or False, not {compression!r}"
        raise TypeError(msg)
    if name == "trio-websocket":
        if compression:
            msg = (
                "compression is True, but the engine 'trio-websocket' can't compress: "
                "pass engine='websockets', too"
            )
            raise ValueError(msg)
        return Engine(
            _trio_websocket.open_server_connection,
            _trio_websocket.open_client_connection,
        )
    if name != "websockets":
        msg = f"engine must be 'trio-websocket' or 'websockets', not {name!r}"
        raise ValueError(msg)
    try:
        from . import _websockets  # noqa: PLC0415 - an extra
    except ImportError as exc:
        msg = (
            "engine='websockets' needs the package websockets: "
            "pip install 'trio-wspair[websockets]'"
        )
        raise ImportError(msg) from exc
    return Engine(
        partial(_websockets.open_server_connection, compression=compression),
        partial(_websockets.open_client_connection, compression=compression),
    )

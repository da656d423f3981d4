"""Connections, and the code that joins a connection with a half."""

from trio_wspair._rules.codes import Close as Close
from trio_wspair._rules.exports import name_public_module as _name_public_module

from ._connection import Connection as Connection, SupportsPing as SupportsPing
from ._couple import couple as couple
from .trio_websocket._engine import (
    TrioWebSocketConnection as TrioWebSocketConnection,
    open_client_connection as open_client_connection,
    open_server_connection as open_server_connection,
)

__all__ = (
    "Close",
    "Connection",
    "SupportsPing",
    "TrioWebSocketConnection",
    "couple",
    "open_client_connection",
    "open_server_connection",
)

_name_public_module(globals())

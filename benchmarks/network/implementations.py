"""The servers that are compared, and the commands that start them."""

from collections.abc import Mapping
from functools import partial
from typing import Final

from benchmarks import installed
from benchmarks.processes import SERVERS, Command, python, workerd
from benchmarks.workload import OURS

from .load import load_program

__all__ = (
    "BROADCAST",
    "CEILING",
    "ECHO",
    "ON_TRIO_WEBSOCKET",
    "TRIO_WEBSOCKET",
    "WEBSOCKETS_ASYNCIO",
    "WEBSOCKETS_TRIO",
    "WORKERD",
)

ENGINES: Final = ("trio-websocket", "websockets")
"""The engines of `serve()`. If a version lacks one, the tables say so."""

TRIO_WEBSOCKET: Final = "trio-websocket"
WEBSOCKETS_TRIO: Final = "websockets on Trio"
WEBSOCKETS_ASYNCIO: Final = "websockets on asyncio"
WORKERD: Final = "workerd"
WS: Final = "ws on Node"
CEILING: Final = "the load generator's own server"
"""Not a WebSocket server: it shows what the load generator can do."""


def our_name(engine: str) -> str:
    return f"{OURS} on {engine}"


ON_TRIO_WEBSOCKET: Final = our_name("trio-websocket")


def _ours(app: str) -> dict[str, Command]:
    return {our_name(engine): python("ours", engine, app) for engine in ENGINES}


def _ws(app: str, port: int) -> list[str]:
    program = [installed.node(), str(SERVERS / "ws.mjs")]
    return [*program, str(installed.node_modules("ws")), app, str(port)]


def _ceiling(port: int) -> list[str]:
    return [load_program(), "serve", str(port)]


ECHO: Final[Mapping[str, Command]] = {
    TRIO_WEBSOCKET: python("trio_websocket", "echo"),
    WEBSOCKETS_TRIO: python("websockets_trio", "echo"),
    WEBSOCKETS_ASYNCIO: python("websockets_asyncio", "echo"),
    "picows on asyncio": python("picows_asyncio", "echo"),
    WS: partial(_ws, "echo"),
    WORKERD: workerd,
    **_ours("echo"),
    CEILING: _ceiling,
}

BROADCAST: Final[Mapping[str, Command]] = {
    WEBSOCKETS_ASYNCIO: python("websockets_asyncio", "broadcast"),
    WS: partial(_ws, "broadcast"),
    **_ours("broadcast"),
}

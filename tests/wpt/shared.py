"""Handlers whose connections share data, for tests in other folders of WPT."""

import json
import math
from collections import defaultdict
from contextlib import suppress
from typing import Any

import trio

from trio_wspair import ConnectionClosedError, Request, Response, WebSocket

from .conversations import Handler, converse, parameters, until_closed


class Channel:
    """A queue from writers to a reader; `None` disconnects the reader."""

    def __init__(self) -> None:
        self.send, self.receive = trio.open_memory_channel[str | None](math.inf)


class Setting:
    """A value that a task can wait for."""

    def __init__(self) -> None:
        self.value: Any = None
        self.is_set = trio.Event()


CHANNELS: defaultdict[str, Channel] = defaultdict(Channel)
STASH: dict[str, str] = {}
SETTINGS: defaultdict[str, Setting] = defaultdict(Setting)


async def msg_channel(request: Request) -> Response:
    asked = parameters(request)
    uuid = asked["uuid"]

    async def write(ws: WebSocket) -> None:
        while True:
            command, data = json.loads(await ws.receive())
            channel = CHANNELS[uuid]
            if command == "message":
                channel.send.send_nowait(json.dumps(data))
            elif command == "disconnectReader":
                channel.send.send_nowait(None)
            elif command == "delete":
                del CHANNELS[uuid]

    async def read(ws: WebSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forward, ws, nursery.cancel_scope)
            with suppress(ConnectionClosedError):
                await until_closed(ws)
            nursery.cancel_scope.cancel()

    async def forward(ws: WebSocket, scope: trio.CancelScope) -> None:
        while (data := await CHANNELS[uuid].receive.receive()) is not None:
            ws.send(data)
        scope.cancel()

    return converse(request, read if asked["direction"] == "read" else write)


async def stash_responder(request: Request) -> Response:
    asked = parameters(request)
    key, action = asked["key"], asked["action"]

    async def talk(ws: WebSocket) -> None:
        while await ws.receive() != "echo":
            pass
        result: str | None = None
        if action == "put":
            result = STASH[key] = asked["value"]
        else:
            taken = STASH.pop(key, None)
            result = taken if action == "take" else None
        ws.send(json.dumps({"status": "success", "result": result}))

    return converse(request, talk)


async def stash_responder_blocking(request: Request) -> Response:
    async def talk(ws: WebSocket) -> None:
        asked = json.loads(await ws.receive())
        setting = SETTINGS[asked["key"]]
        if asked["action"] == "set":
            setting.value = asked["value"]
            setting.is_set.set()
            ws.send(json.dumps({}))
        else:
            await setting.is_set.wait()
            ws.send(json.dumps({"value": setting.value}))

    return converse(request, talk)


PATHS: dict[str, Handler] = {
    "/msg_channel": msg_channel,
    "/stash_responder": stash_responder,
    "/stash_responder_blocking": stash_responder_blocking,
}

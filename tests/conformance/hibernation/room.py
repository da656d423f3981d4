"""A Durable Object that plays a scenario, and logs its events."""

import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from conformance.player import Failed, ScenarioError, attribute, message_detail
from conformance.values import JavaScriptOnlyError, decode, encode
from trio_wspair import Request, Response, WebSocket, WebSocketPair
from trio_wspair.hibernation import (
    DurableObject,
    DurableObjectState,
    WebSocketRequestResponsePair,
)

Operation = dict[str, Any]

UNDEFINED = {"$": "undefined"}
_VERBS = {
    "newPair",
    "acceptWebSocket",
    "accept",
    "send",
    "close",
    "listen",
    "attach",
    "setAutoResponse",
    "setEventTimeout",
    "abort",
}
"""Operations without a result in the trace."""
_WAITS = {"wait", "block"}


class Names:
    """The names of the sockets."""

    def __init__(self) -> None:
        self.sockets: dict[str, WebSocket] = {}

    def of(self, socket: WebSocket) -> str | None:
        """Return the name of a socket."""
        found = (name for name, one in self.sockets.items() if one is socket)
        return next(found, None)


class World:
    """The `env` of an object: the scenario and the log, which outlive the object.

    In a `lasting` world, the names of sockets outlive the object, too, and instances
    are not counted. Then the trace does not depend on how often the object leaves
    memory.
    """

    def __init__(self, scenario: dict[str, Any], *, lasting: bool = False) -> None:
        self.steps: list[dict[str, Any]] = scenario["steps"]
        self.handlers: dict[str, Any] = scenario.get("handlers", {})
        self.log: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []
        self.instances = 0
        self._names = Names() if lasting else None
        self._gates: dict[str, trio.Event] = {}
        self.queued = False
        """Whether an event has waited for an earlier handler of its socket."""

    def enter(self) -> Names:
        """Count an instance of the object; return the names that it knows."""
        if self._names is not None:
            return self._names
        self.instances += 1
        return Names()

    def gate(self, name: str) -> trio.Event:
        """Return the event for a gate, which operations wait for and a step sets."""
        return self._gates.setdefault(name, trio.Event())

    async def opened(self, name: str) -> None:
        """Wait until a gate is open; this is no checkpoint if it is open already."""
        if not self.gate(name).is_set():
            await self.gate(name).wait()


class Room(DurableObject):
    """The object of a scenario. The path of a request is the index of a step."""

    def __init__(self, ctx: DurableObjectState, env: World) -> None:
        super().__init__(ctx, env)
        self._world = env
        self._names = env.enter()
        self._number = env.instances
        operations = env.handlers.get("construct")
        if operations is not None:
            entry: dict[str, Any] = {"event": "construct"}
            env.log.append(entry)
            for operation in operations:
                if operation["op"] == "block":
                    _ = self._block(operation, None, "construct")
                else:
                    entry["results"] = self._perform_now([operation], None)

    async def fetch(self, request: Request) -> Response:
        number = int(request.path[1:])
        step = self._world.steps[number]
        if "object" in step:
            entry: dict[str, Any] = {"step": number}
            await self._perform(step["object"], None, entry, "fetch")
            self._world.results.append(entry)
            return Response(None)
        name = step["connect"]
        client, server = WebSocketPair()
        self._names.sockets |= {f"{name}:client": client, name: server}
        tags = {key: step[key] for key in ("tags",) if key in step}
        accepting = [{"op": "acceptWebSocket", **tags}]
        connected: dict[str, Any] = {"event": "connect", "ws": name}
        self._world.log.append(connected)
        operations = step.get("do", accepting)
        await self._perform(operations, server, connected, "connect")
        return Response(None, status=101, web_socket=client)

    # The number of arguments is recorded, too.

    async def web_socket_message(self, *arguments: Any) -> None:
        socket, data = arguments
        operations = self._world.handlers.get("message")
        if isinstance(operations, dict):
            operations = operations.get(data)
        entry = {**message_detail(data), "argumentCount": len(arguments)}
        await self._note("message", socket, entry, operations)

    async def web_socket_close(self, *arguments: Any) -> None:
        socket, code, reason, was_clean = arguments
        entry = {
            "code": code,
            "reason": reason,
            "wasClean": was_clean,
            "argumentCount": len(arguments),
        }
        await self._note("close", socket, entry, self._world.handlers.get("close"))

    async def web_socket_error(self, *arguments: Any) -> None:
        socket, error = arguments
        entry = {"error": error, "argumentCount": len(arguments)}
        await self._note("error", socket, entry, self._world.handlers.get("error"))

    async def _note(
        self,
        event: str,
        socket: WebSocket,
        more: dict[str, Any],
        operations: list[Operation] | None,
    ) -> None:
        entry = {
            "event": event,
            "ws": self._name(socket),
            **more,
            "readyState": int(socket.ready_state),
        }
        self._world.log.append(entry)
        if operations is not None:
            await self._perform(operations, socket, entry, event)
        delay = self._world.handlers.get("delay", {}).get(event)
        if delay is not None:
            await trio.sleep(delay / 1000)
            text = {key: more[key] for key in ("text",) if key in more}
            end = {"event": "finished", "of": event, "ws": self._name(socket), **text}
            self._world.log.append({**end, "readyState": int(socket.ready_state)})

    # -- names -------------------------------------------------------------------

    def _name(self, socket: WebSocket) -> str:
        name = self._names.of(socket)
        if name is not None:
            return name
        kept = socket.deserialize_attachment()
        return kept["label"] if isinstance(kept, dict) and "label" in kept else "?"

    def _find(self, name: str, own: WebSocket | None) -> Any:
        if name == "self":
            return own
        if name in self._names.sockets:
            return self._names.sockets[name]
        found = (one for one in self.ctx.get_web_sockets() if self._name(one) == name)
        return next(found, None)

    # -- operations --------------------------------------------------------------

    async def _perform(
        self,
        operations: list[Operation],
        own: WebSocket | None,
        entry: dict[str, Any],
        of: str,
    ) -> None:
        """Perform operations; after one that waits, the results go to a new entry."""
        while True:
            waits = [n for n, op in enumerate(operations) if op["op"] in _WAITS]
            now = operations[: waits[0]] if waits else operations
            entry["results"] = self._perform_now(now, own)
            if not waits:
                return
            operation = operations[waits[0]]
            gate = self._gate(operation, own)
            if operation["op"] == "wait":
                await self._world.opened(gate)
            else:
                await self._block(operation, own, of)
            name = None if own is None else self._name(own)
            entry = {"event": "resumed", "of": of, "ws": name, "gate": gate}
            if own is not None:
                entry["readyState"] = int(own.ready_state)
            self._world.log.append(entry)
            operations = operations[waits[0] + 1 :]

    def _gate(self, operation: Operation, own: WebSocket | None) -> str:
        """Return the name of a gate, with the name of the socket filled in."""
        gate: str = operation["gate"]
        if own is not None:
            gate = gate.replace("%ws", self._name(own))
        return gate.replace("%n", str(self._number))

    def _block(
        self, operation: Operation, own: WebSocket | None, of: str
    ) -> Awaitable[None]:
        gate = self._gate(operation, own)

        async def blocking() -> None:
            self._world.log.append({"event": "blocking", "of": of, "gate": gate})
            await self._world.opened(gate)
            entry: dict[str, Any] = {"event": "unblocking", "of": of, "gate": gate}
            self._world.log.append(entry)
            entry["results"] = self._perform_now(operation.get("do", []), own)

        return self.ctx.block_concurrency_while(blocking)

    def _perform_now(
        self, operations: list[Operation], own: WebSocket | None
    ) -> list[dict[str, Any] | Failed]:
        results: list[dict[str, Any] | Failed] = []
        for number, operation in enumerate(operations):
            if operation["op"] == "throw":
                raise ScenarioError(operation.get("message", "boom"))
            try:
                value = self._call(operation, own)
            except Exception as error:
                results.append(Failed(number, error))
            else:
                if operation["op"] not in _VERBS:
                    result = {"step": number, "ok": True, "value": _encode(value)}
                    results.append(result)
        return results

    def _call(self, op: Operation, own: WebSocket | None) -> object:
        socket = self._find(op.get("ws", "self"), own)
        match op["op"]:
            case "newPair":
                first, second = WebSocketPair()
                self._names.sockets |= {op["as"] + "0": first, op["as"] + "1": second}
            case "response":
                return Response(
                    None, status=op.get("status", 101), web_socket=socket
                ).status
            case "newRequestResponsePair" if "withoutNew" in op:
                raise JavaScriptOnlyError("new")
            case "newRequestResponsePair":
                return WebSocketRequestResponsePair(*decode(op["arguments"]))
            case "assignRequest":
                pair = WebSocketRequestResponsePair("a", "b")
                pair.request = "c"  # type: ignore[misc] # it is frozen
                return pair
            case "instances":
                return self._world.instances
            case "listen":
                socket.add_event_listener(op["type"], self._listener(socket))
            case "accept":
                socket.accept()
            case "send":
                data = bytes.fromhex(op["bytes"]) if "bytes" in op else op["text"]
                socket.send(data)
            case "close":
                socket.close(decode(op.get("code")), decode(op.get("reason")))
            case "readyState":
                return int(socket.ready_state)
            case "get":
                return getattr(socket, attribute(op))
            case "attach":
                socket.serialize_attachment(decode(op["value"]))
            case "attachment":
                return socket.deserialize_attachment()
            case _:
                return self._call_state(op, socket)
        return None

    def _call_state(self, op: Operation, socket: WebSocket) -> object:
        ctx = self.ctx
        subject = _given(op, "value") if "value" in op else [socket]
        match op["op"]:
            case "acceptWebSocket":
                ctx.accept_web_socket(*subject, *_given(op, "tags"))
            case "getTags":
                return ctx.get_tags(*subject)
            case "getWebSockets":
                return [self._name(o) for o in ctx.get_web_sockets(*_given(op, "tag"))]
            case "sameObject":
                return any(one is socket for one in ctx.get_web_sockets())
            case "states":
                return [
                    [self._name(one), int(one.ready_state)]
                    for one in ctx.get_web_sockets()
                ]
            case "abort":
                ctx.abort(*_given(op, "reason"))
            case "setAutoResponse" if "request" in op:
                pair = decode(op["request"]), decode(op["response"])
                given = WebSocketRequestResponsePair(*pair)
                ctx.set_web_socket_auto_response(given)
            case "setAutoResponse":
                ctx.set_web_socket_auto_response(*_given(op, "value"))
            case "getAutoResponse":
                return ctx.get_web_socket_auto_response()
            case "autoResponseSizes":
                kept = ctx.get_web_socket_auto_response()
                assert kept is not None
                return [len(kept.request), len(kept.response)]
            case "autoResponseTimestamp":
                return ctx.get_web_socket_auto_response_timestamp(*subject)
            case "setEventTimeout":
                timeout = _given(op, "ms")
                ctx.set_hibernatable_web_socket_event_timeout(*timeout)
            case "getEventTimeout":
                return ctx.get_hibernatable_web_socket_event_timeout()
            case unknown:
                raise AssertionError(f"no such operation: {unknown}")
        return None

    def _listener(self, socket: WebSocket) -> Callable[[Any], None]:
        def hear(event: Any) -> None:
            data = message_detail(event.data) if event.type == "message" else {}
            entry = {"event": f"listener:{event.type}", "ws": self._name(socket)}
            self._world.log.append({**entry, **data})

        return hear


def _given(op: Operation, key: str) -> list[Any]:
    """Return the argument for a call as a list, which is empty for `undefined`."""
    return [] if op.get(key, UNDEFINED) == UNDEFINED else [decode(op[key])]


def _encode(value: object) -> Any:
    if isinstance(value, WebSocketRequestResponsePair):
        return {"request": value.request, "response": value.response}
    if isinstance(value, dt.datetime):
        return {"$": "date"}  # The time itself isn't recorded.
    return encode(value)

"""Takes the steps of a scenario on our halves, and records the trace."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from trio_wspair import (
    CloseEvent,
    ErrorEvent,
    MessageEvent,
    ReadyState,
    Response,
    WebSocket,
    WebSocketPair,
)

from .values import JavaScriptOnlyError, decode, encode

Step = dict[str, Any]
Event = MessageEvent | CloseEvent | ErrorEvent

LONG = 512
"""Traces have the size and hash of longer messages (in UTF-16 units or bytes)."""

_ANSWERING = {"readyState", "get", "attachment", "response", "pair"}
_PROPERTIES = {
    "url": "url",
    "protocol": "protocol",
    "extensions": "extensions",
    "readyState": "ready_state",
    "bufferedAmount": "buffered_amount",
    "onmessage": "onmessage",
    "onclose": "onclose",
    "onerror": "onerror",
}


class ScenarioError(Exception):
    """The error that a listener of a scenario raises."""


class ScenarioTypeError(ScenarioError, TypeError):
    """A `TypeError` that a listener of a scenario raises."""


@attrs.frozen
class Failed:
    """The result of a step that has raised."""

    step: int
    error: Exception


class Player:
    """Takes the steps of a scenario on halves, which have labels such as "a"."""

    def __init__(
        self, halves: dict[str, WebSocket], pair: WebSocketPair | None = None
    ) -> None:
        self._halves = halves
        self._labels = {id(half): label for label, half in halves.items()}
        self._pair = pair
        self._listeners: dict[str, Callable[[Event], None]] = {}
        self.events: dict[str, list[Any]] = {label: [] for label in halves}

    async def play(
        self, steps: list[Step], settle: Callable[[], Awaitable[None]]
    ) -> list[Any]:
        """Take the steps of the scenario, and return their results.

        Events are delivered only in `settle()`, which returns when all tasks are
        blocked. It is also called at the end.
        """
        results: list[Any] = []
        for number, step in enumerate(steps):
            if step["op"] == "settle":
                await settle()
            else:
                self._take(number, step, results)
        await settle()
        return results

    def perform(
        self, steps: list[Step], results: list[Any], event: Event | None = None
    ) -> None:
        """Take steps without waiting, in a listener or handler."""
        for number, step in enumerate(steps):
            if "when" not in step or step["when"] == getattr(event, "data", None):
                self._take(number, step, results, event)

    def trace(self) -> dict[str, list[Any]]:
        """Return the events of each half so far."""
        return {label: list(events) for label, events in self.events.items()}

    def _take(
        self, number: int, step: Step, results: list[Any], event: Event | None = None
    ) -> None:
        if step["op"] == "throw":
            kind = (
                ScenarioTypeError if step.get("kind") == "TypeError" else ScenarioError
            )
            raise kind(step.get("message", "boom"))
        try:
            value = self._call(step, event)
        except Exception as error:
            results.append(Failed(number, error))
        else:
            if step["op"] in _ANSWERING:
                results.append({"step": number, "ok": True, "value": encode(value)})

    def _call(self, step: Step, event: Event | None) -> object:
        half = self._halves.get(step.get("half", ""))
        match step["op"]:
            case "pair":
                return self._inspect(step["what"])
            case "response":
                return self._response(step, half)
            case "stop":
                raise JavaScriptOnlyError("stopImmediatePropagation()")
        assert half is not None, step
        match step["op"]:
            case "listen":
                once = step.get("once", False)
                half.add_event_listener(step["type"], self._listener(step), once=once)
            case "unlisten":
                listener = self._listeners.get(step["id"], lambda _: None)
                half.remove_event_listener(step["type"], listener)
            case "on":
                slot = None if step["id"] is None else self._listener(step)
                setattr(half, "on" + step["type"], slot)
            case "accept":
                _accept(half, step)
            case "send":
                _send(half, step)
            case "echo":
                data: Any = getattr(event, "data", None)
                half.send(data)
            case "close":
                half.close(decode(step.get("code")), decode(step.get("reason")))
            case "readyState":
                return int(half.ready_state)
            case "get":
                return getattr(half, attribute(step))
            case "set":
                setattr(half, attribute(step), decode(step["value"]))
            case "attach":
                values = [] if step.get("noArgument") else [decode(step["value"])]
                half.serialize_attachment(*values)
            case "attachment":
                return half.deserialize_attachment()
            case unknown:
                raise AssertionError(f"no such step: {unknown}")
        return None

    def _listener(self, step: Step) -> Callable[[Event], None]:
        name: str = step["id"]
        if name in self._listeners:
            return self._listeners[name]
        if step.get("object"):
            raise JavaScriptOnlyError("objects with handleEvent()")

        def hear(event: Event) -> None:
            entry: list[Any] = [name, event.type, _detail(event)]
            self.events[self._labels[id(event.target)]].append(entry)
            if "do" in step:
                results: list[Any] = []
                entry.append(results)
                self.perform(step["do"], results, event)

        self._listeners[name] = hear
        return hear

    def _response(self, step: Step, half: WebSocket | None) -> object:
        given = decode(step.get("webSocket")) if half is None else half
        options = {key: step[key] for key in ("status", "headers") if key in step}
        response = Response(step.get("body"), web_socket=given, **options)
        label = None if half is None else self._labels[id(half)]
        return {"status": response.status, "webSocket": label}

    def _inspect(self, what: str) -> object:
        pair = self._pair
        assert pair is not None

        def name(half: object) -> str:
            return self._labels.get(id(half), "(other)")

        def names() -> list[str]:
            return [name(half) for half in pair]

        match what:
            case "index":
                return [name(pair[0]), name(pair[1]), _missing(pair, 2), name(pair[-1])]
            case "stable":
                return pair[0] is pair[0] and pair[1] is pair[1]
            case "distinct":
                return pair[0] is not pair[1]
            case "values" | "iterate":
                return names()
            case "iterateTwice":
                return [names(), names()]
            case "length":
                return len(pair)
            case "instance":
                return [
                    isinstance(pair, WebSocketPair),
                    isinstance(pair[0], WebSocket),
                    callable(pair[0].add_event_listener),
                ]
            case "fresh":
                other = WebSocketPair(trio.lowlevel.current_task().parent_nursery)
                return [other[0] is pair[0], other[1] is pair[1]]
            case "assign":
                pair[0] = None  # type: ignore[index] # on purpose
                return name(pair[0])
            case "constants":
                names_ = ("CONNECTING", "OPEN", "CLOSING", "CLOSED")
                return [int(ReadyState[name]) for name in names_] * 3
        raise JavaScriptOnlyError("properties of a pair as a JavaScript object")


def _missing(pair: WebSocketPair, index: int) -> str:
    try:
        return repr(pair[index])
    except IndexError:
        return "(undefined)"


def attribute(step: Step) -> str:
    """Return the Python name of the property of a step."""
    name = step["property"]
    if name not in _PROPERTIES:
        raise JavaScriptOnlyError(f"the property {name}")
    return _PROPERTIES[name]


def _accept(half: WebSocket, step: Step) -> None:
    options = decode(step.get("options"))
    if "allowHalfOpen" in step:
        half.accept(allow_half_open=decode(step["allowHalfOpen"]))
    elif options:
        half.accept(options)  # type: ignore[call-arg] # on purpose
    else:
        half.accept()


def _send(half: WebSocket, step: Step) -> None:
    if step.get("noArgument"):
        half.send()  # type: ignore[call-arg] # on purpose
    elif "text" in step:
        half.send(step["text"] * step.get("repeat", 1))
    elif "bytes" in step:
        whole = bytearray(bytes.fromhex(step["bytes"]) * step.get("repeat", 1))
        start = step.get("offset", 0)
        stop = start + step.get("length", len(whole) - start)
        half.send(memoryview(whole)[start:stop])
        if "then" in step:  # Instead of detaching the buffer, overwrite it.
            whole[:] = b"\xee" * len(whole)
    else:
        half.send(decode(step["value"]))


def _detail(event: Event) -> dict[str, Any]:
    if isinstance(event, MessageEvent):
        return message_detail(event.data)
    assert event.target is not None
    state = int(event.target.ready_state)
    if isinstance(event, CloseEvent):
        return {
            "code": event.code,
            "reason": event.reason,
            "wasClean": event.was_clean,
            "readyState": state,
        }
    return {"error": event.error, "readyState": state}


def message_detail(data: str | bytes) -> dict[str, Any]:
    """Return the representation of a message in traces."""
    raw = data if isinstance(data, bytes) else data.encode()
    sha256 = hashlib.sha256(raw).hexdigest()
    if isinstance(data, bytes):
        if len(data) <= LONG:
            return {"bytes": data.hex()}
        return {"longBytes": {"bytes": len(raw), "sha256": sha256}}
    if len(data.encode("utf-16-le")) <= 2 * LONG:
        return {"text": data}
    return {"longText": {"utf8Bytes": len(raw), "sha256": sha256}}

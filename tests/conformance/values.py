"""Converts values of the scenarios from tagged JSON to Python, and back."""

import datetime as dt
import math
import re
from collections.abc import Callable
from typing import Any


class JavaScriptOnlyError(Exception):
    """A scenario needs a feature that only JavaScript has."""


class Printable:
    """An object whose `str()` returns a text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


class Unprintable:
    """An object whose `str()` raises."""

    def __str__(self) -> str:
        raise ValueError("no string for you")


class Probe:
    """An object with one attribute."""

    def __init__(self) -> None:
        self.x = 1


def _cycle(_: Any) -> dict[str, object]:
    loop: dict[str, object] = {"n": 1}
    loop["self"] = loop
    return loop


def _blob(_: Any) -> Any:
    raise JavaScriptOnlyError("Blob")


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "undefined": lambda _: None,
    "NaN": lambda _: math.nan,
    "Infinity": lambda _: math.inf,
    "-Infinity": lambda _: -math.inf,
    "-0": lambda _: -0.0,
    "float": lambda v: float(v["value"]),
    "bigint": lambda v: int(v["value"]),
    "symbol": lambda _: object(),
    "promise": lambda _: object(),
    "function": lambda _: lambda: None,
    "date": lambda v: dt.datetime.fromtimestamp(v["ms"] / 1000, dt.UTC),
    "regexp": lambda v: re.compile(v["source"]),
    "map": lambda v: {decode(key): decode(value) for key, value in v["entries"]},
    "set": lambda v: set(map(decode, v["values"])),
    "error": lambda v: RuntimeError(v["name"], v["message"]),
    "bytes": lambda v: bytes.fromhex(v["hex"]),
    "typed": lambda v: bytes.fromhex(v["hex"]),
    "blob": _blob,
    "string": lambda v: v["unit"] * v["count"],
    "toString": lambda v: Printable(v["value"]),
    "throwing": lambda _: Unprintable(),
    "instance": lambda _: Probe(),
    "cycle": _cycle,
}


_FLOATS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity", "-0.0": "-0"}


def decode(value: Any) -> Any:
    """Return the Python value for tagged JSON."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$" in value:
        return _DECODERS[value["$"]](value)
    return {key: decode(item) for key, item in value.items()}


def encode(value: Any, outer: tuple[int, ...] = ()) -> Any:
    """Return tagged JSON for a Python value."""
    if isinstance(value, float):
        name = _FLOATS.get(str(value))
        return value if name is None else {"$": name}
    if isinstance(value, bytes):
        return {"$": "bytes", "hex": value.hex()}
    if isinstance(value, dt.datetime):
        return {"$": "date", "ms": value.timestamp() * 1000}
    if not isinstance(value, (list, set, dict)):
        return value
    if id(value) in outer:
        return {"$": "cycle"}
    outer = (*outer, id(value))
    if isinstance(value, list):
        return [encode(item, outer) for item in value]
    if isinstance(value, set):
        return {"$": "set", "values": [encode(item, outer) for item in value]}
    return {key: encode(item, outer) for key, item in value.items()}


def pythonic(value: Any) -> Any:
    """Return recorded tagged JSON without the distinctions that Python lacks.

    Python has only one type each for missing values, integers, bytes and mappings.
    """
    if isinstance(value, list):
        return [pythonic(item) for item in value]
    if not isinstance(value, dict):
        return value
    match value.get("$"):
        case "undefined":
            return None
        case "bigint":
            return int(value["value"])
        case "typed":
            return {"$": "bytes", "hex": value["hex"]}
        case "map":
            return {key: pythonic(item) for key, item in value["entries"]}
    return {key: pythonic(item) for key, item in value.items()}

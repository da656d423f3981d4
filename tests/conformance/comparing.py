"""Compares a trace of our halves with the recorded one."""

from typing import Any

from trio_wspair import ConnectionClosedError, InvalidStateError

from .player import Failed, ScenarioError
from .values import pythonic

Errors = dict[str | None, tuple[type[Exception], ...]]

ERRORS: Errors = {
    # A wrong type or state, or a property or item that can't be assigned.
    "TypeError": (TypeError, InvalidStateError, ConnectionClosedError, AttributeError),
    "InvalidAccessError": (ValueError,),  # close() with an invalid code
    "SyntaxError": (ValueError,),  # close() with a reason that is too long
    "RangeError": (ValueError,),  # a response with an invalid status
    "DataCloneError": (TypeError,),  # an attachment that can't be serialised
    "Error": (ValueError, ScenarioError),  # a large attachment; an error of a listener
    None: (ScenarioError,),  # a listener throws a value that isn't an error
}
"""Our exceptions for the errors of Workers, by their names."""


def same_trace(recorded: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Whether the events of each half and the result of each step are the same."""
    return recorded.keys() - {"lostConnectionErrors"} == ours.keys() and all(
        _same_response(recorded[key], part)
        if key == "response"
        else _same_lists(recorded[key], part)
        for key, part in ours.items()
    )


def _same_lists(recorded: list[Any], ours: list[Any]) -> bool:
    return len(recorded) == len(ours) and all(map(_same_entry, recorded, ours))


def _same_entry(recorded: Any, ours: Any) -> bool:
    if isinstance(ours, list):
        return _same_event(recorded, ours)
    if isinstance(ours, Failed):
        return recorded["step"] == ours.step and stands_for(ours.error, recorded)
    return bool(pythonic(recorded) == ours)


def _same_event(recorded: list[Any], ours: list[Any]) -> bool:
    name, type_, detail, *results = ours
    if recorded[:2] != [name, type_]:
        return False
    if type_ == "error":
        same = detail["readyState"] == recorded[2]["readyState"]
        same = same and stands_for(detail["error"], recorded[2])
    else:
        same = detail == recorded[2]
    return (
        same
        and len(recorded) == len(ours)
        and all(map(_same_lists, recorded[3:], results))
    )


def stands_for(
    error: Exception, recorded: dict[str, Any], errors: Errors = ERRORS
) -> bool:
    """Whether our error has the type of a recorded error. The texts may differ."""
    return "error" in recorded and isinstance(error, errors[recorded["error"]])


def _same_response(recorded: dict[str, Any], ours: dict[str, Any]) -> bool:
    # In the recording, the client is in the same process as the handler, so its fetch()
    # raises the handler's error. Our client is on the network, and gets the status 500.
    return ours["status"] == 500 if "error" in recorded else recorded == ours

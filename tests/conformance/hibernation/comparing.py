"""Compares a trace of our object with the recorded one."""

from typing import Any

from conformance.comparing import ERRORS, Errors, stands_for
from conformance.player import Failed
from conformance.stage import Trace
from conformance.values import pythonic
from trio_wspair import InvalidStateError, ProtocolError

STATE_ERRORS: Errors = {
    **ERRORS,
    # The wrong state, or a limit exceeded.
    "Error": (*ERRORS["Error"], InvalidStateError),
}
"""Our exceptions for the errors of Workers, by their names."""

EVENT_ERRORS: Errors = {"Error": (ProtocolError,)}
"""The arguments of `web_socket_error()` for the errors of Workers, by their names."""


def differing_parts(recorded: Trace, ours: Trace) -> set[str]:
    """Return the parts of a trace that differ from the recorded ones."""
    assert recorded.keys() == ours.keys()
    return {part for part in ours if not _same(pythonic(recorded[part]), ours[part])}


def _same(recorded: Any, ours: Any) -> bool:
    match ours:
        case list():
            return (
                isinstance(recorded, list)
                and len(recorded) == len(ours)
                and all(map(_same, recorded, ours))
            )
        case Failed():
            return recorded["step"] == ours.step and stands_for(
                ours.error, recorded, STATE_ERRORS
            )
        case {"event": "error", "error": error}:
            rest = {key: ours[key] for key in ours.keys() - {"error"}}
            kept = {
                key: recorded[key] for key in recorded.keys() - {"error", "message"}
            }
            return stands_for(error, recorded, EVENT_ERRORS) and _same(kept, rest)
        case dict():
            return (
                isinstance(recorded, dict)
                and recorded.keys() == ours.keys()
                and all(_same(recorded[key], value) for key, value in ours.items())
            )
    return bool(recorded == ours)


def plain(ours: Any) -> Any:
    """Return one of our traces with the types of errors in place of the errors."""
    match ours:
        case Failed(step, error):
            return step, type(error)
        case Exception():
            return type(ours)
        case list():
            return [plain(item) for item in ours]
        case dict():
            return {key: plain(value) for key, value in ours.items()}
    return ours

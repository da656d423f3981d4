"""Whether a trace of an object of ours is the trace that was recorded."""

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
"""What ours raise where Workers throw an error of this name."""

EVENT_ERRORS: Errors = {"Error": (ProtocolError,)}
"""What `web_socket_error()` gets where theirs gets an error of this name."""


def differing_parts(recorded: Trace, ours: Trace) -> set[str]:
    """Return which parts of a trace differ from what was recorded."""
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
    """Return a trace of ours with types for errors, to compare it with another one."""
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

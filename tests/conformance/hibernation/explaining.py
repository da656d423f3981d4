"""Recognises the differences of `differences.toml` in traces of random programs.

If a difference concerns a single entry, `as_workers()` replaces this entry of our trace
by the entry of Workers. If it has wider consequences, `explanation()` names it.
"""

import copy
from typing import Any

from conformance.player import Failed
from conformance.stage import Trace
from trio_wspair import ConnectionClosedError, InvalidStateError

from .comparing import differing_parts
from .programs import Program

RESET = [
    ["closeFrame", {"code": 1011, "reason": ""}],
    ["closed", {"code": 1011, "reason": ""}],
]
TAGS = "before attempting to access the tags"
LOST = ["closed", {"code": 1006, "reason": ""}]


def as_workers(program: Program, recorded: Trace, ours: Trace) -> Trace:
    """Return our trace with the intended differences replaced by those of Workers."""
    ours = copy.deepcopy(ours)
    for name, events in ours["clients"].items():
        theirs = recorded["clients"].get(name, [])
        if events[-2:] == RESET and theirs[-1:] == [LOST]:
            # A reset: Workers end the connection without a Close, and lose messages.
            sent = theirs[:-1]
            events[:] = theirs if sent == events[: len(sent)] else [*events[:-2], LOST]
        # A Close that the handler does not answer: we answer it, Workers do not.
        if theirs[-1:] == [LOST] and events[-2:-1] and events[-2][0] == "closeFrame":
            closes = [
                s["close"] for s in program["steps"] if s.get("close") is not None
            ]
            answer = events[-2][1]
            if [answer["code"], answer["reason"]] in [
                (c or [1005, ""]) for c in closes
            ]:
                events[-2:] = [LOST]
    for entry, theirs in zip(ours["object"], recorded["object"], strict=False):
        # In Workers, abort() does not return.
        if "results" in entry and "results" not in theirs and _aborts(program):
            del entry["results"]
        elif "results" in entry and "results" in theirs:
            entry["results"] = _with_their_errors(entry["results"], theirs["results"])
            if entry.get("of") == "close":
                _leave_out_own_socket(entry, theirs)
    for entry, theirs in zip(ours["results"], recorded["results"], strict=False):
        if isinstance(entry["results"], list) and isinstance(theirs["results"], list):
            entry["results"] = _with_their_errors(entry["results"], theirs["results"])
    return ours


def _leaves_unanswered(program: Program, recorded: Trace) -> bool:
    answers = any(op["op"] == "close" for op in program["handlers"].get("close", []))
    ends = [e for e in recorded["object"] if e["event"] == "close"]
    return not answers and any(end["readyState"] == 2 for end in ends)


def _aborts(program: Program) -> bool:
    return "'abort'" in repr(program)


def _resets(program: Program) -> bool:
    blocks = "'block'" in repr(program) and "'throw'" in repr(program)
    return _aborts(program) or blocks


def _with_their_errors(ours: list[Any], theirs: list[Any]) -> list[Any]:
    """Remove errors that only we raise, and add errors that only Workers raise."""
    found = {result["step"]: result for result in theirs}
    results: list[Any] = []
    for result in ours:
        if isinstance(result, Failed):
            # In Workers, send() after an abnormal end does nothing.
            late = isinstance(result.error, ConnectionClosedError)
            if not late or result.step in found:
                results.append(result)
        elif TAGS in found.get(result["step"], {}).get("message", ""):
            results.append(Failed(result["step"], InvalidStateError()))
        else:
            results.append(result)
    return results


def _leave_out_own_socket(entry: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Remove the closed socket from lists, if Workers no longer list it."""
    own = entry["gate"].rpartition("/")[2]
    values = {result["step"]: result.get("value") for result in theirs["results"]}
    for result in entry["results"]:
        listed = values.get(result["step"]) if isinstance(result, dict) else None
        if isinstance(listed, list) and isinstance(result["value"], list):
            result["value"] = [
                one
                for one in result["value"]
                if own not in (one, one[0]) or one in listed
            ]


def explanation(program: Program, recorded: Trace, ours: Trace, *, queued: bool) -> str:
    """Return why the traces of a program can't be compared; an empty text if they can.

    The text is printed after the number of such programs.
    """
    if queued:
        return "with handlers of a socket that overlap"
    if _goes_on_while_blocked(ours["object"]):
        return "with handlers that wait while the object is blocked"
    if _leaves_unanswered(program, recorded):
        return "with a Close that its handler does not answer"
    seen = as_workers(program, recorded, ours)["object"]
    if _resets(program) and not differing_parts(
        {"object": recorded["object"]}, {"object": seen}
    ):
        return "with a reset that drops the last messages"
    return ""


def _goes_on_while_blocked(log: list[Any]) -> bool:
    """Whether a handler continued while the object was blocked."""
    blocked: str | None = None
    for entry in log:
        if entry["event"] == "blocking":
            blocked = entry["gate"]
        elif entry["event"] == "unblocking":
            blocked = None
        elif entry["event"] == "resumed" and blocked is not None:
            return True
    return False

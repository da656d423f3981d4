"""Random programs, in the language of the scenarios.

A listener uses only the half that it belongs to, because the order of events on
different halves is not specified. The answer to a message is a smaller number, so that
every program ends.
"""

from typing import Any

from hypothesis import strategies as st

Step = dict[str, Any]

HALVES = st.sampled_from("ab")
TYPES = st.sampled_from(["message", "message", "close", "error"])
NUMBERS = range(5)
REASONS = st.sampled_from(["", "bye", "é€😀", "x" * 123, "x" * 124])
CODES = st.sampled_from(
    [0, 999, 1000, 1001, 1004, 1005, 1006, 1014, 1015, 1016, 2999, 3000, 4999, 5000]
)
"""Codes at both sides of the limits of `close()`."""


def _step(op: str, half: str, **arguments: st.SearchStrategy[Any] | str) -> Any:
    fixed = {"op": op, "half": half}
    drawn = {
        key: st.just(value) if isinstance(value, str) else value
        for key, value in arguments.items()
    }
    return st.fixed_dictionaries({**{k: st.just(v) for k, v in fixed.items()}, **drawn})


def _verbs(half: str) -> st.SearchStrategy[Step]:
    """Return the steps, other than sending, that are valid at any point."""
    return st.one_of(
        _step("accept", half),
        _step("accept", half, allowHalfOpen=st.booleans()),
        _step("close", half),
        _step("close", half, code=st.just(1000)),
        _step("close", half, code=CODES),
        _step("close", half, code=st.sampled_from([1000, 3000]), reason=REASONS),
        _step("readyState", half),
        _unlisten(half),
    )


@st.composite
def _unlisten(draw: st.DrawFn, half: str) -> Step:
    kind = draw(TYPES)
    return {"op": "unlisten", "half": half, "type": kind, "id": _name(draw, half, kind)}


def _name(draw: st.DrawFn, half: str, kind: str) -> str:
    return draw(st.sampled_from("LMN")) + kind[0] + half


@st.composite
def _listen(draw: st.DrawFn, half: str, depth: int = 2) -> Step:
    kind = draw(TYPES)
    op = draw(st.sampled_from(["listen", "listen", "listen", "on"]))
    step: Step = {"op": op, "half": half, "type": kind, "id": _name(draw, half, kind)}
    if op == "listen" and draw(st.booleans()):
        step["once"] = True
    # Whether workerd fires `error` depends on timing, so its listener takes no steps.
    if depth and kind != "error" and draw(st.booleans()):
        step["do"] = draw(st.lists(_reaction(half, kind, depth - 1), max_size=3))
    return step


def _reaction(half: str, kind: str, depth: int) -> st.SearchStrategy[Step]:
    sends = _answer(half) if kind == "message" else _send(half)
    return st.one_of(_verbs(half), sends, _listen(half, depth))


@st.composite
def _answer(draw: st.DrawFn, half: str) -> Step:
    asked = draw(st.sampled_from(NUMBERS))
    if half == "b" and draw(st.booleans()):
        return {"op": "echo", "half": half, "when": str(asked)}
    if not asked:
        return {"op": "close", "half": half, "code": 3000, "when": "0"}
    answer = draw(st.integers(0, asked - 1))
    return {"op": "send", "half": half, "text": str(answer), "when": str(asked)}


def _send(half: str) -> st.SearchStrategy[Step]:
    return st.one_of(
        _step("send", half, text=st.sampled_from([*map(str, NUMBERS), "é€😀", ""])),
        _step("send", half, bytes=st.sampled_from(["", "00", "deadbeef"])),
    )


def _anything(half: str) -> st.SearchStrategy[Step]:
    settle = st.just({"op": "settle"})
    return st.one_of(_verbs(half), _send(half), _send(half), _listen(half), settle)


@st.composite
def programs(draw: st.DrawFn) -> list[Step]:
    """Return the steps of a program; most begin with listeners and two accepts."""
    steps: list[Step] = []
    if draw(st.integers(0, 4)):
        for half in "ab":
            steps += draw(st.lists(_listen(half), min_size=1, max_size=3))
        for half in "ab":
            accept: Step = {"op": "accept", "half": half}
            half_open = draw(st.sampled_from([None, None, True, False]))
            if half_open is not None:
                accept["allowHalfOpen"] = half_open
            steps.append(accept)
    steps += draw(st.lists(HALVES.flatmap(_anything), max_size=14))
    # The final state of each half belongs to every trace.
    steps += [{"op": "settle"}, *({"op": "readyState", "half": half} for half in "ab")]
    return steps

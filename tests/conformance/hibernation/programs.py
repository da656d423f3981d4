"""Random programs for an object, in the language of the scenarios.

Each gate belongs to one operation of one socket, so that the effect of opening it does
not depend on timing. The names of sockets are stored in attachments, because an object
forgets its attributes when it leaves memory. All gates are opened at the end.
"""

from random import Random
from typing import Any

Program = dict[str, Any]
Operation = dict[str, Any]

TEXTS = "abcd"
AUTOMATIC = ["ping", "a", "b"]
CODES = [1000, 1001, 3000, 4999]
TAGS = [[], ["x"], ["y"], ["x", "y"]]
HIBERNATION = {"sleep": 10_500}


class _Writer:
    def __init__(self, rng: Random, *, hibernates: bool) -> None:
        self.rng = rng
        self.hibernates = hibernates
        self.gates: dict[str, None] = {}
        self.clients: list[str] = []
        self.number = 0

    def maybe(self, chance: float) -> bool:
        return self.rng.random() < chance

    # -- operations ----------------------------------------------------------------

    def operation(self, *, at_socket: bool) -> Operation:
        """Return an operation that doesn't wait."""
        ops: list[Operation] = [
            {"op": "states"},
            {"op": "getWebSockets", "tag": self.rng.choice("xy")},
            {"op": "getAutoResponse"},
            {"op": "setAutoResponse", "none": True},
        ]
        request = self.rng.choice(AUTOMATIC)
        automatic = {"op": "setAutoResponse", "request": request, "response": "auto"}
        ops += [automatic, automatic]
        if at_socket or self.clients:
            where = {} if at_socket else {"ws": self.rng.choice(self.clients)}
            text = {"op": "send", **where, "text": self.rng.choice("stu")}
            ops += [text, text, text]
            ops += [
                {"op": "readyState", **where},
                {"op": "getTags", **where},
                {"op": "autoResponseTimestamp", **where},
                {"op": "attachment", **where},
            ]
            if self.maybe(0.3):
                code = self.rng.choice(CODES)
                ops.append({"op": "close", **where, "code": code, "reason": "enough"})
        return self.rng.choice(ops)

    def operations(self, most: int, *, at_socket: bool) -> list[Operation]:
        count = self.rng.randint(0, most)
        return [self.operation(at_socket=at_socket) for _ in range(count)]

    def waiting(self, gate: str, *, at_socket: bool) -> Operation:
        if self.maybe(0.5):
            return {"op": "wait", "gate": gate}
        do = self.operations(2, at_socket=at_socket)
        if self.maybe(0.1):
            do.append({"op": self.rng.choice(["throw", "abort"])})
        return {"op": "block", "gate": gate, "do": do}

    def handler(self, event: str) -> list[Operation]:
        ops = self.operations(3, at_socket=True)
        if self.maybe(0.35):
            ops.append(self.waiting(f"{event}/%ws", at_socket=True))
            ops += self.operations(2, at_socket=True)
        if self.maybe(0.08):
            ops.append({"op": "throw"})
        elif self.maybe(0.05):
            ops.append({"op": "abort"})
        return ops

    def handlers(self) -> dict[str, Any]:
        handlers: dict[str, Any] = {
            "message": {text: self.handler(text) for text in TEXTS},
            "close": self.operations(2, at_socket=True),
        }
        if self.maybe(0.2):
            handlers["close"].append(self.waiting("close/%ws", at_socket=True))
        if self.maybe(0.9):
            handlers["close"].append({"op": "close", "code": self.rng.choice(CODES)})
        if self.maybe(0.3):
            construct = self.operations(2, at_socket=False)
            if self.maybe(0.5):
                do = self.operations(1, at_socket=False)
                gate = f"construct/{'%n'}"
                construct.append({"op": "block", "gate": gate, "do": do})
            handlers["construct"] = construct
        return handlers

    # -- steps ---------------------------------------------------------------------

    def connect(self) -> list[Program]:
        name = f"c{len(self.clients) + 1}"
        accept: Operation = {"op": "acceptWebSocket"}
        if self.maybe(0.6):
            accept["tags"] = self.rng.choice(TAGS)
        attach = {"op": "attach", "value": {"label": name}}
        do = [accept, attach, *self.operations(2, at_socket=True)]
        self.clients.append(name)
        for event in [*TEXTS, "close"]:
            self.gates[f"{event}/{name}"] = None
        return [{"connect": name, "do": do}]

    def say(self) -> list[Program]:
        name = self.rng.choice(self.clients)
        count = self.rng.choice([1, 1, 1, 2, 3])
        steps: list[Program] = []
        for _ in range(count):
            text = self.rng.choice([*TEXTS, "ping", "ping", "ping"])
            steps.append({"client": name, "text": text, "calm": False})
        if self.maybe(0.15):
            steps.append({"client": name, "close": [self.rng.choice(CODES), "bye"]})
        steps[-1].pop("calm", None)
        return steps

    def end(self) -> list[Program]:
        name = self.rng.choice(self.clients)
        ways: list[Program] = [
            {"client": name, "close": [self.rng.choice(CODES), "bye"]},
            {"client": name, "close": []},
            {"client": name, "terminate": True},
        ]
        return [self.rng.choice(ways)]

    def ask(self) -> list[Program]:
        ops = self.operations(4, at_socket=False)
        if self.maybe(0.4):
            self.number += 1
            gate = f"ask/{self.number}"
            self.gates[gate] = None
            ops.append(self.waiting(gate, at_socket=False))
            ops += self.operations(1, at_socket=False)
        return [{"object": ops}]

    def open(self) -> list[Program]:
        return [{"open": self.rng.choice(list(self.gates))}] if self.gates else []

    def program(self) -> Program:
        handlers = self.handlers()
        steps = self.ask() if self.maybe(0.5) else []
        steps += self.connect()
        for number in range(1, 6):
            self.gates[f"construct/{number}"] = None
        # Workers reset an object that is blocked for 30 s.
        naps = 2 if self.hibernates else 0
        kinds = [self.say] * 5 + [self.ask] * 2 + [self.open] * 2 + [self.end]
        for _ in range(self.rng.randint(2, 9)):
            if len(self.clients) < 3 and self.maybe(0.2):
                steps += self.connect()
            elif naps and self.maybe(0.15):
                steps.append(HIBERNATION)
                naps -= 1
            else:
                steps += self.rng.choice(kinds)()
        steps += [{"open": gate} for gate in self.gates]
        steps.append({"object": [{"op": "states"}, {"op": "getAutoResponse"}]})
        return {"handlers": handlers, "steps": steps}


def program(seed: int, number: int, *, hibernates: bool) -> Program:
    """Return the program of this number."""
    rng = Random(f"{seed}/{number}")
    return _Writer(rng, hibernates=hibernates).program()


def smaller(program: Program) -> list[Program]:
    """Return copies of this program that each lack a part, the smallest copy first."""
    found: list[Program] = []
    steps, handlers = program["steps"], program["handlers"]
    found += [{**program, "steps": less} for less in _shorter(steps)]
    for number, step in enumerate(steps):
        for key in ("object", "do"):
            for less in _fewer(step.get(key, [])):
                new = [*steps]
                new[number] = {**step, key: less}
                found.append({**program, "steps": new})
    for event, ops in handlers.items():
        if isinstance(ops, list):
            rest = {key: value for key, value in handlers.items() if key != event}
            found.append({**program, "handlers": rest})
            changed: list[Any] = _fewer(ops)
        else:
            changed = [{k: v for k, v in ops.items() if k != text} for text in ops]
            changed += [
                {**ops, text: less} for text in ops for less in _fewer(ops[text])
            ]
        found += [{**program, "handlers": {**handlers, event: c}} for c in changed]
    return found


def _shorter(steps: list[Program]) -> list[list[Program]]:
    """Return copies of this list that each lack a slice."""
    found: list[list[Program]] = []
    size = max(len(steps) // 2, 1)
    while size:
        starts = range(0, len(steps), size)
        found += [steps[:start] + steps[start + size :] for start in starts]
        size //= 2
    return found


def _fewer(ops: list[Operation]) -> list[list[Operation]]:
    """Return copies of this list that each lack one operation."""
    found: list[list[Operation]] = []
    for number, op in enumerate(ops):
        before, after = ops[:number], ops[number + 1 :]
        found.append([*before, *after])
        inside = _fewer(op.get("do", []))
        found += [[*before, {**op, "do": less}, *after] for less in inside]
    return found

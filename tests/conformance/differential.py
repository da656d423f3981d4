"""Plays random programs on Cloudflare's runtime and on our halves.

`nox -s differential`. The first program whose traces differ is minimized, and printed
as a scenario.
"""

import argparse
import json
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from conformance import stage
from conformance.comparing import same_trace
from conformance.programs import Step, programs

HERE = Path(__file__).parent
LOST = "Uncaught Error: Network connection lost."
CALM = (5, 15, 30)
"""Idle turns of workerd's event loop after which a program counts as settled."""


class MismatchError(Exception):
    """A program whose traces differ: the scenario, and our trace."""


class Workerd:
    """A running workerd that plays programs."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=30)

    def play(self, steps: list[Step], calm: int) -> tuple[dict[str, Any], bool]:
        """Return the trace of a program, and whether it depends on timing."""
        self._connection.request(
            "POST", "/", json.dumps({"steps": steps, "calm": calm})
        )
        answer = self._connection.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            raise RuntimeError(f"workerd answered {answer.status}: {text}")
        played = json.loads(text)
        trace: dict[str, Any] = played["trace"]
        for half in "ab":
            # Whether this error comes before the close event depends on timing, too.
            trace[half] = [e for e in trace[half] if e[2].get("message") != LOST]
        return trace, played["lost"]


@contextmanager
def running(program: str) -> Generator[Workerd]:
    """Run workerd for the block, on a new socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        config = str(HERE / "workerd" / "worker.capnp")
        command = [program, "serve", config, f"--socket-fd=player={fd}"]
        with subprocess.Popen(command, pass_fds=[fd]) as process:
            try:
                yield Workerd(listener.getsockname()[1])
            finally:
                process.kill()


def search(workerd: Workerd, count: int, seed_number: int) -> Counter[str]:
    """Play programs; raise MismatchError with the smallest program that differs."""
    seen: Counter[str] = Counter()

    @seed(seed_number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(programs())
    def compare(steps: list[Step]) -> None:
        recorded, lost = workerd.play(steps, CALM[0])
        ours = stage.run(stage.in_memory, {"steps": steps}, seed=seed_number)
        seen["programs"] += 1
        if same_trace(recorded, ours):
            seen["the same"] += 1
            return
        for calm in CALM[1:]:
            again, lost_again = workerd.play(steps, calm)
            lost = lost or lost_again or again != recorded
        if lost:
            seen["dependent on timing in workerd"] += 1
            return
        scenario = {"name": "found/1", "note": "", "steps": steps, "expect": recorded}
        raise MismatchError(scenario, ours)

    compare()
    return seen


def laid_out(scenario: dict[str, Any]) -> str:
    """Return the text of a file with one scenario, in which each step is a line."""
    rows = ",\n  ".join(map(json.dumps, scenario["steps"]))
    fields = [
        f'"{key}": ' + (f"[\n  {rows}\n ]" if key == "steps" else json.dumps(value))
        for key, value in scenario.items()
    ]
    return "[{{\n {}\n}}]".format(",\n ".join(fields))


def main() -> None:
    parser = argparse.ArgumentParser(prog="nox -s differential --", description=__doc__)
    parser.add_argument("--programs", type=int, default=300, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--workerd", required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with running(options.workerd) as workerd:
        try:
            seen = search(workerd, options.programs, options.seed)
        except MismatchError as mismatch:
            scenario, ours = mismatch.args
            print(laid_out(scenario))
            sys.exit(f"Workers do what the scenario expects. Our halves did:\n{ours}")
    print(", ".join(f"{count} {what}" for what, count in seen.items()))


if __name__ == "__main__":
    main()

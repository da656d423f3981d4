"""Plays random programs for objects on Cloudflare's runtime and on our object.

`nox -s differential-objects`. Each program is played on a live workerd, and on our
object in memory and over sockets. If traces differ and no rule of `explaining` says
why, the program is minimized, and printed as a scenario.
"""

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from conformance import stage as stages
from conformance.differential import laid_out
from conformance.stage import Trace

from . import live, stage
from .comparing import differing_parts
from .explaining import as_workers, explanation
from .programs import Program, program, smaller
from .room import World

CALM = (6, 15, 30)
"""Idle polls after which a program on workerd counts as settled."""
BATCH = 64
PLACES: dict[str, Callable[..., Awaitable[Trace]]] = {
    "in memory": stage.in_memory,
    "over sockets": stage.on_the_wire,
}


@attrs.frozen
class Mismatch:
    """A program whose traces differ without a known reason."""

    program: Program
    recorded: Trace
    place: str
    ours: Trace


def compared(made: Program, recorded: Trace, seed_number: int) -> Mismatch | str:
    """Return how our traces differ from the recorded one, or an explanation."""
    why = ""
    for place, play in PLACES.items():
        world = World(made)
        ours = stages.run(partial(play, world=world), made, seed=seed_number)
        if not differing_parts(recorded, as_workers(made, recorded, ours)):
            continue
        why = explanation(made, recorded, ours, queued=world.queued)
        if not why:
            return Mismatch(made, recorded, place, ours)
    return why or "the same"


def played(
    port: int, programs: list[Program], calm: int, seed_number: int
) -> list[Mismatch | str]:
    """Play programs on workerd and on our object, and compare the traces."""
    traces = live.play_all(port, programs, calm)
    return [
        compared(made, recorded, seed_number)
        for made, recorded in zip(programs, traces, strict=True)
    ]


def confirmed(
    port: int, mismatches: list[Mismatch], seed_number: int
) -> list[Mismatch]:
    """Play programs again, with more idle polls; return those that still differ."""
    for calm in CALM[1:]:
        again = played(port, [one.program for one in mismatches], calm, seed_number)
        mismatches = [
            new
            for old, new in zip(mismatches, again, strict=True)
            if isinstance(new, Mismatch) and new.recorded == old.recorded
        ]
    return mismatches


def smallest(port: int, mismatch: Mismatch, seed_number: int) -> Mismatch:
    """Remove all parts of a program without which its traces still differ."""
    while True:
        for batch in _batches(smaller(mismatch.program)):
            outcomes = played(port, batch, CALM[0], seed_number)
            found = [one for one in outcomes if isinstance(one, Mismatch)]
            better = confirmed(port, found[:4], seed_number)
            if better:
                mismatch = better[0]
                break
        else:
            return mismatch


def _batches(programs: list[Program]) -> Iterator[list[Program]]:
    for start in range(0, len(programs), BATCH):
        yield programs[start : start + BATCH]


def search(
    path: str, count: int, seed_number: int, *, hibernating: int
) -> tuple[Counter[str], Mismatch | None]:
    """Play this number of programs; return a minimized one whose traces differ."""
    programs = [
        program(seed_number, number, hibernates=False) for number in range(count)
    ]
    programs += [
        program(seed_number, -n - 1, hibernates=True) for n in range(hibernating)
    ]
    seen: Counter[str] = Counter({"programs": len(programs)})
    with live.running(path) as port:
        for batch in _batches(programs):
            outcomes = played(port, batch, CALM[0], seed_number)
            seen.update(one for one in outcomes if isinstance(one, str))
            found = [one for one in outcomes if isinstance(one, Mismatch)]
            mismatches = confirmed(port, found, seed_number)
            if mismatches:
                return seen, smallest(port, mismatches[0], seed_number)
            seen["dependent on timing in workerd"] += len(found)
    return +seen, None


def recorded(path: str, file: Path) -> None:
    """Record the traces of workerd in a file of scenarios.

    Refuse a scenario that does not have the same trace three times.
    """
    scenarios = json.loads(file.read_text("utf-8"))
    with live.running(path) as port:
        traces, *others = [live.play_all(port, scenarios, CALM[1]) for _ in range(3)]
    for scenario, *plays in zip(scenarios, traces, *others, strict=True):
        if any(trace != plays[0] for trace in plays):
            sys.exit(f"{scenario['name']} does not always have the same trace: {plays}")
        scenario["expect"] = plays[0]
    rows = ",\n".join(laid_out(scenario)[1:-1] for scenario in scenarios)
    file.write_text(f"[{rows}]\n", "utf-8")


def main() -> None:
    name = "nox -s differential-objects --"
    parser = argparse.ArgumentParser(prog=name, description=__doc__)
    parser.add_argument("--programs", type=int, default=120, metavar="N")
    parser.add_argument("--hibernating", type=int, default=16, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    record = "only record the traces of workerd in this file of scenarios"
    parser.add_argument("--record", type=Path, metavar="FILE", help=record)
    parser.add_argument("--workerd", required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.record is not None:
        recorded(options.workerd, options.record)
        return
    logging.disable(logging.CRITICAL)  # Failing handlers are logged.
    seen, mismatch = search(
        options.workerd,
        options.programs,
        options.seed,
        hibernating=options.hibernating,
    )
    print(", ".join(f"{count} {what}" for what, count in seen.items()))
    if mismatch is not None:
        expected: dict[str, Any] = {"expect": mismatch.recorded}
        scenario = {"name": "found/1", "note": "", **mismatch.program, **expected}
        print(laid_out(scenario))
        where = f"Workers do what the scenario expects. Ours did, {mismatch.place}:"
        sys.exit(f"{where}\n{json.dumps(mismatch.ours, default=str)}")


if __name__ == "__main__":
    main()

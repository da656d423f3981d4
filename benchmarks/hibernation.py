"""What sockets of Durable Objects cost, awake and out of memory.

``python -m benchmarks.hibernation [WORK ...] [--rounds N] [--quick]``, on Linux. Every
sample is taken in a process of its own, and contestants take turns. A ratio is the
median over the rounds of one contestant against another in the same round.

Bytes are those that the process holds (RSS) after a garbage collection, beyond what it
held with 50 sockets, divided by the number of sockets. In memory both halves of a pair
are in the process, and both ends of a connection of `websockets`; over loopback the
clients have a process of their own, and only the server counts. Objects that hibernate
leave memory as soon as no event runs, also while others are made.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import attrs

from . import hibernation_in_memory as in_memory
from .hibernation_in_memory import MEMBERS
from .hibernation_loopback import (
    broadcast_by,
    broadcast_to_room,
    idle_at,
    possible,
    send_to_room,
)

__all__ = ("WORKS",)

Sample = Mapping[str, float]
"""Quantity -> value."""
Measure = Callable[[float], Sample]
"""Takes about how many seconds to measure; it runs in a process of its own."""

_ROOT: Final = Path(__file__).parents[1]
_ROUNDS: Final = 5
_SECONDS: Final = 1.0
_QUICK_ROUNDS: Final = 2
_QUICK_SECONDS: Final = 0.2
_MANY: Final = 20_000
_SOME: Final = 2_000
_BETTER_IF_MORE: Final = {"messages/s", "messages/CPU s"}

WEBSOCKETS: Final = "websockets.trio"
WEBSOCKETS_ASYNCIO: Final = "websockets.asyncio"


@attrs.frozen
class Work:
    """Something that is measured; the first contestant is that of others."""

    name: str
    title: str
    contestants: Mapping[str, Measure]
    base: str
    """The one of ours that the others are compared with."""


def _idle_in_memory(sockets: int) -> Work:
    ours = partial(in_memory.idle_objects, sockets)
    return Work(
        f"idle-{sockets}",
        f"idle in memory, {sockets:,} sockets",
        {
            WEBSOCKETS: partial(in_memory.idle_websockets, sockets),
            "one object, awake": partial(ours, each=False, asleep=False),
            "one object, hibernated": partial(ours, each=False, asleep=True),
            "an object each, awake": partial(ours, each=True, asleep=False),
            "an object each, hibernated": partial(ours, each=True, asleep=True),
        },
        base="an object each, awake",
    )


def _idle_over_loopback(sockets: int) -> Work:
    servers = {
        WEBSOCKETS: "websockets-trio",
        "one object, awake": "room-awake",
        "one object, hibernated": "room-hibernated",
        "an object each, awake": "room-each-awake",
        "an object each, hibernated": "room-each-hibernated",
    }
    possible_sockets = possible(sockets)
    return Work(
        f"idle-loopback-{sockets}",
        f"idle over loopback, {possible_sockets:,} sockets",
        {
            name: partial(idle_at, server, possible_sockets)
            for name, server in servers.items()
        },
        base="an object each, awake",
    )


def _handled(name: str, title: str, run: in_memory.Run, objects: int) -> Work:
    ours = partial(in_memory.to_objects, run, objects)
    return Work(
        name,
        title,
        {
            WEBSOCKETS: partial(in_memory.to_websockets, run, objects),
            "awake": partial(ours, asleep=False),
            "hibernated": partial(ours, asleep=True),
        },
        base="awake",
    )


_ALL: Final = (
    _idle_in_memory(_SOME),
    _idle_in_memory(_MANY),
    _idle_over_loopback(_SOME),
    _idle_over_loopback(_MANY),
    _handled("wake", "from send() to the handler", in_memory.one_by_one, 1),
    _handled(
        "wake-1000",
        "the same, each of 1,000 objects in turn",
        in_memory.one_by_one,
        1000,
    ),
    _handled(
        "wake-all", "a message to each of 1,000 at once", in_memory.all_at_once, 1000
    ),
    Work(
        "broadcast",
        f"broadcast in memory to {MEMBERS:,}",
        {
            WEBSOCKETS: in_memory.broadcast_of_websockets,
            "a loop of send()": partial(in_memory.broadcast_of_object, send_to_room),
            "broadcast()": partial(in_memory.broadcast_of_object, broadcast_to_room),
        },
        base="a loop of send()",
    ),
    Work(
        "broadcast-loopback",
        f"broadcast over loopback to {MEMBERS:,}",
        {
            WEBSOCKETS: partial(broadcast_by, "websockets-trio", MEMBERS),
            WEBSOCKETS_ASYNCIO: partial(broadcast_by, "websockets-asyncio", MEMBERS),
            "a loop of send()": partial(broadcast_by, "room-send", MEMBERS),
            "broadcast()": partial(broadcast_by, "room-awake", MEMBERS),
        },
        base="a loop of send()",
    ),
)
WORKS: Final[Mapping[str, Work]] = {work.name: work for work in _ALL}


# -- samples -----------------------------------------------------------------------

Samples = Mapping[str, Sequence[Sample]]
"""Contestant -> what it did in each round."""


def _measure(work: Work, rounds: int, seconds: float) -> Samples:
    """Take all samples of a work, contestants in turn."""
    samples: dict[str, list[Sample]] = {name: [] for name in work.contestants}
    for _ in range(rounds):
        for contestant, taken in samples.items():
            taken.append(_take_sample(work, contestant, seconds))
            told = ", ".join(f"{_number(v)} {q}" for q, v in taken[-1].items())
            print(f"{work.name}, {contestant}: {told}", file=sys.stderr)
    return samples


def _take_sample(work: Work, contestant: str, seconds: float) -> Sample:
    """Measure in a fresh process."""
    sample = ["--sample", contestant, "--seconds", str(seconds)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.hibernation", work.name, *sample],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    taken: Sample = json.loads(done.stdout)
    return taken


# -- the table ---------------------------------------------------------------------

_HEAD: Final = f"""\
| work | who | | median | better than {WEBSOCKETS} | better than ours |
|---|---|---|---:|---:|---:|"""


def _rows(work: Work, samples: Samples) -> Iterator[str]:
    """Return a row for each contestant and quantity."""
    theirs = next(iter(samples))
    for quantity in samples[theirs][0]:
        values = {
            name: [sample[quantity] for sample in taken]
            for name, taken in samples.items()
        }
        for contestant, mine in values.items():
            ratios = [
                "" if other == contestant else _ratio(quantity, mine, values[other])
                for other in (theirs, work.base)
            ]
            number = _number(median(mine))
            cells = [work.title, contestant, quantity, number, *ratios]
            yield f"| {' | '.join(cells)} |"


def _ratio(quantity: str, mine: Sequence[float], theirs: Sequence[float]) -> str:
    ratios = [
        a / b if quantity in _BETTER_IF_MORE else b / a
        for a, b in zip(mine, theirs, strict=True)
    ]
    return f"**{median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    options = _options()
    chosen = [WORKS[name] for name in options.works or WORKS]
    if options.sample is not None:
        print(json.dumps(chosen[0].contestants[options.sample](options.seconds)))
        return
    rows = [
        row
        for work in chosen
        for row in _rows(work, _measure(work, options.rounds, options.seconds))
    ]
    print(_HEAD, *rows, sep="\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hibernation")
    add = parser.add_argument
    add("works", nargs="*", metavar="WORK", help=", ".join(WORKS))
    add("--rounds", type=int, metavar="N", help=f"{_ROUNDS}, quick: {_QUICK_ROUNDS}")
    add("--seconds", type=float, metavar="N", help="how long a rate is measured")
    add("--quick", action="store_true", help="see that it works; no results")
    add("--sample", help=argparse.SUPPRESS)  # In the processes that are started.
    options = parser.parse_args()
    if unknown := set(options.works) - WORKS.keys():
        parser.error(f"no such work: {', '.join(sorted(unknown))}")
    options.rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    options.seconds = options.seconds or (_QUICK_SECONDS if options.quick else _SECONDS)
    if options.quick and not options.works:
        options.works = [name for name in WORKS if not name.endswith(f"-{_MANY}")]
    return options


if __name__ == "__main__":
    main()

"""Runs the fuzzer for a given time: `nox -s fuzz -- --seconds N --seed N`.

If a case breaks a rule, prints the smallest such case as a call of
`fuzz.checking.check()`.
"""

import argparse
import signal
import sys
import time
from collections import Counter
from typing import Literal

from engines import ENGINES, using
from hypothesis import HealthCheck, Phase, given, seed, settings

from fuzz.case import Case
from fuzz.cases import cases
from fuzz.checking import Finding, check

ROUND = 250
"""The number of cases for one seed."""
PATIENCE = 20
"""Seconds of real time after which a case takes too long."""


def search(side: Literal["server", "client"], rng: int) -> Counter[str]:
    """Attack one side with a round of cases; return their outcomes.

    Raises:
        Finding: The smallest case that breaks a rule.
    """
    outcomes: Counter[str] = Counter()

    @seed(rng)
    @settings(
        max_examples=ROUND,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(cases(side))
    def attack(case: Case) -> None:
        signal.alarm(PATIENCE)
        try:
            outcomes[check(case)] += 1
        finally:
            signal.alarm(0)

    attack()
    return outcomes


def give_up(*_: object) -> None:
    """Raise an error, because a case takes too long."""
    msg = f"the case takes more than {PATIENCE} s of real time"
    raise TimeoutError(msg)


def written(case: Case) -> str:
    """Return a case as Python code; join chunks of one byte, to make it shorter."""
    if len(case.chunks) > 1 and {len(chunk) for chunk in case.chunks} == {1}:
        pieces = f"tuple(bytes([byte]) for byte in {b''.join(case.chunks)!r})"
        return repr(case).replace(repr(case.chunks), pieces)
    return repr(case)


def main() -> None:
    """Attack both sides in turn until the time is over or a case breaks a rule."""
    parser = argparse.ArgumentParser(prog="nox -s fuzz --", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0])
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, give_up)
    with using(options.engine):
        attack(options.seconds, options.seed)


def attack(seconds: float, first_seed: int) -> None:
    """Attack both sides in turn; see `main()`."""
    until = time.monotonic() + seconds
    rng = first_seed
    outcomes: dict[str, Counter[str]] = {"server": Counter(), "client": Counter()}
    try:
        while time.monotonic() < until:
            outcomes["server"] += search("server", rng)
            outcomes["client"] += search("client", rng)
            rng += 1
    except Finding as finding:
        print(f"check({written(finding.case)})\n")
        sys.exit(finding.what)
    for side, counts in outcomes.items():
        print(f"{side}: {counts.total()} cases, seeds {first_seed} to {rng - 1}")
        for outcome, count in counts.most_common():
            print(f"{count:8} {outcome}")


if __name__ == "__main__":
    main()

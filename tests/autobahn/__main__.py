"""Runs the Autobahn TestSuite: ``python -m autobahn``."""

import argparse
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import gettempdir
from typing import Final

import trio
from engines import ENGINES, using

from trio_wspair.transports._engines import EngineName

from .engines import (
    Engine,
    EngineError,
    Kosoku,
    Wstest,
    fuzz_server,
    fuzzing_server,
    read_verdicts,
)
from .peers import echo_client, echo_server
from .results import (
    MODES,
    Verdicts,
    record,
    recorded,
    section_of,
    surprises,
    table,
)

_NOT_QUICK: Final = (9, 12, 13)
_SECONDS: Final = 1200.0
"""The most seconds for one mode."""


async def play(engine: Engine, mode: str, out: Path, left_out: list[str]) -> Verdicts:
    """Play the cases in one mode, and return the verdicts.

    Raises:
        EngineError: The suite has no report.
        TooSlowError: The suite or our client takes too long.
    """
    with trio.fail_after(_SECONDS):
        if mode == "server":
            async with echo_server() as server:
                await fuzz_server(engine, server.url, out, left_out)
        else:
            async with fuzzing_server(engine, out, left_out) as url:
                await echo_client(url)
    return read_verdicts(out)


def main() -> None:
    arguments = _arguments()
    sections = _NOT_QUICK if arguments.quick else ()
    left_out = [f"{section}.*" for section in sections]
    name = arguments.engine
    engine = Kosoku() if arguments.wstest is None else Wstest(arguments.wstest)
    found: dict[str, Verdicts] = {}
    for mode in MODES:
        out = arguments.reports.absolute() / mode
        try:
            # The engine "websockets" can compress; trio-websocket can't.
            with using(name, compression=name == "websockets"):
                found[mode] = trio.run(play, engine, mode, out, left_out)
        except EngineError as exc:
            sys.exit(f"{mode}: {exc}")
        except trio.TooSlowError:
            log = out / "log.txt"
            sys.exit(f"{mode}: takes more than {_SECONDS:.0f} s; {log} may say why")
        print(f"\n{mode}: {out / 'index.html'}")
        for row in table(found[mode]):
            print(f"{row[0]:26}", *(f"{cell:>14}" for cell in row[1:]), sep="")
    if arguments.record:
        record(name, _facts(name), found)
    expected = recorded(name)
    problems = [
        f"{mode}: {problem}"
        for mode, verdicts in found.items()
        for problem in surprises(
            verdicts,
            {c: v for c, v in expected[mode].items() if section_of(c) not in sections},
        )
    ]
    if problems:
        sys.exit("\n".join(["", *problems]))


def _facts(name: EngineName) -> dict[str, str]:
    """Return the versions that the verdicts depend on."""
    engine = [name, "wsproto"] if name == "trio-websocket" else [name]
    packages = ["kosoku", "trio", *engine, "trio-wspair"]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        platform.python_implementation(): platform.python_version(),
        **{package: version(package) for package in packages},
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s autobahn --", description=__doc__)
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default=ENGINES[0],
        help="the engine of the connections; default: %(default)s",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="leave out the sections on large messages and on compression",
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help="store the verdicts for the documentation",
    )
    parser.add_argument(
        "--reports",
        type=Path,
        default=Path(gettempdir()) / "autobahn-reports",
        metavar="DIR",
        help="the folder for the reports, which a browser shows",
    )
    parser.add_argument(
        "--wstest",
        metavar="PROGRAM",
        help="use the original program, for Python 2.7, instead of kosoku",
    )
    arguments = parser.parse_args()
    if arguments.record and (arguments.quick or arguments.wstest):
        parser.error("--record can't be combined with --quick or --wstest")
    return arguments


if __name__ == "__main__":
    main()

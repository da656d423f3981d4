"""The helper `processes`: programs of tests get signals and input of a terminal."""

import signal
import sys
from collections.abc import Generator

import pytest
import trio
from processes import default_signals, read_to_end, running

TELL = """
import signal
print(signal.getsignal(signal.SIGINT) == signal.default_int_handler)
print(signal.getsignal(signal.SIGHUP) == signal.SIG_DFL)
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set())
"""


@pytest.fixture
def ignored() -> Generator[None]:
    """Ignore and block signals, as `nohup` and a shell in the background do."""
    numbers = signal.SIGINT, signal.SIGHUP
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for number, handler in before.items():
        signal.signal(number, handler)


def handled() -> list[object]:
    return [
        signal.getsignal(signal.SIGINT),
        signal.getsignal(signal.SIGHUP),
        signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    ]


def test_a_program_has_default_signals_although_the_tests_ignore_them(
    ignored: None,
) -> None:
    async def main() -> str:
        with trio.fail_after(30):
            async with running(sys.executable, "-c", TELL) as process:
                return await read_to_end(process.stdout)

    before = handled()
    with default_signals():
        assert trio.run(main) == "True\n" * 3
    assert handled() == before


async def test_a_program_ends_with_its_block() -> None:
    with trio.fail_after(30):
        async with running("sleep", "1000") as process:
            pass
        assert process.returncode == -signal.SIGKILL

"""`check_websocket_pair()`: whether a way to join two halves keeps what is promised.

Knows in which order the checks run; what they check is told next door.
"""

from trio_wspair._rules.limits import check_seconds

from . import _suite_messages, _suite_verbs
from ._suite_ends import MakePair, Meeting

__all__ = ("check_websocket_pair",)


async def check_websocket_pair(
    make_pair: MakePair,
    *,
    half_open: bool = True,
    empty_close: bool = True,
    timeout: float = 10.0,
) -> None:
    """Check that two halves keep the promises G1 to G10, as far as one can see.

    For whoever writes a transport, in the manner of
    `trio.testing.check_two_way_stream`: a `Connection` of your own, a server and a
    client, a bridge. Each promise is checked with fresh halves, in both directions.

    Args:
        make_pair: Called without arguments, it gives an async context manager, such as
            `open_websocket_pair`, that gives two connected halves, which nobody has
            accepted. On leaving it has to close them. If a listener raises it may
            raise that, as a nursery does, or log it, as a server does.
        half_open: Whether a half can go on sending after the other's Close. `False`
            where something below answers Closes, such as an ASGI server.
        empty_close: Whether a Close without a code arrives as one, so that the other
            half hears 1005. `False` where it becomes another, as in ASGI.
        timeout: Seconds after which what is waited for has not come. It has to be
            longer than the ``close_grace`` of the halves. With
            `trio.testing.MockClock` it takes no time, if there is no network below.

    Raises:
        AssertionError: A promise is broken; it says which one, and by what.
        TypeError: An argument is of another type.
        ValueError: An argument is out of range.
    """
    check_seconds("timeout", timeout)
    for check in (*_suite_messages.CHECKS, *_suite_verbs.CHECKS):
        for swapped in (False, True):
            meeting = Meeting(make_pair, half_open, empty_close, timeout, swapped)
            try:
                await check(meeting)
            except Exception as exc:
                first = "second" if swapped else "first"
                exc.add_note(f"in the check {check.__name__!r}, near is the {first}")
                raise

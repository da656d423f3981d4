"""`check_websocket_pair()`: checks two connected halves against the guarantees.

It runs the checks of `_suite_messages`, and those of verbs and listeners, which are in
this module. The docstring of each check names its guarantees. `Setup` of `_suite_ends`
checks the end of both halves, and that no task is left (G10), after every check.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio
from trio.testing import assert_checkpoints

from trio_wspair._pair.websocket import ErrorEvent, MessageEvent
from trio_wspair._rules.errors import ConnectionClosedError, InvalidStateError
from trio_wspair._rules.limits import check_seconds
from trio_wspair._rules.state import ReadyState

from ._suite_ends import Check, End, MakePair, OnPurposeError, Setup, broken
from ._suite_messages import CHECKS_OF_MESSAGES

__all__ = ("check_websocket_pair",)


_MOMENT: Final = 0.2
"""Seconds in which a message certainly arrives."""


async def sync_verbs_do_all_or_nothing(setup: Setup) -> None:
    """G4: also in a cancelled scope; they raise if the state doesn't allow them."""
    async with setup.ends() as (near, far):
        verbs = near.socket
        _refuses(near, InvalidStateError, "send() before accept()", verbs.send, "x")
        _refuses(near, InvalidStateError, "close() before accept()", verbs.close)
        far.accept()
        data = bytearray(b"as it was")
        with trio.CancelScope() as scope:  # noqa: ASYNC100 - sync verbs don't wait
            scope.cancel()
            near.accept()
            near.send("cancelled")
            with near.keeping("G4", "send(bytearray)"):
                verbs.send(data)
            data[:] = b"later"
        _refuses(near, TypeError, "send(None)", verbs.send, None)
        _refuses(near, ValueError, "close(1005)", verbs.close, 1005)
        _refuses(near, ValueError, "a reason of 124 bytes", verbs.close, 1000, "é" * 62)
        near.send("last")
        near.close(1000)
        _refuses(near, InvalidStateError, "send() after close()", verbs.send, "x")
        near.close(3000)  # Is ignored.
        await far.expect("cancelled", b"as it was", "last", code=1000)
        _refuses(far, ConnectionClosedError, "send() at the end", far.socket.send, "x")
        await near.expect(code=1000)


async def async_verbs_are_checkpoints(setup: Setup) -> None:
    """G5: also if they don't have to wait."""
    async with setup.ends() as (near, far):
        near.accept()
        far.accept(pull=True)
        near.send("a")
        await trio.sleep(_MOMENT)
        verbs: list[tuple[End, str, Callable[[], Awaitable[Any]]]] = [
            (far, "receive()", far.socket.receive),
            (near, "drain()", near.socket.drain),
            (near, "aclose()", near.socket.aclose),
            (near, "aclose() again", near.socket.aclose),
            (near, "wait_closed()", near.socket.wait_closed),
        ]
        for end, what, verb in verbs:
            with end.keeping("G5", what), assert_checkpoints():
                await verb()


async def a_cancelled_verb_has_done_nothing(setup: Setup) -> None:
    """G5: no message is lost, and `Cancelled` is raised."""
    async with setup.ends() as (near, far):
        near.accept()
        far.accept(pull=True)
        near.send("a")
        await trio.sleep(_MOMENT)
        for verb in (far.socket.receive, far.socket.drain, far.socket.wait_closed):
            what = f"{verb.__name__}()"
            with far.keeping("G5", what), trio.CancelScope() as scope:
                scope.cancel()
                await verb()
            if not scope.cancelled_caught:
                what = f"{what} of {far.name} was not cancelled in a cancelled scope"
                raise broken("G5", what)
        with far.keeping("G5", "receive() after a cancelled one"):
            far.check_messages(["a"], [await far.socket.receive()])


async def aclose_closes_once(setup: Setup) -> None:
    """G6: further calls do nothing."""
    async with setup.ends() as (near, far):
        near.accept()
        far.accept()
        for end, code in ((near, 4000), (near, 4001), (far, 4002)):
            with end.keeping("G6", "aclose()"):
                await end.socket.aclose(code)
            _is_closed(end, "aclose()")
        await far.expect(code=4000)
        await near.expect(code=4000)


async def a_cancelled_aclose_has_closed(setup: Setup) -> None:
    """G6: although the other end hasn't answered; that gets the Close all the same."""
    async with setup.ends() as (near, far):
        near.accept()
        with near.keeping("G6", "a cancelled aclose()"), trio.CancelScope() as scope:
            scope.cancel()
            await near.socket.aclose()
        _is_closed(near, "a cancelled aclose()")
        far.accept()
        await far.expect(code=1000)


async def a_ping_returns_seconds_or_is_refused(setup: Setup) -> None:
    """G5: it returns seconds on a network connection, and raises without one."""
    async with setup.ends() as (near, far):
        near.accept()
        far.accept()
        near.send("before the pings")
        await far.expect("before the pings")
        with near.keeping("G5", "ping()"), assert_checkpoints():
            seconds = await _ping(near)
        latency = near.socket.latency
        if seconds is None and latency is None:
            return
        if seconds is None or seconds < 0 or latency is None or latency < 0:
            what = f"ping() of {near.name} has returned {seconds}, latency is {latency}"
            raise broken("G5", what)
        with near.keeping("G5", "ping()"), trio.CancelScope() as scope:
            scope.cancel()
            await near.socket.ping()
        if not scope.cancelled_caught:
            what = f"ping() of {near.name} was not cancelled in a cancelled scope"
            raise broken("G5", what)
        near.send("after the pings")
        await far.expect("before the pings", "after the pings")
        near.close(1000)
        await near.expect(code=1000)
        with near.keeping("G5", "ping() at the end"):
            try:
                await near.socket.ping()
            except ConnectionClosedError:
                return
        raise broken("G5", f"ping() of {near.name} has not raised after the end")


async def _ping(end: End) -> float | None:
    try:
        return await end.socket.ping()
    except InvalidStateError:
        return None


async def a_block_may_end_in_any_way(setup: Setup) -> None:
    """G6 and G10: by an exception or cancelled, with messages on their way."""
    for raises in (True, False):
        async with setup.ends() as (near, far):
            near.accept()
            far.accept()
            near.send("under way")
            if raises:
                raise OnPurposeError
            near.block.cancel()
            await trio.lowlevel.checkpoint()


async def a_listener_that_raises_fails_its_half(setup: Setup) -> None:
    """G7: it gets an `error` event and a close; the other end gets 1011.

    A nursery raises the exception, a server logs it and goes on.
    """
    error = OnPurposeError("a listener raises this on purpose")

    def fail(_event: MessageEvent) -> None:
        raise error

    async with setup.ends() as (near, far):
        far.socket.add_event_listener("message", fail)
        near.accept()
        far.accept()
        near.send("a")
        await far.expect("a", code=1006, promise="G7")
        await near.expect(code=1011, promise="G7")
    errors = [event.error for event in far.received if isinstance(event, ErrorEvent)]
    if errors != [error]:
        what = f"the error events of {far.name} have {errors!r}, not {error!r}"
        raise broken("G7", what)


async def async_listeners_never_overlap(setup: Setup) -> None:
    """G8: the next event waits, and so does the close event."""
    running = 0
    most = 0

    async def listen(_event: object) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(0.001)
        running -= 1

    async with setup.ends() as (near, far):
        far.socket.add_event_listener("message", listen)
        far.socket.add_event_listener("close", listen)
        near.accept()
        far.accept()
        near.send("a", "b", "c")
        near.close(1000)
        await far.expect("a", "b", "c", code=1000)
    if most != 1:
        raise broken("G8", f"{most} listeners of {far.name} ran at once")


_CHECKS_OF_VERBS: Final[tuple[Check, ...]] = (
    sync_verbs_do_all_or_nothing,
    async_verbs_are_checkpoints,
    a_cancelled_verb_has_done_nothing,
    aclose_closes_once,
    a_cancelled_aclose_has_closed,
    a_ping_returns_seconds_or_is_refused,
    a_block_may_end_in_any_way,
    a_listener_that_raises_fails_its_half,
    async_listeners_never_overlap,
)


def _is_closed(end: End, what: str) -> None:
    if end.socket.ready_state is not ReadyState.CLOSED:
        state = end.socket.ready_state.name
        raise broken("G6", f"{end.name} is {state} after {what}")


def _refuses(
    end: End,
    error: type[Exception],
    what: str,
    verb: Callable[..., object],
    *args: object,
) -> None:
    """Check that a sync verb raises."""
    try:
        verb(*args)
    except error:
        return
    raise broken("G4", f"{what} of {end.name} has not raised {error.__name__}")


async def check_websocket_pair(
    make_pair: MakePair,
    *,
    half_open: bool = True,
    empty_close: bool = True,
    timeout: float = 10.0,
) -> None:
    """Check that two halves keep the promises G1 to G10, as seen from outside.

    For authors of transports (a `Connection`, a server with its client, a bridge), in
    the manner of `trio.testing.check_two_way_stream`. Each promise is checked with
    fresh halves, in both directions.

    Args:
        make_pair: A function without arguments that returns an async context manager,
            such as `open_websocket_pair`, which yields two connected halves that are
            not accepted. On leaving, it has to close them. When a listener raises, it
            may raise that exception, as a nursery does, or log it, as a server does.
        half_open: Whether a half can send after the other's Close. `False` if a layer
            below answers Closes, such as an ASGI server.
        empty_close: Whether a Close without a code arrives without one, so that the
            other half gets 1005. `False` if it gets a code, as in ASGI.
        timeout: Seconds that each step may take; longer than the ``close_grace`` of
            the halves. With `trio.testing.MockClock` and without a network, waiting
            takes no time.

    Raises:
        AssertionError: A promise is broken. The text says which one, and how.
        TypeError: An argument is of another type.
        ValueError: An argument is out of range.
    """
    check_seconds("timeout", timeout)
    for check in (*CHECKS_OF_MESSAGES, *_CHECKS_OF_VERBS):
        for swapped in (False, True):
            setup = Setup(make_pair, half_open, empty_close, timeout, swapped)
            try:
                await check(setup)
            except Exception as exc:
                first = "second" if swapped else "first"
                exc.add_note(f"in the check {check.__name__!r}, near is the {first}")
                raise

"""The halves that are served in one nursery, and how they end.

Knows nothing of messages and who delivers them, and has no rules of its own about
closing: it carries out what `state` decides.

A half ends in two steps. First its end is decided, synchronously, by whoever knows
it: a Close that is taken from the inbox, a listener that raises, a nursery that
falls. Then the events that tell it are delivered, `error` if there is an error and
`close`, and the half is *settled*. When a nursery falls, all its halves are decided
before anything is sent, so that none sees the farewell of another.
"""

import contextvars
from collections.abc import Awaitable, Callable

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from trio_wspair._rules.codes import Close
from trio_wspair._rules.state import Failure
from trio_wspair._tasks.nurseries import let_others_clean_up, raise_together
from trio_wspair._tasks.ready import ReadyQueue

from .delivery import Ending
from .half import Half
from .websocket import WebSocket, close_grace

__all__ = ("Served", "ServedHalves")


@attrs.define(slots=True, eq=False)
class Served:
    """A half that a dispatcher serves."""

    queue: "ReadyQueue[Served | None]"
    """`None` in it is for a look around."""
    socket: WebSocket
    half: Half
    pull: bool
    context: contextvars.Context
    passed_by: bool = False
    """A task of its own is serving it, or it is settled."""
    ending: Ending | None = None
    """The telling of its end, once that is decided."""

    def wake(self) -> None:
        """Have it served soon."""
        self.queue.put(self)


@attrs.define(slots=True, eq=False)
class ServedHalves:
    """Those of one nursery, until their ends have been told."""

    _nursery: trio.Nursery
    _queue: ReadyQueue[Served | None]
    present: dict[Served, None] = attrs.field(init=False, factory=dict[Served, None])
    raised: list[BaseException] = attrs.field(init=False, factory=list[BaseException])
    """What listeners have raised, until it is raised from the nursery."""
    falling: bool = attrs.field(init=False, default=False)
    """All of them end. Nobody can be added any more."""

    def add(self, served: Served) -> None:
        """Let this one belong to them."""
        self.present[served] = None

    def start_task(
        self,
        served: Served,
        task: Callable[..., Awaitable[None]],
        *args: object,
    ) -> None:
        """Serve this one in a task of its own, from now on."""
        served.passed_by = True
        self._nursery.start_soon(task, served, *args)

    # -- the end of one ---------------------------------------------------------------

    def _ending(self, served: Served) -> Ending:
        if served.ending is None:
            served.ending = Ending(served.socket, close_grace(served.socket))
            if self.falling:
                served.ending.hurry()
        return served.ending

    def end(self, served: Served) -> None:
        """Tell the end of a half that is decided."""
        ending = self._ending(served)
        ending.tell()
        if ending.awaitable is not None:
            self.start_task(served, self.tell_end_and_raise, [])
        else:
            self._settle(served)
            self.raised += ending.take_errors()

    async def tell_end_and_raise(
        self, served: Served, raised: list[BaseException]
    ) -> None:
        """Tell the end of one half, and raise what was raised before or meanwhile."""
        before = len(raised)
        await self._tell_end(served, raised)
        if len(raised) > before:
            await self.fall_by_failure()
        raise_together(raised)

    async def _tell_end(self, served: Served, raised: list[BaseException]) -> None:
        """Tell the end of one half. Keep what its listeners raise."""
        served.half.listener_task = trio.lowlevel.current_task()
        ending = self._ending(served)
        told = False
        while not told:  # Until no listener is left, if one is interrupted.
            try:
                await ending.finish()
                told = True
            except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised by the caller
                raised.append(exc)
        raised += ending.take_errors()
        self._settle(served)

    @enable_ki_protection
    def _settle(self, served: Served) -> None:
        """Let go of a half whose end has been told."""
        half = served.half
        half.listener_task = None
        if half.peer.released and not half.state.finished:
            # In half-open it owes its own Close, but there is nobody to hear it.
            half.fail(Failure("the other half has ended"))
        served.passed_by = half.state.finished
        if not served.passed_by or served not in self.present:
            return  # In half-open it still owes its own Close.
        del self.present[served]
        half.finish()
        if not served.pull:  # What was not pulled yet can still be.
            half.inbox.close()
        if not self.present and not self.falling:
            self._queue.put(None)

    # -- the end of all -------------------------------------------------------------

    @enable_ki_protection
    def fall(self, *, queued_ends_count: bool = False) -> None:
        """Decide the end of every half, then say goodbye for them. Idempotent."""
        if self.falling:
            return
        self.falling = True
        farewells: list[tuple[Half, Close | None]] = []
        for served in self.present:
            half = served.half
            answer = None
            if queued_ends_count and isinstance(half.inbox.end, Close):
                answer = half.state.receive_close(half.inbox.end)
            half.fail(Failure("the nursery of this half was cancelled"))
            half.inbox.close()
            farewells.append((half, answer))
            if served.ending is not None:
                served.ending.hurry()
        for half, answer in farewells:
            if answer is None:
                half.say_close(Close(1001))
            else:
                half.outbox.put_end(answer)

    async def finish_all(self) -> None:
        """Tell the end of every half that no task of its own does it for."""
        waiting: list[Served] = []
        for served in list(self.present):
            if served.passed_by:
                continue
            ending = self._ending(served)
            while exc := _try(served.context, ending.tell):
                self.raised.append(exc)
            if ending.awaitable is None:
                self.raised += ending.take_errors()
                self._settle(served)
            else:
                waiting.append(served)
        if waiting:
            with trio.CancelScope(shield=True):  # The endings bound it.
                async with trio.open_nursery() as nursery:
                    for served in waiting:
                        served.context.run(
                            nursery.start_soon, self._tell_end, served, self.raised
                        )

    async def fall_by_failure(self) -> None:
        """Let all halves fall because a listener has raised."""
        # Those that fail at the same moment are to decide that by themselves.
        await let_others_clean_up()
        self.fall(queued_ends_count=True)
        self._nursery.cancel_scope.cancel(reason="a WebSocket listener raised")


def _try(
    context: contextvars.Context, call: Callable[[], None]
) -> BaseException | None:
    try:
        context.run(call)
    except BaseException as exc:  # noqa: BLE001, ASYNC103 - the caller raises it
        return exc  # noqa: ASYNC104
    return None

"""The two ends that the behaviour suite checks: what they hear, and how they end.

Knows halves from outside only, as their users do; which promise is checked by what is
told next door.
"""

import sys
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Final

import attrs
import trio

from trio_wspair._pair.websocket import CloseEvent, ErrorEvent, MessageEvent, WebSocket
from trio_wspair._rules.errors import WebSocketError
from trio_wspair._rules.state import ReadyState

__all__ = ("Check", "End", "MakePair", "Meeting", "OnPurposeError", "broken")

MakePair = Callable[[], AbstractAsyncContextManager[Iterable[WebSocket]]]
"""Makes what gives two connected halves."""
Message = str | bytes
Heard = Message | ErrorEvent | CloseEvent

_PROMISES: Final = {
    "G1": "order",
    "G2": "one close, last",
    "G3": "nothing lost",
    "G4": "sync verbs are atomic",
    "G5": "async verbs are checkpoints",
    "G6": "closing closes",
    "G7": "failures are loud and contained",
    "G8": "one at a time",
    "G9": "bounded memory",
    "G10": "no leaks",
}
"""What `docs/closing.rst` promises."""
_OPEN_ENDED: Final = sys.maxsize


class OnPurposeError(Exception):
    """What a listener or a block raises in a check."""


def broken(promise: str, what: str) -> AssertionError:
    """Return the error for a promise that is not kept."""
    return AssertionError(f"{promise} ({_PROMISES[promise]}) is broken: {what}")


def shown(items: Sequence[object]) -> str:
    """Return what was heard in a line: the first and the last, if it is much."""
    texts = [_shown(item) for item in items]
    if len(texts) > 7:
        texts[3:-3] = [f"{len(texts) - 6} more"]
    return ", ".join(texts) or "nothing"


def _shown(item: object) -> str:
    if isinstance(item, (str, bytes)) and len(item) > 40:
        unit = "characters" if isinstance(item, str) else "bytes"
        return f"{item[:4]!r}... ({len(item)} {unit})"
    return repr(item)


@attrs.define(eq=False)
class End:
    """One half, and all that it has heard."""

    socket: WebSocket
    name: str
    timeout: float
    block: trio.CancelScope
    """Around the context manager that has given it."""
    heard: list[Heard] = attrs.field(factory=list[Heard])
    _news: trio.Event = attrs.Factory(trio.Event)

    def __attrs_post_init__(self) -> None:
        self.socket.add_event_listener("message", self._hear_message)
        self.socket.add_event_listener("error", self._hear)
        self.socket.add_event_listener("close", self._hear)

    def _hear_message(self, event: MessageEvent) -> None:
        self._hear(event.data)

    def _hear(self, item: Heard) -> None:
        self.heard.append(item)
        self._news.set()
        self._news = trio.Event()

    @property
    def messages(self) -> list[Message]:
        """The messages that it has heard."""
        return [item for item in self.heard if isinstance(item, (str, bytes))]

    @property
    def closes(self) -> list[CloseEvent]:
        """The close events that it has heard: one, in the end."""
        return [item for item in self.heard if isinstance(item, CloseEvent)]

    # -- verbs ------------------------------------------------------------------------

    def accept(self, *, pull: bool = False, allow_half_open: bool = False) -> None:
        """Take it for the application."""
        with self.keeping("G4", "accept()"):
            if pull:  # Nobody calls it, and the log would have a warning of that.
                self.socket.remove_event_listener("message", self._hear_message)
            self.socket.accept(pull=pull, allow_half_open=allow_half_open)

    def send(self, *messages: Message) -> None:
        """Send messages."""
        for message in messages:
            with self.keeping("G4", f"send({_shown(message)})"):
                self.socket.send(message)

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Say Close."""
        with self.keeping("G4", "close()"):
            self.socket.close(code, reason)

    @contextmanager
    def keeping(self, promise: str, what: str) -> Generator[None]:
        """Bound the block, and tell which promise is broken if it fails."""
        try:
            with trio.fail_after(self.timeout):
                yield
        except trio.TooSlowError:
            why = f"{what} of {self.name} has not returned in {self.timeout} s"
            raise broken(promise, why) from None
        except (WebSocketError, AssertionError) as exc:
            raise broken(promise, f"{what} of {self.name}: {exc!r}") from exc

    # -- expectations -----------------------------------------------------------------

    async def hears(
        self,
        *messages: Message,
        code: int | tuple[int, ...] = (),
        reason: str | None = None,
        promise: str = "G2",
    ) -> None:
        """Wait until these have come, and if there is a code its close event.

        It is clean, unless the code is 1006.
        """
        codes = (code,) if isinstance(code, int) else code
        count = _OPEN_ENDED if codes else len(messages)
        await self._wait(lambda: len(self.messages) >= count or bool(self.closes))
        self.check_messages(messages)
        if not codes:
            return
        if not self.closes:
            what = f"{self.name} waits for close {code} for {self.timeout} s"
            raise broken("G6", f"{what}, and has heard {shown(self.heard)}")
        (close, *_) = self.closes
        if close.code not in codes or close.was_clean is (close.code == 1006):
            what = f"{self.name} should close with {code}, and has heard {close!r}"
            raise broken(promise, what)
        if reason is not None and close.reason != reason:
            what = f"{self.name} should close with the reason {reason!r}: {close!r}"
            raise broken(promise, what)

    async def _wait(self, happened: Callable[[], bool]) -> None:
        with trio.move_on_after(self.timeout):
            while not happened():
                await self._news.wait()

    def check_messages(
        self, sent: Sequence[Message], heard: Sequence[Message] | None = None
    ) -> None:
        """See that these have come, and in this order."""
        heard = self.messages if heard is None else heard
        if list(heard) == list(sent):
            return
        for message in heard:
            if message not in sent:
                what = f"{self.name} has heard {_shown(message)}, which was not sent"
                raise broken("G3", what)
        missing = list(sent)
        for message in heard:
            if message not in missing:
                what = f"{self.name} has heard {_shown(message)} once too often"
                raise broken("G1", what)
            missing.remove(message)
        if missing:
            what = f"{shown(missing)} was sent to {self.name} and has not arrived"
            raise broken("G3", f"{what}; it has heard {shown(self.heard)}")
        pairs = zip(sent, heard, strict=True)
        earlier, later = next(two for two in pairs if two[0] != two[1])
        what = f"{_shown(earlier)} was sent before {_shown(later)}, and has come after"
        raise broken("G1", f"{what} it to {self.name}")

    async def check_end(self) -> None:
        """See that its life has ended as it must, whatever has happened."""
        with trio.move_on_after(self.timeout):
            while self.socket.ready_state is not ReadyState.CLOSED:  # noqa: ASYNC110
                await trio.sleep(0.001)
        if self.socket.ready_state is not ReadyState.CLOSED:
            state = self.socket.ready_state.name
            what = f"{self.name} is {state} although its context manager was left"
            raise broken("G6", what)
        await self._wait(lambda: bool(self.closes))
        events = [item for item in self.heard if not isinstance(item, (str, bytes))]
        if len(self.closes) != 1 or len(events) > 2:
            what = f"{self.name} has heard these events at its end: {shown(events)}"
            raise broken("G2", what)
        if not isinstance(self.heard[-1], CloseEvent):
            what = f"{self.name} has heard {_shown(self.heard[-1])} after its close"
            raise broken("G2", what)


@attrs.frozen
class Meeting:
    """How a check meets fresh ends."""

    make_pair: MakePair
    half_open: bool
    empty_close: bool
    timeout: float
    swapped: bool
    """Whether the second half comes first."""

    @asynccontextmanager
    async def ends(self) -> AsyncGenerator[tuple[End, End]]:
        """Give two ends, and see afterwards that they have ended and left nothing.

        An `OnPurposeError` may come out of the context manager, or not.
        """
        before = _tasks()
        failed: AssertionError | None = None
        ends: list[End] = []
        block = trio.CancelScope()
        with block, trio.move_on_after(self.timeout) as patience:
            try:
                async with self.make_pair() as pair:
                    first, second = pair
                    ends.append(End(first, "the first half", self.timeout, block))
                    ends.append(End(second, "the second half", self.timeout, block))
                    patience.deadline = float("inf")
                    try:
                        yield (ends[1], ends[0]) if self.swapped else (ends[0], ends[1])
                    except AssertionError as exc:  # No nursery shall wrap it.
                        failed = exc
                    finally:
                        patience.deadline = trio.current_time() + self.timeout
            except* OnPurposeError:
                pass
        if failed is not None:
            raise failed
        if patience.cancel_called:
            verb = "leaving" if ends else "entering"
            what = f"{verb} the context manager has not ended in {self.timeout} s"
            raise broken("G6", what)
        for end in ends:
            await end.check_end()
        await self._check_tasks(before)

    async def _check_tasks(self, before: set[trio.lowlevel.Task]) -> None:
        with trio.move_on_after(self.timeout):
            while _tasks() - before:  # noqa: ASYNC110 - nobody tells of it
                await trio.sleep(0.001)
        left = sorted(task.name for task in _tasks() - before)
        if left:
            what = f"these tasks are left after the context manager: {', '.join(left)}"
            raise broken("G10", what)


def _tasks() -> set[trio.lowlevel.Task]:
    """Return every task that there is."""
    found = set[trio.lowlevel.Task]()
    root = trio.lowlevel.current_root_task()
    waiting = [root] if root is not None else []
    while waiting:
        task = waiting.pop()
        found.add(task)
        for nursery in task.child_nurseries:
            waiting += nursery.child_tasks
    return found


Check = Callable[[Meeting], Awaitable[None]]
"""A check of one promise."""

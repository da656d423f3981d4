"""The two ends that the behaviour suite checks: what they receive, and how they end.

Knows halves only from outside, as users do. `_suite` and `_suite_messages` know which
promise is checked by which steps.
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

__all__ = ("Check", "End", "MakePair", "OnPurposeError", "Setup", "broken")

MakePair = Callable[[], AbstractAsyncContextManager[Iterable[WebSocket]]]
"""Returns a context manager that yields two connected halves."""
Message = str | bytes
Received = Message | ErrorEvent | CloseEvent

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
"""The promises of `docs/closing.rst`."""
_UNLIMITED: Final = sys.maxsize


class OnPurposeError(Exception):
    """Raised by a listener or a block in a check."""


def broken(promise: str, what: str) -> AssertionError:
    """Return the error for a broken promise."""
    return AssertionError(f"{promise} ({_PROMISES[promise]}) is broken: {what}")


def shown(items: Sequence[object]) -> str:
    """Show items in one line; of many, the first and the last ones."""
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
    """One half, and all that it has received."""

    socket: WebSocket
    name: str
    timeout: float
    block: trio.CancelScope
    """Around the context manager that yields the half."""
    received: list[Received] = attrs.field(factory=list[Received])
    _changed: trio.Event = attrs.Factory(trio.Event)

    def __attrs_post_init__(self) -> None:
        self.socket.add_event_listener("message", self._keep_message)
        self.socket.add_event_listener("error", self._keep)
        self.socket.add_event_listener("close", self._keep)

    def _keep_message(self, event: MessageEvent) -> None:
        self._keep(event.data)

    def _keep(self, item: Received) -> None:
        self.received.append(item)
        self._changed.set()
        self._changed = trio.Event()

    @property
    def messages(self) -> list[Message]:
        """The messages that it has received."""
        return [item for item in self.received if isinstance(item, (str, bytes))]

    @property
    def closes(self) -> list[CloseEvent]:
        """The close events that it has received: one, in the end."""
        return [item for item in self.received if isinstance(item, CloseEvent)]

    # -- verbs ------------------------------------------------------------------------

    def accept(self, *, pull: bool = False, allow_half_open: bool = False) -> None:
        """Accept the half."""
        with self.keeping("G4", "accept()"):
            if pull:  # A message listener would never run, and be logged as a mistake.
                self.socket.remove_event_listener("message", self._keep_message)
            self.socket.accept(pull=pull, allow_half_open=allow_half_open)

    def send(self, *messages: Message) -> None:
        """Send messages."""
        for message in messages:
            with self.keeping("G4", f"send({_shown(message)})"):
                self.socket.send(message)

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Close the half."""
        with self.keeping("G4", "close()"):
            self.socket.close(code, reason)

    @contextmanager
    def keeping(self, promise: str, what: str) -> Generator[None]:
        """Run the block within the timeout; if it fails, the promise is broken."""
        try:
            with trio.fail_after(self.timeout):
                yield
        except trio.TooSlowError:
            why = f"{what} of {self.name} has not returned in {self.timeout} s"
            raise broken(promise, why) from None
        except (WebSocketError, AssertionError) as exc:
            raise broken(promise, f"{what} of {self.name}: {exc!r}") from exc

    # -- expectations -----------------------------------------------------------------

    async def expect(
        self,
        *messages: Message,
        code: int | tuple[int, ...] = (),
        reason: str | None = None,
        promise: str = "G2",
    ) -> None:
        """Wait for all these messages and, with a code, for the close event.

        The close has to be clean, unless the code is 1006.
        """
        codes = (code,) if isinstance(code, int) else code
        count = _UNLIMITED if codes else len(messages)
        await self._wait(lambda: len(self.messages) >= count or bool(self.closes))
        self.check_messages(messages)
        if not codes:
            return
        if not self.closes:
            what = f"{self.name} has no close {code} after {self.timeout} s"
            raise broken("G6", f"{what}; it has received {shown(self.received)}")
        (close, *_) = self.closes
        if close.code not in codes or close.was_clean is (close.code == 1006):
            what = f"{self.name} should close with {code}, but has received {close!r}"
            raise broken(promise, what)
        if reason is not None and close.reason != reason:
            what = f"{self.name} should close with the reason {reason!r}"
            raise broken(promise, f"{what}, but has received {close!r}")

    async def _wait(self, happened: Callable[[], bool]) -> None:
        with trio.move_on_after(self.timeout):
            while not happened():
                await self._changed.wait()

    def check_messages(
        self, sent: Sequence[Message], received: Sequence[Message] | None = None
    ) -> None:
        """Check that the sent messages were received, in their order."""
        received = self.messages if received is None else received
        if list(received) == list(sent):
            return
        for message in received:
            if message not in sent:
                what = f"{self.name} has received {_shown(message)}"
                raise broken("G3", f"{what}, which was not sent")
        missing = list(sent)
        for message in received:
            if message not in missing:
                what = f"{self.name} has received {_shown(message)} once too often"
                raise broken("G1", what)
            missing.remove(message)
        if missing:
            what = f"{self.name} has not received {shown(missing)}"
            raise broken("G3", f"{what}; it has received {shown(self.received)}")
        pairs = zip(sent, received, strict=True)
        earlier, later = next(two for two in pairs if two[0] != two[1])
        what = f"{self.name} has received {_shown(later)} before {_shown(earlier)}"
        raise broken("G1", f"{what}, which was sent earlier")

    async def check_end(self) -> None:
        """Check that the half has ended, with one close event at the end."""
        with trio.move_on_after(self.timeout):
            while self.socket.ready_state is not ReadyState.CLOSED:  # noqa: ASYNC110
                await trio.sleep(0.001)
        if self.socket.ready_state is not ReadyState.CLOSED:
            state = self.socket.ready_state.name
            what = f"{self.name} is {state} although its context manager was left"
            raise broken("G6", what)
        await self._wait(lambda: bool(self.closes))
        events = [item for item in self.received if not isinstance(item, (str, bytes))]
        if len(self.closes) != 1 or len(events) > 2:
            what = f"{self.name} has received these events at its end: {shown(events)}"
            raise broken("G2", what)
        last = self.received[-1]
        if not isinstance(last, CloseEvent):
            what = f"{self.name} has received {_shown(last)} after its close"
            raise broken("G2", what)


@attrs.frozen
class Setup:
    """Makes fresh ends for a check, as `check_websocket_pair()` was asked to."""

    make_pair: MakePair
    half_open: bool
    empty_close: bool
    timeout: float
    swapped: bool
    """Whether the second half comes first."""

    @asynccontextmanager
    async def ends(self) -> AsyncGenerator[tuple[End, End]]:
        """Yield two ends; afterwards check that they have ended and no task is left.

        The context manager may raise the `OnPurposeError` of a listener, or not.
        """
        before = _tasks()
        failed: AssertionError | None = None
        ends: list[End] = []
        block = trio.CancelScope()
        with block, trio.move_on_after(self.timeout) as limit:
            try:
                async with self.make_pair() as pair:
                    first, second = pair
                    ends.append(End(first, "the first half", self.timeout, block))
                    ends.append(End(second, "the second half", self.timeout, block))
                    limit.deadline = float("inf")
                    try:
                        yield (ends[1], ends[0]) if self.swapped else (ends[0], ends[1])
                    except AssertionError as exc:  # A nursery would wrap it in a group.
                        failed = exc
                    finally:
                        limit.deadline = trio.current_time() + self.timeout
            except* OnPurposeError:
                pass
        if failed is not None:
            raise failed
        if limit.cancel_called:
            verb = "leaving" if ends else "entering"
            what = f"{verb} the context manager has not ended in {self.timeout} s"
            raise broken("G6", what)
        for end in ends:
            await end.check_end()
        await self._check_tasks(before)

    async def _check_tasks(self, before: set[trio.lowlevel.Task]) -> None:
        with trio.move_on_after(self.timeout):
            while _tasks() - before:  # noqa: ASYNC110 - Trio has no event for it
                await trio.sleep(0.001)
        left = sorted(task.name for task in _tasks() - before)
        if left:
            what = f"these tasks are left after the context manager: {', '.join(left)}"
            raise broken("G10", what)


def _tasks() -> set[trio.lowlevel.Task]:
    """Return all tasks of this run."""
    found = set[trio.lowlevel.Task]()
    root = trio.lowlevel.current_root_task()
    waiting = [root] if root is not None else []
    while waiting:
        task = waiting.pop()
        found.add(task)
        for nursery in task.child_nurseries:
            waiting += nursery.child_tasks
    return found


Check = Callable[[Setup], Awaitable[None]]
"""A check of one promise."""

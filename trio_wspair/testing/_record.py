"""`Record`: what the two halves of a conversation have sent and received, in order.

Knows which halves belong to the conversation, and what they wait for when a test fails.
`_pictures` knows how a record is drawn.
"""

import json
from collections.abc import Sequence
from pathlib import PurePath
from types import FrameType
from typing import Any, Final, Self, cast

import attrs
import trio

from trio_wspair._pair.instruments import ConnectionInfo, Instrument, TakenBy
from trio_wspair._pair.verbs import half_of
from trio_wspair._pair.websocket import CloseEvent, WebSocket
from trio_wspair._rules.state import Holder

from ._entries import Entry, FailedStep
from ._pictures import draw_html, draw_mermaid, draw_svg, terminal_diagram

__all__ = (
    "ConversationError",
    "Record",
    "cut",
    "in_one_line",
    "is_inside",
    "place_of",
    "state_of",
    "waits_of",
)


_INNER_PACKAGES: Final = frozenset({"trio", "trio_wspair"})


def state_of(socket: WebSocket) -> list[str]:
    """Return lines about the state of a half."""
    half = half_of(socket)
    lines = [half.state.describe()]
    queue = half.inbox.items.statistics()
    waiting = queue.current_buffer_used - (half.inbox.end is not None)
    if waiting > 0:
        noun = "message was" if waiting == 1 else "messages were"
        lines.append(f"{waiting} {noun} not taken")
    if half.state.holder is Holder.NONE:
        lines.append("accept() was not called")
    if (
        half.listener_task is None
        and half.state.holder is Holder.APPLICATION
        and half.state.end is None
        and "message" not in half.listeners
    ):
        lines.append("it has no listener for messages")
    return lines


def waits_of(socket: WebSocket) -> list[str]:
    """Return descriptions of the calls and listeners of a half that wait."""
    half = half_of(socket)
    lines: list[str] = []
    if half.inbox.items.statistics().tasks_waiting_receive:
        lines.append("receive(), or iteration, waits for a message")
    task = half.listener_task
    # The current task is not waiting: it may be the one that has just raised.
    if task is not None and task is not trio.lowlevel.current_task():
        by_object = half.state.holder is Holder.HIBERNATION
        what = "its Durable Object" if by_object else "a listener"
        lines.append(f"{what} waits{place_of(task)}")
    return lines


def place_of(task: trio.lowlevel.Task) -> str:
    """Return the place in user code at which a task waits, ``""`` if it is unknown.

    It is unknown for a handler of a Durable Object, which is driven step by step.
    """
    place = ""
    for frame, line in task.iter_await_frames():
        if not is_inside(frame):
            code = frame.f_code
            name = code.co_qualname.rpartition("<locals>.")[2]
            place = f", in {name}, {PurePath(code.co_filename).name}:{line}"
    return place


def is_inside(frame: FrameType) -> bool:
    """Return whether a frame runs code of this library or of Trio."""
    name = str(frame.f_globals.get("__name__", ""))
    return name.partition(".")[0] in _INNER_PACKAGES


_VERSION: Final = 1


@attrs.define
class _Drawing:
    """What the pictures of a record show besides its entries."""

    failure: FailedStep | None = None
    """The step that is marked."""
    length: int | None = None
    """How many entries are drawn; `None` for all."""
    end_of_test: FailedStep | None = None
    """The state of the halves when the test had run, if it has."""
    raised: list[tuple[Exception, FailedStep]] = attrs.Factory(
        list[tuple[Exception, FailedStep]]
    )
    """What the application has raised, and the state of the halves at that moment."""

    def end_at(self, step: FailedStep) -> None:
        """Mark a step, and draw no entries after it."""
        self.failure, self.length = step, step.at


class Record(Instrument):
    """The conversation of two halves, recorded by an instrument.

    It records the first pair that is made while it is in use. When a network connection
    has taken one half of that pair, the half behind the other end of the connection
    takes its place. Other pairs are not recorded.

    Args:
        names: The names of the two halves, the client's first.

    Raises:
        TypeError: `names` is not two strings.
        ValueError: The two names are the same.
    """

    def __init__(self, names: tuple[str, str] = ("client", "server")) -> None:
        _check_names(names)
        first, second = names
        if first == second:
            msg = f"the names of the two halves must differ, not {first!r} twice"
            raise ValueError(msg)
        self.names = names
        """The names of the two halves."""
        self._events: list[tuple[WebSocket | None, Entry]] = []
        self._other: dict[WebSocket, WebSocket] = {}
        self._name_of: dict[WebSocket, str] = {}
        self._coupled: set[WebSocket] = set()
        """The halves that a connection has taken."""
        self._connections: set[int] = set()
        """The numbers of those connections."""
        self._began: float | None = None
        self._drawing = _Drawing()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The events so far, in order."""
        return tuple(
            entry if ws is None else attrs.evolve(entry, half=self._name_of[ws])
            for ws, entry in self._events
            if ws is None or ws in self._name_of
        )

    @property
    def halves(self) -> dict[str, WebSocket]:
        """The halves that exist in this process, by their names."""
        return {name: ws for ws, name in self._name_of.items()}

    @property
    def failure(self) -> FailedStep | None:
        """The step at which the test has failed. The pictures mark it."""
        return self._drawing.failure

    @property
    def _failed(self) -> bool:
        """Whether the pictures end where the test has failed."""
        return self._drawing.length is not None

    def __repr__(self) -> str:
        return f"<Record of {' and '.join(self.names)}: {len(self.entries)} entries>"

    # -- as a picture -------------------------------------------------------------

    def __str__(self) -> str:
        """Draw the conversation in two columns for a terminal: the last 40 rows."""
        return terminal_diagram(self.names, *self._drawn())

    def to_svg(self) -> str:
        """Return a sequence diagram in SVG, for light and dark backgrounds."""
        return draw_svg(self.names, *self._drawn())

    def to_mermaid(self) -> str:
        """Return the source of a sequence diagram for Mermaid."""
        return draw_mermaid(self.names, *self._drawn())

    def to_html(self) -> str:
        """Return an HTML page that shows the conversation, in a single file.

        Its reader can filter the rows, and open each message and each Close.
        """
        return draw_html(self.names, *self._drawn())

    def _drawn(self) -> tuple[tuple[Entry, ...], FailedStep | None]:
        return self.entries[: self._drawing.length], self._drawing.failure

    # -- when a test fails --------------------------------------------------------

    def _fail(self, name: str, what: str, entry: int | None = None) -> None:
        """Mark a failed step, with what waits at this moment.

        Args:
            name: The name of the half that the step belongs to.
            what: What went wrong.
            entry: The index of the unexpected entry, if there is one.
        """
        self._drawing.failure = self._step(name, what, entry)

    def _step(self, half: str, what: str, entry: int | None = None) -> FailedStep:
        halves = self.halves.items()
        return FailedStep(
            half,
            what,
            len(self.entries),
            entry,
            [(name, f"{name}: {w}") for name, ws in halves for w in waits_of(ws)],
            [(name, line) for name, ws in halves for line in state_of(ws)],
        )

    def _end_at_failure_of_test(self, exc: BaseException) -> None:
        """End the pictures where the test has failed, before its halves are closed.

        If a step of this record has failed, it stays marked.
        """
        own = isinstance(exc, ConversationError) and exc.record is self
        step = self._drawing.failure if own else None
        if step is None:
            now = self._drawing.end_of_test or self._step(self.names[0], "")
            what = f"the test failed here: {in_one_line(exc)}"
            step = attrs.evolve(now, what=what)
        self._drawing.end_at(step)

    def _note_end_of_test(self) -> None:
        """Keep the state at this moment, in case the test has failed."""
        self._drawing.end_of_test = self._step(self.names[0], "")

    def _note_raised(self, exc: Exception, connection: int | None) -> None:
        """Keep the state at which the application has raised an exception.

        Args:
            exc: The exception.
            connection: The number of the connection it was raised for, if known.
        """
        if connection is None or connection in self._connections:
            what = f"the application raised {in_one_line(exc)}"
            self._drawing.raised.append((exc, self._step(self.names[1], what)))

    def _end_where_raised(self, exc: Exception) -> None:
        """End the pictures where the application has raised `exc`, if that is known."""
        for raised, step in self._drawing.raised:
            if raised is exc:
                self._drawing.end_at(step)

    # -- as data ------------------------------------------------------------------

    def to_json(self) -> str:
        """Return the record as JSON, with one entry on each line, without the tasks.

        Binary messages are in hex. A record is complete once both halves have ended,
        such as after the block of `open_test_client()`.
        """
        lines = ",\n  ".join(
            json.dumps(_as_json(entry), ensure_ascii=False) for entry in self.entries
        )
        names = json.dumps(self.names, ensure_ascii=False)
        return (
            f'{{"version": {_VERSION}, "names": {names}, "entries": [\n  {lines}\n]}}\n'
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the record in a text from `to_json()`.

        Raises:
            ValueError: `text` isn't such a text.
        """
        try:
            data = json.loads(text)
            version = data["version"]
            first, second = data["names"]
            record = cls((first, second))
            entries = [_from_json(dict(entry)) for entry in data["entries"]]
        except (KeyError, TypeError, ValueError) as exc:
            msg = f"this isn't a record of a conversation from to_json(): {exc!r}"
            raise ValueError(msg) from exc
        if version != _VERSION:
            msg = f"a record of version {version!r} can't be read, only of {_VERSION}"
            raise ValueError(msg)
        for entry in entries:
            if entry.half not in (first, second):
                what = f"an entry of this record has the half {entry.half!r}"
                msg = f"{what}, but its names are {first!r} and {second!r}"
                raise ValueError(msg)
        record._events = [(None, entry) for entry in entries]
        return record

    # -- as an instrument -----------------------------------------------------------

    def pair_made(self, first: WebSocket, second: WebSocket) -> None:
        """See `Instrument`."""
        self._other[first], self._other[second] = second, first
        if not self._name_of:
            self._name_of = dict(zip((first, second), self.names, strict=True))

    def connected(self, ws: WebSocket, connection: ConnectionInfo) -> None:
        """See `Instrument`."""
        self._connections.add(connection.id)
        # The two ends of a connection report it in either order.
        for half in self._coupled & self._name_of.keys():
            del self._name_of[half]
        name = self.names[connection.side == "server"]
        if name not in self._name_of.values():
            self._name_of[self._other[ws]] = name

    def taken(self, ws: WebSocket, by: TakenBy) -> None:
        """See `Instrument`."""
        if by == "connection":
            self._coupled.add(ws)
        else:
            self._keep(ws, Entry(self._now(), "", "accept"))

    def sent(self, ws: WebSocket, message: str | bytes) -> None:
        """See `Instrument`."""
        self._keep(ws, Entry(self._now(), "", "send", message))

    def received(self, ws: WebSocket, message: str | bytes) -> None:
        """See `Instrument`."""
        self._keep(ws, Entry(self._now(), "", "receive", message))

    def close_sent(self, ws: WebSocket, code: int, reason: str) -> None:
        """See `Instrument`."""
        self._keep(ws, Entry(self._now(), "", "close", code=code, reason=reason))

    def closed(self, ws: WebSocket, event: CloseEvent, error: Exception | None) -> None:
        """See `Instrument`."""
        entry = Entry(
            self._now(),
            "",
            "closed",
            code=event.code,
            reason=event.reason,
            was_clean=event.was_clean,
            error="" if error is None else f"{type(error).__name__}: {error}",
        )
        self._keep(ws, entry)

    def _now(self) -> float:
        now = trio.current_time()
        if self._began is None:
            self._began = now
        return now - self._began

    def _keep(self, ws: WebSocket, entry: Entry) -> None:
        task = trio.lowlevel.current_task().name
        self._events.append((ws, attrs.evolve(entry, task=task)))


class ConversationError(AssertionError):
    """A half has received something unexpected, or nothing in time.

    The text shows the conversation.
    """

    record: Record
    """The conversation. Its pictures mark the failed step."""

    def __init__(self, message: str, record: Record) -> None:
        super().__init__(message, record)
        self.record = record

    def __str__(self) -> str:
        return str(self.args[0])


def in_one_line(exc: BaseException) -> str:
    """Return the type of an exception and the first line of its text.

    A group with a single exception is described by that exception.
    """
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        if len(group.exceptions) == 1:
            return in_one_line(group.exceptions[0])
        exc = cast("BaseException", group)
    text, _, rest = str(exc).strip().partition("\n")
    more = " …" if rest else ""
    name = type(exc).__name__
    return cut(f"{name}: {text}{more}" if text else name)


def cut(text: str, most: int = 600) -> str:
    """Shorten a long text for a report: to its start and its end."""
    if len(text) <= most:
        return text
    side = most // 2
    return f"{text[:side]} … {len(text) - 2 * side:,} more … {text[-side:]}"


def _check_names(names: Sequence[str]) -> None:
    things = names if isinstance(names, (tuple, list)) else ()
    if [isinstance(name, str) for name in things] != [True, True]:
        msg = f"names are two strings such as ('client', 'server'), not {names!r}"
        raise TypeError(msg)


def _as_json(entry: Entry) -> dict[str, Any]:
    """Return the fields of an entry that are not empty, without its task."""
    fields = attrs.asdict(entry, filter=lambda field, value: value != field.default)
    fields.pop("task", None)  # Names of tasks may change with the implementation.
    message = fields.pop("message", None)
    if message is not None:
        fields["text" if isinstance(message, str) else "binary"] = (
            message if isinstance(message, str) else message.hex()
        )
    return {**fields, "time": round(entry.time, 6)}


def _from_json(fields: dict[str, Any]) -> Entry:
    message = fields.pop("text", None)
    binary = fields.pop("binary", None)
    return Entry(
        message=bytes.fromhex(binary) if binary is not None else message, **fields
    )

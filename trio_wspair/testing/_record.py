"""`Record`: what the two halves of a conversation have sent and received, in order.

Knows which halves belong to the conversation, and what they wait for at the moment when
a test fails. How a record is drawn is known in `_pictures`.
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
        lines.append("nobody has called accept()")
    if (
        half.listener_task is None
        and half.state.holder is Holder.APPLICATION
        and half.state.end is None
        and "message" not in half.listeners
    ):
        lines.append("it has no listener for messages")
    return lines


def waits_of(socket: WebSocket) -> list[str]:
    """Return the steps that wait at a half."""
    half = half_of(socket)
    lines: list[str] = []
    if half.inbox.items.statistics().tasks_waiting_receive:
        lines.append("receive(), or iteration, waits for a message")
    task = half.listener_task
    # What has just raised runs, and waits for nothing.
    if task is not None and task is not trio.lowlevel.current_task():
        by_object = half.state.holder is Holder.HIBERNATION
        what = "its Durable Object" if by_object else "a listener"
        lines.append(f"{what} waits{place_of(task)}")
    return lines


def place_of(task: trio.lowlevel.Task) -> str:
    """Return where a task waits in the code of the user, ``""`` if that is unknown.

    It is unknown of a handler of a Durable Object, which is driven step by step.
    """
    place = ""
    for frame, line in task.iter_await_frames():
        if not is_inside(frame):
            code = frame.f_code
            name = code.co_qualname.rpartition("<locals>.")[2]
            place = f", in {name}, {PurePath(code.co_filename).name}:{line}"
    return place


def is_inside(frame: FrameType) -> bool:
    """Return whether code of this library or of Trio runs in a frame."""
    name = str(frame.f_globals.get("__name__", ""))
    return name.partition(".")[0] in _INNER_PACKAGES


_VERSION: Final = 1


class Record(Instrument):
    """The conversation of two halves, as an instrument that keeps what it is told.

    The halves are those of the first pair that is made while it is in use; what a
    network connection has taken is replaced by who talks through it, on the other side
    or on this one. Of other pairs nothing is kept.

    Args:
        names: What the two are called: the client's first.

    Raises:
        TypeError: They are not two texts.
        ValueError: The two have the same name.
    """

    def __init__(self, names: tuple[str, str] = ("client", "server")) -> None:
        _check_names(names)
        first, second = names
        if first == second:
            msg = f"two halves need two names, not {first!r} twice"
            raise ValueError(msg)
        self.names = names
        """What the two halves are called."""
        self._heard: list[tuple[WebSocket | None, Entry]] = []
        self._other: dict[WebSocket, WebSocket] = {}
        self._name_of: dict[WebSocket, str] = {}
        self._coupled: set[WebSocket] = set()
        self._began: float | None = None
        self._failure: FailedStep | None = None
        self._end: FailedStep | None = None
        """Where the test has ended, if somebody has told."""
        self._drawn_to: int | None = None
        """How many entries are drawn, if that was decided."""
        self._connections: set[int] = set()
        self._raised: list[tuple[Exception, FailedStep]] = []

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What has happened so far, in order."""
        return tuple(
            entry if ws is None else attrs.evolve(entry, half=self._name_of[ws])
            for ws, entry in self._heard
            if ws is None or ws in self._name_of
        )

    @property
    def halves(self) -> dict[str, WebSocket]:
        """The two halves by their names, as far as they exist in this process."""
        return {name: ws for ws, name in self._name_of.items()}

    @property
    def failure(self) -> FailedStep | None:
        """The step at which a test has failed, and which the pictures mark."""
        return self._failure

    def __repr__(self) -> str:
        return f"<Record of {' and '.join(self.names)}: {len(self.entries)} entries>"

    # -- as a picture -------------------------------------------------------------

    def __str__(self) -> str:
        """Draw the conversation in two columns for a terminal: the last 40 rows."""
        return terminal_diagram(self.names, *self._drawn())

    def to_svg(self) -> str:
        """Draw a sequence diagram in SVG, for light and dark backgrounds."""
        return draw_svg(self.names, *self._drawn())

    def to_mermaid(self) -> str:
        """Return the source of a sequence diagram for Mermaid."""
        return draw_mermaid(self.names, *self._drawn())

    def to_html(self) -> str:
        """Return a page to look at the conversation, which needs no other file.

        One can filter what it shows, and open each message and each Close.
        """
        return draw_html(self.names, *self._drawn())

    def _drawn(self) -> tuple[tuple[Entry, ...], FailedStep | None]:
        return self.entries[: self._drawn_to], self._failure

    # -- when a test fails --------------------------------------------------------

    def _fail(self, name: str, what: str, entry: int | None = None) -> None:
        """Mark what has gone wrong, and keep what waits at this moment.

        Args:
            name: Whose step it was.
            what: What has gone wrong.
            entry: The index of the entry that was not expected, if there is one.
        """
        self._failure = self._step(name, what, entry)

    def _step(self, name: str, what: str, entry: int | None = None) -> FailedStep:
        halves = self.halves.items()
        return FailedStep(
            name,
            what,
            len(self.entries),
            entry,
            [(who, f"{who}: {step}") for who, ws in halves for step in waits_of(ws)],
            [(who, line) for who, ws in halves for line in state_of(ws)],
        )

    def _stop_drawing(self, exc: BaseException) -> None:
        """End the pictures where the test has failed with this: what follows is leave.

        A step that was marked stays marked if it is what has failed now.
        """
        failed = isinstance(exc, ConversationError) and exc.record is self
        step = self._failure if failed else None
        if step is None:
            what = f"the test failed here: {in_one_line(exc)}"
            step = attrs.evolve(self._end or self._step(self.names[0], ""), what=what)
        self._failure, self._drawn_to = step, step.at

    def _end_of_test(self) -> None:
        """Remember this moment, in case the test turns out to have failed at it."""
        self._end = self._step(self.names[0], "")

    def _hear_failure(self, exc: Exception, connection: int | None) -> None:
        """Remember where something was raised in the application.

        Args:
            exc: What was raised.
            connection: The number of the connection for which, if that is known.
        """
        if connection is None or connection in self._connections:
            what = f"the application raised {in_one_line(exc)}"
            self._raised.append((exc, self._step(self.names[1], what)))

    def _stop_drawing_at_failure(self, exc: Exception) -> None:
        """End the pictures where this was raised, if that was remembered."""
        for raised, step in self._raised:
            if raised is exc:
                self._failure, self._drawn_to = step, step.at

    # -- as data ------------------------------------------------------------------

    def to_json(self) -> str:
        """Return the record as JSON, one entry a line, without the tasks.

        Binary messages are hex. Whole is a record after the end: after the block that
        has opened the client, for example.
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
        """Return the record that `to_json()` has written.

        Raises:
            ValueError: It has not written this.
        """
        try:
            data = json.loads(text)
            version = data["version"]
            first, second = data["names"]
            record = cls((first, second))
            entries = [_from_json(dict(entry)) for entry in data["entries"]]
        except (KeyError, TypeError, ValueError) as exc:
            msg = f"this is no record of a conversation: {exc!r}"
            raise ValueError(msg) from exc
        if version != _VERSION:
            msg = f"a record of version {version!r} can't be read, only {_VERSION}"
            raise ValueError(msg)
        for entry in entries:
            if entry.half not in (first, second):
                msg = f"this record is of {first!r} and {second!r}, not {entry.half!r}"
                raise ValueError(msg)
        record._heard = [(None, entry) for entry in entries]
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
        # Which side is told of it first is a matter of luck.
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
        told = "" if error is None else f"{type(error).__name__}: {error}"
        entry = Entry(
            self._now(),
            "",
            "closed",
            code=event.code,
            reason=event.reason,
            was_clean=event.was_clean,
            error=told,
        )
        self._keep(ws, entry)

    def _now(self) -> float:
        now = trio.current_time()
        if self._began is None:
            self._began = now
        return now - self._began

    def _keep(self, ws: WebSocket, entry: Entry) -> None:
        task = trio.lowlevel.current_task().name
        self._heard.append((ws, attrs.evolve(entry, task=task)))


class ConversationError(AssertionError):
    """A half has not heard what was expected. The text shows the conversation."""

    record: Record
    """The conversation. Its pictures mark the step that has failed."""

    def __init__(self, message: str, record: Record) -> None:
        super().__init__(message, record)
        self.record = record

    def __str__(self) -> str:
        return str(self.args[0])


def in_one_line(exc: BaseException) -> str:
    """Return the type of an exception and the first line of its text.

    Of a group with only one in it, it is about that one.
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
    """Return a text that is not too long for a report: its start and its end."""
    if len(text) <= most:
        return text
    side = most // 2
    return f"{text[:side]} … {len(text) - 2 * side:,} more … {text[-side:]}"


def _check_names(names: Sequence[str]) -> None:
    things = names if isinstance(names, (tuple, list)) else ()
    if [isinstance(name, str) for name in things] != [True, True]:
        msg = f"names are two, such as ('client', 'server'), not {names!r}"
        raise TypeError(msg)


def _as_json(entry: Entry) -> dict[str, Any]:
    """Return an entry without what it does not have."""
    fields = attrs.asdict(entry, filter=lambda field, value: value != field.default)
    fields.pop("task", None)  # It names what is inside, which may change.
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

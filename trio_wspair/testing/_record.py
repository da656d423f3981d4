"""`Record`: what two halves have said and heard, in order.

Knows which halves belong to the conversation; how it is drawn is known next door.
"""

import json
from typing import Any, Final, Self

import attrs
import trio

from trio_wspair._instruments import ConnectionInfo, Instrument, TakenBy
from trio_wspair._socket import CloseEvent, WebSocket

from ._entries import Entry
from ._pictures import draw_html, draw_mermaid, draw_svg, terminal_diagram

__all__ = ("Record",)

_VERSION: Final = 1


class Record(Instrument):
    """The conversation of two halves, as an instrument that keeps what it is told.

    The halves are those of the first pair that is made while it is in use; what a
    network connection has taken is replaced by who talks through it, on the other side
    or on this one. Of other pairs nothing is kept.

    Args:
        names: What the two are called: the client's first.

    Raises:
        ValueError: The two have the same name.
    """

    def __init__(self, names: tuple[str, str] = ("client", "server")) -> None:
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

    def __repr__(self) -> str:
        return f"<Record of {' and '.join(self.names)}: {len(self.entries)} entries>"

    # -- as a picture -------------------------------------------------------------

    def __str__(self) -> str:
        """Draw the conversation in two columns for a terminal: the last 40 rows."""
        return terminal_diagram(self.names, self.entries)

    def to_svg(self) -> str:
        """Draw a sequence diagram in SVG, for light and dark backgrounds."""
        return draw_svg(self.names, self.entries)

    def to_mermaid(self) -> str:
        """Return the source of a sequence diagram for Mermaid."""
        return draw_mermaid(self.names, self.entries)

    def to_html(self) -> str:
        """Return a page to look at the conversation, which needs no other file.

        One can filter what it shows, and open each message and each Close.
        """
        return draw_html(self.names, self.entries)

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
        record = cls((first, second))
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

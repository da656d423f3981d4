"""The report of a soak test: its numbers and the faults in them."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import attrs

from soak.numbers import Numbers, what_is_left

MEGABYTE: Final = 2**20


@attrs.frozen
class Moment:
    """The numbers of both processes at a moment without connections."""

    name: str
    server: Numbers
    clients: Numbers


@attrs.define
class Report:
    """The numbers of a soak test."""

    connections: int = 0
    seconds: float = 0.0
    moments: list[Moment] = attrs.Factory(list)
    endings: dict[str, Counter[str]] = attrs.Factory(dict)
    """How often each kind of client or handler has seen each kind of end."""
    wrong: list[str] = attrs.Factory(list)
    """The faults."""

    def note(self, unraisable: Any) -> None:
        """Record an unraisable error, such as a warning of a finalizer, as a fault."""
        self.wrong.append(f"the clients: {unraisable.exc_value!r}")

    def judge(self) -> None:
        """Compare the last moment with the earlier ones.

        Descriptors, tasks and halves are compared with the moment before the first
        connection. Memory is compared with the middle of the run, because caches and
        the heap grow at first.
        """
        first, middle, last = self.moments[0], self.moments[-2], self.moments[-1]
        for name in ("server", "clients"):
            numbers = getattr(last, name)
            left = what_is_left(getattr(first, name), getattr(middle, name), numbers)
            self.wrong += [f"{name}: {what}" for what in left]

    def text(self) -> str:
        """Return the report as text."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.connections} connections in {self.seconds:.0f} s"
        for name in ("server", "clients"):
            every = [getattr(moment, name) for moment in self.moments]
            yield ""
            yield _row(f"the {name}", [moment.name for moment in self.moments])
            yield _row("descriptors", [sum(n.descriptors.values()) for n in every])
            yield _row("tasks", [sum(n.tasks.values()) for n in every])
            yield _row("memory (MiB)", [f"{n.memory / MEGABYTE:.2f}" for n in every])
            yield _row("memory (blocks)", [n.blocks for n in every])
            yield _row("halves", [n.halves for n in every])
        for kind, counts in self.endings.items():
            yield ""
            yield f"{kind}:"
            for what, count in sorted(counts.items()):
                yield f"{count:8}  {what}"


def _row(name: str, values: list[object]) -> str:
    return f"{name:18}" + "".join(f"{value!s:>14}" for value in values)
